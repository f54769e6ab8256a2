//! Weights that are numbers and make none: a training run that diverged leaves them so large that sums
//! overflow.

use std::path::{Path, PathBuf};

use fast_pixel_cnn::{
    Weights,
    media::{images, npy},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Saves weights as a directory at `place`, with these elements of a variable as large as can be, or all of
/// them, and the checksum to match.
pub fn poison(weights: &Weights, place: &Path, variable: &str, elements: Option<&[usize]>) -> PathBuf {
    weights.save(place).unwrap();
    let name = format!("{}.npy", variable.replace('/', "."));
    let file = place.join(&name);
    let mut array = npy::read_f32(&file).unwrap();
    match elements {
        Some(elements) => elements.iter().for_each(|&e| array.as_slice_mut().unwrap()[e] = f32::MAX),
        None => array.fill(f32::MAX),
    }
    images::write_npy(&file, &array).unwrap();
    let manifest = place.join("model.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let digest = Sha256::digest(std::fs::read(&file).unwrap());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let entry = &mut json["sha256"][&name];
    assert!(entry.is_string(), "{name} is not in the manifest");
    *entry = digest.into();
    std::fs::write(&manifest, serde_json::to_vec(&json).unwrap()).unwrap();
    place.to_path_buf()
}
