//! One layer on some rows and columns: a matrix product over its taps, then its epilogue.
//!
//! The idea: naive and cached, row phase and pixel phase are the same operation on different ranges.
//! A [`Stage`] is a layer with its weights and its addresses resolved, for outputs of one parity; it
//! runs on any rectangle of positions and on a part of its taps.

use std::ops::Range;

use super::buffer::Shared;
use super::grid::{Grid, Layout};
use super::kernels::{Finish, Kernels, LANES, MAX_PANELS, MAX_ROWS, Segment, Target, Tile};
use super::packed::{Packed, PackedLayer};
use super::team::{Member, share};
use crate::config::Nonlinearity;
use crate::network::{Epilogue, Form, Layer, Network, Sampling};
use crate::schedule;

/// Tiles of positions that go through all units of outputs before the next ones do.
const BLOCK_TILES: usize = 8;

/// Most taps of a layer: two skips beside the six of a 2x3 convolution.
const MAX_TAPS: usize = 8;

#[derive(Clone, Debug)]
struct StageTap {
    grid: Grid,
    row: isize,
    column: isize,
    first: usize,
    depth: usize,
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
    packed: PackedLayer,
    taps: Vec<StageTap>,
    hoisted: usize,
    /// Steps of the input and output grids for one step of the stage.
    input_step: usize,
    output_step: usize,
    parity: [usize; 2],
    outputs: [Option<Grid>; 3],
    /// Positions from one image to the next in the output grids.
    output_columns: usize,
    residual: Option<Grid>,
    filters: usize,
    /// Where the row's sums begin, `[batch][columns][width]`, and how many columns there are.
    sums: Option<(usize, usize)>,
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
    /// many images and columns.
    pub fn new(
        network: &Network,
        layer: &Layer,
        parity: [usize; 2],
        packed: PackedLayer,
        layout: &mut Layout,
        keep_sums: Option<[usize; 2]>,
    ) -> Stage {
        let mut first = 0;
        let mut taps = Vec::new();
        for tap in layer.taps_of(parity) {
            let grid = layout.grid(tap.source, layer.form).expect("a form that is read is stored");
            let depth = tap.depth();
            taps.push(StageTap { grid, row: tap.row, column: tap.column, first, depth });
            first += depth;
        }
        assert!(taps.len() <= MAX_TAPS);
        let hoisted = schedule::hoisted_taps(network, layer, parity);
        let (input_step, output_step) = match layer.sampling {
            Sampling::Same => (1, 1),
            Sampling::Down => (2, 1),
            Sampling::Up => (1, 2),
        };
        let split = 0 < hoisted && hoisted < taps.len();
        let sums = keep_sums.filter(|_| split);
        let sums = sums.map(|[batch, columns]| {
            (layout.reserve(batch.saturating_mul(columns).saturating_mul(packed.width())), columns)
        });
        let residual = match layer.epilogue {
            Epilogue::Store => None,
            Epilogue::Gate { residual } => layout.grid(residual, Form::Raw),
        };
        let outputs = [Form::Raw, Form::Activated, Form::Elu].map(|form| layout.grid(layer.output, form));
        let output_columns = outputs.iter().flatten().next().map_or(0, |g| g.columns);
        let (filters, level) = (network.tensors[layer.output].channels, layer.level);
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

    /// This member's share of the stage. The caller's team meets before anything reads the outputs.
    ///
    /// # Safety
    /// The span lies in the image, the sources hold what the part reads, and no other team works on
    /// the memory of `context`.
    pub unsafe fn run(&self, context: &Context, span: &Span, part: Part) {
        let rows = span.columns.len() * context.batch;
        let taps = match part {
            Part::Whole => 0..self.taps.len(),
            Part::Hoisted => 0..self.hoisted,
            Part::Rest => self.hoisted..self.taps.len(),
        };
        // Members take units of outputs; where there are fewer units than members, positions too.
        let team = context.team;
        let by_unit = team.count.min(self.packed.units);
        let by_row = team.count / by_unit;
        if team.index >= by_unit * by_row {
            return;
        }
        let units = share(self.packed.units, team.index % by_unit, by_unit);
        let rows = share(rows, team.index / by_unit, by_row);
        if rows.is_empty() {
            return;
        }
        let panels = units.len() * self.packed.unit;
        let shape = context.kernels.shape(rows.len(), panels, self.packed.unit);
        for row in span.rows.clone() {
            let line = Line { context, stage: self, taps: taps.clone(), part, row, columns: &span.columns };
            // A block of inputs stays in the core's cache while all its units of weights pass by.
            for block in rows.clone().step_by(shape.rows * BLOCK_TILES) {
                let block = block..rows.end.min(block + shape.rows * BLOCK_TILES);
                for first in units.clone().step_by(shape.panels / self.packed.unit) {
                    let units = first..units.end.min(first + shape.panels / self.packed.unit);
                    for m in block.clone().step_by(shape.rows) {
                        // SAFETY: by the caller's promise; members' shares do not overlap.
                        unsafe { line.tile(units.clone(), m..block.end.min(m + shape.rows)) };
                    }
                }
            }
        }
    }
}

/// A stage on one row of positions.
struct Line<'a> {
    context: &'a Context<'a>,
    stage: &'a Stage,
    taps: Range<usize>,
    part: Part,
    row: usize,
    columns: &'a Range<usize>,
}

