//! The structs that host and kernels share, field by field those of `cuda/stage.cuh`, `cuda/input.cuh`,
//! `cuda/sampler.cuh`, `cuda/expected.cuh`,
//! `cuda/persistent.cuh` and `cuda/masked_conv_cluster.cuh`; in [`team`] those of `cuda/team_tables.cuh`.
//!
//! The idea: what the kernels are told is plain data. Addresses inside a table are offsets in floats, so
//! that a table does not depend on where the device put the buffers; only what is passed at a launch holds
//! device addresses.

pub mod team;

use bytemuck::{Pod, Zeroable};

use crate::graph::Activation;
use crate::heads;
use crate::plan::layout;

/// Channels of a source in a chunk: they are summed before they are added to the accumulator.
pub const CHUNK: usize = 8;
/// Outputs that are stored side by side.
pub const SLICE: usize = 4;
/// Threads of a block of `masked_conv_gemv`, `masked_conv_gemm` and the persistent kernel.
pub const THREADS: usize = 128;
/// Threads of a warp.
pub const WARP: usize = 32;
/// Bytes of a part of a record: what a thread copies.
pub const PART: usize = 16;
/// Positions that `masked_conv_gemv` multiplies by the weights at a time.
pub const GEMV_TILE: usize = 4;
/// Slices of a block of `masked_conv_gemm`.
pub const GEMM_SLICES: usize = 16;
/// Slices of a block of `masked_conv_split`.
pub const SPLIT_SLICES: usize = 8;
/// Its positions, in two tiles.
pub const SPLIT_TALL: usize = 40;
pub const SPLIT_LOW: usize = 20;
/// Its threads.
pub const SPLIT_THREADS: usize = 256;

/// Positions of a cluster of `masked_conv_spread`.
pub const SPREAD_TILE: usize = 32;
/// Its slices.
pub const SPREAD_SLICES: usize = 2;
/// Chunks of each of its blocks, at most.
pub const SPREAD_LANES: usize = 16;
/// Its blocks, at least and at most.
pub const SPREAD_LEAST: usize = 4;
pub const SPREAD_BLOCKS: usize = 8;
/// Threads of each.
pub const SPREAD_THREADS: usize = 192;

/// Most chunks that a block of `masked_conv_gemv` sums side by side.
pub const GEMV_LANES: usize = 64;
/// Fewest threads for the chunks of a slice, of which some may have none.
pub const GEMV_LEAST_LANES: usize = 16;

/// Blocks of a cluster.
pub const CLUSTER: usize = 16;
/// Threads of each of its blocks: those that multiply, those that add, and those that bring the inputs.
pub const MULTIPLIERS: usize = 256;
pub const ADDERS: usize = 64;
pub const BRINGERS: usize = 64;
pub const SETS: usize = 2;
/// Records in its shared memory, steps whose values are there, and taps of a stage that may read them.
pub const RECORDS: usize = 8;
pub const RECENT: usize = 3;
pub const RECENT_TAPS: usize = 32;
/// Warps of a block that draw at a time, and pixels for which what they take but the logits may be there.
pub const DRAWERS: usize = ADDERS / WARP;
pub const AHEADS: usize = 4;

/// Bytes of shared memory that `masked_conv_gemv` takes beside the record of its stage.
const GEMV_SHARED: usize = 26688;
/// Bytes of shared memory that a block of `masked_conv_split` is given behind a record.
pub const SPLIT_SHARED: usize = 54_016;

/// The same of `masked_conv_spread`.
pub const SPREAD_SHARED: usize = 59_600;

/// Bytes of shared memory that a block may have if they are asked for: on every device, and on those that have clusters.
pub const MOST_SHARED: usize = 64 << 10;
pub const MOST_SHARED_IN_CLUSTERS: usize = 96 << 10;

/// Most taps of a stage: its record and that of the next stage, and their entries, fit into the rest of the 48 KiB of
/// shared memory that every device has.
pub const MAX_TAPS: usize =
    (((48 << 10) - GEMV_SHARED) / 2 - size_of::<Entry>() - size_of::<Stage>()) / size_of::<Tap>();
const LONGEST: usize = (size_of::<Stage>() + MAX_TAPS * size_of::<Tap>()).next_multiple_of(PART);
const _: () = assert!(SPLIT_SHARED + LONGEST <= MOST_SHARED);
const _: () = assert!(SPREAD_SHARED + LONGEST <= MOST_SHARED_IN_CLUSTERS);

/// `enum Activation`: an [`Activation`], or this, which reads what has been stored through concat_elu.
pub const STORED: i32 = Activation::ALL.len() as i32;

/// `enum Span`: the positions on which a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// One pixel of each image.
    Pixel = 0,
    /// One row of each image.
    Row = 1,
    /// All of each image.
    Image = 2,
}

/// `struct Grid`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Grid {
    pub base: u64,
    pub rows: i32,
    pub above: i32,
    pub columns: i32,
    pub channels: i32,
    pub of_rows: u32,
    pub beside: i32,
}

