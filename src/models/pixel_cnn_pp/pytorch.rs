//! From the names and shapes in a PyTorch dictionary to a configuration and a recipe.
//!
//! The idea: the names are those of pclucas14/pixel-cnn-pp and its many copies, wherever in the file its
//! dictionary lies: a model is found by the prefix under which its layers are named. A class-conditional one, which
//! those have not, has an embedding `class_term` in each resnet. As for a TensorFlow checkpoint the configuration is
//! voted for, and all differences from it are reported at once.

use std::collections::BTreeMap;
use std::path::Path;

use super::described::Described;
use super::names::parse_layer;
use super::{ELU_ASSUMED, NAME, Nonlinearity, PixelCnnPp, refuse_params};
use crate::checkpoint::Variable;
use crate::error::{Error, Result, list};
use crate::graph::{Parameter, ParameterKind};
use crate::heads::mixture_of_logistics;
use crate::models::stored::{ROOM, Stored, bytes, commonest, differences, warn_of_types};
use crate::models::{Options, Recipe};

/// The modules that a model consists of.
const MODULES: [&str; 9] = [
    "u_init",
    "ul_init",
    "up_layers",
    "down_layers",
    "downsize_u_stream",
    "downsize_ul_stream",
    "upsize_u_stream",
    "upsize_ul_stream",
    "nin_out",
];

/// What wrapping a model for several devices puts before its names.
const PARALLEL: &str = "module.";

/// The names of a layer's kernel and of its norms: PyTorch's `weight_norm`, its successor of 2.1, and a kernel with
/// neither.
const SPELLINGS: [(&str, Option<&str>); 3] = [
    ("weight_v", Some("weight_g")),
    ("parametrizations.weight.original1", Some("parametrizations.weight.original0")),
    ("weight", None),
];

/// The embedding that a resnet of a class-conditional model adds to its second convolution.
const CLASS_TERM: &str = "class_term";

/// Infers the configuration, with what is said of it beside the file, and checks everything against it.
pub(in crate::models) fn recipe(
    file: &Path,
    variables: &[Variable],
    described: &Described,
    options: &Options,
) -> Result<Recipe> {
    refuse_params(options)?;
    if options.raw {
        let expected = "a TensorFlow checkpoint, which has averaged ones beside them";
        return Err(Error::argument("raw weights", expected, "PyTorch's names, which are those of one kind"));
    }
    let found = Found::sort(file, variables, options.scope.as_deref())?;
    let config = described.complete(file, found.infer(file)?)?.with_nonlinearity(options.nonlinearity)?;
    config.check_limits(file)?;
    let chosen = found.compare(file, &config)?;
    let read: Vec<&Variable> = chosen.iter().flat_map(|(.., read)| read.iter().copied()).collect();
    let mut warnings = warn_of_types(read.iter().copied());
    if config.nonlinearity.width() == 1 && options.nonlinearity.or(described.nonlinearity).is_none() {
        warnings.push(ELU_ASSUMED.into());
    }
    Ok(Recipe {
        config: config.into(),
        warnings,
        claimed: bytes(read.iter().copied()),
        averaged: described.averaged,
        folded: true,
        stored: chosen.into_iter().map(|(name, stored, _)| (name, stored)).collect(),
    })
}

/// The parameters of a configuration's graph, each with its layer in PyTorch's words.
fn parameters(config: &PixelCnnPp) -> Vec<(Parameter, String)> {
    let [conv, deconv, dense, class_terms] = layers(config.resnets);
    let name = |parameter: Parameter| {
        let (kind, number) = parse_layer(&parameter.name).expect("a parameter has a number");
        let of_kind = match kind {
            "conv2d" => &conv,
            "deconv2d" => &deconv,
            "dense" => &dense,
            _ => &class_terms,
        };
        let layer = of_kind[number as usize].clone();
        (parameter, layer)
    };
    config.graph().parameters.into_iter().map(name).collect()
}

