//! Fast generation for PixelCNN++.
//!
//! Data flows one way: file -> weights -> network -> engine -> images. The modules stand on floors, and
//! each rests only on those below it:
//!
//! - [`cli`] is what the programs share
//! - [`device`] opens an engine by name; [`figure`] and [`animation`] draw what was made
//! - [`cpu`] and [`cuda`], the backends; [`generate`] and [`evaluate`] drive any
//! - [`engine`]: what a backend can do
//! - [`weights`] and [`schedule`]
//! - [`network`]: the architecture as data
//! - [`checkpoint`], [`config`], [`logistic`]
//! - [`images`]
//! - [`npy`], [`files`]
//! - [`memory`], [`philox`], [`signals`]
//! - [`error`]

pub mod animation;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod engine;
pub mod error;
pub mod evaluate;
pub mod figure;
pub mod files;
pub mod generate;
pub mod images;
pub mod logistic;
pub mod memory;
pub mod network;
pub mod npy;
pub mod philox;
pub mod schedule;
pub mod signals;
pub mod weights;

pub use config::{ModelConfig, Nonlinearity};
pub use error::{Error, Result};
pub use weights::Weights;