/// 2^32 / d, rounded down, for `quotient` of `cuda/stage.cuh`; 2^32 - 1 for a d of 1.
pub fn reciprocal(d: usize) -> u32 {
    u32::try_from((1_u64 << 32) / d.max(1) as u64).unwrap_or(u32::MAX)
}

impl From<layout::Grid> for Grid {
    fn from(grid: layout::Grid) -> Grid {
        Grid::new(grid.base, [grid.rows, grid.above, grid.columns, grid.channels].map(|n| n as i32))
    }
}

impl Grid {
    /// A grid by its base and its rows, what is added to a row, columns and channels.
    pub fn new(base: usize, [rows, above, columns, channels]: [i32; 4]) -> Grid {
        let of_rows = reciprocal(rows as usize);
        Grid { base: base as u64, rows, above, columns, channels, of_rows, beside: 0 }
    }

    /// The same grid, for images whose rows from `first` on it holds.
    pub fn turned_to(self, first: usize) -> Grid {
        Grid { above: self.above - first as i32, ..self }
    }
}

/// `struct Tap`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Tap {
    pub source: Grid,
    pub weights: u64,
    pub row: i32,
    pub column: i32,
    pub first: i32,
    pub chunks: i32,
}

/// `struct Stage`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Stage {
    pub output: Grid,
    pub add: Grid,
    pub bias: u64,
    pub accumulators: u64,
    pub tap_count: i32,
    pub chunks: i32,
    pub slices: i32,
    pub activation: i32,
    pub span: i32,
    pub tanh: i32,
    pub gated: i32,
    pub adds: i32,
    pub loads_accumulators: i32,
    pub stores_accumulators: i32,
    pub input_step: i32,
    pub output_step: i32,
    pub parity_row: i32,
    pub parity_column: i32,
    pub first_row: i32,
    pub first_column: i32,
    pub shift: i32,
    pub inverse: u32,
    pub rows: i32,
    pub columns: i32,
    pub lanes_shift: i32,
    pub group: i32,
    pub outputs_shift: i32,
    pub tiles: i32,
    pub of_form: i32,
    pub of_columns: u32,
    pub wide: i32,
    pub stores: i32,
}

/// `struct Cursor`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Cursor {
    pub row: i32,
    pub column: i32,
    pub fault: u64,
}

/// `struct Batch`: pointers are device addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Batch {
    pub arena: u64,
    pub weights: u64,
    pub classes: u64,
    pub cursor: u64,
    pub size: i32,
    pub height: i32,
    pub width: i32,
    pub parts: i32,
    pub of_size: u32,
    pub padding: i32,
}

/// `struct Head`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Head {
    pub kind: i32,
    pub logits: i32,
    pub draws: i32,
    pub values: i32,
}

impl From<heads::Head> for Head {
    fn from(head: heads::Head) -> Head {
        let kind = match head {
            heads::Head::MixtureOfLogistics { .. } => 0,
            heads::Head::Categorical { .. } => 1,
        };
        let [logits, draws, values] = [head.logits(), head.draws(), head.values()].map(|n| n as i32);
        Head { kind, logits, draws, values }
    }
}

/// `struct Input`: pointers are device addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Input {
    pub image: Grid,
    pub pixels: u64,
    pub start: u64,
    pub ln_symbols: f64,
    pub encoding: i32,
    pub previous: i32,
    pub values: i32,
    pub channels: i32,
    pub symbols: i32,
    pub end: i32,
}

/// `struct Sampler`: pointers are device addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Sampler {
    pub logits: Grid,
    pub input: Input,
    pub seed: u64,
    pub noise: u64,
    pub kept_logits: u64,
    pub head: Head,
    pub first_index: u32,
    pub temperature: f32,
}

/// `struct Entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Entry {
    pub stage: i32,
    pub x: i32,
    pub of_x: u32,
    pub items: i32,
    pub start: i32,
    pub next: i32,
    pub next_stage: i32,
    pub last: i32,
}

/// `struct Expected`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Expected {
    pub map: Grid,
    pub stride: i32,
    pub first: i32,
    pub columns: i32,
    pub channels: i32,
}

/// `struct Turn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Turn {
    pub next: i32,
    pub last: i32,
    pub units: i32,
    pub rounds: i32,
    pub page: i32,
    pub line: i32,
    pub works: i32,
    pub next_works: i32,
    pub next_units: i32,
    pub early: i32,
    pub older: i32,
    pub sent_by: i32,
    pub recent_add: i32,
    pub of_outputs: [u32; 2],
    pub tap_shift: i32,
    pub taps_shift: i32,
    pub sends_logits: i32,
    pub recent: u64,
}

/// `struct Work`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Work {
    pub told: i32,
    pub sums: i32,
}

