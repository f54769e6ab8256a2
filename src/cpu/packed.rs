//! Weights in the order in which the kernels read them.
//!
//! The idea: weight norm is folded and the taps of a layer are laid behind one another once, at load,
//! as panels `[inputs of all taps][16 outputs]`. A layer with a gate alternates panels of values and of
//! gates, so that a value and its gate are in one tile. What the row phase reads and what the pixel
//! phase reads are apart, so that the latter is one stretch of memory, in the order of its use, and may
//! be stored in half the bytes.

use std::ops::Range;
use std::sync::Mutex;

use super::buffer::Buffer;
use super::kernels::LANES;
use super::team;
use crate::error::{Error, Result};
use crate::graph::ParameterId;
use crate::plan::weights::LayerWeights;
use crate::plan::{Piece, Plan};
use crate::precision::{Precision, bf16};
use crate::weights::Weights;

/// The weights of some of a layer's taps: `[panels][lines][LANES]`, where a line is one input's row, or
/// with [`Precision::Bf16`] two.
#[derive(Clone, Copy, Debug)]
pub struct Panels {
    /// Where they begin, in floats.
    pub start: usize,
    /// Lines of a panel, of all taps together.
    pub lines: usize,
    /// How they are stored.
    pub precision: Precision,
}

impl Panels {
    /// Floats from one panel to the next.
    pub fn stride(&self) -> usize {
        self.lines * LANES
    }
}

/// The weights of a piece.
#[derive(Clone, Debug)]
pub struct PackedPiece {
    /// For the taps that the row phase sums.
    pub row: Panels,
    /// For the others.
    pub pixel: Panels,
    /// Where the first panel's weights for each tap begin, in floats.
    pub taps: Vec<usize>,
    /// Vectors of [`LANES`] outputs.
    pub vectors: usize,
    /// Panels of a vector: 1, or with a gate 2, values and gates.
    pub halves: usize,
    /// Channels of the sum.
    pub accumulators: usize,
    /// Where the biases begin: `[classes, at least 1][panels][LANES]`.
    pub biases: usize,
}

impl PackedPiece {
    /// Panels of the piece.
    pub fn panels(&self) -> usize {
        self.vectors * self.halves
    }

    /// Floats of one position's accumulators.
    pub fn width(&self) -> usize {
        self.panels() * LANES
    }

    /// The channels of the sum that a panel holds, from lane 0 on: at most [`LANES`].
    fn outputs(&self, panel: usize) -> Range<usize> {
        let channels = self.accumulators / self.halves;
        let first = panel / self.halves * LANES;
        let half = panel % self.halves * channels;
        half + first..half + channels.min(first + LANES)
    }
}

/// All weights of a graph.
pub struct Packed {
    /// Panels and biases.
    pub floats: Buffer,
    /// For each piece of the plan.
    pub pieces: Vec<PackedPiece>,
}

impl Packed {
    /// Reads, folds and packs the weights of a graph, those of the pixel phase in the given precision,
    /// on `threads` threads: each takes a layer at a time.
    ///
    /// # Errors
    /// As for [`Weights::fold`]: of several parameters that are wrong the first of the graph's, whichever
    /// thread came upon it. [`Error::Threads`], [`Error::Allocate`].
    pub fn new(plan: &Plan, weights: &Weights, precision: Precision, threads: usize) -> Result<Packed> {
        let (pieces, [boundary, len]) = places(plan, precision);
        let mut floats = Buffer::zeroed(len)?;
        // Layers lie one behind the other, all of them for the row phase and then for the pixel phase.
        let (rows, pixels) = floats.as_mut_slice().split_at_mut(boundary);
        let mut rest = [rows, pixels];
        let start_of = |piece: usize| {
            pieces.get(piece).map_or([boundary, len], |packed| [packed.row.start, packed.pixel.start])
        };
        let mut jobs = Vec::new();
        for layer in 0..plan.graph.layers.len() {
            let own = plan.pieces_of(layer);
            let (start, end) = (start_of(own.start), start_of(own.end));
            let floats = std::array::from_fn(|i| {
                let (own, others) = std::mem::take(&mut rest[i]).split_at_mut(end[i] - start[i]);
                rest[i] = others;
                own
            });
            jobs.push(Job { layer, pieces: own, start, floats });
        }
        let threads = threads.min(jobs.len()).max(1);
        let jobs = Mutex::new(jobs.into_iter());
        let fault: Mutex<Option<(ParameterId, Error)>> = Mutex::new(None);
        let next = || jobs.lock().unwrap_or_else(|e| e.into_inner()).next();
        team::run(&[threads], |_, thread| {
            // To the end after a fault too: an earlier parameter may be wrong as well.
            while let Some(job) = next().filter(|_| !thread.abandoned()) {
                if let Err((id, error)) = job.run(plan, weights, &pieces) {
                    let mut fault = fault.lock().unwrap_or_else(|e| e.into_inner());
                    if fault.as_ref().is_none_or(|(first, _)| id < *first) {
                        *fault = Some((id, error));
                    }
                }
            }
        })?;
        match fault.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some((_, error)) => Err(error),
            None => Ok(Packed { floats, pieces }),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.floats.as_slice()) as u64
    }
}

