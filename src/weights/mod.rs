//! The weights of a model: named tensors, where they come from, and what engines make of them.
//!
//! The idea: whatever the source (a converted folder, a trainer's checkpoint, a seed), the same
//! tensors come out, complete and checked against [`Graph::parameters`]: names and shapes when a source
//! is opened, checksums and numbers (finite, no kernel of norm zero) when a variable is asked for. So an
//! engine that asks for each variable once never has the model twice in memory. Engines never check.

mod fold;
mod folder;
mod infer;
mod infer_torch;
mod names;
mod plan;
mod synthetic;

pub use fold::Folded;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Format};
use crate::error::{Error, Result};
use crate::graph::{Graph, Parameter, ParameterKind};
use crate::models::{ModelConfig, Nonlinearity};
use plan::Plan;

/// Which weights are taken, where the source leaves a choice.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The raw weights instead of the averaged ones.
    pub raw: bool,
    /// The model's nonlinearity. `None`: as the folder says, or concat_elu where a checkpoint's
    /// channels double and else elu.
    pub nonlinearity: Option<Nonlinearity>,
    /// The scope in which a TensorFlow checkpoint's model was built, empty for none: the reference's is `model`;
    /// or the key under which a PyTorch file has it, as `state_dict`. `None`: the only one where there is a model.
    pub scope: Option<String>,
}

/// Where weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The format of the checkpoint; `None` for synthetic weights.
    pub format: Option<Format>,
    /// Whether every tensor is the average over training rather than its last value.
    pub averaged: bool,
    /// Whether weight normalisation is folded already, as it is where PyTorch's is another than the reference's:
    /// tensors are `W` and `b` then, not `V`, `g` and `b`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folded: bool,
}

/// The weights of one model: for each parameter of its [`Graph`] the tensors `V`, `g` and `b` (`W` and `b` where
/// [`Source::folded`]), or `hw`. Those of a folder or a checkpoint are read each time they are asked for.
#[derive(Debug)]
pub struct Weights {
    /// `None` for a graph that was made by hand.
    config: Option<ModelConfig>,
    graph: Graph,
    source: Source,
    warnings: Vec<String>,
    values: Values,
}

/// Where the values of the tensors are.
#[derive(Debug)]
enum Values {
    /// In memory, by name.
    Held(HashMap<String, Vec<f32>>),
    /// In a folder.
    Folder(folder::Reader),
    /// In a checkpoint, which seeks and so serves one thread at a time.
    Checkpoint(Box<Mutex<Checkpoint>>, Plan),
}

/// What [`convert`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// The configuration found.
    pub config: ModelConfig,
    /// Which weights were taken.
    pub source: Source,
    /// Numbers written.
    pub parameters: usize,
    /// What the user should know, one sentence each.
    pub warnings: Vec<String>,
}

impl Weights {
    /// Opens a folder written by [`convert`] or [`Weights::save`], or a trainer's checkpoint. Values are
    /// read and checked when they are asked for: see [`Weights::tensor`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a path that is neither, [`Error::Mismatch`] with every missing, extra
    /// and mis-shaped tensor, [`Error::Malformed`] for broken descriptions and lengths,
    /// [`Error::Argument`] for options that do not fit.
    pub fn load(path: &Path, options: &Options) -> Result<Weights> {
        if path.join(folder::MANIFEST).exists() {
            return folder::load(path, options);
        }
        let (mut checkpoint, mut plan) = open_checkpoint(path, options)?;
        let graph = plan.config.graph();
        if plan.claimed > checkpoint.length() {
            // Some tensor is not what the list says. Found here, before an engine makes room for all.
            for (variable, name, shape) in tensors_of(&graph, plan.folded) {
                plan.read(&mut checkpoint, &variable, &name, &shape)?;
            }
        }
        let source = plan.source(checkpoint.format());
        let (config, warnings) = (plan.config, std::mem::take(&mut plan.warnings));
        let values = Values::Checkpoint(Box::new(Mutex::new(checkpoint)), plan);
        Ok(Weights { config: Some(config), graph, source, warnings, values })
    }

    /// Random weights that keep activations near unit variance. The same seed makes the same weights
    /// on every machine.
    ///
    /// # Panics
    /// If a number of the configuration other than the classes is 0.
    pub fn synthetic(config: ModelConfig, seed: u64) -> Weights {
        Weights { config: Some(config), ..Weights::synthetic_for(config.graph(), seed) }
    }

