//! The CPU engine.
//!
//! The idea: weights are packed once; a batch is one block of memory, one schedule and one team of
//! threads that walks through it. `graph/` says what is computed, `plan/` when, and here is how: [`kernels`]
//! are the inner loops, `stage` and `tile` one piece on a rectangle of positions, `cached` and `naive` the two
//! ways through the pieces.

mod buffer;
mod cached;
#[doc(hidden)]
pub mod cost;
#[doc(hidden)]
pub mod kernels;
#[doc(hidden)]
pub mod limits;
mod naive;
mod packed;
mod phases;
mod pixels;
mod share;
mod stage;
mod stretches;
mod team;
mod tile;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use crate::engine::{Batch, Engine, Method, Output, Watch};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::plan::Plan;
use crate::plan::steps::Steps;
use crate::plan::window::Window;
use crate::precision::Precision;
use crate::weights::Weights;
use buffer::{Buffer, Shared};
pub use kernels::Isa;
use kernels::Kernels;
use packed::Packed;
#[doc(hidden)]
pub use phases::Phases;
use pixels::{Own, Pixels};
use stage::Context;
use team::Thread;

/// More threads than any batch could use.
const MAX_THREADS: usize = 1024;

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
    /// Number of threads, at least 1; `None` for as many as this process has cores. More than that wait for one
    /// another: a barrier of 64 threads takes most of a millisecond where there are two cores.
    pub threads: Option<usize>,
    /// The instruction set; `None` for [`Isa::from_environment`].
    pub isa: Option<Isa>,
    /// How threads share the work; `None` for what [`cost`] predicts to be faster.
    pub split: Option<Split>,
    /// How the weights of the pixel phase are stored.
    pub precision: Precision,
}

/// The CPU engine with the weights of one model.
pub struct CpuEngine {
    plan: Plan,
    steps: Steps,
    packed: Packed,
    kernels: Kernels,
    threads: usize,
    split: Option<Split>,
    precision: Precision,
    /// The block of the last full forward pass and what it was for: chunk, height and width. A new one
    /// would cost a sixth of a pass in page faults; its padding is still zero.
    naive_block: Option<([usize; 3], Buffer)>,
}

