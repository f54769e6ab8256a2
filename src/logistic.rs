//! The discretised mixture of logistics that a pixel's logits describe: drawing from it, and the
//! likelihood of a pixel under it (Salimans et al. 2017, "PixelCNN++", section 2.1; openai/pixel-cnn,
//! `pixel_cnn_pp/nn.py`).
//!
//! The idea: one reader, `component`, knows where a number stands among the 10 m logits; drawing works in
//! f32 in the reference's steps and likelihoods in f64. Logarithms, exponentials and tanh are the crate
//! `libm`'s in f64 throughout, so that an image does not depend on the platform's C library.
//!
//! The logits of a pixel are m mixture logits, then for each of R, G and B: m means, m log-scales and m
//! coefficients. The coefficient of R's group makes G's mean depend on R; those of G's and B's groups
//! make B's mean depend on R and G.
//!
//! Nothing here hides a number that is none: a pixel with a logit that is not finite has the likelihood NaN,
//! and an engine does not draw it.

use ndarray::ArrayView4;

use crate::error::{Error, Result};

/// Log-scales are clamped to this from below.
const LOG_SCALE_FLOOR: f32 = -7.0;
/// Half the distance between two byte values in [-1, 1].
const HALF_STEP: f64 = 1.0 / 255.0;
/// Below this probability of a byte value the reference takes the density at its middle instead.
const LEAST_MASS: f64 = 1e-5;

/// Means, log-scales (clamped) and coefficients (before tanh) of R, G and B in mixture component `k`.
fn component(logits: &[f32], mixtures: usize, k: usize) -> [[f32; 3]; 3] {
    let at = |channel: usize, which: usize| logits[mixtures * (1 + 3 * channel + which) + k];
    [
        [at(0, 0), at(1, 0), at(2, 0)],
        [at(0, 1), at(1, 1), at(2, 1)].map(floored),
        [at(0, 2), at(1, 2), at(2, 2)],
    ]
}

/// A log-scale, clamped. A NaN stays a NaN, which `f32::max` would make the floor.
fn floored(log_scale: f32) -> f32 {
    if log_scale < LOG_SCALE_FLOOR { LOG_SCALE_FLOOR } else { log_scale }
}

/// Draws a pixel (R, G, B in [-1, 1]) from logits `[10 m]`, given the uniform numbers `[m]` that choose
/// the component and those of R, G and B. The logits are finite; the temperature T is finite and above 0.
///
/// The component is the argmax of `logit - T ln(-ln u)`, the first of equals: a draw from the softmax of
/// `logit / T`, written so that no small T can make the logits infinite. A channel's value is `mean + T
/// exp(log_scale) (ln u - ln(1 - u))`, clamped to [-1, 1] before the next channel sees it. The floor of the
/// log-scale comes first, then T: a temperature of 1/2 halves every scale, those at the floor too. With T = 1
/// all bits are those of the reference's steps.
///
/// # Panics
/// If `logits` is not ten times as long as `u_mixture`, or either of the others is too short.
pub fn sample(logits: &[f32], temperature: f32, u_mixture: &[f32], u_logistic: &[f32]) -> [f32; 3] {
    let mixtures = u_mixture.len();
    assert!(mixtures > 0 && logits.len() == 10 * mixtures, "10 logits for each mixture component");
    let (mut chosen, mut best) = (0, f32::NEG_INFINITY);
    for (k, (&logit, &u)) in logits.iter().zip(u_mixture).enumerate() {
        let score = logit - temperature * ln(-ln(u));
        if score > best {
            (chosen, best) = (k, score);
        }
    }
    let [means, log_scales, coefficients] = component(logits, mixtures, chosen);
    let [c0, c1, c2] = coefficients.map(tanh);
    let draw = |channel: usize| {
        let u = u_logistic[channel];
        // A scale of infinity would make u = 1/2 not a number.
        let scale = temperature * exp(log_scales[channel]);
        let scale = if scale > f32::MAX { f32::MAX } else { scale };
        means[channel] + scale * (ln(u) - ln(1.0 - u))
    };
    let red = draw(0).clamp(-1.0, 1.0);
    let green = (draw(1) + c0 * red).clamp(-1.0, 1.0);
    let blue = (draw(2) + c1 * red + c2 * green).clamp(-1.0, 1.0);
    [red, green, blue]
}

