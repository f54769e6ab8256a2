//! Pieces as the kernels are told of them: stages with resolved addresses, and how they are launched.
//!
//! The idea: a stage is a piece of the plan, on a part of its taps and a span of positions. A launch is a list of
//! stages that do not depend on each other. Its shape follows from the stages' sizes and the number of
//! multiprocessors, never from one chip.

use bytemuck::{Zeroable, bytes_of, cast_slice};

use super::abi::{self, Grid, PART, SLICE, STORED, Span, Tap};
use super::cost::{Division, Form, Room, Work};
use super::driver::Shape;
use super::kernels::Kernel;
use super::packed::{PackedPiece, chunks};
use crate::graph::{Activation, IMAGE, MapId};
use crate::plan::layout::{Extent, Layout, Storage};
use crate::plan::steps::Run;
use crate::plan::{Part, Plan};
use crate::precision::Precision;

/// The maps of a batch, each as it is: the kernels activate on load, but what is stored through an activation too.
pub struct Maps {
    /// The block that holds them.
    pub layout: Layout,
    /// For each map its grid.
    pub grids: Vec<Grid>,
    /// The activation through which a map's values are stored beside them too.
    beside: Vec<Option<Activation>>,
}

impl Maps {
    /// Lays out every map of a plan's graph, on lines of 128 bytes. `beside` has for each map the activation, other than the
    /// identity, through which it is stored too, if any, by the stages that make it.
    pub fn new(plan: &Plan, storage: Storage, extent: Extent, beside: Vec<Option<Activation>>) -> Maps {
        let mut layout = Layout::new(&plan.graph, storage, extent, 32);
        if storage == Storage::Ring && plan.graph.input.previous {
            // The last pixel of a row enters the next row's first position while others may still read this row.
            layout.keep(IMAGE, 1);
        }
        let count = plan.graph.maps.len();
        let mut maps = Maps { layout, grids: Vec::new(), beside };
        for map in 0..count {
            let channels = padded(plan.graph.maps[map].channels);
            let copies = maps.beside[map].map_or(0, |activation| activation.copies());
            let grid = maps.place(map, (1 + copies) * channels);
            let beside = if copies > 0 { channels as i32 } else { 0 };
            maps.grids.push(Grid { beside, ..grid });
        }
        maps
    }

    /// The activation through which a map's values are stored beside them.
    pub fn stores(&self, map: MapId) -> Option<Activation> {
        self.beside[map]
    }

    /// How a run's stage reads its sources, by one activation: as they are stored through it, if all are and `as_stored`; else as
    /// they are.
    pub fn source(
        &self,
        plan: &Plan,
        run: Run,
        as_stored: bool,
    ) -> impl Fn(MapId, Activation) -> (Grid, i32) + use<'_> {
        let (piece, read) = (&plan.pieces[run.piece], plan.layer(&plan.pieces[run.piece]).read);
        let all = as_stored && plan.taps_of(piece, run.part).all(|tap| self.stores(tap.source) == Some(read));
        move |map, read| if all { beside(self, map, read) } else { on_load(self, map, read) }
    }

    /// Places a grid like a map's, of `channels` floats a position.
    pub fn place(&mut self, map: MapId, channels: usize) -> Grid {
        self.layout.place(map, channels).into()
    }
}

/// Floats of a position of `channels` channels.
pub fn padded(channels: usize) -> usize {
    channels.next_multiple_of(abi::CHUNK)
}

/// A stage as a table holds it: the header, and behind it the taps.
#[derive(Clone)]
pub struct Stage {
    /// The header.
    pub header: abi::Stage,
    /// The taps.
    pub taps: Vec<Tap>,
}

