//! Cached generation: every position of every map is computed once.
//!
//! The idea: the steps of [`crate::plan::steps`], on rings. What is known when a row begins are matrix products over
//! the whole row; a pixel then only adds its left and own taps. All threads walk through this schedule side by side,
//! each with its share of every layer's outputs, and wait at a barrier after each step.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::buffer::Buffer;
use super::packed::Packed;
use super::phases::{Clock, Phase};
use super::pixels::{Own, Pixels};
use super::stage::{Context, Inputs, Maps, Span, Stage};
use crate::engine::Watch;
use crate::error::Result;
use crate::plan::layout::{Extent, Grid, Storage};
use crate::plan::steps::{Run, Step, Steps};
use crate::plan::{Part, Plan};

/// Multiply-adds of a stage below which one thread runs it alone: another's half would take less than the barrier.
const ALONE: usize = 1 << 14;

/// What one team needs for its images: stages with resolved addresses, and the length of the memory.
pub struct Block<'a> {
    steps: &'a Steps,
    /// By piece.
    stages: Vec<Stage>,
    /// By piece, for its hoisted part on a row and for its part at a pixel: whether one thread runs it alone.
    alone: Vec<[bool; 2]>,
    inputs: Inputs,
    logits: Grid,
    images: Range<usize>,
    extent: Extent,
    len: usize,
}

impl<'a> Block<'a> {
    /// Lays out `images` of a batch whose images have a height and a width.
    pub fn new(
        plan: &Plan,
        steps: &'a Steps,
        packed: &Packed,
        images: Range<usize>,
        [height, width]: [usize; 2],
    ) -> Block<'a> {
        let extent = Extent { batch: images.len(), height, width };
        let mut maps = Maps::new(plan, Storage::Ring, extent);
        let stages = (0..plan.pieces.len()).map(|piece| Stage::new(plan, piece, packed, &mut maps, true));
        let stages: Vec<_> = stages.collect();
        let alone = |stage: &Stage| {
            let small = |part: Option<Part>, positions| {
                part.is_some_and(|part| stage.multiply_adds(part, positions) < ALONE)
            };
            let row = images.len() * stage.piece.steps(width);
            [small(stage.piece.row_part(), row), small(stage.piece.pixel_part(), images.len())]
        };
        let alone = stages.iter().map(alone).collect();
        let logits = maps.raw(plan.graph.logits()).expect("the logits are stored as they are");
        let inputs = Inputs::new(plan, &maps);
        Block { steps, stages, alone, inputs, logits, images, extent, len: maps.layout.len }
    }

    /// Bytes that the block takes.
    pub fn bytes(&self) -> u64 {
        (self.len as u64).saturating_mul(size_of::<f32>() as u64)
    }

    /// The images, counted in the batch.
    pub fn images(&self) -> Range<usize> {
        self.images.clone()
    }

    /// Allocates the memory.
    ///
    /// # Errors
    /// [`crate::Error::Allocate`].
    pub fn allocate(&self) -> Result<Buffer> {
        Buffer::zeroed(self.len)
    }
}

/// One thread's walk through the generation of its team's images. Its methods' preconditions are
/// stated once, at [`Walk::run`].
pub struct Walk<'a, 'p> {
    /// What to do.
    pub block: &'a Block<'a>,
    /// What all stages share.
    pub context: Context<'a>,
    /// The images.
    pub pixels: &'a Pixels<'p>,
    /// Progress callback, called after each row by the one thread that has it.
    pub watch: Option<Watch<'a>>,
    /// Records how long this thread spends on what.
    pub clock: Clock,
}

