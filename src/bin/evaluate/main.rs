//! `evaluate`: how likely a model finds given images or sounds, and how its logits compare with another
//! implementation's.
//!
//! The idea: whatever can be wrong with the files is found, with the file's name, before the first pass.

#![allow(rustdoc::broken_intra_doc_links, reason = "help texts, whose brackets are shapes")]

mod sounds;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use fast_pixel_cnn::engine::Engine;
use fast_pixel_cnn::evaluate::{self, Classified, Scores, Task};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::media::files::{self, Planned};
use fast_pixel_cnn::{
    Error, ModelConfig, Result, cli, engine,
    media::{images, npy},
};
use ndarray::{Array4, Ix4};
use serde::Serialize;

/// Measure the likelihood of images under a PixelCNN++, or of sounds under a WaveNet.
///
/// Prints nats and bits per dimension of each image, or per sample of each sound, and their mean. With
/// --compare-logits also the largest difference of the logits; above the tolerance the exit status is 1. So it is
/// if the model's logits are not finite.
#[derive(Parser)]
#[command(version, allow_negative_numbers = true)]
#[command(group = ArgGroup::new("given").required(true).args(["images", "codes", "sounds"]))]
struct Args {
    #[command(flatten)]
    weights: cli::WeightsArgs,

    /// Images of one size: PNG, or .npy or .npz of type uint8 and shape [N, H, W, C] or [H, W, C], or as in
    /// ImageNet32's .npz files
    #[arg(long, value_name = "FILE", num_args = 1..)]
    images: Vec<PathBuf>,

    /// Sounds as codes: .npy or .npz of type int64, int32, uint16 or uint8 and shape [N, T] or [T]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["classify", "logits_out"])]
    codes: Option<PathBuf>,

    /// Sounds: WAV of one channel, of any lengths; resampled to the model's rate where theirs differs
    #[arg(long, value_name = "FILE", num_args = 1..,
          conflicts_with_all = ["classify", "logits_out", "key"])]
    sounds: Vec<PathBuf>,

    /// Samples of each sound that are not scored, but read as what comes before the others; 0 scores the first too, as
    /// it is drawn by generate [default: 1]
    #[arg(long, value_name = "K", conflicts_with = "images")]
    skip: Option<usize>,

    /// Classes of the images or sounds, for a class-conditional model: .npy or .npz of type int64, int32, uint16 or
    /// uint8, shape [N] or [N, 1]. Classes count from 0; ImageNet32's files count from 1, and 1 is taken off theirs
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// Tell which class of a class-conditional model each image is likeliest in, by one pass for each class;
    /// with --labels also how often that is right
    #[arg(long, conflicts_with_all = ["logits_out", "compare_logits"])]
    classify: bool,

    /// The array to take from .npz files of several, for the images or codes and, after a comma, for the labels
    /// [default: data,labels, of sounds codes,labels]
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    key: Vec<String>,

    /// Write the logits: .npy, float32 [N, H, W, 10 m]
    #[arg(long, value_name = "FILE")]
    logits_out: Option<PathBuf>,

    /// Compare the logits with these: .npy, float32 [N, H, W, 10 m]; of sounds [N, M, symbols], those at M positions, of
    /// which the one at p comes from the samples up to p and is for the next
    #[arg(long, value_name = "FILE")]
    compare_logits: Option<PathBuf>,

    /// The position of the first logits to compare a sound's with [default: they are of the last positions]
    #[arg(long, value_name = "K", conflicts_with = "images", requires = "compare_logits")]
    compare_from: Option<usize>,

    /// Largest absolute difference of logits that counts as equal
    #[arg(long, value_name = "X", default_value_t = 1e-4, requires = "compare_logits", value_parser = parse_tolerance)]
    tolerance: f64,

    #[command(flatten)]
    engine: cli::EngineArgs,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What the library calls the values of flags that have other names here.
const NAMES: [(&str, &str); 4] = [
    ("image size", "images"),
    ("class", "labels"),
    ("logits to compare with", "compare_logits"),
    ("model", "classify"),
];

fn parse_tolerance(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(tolerance) if tolerance >= 0.0 => Ok(tolerance),
        _ => Err("expected a number that is not negative".into()),
    }
}

/// What every `--json` object begins with.
#[derive(Serialize)]
struct About<'a> {
    schema: &'static str,
    version: &'static str,
    device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a ModelConfig>,
}

impl<'a> About<'a> {
    fn new(schema: &'static str, device: String, model: Option<&'a ModelConfig>) -> About<'a> {
        About { schema, version: env!("CARGO_PKG_VERSION"), device, model }
    }
}

/// The `--json` object.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    about: About<'a>,
    images: usize,
    nats: &'a [f64],
    bits_per_dim: &'a [f64],
    mean_bits_per_dim: f64,
    /// Null for a difference that is not a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_logit_difference: Option<f64>,
}

