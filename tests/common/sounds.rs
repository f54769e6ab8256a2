//! The WaveNets among the reference data in `tests/golden/`, their arrays, and how engines are compared with them.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise};
use fast_pixel_cnn::media::npy;
use fast_pixel_cnn::{ModelConfig, WaveNet, Weights};
use ndarray::{Array2, Array3, Array4, ArrayView3, Axis, Ix2, Ix3, s};

use super::models::golden;

/// The directories with a WaveNet each.
pub const SOUNDS: [&str; 5] =
    ["wavenet_tiny", "wavenet_nobias", "wavenet_gc", "wavenet_scalar", "wavenet_width3"];

/// Those of them with sounds that the reference has generated.
pub const GENERATED: [&str; 3] = ["wavenet_tiny", "wavenet_nobias", "wavenet_gc"];

/// The checkpoint of a directory.
pub fn checkpoint(directory: &str) -> PathBuf {
    golden(&format!("{directory}/model.ckpt-72000"))
}

/// Logits `[N, M, q]`.
pub fn logits(path: &str) -> Array3<f32> {
    npy::read_f32(&golden(path)).unwrap().into_dimensionality::<Ix3>().unwrap()
}

/// Symbols `[N, T]`.
pub fn codes(path: &str) -> Array2<i32> {
    npy::read::<i32>(&golden(path)).unwrap().into_dimensionality::<Ix2>().unwrap()
}

/// Symbols of so many as the values that engines take, `[N, T, 1, 1]`.
pub fn values(codes: &Array2<i32>, symbols: usize) -> Array4<f32> {
    let half = (symbols - 1) as f32 / 2.0;
    codes.mapv(|code| (code as f32 - half) / half).insert_axis(Axis(2)).insert_axis(Axis(3))
}

/// The waveform `[N, T]` in [-1, 1] as the values that engines take, `[N, T, 1, 1]`: compressed by the mu-law.
pub fn amplitudes(path: &str, symbols: usize) -> Array4<f32> {
    let waveform = npy::read_f32(&golden(path)).unwrap().into_dimensionality::<Ix2>().unwrap();
    let mu = (symbols - 1) as f64;
    let value = |a: f32| ((mu * f64::from(a).abs()).ln_1p() / mu.ln_1p()).copysign(f64::from(a)) as f32;
    waveform.mapv(value).insert_axis(Axis(2)).insert_axis(Axis(3))
}

/// Numbers in float64, of any shape.
pub fn doubles(path: &str) -> Vec<f64> {
    let file = BufReader::new(File::open(golden(path)).unwrap());
    npyz::NpyFile::new(file).unwrap().into_vec().unwrap()
}

/// The classes of a directory's sounds, if its model has some.
pub fn classes(directory: &str) -> Option<Vec<u32>> {
    let path = golden(&format!("{directory}/gc_ids.npy"));
    path.exists().then(|| npy::read_labels(&path).unwrap())
}

/// The weights of a directory, and what they are the weights of.
pub fn load(directory: &str) -> (Weights, WaveNet) {
    let weights = Weights::load(checkpoint(directory)).unwrap();
    assert!(weights.warnings().is_empty(), "{:?}", weights.warnings());
    let Some(ModelConfig::WaveNet(config)) = weights.config() else { panic!("{:?}", weights.config()) };
    let config = config.clone();
    (weights, config)
}

/// Logits of an engine less the axis of columns, of which sounds have one.
pub fn column(logits: Array4<f32>) -> Array3<f32> {
    logits.remove_axis(Axis(2))
}

pub fn largest(a: ArrayView3<f32>, b: ArrayView3<f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    off.fold(0.0, |most, off| if off.is_nan() || off > most { off } else { most })
}

