//! Naive against cached over batch sizes: the paper's speed-up figure, made on this machine.
//!
//! The idea: three numbers for each batch. The ratio to the naive method (and how that was run), the
//! seconds, and the share of what this machine can do at most, measured in the same run.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use fast_pixel_cnn::cpu::kernels::Kernels;
use fast_pixel_cnn::cpu::limits::{Limits, peak_flops};
use fast_pixel_cnn::cpu::{CpuEngine, Isa, Options};
use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise};
use fast_pixel_cnn::figure::{self, PAPER, Speedups};
use fast_pixel_cnn::images::{check_writable, write_atomically};
use fast_pixel_cnn::{Error, ModelConfig, Result, Weights, cli, memory, weights};
use ndarray::Array4;
use serde::Serialize;

/// Rows and columns of the images, as in the paper.
const SIDE: usize = 32;
/// Whole generations that are timed for each batch, after one that is not.
const CACHED_REPEATS: usize = 3;

/// The flags of a measurement.
const MEASURING: [&str; 5] = ["checkpoint", "batch_sizes", "naive_passes", "json", "threads"];

/// Times naive and cached generation and states the share of this machine's limit
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Weights: a folder made by convert, or a TensorFlow checkpoint [default: the paper's model with
    /// synthetic weights; speed does not depend on their values]
    #[arg(short = 'c', long, value_name = "PATH")]
    checkpoint: Option<PathBuf>,

    /// Batch sizes to time
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,4,8,16")]
    batch_sizes: Vec<usize>,

    /// Full forward passes to time for each batch; a naive image takes one for each pixel
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

    /// Threads [default: as many as the machine has]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
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

#[derive(Serialize)]
struct Machine {
    processor: String,
    threads: usize,
    instruction_set: &'static str,
}

/// Rates in operations and bytes per second.
#[derive(Serialize)]
struct Limit {
    flops: f64,
    flops_by_instruction_set: Vec<(&'static str, f64)>,
    read_every_pixel_set: f64,
    read_pixel_set: f64,
    read_main_memory: f64,
}

#[derive(Serialize)]
struct Model {
    #[serde(flatten)]
    config: ModelConfig,
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
    naive_seconds: f64,
    naive_passes: usize,
    naive_pass_seconds: Spread,
    cached_seconds: f64,
    cached_repeats: usize,
    cached_spread: Spread,
    speedup: f64,
    paper_speedup: Option<f64>,
    images_per_second: f64,
    share_of_limit: f64,
    naive_share_of_limit: f64,
}

#[derive(Clone, Copy, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    /// Of `repeats` timings of `run`, after one that does not count.
    fn of(repeats: usize, mut run: impl FnMut() -> Result<()>) -> Result<Spread> {
        run()?;
        let mut seconds = Vec::new();
        for _ in 0..repeats {
            let begin = Instant::now();
            run()?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let n = seconds.len();
        let median = (seconds[(n - 1) / 2] + seconds[n / 2]) / 2.0;
        Ok(Spread { min: seconds[0], median, max: seconds[n - 1] })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(|| run(&args))
}

fn run(args: &Args) -> Result<ExitCode> {
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
    let (weights, described) = match &args.checkpoint {
        Some(path) => (Weights::load(path, &weights::Options::default())?, path.display().to_string()),
        None => (Weights::synthetic(ModelConfig::PAPER, 2702), "synthetic".into()),
    };
    weights.warnings().iter().for_each(cli::warn);
    let options = Options { threads: args.threads, ..Options::default() };
    let mut engine = CpuEngine::new(&weights, &options)?;
    if let Some(available) = memory::available() {
        for &batch in &args.batch_sizes {
            for method in [Method::Cached, Method::Naive] {
                memory::check_batch(available, batch, |size| engine.batch_bytes(method, size, SIDE, SIDE))?;
            }
        }
    }

    let network = engine.network();
    let model = Model {
        config: network.config,
        height: SIDE,
        width: SIDE,
        parameters: network.parameters(),
        multiply_adds_per_image: network.multiply_adds(SIDE, SIDE),
        weights: described,
    };
    drop(weights);
    let machine =
        Machine { processor: processor(), threads: engine.threads(), instruction_set: engine.isa().name() };
    progress("measuring what this machine can do");
    let limits = engine.limits()?;
    let limit = Limit {
        flops: limits.flops,
        flops_by_instruction_set: flops_by_instruction_set(&engine, limits.flops)?,
        read_every_pixel_set: limits.every_pixel,
        read_pixel_set: limits.some_pixels,
        read_main_memory: limits.main_memory,
    };
    describe(&machine, &limit, &model)?;

    let mut results = Vec::new();
    for &batch in &args.batch_sizes {
        let row = time(&mut engine, &limits, batch, args.naive_passes)?;
        cli::print(line(&row))?;
        results.push(row);
    }
    cli::print(format!(
        "\nNaive: {} full forward passes timed for each batch, the median times {} pixels. Cached: the \
         median of {CACHED_REPEATS} whole generations.\nShare: of the time below which this machine \
         cannot generate the batch, from its measured limits. Paper: Tesla K40.",
        args.naive_passes,
        SIDE * SIDE
    ))?;
    let figure = speedups(&machine, &model, &results);
    if let Some(path) = &args.json {
        let version = env!("CARGO_PKG_VERSION");
        let report = Report { schema: figure::SCHEMA, version, machine, limit, model, results };
        let json = serde_json::to_string_pretty(&report).expect("numbers and strings");
        write_atomically(path, |file| writeln!(file, "{json}"))?;
    }
    if let Some(path) = &args.plot {
        figure.write_svg(path)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the figure shows of a run.
fn speedups(machine: &Machine, model: &Model, results: &[Row]) -> Speedups {
    let bar = |row: &Row| figure::Bar { batch: row.batch, speedup: row.speedup };
    Speedups {
        machine: figure::Machine { processor: machine.processor.clone(), threads: machine.threads },
        model: figure::Model { parameters: model.parameters, height: model.height, width: model.width },
        bars: results.iter().map(bar).collect(),
    }
}

/// The peak of the instruction set in use has been measured; the others' are for comparison.
fn flops_by_instruction_set(engine: &CpuEngine, in_use: f64) -> Result<Vec<(&'static str, f64)>> {
    let kernels = Isa::ALL.into_iter().filter_map(Kernels::new);
    let flops = |k: &Kernels| match k.isa() == engine.isa() {
        true => Ok(in_use),
        false => peak_flops(k, engine.threads()),
    };
    kernels.map(|k| Ok((k.isa().name(), flops(&k)?))).collect()
}

fn describe(machine: &Machine, limit: &Limit, model: &Model) -> Result<()> {
    let Machine { processor, threads, instruction_set } = machine;
    cli::print(format!("Machine: {processor}, {threads} threads, {instruction_set}"))?;
    let peaks: Vec<_> =
        limit.flops_by_instruction_set.iter().map(|(name, f)| format!("{name} {:.0}", f / 1e9)).collect();
    cli::print(format!("Peak: {} GFLOP/s of fused multiply-adds", peaks.join(", ")))?;
    cli::print(format!(
        "Reads: {:.0} GB/s the weights of every pixel, {:.0} GB/s those of all pixels, {:.0} GB/s main memory",
        limit.read_every_pixel_set / 1e9,
        limit.read_pixel_set / 1e9,
        limit.read_main_memory / 1e9
    ))?;
    cli::print(format!(
        "Model: {} ({} weights), {} parameters, {:.1} G multiply-adds for each {SIDE}x{SIDE} image\n",
        model.config,
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
    format!(
        "| {} | {:.1} | {:.3} | {min:.3} to {max:.3} | {:.0} | {paper} | {:.2} | {:.0} % | {:.0} % |",
        row.batch,
        row.naive_seconds,
        row.cached_seconds,
        row.speedup,
        row.images_per_second,
        100.0 * row.share_of_limit,
        100.0 * row.naive_share_of_limit
    )
}

fn time(engine: &mut CpuEngine, limits: &Limits, size: usize, naive_passes: usize) -> Result<Row> {
    // A class-conditional model needs classes; which ones makes no difference to the time.
    let labels = (engine.config().classes > 0).then(|| vec![0; size]);
    let labels = labels.as_deref();
    let batch = Batch {
        size,
        height: SIDE,
        width: SIDE,
        labels,
        noise: Noise::Philox { seed: 2702, first_index: 0 },
        given: None,
        method: Method::Cached,
        keep_logits: false,
    };
    progress(&format!("batch {size}: cached"));
    let cached = Spread::of(CACHED_REPEATS, || engine.make(&batch, &|_| true).map(drop))?;
    progress(&format!("batch {size}: naive"));
    let images = Array4::zeros((size, SIDE, SIDE, 3));
    let naive = Spread::of(naive_passes, || engine.logits(images.view(), labels).map(drop))?;

    let naive_seconds = naive.median * (SIDE * SIDE) as f64;
    let network = engine.network();
    Ok(Row {
        batch: size,
        naive_seconds,
        naive_passes,
        naive_pass_seconds: naive,
        cached_seconds: cached.median,
        cached_repeats: CACHED_REPEATS,
        cached_spread: cached,
        speedup: naive_seconds / cached.median,
        paper_speedup: PAPER.iter().find(|(b, _)| *b == size).map(|(_, s)| *s),
        images_per_second: size as f64 / cached.median,
        share_of_limit: limits.cached_seconds(network, size, SIDE, SIDE) / cached.median,
        naive_share_of_limit: limits.forward_seconds(network, size, SIDE, SIDE) / naive.median,
    })
}

/// The processor's name, where the system tells it.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_string()
}

/// Says on a terminal what is going on, since naive passes over large batches take a while.
fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{what} ...");
    }
}
