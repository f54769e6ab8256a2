//! A batch on the device: its buffers, what goes in before the first row and what comes out after the last.
//!
//! The idea: everything is allocated before anything runs, and while an image grows nothing passes between
//! host and device but launches. Addresses do not change from one batch of the same shape to the next,
//! so that graphs that were captured for one serve the others. What is given and what is drawn are arrays of their own,
//! from which the maps get a row when it begins.

use std::ops::Range;

use bytemuck::{Zeroable, bytes_of, cast_slice};
use ndarray::Array4;

use super::abi::{self, Cursor, Grid, Sampler};
use super::driver::{Buffer, Device, Shape};
use super::kernels::Kernel;
use super::stage::{Launch, Table};
use crate::engine::{Batch, Noise, Output};
use crate::error::{Error, Result};
use crate::graph::{Graph, IMAGE};
use crate::heads::Head;
use crate::philox;
use crate::plan::layout::Extent;

/// Block size of the element-wise kernels.
const ELEMENTWISE: usize = 256;
/// Where generation stands, and the row of what is launched for another one meanwhile.
const CURSORS: usize = 2;
/// Warps of the sampler's block, at most.
pub const SAMPLER_WARPS: usize = 16;

/// What a batch needs beyond images and classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extras {
    /// Room for the logits that are kept.
    pub logits: bool,
    /// Room for random numbers that the device does not make itself.
    pub noise: bool,
    /// Room for the log-likelihoods of given pixels.
    pub nats: bool,
}

impl Extras {
    /// What a batch to be made asks for.
    pub fn of(batch: &Batch) -> Extras {
        let noise = !matches!(batch.noise, Noise::Philox { .. });
        Extras { logits: batch.keep_logits, noise, nats: false }
    }

    /// Bytes of all buffers of a batch but its arena and its tables.
    pub fn bytes(&self, extent: Extent, graph: &Graph) -> u64 {
        let Extent { batch, height, width } = extent;
        let mut of_pixel = (graph.head.values() + known_channels(graph)) * size_of::<f32>();
        if self.logits {
            of_pixel += graph.head.logits() * size_of::<f32>();
        }
        if self.noise {
            of_pixel += graph.head.draws() * size_of::<f32>();
        }
        if self.nats {
            of_pixel += size_of::<f64>();
        }
        let mut of_image = size_of::<i32>() as u64;
        if graph.input.previous {
            of_image += (graph.head.values() * size_of::<f32>()) as u64;
        }
        let pixels = [height, width, of_pixel].into_iter().fold(1, |n: u64, d| n.saturating_mul(d as u64));
        let images = pixels.saturating_add(of_image).saturating_mul(batch as u64);
        images.saturating_add((CURSORS * size_of::<Cursor>() + size_of::<Sampler>()) as u64)
    }
}

/// Channels of what is given for every position.
fn known_channels(graph: &Graph) -> usize {
    graph.input.known.map_or(0, |map| graph.maps[map].channels)
}

/// The kernels of every batch for what enters and leaves it.
pub const KERNELS: [Kernel; 5] = [Kernel::Reset, Kernel::Enter, Kernel::Push, Kernel::Pop, Kernel::Cursor];

/// The buffers of a batch.
pub struct Loaded {
    extent: Extent,
    head: Head,
    arena: Buffer<f32>,
    records: Buffer<u8>,
    classes: Buffer<i32>,
    cursor: Buffer<u8>,
    sampler: Buffer<u8>,
    /// What it is told.
    told: Sampler,
    /// `[batch, height, width, values]`: given pixels go in here and all pixels come out.
    pixels: Buffer<f32>,
    /// `[batch, values]`: the pixel before the first of each image, where the network reads that.
    start: Option<Buffer<f32>>,
    /// `[batch, height, width, channels]`: what is given for every position, and its channels.
    known: Option<(Buffer<f32>, usize)>,
    kept_logits: Option<Buffer<f32>>,
    noise: Option<Buffer<f32>>,
    nats: Option<Buffer<f64>>,
    places: Places,
    /// The row of the images with which the maps begin.
    first: usize,
    /// What every kernel gets.
    pub args: abi::Batch,
}

/// Where in the arena is what enters and leaves it.
#[derive(Clone, Copy)]
pub struct Places {
    /// Floats of the arena.
    pub arena: usize,
    /// Rows of the images that the maps are for at a time.
    pub rows: usize,
    /// The image.
    pub image: Grid,
    /// What is given for every position.
    pub known: Option<Grid>,
    /// The logits.
    pub logits: Grid,
}

