//! The mixture of logistics against the reference's numbers, against itself (probabilities sum to 1)
//! and against its own distribution function (Kolmogorov-Smirnov at fixed seeds).

#[path = "common/models.rs"]
mod models;

use fast_pixel_cnn::heads::Head;
use fast_pixel_cnn::{media::npy, philox};
use models::golden;
use ndarray::{Array4, ArrayView4, Ix4};

fn array(name: &str) -> Array4<f32> {
    let array = npy::read_f32(&golden(&format!("logistic/{name}"))).unwrap();
    array.into_dimensionality::<Ix4>().unwrap()
}

/// A mixture over three channels that has `logits` logits.
fn mixture(logits: usize) -> Head {
    Head::MixtureOfLogistics { mixtures: logits / 10, channels: 3 }
}

fn sample(logits: &[f32], temperature: f32, u_mixture: &[f32], u_logistic: &[f32]) -> [f32; 3] {
    let mut pixel = [0.0; 3];
    mixture(logits.len()).sample(logits, temperature, &[u_mixture, u_logistic].concat(), &mut pixel);
    pixel
}

fn log_likelihood(logits: &[f32], pixel: [f32; 3]) -> f64 {
    mixture(logits.len()).log_likelihood(logits, &pixel)
}

fn nats(logits: &Array4<f32>, images: ArrayView4<f32>) -> fast_pixel_cnn::Result<Vec<f64>> {
    mixture(logits.dim().3).nats(logits.view(), images)
}

/// Logits of m equally likely components with the same means, log-scales and coefficients.
fn uniform_logits(m: usize, means: [f32; 3], log_scales: [f32; 3], coefficients: [f32; 3]) -> Vec<f32> {
    let mut logits = vec![0.0; m];
    for channel in 0..3 {
        for value in [means[channel], log_scales[channel], coefficients[channel]] {
            logits.extend(std::iter::repeat_n(value, m));
        }
    }
    logits
}

#[test]
fn samples_are_those_of_the_reference() {
    let (logits, expected) = (array("logits.npy"), array("samples.npy"));
    let (u_mixture, u_logistic) = (array("u_mixture.npy"), array("u_logistic.npy"));
    let numbers = u_mixture.rows().into_iter().zip(u_logistic.rows());
    let pixels = logits.rows().into_iter().zip(numbers).zip(expected.rows());
    let mut greatest = 0.0f32;
    for ((logits, (mixture, logistic)), expected) in pixels {
        let pixel = sample(
            logits.to_slice().unwrap(),
            1.0,
            mixture.to_slice().unwrap(),
            logistic.to_slice().unwrap(),
        );
        for (a, b) in pixel.iter().zip(expected) {
            greatest = greatest.max((a - b).abs());
        }
    }
    println!("largest difference {greatest:e}");
    assert!(greatest <= 1e-5, "{greatest:e}");
}

#[test]
fn likelihoods_are_those_of_the_reference() {
    let bytes = npy::read_u8(&golden("logistic/images_u8.npy")).unwrap();
    let images = bytes.mapv(|p| (f32::from(p) - 127.5) / 127.5);
    let images = images.into_dimensionality::<Ix4>().unwrap();
    let expected = npy::read_f32(&golden("logistic/nll.npy")).unwrap();
    let nats = self::nats(&array("logits.npy"), images.view()).unwrap();
    assert_eq!(nats.len(), expected.len());
    for (a, b) in nats.iter().zip(&expected) {
        let relative = (a / f64::from(*b) - 1.0).abs();
        assert!(relative < 1e-5, "{a} {b}");
    }
    let shifted = images.slice(ndarray::s![.., 1.., .., ..]);
    let error = self::nats(&array("logits.npy"), shifted).unwrap_err();
    assert!(error.to_string().starts_with("logits: expected"), "{error}");
}

#[test]
fn bits_per_dimension_count_pixels_and_channels() {
    let nats = 8.0 * 4.0 * 3.0 * std::f64::consts::LN_2;
    assert!((mixture(10).bits_per_dim(nats, 8, 4) - 1.0).abs() < 1e-15);
}

/// The probability of each of the 256 values of one channel, the other two being certain: their means
/// lie so far below -1 that all their mass is at -1.
fn channel_total(channel: usize, mean: f32, log_scale: f32) -> f64 {
    let (mut means, mut log_scales) = ([-9.0; 3], [-7.0; 3]);
    (means[channel], log_scales[channel]) = (mean, log_scale);
    let mut logits = uniform_logits(3, means, log_scales, [0.7, -0.4, 1.3]);
    // Three different components, so that the sum is one over a mixture.
    logits[0] = 1.5;
    let first = 3 * (1 + 3 * channel);
    logits[first] -= 0.3;
    logits[first + 1] += 0.9;
    (0..=255u8)
        .map(|p| {
            let mut pixel = [-1.0; 3];
            pixel[channel] = (f32::from(p) - 127.5) / 127.5;
            log_likelihood(&logits, pixel).exp()
        })
        .sum()
}

