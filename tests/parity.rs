//! The engine against what the reference TensorFlow code computed, and against itself.

#[path = "common/golden.rs"]
mod golden;

use std::path::Path;

use fast_pixel_cnn::cpu::{CpuEngine, Isa, Options, Split};
use fast_pixel_cnn::engine::{Batch, Engine, Given, Made, Method, Noise};
use fast_pixel_cnn::{ModelConfig, Weights, npy, weights};
use golden::*;
use ndarray::{Array4, s};

/// An engine whose threads meet after every layer, which small models otherwise avoid.
fn engine(weights: &Weights, threads: usize, isa: Option<Isa>) -> CpuEngine {
    split_engine(weights, threads, isa, Split::Outputs)
}

fn split_engine(weights: &Weights, threads: usize, isa: Option<Isa>, split: Split) -> CpuEngine {
    CpuEngine::new(
        weights,
        &Options { threads: Some(threads), isa, split: Some(split), ..Options::default() },
    )
    .unwrap()
}

#[test]
fn logits_and_likelihoods_are_the_reference_s_from_every_format() {
    for folder in FOLDERS {
        let (images, labels) = (images(folder), labels(folder));
        let expected = array(&format!("{folder}/logits.npy"));
        let nll = npy::read_f32(&golden(&format!("{folder}/nll.npy"))).unwrap();
        for format in ["v1", "v2", "v1_sharded", "v2_sharded"] {
            let path = format!("{folder}/{format}/params.ckpt");
            if !golden(&format!("{folder}/{format}")).exists() {
                assert!(format.ends_with("sharded") && !["tiny", "cond"].contains(&folder));
                continue;
            }
            let mut engine = engine(&load(&path, false, relu(folder)), 2, None);
            let logits = engine.logits(images.view(), labels.as_deref()).unwrap();
            let off = largest(&logits, &expected);
            let nats = engine.graph().head.nats(logits.view(), images.view()).unwrap();
            let relative = nats.iter().zip(&nll).map(|(a, b)| (a / f64::from(*b) - 1.0).abs());
            let relative = relative.fold(0.0, f64::max);
            println!("{path}: logits within {off:e}, nats within {relative:e} relative");
            assert!(off <= 1e-4 && relative <= 1e-5);
        }
        let mut raw = engine(&load(&format!("{folder}/v2/params.ckpt"), true, relu(folder)), 1, None);
        let logits = raw.logits(images.view(), labels.as_deref()).unwrap();
        let off = largest(&logits, &array(&format!("{folder}/logits_raw_weights.npy")));
        println!("{folder}, raw weights: logits within {off:e}");
        assert!(off <= 1e-4);
    }
}

#[test]
fn the_demo_model_gives_the_reference_s_logits() {
    let weights = Weights::load(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits"),
        &weights::Options::default(),
    );
    let mut engine = engine(&weights.unwrap(), 2, None);
    let images = images("digits");
    let logits = engine.logits(images.view(), labels("digits").as_deref()).unwrap();
    let off = largest(&logits, &array("digits/logits.npy"));
    println!("digits: logits within {off:e}");
    assert!(off <= 1e-4);
}

#[test]
fn given_the_reference_s_noise_the_images_are_the_reference_s() {
    for folder in ["tiny", "cond"] {
        let mut engine = engine(&load(&format!("{folder}/v2/params.ckpt"), false, None), 2, None);
        for method in [Method::Cached, Method::Naive] {
            generate_as_the_reference(&mut engine, folder, method, &format!("{method:?}"));
        }
    }
}

