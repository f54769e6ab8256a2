//! The weights of the pixel phase in the order in which the blocks of a cluster stream them.
//!
//! The idea: a block has the same share of a stage's slices at every pixel, and each of its multipliers the same chunk of
//! one of them. So what a block reads for a stage is pages: eight rows of weights of each multiplier,
//! `[8 rows][multipliers][4 outputs]`, of which a warp copies lines as they lie; with bfloat16 two rows lie side by side.

use std::ops::Range;

use super::abi::{CHUNK, CLUSTER, MULTIPLIERS, Page, SLICE};
use super::packed::{Packed, PackedPiece};
use crate::plan::Plan;
use crate::precision::Precision;

/// Floats in which a slice of a row of weights is stored.
fn words(precision: Precision) -> usize {
    match precision {
        Precision::F32 => SLICE,
        Precision::Bf16 => SLICE / 2,
    }
}

/// Floats of a page of one block.
pub fn page(precision: Precision) -> usize {
    CHUNK * MULTIPLIERS * words(precision)
}

/// The units, slices of outputs or with a gate pairs of slices, of one block of a cluster.
fn share(units: usize, block: usize) -> Range<usize> {
    units * block / CLUSTER..units * (block + 1) / CLUSTER
}

/// How a piece is divided among the blocks of a cluster.
#[derive(Clone, Debug)]
pub struct Shares {
    /// Units.
    pub units: usize,
    /// Rounds in which the multipliers of the block with most units take its chunks.
    pub rounds: usize,
    /// Its pages, round by round and of each the rows by eights: each block's part.
    pub pages: Vec<[Page; CLUSTER]>,
}

impl Shares {
    /// Of a piece whose pages begin at `at`; moves it behind them.
    fn new(piece: &PackedPiece, at: &mut usize) -> Shares {
        let (units, chunks) = (piece.slices / piece.halves, piece.pixel.chunks);
        let tasks = |block| share(units, block).len() * piece.halves * chunks;
        let rounds = (units.div_ceil(CLUSTER) * piece.halves * chunks).div_ceil(MULTIPLIERS).max(1);
        let mut pages = Vec::new();
        for round in 0..rounds {
            for _ in 0..piece.rows / CHUNK {
                pages.push(std::array::from_fn(|block| {
                    let multipliers = tasks(block).saturating_sub(round * MULTIPLIERS).min(MULTIPLIERS);
                    let page = Page { at: *at as u32, multipliers: multipliers as u32 };
                    *at += 1;
                    page
                }));
            }
        }
        Shares { units, rounds, pages }
    }
}

/// Where the pages of all pieces lie.
#[derive(Clone, Debug)]
pub struct Pages {
    /// For each piece of the plan, if the pixel phase runs it.
    pub pieces: Vec<Option<Shares>>,
    /// Floats of all of them.
    pub len: usize,
    /// How the weights are stored.
    pub precision: Precision,
}

impl Pages {
    /// Finds every page a place.
    pub fn new(plan: &Plan, packed: &Packed, precision: Precision) -> Pages {
        let mut at = 0;
        let pieces = plan.pieces.iter().zip(&packed.pieces);
        let pieces = pieces.map(|(piece, packed)| piece.pixel_part().map(|_| Shares::new(packed, &mut at)));
        let pieces = pieces.collect();
        Pages { pieces, len: at * page(precision), precision }
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        (self.len * size_of::<f32>()) as u64
    }

    /// A piece's pages, from its weights of the pixel phase as [`Packed`] has them; with it the float at which they begin.
    pub fn arrange(&self, index: usize, piece: &PackedPiece, weights: &[f32]) -> Option<(usize, Vec<f32>)> {
        let shares = self.pieces[index].as_ref()?;
        let (chunks, words, page) = (piece.pixel.chunks, words(self.precision), page(self.precision));
        // Rows that lie side by side.
        let beside = SLICE / words;
        let mut floats = vec![0.0; shares.pages.len() * CLUSTER * page];
        let mut pages = floats.chunks_exact_mut(page);
        for (index, blocks) in shares.pages.iter().enumerate() {
            let (round, eight) = (index / (piece.rows / CHUNK), index % (piece.rows / CHUNK));
            for (block, part) in blocks.iter().enumerate() {
                let first = share(shares.units, block).start * piece.halves;
                let to = pages.next().expect("there is room for each");
                for row in 0..CHUNK {
                    for multiplier in 0..part.multipliers as usize {
                        let task = round * MULTIPLIERS + multiplier;
                        let (slice, chunk) = (first + task / chunks, task % chunks);
                        let from = ((slice * piece.rows + eight * CHUNK + row) * chunks + chunk) * words;
                        let at = (row / beside * MULTIPLIERS + multiplier) * SLICE + row % beside * words;
                        to[at..at + words].copy_from_slice(&weights[from..from + words]);
                    }
                }
            }
        }
        Some((shares.pages[0][0].at as usize * page, floats))
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
