//! bfloat16 weights on the CUDA engine: as exact as float32 ones, and near the CPU engine's. That a run is one with rounded
//! float32 weights, bit for bit, is tested beside the kernels (`src/cuda/tests/precision.rs`).
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which.

#[path = "common/engines.rs"]
mod common;
#[path = "common/cuda.rs"]
mod ways;

use common::conformance::Way;
use common::golden::*;
use fast_pixel_cnn::cpu::{self, CpuEngine};
use fast_pixel_cnn::cuda::{self, CudaEngine, Strategy};
use fast_pixel_cnn::engine::{Batch, Engine, Method};
use fast_pixel_cnn::{ModelConfig, Precision, WaveNet, Weights};

fn cuda(weights: &Weights, strategy: Strategy, precision: Precision) -> CudaEngine {
    CudaEngine::new(weights, 0, &cuda::Options { strategy, precision }).expect("a device")
}

fn cpu(weights: &Weights) -> CpuEngine {
    let options = cpu::Options { precision: Precision::Bf16, ..cpu::Options::default() };
    CpuEngine::new(weights, &options).expect("weights in memory")
}

fn ways() -> Vec<Way> {
    let strategies = [Strategy::Launch, Strategy::Graph, Strategy::Persistent];
    strategies.map(|strategy| ways::way(strategy, Precision::Bf16)).into()
}

conformance!(ways(); an_image_is_one_array_of_bits_whatever_makes_it);

#[test]
fn logits_are_near_the_cpu_s_of_the_same_precision() {
    for directory in DIRECTORIES {
        let weights = load(&format!("{directory}/v2/params.ckpt"), false, relu(directory));
        let (images, labels) = (images(directory), labels(directory));
        let reference = cpu(&weights).logits(images.view(), labels.as_deref()).unwrap();
        let [narrow, wide] = [Precision::Bf16, Precision::F32].map(|precision| {
            let mut engine = cuda(&weights, Strategy::Launch, precision);
            largest(&engine.logits(images.view(), labels.as_deref()).unwrap(), &reference)
        });
        println!("{directory}: logits within {narrow:e}, float32's within {wide:e}");
        assert!(narrow <= 1e-4 && wide > 1e-4, "{directory}");
    }
}

/// Of a sequence the row phase's weights are rounded too.
#[test]
fn sounds_are_the_cpu_s_of_the_same_precision() {
    let config = WaveNet { dilations: vec![1, 2, 4], ..WaveNet::default() };
    let weights = Weights::synthetic(config, 5);
    let batch = Batch { keep_logits: true, ..Batch::new(2, 24, 1) };
    let on_cpu = cpu(&weights).make(&batch, &|_| true).unwrap();
    for strategy in [Strategy::Launch, Strategy::Persistent] {
        let mut engine = cuda(&weights, strategy, Precision::Bf16);
        let found = engine.make(&batch, &|_| true).unwrap();
        assert!(bits(&found.images) == bits(&on_cpu.images), "{strategy:?}: other samples were drawn");
        let off = largest(&found.logits.unwrap(), on_cpu.logits.as_ref().unwrap());
        println!("{strategy:?}: logits within {off:e} of the CPU's");
        assert!(off <= 1e-4, "{strategy:?}");
    }
}

/// What is stored is told, by the CPU's rule: but for the biases, and for what fills whole slices and chunks.
#[test]
fn an_engine_tells_how_its_weights_are_stored() {
    let sounds: ModelConfig = WaveNet { dilations: vec![1, 2], ..WaveNet::default() }.into();
    for (config, all) in [(SMALL.into(), false), (sounds, true)] {
        let weights = Weights::synthetic(config, 1);
        let [wide, narrow] = Precision::ALL.map(|precision| cuda(&weights, Strategy::Launch, precision));
        assert!(narrow.name().ends_with(", bf16)") && !wide.name().contains("bf16"), "{}", narrow.name());
        let share = narrow.weight_bytes() as f64 / wide.weight_bytes() as f64;
        println!("{share:.3} of the bytes of float32");
        assert!(if all { (0.5..0.53).contains(&share) } else { (0.6..0.95).contains(&share) }, "{share}");
        let batch_bytes = |engine: &CudaEngine| engine.batch_bytes(Method::Cached, 2, 4, 4);
        assert_eq!(batch_bytes(&narrow), batch_bytes(&wide));
    }
}
