//! Weights in the order in which the kernels read them.
//!
//! The idea: `[slices][rows of a chunk][chunks][4 outputs]`, so that neighbouring threads, which have
//! neighbouring chunks, read neighbouring bytes. What the row phase reads and what the pixel phase reads
//! are apart: the latter may be stored in half the bytes. A gated layer alternates slices of values and of gates, so that
//! one block has a value and its gate.

use super::abi::{CHUNK, SLICE};
use crate::error::Result;
use crate::plan::weights::LayerWeights;
use crate::plan::{Part, Piece, Plan};
use crate::precision::{Precision, bf16};
use crate::weights::Weights;

/// The weights of some of a piece's taps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phase {
    /// Where they begin, in floats.
    pub start: usize,
    /// Chunks of all these taps.
    pub chunks: usize,
    /// How they are stored.
    pub precision: Precision,
}

impl Phase {
    /// The floats that weights take, of which there are whole slices.
    fn floats(&self, weights: usize) -> usize {
        match self.precision {
            Precision::F32 => weights,
            Precision::Bf16 => weights / 2,
        }
    }
}

/// The weights of a piece.
#[derive(Clone, Debug)]
pub struct PackedPiece {
    /// For the taps that the row phase sums.
    pub row: Phase,
    /// For the others.
    pub pixel: Phase,
    /// Where the first chunk of each tap begins, in floats.
    pub taps: Vec<usize>,
    /// Where the biases begin: `[classes, at least 1][slices][SLICE]`.
    pub bias: usize,
    /// Slices of outputs.
    pub slices: usize,
    /// Slices of 4 outputs: 1, or with a gate 2, values and gates.
    pub halves: usize,
    /// Rows of weights of a chunk: 16 with concat_elu, else 8.
    pub rows: usize,
    /// Channels of the sum.
    pub accumulators: usize,
}

impl PackedPiece {
    /// Floats of the accumulators of one position.
    pub fn width(&self) -> usize {
        self.slices * SLICE
    }

    fn weights(&self, phase: Phase) -> usize {
        self.slices * self.rows * phase.chunks * SLICE
    }

    /// For each float of a position's accumulators its channel, or none where it is padding.
    fn channels(&self) -> impl Iterator<Item = Option<usize>> {
        let half = self.accumulators / self.halves;
        (0..self.width()).map(move |place| {
            let (slice, o) = (place / SLICE, place % SLICE);
            let channel = slice / self.halves * SLICE + o;
            (channel < half).then_some(slice % self.halves * half + channel)
        })
    }
}

/// Where all weights lie.
#[derive(Clone, Debug)]
pub struct Packed {
    /// For each piece of the plan.
    pub pieces: Vec<PackedPiece>,
    /// Floats of all of them.
    pub len: usize,
}

/// Chunks of a source of `channels` channels.
pub fn chunks(channels: usize) -> usize {
    channels.div_ceil(CHUNK)
}

impl Packed {
    /// Finds every piece a place: first all that the row phase reads, then all that the pixel phase reads.
    pub fn places(plan: &Plan, precision: Precision) -> Packed {
        let mut packed = Packed { pieces: Vec::new(), len: 0 };
        let classes = plan.graph.classes.max(1);
        let precisions = [precision.of_rows(&plan.graph), precision];
        for piece in &plan.pieces {
            let layer = plan.layer(piece);
            let accumulators = plan.graph.accumulators(layer);
            let halves = if layer.epilogue.gated { 2 } else { 1 };
            let slices = (accumulators / halves).div_ceil(SLICE) * halves;
            let rows = layer.read.copies() * CHUNK;
            let mut phases = precisions.map(|precision| Phase { start: 0, chunks: 0, precision });
            // Floats before each tap's, within its phase.
            let taps = plan.taps(piece).enumerate().map(|(i, tap)| {
                let phase = &mut phases[usize::from(i >= piece.hoisted)];
                let before = phase.chunks;
                phase.chunks += chunks(plan.graph.maps[tap.source].channels);
                phase.floats(before * SLICE)
            });
            let taps = taps.collect();
            let [row, pixel] = phases;
            packed.pieces.push(PackedPiece { row, pixel, taps, bias: 0, slices, halves, rows, accumulators });
        }
        let mut reserve = |floats: usize| {
            packed.len += floats.next_multiple_of(32);
            packed.len - floats.next_multiple_of(32)
        };
        for p in &mut packed.pieces {
            p.row.start = reserve(p.row.floats(p.weights(p.row)));
            p.bias = reserve(classes * p.width());
        }
        for (p, piece) in packed.pieces.iter_mut().zip(&plan.pieces) {
            p.pixel.start = reserve(p.pixel.floats(p.weights(p.pixel)));
            for (i, tap) in p.taps.iter_mut().enumerate() {
                *tap += if i < piece.hoisted { p.row.start } else { p.pixel.start };
            }
        }
        packed
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        (self.len * size_of::<f32>()) as u64
    }