impl Stage {
    /// A piece on a part of its taps and a span. `accumulators` is where one part leaves its sums for the next.
    /// `source` gives the grid from which a map is read through an activation, and the activation that is left
    /// to apply, an `abi::Stage::activation`.
    pub fn new(
        plan: &Plan,
        index: usize,
        packed: &PackedPiece,
        maps: &Maps,
        (part, span): (Part, Span),
        accumulators: usize,
        source: impl Fn(MapId, Activation) -> (Grid, i32),
    ) -> Stage {
        let piece = &plan.pieces[index];
        let (layer, extent) = (plan.layer(piece), maps.layout.extent());
        let mut header = abi::Stage::zeroed();
        let mut taps = Vec::new();
        let of_part = piece.part(part);
        for (i, (tap, weights)) in plan.taps(piece).zip(&packed.taps).enumerate() {
            if !of_part.contains(&i) {
                continue;
            }
            let (grid, activation) = source(tap.source, layer.read);
            header.activation = activation;
            let phase = if i < piece.hoisted { packed.row } else { packed.pixel };
            let of_tap = chunks(plan.graph.maps[tap.source].channels) as i32;
            taps.push(Tap {
                source: grid,
                weights: *weights as u64,
                row: tap.row as i32,
                column: tap.column as i32,
                first: header.chunks,
                chunks: phase.chunks as i32,
            });
            header.chunks += of_tap;
            if phase.precision == Precision::F32 {
                header.wide += of_tap;
            }
        }
        header.tap_count = taps.len() as i32;
        header.output = maps.grids[layer.output];
        header.stores = maps.beside[layer.output].filter(|_| !part.stores()).map_or(0, |read| read as i32);
        if let Some(add) = layer.epilogue.add {
            (header.add, header.adds) = (maps.grids[add], 1);
        }
        header.tanh = i32::from(layer.epilogue.tanh);
        header.gated = i32::from(layer.epilogue.gated);
        (header.bias, header.accumulators) = (packed.bias as u64, accumulators as u64);
        header.slices = packed.slices as i32;
        header.span = span as i32;
        header.loads_accumulators = i32::from(part.loads());
        header.stores_accumulators = i32::from(part.stores());
        header.input_step = piece.source_step as i32;
        header.output_step = piece.output_step as i32;
        [header.parity_row, header.parity_column] = piece.parity.map(|parity| parity as i32);
        [header.first_row, header.first_column] = piece.parity.map(|parity| (parity * piece.stride) as i32);
        header.shift = piece.pixels().trailing_zeros() as i32;
        header.inverse = inverse(piece.pixels() as u32 >> header.shift);
        header.rows = piece.steps(extent.height) as i32;
        header.columns = piece.steps(extent.width) as i32;
        header.of_columns = abi::reciprocal(piece.steps(extent.width));
        Stage { header, taps }
    }

    /// Positions of the stage.
    fn positions(&self, batch: usize) -> usize {
        let (rows, columns) = (self.header.rows as usize, self.header.columns as usize);
        batch
            * match self.header.span {
                s if s == Span::Pixel as i32 => 1,
                s if s == Span::Row as i32 => columns,
                _ => rows * columns,
            }
    }

    /// What it takes for a batch.
    pub fn work(&self, batch: usize) -> Work {
        let activation = self.header.activation;
        let exponential = [Activation::Elu, Activation::ConcatElu].map(|read| read as i32);
        Work {
            activates: exponential.contains(&activation),
            positions: self.positions(batch),
            chunks: self.header.chunks as usize,
            wide: self.header.wide as usize,
            slices: self.header.slices as usize,
            rows: if activation >= Activation::ConcatElu as i32 { 2 * abi::CHUNK } else { abi::CHUNK },
            least: 1 + self.header.gated as usize,
        }
    }

