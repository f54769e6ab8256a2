//! The weights of the pixel phase in the order in which the blocks of a cluster read them.
//!
//! The idea: a block has the same share of a stage's slices at every pixel, and each of its multipliers the same chunk of
//! one of them: the first ones those that mostly lie ready, the others those of the last tap, which has mostly just been made.
//! So what a block reads is a page: the sixteen rows of weights of each multiplier,
//! `[16 rows][multipliers][4 outputs]`, of which a warp loads lines as they lie; with bfloat16 two rows lie side by side. All
//! pages are as long, whatever is on them, so that an address is a product.

use std::ops::Range;

use super::abi::{CHUNK, CLUSTER, MULTIPLIERS, SLICE, WARP};
use super::packed::{Packed, PackedPiece, chunks};
use crate::plan::{Piece, Plan};
use crate::precision::Precision;

/// Rows of weights of a multiplier.
const ROWS: usize = 2 * CHUNK;

/// Floats in which a slice of a row of weights is stored.
fn words(precision: Precision) -> usize {
    match precision {
        Precision::F32 => SLICE,
        Precision::Bf16 => SLICE / 2,
    }
}

/// The units, slices of outputs or with a gate pairs of slices, of one block of a cluster.
fn share(units: usize, block: usize) -> Range<usize> {
    units * block / CLUSTER..units * (block + 1) / CLUSTER
}

/// How a piece is divided among the blocks of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Units.
    pub units: usize,
    /// Rounds in which the multipliers of the block with most units take its chunks, each with a page of every block.
    pub rounds: usize,
    /// The first of these pages, counted by as many as there are blocks.
    pub page: usize,
    /// Chunks of the first part, of all taps but the last, or 0 where there is but one part.
    pub early: usize,
    /// The first multiplier of the second part.
    pub late_from: usize,
}

impl Shares {
    /// For a piece that has so many chunks, and without those of its last tap fewer, or none.
    fn new(packed: &PackedPiece, before_last: usize, page: usize) -> Shares {
        let (units, chunks) = (packed.slices / packed.halves, packed.pixel.chunks);
        let slices = units.div_ceil(CLUSTER) * packed.halves;
        // Where it can be, each part has half of the multipliers to itself at every step, so that none which still multiplies
        // one of the second is to have one of the first next.
        let late_from = |early: usize| {
            let half = if slices * (chunks - early) <= MULTIPLIERS / 2 { MULTIPLIERS / 2 } else { 0 };
            (slices * early).next_multiple_of(WARP).max(half)
        };
        let fits = late_from(before_last) + slices * (chunks - before_last) <= MULTIPLIERS;
        let early = if fits { before_last } else { 0 };
        let rounds = (late_from(early) + slices * (chunks - early)).div_ceil(MULTIPLIERS).max(1);
        Shares { units, rounds, page, early, late_from: late_from(early) }
    }

    /// The slice of a block and the chunk, of so many, that a multiplier has in a round, if there are as many slices.
    pub fn task(&self, round: usize, multiplier: usize, chunks: usize) -> Option<(usize, usize)> {
        let task = round * MULTIPLIERS + multiplier;
        let late = task >= self.late_from;
        let (first, part) = if late { (self.early, chunks - self.early) } else { (0, self.early) };
        let of_part = if late { task - self.late_from } else { task };
        let (slice, chunk) = (of_part.checked_div(part)?, of_part % part);
        // Every other slice begins with its last four, so that eight threads that read different chunks read different banks.
        let turned = slice % 2 == 1 && part % CHUNK == SLICE;
        let chunk = if turned { (chunk + part - SLICE) % part } else { chunk };
        Some((slice, first + chunk))
    }
}

/// Chunks of the taps that the pixel phase sums before a piece's last one.
fn chunks_before_last(plan: &Plan, piece: &Piece) -> usize {
    let of_taps =
        plan.taps(piece).skip(piece.hoisted).map(|tap| chunks(plan.graph.maps[tap.source].channels));
    let of_taps: Vec<usize> = of_taps.collect();
    of_taps.split_last().map_or(0, |(_, before)| before.iter().sum())
}

