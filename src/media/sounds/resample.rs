//! A sound at another rate.
//!
//! The idea: sample n of the new sound lies at n from / to of the old one, between two samples, and the fraction
//! takes few values: to / gcd of them. For each there is one row of weights, a sinc below half the lower rate, cut
//! off by a Kaiser window, so a new sample is one product of a row with the samples around it. For rates with more
//! fractions than there is room for, a row is a mixture of the two nearest. In f64, rounded once, by functions that
//! are the same on every machine.
//!
//! What is exact: up to 0.9 of half the lower rate the amplitude changes by less than 1e-4; from half the lower rate
//! on everything is below -80 dB; a constant stays one (but for the ends, before and after which there is silence).

use std::f64::consts::PI;

use super::RATES;
use crate::error::{Error, Result};
use crate::memory;

/// Where the pass band ends and the stop band begins, in units of half the lower rate.
const PASS: f64 = 0.9;
const STOP: f64 = 1.0;

/// What Kaiser's formulas are asked for, in dB: some more than the 80 that are promised.
const ATTENUATION: f64 = 90.0;

/// Weights that are kept at most, 2 MiB.
const MOST: usize = 1 << 18;

/// Rows for a sample of the lower rate where rows are mixed: the mixture of two so near is within 5e-6 of the row
/// between them.
const MIXED: f64 = 512.0;

/// The sound `samples` of `from` samples per second at the rate `to`, both in [`RATES`]: of
/// `ceil(length * to / from)` samples, the first at the same time as the first. The same samples for the same
/// rate.
///
/// # Errors
/// [`Error::Argument`] for a rate outside of these, and for a sound that would not fit into memory.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    for rate in [from, to] {
        if !RATES.contains(&rate) {
            let expected = format!("from {} to {} samples per second", RATES.start(), RATES.end());
            return Err(Error::argument("sample rate", expected, rate));
        }
    }
    if from == to {
        return Ok(samples.to_vec());
    }
    let (length, divisor) = (samples.len() as u64, gcd(from, to));
    let [up, down] = [to, from].map(|rate| u64::from(rate / divisor));
    let count = (u128::from(length) * u128::from(up)).div_ceil(u128::from(down));
    let mut resampled =
        memory::zeros::<f32>(u64::try_from(count).unwrap_or(u64::MAX)).map_err(|available| {
            let expected = format!("a sound that fits into {} MiB", available >> 20);
            Error::argument("sample rate", expected, format!("{length} samples that become {count}"))
        })?;
    let filter = Filter::new(from, to);
    let table = Table::new(&filter, up);
    for (n, sample) in resampled.iter_mut().enumerate() {
        let position = n as u64 * down;
        *sample = table.sample(samples, (position / up) as usize, (position % up) as f64 / up as f64);
    }
    Ok(resampled)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A low-pass filter, in units of the old sound's samples.
struct Filter {
    /// Half the lower rate, in cycles per sample.
    nyquist: f64,
    /// Cycles per sample beyond which it lets nothing pass, in the middle of the slope.
    cutoff: f64,
    /// Samples from its middle to its ends.
    reach: f64,
    /// Kaiser's beta.
    beta: f64,
}

impl Filter {
    fn new(from: u32, to: u32) -> Filter {
        let nyquist = 0.5 * (f64::from(to) / f64::from(from)).min(1.0);
        let slope = 2.0 * PI * (STOP - PASS) * nyquist;
        // Kaiser's formulas for a length and a shape.
        let length = (ATTENUATION - 8.0) / (2.285 * slope);
        let cutoff = (PASS + STOP) / 2.0 * nyquist;
        Filter { nyquist, cutoff, reach: length / 2.0, beta: 0.1102 * (ATTENUATION - 8.7) }
    }

    /// Samples on either side of a position.
    fn side(&self) -> usize {
        self.reach.ceil() as usize
    }

    /// Weights of a row.
    fn taps(&self) -> usize {
        2 * self.side()
    }