impl CpuEngine {
    /// Reads and packs the weights, each parameter once, a layer at a time on each thread, so that beside
    /// the packed weights at most a few layers are in memory.
    ///
    /// # Errors
    /// [`Error::Argument`] for 0 threads or an instruction set that the processor lacks; as for
    /// [`Weights::fold`], the graph's first parameter that is wrong; [`Error::Threads`],
    /// [`Error::Allocate`].
    pub fn new(weights: &Weights, options: &Options) -> Result<CpuEngine> {
        let threads = match options.threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_THREADS),
        };
        if threads == 0 || threads > MAX_THREADS {
            return Err(Error::argument("threads", format!("1 to {MAX_THREADS}"), threads.to_string()));
        }
        let isa = match options.isa {
            Some(isa) => isa,
            None => Isa::from_environment()?,
        };
        let kernels = Kernels::new(isa)
            .ok_or_else(|| Error::argument("instruction set", "one that this processor has", isa.name()))?;
        let precision = options.precision;
        let plan = Plan::new(weights.graph().clone());
        let packed = Packed::new(&plan, weights, precision, threads)?;
        let (steps, split) = (Steps::new(&plan), options.split);
        Ok(CpuEngine { plan, steps, packed, kernels, threads, split, precision, naive_block: None })
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
    ///
    /// # Errors
    /// [`Error::Threads`], [`Error::Allocate`].
    #[doc(hidden)]
    pub fn limits(&self) -> Result<limits::Limits> {
        limits::Limits::measure(&self.kernels, self.threads, &self.plan.graph, self.precision)
    }

    /// The same for the samples of a sound.
    ///
    /// # Errors
    /// [`Error::Threads`], [`Error::Allocate`].
    #[doc(hidden)]
    pub fn sample_limits(&self) -> Result<limits::SampleLimits> {
        limits::SampleLimits::measure(&self.kernels, self.threads, &self.plan.graph, self.precision)
    }

    /// How the weights of the pixel phase are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The ways in which the threads could share a batch, the one to be taken first, and the rates from
    /// which their times are predicted.
    #[doc(hidden)]
    pub fn ways(&self, batch: usize, height: usize, width: usize) -> (Vec<cost::Way>, cost::Rates) {
        let rates = cost::Rates::nominal(self.isa());
        let job = cost::Job { precision: self.precision, threads: self.threads, batch, height, width };
        let ways = match self.split {
            None => cost::ways(&self.plan.graph, &rates, &job).into(),
            Some(split) => vec![cost::way(&self.plan.graph, &rates, &job, split)],
        };
        (ways, rates)
    }

    /// Generates a batch with the cached method and tells where the time went, as one thread saw it.
    ///
    /// # Errors
    /// As for [`Engine::make`].
    #[doc(hidden)]
    pub fn phases(&mut self, batch: &Batch) -> Result<Phases> {
        batch.check(self.graph())?;
        let start = Instant::now();
        let mut output = pixels::allocate(batch, &self.plan.graph.head);
        let pixels = Pixels::new(batch, &self.plan.graph, &mut output);
        let phases = Mutex::new(Phases::default());
        self.make_cached(batch, &pixels, &|_| true, Some(&phases))?;
        pixels.finish()?;
        let mut phases = phases.into_inner().unwrap_or_else(|e| e.into_inner());
        phases.close(start.elapsed().as_secs_f64());
        Ok(phases)
    }

    fn way(&self, batch: usize, height: usize, width: usize) -> cost::Way {
        self.ways(batch, height, width).0[0]
    }

    fn classes(&self, labels: Option<&[u32]>, images: Range<usize>) -> Vec<usize> {
        match labels {
            None => vec![0; images.len()],
            Some(labels) => labels[images].iter().map(|&c| c as usize).collect(),
        }
    }

    fn context<'a>(
        &'a self,
        batch: usize,
        classes: &'a [usize],
        memory: Shared<'a>,
        team: Thread<'a>,
    ) -> Context<'a> {
        Context { kernels: self.kernels, packed: &self.packed, batch, classes, memory, team }
    }

    fn make_cached(
        &mut self,
        batch: &Batch,
        pixels: &Pixels,
        watch: Watch,
        phases: Option<&Mutex<Phases>>,
    ) -> Result<()> {
        self.naive_block = None;
        let way = self.way(batch.size, batch.height, batch.width);
        let blocks = way.blocks(batch.size);
        for block in 0..blocks {
            let images = team::share(batch.size, block, blocks);
            // Rows of the whole batch: as if all blocks grew together.
            let watch = |rows: usize| watch((block * batch.height + rows) / blocks);
            self.make_block(batch, images, &way, pixels, &watch, phases)?;
            if pixels.stopped() {
                break;
            }
        }
        Ok(())
    }

    /// What a team needs to generate some images of a batch.
    fn block(&self, images: Range<usize>, height: usize, width: usize) -> cached::Block<'_> {
        cached::Block::new(&self.plan, &self.steps, &self.packed, images, [height, width])
    }

    /// Bytes of the blocks of all teams, when the largest number of images is generated at a time.
    fn cached_bytes(&self, size: usize, height: usize, width: usize) -> u64 {
        let way = self.way(size, height, width);
        let images = size.div_ceil(way.blocks(size));
        let teams = way.teams.min(images);
        // Shares differ by one image at most.
        let bytes = |share: usize, teams: usize| match teams {
            0 => 0,
            _ => self.block(0..share, height, width).bytes().saturating_mul(teams as u64),
        };
        let (share, larger) = (images / teams, images % teams);
        bytes(share, teams - larger).saturating_add(bytes(share + 1, larger))
    }

    /// Generates a block of images, those that are generated at a time.
    fn make_block(
        &self,
        batch: &Batch,
        images: Range<usize>,
        way: &cost::Way,
        pixels: &Pixels,
        watch: Watch,
        phases: Option<&Mutex<Phases>>,
    ) -> Result<()> {
        let teams = way.teams.min(images.len());
        let block = |i| {
            let share = team::share(images.len(), i, teams);
            self.block(images.start + share.start..images.start + share.end, batch.height, batch.width)
        };
        let blocks: Vec<_> = (0..teams).map(block).collect();
        let classes: Vec<_> = blocks.iter().map(|b| self.classes(batch.labels, b.images())).collect();
        let memories: Result<Vec<Buffer>> = blocks.iter().map(|b| b.allocate()).collect();
        let mut memories = memories?;
        let memories: Vec<_> = memories.iter_mut().map(|m| m.share()).collect();
        let stops: Vec<_> = blocks.iter().map(|_| AtomicBool::new(false)).collect();
        team::run(&vec![way.threads; teams], |team, thread| {
            let (block, classes, memory) = (&blocks[team], &classes[team], memories[team]);
            let context = self.context(block.images().len(), classes, memory, thread);
            // The last team has the largest share, so that the others are done when it is.
            let first = team + 1 == teams && thread.index == 0;
            let (watch, phases) = (first.then_some(watch), phases.filter(|_| first));
            let clock = phases::Clock::new(phases.is_some());
            let walk = cached::Walk::new(block, context, pixels, watch, clock);
            // SAFETY: each team has a block and new memory of its own, and a walk of each thread; the images of
            // blocks are apart.
            unsafe { walk.run(&stops[team]) };
            if let Some(phases) = phases {
                phases.lock().unwrap_or_else(|e| e.into_inner()).add(walk.clock.read());
            }
        })
    }

    /// Runs `work` on every thread of one team with a planned full forward pass.
    fn naive_team(
        &mut self,
        batch: &Batch,
        pixels: &Pixels,
        work: impl Fn(&NaiveThread) + Sync,
    ) -> Result<()> {
        let (height, width) = (batch.height, batch.width);
        let (chunk, len) = naive::Pass::chunk(&self.plan, batch.size, height, width);
        let key = [chunk, height, width];
        let kept = self.naive_block.take().filter(|(k, _)| *k == key);
        let mut block = kept.map_or_else(|| Buffer::zeroed(len), |(_, block)| Ok(block))?;
        let pass = naive::Pass::new(&self.plan, &self.packed, chunk, height, width);
        let memory = block.share();
        // Unused slots of a last, short chunk are computed and ignored.
        let mut classes = self.classes(batch.labels, 0..batch.size);
        classes.resize(batch.size.next_multiple_of(chunk), 0);
        let engine = &*self;
        team::run(&[self.threads], |_, team| {
            work(&NaiveThread { engine, pass: &pass, memory, classes: &classes, team, pixels })
        })?;
        self.naive_block = Some((key, block));
        Ok(())
    }

    fn make_naive(&mut self, batch: &Batch, pixels: &Pixels, watch: Watch) -> Result<()> {
        let stop = AtomicBool::new(false);
        let window = Window::new(&self.plan, batch.height);
        self.naive_team(batch, pixels, |thread| {
            // Tells how many rows are done; returns whether to go on, the same for every thread.
            let go_on = |rows: usize| {
                if thread.team.index == 0 {
                    // After the last row there is nothing left to stop.
                    if !watch(rows) && rows < batch.height {
                        pixels.interrupt();
                    }
                    stop.store(pixels.stopped(), Relaxed);
                }
                thread.team.barrier();
                !stop.load(Relaxed)
            };
            let given = pixels.rows_given();
            if given > 0 {
                if pixels.wants_logits() {
                    let mut from = 0;
                    while from < given {
                        let (first, end) = window.at(from);
                        let rows = from..end.min(given);
                        from = end;
                        let keep = |own: &mut Own, logits: &[f32], at| own.keep_logits(logits, at);
                        // SAFETY: all threads come here.
                        unsafe { thread.pass(batch.size, first, [rows, 0..batch.width], keep) };
                    }
                }
                if !go_on(given) {
                    return;
                }
            }
            for row in given..batch.height {
                for column in 0..batch.width {
                    let draw = |own: &mut Own, logits: &[f32], at| {
                        own.keep_logits(logits, at);
                        own.sample(logits, at);
                    };
                    let (first, _) = window.at(row);
                    // SAFETY: all threads come here.
                    unsafe { thread.pass(batch.size, first, [row..row + 1, column..column + 1], draw) };
                }
                if !go_on(row + 1) {
                    return;
                }
            }
        })
    }
}

