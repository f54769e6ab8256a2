//! Opens an engine by the name of a device: the one place that knows every backend.

use crate::cpu::{CpuEngine, Options};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::weights::Weights;

/// The names that [`open`] takes.
pub const NAMES: &str = "auto or cpu";

/// An engine with these weights on a device: `auto` is the fastest one there is, `cpu` the processor.
/// `options` are for the processor.
///
/// # Errors
/// [`Error::Argument`] for another name, and what the engine refuses.
pub fn open(name: &str, weights: &Weights, options: &Options) -> Result<Box<dyn Engine>> {
    match name {
        "auto" | "cpu" => Ok(Box::new(CpuEngine::new(weights, options)?)),
        _ => Err(Error::argument("--device", NAMES, format!("\"{name}\""))),
    }
}
