//! The weights of a graph: named arrays, where they come from, and what engines make of them.
//!
//! The idea: whatever the source (a converted directory, a trainer's checkpoint, a seed), the same
//! arrays come out, complete and checked against [`Graph::parameters`]: names and shapes when a source
//! is opened, checksums and numbers (finite, no kernel of norm zero) when a parameter is asked for. So an
//! engine that asks for each parameter once never has the model twice in memory. Engines never check.

mod directory;
mod fold;
mod read;
mod synthetic;

pub use crate::models::Options;
pub use fold::Folded;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoint, Format, Held};
use crate::error::{Error, Result};
use crate::graph::{Graph, Parameter, ParameterKind};
use crate::models::{self, ModelConfig, Recipe};
use read::read;

/// Where weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The format of the checkpoint; `None` for synthetic weights.
    pub format: Option<Format>,
    /// Whether every array is the average over training rather than its last value.
    pub averaged: bool,
    /// Whether weight normalisation is folded already, as it is where PyTorch's is another than the reference's:
    /// arrays are `W` and `b` then, not `V`, `g` and `b`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folded: bool,
}

/// The weights of one model: for each parameter of its [`Graph`] the arrays `V`, `g` and `b` (`W` and `b` where
/// [`Source::folded`]), or `hw`. Those of a directory or a checkpoint are read each time they are asked for.
#[derive(Debug)]
pub struct Weights {
    /// `None` for a graph that was made by hand.
    config: Option<ModelConfig>,
    graph: Graph,
    source: Source,
    warnings: Vec<String>,
    values: Values,
}

/// Where the values of the arrays are.
#[derive(Debug)]
enum Values {
    /// In memory, by name.
    Held(HashMap<String, Vec<f32>>),
    /// In a directory.
    Directory(directory::Reader),
    /// In a checkpoint, which seeks and so serves one thread at a time.
    Checkpoint(Box<Mutex<Checkpoint>>, Recipe),
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
    /// Opens a directory written by [`convert`] or [`Weights::save`], or a trainer's checkpoint, with the default
    /// [`Options`]: its averaged weights where it has them. Values are read and checked when they are asked for: see
    /// [`Weights::array`].
    ///
    /// # Errors
    /// As for [`Weights::load_with`].
    pub fn load(path: impl AsRef<Path>) -> Result<Weights> {
        Weights::load_with(path, &Options::default())
    }

    /// [`Weights::load`], with a choice of the weights that are taken.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a path that is neither, [`Error::Mismatch`] with every missing, extra
    /// and mis-shaped array, [`Error::Malformed`] for broken descriptions and lengths,
    /// [`Error::Argument`] for options that do not fit.
    pub fn load_with(path: impl AsRef<Path>, options: &Options) -> Result<Weights> {
        let path = path.as_ref();
        if path.join(directory::MANIFEST).exists() {
            return directory::load(path, options);
        }
        let (checkpoint, recipe) = open_checkpoint(path, options)?;
        Weights::of_checkpoint(checkpoint, recipe)
    }

    /// The weights of a model whose arrays are in memory, named as a trainer's checkpoint has them: a dictionary of
    /// PyTorch's, or what a TensorFlow session has.
    ///
    /// # Errors
    /// [`Error::Argument`] for arrays that contradict themselves, and as for [`Weights::load_with`].
    pub fn from_held(arrays: Vec<Held>, options: &Options) -> Result<Weights> {
        let checkpoint = Checkpoint::held(arrays)?;
        let recipe = models::recipe(&checkpoint, options)?;
        Weights::of_checkpoint(checkpoint, recipe)
    }

    fn of_checkpoint(mut checkpoint: Checkpoint, mut recipe: Recipe) -> Result<Weights> {
        let graph = recipe.config.graph();
        if recipe.claimed > checkpoint.length() {
            // Some array is not what the list says. Found here, before an engine makes room for all.
            for (parameter, name, shape) in graph.arrays(recipe.folded) {
                read(&mut checkpoint, &recipe.stored[&name], parameter, &shape)?;
            }
        }
        let source = source(&checkpoint, &recipe);
        let (config, warnings) = (recipe.config.clone(), std::mem::take(&mut recipe.warnings));
        let values = Values::Checkpoint(Box::new(Mutex::new(checkpoint)), recipe);
        Ok(Weights { config: Some(config), graph, source, warnings, values })
    }

    /// Random weights that keep activations near unit variance. The same seed makes the same weights
    /// on every machine.
    ///
    /// # Panics
    /// If a number of the configuration other than the classes is 0.
    pub fn synthetic(config: impl Into<ModelConfig>, seed: u64) -> Weights {
        let config = config.into();
        let graph = config.graph();
        Weights { config: Some(config), ..Weights::synthetic_for(graph, seed) }
    }

