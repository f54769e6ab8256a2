//! Runs a stage: cuts it among the team and into tiles, from positions and units of outputs to addresses, and
//! through the kernels.
//!
//! The idea: a kernel sees pointers and counts only. And since the kernels work as fast as data come,
//! each tile is told what the next ones will read, to ask for it while it works.

use std::ops::Range;

use super::kernels::{BURST, EpilogueArgs, LANES, MAX_PANELS, MAX_ROWS, STEP, Segment, Shape, Target, Tile};
use super::packed::Panels;
use super::stage::{Context, Span, Stage, StageTap};
use super::team::{Thread, share};
use crate::plan::Part;
use crate::plan::layout::Grid;

/// Cache block: the inputs of this many tiles stay in L2 while all output panels pass over them.
const BLOCK_TILES: usize = 12;

/// From this many positions per thread on, threads split the positions; below, they split the output channels.
pub const MANY_POSITIONS: usize = 96;

/// Taps that a kernel sums at a time.
const SEGMENTS: usize = 8;

impl Stage {
    /// This thread's share of the stage. `next` is what will run on as many positions after it, if that is
    /// known.
    ///
    /// # Panics
    /// If the stage has no such part; if the span of a part of it is not one row, and of
    /// [`Part::Hoisted`] all columns of one: its sums follow one another from image to image.
    ///
    /// # Safety
    /// - The stage was made with a layout of which `context.memory` is a block, for `context.batch` images.
    /// - The span lies in the image. With rings it is one row, and what the taps read above it is still there.
    /// - The sources hold what the part reads, and the row's sums what [`Part::Rest`] goes on from. The team
    ///   has been at a barrier since any of it was written.
    /// - Every thread of the team calls this with the same stage, span and part. Until the team's next barrier
    ///   nobody writes what this reads or touches what it writes, but threads their own shares of it.
    pub unsafe fn run(&self, context: &Context, span: &Span, part: Part, next: Option<(&Stage, Part)>) {
        let taps = self.piece.part(part);
        assert!(!taps.is_empty(), "the stage has no {part:?} part");
        if part != Part::Whole {
            let (_, columns) = self.sums.expect("only a stage with sums runs in parts");
            let all = 0..columns;
            assert!(span.rows.len() == 1 && span.columns.end <= columns);
            assert!(part == Part::Rest || span.columns == all);
        }
        let work = Work { context, stage: self, taps, part, span };
        let (units, positions) = self.share(&context.team, work.positions());
        if positions.is_empty() {
            return;
        }
        let shape = context.kernels.shape(positions.len(), units.len() * self.packed.unit, self.packed.unit);
        // SAFETY: by the caller's promise.
        unsafe {
            match positions.len() <= shape.rows {
                true => self.blocks::<1>(&work, &units, &positions, shape, next),
                false => self.blocks::<BLOCK_TILES>(&work, &units, &positions, shape, next),
            }
        }
    }

    /// Some units of outputs at some positions, in blocks of so many tiles: what is worked out for a block's tiles is
    /// held on the stack, which a single tile should not pay for.
    ///
    /// # Safety
    /// As for [`Stage::run`], of which this is a thread's share.
    unsafe fn blocks<const TILES: usize>(
        &self,
        work: &Work,
        units: &Range<usize>,
        positions: &Range<usize>,
        shape: Shape,
        next: Option<(&Stage, Part)>,
    ) {
        let (context, unit, part) = (work.context, self.packed.unit, work.part);
        let groups = || chunks(units, shape.panels / unit);
        // A block of inputs stays in the core's cache while all units of weights pass by.
        let mut blocks = chunks(positions, shape.rows * TILES).peekable();
        while let Some(block) = blocks.next() {
            let rows: [Rows; TILES] = std::array::from_fn(|t| {
                let first = block.end.min(block.start + t * shape.rows);
                work.rows(first..block.end.min(first + shape.rows))
            });
            let tiles = block.len().div_ceil(shape.rows);
            for (g, group) in groups().enumerate() {
                let next_group = groups().nth(g + 1).or_else(|| blocks.peek().and(groups().next()));
                for t in 0..tiles {
                    let mut prefetch = Prefetch::default();
                    if g == 0 && t + 1 < tiles {
                        work.prefetch_inputs(&mut prefetch, &rows[t + 1]);
                    }
                    match (&next_group, next) {
                        (Some(next), _) => prefetch.weights(context, self, part, next, (t, tiles)),
                        (None, Some((stage, part))) => {
                            let first = stage.first_group(context, work.positions());
                            prefetch.weights(context, stage, part, &first, (t, tiles));
                        }
                        (None, None) => {}
                    }
                    // SAFETY: the units and rows are of this thread's share, and threads' shares do not
                    // overlap; the rest by the caller's promise.
                    unsafe { work.tile(&group, &rows[t], &prefetch) };
                }
            }
        }
    }

