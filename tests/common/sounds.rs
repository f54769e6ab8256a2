//! The WaveNets among the reference data in `tests/golden/`, and their arrays.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use fast_pixel_cnn::media::npy;
use ndarray::{Array2, Array3, Array4, Axis, Ix2, Ix3};

use super::models::golden;

/// The directories with a WaveNet each.
pub const SOUNDS: [&str; 5] =
    ["wavenet_tiny", "wavenet_nobias", "wavenet_gc", "wavenet_scalar", "wavenet_width3"];

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
