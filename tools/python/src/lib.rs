//! The engine as a module for Python, `fast_pixel_cnn._engine`.
//!
//! The idea: here is what needs Rust, each call with everything said, and the package's own Python, beside this in
//! `python/fast_pixel_cnn`, is what people read and call: defaults, the forms in which arguments may come, words. Nothing
//! is computed in either: this calls the library as the programs do, so its bits are theirs.

mod engine;
mod errors;
mod sounds;
mod watched;

use pyo3::prelude::*;

/// What needs Rust of the package fast_pixel_cnn.
#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("BUILT_WITH_CUDA", fast_pixel_cnn::cuda::BUILT)?;
    module.add_class::<engine::Opened>()?;
    module.add_function(wrap_pyfunction!(engine::open, module)?)?;
    module.add_function(wrap_pyfunction!(sounds::sample_sounds, module)?)?;
    module.add_function(wrap_pyfunction!(sounds::nats_of_sounds, module)?)?;
    module.add_function(wrap_pyfunction!(sounds::logits_of_sounds, module)?)
}