/// `struct Cluster`: pointers are device addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Cluster {
    pub records: u64,
    pub weights: u64,
    pub parts: i32,
    pub images: i32,
    pub tile: i32,
    pub inputs: i32,
    pub sums: i32,
    pub recent: i32,
    pub recent_negatives: i32,
    pub own: i32,
    pub records_at: i32,
    pub inputs_at: i32,
    pub sums_at: i32,
    pub recent_at: i32,
    pub own_at: i32,
    pub tokens_at: i32,
    pub arrivals_at: i32,
    pub aheads_at: i32,
    pub works_at: i32,
    pub padding: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Encoding;
    use crate::heads::Head as Of;

    const SOURCES: [&str; 12] = [
        include_str!("../../cuda/stage.cuh"),
        include_str!("../../cuda/input.cuh"),
        include_str!("../../cuda/sampler.cuh"),
        include_str!("../../cuda/expected.cuh"),
        include_str!("../../cuda/persistent.cuh"),
        include_str!("../../cuda/gemv_inputs.cuh"),
        include_str!("../../cuda/masked_conv_gemm.cuh"),
        include_str!("../../cuda/masked_conv_split.cuh"),
        include_str!("../../cuda/masked_conv_spread.cuh"),
        include_str!("../../cuda/cluster_exchange.cuh"),
        include_str!("../../cuda/cluster_tables.cuh"),
        include_str!("../../cuda/masked_conv_cluster.cuh"),
    ];

    fn stated(text: &str) -> bool {
        SOURCES.iter().any(|source| source.lines().any(|line| line.trim_start().starts_with(text)))
    }

    /// The kernels' sources state each size, and nvcc holds them to it.
    #[test]
    fn structs_are_as_long_as_in_the_kernels() {
        for (name, size) in [
            ("gemv::Shared", GEMV_SHARED),
            ("split::Shared", SPLIT_SHARED),
            ("spread::Shared", SPREAD_SHARED),
            ("Grid", size_of::<Grid>()),
            ("Tap", size_of::<Tap>()),
            ("Stage", size_of::<Stage>()),
            ("Cursor", size_of::<Cursor>()),
            ("Batch", size_of::<Batch>()),
            ("Head", size_of::<Head>()),
            ("Input", size_of::<Input>()),
            ("Sampler", size_of::<Sampler>()),
            ("Entry", size_of::<Entry>()),
            ("Expected", size_of::<Expected>()),
            ("Turn", size_of::<Turn>()),
            ("Cluster", size_of::<Cluster>()),
            ("Work", size_of::<Work>()),
        ] {
            assert!(stated(&format!("static_assert(sizeof({name}) == {size});")), "{name} has {size} bytes");
        }
    }

    #[test]
    fn constants_are_those_of_the_kernels() {
        for (name, value) in [
            ("CHUNK", CHUNK),
            ("SLICE", SLICE),
            ("THREADS", THREADS),
            ("WARP", WARP),
            ("TILE", GEMV_TILE),
            ("LANES", GEMV_LANES),
            ("LEAST_LANES", GEMV_LEAST_LANES),
            ("SLICES", GEMM_SLICES),
            ("SPLIT_SLICES", SPLIT_SLICES),
            ("SPLIT_TALL", SPLIT_TALL),
            ("SPLIT_LOW", SPLIT_LOW),
            ("SPLIT_THREADS", SPLIT_THREADS),
            ("SPREAD_TILE", SPREAD_TILE),
            ("SPREAD_SLICES", SPREAD_SLICES),
            ("SPREAD_LANES", SPREAD_LANES),
            ("SPREAD_LEAST", SPREAD_LEAST),
            ("SPREAD_BLOCKS", SPREAD_BLOCKS),
            ("SPREAD_THREADS", SPREAD_THREADS),
            ("CLUSTER", CLUSTER),
            ("MULTIPLIERS", MULTIPLIERS),
            ("ADDERS", ADDERS),
            ("BRINGERS", BRINGERS),
            ("SETS", SETS),
            ("RECORDS", RECORDS),
            ("RECENT", RECENT),
            ("RECENT_TAPS", RECENT_TAPS),
            ("AHEADS", AHEADS),
        ] {
            assert!(stated(&format!("constexpr int {name} = {value};")), "{name} is {value}");
        }
        let kind = |head: Of| Head::from(head).kind;
        for (name, value) in [
            ("IDENTITY", Activation::Identity as i32),
            ("ELU", Activation::Elu as i32),
            ("RELU", Activation::Relu as i32),
            ("CONCAT_ELU", Activation::ConcatElu as i32),
            ("STORED", STORED),
            ("PIXEL", Span::Pixel as i32),
            ("ROW", Span::Row as i32),
            ("IMAGE", Span::Image as i32),
            ("VALUES", Encoding::Values as i32),
            ("ONE_HOT", Encoding::OneHot as i32),
            ("MU_LAW", Encoding::MuLaw as i32),
            ("MIXTURE", kind(Of::MixtureOfLogistics { mixtures: 1, channels: 1 })),
            ("CATEGORICAL", kind(Of::Categorical { symbols: 2 })),
        ] {
            assert!(stated(&format!("{name} = {value},")), "{name} is {value}");
        }
    }
}
