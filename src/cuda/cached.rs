//! Cached generation on the device: the launches of [`super::schedule`], by one of five strategies.
//!
//! The idea: at small batches an image is 33,152 dependent stages that each take a microsecond or two, so
//! what counts is how the device gets from one to the next: a launch from the host, a node of a captured
//! graph, or, inside one kernel, values that are handed over (and in the row phase a barrier), or sent from block to block of
//! a cluster, or kept where they were made. All of them run the same stages, so the images are the same.

use std::cmp::Ordering;
use std::ops::Range;

use bytemuck::{bytes_of, cast_slice};

use super::abi::{Entry, Expected, THREADS};
use super::cost::Room;
use super::driver::{Buffer, Device, Graph, Shape};
use super::kernels::Kernel;
use super::loaded::{self, Extras, Loaded, Places};
use super::nvtx;
use super::packed::Packed;
use super::pixels::{self, Pixels};
use super::schedule::{Flat, Schedule};
use super::stored::Stored;
use super::{Properties, Strategy, shapes, stage};
use crate::engine::{Batch, Output, Watch};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;

/// A shape of batch, ready to be generated again and again.
pub struct Cached {
    schedule: Schedule,
    loaded: Loaded,
    /// Whether the network reads the previous pixel.
    previous: bool,
    /// Rows that follow one another with nothing to be made between them, so that a launch of `pixels` makes many.
    rows_follow: bool,
    way: Way,
    /// What makes the pixels, if that is not what makes the rows too.
    pixels: Option<Pixels>,
}

/// How the launches are run.
enum Way {
    /// By the host, one by one; rows that follow one another take none but for what is given.
    Launch,
    Graph {
        rows: Vec<Graph>,
        /// By row, then column modulo the period.
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
    /// The first entry of a row, by row modulo the period.
    rows: Vec<i32>,
    expected: Buffer<u8>,
    counter: Buffer<u32>,
}

/// Images that `cache_expect_f32` fills maps of at a time: enough to occupy any device.
const MOST_IMAGES: u32 = 16;
/// Rows of a launch, where they follow one another and teams make all images at a time: some tens of milliseconds, after which
/// somebody may want to interrupt.
const ROWS_AT_ONCE: usize = 256;

/// The strategy that a device gets: what was asked for, or, with `Auto`, the best that it can do. (A block of
/// the persistent kernel fits every multiprocessor of the architectures that its PTX is for; `Cached::new` checks it.)
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
        Strategy::Cluster if properties.cooperative && properties.clusters => Ok(Strategy::Cluster),
        Strategy::Cluster => {
            let found = match properties.clusters {
                true => "the device has no cooperative launches",
                false => "the device has no clusters, as those of compute capability 9.0 and later have",
            };
            Err(Error::device(&properties.label, "run the strategy cluster", found))
        }
        Strategy::Team if properties.cooperative => Ok(Strategy::Team),
        Strategy::Team => {
            let found = "the device has no cooperative launches; the strategy graph needs none";
            Err(Error::device(&properties.label, "run the strategy team", found))
        }
    }
}

/// The kernels that a strategy takes, but for rows that are given, and `masked_conv_gemm` where stages take it.
fn kernels(strategy: Strategy) -> Vec<Kernel> {
    let of_strategy: &[Kernel] = match strategy {
        Strategy::Auto | Strategy::Persistent => &[Kernel::Expect, Kernel::Persistent],
        Strategy::Cluster => &[Kernel::Cluster],
        Strategy::Team => &[Kernel::Team],
        Strategy::Launch | Strategy::Graph => &[Kernel::Sample, Kernel::Gemv],
    };
    [&loaded::KERNELS[..], of_strategy].concat()
}

/// The strategy by which another one makes what comes before a row's pixels.
fn of_rows(strategy: Strategy) -> Strategy {
    match strategy {
        Strategy::Cluster | Strategy::Team => Strategy::Persistent,
        _ => strategy,
    }
}

