//! What is launched when, while a batch grows: the plan's steps as launches.
//!
//! The idea: the steps repeat with the period of the strides, so that each is a launch that many pixels share and
//! can be captured once and replayed, or, of the pixels, written into the table that the persistent kernel walks through.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytemuck::Zeroable;

use super::Strategy;
use super::abi::{CLUSTER, Entry, Expected, Grid, SLICE, Span, reciprocal};
use super::cost::{Form, Room, Work};
use super::kernels::Kernel;
use super::packed::Packed;
use super::stage::{Launch, Maps, Stage, Table};
use crate::graph::{Activation, IMAGE, MapId};
use crate::plan::Plan;
use crate::plan::layout::{Extent, Layout, Storage};
use crate::plan::steps::{Step, Steps};

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
    /// What of the row phase is to run beside the pixels of the row before, by row modulo the period, if there is room.
    pub upper: Option<Vec<Launches>>,
    /// The launches of the row phase, by row modulo the period: what layers take from rows above, the maps that are known then,
    /// and all that the other layers can sum.
    pub rows: Vec<[Launches; 3]>,
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

/// What makes the pixels of a row.
#[derive(Clone, Copy)]
pub enum PixelsBy {
    /// Launches.
    Launches,
    /// The persistent kernel, for which there is so much room.
    Persistent(Room),
    /// Clusters, of which so many run at a time.
    Clusters(usize),
    /// Teams.
    Teams,
}

impl PixelsBy {
    /// What it is by a strategy, where the persistent kernel would have some room.
    pub fn of(strategy: Strategy, persistent: Room) -> PixelsBy {
        match strategy {
            Strategy::Launch | Strategy::Graph => PixelsBy::Launches,
            Strategy::Auto | Strategy::Persistent => PixelsBy::Persistent(persistent),
            Strategy::Cluster => PixelsBy::Clusters((persistent.multiprocessors / CLUSTER).max(1)),
            Strategy::Team => PixelsBy::Teams,
        }
    }
}

/// Images of a cluster, where so many clusters run at a time and share a batch.
pub fn images_of_cluster(batch: usize, clusters: usize) -> usize {
    batch.div_ceil(clusters)
}

/// Where everything lies: the maps, and for each piece that leaves sums a row of accumulators.
fn lay_out(plan: &Plan, packed: &Packed, extent: Extent, by: PixelsBy) -> (Maps, Vec<usize>) {
    // What launches make is made once and read by many blocks, so it is stored as they read it: all that is known when a row
    // begins, and if the pixels are made by launches too, every layer's output. But only if a stage of launches reads nothing else.
    let launched = matches!(by, PixelsBy::Launches);
    let by_launches = |map: MapId| {
        let graph = &plan.graph;
        !graph.is_given(map) && (launched || graph.is_row_known(map))
    };
    let mut stored = vec![None; plan.graph.maps.len()];
    for piece in &plan.pieces {
        let read = plan.layer(piece).read;
        for part in piece.row_part().into_iter().chain(piece.pixel_part().filter(|_| launched)) {
            let sources = || plan.taps_of(piece, part).map(|tap| tap.source);
            if read != Activation::Identity && sources().all(by_launches) {
                sources().for_each(|map| stored[map] = stored[map].or(Some(read)));
            }
        }
    }
    let mut maps = Maps::new(plan, Storage::Ring, extent, stored);
    let accumulators =
        plan.pieces.iter().zip(&packed.pieces).map(|(piece, packed)| match plan.keeps_sums(piece) {
            true => maps.layout.reserve(&[extent.batch, piece.steps(extent.width), packed.width()]),
            false => 0,
        });
    let accumulators = accumulators.collect();
    (maps, accumulators)
}

/// The arena of a batch.
pub fn arena(plan: &Plan, packed: &Packed, extent: Extent, by: PixelsBy) -> Layout {
    lay_out(plan, packed, extent, by).0.layout
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
    /// Of launches.
    room: Room,
    by: PixelsBy,
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
        let (stages, batch) = (self.stages(step, span), self.batch());
        let launch = match self.by {
            PixelsBy::Persistent(room) if span == Span::Pixel => {
                self.table.push(stages, batch, room, &[Form::Gemv])
            }
            _ => self.table.add(stages, batch, self.room),
        };
        self.launches.insert((step.clone(), span), launch);
        launch
    }

    fn stages(&self, step: &Step, span: Span) -> Vec<Stage> {
        let stages = step.iter().map(|run| {
            let (packed, accumulators) = (&self.packed.pieces[run.piece], self.accumulators[run.piece]);
            // The kernels of pixels apply activations themselves.
            let as_stored = span != Span::Pixel || matches!(self.by, PixelsBy::Launches);
            let source = self.maps.source(self.plan, *run, as_stored);
            Stage::new(self.plan, run.piece, packed, self.maps, (run.part, span), accumulators, source)
        });
        stages.collect()
    }

    fn batch(&self) -> usize {
        self.maps.layout.extent().batch
    }

    /// The launches of the row phase: those that find some room beside pixels, and the others.
    fn rows(&mut self, steps: &Steps, beside: Option<Room>) -> (Option<Vec<Launches>>, Vec<[Launches; 3]>) {
        let mut above = steps.above.clone();
        let upper = beside.map(|room| {
            let all = std::mem::replace(&mut self.room, room);
            let upper = steps.upper.chunks(1).map(|step| self.launches(step, Span::Row)).collect();
            self.room = all;
            upper
        });
        if upper.is_none() {
            above.iter_mut().zip(&steps.upper).for_each(|(above, upper)| above.extend(upper));
        }
        let of_row = |row| {
            let of_row = [&above[row..=row], &steps.known[row], &steps.hoisted[row..=row]];
            of_row.map(|steps| self.launches(steps, Span::Row))
        };
        (upper, (0..steps.period).map(of_row).collect())
    }

    /// What clusters leave of the device, if that is enough to sum the steps `upper` while they make the pixels of a row. It is
    /// supposed that a cluster's share of the batch fits its shared memory: where it does not, they leave less, and take longer.
    fn beside(&self, upper: &[Step], pixels: &[Vec<Launches>]) -> Option<Room> {
        let PixelsBy::Clusters(clusters) = self.by else { return None };
        let images = images_of_cluster(self.batch(), clusters);
        let taken = CLUSTER * self.batch().div_ceil(images);
        let left = self.room.multiprocessors.checked_sub(taken).filter(|&left| left > 0)?;
        // Those that are left need not lie together, as a cluster's have to.
        let room = Room { multiprocessors: left, spread: 0, ..self.room };
        let works = |step: &Step| -> Vec<Work> {
            self.stages(step, Span::Row).iter().map(|stage| stage.work(self.batch())).collect()
        };
        let sums = upper.iter().map(works).filter(|works| !works.is_empty());
        let sums: f64 = sums.map(|works| Work::fastest(&works, &Form::ALL, room).1.1).sum();
        let stages = pixels.iter().flatten().flatten().flat_map(|&launch| self.table.stages_of(launch));
        let of_period: f64 = stages.map(|stage| stage.work(self.batch()).cluster_step(images)).sum();
        let periods = self.maps.layout.extent().width as f64 / pixels.len() as f64;
        (0.0 < sums && sums < of_period * periods).then_some(room)
    }
}

