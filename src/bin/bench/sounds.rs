//! Sounds under the clock: a WaveNet over batch sizes, and the paper's network of sounds over its layers.
//!
//! The idea: a sample takes the same time wherever it stands, so that some of them are enough to tell how long one takes;
//! naive, each takes a pass over what it depends on.

use std::process::ExitCode;
use std::time::Instant;

use fast_pixel_cnn::cpu::limits::SampleLimits;
use fast_pixel_cnn::device::Device;
use fast_pixel_cnn::engine::{Batch, Engine, Given, Method};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::media::figure::{self, Against, PAPER_OF_SOUNDS, Speedups};
use fast_pixel_cnn::models::fast_wavenet;
use fast_pixel_cnn::{Error, ModelConfig, Result, Weights, cli, memory};
use ndarray::Array4;
use serde::Serialize;

use super::{Args, Bench, Machine, Spread, batch_sizes, cpu, cuda, labels, progress, write};

/// Runs of cached generation that are timed, after one that is not.
const CACHED_REPEATS: usize = 5;
/// Seconds that such a run takes, about, and its samples.
const CACHED_SECONDS: f64 = 0.3;
const CACHED_SAMPLES: [usize; 2] = [128, 16_000];
/// Seconds within which several naive samples are made in one run, so that beginning a run does not count.
const NAIVE_SECONDS: f64 = 0.02;
const NAIVE_SAMPLES: usize = 1000;

/// Numbers of layers to time.
#[derive(Clone, Debug)]
pub struct Layers(Vec<usize>);

/// The value of `--layers`: `A..B`, both of them too, or numbers with commas.
pub fn parse_layers(text: &str) -> std::result::Result<Layers, String> {
    let number = |text: &str| text.parse().ok().filter(|n| (1..=21).contains(n));
    let layers: Option<Vec<usize>> = match text.split_once("..") {
        Some((first, last)) => number(first).zip(number(last)).map(|(first, last)| (first..=last).collect()),
        None => text.split(',').map(number).collect(),
    };
    let layers = layers.filter(|layers| !layers.is_empty());
    layers.map(Layers).ok_or_else(|| "expected A..B with A up to B, or a list, from 1 to 21".into())
}

#[derive(Serialize)]
struct Report<'a, Row> {
    schema: &'static str,
    version: &'static str,
    machine: &'a Machine,
    limit: Option<Limit>,
    model: Model,
    results: &'a [Row],
}

/// Rates in operations and bytes per second, in the last row's run.
#[derive(Clone, Copy, Serialize)]
struct Limit {
    flops: f64,
    read_weights: f64,
}

#[derive(Serialize)]
struct Model {
    #[serde(flatten)]
    config: Option<ModelConfig>,
    parameters: usize,
    multiply_adds_per_sample: u64,
    /// Samples that one depends on: what a naive one takes a pass over.
    height: usize,
    width: usize,
    weights: String,
}

/// What the clock said. Seconds are for one more sample of each sound of the batch.
#[derive(Serialize)]
struct Times {
    naive_seconds_per_sample: f64,
    naive_passes: usize,
    naive_spread: Spread,
    cached_seconds_per_sample: f64,
    cached_samples: usize,
    cached_spread: Spread,
    speedup: f64,
    /// Of all sounds together.
    samples_per_second: f64,
    share_of_limit: Option<f64>,
}

/// A batch size of a WaveNet.
#[derive(Serialize)]
struct OfBatch {
    batch: usize,
    #[serde(flatten)]
    times: Times,
    /// Of one sound: seconds of sound in a second.
    realtime_factor: f64,
}

/// A number of layers of the paper's network.
#[derive(Serialize)]
struct OfLayers {
    layers: usize,
    receptive_field: usize,
    parameters: usize,
    #[serde(flatten)]
    times: Times,
    paper_naive_seconds_per_sample: Option<f64>,
    paper_cached_seconds_per_sample: Option<f64>,
    paper_speedup: Option<f64>,
}

/// An engine and what bounds it, where that is known.
struct Subject {
    engine: Box<dyn Engine>,
    machine: Machine,
    limits: Option<SampleLimits>,
}