/// Finds every piece a place: first what the row phase reads, with the biases, then what the pixel phase reads.
/// With them the floats of the first part and of both.
fn places(plan: &Plan, precision: Precision) -> (Vec<PackedPiece>, [usize; 2]) {
    let classes = plan.graph.classes.max(1);
    let row = precision.of_rows(&plan.graph);
    let place = |piece: &Piece| {
        let layer = plan.layer(piece);
        let accumulators = plan.graph.accumulators(layer);
        let halves = if layer.epilogue.gated { 2 } else { 1 };
        let vectors = (accumulators / halves).div_ceil(LANES);
        // Lines before each tap's, within its phase.
        let mut phases = [row, precision].map(|precision| Panels { start: 0, lines: 0, precision });
        let taps = plan.taps(piece).enumerate().map(|(i, tap)| {
            let phase = &mut phases[usize::from(i >= piece.hoisted)];
            let before = phase.lines;
            phase.lines += phase.precision.lines(tap.in_channels());
            before * LANES
        });
        let taps = taps.collect();
        let [row, pixel] = phases;
        PackedPiece { row, pixel, taps, vectors, halves, accumulators, biases: 0 }
    };
    let mut pieces: Vec<_> = plan.pieces.iter().map(place).collect();
    let mut len = 0;
    let mut reserve = |floats: usize| {
        len += floats;
        len - floats
    };
    for packed in &mut pieces {
        packed.row.start = reserve(packed.panels() * packed.row.stride());
        packed.biases = reserve(classes * packed.width());
    }
    let boundary = reserve(0);
    for (packed, piece) in pieces.iter_mut().zip(&plan.pieces) {
        packed.pixel.start = reserve(packed.panels() * packed.pixel.stride());
        for (i, tap) in packed.taps.iter_mut().enumerate() {
            *tap += if i < piece.hoisted { packed.row.start } else { packed.pixel.start };
        }
    }
    (pieces, [boundary, len])
}

/// A layer to pack.
struct Job<'a> {
    layer: usize,
    pieces: Range<usize>,
    /// Where its floats for the row phase and for the pixel phase begin among those of all layers.
    start: [usize; 2],
    /// Its floats.
    floats: [&'a mut [f32]; 2],
}

impl Job<'_> {
    /// Packs the layer; the error comes with its parameter.
    fn run(
        mut self,
        plan: &Plan,
        weights: &Weights,
        packed: &[PackedPiece],
    ) -> std::result::Result<(), (ParameterId, Error)> {
        let read = LayerWeights::read(&plan.graph, weights, &plan.graph.layers[self.layer])?;
        for index in self.pieces.clone() {
            self.fill(plan, &plan.pieces[index], &packed[index], &read);
        }
        Ok(())
    }

    /// Fills a piece's panels and biases.
    fn fill(&mut self, plan: &Plan, piece: &Piece, packed: &PackedPiece, weights: &LayerWeights) {
        for (index, (tap, start)) in plan.taps(piece).zip(&packed.taps).enumerate() {
            let phase = usize::from(index >= piece.hoisted);
            let panels = [&packed.row, &packed.pixel][phase];
            let (floats, start) = (&mut *self.floats[phase], start - self.start[phase]);
            for (i, row) in weights.rows(tap).enumerate() {
                for panel in 0..packed.panels() {
                    let row = &row[packed.outputs(panel)];
                    let to = start + panel * panels.stride();
                    match panels.precision {
                        Precision::F32 => floats[to + i * LANES..][..row.len()].copy_from_slice(row),
                        Precision::Bf16 => {
                            let pairs = &mut floats[to + i / 2 * LANES..][..row.len()];
                            for (pair, x) in bytemuck::cast_slice_mut::<f32, u32>(pairs).iter_mut().zip(row) {
                                *pair |= u32::from(bf16(*x)) << (16 * (i % 2));
                            }
                        }
                    }
                }
            }
        }
        for class in 0..plan.graph.classes.max(1) {
            let biases = weights.biases(class);
            for panel in 0..packed.panels() {
                let biases = &biases[packed.outputs(panel)];
                let to = packed.biases - self.start[0] + class * packed.width() + panel * LANES;
                self.floats[0][to..to + biases.len()].copy_from_slice(biases);
            }
        }
    }
}