#[test]
fn an_image_is_one_array_of_bits_whatever_makes_it() {
    let weights = Weights::synthetic(SMALL, 7);
    let labels = [3, 0, 2, 1, 3];
    for size in [[4, 4], [4, 32], [12, 20]] {
        let all = generate(&mut engine(&weights, 1, None), 10, &labels, size, Method::Cached);
        let logits = all.logits.clone().unwrap();
        for isa in Isa::ALL.into_iter().filter(|i| i.available()) {
            for (threads, split) in
                [(1, Split::Outputs), (2, Split::Outputs), (2, Split::Images), (3, Split::Outputs)]
            {
                let mut engine = split_engine(&weights, threads, Some(isa), split);
                for method in [Method::Cached, Method::Naive] {
                    // A forward pass for each pixel, without a fused multiply-add in hardware.
                    if method == Method::Naive && isa == Isa::Portable && size != [4, 4] {
                        println!("not run: portable, naive, {threads} threads, {size:?}, which is slow");
                        continue;
                    }
                    let made = generate(&mut engine, 10, &labels, size, method);
                    let name = format!("{isa:?}, {threads} threads, {method:?}, {size:?}");
                    assert!(bits(&made.images) == bits(&all.images), "{name}");
                    assert!(bits(&made.logits.unwrap()) == bits(&logits), "{name}");
                }
                // Alone, and elsewhere in another batch.
                let alone = generate(&mut engine, 12, &labels[2..3], size, Method::Cached);
                let at =
                    |made: &Made, i: usize| bits(&made.images.slice(s![i..i + 1, .., .., ..]).to_owned());
                assert!(at(&alone, 0) == at(&all, 2), "{isa:?}, {threads} threads, {size:?}, alone");
                let other = generate(&mut engine, 11, &labels[1..4], size, Method::Cached);
                assert!(at(&other, 1) == at(&all, 2), "{isa:?}, {threads} threads, {size:?}, other batch");
                let naive = engine.logits(all.images.view(), Some(&labels)).unwrap();
                assert!(bits(&naive) == bits(&logits), "{isa:?}, {threads} threads, {size:?}, forward");
            }
        }
    }
}

#[test]
fn a_pixel_changes_nothing_before_or_at_itself_and_something_after() {
    let weights = Weights::synthetic(ModelConfig { classes: 0, ..SMALL }, 3);
    let mut engine = engine(&weights, 2, None);
    let (height, width) = (12, 8);
    let image = Array4::from_shape_fn((1, height, width, 3), |(_, r, c, k)| {
        ((r * 31 + c * 17 + k * 7) % 256) as f32 / 127.5 - 1.0
    });
    let before = engine.logits(image.view(), None).unwrap();
    for pixel in 0..height * width {
        for channel in 0..3 {
            let mut changed = image.clone();
            let value = &mut changed[[0, pixel / width, pixel % width, channel]];
            *value = if *value > 0.0 { -0.9 } else { 0.9 };
            let after = engine.logits(changed.view(), None).unwrap();
            let differs = |p: usize| {
                let at = s![0, p / width, p % width, ..];
                before.slice(at) != after.slice(at)
            };
            assert!(!(0..=pixel).any(differs), "pixel {pixel} moves itself or what is before it");
            let later = (pixel + 1..height * width).any(differs);
            assert!(later || pixel == height * width - 1, "pixel {pixel} moves nothing");
        }
    }
}

#[test]
fn given_rows_stay_and_the_rest_does_not_depend_on_how_they_came() {
    let weights = Weights::synthetic(SMALL, 9);
    let labels = [1, 2];
    for threads in [1, 2] {
        let mut engine = engine(&weights, threads, None);
        let whole = generate(&mut engine, 0, &labels, [8, 12], Method::Cached);
        for method in [Method::Cached, Method::Naive] {
            for rows in 0..=8 {
                // Below the given rows stands what must not be looked at.
                let mut images = whole.images.clone();
                images.slice_mut(s![.., rows.., .., ..]).fill(0.5);
                let batch = Batch {
                    size: 2,
                    height: 8,
                    width: 12,
                    labels: Some(&labels),
                    noise: Noise::Philox { seed: 2702, first_index: 0 },
                    temperature: 1.0,
                    known: None,
                    given: Some(Given { images: images.view(), rows }),
                    method,
                    keep_logits: true,
                };
                let made = engine.make(&batch, &|_| true).unwrap();
                assert!(bits(&made.images) == bits(&whole.images), "{method:?}, {rows} rows");
                let logits = (made.logits.unwrap(), whole.logits.clone().unwrap());
                assert!(bits(&logits.0) == bits(&logits.1), "{method:?}, {rows} rows");
            }
        }
    }
}