/// The names of the convolutions, the transposed ones, the dense layers and the class terms, as a graph numbers them.
fn layers(resnets: usize) -> [Vec<String>; 4] {
    let mut conv: Vec<String> = ["u_init.conv", "ul_init.0.conv", "ul_init.1.conv"].map(String::from).into();
    let (mut deconv, mut dense, mut class_terms) = (Vec::new(), Vec::new(), Vec::new());
    let mut resnet = |name: String, skips: bool, conv: &mut Vec<String>| {
        conv.push(format!("{name}.conv_input.conv"));
        if skips {
            dense.push(format!("{name}.nin_skip.lin_a"));
        }
        conv.push(format!("{name}.conv_out.conv"));
        class_terms.push(format!("{name}.{CLASS_TERM}"));
    };
    for stage in 0..3 {
        if stage > 0 {
            let stage = stage - 1;
            conv.extend(["u", "ul"].map(|stream| format!("downsize_{stream}_stream.{stage}.conv")));
        }
        for r in 0..resnets {
            resnet(format!("up_layers.{stage}.u_stream.{r}"), false, &mut conv);
            resnet(format!("up_layers.{stage}.ul_stream.{r}"), true, &mut conv);
        }
    }
    for stage in 0..3 {
        for r in 0..resnets + usize::from(stage > 0) {
            for stream in ["u", "ul"] {
                resnet(format!("down_layers.{stage}.{stream}_stream.{r}"), true, &mut conv);
            }
        }
        if stage < 2 {
            deconv.extend(["u", "ul"].map(|stream| format!("upsize_{stream}_stream.{stage}.deconv")));
        }
    }
    dense.push("nin_out.lin_a".into());
    [conv, deconv, dense, class_terms]
}

/// The shape that PyTorch gives to a kernel which is of `shape` in a graph: `[out, in, height, width]`, or
/// `[in, out, height, width]` of a transposed convolution.
fn pytorch_shape(shape: &[usize]) -> Vec<usize> {
    let (positions, last) = shape.split_at(shape.len() - 2);
    [&[last[1], last[0]], positions].concat()
}

/// How many variables are of such a model.
pub(in crate::models) fn count(variables: &[Variable]) -> usize {
    variables.iter().filter(|variable| prefix(&variable.name).is_some()).count()
}

/// What is before the model in a name, with its dot: `state_dict.module.`.
fn prefix(name: &str) -> Option<&str> {
    let starts = std::iter::once(0).chain(name.match_indices('.').map(|(at, _)| at + 1));
    let is_module = |start: &usize| name[*start..].split_once('.').is_some_and(|(m, _)| MODULES.contains(&m));
    starts.into_iter().find(is_module).map(|start| &name[..start])
}

/// The key of a prefix, as a user names it: `state_dict`.
fn key(prefix: &str) -> &str {
    prefix.strip_suffix(PARALLEL).unwrap_or(prefix).trim_end_matches('.')
}

/// A model's parameters in a checkpoint.
struct Found<'a> {
    /// What is before their names.
    prefix: &'a str,
    /// By what is behind it.
    parameters: BTreeMap<&'a str, &'a Variable>,
}

/// An array of the graph, where its values are, and what is read for them.
type Chosen<'a> = (String, Stored, Vec<&'a Variable>);

