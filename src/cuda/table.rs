//! Layers as the kernels are told of them: stages with resolved addresses, and how they are launched.
//!
//! The idea: a stage is a layer, for outputs of one parity, on a part of its taps and a span of positions.
//! A step is a list of stages that do not depend on each other: one launch. The shape of a launch follows
//! from the stage's size and the number of multiprocessors, never from one chip.

use super::kernels::Kernel;
use super::layout::{Grid, Layout};
use super::packed::{PackedLayer, chunks};
use super::stage::{self, MAX_TAPS, NARROW_TILE, SLICE, Span, Stage, THREADS, Tap, WIDE_SLICES, WIDE_TILE};
use crate::config::Nonlinearity;
use crate::network::{Epilogue, Form, Layer, Network, Sampling, TensorId};
use crate::schedule;

/// Which of a layer's taps to sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// All: from the bias to the outputs.
    Whole,
    /// Those known when the row begins: from the bias to the row's sums.
    Hoisted,
    /// The others: from the row's sums to the outputs.
    Rest,
}

/// Stages that do not depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The first stage in the table.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Whether they run through `masked_conv_wide`.
    pub wide: bool,
    /// Most groups of slices of a stage.
    pub x: u32,
    /// Most groups of positions of a stage.
    pub y: u32,
}

impl Step {
    /// The kernel that it runs through.
    pub fn kernel(&self) -> Kernel {
        if self.wide { Kernel::Wide } else { Kernel::Narrow }
    }
}

/// How a source is read: the grid, the form and, where that is stored, the floats from a channel to its
/// negative.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The grid.
    pub grid: Grid,
    /// One of [`stage::form`].
    pub form: i32,
    /// See above.
    pub stride: usize,
}

/// The source as it lies there, activated on load.
pub fn on_load(network: &Network, layout: &Layout, tensor: TensorId, form: Form) -> Source {
    let form = match (form, network.config.nonlinearity) {
        (Form::Raw, _) => stage::form::RAW,
        (Form::Elu, _) | (Form::Activated, Nonlinearity::Elu) => stage::form::ELU,
        (Form::Activated, Nonlinearity::Relu) => stage::form::RELU,
        (Form::Activated, Nonlinearity::ConcatElu) => stage::form::CONCAT_ELU,
    };
    Source { grid: layout.grids[tensor], form, stride: 0 }
}

/// A layer for outputs of one parity.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    /// The network.
    pub network: &'a Network,
    /// The layer.
    pub layer: &'a Layer,
    /// The parity.
    pub parity: [usize; 2],
    /// The layer's weights for it.
    pub packed: PackedLayer,
}