/// The log-likelihood, in nats, of a pixel (R, G, B in [-1, 1]) under logits `[10 m]`; NaN if one of them is
/// not finite.
///
/// The probability of a channel's value is the logistic's mass within 1/255 of it, with the tails
/// added at -1 and 1; where it is below 1e-5, the density at its middle times 2/255. It is meant for byte
/// values; for a value between two bytes it is the mass around that value, as in the reference.
///
/// # Panics
/// If the length of `logits` is not a multiple of 10.
pub fn log_likelihood(logits: &[f32], pixel: [f32; 3]) -> f64 {
    assert!(logits.len().is_multiple_of(10), "10 logits for each mixture component");
    // Not left to the arithmetic: an infinite coefficient, for one, would be the ordinary tanh of 1.
    if !logits.iter().all(|l| l.is_finite()) {
        return f64::NAN;
    }
    let mixtures = logits.len() / 10;
    let [red, green, blue] = pixel.map(f64::from);
    let mut joint = LogSumExp::default();
    let mut prior = LogSumExp::default();
    for k in 0..mixtures {
        let [means, log_scales, coefficients] = component(logits, mixtures, k);
        let [c0, c1, c2] = coefficients.map(|c| libm::tanh(f64::from(c)));
        let shifts = [0.0, c0 * red, c1 * red + c2 * green];
        let mut total = f64::from(logits[k]);
        prior.add(total);
        for (channel, value) in [red, green, blue].into_iter().enumerate() {
            let mean = f64::from(means[channel]) + shifts[channel];
            total += log_mass(value, mean, f64::from(log_scales[channel]));
        }
        joint.add(total);
    }
    joint.value() - prior.value()
}

/// The log-probability of a byte value in [-1, 1] under one logistic.
fn log_mass(value: f64, mean: f64, log_scale: f64) -> f64 {
    let inverse = libm::exp(-log_scale);
    let centred = value - mean;
    let (upper, lower) = (inverse * (centred + HALF_STEP), inverse * (centred - HALF_STEP));
    if value < -0.999 {
        return upper - softplus(upper);
    }
    if value > 0.999 {
        return -softplus(lower);
    }
    let mass = sigmoid(upper) - sigmoid(lower);
    if mass > LEAST_MASS {
        return libm::log(mass);
    }
    let middle = inverse * centred;
    middle - log_scale - 2.0 * softplus(middle) - libm::log(127.5)
}

/// `ln(sum(exp(x)))` over what was added, without overflow: -infinity of nothing, NaN if any x was NaN.
struct LogSumExp {
    greatest: f64,
    /// Sum of `exp(x - greatest)`.
    sum: f64,
}