impl Subject {
    fn new(weights: &Weights, device: Device, args: &Args) -> Result<Subject> {
        match device {
            Device::Cpu => {
                let cpu = cpu::Cpu::new(weights, &args.engine)?;
                progress("measuring what this machine can do");
                let (machine, limits) = (cpu.machine(), Some(cpu.sample_limits()?));
                Ok(Subject { engine: Box::new(cpu.into_engine()), machine, limits })
            }
            Device::Cuda(number) => {
                let cuda = cuda::Cuda::new(weights, number, &args.engine)?;
                let machine = cuda.machine();
                Ok(Subject { engine: cuda.boxed(), machine, limits: None })
            }
        }
    }

    fn limit(&self) -> Option<Limit> {
        self.limits.map(|limits| Limit { flops: limits.flops, read_weights: limits.read })
    }

    /// What the share of a limit is, or why there is none.
    fn share_of_what(&self) -> &'static str {
        match self.limits {
            Some(_) => {
                "Share: of the time below which this machine cannot make the sample, by its multiply-adds or by \
                 reading all weights once."
            }
            None => {
                "No share: on a GPU a sample is a chain of small stages, each of which waits for the one before, \
                 and what bounds that is not known."
            }
        }
    }

    /// Prints what it runs on.
    fn describe(&self) -> Result<()> {
        cli::print(format_args!("Machine: {}, {}", self.machine.processor, self.engine.name()))?;
        let Some(limits) = self.limits else { return Ok(()) };
        cli::print(format_args!(
            "Peak: {:.0} GFLOP/s of fused multiply-adds; reads {:.0} GB/s of {:.2} MB of weights",
            limits.flops / 1e9,
            limits.read / 1e9,
            limits.bytes / 1e6
        ))
    }

    /// Times a batch of so many sounds.
    fn time(&mut self, size: usize, passes: usize) -> Result<Times> {
        let graph = self.engine.graph();
        let (field, values) = (graph.receptive_rows(), graph.head.values());
        let bound = self.limits.map(|limits| limits.seconds(graph, size));
        let labels = labels(graph, size);
        let labels = labels.as_deref();

        progress(&format!("batch {size}: cached"));
        let [least, most] = CACHED_SAMPLES;
        let first = made(&mut *self.engine, &sounds(size, least, labels))? / least as f64;
        let samples = ((CACHED_SECONDS / first) as usize).clamp(least, most);
        let cached = Spread::warm(CACHED_REPEATS, || {
            Ok(made(&mut *self.engine, &sounds(size, samples, labels))? / samples as f64)
        })?;

        progress(&format!("batch {size}: naive"));
        // The samples before the first that is made are there, so that each pass is over as many as it depends on.
        let mut naive = |samples: usize| {
            let images = Array4::zeros((size, field + samples, 1, values));
            let given = Some(Given { images: images.view(), rows: field });
            let batch = Batch { given, method: Method::Naive, ..sounds(size, field + samples, labels) };
            Ok(made(&mut *self.engine, &batch)? / samples as f64)
        };
        let first = naive(1)?;
        let in_one = ((NAIVE_SECONDS / first) as usize).clamp(1, NAIVE_SAMPLES);
        let naive = Spread::warm(passes, || naive(in_one))?;
        Ok(Times {
            naive_seconds_per_sample: naive.median,
            naive_passes: passes * in_one,
            naive_spread: naive,
            cached_seconds_per_sample: cached.median,
            cached_samples: CACHED_REPEATS * samples,
            cached_spread: cached,
            speedup: naive.median / cached.median,
            samples_per_second: size as f64 / cached.median,
            share_of_limit: bound.map(|bound| bound / cached.median),
        })
    }

    /// Refuses a batch of sounds that memory does not hold.
    fn check(&self, size: usize) -> Result<()> {
        let Some(available) = self.engine.available() else { return Ok(()) };
        let naive = self.engine.graph().receptive_rows() + NAIVE_SAMPLES;
        for (method, samples) in [(Method::Cached, CACHED_SAMPLES[1]), (Method::Naive, naive)] {
            memory::check_batch(available, size, |size| self.engine.batch_bytes(method, size, samples, 1))?;
        }
        Ok(())
    }
}

/// A batch of sounds.
fn sounds(size: usize, samples: usize, labels: Option<&[u32]>) -> Batch<'_> {
    Batch { labels, ..Batch::new(size, samples, 1) }
}

