//! Kernels that make the pixels of rows by themselves, the persistent one, clusters and teams: their tables on the device, and
//! their launches.
//!
//! The idea: a launch is told where it begins, and walks from record to record.

use std::ops::Range;

use bytemuck::{bytes_of, cast_slice};

use super::Strategy;
use super::abi::team::Team;
use super::abi::{self, CLUSTER, Entry, Expected, THREADS};
use super::cluster::{self, Clusters};
use super::cost::{Room, Shape};
use super::driver::{self, Buffer, Device};
use super::kernels::Kernel;
use super::loaded::Loaded;
use super::schedule::{Flat, Schedule};
use super::stored::Paged;
use super::team::{self, Teams};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;

/// What makes the pixels.
pub struct Pixels {
    way: Way,
    /// The first record of a row, or entry, by row modulo the period.
    rows: Vec<usize>,
    blocks: u32,
    /// Turns in which the images are made, one after the other.
    pub turns: usize,
    /// Bytes of a block's shared memory.
    shared: u32,
    /// Held for their addresses.
    _tables: Vec<Buffer<u8>>,
}

enum Way {
    /// With the address of its entries.
    Persistent(u64, Pending),
    Clusters(abi::Cluster, Pending),
    /// With the counters of the teams' barriers, if they have any.
    Teams(Team, Option<Buffer<u32>>),
}

/// What blocks hand over while the pixels of a row are made, which is pending before.
struct Pending {
    expected: Buffer<u8>,
    maps: u32,
}

/// Images that `cache_expect_f32` fills maps of at a time: enough to occupy any device.
const MOST_IMAGES: u32 = 16;

impl Pending {
    fn new(device: &Device, schedule: &Schedule) -> Result<Pending> {
        let expected = device.upload(cast_slice::<Expected, u8>(&schedule.expected))?;
        Ok(Pending { expected, maps: schedule.expected.len() as u32 })
    }

    /// Moves on to a row and makes pending what its pixels are to make.
    fn begin(&self, device: &Device, loaded: &Loaded, row: usize) -> Result<()> {
        let (expected, row) = (self.expected.as_device_ptr().as_raw(), row as i32);
        let images = (loaded.args.size as u32).min(MOST_IMAGES);
        let shape = driver::Shape { grid: [self.maps, images, 1], ..driver::Shape::row(1, THREADS as u32) };
        let args = [bytes_of(&expected), bytes_of(&loaded.args), bytes_of(&row)];
        // SAFETY: the arguments of cache_expect_f32; the maps lie in the arena.
        unsafe { device.launch(Kernel::Expect, shape, &args) }
    }
}

/// How many clusters the device runs at a time.
///
/// # Errors
/// [`Error::Device`], also if it runs none.
pub fn clusters_at_a_time(device: &Device) -> Result<usize> {
    let resident = device.clusters(Kernel::Cluster, cluster::BLOCK, device.properties.block_memory)?;
    match resident {
        0 => Err(refused(device, Strategy::Cluster, "no cluster of 16 blocks fits the device")),
        resident => Ok(resident),
    }
}

/// How many blocks of teams the device runs at a time, whatever they take of its shared memory.
///
/// # Errors
/// [`Error::Device`], also if it runs none.
pub fn team_blocks(device: &Device) -> Result<usize> {
    let limit = device.properties.block_memory;
    device.allow(Kernel::Team, limit)?;
    Ok(device.room(Kernel::Team, team::BLOCK, limit)?.blocks())
}

/// Refuses a network that does not fit.
pub fn too_large(device: &Device, strategy: Strategy) -> Error {
    let found = match strategy {
        Strategy::Cluster => "the network's layers are too large for clusters of 16 blocks",
        _ => "the network's layers are too large for a block; the strategy persistent takes any",
    };
    refused(device, strategy, found)
}

fn refused(device: &Device, strategy: Strategy, found: &str) -> Error {
    Error::device(&device.properties.label, format!("run the strategy {}", strategy.name()), found)
}