#[test]
fn the_probabilities_of_a_channel_s_256_values_sum_to_1() {
    for channel in 0..3 {
        for mean in [-1.4, -1.0, -0.3, 0.0, 0.501, 1.0, 1.2] {
            for log_scale in [-7.0, -6.0, -4.5, -3.0, -1.0, 0.0, 2.0] {
                let total = channel_total(channel, mean, log_scale);
                // Values of less than 1e-5 are taken at their density, so narrow scales are off a little.
                let tolerance = if log_scale < -5.0 { 5e-5 } else { 1e-6 };
                assert!(
                    (total - 1.0).abs() < tolerance,
                    "channel {channel}, mean {mean}, log-scale {log_scale}: {total}"
                );
            }
        }
    }
}

#[test]
fn the_log_scale_has_a_floor() {
    let floor = uniform_logits(2, [0.1; 3], [-7.0; 3], [0.3; 3]);
    let below = uniform_logits(2, [0.1; 3], [-30.0; 3], [0.3; 3]);
    let (u_mixture, u_logistic) = ([0.3, 0.6], [0.2, 0.5, 0.9]);
    let pixel = sample(&floor, 1.0, &u_mixture, &u_logistic);
    assert_eq!(pixel, sample(&below, 1.0, &u_mixture, &u_logistic));
    let likelihood = log_likelihood(&floor, pixel);
    assert_eq!(likelihood, log_likelihood(&below, pixel));
}

#[test]
fn extreme_numbers_give_pixels_in_range() {
    let (least, most) = (*philox::BOUNDS.start(), *philox::BOUNDS.end());
    for log_scale in [-100.0, -7.0, 0.0, 50.0, 3e38] {
        let logits = uniform_logits(3, [0.5, -3e38, 3e38], [log_scale; 3], [9.0, -9.0, 9.0]);
        for u in [least, 0.5, most] {
            let pixel = sample(&logits, 1.0, &[least, most, u], &[u; 3]);
            assert!(pixel.iter().all(|v| (-1.0..=1.0).contains(v)), "{log_scale} {u} {pixel:?}");
            assert!(log_likelihood(&logits, pixel) <= 0.0);
        }
    }
    // The greatest number wins the choice among equal logits, the first among equal numbers.
    let mut logits = uniform_logits(2, [0.0; 3], [-7.0; 3], [0.0; 3]);
    (logits[2], logits[3]) = (-0.5, 0.5);
    let red = |u: [f32; 2]| sample(&logits, 1.0, &u, &[0.5; 3])[0];
    assert_eq!((red([least, most]), red([most, least]), red([0.5, 0.5])), (0.5, -0.5, -0.5));
}

#[test]
fn extreme_temperatures_give_pixels_in_range() {
    let (least, most) = (*philox::BOUNDS.start(), *philox::BOUNDS.end());
    for temperature in [f32::from_bits(1), 1e-30, 1.0, 1e30, f32::MAX] {
        for log_scale in [-100.0, 0.0, 3e38] {
            let logits = uniform_logits(3, [0.5, -3e38, 3e38], [log_scale; 3], [9.0, -9.0, 9.0]);
            for u in [least, 0.5, most] {
                let pixel = sample(&logits, temperature, &[least, most, u], &[u; 3]);
                assert!(
                    pixel.iter().all(|v| (-1.0..=1.0).contains(v)),
                    "{temperature} {log_scale} {u} {pixel:?}"
                );
            }
        }
    }
    // Near 0 the greatest logit wins whatever the numbers, and its mean is drawn.
    let mut logits = uniform_logits(3, [0.25; 3], [0.0; 3], [0.0; 3]);
    (logits[1], logits[4]) = (1e-3, 0.75);
    let cold = |temperature| sample(&logits, temperature, &[most, least, most], &[0.9; 3])[0];
    assert_eq!((cold(1e-30), cold(f32::from_bits(1))), (0.75, 0.75));
    assert_ne!(cold(1.0), 0.75);
}