/// Asserts that the logits and nats of a directory's sounds are near the reference's.
pub fn score_as_the_reference(engine: &mut dyn Engine, config: &WaveNet, directory: &str, method: Method) {
    let codes = codes(&format!("{directory}/codes.npy"));
    let mut images = values(&codes, config.quantization_channels);
    if config.scalar_input {
        // The reference reads the sound itself, of which the symbols are the nearest.
        images.assign(&amplitudes(&format!("{directory}/waveform.npy"), config.quantization_channels));
    }
    let labels = classes(directory);
    let batch = Batch { method, ..Batch::teacher_forced(images.view(), labels.as_deref()) };
    let all = column(engine.make(&batch, &|_| true).unwrap().logits.unwrap());

    // The first logits are of the sample behind one receptive field, the last of one behind the sound.
    let expected = logits(&format!("{directory}/logits.npy"));
    let (first, count) = (config.receptive_field(), expected.dim().1 - 1);
    assert_eq!(first + count, codes.dim().1, "{directory}");
    let found = all.slice(s![.., first.., ..]);
    let off = largest(found, expected.slice(s![.., ..count, ..]));
    println!("{directory}, {method:?}: logits within {off:e}");
    assert!(off <= 1e-4, "{directory}: {off:e}");

    let expected = doubles(&format!("{directory}/nats.npy"));
    let all = all.insert_axis(Axis(2));
    let behind = s![.., first.., .., ..];
    let found = config.head().nats(all.slice(behind), images.slice(behind));
    for (found, expected) in found.unwrap().iter().zip(&expected) {
        let off = ((found - expected) / expected).abs();
        assert!(off <= 1e-5, "{directory}: {found} for {expected}");
    }
}

/// The same for logits that begin with the first sample in the place of what comes before a sound, where a directory
/// has them.
pub fn score_from_zero_queues(engine: &mut dyn Engine, config: &WaveNet, directory: &str, method: Method) {
    let zero = format!("{directory}/logits_from_zero_queues.npy");
    if !golden(&zero).exists() {
        return;
    }
    let images = values(&codes(&format!("{directory}/codes.npy")), config.quantization_channels);
    let (labels, expected) = (classes(directory), logits(&zero));
    let rows = images.slice(s![.., 1..expected.dim().1 + 1, .., ..]);
    let start = images.slice(s![.., 0, 0, ..]);
    let batch = Batch { start: Some(start), method, ..Batch::teacher_forced(rows, labels.as_deref()) };
    let found = column(engine.make(&batch, &|_| true).unwrap().logits.unwrap());
    let off = largest(found.view(), expected.view());
    println!("{directory}, {method:?}: logits from zero queues within {off:e}");
    assert!(off <= 1e-4, "{directory}: {off:e}");
}

/// Generates the first `length` samples, or all, of a directory's sounds from the reference's random numbers, and
/// asserts that they are the reference's and the logits near its own.
pub fn generate_as_the_reference(
    engine: &mut dyn Engine,
    config: &WaveNet,
    directory: &str,
    method: Method,
    length: Option<usize>,
) {
    let expected = codes(&format!("{directory}/gen/codes.npy"));
    let met = logits(&format!("{directory}/gen/logits.npy"));
    let noise = doubles(&format!("{directory}/gen/u.npy")).into_iter().map(|u| u as f32).collect();
    let noise = Array4::from_shape_vec((expected.dim().0, expected.dim().1, 1, 1), noise).unwrap();
    let (size, all) = expected.dim();
    let length = length.unwrap_or(all);
    let labels = classes(directory);
    let batch = Batch {
        labels: labels.as_deref(),
        noise: Noise::Given(noise.slice(s![.., ..length, .., ..])),
        method,
        keep_logits: true,
        ..Batch::new(size, length, 1)
    };
    let output = engine.make(&batch, &|_| true).unwrap();
    let expected = values(&expected, config.quantization_channels);
    assert_eq!(output.images, expected.slice(s![.., ..length, .., ..]), "{directory}");
    let off = largest(column(output.logits.unwrap()).view(), met.slice(s![.., ..length, ..]));
    println!("{directory}, {method:?}: {length} samples, logits within {off:e}");
    assert!(off <= 1e-4, "{directory}: {off:e}");
}
