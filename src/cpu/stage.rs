//! One layer on some rows and columns: a matrix product over its taps, then its epilogue.
//!
//! The idea: naive and cached, row phase and pixel phase are the same operation on different ranges.
//! A [`Stage`] is a layer with its weights and its addresses resolved, for outputs of one parity; it
//! runs on any rectangle of positions and on a part of its taps.

use std::ops::Range;

use super::buffer::Shared;
use super::grid::{Grid, Layout};
use super::kernels::{Kernels, LANES};
use super::packed::{Packed, PackedLayer};
use super::team::{Member, share};
use super::work::{Ahead, Rows, Work};
use crate::config::Nonlinearity;
use crate::network::{Epilogue, Form, Layer, Network, Sampling};
use crate::schedule;

/// Tiles of positions that go through all units of outputs before the next ones do.
const BLOCK_TILES: usize = 12;

/// So many positions for each member of a team are shared out among them; fewer are left whole.
pub const MANY_POSITIONS: usize = 96;

/// Most taps of a layer: two skips beside the six of a 2x3 convolution.
pub const MAX_TAPS: usize = 8;

/// A tap of a stage.
#[derive(Clone, Debug)]
pub struct StageTap {
    /// What is read.
    pub grid: Grid,
    /// Row offset in the grid.
    pub row: isize,
    /// Column offset in the grid.
    pub column: isize,
    /// Inputs.
    pub depth: usize,
    /// Where the first panel's weights for this tap begin, in floats.
    pub weights: usize,
}

/// Which of a stage's taps to sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All: from the bias to the outputs.
    Whole,
    /// Those known when the row begins: from the bias to the row's sums.
    Hoisted,
    /// The others: from the row's sums to the outputs.
    Rest,
}

/// The rectangle on which a stage runs, counted in its own steps: with a transposed convolution step i
/// is output 2i or 2i + 1, by the stage's parity.
#[derive(Clone, Debug)]
pub struct Span {
    /// Rows.
    pub rows: Range<usize>,
    /// Columns.
    pub columns: Range<usize>,
}

/// A layer for outputs of one parity, ready to run.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The weights.
    pub packed: PackedLayer,
    /// The taps, those of the row phase first.
    pub taps: Vec<StageTap>,
    /// How many of them are the row phase's.
    pub hoisted: usize,
    /// Steps of the input grids for one step of the stage.
    pub input_step: usize,
    /// Steps of the output grids for one step of the stage.
    pub output_step: usize,
    /// Parity of the outputs.
    pub parity: [usize; 2],
    /// Where the output goes: raw, activated, through elu.
    pub outputs: [Option<Grid>; 3],
    /// Positions from one image to the next in the output grids.
    pub output_columns: usize,
    /// The input of the resnet, where there is a gate.
    pub residual: Option<Grid>,
    /// Channels of the output.
    pub filters: usize,
    /// Where the row's sums begin, `[batch][columns][width]`, and how many columns there are.
    pub sums: Option<(usize, usize)>,
    /// The level of the output.
    pub level: usize,
}

/// What all stages of a batch share.
pub struct Context<'a> {
    /// The kernels to run.
    pub kernels: Kernels,
    /// The model's nonlinearity.
    pub activation: Nonlinearity,
    /// Panels and biases.
    pub packed: &'a Packed,
    /// Images in the batch.
    pub batch: usize,
    /// The class of each image, all 0 for an unconditional model.
    pub classes: &'a [usize],
    /// Grids and sums.
    pub memory: Shared<'a>,
    /// How the outputs of a stage are cut among the team.
    pub team: Member<'a>,
}

impl Stage {
    /// Resolves a layer for outputs of one parity. `keep_sums` reserves room for the sums of a row of so
    /// many images and columns of the image.
    pub fn new(
        network: &Network,
        layer: &Layer,
        parity: [usize; 2],
        packed: PackedLayer,
        layout: &mut Layout,
        keep_sums: Option<[usize; 2]>,
    ) -> Stage {
        let hoisted = schedule::hoisted_taps(network, layer, parity);
        // The next weights of each part.
        let mut weights = [packed.row, packed.pixel].map(|panels| panels.start);
        let mut taps = Vec::new();
        for (i, tap) in layer.taps_of(parity).enumerate() {
            let grid = layout.grid(tap.source, layer.form).expect("a form that is read is stored");
            let depth = tap.depth();
            let (panels, next) = match i < hoisted {
                true => (&packed.row, &mut weights[0]),
                false => (&packed.pixel, &mut weights[1]),
            };
            taps.push(StageTap { grid, row: tap.row, column: tap.column, depth, weights: *next });
            *next += panels.precision.lines(depth) * LANES;
        }
        assert!((1..=MAX_TAPS).contains(&taps.len()));
        let (input_step, output_step) = match layer.sampling {
            Sampling::Same => (1, 1),
            Sampling::Down => (2, 1),
            Sampling::Up => (1, 2),
        };
        let split = 0 < hoisted && hoisted < taps.len();
        let sums = keep_sums.filter(|_| split);
        let sums = sums.map(|[batch, width]| {
            let columns = width / layer.level / output_step;
            (layout.reserve(batch.saturating_mul(columns).saturating_mul(packed.width())), columns)
        });
        let residual = match layer.epilogue {
            Epilogue::Store => None,
            Epilogue::Gate { residual } => layout.grid(residual, Form::Raw),
        };
        let outputs = [Form::Raw, Form::Activated, Form::Elu].map(|form| layout.grid(layer.output, form));
        let output_columns = outputs.iter().chain([&residual]).flatten().next().map_or(0, |g| g.columns);
        let (filters, level) = (network.tensors[layer.output].channels, layer.level);
        // What a tile takes for granted: from one place to another it is as far in the grid of every tap, and
        // as many positions in that of every output; and a position has what is read and written there.
        let first = &taps[0].grid;
        let like_first = |g: &Grid| (g.columns, g.channels) == (first.columns, first.channels);
        assert!(taps.iter().all(|t| like_first(&t.grid) && t.depth <= t.grid.channels));
        let width = network.config.nonlinearity.width();
        let stored = outputs.iter().zip([1, width, 1]).chain([(&residual, 1)]);
        let mut stored = stored.filter_map(|(grid, width)| grid.as_ref().map(|g| (g, width)));
        assert!(stored.all(|(g, width)| (g.columns, g.channels) == (output_columns, width * filters)));
        assert_eq!(packed.units, filters.div_ceil(LANES));
        assert_eq!(packed.unit, if residual.is_some() { 2 } else { 1 });
        Stage {
            packed,
            taps,
            hoisted,
            input_step,
            output_step,
            parity,
            outputs,
            output_columns,
            residual,
            filters,
            sums,
            level,
        }
    }

