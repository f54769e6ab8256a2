//! A virtual GPU: what `nvcc` compiled runs on the CPU, every access checked.
//!
//! The idea: a program for CUDA is host code that calls `libcuda.so.1`, and kernels as PTX text. This
//! crate is such a library. It executes that very text, warp by warp, so a machine without a GPU tells
//! whether the shipped code is right: out of bounds, never written, racing, badly synchronised.
//!
//! Data flows one way; the modules are layers, and each uses only those below it:
//!
//! - [`driver`]: the functions of `cuda.h`, on one state
//! - [`report`], [`device`]: what a program did, and what it can ask of the device
//! - [`exec`] runs a launch: clusters, blocks, warps, barriers
//! - [`program`] decodes a module into dense instructions
//! - [`isa`]: what each instruction does to a lane, as a table
//! - [`memory`]: the device's memory
//! - [`check`]: who touched which word last, and what is ordered
//! - [`counters`]: what is counted
//! - [`ptx`]: text to syntax tree
//! - [`fault`]: how a launch ends that ends badly

pub mod check;
pub mod counters;
pub mod device;
pub mod driver;
pub mod exec;
pub mod fault;
pub mod isa;
pub mod memory;
pub mod program;
pub mod ptx;
pub mod report;

pub use fault::{Fault, FaultKind};
