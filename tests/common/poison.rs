//! Weights with a number that is none, as a training run that diverged leaves them.

use std::path::{Path, PathBuf};

use fast_pixel_cnn::{Weights, images, npy};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Saves weights as a folder at `place` with these elements of a variable set to `value`, and the checksum to match.
pub fn poison(weights: &Weights, place: &Path, variable: &str, elements: &[usize], value: f32) -> PathBuf {
    weights.save(place).unwrap();
    let name = format!("{}.npy", variable.replace('/', "."));
    let file = place.join(&name);
    let mut array = npy::read_f32(&file).unwrap();
    for &element in elements {
        array.as_slice_mut().unwrap()[element] = value;
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