    /// Reads, folds and packs layer after layer and hands each part to `put`, with the float at which it
    /// begins.
    ///
    /// # Errors
    /// As for [`Weights::fold`], and those of `put`.
    pub fn fill(
        &self,
        plan: &Plan,
        weights: &Weights,
        mut put: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        for (index, layer) in plan.graph.layers.iter().enumerate() {
            let read = LayerWeights::read(&plan.graph, weights, layer).map_err(|(_, error)| error)?;
            for (piece, packed) in plan.pieces_of(index).map(|i| (&plan.pieces[i], &self.pieces[i])) {
                for (part, phase) in [(Part::Hoisted, packed.row), (Part::Rest, packed.pixel)] {
                    put(phase.start, &stored(phase, pack(plan, piece, part, packed, phase, &read)))?;
                }
                put(packed.bias, &biases(packed, plan.graph.classes.max(1), &read))?;
            }
        }
        Ok(())
    }
}

/// The weights of one phase, whose taps are a part of the piece: `[slices][rows of a chunk][chunks][SLICE]`.
fn pack(
    plan: &Plan,
    piece: &Piece,
    part: Part,
    packed: &PackedPiece,
    phase: Phase,
    weights: &LayerWeights,
) -> Vec<f32> {
    let mut floats = vec![0.0; packed.weights(phase)];
    let taps = piece.part(part);
    let outputs: Vec<_> = packed.channels().collect();
    let mut before = 0;
    for tap in plan.taps(piece).skip(taps.start).take(taps.len()) {
        let channels = plan.graph.maps[tap.source].channels;
        for (i, row) in weights.rows(tap).enumerate() {
            let (sign, channel) = (i / channels, i % channels);
            let (chunk, of_chunk) = (channel / CHUNK, sign * CHUNK + channel % CHUNK);
            let first = (of_chunk * phase.chunks + before + chunk) * SLICE;
            for (slice, outputs) in outputs.chunks(SLICE).enumerate() {
                let to = first + slice * packed.rows * phase.chunks * SLICE;
                for (to, output) in floats[to..to + SLICE].iter_mut().zip(outputs) {
                    *to = output.map_or(0.0, |output| row[output]);
                }
            }
        }
        before += chunks(channels);
    }
    floats
}

/// The floats in which weights are stored: themselves, or words of two, the first in the lower half.
fn stored(phase: Phase, weights: Vec<f32>) -> Vec<f32> {
    let word = |pair: &[f32]| f32::from_bits(u32::from(bf16(pair[0])) | u32::from(bf16(pair[1])) << 16);
    match phase.precision {
        Precision::F32 => weights,
        Precision::Bf16 => weights.chunks_exact(2).map(word).collect(),
    }
}

/// The accumulators' initial values: `[classes][slices][SLICE]`.
fn biases(packed: &PackedPiece, classes: usize, weights: &LayerWeights) -> Vec<f32> {
    let of_class = |class| {
        let biases = weights.biases(class);
        packed
            .channels()
            .map(move |channel| channel.map_or(0.0, |channel| biases[channel]))
            .collect::<Vec<_>>()
    };
    (0..classes).flat_map(of_class).collect()
}
