//! Sounds, as codes or as WAV files, under a WaveNet.

use std::f64::consts::LN_2;
use std::path::Path;
use std::process::ExitCode;

use fast_pixel_cnn::engine::Engine;
use fast_pixel_cnn::evaluate::{Sounds, evaluate_sounds};
use fast_pixel_cnn::graph::{Encoding, Graph};
use fast_pixel_cnn::heads::mu_law;
use fast_pixel_cnn::media::{npy, sounds};
use fast_pixel_cnn::{Error, Result, Weights, cli, engine};
use ndarray::{Array2, Array3, Axis, Ix3, s};
use serde::Serialize;

use super::{About, Args, judge, labels, print_object};

/// The `--json` object.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    about: About<'a>,
    sequences: usize,
    /// Samples of each sound that are scored.
    samples: &'a [usize],
    nats: &'a [f64],
    bits_per_sample: &'a [f64],
    mean_bits_per_sample: f64,
    /// Null for a difference that is not a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_logit_difference: Option<f64>,
}

/// Evaluates the sounds that the flags name.
pub fn evaluate(args: &Args, weights: Weights) -> Result<ExitCode> {
    let config = weights.config().cloned();
    let graph = weights.graph();
    let skip = args.skip.unwrap_or(1);
    // Sounds of one length, together.
    let groups = match &args.codes {
        Some(file) => vec![codes(file, args.key.first().map(String::as_str), graph)?],
        None => {
            let rate = config.as_ref().and_then(|config| config.sample_rate());
            args.sounds.iter().map(|file| wav(file, rate, graph)).collect::<Result<_>>()?
        }
    };
    let count = groups.iter().map(|group| group.dim().0).sum();
    let labels = labels(args)?;
    engine::check_labels(graph, labels.as_deref(), count)?;
    let files = args.codes.iter().chain(&args.sounds);
    let lengths = files.zip(&groups).map(|(file, group)| (group.dim().1, file));
    let (shortest, file) = lengths.min_by_key(|(length, _)| *length).expect("sounds were asked for");
    let within = |name: &str, position: usize| {
        let s = if shortest == 1 { "" } else { "s" };
        let expected = || format!("less than the {shortest} sample{s} of a sound in {}", file.display());
        if position < shortest { Ok(()) } else { Err(Error::argument(name, expected(), position)) }
    };
    within("skip", skip)?;
    within("compare from", args.compare_from.unwrap_or(0))?;
    let compare = match &args.compare_logits {
        Some(file) => Some(logits(file, [count, shortest, graph.head.logits()], args.compare_from)?),
        None => None,
    };
    let mut engine = args.engine.open(&weights)?;
    drop(weights);

    let (mut nats, mut samples) = (Vec::new(), Vec::new());
    let mut max_logit_difference = compare.as_ref().map(|_| 0.0_f64);
    for group in &groups {
        let (size, length) = group.dim();
        let range = nats.len()..nats.len() + size;
        let scores = evaluate_sounds(
            &mut engine,
            &Sounds {
                values: group.view(),
                labels: labels.as_ref().map(|labels| &labels[range.clone()]),
                skip,
                compare: compare.as_ref().map(|all| {
                    let from = args.compare_from.unwrap_or(length - all.dim().1);
                    (all.slice(s![range, .., ..]), from)
                }),
            },
        )?;
        nats.extend(scores.nats);
        samples.extend(std::iter::repeat_n(length - skip, size));
        // Not a number stays none.
        max_logit_difference = max_logit_difference
            .zip(scores.max_logit_difference)
            .map(|(a, b)| if b.is_nan() || b > a { b } else { a });
    }

    let bits = |nats: f64, samples: usize| nats / (LN_2 * samples as f64);
    let bits_per_sample: Vec<f64> = nats.iter().zip(&samples).map(|(&nats, &n)| bits(nats, n)).collect();
    let (all_nats, all_samples) = (nats.iter().sum::<f64>(), samples.iter().sum());
    let mean_bits_per_sample = bits(all_nats, all_samples);
    if args.json {
        print_object(&Report {
            about: About::new("fast-pixel-cnn/evaluate-sounds/1", engine.name(), config.as_ref()),
            sequences: count,
            samples: &samples,
            nats: &nats,
            bits_per_sample: &bits_per_sample,
            mean_bits_per_sample,
            max_logit_difference,
        })?;
    } else {
        cli::print(format_args!("{:>6} {:>9} {:>14} {:>14}", "sound", "samples", "nats", "bits/sample"))?;
        for (i, ((nats, bits), samples)) in nats.iter().zip(&bits_per_sample).zip(&samples).enumerate() {
            cli::print(format_args!("{i:>6} {samples:>9} {nats:>14.3} {bits:>14.5}"))?;
        }
        cli::print(format_args!(
            "{:>6} {all_samples:>9} {all_nats:>14.3} {mean_bits_per_sample:>14.5}",
            "all"
        ))?;
    }
    judge(args, &nats, max_logit_difference, "sounds")
}

/// The value of a code as the head draws it.
fn value(code: usize, graph: &Graph) -> f32 {
    let last = (graph.head.logits() - 1) as f64;
    graph.head.nearest((2.0 * code as f64 / last - 1.0) as f32)
}

/// The sounds `[N, T]` of a file of codes.
fn codes(file: &Path, key: Option<&str>, graph: &Graph) -> Result<Array2<f32>> {
    let codes = sounds::read_codes(file, key, graph.head.logits())?;
    Ok(codes.mapv(|code| value(code as usize, graph)))
}

/// The sound `[1, T]` of a WAV file: its amplitudes where the network reads those, else the codes nearest to them.
fn wav(file: &Path, rate: Option<u32>, graph: &Graph) -> Result<Array2<f32>> {
    let sound = sounds::read(file, rate)?;
    sound.warnings.iter().for_each(cli::warn);
    let symbols = graph.head.logits();
    let of = |amplitude: &f32| match graph.input.encoding {
        Encoding::MuLaw => mu_law::compress(*amplitude, symbols),
        _ => value(mu_law::encode(*amplitude, symbols), graph),
    };
    let values = sound.samples.iter().map(of).collect::<ndarray::Array1<f32>>();
    Ok(values.insert_axis(Axis(0)))
}

/// The logits to compare with, of so many sounds and symbols, and at no more positions than the shortest sound has from
/// the first on.
fn logits(file: &Path, [count, length, symbols]: [usize; 3], from: Option<usize>) -> Result<Array3<f32>> {
    let most = length - from.unwrap_or(0);
    let found = npy::shape_of::<f32>(file)?;
    let expected = format!("[{count}, M, {symbols}] with M from 1 to {most}");
    let wrong = || Error::malformed(file, "shape", expected.clone(), format!("{found:?}"));
    match found[..] {
        [n, m, q] if n == count && (1..=most).contains(&m) && q == symbols => {}
        _ => return Err(wrong()),
    }
    npy::read_f32(file)?.into_dimensionality::<Ix3>().map_err(|_| wrong())
}