/// One thread of the team that does full forward passes. [`CpuEngine::naive_team`] makes one for each thread,
/// all with one pass, a block of its length, and the pixels that it was made for.
struct NaiveThread<'a, 'p> {
    engine: &'a CpuEngine,
    pass: &'a naive::Pass,
    memory: Shared<'a>,
    classes: &'a [usize],
    team: Thread<'a>,
    pixels: &'a Pixels<'p>,
}

impl NaiveThread<'_, '_> {
    /// A full forward pass over all `size` images, in chunks, from `first_row` on; `each` sees the logits of this
    /// thread's images in the given rows and columns, with (slot, row, column).
    ///
    /// # Safety
    /// Every thread of the team calls this at a time, with the same arguments. The pass's rows and the given ones lie
    /// in the batch, the latter in the former.
    unsafe fn pass(
        &self,
        size: usize,
        first_row: usize,
        [rows, columns]: [Range<usize>; 2],
        mut each: impl FnMut(&mut Own, &[f32], [usize; 3]),
    ) {
        for first in (0..size).step_by(self.pass.chunk) {
            let images = first..size.min(first + self.pass.chunk);
            let classes = &self.classes[first..first + self.pass.chunk];
            let context = self.engine.context(self.pass.chunk, classes, self.memory, self.team);
            let mut own = self.pixels.lend(&images, &self.team);
            // SAFETY: block, pass and pixels fit each other, as `NaiveThread` says; threads are in step, by the
            // caller's promise, and wait at a barrier after each chunk.
            unsafe { self.pass.forward(&context, &mut own, first_row) };
            for slot in own.slots() {
                for row in rows.clone() {
                    for column in columns.clone() {
                        // SAFETY: the pass is over, and the next one begins after the team has been at a barrier.
                        let logits = unsafe { self.pass.logits(self.memory, slot, row - first_row, column) };
                        each(&mut own, logits, [slot, row, column]);
                    }
                }
            }
            self.team.barrier();
        }
    }
}