impl Walk<'_, '_> {
    /// Generates the images, in a block of zeros. `stop` is where the team agrees to stop: one flag for each
    /// team.
    ///
    /// # Safety
    /// - `context.memory` has the length that `block` asks for, `context.batch` is the number of its
    ///   images, and `context.packed` what it was made with.
    /// - `pixels` are of a batch that has these images, of the block's height and width.
    /// - Every thread of the team, and nobody else, runs a walk through this block with this memory and these
    ///   pixels. Other teams make other images of the batch.
    pub unsafe fn run(&self, stop: &AtomicBool) {
        let given = self.pixels.rows_given();
        let Extent { height, width, .. } = self.block.extent;
        let mut own = self.pixels.lend(&self.block.images, &self.context.team);
        // SAFETY: nobody reads before the barrier.
        unsafe { self.enter(0, &mut own) };
        self.context.team.barrier();
        for row in 0..height {
            self.clock.skip();
            // SAFETY: rows and columns come in order, and every thread calls the same. The team has been at a
            // barrier since the pixels before this one were entered.
            unsafe {
                if row < given {
                    self.given_row(row, &mut own);
                } else {
                    self.begin_row(row);
                    for column in 0..width {
                        self.pixel(row, column);
                        self.sample(row, column, &mut own);
                        // After the last pixel there is the row's barrier.
                        match column + 1 < width {
                            true => self.barrier(Phase::Sampling),
                            false => self.clock.note(Phase::Sampling),
                        }
                    }
                }
            }
            if row + 1 < height {
                // SAFETY: the row before is complete, and there is a barrier before anyone reads.
                unsafe { self.enter(row + 1, &mut own) };
            }
            if self.context.team.index == 0 {
                // After the last row there is nothing left to stop.
                if self.watch.is_some_and(|watch| !watch(row + 1)) && row + 1 < height {
                    self.pixels.interrupt();
                }
                stop.store(self.pixels.stopped() || self.context.team.abandoned(), Relaxed);
            }
            self.context.team.barrier();
            self.clock.note(Phase::Waiting);
            if stop.load(Relaxed) {
                return;
            }
        }
    }

    /// Writes what is there of a row of this thread's own images before it begins: given pixels, conditioning, and
    /// the last pixel of the row above where the network reads the previous one.
    ///
    /// # Safety
    /// As for [`Walk::run`]. The team has been at a barrier since the last layer of the row above, and there is one
    /// before anyone reads the row.
    unsafe fn enter(&self, row: usize, own: &mut Own) {
        // SAFETY: the block has these images and this row, they are this thread's, and what the rings give up is no
        // longer read.
        unsafe {
            self.block.inputs.write(self.context.memory, own, row, row < self.pixels.rows_given(), row)
        };
    }

    /// Waits at the team's barrier after some work.
    fn barrier(&self, work: Phase) {
        self.clock.note(work);
        self.context.team.barrier();
        self.clock.note(Phase::Waiting);
    }

    /// Runs a step on a whole row.
    ///
    /// # Safety
    /// As for [`Walk::run`]; the steps before it are complete.
    unsafe fn on_row(&self, step: &Step, row: usize) {
        for run in step {
            // SAFETY: by the caller's promise.
            unsafe { self.run_on_row(&self.context, run, row) };
        }
    }

    /// Runs a part of a piece on a whole row.
    ///
    /// # Safety
    /// As for [`Walk::on_row`]; `context` is the walk's, or that of a thread that runs it alone.
    unsafe fn run_on_row(&self, context: &Context, run: &Run, row: usize) {
        let stage = &self.block.stages[run.piece];
        let row = stage.piece.step(0, row).expect("the step runs at this row");
        let columns = 0..stage.piece.steps(self.block.extent.width);
        let span = Span { rows: row..row + 1, columns };
        // SAFETY: by the caller's promise.
        unsafe { stage.run(context, &span, run.part, None) };
    }

    /// A row whose pixels are all known: every layer is a matrix product over the row.
    ///
    /// # Safety
    /// As for [`Walk::run`]. The row is the first that has not been generated, its pixels have been entered,
    /// every thread of the team calls this, and it has been at a barrier since the row before.
    unsafe fn given_row(&self, row: usize, own: &mut Own) {
        for step in self.block.steps.given(row, self.pixels.wants_logits()) {
            // SAFETY: the steps come in order and a barrier follows each one.
            unsafe { self.on_row(step, row) };
            self.context.team.barrier();
        }
        if self.pixels.wants_logits() {
            for slot in own.slots() {
                for column in 0..self.block.extent.width {
                    // SAFETY: the logits are complete; the next that writes them comes after a barrier.
                    let logits = unsafe { self.logits(slot, row, column) };
                    own.keep_logits(logits, [slot, row, column]);
                }
            }
        }
    }

