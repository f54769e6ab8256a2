//! The CUDA engine holds what every engine holds, by each strategy.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which.

#[path = "common/engines.rs"]
mod common;
#[path = "common/cuda.rs"]
mod cuda;

use common::conformance::Way;
use fast_pixel_cnn::Precision;
use fast_pixel_cnn::cuda::Strategy;

fn ways() -> Vec<Way> {
    let strategies = [Strategy::Launch, Strategy::Graph, Strategy::Persistent];
    strategies.map(|strategy| cuda::way(strategy, Precision::F32)).into()
}

conformance!(ways());
