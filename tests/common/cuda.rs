//! The CUDA engine as the tests of all engines open it.

use fast_pixel_cnn::Precision;
use fast_pixel_cnn::cuda::{CudaEngine, Options, Strategy};

use crate::common::conformance::Way;

/// By a strategy, with weights of a precision.
pub fn way(strategy: Strategy, precision: Precision) -> Way {
    Way {
        name: format!("{strategy:?}, {precision:?}"),
        open: Box::new(move |weights| {
            Box::new(CudaEngine::new(weights, 0, &Options { strategy, precision }).expect("a device"))
        }),
        // The virtual GPU interprets every thread.
        slow: true,
    }
}
