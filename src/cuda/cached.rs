//! Cached generation on the device: the launches of [`super::schedule`], by one of four strategies.
//!
//! The idea: at small batches an image is 33,152 dependent stages that each take a microsecond or two, so
//! what counts is how the device gets from one to the next: a launch from the host, a node of a captured
//! graph, or, inside one kernel, values that are handed over (and in the row phase a barrier), or sent from block to block of
//! a cluster. All of them run the same stages, so the images are the same.

use std::cmp::Ordering;
use std::ops::Range;

use bytemuck::{bytes_of, cast_slice};

use super::abi::{self, CLUSTER, Entry, Expected, THREADS};
use super::cluster::{self, Clusters};
use super::cost::Room;
use super::driver::{Buffer, Device, Graph, Shape};
use super::kernels::Kernel;
use super::loaded::{self, Extras, Loaded, Places};
use super::nvtx;
use super::packed::Packed;
use super::schedule::{Flat, Schedule};
use super::stored::{Paged, Stored};
use super::{Properties, Strategy, stage};
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
    way: Way,
    /// What makes the pixels, if that is not the persistent kernel too.
    clusters: Option<Tabled>,
}

/// How the launches are run.
enum Way {
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

/// Clusters whose tables are on the device.
struct Tabled {
    /// Their shape, and where a row begins.
    of: Clusters,
    /// Held for its address in `told`.
    _records: Buffer<u8>,
    told: abi::Cluster,
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
    }
}

/// The kernels that a strategy takes, but for rows that are given, and `masked_conv_gemm` where stages take it.
fn kernels(strategy: Strategy) -> Vec<Kernel> {
    let of_strategy: &[Kernel] = match strategy {
        Strategy::Auto | Strategy::Persistent => &[Kernel::Expect, Kernel::Persistent],
        Strategy::Cluster => &[Kernel::Expect, Kernel::Persistent, Kernel::Cluster],
        Strategy::Launch | Strategy::Graph => &[Kernel::Sample, Kernel::Gemv],
    };
    [&loaded::KERNELS[..], of_strategy].concat()
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
        Strategy::Auto | Strategy::Persistent | Strategy::Cluster => {
            device.room(Kernel::Persistent, THREADS, 2 * record)
        }
    }
}

/// How many clusters the device runs at a time.
///
/// # Errors
/// [`Error::Device`], also if it runs none.
pub fn clusters_at_a_time(device: &Device) -> Result<usize> {
    let resident = device.clusters(Kernel::Cluster, cluster::BLOCK, device.properties.block_memory)?;
    match resident {
        0 => Err(refused_clusters(device, "no cluster of 16 blocks fits the device")),
        resident => Ok(resident),
    }
}

fn refused_clusters(device: &Device, found: &str) -> Error {
    Error::device(&device.properties.label, "run the strategy cluster", found)
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
        device.load(&kernels(strategy))?;
        let steps = Steps::new(plan);
        let room = room(device, plan, strategy)?;
        let schedule = Schedule::new(plan, &steps, packed, extent, room);
        let Schedule { arena, image, known, logits, .. } = schedule;
        let places = Places { arena, rows: extent.height, image, known, logits };
        if matches!(strategy, Strategy::Launch | Strategy::Graph) {
            device.load(&schedule.kernels().collect::<Vec<_>>())?;
        }
        let loaded = Loaded::new(device, &plan.graph, &stored.all, extent, extras, &schedule.table, places)?;
        let previous = plan.graph.input.previous;
        let mut cached = Cached { schedule, loaded, previous, way: Way::Launch, clusters: None };
        cached.way = match strategy {
            Strategy::Launch => Way::Launch,
            Strategy::Graph => cached.captured(device)?,
            Strategy::Auto | Strategy::Persistent | Strategy::Cluster => cached.persistent(device, room)?,
        };
        if strategy == Strategy::Cluster {
            let paged = stored.paged.as_ref().expect("the weights of a cluster's engine are paged");
            cached.clusters = Some(cached.clusters(device, plan, &steps, paged, extent)?);
        }
        Ok(cached)
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

    /// As many clusters as the batch takes.
    fn clusters(
        &self,
        device: &Device,
        plan: &Plan,
        steps: &Steps,
        paged: &Paged,
        extent: Extent,
    ) -> Result<Tabled> {
        let (limit, resident) = (device.properties.block_memory, clusters_at_a_time(device)?);
        let Paged { pages, weights } = paged;
        let of = Clusters::new(plan, steps, &self.schedule, pages, extent, limit, resident);
        let of = of.ok_or_else(|| {
            refused_clusters(device, "the network's layers are too large for clusters of 16 blocks")
        })?;
        let records = device.upload(&of.records)?;
        let addresses = [records.as_device_ptr().as_raw(), weights.as_device_ptr().as_raw()];
        let told = abi::Cluster { records: addresses[0], weights: addresses[1], ..of.told };
        Ok(Tabled { of, _records: records, told })
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
        // The host queues one row ahead of the device.
        let mut behind = None;
        for row in 0..batch.height {
            if profile.as_ref().is_some_and(|p| p.start == row) {
                device.profiler(true)?;
            }
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

    fn row(&self, device: &Device, row: usize, width: usize) -> Result<()> {
        match &self.way {
            Way::Persistent { blocks, tables } => {
                let columns = if self.clusters.is_some() { 0 } else { width };
                self.persistent_row(device, row, columns, *blocks, tables)?;
                self.clusters.as_ref().map_or(Ok(()), |clusters| self.cluster_row(device, row, clusters))
            }
            Way::Launch | Way::Graph { .. } => {
                self.begin_row(device, row)?;
                self.pixels(device, row, width)
            }
        }
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

    /// The pixels of a row.
    fn cluster_row(&self, device: &Device, row: usize, clusters: &Tabled) -> Result<()> {
        let record = clusters.of.rows[row % self.schedule.period];
        let [record, row] = [record, row].map(|n| n as i32);
        let sampler = self.loaded.sampler();
        let args = [
            bytes_of(&clusters.told),
            bytes_of(&sampler),
            bytes_of(&self.loaded.args),
            bytes_of(&record),
            bytes_of(&row),
        ];
        let blocks = (clusters.of.count * CLUSTER) as u32;
        let shape =
            Shape { grid: [blocks, 1, 1], block: cluster::BLOCK as u32, shared: clusters.of.shared as u32 };
        // SAFETY: the arguments of cluster_f32; the tables' addresses lie in the batch's buffers and in the weights.
        unsafe { device.launch(Kernel::Cluster, shape, &args) }
    }
}
