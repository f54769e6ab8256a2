//! The CUDA engine's types in a build without CUDA: they have no values.

use super::{Options, Prediction, Properties, Strategy};
use crate::engine::{Batch, Engine, Method, Output, Watch};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::precision::Precision;
use crate::weights::Weights;

/// The CUDA engine, of which this build has none.
pub enum CudaEngine {}

/// Number of devices; `None` without a driver, as in this build.
pub fn count() -> Option<u32> {
    None
}

impl CudaEngine {
    /// Says that this build has no CUDA.
    ///
    /// # Errors
    /// [`Error::Device`], always.
    pub fn new(_: &Weights, ordinal: u32, _: &Options) -> Result<CudaEngine> {
        Err(Error::Device {
            device: format!("cuda:{ordinal}"),
            action: "open the device".into(),
            found: "built without CUDA: build with --features cuda".into(),
        })
    }

    /// The device.
    pub fn properties(&self) -> &Properties {
        match *self {}
    }

    /// How cached generation is run.
    pub fn strategy(&self) -> Strategy {
        match *self {}
    }

    /// How the weights of the pixel phase are stored.
    pub fn precision(&self) -> Precision {
        match *self {}
    }

    /// Seconds that the device took for the last batch, from the first stage to the last.
    pub fn device_seconds(&self) -> f64 {
        match *self {}
    }

    /// Cycles a second of the device.
    pub fn clock(&self) -> f64 {
        match *self {}
    }

    /// What [`Strategy::Auto`] takes for a batch of images of a size.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn fastest(&self, _: usize, _: [usize; 2]) -> Result<Strategy> {
        match *self {}
    }

    /// What a batch of images of a size is predicted to take by each strategy that can make it, on a device of `clock` cycles a second.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn predict(&self, _: usize, _: [usize; 2], _: f64) -> Result<Vec<Prediction>> {
        match *self {}
    }

    /// Generates a batch with the cached method and lets a profiler capture some rows.
    ///
    /// # Errors
    /// As for [`Engine::make`].
    pub fn profile(&mut self, _: &Batch, _: std::ops::Range<usize>) -> Result<Output> {
        match *self {}
    }
}

impl Engine for CudaEngine {
    fn name(&self) -> String {
        match *self {}
    }

    fn graph(&self) -> &Graph {
        match *self {}
    }

    fn weight_bytes(&self) -> u64 {
        match *self {}
    }

    fn batch_bytes(&self, _: Method, _: usize, _: usize, _: usize) -> u64 {
        match *self {}
    }

    fn make(&mut self, _: &Batch, _: Watch) -> Result<Output> {
        match *self {}
    }
}
