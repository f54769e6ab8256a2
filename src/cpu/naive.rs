//! The full forward pass: every layer on all positions, one layer after the other.
//!
//! The idea: this is the baseline of the cached engine, so it is a matrix product as fast as the machine allows:
//! packed weights, panels that stay in the cache while all rows of the image are multiplied by them, the
//! activation fused into the producer. Images are processed in chunks, which bounds the maps' memory; a pass
//! costs the same for each.

use super::buffer::Shared;
use super::packed::Packed;
use super::pixels::Own;
use super::stage::{Context, Inputs, Maps, Stage};
use crate::plan::Plan;
use crate::plan::layout::{Extent, Grid, Storage};
use crate::plan::window::Window;

/// Bytes that the maps of a chunk may take, unless a single image takes more.
const CHUNK_BYTES: usize = 256 << 20;

/// A full forward pass over a chunk of images.
pub struct Pass {
    /// Images in a chunk.
    pub chunk: usize,
    /// Rows that it computes: those of the [`Window`].
    pub rows: usize,
    /// By layer.
    layers: Vec<Vec<Stage>>,
    inputs: Inputs,
    logits: Grid,
    width: usize,
}

impl Pass {
    /// Images in a chunk of a batch, and the floats that a chunk takes.
    pub fn chunk(plan: &Plan, batch: usize, height: usize, width: usize) -> (usize, usize) {
        let height = Window::new(plan, height).rows;
        let len = |batch| Maps::new(plan, Storage::Full, Extent { batch, height, width }).layout.len;
        let most = (CHUNK_BYTES / size_of::<f32>() / len(1)).clamp(1, batch.max(1));
        // Chunks of nearly equal size: a last one with empty places would cost as much as a full one.
        let chunk = batch.max(1).div_ceil(batch.max(1).div_ceil(most));
        (chunk, len(chunk))
    }

    /// Lays out passes over `chunk` images at once.
    pub fn new(plan: &Plan, packed: &Packed, chunk: usize, height: usize, width: usize) -> Pass {
        let height = Window::new(plan, height).rows;
        let mut maps = Maps::new(plan, Storage::Full, Extent { batch: chunk, height, width });
        let mut stage = |piece| Stage::new(plan, piece, packed, &mut maps, false);
        let layers =
            (0..plan.graph.layers.len()).map(|layer| plan.pieces_of(layer).map(&mut stage).collect());
        let layers = layers.collect();
        let logits = maps.raw(plan.graph.logits()).expect("the logits are stored as they are");
        let inputs = Inputs::new(plan, &maps);
        Pass { chunk, rows: height, layers, inputs, logits, width }
    }

    /// One thread's part of a pass over some images (at most a chunk), from its own images' pixels as they stand,
    /// from row `first` on, to the logits. The team has been at a barrier when it returns.
    ///
    /// # Safety
    /// - `context.memory` is a block of the length that [`Pass::chunk`] gives, `context.batch` is
    ///   the pass's `chunk`, and `context.packed` what it was planned with.
    /// - `own` are pixels of a batch that has the pass's rows from `first` on, and its width.
    /// - Every thread of the team, and nobody else, calls this at a time, with the same block and its share of the
    ///   same images; the team has been at a barrier since anyone read or wrote the block.
    pub unsafe fn forward(&self, context: &Context, own: &mut Own, first: usize) {
        for row in 0..self.rows {
            // SAFETY: the pass has these images and this row; they are this thread's, and there is a barrier before
            // anyone reads.
            unsafe { self.inputs.write(context.memory, own, first + row, true, row) };
        }
        context.team.barrier();
        for stages in &self.layers {
            for stage in stages {
                let size = [self.rows, self.width].map(|size| stage.piece.steps(size));
                let share = stage.share(context, &context.team, 0..stage.piece.taps, size);
                // SAFETY: the layers come in order and a barrier follows each one.
                unsafe { stage.run(context, [0, 0], &share, None, None) };
            }
            context.team.barrier();
        }
    }

    /// The logits of a pixel of the chunk's image `slot`; `row` counts from the pass's first.
    ///
    /// # Safety
    /// The block is that of a [`Pass::forward`] that is over, the pixel is of this pass's images, and nobody
    /// writes its logits while they are borrowed.
    pub unsafe fn logits<'a>(&self, memory: Shared<'a>, slot: usize, row: usize, column: usize) -> &'a [f32] {
        let at = self.logits.at(slot, row as isize, column as isize);
        // SAFETY: by the caller's promise.
        unsafe { memory.slice(at, self.logits.channels) }
    }
}
