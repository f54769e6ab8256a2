//! A model, up to its weights: one of the architectures with its numbers.
//!
//! The idea: whoever loads, converts or runs a model asks for its graph and for words about it; which architecture
//! it is matters only to those who look into it.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use super::pixel_cnn_pp::{Nonlinearity, PixelCnnPp};
use crate::error::{Error, Result};
use crate::graph::Graph;

/// The configuration of a model. In JSON it is that of its architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum ModelConfig {
    /// Images, pixel by pixel.
    PixelCnnPp(PixelCnnPp),
}

impl ModelConfig {
    /// The network that the configuration describes.
    ///
    /// # Panics
    /// If a number of the configuration other than the classes is 0.
    pub fn graph(&self) -> Graph {
        match self {
            ModelConfig::PixelCnnPp(config) => config.graph(),
        }
    }

    /// The refusal of a file whose names, types or shapes are not this model's.
    pub(crate) fn mismatch(&self, file: &Path, problems: Vec<String>) -> Error {
        match self {
            ModelConfig::PixelCnnPp(config) => config.mismatch(file, problems),
        }
    }

    /// Refuses configurations out of all proportion, before anything is sized by them. `file` is where it is from.
    pub(crate) fn check_limits(&self, file: &Path) -> Result<()> {
        match self {
            ModelConfig::PixelCnnPp(config) => config.check_limits(file),
        }
    }

    /// The model with the nonlinearity that is wanted, if it has a choice of them and its width fits.
    pub(crate) fn with_nonlinearity(self, wanted: Option<Nonlinearity>) -> Result<ModelConfig> {
        match self {
            ModelConfig::PixelCnnPp(config) => Ok(config.with_nonlinearity(wanted)?.into()),
        }
    }
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<ModelConfig, D::Error> {
        Ok(ModelConfig::PixelCnnPp(PixelCnnPp::deserialize(source)?))
    }
}

impl From<PixelCnnPp> for ModelConfig {
    fn from(config: PixelCnnPp) -> ModelConfig {
        ModelConfig::PixelCnnPp(config)
    }
}

impl fmt::Display for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelConfig::PixelCnnPp(config) => config.fmt(f),
        }
    }
}