/// Where the pages of all pieces lie.
#[derive(Clone, Debug)]
pub struct Pages {
    /// For each piece of the plan, if the pixel phase runs it.
    pub pieces: Vec<Option<Shares>>,
    /// Floats of all of them.
    pub len: usize,
    precision: Precision,
}

impl Pages {
    /// Finds every page a place.
    pub fn new(plan: &Plan, packed: &Packed, precision: Precision) -> Pages {
        let mut page = 0;
        let pieces = plan.pieces.iter().zip(&packed.pieces).map(|(piece, packed)| {
            let shares =
                piece.pixel_part().map(|_| Shares::new(packed, chunks_before_last(plan, piece), page));
            page += shares.map_or(0, |shares| shares.rounds);
            shares
        });
        let pieces = pieces.collect();
        Pages { pieces, len: page * CLUSTER * ROWS * MULTIPLIERS * words(precision), precision }
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        (self.len * size_of::<f32>()) as u64
    }

    /// A piece's pages, from its weights of the pixel phase as [`Packed`] has them; with it the float at which they begin.
    pub fn arrange(&self, index: usize, piece: &PackedPiece, weights: &[f32]) -> Option<(usize, Vec<f32>)> {
        let shares = self.pieces[index]?;
        let (chunks, words) = (piece.pixel.chunks, words(self.precision));
        // Rows that lie side by side.
        let beside = SLICE / words;
        let page = ROWS * MULTIPLIERS * words;
        let mut floats = vec![0.0; shares.rounds * CLUSTER * page];
        for (at, to) in floats.chunks_exact_mut(page).enumerate() {
            let (round, block) = (at / CLUSTER, at % CLUSTER);
            let slices = share(shares.units, block);
            let slices = slices.start * piece.halves..slices.end * piece.halves;
            for multiplier in 0..MULTIPLIERS {
                let Some((slice, chunk)) = shares.task(round, multiplier, chunks) else { continue };
                let slice = slices.start + slice;
                if slice >= slices.end {
                    continue;
                }
                for row in 0..piece.rows {
                    let from = ((slice * piece.rows + row) * chunks + chunk) * words;
                    let at = (row / beside * MULTIPLIERS + multiplier) * SLICE + row % beside * words;
                    to[at..at + words].copy_from_slice(&weights[from..from + words]);
                }
            }
        }
        Some((shares.page * CLUSTER * page, floats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{PixelCnnPp, WaveNet};

    #[test]
    fn every_weight_of_the_pixel_phase_is_on_one_page() {
        let graphs = [PixelCnnPp::PAPER.graph(), WaveNet::default().graph()].map(Plan::new);
        for (plan, precision) in
            graphs.iter().flat_map(|plan| Precision::ALL.map(|precision| (plan, precision)))
        {
            let packed = Packed::places(plan, precision);
            let pages = Pages::new(plan, &packed, precision);
            let mut seen = 0;
            for (index, piece) in packed.pieces.iter().enumerate() {
                let len = piece.slices * piece.rows * piece.pixel.chunks * words(precision);
                // The place of each, which float32 holds, from 1 on.
                let weights: Vec<f32> = (1..=len).map(|i| i as f32).collect();
                let Some((at, mut floats)) = pages.arrange(index, piece, &weights) else { continue };
                assert_eq!(at, seen);
                seen += floats.len();
                floats.retain(|x| *x > 0.0);
                floats.sort_by(f32::total_cmp);
                assert_eq!(floats, weights);
            }
            assert_eq!(seen, pages.len);
        }
    }

    #[test]
    fn blocks_share_evenly() {
        for units in 1..100 {
            let shares: Vec<_> = (0..CLUSTER).map(|block| share(units, block)).collect();
            assert!(shares.windows(2).all(|two| two[0].end == two[1].start));
            assert!(shares.iter().all(|s| s.len() == units / CLUSTER || s.len() == units.div_ceil(CLUSTER)));
            assert_eq!((shares[0].start, shares[CLUSTER - 1].end), (0, units));
        }
    }
}
