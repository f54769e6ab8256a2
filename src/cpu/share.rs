//! What a thread computes of a stage: some outputs at some positions, cut into tiles.
//!
//! The idea: at a pixel a small layer's arithmetic takes no longer than to find out what to do. So all that does not
//! depend on where a stage runs is written down once: rows, weights, and the cache lines to prefetch.

use std::cell::Cell;
use std::ops::Range;

use super::kernels::{LANES, MAX_ROWS, SEGMENTS, Segment, Shape};
use super::stage::{Context, Stage};
use super::team::{Thread, share};
use crate::plan::Piece;
use crate::plan::layout::Extent;
use crate::precision::Precision;

/// Cache block: the inputs of this many tiles stay in L2 while all output panels pass over them.
pub const BLOCK_TILES: usize = 12;

/// From this many positions per thread on, threads split the positions; below, they split the output channels.
pub const MANY_POSITIONS: usize = 96;

/// A thread's share of some taps of a stage, on any rectangle of a size.
pub struct Share {
    /// The taps.
    pub taps: Range<usize>,
    /// Where each one's inputs for the rectangle's corner begin: set when a run begins.
    pub inputs: Vec<Cell<*const f32>>,
    /// The images and the size of the rectangle, in the stage's own steps.
    pub extent: Extent,
    /// Positions of the rectangle, counted image by image: `(image * height + row) * width + column`.
    pub positions: Range<usize>,
    /// The tiles into which it is cut.
    pub shape: Shape,
    /// The tiles from left to right. None where there is nothing to do.
    pub strips: Vec<Strip>,
    /// The tiles from top to bottom, if all are in one block.
    pub rows: Vec<Rows>,
}

/// Tiles one under the other: the same outputs at different positions.
pub struct Strip {
    /// Vectors of outputs.
    pub vectors: Range<usize>,
    /// The taps, in the order of summation.
    pub chunks: Vec<Chunk>,
}

/// Taps that a kernel sums at a time.
pub struct Chunk {
    /// The taps.
    pub taps: Range<usize>,
    /// How their weights are stored.
    pub precision: Precision,
    /// Floats from one panel's weights to the next one's.
    pub panel_stride: usize,
    /// One for each tap.
    pub segments: Vec<Segment>,
    /// The weights in cache lines: addresses, and how many from there on.
    pub lines: Vec<(usize, usize)>,
}

/// The rows of a tile: what is the same for all outputs.
#[derive(Clone, Default)]
pub struct Rows {
    /// How many.
    pub count: usize,
    /// Each one's inputs, counted in the positions of the source grids from the rectangle's corner.
    pub inputs: [usize; MAX_ROWS],
    /// Each one's output, counted in the output grids from the rectangle's corner.
    pub outputs: [usize; MAX_ROWS],
    /// Each one's stored accumulators, counted in positions from those of the rectangle's corner.
    pub accumulators: [usize; MAX_ROWS],
    /// The images.
    pub images: [usize; MAX_ROWS],
}

/// The taps of a range that a kernel sums at a time: at most [`SEGMENTS`], all of one phase.
pub fn chunks_of(piece: &Piece, taps: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let boundary = taps.start.max(piece.hoisted).min(taps.end);
    [taps.start..boundary, boundary..taps.end].into_iter().flat_map(|taps| chunks(&taps, SEGMENTS))
}

/// Consecutive pieces of a range, all of `size` but the last.
pub fn chunks(range: &Range<usize>, size: usize) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.clone().step_by(size).map(move |first| first..end.min(first + size))
}

impl Stage {
    /// A thread's share of some taps on rectangles of `height` x `width` of the stage's steps. Many positions are
    /// divided among the threads, so that each thread reads what it has written itself: to fetch what another core has
    /// just written takes longer than the arithmetic on it. With few positions the outputs are divided instead, and
    /// with them the weights, since reading the weights is then what takes time.
    ///
    /// # Panics
    /// As for [`Stage::share_of`].
    pub fn share(
        &self,
        context: &Context,
        team: &Thread,
        taps: Range<usize>,
        [height, width]: [usize; 2],
    ) -> Share {
        let (vectors, positions) = (self.packed.vectors, context.batch * height * width);
        let by_vector = match positions >= team.count * MANY_POSITIONS {
            true => 1,
            false => team.count.min(vectors),
        };
        let by_position = team.count / by_vector;
        let (vectors, positions) = match team.index < by_vector * by_position {
            true => (
                share(vectors, team.index % by_vector, by_vector),
                share(positions, team.index / by_vector, by_position),
            ),
            false => (0..0, 0..0),
        };
        self.share_of(context, taps, [height, width], vectors, positions)
    }

