//! The CPU engine under the clock, and what this machine can do, measured in the same run.

use std::process::ExitCode;
use std::time::Instant;

use fast_pixel_cnn::cpu::kernels::Kernels;
use fast_pixel_cnn::cpu::limits::{Limits, SampleLimits, peak_flops};
use fast_pixel_cnn::cpu::{CpuEngine, Isa, Phases, Split};
use fast_pixel_cnn::engine::{Batch, Engine};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::{Result, Weights, cli};
use ndarray::ArrayView4;
use serde::Serialize;

use super::{Bench, CACHED_REPEATS, Machine, SIDE, batch, labels, progress};

/// What the report says of the machine beside processor and threads.
#[derive(Clone, Serialize)]
pub struct Details {
    instruction_set: &'static str,
    precision: &'static str,
}

/// Rates in operations and bytes per second.
#[derive(Serialize)]
pub struct Limit {
    flops: f64,
    flops_by_instruction_set: Vec<(&'static str, f64)>,
    read_every_pixel_set: f64,
    read_pixel_set: f64,
    read_main_memory: f64,
}

/// The engine.
pub struct Cpu {
    engine: CpuEngine,
}

/// The engine and what this machine can do.
pub struct Measured {
    engine: CpuEngine,
    limits: Limits,
    flops_by_instruction_set: Vec<(&'static str, f64)>,
}

impl Cpu {
    /// The engine that the flags ask for.
    pub fn new(weights: &Weights, args: &cli::EngineArgs) -> Result<Cpu> {
        Ok(Cpu { engine: CpuEngine::new(weights, &args.cpu())? })
    }

    /// Measures what this machine can do.
    pub fn measured(self) -> Result<Measured> {
        progress("measuring what this machine can do");
        let limits = self.engine.limits()?;
        let flops_by_instruction_set = flops_by_instruction_set(&self.engine, limits.flops)?;
        Ok(Measured { engine: self.engine, limits, flops_by_instruction_set })
    }

    /// The engine alone.
    pub fn into_engine(self) -> CpuEngine {
        self.engine
    }

    /// What this machine can do for the samples of a sound.
    pub fn sample_limits(&self) -> Result<SampleLimits> {
        self.engine.sample_limits()
    }

    /// The machine, for the report.
    pub fn machine(&self) -> Machine {
        machine(&self.engine)
    }

    /// Prints what the choice between the ways to share a batch rests on, for images or sounds of a size.
    pub fn explain(&self, batch_sizes: &[usize], [height, width]: [usize; 2]) -> Result<ExitCode> {
        let (graph, rates) = (self.engine.graph(), self.engine.ways(1, height, width).1);
        let (made, pixel, size) = match graph.is_sequence() {
            true => ("sounds", "sample", format!("{height} samples")),
            false => ("images", "pixel", format!("{height}x{width}")),
        };
        cli::print(format!(
            "A core is taken to do {:.0} GFLOP/s, to read {:.0} GB/s from its own cache ({:.0} MB of weights) and \
             {:.0} GB/s from beyond, {:.0} GB/s of what another core has just written, and a team's barrier in \
             {:.1} us. The first way of each batch of {made} of {size} is taken.\n",
            rates.flops / 1e9,
            rates.near / 1e9,
            rates.near_bytes / 1e6,
            rates.far / 1e9,
            rates.handed / 1e9,
            rates.barrier * 1e6
        ))?;
        cli::print(format_args!(
            "| batch | threads share | teams | {made} at a time | row s | {pixel} s | barrier s | predicted s |",
        ))?;
        cli::print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for &batch in batch_sizes {
            for way in self.engine.ways(batch, height, width).0 {
                let split = match way.split {
                    Split::Images => made,
                    Split::Outputs => "outputs",
                };
                cli::print(format!(
                    "| {batch} | {split} | {} of {} | {} | {:.3} | {:.3} | {:.3} | {:.3} |",
                    way.teams,
                    way.threads,
                    way.block,
                    way.row,
                    way.pixel,
                    way.barrier,
                    way.seconds()
                ))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Prints where the time goes, of the median of several generations.
    pub fn phases(&mut self, batch_sizes: &[usize], [height, width]: [usize; 2]) -> Result<ExitCode> {
        cli::print("Seconds of one thread for the whole batch, and their share of the total.\n")?;
        cli::print("| batch | row | hoist | pixels | sampling | waiting | rest | total |")?;
        cli::print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for &size in batch_sizes {
            progress(&format!("batch {size}: phases"));
            let labels = labels(self.engine.graph(), size);
            let batch = Batch { height, width, ..batch(size, labels.as_deref()) };
            self.engine.phases(&batch)?;
            let all = (0..CACHED_REPEATS).map(|_| self.engine.phases(&batch)).collect::<Result<Vec<_>>>();
            let mut all = all?;
            all.sort_by(|a, b| a.total.total_cmp(&b.total));
            let Phases { row, hoist, pixels, sampling, waiting, rest, total } = all[CACHED_REPEATS / 2];
            let cell = |seconds: f64| format!("{seconds:.3} ({:.0} %)", 100.0 * seconds / total);
            let cells = [row, hoist, pixels, sampling, waiting, rest].map(cell);
            cli::print(format!("| {size} | {} | {total:.3} |", cells.join(" | ")))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Bench for Measured {
    fn engine(&mut self) -> &mut dyn Engine {
        &mut self.engine
    }

    fn graph(&self) -> &Graph {
        self.engine.graph()
    }

    fn cached(&mut self, batch: &Batch) -> Result<f64> {
        let start = Instant::now();
        self.engine.make(batch, &|_| true)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn forward(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<f64> {
        let start = Instant::now();
        self.engine.logits(images, labels)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn lower_bounds(&self, batch: usize) -> [Option<f64>; 2] {
        let graph = self.engine.graph();
        let cached = self.limits.cached_seconds(graph, batch, SIDE, SIDE);
        [cached, self.limits.forward_seconds(graph, batch, SIDE, SIDE)].map(Some)
    }

    fn machine(&self) -> Machine {
        machine(&self.engine)
    }

    fn limit(&self) -> (super::Limit, Vec<String>) {
        let limit = Limit {
            flops: self.limits.flops,
            flops_by_instruction_set: self.flops_by_instruction_set.clone(),
            read_every_pixel_set: self.limits.every_pixel,
            read_pixel_set: self.limits.some_pixels,
            read_main_memory: self.limits.main_memory,
        };
        let (isa, precision) = (self.engine.isa().name(), self.engine.precision().name());
        let peaks = limit.flops_by_instruction_set.iter();
        let peaks: Vec<_> = peaks.map(|(name, f)| format!("{name} {:.0}", f / 1e9)).collect();
        let lines = vec![
            format!("Machine: {}, {} threads, {isa}, {precision}", processor(), self.engine.threads()),
            format!("Peak: {} GFLOP/s of fused multiply-adds", peaks.join(", ")),
            format!(
                "Reads: {:.0} GB/s the weights of every pixel, {:.0} GB/s those of all pixels, {:.0} GB/s \
                 main memory",
                limit.read_every_pixel_set / 1e9,
                limit.read_pixel_set / 1e9,
                limit.read_main_memory / 1e9
            ),
        ];
        (super::Limit::Cpu(limit), lines)
    }
}

/// What an engine runs on, and how.
fn machine(engine: &CpuEngine) -> Machine {
    let details = Details { instruction_set: engine.isa().name(), precision: engine.precision().name() };
    Machine { processor: processor(), threads: Some(engine.threads()), details: super::Details::Cpu(details) }
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

/// The processor's name, where the system tells it.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_string()
}
