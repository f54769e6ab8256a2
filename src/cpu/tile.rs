//! Runs a stage: divides it among the team's threads and into tiles, turns positions and vectors of outputs into
//! addresses, and calls the kernels.
//!
//! The idea: a kernel sees pointers and counts only. And since the kernels are bound by memory, each tile gets
//! the addresses that the next ones will read, and prefetches them while it works.

use std::ops::Range;

use super::kernels::{
    EpilogueArgs, Kernels, LANES, MAX_PANELS, MAX_ROWS, SEGMENTS, STEP, Segment, Shape, Target, Tile,
};
use super::packed::Panels;
use super::prefetch::{Prefetch, Queue};
use super::stage::{Context, Span, Stage, StageTap};
use super::team::{Thread, share};
use crate::graph::Activation;
use crate::plan::layout::Grid;

/// Cache block: the inputs of this many tiles stay in L2 while all output panels pass over them.
const BLOCK_TILES: usize = 12;

/// From this many positions per thread on, threads split the positions; below, they split the output channels.
pub const MANY_POSITIONS: usize = 96;

impl Stage {
    /// A thread's share of some of the stage's taps: from the biases or the stored accumulators to those or, with the
    /// last tap, to the outputs. `next` is what will run on as many positions after it, if that is known.
    ///
    /// # Panics
    /// If there are no such taps; if they are not all, and the stage stores no accumulators or the span is neither one
    /// position nor all columns of one row of each image.
    ///
    /// # Safety
    /// - The stage was made with a layout of which `context.memory` is a block, for `context.batch` images.
    /// - The span lies in the image. With rings it is one row, and what the taps read above it is still there.
    /// - The sources hold what the taps read, and the stored accumulators the sum of the taps before them. This thread
    ///   has been at a barrier since another wrote any of it, or has otherwise seen that it was written.
    /// - `share` is this thread's of as many positions as the span has; every thread of the team calls this with the
    ///   same stage, span and taps, or the one that runs it alone. Until the team's next barrier nobody writes what
    ///   this reads or touches what it writes, but threads their own shares of it.
    pub unsafe fn run(
        &self,
        context: &Context,
        span: &Span,
        taps: Range<usize>,
        share: &Share,
        next: Option<Next>,
    ) {
        assert!(!taps.is_empty() && taps.end <= self.piece.taps, "the stage has no taps {taps:?}");
        if taps.len() < self.piece.taps {
            let (_, columns) =
                self.accumulators.expect("only a stage that stores accumulators runs in parts");
            assert!(span.rows.len() == 1 && span.columns.end <= columns);
            assert!(span.columns.len() == 1 || span.columns.len() == columns);
        }
        let work = Work { context, stage: self, taps, span };
        if share.positions.is_empty() {
            return;
        }
        // SAFETY: by the caller's promise.
        unsafe {
            match share.positions.len() <= share.shape.rows {
                true => self.blocks::<1>(&work, share, next),
                false => self.blocks::<BLOCK_TILES>(&work, share, next),
            }
        }
    }

    /// Some vectors of outputs at some positions, in blocks of `TILES` tiles: a block's tables of rows are on the
    /// stack, and a single tile should not pay for those of twelve.
    ///
    /// # Safety
    /// As for [`Stage::run`], of which this is a thread's share.
    unsafe fn blocks<const TILES: usize>(&self, work: &Work, share: &Share, next: Option<Next>) {
        let Share { vectors, positions, shape, .. } = share;
        let context = work.context;
        let ranges = || chunks(vectors, shape.panels / self.packed.halves);
        // A block of inputs stays in the core's cache while the weights of all outputs pass over it.
        let mut blocks = chunks(positions, shape.rows * TILES).peekable();
        while let Some(block) = blocks.next() {
            let rows: [Rows; TILES] = std::array::from_fn(|t| {
                let first = block.end.min(block.start + t * shape.rows);
                work.rows(first..block.end.min(first + shape.rows))
            });
            let tiles = block.len().div_ceil(shape.rows);
            for (r, range) in ranges().enumerate() {
                let next_range = ranges().nth(r + 1).or_else(|| blocks.peek().and(ranges().next()));
                for t in 0..tiles {
                    let mut prefetch = Prefetch::default();
                    if r == 0 && t + 1 < tiles {
                        work.prefetch_inputs(&mut prefetch, &rows[t + 1]);
                    }
                    match (&next_range, &next) {
                        (Some(next), _) => prefetch.weights(context, self, &work.taps, next, (t, tiles)),
                        (None, Some(Next { stage, taps, share })) => {
                            prefetch.weights(context, stage, taps, &share.first, (t, tiles));
                        }
                        (None, None) => {}
                    }
                    // SAFETY: the vectors and rows are of this thread's share, and threads' shares do not
                    // overlap; the rest by the caller's promise.
                    unsafe { work.tile(&range, &rows[t], &prefetch) };
                }
            }
        }
    }