    /// Random weights for a graph.
    pub fn synthetic_for(graph: Graph, seed: u64) -> Weights {
        let values = Values::Held(synthetic::tensors(&graph, seed));
        let source = Source { format: None, averaged: false, folded: false };
        Weights { config: None, graph, source, warnings: Vec::new(), values }
    }

    /// Writes the weights as a folder that [`Weights::load`] reads. The folder appears whole or not at
    /// all.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if `folder` exists and is not empty, [`Error::Io`] if it cannot be written;
    /// as for [`Weights::tensor`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        let write = folder::Writer::create(folder)?;
        write.finish(*self.config(), self.source, |variable, name, shape| self.read(variable, name, shape))
    }

    /// The model's configuration.
    ///
    /// # Panics
    /// If the weights are those of a graph that was made by hand.
    pub fn config(&self) -> &ModelConfig {
        self.config.as_ref().expect("a model has a configuration")
    }

    /// The network that the weights are for.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Where the weights come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What the user should know about the choice of weights, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A tensor's values in C order; names and shapes are those of [`Parameter::tensors`], or, where
    /// [`Source::folded`], `W` in the shape of `V`, and `b`.
    ///
    /// # Errors
    /// [`Error::Io`] if the tensor cannot be read, [`Error::Malformed`] for broken files, wrong hashes,
    /// numbers that are not finite and kernels of norm zero. Weights in memory have none of these.
    ///
    /// # Panics
    /// If the model has no tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<Cow<'_, [f32]>> {
        let found = tensors_of(&self.graph, self.source.folded).find(|(_, n, _)| n == name);
        let (variable, name, shape) = found.unwrap_or_else(|| panic!("no tensor {name} in this model"));
        self.read(&variable, &name, &shape)
    }

    /// Kernel and bias of a convolution, transposed convolution or dense layer, without weight
    /// normalisation: `g / ||V||` is multiplied in.
    ///
    /// # Errors
    /// As for [`Weights::tensor`]; of several tensors that are wrong the first is reported.
    ///
    /// # Panics
    /// If `variable` is not of this model or is a class term.
    pub fn fold(&self, variable: &Parameter) -> Result<Folded> {
        let read = |(name, shape): &(String, Vec<usize>)| self.read(variable, name, shape);
        match &tensors(variable, self.source.folded)[..] {
            [v, g, b] => {
                let (v, g, b) = (read(v)?, read(g)?, read(b)?);
                Ok(fold::fold(variable, v.into_owned(), &g, b.into_owned()))
            }
            [w, b] => Ok(fold::ordered(variable, read(w)?.into_owned(), read(b)?.into_owned())),
            _ => panic!("{} is a class term", variable.name),
        }
    }

    /// The class term of a resnet, `hw`: `[classes, outputs]`.
    ///
    /// # Errors
    /// As for [`Weights::tensor`].
    ///
    /// # Panics
    /// If `variable` is not a class term of this model.
    pub fn class_term(&self, variable: &Parameter) -> Result<Cow<'_, [f32]>> {
        let [(name, shape)] = &variable.tensors()[..] else { panic!("{} is no class term", variable.name) };
        self.read(variable, name, shape)
    }

    /// Reads a tensor from its source and checks it.
    fn read(&self, variable: &Parameter, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        match &self.values {
            Values::Held(tensors) => {
                let values = tensors.get(name);
                let values = values.unwrap_or_else(|| panic!("no tensor {name} in this model"));
                Ok(Cow::Borrowed(values))
            }
            Values::Folder(reader) => reader.read(variable, name, shape).map(Cow::Owned),
            Values::Checkpoint(checkpoint, plan) => {
                // Each reading seeks first: what another thread left behind does not matter.
                let mut checkpoint = checkpoint.lock().unwrap_or_else(|e| e.into_inner());
                plan.read(&mut checkpoint, variable, name, shape).map(Cow::Owned)
            }
        }
    }
}