impl Engine for CpuEngine {
    fn name(&self) -> String {
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        let precision = match self.precision {
            Precision::F32 => "",
            Precision::Bf16 => ", bf16",
        };
        format!("cpu ({}, {} {threads}{precision})", self.isa().name(), self.threads)
    }

    fn graph(&self) -> &Graph {
        &self.plan.graph
    }

    fn weight_bytes(&self) -> u64 {
        self.packed.bytes()
    }

    fn batch_bytes(&self, method: Method, size: usize, height: usize, width: usize) -> u64 {
        if size == 0 {
            return 0;
        }
        let block = match method {
            Method::Cached => self.cached_bytes(size, height, width),
            Method::Naive => {
                let (_, len) = naive::Pass::chunk(&self.plan, size, height, width);
                (len as u64).saturating_mul(size_of::<f32>() as u64)
            }
        };
        let images = [height, width, self.plan.graph.head.values() * size_of::<f32>()];
        block.saturating_add(images.iter().fold(size as u64, |n, &d| n.saturating_mul(d as u64)))
    }

    fn make(&mut self, batch: &Batch, watch: Watch) -> Result<Output> {
        batch.check(self.graph())?;
        let mut output = pixels::allocate(batch, &self.plan.graph.head);
        let pixels = Pixels::new(batch, &self.plan.graph, &mut output);
        match batch.method {
            Method::Cached => self.make_cached(batch, &pixels, watch, None)?,
            Method::Naive => self.make_naive(batch, &pixels, watch)?,
        }
        pixels.finish()?;
        Ok(output)
    }
}

#[cfg(test)]
mod tests;