    /// The weights of the samples around a position that lies so far, below 1, behind a sample. They sum to 1.
    fn row(&self, fraction: f64) -> Vec<f64> {
        let first = 1 - self.side() as i64;
        let weight = |tap: usize| self.weight((first + tap as i64) as f64 - fraction);
        let mut row: Vec<f64> = (0..self.taps()).map(weight).collect();
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|weight| *weight /= sum);
        row
    }

    /// The weight of a sample at a distance.
    fn weight(&self, distance: f64) -> f64 {
        let across = distance / self.reach;
        if across.abs() >= 1.0 {
            return 0.0;
        }
        let angle = 2.0 * PI * self.cutoff * distance;
        let sinc = if angle == 0.0 { 1.0 } else { libm::sin(angle) / angle };
        sinc * bessel(self.beta * (1.0 - across * across).sqrt())
    }
}

/// Rows of weights at equal distances between two samples, both of them among these.
struct Table {
    rows: Vec<Vec<f64>>,
    side: usize,
}

impl Table {
    /// With a row for each multiple of `1 / fractions`, if there is room for so many.
    fn new(filter: &Filter, fractions: u64) -> Table {
        let exact = usize::try_from(fractions).ok().filter(|rows| rows.saturating_mul(filter.taps()) <= MOST);
        // A filter of a lower rate changes more slowly.
        let steps = exact.unwrap_or((MIXED * 2.0 * filter.nyquist).ceil() as usize);
        let rows = (0..=steps).map(|row| filter.row(row as f64 / steps as f64)).collect();
        Table { rows, side: filter.side() }
    }

    /// The new sample that lies so far, below 1, behind an old one.
    fn sample(&self, samples: &[f32], before: usize, fraction: f64) -> f32 {
        let position = fraction * (self.rows.len() - 1) as f64;
        // A fraction that has a row is within rounding of it, on either side.
        let (nearest, row) = (position.round(), position as usize);
        let sum = if (position - nearest).abs() < 1e-6 {
            self.product(nearest as usize, samples, before)
        } else {
            let [a, b] = [row, row + 1].map(|row| self.product(row, samples, before));
            a + (b - a) * (position - row as f64)
        };
        sum as f32
    }

    /// A row's product with the samples around the one that it lies behind.
    fn product(&self, row: usize, samples: &[f32], before: usize) -> f64 {
        // The first weight is that of sample `before + 1 - side`; outside of the sound there is silence.
        let end = before + 1;
        let skipped = self.side.saturating_sub(end);
        let inside = samples.get(end.saturating_sub(self.side)..).unwrap_or(&[]);
        self.rows[row][skipped..].iter().zip(inside).map(|(weight, sample)| weight * f64::from(*sample)).sum()
    }
}

/// The modified Bessel function of the first kind and order 0, by its power series.
fn bessel(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > 1e-17 * sum {
        term *= quarter / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bessel_s_function_is_the_tables() {
        // Abramowitz and Stegun, table 9.8: exp(-x) I0(x).
        for (x, scaled) in
            [(0.0, 1.0), (1.0, 0.465_759_607_7), (5.0, 0.183_540_812_6), (10.0, 0.127_833_337_2)]
        {
            let found = bessel(x) * libm::exp(-x);
            assert!((found - scaled).abs() < 1e-9, "{x}: {found}");
        }
    }

    #[test]
    fn a_mixture_of_rows_is_the_row_between_them() {
        for (from, to) in [(16_001, 16_000), (44_101, 16_000), (767_999, 1_000), (8_000, 767_999)] {
            let filter = Filter::new(from, to);
            let mixed = Table::new(&filter, to.into());
            assert!(mixed.rows.len() * filter.taps() <= MOST, "{from} to {to}");
            // The noise is as loud as it can be.
            let noise: Vec<f32> =
                (0..400_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as f32).collect();
            let noise: Vec<f32> = noise.iter().map(|x| x / 32_768.0 - 1.0).collect();
            for fraction in 1..40 {
                let fraction = f64::from(fraction) / 40.0;
                let exact = Table { rows: vec![filter.row(fraction)], side: filter.side() };
                let [a, b] = [exact.product(0, &noise, 200) as f32, mixed.sample(&noise, 200, fraction)];
                assert!((a - b).abs() < 2e-5, "{from} to {to} at {fraction}: {a} and {b}");
            }
        }
    }
}
