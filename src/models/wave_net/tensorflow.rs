//! From a TensorFlow checkpoint's list of variables, and the file beside it, to a configuration and a recipe.
//!
//! The idea: as for a PixelCNN++ the sizes are voted for, so that one damaged variable does not hide which model it is,
//! and then every name, shape and type is compared with them. The reference gives its biases no names: they bear
//! TensorFlow's, `Variable` and `Variable_1`, in the order in which they were made.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::params::{FILE, Params};
use super::{LIMITS, NAME, WaveNet, default_dilations, no_nonlinearity};
use crate::checkpoint::Variable;
use crate::error::{Error, Result, list};
use crate::models::stored::{Block, Named, ROOM, Stored, bytes, warn_of_types};
use crate::models::variables::{Arrays, Chosen, Found, warn_of_raw_values};
use crate::models::{Options, Recipe, unknown};

/// Which names are those of a WaveNet's arrays.
pub(in crate::models) const ARRAYS: Arrays = array;

/// The kernels of a layer, and the names of their biases: filter, gate, dense, skip.
const KERNELS: [&str; 4] = ["filter", "gate", "dense", "skip"];
const BIASES: [&str; 4] = ["Variable", "Variable_1", "Variable_2", "Variable_3"];
/// A layer's kernels for the class.
const OF_CLASS: [&str; 2] = ["gc_filter", "gc_gate"];
/// The two convolutions behind the layers.
const POST: [&str; 2] = ["postprocess1", "postprocess2"];

const CAUSAL: &str = "causal_layer/filter";
const EMBEDDING: &str = "embeddings/gc_embedding";

fn of_layer(layer: usize, part: &str) -> String {
    format!("dilated_stack/layer{layer}/{part}")
}

fn behind(part: &str) -> String {
    format!("postprocessing/{part}")
}

/// The number of the layer that an array is of: 12 of `dilated_stack/layer12/filter`.
fn layer_of(array: &str) -> Option<u64> {
    let digits = array.strip_prefix("dilated_stack/layer")?.split('/').next()?;
    let number: u64 = digits.parse().ok()?;
    // Not "007" or "+7": each layer has one name.
    (number.to_string() == digits).then_some(number)
}

/// The length of the array's name that a name begins with.
fn array(inside: &str) -> Option<usize> {
    let mut parts = inside.split('/');
    let (first, second) = (parts.next()?, parts.next()?);
    let length = first.len() + 1 + second.len();
    match first {
        "causal_layer" => (second == "filter").then_some(length),
        "embeddings" => (second == "gc_embedding").then_some(length),
        "postprocessing" => (POST.contains(&second) || BIASES[..2].contains(&second)).then_some(length),
        "dilated_stack" => {
            layer_of(inside)?;
            let part = parts.next()?;
            let known = KERNELS.iter().chain(&BIASES).chain(&OF_CLASS).any(|known| *known == part);
            known.then_some(length + 1 + part.len())
        }
        _ => None,
    }
}

/// Infers the configuration, completes it from the file that is named, and checks everything against it.
pub(in crate::models) fn recipe(file: &Path, variables: &[Variable], options: &Options) -> Result<Recipe> {
    let found = Found::sort(file, variables, ARRAYS, options.scope.as_deref(), options.raw)?;
    let found = found.ok_or_else(|| unknown(file, variables))?;
    if options.nonlinearity.is_some() {
        return Err(no_nonlinearity());
    }
    let Sizes { config: known, class_channels } = infer(&found, file)?;
    known.check_limits(file)?;
    let mut warnings = Vec::new();
    let config = match &options.params {
        Some(params) => Params::read(params)?.complete(params, file, known)?,
        None => {
            let (layers, rate) = (known.dilations.len(), known.sample_rate);
            let assumed =
                format!("dilations 1, 2, 4 ... 512 for its {layers} layers and {rate} Hz are assumed");
            warnings.push(format!("there is no {FILE} beside {}: {assumed}", file.display()));
            known
        }
    };
    let scalars = found.scalars.clone();
    let arrays = arrays(&config, class_channels);
    let mut chosen = found.compare(arrays.into_iter()).map_err(|problems| config.mismatch(file, problems))?;
    // Nothing reads what the last layer would pass on.
    for unread in [KERNELS[2], BIASES[2]] {
        chosen.remove(&of_layer(config.dilations.len() - 1, unread));
    }

    let averaged = chosen.values().filter(|c| c.averaged).count();
    // The reference keeps no averages: that there are none is nothing to tell.
    if averaged > 0 {
        warnings.extend(warn_of_raw_values(variables, ARRAYS, &chosen));
    }
    warnings.extend(warn_of_types(chosen.values().map(|c| c.variable)));
    if !scalars.is_empty() {
        warnings.push(format!("an optimiser's scalars are passed over: {}", list(&scalars, ", ", ROOM)));
    }
    let claimed = bytes(chosen.values().map(|c| c.variable));
    let (averaged, stored) = (averaged == chosen.len(), stored(&config, &chosen));
    Ok(Recipe { config: config.into(), warnings, claimed, averaged, folded: true, stored })
}

