//! Cached generation on the device: the programs of [`super::programs`], by one of three strategies.
//!
//! The idea: at small batches an image is 33,152 dependent stages that each take a microsecond or two, so
//! what counts is how the device gets from one to the next: a launch from the host, a node of a captured
//! graph, or a barrier inside one kernel. All three run the same stages on the same tables, so the images
//! are the same.

use std::ops::Range;

use bytemuck::{bytes_of, cast_slice};

use super::driver::{Buffer, Device, Graph};
use super::kernels::Kernel;
use super::layout::Extent;
use super::loaded::{self, Extras, Loaded, Plan};
use super::nvtx;
use super::packed::Packed;
use super::programs::{PERIOD, Programs};
use super::stage::{self, Entry, Program, THREADS};
use super::{Properties, Strategy};
use crate::engine::{Batch, Made, Watch};
use crate::error::{Error, Result};
use crate::network::Network;

/// A shape of batch, ready to be generated again and again.
pub struct Cached {
    programs: Programs,
    loaded: Loaded,
    way: Way,
}

/// How the programs are run.
enum Way {
    Launch,
    Graph {
        rows: Vec<Graph>,
        /// By row, then column modulo [`PERIOD`].
        pixels: Vec<Graph>,
    },
    Persistent {
        blocks: u32,
        tables: Tables,
    },
}

/// What the persistent kernel reads, and its barrier's counter.
struct Tables {
    entries: Buffer<u8>,
    rows: Buffer<u8>,
    pixels: Buffer<u8>,
    counter: Buffer<u32>,
}

/// Numbers in the counter's buffer: what a fill writes at a time.
const COUNTER: usize = 4;

/// The strategy that a device gets: what was asked for, or, with `Auto`, the best that it can do. (A block of
/// the persistent kernel fits every multiprocessor that its PTX is for: that is asked when it is compiled.)
///
/// # Errors
/// [`Error::Device`] for one that the device cannot do.
pub fn choose(properties: &Properties, wanted: Strategy) -> Result<Strategy> {
    match wanted {
        Strategy::Launch | Strategy::Graph => Ok(wanted),
        Strategy::Auto | Strategy::Persistent if properties.cooperative => Ok(Strategy::Persistent),
        Strategy::Auto => Ok(Strategy::Graph),
        Strategy::Persistent => {
            let found = "the device has no cooperative launches; the strategy graph needs none";
            Err(Error::device(&properties.label, "run the strategy persistent", found))
        }
    }
}

/// The kernels that a strategy takes, but for rows that are given.
fn kernels(programs: &Programs, strategy: Strategy) -> Vec<Kernel> {
    let mut kernels = loaded::KERNELS.to_vec();
    match strategy {
        Strategy::Auto | Strategy::Persistent => kernels.push(Kernel::Persistent),
        Strategy::Launch | Strategy::Graph => {
            kernels.push(Kernel::Sample);
            kernels.extend(programs.table.kernels());
        }
    }
    kernels
}