    /// The units that this thread will begin with on so many positions.
    fn first_group(&self, context: &Context, positions: usize) -> Range<usize> {
        let (units, positions) = self.share(&context.team, positions);
        if positions.is_empty() {
            return 0..0;
        }
        let unit = self.packed.unit;
        let shape = context.kernels.shape(positions.len(), units.len() * unit, unit);
        units.start..units.end.min(units.start + shape.panels / unit)
    }

    /// This thread's units of outputs and positions. Many positions are shared out, so that each thread
    /// goes on with what it has made itself: to read what the other core has just written takes longer
    /// than the work on it. Few positions are left whole, and the units are shared out with the weights,
    /// whose transfer counts then.
    fn share(&self, team: &Thread, positions: usize) -> (Range<usize>, Range<usize>) {
        let units = self.packed.units;
        let by_unit = match positions >= team.count * MANY_POSITIONS {
            true => 1,
            false => team.count.min(units),
        };
        let by_position = team.count / by_unit;
        if team.index >= by_unit * by_position {
            return (0..0, 0..0);
        }
        let units = share(units, team.index % by_unit, by_unit);
        (units, share(positions, team.index / by_unit, by_position))
    }
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
    /// Which part `taps` is.
    part: Part,
    /// The rectangle.
    span: &'a Span,
}

/// Stretches of cache lines to ask for. A tile takes what its segments have room for.
#[derive(Default)]
struct Prefetch {
    stretches: [(usize, usize); SEGMENTS],
    count: usize,
}

impl Prefetch {
    /// Adds `lines` cache lines from an address on, which need not be valid.
    fn push(&mut self, from: *const f32, lines: usize) {
        if lines > 0 && self.count < SEGMENTS {
            self.stretches[self.count] = (from.addr(), lines);
            self.count += 1;
        }
    }

    /// Asks for a share of the weights for some units of outputs: `(index, count)`.
    fn weights(
        &mut self,
        context: &Context,
        stage: &Stage,
        part: Part,
        units: &Range<usize>,
        (index, count): (usize, usize),
    ) {
        let packed = &stage.packed;
        let mut of = |panels: &Panels| {
            let lines = share(units.len() * packed.unit * panels.lines, index, count);
            let from = panels.start + units.start * packed.unit * panels.stride() + lines.start * LANES;
            self.push(context.packed.floats.as_slice()[from..].as_ptr(), lines.len());
        };
        if part != Part::Rest {
            of(&packed.row);
        }
        if part != Part::Hoisted {
            of(&packed.pixel);
        }
    }
}

