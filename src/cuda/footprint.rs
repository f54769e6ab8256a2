//! Bytes that batches take of the device's memory beside the weights, and which networks fit its blocks at all.
//!
//! The idea: an array of the arena is some floats for each image, to the end of a line of memory, and a table is the same for all
//! batches, but for those of teams, which depend on how a batch is divided. So maps are laid out once for a size of images, and
//! tables are made once: what any number of images takes is a sum. What the driver takes for modules and graphs is its own and
//! not counted.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use super::Strategy;
use super::cluster::Clusters;
use super::cost::Room;
use super::driver::Device;
use super::packed::Packed;
use super::pages::Pages;
use super::pixels;
use super::schedule::{self, PixelsBy, Schedule};
use super::team::Teams;
use super::{naive, shapes};
use crate::error::Result;
use crate::plan::Plan;
use crate::plan::layout::{Extent, Layout};
use crate::plan::steps::Steps;

/// What the batches of a model take on a device.
pub struct Footprint {
    strategy: Strategy,
    room: Room,
    /// Bytes of shared memory that a block may have.
    block_memory: usize,
    /// Blocks of teams that run at a time, if teams make the pixels.
    team_blocks: usize,
    /// Bytes of the tables of clusters, if they do.
    clusters: u64,
    cached: Arena,
    pass: Arena,
    /// Of rows that have a row phase, and of those that follow one another.
    tables: [OnceCell<Tables>; 2],
    of_pass: OnceCell<u64>,
}

/// The arena of one image of the size that was asked for last.
#[derive(Default)]
struct Arena(RefCell<Option<([usize; 2], Layout)>>);

impl Arena {
    fn bytes(&self, extent: Extent, lay_out: impl FnOnce(Extent) -> Layout) -> u64 {
        let size = [extent.height, extent.width];
        let mut held = self.0.borrow_mut();
        if held.as_ref().is_none_or(|(of, _)| *of != size) {
            *held = Some((size, lay_out(Extent { batch: 1, ..extent })));
        }
        held.as_ref().expect("it was laid out above").1.bytes_for(extent.batch)
    }
}

/// The tables of cached generation.
struct Tables {
    /// Bytes of those that are the same for all batches.
    bytes: u64,
    teams: Option<TeamTables>,
}

/// What their tables depend on.
struct TeamTables {
    steps: Steps,
    schedule: Schedule,
    rows_follow: bool,
    /// Bytes by blocks and images of a team; none where the network does not fit.
    of_shape: RefCell<HashMap<[usize; 2], Option<u64>>>,
}

/// Bytes on the device of a table, which has one at least.
fn uploaded(bytes: usize) -> u64 {
    bytes.max(1) as u64
}

/// The smallest batch.
fn smallest(plan: &Plan) -> Extent {
    let period = plan.graph.period();
    Extent { batch: 1, height: period, width: period }
}

/// Bytes of what tells which values blocks hand over, and, for the persistent kernel, of what it reads beside the stages.
fn of_handing(strategy: Strategy, schedule: &Schedule) -> u64 {
    let expected = uploaded(size_of_val(&schedule.expected[..]));
    match strategy {
        // With `Auto` also where a batch then takes graphs, which need neither.
        Strategy::Auto | Strategy::Persistent => {
            expected + uploaded(size_of_val(&schedule.flat(1).entries[..]))
        }
        Strategy::Cluster => expected,
        Strategy::Launch | Strategy::Graph | Strategy::Team => 0,
    }
}

impl TeamTables {
    /// Bytes for a batch, on a device that runs `room` blocks at a time; none if the network does not fit them.
    fn bytes(&self, plan: &Plan, batch: usize, room: usize, limit: usize) -> Option<u64> {
        let Self { steps, schedule, rows_follow, of_shape } = self;
        shapes::shapes(schedule, batch, room).into_iter().find_map(|(shape, _)| {
            let mut of_shape = of_shape.borrow_mut();
            let tables = of_shape.entry([shape.blocks, shape.images]).or_insert_with(|| {
                let teams = Teams::new(plan, steps, schedule, shape, limit, *rows_follow)?;
                Some(teams.tables().iter().map(|table| uploaded(table.len())).sum())
            });
            let counters = shape.counters().map_or(0, |counters| counters * size_of::<u32>());
            tables.map(|tables| tables + counters as u64)
        })
    }
}

