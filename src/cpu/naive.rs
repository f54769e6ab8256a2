//! The full forward pass: every layer on all positions, one layer after the other.
//!
//! The idea: this is what the cached engine is measured against, so it is a matrix product as good as
//! the machine allows, not a straw man: packed weights, panels that stay in the cache while all rows of
//! the image pass by, the activation fused into the producer. Images go through in chunks that keep
//! the tensors' memory bounded; a pass costs the same for each.

use super::buffer::Shared;
use super::grid::{Grid, Layout, Storage};
use super::packed::Packed;
use super::pixels::Own;
use super::stage::{Context, Part, Span, Stage};
use crate::network::{Form, IMAGE, Network};

/// Bytes that the tensors of a chunk may take, unless a single image takes more.
const CHUNK_BYTES: usize = 256 << 20;

/// A full forward pass over a chunk of images.
pub struct Plan {
    /// Images in a chunk.
    pub chunk: usize,
    layers: Vec<Vec<Stage>>,
    image: Grid,
    logits: Grid,
    height: usize,
    width: usize,
}

impl Plan {
    /// Images in a chunk of a batch, and the floats that a chunk takes.
    pub fn chunk(network: &Network, batch: usize, height: usize, width: usize) -> (usize, usize) {
        let len = |images| Layout::new(network, Storage::Full, images, height, width).len;
        let most = (CHUNK_BYTES / size_of::<f32>() / len(1)).clamp(1, batch.max(1));
        // Chunks of nearly equal size: a last one with empty places would cost as much as a full one.
        let chunk = batch.max(1).div_ceil(batch.max(1).div_ceil(most));
        (chunk, len(chunk))
    }

    /// Plans passes over `chunk` images at once.
    pub fn new(network: &Network, packed: &Packed, chunk: usize, height: usize, width: usize) -> Plan {
        let mut layout = Layout::new(network, Storage::Full, chunk, height, width);
        let mut layers = Vec::new();
        for (layer, packed) in network.layers.iter().zip(&packed.layers) {
            let stages = layer.parities().iter().zip(packed);
            let stages = stages.map(|(&parity, packed)| {
                Stage::new(network, layer, parity, packed.clone(), &mut layout, None)
            });
            layers.push(stages.collect());
        }
        let grid = |tensor| layout.grid(tensor, Form::Raw).expect("image and logits are stored raw");
        let (image, logits) = (grid(IMAGE), grid(network.logits()));
        Plan { chunk, layers, image, logits, height, width }
    }

    /// One member's part of a pass over some images (at most a chunk), from its own images' pixels as they stand to
    /// the logits. The team has met when it returns.
    ///
    /// # Safety
    /// - `context.memory` is a block of the length that [`Plan::chunk`] gives, `context.batch` is
    ///   the plan's `chunk`, and `context.packed` what it was planned with.
    /// - `own` are pixels of a batch of the plan's height and width.
    /// - Every member of the team, and nobody else, calls this at a time, with the same block and its share of the
    ///   same images; the team has met since anyone read or wrote the block.
    pub unsafe fn forward(&self, context: &Context, own: &Own) {
        for (at, pixel) in own.pixels(0..self.height) {
            // SAFETY: the plan has this image and its rows; it is this member's, and the team meets before
            // anyone reads.
            unsafe { self.image.enter(context.memory, at, pixel) };
        }
        context.team.meet();
        for stages in &self.layers {
            for stage in stages {
                let span = Span { rows: 0..stage.steps(self.height), columns: 0..stage.steps(self.width) };
                // SAFETY: the layers come in order and the team meets after each one.
                unsafe { stage.run(context, &span, Part::Whole, None) };
            }
            context.team.meet();
        }
    }

    /// The logits of a pixel of the chunk's image `slot`.
    ///
    /// # Safety
    /// The block is that of a [`Plan::forward`] that is over, the pixel is of this plan's images, and nobody
    /// writes its logits while they are borrowed.
    pub unsafe fn logits<'a>(&self, memory: Shared<'a>, slot: usize, row: usize, column: usize) -> &'a [f32] {
        let at = self.logits.at(slot, row as isize, column as isize);
        // SAFETY: by the caller's promise.
        unsafe { memory.slice(at, self.logits.channels) }
    }
}