    /// Random weights for a graph.
    pub fn synthetic_for(graph: Graph, seed: u64) -> Weights {
        let values = Values::Held(synthetic::arrays(&graph, seed));
        let source = Source { format: None, averaged: false, folded: false };
        Weights { config: None, graph, source, warnings: Vec::new(), values }
    }

    /// Trained weights for a graph: for each parameter the arrays that it consists of ([`Parameter::arrays`]), by
    /// name, in C order; `folded`: `W` and `b` rather than `V`, `g` and `b`.
    ///
    /// # Errors
    /// [`Error::Argument`] for an array that is missing or that no parameter has, [`Error::Malformed`] for one of the
    /// wrong length or with a number that is not finite.
    pub fn from_arrays(graph: Graph, mut arrays: HashMap<String, Vec<f32>>, folded: bool) -> Result<Weights> {
        let mut held = HashMap::new();
        for (parameter, name, shape) in graph.arrays(folded) {
            let Some(values) = arrays.remove(&name) else {
                return Err(Error::argument("arrays", format!("{name} {shape:?}"), "none of that name"));
            };
            match folded {
                true => fold::check_finite(Path::new("arrays"), &name, &shape, &values)?,
                false => fold::check_values(Path::new("arrays"), &name, parameter, &shape, &values)?,
            }
            held.insert(name, values);
        }
        if let Some(name) = arrays.keys().min() {
            return Err(Error::argument(
                "arrays",
                "those of the graph's parameters",
                format!("{name} beside them"),
            ));
        }
        let source = Source { format: None, averaged: false, folded };
        Ok(Weights { config: None, graph, source, warnings: Vec::new(), values: Values::Held(held) })
    }

    /// Writes the weights as a directory that [`Weights::load`] reads. The directory appears whole or not at
    /// all.
    ///
    /// # Errors
    /// [`Error::Argument`] for those of a graph that was made by hand, which a directory could not tell;
    /// [`Error::Unsupported`] if `directory` exists and is not empty, [`Error::Io`] if it cannot be written;
    /// as for [`Weights::array`].
    pub fn save(&self, directory: &Path) -> Result<()> {
        let Some(config) = &self.config else {
            let reason =
                "a directory tells a model by its configuration, and a graph that was made by hand has none";
            return Err(Error::refused("weights", reason));
        };
        let write = directory::Writer::create(directory)?;
        write.finish(config, self.source, |parameter, name, shape| self.read(parameter, name, shape))
    }

    /// The model's configuration; `None` if the weights are those of a graph that was made by hand.
    pub fn config(&self) -> Option<&ModelConfig> {
        self.config.as_ref()
    }

    /// The network that the weights are for.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Where the weights come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What tells these weights from all others: a SHA-256, in hexadecimal, over the configuration and over each array's
    /// name and own SHA-256, in the graph's order. An array's own is that of its `.npy` file. So a checkpoint and the
    /// directory that [`convert`] made of it have the same; of a directory no array is read for it, of a checkpoint
    /// all are.
    ///
    /// # Errors
    /// As for [`Weights::array`].
    pub fn sha256(&self) -> Result<String> {
        let config = serde_json::to_string(&self.config).expect("names and numbers");
        let mut hash = Sha256::new_with_prefix(config);
        for (parameter, name, shape) in self.graph.arrays(self.source.folded) {
            let own = match &self.values {
                Values::Directory(reader) => reader.sha256(&name),
                _ => directory::sha256(&shape, &self.read(parameter, &name, &shape)?),
            };
            hash.update(format!("\n{name} {own}"));
        }
        Ok(directory::hex(&hash.finalize()))
    }

