//! A graph made ready for any backend, once.
//!
//! The idea: a backend works on pieces. A piece is a layer for outputs of one parity, with its taps divided into
//! those of the row phase, first what is there before it makes anything, and those of the pixel phase. Where maps lie
//! is in [`layout`], which pieces run when in [`steps`], what a piece's weights are in [`weights`], which rows a naive
//! pass needs in [`window`]; a backend adds its own packing and its kernels.

pub mod layout;
pub mod steps;
pub mod weights;
pub mod window;

use std::ops::Range;

use crate::graph::{Graph, Layer, Tap};

/// Which of a piece's taps to sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// All: from the bias to the outputs.
    Whole,
    /// Those of the row phase: from the bias to accumulators that are stored for the row.
    Hoisted,
    /// The others: from the stored accumulators to the outputs.
    Rest,
    /// Of a layer that is known when its row begins, the first taps: those of rows above and of what is given, from the bias to
    /// accumulators.
    Above,
    /// The others of such a layer: from the accumulators to the outputs.
    Within,
}

impl Part {
    /// Whether its sums begin with stored accumulators, not with the bias.
    pub fn loads(self) -> bool {
        matches!(self, Part::Rest | Part::Within)
    }

    /// Whether its sums end as stored accumulators, not as outputs.
    pub fn stores(self) -> bool {
        matches!(self, Part::Hoisted | Part::Above)
    }
}

/// A layer for outputs of one parity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index of the layer in [`Graph::layers`].
    pub layer: usize,
    /// Parity (row, column) of the outputs.
    pub parity: [usize; 2],
    /// Number of taps.
    pub taps: usize,
    /// How many of them, from the first on, are the row phase's.
    pub hoisted: usize,
    /// How many of those, from the first on, read what is there before the row phase makes anything.
    pub above: usize,
    /// Positions of the sources for one step of the piece.
    pub source_step: usize,
    /// Positions of the output for one step of the piece.
    pub output_step: usize,
    /// Pixels of the image for one position of the output.
    pub stride: usize,
}

impl Piece {
    /// The part to run when the row begins, if there is any.
    pub fn row_part(&self) -> Option<Part> {
        match self.hoisted {
            0 => None,
            n if n == self.taps => Some(Part::Whole),
            _ => Some(Part::Hoisted),
        }
    }

    /// The part to run when the pixel comes, if there is any.
    pub fn pixel_part(&self) -> Option<Part> {
        match self.row_part() {
            None => Some(Part::Whole),
            Some(Part::Whole) => None,
            Some(_) => Some(Part::Rest),
        }
    }

    /// The taps of a part.
    pub fn part(&self, part: Part) -> Range<usize> {
        match part {
            Part::Whole => 0..self.taps,
            Part::Hoisted => 0..self.hoisted,
            Part::Rest => self.hoisted..self.taps,
            Part::Above => 0..self.above,
            Part::Within => self.above..self.taps,
        }
    }

    /// Pixels of the image for one step.
    pub fn pixels(&self) -> usize {
        self.stride * self.output_step
    }

    /// The step that makes the outputs of a row (`axis` 0) or column (1) of the image, if there is one.
    pub fn step(&self, axis: usize, at: usize) -> Option<usize> {
        // Most often, and a division takes as long as a small layer's share of the work.
        if self.pixels() == 1 {
            return Some(at);
        }
        (at % self.pixels() == self.parity[axis] * self.stride).then_some(at / self.pixels())
    }

    /// Steps that cover `size` rows or columns of the image.
    pub fn steps(&self, size: usize) -> usize {
        size / self.pixels()
    }
}

/// A graph and its pieces.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph.
    pub graph: Graph,
    /// The pieces, layer after layer.
    pub pieces: Vec<Piece>,
}

impl Plan {
    /// Cuts a graph into pieces.
    pub fn new(graph: Graph) -> Plan {
        let mut pieces = Vec::new();
        for (index, layer) in graph.layers.iter().enumerate() {
            let [source_step, output_step] = graph.steps(layer);
            for parity in graph.parities(layer) {
                pieces.push(Piece {
                    layer: index,
                    parity,
                    taps: layer.taps_of(parity).count(),
                    hoisted: graph.hoisted_taps(layer, parity),
                    above: graph.taps_above(layer, parity),
                    source_step,
                    output_step,
                    stride: graph.stride(layer),
                });
            }
        }
        Plan { graph, pieces }
    }

    /// The layer of a piece.
    pub fn layer(&self, piece: &Piece) -> &Layer {
        &self.graph.layers[piece.layer]
    }

    /// The taps of a piece, those of the row phase first.
    pub fn taps<'a>(&'a self, piece: &Piece) -> impl Iterator<Item = &'a Tap> + use<'a> {
        self.layer(piece).taps_of(piece.parity)
    }

    /// Those of a part.
    pub fn taps_of<'a>(&'a self, piece: &Piece, part: Part) -> impl Iterator<Item = &'a Tap> + use<'a> {
        let taps = piece.part(part);
        self.taps(piece).skip(taps.start).take(taps.len())
    }

    /// Whether a piece's layer is known when its row begins, but only some of its taps are there before the row phase makes anything.
    pub fn is_cut_above(&self, piece: &Piece) -> bool {
        self.graph.is_row_known(self.layer(piece).output) && piece.above > 0 && piece.above < piece.taps
    }

    /// Whether a part of a piece may leave sums for another.
    pub fn keeps_sums(&self, piece: &Piece) -> bool {
        piece.row_part() == Some(Part::Hoisted) || self.is_cut_above(piece)
    }

    /// The pieces of a layer.
    pub fn pieces_of(&self, layer: usize) -> Range<usize> {
        let from = self.pieces.partition_point(|piece| piece.layer < layer);
        from..self.pieces.partition_point(|piece| piece.layer <= layer)
    }
}
