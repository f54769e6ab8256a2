//! Layer by layer: graphs made by hand, cached against naive bit for bit on every instruction set, and both against
//! a plain evaluation in float64.

mod common;

use common::stacks::{KNOWN, forward, stacks};
use fast_pixel_cnn::Weights;
use fast_pixel_cnn::cpu::{CpuEngine, Isa, Options, Precision, Split};
use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise};
use ndarray::{Array4, s};

/// Numbers in [-1, 1] for every position.
fn known(size: usize, height: usize, width: usize) -> Array4<f32> {
    Array4::from_shape_fn((size, height, width, KNOWN), |(n, r, c, k)| {
        ((n * 31 + r * 17 + c * 7 + k * 3) % 41) as f32 / 20.0 - 1.0
    })
}

#[test]
fn every_stack_is_what_its_layers_say_and_cached_equals_naive() {
    stacks_agree(Precision::F32, 2e-5);
}

#[test]
fn with_bfloat16_weights_cached_equals_naive_too() {
    stacks_agree(Precision::Bf16, 0.05);
}

fn stacks_agree(precision: Precision, tolerance: f64) {
    for classes in [0, 3] {
        for (name, graph) in stacks(classes) {
            let period = graph.period();
            let weights = Weights::synthetic_for(graph, 5);
            for (i, isa) in Isa::ALL.into_iter().filter(|i| i.available()).enumerate() {
                let split = if i % 2 == 0 { Split::Outputs } else { Split::Images };
                let options = Options { threads: Some(2 + i), isa: Some(isa), split: Some(split), precision };
                let mut engine = CpuEngine::new(&weights, &options).expect("weights in memory");
                // Without a fused multiply-add in hardware everything takes a hundred times as long.
                let (size, height, width) = match isa {
                    Isa::Portable => (2, 8usize.next_multiple_of(period), 4usize.next_multiple_of(period)),
                    _ => (3, 12, 8usize.next_multiple_of(period)),
                };
                let labels: Vec<u32> = (0..size as u32).map(|i| i % classes.max(1) as u32).collect();
                let known = known(size, height, width);
                let mut batch = Batch {
                    size,
                    height,
                    width,
                    labels: (classes > 0).then_some(&labels[..]),
                    noise: Noise::Philox { seed: 8, first_index: 0 },
                    temperature: 1.0,
                    known: weights.graph().known.map(|_| known.view()),
                    given: None,
                    method: Method::Cached,
                    keep_logits: true,
                };
                let cached = engine.make(&batch, &|_| true).expect("sound batch");
                batch.method = Method::Naive;
                let naive = engine.make(&batch, &|_| true).expect("sound batch");
                assert!(cached == naive, "{name}, {isa:?}, {classes} classes: cached is not naive");

                let logits = cached.logits.expect("asked for");
                for (image, label) in labels.iter().enumerate() {
                    let view = |array: &Array4<f32>| array.slice(s![image, .., .., ..]).to_owned();
                    let class = *label as usize;
                    let exact = forward(&weights, view(&cached.images).view(), view(&known).view(), class);
                    let found = logits.slice(s![image..image + 1, .., .., ..]);
                    let largest = exact.iter().zip(&found).map(|(a, b)| (a - f64::from(*b)).abs());
                    let largest = largest.fold(0.0, f64::max);
                    assert!(largest < tolerance, "{name}, {isa:?}, {classes} classes: off by {largest:e}");
                }
            }
        }
    }
}