impl<'a> Found<'a> {
    /// Finds the model under the key that is wanted, or else the only one.
    fn sort(file: &Path, variables: &'a [Variable], wanted: Option<&str>) -> Result<Found<'a>> {
        let mut counts = BTreeMap::new();
        for prefix in variables.iter().filter_map(|variable| prefix(&variable.name)) {
            *counts.entry(prefix).or_insert(0usize) += 1;
        }
        // One layer of a name like these is no model beside one with all of them.
        let most = counts.values().copied().max().unwrap_or(0);
        let models = || counts.iter().filter(|(_, count)| **count * 2 >= most).map(|(prefix, _)| *prefix);
        let shown = || {
            let keys: Vec<String> = models().map(|prefix| format!("\"{}\"", key(prefix))).collect();
            list(&keys, ", ", ROOM)
        };
        let meant = |prefix: &&str| wanted.is_none_or(|wanted| key(prefix) == key(&format!("{wanted}.")));
        let chosen: Vec<&str> = models().filter(meant).collect();
        let prefix = match (&chosen[..], wanted) {
            (&[prefix], _) => prefix,
            ([], Some(wanted)) if most > 0 => {
                let expected = format!("the key of a model ({})", shown());
                return Err(Error::argument("scope", expected, format!("\"{wanted}\"")));
            }
            ([], _) => {
                let names: Vec<&str> = variables.iter().map(|v| v.name.as_str()).collect();
                let found = format!("{} tensors of other names: {}", names.len(), list(&names, ", ", ROOM));
                let expected = "tensors named u_init.conv.bias and so on".into();
                return Err(Error::Mismatch {
                    file: file.into(),
                    model: NAME,
                    expected,
                    problems: vec![found],
                });
            }
            (several, _) => {
                return Err(Error::Unsupported {
                    file: file.into(),
                    found: format!("{} models, under the keys {}", several.len(), shown()),
                    hint: "choose one as the scope".into(),
                });
            }
        };
        let others: Vec<&str> = models().filter(|other| *other != prefix).collect();
        let inside = |variable: &'a Variable| {
            let name = variable.name.strip_prefix(prefix)?;
            let other =
                others.iter().any(|other| other.starts_with(prefix) && variable.name.starts_with(other));
            (!other).then_some((name, variable))
        };
        Ok(Found { prefix, parameters: variables.iter().filter_map(inside).collect() })
    }

    /// How a layer's kernel is spelled.
    fn spelling(&self, layer: &str) -> (&'static str, Option<&'static str>) {
        let has = |part: &str| self.parameters.contains_key(&*format!("{layer}.{part}"));
        let spelled = |(kernel, gain): &(&str, Option<&str>)| has(kernel) || gain.is_some_and(&has);
        SPELLINGS.into_iter().find(spelled).unwrap_or(SPELLINGS[0])
    }

    /// The commonest size of an axis among the kernels of some layers, and of the first axis among what else they
    /// have.
    fn vote(&self, axis: usize, layers: &[&str]) -> Option<usize> {
        let sizes = layers.iter().flat_map(|layer| {
            let (kernel, gain) = self.spelling(layer);
            let rest = [gain, Some("bias")].into_iter().flatten().filter(|_| axis == 0);
            rest.chain([kernel]).filter_map(move |part| {
                self.parameters.get(&*format!("{layer}.{part}"))?.shape.get(axis).copied()
            })
        });
        commonest(sizes)
    }

    /// The configuration whose graph is most like what was found.
    fn infer(&self, file: &Path) -> Result<PixelCnnPp> {
        let inputs = ["u_init.conv", "ul_init.0.conv", "ul_init.1.conv"];
        let missing = |what: &str| Error::Mismatch {
            file: file.into(),
            model: NAME,
            expected: "by its names".into(),
            problems: vec![format!(
                "{}{what} is missing or empty, which tells the sizes of the others",
                self.prefix
            )],
        };
        let some =
            |size: Option<usize>, what: &str| size.filter(|size| *size > 0).ok_or_else(|| missing(what));
        let filters = some(self.vote(0, &inputs), inputs[0])?;
        let planes = some(self.vote(1, &inputs), inputs[0])?;
        let logits = some(self.vote(0, &["nin_out.lin_a"]), "nin_out.lin_a")?;
        let channels = planes - 1;
        if channels != 1 && channels != 3 {
            return Err(Error::Unsupported {
                file: file.into(),
                found: format!("a model for images of {channels} channels"),
                hint: "3 (RGB) and 1 (gray) are known".into(),
            });
        }
        let resnets = self.resnets();
        let class_terms = &layers(resnets)[3];
        let class_terms: Vec<&str> = class_terms.iter().map(String::as_str).collect();
        let first =
            (0..3).map(|stage| format!("up_layers.{stage}.u_stream.0.conv_input.conv")).collect::<Vec<_>>();
        let first: Vec<&str> = first.iter().map(String::as_str).collect();
        Ok(PixelCnnPp {
            resnets,
            filters,
            mixtures: logits.div_ceil(mixture_of_logistics::logits_per_component(channels)),
            channels,
            classes: self.vote(0, &class_terms).unwrap_or(0),
            nonlinearity: match self.vote(1, &first) {
                Some(inputs) if inputs == filters => Nonlinearity::Elu,
                _ => Nonlinearity::ConcatElu,
            },
        })
    }