/// The launch of an element-wise kernel, with a thread for each element.
pub fn elementwise(numbers: usize) -> Shape {
    Shape::row(numbers.div_ceil(ELEMENTWISE) as u32, ELEMENTWISE as u32)
}

/// Where a buffer lies on the device; null for none.
fn address(buffer: &Option<Buffer<f32>>) -> u64 {
    buffer.as_ref().map_or(0, |buffer| buffer.as_device_ptr().as_raw())
}

/// Moves the cursor at an address to the start of a row.
fn move_cursor(device: &Device, cursor: u64, row: usize) -> Result<()> {
    let (row, column) = (row as i32, 0i32);
    // SAFETY: the arguments of cursor_f32.
    unsafe {
        let args = [bytes_of(&cursor), bytes_of(&row), bytes_of(&column)];
        device.launch(Kernel::Cursor, Shape::row(1, 1), &args)
    }
}

fn floats<'a>(array: &'a ndarray::CowArray<'_, f32, ndarray::Ix4>) -> &'a [f32] {
    array.as_slice().expect("standard layout")
}

impl Loaded {
    /// Allocates everything.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn new(
        device: &Device,
        graph: &Graph,
        weights: &Buffer<f32>,
        extent: Extent,
        extras: Extras,
        table: &Table,
        places: Places,
    ) -> Result<Loaded> {
        let Extent { batch, height, width } = extent;
        let (pixels, head) = (batch * height * width, graph.head);
        let some = |wanted: bool, len: usize| wanted.then(|| device.zeroed::<f32>(len)).transpose();
        let channels = known_channels(graph);
        let mut loaded = Loaded {
            extent,
            head,
            arena: device.zeroed(places.arena)?,
            records: device.upload(&table.records())?,
            classes: device.zeroed(batch)?,
            cursor: device.zeroed(CURSORS * size_of::<Cursor>())?,
            sampler: device.zeroed(size_of::<Sampler>())?,
            told: Sampler::zeroed(),
            pixels: device.zeroed(pixels * head.values())?,
            start: some(graph.input.previous, batch * head.values())?,
            known: some(channels > 0, pixels * channels)?.map(|known| (known, channels)),
            kept_logits: some(extras.logits, pixels * head.logits())?,
            noise: some(extras.noise, pixels * head.draws())?,
            nats: extras.nats.then(|| device.zeroed(pixels)).transpose()?,
            places,
            first: 0,
            args: abi::Batch::zeroed(),
        };
        loaded.args = abi::Batch {
            arena: loaded.arena.as_device_ptr().as_raw(),
            weights: weights.as_device_ptr().as_raw(),
            classes: loaded.classes.as_device_ptr().as_raw(),
            cursor: loaded.cursor.as_device_ptr().as_raw(),
            size: batch as i32,
            height: height as i32,
            width: width as i32,
            parts: table.parts() as i32,
            of_size: abi::reciprocal(batch),
            padding: 0,
        };
        loaded.told.head = head.into();
        loaded.told.noise = address(&loaded.noise);
        loaded.told.kept_logits = address(&loaded.kept_logits);
        loaded.told.input = abi::Input {
            pixels: loaded.pixels.as_device_ptr().as_raw(),
            start: address(&loaded.start),
            ln_symbols: libm::log(head.logits() as f64),
            encoding: graph.input.encoding as i32,
            previous: i32::from(graph.input.previous),
            values: head.values() as i32,
            channels: graph.maps[IMAGE].channels as i32,
            symbols: head.logits() as i32,
            ..abi::Input::zeroed()
        };
        Ok(loaded)
    }

    /// Brings a batch to the device: zeros in all maps, what is given, classes and noise.
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
        self.told.temperature = batch.temperature;
        match &batch.noise {
            Noise::Philox { seed, first_index } => {
                (self.told.seed, self.told.first_index) = (*seed, *first_index as u32);
            }
            Noise::Given(numbers) => {
                let buffer = self.noise.as_mut().expect("room for noise was asked for");
                device.write(buffer, 0, floats(&numbers.as_standard_layout()))?;
            }
            // The kernels count the images of a batch from one index.
            Noise::PhiloxAt { seed, indices } => {
                let buffer = self.noise.as_mut().expect("room for noise was asked for");
                let image = buffer.len() / batch.size;
                let mut numbers = vec![0.0; image];
                for (at, &index) in indices.iter().enumerate() {
                    for (pixel, numbers) in numbers.chunks_exact_mut(self.head.draws()).enumerate() {
                        let (row, column) = (pixel / batch.width, pixel % batch.width);
                        philox::uniforms(*seed, index, row as u32, column as u32, numbers);
                    }
                    device.write(buffer, at * image, cast_slice(&numbers))?;
                }
            }
        }
        self.reset(device, self.args.arena, self.arena.len() * size_of::<f32>())?;
        if let Some(given) = batch.given.filter(|g| g.rows > 0) {
            device.write(&mut self.pixels, 0, floats(&given.images.as_standard_layout()))?;
        }
        if let Some(start) = &mut self.start {
            device.write(start, 0, &batch.starts(&self.head))?;
        }
        if let (Some(known), Some((buffer, _))) = (&batch.known, &mut self.known) {
            device.write(buffer, 0, floats(&known.as_standard_layout()))?;
        }
        self.turn_to(device, 0)
    }

    /// Turns the maps to the rows of the images from `first` on. What they hold there is for [`Loaded::enter`].
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn turn_to(&mut self, device: &Device, first: usize) -> Result<()> {
        self.first = first;
        self.told.logits = self.places.logits.turned_to(first);
        self.told.input.image = self.places.image.turned_to(first);
        self.told.input.end = (first + self.places.rows) as i32;
        device.write(&mut self.sampler, 0, bytes_of(&self.told))
    }

    /// Brings what is given for every position of some rows into its map, and the pixels that fill the first `columns`
    /// positions of the image's map in them into that.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn enter(&self, device: &Device, rows: Range<usize>, columns: usize) -> Result<()> {
        let positions = self.extent.batch * rows.len();
        let (first, rows) = (rows.start as i32, rows.len() as i32);
        if let (Some((known, channels)), Some(grid)) = (&self.known, self.places.known) {
            let (grid, threads) = (grid.turned_to(self.first), positions * self.extent.width * channels);
            let (source, channels) = (known.as_device_ptr().as_raw(), *channels as i32);
            let args = [
                bytes_of(&source),
                bytes_of(&grid),
                bytes_of(&self.args),
                bytes_of(&first),
                bytes_of(&rows),
                bytes_of(&channels),
            ];
            // SAFETY: the arguments of cache_push_f32; the rows lie in the source and in the grid.
            unsafe { device.launch(Kernel::Push, elementwise(threads), &args)? };
        }
        if columns == 0 {
            return Ok(());
        }
        let (input, count) = (self.told.input, columns as i32);
        let args =
            [bytes_of(&input), bytes_of(&self.args), bytes_of(&first), bytes_of(&rows), bytes_of(&count)];
        let threads = positions * columns * input.channels as usize;
        // SAFETY: the arguments of cache_enter_f32; the rows lie in the images and in the map.
        unsafe { device.launch(Kernel::Enter, elementwise(threads), &args) }
    }

    /// Fills memory with zeros; the bytes are a multiple of 16.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn reset(&self, device: &Device, address: u64, bytes: usize) -> Result<()> {
        let quads = bytes as u64 / 16;
        let most = device.properties.multiprocessors * 8;
        let blocks = (quads as usize).div_ceil(ELEMENTWISE).clamp(1, most);
        let shape = Shape::row(blocks as u32, ELEMENTWISE as u32);
        let args = [bytes_of(&address), bytes_of(&quads)];
        // SAFETY: the arguments of cache_reset_f32; the caller's memory has that many bytes.
        unsafe { device.launch(Kernel::Reset, shape, &args) }
    }

    /// Launches stages where the cursor stands, one launch after the other.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn launch<'a>(&self, device: &Device, launches: impl Iterator<Item = &'a Launch>) -> Result<()> {
        self.launch_with(device, launches, &self.args)
    }

    /// Launches stages of a row, wherever the cursor stands: they have one of their own.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn launch_for<'a>(
        &self,
        device: &Device,
        row: usize,
        launches: impl Iterator<Item = &'a Launch>,
    ) -> Result<()> {
        let args = abi::Batch { cursor: self.args.cursor + size_of::<Cursor>() as u64, ..self.args };
        move_cursor(device, args.cursor, row)?;
        self.launch_with(device, launches, &args)
    }

    fn launch_with<'a>(
        &self,
        device: &Device,
        launches: impl Iterator<Item = &'a Launch>,
        args: &abi::Batch,
    ) -> Result<()> {
        for (at, launch) in launches.enumerate() {
            let records = self.records() + launch.first as u64 * u64::from(self.shared());
            // What moves the cursor comes before the first. The others read that, classes, weights and their records, and wait until
            // the last launch has ended before they read or write anything else.
            let follows = at > 0 && launch.awaits();
            let shape = Shape { follows, ..launch.shape(self.shared() as usize) };
            // SAFETY: the arguments of masked_conv; every address in the table lies in the arena or the weights.
            unsafe { device.launch(launch.kernel(), shape, &[bytes_of(&records), bytes_of(args)])? };
        }
        Ok(())
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
            let args = [bytes_of(&sampler), bytes_of(&self.args)];
            device.launch(Kernel::Sample, Shape::row(1, warps * abi::WARP as u32), &args)
        }
    }

    /// Moves the cursor to the start of a row.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn move_to(&self, device: &Device, row: usize) -> Result<()> {
        move_cursor(device, self.args.cursor, row)
    }

    /// Keeps the logits of some rows, if that was asked for.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn keep_logits(&self, device: &Device, rows: Range<usize>) -> Result<()> {
        let Some(kept) = &self.kept_logits else { return Ok(()) };
        let (target, channels) = (kept.as_device_ptr().as_raw(), self.head.logits());
        let threads = self.extent.batch * rows.len() * self.extent.width * channels;
        let (first, rows, channels) = (rows.start as i32, rows.len() as i32, channels as i32);
        let args = [
            bytes_of(&target),
            bytes_of(&self.told.logits),
            bytes_of(&self.args),
            bytes_of(&first),
            bytes_of(&rows),
            bytes_of(&channels),
        ];
        // SAFETY: the arguments of cache_pop_f32; the rows lie in the grid, and the target has room for all.
        unsafe { device.launch(Kernel::Pop, elementwise(threads), &args) }
    }

    /// Waits for the batch and fetches it.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for the first pixel that could not be drawn, [`Error::Device`].
    pub fn finish(&self, device: &Device) -> Result<Output> {
        let Extent { batch, height, width } = self.extent;
        let mut cursor = [0; size_of::<Cursor>()];
        device.read(&self.cursor, &mut cursor)?;
        let fault = bytemuck::pod_read_unaligned::<Cursor>(&cursor).fault;
        if fault != u64::MAX {
            let (pixel, image) = (fault as usize / batch, fault as usize % batch);
            let column = (width > 1).then_some(pixel % width);
            return Err(Error::NotFinite { image, row: pixel / width, column });
        }
        let fetch = |buffer: &Buffer<f32>, channels: usize| -> Result<Array4<f32>> {
            let mut array = Array4::zeros((batch, height, width, channels));
            device.read(buffer, array.as_slice_mut().expect("a new array is contiguous"))?;
            Ok(array)
        };
        let images = fetch(&self.pixels, self.head.values())?;
        let logits = self.kept_logits.as_ref().map(|kept| fetch(kept, self.head.logits())).transpose()?;
        Ok(Output { images, logits })
    }

    /// The log-likelihoods of the pixels that were given, in nats, from the logits that were kept:
    /// `[batch, height, width]`; NaN where a logit is not finite.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn log_likelihoods(&self, device: &Device) -> Result<Vec<f64>> {
        let Extent { batch, height, width } = self.extent;
        let count = batch * height * width;
        let nats = self.nats.as_ref().expect("room for them was asked for");
        let kept = self.kept_logits.as_ref().expect("room for logits was asked for");
        let (images, logits) = (self.pixels.as_device_ptr().as_raw(), kept.as_device_ptr().as_raw());
        let (target, positions) = (nats.as_device_ptr().as_raw(), count as u64);
        let head = abi::Head::from(self.head);
        let args =
            [bytes_of(&images), bytes_of(&logits), bytes_of(&target), bytes_of(&positions), bytes_of(&head)];
        // SAFETY: the arguments of log_likelihood_f32.
        unsafe { device.launch(Kernel::LogLikelihood, elementwise(count), &args)? };
        let mut all = vec![0.0; count];
        device.read(nats, &mut all)?;
        Ok(all)
    }

    /// The device's address of the table of stages.
    pub fn records(&self) -> u64 {
        self.records.as_device_ptr().as_raw()
    }

    /// Bytes of a stage's record, and so of the shared memory that a block takes for it.
    pub fn shared(&self) -> u32 {
        self.args.parts as u32 * abi::PART as u32
    }

    /// The device's address of the sampler.
    pub fn sampler(&self) -> u64 {
        self.sampler.as_device_ptr().as_raw()
    }
}
