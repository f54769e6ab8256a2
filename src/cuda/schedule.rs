//! What is launched when, while a batch grows: the plan's steps as launches.
//!
//! The idea: the steps repeat with the period of the strides, so that each is a launch that many pixels share and
//! can be captured once and replayed, or written into the table that the persistent kernel walks through.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytemuck::Zeroable;

use super::abi::{Entry, Expected, Grid, SLICE, Span, reciprocal};
use super::cost::Room;
use super::kernels::Kernel;
use super::packed::Packed;
use super::stage::{Launch, Maps, Stage, Table, on_load};
use crate::graph::{IMAGE, MapId};
use crate::plan::layout::{Extent, Layout, Storage};
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
    /// What the pixels of a row make.
    pub expected: Vec<Expected>,
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

/// The arena of a batch.
pub fn arena(plan: &Plan, packed: &Packed, extent: Extent) -> Layout {
    lay_out(plan, packed, extent).0.layout
}

/// The maps that the pixel phase makes.
fn expected(plan: &Plan, steps: &Steps, packed: &Packed, maps: &Maps) -> Vec<Expected> {
    let width = maps.layout.extent().width;
    let of_map = |map: MapId, first: usize, channels: usize| {
        let stride = plan.graph.maps[map].stride;
        let [stride, first, columns, channels] = [stride, first, width / stride, channels].map(|n| n as i32);
        Expected { map: maps.grids[map], stride, first, columns, channels }
    };
    // Of each layer one piece: the others make the positions of other parities.
    let runs = steps.pixels.iter().flatten().flatten().flatten();
    let layers: BTreeMap<usize, usize> = runs.map(|run| (plan.pieces[run.piece].layer, run.piece)).collect();
    let outputs = layers.into_iter().map(|(layer, piece)| {
        let packed = &packed.pieces[piece];
        of_map(plan.graph.layers[layer].output, 0, packed.slices / packed.halves * SLICE)
    });
    // The pixel before the first of a row is there when the row begins.
    let image = of_map(IMAGE, usize::from(plan.graph.input.previous), plan.graph.maps[IMAGE].channels);
    outputs.chain([image]).collect()
}

/// Makes launches of steps; a step that recurs is one launch.
struct Builder<'a> {
    plan: &'a Plan,
    packed: &'a Packed,
    maps: &'a Maps,
    /// By piece.
    accumulators: &'a [usize],
    room: Room,
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
        let launch = self.table.add(stages.collect(), self.maps.layout.extent().batch, self.room);
        self.launches.insert((step.clone(), span), launch);
        launch
    }
}

impl Schedule {
    /// Plans a batch for a device.
    pub fn new(plan: &Plan, steps: &Steps, packed: &Packed, extent: Extent, room: Room) -> Schedule {
        let (maps, accumulators) = lay_out(plan, packed, extent);
        let mut builder = Builder {
            plan,
            packed,
            maps: &maps,
            accumulators: &accumulators,
            room,
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
        let expected = expected(plan, steps, packed, &maps);
        Schedule { arena, table, period, rows, given, pixels, expected, image, known, logits }
    }

    /// The kernels that its launches run through, but for rows that are given.
    pub fn kernels(&self) -> impl Iterator<Item = Kernel> {
        let launches = self.rows.iter().flatten().chain(self.pixels.iter().flatten()).flatten();
        launches.map(|&launch| self.table.launches[launch].kernel())
    }

    /// The launches of a row whose pixels are all known, with or without its logits.
    pub fn given(&self, row: usize, logits: bool) -> &[usize] {
        let launches = &self.given[row % self.period];
        &launches[..launches.len() - usize::from(!logits)]
    }

    /// The launches of rows and pixels as the persistent kernel reads them.
    /// `blocks` are those that walk through them.
    pub fn flat(&self, blocks: usize) -> Flat {
        let mut entries = Vec::new();
        let mut rows = Vec::new();
        for (row, launches) in self.rows.iter().enumerate() {
            let begin = self.flatten(&launches.concat(), Span::Row, blocks, &mut entries);
            let of_pixel = |launches: &Launches| self.flatten(launches, Span::Pixel, blocks, &mut entries);
            let of_row: Vec<_> = self.pixels[row].iter().map(of_pixel).collect();
            // The row phase comes before the first pixel, and after a pixel the one that has the next column.
            let mut follows = |run: &Range<usize>, next: usize| {
                entries[run.end - 1].next = of_row[next % self.period].start as i32;
            };
            follows(&begin, 0);
            of_row.iter().enumerate().for_each(|(column, run)| follows(run, column + 1));
            rows.push(begin);
        }
        for entry in 0..entries.len() {
            entries[entry].next_stage = entries[entries[entry].next as usize].stage;
        }
        Flat { entries, rows }
    }

    /// Adds the entries of some launches, one after the other. Stages of the pixel phase await what they read, but for
    /// those that run through `masked_conv_gemm`.
    fn flatten(
        &self,
        launches: &[usize],
        span: Span,
        blocks: usize,
        entries: &mut Vec<Entry>,
    ) -> Range<usize> {
        let begin = entries.len();
        let mut start = 0;
        for &launch in launches {
            let Launch { first, count, gemm, .. } = self.table.launches[launch];
            for stage in first..first + count {
                let [x, y] = self.table.blocks[stage].map(|n| n as i32);
                // Nothing comes before a row phase.
                let reads = stage == first && (gemm || span == Span::Row);
                let waits = u8::from(reads && (entries.len() > begin || span == Span::Pixel));
                let next = entries.len() as i32 + 1;
                let stage = stage as i32;
                let (gemm, items) = (u8::from(gemm), x * y);
                let of_x = reciprocal(x as usize);
                entries.push(Entry { stage, x, of_x, items, start, next, gemm, waits, ..Entry::zeroed() });
                start = (start + items) % blocks as i32;
            }
        }
        if launches.is_empty() {
            // What ends a row phase or a pixel is an entry: one that has nothing to do.
            entries.push(Entry { x: 1, ..Entry::zeroed() });
        }
        let last = entries.last_mut().expect("there is one entry at least");
        last.last = 1;
        begin..entries.len()
    }
}

/// What rows run, for the persistent kernel.
pub struct Flat {
    /// The entries, which tell their order: of each row modulo the period the row phase, then pixel after pixel.
    pub entries: Vec<Entry>,
    /// Those of the row phase, by row modulo the period.
    pub rows: Vec<Range<usize>>,
}
