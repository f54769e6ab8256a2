//! Where the time of an image goes, in pieces that can be compared from one change to the next:
//! whole generations and their phases, a full forward pass, and what a pixel costs beside the network.
//!
//! `cargo bench` runs all of it, `cargo bench -- cached` a part. For the figures against the paper use
//! the program `bench`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fast_pixel_cnn::cpu::{CpuEngine, Options, Phases};
use fast_pixel_cnn::engine::{Batch, Engine, Noise};
use fast_pixel_cnn::{Nonlinearity, PixelCnnPp, Weights, philox};
use ndarray::Array4;

/// The shape of the bundled demo model, without classes.
const DEMO: PixelCnnPp = PixelCnnPp {
    resnets: 2,
    filters: 32,
    mixtures: 5,
    channels: 3,
    classes: 0,
    nonlinearity: Nonlinearity::ConcatElu,
};

/// Images are 32x32, as in the paper.
const SIDE: usize = 32;

fn engines(c: &mut Criterion) {
    for (model, config, batches) in [("demo", DEMO, [1, 16]), ("paper", PixelCnnPp::PAPER, [1, 4])] {
        let weights = Weights::synthetic(config, 1);
        let mut engine =
            CpuEngine::new(&weights, &Options::default()).expect("the default options are sound");
        let mut group = c.benchmark_group(format!("{model} on {}", engine.name()));
        group.sample_size(10);
        for size in batches {
            group.throughput(Throughput::Elements(size as u64));
            let batch =
                Batch { noise: Noise::Philox { seed: 1, first_index: 0 }, ..Batch::new(size, SIDE, SIDE) };
            group.bench_function(format!("cached, batch {size}"), |b| {
                b.iter(|| engine.make(&batch, &|_| true).expect("a sound batch"))
            });
            type Phase = fn(&Phases) -> f64;
            let phases: [(&str, Phase); 3] =
                [("row", |p| p.row), ("hoist", |p| p.hoist), ("pixels", |p| p.pixels)];
            for (name, seconds) in phases {
                group.bench_function(format!("cached, batch {size}: {name}"), |b| {
                    b.iter_custom(|count| {
                        let all = (0..count).map(|_| engine.phases(&batch).expect("a sound batch"));
                        Duration::from_secs_f64(all.map(|p| seconds(&p)).sum())
                    })
                });
            }
            group.bench_function(format!("forward pass, batch {size}"), |b| {
                let images = Array4::zeros((size, SIDE, SIDE, 3));
                b.iter(|| engine.logits(images.view(), None).expect("sound images"))
            });
        }
    }
}

fn pixel(c: &mut Criterion) {
    let head = PixelCnnPp::PAPER.head();
    let logits: Vec<f32> = (0..head.logits()).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut uniforms = vec![0.0; head.draws()];
    c.bench_function("random numbers of a pixel", |b| {
        b.iter(|| philox::uniforms(1, 2, 3, 4, black_box(&mut uniforms)))
    });
    c.bench_function("sample of a pixel", |b| {
        let mut pixel = vec![0.0; head.values()];
        b.iter(|| head.sample(black_box(&logits), 1.0, &uniforms, black_box(&mut pixel)))
    });
}

criterion_group!(benches, engines, pixel);
criterion_main!(benches);
