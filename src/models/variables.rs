//! The variables of a model in a TensorFlow checkpoint: the scope that it was built in, its arrays, and what training
//! hung on them.
//!
//! The idea: the reference builds a model in one scope, others elsewhere, but inside of it the names are the same. So
//! an array is recognised wherever it stands in a name, and a model's scope is a prefix under which many do. Which
//! names a model's arrays have, a function says: of each architecture its own.

use std::collections::BTreeMap;
use std::path::Path;

use super::stored::{ROOM, commonest, differences};
use crate::checkpoint::{DType, Variable};
use crate::error::{Error, Result, list};

/// The ending of averaged weights in training checkpoints.
pub(super) const AVERAGED: &str = "ExponentialMovingAverage";

/// Tells how much of a name within a scope is an array of the model, if it begins with one: in `conv2d_0/V/Adam`
/// that is the length of `conv2d_0/V`.
pub(super) type Arrays = fn(&str) -> Option<usize>;

/// A name with an array of a model in it: `model/conv2d_0/V/Adam`.
struct Name<'a> {
    /// What is before the array, with its slash: `model/`.
    scope: &'a str,
    /// `conv2d_0/V`.
    array: &'a str,
    /// What is behind the array, without the slash: `Adam`.
    rest: Option<&'a str>,
}

impl Name<'_> {
    /// The first array in a name.
    fn parse(name: &str, arrays: Arrays) -> Option<Name<'_>> {
        let starts = std::iter::once(0).chain(name.match_indices('/').map(|(at, _)| at + 1));
        starts.into_iter().find_map(|start| {
            let (scope, inside) = name.split_at(start);
            let (array, rest) = inside.split_at(arrays(inside)?);
            Some(Name { scope, array, rest: rest.strip_prefix('/') })
        })
    }

    /// Whether this is an average of its array, whatever it is called.
    fn looks_averaged(&self) -> bool {
        let rest = self.rest.unwrap_or("").to_ascii_lowercase();
        rest.contains("average") || rest.split('/').any(|part| part == "ema")
    }
}

/// How many variables are arrays of such a model, in the scope that is wanted or in any.
pub(super) fn count(variables: &[Variable], arrays: Arrays, wanted: Option<&str>) -> usize {
    let meant = |name: &Name<'_>| wanted.is_none_or(|wanted| name.scope == with_slash(wanted));
    variables.iter().filter_map(|variable| Name::parse(&variable.name, arrays)).filter(meant).count()
}

/// A scope as the user names it, as it stands in a name.
fn with_slash(scope: &str) -> String {
    let name = scope.trim_end_matches('/');
    if name.is_empty() { String::new() } else { format!("{name}/") }
}

/// Whether this is a number that an optimiser keeps: it may stand in the model's scope, but belongs to no
/// layer.
fn is_optimiser_scalar(variable: &Variable) -> bool {
    const NAMES: [&str; 15] = [
        "beta1_power",
        "beta2_power",
        "beta_1",
        "beta_2",
        "decay",
        "epsilon",
        "global_step",
        "iter",
        "iterations",
        "learning_rate",
        "loss_scale",
        "lr",
        "momentum",
        "rho",
        "step",
    ];
    let name = variable.name.rsplit('/').next().unwrap_or("");
    let again = name.rsplit_once('_').filter(|(_, digits)| digits.bytes().all(|b| b.is_ascii_digit()));
    let known = NAMES.contains(&name) || again.is_some_and(|(name, _)| NAMES.contains(&name));
    let counts = matches!(variable.dtype, DType::Int32 | DType::Int64);
    variable.shape.is_empty() && (known || counts)
}

/// The scopes in which there are models, and the one that is meant.
struct Scopes<'a> {
    /// The one that is meant, with its slash; empty for none.
    chosen: String,
    /// All of them.
    models: Vec<&'a str>,
}

impl<'a> Scopes<'a> {
    /// Finds the scope `wanted`, or else the only one; `None` if no variable is named like an array.
    fn find(
        file: &Path,
        variables: &'a [Variable],
        arrays: Arrays,
        wanted: Option<&str>,
    ) -> Result<Option<Scopes<'a>>> {
        let names = || variables.iter().filter_map(|variable| Name::parse(&variable.name, arrays));
        let count = |rest: Option<&str>| {
            let mut counts = BTreeMap::new();
            for name in names().filter(|name| name.rest == rest) {
                *counts.entry(name.scope).or_insert(0usize) += 1;
            }
            counts
        };
        // A scope of averages alone is that of a model only where there are no raw weights.
        let (raw, averages) = (count(None), count(Some(AVERAGED)));
        let counts = if raw.is_empty() { &averages } else { &raw };
        // One layer of a name like these is no model beside one with all of them.
        let most = counts.values().copied().max().unwrap_or(0);
        let models = || counts.iter().filter(|(_, count)| **count * 2 >= most).map(|(scope, _)| *scope);
        let models: Vec<&str> = models().collect();
        let chosen = match (wanted, &models[..]) {
            (_, []) => return Ok(None),
            (None, [scope]) => scope.to_string(),
            (None, several) => {
                return Err(Error::Several {
                    file: file.into(),
                    found: format!("{} models, in the scopes {}", several.len(), shown(several)),
                    name: "scope".into(),
                });
            }
            (Some(wanted), _) => {
                let scope = with_slash(wanted);
                if !raw.contains_key(&scope[..]) && !averages.contains_key(&scope[..]) {
                    let all: Vec<&str> = raw.keys().chain(averages.keys()).copied().collect();
                    let expected = format!("a scope with a model in it ({})", shown(&all));
                    return Err(Error::argument("scope", expected, format!("\"{wanted}\"")));
                }
                scope
            }
        };
        Ok(Some(Scopes { chosen, models }))
    }

    /// Whether a model that is not meant is in this scope.
    fn is_other_model(&self, scope: &str) -> bool {
        scope != self.chosen && self.models.contains(&scope)
    }
}

