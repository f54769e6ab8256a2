//! The CUDA engine holds what every engine holds, by each strategy.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which.

#[path = "common/engines.rs"]
mod common;

use common::conformance::Way;
use fast_pixel_cnn::cuda::{CudaEngine, Options, Strategy};

fn ways() -> Vec<Way> {
    let way = |strategy: Strategy| Way {
        name: format!("{strategy:?}"),
        open: Box::new(move |weights| {
            let options = Options { strategy, ..Options::default() };
            Box::new(CudaEngine::new(weights, 0, &options).expect("a device"))
        }),
        // The virtual GPU interprets every thread.
        slow: true,
    };
    [Strategy::Launch, Strategy::Graph, Strategy::Persistent].map(way).into()
}

conformance!(ways());