impl Cached {
    /// Allocates, uploads the tables, and captures the graphs if that is the strategy.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn new(
        device: &Device,
        network: &Network,
        packed: &Packed,
        weights: &Buffer<f32>,
        extent: Extent,
        extras: Extras,
        strategy: Strategy,
    ) -> Result<Cached> {
        let programs = Programs::new(network, packed, extent, device.properties.multiprocessors);
        let plan = Plan {
            table: &programs.table,
            arena: programs.layout.len,
            image: programs.image,
            logits: programs.logits,
        };
        device.load(&kernels(&programs, strategy))?;
        let loaded = Loaded::new(device, network.config, weights, extent, extras, &plan)?;
        let mut cached = Cached { programs, loaded, way: Way::Launch };
        cached.way = match strategy {
            Strategy::Launch => Way::Launch,
            Strategy::Graph => cached.captured(device)?,
            Strategy::Auto | Strategy::Persistent => cached.persistent(device)?,
        };
        Ok(cached)
    }

    fn captured(&self, device: &Device) -> Result<Way> {
        let rows = self.programs.rows.iter().map(|steps| device.capture(|| self.steps(device, steps)));
        let pixels = self.programs.pixels.iter().flatten().map(|steps| {
            device.capture(|| {
                self.steps(device, steps)?;
                self.loaded.sample(device)
            })
        });
        Ok(Way::Graph { rows: rows.collect::<Result<_>>()?, pixels: pixels.collect::<Result<_>>()? })
    }

    fn persistent(&self, device: &Device) -> Result<Way> {
        let (entries, rows, pixels) = self.programs.flat();
        let tables = Tables {
            entries: device.upload(cast_slice::<Entry, u8>(&entries))?,
            rows: device.upload(cast_slice::<Program, u8>(&rows))?,
            pixels: device.upload(cast_slice::<Program, u8>(&pixels))?,
            counter: device.zeroed(COUNTER)?,
        };
        // One block for each multiprocessor: more would wait for each other at every barrier.
        let resident = device.resident(Kernel::Persistent, THREADS as u32)?;
        let blocks = resident.min(device.properties.multiprocessors as u32);
        if blocks == 0 {
            let found = "no block of it fits a multiprocessor";
            return Err(Error::device(&device.properties.label, "launch persistent_f32", found));
        }
        Ok(Way::Persistent { blocks, tables })
    }

    fn steps(&self, device: &Device, steps: &[usize]) -> Result<()> {
        steps.iter().try_for_each(|&step| self.loaded.step(device, &self.programs.table.steps[step]))
    }

    /// Generates a batch of this shape; with it the seconds that the device took. A profiler captures the
    /// rows of `profile`.
    ///
    /// # Errors
    /// As for [`crate::engine::Engine::make`].
    pub fn make(
        &mut self,
        device: &Device,
        batch: &Batch,
        watch: Watch,
        profile: Option<Range<usize>>,
    ) -> Result<(Made, f64)> {
        let _range = nvtx::Range::new(c"generate");
        let given = batch.given.map_or(0, |g| g.rows);
        if given > 0 {
            device.load(&self.programs.table.kernels().collect::<Vec<_>>())?;
        }
        self.begin(device, batch)?;
        let first = device.mark()?;
        // The host is a row ahead of the device.
        let mut behind = None;
        for row in 0..batch.height {
            if profile.as_ref().is_some_and(|p| p.start == row) {
                device.profiler(true)?;
            }
            let _range = nvtx::Range::new(c"row");
            if row < given {
                self.given_row(device, row, batch.keep_logits)?;
            } else {
                if row == given {
                    self.loaded.move_to(device, row)?;
                }
                self.row(device, row, batch.width)?;
            }
            if profile.as_ref().is_some_and(|p| p.end == row + 1) {
                device.profiler(false)?;
            }
            let mark = device.mark()?;
            if let Some(mark) = behind.replace(mark) {
                device.reach(&mark)?;
                if !watch(row) {
                    device.wait()?;
                    return Err(Error::Interrupted);
                }
            }
        }
        device.wait()?;
        watch(batch.height);
        let seconds = behind.map_or(Ok(0.0), |last| device.between(&first, &last))?;
        Ok((self.loaded.finish(device)?, seconds))
    }

    /// Brings a batch of this shape to the device.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn begin(&mut self, device: &Device, batch: &Batch) -> Result<()> {
        self.loaded.begin(device, batch)
    }

    /// A row whose pixels are all known.
    fn given_row(&self, device: &Device, row: usize, keep_logits: bool) -> Result<()> {
        self.loaded.move_to(device, row)?;
        self.steps(device, &self.programs.given[usize::from(keep_logits)][row % PERIOD])?;
        self.loaded.keep_logits(device, row, 1)
    }

    fn row(&self, device: &Device, row: usize, width: usize) -> Result<()> {
        match &self.way {
            Way::Persistent { blocks, tables } => self.persistent_row(device, row, *blocks, tables),
            Way::Launch | Way::Graph { .. } => {
                self.begin_row(device, row)?;
                self.pixels(device, row, width)
            }
        }
    }

    /// What a row begins with, where the host has a say between the phases.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn begin_row(&self, device: &Device, row: usize) -> Result<()> {
        if let Way::Graph { rows, .. } = &self.way {
            return device.replay(&rows[row % PERIOD]);
        }
        let steps = &self.programs.rows[row % PERIOD];
        let (hoist, vertical) = steps.split_last().expect("every row has something to hoist");
        {
            let _range = nvtx::Range::new(c"vertical");
            self.steps(device, vertical)?;
        }
        let _range = nvtx::Range::new(c"hoist");
        self.steps(device, std::slice::from_ref(hoist))
    }

    /// The pixels of a row, from the first on, where the host has a say between the phases.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn pixels(&self, device: &Device, row: usize, width: usize) -> Result<()> {
        let _range = nvtx::Range::new(c"pixels");
        for column in 0..width {
            let (r, c) = (row % PERIOD, column % PERIOD);
            if let Way::Graph { pixels, .. } = &self.way {
                device.replay(&pixels[r * PERIOD + c])?;
            } else {
                self.steps(device, &self.programs.pixels[r][c])?;
                self.loaded.sample(device)?;
            }
        }
        Ok(())
    }

    fn persistent_row(&self, device: &Device, row: usize, blocks: u32, tables: &Tables) -> Result<()> {
        let counter = tables.counter.as_device_ptr().as_raw();
        self.loaded.reset(device, counter, COUNTER * size_of::<u32>())?;
        let programs = stage::Programs {
            entries: tables.entries.as_device_ptr().as_raw(),
            rows: tables.rows.as_device_ptr().as_raw(),
            pixels: tables.pixels.as_device_ptr().as_raw(),
        };
        let (stages, sampler) = (self.loaded.stages(), self.loaded.sampler());
        let (first, rows) = (row as i32, 1i32);
        let args = [
            bytes_of(&stages),
            bytes_of(&programs),
            bytes_of(&sampler),
            bytes_of(&self.loaded.args),
            bytes_of(&counter),
            bytes_of(&first),
            bytes_of(&rows),
        ];
        // SAFETY: the arguments of persistent_f32; the tables' addresses lie in the batch's buffers.
        unsafe { device.launch(Kernel::Persistent, [blocks, 1, 1], THREADS as u32, &args) }
    }
}