/// Writes the weights of a trainer's checkpoint as a folder that [`Weights::load`] reads, one tensor in
/// memory at a time. The folder appears whole or not at all. `watch` is called before each tensor with
/// the number of tensors written; `false` stops the conversion.
///
/// # Errors
/// As for [`Weights::load`] and [`Weights::save`]; [`Error::Interrupted`] if `watch` says so.
pub fn convert(
    checkpoint: &Path,
    folder: &Path,
    options: &Options,
    watch: &dyn Fn(usize) -> bool,
) -> Result<Conversion> {
    if checkpoint.join(folder::MANIFEST).exists() {
        return Err(Error::Unsupported {
            file: checkpoint.into(),
            found: "a folder of weights that are converted already".into(),
            hint: "give a checkpoint".into(),
        });
    }
    // First, so that an occupied folder is refused before a large file is read.
    let writer = folder::Writer::create(folder)?;
    let (mut checkpoint, plan) = open_checkpoint(checkpoint, options)?;
    let source = plan.source(checkpoint.format());
    let (mut written, mut parameters) = (0, 0);
    writer.finish(plan.config, source, |variable, name, shape| {
        if !watch(written) {
            return Err(Error::Interrupted);
        }
        let values = plan.read(&mut checkpoint, variable, name, shape)?;
        written += 1;
        parameters += values.len();
        Ok(Cow::Owned(values))
    })?;
    Ok(Conversion { config: plan.config, source, parameters, warnings: plan.warnings })
}

/// Opens a checkpoint and plans what to read of it; where there is nothing, says what would be accepted.
fn open_checkpoint(path: &Path, options: &Options) -> Result<(Checkpoint, Plan)> {
    let checkpoint = match Checkpoint::open(path) {
        Err(Error::Io { file, source, .. }) if file == path && source.kind() == ErrorKind::NotFound => {
            return Err(Error::Unsupported {
                file: path.into(),
                found: "no such file, folder or checkpoint prefix".into(),
                hint:
                    "give a folder made by convert (model.json and one .npy for each tensor) or a checkpoint (a file of \
                       PyTorch, safetensors or TensorFlow V1, or PREFIX for PREFIX.index or PREFIX-00000-of-00002)"
                        .into(),
            });
        }
        result => result?,
    };
    let infer = match checkpoint.format() {
        Format::V1 | Format::V2 => infer::plan,
        Format::PyTorch | Format::PyTorchLegacy | Format::Safetensors => infer_torch::plan,
    };
    let mut plan = infer(checkpoint.path(), checkpoint.variables(), options)?;
    if checkpoint.path() != path {
        plan.warnings.insert(0, format!("{}: {} is taken", path.display(), checkpoint.path().display()));
    }
    Ok((checkpoint, plan))
}

/// The tensors of a variable by name and shape: those of [`Parameter::tensors`], or `W` for `V` and `g`.
fn tensors(variable: &Parameter, folded: bool) -> Vec<(String, Vec<usize>)> {
    let mut tensors = variable.tensors();
    if folded && variable.kind != ParameterKind::PerClass {
        tensors.remove(1);
        tensors[0].0 = format!("{}/W", variable.name);
    }
    tensors
}

/// Every tensor of a network with its variable, name and shape.
fn tensors_of(graph: &Graph, folded: bool) -> impl Iterator<Item = (Parameter, String, Vec<usize>)> {
    let of = move |v: &Parameter| -> Vec<_> {
        tensors(v, folded).into_iter().map(|(name, shape)| (v.clone(), name, shape)).collect()
    };
    graph.parameters.iter().flat_map(of)
}

/// The largest of each number that is taken for a model rather than for damage.
const LIMITS: [(&str, usize); 4] =
    [("nr_resnet", 100), ("nr_filters", 10_000), ("nr_logistic_mix", 1_000), ("num_classes", 1_000_000)];

/// Refuses configurations out of all proportion, before anything is sized by them.
fn check_limits(file: &Path, config: &ModelConfig) -> Result<()> {
    let found = [config.resnets, config.filters, config.mixtures, config.classes];
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

/// Takes the nonlinearity that was asked for if its width fits the model's.
fn choose_nonlinearity(found: Nonlinearity, wanted: Option<Nonlinearity>) -> Result<Nonlinearity> {
    let Some(wanted) = wanted else { return Ok(found) };
    if wanted.width() != found.width() {
        let expected = match found.width() {
            2 => "concat_elu, since the model's channels double",
            _ => "elu or relu, since the model's channels do not double",
        };
        return Err(Error::argument("nonlinearity", expected, wanted.to_string()));
    }
    Ok(wanted)
}
