//! Naive against cached over batch sizes: the paper's speed-up figure, made on this machine; and its other one, of sounds
//! over layers.
//!
//! The idea: three numbers for each batch. The ratio to the naive method (and how that was run), the
//! seconds, and the share of what this machine can do at most. What that is and how a run is timed is
//! the backend's: [`Bench`].

mod cpu;
mod cuda;
mod sounds;

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use fast_pixel_cnn::device::Device;
use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::media::figure::{self, Against, PAPER, Speedups};
use fast_pixel_cnn::media::files::{check_writable, write_atomically};
use fast_pixel_cnn::{Error, ModelConfig, PixelCnnPp, Result, WaveNet, Weights, cli, memory};
use ndarray::{Array4, ArrayView4};
use serde::Serialize;

/// Rows and columns of the images, as in the paper.
const SIDE: usize = 32;
/// Whole generations that are timed for each batch, after one that is not.
const CACHED_REPEATS: usize = 3;

/// The flags of a measurement.
const MEASURING: [&str; 11] = [
    "network",
    "layers",
    "checkpoint",
    "ModelArgs",
    "batch_sizes",
    "naive_passes",
    "json",
    "EngineArgs",
    "explain",
    "phases",
    "profile_rows",
];

/// The flags that tell something else than naive beside cached, and those that are only for that.
const INSTEAD: [&str; 3] = ["explain", "phases", "profile_rows"];
const BESIDE: [&str; 3] = ["naive_passes", "json", "plot"];

/// Times naive and cached generation and states the share of this machine's limit
#[derive(Parser)]
#[command(version, allow_negative_numbers = true)]
#[command(mut_group("ModelArgs", |group| group.requires("checkpoint")))]
#[command(group = ArgGroup::new("instead").args(INSTEAD).conflicts_with_all(BESIDE))]
struct Args {
    /// The network to time, with synthetic weights: the paper's pixel-cnn-pp; wavenet, the default configuration of
    /// ibab/tensorflow-wavenet; or fast-wavenet, the paper's network of sounds, over its layers [default: pixel-cnn-pp]
    #[arg(long = "model", value_name = "NAME", value_enum, conflicts_with_all = ["checkpoint", "ModelArgs"])]
    network: Option<Network>,

    /// Of fast-wavenet: the layers of each of its two blocks, a range A..B with both ends or a list, from 1 to 21
    /// [default: 1..14]
    #[arg(long, value_name = "RANGE", value_parser = sounds::parse_layers, conflicts_with_all = ["batch_sizes", "checkpoint"])]
    layers: Option<sounds::Layers>,

    /// Weights: a directory made by convert, or a checkpoint of TensorFlow or PyTorch [default: the paper's model with
    /// synthetic weights; speed does not depend on their values]
    #[arg(short = 'c', long, value_name = "PATH")]
    checkpoint: Option<PathBuf>,

    #[command(flatten)]
    model: cli::ModelArgs,

    /// Batch sizes to time [default: 1,2,4,8,16, of sounds 1,4,16]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    batch_sizes: Vec<usize>,

    /// Full forward passes to time for each batch; a naive image takes one for each pixel, a naive sound one over what a
    /// sample depends on for each sample
    #[arg(long, value_name = "N", default_value_t = 3)]
    naive_passes: usize,

    /// Also write the results as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Also draw the speed-ups beside the paper's, as SVG, into this file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Measure nothing: draw the figure of an earlier run from what --json wrote
    #[arg(long, value_name = "FILE", requires = "plot", conflicts_with_all = MEASURING)]
    from_json: Option<PathBuf>,

    #[command(flatten)]
    engine: cli::EngineArgs,

    /// Tell how the threads, or the device, would share each batch, and the seconds predicted for it (a sound's for
    /// 16,000 samples), and time nothing
    #[arg(long)]
    explain: bool,

    /// Tell where the time of each batch's cached generation goes, and time nothing else
    #[arg(long)]
    phases: bool,

