//! A model, up to its weights: one of the architectures with its numbers.
//!
//! The idea: whoever loads, converts or runs a model asks for its graph and for words about it; which architecture
//! it is matters only to those who look into it.

use std::fmt;
use std::path::Path;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::pixel_cnn_pp::{Nonlinearity, PixelCnnPp};
use super::wave_net::{self, WaveNet};
use crate::error::{Error, Result};
use crate::graph::Graph;

/// The configuration of a model. In JSON it is that of its architecture, which the field `model` names; a PixelCNN++'s
/// has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum ModelConfig {
    /// Images, pixel by pixel.
    PixelCnnPp(PixelCnnPp),
    /// Sounds, sample by sample.
    WaveNet(WaveNet),
}

impl ModelConfig {
    /// The network that the configuration describes.
    ///
    /// # Panics
    /// If a number of the configuration other than the classes is 0.
    pub fn graph(&self) -> Graph {
        match self {
            ModelConfig::PixelCnnPp(config) => config.graph(),
            ModelConfig::WaveNet(config) => config.graph(),
        }
    }

    /// Samples of a second, where the model's images are sounds: one column of samples each.
    pub fn sample_rate(&self) -> Option<u32> {
        match self {
            ModelConfig::PixelCnnPp(_) => None,
            ModelConfig::WaveNet(config) => Some(config.sample_rate),
        }
    }

    /// The refusal of a file whose names, types or shapes are not this model's.
    pub(crate) fn mismatch(&self, file: &Path, problems: Vec<String>) -> Error {
        match self {
            ModelConfig::PixelCnnPp(config) => config.mismatch(file, problems),
            ModelConfig::WaveNet(config) => config.mismatch(file, problems),
        }
    }

    /// Refuses configurations out of all proportion, before anything is sized by them. `file` is where it is from.
    pub(crate) fn check_limits(&self, file: &Path) -> Result<()> {
        match self {
            ModelConfig::PixelCnnPp(config) => config.check_limits(file),
            ModelConfig::WaveNet(config) => config.check_limits(file),
        }
    }

    /// The model with the nonlinearity that is wanted, if it has a choice of them and its width fits.
    pub(crate) fn with_nonlinearity(self, wanted: Option<Nonlinearity>) -> Result<ModelConfig> {
        match self {
            ModelConfig::PixelCnnPp(config) => Ok(config.with_nonlinearity(wanted)?.into()),
            ModelConfig::WaveNet(_) if wanted.is_some() => Err(wave_net::no_nonlinearity()),
            ModelConfig::WaveNet(config) => Ok(config.into()),
        }
    }
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<ModelConfig, D::Error> {
        let value = Value::deserialize(source)?;
        let config = match value.get("model").map(Value::as_str) {
            None => PixelCnnPp::deserialize(value).map(ModelConfig::PixelCnnPp),
            Some(Some("wavenet")) => WaveNet::deserialize(value).map(ModelConfig::WaveNet),
            Some(_) => {
                let found = &value["model"];
                Err(D::Error::custom(format!("model: expected \"wavenet\" or none, found {found}")))?
            }
        };
        config.map_err(D::Error::custom)
    }
}

impl From<PixelCnnPp> for ModelConfig {
    fn from(config: PixelCnnPp) -> ModelConfig {
        ModelConfig::PixelCnnPp(config)
    }
}

impl From<WaveNet> for ModelConfig {
    fn from(config: WaveNet) -> ModelConfig {
        ModelConfig::WaveNet(config)
    }
}

impl fmt::Display for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelConfig::PixelCnnPp(config) => config.fmt(f),
            ModelConfig::WaveNet(config) => config.fmt(f),
        }
    }
}
