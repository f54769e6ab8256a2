//! Cached generation: every position of every map is computed once.
//!
//! The idea: the steps of [`crate::plan::steps`], on rings. What is known when a row begins are matrix products over
//! the whole row; a pixel then only adds its left and own taps. All threads walk through this schedule side by side,
//! each with its share of every layer's outputs, and wait at a barrier after each step.

use std::cell::{Cell, OnceCell};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::buffer::Buffer;
use super::packed::Packed;
use super::phases::{Clock, Phase};
use super::pixels::{Own, Pixels};
use super::share::Share;
use super::stage::{Context, Inputs, Maps, Stage};
use super::stretches::{ALONE, Stretch, stretches};
use super::team::{Progress, Thread, share};
use crate::engine::Watch;
use crate::error::Result;
use crate::plan::layout::{Extent, Grid, Storage};
use crate::plan::steps::{Run, Step, Steps};
use crate::plan::{Part, Plan};

/// What a step that one thread runs alone takes, in multiply-adds of a stage that all share: mostly the way there.
const ALONE_COST: usize = 4500;

/// What one team needs for its images: stages with resolved addresses, and the length of the memory.
pub struct Block<'a> {
    steps: &'a Steps,
    /// By piece.
    stages: Vec<Stage>,
    /// By piece, for its hoisted part on a row and for its part at a pixel: whether one thread runs it alone.
    alone: Vec<[bool; 2]>,
    /// The steps of a pixel between barriers, by row and column modulo the period.
    stretches: Vec<Vec<Vec<Stretch>>>,
    /// How many steps the first thread has run alone so far, as it was last told.
    progress: Progress,
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
        let alone: Vec<_> = stages.iter().map(alone).collect();
        let small = |step: &Step| step.iter().all(|run| alone[run.piece][1]);
        let stretches =
            steps.pixels.iter().map(|row| row.iter().map(|steps| stretches(plan, steps, small)).collect());
        let (stretches, progress) = (stretches.collect(), Progress::default());
        let logits = maps.raw(plan.graph.logits()).expect("the logits are stored as they are");
        let inputs = Inputs::new(plan, &maps);
        Block {
            steps,
            stages,
            alone,
            stretches,
            progress,
            inputs,
            logits,
            images,
            extent,
            len: maps.layout.len,
        }
    }

    /// By piece, how many steps the first thread runs alone before it comes to one that others have begun.
    fn begun_after(&self) -> Vec<Option<usize>> {
        let mut begun_after = vec![None; self.stages.len()];
        for stretch in self.stretches.iter().flatten().flatten() {
            if let Stretch::Followed { alone, piece, .. } = stretch {
                begun_after[*piece].get_or_insert(alone.len());
            }
        }
        begun_after
    }

    /// A thread's vectors of a stage that others begin while the first one runs some steps alone: so many that all end
    /// at the same time.
    fn vectors(&self, stage: &Stage, before: usize, team: &Thread) -> Range<usize> {
        let part = stage.piece.pixel_part().expect("a part at a pixel");
        let work = stage.multiply_adds(part, self.images.len()) as f64;
        let others = (team.count - 1) as f64;
        let late = (before * ALONE_COST) as f64;
        let own = ((work / others - late) / (work + work / others)).clamp(0.0, 1.0);
        let vectors = stage.packed.vectors;
        let first = (own * vectors as f64).round() as usize;
        match team.index {
            0 => 0..first,
            index => {
                let of = share(vectors - first, index - 1, team.count - 1);
                first + of.start..first + of.end
            }
        }
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

/// What a thread computes of a piece.
struct Shares {
    /// Of its hoisted part, on a row.
    hoisted: Option<Share>,
    /// Of its part at a pixel.
    pixel: Option<Share>,
    /// Of all of it, on a row. Most pieces of most batches never run so.
    whole: OnceCell<Share>,
}

/// One thread's walk through the generation of its team's images. Its methods' preconditions are
/// stated once, at [`Walk::run`].
pub struct Walk<'a, 'p> {
    /// What to do.
    block: &'a Block<'a>,
    /// What all stages share.
    context: Context<'a>,
    /// By piece, what this thread computes of it.
    shares: Vec<Shares>,
    /// The images.
    pixels: &'a Pixels<'p>,
    /// Progress callback, called after each row by the one thread that has it.
    watch: Option<Watch<'a>>,
    /// Records how long this thread spends on what.
    pub clock: Clock,
    /// How many steps the first thread had run alone before the present stretch.
    alone_before: Cell<usize>,
}

impl<'a, 'p> Walk<'a, 'p> {
    /// A walk through a block by one thread, that of `context`.
    pub fn new(
        block: &'a Block<'a>,
        context: Context<'a>,
        pixels: &'a Pixels<'p>,
        watch: Option<Watch<'a>>,
        clock: Clock,
    ) -> Walk<'a, 'p> {
        let team = &context.team;
        // Small hoisted parts are dealt out to the threads in turn; small parts at a pixel are the first thread's.
        let mut dealt = 0;
        let stages = block.stages.iter().zip(&block.alone).zip(block.begun_after());
        let shares = stages.map(|((stage, alone), begun_after)| {
            let columns = stage.piece.steps(block.extent.width);
            let of = |part: Part, alone: bool, turn: usize, size: [usize; 2]| {
                let taps = stage.piece.part(part);
                match (alone, turn == team.index) {
                    (false, _) => stage.share(&context, team, taps, size),
                    (true, true) => stage.share(&context, &team.alone(), taps, size),
                    (true, false) => stage.share_of(&context, taps, size, 0..0, 0..0),
                }
            };
            dealt += usize::from(alone[0]);
            let hoisted =
                stage.piece.row_part().map(|part| of(part, alone[0], dealt % team.count, [1, columns]));
            let pixel = stage.piece.pixel_part().map(|part| match begun_after {
                // The first thread comes to it late, and takes less.
                Some(before) if team.count > 1 => {
                    let vectors = block.vectors(stage, before, team);
                    stage.share_of(&context, stage.piece.part(part), [1, 1], vectors, 0..context.batch)
                }
                _ => of(part, alone[1], 0, [1, 1]),
            });
            Shares { hoisted, pixel, whole: OnceCell::new() }
        });
        let shares = shares.collect();
        Walk { block, context, shares, pixels, watch, clock, alone_before: Cell::new(0) }
    }
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
            let (stage, whole) = (&self.block.stages[run.piece], &self.shares[run.piece].whole);
            let size = [1, stage.piece.steps(self.block.extent.width)];
            let taps = stage.piece.part(Part::Whole);
            let share = whole.get_or_init(|| stage.share(&self.context, &self.context.team, taps, size));
            // SAFETY: by the caller's promise.
            unsafe { self.run_on_row(run, share, row) };
        }
    }

    /// Runs this thread's share of a piece on a whole row.
    ///
    /// # Safety
    /// As for [`Walk::on_row`].
    unsafe fn run_on_row(&self, run: &Run, share: &Share, row: usize) {
        let stage = &self.block.stages[run.piece];
        let row = stage.piece.step(0, row).expect("the step runs at this row");
        // SAFETY: by the caller's promise.
        unsafe { stage.run(&self.context, [row, 0], share, None, None) };
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
        for run in &steps.hoisted[row % steps.period] {
            // SAFETY: hoisted parts read only what was complete before them.
            unsafe {
                let share = self.shares[run.piece].hoisted.as_ref().expect("a hoisted part");
                self.run_on_row(run, share, row);
            }
        }
        self.barrier(Phase::Hoist);
    }

    /// What is left of the layers at one pixel.
    ///
    /// # Safety
    /// As for [`Walk::run`]. The row has begun, the pixel is the first of it that has not been generated,
    /// every thread of the team calls this, and it has been at a barrier since the pixel before was entered.
    unsafe fn pixel(&self, row: usize, column: usize) {
        let (block, period) = (self.block, self.block.steps.period);
        let steps = block.steps.pixel(row, column);
        let stretches = &block.stretches[row % period][column % period];
        let first = |steps: &'_ [Step]| steps.first().map(|step| step[0]);
        for stretch in stretches {
            // SAFETY: the steps come in order and a barrier follows each stretch. Within one, steps are the first
            // thread's, or others' that have seen that it has done what they read.
            unsafe {
                match stretch {
                    Stretch::Shared(i) => {
                        let after =
                            first(&steps[i + 1..]).or_else(|| first(block.steps.pixel(row, column + 1)));
                        self.at_pixel(&steps[*i], after, row, column);
                    }
                    Stretch::Alone(alone) => {
                        self.alone(steps, alone, &[], row, column);
                        self.alone_before.set(self.alone_before.get() + alone.len());
                    }
                    Stretch::Followed { alone, chunks, .. } => {
                        let followed = &steps[alone.end];
                        if self.context.team.index == 0 {
                            self.alone(steps, alone, chunks, row, column);
                            self.at_pixel(followed, first(&steps[alone.end + 1..]), row, column);
                        } else {
                            for (chunk, &steps) in chunks.iter().enumerate() {
                                // What none of these steps makes was there at the last barrier, and is never told.
                                if steps > 0 {
                                    self.context
                                        .team
                                        .follow(&block.progress, self.alone_before.get() + steps);
                                }
                                self.chunks_at_pixel(&followed[0], Some(chunk..chunk + 1), None, row, column);
                            }
                        }
                        self.alone_before.set(self.alone_before.get() + alone.len());
                    }
                }
            }
            self.barrier(Phase::Pixels);
        }
    }

    /// Steps that the first thread runs alone at a pixel. It tells those that follow it how many are done each time that
    /// `followed_at` names.
    ///
    /// # Safety
    /// As for [`Walk::pixel`]; the steps before them are complete.
    unsafe fn alone(
        &self,
        steps: &[Step],
        alone: &Range<usize>,
        followed_at: &[usize],
        row: usize,
        column: usize,
    ) {
        if self.context.team.index > 0 {
            return;
        }
        for (i, step) in steps[alone.clone()].iter().enumerate() {
            let after = steps.get(alone.start + i + 1).map(|step| step[0]);
            // SAFETY: the steps come in order, and this thread has run those before.
            unsafe { self.at_pixel(step, after, row, column) };
            // Each time that it is told, the others' copies of the count are lost: not more often than they wait for.
            if followed_at.contains(&(i + 1)) {
                self.block.progress.reach(self.alone_before.get() + i + 1);
            }
        }
    }

    /// The stage of a run and where it runs at a pixel, in its own steps.
    fn stage_at(&self, run: &Run, row: usize, column: usize) -> (&Stage, [usize; 2]) {
        let stage = &self.block.stages[run.piece];
        let at = (stage.piece.step(0, row), stage.piece.step(1, column));
        let (Some(row), Some(column)) = at else { unreachable!("the step runs at this pixel") };
        (stage, [row, column])
    }

    /// This thread's shares of a step at a pixel. The weights of what comes after it are prefetched.
    ///
    /// # Safety
    /// As for [`Walk::pixel`]; the steps before it are complete.
    unsafe fn at_pixel(&self, step: &Step, after: Option<Run>, row: usize, column: usize) {
        for (i, run) in step.iter().enumerate() {
            let next = step.get(i + 1).copied().or(after).map(|run| self.pixel_share(&run));
            // SAFETY: by the caller's promise; runs of a step do not depend on each other.
            unsafe { self.chunks_at_pixel(run, None, next, row, column) };
        }
    }

    fn pixel_share(&self, run: &Run) -> &Share {
        self.shares[run.piece].pixel.as_ref().expect("a part at a pixel")
    }

    /// This thread's share of some chunks of a piece at a pixel, or of all.
    ///
    /// # Safety
    /// As for [`Walk::pixel`]; what the chunks read is complete.
    unsafe fn chunks_at_pixel(
        &self,
        run: &Run,
        chunks: Option<Range<usize>>,
        next: Option<&Share>,
        row: usize,
        column: usize,
    ) {
        let (stage, corner) = self.stage_at(run, row, column);
        // SAFETY: by the caller's promise.
        unsafe { stage.run(&self.context, corner, self.pixel_share(run), chunks, next) };
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
