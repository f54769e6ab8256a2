//! The CUDA engine against what the reference TensorFlow code computed, against the CPU engine, and
//! against itself by another strategy, batch and method.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which.

#[path = "common/golden.rs"]
mod golden;
#[path = "common/poison.rs"]
mod poison;

use fast_pixel_cnn::cpu::{self, CpuEngine};
use fast_pixel_cnn::cuda::{CudaEngine, Strategy};
use fast_pixel_cnn::engine::{Batch, Engine, Given, Method, Noise};
use fast_pixel_cnn::{ModelConfig, Weights, npy};
use golden::*;
use ndarray::{Array4, s};

const STRATEGIES: [Strategy; 3] = [Strategy::Launch, Strategy::Graph, Strategy::Persistent];

fn cuda(weights: &Weights, strategy: Strategy) -> CudaEngine {
    CudaEngine::new(weights, 0, strategy).unwrap()
}

fn cpu(weights: &Weights) -> CpuEngine {
    CpuEngine::new(weights, &cpu::Options::default()).unwrap()
}

#[test]
fn logits_and_likelihoods_are_the_reference_s() {
    for folder in FOLDERS {
        let (images, labels) = (images(folder), labels(folder));
        let expected = array(&format!("{folder}/logits.npy"));
        let nll = npy::read_f32(&golden(&format!("{folder}/nll.npy"))).unwrap();
        let weights = load(&format!("{folder}/v2/params.ckpt"), false, relu(folder));
        let mut engine = cuda(&weights, Strategy::Auto);
        let logits = engine.logits(images.view(), labels.as_deref()).unwrap();
        let off = largest(&logits, &expected);
        let nats = engine.nats(images.view(), labels.as_deref()).unwrap();
        let relative = nats.iter().zip(&nll).map(|(a, b)| (a / f64::from(*b) - 1.0).abs());
        let relative = relative.fold(0.0, f64::max);
        let own = engine.graph().head.nats(logits.view(), images.view()).unwrap();
        let apart = nats.iter().zip(&own).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
        println!(
            "{folder}: logits within {off:e}, nats within {relative:e}, of the CPU's {apart:e} relative"
        );
        assert!(off <= 1e-4 && relative <= 1e-5 && apart <= 1e-12, "{folder}");
    }
}

#[test]
fn a_teacher_forced_cached_pass_is_the_naive_pass_and_near_the_cpu_s() {
    for folder in FOLDERS {
        let weights = load(&format!("{folder}/v2/params.ckpt"), false, relu(folder));
        let (images, labels) = (images(folder), labels(folder));
        let reference = cpu(&weights).logits(images.view(), labels.as_deref()).unwrap();
        let mut engine = cuda(&weights, Strategy::Auto);
        let naive = engine.logits(images.view(), labels.as_deref()).unwrap();
        let off = largest(&naive, &reference);
        let forced = Batch::teacher_forced(images.view(), labels.as_deref());
        let batch = Batch { method: Method::Cached, ..forced };
        let made = engine.make(&batch, &|_| true).unwrap();
        println!("{folder}: logits within {off:e} of the CPU's");
        assert!(off <= 1e-4, "{folder}");
        assert!(bits(&made.images) == bits(&images), "{folder}: the images do not stay");
        assert!(bits(&made.logits.unwrap()) == bits(&naive), "{folder}: the logits differ");
    }
}

#[test]
fn given_the_reference_s_noise_the_images_are_the_reference_s() {
    for folder in ["tiny", "cond"] {
        let weights = load(&format!("{folder}/v2/params.ckpt"), false, None);
        for strategy in STRATEGIES {
            let name = format!("{strategy:?}");
            generate_as_the_reference(&mut cuda(&weights, strategy), folder, Method::Cached, &name);
        }
    }
}

