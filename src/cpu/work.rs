//! A tile of a stage: from positions and units of outputs to addresses, and through the kernels.
//!
//! The idea: a kernel sees pointers and counts only. And since the kernels work as fast as data come,
//! each tile is told what the next ones will read, to ask for it while it works.

use std::ops::Range;

use super::grid::Grid;
use super::kernels::{BURST, Finish, LANES, MAX_PANELS, MAX_ROWS, STEP, Segment, Target, Tile};
use super::packed::Panels;
use super::stage::{Context, MAX_TAPS, Part, Span, Stage};
use super::team::share;

/// A stage on a rectangle of positions, counted image by image: `(image * rows + row) * columns + column`.
pub struct Work<'a> {
    /// What all stages share.
    pub context: &'a Context<'a>,
    /// The stage.
    pub stage: &'a Stage,
    /// The taps to sum.
    pub taps: Range<usize>,
    /// The same in a word.
    pub part: Part,
    /// The rectangle.
    pub span: &'a Span,
}

/// Stretches of cache lines to ask for. A tile takes what its segments have room for.
#[derive(Default)]
pub struct Ahead {
    stretches: [(usize, usize); MAX_TAPS],
    count: usize,
}

impl Ahead {
    /// Adds `lines` cache lines from an address on, which need not be valid.
    fn push(&mut self, from: *const f32, lines: usize) {
        if lines > 0 && self.count < MAX_TAPS {
            self.stretches[self.count] = (from.addr(), lines);
            self.count += 1;
        }
    }

