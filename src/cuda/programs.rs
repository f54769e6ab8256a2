//! What runs when, while a batch grows: the cached method's schedule as lists of steps.
//!
//! The idea: which stages run depends on row and column modulo 4, the widest stride, and on nothing else.
//! So four programs begin a row, sixteen make a pixel, four pass a row that is given, and each can be
//! captured once and replayed.

use super::layout::{Extent, Grid, Layout, Storage};
use super::packed::Packed;
use super::stage::{Entry, Program, Span};
use super::table::{Part, Piece, Table, on_load};
use crate::network::{IMAGE, Network, Stream};

/// Rows and columns after which the programs repeat.
pub const PERIOD: usize = 4;

/// Steps of the table, to be run one after the other.
pub type Steps = Vec<usize>;

/// The programs of a batch.
pub struct Programs {
    /// Where the tensors lie.
    pub layout: Layout,
    /// The stages.
    pub table: Table,
    /// What a row begins with, by row modulo [`PERIOD`]: the vertical stream, then all that the horizontal
    /// stream can sum.
    pub rows: [Steps; PERIOD],
    /// What a row is made by whose pixels are all known, without and with its logits.
    pub given: [[Steps; PERIOD]; 2],
    /// What a pixel needs.
    pub pixels: [[Steps; PERIOD]; PERIOD],
    /// The image.
    pub image: Grid,
    /// The logits.
    pub logits: Grid,
}

/// Where everything lies, and the network's pieces with the place of their sums.
fn lay_out<'a>(network: &'a Network, packed: &Packed, extent: Extent) -> (Layout, Vec<(Piece<'a>, usize)>) {
    let mut layout = Layout::new(network, Storage::Ring, extent);
    let mut pieces = Vec::new();
    for (layer, packed) in network.layers.iter().zip(&packed.layers) {
        for (&parity, &packed) in layer.parities().iter().zip(packed) {
            let piece = Piece { network, layer, parity, packed };
            let columns = extent.width / piece.pixels();
            let split = piece.row_part() == Some(Part::Hoisted);
            let sums = match split {
                true => layout.reserve(
                    [extent.batch, columns, piece.sums()].into_iter().fold(1, usize::saturating_mul),
                ),
                false => 0,
            };
            pieces.push((piece, sums));
        }
    }
    (layout, pieces)
}

/// Bytes on the device that a batch needs beyond the weights.
pub fn bytes(network: &Network, packed: &Packed, extent: Extent) -> u64 {
    lay_out(network, packed, extent).0.bytes()
}

impl Programs {
    /// Plans a batch for a device with so many multiprocessors.
    pub fn new(network: &Network, packed: &Packed, extent: Extent, multiprocessors: usize) -> Programs {
        let (layout, pieces) = lay_out(network, packed, extent);
        let mut table = Table::default();
        let stage = |&(piece, sums): &(Piece, usize), part, span| {
            piece.stage(&layout, part, span, sums, |tensor, form| on_load(network, &layout, tensor, form))
        };
        let mut add = |stages| table.add(stages, extent.batch, multiprocessors);

        // One step for each piece and way to run it; the programs share them.
        let each = |add: &mut dyn FnMut(_) -> usize, part: &dyn Fn(&Piece) -> Option<Part>, span| {
            let step = |p: &(Piece, usize)| Some(add(vec![stage(p, part(&p.0)?, span)]));
            pieces.iter().map(step).collect::<Vec<Option<usize>>>()
        };
        let of = |stream| move |p: &Piece| p.layer.stream == stream;
        let whole_rows = each(&mut add, &|_| Some(Part::Whole), Span::Row);
        let of_pixel = each(&mut add, &|p| p.pixel_part().filter(|_| of(Stream::Horizontal)(p)), Span::Pixel);

        let at_row = |row: usize| move |p: &Piece| p.runs_at(0, row);
        let select = |steps: &[Option<usize>], which: &dyn Fn(&Piece) -> bool| -> Steps {
            let all = pieces.iter().zip(steps);
            all.filter(|((piece, _), _)| which(piece)).filter_map(|(_, step)| *step).collect()
        };
        let vertical = |row| select(&whole_rows, &|p| of(Stream::Vertical)(p) && at_row(row)(p));
        let rows = std::array::from_fn(|row| {
            let mut steps = vertical(row);
            let hoisted = pieces.iter().filter(|(p, _)| of(Stream::Horizontal)(p) && at_row(row)(p));
            let hoisted = hoisted.filter_map(|p| Some(stage(p, p.0.row_part()?, Span::Row)));
            steps.push(add(hoisted.collect()));
            steps
        });
        let given = [false, true].map(|logits| {
            std::array::from_fn(|row| {
                let wanted = |p: &Piece| logits || p.layer.output != network.logits();
                let mut steps = vertical(row);
                let rest = |p: &Piece| of(Stream::Horizontal)(p) && at_row(row)(p) && wanted(p);
                steps.extend(select(&whole_rows, &rest));
                steps
            })
        });
        let pixels = std::array::from_fn(|row| {
            std::array::from_fn(|column| {
                select(&of_pixel, &|p: &Piece| at_row(row)(p) && p.runs_at(1, column))
            })
        });
        let (image, logits) = (layout.grids[IMAGE], layout.grids[network.logits()]);
        Programs { table, rows, given, pixels, image, logits, layout }
    }

    /// The programs of rows and pixels as the persistent kernel reads them: entries, then the runs of
    /// entries of the rows and of the pixels.
    pub fn flat(&self) -> (Vec<Entry>, Vec<Program>, Vec<Program>) {
        let mut entries = Vec::new();
        let rows = self.rows.iter().map(|steps| self.flatten(steps, &mut entries)).collect();
        let pixels = self.pixels.iter().flatten().map(|steps| self.flatten(steps, &mut entries)).collect();
        (entries, rows, pixels)
    }

    fn flatten(&self, steps: &Steps, entries: &mut Vec<Entry>) -> Program {
        let first = entries.len();
        let mut start = 0;
        for &step in steps {
            let step = self.table.steps[step];
            for stage in step.first..step.first + step.count {
                let [x, y] = self.table.blocks[stage].map(|n| n as i32);
                entries.push(Entry {
                    stage: stage as i32,
                    wide: i32::from(step.wide),
                    x,
                    items: x * y,
                    start,
                    join: i32::from(stage + 1 == step.first + step.count),
                });
                start += x * y;
            }
        }
        Program { first: first as i32, count: (entries.len() - first) as i32 }
    }
}