#[test]
fn an_image_is_one_array_of_bits_whatever_makes_it() {
    let weights = Weights::synthetic(SMALL, 7);
    let labels = [3, 0, 2, 1, 3];
    for size in [[4, 4], [4, 12], [8, 8]] {
        let all = generate(&mut cuda(&weights, Strategy::Launch), 10, &labels, size, Method::Cached);
        let logits = all.logits.clone().unwrap();
        for strategy in STRATEGIES {
            let mut engine = cuda(&weights, strategy);
            let name = format!("{strategy:?}, {size:?}");
            let again = generate(&mut engine, 10, &labels, size, Method::Cached);
            assert!(bits(&again.images) == bits(&all.images), "{name}");
            assert!(bits(&again.logits.unwrap()) == bits(&logits), "{name}: logits");
            // Alone, and elsewhere in another batch; then with what stands ready from before.
            let at = |made: &Array4<f32>, i: usize| bits(&made.slice(s![i..i + 1, .., .., ..]).to_owned());
            for _ in 0..2 {
                let alone = generate(&mut engine, 12, &labels[2..3], size, Method::Cached);
                assert!(at(&alone.images, 0) == at(&all.images, 2), "{name}, alone");
            }
            let other = generate(&mut engine, 11, &labels[1..4], size, Method::Cached);
            assert!(at(&other.images, 1) == at(&all.images, 2), "{name}, other batch");
        }
        if size == [4, 4] {
            let mut engine = cuda(&weights, Strategy::Auto);
            let naive = generate(&mut engine, 10, &labels, size, Method::Naive);
            assert!(bits(&naive.images) == bits(&all.images), "naive");
            assert!(bits(&naive.logits.unwrap()) == bits(&logits), "naive: logits");
        }
    }
}

/// Where a tile has all its channels, chunks more than lanes, and gates in every position: the shapes that the
/// small models do not have.
#[test]
fn the_paper_s_model_is_the_same_by_every_strategy_and_near_the_cpu_s() {
    let weights = Weights::synthetic(ModelConfig::PAPER, 1);
    let size = [4, 4];
    let make = |engine: &mut dyn Engine| {
        let batch = Batch {
            noise: Noise::Philox { seed: 2702, first_index: 0 },
            keep_logits: true,
            ..Batch::new(2, size[0], size[1])
        };
        engine.make(&batch, &|_| true).unwrap()
    };
    let [launch, persistent] = [Strategy::Launch, Strategy::Persistent].map(|s| make(&mut cuda(&weights, s)));
    assert!(bits(&launch.images) == bits(&persistent.images));
    assert!(bits(launch.logits.as_ref().unwrap()) == bits(&persistent.logits.unwrap()));
    let on_cpu = cpu(&weights).logits(launch.images.view(), None).unwrap();
    let off = largest(&launch.logits.unwrap(), &on_cpu);
    println!("the paper's model: logits within {off:e} of the CPU's");
    assert!(off <= 1e-4);
}

/// At another temperature than 1 by every strategy, method and batch; and the CPU's images but for rounding.
#[test]
fn a_temperature_is_the_same_by_every_strategy_and_the_cpu_s() {
    let weights = Weights::synthetic(SMALL, 7);
    let labels = [3, 0];
    let batch = |temperature: f32, method: Method| Batch {
        labels: Some(&labels),
        noise: Noise::Philox { seed: 2702, first_index: 10 },
        temperature,
        method,
        ..Batch::new(labels.len(), 4, 4)
    };
    let make = |engine: &mut dyn Engine, batch: &Batch| engine.make(batch, &|_| true).unwrap().images;
    let mut different = vec![bits(&make(&mut cuda(&weights, Strategy::Launch), &batch(1.0, Method::Cached)))];
    for (temperature, strategies) in [(0.3, &STRATEGIES[..]), (2.0, &STRATEGIES[2..])] {
        let on_cpu = make(&mut cpu(&weights), &batch(temperature, Method::Cached));
        let mut all = Vec::new();
        for &strategy in strategies {
            let mut engine = cuda(&weights, strategy);
            let made = make(&mut engine, &batch(temperature, Method::Cached));
            let off = largest(&made, &on_cpu);
            println!("temperature {temperature}, {strategy:?}: images within {off:e} of the CPU's");
            assert!(off <= 1e-4);
            let noise = Noise::Philox { seed: 2702, first_index: 11 };
            let alone =
                Batch { size: 1, labels: Some(&labels[1..]), noise, ..batch(temperature, Method::Cached) };
            let second = made.slice(s![1.., .., .., ..]).to_owned();
            assert!(bits(&make(&mut engine, &alone)) == bits(&second), "{temperature}, {strategy:?}, alone");
            all.push(bits(&made));
        }
        if strategies.len() > 1 {
            let mut engine = cuda(&weights, Strategy::Auto);
            all.push(bits(&make(&mut engine, &batch(temperature, Method::Naive))));
        }
        all.dedup();
        assert_eq!(all.len(), 1, "{temperature}: not the same by every strategy and method");
        different.extend(all);
    }
    different.dedup();
    assert_eq!(different.len(), 3, "a temperature makes no difference");
}

