//! PixelCNN++, and the numbers that tell one from another.
//!
//! The idea: everything else (layers, names, shapes, work) follows from the numbers in [`PixelCnnPp::graph`]; the
//! image size is not among them, since the network is convolutional. What a trainer's checkpoint says of them is
//! guessed by votes, in `tensorflow` and `pytorch`, and then compared with the graph, and with what is `described` beside it.

pub(super) mod described;
mod graph;
mod names;
pub(super) mod pytorch;
pub(super) mod tensorflow;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::Activation;
use crate::heads::Head;
use crate::models::Options;

/// The activation between the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nonlinearity {
    /// `elu(concat(x, -x))` on the channels, which doubles them.
    ConcatElu,
    /// `x` where positive, else `exp(x) - 1`.
    Elu,
    /// `max(x, 0)`.
    Relu,
}

impl Nonlinearity {
    /// All of them.
    pub const ALL: [Nonlinearity; 3] = [Nonlinearity::ConcatElu, Nonlinearity::Elu, Nonlinearity::Relu];

    /// As the user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Nonlinearity::ConcatElu => "concat_elu",
            Nonlinearity::Elu => "elu",
            Nonlinearity::Relu => "relu",
        }
    }

    /// The activation that it is.
    pub fn activation(self) -> Activation {
        match self {
            Nonlinearity::ConcatElu => Activation::ConcatElu,
            Nonlinearity::Elu => Activation::Elu,
            Nonlinearity::Relu => Activation::Relu,
        }
    }

    /// How many channels one channel becomes.
    pub fn width(self) -> usize {
        self.activation().copies()
    }
}

impl std::fmt::Display for Nonlinearity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The architecture, as people call it.
pub(super) const NAME: &str = "PixelCNN++";

/// What is said where nothing tells elu from relu.
const ELU_ASSUMED: &str =
    "elu and relu models have the same shapes: elu is assumed, as no nonlinearity was named";

/// Refuses a description that only the checkpoints of another architecture need.
fn refuse_params(options: &Options) -> Result<()> {
    match options.params {
        Some(_) => {
            Err(Error::refused("params", "for a WaveNet: this is a PixelCNN++, whose shapes tell everything"))
        }
        None => Ok(()),
    }
}

fn three() -> usize {
    3
}

fn is_three(channels: &usize) -> bool {
    *channels == 3
}

/// A PixelCNN++, up to its weights. The field names in JSON are those of the reference code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelCnnPp {
    /// Gated resnets per stage (R), 5 in the paper.
    #[serde(rename = "nr_resnet")]
    pub resnets: usize,
    /// Channels of every hidden layer (n), 160 in the paper.
    #[serde(rename = "nr_filters")]
    pub filters: usize,
    /// Logistics in the mixture (m), 10 in the paper.
    #[serde(rename = "nr_logistic_mix")]
    pub mixtures: usize,
    /// Channels of an image: 3, or 1 for gray images. Left out of JSON where it is 3, which is what OpenAI's code
    /// has and has no name for.
    #[serde(rename = "nr_channels", default = "three", skip_serializing_if = "is_three")]
    pub channels: usize,
    /// Classes of a class-conditional model (K); 0 for an unconditional one.
    #[serde(rename = "num_classes")]
    pub classes: usize,
    /// The activation between the layers, concat_elu in the paper.
    pub nonlinearity: Nonlinearity,
}

impl PixelCnnPp {
    /// The model of the paper and of the released CIFAR-10 checkpoint: 53.7 million parameters.
    pub const PAPER: PixelCnnPp = PixelCnnPp {
        resnets: 5,
        filters: 160,
        mixtures: 10,
        channels: 3,
        classes: 0,
        nonlinearity: Nonlinearity::ConcatElu,
    };

    /// What the logits of a pixel mean.
    pub fn head(&self) -> Head {
        Head::MixtureOfLogistics { mixtures: self.mixtures, channels: self.channels }
    }

    /// Channels of the network's input: the image's and a constant 1.
    pub fn image_channels(&self) -> usize {
        self.head().values() + 1
    }

    /// Refuses configurations out of all proportion, before anything is sized by them. `file` is where it is from.
    pub(crate) fn check_limits(&self, file: &Path) -> Result<()> {
        let found = [self.resnets, self.filters, self.mixtures, self.classes];
        for ((name, limit), found) in LIMITS.into_iter().zip(found) {
            let least = usize::from(name != "num_classes");
            if !(least..=limit).contains(&found) {
                return Err(Error::Unsupported {
                    file: file.into(),
                    found: format!("{name} is {found}"),
                    hint: format!("{least} to {limit} are supported"),
                });
            }
        }
        Ok(())
    }

    /// The refusal of a file whose names, types or shapes are not this model's.
    pub(super) fn mismatch(&self, file: &Path, problems: Vec<String>) -> Error {
        Error::Mismatch { file: file.into(), model: NAME, expected: self.to_string(), problems }
    }

    /// The model with the nonlinearity that is wanted, if its width fits.
    pub(crate) fn with_nonlinearity(self, wanted: Option<Nonlinearity>) -> Result<PixelCnnPp> {
        let nonlinearity = wanted.unwrap_or(self.nonlinearity);
        if nonlinearity.width() != self.nonlinearity.width() {
            let expected = match self.nonlinearity.width() {
                2 => "concat_elu, since the model's channels double",
                _ => "elu or relu, since the model's channels do not double",
            };
            return Err(Error::argument("nonlinearity", expected, nonlinearity));
        }
        Ok(PixelCnnPp { nonlinearity, ..self })
    }
}

/// The largest of each number that is taken for a model rather than for damage.
const LIMITS: [(&str, usize); 4] =
    [("nr_resnet", 100), ("nr_filters", 10_000), ("nr_logistic_mix", 1_000), ("num_classes", 1_000_000)];

impl std::fmt::Display for PixelCnnPp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} resnets, {} filters, {} mixtures, {} classes, {}{}",
            self.resnets,
            self.filters,
            self.mixtures,
            self.classes,
            self.nonlinearity,
            if self.channels == 1 { ", gray" } else { "" }
        )
    }
}