    /// Divides the stage into items and tells its blocks: groups of slices, groups of positions.
    fn fit(&mut self, form: Form, division: &Division) -> [u32; 2] {
        match form {
            Form::Gemv => {
                self.header.lanes_shift = division.lanes.trailing_zeros() as i32;
                self.header.group = division.group as i32;
                let outputs = (division.group * SLICE) >> self.header.gated;
                self.header.outputs_shift = outputs.trailing_zeros() as i32;
                self.header.tiles = division.tiles as i32;
                self.header.of_form = self.early(division.lanes) as i32;
            }
            Form::Split(_) | Form::Gemm(_) | Form::Spread(_) => self.header.of_form = division.of_form as i32,
        }
        [division.x as u32, division.y as u32]
    }

    /// The first chunks that the persistent kernel multiplies and adds while the inputs of the others are awaited: those of all taps
    /// but the last, which in the models that there are reads what the stage before has made. None where their sums do not end
    /// with 16 bytes, or where behind the others' there is no room for what is added to whole reads of them.
    fn early(&self, lanes: usize) -> usize {
        const READ: usize = 8;
        let (early, chunks) =
            (self.taps.last().map_or(0, |tap| tap.first as usize), self.header.chunks as usize);
        let fits = early + (chunks - early).next_multiple_of(READ) <= lanes;
        if early % SLICE == 0 && early >= READ && fits { early } else { 0 }
    }

    /// Bytes of its record.
    pub fn len(&self) -> usize {
        size_of::<abi::Stage>() + size_of_val(&self.taps[..])
    }
}

/// Bytes of a record that any stage of a plan fits into.
pub fn longest_record(plan: &Plan) -> usize {
    let taps = plan.pieces.iter().map(|piece| piece.taps).max().unwrap_or(0);
    (size_of::<abi::Stage>() + taps * size_of::<Tap>()).next_multiple_of(PART)
}

/// How a map is read as it is: its own grid, and the activation, applied on load.
pub fn on_load(maps: &Maps, map: MapId, read: Activation) -> (Grid, i32) {
    (maps.grids[map], read as i32)
}

/// How a map is read whose values through an activation are stored beside it.
fn beside(maps: &Maps, map: MapId, read: Activation) -> (Grid, i32) {
    let grid = maps.grids[map];
    stored(Grid { base: grid.base + grid.beside as u64, ..grid }, read)
}

/// How a map is read whose values through an activation are stored in `grid`: nothing is left to apply.
pub fn stored(grid: Grid, read: Activation) -> (Grid, i32) {
    (grid, if read == Activation::ConcatElu { STORED } else { Activation::Identity as i32 })
}

/// The inverse of an odd number modulo 2^32, by Newton's method: each step doubles the bits that are right, of which
/// an odd number itself has three.
fn inverse(odd: u32) -> u32 {
    (0..4).fold(odd, |x, _| x.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(x))))
}

/// Stages that do not depend on each other, in one launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch {
    /// The first stage in the table.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// How they run.
    pub form: Form,
    /// Most groups of slices of a stage.
    pub x: u32,
    /// Most groups of positions of a stage.
    pub y: u32,
    /// Cycles that it is predicted to take.
    pub cycles: f64,
}

impl Launch {
    /// The kernel that it runs through.
    pub fn kernel(&self) -> Kernel {
        match self.form {
            Form::Gemv => Kernel::Gemv,
            Form::Split(_) => Kernel::Split,
            Form::Spread(_) => Kernel::Spread,
            Form::Gemm(_) => Kernel::Gemm,
        }
    }

    /// Its blocks, where a record has so many bytes.
    pub fn shape(&self, record: usize) -> Shape {
        let (threads, beside, cluster) = match self.form {
            Form::Gemv | Form::Gemm(_) => (abi::THREADS, 0, None),
            Form::Split(_) => (abi::SPLIT_THREADS, abi::SPLIT_SHARED, None),
            Form::Spread(blocks) => (abi::SPREAD_THREADS, abi::SPREAD_SHARED, Some(blocks as u32)),
        };
        let grid = [self.x, self.y, self.count as u32];
        Shape { grid, block: threads as u32, shared: (record + beside) as u32, cluster, follows: false }
    }

