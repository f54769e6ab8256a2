//! Runs a thread's share of a stage: adds to what is written down where the stage runs, and calls the kernels.
//!
//! The idea: a kernel sees pointers and counts only. And since the kernels are bound by memory, each tile gets
//! the addresses that the next ones will read, and prefetches them while it works.

use std::ops::Range;

use super::kernels::{EpilogueArgs, LANES, MAX_PANELS, MAX_ROWS, Prefetch, Target, Tile};
use super::share::{BLOCK_TILES, Chunk, Rows, Share, Strip, chunks};
use super::stage::{Context, Stage};
use super::team::share;
use crate::graph::Activation;
use crate::plan::layout::Grid;

/// A stage where it runs.
struct Work<'a> {
    /// What all stages share.
    context: &'a Context<'a>,
    /// The stage.
    stage: &'a Stage,
    /// What this thread computes of it.
    share: &'a Share,
    /// Row and column of the rectangle's corner, in the stage's steps.
    corner: [usize; 2],
    /// Of each strip's chunks those to sum.
    chunks: Range<usize>,
    /// What the epilogue adds, from the rectangle's corner on.
    add: Option<Target>,
    /// Where the outputs go, from the rectangle's corner on.
    outputs: [Option<Target>; Activation::ALL.len()],
}

/// What a tile prefetches.
struct Ahead<'a> {
    /// The inputs of the tile after it.
    inputs: Option<&'a Rows>,
    /// The weights of what comes after it.
    weights: &'a [Chunk],
    /// Its part of those weights: which of how many.
    part: [usize; 2],
}

impl Stage {
    /// Runs a thread's share of the stage, on the rectangle with a corner: from the biases or the stored accumulators to
    /// those or, with the last tap, to the outputs; of each strip the given chunks, or all of them. `next` is what will
    /// run after it, if that is known.
    ///
    /// # Safety
    /// - The stage was made with a layout of which `context.memory` is a block, for `context.batch` images, and `share`
    ///   is of this stage, these images and these packed weights.
    /// - The rectangle lies in the image. With rings it is one row, and what the taps read above it is still there.
    /// - The sources hold what the taps read, and the stored accumulators the sum of the taps before them. This thread
    ///   has been at a barrier since another wrote any of it, or has otherwise seen that it was written.
    /// - Every thread of the team calls this with the same stage, corner and taps and a share of its own, or the one
    ///   that runs it alone. Until the team's next barrier nobody writes what this reads or touches what it writes, but
    ///   threads their own shares of it.
    pub unsafe fn run(
        &self,
        context: &Context,
        corner: [usize; 2],
        share: &Share,
        of_chunks: Option<Range<usize>>,
        next: Option<&Share>,
    ) {
        let Some(first) = share.strips.first() else { return };
        let of_chunks = of_chunks.unwrap_or(0..first.chunks.len());
        let next = next.and_then(|share| share.strips.first()).map_or(&[][..], |strip| &strip.chunks);
        let [row, column] =
            [0, 1].map(|axis| (corner[axis] * self.piece.output_step + self.piece.parity[axis]) as isize);
        let target = |grid: Grid| {
            // SAFETY: the grid has this position, by the caller's promise.
            let base = unsafe { context.memory.at(grid.at(0, row, column), 1) };
            Target { base, channels: grid.channels }
        };
        let mut outputs = [None; Activation::ALL.len()];
        for (output, grid) in outputs.iter_mut().zip(&self.outputs) {
            *output = grid.map(target);
        }
        let add = self.add.map(target);
        let work = Work { context, stage: self, share, corner, chunks: of_chunks, add, outputs };
        for tap in first.chunks[work.chunks.clone()].iter().flat_map(|chunk| chunk.taps.clone()) {
            // SAFETY: the grid has the positions that the tap reads, by the caller's promise.
            let from = unsafe { context.memory.at(work.inputs(tap), 1) };
            share.inputs[tap - share.taps.start].set(from);
        }
        if !share.rows.is_empty() {
            // SAFETY: by the caller's promise.
            return unsafe { work.block(&share.strips, &share.rows, next) };
        }
        // A block of inputs stays in the core's cache while the weights of all outputs pass over it.
        let mut blocks = chunks(&share.positions, share.shape.rows * BLOCK_TILES).peekable();
        while let Some(block) = blocks.next() {
            let rows = self.rows_of(share, &block);
            let next = if blocks.peek().is_some() { &first.chunks[work.chunks.clone()] } else { next };
            // SAFETY: by the caller's promise.
            unsafe { work.block(&share.strips, &rows, next) };
        }
    }
}