#[test]
fn the_floor_of_the_log_scale_comes_before_the_temperature() {
    let [floor, below] = [-7.0, -30.0].map(|s| uniform_logits(1, [0.0; 3], [s; 3], [0.0; 3]));
    let draw = |logits: &[f32], temperature| sample(logits, temperature, &[0.5], &[0.9; 3])[0];
    for temperature in [0.125, 1.0, 8.0] {
        assert_eq!(draw(&floor, temperature), draw(&below, temperature));
        assert_eq!(draw(&floor, temperature), temperature * draw(&floor, 1.0));
    }
}

#[test]
fn a_logit_that_is_not_finite_has_no_likelihood() {
    for m in [1, 3] {
        let sound = uniform_logits(m, [0.1; 3], [-3.0; 3], [0.3; 3]);
        for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for pixel in [[-1.0; 3], [0.1; 3], [1.0; 3]] {
                assert!(log_likelihood(&sound, pixel).is_finite());
                for at in 0..10 * m {
                    let mut logits = sound.clone();
                    logits[at] = value;
                    assert!(log_likelihood(&logits, pixel).is_nan(), "{value} at {at} of {m}");
                }
                assert!(log_likelihood(&vec![value; 10 * m], pixel).is_nan());
            }
        }
    }
    // Of several images only the one.
    let mut logits = array("logits.npy");
    let images = Array4::zeros((logits.dim().0, logits.dim().1, logits.dim().2, 3));
    assert!(logits.dim().0 > 1);
    logits[[1, 0, 0, 3]] = f32::NAN;
    let nats = self::nats(&logits, images.view()).unwrap();
    assert!(nats.iter().enumerate().all(|(i, nats)| nats.is_nan() == (i == 1)), "{nats:?}");
}

/// A mixture whose draws practically never reach -1 or 1: m = 2, two channels depend on others.
const WEIGHTS: [f64; 2] = [0.3, 0.7];
const MEANS: [[f64; 2]; 3] = [[-0.3, 0.25], [0.2, -0.1], [0.05, -0.2]];
const LOG_SCALES: [[f64; 2]; 3] = [[-3.5, -4.0], [-4.2, -3.8], [-3.6, -4.4]];
const COEFFICIENTS: [[f64; 2]; 3] = [[0.5, -0.8], [-0.6, 0.4], [0.9, 0.7]];

/// Turns a pixel into three numbers that are independent and uniform if the pixel has the right
/// distribution: the conditional distribution function of each channel given those before it.
fn rosenblatt(pixel: [f32; 3]) -> [f64; 3] {
    let [red, green, blue] = pixel.map(f64::from);
    let mut posterior = WEIGHTS;
    std::array::from_fn(|channel| {
        let (mut cumulative, mut joint) = (0.0, [0.0; 2]);
        let total: f64 = posterior.iter().sum();
        for k in 0..2 {
            let c = COEFFICIENTS.map(|c| c[k].tanh());
            let shift = [0.0, c[0] * red, c[1] * red + c[2] * green][channel];
            let scale = LOG_SCALES[channel][k].exp();
            let z = ([red, green, blue][channel] - MEANS[channel][k] - shift) / scale;
            let below = 1.0 / (1.0 + (-z).exp());
            cumulative += posterior[k] / total * below;
            joint[k] = posterior[k] * below * (1.0 - below) / scale;
        }
        posterior = joint;
        cumulative
    })
}

#[test]
fn draws_follow_the_distribution() {
    let mut logits: Vec<f32> = WEIGHTS.iter().map(|w| w.ln() as f32).collect();
    for channel in 0..3 {
        for group in [MEANS, LOG_SCALES, COEFFICIENTS] {
            logits.extend(group[channel].map(|v| v as f32));
        }
    }
    const DRAWS: usize = 20_000;
    for seed in [0, 1, 2702] {
        let mut transformed = [const { Vec::new() }; 3];
        let mut numbers = [0.0; 5];
        for draw in 0..DRAWS {
            philox::uniforms(seed, draw as u32, 3, 5, &mut numbers);
            let pixel = sample(&logits, 1.0, &numbers[..2], &numbers[2..]);
            let uniform = rosenblatt(pixel);
            transformed.iter_mut().zip(uniform).for_each(|(t, u)| t.push(u));
        }
        for (channel, values) in transformed.iter_mut().enumerate() {
            values.sort_by(f64::total_cmp);
            let distances =
                values.iter().enumerate().map(|(i, u)| (u - (i as f64 + 0.5) / DRAWS as f64).abs());
            let statistic = distances.fold(0.0, f64::max) * (DRAWS as f64).sqrt();
            // Exceeded with probability 0.001 by right draws.
            assert!(statistic < 1.95, "seed {seed}, channel {channel}: {statistic}");
        }
    }
}