    /// The maps of a row that are known when it begins, then what other layers can sum before its pixels come.
    ///
    /// # Safety
    /// As for [`Walk::run`]. The row is the first that has not been generated, every thread of the team calls
    /// this, and it has been at a barrier since the row before.
    unsafe fn begin_row(&self, row: usize) {
        let steps = self.block.steps;
        for step in &steps.known[row % steps.period] {
            // SAFETY: the steps come in order and a barrier follows each one.
            unsafe { self.on_row(step, row) };
            self.barrier(Phase::Row);
        }
        let mut alone = 0;
        for run in &steps.hoisted[row % steps.period] {
            // Small ones are dealt out, a thread each.
            let mut context = self.context;
            if self.block.alone[run.piece][0] {
                alone += 1;
                if alone % context.team.count != context.team.index {
                    continue;
                }
                context.team = context.team.alone();
            }
            // SAFETY: hoisted parts read only what was complete before them.
            unsafe { self.run_on_row(&context, run, row) };
        }
        self.barrier(Phase::Hoist);
    }

    /// What is left of the layers at one pixel.
    ///
    /// # Safety
    /// As for [`Walk::run`]. The row has begun, the pixel is the first of it that has not been generated,
    /// every thread of the team calls this, and it has been at a barrier since the pixel before was entered.
    unsafe fn pixel(&self, row: usize, column: usize) {
        let stage = |run: &Run| &self.block.stages[run.piece];
        let steps = self.block.steps.pixel(row, column);
        // Each step prefetches the next one's weights.
        let after = self.block.steps.pixel(row, column + 1).first();
        let mut next = steps.iter().chain(after).flatten().skip(1);
        let alone = Context { team: self.context.team.alone(), ..self.context };
        // Steps of one small stage are the first thread's, and between two of them there is nothing to wait for.
        let first_s = |step: &Step| step.iter().all(|run| self.block.alone[run.piece][1]);
        for (i, step) in steps.iter().enumerate() {
            let own = first_s(step);
            for run in step {
                let s = stage(run);
                let at = (s.piece.step(0, row), s.piece.step(1, column));
                let (Some(row), Some(column)) = at else { unreachable!("the step runs at this pixel") };
                let span = Span { rows: row..row + 1, columns: column..column + 1 };
                let next = next.next().map(|run| (stage(run), run.part));
                if own && self.context.team.index > 0 {
                    continue;
                }
                let context = if own { &alone } else { &self.context };
                // SAFETY: the steps come in order and a barrier follows each one, but between two that one thread
                // runs alone.
                unsafe { s.run(context, &span, run.part, next) };
            }
            if !own || steps.get(i + 1).is_none_or(|next| !first_s(next)) {
                self.barrier(Phase::Pixels);
            }
        }
    }

    /// Draws this thread's images' pixels and feeds them back.
    ///
    /// # Safety
    /// As for [`Walk::run`]. [`Walk::pixel`] came before, and after it the team has been at a barrier.
    unsafe fn sample(&self, row: usize, column: usize, own: &mut Own) {
        for slot in own.slots() {
            let at = [slot, row, column];
            // SAFETY: the logits are complete; the next that writes them comes after a barrier.
            let logits = unsafe { self.logits(slot, row, column) };
            own.keep_logits(logits, at);
            own.sample(logits, at);
            if let Some(at) = own.filled_by(at) {
                // SAFETY: the block has this image and pixel; it is this thread's, and there is a barrier before
                // anyone reads.
                unsafe { self.block.inputs.image.write(self.context.memory, at, own.input(at)) };
            }
        }
    }

    /// The logits of a pixel.
    ///
    /// # Safety
    /// As for [`Walk::run`]. `slot` is an image of the block and the pixel the last whose logits were computed,
    /// or one of the last row's if that was given; they are complete, and nobody writes them while they are
    /// borrowed.
    unsafe fn logits(&self, slot: usize, row: usize, column: usize) -> &[f32] {
        let grid = self.block.logits;
        let at = grid.at(slot, row as isize, column as isize);
        // SAFETY: by the caller's promise.
        unsafe { self.context.memory.slice(at, grid.channels) }
    }
}
