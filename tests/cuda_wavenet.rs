//! WaveNets on the CUDA engine against TensorFlow's numbers: logits and nats of given sounds, and sounds from given
//! random numbers.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which. On the virtual GPU a full pass takes ten
//! times as long as the same samples one by one, and the persistent kernel is slow too, most of whose blocks wait
//! for values: so most is done by `launch`, whose bits are those of both (`cuda_conformance.rs`).

#[path = "common/models.rs"]
mod models;
#[path = "common/sounds.rs"]
mod sounds;

use fast_pixel_cnn::cpu::CpuEngine;
use fast_pixel_cnn::cuda::{CudaEngine, Options, Strategy};
use fast_pixel_cnn::engine::{Batch, Engine, Method};
use fast_pixel_cnn::media::npy;
use fast_pixel_cnn::{WaveNet, Weights};
use models::{bundled, golden};
use ndarray::s;
use sounds::*;

fn of(strategy: Strategy) -> Options {
    Options { strategy, ..Options::default() }
}

fn open(directory: &str, strategy: Strategy) -> (CudaEngine, WaveNet) {
    let (weights, config) = load(directory);
    (CudaEngine::new(&weights, 0, &of(strategy)).unwrap(), config)
}

#[test]
fn logits_and_nats_of_given_sounds_are_the_reference_s() {
    for directory in SOUNDS {
        let (mut engine, config) = open(directory, Strategy::Launch);
        score_as_the_reference(&mut engine, &config, directory, Method::Cached);
        score_from_zero_queues(&mut engine, &config, directory, Method::Cached);
    }
}

/// Of the one with classes: the others' take the virtual GPU up to 20 seconds each.
#[test]
fn a_full_pass_has_the_reference_s_logits_and_nats() {
    let (mut engine, config) = open("wavenet_gc", Strategy::Launch);
    score_as_the_reference(&mut engine, &config, "wavenet_gc", Method::Naive);
}

#[test]
fn sounds_from_the_reference_s_random_numbers_are_its_sounds() {
    for directory in GENERATED {
        for (strategy, length) in
            [(Strategy::Launch, None), (Strategy::Graph, Some(40)), (Strategy::Persistent, Some(12))]
        {
            let (mut engine, config) = open(directory, strategy);
            generate_as_the_reference(&mut engine, &config, directory, Method::Cached, length);
        }
    }
}

/// Of networks that read nothing but the present: their rings need no more than one row.
#[test]
fn a_network_without_a_past_is_the_same_by_every_strategy() {
    for (initial_filter_width, filter_width) in [(1, 2), (2, 1), (1, 1)] {
        let config = WaveNet {
            dilations: vec![1, 2],
            filter_width,
            initial_filter_width,
            residual_channels: 8,
            dilation_channels: 8,
            skip_channels: 16,
            quantization_channels: 16,
            scalar_input: true,
            ..WaveNet::default()
        };
        let weights = Weights::synthetic(config, 3);
        let make = |strategy| {
            let mut engine = CudaEngine::new(&weights, 0, &of(strategy)).unwrap();
            engine.make(&Batch::new(3, 12, 1), &|_| true).unwrap().images
        };
        let [launch, persistent] = [Strategy::Launch, Strategy::Persistent].map(make);
        assert!(launch.iter().zip(&persistent).all(|(a, b)| a.to_bits() == b.to_bits()), "{filter_width}");
    }
}

/// Of the words that the bundled model never heard the first samples: the reference has told the likelihood of all
/// 1,600 alone, which take the virtual GPU too long. The CPU engine is held to that in `wavenet.rs`.
#[test]
fn the_bundled_model_s_logits_are_near_the_cpu_s() {
    let weights = Weights::load(bundled("spoken-digits")).unwrap();
    let values = values(&codes("spoken_digits/codes.npy"), 256);
    let labels = npy::read_labels(&golden("spoken_digits/labels.npy")).unwrap();
    let (start, rows) = (values.slice(s![.., 0, 0, ..]), values.slice(s![.., 1..41, .., ..]));
    let batch =
        Batch { start: Some(start), method: Method::Cached, ..Batch::teacher_forced(rows, Some(&labels)) };
    let mut engine = CudaEngine::new(&weights, 0, &of(Strategy::Launch)).unwrap();
    let found = engine.make(&batch, &|_| true).unwrap().logits.unwrap();
    let mut cpu = CpuEngine::new(&weights, &Default::default()).unwrap();
    let expected = cpu.make(&batch, &|_| true).unwrap().logits.unwrap();
    let off = largest(column(found).view(), column(expected).view());
    println!("logits within {off:e} of the CPU's");
    assert!(off <= 1e-4);
}