/// What the device holds of the kernels that a strategy runs.
///
/// # Errors
/// [`Error::Device`].
pub fn room(device: &Device, plan: &Plan, strategy: Strategy) -> Result<Room> {
    let record = stage::longest_record(plan);
    match strategy {
        Strategy::Launch | Strategy::Graph => Ok(Room::of_launches(device.properties.multiprocessors)),
        // The records of two stages.
        Strategy::Auto | Strategy::Persistent | Strategy::Cluster | Strategy::Team => {
            device.room(Kernel::Persistent, THREADS, 2 * record)
        }
    }
}

impl Cached {
    /// Allocates, uploads the tables, and captures the graphs if that is the strategy.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn new(
        device: &Device,
        plan: &Plan,
        packed: &Packed,
        stored: &Stored,
        extent: Extent,
        extras: Extras,
        strategy: Strategy,
    ) -> Result<Cached> {
        let follow = if strategy == Strategy::Team { shapes::following(plan, extent) } else { None };
        let rows_follow = follow.is_some();
        let of_rows = if rows_follow { strategy } else { of_rows(strategy) };
        device.load(&[kernels(strategy), kernels(of_rows)].concat())?;
        let steps = follow.unwrap_or_else(|| Steps::new(plan));
        let room = match rows_follow {
            true => Room::of_launches(device.properties.multiprocessors),
            false => room(device, plan, strategy)?,
        };
        let schedule = Schedule::new(plan, &steps, packed, extent, room);
        let Schedule { arena, image, known, logits, .. } = schedule;
        let places = Places { arena, rows: extent.height, image, known, logits };
        if matches!(strategy, Strategy::Launch | Strategy::Graph) {
            device.load(&schedule.kernels().collect::<Vec<_>>())?;
        }
        let loaded = Loaded::new(device, &plan.graph, &stored.all, extent, extras, &schedule.table, places)?;
        let previous = plan.graph.input.previous;
        let mut cached = Cached { schedule, loaded, previous, rows_follow, way: Way::Launch, pixels: None };
        cached.way = match strategy {
            Strategy::Launch => Way::Launch,
            Strategy::Graph => cached.captured(device)?,
            Strategy::Team if rows_follow => Way::Launch,
            Strategy::Auto | Strategy::Persistent | Strategy::Cluster | Strategy::Team => {
                cached.persistent(device, room)?
            }
        };
        let schedule = &cached.schedule;
        cached.pixels = match strategy {
            Strategy::Cluster => {
                let paged = stored.paged.as_ref().expect("the weights of a cluster's engine are paged");
                Some(Pixels::clusters(device, plan, &steps, schedule, paged, extent)?)
            }
            Strategy::Team => {
                let room = pixels::team_blocks(device)?;
                let shapes = shapes::shapes(schedule, extent.batch, room).into_iter().map(|(shape, _)| shape);
                let shapes: Vec<_> = shapes.collect();
                Some(Pixels::teams(device, plan, &steps, schedule, &shapes, extent.batch, rows_follow)?)
            }
            _ => None,
        };
        Ok(cached)
    }

    /// Divides the batch into teams of another shape.
    #[cfg(test)]
    pub fn reshape(&mut self, device: &Device, plan: &Plan, shape: super::cost::Shape) -> Result<()> {
        let follow = self.rows_follow.then(|| Steps::of_pixels(plan).expect("they did"));
        let steps = follow.unwrap_or_else(|| Steps::new(plan));
        let batch = self.loaded.args.size as usize;
        self.pixels =
            Some(Pixels::teams(device, plan, &steps, &self.schedule, &[shape], batch, self.rows_follow)?);
        Ok(())
    }

    fn captured(&self, device: &Device) -> Result<Way> {
        let rows = self.schedule.rows.iter().map(|row| device.capture(|| self.launch(device, &row.concat())));
        let pixels = self.schedule.pixels.iter().flatten().map(|pixel| {
            device.capture(|| {
                self.launch(device, pixel)?;
                self.loaded.sample(device)
            })
        });
        Ok(Way::Graph { rows: rows.collect::<Result<_>>()?, pixels: pixels.collect::<Result<_>>()? })
    }

    /// As many blocks as the device holds.
    fn persistent(&self, device: &Device, room: Room) -> Result<Way> {
        let Flat { entries, rows, .. } = self.schedule.flat(room.blocks());
        let tables = Tables {
            entries: device.upload(cast_slice::<Entry, u8>(&entries))?,
            rows: rows.iter().map(|row| row.start as i32).collect(),
            expected: device.upload(cast_slice::<Expected, u8>(&self.schedule.expected))?,
            counter: device.zeroed(1)?,
        };
        Ok(Way::Persistent { blocks: room.blocks() as u32, tables })
    }

    fn launch(&self, device: &Device, launches: &[usize]) -> Result<()> {
        let table = &self.schedule.table;
        launches.iter().try_for_each(|&launch| self.loaded.launch(device, &table.launches[launch]))
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
    ) -> Result<(Output, f64)> {
        let _range = nvtx::Range::new(c"generate");
        let given = batch.given.map_or(0, |g| g.rows);
        if given > 0 {
            device.load(&self.schedule.table.kernels().collect::<Vec<_>>())?;
        }
        self.begin(device, batch)?;
        let first = device.mark()?;
        // The host queues one launch ahead of the device.
        let (mut behind, mut row) = (None, 0);
        while row < batch.height {
            if profile.as_ref().is_some_and(|p| p.start == row) {
                device.profiler(true)?;
            }
            let next = row + self.rows_from(row, given, batch, profile.as_ref());
            let _range = nvtx::Range::new(c"row");
            // What is there before the row begins: its pixels, or the last of the row above. What is drawn, the
            // sampler enters.
            let columns = match row.cmp(&given) {
                Ordering::Less => batch.width,
                Ordering::Equal => usize::from(self.previous),
                Ordering::Greater => 0,
            };
            if let (true, Way::Persistent { tables, .. }) = (row >= given, &self.way) {
                self.expect(device, row, tables)?;
            }
            self.loaded.enter(device, row..row + 1, columns)?;
            if row < given {
                self.given_row(device, row, batch.keep_logits)?;
            } else {
                if row == given {
                    self.loaded.move_to(device, row)?;
                }
                self.rows(device, row..next, batch.width)?;
            }
            if profile.as_ref().is_some_and(|p| p.end == next) {
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
            row = next;
        }
        device.wait()?;
        watch(batch.height);
        let seconds = behind.map_or(Ok(0.0), |last| device.between(&first, &last))?;
        Ok((self.loaded.finish(device)?, seconds))
    }

    /// Uploads a batch of this shape.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn begin(&mut self, device: &Device, batch: &Batch) -> Result<()> {
        self.loaded.begin(device, batch)
    }

    /// A row whose pixels are all known.
    fn given_row(&self, device: &Device, row: usize, keep_logits: bool) -> Result<()> {
        self.loaded.move_to(device, row)?;
        self.launch(device, self.schedule.given(row, keep_logits))?;
        self.loaded.keep_logits(device, row..row + 1)
    }

    /// How many rows one launch makes, from one on.
    fn rows_from(&self, row: usize, given: usize, batch: &Batch, profile: Option<&Range<usize>>) -> usize {
        let turns = match &self.pixels {
            Some(pixels) if self.rows_follow && row >= given && batch.known.is_none() => pixels.turns,
            _ => return 1,
        };
        let ends = profile.into_iter().flat_map(|profile| [profile.start, profile.end]);
        let end =
            ends.filter(|&end| end > row).chain([batch.height, row + (ROWS_AT_ONCE / turns).max(1)]).min();
        end.map_or(1, |end| end - row)
    }

    /// Some rows whose pixels are drawn: one, unless they follow one another.
    fn rows(&self, device: &Device, rows: Range<usize>, width: usize) -> Result<()> {
        let row = rows.start;
        match &self.way {
            Way::Persistent { blocks, tables } => {
                let columns = if self.pixels.is_some() { 0 } else { width };
                self.persistent_row(device, row, columns, *blocks, tables)?;
            }
            Way::Launch | Way::Graph { .. } if self.pixels.is_none() => {
                self.begin_row(device, row)?;
                self.pixels(device, row, width)?;
            }
            Way::Launch | Way::Graph { .. } => {}
        }
        self.pixels.as_ref().map_or(Ok(()), |pixels| pixels.launch(device, &self.loaded, rows))
    }

    /// Runs the row phase of a row, for the strategies in which the host launches it.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn begin_row(&self, device: &Device, row: usize) -> Result<()> {
        if let Way::Graph { rows, .. } = &self.way {
            return device.replay(&rows[row % self.schedule.period]);
        }
        let [known, hoisted] = &self.schedule.rows[row % self.schedule.period];
        {
            let _range = nvtx::Range::new(c"known");
            self.launch(device, known)?;
        }
        let _range = nvtx::Range::new(c"hoist");
        self.launch(device, hoisted)
    }

    /// Runs the pixel phase of a row, for the strategies in which the host launches it.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn pixels(&self, device: &Device, row: usize, width: usize) -> Result<()> {
        let _range = nvtx::Range::new(c"pixels");
        for column in 0..width {
            let (row, column) = (row % self.schedule.period, column % self.schedule.period);
            if let Way::Graph { pixels, .. } = &self.way {
                device.replay(&pixels[row * self.schedule.period + column])?;
            } else {
                self.launch(device, &self.schedule.pixels[row][column])?;
                self.loaded.sample(device)?;
            }
        }
        Ok(())
    }

    /// Makes what the pixels of a row are to make pending.
    fn expect(&self, device: &Device, row: usize, tables: &Tables) -> Result<()> {
        let [maps, counter] =
            [tables.expected.as_device_ptr().as_raw(), tables.counter.as_device_ptr().as_raw()];
        let (row, count) = (row as i32, self.schedule.expected.len() as u32);
        let images = (self.loaded.args.size as u32).min(MOST_IMAGES);
        let shape = Shape { grid: [count, images, 1], block: THREADS as u32, shared: 0 };
        let args = [bytes_of(&maps), bytes_of(&self.loaded.args), bytes_of(&row), bytes_of(&counter)];
        // SAFETY: the arguments of cache_expect_f32; the maps lie in the arena.
        unsafe { device.launch(Kernel::Expect, shape, &args) }
    }

    /// What comes before the pixels of a row, and its first `columns` pixels.
    fn persistent_row(
        &self,
        device: &Device,
        row: usize,
        columns: usize,
        blocks: u32,
        tables: &Tables,
    ) -> Result<()> {
        let counter = tables.counter.as_device_ptr().as_raw();
        let entries = tables.entries.as_device_ptr().as_raw();
        let first = tables.rows[row % self.schedule.period];
        let (records, sampler) = (self.loaded.records(), self.loaded.sampler());
        let (row, columns) = (row as i32, columns as i32);
        let args = [
            bytes_of(&records),
            bytes_of(&entries),
            bytes_of(&first),
            bytes_of(&sampler),
            bytes_of(&self.loaded.args),
            bytes_of(&counter),
            bytes_of(&row),
            bytes_of(&columns),
        ];
        // The records of two stages.
        let shape = Shape { grid: [blocks, 1, 1], block: THREADS as u32, shared: 2 * self.loaded.shared() };
        // SAFETY: the arguments of persistent_f32; the tables' addresses lie in the batch's buffers.
        unsafe { device.launch(Kernel::Persistent, shape, &args) }
    }
}