impl Schedule {
    /// Plans a batch for a device that has room for launches.
    pub fn new(
        plan: &Plan,
        steps: &Steps,
        packed: &Packed,
        extent: Extent,
        room: Room,
        by: PixelsBy,
    ) -> Schedule {
        let (maps, accumulators) = lay_out(plan, packed, extent, by);
        let mut builder = Builder {
            plan,
            packed,
            maps: &maps,
            accumulators: &accumulators,
            room,
            by,
            table: Table::default(),
            launches: HashMap::new(),
        };
        let classes = 0..steps.period;
        let mut of_row = |row| -> Vec<Launches> {
            let of_pixel = |column| builder.launches(steps.pixel(row, column), Span::Pixel);
            classes.clone().map(of_pixel).collect()
        };
        let pixels: Vec<_> = classes.clone().map(&mut of_row).collect();
        let beside = builder.beside(&steps.upper, &pixels);
        let (upper, rows) = builder.rows(steps, beside);
        let given = classes.map(|row| builder.launches(&steps.given[row], Span::Row)).collect();
        let table = builder.table;
        let (image, logits) = (maps.grids[IMAGE], maps.grids[plan.graph.logits()]);
        let known = plan.graph.input.known.map(|map| maps.grids[map]);
        let (arena, period) = (maps.layout.len, steps.period);
        let expected = expected(plan, steps, packed, &maps);
        Schedule { arena, table, period, upper, rows, given, pixels, expected, image, known, logits }
    }

    /// The kernels that the launches of rows and pixels run through, of rows that are drawn.
    pub fn kernels(&self) -> Vec<Kernel> {
        let launches = self.rows.iter().flatten().chain(self.pixels.iter().flatten()).flatten();
        launches.map(|&launch| self.table.launches[launch].kernel()).collect()
    }

    /// The launches of a row whose pixels are all known, with or without its logits.
    pub fn given(&self, row: usize, logits: bool) -> &[usize] {
        let launches = &self.given[row % self.period];
        &launches[..launches.len() - usize::from(!logits)]
    }

    /// The launches of the pixels as the persistent kernel reads them, which are all of `masked_conv_gemv`; `blocks` walk
    /// through them.
    pub fn flat(&self, blocks: usize) -> Flat {
        let mut entries = Vec::new();
        let mut rows = Vec::new();
        for classes in &self.pixels {
            let starts: Vec<_> =
                classes.iter().map(|launches| self.flatten(launches, blocks, &mut entries)).collect();
            // After a pixel comes the one of the next column.
            for (column, pixel) in starts.iter().enumerate() {
                entries[pixel.end - 1].next = starts[(column + 1) % self.period].start as i32;
            }
            rows.push(starts[0].start);
        }
        for entry in 0..entries.len() {
            entries[entry].next_stage = entries[entries[entry].next as usize].stage;
        }
        Flat { entries, rows }
    }

    /// Adds the entries of a pixel's launches, one after the other.
    fn flatten(&self, launches: &[usize], blocks: usize, entries: &mut Vec<Entry>) -> Range<usize> {
        let begin = entries.len();
        let mut start = 0;
        for &launch in launches {
            let Launch { first, count, form, .. } = self.table.launches[launch];
            assert_eq!(form, Form::Gemv, "the others await nothing");
            for stage in first..first + count {
                let [x, y] = self.table.blocks[stage].map(|n| n as i32);
                let (next, of_x, items) = (entries.len() as i32 + 1, reciprocal(x as usize), x * y);
                entries.push(Entry { stage: stage as i32, x, of_x, items, start, next, ..Entry::zeroed() });
                start = (start + items) % blocks as i32;
            }
        }
        if launches.is_empty() {
            // What ends a pixel is an entry: one that has nothing to do.
            entries.push(Entry { x: 1, ..Entry::zeroed() });
        }
        let last = entries.last_mut().expect("there is one entry at least");
        last.last = 1;
        begin..entries.len()
    }
}

/// What the pixels of rows run, for the persistent kernel.
pub struct Flat {
    /// The entries, which tell their order: pixel after pixel, of each row modulo the period.
    pub entries: Vec<Entry>,
    /// The first of a row, by row modulo the period.
    pub rows: Vec<usize>,
}
