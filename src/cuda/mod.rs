//! The CUDA engine.
//!
//! The idea: as on the CPU, a batch is one arena, one table of stages and one schedule. `graph/` says what is
//! computed, `plan/` when; [`Strategy`] is how the device gets from one stage to the next. Kernels are in `cuda/`,
//! compiled to PTX by `build.rs`.
//!
//! Without the feature `cuda` the same types exist and [`CudaEngine::new`] says that there is no CUDA in this
//! build, so that nobody else has to ask.

#[cfg(feature = "cuda")]
mod abi;
#[cfg(feature = "cuda")]
mod cached;
#[cfg(feature = "cuda")]
mod cluster;
#[cfg(feature = "cuda")]
mod cost;
#[cfg(feature = "cuda")]
mod driver;
#[cfg(feature = "cuda")]
mod engine;
#[cfg(feature = "cuda")]
mod footprint;
#[cfg(feature = "cuda")]
mod kernels;
#[cfg(feature = "cuda")]
mod libcuda;
#[cfg(feature = "cuda")]
mod loaded;
#[cfg(feature = "cuda")]
mod modules;
#[cfg(feature = "cuda")]
mod naive;
#[cfg(feature = "cuda")]
mod nvtx;
#[cfg(feature = "cuda")]
mod packed;
#[cfg(feature = "cuda")]
mod pages;
#[cfg(feature = "cuda")]
mod pixels;
#[cfg(feature = "cuda")]
mod predict;
#[cfg(feature = "cuda")]
mod recent;
#[cfg(feature = "cuda")]
mod rounds;
#[cfg(feature = "cuda")]
mod schedule;
#[cfg(feature = "cuda")]
mod shapes;
#[cfg(feature = "cuda")]
mod stage;
#[cfg(feature = "cuda")]
mod stored;
#[cfg(feature = "cuda")]
mod streams;
#[cfg(feature = "cuda")]
mod team;
#[cfg(feature = "cuda")]
mod walk;

#[cfg(feature = "cuda")]
pub use driver::count;
#[cfg(feature = "cuda")]
pub use engine::CudaEngine;

#[cfg(not(feature = "cuda"))]
mod absent;
#[cfg(not(feature = "cuda"))]
pub use absent::{CudaEngine, count};

mod bounds;
#[cfg(all(test, feature = "cuda"))]
mod tests;

pub use bounds::Bounds;
use serde::Serialize;

use crate::precision::Precision;

/// Whether this build has CUDA.
pub const BUILT: bool = cfg!(feature = "cuda");

/// How cached generation gets from one stage to the next. The images are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// For each batch the one that is predicted to be the fastest, of those that the device can do and that have been measured.
    #[default]
    Auto,
    /// The host launches every stage.
    Launch,
    /// Each phase is captured once, as a graph, and replayed.
    Graph,
    /// Graphs for what comes before the pixels of a row, and for those a cooperative launch, in which stages hand their
    /// values over.
    Persistent,
    /// The same for what comes before the pixels of a row, and for those a launch of clusters, whose blocks exchange values
    /// through shared memory. For devices of compute capability 9.0 and later.
    Cluster,
    /// The same for what comes before the pixels of a row, and for those a launch of teams of blocks, each of which makes its own
    /// images: the narrow layers in one block. A launch makes many samples of a sound. For networks of narrow layers.
    Team,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Strategy; 6] = [
        Strategy::Auto,
        Strategy::Launch,
        Strategy::Graph,
        Strategy::Persistent,
        Strategy::Cluster,
        Strategy::Team,
    ];

    /// As the user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Auto => "auto",
            Strategy::Launch => "launch",
            Strategy::Graph => "graph",
            Strategy::Persistent => "persistent",
            Strategy::Cluster => "cluster",
            Strategy::Team => "team",
        }
    }
}

/// How to run on a CUDA device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How cached generation gets from one stage to the next.
    pub strategy: Strategy,
    /// How the weights of the pixel phase are stored.
    pub precision: Precision,
}

/// Seconds that a batch is predicted to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// How the device gets from one stage to the next.
    pub strategy: Strategy,
    /// Row phases of the images.
    pub rows: f64,
    /// Their pixel phases, without drawing.
    pub pixels: f64,
    /// Drawing their pixels.
    pub drawing: f64,
    /// A full forward pass over them.
    pub pass: f64,
}

impl Prediction {
    /// Seconds of cached generation.
    pub fn cached(&self) -> f64 {
        self.rows + self.pixels + self.drawing
    }

    /// Seconds of naive generation: a pass for each pixel.
    pub fn naive(&self, height: usize, width: usize) -> f64 {
        (height * width) as f64 * self.pass
    }
}

/// What a device can do, from its attributes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Properties {
    /// "cuda:0".
    pub label: String,
    /// As the driver calls it.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// The newest CUDA version that the driver knows: (13, 0).
    pub driver: (i32, i32),
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Whether all blocks of a launch can be made to run at once.
    pub cooperative: bool,
    /// Whether it has clusters of blocks.
    pub clusters: bool,
    /// Bytes of shared memory that a block may have.
    pub block_memory: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the second-level cache.
    pub l2: u64,
    /// Cycles per second of the multiprocessors, as reported; 0 if not.
    pub clock: f64,
    /// Cycles per second of the memory, as reported; 0 if not.
    pub memory_clock: f64,
    /// Bits of the memory's bus; 0 if not reported.
    pub bus_bits: usize,
}