/// Scopes as a user names them.
fn shown(scopes: &[&str]) -> String {
    let mut names: Vec<&str> = scopes
        .iter()
        .map(|scope| match scope.trim_end_matches('/') {
            "" => "\"\"",
            name => name,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    list(&names, ", ", ROOM)
}

/// Says so where averages are wanted and raw values taken, and which variables might be the averages.
pub(super) fn warn_of_raw_values(
    variables: &[Variable],
    arrays: Arrays,
    chosen: &BTreeMap<String, Chosen<'_>>,
) -> Option<String> {
    let raw: Vec<&str> = chosen.iter().filter(|(_, c)| !c.averaged).map(|(name, _)| name.as_str()).collect();
    let alike = variables.iter().filter_map(|variable| {
        let name = Name::parse(&variable.name, arrays)?;
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
pub(super) struct Found<'a> {
    /// The model's scope, with its slash.
    pub(super) scope: String,
    /// By array name: `conv2d_0/V`.
    pub(super) arrays: BTreeMap<String, Chosen<'a>>,
    /// Names within the scope that no such model has.
    foreign: Vec<&'a str>,
    /// Names within the scope of an optimiser's numbers.
    pub(super) scalars: Vec<&'a str>,
}

/// A variable that is taken for an array, and whether it is the average of it.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub(super) variable: &'a Variable,
    pub(super) averaged: bool,
}

impl<'a> Found<'a> {
    /// Steps over what training leaves beside the weights: everything out of the scope (`Variable_1`,
    /// `beta1_power`) and whatever hangs on a weight's name (`model/conv2d_0/V/Adam`), also where the
    /// optimiser stood in the scope (`model/model/conv2d_0/V/Adam`).
    ///
    /// Of several models the one in the scope that is wanted; `None` where there is none.
    pub(super) fn sort(
        file: &Path,
        variables: &'a [Variable],
        arrays: Arrays,
        wanted: Option<&str>,
        raw: bool,
    ) -> Result<Option<Found<'a>>> {
        let Some(scopes) = Scopes::find(file, variables, arrays, wanted)? else { return Ok(None) };
        let scope = scopes.chosen.clone();
        let mut found = Found { scope, arrays: BTreeMap::new(), foreign: Vec::new(), scalars: Vec::new() };
        for variable in variables {
            let Some(inside) = variable.name.strip_prefix(&found.scope) else {
                continue;
            };
            match Name::parse(&variable.name, arrays) {
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
        Ok((!found.arrays.is_empty()).then_some(found))
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

    /// Whether at least half of these are there.
    pub(super) fn has_most(&self, names: &[String]) -> bool {
        names.iter().filter(|name| self.arrays.contains_key(*name)).count() * 2 >= names.len()
    }

    /// The commonest size of an axis, counted from the last, among some arrays.
    pub(super) fn vote(&self, axis_from_last: usize, names: &[String]) -> Option<usize> {
        self.vote_all(&[(axis_from_last, names)])
    }

    /// The commonest of such sizes, of several axes.
    pub(super) fn vote_all(&self, axes: &[(usize, &[String])]) -> Option<usize> {
        // The first of equals: names are given in order of trust.
        let sizes = axes.iter().flat_map(|(axis_from_last, names)| {
            let shapes = names.iter().filter_map(|name| self.arrays.get(name).map(|c| &c.variable.shape));
            shapes.filter_map(|shape| shape.iter().rev().nth(*axis_from_last).copied())
        });
        commonest(sizes)
    }

    /// Compares everything with the arrays, by name and shape, of the model that it was taken for; what is left of the
    /// variables is the model's. Otherwise all differences, one sentence each.
    pub(super) fn compare(
        mut self,
        arrays: impl Iterator<Item = (String, Vec<usize>)>,
    ) -> std::result::Result<BTreeMap<String, Chosen<'a>>, Vec<String>> {
        let mut problems = Vec::new();
        let mut chosen = BTreeMap::new();
        for (name, shape) in arrays {
            let Some(found) = self.arrays.remove(&name) else {
                problems.push(format!("{}{name} {shape:?} is missing", self.scope));
                continue;
            };
            problems.extend(differences(found.variable, &shape));
            chosen.insert(name, found);
        }
        let extra = self.arrays.values().map(|c| c.variable.name.as_str()).chain(self.foreign);
        problems.extend(extra.map(|name| format!("{name} is extra")));
        if problems.is_empty() { Ok(chosen) } else { Err(problems) }
    }
}