    /// Let a profiler capture these rows of one cached generation of each batch, from row A up to B, on a
    /// CUDA device, and time nothing
    #[arg(long, value_name = "A..B", value_parser = parse_rows)]
    profile_rows: Option<Range<usize>>,
}

/// What `--model` names.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Network {
    PixelCnnPp,
    Wavenet,
    FastWavenet,
}

fn parse_rows(text: &str) -> std::result::Result<Range<usize>, String> {
    let bounds = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    bounds
        .filter(|r: &Range<usize>| r.start < r.end && r.end <= SIDE)
        .ok_or_else(|| format!("expected A..B with A < B, both from 0 to {SIDE}"))
}

/// A backend that can be timed.
trait Bench {
    /// The engine.
    fn engine(&mut self) -> &mut dyn Engine;

    /// The network.
    fn graph(&self) -> &Graph;

    /// Seconds of a cached generation.
    fn cached(&mut self, batch: &Batch) -> Result<f64>;

    /// Seconds of a full forward pass.
    fn forward(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<f64>;

    /// How the last cached generation was run, where there are several ways.
    fn strategy(&self) -> Option<&'static str> {
        None
    }

    /// Lower bounds in seconds for [cached generation, a forward pass] of a batch, if known.
    fn lower_bounds(&self, batch: usize) -> [Option<f64>; 2];

    /// The machine, for the report.
    fn machine(&self) -> Machine;

    /// What it can do, and the lines that tell a person.
    fn limit(&self) -> (Limit, Vec<String>);
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    version: &'static str,
    machine: Machine,
    limit: Limit,
    model: Model,
    results: Vec<Row>,
}

#[derive(Clone, Serialize)]
struct Machine {
    processor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<usize>,
    #[serde(flatten)]
    details: Details,
}

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Details {
    Cpu(cpu::Details),
    Cuda(cuda::Details),
}

/// Rates in operations and bytes per second.
#[derive(Serialize)]
#[serde(untagged)]
enum Limit {
    Cpu(cpu::Limit),
    Cuda(cuda::Limit),
}

#[derive(Serialize)]
struct Model {
    #[serde(flatten)]
    config: Option<ModelConfig>,
    height: usize,
    width: usize,
    parameters: usize,
    multiply_adds_per_image: u64,
    weights: String,
}

/// Seconds are for the whole batch.
#[derive(Serialize)]
struct Row {
    batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<&'static str>,
    naive_seconds: f64,
    naive_passes: usize,
    naive_pass_seconds: Spread,
    cached_seconds: f64,
    cached_repeats: usize,
    cached_spread: Spread,
    speedup: f64,
    paper_speedup: Option<f64>,
    images_per_second: f64,
    share_of_limit: Option<f64>,
    naive_share_of_limit: Option<f64>,
}

#[derive(Clone, Copy, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    /// Of `repeats` timings of `run`, after one that does not count.
    fn of(repeats: usize, mut run: impl FnMut() -> Result<f64>) -> Result<Spread> {
        run()?;
        Spread::warm(repeats, run)
    }

    /// Of `repeats` timings of `run`, which has run before.
    fn warm(repeats: usize, mut run: impl FnMut() -> Result<f64>) -> Result<Spread> {
        let mut seconds = Vec::new();
        for _ in 0..repeats {
            seconds.push(run()?);
        }
        seconds.sort_by(f64::total_cmp);
        let n = seconds.len();
        let median = (seconds[(n - 1) / 2] + seconds[n / 2]) / 2.0;
        Ok(Spread { min: seconds[0], median, max: seconds[n - 1] })
    }
}

fn main() -> ExitCode {
    cli::run(&[("batch size", "batch_sizes")], run)
}

