//! The CUDA engine, timed by the device's own clock, and the bounds that follow from its attributes.

use std::ops::Range;
use std::process::ExitCode;

use fast_pixel_cnn::cuda::{Bounds, CudaEngine, Properties, Strategy};
use fast_pixel_cnn::engine::{Batch, Engine};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::{Result, Weights, cli};
use ndarray::ArrayView4;
use serde::Serialize;

use super::{Bench, Machine, SIDE, batch, labels};

/// What the report says of the machine beside its name.
#[derive(Clone, Serialize)]
pub struct Details {
    #[serde(flatten)]
    device: Properties,
    strategy: &'static str,
    precision: &'static str,
}

/// Rates in operations and bytes per second, from the device's attributes.
#[derive(Serialize)]
pub struct Limit {
    flops: Option<f64>,
    read_main_memory: Option<f64>,
}

/// The engine and what its device can do.
pub struct Cuda {
    engine: CudaEngine,
    bounds: Option<Bounds>,
    /// `Auto` may take another one for each batch.
    asked: Strategy,
}

impl Cuda {
    /// The engine that the flags ask for.
    pub fn new(weights: &Weights, number: u32, args: &cli::EngineArgs) -> Result<Cuda> {
        let engine = CudaEngine::new(weights, number, &args.cuda())?;
        let bounds = Bounds::of(engine.properties());
        Ok(Cuda { engine, bounds, asked: args.cuda().strategy })
    }

    /// The engine alone.
    pub fn boxed(self) -> Box<dyn Engine> {
        Box::new(self.engine)
    }

    /// Prints what each strategy is predicted to take for images or sounds of a size.
    pub fn explain(&self, batch_sizes: &[usize], [height, width]: [usize; 2]) -> Result<ExitCode> {
        let device = self.engine.properties();
        let clock = self.engine.clock();
        cli::print(format!(
            "Predicted, not measured: a sum over the stages of the schedule, in cycles of their machine code, fitted to an H100 \
             (docs/performance.md), for {} multiprocessors at {:.2} GHz.\n",
            device.multiprocessors,
            clock / 1e9,
        ))?;
        cli::print("| batch | strategy | rows s | pixels s | drawing s | cached s | naive s | ratio |")?;
        cli::print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for &batch in batch_sizes {
            for way in self.engine.predict(batch, [height, width], clock)? {
                let (cached, naive) = (way.cached(), way.naive(height, width));
                cli::print(format!(
                    "| {batch} | {} | {:.4} | {:.4} | {:.4} | {cached:.4} | {naive:.2} | {:.0} |",
                    way.strategy.name(),
                    way.rows,
                    way.pixels,
                    way.drawing,
                    naive / cached,
                ))?;
            }
        }
        let taken = batch_sizes
            .iter()
            .map(|&batch| Ok(format!("{} for {batch}", self.engine.fastest(batch, [height, width])?.name())));
        cli::print(format!("\n`auto` takes {}.", taken.collect::<Result<Vec<_>>>()?.join(", ")))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Generates each batch once, with a profiler's capture around some rows.
    pub fn profile(&mut self, batch_sizes: &[usize], rows: Range<usize>) -> Result<ExitCode> {
        for &size in batch_sizes {
            let labels = labels(self.engine.graph(), size);
            self.engine.profile(&batch(size, labels.as_deref()), rows.clone())?;
            cli::print(format!("batch {size}: rows {} to {} were captured", rows.start, rows.end - 1))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Bench for Cuda {
    fn engine(&mut self) -> &mut dyn Engine {
        &mut self.engine
    }

    fn graph(&self) -> &Graph {
        self.engine.graph()
    }

    fn cached(&mut self, batch: &Batch) -> Result<f64> {
        self.engine.make(batch, &|_| true)?;
        Ok(self.engine.device_seconds())
    }

    fn forward(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<f64> {
        self.engine.logits(images, labels)?;
        Ok(self.engine.device_seconds())
    }

    fn strategy(&self) -> Option<&'static str> {
        Some(self.engine.strategy().name())
    }

    fn lower_bounds(&self, batch: usize) -> [Option<f64>; 2] {
        let graph = self.engine.graph();
        let precision = self.engine.precision();
        let cached = self.bounds.map(|b| b.cached_seconds(graph, precision, batch, [SIDE, SIDE]));
        [cached, self.bounds.map(|b| b.forward_seconds(graph, batch, SIDE, SIDE))]
    }

    fn machine(&self) -> Machine {
        let device = self.engine.properties().clone();
        let (processor, strategy) = (device.name.clone(), self.asked.name());
        let details = Details { device, strategy, precision: self.engine.precision().name() };
        Machine { processor, threads: None, details: super::Details::Cuda(details) }
    }

    fn limit(&self) -> (super::Limit, Vec<String>) {
        let Properties { name, driver, capability, multiprocessors, clock, memory_clock, .. } =
            self.engine.properties();
        let mut lines = vec![
            format!(
                "Device: {name}, compute capability {}.{}, {multiprocessors} multiprocessors, driver for CUDA \
                 {}.{}, strategy {}, {}",
                capability.0,
                capability.1,
                driver.0,
                driver.1,
                self.asked.name(),
                self.engine.precision().name()
            ),
            format!("Clocks as reported: {:.0} MHz, memory {:.0} MHz", clock / 1e6, memory_clock / 1e6),
        ];
        lines.push(match self.bounds {
            Some(Bounds { flops, memory }) => format!(
                "Bounds: {:.1} TFLOP/s of fused multiply-adds, {:.0} GB/s from the device's memory",
                flops / 1e12,
                memory / 1e9
            ),
            None => "Bounds: unknown, since the driver does not report all clocks".to_string(),
        });
        let limit =
            Limit { flops: self.bounds.map(|b| b.flops), read_main_memory: self.bounds.map(|b| b.memory) };
        (super::Limit::Cuda(limit), lines)
    }
}
