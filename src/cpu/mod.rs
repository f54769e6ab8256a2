//! The CPU engine.
//!
//! The idea: weights are packed once; a batch is one block of memory, one schedule and one team of
//! threads that walks through it. `network.rs` says what is computed, `schedule.rs` when, and here is
//! how: [`kernels`] are the inner loops, `stage` one layer on a rectangle of positions, `cached` and
//! `naive` the two ways through the layers.

mod buffer;
mod cached;
mod grid;
pub mod kernels;
pub mod limits;
mod naive;
mod packed;
mod pixels;
mod stage;
mod team;

use std::sync::atomic::AtomicBool;

use ndarray::{Array4, ArrayView4};

use crate::config::ModelConfig;
use crate::engine::{Batch, Engine, Given, Made, Method, Noise, Watch, check_labels, check_size};
use crate::error::{Error, Result};
use crate::network::Network;
use crate::weights::Weights;
use buffer::Buffer;
pub use kernels::Isa;
use kernels::Kernels;
use packed::Packed;
use pixels::Pixels;
use stage::Context;
use team::Member;

/// Packed weights up to this size stay in each core's own cache or nearly so, and a stage is done in less
/// time than threads take to meet; then each thread works on images of its own.
const SMALL_MODEL_BYTES: u64 = 8 << 20;

/// How threads share the cached generation of a batch. Which one is faster depends on the model; the
/// images are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Each thread makes images of its own.
    Images,
    /// All threads work on every image together, each on its share of every layer's outputs.
    Outputs,
}

/// How to run on the CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Number of threads, at least 1; `None` for as many as the machine has.
    pub threads: Option<usize>,
    /// The instruction set; `None` for [`Isa::from_environment`].
    pub isa: Option<Isa>,
    /// How threads share the work; `None` for what suits the size of the model.
    pub split: Option<Split>,
}

/// The CPU engine with the weights of one model.
pub struct CpuEngine {
    network: Network,
    packed: Packed,
    kernels: Kernels,
    threads: usize,
    split: Split,
    /// The block of the last full forward pass and what it was for: chunk, height and width. A new one
    /// would cost a sixth of a pass in page faults; its padding is still zero.
    naive_block: Option<([usize; 3], Buffer)>,
}

impl CpuEngine {
    /// Packs the weights.
    ///
    /// # Errors
    /// [`Error::Argument`] for 0 threads or an instruction set that the processor lacks.
    pub fn new(weights: &Weights, options: &Options) -> Result<CpuEngine> {
        let threads = match options.threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, |n| n.get()),
        };
        if threads == 0 || threads > 1024 {
            return Err(Error::argument("--threads", "1 to 1024 threads", threads.to_string()));
        }
        let isa = match options.isa {
            Some(isa) => isa,
            None => Isa::from_environment()?,
        };
        let kernels = Kernels::new(isa)
            .ok_or_else(|| Error::argument("instruction set", "one that this processor has", isa.name()))?;
        let network = Network::new(*weights.config());
        let packed = Packed::new(&network, weights);
        let small = packed.bytes() <= SMALL_MODEL_BYTES;
        let split = options.split.unwrap_or(if small { Split::Images } else { Split::Outputs });
        Ok(CpuEngine { network, packed, kernels, threads, split, naive_block: None })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Measures what this machine can do with this engine's threads and instruction set.
    pub fn limits(&self) -> limits::Limits {
        limits::Limits::measure(&self.kernels, self.threads, &self.network)
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Bytes that the packed weights take.
    pub fn weight_bytes(&self) -> u64 {
        self.packed.bytes()
    }

    /// Threads in each team and so, for each team, its share of the images.
    fn teams(&self, batch: usize) -> Vec<usize> {
        match self.split {
            Split::Images => vec![1; self.threads.min(batch)],
            Split::Outputs => vec![self.threads],
        }
    }

    fn classes(&self, labels: Option<&[u32]>, images: std::ops::Range<usize>) -> Vec<usize> {
        match labels {
            None => vec![0; images.len()],
            Some(labels) => labels[images].iter().map(|&c| c as usize).collect(),
        }
    }

    fn cached_plans(
        &self,
        size: usize,
        height: usize,
        width: usize,
        labels: Option<&[u32]>,
    ) -> Vec<cached::Plan> {
        let teams = self.teams(size);
        let plan = |i| {
            let images = team::share(size, i, teams.len());
            let classes = self.classes(labels, images.clone());
            cached::Plan::new(&self.network, &self.packed, images, classes, height, width)
        };
        (0..teams.len()).map(plan).collect()
    }

    fn make_cached(&self, batch: &Batch, pixels: &Pixels, watch: Watch) {
        let plans = self.cached_plans(batch.size, batch.height, batch.width, batch.labels);
        let mut blocks: Vec<Buffer> = plans.iter().map(|p| p.allocate()).collect();
        let blocks: Vec<_> = blocks.iter_mut().map(|b| b.share()).collect();
        let stops: Vec<_> = plans.iter().map(|_| AtomicBool::new(false)).collect();
        team::run(&self.teams(batch.size), |team, member| {
            let (plan, block) = (&plans[team], blocks[team]);
            let mut walk =
                cached::Walk::new(plan, &self.packed, self.kernels, &self.network, block, member, pixels);
            walk.watch = (team == 0 && member.index == 0).then_some(watch);
            walk.run(&stops[team]);
        });
    }

    /// Runs `work` on every member of one team with a planned full forward pass.
    fn naive_team(&mut self, batch: &Batch, pixels: &Pixels, work: impl Fn(&NaiveMember) + Sync) {
        let (height, width) = (batch.height, batch.width);
        let (chunk, len) = naive::Plan::chunk(&self.network, batch.size, height, width);
        let key = [chunk, height, width];
        let kept = self.naive_block.take().filter(|(k, _)| *k == key);
        let mut block = kept.map_or_else(|| Buffer::zeroed(len), |(_, block)| block);
        let plan = naive::Plan::new(&self.network, &self.packed, chunk, height, width);
        let memory = block.share();
        let classes = self.classes(batch.labels, 0..batch.size);
        let engine = &*self;
        team::run(&[self.threads], |_, team| {
            work(&NaiveMember { engine, plan: &plan, memory, classes: &classes, team, pixels })
        });
        self.naive_block = Some((key, block));
    }

    fn make_naive(&mut self, batch: &Batch, pixels: &Pixels, watch: Watch) {
        let stop = AtomicBool::new(false);
        self.naive_team(batch, pixels, |member| {
            use std::sync::atomic::Ordering::Relaxed;
            let mut uniforms = pixels.uniforms();
            let given = pixels.rows_given();
            let pixel = |row, column| [row..row + 1, column..column + 1];
            if given > 0 && pixels.wants_logits() {
                member.pass(batch.size, [0..given, 0..batch.width], |logits, at| {
                    // SAFETY: each pixel is one member's.
                    unsafe { pixels.keep_logits(logits, at) }
                });
            }
            for row in given..batch.height {
                for column in 0..batch.width {
                    member.pass(batch.size, pixel(row, column), |logits, at| {
                        // SAFETY: each pixel is one member's.
                        unsafe {
                            pixels.keep_logits(logits, at);
                            pixels.sample(logits, &mut uniforms, at);
                        }
                    });
                }
                if member.team.index == 0 {
                    if !watch(row + 1) {
                        pixels.interrupt();
                    }
                    stop.store(pixels.stopped(), Relaxed);
                }
                member.team.meet();
                if stop.load(Relaxed) {
                    return;
                }
            }
        });
    }
}

