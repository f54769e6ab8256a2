//! What a variable's name in a checkpoint says: the scope that the model was built in, the array, and what
//! training hung on it.
//!
//! The idea: the reference builds its model in the scope `model`, others elsewhere, but inside of it the
//! names are the same. So an array is recognised wherever it stands in a name, and a model's scope is a
//! prefix under which many do.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::{DType, Variable};
use crate::error::{Error, Result, list};
use crate::models::stored::ROOM;

/// The ending of averaged weights in the reference's training checkpoints.
pub(super) const AVERAGED: &str = "ExponentialMovingAverage";

/// A name with an array of a PixelCNN++ in it: `model/conv2d_0/V/Adam`.
pub(super) struct Name<'a> {
    /// What is before the array, with its slash: `model/`.
    pub(super) scope: &'a str,
    /// `conv2d_0/V`.
    pub(super) array: &'a str,
    /// What is behind the array, without the slash: `Adam`.
    pub(super) rest: Option<&'a str>,
}

impl Name<'_> {
    /// The first array in a name.
    pub(super) fn parse(name: &str) -> Option<Name<'_>> {
        let starts = std::iter::once(0).chain(name.match_indices('/').map(|(at, _)| at + 1));
        starts.into_iter().find_map(|start| {
            let (scope, inside) = name.split_at(start);
            let mut parts = inside.splitn(3, '/');
            let (layer, part, rest) = (parts.next()?, parts.next()?, parts.next());
            let array = &inside[..layer.len() + 1 + part.len()];
            is_array(layer, part).then_some(Name { scope, array, rest })
        })
    }

    /// Whether this is an average of its array, whatever it is called.
    pub(super) fn looks_averaged(&self) -> bool {
        let rest = self.rest.unwrap_or("").to_ascii_lowercase();
        rest.contains("average") || rest.split('/').any(|part| part == "ema")
    }
}

/// Kind and number of a layer: `conv2d_12` is `("conv2d", 12)`.
pub(super) fn parse_layer(layer: &str) -> Option<(&str, u64)> {
    let (kind, digits) = layer.rsplit_once('_')?;
    let number: u64 = digits.parse().ok()?;
    // Not "007" or "+7": each layer has one name.
    (number.to_string() == digits).then_some((kind, number))
}

/// Whether such a layer can have such a part.
fn is_array(layer: &str, part: &str) -> bool {
    match (parse_layer(layer).map(|(kind, _)| kind), part) {
        (Some("conv2d" | "deconv2d" | "dense"), "V" | "g" | "b") => true,
        (Some("conditional_weights"), part) => part == "hw",
        _ => false,
    }
}

/// Whether this is a number that an optimiser keeps: it may stand in the model's scope, but belongs to no
/// layer.
pub(super) fn is_optimiser_scalar(variable: &Variable) -> bool {
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
pub(super) struct Scopes<'a> {
    /// The one that is meant, with its slash; empty for none.
    pub(super) chosen: String,
    /// All of them.
    models: Vec<&'a str>,
}

impl<'a> Scopes<'a> {
    /// Finds the scope `wanted`, or else the only one; `None` if no variable is named like an array.
    pub(super) fn find(
        file: &Path,
        variables: &'a [Variable],
        wanted: Option<&str>,
    ) -> Result<Option<Scopes<'a>>> {
        let names = || variables.iter().filter_map(|variable| Name::parse(&variable.name));
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
                let name = wanted.trim_end_matches('/');
                let scope = if name.is_empty() { String::new() } else { format!("{name}/") };
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
    pub(super) fn is_other_model(&self, scope: &str) -> bool {
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