fn run(args: &Args) -> Result<ExitCode> {
    if args.layers.is_some() && args.network != Some(Network::FastWavenet) {
        return Err(Error::refused("--layers", "only for --model fast-wavenet"));
    }
    for (name, zero) in
        [("--batch-sizes", args.batch_sizes.contains(&0)), ("--naive-passes", args.naive_passes == 0)]
    {
        if zero {
            return Err(Error::argument(name, "at least 1", "0"));
        }
    }
    if let Some(path) = &args.plot {
        figure::check_name(path)?;
    }
    for path in args.json.iter().chain(&args.plot) {
        check_writable(path)?;
    }
    if let Some((json, plot)) = args.from_json.as_ref().zip(args.plot.as_ref()) {
        Speedups::read(json)?.write_svg(plot)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (weights, described) = match (&args.checkpoint, args.network) {
        (Some(path), _) => (args.model.load(path)?, path.display().to_string()),
        (None, Some(Network::FastWavenet)) => return sounds::over_layers(args),
        (None, Some(Network::Wavenet)) => (Weights::synthetic(WaveNet::default(), 2702), "synthetic".into()),
        (None, _) => (Weights::synthetic(PixelCnnPp::PAPER, 2702), "synthetic".into()),
    };
    if weights.config().is_some_and(|config| config.sample_rate().is_some()) {
        return sounds::over_batches(args, weights, described);
    }
    let sizes = batch_sizes(args, &[1, 2, 4, 8, 16]);
    let device = args.engine.device()?;
    let mut bench: Box<dyn Bench> = match device {
        Device::Cpu => {
            if args.profile_rows.is_some() {
                return Err(cli::only_for("--profile-rows", "--device cuda", device));
            }
            let mut bench = cpu::Cpu::new(&weights, &args.engine)?;
            if args.explain {
                return bench.explain(&sizes, [SIDE, SIDE]);
            }
            if args.phases {
                return bench.phases(&sizes, [SIDE, SIDE]);
            }
            Box::new(bench.measured()?)
        }
        Device::Cuda(number) => {
            if args.phases {
                return Err(cli::only_for("--phases", "--device cpu", device));
            }
            let mut bench = cuda::Cuda::new(&weights, number, &args.engine)?;
            if args.explain {
                return bench.explain(&sizes, [SIDE, SIDE]);
            }
            if let Some(rows) = &args.profile_rows {
                return bench.profile(&sizes, rows.clone());
            }
            Box::new(bench)
        }
    };
    let engine = bench.engine();
    if let Some(available) = engine.available() {
        for &batch in &sizes {
            for method in [Method::Cached, Method::Naive] {
                memory::check_batch(available, batch, |size| engine.batch_bytes(method, size, SIDE, SIDE))?;
            }
        }
    }

    let graph = bench.graph();
    let model = Model {
        config: weights.config().cloned(),
        height: SIDE,
        width: SIDE,
        parameters: graph.parameter_count(),
        multiply_adds_per_image: graph.multiply_adds(SIDE, SIDE),
        weights: described,
    };
    drop(weights);
    let machine = bench.machine();
    let (limit, lines) = bench.limit();
    lines.into_iter().try_for_each(cli::print)?;
    describe(&model)?;

    let mut results = Vec::new();
    for &batch in &sizes {
        let row = time(&mut *bench, batch, args.naive_passes)?;
        cli::print(line(&row))?;
        results.push(row);
    }
    cli::print(format!(
        "\nNaive: {} full forward passes timed for each batch, the median times {} pixels. Cached: the \
         median of {CACHED_REPEATS} whole generations.\nShare: of the time below which this machine \
         cannot generate the batch, from its limits. Paper: Tesla K40.",
        args.naive_passes,
        SIDE * SIDE
    ))?;
    let figure = speedups(&machine, &model, &results);
    let (schema, version) = (Against::Images.schema(), env!("CARGO_PKG_VERSION"));
    write(args, &Report { schema, version, machine, limit, model, results }, &figure)?;
    Ok(ExitCode::SUCCESS)
}

/// The batch sizes that are wanted, else the usual ones.
fn batch_sizes(args: &Args, usual: &[usize]) -> Vec<usize> {
    if args.batch_sizes.is_empty() { usual.to_vec() } else { args.batch_sizes.clone() }
}

/// Writes what a run found to the files that are named.
fn write(args: &Args, report: &impl Serialize, figure: &Speedups) -> Result<()> {
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(report).expect("numbers and strings");
        write_atomically(path, |file| writeln!(file, "{json}"))?;
    }
    args.plot.as_ref().map_or(Ok(()), |path| figure.write_svg(path))
}