#[test]
fn logits_that_are_not_finite_have_no_likelihood() {
    let dir = tempfile::tempdir().unwrap();
    for (folder, variable) in
        [("tiny", "conv2d_0/g"), ("elu", "conv2d_0/g"), ("relu", "conv2d_0/g"), ("relu", "conv2d_5/g")]
    {
        let sound = load(&format!("{folder}/v2/params.ckpt"), false, relu(folder));
        let place = dir.path().join(format!("{folder}.{}", variable.replace('/', ".")));
        let place = poison::poison(&sound, &place, variable, None);
        let weights = Weights::load(&place).unwrap();
        let images = images(folder);
        let mut engine = cuda(&weights, Strategy::Auto);
        let nats = engine.nats(images.view(), None).unwrap();
        let logits = engine.logits(images.view(), None).unwrap();
        let by_logits = engine.graph().head.nats(logits.view(), images.view()).unwrap();
        let on_cpu = cpu(&weights).nats(images.view(), None).unwrap();
        for (name, nats) in [("device", nats), ("logits", by_logits), ("CPU", on_cpu)] {
            assert!(nats.iter().all(|n| n.is_nan()), "{folder}, {variable}, by {name}: {nats:?}");
        }
        let error = engine.make(
            &Batch { keep_logits: false, given: None, ..Batch::teacher_forced(images.view(), None) },
            &|_| true,
        );
        assert!(error.unwrap_err().to_string().contains("are not finite"));
    }
}

/// Rows that the noise would not have made: an engine that overlooks them cannot be right by chance.
#[test]
fn rows_of_another_image_stay_and_steer_the_rest() {
    let weights = Weights::synthetic(SMALL, 9);
    let (labels, height, width) = ([1, 2], 8, 4);
    let other = Array4::from_shape_fn((2, height, width, 3), |(i, r, c, k)| {
        ((i * 101 + r * 31 + c * 57 + k * 83) % 256) as f32 / 127.5 - 1.0
    });
    for strategy in STRATEGIES {
        let mut engine = cuda(&weights, strategy);
        let mut on_cpu = cpu(&weights);
        for rows in [1, 3, 6] {
            let batch = Batch {
                labels: Some(&labels),
                noise: Noise::Philox { seed: 2702, first_index: 0 },
                given: Some(Given { images: other.view(), rows }),
                keep_logits: true,
                ..Batch::new(2, height, width)
            };
            let made = engine.make(&batch, &|_| true).unwrap();
            let expected = on_cpu.make(&batch, &|_| true).unwrap();
            let above = s![.., ..rows, .., ..];
            assert_eq!(made.images.slice(above), other.slice(above), "{rows} rows");
            let off = largest(&made.logits.unwrap(), &expected.logits.unwrap());
            let off_images = largest(&made.images, &expected.images);
            assert!(off <= 1e-4 && off_images <= 1e-4, "{strategy:?}, {rows} rows: {off:e}, {off_images:e}");
        }
    }
}

#[test]
fn unusable_weights_and_an_interruption_end_with_an_error() {
    let config = ModelConfig { classes: 0, ..SMALL };
    let noise = Noise::Philox { seed: 1, first_index: 0 };
    let batch = |method| Batch { noise, method, ..Batch::new(1, 4, 4) };
    let mut engine = cuda(&Weights::synthetic(config, 1), Strategy::Auto);
    for method in [Method::Cached, Method::Naive] {
        let error = engine.make(&batch(method), &|rows| rows < 2).unwrap_err();
        assert_eq!(error.to_string(), "interrupted", "{method:?}");
        engine.make(&batch(method), &|rows| rows < 4).expect("nothing is left to stop after the last row");
        assert_eq!(engine.batch_bytes(method, 1, 1 << 31, 1 << 31), u64::MAX);
        assert_eq!(engine.batch_bytes(method, 0, 32, 32), 0);
        let bad = Batch { height: 6, ..batch(method) };
        assert!(engine.make(&bad, &|_| true).unwrap_err().to_string().contains("multiples of 4"));
    }
    let huge = Batch { size: 100_000, height: 256, width: 256, ..batch(Method::Cached) };
    let error = engine.make(&huge, &|_| true).unwrap_err().to_string();
    assert!(error.contains("would fit"), "{error}");
}