    /// The share of a thread that computes these vectors of outputs at these positions.
    ///
    /// # Panics
    /// If there are no such taps; if they are not all, and the stage stores no accumulators or the rectangles are
    /// neither one position nor a row of all columns.
    pub fn share_of(
        &self,
        context: &Context,
        taps: Range<usize>,
        [height, width]: [usize; 2],
        vectors: Range<usize>,
        positions: Range<usize>,
    ) -> Share {
        assert!(!taps.is_empty() && taps.end <= self.piece.taps, "the stage has no taps {taps:?}");
        if taps.len() < self.piece.taps {
            let (_, columns) =
                self.accumulators.expect("only a stage that stores accumulators runs in parts");
            assert!(height == 1 && (width == 1 || width == columns));
        }
        let extent = Extent { batch: context.batch, height, width };
        let inputs = vec![Cell::new(std::ptr::null()); taps.len()];
        let (shape, strips, rows) = (Shape::default(), Vec::new(), Vec::new());
        let mut share = Share { taps: taps.clone(), inputs, extent, positions, shape, strips, rows };
        if share.positions.is_empty() || vectors.is_empty() {
            return share;
        }
        let halves = self.packed.halves;
        let panels = vectors.len() * halves;
        share.shape =
            context.kernels.shape(share.positions.len(), panels, halves, self.precision(taps.clone()));
        let strip = |vectors: Range<usize>| Strip {
            chunks: chunks_of(&self.piece, taps.clone()).map(|t| self.chunk(context, t, &vectors)).collect(),
            vectors,
        };
        share.strips = chunks(&vectors, share.shape.panels / halves).map(strip).collect();
        if share.positions.len() <= share.shape.rows * BLOCK_TILES {
            share.rows = self.rows_of(&share, &share.positions);
        }
        share
    }

    /// How the weights of most of some taps are stored.
    fn precision(&self, taps: Range<usize>) -> Precision {
        let hoisted = taps.end.min(self.piece.hoisted).saturating_sub(taps.start);
        if 2 * hoisted > taps.len() { self.packed.row.precision } else { self.packed.pixel.precision }
    }

    /// The weights of some vectors of outputs for some taps, all of one phase.
    fn chunk(&self, context: &Context, taps: Range<usize>, vectors: &Range<usize>) -> Chunk {
        let (packed, floats) = (&self.packed, context.packed.floats.as_slice());
        let (first, panels) = (vectors.start * packed.halves, vectors.len() * packed.halves);
        let hoisted = taps.start < self.piece.hoisted;
        let (phase, all) = match hoisted {
            true => (&packed.row, 0..self.piece.hoisted),
            false => (&packed.pixel, self.piece.hoisted..self.piece.taps),
        };
        let lines_of = |tap: usize| phase.precision.lines(self.taps[tap].in_channels);
        let segment = |tap: usize| {
            let from = self.taps[tap].weights + first * phase.stride();
            let end = from + (panels - 1) * phase.stride() + lines_of(tap) * LANES;
            let (stride, in_channels) = (self.taps[tap].grid.channels, self.taps[tap].in_channels);
            Segment { stride, weights: floats[from..end].as_ptr(), in_channels }
        };
        let segments = taps.clone().map(segment).collect();
        let address =
            |panel: usize| floats[self.taps[taps.start].weights + panel * phase.stride()..].as_ptr().addr();
        // All taps of a phase lie behind one another for all panels.
        let lines = match taps == all {
            true => vec![(address(first), panels * phase.lines)],
            false => {
                let lines = taps.clone().map(lines_of).sum();
                (first..first + panels).map(|panel| (address(panel), lines)).collect()
            }
        };
        Chunk { taps, precision: phase.precision, panel_stride: phase.stride(), segments, lines }
    }

    /// The rows of the tiles at some of a share's positions.
    pub fn rows_of(&self, share: &Share, positions: &Range<usize>) -> Vec<Rows> {
        chunks(positions, share.shape.rows).map(|tile| self.rows(&share.extent, tile)).collect()
    }

    /// The rows of a tile at some positions, at most [`MAX_ROWS`].
    fn rows(&self, extent: &Extent, positions: Range<usize>) -> Rows {
        let Extent { batch, height, width } = *extent;
        // All sources of a layer have one stride, and so the same columns.
        let (source_columns, read, write) =
            (self.taps[0].grid.columns, self.piece.source_step, self.piece.output_step);
        let accumulator_columns = self.accumulators.map_or(0, |(_, columns)| columns);
        let mut rows = Rows { count: positions.len(), ..Rows::default() };
        for (i, position) in positions.enumerate() {
            let (line, column) = (position / width, position % width);
            let (image, row) = (line / height, line % height);
            rows.inputs[i] = (row * read * batch + image) * source_columns + column * read;
            rows.outputs[i] = (row * write * batch + image) * self.output_columns + column * write;
            rows.accumulators[i] = image * accumulator_columns + column;
            rows.images[i] = image;
        }
        rows
    }
}
