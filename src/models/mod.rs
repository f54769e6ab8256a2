//! One directory for each architecture, the only place that knows it: its graph, its parameters' names in each
//! trainer's files, its configuration from what a checkpoint holds.
//!
//! The idea: a model is a configuration and the graph that follows from it, and a checkpoint of it a recipe: what to
//! read for each array. Nobody above asks what kind it is.

mod config;
mod pixel_cnn_pp;
mod stored;
mod variables;
mod wave_net;

pub use config::ModelConfig;
pub use pixel_cnn_pp::{Nonlinearity, PixelCnnPp};
pub(crate) use stored::{Block, Named, Stored};
pub use wave_net::{WaveNet, fast_wavenet};

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Checkpoint, Format, Variable};
use crate::error::{Error, Result, list};
use pixel_cnn_pp::described::{self, Described};
use stored::ROOM;

/// Which weights are taken, where the source leaves a choice.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The raw weights instead of the averaged ones.
    pub raw: bool,
    /// The model's nonlinearity. `None`: as the directory says, or concat_elu where a checkpoint's
    /// channels double and else elu.
    pub nonlinearity: Option<Nonlinearity>,
    /// The scope in which a TensorFlow checkpoint's model was built, empty for none: the reference's is `model`;
    /// or the key under which a PyTorch file has it, as `state_dict`. `None`: the only one where there is a model.
    pub scope: Option<String>,
    /// The file with what a WaveNet's checkpoint does not tell, `wavenet_params.json`. `None`: the one beside the
    /// checkpoint, if there is one.
    pub params: Option<PathBuf>,
}

/// What to read of a checkpoint.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The model that is in it.
    pub(crate) config: ModelConfig,
    /// What the user should know, one sentence each.
    pub(crate) warnings: Vec<String>,
    /// Bytes that the arrays take by their shapes and types.
    pub(crate) claimed: u64,
    /// Whether every array is the average over training rather than its last value.
    pub(crate) averaged: bool,
    /// Whether the arrays are `W` and `b`, not `V`, `g` and `b`.
    pub(crate) folded: bool,
    /// By an array's name, as the graph has it.
    pub(crate) stored: HashMap<String, Stored>,
}

/// Finds the model in a checkpoint by the names, types and shapes of what it holds.
///
/// # Errors
/// [`Error::Mismatch`](crate::Error::Mismatch) with every missing, extra and mis-shaped array,
/// [`Error::Argument`](crate::Error::Argument) for options that do not fit, and refusals of what is out of all
/// proportion or more than one model.
pub(crate) fn recipe(checkpoint: &Checkpoint, options: &Options) -> Result<Recipe> {
    let (file, variables) = (checkpoint.path(), checkpoint.variables());
    let by_tensorflow = match checkpoint.format() {
        Format::V1 | Format::V2 => true,
        Format::PyTorch | Format::PyTorchLegacy => false,
        // Whoever wrote them: more of the names are one trainer's than the other's.
        Format::Safetensors | Format::Held => {
            let of_tensorflow = count(variables, None).into_iter().max();
            of_tensorflow > Some(pixel_cnn_pp::pytorch::count(variables))
        }
    };
    if !by_tensorflow {
        let described = checkpoint.beside(described::FILE);
        let described = described.map(|file| Described::read(&file)).transpose()?.unwrap_or_default();
        return pixel_cnn_pp::pytorch::recipe(file, variables, &described, options);
    }
    of_tensorflow(checkpoint, options)
}

/// How many names are of an array of a PixelCNN++ and of a WaveNet, in TensorFlow's words.
fn count(variables: &[Variable], wanted: Option<&str>) -> [usize; 2] {
    [pixel_cnn_pp::tensorflow::ARRAYS, wave_net::tensorflow::ARRAYS]
        .map(|arrays| variables::count(variables, arrays, wanted))
}

/// The model that more of the names are of: in the scope that is wanted, if it has any.
fn of_tensorflow(checkpoint: &Checkpoint, options: &Options) -> Result<Recipe> {
    let (file, variables) = (checkpoint.path(), checkpoint.variables());
    let count = |wanted: Option<&str>| count(variables, wanted);
    let within = options.scope.as_deref().map(|scope| count(Some(scope))).filter(|counts| *counts != [0, 0]);
    match within.unwrap_or_else(|| count(None)) {
        [0, 0] => Err(unknown(file, variables)),
        [pixels, samples] if samples > pixels => {
            let params = options.params.clone().or_else(|| checkpoint.beside(wave_net::PARAMS));
            wave_net::tensorflow::recipe(file, variables, &Options { params, ..options.clone() })
        }
        _ => pixel_cnn_pp::tensorflow::recipe(file, variables, options),
    }
}

/// The refusal of variables among which there are none of a model that is known.
fn unknown(file: &Path, variables: &[Variable]) -> Error {
    let names: Vec<_> = variables.iter().map(|v| v.name.as_str()).collect();
    let found = format!("{} variables of other names: {}", names.len(), list(&names, ", ", ROOM));
    let expected = "variables named model/conv2d_0/V, or wavenet/causal_layer/filter, and so on".into();
    Error::Mismatch { file: file.into(), model: "PixelCNN++ or WaveNet", expected, problems: vec![found] }
}

/// What a model that is not in a checkpoint was taken for, and every difference from it.
#[cfg(test)]
fn mismatch(found: Result<Recipe>) -> (String, Vec<String>) {
    match found.err() {
        Some(crate::Error::Mismatch { expected, problems, .. }) => (expected, problems),
        other => panic!("expected a mismatch, got {other:?}"),
    }
}