    /// The part to run when the row begins, if there is any.
    pub fn row_part(&self) -> Option<Part> {
        match self.hoisted {
            0 => None,
            n if n == self.taps.len() => Some(Part::Whole),
            _ => Some(Part::Hoisted),
        }
    }

    /// The part to run when the pixel comes, if there is any.
    pub fn pixel_part(&self) -> Option<Part> {
        match self.hoisted {
            0 => Some(Part::Whole),
            n if n == self.taps.len() => None,
            _ => Some(Part::Rest),
        }
    }

    /// The steps that make the outputs of a row of the image, if the stage has any there.
    pub fn row_step(&self, row: usize) -> Option<usize> {
        self.step(row, self.parity[0])
    }

    /// The steps that make the outputs of a column of the image, if the stage has any there.
    pub fn column_step(&self, column: usize) -> Option<usize> {
        self.step(column, self.parity[1])
    }

    fn step(&self, position: usize, parity: usize) -> Option<usize> {
        if !position.is_multiple_of(self.level) {
            return None;
        }
        let position = position / self.level;
        (position % self.output_step == parity % self.output_step).then_some(position / self.output_step)
    }

    /// Steps that cover `size` rows or columns of the image.
    pub fn steps(&self, size: usize) -> usize {
        size / self.level / self.output_step
    }

    /// This member's share of the stage. `next` is what will run on as many positions after it, if that is
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
    ///   has met since any of it was written.
    /// - Every member of the team calls this with the same stage, span and part. Until the team meets again
    ///   nobody writes what this reads or touches what it writes, but members their own shares of it.
    pub unsafe fn run(&self, context: &Context, span: &Span, part: Part, next: Option<(&Stage, Part)>) {
        let taps = match part {
            Part::Whole => 0..self.taps.len(),
            Part::Hoisted => 0..self.hoisted,
            Part::Rest => self.hoisted..self.taps.len(),
        };
        assert!(!taps.is_empty(), "the stage has no {part:?} part");
        if part != Part::Whole {
            let (_, columns) = self.sums.expect("only a stage with sums runs in parts");
            let all = 0..columns;
            assert!(span.rows.len() == 1 && span.columns.end <= columns);
            assert!(part == Part::Rest || span.columns == all);
        }
        let count = context.batch * span.rows.len() * span.columns.len();
        let (units, positions) = self.share(&context.team, count);
        if positions.is_empty() {
            return;
        }
        let unit = self.packed.unit;
        let shape = context.kernels.shape(positions.len(), units.len() * unit, unit);
        let work = Work { context, stage: self, taps, part, span };
        let groups = || chunks(&units, shape.panels / unit);
        // A block of inputs stays in the core's cache while all units of weights pass by.
        let mut blocks = chunks(&positions, shape.rows * BLOCK_TILES).peekable();
        while let Some(block) = blocks.next() {
            let rows: [Rows; BLOCK_TILES] = std::array::from_fn(|t| {
                let first = block.end.min(block.start + t * shape.rows);
                work.rows(first..block.end.min(first + shape.rows))
            });
            let tiles = block.len().div_ceil(shape.rows);
            for (g, group) in groups().enumerate() {
                let next_group = groups().nth(g + 1).or_else(|| blocks.peek().and(groups().next()));
                for t in 0..tiles {
                    let mut ahead = Ahead::default();
                    if g == 0 && t + 1 < tiles {
                        work.inputs_ahead(&mut ahead, &rows[t + 1]);
                    }
                    match (&next_group, next) {
                        (Some(next), _) => ahead.weights(context, self, part, next, (t, tiles)),
                        (None, Some((stage, part))) => {
                            let first = stage.first_group(context, count);
                            ahead.weights(context, stage, part, &first, (t, tiles));
                        }
                        (None, None) => {}
                    }
                    // SAFETY: the units and rows are of this member's share, and members' shares do not
                    // overlap; the rest by the caller's promise.
                    unsafe { work.tile(&group, &rows[t], &ahead) };
                }
            }
        }
    }

    /// The units that this member will begin with on so many positions.
    fn first_group(&self, context: &Context, positions: usize) -> Range<usize> {
        let (units, positions) = self.share(&context.team, positions);
        if positions.is_empty() {
            return 0..0;
        }
        let unit = self.packed.unit;
        let shape = context.kernels.shape(positions.len(), units.len() * unit, unit);
        units.start..units.end.min(units.start + shape.panels / unit)
    }

    /// This member's units of outputs and positions. Many positions are shared out, so that each member
    /// goes on with what it has made itself: to read what the other core has just written takes longer
    /// than the work on it. Few positions are left whole, and the units are shared out with the weights,
    /// whose transfer counts then.
    fn share(&self, team: &Member, positions: usize) -> (Range<usize>, Range<usize>) {
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