impl Default for LogSumExp {
    fn default() -> Self {
        LogSumExp { greatest: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl LogSumExp {
    fn add(&mut self, x: f64) {
        if x > self.greatest {
            self.sum = self.sum * libm::exp(self.greatest - x) + 1.0;
            self.greatest = x;
        } else if x == self.greatest {
            // The difference of two infinities is not 0. exp(-infinity) adds nothing.
            self.sum += if x == f64::NEG_INFINITY { 0.0 } else { 1.0 };
        } else {
            self.sum += libm::exp(x - self.greatest);
        }
    }

    fn value(&self) -> f64 {
        self.greatest + libm::log(self.sum)
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// `ln(1 + exp(x))`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

fn ln(x: f32) -> f32 {
    libm::log(f64::from(x)) as f32
}

fn exp(x: f32) -> f32 {
    libm::exp(f64::from(x)) as f32
}

fn tanh(x: f32) -> f32 {
    libm::tanh(f64::from(x)) as f32
}

/// The negative log-likelihood of each image, in nats: logits `[N, H, W, 10 m]` and images
/// `[N, H, W, 3]` in [-1, 1] to `[N]`. NaN for an image that has a logit that is not finite.
///
/// # Errors
/// [`Error::Argument`] if the shapes do not fit each other.
pub fn nats(logits: ArrayView4<f32>, images: ArrayView4<f32>) -> Result<Vec<f64>> {
    let (l, i) = (logits.shape(), images.shape());
    if l[..3] != i[..3] || i[3] != 3 || !l[3].is_multiple_of(10) {
        let expected = format!("[N, H, W, 10 m] for images of shape {i:?} = [N, H, W, 3]");
        return Err(Error::argument("logits", expected, format!("{l:?}")));
    }
    let logits = logits.as_standard_layout();
    let images = logits.outer_iter().zip(images.outer_iter());
    let nats = images.map(|(logits, image)| {
        let pixels = logits.rows().into_iter().zip(image.rows());
        let nats = pixels.map(|(logits, pixel)| {
            let logits = logits.to_slice().expect("standard layout");
            -log_likelihood(logits, [pixel[0], pixel[1], pixel[2]])
        });
        nats.sum()
    });
    Ok(nats.collect())
}

/// Nats of an image in bits per dimension: per pixel and channel.
pub fn bits_per_dim(nats: f64, height: usize, width: usize) -> f64 {
    nats / (std::f64::consts::LN_2 * (height * width * 3) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_sum_exp(numbers: &[f64]) -> f64 {
        let mut sum = LogSumExp::default();
        numbers.iter().for_each(|x| sum.add(*x));
        sum.value()
    }

    #[test]
    fn a_log_sum_exp_is_defined_wherever_the_sum_is() {
        const NONE: f64 = f64::NEG_INFINITY;
        for (numbers, expected) in [
            (&[NONE, 2.0][..], 2.0),
            (&[2.0, NONE], 2.0),
            (&[NONE, NONE, 1e4, NONE], 1e4),
            (&[NONE, NONE], NONE),
            (&[], NONE),
            (&[-1e300, -1e300], -1e300),
            (&[f64::INFINITY, 1.0, f64::INFINITY, NONE], f64::INFINITY),
        ] {
            assert_eq!(log_sum_exp(numbers), expected, "{numbers:?}");
        }
        assert!((log_sum_exp(&[NONE, 0.0, 0.0]) - std::f64::consts::LN_2).abs() < 1e-15);
        for at in 0..3 {
            for rest in [NONE, 0.5, f64::INFINITY] {
                let mut numbers = [rest; 3];
                numbers[at] = f64::NAN;
                assert!(log_sum_exp(&numbers).is_nan(), "{numbers:?}");
            }
        }
    }

    /// The drawing without a temperature, in the reference's steps.
    fn draw(logits: &[f32], u_mixture: &[f32], u: &[f32]) -> [f32; 3] {
        let scores = logits.iter().zip(u_mixture).map(|(logit, u)| logit - ln(-ln(*u)));
        let (k, _) =
            scores.enumerate().fold((0, f32::NEG_INFINITY), |a, b| if b.1 > a.1 { (b.0, b.1) } else { a });
        let [means, log_scales, coefficients] = component(logits, u_mixture.len(), k);
        let [c0, c1, c2] = coefficients.map(tanh);
        let x = |c: usize| means[c] + exp(log_scales[c]) * (ln(u[c]) - ln(1.0 - u[c]));
        let red = x(0).clamp(-1.0, 1.0);
        let green = (x(1) + c0 * red).clamp(-1.0, 1.0);
        [red, green, (x(2) + c1 * red + c2 * green).clamp(-1.0, 1.0)]
    }

    #[test]
    fn a_temperature_of_1_changes_no_bit() {
        let mut numbers = [0.0; 60];
        for draw_index in 0..500 {
            crate::philox::uniforms(7, draw_index, 0, 0, &mut numbers);
            let logits: Vec<f32> = numbers[..50].iter().map(|u| 8.0 * u - 4.0).collect();
            let (mixture, logistic) = (&numbers[50..55], &numbers[55..58]);
            let found = sample(&logits, 1.0, mixture, logistic).map(f32::to_bits);
            assert_eq!(found, draw(&logits, mixture, logistic).map(f32::to_bits), "draw {draw_index}");
        }
    }

    #[test]
    fn no_step_of_a_likelihood_hides_a_nan() {
        assert_eq!((floored(-9.0), floored(-7.0), floored(3.0)), (-7.0, -7.0, 3.0));
        assert!(floored(f32::NAN).is_nan());
        for value in [-1.0, 0.1, 1.0] {
            for (mean, log_scale) in [(f64::NAN, 0.0), (0.0, f64::NAN)] {
                assert!(log_mass(value, mean, log_scale).is_nan(), "{value}, {mean}, {log_scale}");
            }
        }
        for at in 1..10 {
            let mut logits = [0.0; 10];
            logits[at] = f32::NAN;
            let pixel = sample(&logits, 1.0, &[0.5], &[0.9; 3]);
            assert!(pixel.iter().any(|x| x.is_nan()), "logit {at}: {pixel:?}");
        }
        assert!(sigmoid(f64::NAN).is_nan() && softplus(f64::NAN).is_nan());
        assert!(ln(f32::NAN).is_nan() && exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }
}