    /// The number of resnets per stage that most stages have.
    fn resnets(&self) -> usize {
        let resnets = |pass: &str, stage: usize, stream: &str| {
            let name = format!("{pass}_layers.{stage}.{stream}_stream.");
            let inside = self.parameters.keys().filter_map(|key| key.strip_prefix(&*name)?.split('.').next());
            let mut numbers: Vec<&str> = inside.collect();
            numbers.dedup();
            numbers.len().saturating_sub(usize::from(pass == "down" && stage > 0))
        };
        let stages = (0..3).flat_map(|stage| [("up", stage), ("down", stage)]);
        let counts = stages.flat_map(|(pass, stage)| ["u", "ul"].map(|stream| resnets(pass, stage, stream)));
        commonest(counts.filter(|count| *count > 0)).unwrap_or(1)
    }

    /// Compares everything with the graph of a configuration.
    fn compare(mut self, file: &Path, config: &PixelCnnPp) -> Result<Vec<Chosen<'a>>> {
        let (mut problems, mut chosen) = (Vec::new(), Vec::new());
        for (parameter, layer) in parameters(config) {
            let (kernel, gain) = self.spelling(&layer);
            let mut take = |part: &str, shape: &[usize]| {
                let Some(found) = self.parameters.remove(&*format!("{layer}.{part}")) else {
                    problems.push(format!("{}{layer}.{part} {shape:?} is missing", self.prefix));
                    return None;
                };
                problems.extend(differences(found, shape));
                Some(found)
            };
            let arrays = parameter.arrays(true);
            if parameter.kind == ParameterKind::PerClass {
                let (term, shape) = &arrays[0];
                if let Some(found) = take("weight", shape) {
                    chosen.push((term.clone(), Stored::Plain(found.name.clone()), vec![found]));
                }
                continue;
            }
            let [(w, shape), (b, outputs)] = &arrays[..] else {
                panic!("{} has a kernel and a bias", parameter.name)
            };
            let shape = pytorch_shape(shape);
            let mut norms = vec![1; shape.len()];
            norms[0] = shape[0];
            let values = take(kernel, &shape);
            let gain = gain.map(|part| take(part, &norms));
            let bias = take("bias", outputs);
            let (Some(values), Some(bias), None | Some(Some(_))) = (values, bias, gain) else { continue };
            let gain = gain.flatten();
            let read = [Some(values), gain].into_iter().flatten().collect();
            let gain = gain.map(|gain| gain.name.clone());
            chosen.push((w.clone(), Stored::Kernel { values: values.name.clone(), shape, gain }, read));
            chosen.push((b.clone(), Stored::Plain(bias.name.clone()), vec![bias]));
        }
        problems.extend(self.parameters.values().map(|variable| format!("{} is extra", variable.name)));
        if problems.is_empty() {
            return Ok(chosen);
        }
        Err(config.mismatch(file, problems))
    }
}

#[cfg(test)]
mod tests;