    /// Asks for a share of the weights for some units of outputs: `(index, count)`.
    pub fn weights(
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
pub struct Rows {
    /// How many.
    count: usize,
    /// Distance of each one's inputs from those of the rectangle's corner, in floats.
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
    pub fn rows(&self, positions: Range<usize>) -> Rows {
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

    /// Distance of a place's inputs from those of the rectangle's corner, in floats. All sources of a
    /// layer have the same grid and the same channels.
    fn input_offset(&self, place: Place) -> usize {
        let (grid, step) = (&self.stage.taps[0].grid, self.stage.input_step);
        let position = (place.row * step * self.context.batch + place.image) * grid.columns;
        (position + place.column * step) * grid.channels
    }

    /// Index of a place's output, counted in the output grids from the rectangle's corner.
    fn output_index(&self, place: Place) -> usize {
        let step = self.stage.output_step;
        (place.row * step * self.context.batch + place.image) * self.stage.output_columns
            + place.column * step
    }

    /// Where a tap's inputs for the rectangle's corner begin, in floats.
    fn corner(&self, tap: usize) -> usize {
        let (stage, tap) = (self.stage, &self.stage.taps[tap]);
        let row = (self.span.rows.start * stage.input_step) as isize + tap.row;
        let column = (self.span.columns.start * stage.input_step) as isize + tap.column;
        tap.grid.at(0, row, column)
    }

    /// Asks for the inputs of some rows: those that lie together with the first.
    pub fn inputs_ahead(&self, ahead: &mut Ahead, rows: &Rows) {
        let (first, last) = (rows.offsets[0], rows.offsets[rows.count - 1]);
        let channels = self.stage.taps[0].grid.channels;
        // At the end of a row of an image the padding lies between.
        let together = (rows.count + 2) * self.stage.input_step * channels;
        let floats = last.saturating_sub(first).min(together) + channels;
        let mut previous = None;
        for tap in self.taps.clone() {
            // Neighbours in a row have most inputs in common.
            let key = (self.stage.taps[tap].grid.base, self.stage.taps[tap].row);
            if previous.replace(key) != Some(key) {
                let from = self.context.memory.address(self.corner(tap) + first);
                ahead.push(from, floats.div_ceil(LANES));
            }
        }
    }

    /// Computes `units` of the outputs at some positions.
    ///
    /// # Safety
    /// As for [`Stage::run`]; `units` and `rows`, which [`Work::rows`] made and which are at least one, are
    /// of this member's share.
    pub unsafe fn tile(&self, units: &Range<usize>, rows: &Rows, ahead: &Ahead) {
        let (stage, context) = (self.stage, self.context);
        let packed = &stage.packed;
        let floats = context.packed.floats.as_slice();
        let panels = units.len() * packed.unit;
        let first_panel = units.start * packed.unit;

        let mut init = [std::ptr::null(); MAX_ROWS];
        for (init, place) in init.iter_mut().zip(&rows.places[..rows.count]) {
            *init = match self.part {
                Part::Whole | Part::Hoisted => {
                    let bias = context.classes[place.image] * packed.width() + first_panel * LANES;
                    floats[packed.biases + bias..][..panels * LANES].as_ptr()
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

        let offsets = rows.offsets;
        let farthest = offsets[..rows.count].iter().max().expect("a tile has rows");
        let extent = farthest + stage.taps[0].grid.channels;
        let mut ahead = Queue { ahead, next: 0, taken: 0 };
        let boundary = self.taps.start.max(stage.hoisted);
        for (taps, part) in [
            (self.taps.start..self.taps.end.min(boundary), &packed.row),
            (boundary..self.taps.end, &packed.pixel),
        ] {
            if taps.is_empty() {
                continue;
            }
            let nothing = Segment {
                inputs: std::ptr::null(),
                weights: std::ptr::null(),
                depth: 0,
                ahead: std::ptr::null(),
                bursts: 0,
            };
            let mut segments = [nothing; MAX_TAPS];
            let segments = &mut segments[..taps.len()];
            for (segment, t) in segments.iter_mut().zip(taps) {
                let tap = &stage.taps[t];
                let panel = tap.weights + first_panel * part.stride();
                let end = panel + (panels - 1) * part.stride() + part.precision.lines(tap.depth) * LANES;
                let (from, bursts) = ahead.take(tap.depth / STEP);
                *segment = Segment {
                    // SAFETY: the grid has the positions that the tap reads for these rows, by the caller's
                    // promise.
                    inputs: unsafe { context.memory.at(self.corner(t), extent) },
                    weights: floats[panel..end].as_ptr(),
                    depth: tap.depth,
                    ahead: from,
                    bursts,
                };
            }
            let tile = Tile { segments, offsets, init, panel_stride: part.stride(), sums, sums_stride };
            // SAFETY: the kernels exist only where the processor has their instruction set. Weights and biases
            // are slices of that length; inputs and kept sums are in the block, by the caller's promise.
            // `sums` is this member's own, and apart from all that is read but `init`, which in the second
            // round is the same place.
            unsafe { context.kernels.tile(rows.count, panels, part.precision)(&tile) };
            // What comes next goes on from these sums, in place.
            for (i, init) in init[..rows.count].iter_mut().enumerate() {
                *init = sums.wrapping_add(i * sums_stride);
            }
        }
        if self.part == Part::Hoisted {
            return;
        }

        let row = (self.span.rows.start * stage.output_step + stage.parity[0]) as isize;
        let column = (self.span.columns.start * stage.output_step + stage.parity[1]) as isize;
        let outputs = &rows.outputs[..rows.count];
        let last = outputs.iter().max().expect("a tile has rows");
        let target = |grid: Option<Grid>| {
            grid.map(|g| Target {
                // SAFETY: the grid has the positions of the span, by the caller's promise.
                base: unsafe { context.memory.at(g.at(0, row, column), (last + 1) * g.channels) },
                channels: g.channels,
            })
        };
        let [raw, activated, elu] = stage.outputs.map(target);
        let finish = Finish {
            sums,
            sums_stride,
            positions: outputs,
            units: units.len(),
            first_unit: units.start,
            filters: stage.filters,
            residual: target(stage.residual),
            raw,
            activated,
            elu,
            activation: context.activation,
        };
        // SAFETY: the instruction set as above. The stage has one tap or more, so that a tile has written the
        // sums; the units are some of the layer's; grids have the channels that `Stage::new` has checked; and
        // a layer's output is another tensor than its residual.
        unsafe { context.kernels.finish()(&finish) }
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
    ahead: &'a Ahead,
    next: usize,
    taken: usize,
}

impl Queue<'_> {
    /// The next lines to ask for, in at most so many bursts.
    fn take(&mut self, bursts: usize) -> (*const f32, usize) {
        if self.next == self.ahead.count || bursts == 0 {
            return (std::ptr::null(), 0);
        }
        let (from, lines) = self.ahead.stretches[self.next];
        let from = from + self.taken * size_of::<[f32; LANES]>();
        let bursts = (lines - self.taken).div_ceil(BURST).min(bursts);
        self.taken += bursts * BURST;
        if self.taken >= lines {
            (self.next, self.taken) = (self.next + 1, 0);
        }
        (std::ptr::without_provenance(from), bursts)
    }
}