#[test]
fn a_teacher_forced_cached_pass_is_the_naive_pass_on_images_the_engine_did_not_make() {
    for folder in FOLDERS {
        let weights = load(&format!("{folder}/v2/params.ckpt"), false, relu(folder));
        let (images, labels) = (images(folder), labels(folder));
        let naive = engine(&weights, 1, None).logits(images.view(), labels.as_deref()).unwrap();
        for isa in Isa::ALL.into_iter().filter(|i| i.available()) {
            for (threads, split) in
                [(1, Split::Outputs), (2, Split::Outputs), (2, Split::Images), (3, Split::Outputs)]
            {
                if isa == Isa::Portable && threads != 2 {
                    println!("not run: {folder}, portable, {threads} threads, which adds only time");
                    continue;
                }
                let forced = Batch::teacher_forced(images.view(), labels.as_deref());
                let batch = Batch { method: Method::Cached, ..forced };
                let made = split_engine(&weights, threads, Some(isa), split).make(&batch, &|_| true).unwrap();
                let name = format!("{folder}, {isa:?}, {threads} threads, {split:?}");
                assert!(bits(&made.images) == bits(&images), "{name}: the images do not stay");
                assert!(bits(&made.logits.unwrap()) == bits(&naive), "{name}: the logits differ");
            }
        }
    }
}

/// Rows that the noise would not have made: an engine that overlooks them cannot be right by chance.
#[test]
fn rows_of_another_image_stay_and_steer_the_rest() {
    let weights = Weights::synthetic(SMALL, 9);
    let (labels, height, width) = ([1, 2], 8, 12);
    let other = Array4::from_shape_fn((2, height, width, 3), |(i, r, c, k)| {
        ((i * 101 + r * 31 + c * 57 + k * 83) % 256) as f32 / 127.5 - 1.0
    });
    for threads in [1, 2] {
        let mut engine = engine(&weights, threads, None);
        let free = generate(&mut engine, 0, &labels, [height, width], Method::Cached).images;
        for rows in 0..=height {
            let mut complete = |seed, method| {
                let batch = Batch {
                    size: 2,
                    height,
                    width,
                    labels: Some(&labels),
                    noise: Noise::Philox { seed, first_index: 0 },
                    temperature: 1.0,
                    known: None,
                    given: Some(Given { images: other.view(), rows }),
                    method,
                    keep_logits: true,
                };
                engine.make(&batch, &|_| true).unwrap()
            };
            let (above, below) = (s![.., ..rows, .., ..], s![.., rows.., .., ..]);
            let made = complete(2702, Method::Cached);
            assert_eq!(made.images.slice(above), other.slice(above), "{rows} rows");
            let steered = made.images.slice(below) != free.slice(below);
            assert_eq!(steered, (1..height).contains(&rows), "{rows} rows");

            let naive = complete(2702, Method::Naive);
            assert!(bits(&made.images) == bits(&naive.images), "{rows} rows");
            let logits = made.logits.unwrap();
            assert!(bits(&logits) == bits(&naive.logits.unwrap()), "{rows} rows");

            // Another seed changes what is made, and neither the given rows nor their logits.
            let again = complete(2703, Method::Cached);
            assert_eq!(again.images.slice(above), other.slice(above), "{rows} rows");
            assert_eq!(again.logits.unwrap().slice(above), logits.slice(above), "{rows} rows");
            let differs = again.images.slice(below) != made.images.slice(below);
            assert_eq!(differs, rows < height, "{rows} rows");
        }
    }
}

#[test]
fn unusable_weights_and_an_interruption_end_with_an_error() {
    let config = ModelConfig { classes: 0, ..SMALL };
    let mut engine = engine(&Weights::synthetic(config, 1), 2, None);
    let noise = Noise::Philox { seed: 1, first_index: 0 };
    let batch = |method| Batch {
        size: 3,
        height: 8,
        width: 8,
        labels: None,
        noise,
        temperature: 1.0,
        known: None,
        given: None,
        method,
        keep_logits: false,
    };
    for method in [Method::Cached, Method::Naive] {
        let error = engine.make(&batch(method), &|rows| rows < 2).unwrap_err();
        assert_eq!(error.to_string(), "interrupted", "{method:?}");
        engine.make(&batch(method), &|rows| rows < 8).expect("nothing is left to stop after the last row");
        let huge = Batch { size: 1, height: 1 << 31, width: 1 << 31, ..batch(method) };
        assert!(engine.make(&huge, &|_| true).unwrap_err().to_string().contains("an address can reach"));
        assert_eq!(engine.batch_bytes(method, 1, 1 << 31, 1 << 31), u64::MAX);
        assert_eq!(engine.batch_bytes(method, 0, 32, 32), 0);
        let bad = Batch { height: 6, ..batch(method) };
        assert!(engine.make(&bad, &|_| true).unwrap_err().to_string().contains("multiples of 4"));
        let bad = Batch { labels: Some(&[0, 0, 0]), ..batch(method) };
        assert!(engine.make(&bad, &|_| true).unwrap_err().to_string().contains("unconditional"));
    }
}