/// What the figure shows of a run.
fn speedups(machine: &Machine, model: &Model, results: &[Row]) -> Speedups {
    let bar = |row: &Row| figure::Bar { at: row.batch, speedup: row.speedup };
    Speedups {
        against: Against::Images,
        machine: figure::Machine { processor: machine.processor.clone(), threads: machine.threads },
        model: figure::Model { parameters: model.parameters, height: model.height, width: model.width },
        bars: results.iter().map(bar).collect(),
    }
}

fn describe(model: &Model) -> Result<()> {
    let config = model.config.as_ref().map_or_else(String::new, |config| format!("{config} "));
    cli::print(format!(
        "Model: {config}({} weights), {} parameters, {:.1} G multiply-adds for each {SIDE}x{SIDE} image\n",
        model.weights,
        model.parameters,
        model.multiply_adds_per_image as f64 / 1e9
    ))?;
    cli::print(
        "| batch | naive s | cached s | min to max | speed-up | paper | images/s | share of limit | naive share |",
    )?;
    cli::print("| ---: | ---: | ---: | :---: | ---: | ---: | ---: | ---: | ---: |")
}

fn line(row: &Row) -> String {
    let paper = row.paper_speedup.map_or("-".into(), |s| s.to_string());
    let Spread { min, max, .. } = row.cached_spread;
    let percent = |share: Option<f64>| share.map_or("-".into(), |s| format!("{:.0} %", 100.0 * s));
    format!(
        "| {} | {:.1} | {:.3} | {min:.3} to {max:.3} | {:.0} | {paper} | {:.2} | {} | {} |",
        row.batch,
        row.naive_seconds,
        row.cached_seconds,
        row.speedup,
        row.images_per_second,
        percent(row.share_of_limit),
        percent(row.naive_share_of_limit)
    )
}

/// A class-conditional model needs classes; which ones makes no difference to the time.
fn labels(graph: &Graph, size: usize) -> Option<Vec<u32>> {
    (graph.classes > 0).then(|| vec![0; size])
}

/// The batch that is timed.
fn batch(size: usize, labels: Option<&[u32]>) -> Batch<'_> {
    Batch { labels, noise: Noise::Philox { seed: 2702, first_index: 0 }, ..Batch::new(size, SIDE, SIDE) }
}

fn time(bench: &mut dyn Bench, size: usize, naive_passes: usize) -> Result<Row> {
    let labels = labels(bench.graph(), size);
    let labels = labels.as_deref();
    let batch = batch(size, labels);
    progress(&format!("batch {size}: cached"));
    let cached = Spread::of(CACHED_REPEATS, || bench.cached(&batch))?;
    let strategy = bench.strategy();
    progress(&format!("batch {size}: naive"));
    let images = Array4::zeros((size, SIDE, SIDE, bench.graph().head.values()));
    let naive = Spread::of(naive_passes, || bench.forward(images.view(), labels))?;

    let naive_seconds = naive.median * (SIDE * SIDE) as f64;
    let [bound, naive_bound] = bench.lower_bounds(size);
    Ok(Row {
        batch: size,
        strategy,
        naive_seconds,
        naive_passes,
        naive_pass_seconds: naive,
        cached_seconds: cached.median,
        cached_repeats: CACHED_REPEATS,
        cached_spread: cached,
        speedup: naive_seconds / cached.median,
        paper_speedup: PAPER.iter().find(|(b, _)| *b == size).map(|(_, s)| *s),
        images_per_second: size as f64 / cached.median,
        share_of_limit: bound.map(|b| b / cached.median),
        naive_share_of_limit: naive_bound.map(|b| b / naive.median),
    })
}

/// Says on a terminal what is going on, since naive passes over large batches take a while.
fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{what} ...");
    }
}
