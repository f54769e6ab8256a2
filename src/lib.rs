//! Fast generation for PixelCNN++.
//!
//! Data flows one way: file -> weights -> network -> engine -> images. The modules stand on floors, and
//! each rests only on those below it:
//!
//! - [`device`] opens an engine by name
//! - [`cli`] is what the programs share
//! - [`cpu`] and [`cuda`], the backends; [`generate`] and [`evaluate`] drive any
//! - [`engine`]: what a backend can do
//! - [`plan`]: a graph made ready for any backend
//! - [`weights`]
//! - [`models`]: one file per architecture
//! - [`graph`]: a network as data, and what follows from it
//! - [`heads`]: what the last layer's numbers mean
//! - [`checkpoint`]; [`figure`] and [`animation`] draw what was made
//! - [`images`]
//! - [`npy`], [`files`]
//! - [`memory`], [`philox`], [`signals`]
//! - [`error`]

pub mod animation;
pub mod checkpoint;
pub mod cli;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod engine;
pub mod error;
pub mod evaluate;
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
pub mod signals;
pub mod weights;

pub use error::{Error, Result};
pub use models::{ModelConfig, Nonlinearity};
pub use weights::Weights;
