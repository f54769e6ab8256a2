//! From a checkpoint's list of variables to a configuration and a plan of what to read.
//!
//! The idea: guess the configuration by votes, so that one damaged variable does not hide which model
//! it is, then compare every name, shape and type with the network of that configuration and report all
//! differences at once.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::{LIMITS, Options, Source, check_limits, choose_nonlinearity, tensors_of};
use crate::checkpoint::{DType, Format, Variable};
use crate::config::{ModelConfig, Nonlinearity};
use crate::error::{Error, Result};
use crate::network::Network;

/// The scope of the reference's variables.
const SCOPE: &str = "model/";
/// The ending of averaged weights in the reference's training checkpoints.
const AVERAGED: &str = "ExponentialMovingAverage";

/// What to read of a checkpoint.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) config: ModelConfig,
    pub(super) warnings: Vec<String>,
    averaged: bool,
    /// From a tensor's name, `conv2d_0/V`, to its variable's name in the checkpoint.
    stored: HashMap<String, String>,
}

impl Plan {
    pub(super) fn source(&self, format: Format) -> Source {
        Source { format: Some(format), averaged: self.averaged }
    }

    /// The name in the checkpoint of a tensor of the network.
    pub(super) fn stored(&self, tensor: &str) -> &str {
        &self.stored[tensor]
    }
}

/// Infers the configuration, checks everything against it and chooses averaged or raw weights.
pub(super) fn plan(file: &Path, variables: &[Variable], options: &Options) -> Result<Plan> {
    let found = Found::sort(variables, options.raw);
    if found.tensors.is_empty() {
        let names: Vec<_> = variables.iter().take(3).map(|v| v.name.as_str()).collect();
        return Err(Error::Mismatch {
            file: file.into(),
            expected: "variables named model/conv2d_0/V and so on".into(),
            problems: vec![format!("{} variables of other names: {} ...", variables.len(), names.join(", "))],
        });
    }
    let shapes = found.infer(file)?;
    let nonlinearity = choose_nonlinearity(shapes.nonlinearity, options.nonlinearity)?;
    let config = ModelConfig { nonlinearity, ..shapes };
    check_limits(file, &config)?;
    let chosen = found.compare(file, &config)?;

    let mut warnings = Vec::new();
    let raw: Vec<_> = chosen.iter().filter(|(_, c)| !c.averaged).map(|(name, _)| name.as_str()).collect();
    if !options.raw && raw.len() == chosen.len() {
        warnings.push(format!("no variable ends in /{AVERAGED}: the raw weights are used"));
    } else if !options.raw && !raw.is_empty() {
        let (some, of) = (raw.len(), chosen.len());
        let names = raw[..some.min(5)].join(", ") + if some > 5 { ", ..." } else { "" };
        warnings.push(format!(
            "{some} of {of} tensors have no average: their raw values are used beside the others' averages: {names}"
        ));
    }
    if nonlinearity.width() == 1 && options.nonlinearity.is_none() {
        let advice =
            "elu and relu models have the same shapes: elu is assumed, --nonlinearity says otherwise";
        warnings.push(advice.into());
    }
    let averaged = raw.is_empty();
    let stored = chosen.into_iter().map(|(name, c)| (name, c.variable.name.clone())).collect();
    Ok(Plan { config, warnings, averaged, stored })
}

/// The variables of a checkpoint that are, or look like, a model's.
struct Found<'a> {
    /// By tensor name: `conv2d_0/V`.
    tensors: BTreeMap<String, Chosen<'a>>,
    /// Names within the scope that no PixelCNN++ has.
    foreign: Vec<&'a str>,
}

#[derive(Clone, Copy)]
struct Chosen<'a> {
    variable: &'a Variable,
    averaged: bool,
}

impl<'a> Found<'a> {
    /// Steps over what training leaves beside the weights: everything out of the scope (`Variable_1`,
    /// `beta1_power`) and whatever hangs on a weight's name (`model/conv2d_0/V/Adam`).
    fn sort(variables: &'a [Variable], raw: bool) -> Found<'a> {
        let mut found = Found { tensors: BTreeMap::new(), foreign: Vec::new() };
        for variable in variables {
            let Some(name) = variable.name.strip_prefix(SCOPE) else {
                continue;
            };
            let mut parts = name.splitn(3, '/');
            let (layer, part, rest) = (parts.next().unwrap_or(""), parts.next(), parts.next());
            let Some(tensor) = tensor_name(layer, part.unwrap_or("")) else {
                found.foreign.push(&variable.name);
                continue;
            };
            let averaged = match rest {
                None => false,
                Some(AVERAGED) if !raw => true,
                Some(_) => continue,
            };
            let chosen = Chosen { variable, averaged };
            found
                .tensors
                .entry(tensor)
                .and_modify(|c| {
                    if averaged {
                        *c = chosen;
                    }
                })
                .or_insert(chosen);
        }
        found
    }

    /// The sorted numbers of the layers of a kind.
    fn layers(&self, kind: &str) -> Vec<u64> {
        let names = self.tensors.keys().filter_map(|name| parse_layer(name.split('/').next()?));
        let mut layers: Vec<u64> = names.filter(|(k, _)| *k == kind).map(|(_, number)| number).collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }

    /// The commonest size of an axis, counted from the last, among some tensors.
    fn vote(&self, axis_from_last: usize, names: &[String]) -> Option<usize> {
        let mut votes: Vec<(usize, usize)> = Vec::new();
        for name in names {
            let Some(shape) = self.tensors.get(name).map(|c| &c.variable.shape) else {
                continue;
            };
            let Some(&size) = shape.iter().rev().nth(axis_from_last) else {
                continue;
            };
            match votes.iter_mut().find(|(s, _)| *s == size) {
                Some((_, count)) => *count += 1,
                None => votes.push((size, 1)),
            }
        }
        // The first of equals: names are given in order of trust.
        votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(size, _)| size)
    }

