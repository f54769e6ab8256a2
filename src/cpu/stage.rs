//! A piece of the plan with its weights and its addresses resolved.
//!
//! The idea: naive and cached, row phase and pixel phase are the same operation on different ranges: a
//! [`Stage`] runs on any rectangle of positions and on a part of its taps. This is the data; `share.rs` divides it,
//! `tile.rs` runs it.

use super::buffer::Shared;
use super::kernels::{Kernels, LANES, SEGMENTS, activate};
use super::packed::{Packed, PackedPiece};
use super::pixels::Own;
use super::team::Thread;
use crate::graph::{Activation, Epilogue, IMAGE, MapId};
use crate::plan::layout::{Extent, Grid, Layout, Storage};
use crate::plan::{Part, Piece, Plan};

/// A tap of a stage.
#[derive(Clone, Debug)]
pub struct StageTap {
    /// What is read.
    pub grid: Grid,
    /// Row offset in the grid.
    pub row: isize,
    /// Column offset in the grid.
    pub column: isize,
    /// Channels that are read.
    pub in_channels: usize,
    /// Where the first panel's weights for this tap begin, in floats.
    pub weights: usize,
}

/// A piece, ready to run.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The piece.
    pub piece: Piece,
    /// The weights.
    pub packed: PackedPiece,
    /// The taps, those of the row phase first.
    pub taps: Vec<StageTap>,
    /// What becomes of the sum.
    pub epilogue: Epilogue,
    /// Where the output goes, through each activation that it is read with.
    pub outputs: [Option<Grid>; Activation::ALL.len()],
    /// Positions from one image to the next in the output grids.
    pub output_columns: usize,
    /// What the epilogue adds.
    pub add: Option<Grid>,
    /// Channels of the output.
    pub channels: usize,
    /// Where the accumulators of the hoisted taps lie, `[batch][columns][width]`, and how many columns there are.
    pub accumulators: Option<(usize, usize)>,
}

/// What all stages of a batch share.
pub struct Context<'a> {
    /// The kernels to run.
    pub kernels: Kernels,
    /// Panels and biases.
    pub packed: &'a Packed,
    /// Images in the batch.
    pub batch: usize,
    /// The class of each image, all 0 for an unconditional model.
    pub classes: &'a [usize],
    /// Grids and the accumulators of hoisted taps.
    pub memory: Shared<'a>,
    /// This thread and its team, among which the outputs of a stage are divided.
    pub team: Thread<'a>,
}

/// The maps of a batch, each through every activation that it is read with.
pub struct Maps {
    /// The block that holds them.
    pub layout: Layout,
    grids: Vec<[Option<Grid>; Activation::ALL.len()]>,
}

impl Maps {
    /// Lays out every map of the plan's graph.
    pub fn new(plan: &Plan, storage: Storage, extent: Extent) -> Maps {
        let mut layout = Layout::new(&plan.graph, storage, extent, LANES);
        let read = plan.graph.activations_read();
        let of_map = |(map, read): (MapId, Vec<Activation>)| {
            let mut grids = [None; Activation::ALL.len()];
            for activation in read {
                let channels = plan.graph.channels(map, activation);
                grids[activation as usize] = Some(layout.place(map, channels));
            }
            grids
        };
        let grids = read.into_iter().enumerate().map(of_map).collect();
        Maps { layout, grids }
    }

    /// A map through an activation, if anything reads it so.
    pub fn grid(&self, map: MapId, read: Activation) -> Option<Grid> {
        self.grids[map][read as usize]
    }

    /// A map as it is, if anything reads it so.
    pub fn raw(&self, map: MapId) -> Option<Grid> {
        self.grid(map, Activation::Identity)
    }
}