/// Seconds of making a batch.
fn made(engine: &mut dyn Engine, batch: &Batch) -> Result<f64> {
    let start = Instant::now();
    engine.make(batch, &|_| true)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Refuses the flag that is of images.
fn only_for_images(args: &Args) -> Result<()> {
    match args.profile_rows {
        Some(_) => Err(Error::refused("--profile-rows", "only for models of images")),
        None => Ok(()),
    }
}

/// Times a WaveNet over batch sizes.
pub fn over_batches(args: &Args, weights: Weights, described: String) -> Result<ExitCode> {
    only_for_images(args)?;
    let sizes = batch_sizes(args, &[1, 4, 16]);
    let device = args.engine.device()?;
    if args.explain || args.phases {
        let size = [CACHED_SAMPLES[1], 1];
        return match device {
            Device::Cpu if args.explain => cpu::Cpu::new(&weights, &args.engine)?.explain(&sizes, size),
            Device::Cpu => cpu::Cpu::new(&weights, &args.engine)?.phases(&sizes, size),
            Device::Cuda(number) if args.explain => {
                cuda::Cuda::new(&weights, number, &args.engine)?.explain(&sizes, size)
            }
            Device::Cuda(_) => Err(cli::only_for("--phases", "--device cpu", device)),
        };
    }
    let mut subject = Subject::new(&weights, device, args)?;
    let config = weights.config().cloned();
    drop(weights);
    sizes.iter().try_for_each(|&size| subject.check(size))?;
    let rate = config.as_ref().and_then(|config| config.sample_rate()).unwrap_or(16_000);
    let model = model(subject.engine.graph(), config, described);

    subject.describe()?;
    let config = model.config.as_ref().map_or_else(String::new, |config| format!("{config} "));
    cli::print(format_args!(
        "Model: {config}({} weights), {} parameters, {:.2} M multiply-adds for each sample\n",
        model.weights,
        model.parameters,
        model.multiply_adds_per_sample as f64 / 1e6
    ))?;
    cli::print(
        "| batch | naive ms/sample | cached ms/sample | min to max | speed-up | samples/s | times real time | share of limit |",
    )?;
    cli::print("| ---: | ---: | ---: | :---: | ---: | ---: | ---: | ---: |")?;
    let mut rows = Vec::new();
    for batch in sizes {
        let times = subject.time(batch, args.naive_passes)?;
        let realtime_factor = 1.0 / (times.cached_seconds_per_sample * f64::from(rate));
        let [naive, cached, spread] = cells(&times);
        cli::print(format_args!(
            "| {batch} | {naive} | {cached} | {spread} | {:.0} | {:.0} | {realtime_factor:.2} | {} |",
            times.speedup,
            times.samples_per_second,
            share(&times)
        ))?;
        rows.push(OfBatch { batch, times, realtime_factor });
    }
    cli::print(format_args!(
        "\nA sample is one more of each sound of the batch; samples/s counts all sounds, real time one, at {rate} Hz.\n\
         Naive: a pass over {} samples for each; the median of {} of them or more. Cached: the median of \
         {CACHED_REPEATS} runs.\n{}",
        model.height,
        args.naive_passes,
        subject.share_of_what()
    ))?;
    let bars = rows.iter().map(|row| figure::Bar { at: row.batch, speedup: row.times.speedup }).collect();
    finish(args, Against::Sounds, &subject, model, &rows, bars)
}

/// Times the paper's network of sounds over numbers of layers.
pub fn over_layers(args: &Args) -> Result<ExitCode> {
    only_for_images(args)?;
    let sizes = !args.batch_sizes.is_empty();
    let flags = [("--explain", args.explain), ("--phases", args.phases), ("--batch-sizes", sizes)];
    if let Some((flag, _)) = flags.into_iter().find(|(_, given)| *given) {
        return Err(Error::refused(flag, "not for --model fast-wavenet, which is timed with one sound"));
    }
    let layers = args.layers.as_ref().map_or_else(|| (1..=14).collect(), |layers| layers.0.clone());
    let device = args.engine.device()?;
    let open = |layers| {
        let subject = Subject::new(&Weights::synthetic_for(fast_wavenet(layers), 2702), device, args)?;
        subject.check(1)?;
        Ok(subject)
    };
    // The largest first, so that what memory does not hold is refused before the rest has been timed.
    open(layers.iter().copied().max().unwrap_or(1))?.describe()?;
    cli::print(
        "Model: the paper's network of sounds, two blocks of L layers of 128 channels, synthetic weights\n",
    )?;
    cli::print(
        "| L | samples a pass | naive ms/sample | cached ms/sample | min to max | speed-up | share of limit | paper \
         naive ms | paper cached ms | paper |",
    )?;
    cli::print("| ---: | ---: | ---: | ---: | :---: | ---: | ---: | ---: | ---: | ---: |")?;
    let (mut rows, mut last) = (Vec::new(), None);
    for layers in layers {
        progress(&format!("{layers} layers"));
        let mut subject = open(layers)?;
        let times = subject.time(1, args.naive_passes)?;
        let paper = PAPER_OF_SOUNDS.iter().find(|(l, _)| *l == layers).map(|(_, numbers)| *numbers);
        let number = |i: usize| paper.map_or("-".into(), |numbers| numbers[i].to_string());
        let [naive, cached, spread] = cells(&times);
        let graph = subject.engine.graph();
        let (receptive_field, parameters) = (graph.receptive_rows(), parameters(graph));
        cli::print(format_args!(
            "| {layers} | {receptive_field} | {naive} | {cached} | {spread} | {:.0} | {} | {} | {} | {} |",
            times.speedup,
            share(&times),
            number(1),
            number(0),
            number(2)
        ))?;
        rows.push(OfLayers {
            layers,
            receptive_field,
            parameters,
            times,
            paper_naive_seconds_per_sample: paper.map(|[_, naive, _]| naive / 1e3),
            paper_cached_seconds_per_sample: paper.map(|[cached, ..]| cached / 1e3),
            paper_speedup: paper.map(|[.., ratio]| ratio),
        });
        last = Some(subject);
    }
    let subject = last.expect("there are layers");
    cli::print(format_args!(
        "\nOne sound. Naive: a pass over what a sample depends on for each; the median of {} of them or more. \
         Cached: the median of {CACHED_REPEATS} runs.\n{} Paper: Tesla K40, read from its figure.",
        args.naive_passes,
        subject.share_of_what()
    ))?;
    let bars = rows.iter().map(|row| figure::Bar { at: row.layers, speedup: row.times.speedup }).collect();
    let model = model(subject.engine.graph(), None, "synthetic".into());
    finish(args, Against::Layers, &subject, model, &rows, bars)
}

/// Trained numbers: these networks have no weight normalisation.
fn parameters(graph: &Graph) -> usize {
    graph.arrays(true).map(|(_, _, shape)| shape.iter().product::<usize>()).sum()
}

fn model(graph: &Graph, config: Option<ModelConfig>, weights: String) -> Model {
    Model {
        config,
        parameters: parameters(graph),
        multiply_adds_per_sample: graph.multiply_adds(1, 1),
        height: graph.receptive_rows(),
        width: 1,
        weights,
    }
}

/// Writes the report and the figure, where they are wanted.
fn finish<Row: Serialize>(
    args: &Args,
    against: Against,
    subject: &Subject,
    model: Model,
    results: &[Row],
    bars: Vec<figure::Bar>,
) -> Result<ExitCode> {
    let machine = &subject.machine;
    let figure = Speedups {
        against,
        machine: figure::Machine { processor: machine.processor.clone(), threads: machine.threads },
        model: figure::Model { parameters: model.parameters, height: model.height, width: model.width },
        bars,
    };
    let (schema, version) = (against.schema(), env!("CARGO_PKG_VERSION"));
    write(args, &Report { schema, version, machine, limit: subject.limit(), model, results }, &figure)?;
    Ok(ExitCode::SUCCESS)
}

/// Naive, cached and how far that went, in milliseconds.
fn cells(times: &Times) -> [String; 3] {
    let Spread { min, max, .. } = times.cached_spread;
    let [naive, cached, min, max] =
        [times.naive_seconds_per_sample, times.cached_seconds_per_sample, min, max].map(|s| s * 1e3);
    [format!("{naive:.3}"), format!("{cached:.4}"), format!("{min:.4} to {max:.4}")]
}

fn share(times: &Times) -> String {
    times.share_of_limit.map_or("-".into(), |share| format!("{:.0} %", 100.0 * share))
}
