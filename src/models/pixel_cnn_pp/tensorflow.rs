//! From a TensorFlow checkpoint's list of variables to a configuration and a recipe.
//!
//! The idea: guess the configuration by votes, so that one damaged variable does not hide which model
//! it is, then compare every name, shape and type with the network of that configuration and report all
//! differences at once.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::{AVERAGED, Name, Scopes, is_optimiser_scalar, parse_layer};
use super::{LIMITS, Nonlinearity, PixelCnnPp};
use crate::checkpoint::Variable;
use crate::error::{Error, Result, list};
use crate::models::stored::{ROOM, Stored, bytes, commonest, differences, warn_of_types};
use crate::models::{Options, Recipe};

/// Infers the configuration, checks everything against it and chooses averaged or raw weights.
pub(in crate::models) fn recipe(file: &Path, variables: &[Variable], options: &Options) -> Result<Recipe> {
    let other_names = || {
        let names: Vec<_> = variables.iter().map(|v| v.name.as_str()).collect();
        let found = format!("{} variables of other names: {}", names.len(), list(&names, ", ", ROOM));
        let expected = "variables named model/conv2d_0/V and so on".into();
        Error::Mismatch { file: file.into(), expected, problems: vec![found] }
    };
    let scopes = Scopes::find(file, variables, options.scope.as_deref())?.ok_or_else(other_names)?;
    let found = Found::sort(variables, &scopes, options.raw);
    if found.arrays.is_empty() {
        return Err(other_names());
    }
    let config = found.infer(file)?.with_nonlinearity(options.nonlinearity)?;
    config.check_limits(file)?;
    let scalars = found.scalars.clone();
    let chosen = found.compare(file, &config)?;

    let mut warnings = Vec::new();
    if !options.raw {
        warnings.extend(warn_of_raw_values(variables, &chosen));
    }
    warnings.extend(warn_of_types(chosen.values().map(|c| c.variable)));
    if !scalars.is_empty() {
        warnings.push(format!("an optimiser's scalars are passed over: {}", list(&scalars, ", ", ROOM)));
    }
    if config.nonlinearity.width() == 1 && options.nonlinearity.is_none() {
        let advice = "elu and relu models have the same shapes: elu is assumed, as no nonlinearity was named";
        warnings.push(advice.into());
    }
    let averaged = chosen.values().all(|c| c.averaged);
    let claimed = bytes(chosen.values().map(|c| c.variable));
    let stored = chosen.into_iter().map(|(name, c)| (name, Stored::Plain(c.variable.name.clone()))).collect();
    Ok(Recipe { config: config.into(), warnings, claimed, averaged, folded: false, stored })
}

/// Says so where averages are wanted and raw values taken, and which variables might be the averages.
fn warn_of_raw_values(variables: &[Variable], chosen: &BTreeMap<String, Chosen<'_>>) -> Option<String> {
    let raw: Vec<&str> = chosen.iter().filter(|(_, c)| !c.averaged).map(|(name, _)| name.as_str()).collect();
    let alike = variables.iter().filter_map(|variable| {
        let name = Name::parse(&variable.name)?;
        let meant = chosen.get(name.array).is_some_and(|c| !c.averaged);
        (meant && name.looks_averaged()).then_some((variable.name.as_str(), name.scope, name.rest))
    });
    let alike: Vec<_> = alike.collect();
    let (some, of) = (raw.len(), chosen.len());
    let message = match (some, alike.is_empty()) {
        (0, _) => return None,
        _ if some < of => format!(
            "{some} of {of} tensors have no average: their raw values are used beside the others' averages: {}",
            list(&raw, ", ", ROOM / 2)
        ),
        (_, true) => return Some(format!("no variable ends in /{AVERAGED}: the raw weights are used")),
        (_, false) => format!("no tensor's average bears its name and /{AVERAGED}: the raw weights are used"),
    };
    let Some((_, scope, _)) = alike.first() else { return Some(message) };
    let names: Vec<&str> = alike.iter().map(|(name, ..)| *name).collect();
    let names = list(&names, ", ", ROOM / 2);
    let message = format!("{message}; {} look like averages by other names: {names}", alike.len());
    let elsewhere = |(_, other, rest): &(_, &str, Option<&str>)| other == scope && *rest == Some(AVERAGED);
    Some(if some == of && alike.iter().all(elsewhere) {
        format!("{message} (the scope {} has them)", scope.trim_end_matches('/'))
    } else {
        message
    })
}

