//! A batch on the device: its buffers, what goes in before the first row and what comes out after the last.
//!
//! The idea: everything is allocated before anything runs, and while an image grows nothing passes between
//! host and device but launches. Addresses do not change from one batch of the same shape to the next,
//! so that graphs that were captured for one serve the others.

use bytemuck::{Zeroable, bytes_of, cast_slice};
use ndarray::Array4;

use super::driver::{Buffer, Device};
use super::kernels::Kernel;
use super::layout::{Extent, Grid};
use super::stage::{self, Cursor, Sampler, Stage};
use super::table::{Step, Table};
use crate::config::ModelConfig;
use crate::engine::{Batch, Made, Noise};
use crate::error::{Error, Result};

/// Threads of the kernels that have a thread for each number.
const MANY: u32 = 256;
/// Warps of the sampler's block, at most.
const SAMPLER_WARPS: usize = 32;

/// What a batch needs beyond images and classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extras {
    /// Room for the logits that are kept.
    pub logits: bool,
    /// Room for random numbers that are given.
    pub noise: bool,
}

impl Extras {
    /// What a batch asks for.
    pub fn of(batch: &Batch) -> Extras {
        Extras { logits: batch.keep_logits, noise: matches!(batch.noise, Noise::Given { .. }) }
    }

    /// Bytes of a batch beyond its arena.
    pub fn bytes(&self, extent: Extent, config: &ModelConfig) -> u64 {
        let Extent { batch, height, width } = extent;
        let mut floats = 3;
        if self.logits {
            floats += config.logits();
        }
        if self.noise {
            floats += config.mixtures + 3;
        }
        let numbers = [batch, height, width, floats, size_of::<f32>()];
        numbers.into_iter().fold(1, |bytes: u64, n| bytes.saturating_mul(n as u64))
    }
}

/// The kernels that begin and end every batch.
pub const KERNELS: [Kernel; 4] = [Kernel::Reset, Kernel::Push, Kernel::Pop, Kernel::Cursor];

/// The buffers of a batch.
pub struct Loaded {
    extent: Extent,
    config: ModelConfig,
    arena: Buffer<f32>,
    stages: Buffer<u8>,
    classes: Buffer<i32>,
    cursor: Buffer<u8>,
    sampler: Buffer<u8>,
    /// `[batch, height, width, 3]`: given pixels go in here and all pixels come out.
    pixels: Buffer<f32>,
    kept_logits: Option<Buffer<f32>>,
    mixture_noise: Option<Buffer<f32>>,
    logistic_noise: Option<Buffer<f32>>,
    image: Grid,
    logits: Grid,
    /// What every kernel gets.
    pub args: stage::Batch,
}

/// What the schedule asks for.
pub struct Plan<'a> {
    /// The stages.
    pub table: &'a Table,
    /// Floats of the arena.
    pub arena: usize,
    /// The image.
    pub image: Grid,
    /// The logits.
    pub logits: Grid,
}

fn blocks(threads: usize) -> [u32; 3] {
    [threads.div_ceil(MANY as usize) as u32, 1, 1]
}