impl Work<'_> {
    /// The tiles of a block, strip after strip.
    ///
    /// # Safety
    /// As for [`Stage::run`]; strips and rows are of the share.
    unsafe fn block(&self, strips: &[Strip], rows: &[Rows], next: &[Chunk]) {
        for (s, strip) in strips.iter().enumerate() {
            let weights = strips.get(s + 1).map_or(next, |strip| &strip.chunks[self.chunks.clone()]);
            for (t, tile) in rows.iter().enumerate() {
                let inputs = if s == 0 { rows.get(t + 1) } else { None };
                // SAFETY: by the caller's promise. Threads' shares do not overlap.
                unsafe { self.tile(strip, tile, &Ahead { inputs, weights, part: [t, rows.len()] }) };
            }
        }
    }

    /// Where a tap's inputs for the rectangle's corner begin, in floats.
    fn inputs(&self, tap: usize) -> usize {
        let (stage, tap) = (self.stage, &self.stage.taps[tap]);
        let [row, column] = self.corner.map(|at| (at * stage.piece.source_step) as isize);
        tap.grid.at(0, row + tap.row, column + tap.column)
    }

    /// Prefetches the inputs of some rows: those that are contiguous with the first.
    fn prefetch_inputs(&self, prefetch: &mut Prefetch, taps: Range<usize>, rows: &Rows) {
        let (first, last) = (rows.inputs[0], rows.inputs[rows.count - 1]);
        // At the end of a row of an image the padding lies between.
        let together = (rows.count + 2) * self.stage.piece.source_step;
        let positions = last.saturating_sub(first).min(together) + 1;
        let mut previous = None;
        for tap in taps {
            // Neighbours in a row have most inputs in common.
            let Grid { base, channels, .. } = self.stage.taps[tap].grid;
            let key = (base, self.stage.taps[tap].row);
            if previous.replace(key) != Some(key) {
                let from = self.share.inputs[tap - self.share.taps.start].get();
                let lines = (positions * channels).div_ceil(LANES);
                prefetch.push(from.wrapping_add(first * channels).addr(), lines);
            }
        }
    }

    /// What a tile prefetches while it sums the `index`th of its chunks. The last one takes what is left.
    fn prefetch(&self, prefetch: &mut Prefetch, ahead: &Ahead, index: usize, taps: &Range<usize>) {
        if let Some(rows) = ahead.inputs {
            self.prefetch_inputs(prefetch, taps.clone(), rows);
        }
        let end = if index + 1 < self.chunks.len() { index + 1 } else { ahead.weights.len() };
        for chunk in ahead.weights.get(index..end).unwrap_or_default() {
            for &(from, lines) in &chunk.lines {
                let part = match ahead.part {
                    [_, 1] => 0..lines,
                    [index, count] => share(lines, index, count),
                };
                prefetch.push(from + part.start * size_of::<[f32; LANES]>(), part.len());
            }
        }
    }

    /// Computes a tile.
    ///
    /// # Safety
    /// As for [`Stage::run`]; strip and rows are of the share.
    unsafe fn tile(&self, strip: &Strip, rows: &Rows, ahead: &Ahead) {
        let (stage, context) = (self.stage, self.context);
        let packed = &stage.packed;
        let panels = strip.vectors.len() * packed.halves;
        let first_panel = strip.vectors.start * packed.halves;
        let chunks = &strip.chunks[self.chunks.clone()];

        let mut init = [std::ptr::null(); MAX_ROWS];
        for (i, init) in init[..rows.count].iter_mut().enumerate() {
            *init = match chunks[0].taps.start {
                0 => {
                    let bias = context.classes[rows.images[i]] * packed.width() + first_panel * LANES;
                    context.packed.floats.as_slice()[packed.biases + bias..][..panels * LANES].as_ptr()
                }
                // SAFETY: a row of the share.
                _ => unsafe { self.accumulators(rows, i, first_panel, panels).cast_const() },
            };
        }
        let mut scratch = std::mem::MaybeUninit::<[f32; MAX_ROWS * MAX_PANELS * LANES]>::uninit();
        let last = chunks[chunks.len() - 1].taps.end == stage.piece.taps;
        let (accumulators, accumulator_stride) = match last {
            true => (scratch.as_mut_ptr().cast(), panels * LANES),
            // SAFETY: as above. A rectangle has all columns or one, so that its places are equally far apart.
            false => unsafe {
                let apart = rows.accumulators[1].saturating_sub(rows.accumulators[0]);
                (self.accumulators(rows, 0, first_panel, panels), apart.max(1) * packed.width())
            },
        };
        for (index, chunk) in chunks.iter().enumerate() {
            let mut prefetch = Prefetch::default();
            if context.kernels.prefetches() {
                self.prefetch(&mut prefetch, ahead, index, &chunk.taps);
            }
            let first = chunk.taps.start - self.share.taps.start;
            let inputs = &self.share.inputs[first..first + chunk.taps.len()];
            let segments = &chunk.segments;
            let (offsets, panel_stride) = (&rows.inputs, chunk.panel_stride);
            let tile = Tile {
                segments,
                inputs,
                offsets,
                init: &init,
                panel_stride,
                accumulators,
                accumulator_stride,
            };
            // SAFETY: the kernels exist only where the processor has their instruction set. Weights and
            // biases are slices of that length; inputs and stored accumulators are in the block, by the
            // caller's promise. `accumulators` is this thread's own, and overlaps nothing that is read but
            // `init`, which from the second round on is the same place.
            unsafe { context.kernels.tile(rows.count, panels, chunk.precision)(&tile, &mut prefetch) };
            // The next chunk continues from these accumulators, in place.
            for (i, init) in init[..rows.count].iter_mut().enumerate() {
                *init = accumulators.wrapping_add(i * accumulator_stride);
            }
        }
        if last {
            // SAFETY: by the caller's promise. There is a tap, so the accumulators are written.
            unsafe { self.epilogue(&strip.vectors, rows, accumulators, accumulator_stride) };
        }
    }

    /// Turns complete accumulators into outputs.
    ///
    /// # Safety
    /// As for [`Work::tile`]; the accumulators of these vectors and rows are complete.
    unsafe fn epilogue(
        &self,
        vectors: &Range<usize>,
        rows: &Rows,
        accumulators: *const f32,
        accumulator_stride: usize,
    ) {
        let (stage, context) = (self.stage, self.context);
        let args = EpilogueArgs {
            accumulators,
            accumulator_stride,
            positions: &rows.outputs[..rows.count],
            vectors: vectors.len(),
            first_vector: vectors.start,
            channels: stage.channels,
            epilogue: stage.epilogue,
            add: self.add,
            outputs: self.outputs,
        };
        // SAFETY: the instruction set as above. The vectors are some of the layer's; grids have the channels that
        // `Stage::new` has checked; and a layer's output is another map than what it adds.
        unsafe { context.kernels.epilogue()(&args) }
    }

    /// The stored accumulators of a row of a tile, `panels * LANES` floats.
    ///
    /// # Safety
    /// As for [`Work::tile`]; the panels are some of the layer's.
    unsafe fn accumulators(&self, rows: &Rows, i: usize, first_panel: usize, panels: usize) -> *mut f32 {
        let (base, _) = self.stage.accumulators.expect("only stages that store accumulators run in parts");
        let position = self.corner[1] + rows.accumulators[i];
        let offset = base + position * self.stage.packed.width() + first_panel * LANES;
        // SAFETY: by the caller's promise.
        unsafe { self.context.memory.at(offset, panels * LANES) }
    }
}