/// The `--json` object of `--classify`.
#[derive(Serialize)]
struct Classes<'a> {
    #[serde(flatten)]
    about: About<'a>,
    images: usize,
    /// Null for an image with a likelihood that is not a number.
    classes: &'a [Option<u32>],
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy: Option<f64>,
    /// For each image, under each class.
    nats: Vec<Vec<f64>>,
}

fn main() -> ExitCode {
    cli::run(&NAMES, body)
}

fn body(args: &Args) -> Result<ExitCode> {
    let weights = args.weights.load()?;
    let config = weights.config().cloned();
    let makes_sounds = config.as_ref().is_some_and(|config| config.sample_rate().is_some());
    let given = [("--codes", args.codes.is_some()), ("--sounds", !args.sounds.is_empty())];
    match given.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) if !makes_sounds => {
            return Err(Error::refused(flag, "the model is one of images, which --images names"));
        }
        None if makes_sounds => {
            return Err(Error::refused(
                "--images",
                "the model is one of sounds, which --sounds or --codes names",
            ));
        }
        _ => {}
    }
    if args.key.len() > 1 + usize::from(args.labels.is_some()) {
        let expected = "a name for the images or codes, and one for the labels where there are any";
        return Err(Error::argument("--key", expected, args.key.join(",")));
    }
    if makes_sounds {
        return sounds::evaluate(args, weights);
    }
    let bytes =
        images::read(&args.images, args.key.first().map(String::as_str), weights.graph().head.values())?;
    let labels = read_labels(args, weights.graph(), &bytes)?;
    let compare = match &args.compare_logits {
        Some(file) => Some(read_logits(file, weights.graph(), &bytes)?),
        None => None,
    };
    if let Some(file) = &args.logits_out {
        files::check_writable(file)?;
        let (count, height, width, _) = bytes.dim();
        let numbers =
            [count, height, width, weights.graph().head.logits()].iter().fold(4, |n, &d| d as u64 * n);
        let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty());
        let planned = Planned { files: 1, bytes: numbers };
        files::check_room(directory.unwrap_or(Path::new(".")), &[planned])?;
    }
    let mut engine = args.engine.open(&weights)?;
    drop(weights);
    if args.classify {
        return classify(args, config.as_ref(), &mut engine, &bytes, labels.as_deref());
    }

    let task = Task {
        images: bytes.view(),
        labels: labels.as_deref(),
        compare: compare.as_ref().map(|logits| logits.view()),
        keep_logits: args.logits_out.is_some(),
    };
    let scores = evaluate::evaluate(&mut engine, &task)?;
    if let Some((file, logits)) = args.logits_out.as_ref().zip(scores.logits.as_ref()) {
        images::write_npy(file, logits)?;
    }
    if args.json {
        print_json(&scores, config.as_ref(), engine.name())?;
    } else {
        print_table(&scores)?;
    }
    judge(args, &scores.nats, scores.max_logit_difference, "images")
}

/// The largest difference of the logits where people read it, and the exit status of the whole; `of` is what the
/// likelihoods are of.
fn judge(args: &Args, nats: &[f64], max_logit_difference: Option<f64>, of: &str) -> Result<ExitCode> {
    let tolerance = args.tolerance;
    let above = max_logit_difference.filter(|d| d.is_nan() || *d > tolerance);
    if let Some(difference) = max_logit_difference.filter(|_| !args.json) {
        let relation = if above.is_some() { "above" } else { "within" };
        cli::print(format_args!(
            "largest logit difference: {difference:e}, {relation} the tolerance of {tolerance:e}"
        ))?;
    }
    let unusable = verdict(nats.iter().map(|nats| nats.is_nan()), of);
    let differ = |found: f64| {
        cli::failed(format_args!(
            "the logits differ by up to {found:e}, above the tolerance of {tolerance:e}"
        ))
    };
    Ok(unusable.or_else(|| above.map(differ)).unwrap_or(ExitCode::SUCCESS))
}

/// Tells the class of each image.
fn classify(
    args: &Args,
    config: Option<&ModelConfig>,
    engine: &mut dyn Engine,
    images: &Array4<u8>,
    labels: Option<&[u32]>,
) -> Result<ExitCode> {
    let found = evaluate::classify(engine, images.view())?;
    let count = found.classes.len();
    let right = labels.map(|labels| found.right(labels));
    if args.json {
        print_object(&Classes {
            about: About::new("fast-pixel-cnn/classify/1", engine.name(), config),
            images: count,
            classes: &found.classes,
            labels,
            accuracy: right.map(|right| right as f64 / count as f64),
            nats: found.nats.rows().into_iter().map(|row| row.to_vec()).collect(),
        })?;
    } else {
        let (_, height, width, _) = images.dim();
        let head = engine.graph().head;
        print_classes(&found, labels, |nats| head.bits_per_dim(nats, height, width))?;
        if let Some(right) = right {
            let share = 100.0 * right as f64 / count as f64;
            cli::print(format_args!("accuracy: {share:.2} %, {right} of {count} images"))?;
        }
    }
    Ok(verdict(found.classes.iter().map(|class| class.is_none()), "images").unwrap_or(ExitCode::SUCCESS))
}