impl Stage {
    /// Resolves a piece; with `keep_accumulators` there is room for a row of hoisted accumulators.
    pub fn new(
        plan: &Plan,
        index: usize,
        packed: &Packed,
        maps: &mut Maps,
        keep_accumulators: bool,
    ) -> Stage {
        let (piece, packed) = (&plan.pieces[index], packed.pieces[index].clone());
        let layer = plan.layer(piece);
        let taps = plan.taps(piece).zip(&packed.taps).map(|(tap, &weights)| StageTap {
            grid: maps.grid(tap.source, layer.read).expect("what is read is stored"),
            row: tap.row,
            column: tap.column,
            in_channels: tap.in_channels(),
            weights,
        });
        let taps: Vec<_> = taps.collect();
        let split = keep_accumulators && (piece.row_part() == Some(Part::Hoisted) || piece.taps > SEGMENTS);
        let accumulators = split.then(|| {
            let Extent { batch, width, .. } = maps.layout.extent();
            let columns = piece.steps(width);
            (maps.layout.reserve(&[batch, columns, packed.width()]), columns)
        });
        let add = layer.epilogue.add.map(|map| maps.raw(map).expect("what is added is stored"));
        let outputs = Activation::ALL.map(|activation| maps.grid(layer.output, activation));
        let output_columns = outputs.iter().chain([&add]).flatten().next().map_or(0, |g| g.columns);
        let channels = plan.graph.maps[layer.output].channels;
        // Preconditions of a tile: the grids of all taps have the same columns, and so have those of all outputs;
        // and a position has the channels that are read and written there.
        assert!(
            taps.iter().all(|t| t.grid.columns == taps[0].grid.columns && t.in_channels <= t.grid.channels)
        );
        let stored = outputs.iter().zip(Activation::ALL).chain([(&add, Activation::Identity)]);
        let mut stored = stored.filter_map(|(grid, a)| grid.as_ref().map(|g| (g, a.copies())));
        assert!(stored.all(|(g, copies)| (g.columns, g.channels) == (output_columns, copies * channels)));
        assert_eq!(packed.vectors, channels.div_ceil(LANES));
        assert_eq!(packed.halves, if layer.epilogue.gated { 2 } else { 1 });
        let (piece, epilogue) = (piece.clone(), layer.epilogue);
        Stage { piece, packed, taps, epilogue, outputs, output_columns, add, channels, accumulators }
    }
}

impl Stage {
    /// Multiply-adds of a part at `positions` positions.
    pub fn multiply_adds(&self, part: Part, positions: usize) -> usize {
        let inputs = self.taps[self.piece.part(part)].iter().map(|tap| tap.in_channels).sum::<usize>();
        inputs * self.packed.accumulators * positions
    }
}

/// The maps that come from outside: the image, and what is given for every position.
pub struct Inputs {
    /// The image.
    pub image: Entry,
    known: Option<Entry>,
}

impl Inputs {
    /// Those of a plan's graph.
    pub fn new(plan: &Plan, maps: &Maps) -> Inputs {
        let entry = |map: MapId| Entry(maps.grids[map]);
        Inputs { image: entry(IMAGE), known: plan.graph.input.known.map(entry) }
    }

    /// Writes what is there of a row of this thread's own images before the row begins: its pixels, if they are
    /// all there (`whole`), and what is given for every position. It goes to row `to` of the maps.
    ///
    /// # Safety
    /// As for [`Entry::write`], of all positions of that row of these images.
    pub unsafe fn write(&self, memory: Shared, own: &mut Own, row: usize, whole: bool, to: usize) {
        for at in own.filled(row, whole) {
            // SAFETY: by the caller's promise.
            unsafe { self.image.write(memory, [at[0], to, at[2]], own.input(at)) };
        }
        for ([slot, _, column], known) in own.known(row) {
            let map = self.known.as_ref().expect("a graph that takes it has a map for it");
            // SAFETY: as above.
            unsafe { map.write(memory, [slot, to, column], known) };
        }
    }
}

/// A map that comes from outside, through each activation that it is read with.
pub struct Entry([Option<Grid>; Activation::ALL.len()]);

impl Entry {
    /// Writes a position's channels: slot, row and column.
    ///
    /// # Safety
    /// The map is in that block of memory and has this slot, row and column, and as many channels; no other thread
    /// reads or writes that position meanwhile.
    pub unsafe fn write(&self, memory: Shared, [slot, row, column]: [usize; 3], channels: &[f32]) {
        for (grid, read) in self.0.iter().zip(Activation::ALL) {
            let Some(grid) = grid else { continue };
            let to = grid.at(slot, row as isize, column as isize);
            // SAFETY: by the caller's promise; the grid has the channels of this activation.
            let to = unsafe { memory.at(to, channels.len() * read.copies()) };
            for (i, x) in activate(read, channels).enumerate() {
                // SAFETY: `to` has room for them, see above.
                unsafe { to.add(i).write(x) };
            }
        }
    }
}
