//! Sounds as codes, in `.npy` and `.npz` files.
//!
//! The idea: a code is a number below the model's number of symbols, whatever type holds it; one that is not
//! would be another model's, so it is refused with its place.

use std::path::Path;

use ndarray::{Array2, Ix2};

use crate::error::{Error, Result};
use crate::media::npy;

/// Reads codes `[N, T]`, or `[T]` of one sound, each from 0 to below `symbols`, of type int64, int32, uint16 or
/// uint8, from an `.npy` file, or from an `.npz` file: the array with the key, else the only one, else the one
/// called `codes`.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`], [`Error::Unsupported`] and [`Error::Several`] for the file.
pub fn read_codes(path: &Path, key: Option<&str>, symbols: usize) -> Result<Array2<i32>> {
    npy::find(path, key, "codes", |found| {
        let name = found.name.clone();
        let shape = match *found.shape() {
            [sounds, samples] if sounds > 0 && samples > 0 => (sounds, samples),
            [samples] if samples > 0 => (1, samples),
            _ => {
                let shape = format!("shape {:?}", found.shape());
                return Err(Error::malformed(&name, "header", "codes of shape [N, T] or [T]", shape));
            }
        };
        let codes = found.integers("codes")?.into_shape_with_order(shape).expect("as many numbers");
        let codes = codes.into_dimensionality::<Ix2>().expect("two axes");
        let inside = |code: i64| i32::try_from(code).ok().filter(|_| (0..symbols as i64).contains(&code));
        if let Some((at, code)) = codes.indexed_iter().find(|(_, code)| inside(**code).is_none()) {
            let place = format!("sound {}, code {}", at.0, at.1);
            let expected = format!("a code from 0 to {}, since the model has {symbols}", symbols - 1);
            return Err(Error::malformed(&name, place, expected, code.to_string()));
        }
        Ok(codes.mapv(|code| code as i32))
    })
}