/// What the shapes in a checkpoint tell.
struct Sizes {
    /// The model, with the dilations and the rate that it has where nobody says otherwise.
    config: WaveNet,
    /// Channels of what a class is embedded in.
    class_channels: usize,
}

/// The configuration whose network is most like what was found.
fn infer(found: &Found<'_>, file: &Path) -> Result<Sizes> {
    let default = WaveNet::default();
    let layers = layers(found);
    let of_layers = |parts: &[&str]| -> Vec<String> {
        (0..layers).flat_map(|i| parts.iter().map(move |p| of_layer(i, p))).collect()
    };
    let one = |name: &str| vec![name.to_string()];
    let (causal, embedding) = (one(CAUSAL), one(EMBEDDING));
    let [filter_gate, dense, skip] = [&KERNELS[..2], &KERNELS[2..3], &KERNELS[3..]].map(&of_layers);
    let of_class = of_layers(&OF_CLASS);
    let [post_1, post_2] = POST.map(|part| one(&behind(part)));
    let last_bias = one(&behind(BIASES[1]));

    // A symbol's kernel has as many inputs as there are symbols, an amplitude's one.
    let scalar_input = found.vote(1, &causal) == Some(1);
    let of_symbols: &[String] = if scalar_input { &[] } else { &causal };
    let biases = of_layers(&BIASES);
    let biases = biases.iter().cloned().chain(BIASES[..2].iter().map(|part| behind(part)));
    let biases: Vec<String> = biases.collect();
    let conditioned = found.has_most(&of_class) || found.has_most(&embedding);
    let classes = if conditioned { found.vote(1, &embedding).unwrap_or(0) } else { 0 };

    let residual = found.vote_all(&[(1, &filter_gate), (0, &dense), (0, &causal)]);
    let dilation = found.vote_all(&[(0, &filter_gate), (1, &skip), (1, &dense)]);
    let skips = found.vote_all(&[(0, &skip), (1, &post_1), (0, &post_1), (1, &post_2)]);
    let quantization = found.vote_all(&[(0, &post_2), (0, &last_bias), (1, of_symbols)]);
    let width = found.vote_all(&[(2, &filter_gate), (2, of_symbols)]);
    let first = of_layer(0, KERNELS[0]);
    let needed = [
        (residual, first.clone()),
        (dilation, first.clone()),
        (skips, of_layer(0, KERNELS[3])),
        (quantization, behind(POST[1])),
        (width, first),
        (Some(classes).filter(|_| conditioned).or(Some(1)), EMBEDDING.to_string()),
    ];
    if let Some((_, what)) = needed.iter().find(|(size, _)| size.unwrap_or(0) == 0) {
        return Err(Error::Mismatch {
            file: file.into(),
            model: NAME,
            expected: format!("{layers} layers, by their numbers"),
            problems: vec![format!(
                "{}{what} is missing or empty, which tells the sizes of the others",
                found.scope
            )],
        });
    }
    let config = WaveNet {
        dilations: default_dilations(layers),
        filter_width: width.unwrap_or(0),
        initial_filter_width: match scalar_input {
            true => found.vote(2, &causal).unwrap_or(0),
            false => default.initial_filter_width,
        },
        residual_channels: residual.unwrap_or(0),
        dilation_channels: dilation.unwrap_or(0),
        skip_channels: skips.unwrap_or(0),
        quantization_channels: quantization.unwrap_or(0),
        sample_rate: default.sample_rate,
        scalar_input,
        use_biases: found.has_most(&biases),
        classes,
    };
    let class_channels = found.vote_all(&[(0, &embedding), (1, &of_class)]).unwrap_or(0);
    Ok(Sizes { config, class_channels })
}