impl Footprint {
    /// For a model by a strategy.
    ///
    /// # Errors
    /// [`crate::Error::Device`] for a network that does not fit the device's blocks, whatever the batch.
    pub fn new(
        device: &Device,
        plan: &Plan,
        packed: &Packed,
        pages: Option<&Pages>,
        strategy: Strategy,
    ) -> Result<Footprint> {
        let mut footprint = Footprint {
            strategy,
            room: device.properties.launches(),
            block_memory: device.properties.block_memory,
            team_blocks: 0,
            clusters: 0,
            cached: Arena::default(),
            pass: Arena::default(),
            tables: [const { OnceCell::new() }; 2],
            of_pass: OnceCell::new(),
        };
        if let Some(pages) = pages {
            pixels::clusters_at_a_time(device)?;
            let clusters = footprint.of_clusters(plan, packed, pages);
            footprint.clusters = clusters.ok_or_else(|| pixels::too_large(device, strategy))?;
        }
        if strategy == Strategy::Team {
            footprint.team_blocks = pixels::team_blocks(device)?;
            let extent = smallest(plan);
            let fits =
                |&width: &usize| footprint.of_teams(plan, packed, Extent { width, ..extent }).is_some();
            // Where there is one column, rows may follow one another.
            let widths = if plan.graph.is_sequence() { &[1][..] } else { &[extent.width, 2 * extent.width] };
            if !widths.iter().any(fits) {
                return Err(pixels::too_large(device, strategy));
            }
        }
        Ok(footprint)
    }

    /// Bytes of the tables of clusters, if the network fits them: one image of a cluster takes least.
    pub fn of_clusters(&self, plan: &Plan, packed: &Packed, pages: &Pages) -> Option<u64> {
        let (steps, extent) = (Steps::above_first(plan), smallest(plan));
        let schedule = Schedule::new(plan, &steps, packed, extent, self.room, PixelsBy::Clusters(1));
        let clusters = Clusters::new(plan, &steps, &schedule, pages, extent, self.block_memory, 1)?;
        Some(uploaded(clusters.records.len()))
    }

    /// The tables for images of a size.
    fn tables(&self, plan: &Plan, packed: &Packed, extent: Extent) -> &Tables {
        let is_team = self.strategy == Strategy::Team;
        let follow = if is_team { shapes::following(plan, extent) } else { None };
        let rows_follow = follow.is_some();
        self.tables[usize::from(rows_follow)].get_or_init(|| {
            let steps = follow.unwrap_or_else(|| Steps::above_first(plan));
            let by = PixelsBy::of(self.strategy, self.room);
            // A table has the same bytes whether a part of a row runs beside pixels or not, where no two classes of rows that
            // differ have that part in common.
            let schedule = Schedule::new(plan, &steps, packed, smallest(plan), self.room, by);
            let handing = of_handing(self.strategy, &schedule);
            let bytes = uploaded(schedule.table.bytes()) + self.clusters + handing;
            let of_shape = RefCell::default();
            let teams = is_team.then_some(TeamTables { steps, schedule, rows_follow, of_shape });
            Tables { bytes, teams }
        })
    }

    /// Bytes of the tables of teams for a batch; none if the network does not fit them.
    fn of_teams(&self, plan: &Plan, packed: &Packed, extent: Extent) -> Option<u64> {
        let teams = self.tables(plan, packed, extent).teams.as_ref()?;
        teams.bytes(plan, extent.batch, self.team_blocks, self.block_memory)
    }

    /// Bytes of the arena and the tables of cached generation.
    pub fn cached(&self, plan: &Plan, packed: &Packed, extent: Extent) -> u64 {
        // With `Auto` a batch may take graphs, whose maps are larger.
        let graphs = self.strategy == Strategy::Auto;
        let by = PixelsBy::of(if graphs { Strategy::Graph } else { self.strategy }, self.room);
        let arena = self.cached.bytes(extent, |one| schedule::arena(plan, packed, one, by));
        let tables = self.tables(plan, packed, extent).bytes;
        arena.saturating_add(tables + self.of_teams(plan, packed, extent).unwrap_or(0))
    }

    /// Bytes of the arena and the table of full forward passes.
    pub fn pass(&self, plan: &Plan, packed: &Packed, extent: Extent) -> u64 {
        let arena = self.pass.bytes(extent, |one| naive::arena(plan, one));
        let table = || uploaded(naive::table(plan, packed, smallest(plan), self.room).bytes());
        arena.saturating_add(*self.of_pass.get_or_init(table))
    }
}