impl Piece<'_> {
    fn hoisted(&self) -> usize {
        schedule::hoisted_taps(self.network, self.layer, self.parity)
    }

    /// The part to run when the row begins, if there is any.
    pub fn row_part(&self) -> Option<Part> {
        match self.hoisted() {
            0 => None,
            n if n == self.layer.taps_of(self.parity).count() => Some(Part::Whole),
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

    /// Steps of the output's grid for one step of the stage.
    fn output_step(&self) -> usize {
        if self.layer.sampling == Sampling::Up { 2 } else { 1 }
    }

    /// Pixels of the image for one step of the stage.
    pub fn pixels(&self) -> usize {
        self.layer.level * self.output_step()
    }

    /// Whether it makes outputs at a row (`axis` 0) or column (1) of the image.
    pub fn runs_at(&self, axis: usize, at: usize) -> bool {
        let level = self.layer.level;
        at.is_multiple_of(level)
            && (self.layer.sampling != Sampling::Up || at / level % 2 == self.parity[axis])
    }

    /// Floats of the sums of one position.
    pub fn sums(&self) -> usize {
        self.packed.slices * SLICE
    }

    /// The stage for a part on a span. `sums` is where the row's sums begin.
    pub fn stage(
        &self,
        layout: &Layout,
        part: Part,
        span: Span,
        sums: usize,
        source: impl Fn(TensorId, Form) -> Source,
    ) -> Stage {
        let Piece { layer, packed, .. } = *self;
        let extent = layout.extent();
        let mut stage: Stage = bytemuck::Zeroable::zeroed();
        let hoisted = self.hoisted();
        // The next chunk of the row phase's weights and of the pixel phase's.
        let mut next = [0; 2];
        let (mut first, mut count) = (0, 0);
        for (index, tap) in layer.taps_of(self.parity).enumerate() {
            let of_pixel = index >= hoisted;
            let weights = if of_pixel { packed.pixel } else { packed.row };
            let chunk = next[usize::from(of_pixel)];
            let length = chunks(self.network.tensors[tap.source].channels);
            next[usize::from(of_pixel)] += length;
            if matches!((part, of_pixel), (Part::Hoisted, true) | (Part::Rest, false)) {
                continue;
            }
            let Source { grid, form, stride } = source(tap.source, layer.form);
            stage.form = form;
            stage.taps[count] = Tap {
                source: grid,
                weights: weights.start,
                row: tap.row as i32,
                column: tap.column as i32,
                first: first as i32,
                chunk: chunk as i32,
                chunks: weights.chunks as i32,
                stride: stride as i32,
            };
            first += length;
            count += 1;
        }
        assert!(count <= MAX_TAPS, "{} has {count} taps", layer.name);
        stage.tap_count = count as i32;
        stage.chunks = first as i32;
        stage.output = layout.grids[layer.output];
        if let Epilogue::Gate { residual } = layer.epilogue {
            stage.residual = layout.grids[residual];
            stage.gated = 1;
        }
        stage.bias = packed.bias;
        stage.sums = sums as u64;
        stage.slices = packed.slices as i32;
        stage.span = span as i32;
        stage.from_sums = i32::from(part == Part::Rest);
        stage.to_sums = i32::from(part == Part::Hoisted);
        stage.input_step = if layer.sampling == Sampling::Down { 2 } else { 1 };
        stage.output_step = self.output_step() as i32;
        stage.shift = self.pixels().ilog2() as i32;
        stage.parity_row = self.parity[0] as i32;
        stage.parity_column = self.parity[1] as i32;
        stage.rows = (extent.height / self.pixels()) as i32;
        stage.columns = (extent.width / self.pixels()) as i32;
        stage
    }
}

/// Positions of a stage.
fn positions(stage: &Stage, batch: usize) -> usize {
    let (rows, columns) = (stage.rows as usize, stage.columns as usize);
    batch
        * match stage.span {
            s if s == Span::Pixel as i32 => 1,
            s if s == Span::Row as i32 => columns,
            _ => rows * columns,
        }
}

/// Blocks of a stage across its slices and down its positions.
fn wide_blocks(stage: &Stage, batch: usize) -> [u32; 2] {
    let (slices, positions) = (stage.slices as usize, positions(stage, batch));
    [slices.div_ceil(WIDE_SLICES) as u32, positions.div_ceil(WIDE_TILE) as u32]
}

/// Fits a stage to `masked_conv_narrow` and tells its blocks. As few slices in a block as it takes to give
/// every multiprocessor one: the chunks of a block are read by as many threads either way, and the fewer
/// its weights, the sooner it is done.
fn fit_narrow(stage: &mut Stage, batch: usize, multiprocessors: usize) -> [u32; 2] {
    let (chunks, slices) = (stage.chunks as usize, stage.slices as usize);
    let least = if stage.gated == 1 { 2 } else { 1 };
    let lanes = chunks.next_multiple_of(8).min(THREADS / least);
    let tiles = positions(stage, batch).div_ceil(NARROW_TILE);
    let fits = |group: &usize| *group >= least && group * lanes <= THREADS;
    let enough = |group: &usize| slices.div_ceil(*group) * tiles >= multiprocessors;
    let group = [8, 4, 2].into_iter().filter(fits).find(enough).unwrap_or(least);
    let x = slices.div_ceil(group);
    let y = tiles.min((2 * multiprocessors).div_ceil(x));
    (stage.lanes, stage.group) = (lanes as i32, group as i32);
    stage.tiles = tiles.div_ceil(y) as i32;
    [x as u32, tiles.div_ceil(stage.tiles as usize) as u32]
}

/// All stages of a batch's programs, and the steps they are launched in.
#[derive(Default)]
pub struct Table {
    /// As the device gets it.
    pub stages: Vec<Stage>,
    /// Blocks of each stage: groups of slices, groups of positions.
    pub blocks: Vec<[u32; 2]>,
    /// Steps.
    pub steps: Vec<Step>,
}

impl Table {
    /// The kernels that its steps run through.
    pub fn kernels(&self) -> impl Iterator<Item = Kernel> {
        self.steps.iter().map(Step::kernel)
    }

    /// Adds a step and returns its index. It runs through `masked_conv_wide` where that makes enough blocks
    /// to give every multiprocessor one.
    pub fn add(&mut self, mut stages: Vec<Stage>, batch: usize, multiprocessors: usize) -> usize {
        let wide: Vec<_> = stages.iter().map(|s| wide_blocks(s, batch)).collect();
        let is_wide = wide.iter().map(|[x, y]| (x * y) as usize).sum::<usize>() >= multiprocessors;
        let blocks = match is_wide {
            true => wide,
            false => stages.iter_mut().map(|s| fit_narrow(s, batch, multiprocessors)).collect(),
        };
        let most = |i: usize| blocks.iter().map(|b| b[i]).max().expect("a step has stages");
        let step =
            Step { first: self.stages.len(), count: stages.len(), wide: is_wide, x: most(0), y: most(1) };
        self.stages.append(&mut stages);
        self.blocks.extend(blocks);
        self.steps.push(step);
        self.steps.len() - 1
    }
}