    /// The configuration whose network is most like what was found.
    fn infer(&self, file: &Path) -> Result<ModelConfig> {
        let resnets = self.resnets();
        let names = |layers: &[&str], parts: &[&str]| -> Vec<String> {
            layers.iter().flat_map(|l| parts.iter().map(move |p| format!("{l}/{p}"))).collect()
        };
        let inputs = ["conv2d_0", "conv2d_1", "conv2d_2", "conv2d_3"];
        let filters = self.vote(0, &names(&inputs, &["V", "g", "b"])).unwrap_or(0);
        let last = format!("dense_{}", 9 * resnets + 4);
        let logits = self.vote(0, &names(&[&last], &["V", "g", "b"])).unwrap_or(0);
        let doubled = self.vote(1, &names(&["conv2d_3", "conv2d_4", "conv2d_5"], &["V"]));
        let terms: Vec<String> = self
            .layers("conditional_weights")
            .iter()
            .map(|k| format!("conditional_weights_{k}/hw"))
            .collect();
        let config = ModelConfig {
            resnets,
            filters,
            mixtures: logits.div_ceil(10),
            classes: if terms.is_empty() { 0 } else { self.vote(1, &terms).unwrap_or(0).max(1) },
            nonlinearity: match doubled {
                Some(inputs) if inputs == filters => Nonlinearity::Elu,
                _ => Nonlinearity::ConcatElu,
            },
        };
        // With no vote at all, the network cannot be sized.
        for (missing, what) in [(filters == 0, "conv2d_0".to_string()), (logits == 0, last)] {
            if missing {
                return Err(Error::Mismatch {
                    file: file.into(),
                    expected: format!("{resnets} resnets, by the number of its layers"),
                    problems: vec![format!(
                        "{what} is missing or empty, which tells the sizes of the others"
                    )],
                });
            }
        }
        Ok(config)
    }

    /// The number of resnets per stage for which the fewest layers are missing or extra.
    fn resnets(&self) -> usize {
        // Layers of each kind: a * R + b.
        let kinds = [("conv2d", 24, 15), ("dense", 9, 5), ("conditional_weights", 12, 4)];
        let layers = kinds.map(|(kind, a, b)| (self.layers(kind), a, b));
        let present = || layers.iter().filter(|(list, ..)| !list.is_empty());
        let difference = |resnets: u64| -> u64 {
            let of = |(list, a, b): &(Vec<u64>, u64, u64)| {
                let expected = a * resnets + b;
                let inside = list.partition_point(|k| *k < expected) as u64;
                (expected - inside) + (list.len() as u64 - inside)
            };
            present().map(of).sum()
        };
        let guesses = present().flat_map(|(list, a, b)| {
            let sizes = [list.len() as u64, list.last().map_or(0, |k| k.saturating_add(1))];
            sizes.into_iter().flat_map(move |n| [n.saturating_sub(*b) / a, n.saturating_sub(*b).div_ceil(*a)])
        });
        let limit = LIMITS[0].1 as u64;
        let guesses = guesses.map(|r| r.clamp(1, limit));
        guesses.min_by_key(|r| (difference(*r), *r)).unwrap_or(1) as usize
    }

    /// Compares everything with the network; what is left of the variables is the network's.
    fn compare(mut self, file: &Path, config: &ModelConfig) -> Result<BTreeMap<String, Chosen<'a>>> {
        let mut problems = Vec::new();
        let mut chosen = BTreeMap::new();
        for (_, name, shape) in tensors_of(&Network::new(*config)) {
            let Some(found) = self.tensors.remove(&name) else {
                problems.push(format!("{SCOPE}{name} {shape:?} is missing"));
                continue;
            };
            let variable = found.variable;
            if variable.dtype != DType::Float32 {
                problems.push(format!("{}: expected float32, found {}", variable.name, variable.dtype));
            }
            if variable.shape != shape {
                problems
                    .push(format!("{}: expected shape {shape:?}, found {:?}", variable.name, variable.shape));
            }
            chosen.insert(name, found);
        }
        let extra = self.tensors.values().map(|c| c.variable.name.as_str()).chain(self.foreign);
        problems.extend(extra.map(|name| format!("{name} is extra")));
        if problems.is_empty() {
            return Ok(chosen);
        }
        Err(Error::Mismatch { file: file.into(), expected: config.to_string(), problems })
    }
}

/// Kind and number of a layer: `conv2d_12` is `("conv2d", 12)`.
fn parse_layer(layer: &str) -> Option<(&str, u64)> {
    let (kind, digits) = layer.rsplit_once('_')?;
    let number: u64 = digits.parse().ok()?;
    // Not "007" or "+7": each layer has one name.
    (number.to_string() == digits).then_some((kind, number))
}

/// The tensor's name if such a layer can have such a part.
fn tensor_name(layer: &str, part: &str) -> Option<String> {
    let known = match (parse_layer(layer)?.0, part) {
        ("conv2d" | "deconv2d" | "dense", "V" | "g" | "b") => true,
        ("conditional_weights", part) => part == "hw",
        _ => false,
    };
    known.then(|| format!("{layer}/{part}"))
}

#[cfg(test)]
mod tests;
