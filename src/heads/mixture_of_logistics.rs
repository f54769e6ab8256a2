//! The discretised mixture of logistics: drawing a pixel from it, and the likelihood of a pixel under it (Salimans
//! et al. 2017, "PixelCNN++", section 2.1; openai/pixel-cnn, `pixel_cnn_pp/nn.py`).
//!
//! The idea: one reader, `component`, knows where a number stands among the logits; drawing works in f32 in the
//! reference's steps and likelihoods in f64. Logarithms, exponentials and tanh are the crate `libm`'s in f64
//! throughout, so that an image does not depend on the platform's C library.
//!
//! The logits of a pixel of three channels are m mixture logits, then for each of R, G and B: m means, m
//! log-scales and m coefficients. The coefficient of R's group makes G's mean depend on R; those of G's and B's
//! groups make B's mean depend on R and G. A single channel has no coefficients: m mixture logits, m means, m
//! log-scales.

use super::LogSumExp;

/// Log-scales are clamped to this from below.
const LOG_SCALE_FLOOR: f32 = -7.0;
/// Half the distance between two byte values in [-1, 1].
const HALF_STEP: f64 = 1.0 / 255.0;
/// Below this probability of a byte value the reference takes the density at its middle instead.
const LEAST_MASS: f64 = 1e-5;

/// Logits for each mixture component: itself, and for each channel a mean, a log-scale and, where there are three
/// channels, a coefficient.
pub fn logits_per_component(channels: usize) -> usize {
    1 + channels * numbers(channels)
}

/// Numbers of a channel in a component.
fn numbers(channels: usize) -> usize {
    if channels == 1 { 2 } else { 3 }
}

/// One mixture component: means, log-scales (clamped) and coefficients (before tanh) of up to three channels.
struct Component {
    means: [f32; 3],
    log_scales: [f32; 3],
    coefficients: [f32; 3],
}

/// Component `k` of the logits of a mixture over `channels` channels.
fn component(logits: &[f32], channels: usize, k: usize) -> Component {
    let mixtures = logits.len() / logits_per_component(channels);
    let mut found = Component { means: [0.0; 3], log_scales: [0.0; 3], coefficients: [0.0; 3] };
    for channel in 0..channels {
        let at = |which: usize| logits[mixtures * (1 + numbers(channels) * channel + which) + k];
        (found.means[channel], found.log_scales[channel]) = (at(0), floored(at(1)));
        if channels > 1 {
            found.coefficients[channel] = at(2);
        }
    }
    found
}

/// The coefficient by which a channel's mean depends on an earlier channel: R's for G on R, G's for B on R, B's for
/// B on G.
fn coefficient(channel: usize, earlier: usize) -> usize {
    channel * (channel - 1) / 2 + earlier
}

/// A log-scale, clamped. A NaN stays a NaN, which `f32::max` would make the floor.
fn floored(log_scale: f32) -> f32 {
    if log_scale < LOG_SCALE_FLOOR { LOG_SCALE_FLOOR } else { log_scale }
}

/// Draws a pixel, a value in [-1, 1] for each channel, from logits, given uniform numbers: one for each component,
/// which choose it, then one for each channel. The logits are finite; the temperature T is finite and above 0.
///
/// The component is the argmax of `logit - T ln(-ln u)`, the first of equals: a draw from the softmax of
/// `logit / T`, written so that no small T can make the logits infinite. A channel's value is `mean + T
/// exp(log_scale) (ln u - ln(1 - u))`, clamped to [-1, 1] before the next channel sees it. The floor of the
/// log-scale comes first, then T: a temperature of 1/2 halves every scale, those at the floor too. With T = 1
/// all bits are those of the reference's steps.
pub fn sample(logits: &[f32], temperature: f32, uniforms: &[f32], pixel: &mut [f32]) {
    let channels = pixel.len();
    let (u_mixture, u_logistic) = uniforms.split_at(uniforms.len() - channels);
    let (mut chosen, mut best) = (0, f32::NEG_INFINITY);
    for (k, (&logit, &u)) in logits.iter().zip(u_mixture).enumerate() {
        let score = logit - temperature * ln(-ln(u));
        if score > best {
            (chosen, best) = (k, score);
        }
    }
    let Component { means, log_scales, coefficients } = component(logits, channels, chosen);
    for channel in 0..channels {
        let u = u_logistic[channel];
        // A scale of infinity would make u = 1/2 not a number.
        let scale = temperature * exp(log_scales[channel]);
        let scale = if scale > f32::MAX { f32::MAX } else { scale };
        let mut value = means[channel] + scale * (ln(u) - ln(1.0 - u));
        for earlier in 0..channel {
            value += tanh(coefficients[coefficient(channel, earlier)]) * pixel[earlier];
        }
        pixel[channel] = value.clamp(-1.0, 1.0);
    }
}

/// The log-likelihood, in nats, of a pixel (a value in [-1, 1] for each channel) under finite logits.
///
/// The probability of a channel's value is the logistic's mass within 1/255 of it, with the tails
/// added at -1 and 1; where it is below 1e-5, the density at its middle times 2/255. It is meant for byte
/// values; for a value between two bytes it is the mass around that value, as in the reference.
pub fn log_likelihood(logits: &[f32], pixel: &[f32]) -> f64 {
    let channels = pixel.len();
    let mut joint = LogSumExp::default();
    let mut prior = LogSumExp::default();
    for k in 0..logits.len() / logits_per_component(channels) {
        let Component { means, log_scales, coefficients } = component(logits, channels, k);
        let mut total = f64::from(logits[k]);
        prior.add(total);
        for channel in 0..channels {
            let shift = |earlier: usize| {
                let c = coefficients[coefficient(channel, earlier)];
                libm::tanh(f64::from(c)) * f64::from(pixel[earlier])
            };
            let mean = f64::from(means[channel]) + (0..channel).map(shift).sum::<f64>();
            total += log_mass(f64::from(pixel[channel]), mean, f64::from(log_scales[channel]));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The drawing without a temperature, in the reference's steps.
    fn draw(logits: &[f32], u_mixture: &[f32], u: &[f32]) -> [f32; 3] {
        let scores = logits.iter().zip(u_mixture).map(|(logit, u)| logit - ln(-ln(*u)));
        let (k, _) =
            scores.enumerate().fold((0, f32::NEG_INFINITY), |a, b| if b.1 > a.1 { (b.0, b.1) } else { a });
        let Component { means, log_scales, coefficients } = component(logits, 3, k);
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
            let mut found = [0.0; 3];
            sample(&logits, 1.0, &numbers[50..58], &mut found);
            let expected = draw(&logits, &numbers[50..55], &numbers[55..58]);
            assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits), "draw {draw_index}");
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
            let mut pixel = [0.0; 3];
            sample(&logits, 1.0, &[0.5, 0.9, 0.9, 0.9], &mut pixel);
            assert!(pixel.iter().any(|x| x.is_nan()), "logit {at}: {pixel:?}");
        }
        assert!(sigmoid(f64::NAN).is_nan() && softplus(f64::NAN).is_nan());
        assert!(ln(f32::NAN).is_nan() && exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }
}
