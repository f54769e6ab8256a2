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
use fast_pixel_cnn::cpu::{CpuEngine, Isa, Phases, Split};
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
const MEASURING: [&str; 8] =
    ["checkpoint", "batch_sizes", "naive_passes", "json", "threads", "precision", "explain", "phases"];

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

    #[command(flatten)]
    engine: cli::EngineArgs,

    /// Tell how the threads would share each batch, and what is foretold for it, and time nothing
    #[arg(long)]
    explain: bool,

    /// Tell where the time of each batch's cached generation goes, and time nothing else
    #[arg(long)]
    phases: bool,
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
    precision: &'static str,
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
    let mut engine = CpuEngine::new(&weights, &args.engine.cpu())?;
    if args.explain {
        return explain(&engine, &args.batch_sizes);
    }
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
    let machine = Machine {
        processor: processor(),
        threads: engine.threads(),
        instruction_set: engine.isa().name(),
        precision: engine.precision().name(),
    };
    if args.phases {
        return phases(&mut engine, &args.batch_sizes);
    }
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

/// Prints what the choice between the ways to share a batch rests on.
fn explain(engine: &CpuEngine, batch_sizes: &[usize]) -> Result<ExitCode> {
    let rates = engine.ways(1, SIDE, SIDE).1;
    cli::print(format!(
        "A core is taken to do {:.0} GFLOP/s, to read {:.0} GB/s from its own cache ({:.0} MB of weights) and \
         {:.0} GB/s from beyond, {:.0} GB/s of what another core has just written, and a team to meet in \
         {:.1} us. The first way of each batch is taken.\n",
        rates.flops / 1e9,
        rates.near / 1e9,
        rates.near_bytes / 1e6,
        rates.far / 1e9,
        rates.handed / 1e9,
        rates.meet * 1e6
    ))?;
    cli::print(
        "| batch | threads share | teams | images at a time | row s | pixel s | meet s | foretold s |",
    )?;
    cli::print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    for &batch in batch_sizes {
        for way in engine.ways(batch, SIDE, SIDE).0 {
            let split = match way.split {
                Split::Images => "images",
                Split::Outputs => "outputs",
            };
            cli::print(format!(
                "| {batch} | {split} | {} of {} | {} | {:.3} | {:.3} | {:.3} | {:.3} |",
                way.teams,
                way.members,
                way.block,
                way.row,
                way.pixel,
                way.meet,
                way.seconds()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints where the time goes, of the median of several generations.
fn phases(engine: &mut CpuEngine, batch_sizes: &[usize]) -> Result<ExitCode> {
    cli::print("Seconds of one thread for the whole batch, and their share of the total.\n")?;
    cli::print("| batch | vertical | hoist | pixels | sampling | waiting | rest | total |")?;
    cli::print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    for &size in batch_sizes {
        progress(&format!("batch {size}: phases"));
        let labels = labels(engine, size);
        let batch = batch(size, labels.as_deref());
        engine.phases(&batch)?;
        let all = (0..CACHED_REPEATS).map(|_| engine.phases(&batch)).collect::<Result<Vec<_>>>();
        let mut all = all?;
        all.sort_by(|a, b| a.total.total_cmp(&b.total));
        let Phases { vertical, hoist, pixels, sampling, waiting, rest, total } = all[CACHED_REPEATS / 2];
        let cell = |seconds: f64| format!("{seconds:.3} ({:.0} %)", 100.0 * seconds / total);
        let cells = [vertical, hoist, pixels, sampling, waiting, rest].map(cell);
        cli::print(format!("| {size} | {} | {total:.3} |", cells.join(" | ")))?;
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
    let Machine { processor, threads, instruction_set, precision } = machine;
    cli::print(format!("Machine: {processor}, {threads} threads, {instruction_set}, {precision}"))?;
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

/// A class-conditional model needs classes; which ones makes no difference to the time.
fn labels(engine: &CpuEngine, size: usize) -> Option<Vec<u32>> {
    (engine.config().classes > 0).then(|| vec![0; size])
}

/// The batch that is timed.
fn batch(size: usize, labels: Option<&[u32]>) -> Batch<'_> {
    Batch {
        size,
        height: SIDE,
        width: SIDE,
        labels,
        noise: Noise::Philox { seed: 2702, first_index: 0 },
        given: None,
        method: Method::Cached,
        keep_logits: false,
    }
}

fn time(engine: &mut CpuEngine, limits: &Limits, size: usize, naive_passes: usize) -> Result<Row> {
    let labels = labels(engine, size);
    let labels = labels.as_deref();
    let batch = batch(size, labels);
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
