//! How loud each frequency of a sound is at each moment.
//!
//! The idea: a spectrogram for a picture has as many columns and rows as the picture. A column is the mean power of
//! the windows in its time, which lie a quarter of a window apart or nearer, so no moment is left out of a long
//! sound's and a short one's has no steps.

use std::f64::consts::PI;

use ndarray::Array2;

/// Seconds of a window: 256 samples of 16,000 per second.
pub const WINDOW: f64 = 0.016;

/// A complex number.
type Complex = [f64; 2];

/// The discrete Fourier transform of one length, a power of two.
struct Transform {
    /// `exp(-2 pi i k / length)` for the lower half of k.
    roots: Vec<Complex>,
}

impl Transform {
    fn new(length: usize) -> Transform {
        assert!(length.is_power_of_two(), "{length}");
        let root = |k: usize| {
            let (sine, cosine) = libm::sincos(-2.0 * PI * k as f64 / length as f64);
            [cosine, sine]
        };
        Transform { roots: (0..length / 2).map(root).collect() }
    }

    /// Transforms `[length]` in place: Cooley and Tukey's, radix 2.
    fn apply(&self, values: &mut [Complex]) {
        let length = values.len();
        assert_eq!(length, 2 * self.roots.len(), "values");
        let unused = usize::BITS - length.trailing_zeros();
        for at in 0..length {
            let mirrored = at.reverse_bits() >> unused;
            if at < mirrored {
                values.swap(at, mirrored);
            }
        }
        let mut half = 1;
        while half < length {
            let stride = length / (2 * half);
            for block in values.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
                    let [c, s] = self.roots[k * stride];
                    let turned = [b[0] * c - b[1] * s, b[0] * s + b[1] * c];
                    *b = [a[0] - turned[0], a[1] - turned[1]];
                    *a = [a[0] + turned[0], a[1] + turned[1]];
                }
            }
            half *= 2;
        }
    }
}

/// The power of a sound, `[rows, columns]`: rows from 0 to half the rate, a power of two of them, columns of
/// `width` samples each from the sound's begin. Windows are Hann's, of [`WINDOW`] seconds around their moments;
/// outside of the sound there is silence.
pub fn spectrogram(samples: &[f32], rate: u32, [rows, columns]: [usize; 2], width: f64) -> Array2<f64> {
    let window = ((WINDOW * f64::from(rate)).round() as usize).max(4);
    // So long that every row has a frequency.
    let length = window.next_power_of_two().max(2 * rows);
    let transform = Transform::new(length);
    let weights: Vec<f64> = (0..window).map(|i| hann((i as f64 + 0.5) / window as f64)).collect();
    let frames = (width / (window / 4) as f64).ceil().max(1.0);
    let mut values = vec![[0.0; 2]; length];
    let mut power = Array2::zeros((rows, columns));
    for column in 0..columns {
        for frame in 0..frames as usize {
            let moment = (column as f64 + (frame as f64 + 0.5) / frames) * width;
            let first = (moment - window as f64 / 2.0).round() as i64;
            values.fill([0.0; 2]);
            for ((i, weight), value) in weights.iter().enumerate().zip(&mut values) {
                let at = usize::try_from(first + i as i64).ok();
                value[0] = weight * f64::from(at.and_then(|at| samples.get(at)).copied().unwrap_or(0.0));
            }
            transform.apply(&mut values);
            for (row, bins) in values[..length / 2].chunks_exact(length / 2 / rows).enumerate() {
                power[[row, column]] += bins.iter().map(|[re, im]| re * re + im * im).sum::<f64>() / frames;
            }
        }
    }
    power
}

/// Hann's window from 0 to 1.
fn hann(position: f64) -> f64 {
    0.5 - 0.5 * libm::cos(2.0 * PI * position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transform_is_the_sum_that_it_stands_for() {
        for length in [2, 4, 8, 64, 256] {
            let mut random = 1_u32;
            let mut next = || {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f64::from(random) / f64::from(u32::MAX) - 0.5
            };
            let values: Vec<Complex> = (0..length).map(|_| [next(), next()]).collect();
            let mut transformed = values.clone();
            Transform::new(length).apply(&mut transformed);
            for (k, found) in transformed.iter().enumerate() {
                let mut sum = [0.0; 2];
                for (n, [re, im]) in values.iter().enumerate() {
                    let (s, c) = (-2.0 * PI * (k * n) as f64 / length as f64).sin_cos();
                    sum = [sum[0] + re * c - im * s, sum[1] + re * s + im * c];
                }
                let error = (found[0] - sum[0]).abs().max((found[1] - sum[1]).abs());
                assert!(error < 1e-12 * length as f64, "{length}: {k}: {found:?}, not {sum:?}");
            }
        }
    }

    #[test]
    fn a_tone_is_loud_in_its_row_and_its_time() {
        // 2 kHz of 8 kHz per second lie in the middle of the rows; the second half of the sound is silent.
        let tone = |i: usize| if i < 4000 { (PI * i as f64 / 2.0).sin() as f32 } else { 0.0 };
        let sound: Vec<f32> = (0..8000).map(tone).collect();
        let power = spectrogram(&sound, 8000, [128, 100], 80.0);
        let loudest = power.iter().copied().fold(0.0, f64::max);
        for ((row, column), power) in power.indexed_iter() {
            let inside = column < 49 && (63..=65).contains(&row);
            let far = column > 51 || column < 48 && column > 1 && row.abs_diff(64) > 16;
            assert!(!inside || *power > 0.05 * loudest, "{row} {column}: {power}");
            assert!(!far || *power < 1e-5 * loudest, "{row} {column}: {power}");
        }
        // The same power whether a column has one window or many.
        let wide = spectrogram(&sound, 8000, [128, 5], 800.0);
        assert!((wide[[64, 2]] / power[[64, 25]] - 1.0).abs() < 0.01);
    }
}