impl Pixels {
    /// As many blocks of the persistent kernel as the device holds.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn persistent(device: &Device, schedule: &Schedule, room: Room, loaded: &Loaded) -> Result<Pixels> {
        let Flat { entries, rows } = schedule.flat(room.blocks());
        let entries = device.upload(cast_slice::<Entry, u8>(&entries))?;
        Ok(Pixels {
            way: Way::Persistent(entries.as_device_ptr().as_raw(), Pending::new(device, schedule)?),
            rows,
            blocks: room.blocks() as u32,
            turns: 1,
            // The records of two stages.
            shared: 2 * loaded.shared(),
            _tables: vec![entries],
        })
    }

    /// As many clusters as the batch takes, of which `resident` run at a time.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn clusters(
        device: &Device,
        plan: &Plan,
        steps: &Steps,
        schedule: &Schedule,
        paged: &Paged,
        extent: Extent,
        resident: usize,
    ) -> Result<Pixels> {
        let limit = device.properties.block_memory;
        let Paged { pages, weights } = paged;
        let of = Clusters::new(plan, steps, schedule, pages, extent, limit, resident);
        let of = of.ok_or_else(|| too_large(device, Strategy::Cluster))?;
        let records = device.upload(&of.records)?;
        let addresses = [records.as_device_ptr().as_raw(), weights.as_device_ptr().as_raw()];
        let told = abi::Cluster { records: addresses[0], weights: addresses[1], ..of.told };
        Ok(Pixels {
            way: Way::Clusters(told, Pending::new(device, schedule)?),
            rows: of.rows,
            blocks: (of.count * CLUSTER) as u32,
            turns: of.count.div_ceil(resident),
            shared: of.shared as u32,
            _tables: vec![records],
        })
    }

    /// Teams for a batch, in the first of some shapes in which the network fits a block. `rows_follow`: as
    /// [`super::shapes::following`] has them.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn teams(
        device: &Device,
        plan: &Plan,
        steps: &Steps,
        schedule: &Schedule,
        shapes: &[Shape],
        batch: usize,
        rows_follow: bool,
    ) -> Result<Pixels> {
        let limit = device.properties.block_memory;
        let fit =
            |&shape: &Shape| Some((shape, Teams::new(plan, steps, schedule, shape, limit, rows_follow)?));
        let (shape, of) = shapes.iter().find_map(fit).ok_or_else(|| too_large(device, Strategy::Team))?;
        let tables = of.tables().into_iter().map(|table| device.upload(table)).collect::<Result<Vec<_>>>()?;
        let counters = shape.counters().map(|counters| device.zeroed(counters)).transpose()?;
        let [records, tasks, sums, halves] = [0, 1, 2, 3].map(|i| tables[i].as_device_ptr().as_raw());
        let counters_at = counters.as_ref().map_or(0, |c: &Buffer<u32>| c.as_device_ptr().as_raw());
        let told = Team { records, tasks, sums, halves, counters: counters_at, ..of.told };
        Ok(Pixels {
            way: Way::Teams(told, counters),
            rows: of.rows,
            blocks: (shape.teams * shape.blocks) as u32,
            turns: batch.div_ceil(shape.teams * shape.images),
            shared: of.shared as u32,
            _tables: tables,
        })
    }

    /// Moves on to a row, before anything of it is launched.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn begin(&self, device: &Device, loaded: &Loaded, row: usize) -> Result<()> {
        match &self.way {
            Way::Persistent(_, pending) | Way::Clusters(_, pending) => pending.begin(device, loaded, row),
            Way::Teams(..) => loaded.move_to(device, row),
        }
    }

    /// Launches what makes the pixels of some rows: of one, unless rows follow one another.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn launch(&self, device: &Device, loaded: &Loaded, rows: Range<usize>) -> Result<()> {
        let record = self.rows[rows.start % self.rows.len()] as i32;
        let [row, count] = [rows.start, rows.len()].map(|n| n as i32);
        let sampler = loaded.sampler();
        let common = [bytes_of(&sampler), bytes_of(&loaded.args), bytes_of(&record), bytes_of(&row)];
        match &self.way {
            Way::Persistent(entries, _) => {
                let records = loaded.records();
                let args = [
                    bytes_of(&records),
                    bytes_of(entries),
                    bytes_of(&record),
                    bytes_of(&sampler),
                    bytes_of(&loaded.args),
                    bytes_of(&row),
                ];
                let shape = self.shape(THREADS);
                // SAFETY: the arguments of persistent_f32; the tables' addresses lie in the batch's buffers.
                unsafe { device.launch(Kernel::Persistent, shape, &args) }
            }
            Way::Clusters(told, _) => {
                let args = [&[bytes_of(told)], &common[..]].concat();
                let shape = driver::Shape { cluster: Some(CLUSTER as u32), ..self.shape(cluster::BLOCK) };
                // SAFETY: the arguments of cluster_f32; the tables' addresses lie in the batch's buffers and in the weights.
                unsafe { device.launch(Kernel::Cluster, shape, &args) }
            }
            Way::Teams(told, counters) => {
                if let Some(counters) = counters {
                    let bytes = counters.len() * size_of::<u32>();
                    loaded.reset(device, counters.as_device_ptr().as_raw(), bytes)?;
                }
                let args = [&[bytes_of(told)], &common[..], &[bytes_of(&count)]].concat();
                let shape = self.shape(team::BLOCK);
                // SAFETY: the arguments of team_f32; the tables' addresses lie in the batch's buffers.
                unsafe { device.launch(Kernel::Team, shape, &args) }
            }
        }
    }

    fn shape(&self, block: usize) -> driver::Shape {
        driver::Shape { shared: self.shared, ..driver::Shape::row(self.blocks, block as u32) }
    }
}
