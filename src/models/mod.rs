//! One file per architecture, the only place that knows it.
//!
//! The idea: a model is a configuration and the graph that follows from it; nobody above asks what kind it is.

mod config;
mod pixel_cnn_pp;

pub use config::{ModelConfig, Nonlinearity};