/// The number of layers for which the fewest are missing or extra.
fn layers(found: &Found<'_>) -> usize {
    let mut counts = BTreeMap::new();
    for number in found.arrays.keys().filter_map(|name| layer_of(name)) {
        *counts.entry(number).or_insert(0usize) += 1;
    }
    // One array of such a name is no layer beside those with all of them.
    let most = counts.values().copied().max().unwrap_or(0);
    let numbers: Vec<u64> =
        counts.iter().filter(|(_, count)| **count * 2 >= most).map(|(number, _)| *number).collect();
    let difference = |layers: u64| {
        let inside = numbers.partition_point(|number| *number < layers) as u64;
        (layers - inside) + (numbers.len() as u64 - inside)
    };
    let guesses = numbers.iter().map(|number| number.saturating_add(1).clamp(1, LIMITS[0].2 as u64));
    guesses.min_by_key(|layers| (difference(*layers), *layers)).unwrap_or(1) as usize
}

/// The arrays of a model in a checkpoint, by name within its scope, and shape.
fn arrays(config: &WaveNet, class_channels: usize) -> Vec<(String, Vec<usize>)> {
    let WaveNet { filter_width: w, quantization_channels: q, .. } = *config;
    let (r, d, s) = (config.residual_channels, config.dilation_channels, config.skip_channels);
    let symbols = if config.scalar_input { 1 } else { q };
    let mut arrays = Vec::new();
    if config.classes > 0 {
        arrays.push((EMBEDDING.into(), vec![config.classes, class_channels]));
    }
    arrays.push((CAUSAL.into(), vec![config.causal_width(), symbols, r]));
    let mut add = |names: Vec<String>, biases: Vec<String>, shapes: &[[usize; 3]]| {
        arrays.extend(names.into_iter().zip(shapes).map(|(name, shape)| (name, shape.to_vec())));
        if config.use_biases {
            arrays.extend(biases.into_iter().zip(shapes).map(|(name, shape)| (name, vec![shape[2]])));
        }
    };
    for layer in 0..config.dilations.len() {
        let name = |part| of_layer(layer, part);
        let shapes = [[w, r, d], [w, r, d], [1, d, r], [1, d, s]];
        add(KERNELS.map(name).into(), BIASES.map(name).into(), &shapes);
        if config.classes > 0 {
            add(OF_CLASS.map(name).into(), Vec::new(), &[[1, class_channels, d]; 2]);
        }
    }
    add(
        POST.map(behind).into(),
        BIASES[..2].iter().map(|part| behind(part)).collect(),
        &[[1, s, s], [1, s, q]],
    );
    arrays
}

/// Where the arrays of the graph are among the variables that were chosen for those of the checkpoint.
fn stored(config: &WaveNet, chosen: &BTreeMap<String, Chosen<'_>>) -> HashMap<String, Stored> {
    let named = |array: String| {
        let Variable { name, shape, .. } = chosen[&array].variable;
        Named { name: name.clone(), shape: shape.clone() }
    };
    let mut stored = HashMap::from([("causal/W".into(), whole([named(CAUSAL.into())]))]);
    let last = config.dilations.len() - 1;
    for layer in 0..=last {
        let mut parts = vec![("conv", vec![0, 1]), ("dense", vec![2]), ("skip", vec![3])];
        parts.retain(|(part, _)| layer < last || *part != "dense");
        for (part, kernels) in parts {
            let name = |array: &str| format!("layer_{layer}/{part}/{array}");
            let of =
                |names: [&'static str; 4]| whole(kernels.iter().map(|&k| named(of_layer(layer, names[k]))));
            stored.insert(name("W"), of(KERNELS));
            if config.use_biases {
                stored.insert(name("b"), of(BIASES));
            }
        }
        if config.classes > 0 {
            let term = |part: &&str| Block::Product(named(EMBEDDING.into()), named(of_layer(layer, part)));
            let terms = Stored::Beside(OF_CLASS.iter().map(term).collect());
            stored.insert(format!("layer_{layer}/class/hw"), terms);
        }
    }
    for (i, name) in ["post_1", "post_2"].into_iter().enumerate() {
        stored.insert(format!("{name}/W"), whole([named(behind(POST[i]))]));
        if config.use_biases {
            stored.insert(format!("{name}/b"), whole([named(behind(BIASES[i]))]));
        }
    }
    stored
}

/// Variables side by side.
fn whole(variables: impl IntoIterator<Item = Named>) -> Stored {
    Stored::Beside(variables.into_iter().map(Block::Whole).collect())
}

#[cfg(test)]
mod tests;
