//! Fast generation for PixelCNN++.
//!
//! Data flows one way: file -> weights -> network -> engine -> images. Each module rests only on
//! those listed below it.

pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod cpu;
pub mod device;
pub mod engine;
pub mod error;
pub mod evaluate;
pub mod generate;
pub mod images;
pub mod logistic;
pub mod memory;
pub mod network;
pub mod npy;
pub mod philox;
pub mod schedule;
pub mod weights;

pub use config::{ModelConfig, Nonlinearity};
pub use error::{Error, Result};
pub use weights::Weights;