    /// A thread's share of the stage at `positions` positions. Many positions are divided among the threads, so that each
    /// thread reads what it has written itself: to fetch what another core has just written takes longer than
    /// the arithmetic on it. With few positions the outputs are divided instead, and with them the weights, since
    /// reading the weights is then what takes time.
    pub fn share(&self, kernels: &Kernels, team: &Thread, positions: usize) -> Share {
        let vectors = self.packed.vectors;
        let by_vector = match positions >= team.count * MANY_POSITIONS {
            true => 1,
            false => team.count.min(vectors),
        };
        let by_position = team.count / by_vector;
        if team.index >= by_vector * by_position {
            return Share::default();
        }
        let vectors = share(vectors, team.index % by_vector, by_vector);
        self.share_of(kernels, vectors, share(positions, team.index / by_vector, by_position))
    }

    /// The share of a thread that computes these vectors of outputs at these positions.
    pub fn share_of(&self, kernels: &Kernels, vectors: Range<usize>, positions: Range<usize>) -> Share {
        if positions.is_empty() || vectors.is_empty() {
            return Share::default();
        }
        let halves = self.packed.halves;
        let shape = kernels.shape(positions.len(), vectors.len() * halves, halves);
        let first = vectors.start..vectors.end.min(vectors.start + shape.panels / halves);
        Share { vectors, positions, shape, first }
    }
}

/// What a thread computes of a stage.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// Vectors of outputs.
    vectors: Range<usize>,
    /// Positions of the span. Empty where there is nothing to do.
    positions: Range<usize>,
    /// The tiles into which it is cut.
    shape: Shape,
    /// The vectors of the first tile.
    first: Range<usize>,
}

/// What runs after a stage, whose weights are prefetched.
pub struct Next<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// Its taps.
    pub taps: Range<usize>,
    /// What the thread computes of it.
    pub share: &'a Share,
}

/// Consecutive pieces of a range, all of `size` but the last.
fn chunks(range: &Range<usize>, size: usize) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.clone().step_by(size).map(move |first| first..end.min(first + size))
}

/// A stage on a rectangle of positions, counted image by image: `(image * rows + row) * columns + column`.
struct Work<'a> {
    /// What all stages share.
    context: &'a Context<'a>,
    /// The stage.
    stage: &'a Stage,
    /// The taps to sum.
    taps: Range<usize>,
    /// The rectangle.
    span: &'a Span,
}

/// The rows of a tile: what is the same for all outputs.
#[derive(Clone, Copy, Default)]
struct Rows {
    /// How many.
    count: usize,
    /// Each one's inputs, counted in the positions of the source grids from the rectangle's corner.
    offsets: [usize; MAX_ROWS],
    /// Each one's output, counted in the output grids from the rectangle's corner.
    outputs: [usize; MAX_ROWS],
    places: [Place; MAX_ROWS],
}

/// Where a position lies.
#[derive(Clone, Copy, Default)]
struct Place {
    image: usize,
    row: usize,
    column: usize,
}

