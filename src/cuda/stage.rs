//! The structs that host and kernels share, field by field those of `cuda/stage.cuh`, `cuda/sample.cuh` and
//! `cuda/persistent.cu`.
//!
//! The idea: what the kernels are told is plain data. Addresses inside a table are offsets in floats, so
//! that a table does not depend on where the device put the buffers; only what is passed at a launch holds
//! device addresses.

use bytemuck::{Pod, Zeroable};

use super::layout::Grid;

/// Channels of a source that are summed as one.
pub const CHUNK: usize = 8;
/// Outputs that are stored side by side.
pub const SLICE: usize = 4;
/// Most taps of a stage.
pub const MAX_TAPS: usize = 8;
/// Threads of a block that sums.
pub const THREADS: usize = 128;
/// Positions that share a look at the weights in `masked_conv_narrow`.
pub const NARROW_TILE: usize = 4;
/// Positions of a block of `masked_conv_wide`.
pub const WIDE_TILE: usize = 64;
/// Slices of a block of `masked_conv_wide`.
pub const WIDE_SLICES: usize = 16;

/// `enum Form`.
pub mod form {
    /// As it is stored.
    pub const RAW: i32 = 0;
    /// Through elu.
    pub const ELU: i32 = 1;
    /// Through relu.
    pub const RELU: i32 = 2;
    /// Through concat_elu.
    pub const CONCAT_ELU: i32 = 3;
    /// The stored outcome of concat_elu.
    pub const STORED: i32 = 4;
}

/// `enum Span`: the positions on which a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// One pixel of each image.
    Pixel = 0,
    /// One row of each image.
    Row = 1,
    /// All of each image.
    Image = 2,
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
    pub chunk: i32,
    pub chunks: i32,
    pub stride: i32,
}

/// `struct Stage`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Stage {
    pub taps: [Tap; MAX_TAPS],
    pub output: Grid,
    pub residual: Grid,
    pub bias: u64,
    pub sums: u64,
    pub tap_count: i32,
    pub chunks: i32,
    pub slices: i32,
    pub form: i32,
    pub span: i32,
    pub gated: i32,
    pub from_sums: i32,
    pub to_sums: i32,
    pub input_step: i32,
    pub output_step: i32,
    pub shift: i32,
    pub parity_row: i32,
    pub parity_column: i32,
    pub rows: i32,
    pub columns: i32,
    pub lanes: i32,
    pub group: i32,
    pub tiles: i32,
    pub padding: [i32; 2],
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
    pub padding: i32,
}

/// `struct Sampler`: pointers are device addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Sampler {
    pub logits: Grid,
    pub image: Grid,
    pub seed: u64,
    pub mixture_noise: u64,
    pub logistic_noise: u64,
    pub kept_logits: u64,
    pub first_index: u32,
    pub mixtures: i32,
    pub temperature: f32,
    pub padding: i32,
}

/// `struct Entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Entry {
    pub stage: i32,
    pub wide: i32,
    pub x: i32,
    pub items: i32,
    pub start: i32,
    pub join: i32,
}

/// `struct Program`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Program {
    pub first: i32,
    pub count: i32,
}

/// `struct Programs`: pointers are device addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Programs {
    pub entries: u64,
    pub rows: u64,
    pub pixels: u64,
}
