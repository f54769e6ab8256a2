//! From a TensorFlow checkpoint's list of variables to a configuration and a recipe.
//!
//! The idea: guess the configuration by votes, so that one damaged variable does not hide which model
//! it is, then compare every name, shape and type with the network of that configuration and report all
//! differences at once.

use std::path::Path;

use super::names::{array, parse_layer};
use super::{ELU_ASSUMED, LIMITS, NAME, Nonlinearity, PixelCnnPp, refuse_params};
use crate::checkpoint::Variable;
use crate::error::{Error, Result, list};
use crate::models::stored::{ROOM, Stored, bytes, warn_of_types};
use crate::models::variables::{Arrays, Found, warn_of_raw_values};
use crate::models::{Options, Recipe, unknown};

/// Which names are those of a PixelCNN++'s arrays.
pub(in crate::models) const ARRAYS: Arrays = array;

/// Infers the configuration, checks everything against it and chooses averaged or raw weights.
pub(in crate::models) fn recipe(file: &Path, variables: &[Variable], options: &Options) -> Result<Recipe> {
    refuse_params(options)?;
    let found = Found::sort(file, variables, ARRAYS, options.scope.as_deref(), options.raw)?;
    let found = found.ok_or_else(|| unknown(file, variables))?;
    let config = infer(&found, file)?.with_nonlinearity(options.nonlinearity)?;
    config.check_limits(file)?;
    let scalars = found.scalars.clone();
    let arrays = config.graph();
    let arrays = arrays.arrays(false).map(|(_, name, shape)| (name, shape));
    let chosen = found.compare(arrays).map_err(|problems| config.mismatch(file, problems))?;

    let mut warnings = Vec::new();
    if !options.raw {
        warnings.extend(warn_of_raw_values(variables, ARRAYS, &chosen));
    }
    warnings.extend(warn_of_types(chosen.values().map(|c| c.variable)));
    if !scalars.is_empty() {
        warnings.push(format!("an optimiser's scalars are passed over: {}", list(&scalars, ", ", ROOM)));
    }
    if config.nonlinearity.width() == 1 && options.nonlinearity.is_none() {
        warnings.push(ELU_ASSUMED.into());
    }
    let averaged = chosen.values().all(|c| c.averaged);
    let claimed = bytes(chosen.values().map(|c| c.variable));
    let stored = chosen.into_iter().map(|(name, c)| (name, Stored::Plain(c.variable.name.clone()))).collect();
    Ok(Recipe { config: config.into(), warnings, claimed, averaged, folded: false, stored })
}

/// The configuration whose network is most like what was found.
fn infer(found: &Found<'_>, file: &Path) -> Result<PixelCnnPp> {
    let resnets = resnets(found);
    let names = |layers: &[&str], parts: &[&str]| -> Vec<String> {
        layers.iter().flat_map(|l| parts.iter().map(move |p| format!("{l}/{p}"))).collect()
    };
    let inputs = ["conv2d_0", "conv2d_1", "conv2d_2", "conv2d_3"];
    let filters = found.vote(0, &names(&inputs, &["V", "g", "b"])).unwrap_or(0);
    let last = format!("dense_{}", 9 * resnets + 4);
    let logits = found.vote(0, &names(&[&last], &["V", "g", "b"])).unwrap_or(0);
    let doubled = found.vote(1, &names(&["conv2d_3", "conv2d_4", "conv2d_5"], &["V"]));
    let terms: Vec<String> =
        layers(found, "conditional_weights").iter().map(|k| format!("conditional_weights_{k}/hw")).collect();
    let config = PixelCnnPp {
        resnets,
        filters,
        mixtures: logits.div_ceil(10),
        channels: 3,
        classes: if terms.is_empty() { 0 } else { found.vote(1, &terms).unwrap_or(0).max(1) },
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
                model: NAME,
                expected: format!("{resnets} resnets, by the number of its layers"),
                problems: vec![format!("{what} is missing or empty, which tells the sizes of the others")],
            });
        }
    }
    Ok(config)
}

/// The sorted numbers of the layers of a kind.
fn layers(found: &Found<'_>, kind: &str) -> Vec<u64> {
    let names = found.arrays.keys().filter_map(|name| parse_layer(name.split('/').next()?));
    let mut layers: Vec<u64> = names.filter(|(k, _)| *k == kind).map(|(_, number)| number).collect();
    layers.sort_unstable();
    layers.dedup();
    layers
}

/// The number of resnets per stage for which the fewest layers are missing or extra.
fn resnets(found: &Found<'_>) -> usize {
    // Layers of each kind: a * R + b.
    let kinds = [("conv2d", 24, 15), ("dense", 9, 5), ("conditional_weights", 12, 4)];
    let layers = kinds.map(|(kind, a, b)| (layers(found, kind), a, b));
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

#[cfg(test)]
mod tests;
