//! What the last layer's numbers mean: drawing a pixel from its logits, and the likelihood of a pixel under them.
//!
//! The idea: a head is a few functions of one pixel's logits. How many logits, uniform numbers and values a pixel
//! has is asked of it, so that nobody else knows a distribution. Nothing here hides a number that is none: a pixel
//! with a logit that is not finite has the likelihood NaN, and an engine does not draw it.

pub(crate) mod categorical;
pub(crate) mod mixture_of_logistics;
pub mod mu_law;

use std::ops::RangeInclusive;

use ndarray::ArrayView4;

pub use self::categorical::{symbol, value};
use crate::error::{Error, Result};
use crate::philox::BOUNDS;

/// A distribution over the values of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A mixture of discretized logistics, each channel's mean moved by those before it: PixelCNN++'s.
    MixtureOfLogistics {
        /// Components (m).
        mixtures: usize,
        /// Channels of the image: 1 or 3, the layouts that have been published.
        channels: usize,
    },
    /// A softmax over values that lie evenly in [-1, 1].
    Categorical {
        /// Values that a pixel can have.
        symbols: usize,
    },
}

impl Head {
    /// Logits of a pixel: `10 m` for a mixture over three channels, `3 m` over one.
    pub fn logits(&self) -> usize {
        match *self {
            Head::MixtureOfLogistics { mixtures, channels } => {
                mixtures * mixture_of_logistics::logits_per_component(channels)
            }
            Head::Categorical { symbols } => symbols,
        }
    }

    /// Uniform numbers that drawing a pixel takes: of a mixture m that choose the component, then one for each
    /// channel.
    pub fn draws(&self) -> usize {
        match *self {
            Head::MixtureOfLogistics { mixtures, channels } => mixtures + channels,
            Head::Categorical { .. } => 1,
        }
    }

    /// Where given uniform numbers lie: a mixture takes logarithms of them, which the ends would make infinite.
    pub fn uniforms(&self) -> RangeInclusive<f32> {
        match self {
            Head::MixtureOfLogistics { .. } => BOUNDS,
            Head::Categorical { .. } => 0.0..=1.0,
        }
    }

    /// Values of a pixel, each in [-1, 1]: the channels of the image.
    pub fn values(&self) -> usize {
        match *self {
            Head::MixtureOfLogistics { channels, .. } => channels,
            Head::Categorical { .. } => 1,
        }
    }

    /// Draws a pixel: logits `[logits]` and uniform numbers `[draws]` to `[values]`. The logits are finite; the
    /// temperature is finite and above 0, and 1 for the distribution itself.
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn sample(&self, logits: &[f32], temperature: f32, uniforms: &[f32], pixel: &mut [f32]) {
        assert_eq!(
            [logits.len(), uniforms.len(), pixel.len()],
            [self.logits(), self.draws(), self.values()],
            "logits, uniform numbers and values"
        );
        match self {
            Head::MixtureOfLogistics { .. } => {
                mixture_of_logistics::sample(logits, temperature, uniforms, pixel)
            }
            Head::Categorical { .. } => {
                pixel[0] = categorical::sample(logits, temperature, uniforms[0]);
            }
        }
    }

    /// The value nearest to a given one that a pixel can be drawn with: of a softmax that of the nearest symbol.
    pub fn nearest(&self, value: f32) -> f32 {
        match *self {
            Head::MixtureOfLogistics { .. } => value,
            Head::Categorical { symbols } => categorical::value(categorical::symbol(value, symbols), symbols),
        }
    }

    /// The log-likelihood, in nats, of a pixel `[values]` under logits `[logits]`; NaN if one of them is not
    /// finite.
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn log_likelihood(&self, logits: &[f32], pixel: &[f32]) -> f64 {
        assert_eq!([logits.len(), pixel.len()], [self.logits(), self.values()], "logits and values");
        // Not left to the arithmetic: an infinite coefficient, for one, would be the ordinary tanh of 1.
        if !logits.iter().all(|l| l.is_finite()) {
            return f64::NAN;
        }
        match self {
            Head::MixtureOfLogistics { .. } => mixture_of_logistics::log_likelihood(logits, pixel),
            Head::Categorical { .. } => categorical::log_likelihood(logits, pixel[0]),
        }
    }

    /// The negative log-likelihood of each image, in nats: logits `[N, H, W, logits]` and images
    /// `[N, H, W, values]` in [-1, 1] to `[N]`. NaN for an image that has a logit that is not finite.
    ///
    /// # Errors
    /// [`Error::Argument`] if the shapes do not fit each other.
    pub fn nats(&self, logits: ArrayView4<f32>, images: ArrayView4<f32>) -> Result<Vec<f64>> {
        let (l, i) = (logits.shape(), images.shape());
        if l[..3] != i[..3] || [l[3], i[3]] != [self.logits(), self.values()] {
            let expected = format!(
                "[N, H, W, {}] for images of shape {i:?} = [N, H, W, {}]",
                self.logits(),
                self.values()
            );
            return Err(Error::argument("logits", expected, format!("{l:?}")));
        }
        let (logits, images) = (logits.as_standard_layout(), images.as_standard_layout());
        let images = logits.outer_iter().zip(images.outer_iter());
        let nats = images.map(|(logits, image)| {
            let pixels = logits.rows().into_iter().zip(image.rows());
            let nats = pixels.map(|(logits, pixel)| {
                let [logits, pixel] = [logits, pixel].map(|row| row.to_slice().expect("standard layout"));
                -self.log_likelihood(logits, pixel)
            });
            nats.sum()
        });
        Ok(nats.collect())
    }

    /// Nats of an image in bits per dimension: per pixel and value.
    pub fn bits_per_dim(&self, nats: f64, height: usize, width: usize) -> f64 {
        nats / (std::f64::consts::LN_2 * (height * width * self.values()) as f64)
    }
}

/// `ln(sum(exp(x)))` over what was added, without overflow: -infinity of nothing, NaN if any x was NaN.
pub(crate) struct LogSumExp {
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
    pub(crate) fn add(&mut self, x: f64) {
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

    pub(crate) fn value(&self) -> f64 {
        self.greatest + libm::log(self.sum)
    }
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
}