impl Work<'_> {
    fn place(&self, position: usize) -> Place {
        let (rows, columns) = (self.span.rows.len(), self.span.columns.len());
        // A pixel: most often, and divisions would take a good part of a small layer's time.
        if rows * columns == 1 {
            return Place { image: position, row: 0, column: 0 };
        }
        let (line, column) = (position / columns, position % columns);
        Place { image: line / rows, row: line % rows, column }
    }

    fn next(&self, place: Place) -> Place {
        let Place { image, row, column } = place;
        if column + 1 < self.span.columns.len() {
            return Place { image, row, column: column + 1 };
        }
        if row + 1 < self.span.rows.len() {
            return Place { image, row: row + 1, column: 0 };
        }
        Place { image: image + 1, row: 0, column: 0 }
    }

    /// The rows of a tile at some positions, at most [`MAX_ROWS`].
    fn rows(&self, positions: Range<usize>) -> Rows {
        let mut rows = Rows { count: positions.len(), ..Rows::default() };
        let mut place = self.place(positions.start);
        for i in 0..rows.count {
            rows.offsets[i] = self.input_offset(place);
            rows.outputs[i] = self.output_index(place);
            rows.places[i] = place;
            place = self.next(place);
        }
        rows
    }

    /// Position of a place's inputs, counted in the source grids from the rectangle's corner. All sources of a
    /// layer have one stride, and so the same columns.
    fn input_offset(&self, place: Place) -> usize {
        let (columns, step) = (self.stage.taps[0].grid.columns, self.stage.piece.source_step);
        (place.row * step * self.context.batch + place.image) * columns + place.column * step
    }

    /// Index of a place's output, counted in the output grids from the rectangle's corner.
    fn output_index(&self, place: Place) -> usize {
        let step = self.stage.piece.output_step;
        (place.row * step * self.context.batch + place.image) * self.stage.output_columns
            + place.column * step
    }

    /// Where a tap's inputs for the rectangle's corner begin, in floats.
    fn corner(&self, tap: usize) -> usize {
        let (stage, tap) = (self.stage, &self.stage.taps[tap]);
        let row = (self.span.rows.start * stage.piece.source_step) as isize + tap.row;
        let column = (self.span.columns.start * stage.piece.source_step) as isize + tap.column;
        tap.grid.at(0, row, column)
    }

    /// Prefetches the inputs of some rows: those that are contiguous with the first.
    fn prefetch_inputs(&self, prefetch: &mut Prefetch, rows: &Rows) {
        let (first, last) = (rows.offsets[0], rows.offsets[rows.count - 1]);
        // At the end of a row of an image the padding lies between.
        let together = (rows.count + 2) * self.stage.piece.source_step;
        let positions = last.saturating_sub(first).min(together) + 1;
        let mut previous = None;
        for tap in self.taps.clone() {
            // Neighbours in a row have most inputs in common.
            let Grid { base, channels, .. } = self.stage.taps[tap].grid;
            let key = (base, self.stage.taps[tap].row);
            if previous.replace(key) != Some(key) {
                let from = self.context.memory.address(self.corner(tap) + first * channels);
                prefetch.push(from, (positions * channels).div_ceil(LANES));
            }
        }
    }

    /// Computes `vectors` of outputs at some positions.
    ///
    /// # Safety
    /// As for [`Stage::run`]; `vectors` and `rows`, which [`Work::rows`] made and which are at least one, are
    /// of this thread's share.
    unsafe fn tile(&self, vectors: &Range<usize>, rows: &Rows, prefetch: &Prefetch) {
        let (stage, context) = (self.stage, self.context);
        let packed = &stage.packed;
        let panels = vectors.len() * packed.halves;
        let first_panel = vectors.start * packed.halves;

        let mut init = [std::ptr::null(); MAX_ROWS];
        for (init, place) in init.iter_mut().zip(&rows.places[..rows.count]) {
            *init = match self.taps.start {
                0 => {
                    let bias = context.classes[place.image] * packed.width() + first_panel * LANES;
                    context.packed.floats.as_slice()[packed.biases + bias..][..panels * LANES].as_ptr()
                }
                // SAFETY: a place of the span, as of all `rows`.
                _ => unsafe { self.accumulators(*place, first_panel, panels).cast_const() },
            };
        }
        let mut scratch = std::mem::MaybeUninit::<[f32; MAX_ROWS * MAX_PANELS * LANES]>::uninit();
        let last = self.taps.end == stage.piece.taps;
        let (accumulators, accumulator_stride) = match last {
            true => (scratch.as_mut_ptr().cast(), panels * LANES),
            // SAFETY: as above. A span has all columns or one, so that its places are equally far apart.
            false => unsafe {
                let (_, columns) = stage.accumulators.expect("only such a stage runs in parts");
                let apart = columns / self.span.columns.len();
                (self.accumulators(rows.places[0], first_panel, panels), apart * packed.width())
            },
        };

        let mut prefetch = Queue::new(prefetch);
        let boundary = self.taps.start.max(stage.piece.hoisted).min(self.taps.end);
        for (taps, part) in
            [(self.taps.start..boundary, &packed.row), (boundary..self.taps.end, &packed.pixel)]
        {
            for taps in chunks(&taps, SEGMENTS) {
                let mut segments = [Segment::NOTHING; SEGMENTS];
                let segments = &mut segments[..taps.len()];
                for (segment, tap) in segments.iter_mut().zip(taps) {
                    // SAFETY: by the caller's promise.
                    *segment = unsafe { self.segment(tap, part, first_panel, panels, rows, &mut prefetch) };
                }
                let (offsets, panel_stride) = (&rows.offsets, part.stride());
                let tile =
                    Tile { segments, offsets, init: &init, panel_stride, accumulators, accumulator_stride };
                // SAFETY: the kernels exist only where the processor has their instruction set. Weights and
                // biases are slices of that length; inputs and stored accumulators are in the block, by the
                // caller's promise. `accumulators` is this thread's own, and overlaps nothing that is read but
                // `init`, which from the second round on is the same place.
                unsafe { context.kernels.tile(rows.count, panels, part.precision)(&tile) };
                // The next segments continue from these accumulators, in place.
                for (i, init) in init[..rows.count].iter_mut().enumerate() {
                    *init = accumulators.wrapping_add(i * accumulator_stride);
                }
            }
        }
        if last {
            // SAFETY: by the caller's promise. There is a tap, so the accumulators are written.
            unsafe { self.epilogue(vectors, rows, accumulators, accumulator_stride) };
        }
    }

    /// A tap's inputs for the rows of a tile and its weights for some panels.
    ///
    /// # Safety
    /// As for [`Work::tile`].
    unsafe fn segment(
        &self,
        tap: usize,
        part: &Panels,
        first_panel: usize,
        panels: usize,
        rows: &Rows,
        prefetch: &mut Queue,
    ) -> Segment {
        let StageTap { grid, in_channels, weights, .. } = self.stage.taps[tap];
        let panel = weights + first_panel * part.stride();
        let end = panel + (panels - 1) * part.stride() + part.precision.lines(in_channels) * LANES;
        let farthest = rows.offsets[..rows.count].iter().max().expect("a tile has rows");
        let (from, bursts) = prefetch.take(in_channels / STEP);
        Segment {
            // SAFETY: the grid has the positions that the tap reads for these rows, by the caller's promise.
            inputs: unsafe { self.context.memory.at(self.corner(tap), (farthest + 1) * grid.channels) },
            stride: grid.channels,
            weights: self.context.packed.floats.as_slice()[panel..end].as_ptr(),
            in_channels,
            prefetch: from,
            bursts,
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
        let [row, column] = [0, 1].map(|axis| {
            let first = [&self.span.rows, &self.span.columns][axis].start;
            (first * stage.piece.output_step + stage.piece.parity[axis]) as isize
        });
        let positions = &rows.outputs[..rows.count];
        let last = positions.iter().max().expect("a tile has rows");
        let target = |grid: Option<Grid>| {
            grid.map(|g| Target {
                // SAFETY: the grid has the positions of the span, by the caller's promise.
                base: unsafe { context.memory.at(g.at(0, row, column), (last + 1) * g.channels) },
                channels: g.channels,
            })
        };
        let mut outputs = [None; Activation::ALL.len()];
        for (output, grid) in outputs.iter_mut().zip(&stage.outputs) {
            *output = target(*grid);
        }
        let args = EpilogueArgs {
            accumulators,
            accumulator_stride,
            positions,
            vectors: vectors.len(),
            first_vector: vectors.start,
            channels: stage.channels,
            epilogue: stage.epilogue,
            add: target(stage.add),
            outputs,
        };
        // SAFETY: the instruction set as above. The vectors are some of the layer's; grids have the channels that
        // `Stage::new` has checked; and a layer's output is another map than what it adds.
        unsafe { context.kernels.epilogue()(&args) }
    }

    /// The stored accumulators of a place, `panels * LANES` floats.
    ///
    /// # Safety
    /// As for [`Work::tile`]; the place is one of the span, and the panels are some of the layer's.
    unsafe fn accumulators(&self, place: Place, first_panel: usize, panels: usize) -> *mut f32 {
        let (base, columns) =
            self.stage.accumulators.expect("only stages that store accumulators run in parts");
        let position = place.image * columns + self.span.columns.start + place.column;
        let offset = base + position * self.stage.packed.width() + first_panel * LANES;
        // SAFETY: by the caller's promise.
        unsafe { self.context.memory.at(offset, panels * LANES) }
    }
}