impl Line<'_> {
    /// Computes `units` of the outputs at the positions `rows` (`image * columns + column`).
    ///
    /// # Safety
    /// As for [`Stage::run`].
    unsafe fn tile(&self, units: Range<usize>, rows: Range<usize>) {
        let (stage, context) = (self.stage, self.context);
        let packed = &stage.packed;
        let weights = context.packed.floats.as_slice();
        let panels = units.len() * packed.unit;
        let first_panel = units.start * packed.unit;
        // All sources of a layer have the same grid and the same channels.
        let inputs = stage.taps[0].grid;

        let width = packed.width();
        let mut offsets = [0; MAX_ROWS];
        let mut positions = [0; MAX_ROWS];
        let mut init = [std::ptr::null(); MAX_ROWS];
        for (i, m) in rows.clone().enumerate() {
            let (image, column) = (m / self.columns.len(), m % self.columns.len());
            offsets[i] = (image * inputs.columns + column * stage.input_step) * inputs.channels;
            positions[i] = image * stage.output_columns + column * stage.output_step;
            init[i] = match self.part {
                Part::Whole | Part::Hoisted => {
                    let bias = packed.biases + context.classes[image] * width + first_panel * LANES;
                    weights[bias..bias + panels * LANES].as_ptr()
                }
                // SAFETY: the row's sums have this position.
                Part::Rest => unsafe { self.sums(m, first_panel, panels).cast_const() },
            };
        }

        let extent = offsets[rows.len() - 1] + inputs.channels;
        let mut segments = [Segment { inputs: std::ptr::null(), first: 0, depth: 0 }; MAX_TAPS];
        let segments = &mut segments[..self.taps.len()];
        for (segment, tap) in segments.iter_mut().zip(&stage.taps[self.taps.clone()]) {
            let row = (self.row * stage.input_step) as isize + tap.row;
            let column = (self.columns.start * stage.input_step) as isize + tap.column;
            // SAFETY: the grid has these positions, by the caller's promise.
            let inputs = unsafe { context.memory.at(tap.grid.at(0, row, column), extent) };
            *segment = Segment { inputs, first: tap.first, depth: tap.depth };
        }

        let mut scratch = std::mem::MaybeUninit::<[f32; MAX_ROWS * MAX_PANELS * LANES]>::uninit();
        let (sums, sums_stride) = match self.part {
            // SAFETY: as above; rows of sums follow one another.
            Part::Hoisted => unsafe { (self.sums(rows.start, first_panel, panels), width) },
            Part::Whole | Part::Rest => (scratch.as_mut_ptr().cast(), panels * LANES),
        };
        let panel_stride = packed.inputs * LANES;
        let from = packed.weights + first_panel * panel_stride;
        let weights = weights[from..from + panels * panel_stride].as_ptr();
        let tile = Tile { segments, offsets, init, weights, panel_stride, sums, sums_stride };
        // SAFETY: the kernels exist only where the processor has their instruction set; the extents
        // hold by the construction above and the caller's promise.
        unsafe { context.kernels.tile(rows.len(), panels)(&tile) };
        if self.part == Part::Hoisted {
            return;
        }

        let row = (self.row * stage.output_step + stage.parity[0]) as isize;
        let column = (self.columns.start * stage.output_step + stage.parity[1]) as isize;
        let last = positions[rows.len() - 1];
        let target = |grid: Option<Grid>| {
            grid.map(|g| Target {
                // SAFETY: the grid has these positions, by the caller's promise.
                base: unsafe { context.memory.at(g.at(0, row, column), (last + 1) * g.channels) },
                channels: g.channels,
            })
        };
        let [raw, activated, elu] = stage.outputs.map(target);
        let finish = Finish {
            sums,
            sums_stride,
            positions: &positions[..rows.len()],
            units: units.len(),
            first_unit: units.start,
            filters: stage.filters,
            residual: target(stage.residual),
            raw,
            activated,
            elu,
            activation: context.activation,
        };
        // SAFETY: as for the tile.
        unsafe { context.kernels.finish()(&finish) }
    }

    /// The row's sums at position `m` of the span.
    ///
    /// # Safety
    /// The stage keeps sums and the position is in the row.
    unsafe fn sums(&self, m: usize, first_panel: usize, panels: usize) -> *mut f32 {
        let (base, columns) = self.stage.sums.expect("only stages that keep sums are split");
        let (image, column) = (m / self.columns.len(), self.columns.start + m % self.columns.len());
        let position = image * columns + column;
        let offset = base + position * self.stage.packed.width() + first_panel * LANES;
        // SAFETY: by the caller's promise.
        unsafe { self.context.memory.at(offset, panels * LANES) }
    }
}