    /// What the user should know about the choice of weights, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// An array's values in C order; names and shapes are those of [`Parameter::arrays`], as the source has them
    /// ([`Source::folded`]).
    ///
    /// # Errors
    /// [`Error::Io`] if the array cannot be read, [`Error::Malformed`] for broken files, wrong hashes,
    /// numbers that are not finite and kernels of norm zero. Weights in memory have none of these.
    ///
    /// # Panics
    /// If the model has no array of that name.
    pub fn array(&self, name: &str) -> Result<Cow<'_, [f32]>> {
        let found = self.graph.arrays(self.source.folded).find(|(_, n, _)| n == name);
        let (parameter, name, shape) = found.unwrap_or_else(|| panic!("no array {name} in this model"));
        self.read(parameter, &name, &shape)
    }

    /// Kernel and bias of a convolution, transposed convolution or dense layer, without weight
    /// normalisation: `g / ||V||` is multiplied in.
    ///
    /// # Errors
    /// As for [`Weights::array`]; of several arrays that are wrong the first is reported.
    ///
    /// # Panics
    /// If `parameter` is not of this model or is a class term.
    pub fn fold(&self, parameter: &Parameter) -> Result<Folded> {
        assert_ne!(parameter.kind, ParameterKind::PerClass, "{} is a class term", parameter.name);
        let arrays = parameter.arrays(self.source.folded);
        let mut arrays = arrays.iter().map(|(name, shape)| self.read(parameter, name, shape));
        let mut next = || {
            arrays.next().expect("a parameter's arrays: a kernel, its gain, its bias").map(Cow::into_owned)
        };
        let kernel = next()?;
        let gain = (!self.source.folded).then(&mut next).transpose()?;
        let bias = if parameter.bias { next()? } else { vec![0.0; parameter.outputs] };
        Ok(match gain {
            Some(gain) => fold::fold(parameter, kernel, &gain, bias),
            None => fold::ordered(parameter, kernel, bias),
        })
    }

    /// The class term, `hw`: `[classes, outputs]`.
    ///
    /// # Errors
    /// As for [`Weights::array`].
    ///
    /// # Panics
    /// If `parameter` is not a class term of this model.
    pub fn class_term(&self, parameter: &Parameter) -> Result<Cow<'_, [f32]>> {
        let [(name, shape)] = &parameter.arrays(self.source.folded)[..] else {
            panic!("{} is no class term", parameter.name)
        };
        self.read(parameter, name, shape)
    }

    /// Reads an array from its source and checks it.
    fn read(&self, parameter: &Parameter, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        match &self.values {
            Values::Held(arrays) => {
                let values = arrays.get(name);
                let values = values.unwrap_or_else(|| panic!("no array {name} in this model"));
                Ok(Cow::Borrowed(values))
            }
            Values::Directory(reader) => reader.read(parameter, name, shape).map(Cow::Owned),
            Values::Checkpoint(checkpoint, recipe) => {
                // Each reading seeks first: what another thread left behind does not matter.
                let mut checkpoint = checkpoint.lock().unwrap_or_else(|e| e.into_inner());
                read(&mut checkpoint, &recipe.stored[name], parameter, shape).map(Cow::Owned)
            }
        }
    }
}

/// Writes the weights of a trainer's checkpoint as a directory that [`Weights::load`] reads, one array in
/// memory at a time. The directory appears whole or not at all. `watch` is called before each array with
/// the number of arrays written; `false` stops the conversion.
///
/// # Errors
/// As for [`Weights::load`] and [`Weights::save`]; [`Error::Interrupted`] if `watch` says so.
pub fn convert(
    checkpoint: &Path,
    directory: &Path,
    options: &Options,
    watch: &dyn Fn(usize) -> bool,
) -> Result<Conversion> {
    if checkpoint.join(directory::MANIFEST).exists() {
        return Err(Error::Unsupported {
            file: checkpoint.into(),
            found: "a directory of weights that are converted already".into(),
            hint: "give a checkpoint".into(),
        });
    }
    // First, so that an occupied directory is refused before a large file is read.
    let writer = directory::Writer::create(directory)?;
    let (mut checkpoint, recipe) = open_checkpoint(checkpoint, options)?;
    let source = source(&checkpoint, &recipe);
    let (mut written, mut parameters) = (0, 0);
    writer.finish(&recipe.config, source, |parameter, name, shape| {
        if !watch(written) {
            return Err(Error::Interrupted);
        }
        let values = read(&mut checkpoint, &recipe.stored[name], parameter, shape)?;
        written += 1;
        parameters += values.len();
        Ok(Cow::Owned(values))
    })?;
    Ok(Conversion { config: recipe.config, source, parameters, warnings: recipe.warnings })
}

/// What is told of weights that are read by a recipe.
fn source(checkpoint: &Checkpoint, recipe: &Recipe) -> Source {
    Source { format: Some(checkpoint.format()), averaged: recipe.averaged, folded: recipe.folded }
}

/// Opens a checkpoint and finds what to read of it; where there is nothing, says what would be accepted.
fn open_checkpoint(path: &Path, options: &Options) -> Result<(Checkpoint, Recipe)> {
    let checkpoint = match Checkpoint::open(path) {
        Err(Error::Io { file, source, .. }) if file == path && source.kind() == ErrorKind::NotFound => {
            return Err(Error::Unsupported {
                file: path.into(),
                found: "no such file, directory or checkpoint prefix".into(),
                hint:
                    "give a directory made by convert (model.json and one .npy for each tensor) or a checkpoint (a file of \
                       PyTorch, safetensors or TensorFlow V1, or PREFIX for PREFIX.index or PREFIX-00000-of-00002)"
                        .into(),
            });
        }
        result => result?,
    };
    let mut recipe = models::recipe(&checkpoint, options)?;
    if checkpoint.path() != path {
        recipe.warnings.insert(0, format!("{}: {} is taken", path.display(), checkpoint.path().display()));
    }
    Ok((checkpoint, recipe))
}
