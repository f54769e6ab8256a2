//! The types of a checkpoint's values, and how floating-point numbers become float32.
//!
//! The idea: a model computes in float32, so every floating-point type is read as that: half precision and
//! bfloat16 widen without loss, float64 is rounded once. Nothing else is a weight, and nothing else is read.

use std::fmt;
use std::io::{Read, Result};

/// Values in a piece: they are read piece by piece, so that a piece is still in the cache when it is converted.
const PIECE: usize = 1 << 16;

/// The type of a variable's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    /// Single precision: what models are computed in.
    Float32,
    /// Double precision.
    Float64,
    /// Half precision.
    Float16,
    /// The upper half of a float32.
    BFloat16,
    /// Signed 32-bit integers.
    Int32,
    /// Signed 64-bit integers.
    Int64,
    /// Byte strings of any length.
    String,
    /// Any other of a TensorFlow checkpoint, by its number in `types.proto`.
    Other(i32),
    /// Any other of another format, by its name.
    Named(&'static str),
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DType::Float32 => f.write_str("float32"),
            DType::Float64 => f.write_str("float64"),
            DType::Float16 => f.write_str("float16"),
            DType::BFloat16 => f.write_str("bfloat16"),
            DType::Int32 => f.write_str("int32"),
            DType::Int64 => f.write_str("int64"),
            DType::String => f.write_str("string"),
            DType::Other(number) => write!(f, "TensorFlow's type {number}"),
            DType::Named(name) => f.write_str(name),
        }
    }
}

impl DType {
    /// Bytes of a value of a floating-point type, as it stands in memory and in a V2 data file; `None` for
    /// the types that cannot be read.
    pub fn float_size(self) -> Option<usize> {
        match self {
            DType::Float16 | DType::BFloat16 => Some(2),
            DType::Float32 => Some(4),
            DType::Float64 => Some(8),
            _ => None,
        }
    }

    /// Fills `values` with what `source` gives, which is of this floating-point type. `seen` is called with each
    /// piece as it was read.
    pub(super) fn read(
        self,
        source: &mut impl Read,
        values: &mut [f32],
        mut seen: impl FnMut(&[u8]),
    ) -> Result<()> {
        let size = self.float_size().expect("a floating-point type");
        let mut buffer = vec![0; PIECE.min(values.len()) * size];
        for piece in values.chunks_mut(PIECE) {
            let bytes = &mut buffer[..piece.len() * size];
            source.read_exact(bytes)?;
            seen(bytes);
            self.widen(bytes, piece);
        }
        Ok(())
    }

    /// Makes float32 of little-endian values, [`DType::float_size`] bytes for each of `values`.
    pub(super) fn widen(self, bytes: &[u8], values: &mut [f32]) {
        let pairs = || bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
        match self {
            DType::Float16 => values.iter_mut().zip(pairs()).for_each(|(to, half)| *to = widen_half(half)),
            DType::BFloat16 => {
                values.iter_mut().zip(pairs()).for_each(|(to, upper)| *to = widen_bfloat(upper));
            }
            DType::Float64 => {
                let doubles = bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
                values.iter_mut().zip(doubles).for_each(|(to, double)| *to = double as f32);
            }
            _ => {
                let floats = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                values.iter_mut().zip(floats).for_each(|(to, float)| *to = float);
            }
        }
    }

    /// Makes float32 of the 16 bits of a value of half precision or bfloat16.
    pub(super) fn widen_bits(self, bits: u16) -> f32 {
        if self == DType::BFloat16 { widen_bfloat(bits) } else { widen_half(bits) }
    }
}

fn widen_bfloat(upper: u16) -> f32 {
    f32::from_bits(u32::from(upper) << 16)
}

/// The bits of exponent and mantissa, moved to where a float32 has them, are the number times 2^-112, for
/// subnormals too; and a float32 has room for all of them, so the product is exact.
fn widen_half(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let rest = u32::from(half & 0x7fff) << 13;
    let magnitude = if half & 0x7c00 == 0x7c00 {
        // Infinities and NaNs: every bit of the exponent is set.
        rest | 0x7f80_0000
    } else {
        (f32::from_bits(rest) * f32::from_bits((112 + 127) << 23)).to_bits()
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_to_its_number() {
        for half in 0..=u16::MAX {
            let (exponent, mantissa) = (i32::from(half >> 10 & 31), f64::from(half & 0x3ff));
            let magnitude = match exponent {
                31 if mantissa == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                0 => mantissa * 2f64.powi(-24),
                _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
            };
            let expected = if half & 0x8000 == 0 { magnitude } else { -magnitude };
            let found = widen_half(half);
            assert_eq!(found.is_nan(), expected.is_nan(), "{half:#x}");
            assert_eq!(found.is_sign_negative(), half & 0x8000 != 0, "{half:#x}");
            assert!(found.is_nan() || f64::from(found) == expected, "{half:#x}: {found} {expected}");
        }
    }

    #[test]
    fn values_of_each_type_are_widened_or_rounded() {
        let read = |dtype: DType, bytes: &[u8]| {
            let mut values = vec![0.0; bytes.len() / dtype.float_size().unwrap()];
            dtype.widen(bytes, &mut values);
            values
        };
        assert_eq!(read(DType::Float16, &[0x00, 0x3c, 0xff, 0x7b]), [1.0, 65504.0]);
        assert_eq!(read(DType::BFloat16, &[0x80, 0x3f, 0x49, 0xc0]), [1.0, -3.140625]);
        assert_eq!(read(DType::Float32, &1.5f32.to_le_bytes()), [1.5]);
        let doubles = [0.1f64, 1e300, 1e-300].map(f64::to_le_bytes).concat();
        assert_eq!(read(DType::Float64, &doubles), [0.1, f32::INFINITY, 0.0]);
    }
}