/// Says which images or sounds have a likelihood that is not a number, if any, and gives the exit status for that.
fn verdict(unusable: impl Iterator<Item = bool>, of: &str) -> Option<ExitCode> {
    let unusable: Vec<bool> = unusable.collect();
    let first = unusable.iter().position(|u| *u)?;
    let (count, all) = (unusable.iter().filter(|u| **u).count(), unusable.len());
    Some(cli::failed(format_args!(
        "the logits of {count} of {all} {of} are not finite, first those of {} {first}: the weights are unusable",
        of.trim_end_matches('s')
    )))
}

/// Reads and checks the labels, and the size of the images.
fn read_labels(args: &Args, graph: &Graph, images: &Array4<u8>) -> Result<Option<Vec<u32>>> {
    let (count, height, width, _) = images.dim();
    engine::check_size(graph, height, width)?;
    let labels = labels(args)?;
    // To classify, labels are only compared with.
    if labels.is_some() || !args.classify {
        engine::check_labels(graph, labels.as_deref(), count)?;
    }
    Ok(labels)
}

/// The labels in the file that is named, if one is.
fn labels(args: &Args) -> Result<Option<Vec<u32>>> {
    let key = args.key.get(1).map(String::as_str);
    let labels = args.labels.as_ref().map(|file| npy::labels_of(file, key)).transpose()?;
    if labels.as_ref().is_some_and(|labels| labels.counted_from_one) {
        cli::warn("the labels are in ImageNet32's form and count from 1: 1 was taken off each");
    }
    Ok(labels.map(|labels| labels.classes))
}

fn read_logits(file: &Path, graph: &Graph, images: &Array4<u8>) -> Result<Array4<f32>> {
    let (count, height, width, _) = images.dim();
    let expected = [count, height, width, graph.head.logits()];
    let found = npy::shape_of::<f32>(file)?;
    let wrong = || Error::malformed(file, "shape", format!("{expected:?}"), format!("{found:?}"));
    if found != expected {
        return Err(wrong());
    }
    npy::read_f32(file)?.into_dimensionality::<Ix4>().map_err(|_| wrong())
}

fn print_table(scores: &Scores) -> Result<()> {
    cli::print(format_args!("{:>6} {:>14} {:>14}", "image", "nats", "bits/dim"))?;
    for (i, (nats, bits)) in scores.nats.iter().zip(&scores.bits_per_dim).enumerate() {
        cli::print(format_args!("{i:>6} {nats:>14.3} {bits:>14.5}"))?;
    }
    let mean_nats = scores.nats.iter().sum::<f64>() / scores.nats.len() as f64;
    let mean_bits = scores.mean_bits_per_dim();
    cli::print(format_args!("{:>6} {mean_nats:>14.3} {mean_bits:>14.5}", "mean"))
}

fn print_classes(
    found: &Classified,
    labels: Option<&[u32]>,
    bits_per_dim: impl Fn(f64) -> f64,
) -> Result<()> {
    let label = |text: &str| labels.map_or(String::new(), |_| format!(" {text:>6}"));
    cli::print(format_args!(
        "{:>6} {:>6}{} {:>14} {:>14}",
        "image",
        "class",
        label("label"),
        "nats",
        "bits/dim"
    ))?;
    for (i, (class, nats)) in found.classes.iter().zip(found.nats.rows()).enumerate() {
        let label = labels.map_or(String::new(), |labels| label(&labels[i].to_string()));
        let (name, nats) = class.map_or(("-".into(), f64::NAN), |k| (k.to_string(), nats[k as usize]));
        let bits = bits_per_dim(nats);
        cli::print(format_args!("{i:>6} {name:>6}{label} {nats:>14.3} {bits:>14.5}"))?;
    }
    Ok(())
}

fn print_json(scores: &Scores, config: Option<&ModelConfig>, device: String) -> Result<()> {
    print_object(&Report {
        about: About::new("fast-pixel-cnn/evaluate/1", device, config),
        images: scores.nats.len(),
        nats: &scores.nats,
        bits_per_dim: &scores.bits_per_dim,
        mean_bits_per_dim: scores.mean_bits_per_dim(),
        max_logit_difference: scores.max_logit_difference,
    })
}

fn print_object(object: &impl Serialize) -> Result<()> {
    let json =
        serde_json::to_string(object).map_err(|e| Error::io(Path::new("stdout"), "write")(e.into()))?;
    cli::print(json)
}
