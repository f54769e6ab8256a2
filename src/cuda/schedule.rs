//! What is launched when, while a batch grows: the plan's steps as launches.
//!
//! The idea: the steps repeat with the period of the strides, so that each is a launch that many pixels share and
//! can be captured once and replayed, or written into the table that the persistent kernel walks through.

use std::collections::HashMap;

use super::abi::{Entry, Grid, Program, Span};
use super::packed::Packed;
use super::stage::{Launch, Maps, Stage, Table, on_load};
use crate::graph::IMAGE;
use crate::plan::layout::{Extent, Storage};
use crate::plan::steps::{Step, Steps};
use crate::plan::{Part, Plan};

/// Launches of the table, to be run one after the other.
pub type Launches = Vec<usize>;

/// The launches of a batch.
pub struct Schedule {
    /// Floats of the arena.
    pub arena: usize,
    /// The stages.
    pub table: Table,
    /// Rows and columns after which everything repeats.
    pub period: usize,
    /// The launches of the row phase, by row modulo the period: the maps that are known then, and all that the other
    /// layers can sum.
    pub rows: Vec<[Launches; 2]>,
    /// The launches of a row whose pixels are all known, by row modulo the period. The last makes the logits.
    pub given: Vec<Launches>,
    /// What a pixel needs, by row and column modulo the period.
    pub pixels: Vec<Vec<Launches>>,
    /// The image.
    pub image: Grid,
    /// What is given for every position.
    pub known: Option<Grid>,
    /// The logits.
    pub logits: Grid,
}

/// Where everything lies: the maps, and for each piece a row of hoisted accumulators.
fn lay_out(plan: &Plan, packed: &Packed, extent: Extent) -> (Maps, Vec<usize>) {
    let mut maps = Maps::new(plan, Storage::Ring, extent);
    let accumulators = plan.pieces.iter().zip(&packed.pieces).map(|(piece, packed)| match piece.row_part() {
        Some(Part::Hoisted) => {
            maps.layout.reserve(&[extent.batch, piece.steps(extent.width), packed.width()])
        }
        _ => 0,
    });
    let accumulators = accumulators.collect();
    (maps, accumulators)
}

/// Bytes on the device that a batch needs beyond the weights.
pub fn bytes(plan: &Plan, packed: &Packed, extent: Extent) -> u64 {
    lay_out(plan, packed, extent).0.layout.bytes()
}

/// Makes launches of steps; a step that recurs is one launch.
struct Builder<'a> {
    plan: &'a Plan,
    packed: &'a Packed,
    maps: &'a Maps,
    /// By piece.
    accumulators: &'a [usize],
    multiprocessors: usize,
    table: Table,
    launches: HashMap<(Step, Span), usize>,
}

impl Builder<'_> {
    fn launches(&mut self, steps: &[Step], span: Span) -> Launches {
        steps.iter().filter(|step| !step.is_empty()).map(|step| self.launch(step, span)).collect()
    }

    fn launch(&mut self, step: &Step, span: Span) -> usize {
        if let Some(&launch) = self.launches.get(&(step.clone(), span)) {
            return launch;
        }
        let stages = step.iter().map(|run| {
            let (packed, accumulators) = (&self.packed.pieces[run.piece], self.accumulators[run.piece]);
            let source = |map, read| on_load(self.maps, map, read);
            Stage::new(self.plan, run.piece, packed, self.maps, (run.part, span), accumulators, source)
        });
        let launch = self.table.add(stages.collect(), self.maps.layout.extent().batch, self.multiprocessors);
        self.launches.insert((step.clone(), span), launch);
        launch
    }
}

impl Schedule {
    /// Plans a batch for a device with `multiprocessors` multiprocessors.
    pub fn new(
        plan: &Plan,
        steps: &Steps,
        packed: &Packed,
        extent: Extent,
        multiprocessors: usize,
    ) -> Schedule {
        let (maps, accumulators) = lay_out(plan, packed, extent);
        let mut builder = Builder {
            plan,
            packed,
            maps: &maps,
            accumulators: &accumulators,
            multiprocessors,
            table: Table::default(),
            launches: HashMap::new(),
        };
        let (mut rows, mut given, mut pixels) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..steps.period {
            let first = [&steps.known[row][..], std::slice::from_ref(&steps.hoisted[row])];
            rows.push(first.map(|steps| builder.launches(steps, Span::Row)));
            given.push(builder.launches(&steps.given[row], Span::Row));
            let columns = 0..steps.period;
            pixels.push(columns.map(|c| builder.launches(steps.pixel(row, c), Span::Pixel)).collect());
        }
        let table = builder.table;
        let (image, logits) = (maps.grids[IMAGE], maps.grids[plan.graph.logits()]);
        let known = plan.graph.input.known.map(|map| maps.grids[map]);
        let (arena, period) = (maps.layout.len, steps.period);
        Schedule { arena, table, period, rows, given, pixels, image, known, logits }
    }

    /// The launches of a row whose pixels are all known, with or without its logits.
    pub fn given(&self, row: usize, logits: bool) -> &[usize] {
        let launches = &self.given[row % self.period];
        &launches[..launches.len() - usize::from(!logits)]
    }

    /// The launches of rows and pixels as the persistent kernel reads them: entries, then the runs of
    /// entries of the rows and of the pixels.
    pub fn flat(&self) -> (Vec<Entry>, Vec<Program>, Vec<Program>) {
        let mut entries = Vec::new();
        let rows = self.rows.iter().map(|launches| self.flatten(&launches.concat(), &mut entries)).collect();
        let pixels =
            self.pixels.iter().flatten().map(|launches| self.flatten(launches, &mut entries)).collect();
        (entries, rows, pixels)
    }

    fn flatten(&self, launches: &[usize], entries: &mut Vec<Entry>) -> Program {
        let first = entries.len();
        let mut start = 0;
        for &launch in launches {
            let Launch { first, count, gemm, .. } = self.table.launches[launch];
            for stage in first..first + count {
                let [x, y] = self.table.blocks[stage].map(|n| n as i32);
                entries.push(Entry {
                    stage: stage as i32,
                    gemm: i32::from(gemm),
                    x,
                    items: x * y,
                    start,
                    join: i32::from(stage + 1 == first + count),
                });
                start += x * y;
            }
        }
        if launches.is_empty() {
            // The kernel looks for what comes next at the end of an entry: one that has nothing to do.
            entries.push(Entry { stage: 0, gemm: 0, x: 1, items: 0, start, join: 0 });
        }
        Program { first: first as i32, count: (entries.len() - first) as i32 }
    }
}
