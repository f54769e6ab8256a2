//! Fast generation for PixelCNN++.
//!
//! Data flows one way: file -> weights -> network -> engine -> images. The modules stand on floors, and
//! each rests only on those below it:
//!
//! - [`device`] opens an engine by name
//! - [`cpu`] and [`cuda`], the backends; [`generate`] and [`evaluate`] drive any
//! - [`engine`]: what a backend can do
//! - [`plan`]: a graph made ready for any backend
//! - [`weights`]
//! - [`models`]: one file per architecture
//! - [`graph`]: a network as data, and what follows from it
//! - [`heads`]: what the last layer's numbers mean
//! - [`checkpoint`]
//! - [`images`]
//! - [`npy`], [`files`]
//! - [`memory`], [`philox`]
//! - [`error`]
//!
//! The programs stand on top, and with them what only they need: `cli`, `figure` and `animation`, and `signals`.
//! Without the feature `cli`, which is on by default, they are left out.

#[cfg(feature = "cli")]
pub mod animation;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod engine;
pub mod error;
pub mod evaluate;
#[cfg(feature = "cli")]
pub mod figure;
pub mod files;
pub mod generate;
pub mod graph;
pub mod heads;
pub mod images;
pub mod memory;
pub mod models;
pub mod npy;
pub mod philox;
pub mod plan;
#[cfg(feature = "cli")]
pub mod signals;
pub mod weights;

pub use error::{Error, Result};
pub use models::{ModelConfig, Nonlinearity};
pub use weights::Weights;