impl Loaded {
    /// Allocates everything.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn new(
        device: &Device,
        config: ModelConfig,
        weights: &Buffer<f32>,
        extent: Extent,
        extras: Extras,
        plan: &Plan,
    ) -> Result<Loaded> {
        let Extent { batch, height, width } = extent;
        let pixels = batch * height * width;
        let some = |wanted: bool, len: usize| wanted.then(|| device.zeroed::<f32>(len)).transpose();
        let mut loaded = Loaded {
            extent,
            config,
            arena: device.zeroed(plan.arena)?,
            stages: device.upload(cast_slice(&plan.table.stages))?,
            classes: device.zeroed(batch)?,
            cursor: device.zeroed(size_of::<Cursor>())?,
            sampler: device.zeroed(size_of::<Sampler>())?,
            pixels: device.zeroed(pixels * 3)?,
            kept_logits: some(extras.logits, pixels * config.logits())?,
            mixture_noise: some(extras.noise, pixels * config.mixtures)?,
            logistic_noise: some(extras.noise, pixels * 3)?,
            image: plan.image,
            logits: plan.logits,
            args: stage::Batch::zeroed(),
        };
        loaded.args = stage::Batch {
            arena: loaded.arena.as_device_ptr().as_raw(),
            weights: weights.as_device_ptr().as_raw(),
            classes: loaded.classes.as_device_ptr().as_raw(),
            cursor: loaded.cursor.as_device_ptr().as_raw(),
            size: batch as i32,
            height: height as i32,
            width: width as i32,
            padding: 0,
        };
        Ok(loaded)
    }

    /// Brings a batch to the device: zeros in all rings, the given pixels, classes and noise.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn begin(&mut self, device: &Device, batch: &Batch) -> Result<()> {
        let zeros: Vec<u32>;
        let labels = match batch.labels {
            Some(labels) => labels,
            None => {
                zeros = vec![0; batch.size];
                &zeros
            }
        };
        device.write(&mut self.classes, 0, cast_slice(labels))?;
        let cursor = Cursor { row: 0, column: 0, fault: u64::MAX };
        device.write(&mut self.cursor, 0, bytes_of(&cursor))?;
        let mut sampler = Sampler {
            logits: self.logits,
            image: self.image,
            mixtures: self.config.mixtures as i32,
            temperature: batch.temperature,
            kept_logits: self.kept_logits.as_ref().map_or(0, |b| b.as_device_ptr().as_raw()),
            ..Sampler::zeroed()
        };
        match &batch.noise {
            Noise::Philox { seed, first_index } => {
                (sampler.seed, sampler.first_index) = (*seed, *first_index as u32);
            }
            Noise::Given { mixture, logistic } => {
                for (buffer, numbers, address) in [
                    (&mut self.mixture_noise, mixture, &mut sampler.mixture_noise),
                    (&mut self.logistic_noise, logistic, &mut sampler.logistic_noise),
                ] {
                    let buffer = buffer.as_mut().expect("room for noise was asked for");
                    let numbers = numbers.as_standard_layout();
                    device.write(buffer, 0, numbers.as_slice().expect("standard layout"))?;
                    *address = buffer.as_device_ptr().as_raw();
                }
            }
        }
        device.write(&mut self.sampler, 0, bytes_of(&sampler))?;
        if let Some(given) = batch.given.filter(|g| g.rows > 0) {
            let images = given.images.as_standard_layout();
            device.write(&mut self.pixels, 0, images.as_slice().expect("standard layout"))?;
        }
        self.reset(device, self.args.arena, self.arena.len() * size_of::<f32>())?;
        let rows = batch.given.map_or(0, |g| g.rows);
        if rows > 0 {
            let threads = batch.size * rows * batch.width;
            let (pixels, rows) = (self.pixels.as_device_ptr().as_raw(), rows as i32);
            let args = [bytes_of(&pixels), bytes_of(&self.image), bytes_of(&self.args), bytes_of(&rows)];
            // SAFETY: the arguments of cache_push_f32; the given rows lie in the image.
            unsafe { device.launch(Kernel::Push, blocks(threads), MANY, &args)? };
        }
        Ok(())
    }

    /// Fills memory with zeros; the bytes are a multiple of 16.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn reset(&self, device: &Device, address: u64, bytes: usize) -> Result<()> {
        let quads = bytes as u64 / 16;
        let most = device.properties.multiprocessors * 8;
        let grid = (quads as usize).div_ceil(MANY as usize).clamp(1, most);
        let args = [bytes_of(&address), bytes_of(&quads)];
        // SAFETY: the arguments of cache_reset_f32; the caller's memory has so many bytes.
        unsafe { device.launch(Kernel::Reset, [grid as u32, 1, 1], MANY, &args) }
    }

    /// Launches a step where the cursor stands.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn step(&self, device: &Device, step: &Step) -> Result<()> {
        let stages = self.stages() + (step.first * size_of::<Stage>()) as u64;
        let grid = [step.x, step.y, step.count as u32];
        // SAFETY: the arguments of masked_conv; every address in the table lies in the arena or the weights.
        unsafe {
            let args = [bytes_of(&stages), bytes_of(&self.args)];
            device.launch(step.kernel(), grid, stage::THREADS as u32, &args)
        }
    }

    /// Draws the cursor's pixel of every image and moves the cursor on.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn sample(&self, device: &Device) -> Result<()> {
        let warps = self.extent.batch.min(SAMPLER_WARPS) as u32;
        let sampler = self.sampler();
        // SAFETY: the arguments of sample_f32.
        unsafe {
            device.launch(Kernel::Sample, [1; 3], warps * 32, &[bytes_of(&sampler), bytes_of(&self.args)])
        }
    }

    /// Moves the cursor to the begin of a row.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn move_to(&self, device: &Device, row: usize) -> Result<()> {
        let (row, column) = (row as i32, 0i32);
        // SAFETY: the arguments of cursor_f32.
        unsafe {
            device.launch(
                Kernel::Cursor,
                [1; 3],
                1,
                &[bytes_of(&self.args.cursor), bytes_of(&row), bytes_of(&column)],
            )
        }
    }

    /// Keeps the logits of some rows, if that was asked for.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn keep_logits(&self, device: &Device, first: usize, rows: usize) -> Result<()> {
        match &self.kept_logits {
            None => Ok(()),
            Some(kept) => {
                let target = kept.as_device_ptr().as_raw();
                self.pop(device, target, self.logits, [first, rows], self.config.logits())
            }
        }
    }

    /// Takes rows out of a grid, into `[batch, height, width, channels]`.
    fn pop(
        &self,
        device: &Device,
        target: u64,
        grid: Grid,
        [first, rows]: [usize; 2],
        channels: usize,
    ) -> Result<()> {
        let threads = self.extent.batch * rows * self.extent.width * channels;
        let (first, rows, channels) = (first as i32, rows as i32, channels as i32);
        let args = [
            bytes_of(&target),
            bytes_of(&grid),
            bytes_of(&self.args),
            bytes_of(&first),
            bytes_of(&rows),
            bytes_of(&channels),
        ];
        // SAFETY: the arguments of cache_pop_f32; the target has room for all rows.
        unsafe { device.launch(Kernel::Pop, blocks(threads), MANY, &args) }
    }

    /// Waits for the batch and fetches it.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for the first pixel that could not be drawn, [`Error::Device`].
    pub fn finish(&self, device: &Device) -> Result<Made> {
        let Extent { batch, height, width } = self.extent;
        self.pop(device, self.pixels.as_device_ptr().as_raw(), self.image, [0, height], 3)?;
        let mut cursor = [0; size_of::<Cursor>()];
        device.read(&self.cursor, &mut cursor)?;
        let fault = bytemuck::pod_read_unaligned::<Cursor>(&cursor).fault;
        if fault != u64::MAX {
            let (pixel, image) = (fault as usize / batch, fault as usize % batch);
            return Err(Error::NotFinite { image, row: pixel / width, column: pixel % width });
        }
        let fetch = |buffer: &Buffer<f32>, channels: usize| -> Result<Array4<f32>> {
            let mut array = Array4::zeros((batch, height, width, channels));
            device.read(buffer, array.as_slice_mut().expect("a new array is contiguous"))?;
            Ok(array)
        };
        let images = fetch(&self.pixels, 3)?;
        let logits = self.kept_logits.as_ref().map(|kept| fetch(kept, self.config.logits())).transpose()?;
        Ok(Made { images, logits })
    }

    /// The log-likelihoods of the pixels that were given, in nats, from the logits that were kept:
    /// `[batch, height, width]`; NaN where a logit is not finite.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn log_likelihoods(&self, device: &Device) -> Result<Vec<f64>> {
        let Extent { batch, height, width } = self.extent;
        let count = batch * height * width;
        let nats = device.zeroed::<f64>(count)?;
        let kept = self.kept_logits.as_ref().expect("room for logits was asked for");
        let (images, logits) = (self.pixels.as_device_ptr().as_raw(), kept.as_device_ptr().as_raw());
        let (target, positions) = (nats.as_device_ptr().as_raw(), count as u64);
        let mixtures = self.config.mixtures as i32;
        let args = [
            bytes_of(&images),
            bytes_of(&logits),
            bytes_of(&target),
            bytes_of(&positions),
            bytes_of(&mixtures),
        ];
        // SAFETY: the arguments of log_likelihood_f32.
        unsafe { device.launch(Kernel::LogLikelihood, blocks(count), MANY, &args)? };
        let mut all = vec![0.0; count];
        device.read(&nats, &mut all)?;
        Ok(all)
    }

    /// The device's address of the table of stages.
    pub fn stages(&self) -> u64 {
        self.stages.as_device_ptr().as_raw()
    }

    /// The device's address of the sampler.
    pub fn sampler(&self) -> u64 {
        self.sampler.as_device_ptr().as_raw()
    }
}