/// The variables of a checkpoint that are, or look like, a model's.
struct Found<'a> {
    /// The model's scope, with its slash.
    scope: String,
    /// By array name: `conv2d_0/V`.
    arrays: BTreeMap<String, Chosen<'a>>,
    /// Names within the scope that no PixelCNN++ has.
    foreign: Vec<&'a str>,
    /// Names within the scope of an optimiser's numbers.
    scalars: Vec<&'a str>,
}

#[derive(Clone, Copy)]
struct Chosen<'a> {
    variable: &'a Variable,
    averaged: bool,
}

impl<'a> Found<'a> {
    /// Steps over what training leaves beside the weights: everything out of the scope (`Variable_1`,
    /// `beta1_power`) and whatever hangs on a weight's name (`model/conv2d_0/V/Adam`), also where the
    /// optimiser stood in the scope (`model/model/conv2d_0/V/Adam`).
    fn sort(variables: &'a [Variable], scopes: &Scopes<'_>, raw: bool) -> Found<'a> {
        let scope = scopes.chosen.clone();
        let mut found = Found { scope, arrays: BTreeMap::new(), foreign: Vec::new(), scalars: Vec::new() };
        for variable in variables {
            let Some(inside) = variable.name.strip_prefix(&found.scope) else {
                continue;
            };
            match Name::parse(&variable.name) {
                Some(Name { scope, array, rest }) if scope == found.scope => {
                    let averaged = !raw && rest == Some(AVERAGED);
                    if averaged || rest.is_none() {
                        found.take(array, Chosen { variable, averaged });
                    }
                }
                Some(Name { rest: Some(_), .. }) => {}
                Some(Name { scope, .. }) if scopes.is_other_model(scope) => {}
                // Without a scope, what is in none may be anything of the program's.
                _ if found.scope.is_empty() && !inside.contains('/') => {}
                _ if is_optimiser_scalar(variable) => found.scalars.push(&variable.name),
                _ => found.foreign.push(&variable.name),
            }
        }
        found
    }

    /// Takes a variable for an array, an average rather than a raw one.
    fn take(&mut self, array: &str, chosen: Chosen<'a>) {
        let entry = self.arrays.entry(array.into());
        let replace = |c: &mut Chosen<'a>| {
            if chosen.averaged {
                *c = chosen;
            }
        };
        entry.and_modify(replace).or_insert(chosen);
    }

    /// The sorted numbers of the layers of a kind.
    fn layers(&self, kind: &str) -> Vec<u64> {
        let names = self.arrays.keys().filter_map(|name| parse_layer(name.split('/').next()?));
        let mut layers: Vec<u64> = names.filter(|(k, _)| *k == kind).map(|(_, number)| number).collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }

    /// The commonest size of an axis, counted from the last, among some arrays.
    fn vote(&self, axis_from_last: usize, names: &[String]) -> Option<usize> {
        // The first of equals: names are given in order of trust.
        let shapes = names.iter().filter_map(|name| self.arrays.get(name).map(|c| &c.variable.shape));
        commonest(shapes.filter_map(|shape| shape.iter().rev().nth(axis_from_last).copied()))
    }

    /// The configuration whose network is most like what was found.
    fn infer(&self, file: &Path) -> Result<PixelCnnPp> {
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
        let config = PixelCnnPp {
            resnets,
            filters,
            mixtures: logits.div_ceil(10),
            channels: 3,
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
    fn compare(mut self, file: &Path, config: &PixelCnnPp) -> Result<BTreeMap<String, Chosen<'a>>> {
        let mut problems = Vec::new();
        let mut chosen = BTreeMap::new();
        for (_, name, shape) in config.graph().arrays(false) {
            let Some(found) = self.arrays.remove(&name) else {
                problems.push(format!("{}{name} {shape:?} is missing", self.scope));
                continue;
            };
            problems.extend(differences(found.variable, &shape));
            chosen.insert(name, found);
        }
        let extra = self.arrays.values().map(|c| c.variable.name.as_str()).chain(self.foreign);
        problems.extend(extra.map(|name| format!("{name} is extra")));
        if problems.is_empty() {
            return Ok(chosen);
        }
        Err(Error::Mismatch { file: file.into(), expected: config.to_string(), problems })
    }
}

#[cfg(test)]
mod tests;
