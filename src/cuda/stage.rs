//! Pieces as the kernels are told of them: stages with resolved addresses, and how they are launched.
//!
//! The idea: a stage is a piece of the plan, on a part of its taps and a span of positions. A launch is a list of
//! stages that do not depend on each other. Its shape follows from the stages' sizes and the number of
//! multiprocessors, never from one chip.

use bytemuck::{Zeroable, bytes_of, cast_slice};

use super::abi::{self, GEMM_SLICES, GEMM_TILE, GEMV_TILE, Grid, PART, STORED, Span, THREADS, Tap};
use super::kernels::Kernel;
use super::packed::{PackedPiece, chunks};
use crate::graph::{Activation, MapId};
use crate::plan::layout::{Extent, Layout, Storage};
use crate::plan::{Part, Plan};

/// The maps of a batch, each as it is: the kernels activate on load.
pub struct Maps {
    /// The block that holds them.
    pub layout: Layout,
    /// For each map its grid.
    pub grids: Vec<Grid>,
}

impl Maps {
    /// Lays out every map of a plan's graph, on lines of 128 bytes.
    pub fn new(plan: &Plan, storage: Storage, extent: Extent) -> Maps {
        let layout = Layout::new(&plan.graph, storage, extent, 32);
        let mut maps = Maps { layout, grids: Vec::new() };
        for map in 0..plan.graph.maps.len() {
            let grid = maps.place(map, padded(plan.graph.maps[map].channels));
            maps.grids.push(grid);
        }
        maps
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
    /// A piece on a part of its taps and a span. `accumulators` is where those of its hoisted taps are stored.
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
            taps.push(Tap {
                source: grid,
                weights: *weights as u64,
                row: tap.row as i32,
                column: tap.column as i32,
                first: header.chunks,
                chunks: if i < piece.hoisted { packed.row.chunks } else { packed.pixel.chunks } as i32,
            });
            header.chunks += chunks(plan.graph.maps[tap.source].channels) as i32;
        }
        header.tap_count = taps.len() as i32;
        header.output = maps.grids[layer.output];
        if let Some(add) = layer.epilogue.add {
            (header.add, header.adds) = (maps.grids[add], 1);
        }
        header.tanh = i32::from(layer.epilogue.tanh);
        header.gated = i32::from(layer.epilogue.gated);
        (header.bias, header.accumulators) = (packed.bias as u64, accumulators as u64);
        header.slices = packed.slices as i32;
        header.span = span as i32;
        header.loads_accumulators = i32::from(part == Part::Rest);
        header.stores_accumulators = i32::from(part == Part::Hoisted);
        header.input_step = piece.source_step as i32;
        header.output_step = piece.output_step as i32;
        [header.parity_row, header.parity_column] = piece.parity.map(|parity| parity as i32);
        [header.first_row, header.first_column] = piece.parity.map(|parity| (parity * piece.stride) as i32);
        header.shift = piece.pixels().trailing_zeros() as i32;
        header.inverse = inverse(piece.pixels() as u32 >> header.shift);
        header.rows = piece.steps(extent.height) as i32;
        header.columns = piece.steps(extent.width) as i32;
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

    /// Blocks of `masked_conv_gemm` across its slices and down its positions.
    fn gemm_blocks(&self, batch: usize) -> [u32; 2] {
        let (slices, positions) = (self.header.slices as usize, self.positions(batch));
        [slices.div_ceil(GEMM_SLICES) as u32, positions.div_ceil(GEMM_TILE) as u32]
    }

    /// Fits the stage to `masked_conv_gemv` and tells its blocks. As few slices in a block as it takes to give
    /// every multiprocessor one: the chunks of a block are read by as many threads either way, and the fewer
    /// its weights, the sooner it is done.
    fn fit_gemv(&mut self, batch: usize, multiprocessors: usize) -> [u32; 2] {
        let (chunks, slices) = (self.header.chunks as usize, self.header.slices as usize);
        let least = if self.header.gated == 1 { 2 } else { 1 };
        let lanes = chunks.next_multiple_of(8).min(THREADS / least);
        let tiles = self.positions(batch).div_ceil(GEMV_TILE);
        let fits = |group: &usize| *group >= least && group * lanes <= THREADS;
        let enough = |group: &usize| slices.div_ceil(*group) * tiles >= multiprocessors;
        let group = [8, 4, 2].into_iter().filter(fits).find(enough).unwrap_or(least);
        let x = slices.div_ceil(group);
        let y = tiles.min((2 * multiprocessors).div_ceil(x));
        (self.header.lanes, self.header.group) = (lanes as i32, group as i32);
        self.header.tiles = tiles.div_ceil(y) as i32;
        [x as u32, tiles.div_ceil(self.header.tiles as usize) as u32]
    }

    fn len(&self) -> usize {
        size_of::<abi::Stage>() + size_of_val(&self.taps[..])
    }
}

/// How a map without a stored activation is read: its own grid, and the activation, applied on load.
pub fn on_load(maps: &Maps, map: MapId, read: Activation) -> (Grid, i32) {
    (maps.grids[map], read as i32)
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The first stage in the table.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Whether they run through `masked_conv_gemm`.
    pub gemm: bool,
    /// Most groups of slices of a stage.
    pub x: u32,
    /// Most groups of positions of a stage.
    pub y: u32,
}

impl Launch {
    /// The kernel that it runs through.
    pub fn kernel(&self) -> Kernel {
        if self.gemm { Kernel::Gemm } else { Kernel::Gemv }
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

    /// Adds a launch and returns its index. It runs through `masked_conv_gemm` where that makes enough blocks
    /// to give every multiprocessor one.
    pub fn add(&mut self, mut stages: Vec<Stage>, batch: usize, multiprocessors: usize) -> usize {
        let gemm: Vec<_> = stages.iter().map(|s| s.gemm_blocks(batch)).collect();
        let is_gemm = gemm.iter().map(|[x, y]| (x * y) as usize).sum::<usize>() >= multiprocessors;
        let blocks = match is_gemm {
            true => gemm,
            false => stages.iter_mut().map(|s| s.fit_gemv(batch, multiprocessors)).collect(),
        };
        let most = |i: usize| blocks.iter().map(|b| b[i]).max().expect("a launch has stages");
        let launch =
            Launch { first: self.stages.len(), count: stages.len(), gemm: is_gemm, x: most(0), y: most(1) };
        self.stages.append(&mut stages);
        self.blocks.extend(blocks);
        self.launches.push(launch);
        self.launches.len() - 1
    }

    /// Bytes of a record: as long as the longest stage.
    pub fn record(&self) -> usize {
        self.stages.iter().map(Stage::len).max().unwrap_or(0).next_multiple_of(PART)
    }

    /// Parts of a record, each of which a thread copies.
    pub fn parts(&self) -> usize {
        self.record() / PART
    }

    /// As the device gets it: a record for each stage.
    pub fn records(&self) -> Vec<u8> {
        let record = self.record();
        let mut bytes = Vec::with_capacity(self.stages.len() * record);
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
