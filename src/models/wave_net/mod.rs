//! WaveNet (van den Oord et al. 2016), as ibab/tensorflow-wavenet has it, and the numbers that tell one from another.
//!
//! The idea: a sound is an image of one column whose rows are its samples, so that a dilation is a tap so many rows up
//! and the queues of *Fast Generation for Convolutional Autoregressive Models* are rings of rows. All but dilations and
//! sample rate follows from the shapes in a checkpoint; those are in a file beside it.

mod graph;
mod params;
pub(super) mod tensorflow;

pub use graph::fast_wavenet;
pub(in crate::models) use params::FILE as PARAMS;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::heads::Head;

/// The architecture, as people call it.
pub(super) const NAME: &str = "WaveNet";

/// A WaveNet, up to its weights. The field names in JSON are those of the reference's `wavenet_params.json`; there is
/// one more for the classes, and `model`, which is `wavenet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "model", rename = "wavenet")]
pub struct WaveNet {
    /// Of each layer the samples from one tap to the next: 1, 2, 4 ... 512, five times by default.
    pub dilations: Vec<usize>,
    /// Taps of each layer's convolution (w), 2 by default.
    pub filter_width: usize,
    /// Taps of the first convolution where it reads amplitudes, 32 by default; else it has `filter_width` of them.
    pub initial_filter_width: usize,
    /// Channels from layer to layer (r), 32 by default.
    pub residual_channels: usize,
    /// Channels of what a layer adds to them, and of its gates (d), 32 by default.
    pub dilation_channels: usize,
    /// Channels of the sum of all layers (s), 512 by default.
    pub skip_channels: usize,
    /// Symbols that a sample is one of, by the mu-law (q), 256 by default.
    pub quantization_channels: usize,
    /// Samples of a second, 16,000 by default.
    pub sample_rate: u32,
    /// Whether the first convolution reads the amplitude of a sample, and not which symbol it is.
    pub scalar_input: bool,
    /// Whether all convolutions but the first have biases, as they have by default.
    pub use_biases: bool,
    /// Classes, such as speakers, of a model that is conditioned on them; 0 for one that is not.
    #[serde(rename = "gc_cardinality")]
    pub classes: usize,
}

/// The reference's own configuration: 50 layers, 1.51 million parameters.
impl Default for WaveNet {
    fn default() -> WaveNet {
        WaveNet {
            dilations: default_dilations(50),
            filter_width: 2,
            initial_filter_width: 32,
            residual_channels: 32,
            dilation_channels: 32,
            skip_channels: 512,
            quantization_channels: 256,
            sample_rate: 16_000,
            scalar_input: false,
            use_biases: true,
            classes: 0,
        }
    }
}

/// The refusal of a nonlinearity that is wanted.
pub(super) fn no_nonlinearity() -> Error {
    Error::refused("nonlinearity", "a WaveNet's are tanh and sigmoid: there is no choice")
}

/// The dilations of so many layers where nobody says otherwise: 1, 2, 4 ... 512, again and again.
fn default_dilations(layers: usize) -> Vec<usize> {
    (0..layers).map(|layer| 1 << (layer % 10)).collect()
}

/// The least and the largest of each number that is taken for a model rather than for damage.
const LIMITS: [(&str, usize, usize); 9] = [
    ("number of dilations", 1, 1_000),
    ("filter_width", 1, 100),
    ("initial_filter_width", 1, 10_000),
    ("residual_channels", 1, 10_000),
    ("dilation_channels", 1, 10_000),
    ("skip_channels", 1, 10_000),
    ("quantization_channels", 2, 1 << 16),
    ("sample_rate", 1, 10_000_000),
    ("gc_cardinality", 0, 1_000_000),
];

/// The most samples that a layer's first tap lies back.
const FARTHEST: usize = 1 << 20;

/// The most numbers in the terms of all classes, which a checkpoint has as products of small arrays.
const CLASS_TERMS: usize = 1 << 26;

impl WaveNet {
    /// What the logits of a sample mean.
    pub fn head(&self) -> Head {
        Head::Categorical { symbols: self.quantization_channels }
    }

    /// Taps of the first convolution.
    pub fn causal_width(&self) -> usize {
        if self.scalar_input { self.initial_filter_width } else { self.filter_width }
    }

    /// Samples that the distribution of one depends on.
    pub fn receptive_field(&self) -> usize {
        (self.filter_width - 1) * self.dilations.iter().sum::<usize>() + self.causal_width()
    }

    /// Refuses configurations out of all proportion, before anything is sized by them. `file` is where it is from.
    pub(crate) fn check_limits(&self, file: &Path) -> Result<()> {
        let refuse = |found: String, hint: String| Err(Error::Unsupported { file: file.into(), found, hint });
        let found = [
            self.dilations.len(),
            self.filter_width,
            self.initial_filter_width,
            self.residual_channels,
            self.dilation_channels,
            self.skip_channels,
            self.quantization_channels,
            self.sample_rate as usize,
            self.classes,
        ];
        for ((name, least, most), found) in LIMITS.into_iter().zip(found) {
            if !(least..=most).contains(&found) {
                return refuse(format!("{name} is {found}"), format!("{least} to {most} are supported"));
            }
        }
        let farthest = FARTHEST / (self.filter_width - 1).max(1);
        if let Some(dilation) = self.dilations.iter().find(|dilation| !(1..=farthest).contains(dilation)) {
            let hint = format!("1 to {farthest} are supported with filter_width {}", self.filter_width);
            return refuse(format!("a dilation is {dilation}"), hint);
        }
        let terms = self.classes * 2 * self.dilation_channels * self.dilations.len();
        if terms > CLASS_TERMS {
            let found =
                format!("gc_cardinality is {}, which makes {terms} numbers in all layers", self.classes);
            return refuse(found, format!("{CLASS_TERMS} are supported"));
        }
        Ok(())
    }

    /// The refusal of a file whose names, types or shapes are not this model's.
    pub(super) fn mismatch(&self, file: &Path, problems: Vec<String>) -> Error {
        Error::Mismatch { file: file.into(), model: NAME, expected: self.to_string(), problems }
    }
}

impl fmt::Display for WaveNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} layers of dilations up to {}, filter width {}, {}/{}/{} channels, {} symbols{}, {} classes, {} Hz{}",
            self.dilations.len(),
            self.dilations.iter().max().unwrap_or(&0),
            self.filter_width,
            self.residual_channels,
            self.dilation_channels,
            self.skip_channels,
            self.quantization_channels,
            if self.scalar_input { " read as amplitudes" } else { "" },
            self.classes,
            self.sample_rate,
            if self.use_biases { "" } else { ", no biases" },
        )
    }
}