/// The rows of a tile: what is the same for all units of outputs.
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
    /// Positions of the rectangle.
    fn positions(&self) -> usize {
        self.context.batch * self.span.rows.len() * self.span.columns.len()
    }

    fn place(&self, position: usize) -> Place {
        let (rows, columns) = (self.span.rows.len(), self.span.columns.len());
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

    /// Asks for the inputs of some rows: those that lie together with the first.
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

    /// Computes `units` of the outputs at some positions.
    ///
    /// # Safety
    /// As for [`Stage::run`]; `units` and `rows`, which [`Work::rows`] made and which are at least one, are
    /// of this thread's share.
    unsafe fn tile(&self, units: &Range<usize>, rows: &Rows, prefetch: &Prefetch) {
        let (stage, context) = (self.stage, self.context);
        let packed = &stage.packed;
        let panels = units.len() * packed.unit;
        let first_panel = units.start * packed.unit;

        let mut init = [std::ptr::null(); MAX_ROWS];
        for (init, place) in init.iter_mut().zip(&rows.places[..rows.count]) {
            *init = match self.part {
                Part::Whole | Part::Hoisted => {
                    let bias = context.classes[place.image] * packed.width() + first_panel * LANES;
                    context.packed.floats.as_slice()[packed.biases + bias..][..panels * LANES].as_ptr()
                }
                // SAFETY: a place of the span, as of all `rows`.
                Part::Rest => unsafe { self.sums(*place, first_panel, panels).cast_const() },
            };
        }
        let mut scratch = std::mem::MaybeUninit::<[f32; MAX_ROWS * MAX_PANELS * LANES]>::uninit();
        let (sums, sums_stride) = match self.part {
            // SAFETY: as above. Each row's sums follow those of the row before, since the span is a whole
            // row.
            Part::Hoisted => unsafe { (self.sums(rows.places[0], first_panel, panels), packed.width()) },
            Part::Whole | Part::Rest => (scratch.as_mut_ptr().cast(), panels * LANES),
        };

        let mut prefetch = Queue { prefetch, next: 0, taken: 0 };
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
                let (offsets, panel_stride) = (rows.offsets, part.stride());
                let tile = Tile { segments, offsets, init, panel_stride, sums, sums_stride };
                // SAFETY: the kernels exist only where the processor has their instruction set. Weights and
                // biases are slices of that length; inputs and kept sums are in the block, by the caller's
                // promise. `sums` is this thread's own, and apart from all that is read but `init`, which
                // from the second round on is the same place.
                unsafe { context.kernels.tile(rows.count, panels, part.precision)(&tile) };
                // What comes next goes on from these sums, in place.
                for (i, init) in init[..rows.count].iter_mut().enumerate() {
                    *init = sums.wrapping_add(i * sums_stride);
                }
            }
        }
        if self.part != Part::Hoisted {
            // SAFETY: by the caller's promise. A part has a tap, so that the sums are written.
            unsafe { self.epilogue(units, rows, sums, sums_stride) };
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

    /// Turns finished sums into outputs.
    ///
    /// # Safety
    /// As for [`Work::tile`]; the sums of these units and rows are complete.
    unsafe fn epilogue(&self, units: &Range<usize>, rows: &Rows, sums: *const f32, sums_stride: usize) {
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
        let args = EpilogueArgs {
            sums,
            sums_stride,
            positions,
            units: units.len(),
            first_unit: units.start,
            channels: stage.channels,
            epilogue: stage.epilogue,
            add: target(stage.add),
            outputs: stage.outputs.map(target),
        };
        // SAFETY: the instruction set as above. The units are some of the layer's; grids have the channels that
        // `Stage::new` has checked; and a layer's output is another map than what it adds.
        unsafe { context.kernels.epilogue()(&args) }
    }

    /// The row's sums at a place, `panels * LANES` floats.
    ///
    /// # Safety
    /// As for [`Work::tile`]; the place is one of the span, and the panels are some of the layer's.
    unsafe fn sums(&self, place: Place, first_panel: usize, panels: usize) -> *mut f32 {
        let (base, columns) = self.stage.sums.expect("only stages that keep sums are split");
        let position = place.image * columns + self.span.columns.start + place.column;
        let offset = base + position * self.stage.packed.width() + first_panel * LANES;
        // SAFETY: by the caller's promise.
        unsafe { self.context.memory.at(offset, panels * LANES) }
    }
}

/// Deals the stretches out to segments.
struct Queue<'a> {
    prefetch: &'a Prefetch,
    next: usize,
    taken: usize,
}

impl Queue<'_> {
    /// The next lines to ask for, in at most so many bursts.
    fn take(&mut self, bursts: usize) -> (*const f32, usize) {
        if self.next == self.prefetch.count || bursts == 0 {
            return (std::ptr::null(), 0);
        }
        let (from, lines) = self.prefetch.stretches[self.next];
        let from = from + self.taken * size_of::<[f32; LANES]>();
        let bursts = (lines - self.taken).div_ceil(BURST).min(bursts);
        self.taken += bursts * BURST;
        if self.taken >= lines {
            (self.next, self.taken) = (self.next + 1, 0);
        }
        (std::ptr::without_provenance(from), bursts)
    }
}