    /// Whether its kernel waits itself until the launch before has ended.
    pub fn awaits(&self) -> bool {
        self.kernel() == Kernel::Spread
    }
}

/// All stages of a batch, and the launches they are in.
#[derive(Default)]
pub struct Table {
    stages: Vec<Stage>,
    /// Blocks of each stage: groups of slices, groups of positions.
    pub blocks: Vec<[u32; 2]>,
    /// Launches.
    pub launches: Vec<Launch>,
}

impl Table {
    /// The kernels that its launches run through.
    pub fn kernels(&self) -> impl Iterator<Item = Kernel> {
        self.launches.iter().map(Launch::kernel)
    }

    /// Adds a launch, in the form that is predicted to take it the least time, and returns its index.
    pub fn add(&mut self, stages: Vec<Stage>, batch: usize, room: Room) -> usize {
        self.push(stages, batch, room, &Form::ALL)
    }

    /// Adds a launch in one of some forms and returns its index.
    pub fn push(&mut self, stages: Vec<Stage>, batch: usize, room: Room, forms: &[Form]) -> usize {
        let works: Vec<_> = stages.iter().map(|stage| stage.work(batch)).collect();
        let (form, (divisions, cycles)) = Work::fastest(&works, forms, room);
        let mut divided: Vec<_> = stages.into_iter().zip(&divisions).collect();
        // A device begins with the first blocks: those are to be what takes longest. Stages of pixels keep the order of the steps, by
        // which clusters and teams find them.
        if divided.iter().all(|(stage, _)| stage.header.span != Span::Pixel as i32) {
            divided.sort_by(|(_, a), (_, b)| b.latency.total_cmp(&a.latency));
        }
        let fit = |(mut stage, division): (Stage, &Division)| {
            let blocks = stage.fit(form, division);
            (stage, blocks)
        };
        let (mut stages, blocks): (Vec<_>, Vec<_>) = divided.into_iter().map(fit).unzip();
        let most = |i: usize| blocks.iter().map(|b| b[i]).max().expect("a launch has stages");
        let launch =
            Launch { first: self.stages.len(), count: stages.len(), form, x: most(0), y: most(1), cycles };
        self.stages.append(&mut stages);
        self.blocks.extend(blocks);
        self.launches.push(launch);
        self.launches.len() - 1
    }

    /// The stages of a launch.
    pub fn stages_of(&self, launch: usize) -> &[Stage] {
        let Launch { first, count, .. } = self.launches[launch];
        &self.stages[first..first + count]
    }

    /// A stage.
    pub fn stage(&self, index: usize) -> &Stage {
        &self.stages[index]
    }

    /// Bytes of a record: as long as the longest stage.
    pub fn record(&self) -> usize {
        self.stages.iter().map(Stage::len).max().unwrap_or(0).next_multiple_of(PART)
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> usize {
        self.stages.len() * self.record()
    }

    /// Parts of a record, each of which a thread copies.
    pub fn parts(&self) -> usize {
        self.record() / PART
    }

    /// As the device gets it: a record for each stage.
    pub fn records(&self) -> Vec<u8> {
        let record = self.record();
        let mut bytes = Vec::with_capacity(self.bytes());
        for stage in &self.stages {
            let end = bytes.len() + record;
            bytes.extend_from_slice(bytes_of(&stage.header));
            bytes.extend_from_slice(cast_slice(&stage.taps));
            bytes.resize(end, 0);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::inverse;

    #[test]
    fn a_product_with_the_inverse_is_the_exact_quotient() {
        for odd in (1..4000).step_by(2).chain([u32::MAX, u32::MAX / 3]) {
            assert_eq!(odd.wrapping_mul(inverse(odd)), 1);
            let most = u32::MAX / odd;
            for quotient in [0, 1, 2, most / 2, most] {
                assert_eq!((quotient * odd).wrapping_mul(inverse(odd)), quotient);
            }
        }
    }
}