/// One member of the team that does full forward passes.
struct NaiveMember<'a, 'p> {
    engine: &'a CpuEngine,
    plan: &'a naive::Plan,
    memory: buffer::Shared<'a>,
    classes: &'a [usize],
    team: Member<'a>,
    pixels: &'a Pixels<'p>,
}

impl NaiveMember<'_, '_> {
    /// A full forward pass over all `size` images, in chunks; `each` sees the logits of this member's
    /// images in the given rows and columns, with (image, row, column).
    fn pass(
        &self,
        size: usize,
        [rows, columns]: [std::ops::Range<usize>; 2],
        mut each: impl FnMut(&[f32], [usize; 3]),
    ) {
        for first in (0..size).step_by(self.plan.chunk) {
            let images = first..size.min(first + self.plan.chunk);
            // The slots of a last, short chunk that hold no image are computed and not looked at.
            let mut classes = self.classes[images.clone()].to_vec();
            classes.resize(self.plan.chunk, 0);
            let context = Context {
                kernels: self.engine.kernels,
                activation: self.engine.network.config.nonlinearity,
                packed: &self.engine.packed,
                batch: self.plan.chunk,
                classes: &classes,
                memory: self.memory,
                team: self.team,
            };
            self.plan.forward(&context, self.pixels, images.clone());
            for slot in self.team.share(images.len()) {
                for row in rows.clone() {
                    for column in columns.clone() {
                        // SAFETY: the pass is over and the next one begins after the team has met.
                        let logits = unsafe { self.plan.logits(self.memory, slot, row, column) };
                        each(logits, [images.start + slot, row, column]);
                    }
                }
            }
            self.team.meet();
        }
    }
}

impl Engine for CpuEngine {
    fn name(&self) -> String {
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        format!("cpu ({}, {} {threads})", self.isa().name(), self.threads)
    }

    fn config(&self) -> &ModelConfig {
        &self.network.config
    }

    fn batch_bytes(&self, method: Method, size: usize, height: usize, width: usize) -> u64 {
        let block = match method {
            Method::Cached => {
                let teams = self.teams(size).len();
                let largest = cached::Plan::new(
                    &self.network,
                    &self.packed,
                    0..size.div_ceil(teams),
                    vec![0; size],
                    height,
                    width,
                );
                teams as u64 * largest.bytes()
            }
            Method::Naive => {
                let (_, len) = naive::Plan::chunk(&self.network, size, height, width);
                (len * size_of::<f32>()) as u64
            }
        };
        block + (size * height * width * 3 * size_of::<f32>()) as u64
    }

    fn logits(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<Array4<f32>> {
        let (size, height, width, _) = images.dim();
        check_size(height, width)?;
        check_labels(self.config(), labels, size)?;
        // Every pixel is given, so no random number is ever drawn.
        let batch = Batch {
            size,
            height,
            width,
            labels,
            noise: Noise::Philox { seed: 0, first_index: 0 },
            given: Some(Given { images, rows: height }),
            method: Method::Naive,
            keep_logits: true,
        };
        let made = self.make(&batch, &|_| true)?;
        Ok(made.logits.expect("the logits were asked for"))
    }

    fn make(&mut self, batch: &Batch, watch: Watch) -> Result<Made> {
        batch.check(self.config())?;
        let mut made = pixels::allocate(batch, self.config().logits());
        let pixels = Pixels::new(batch, self.config().mixtures, &mut made);
        match batch.method {
            Method::Cached => self.make_cached(batch, &pixels, watch),
            Method::Naive => self.make_naive(batch, &pixels, watch),
        }
        pixels.finish()?;
        Ok(made)
    }
}

#[cfg(test)]
mod tests;
