//! The CPU engine against what the reference TensorFlow code computed, from every format and for the demo model; and
//! that no pixel looks ahead. What every engine holds is in `conformance.rs`.

#[allow(dead_code, reason = "not all of it is used here")]
#[path = "common/golden.rs"]
mod golden;

use std::path::Path;

use fast_pixel_cnn::cpu::{CpuEngine, Options, Split};
use fast_pixel_cnn::engine::Engine;
use fast_pixel_cnn::{PixelCnnPp, Weights, media::npy};
use golden::*;
use ndarray::{Array4, s};

/// An engine whose threads meet after every layer, which small models otherwise avoid.
fn engine(weights: &Weights, threads: usize) -> CpuEngine {
    let options = Options { threads: Some(threads), split: Some(Split::Outputs), ..Options::default() };
    CpuEngine::new(weights, &options).unwrap()
}

#[test]
fn logits_and_likelihoods_are_the_reference_s_from_every_format() {
    for directory in DIRECTORIES {
        let (images, labels) = (images(directory), labels(directory));
        let expected = array(&format!("{directory}/logits.npy"));
        let nll = npy::read_f32(&golden(&format!("{directory}/nll.npy"))).unwrap();
        for format in ["v1", "v2", "v1_sharded", "v2_sharded"] {
            let path = format!("{directory}/{format}/params.ckpt");
            if !golden(&format!("{directory}/{format}")).exists() {
                assert!(format.ends_with("sharded") && !["tiny", "cond"].contains(&directory));
                continue;
            }
            let mut engine = engine(&load(&path, false, relu(directory)), 2);
            let logits = engine.logits(images.view(), labels.as_deref()).unwrap();
            let off = largest(&logits, &expected);
            let nats = engine.graph().head.nats(logits.view(), images.view()).unwrap();
            let relative = nats.iter().zip(&nll).map(|(a, b)| (a / f64::from(*b) - 1.0).abs());
            let relative = relative.fold(0.0, f64::max);
            println!("{path}: logits within {off:e}, nats within {relative:e} relative");
            assert!(off <= 1e-4 && relative <= 1e-5);
        }
        let mut raw = engine(&load(&format!("{directory}/v2/params.ckpt"), true, relu(directory)), 1);
        let logits = raw.logits(images.view(), labels.as_deref()).unwrap();
        let off = largest(&logits, &array(&format!("{directory}/logits_raw_weights.npy")));
        println!("{directory}, raw weights: logits within {off:e}");
        assert!(off <= 1e-4);
    }
}

#[test]
fn the_demo_model_gives_the_reference_s_logits() {
    let weights = Weights::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits"));
    let mut engine = engine(&weights.unwrap(), 2);
    let images = images("digits");
    let logits = engine.logits(images.view(), labels("digits").as_deref()).unwrap();
    let off = largest(&logits, &array("digits/logits.npy"));
    println!("digits: logits within {off:e}");
    assert!(off <= 1e-4);
}

#[test]
fn a_pixel_changes_nothing_before_or_at_itself_and_something_after() {
    let weights = Weights::synthetic(PixelCnnPp { classes: 0, ..SMALL }, 3);
    let mut engine = engine(&weights, 2);
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
