//! Picks how to split a batch over threads from an analytical cost model: predicted, not tried.
//!
//! The idea: a generation is a few matrix products, each bound by the slower of the multiply-adds and the
//! reading of the weights; where threads work on one image together, barriers come on top. So the predicted
//! time is a sum of maxima over strides and phases, from the rates of an ordinary core. They need not be this
//! machine's: only the order of the candidates matters.

use super::kernels::Isa;
use super::share::MANY_POSITIONS;
use super::stretches::ALONE;

use super::{Split, team};
use crate::graph::{Graph, Layer, Tap};
use crate::precision::Precision;

/// Images that a team makes at a time. More would multiply no faster (the pixel phase is a product with
/// as many rows), and their accumulators and rings would push the weights out of the cache.
pub const BLOCK_IMAGES: usize = 32;

/// What an ordinary core does in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Floating point operations.
    pub flops: f64,
    /// Bytes read from its private cache.
    pub near: f64,
    /// Bytes read from the shared cache, or from memory.
    pub far: f64,
    /// Bytes of weights that fit into its private cache.
    pub near_bytes: f64,
    /// Bytes read that another core has just written: cross-core bandwidth.
    pub handed: f64,
    /// Seconds that a team's barrier takes, with the wait for the last thread.
    pub barrier: f64,
}

impl Rates {
    /// Those assumed for an instruction set.
    pub fn nominal(isa: Isa) -> Rates {
        let flops = match isa {
            Isa::Avx512 => 170e9,
            Isa::Avx2 => 85e9,
            Isa::Neon => 70e9,
            // Every 64-bit ARM processor multiplies and adds at once, so that the compiler's vectors do.
            Isa::Portable if cfg!(target_arch = "aarch64") => 20e9,
            Isa::Portable => 0.5e9,
        };
        Rates { flops, near: 80e9, far: 28e9, near_bytes: 1e6, handed: 3e9, barrier: 4.5e-6 }
    }
}

/// A way to share a batch, with the seconds predicted for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// What threads share.
    pub split: Split,
    /// Teams that work side by side.
    pub teams: usize,
    /// Threads in each.
    pub threads: usize,
    /// Images that all teams together make at a time.
    pub block: usize,
    /// Seconds of the row phase.
    pub row: f64,
    /// Seconds of the pixel phase.
    pub pixel: f64,
    /// Seconds in which threads wait for one another, and for what others have written.
    pub barrier: f64,
}

impl Way {
    /// Seconds of the whole.
    pub fn seconds(&self) -> f64 {
        self.row + self.pixel + self.barrier
    }

    /// Blocks of images that a batch of `batch` images takes, one after the other.
    pub fn blocks(&self, batch: usize) -> usize {
        batch.div_ceil(self.block)
    }
}

/// A generation to be planned.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// How the pixel phase's weights are stored.
    pub precision: Precision,
    /// Threads to use.
    pub threads: usize,
    /// Images.
    pub batch: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
}

/// Both ways, the better one first.
pub fn ways(graph: &Graph, rates: &Rates, job: &Job) -> [Way; 2] {
    let mut ways = [Split::Outputs, Split::Images].map(|split| way(graph, rates, job, split));
    // Stable: of equals the first, which needs less memory.
    ways.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
    ways
}

/// One way.
pub fn way(graph: &Graph, rates: &Rates, job: &Job, split: Split) -> Way {
    let (teams, threads) = match split {
        Split::Images => (job.threads.min(job.batch).max(1), 1),
        Split::Outputs => (1, job.threads),
    };
    // The largest team sets the time.
    let images = job.batch.div_ceil(teams);
    let blocks = images.div_ceil(BLOCK_IMAGES).max(1);
    let block = team::share(images, blocks - 1, blocks).len();
    let mut way = Way {
        split,
        teams,
        threads,
        block: (block * teams).min(job.batch),
        row: 0.0,
        pixel: 0.0,
        barrier: 0.0,
    };
    let (blocks, threads) = (blocks as f64, threads as f64);
    let strides = graph.work_by_stride();
    let per_pixel = job.precision.bytes();
    let own: f64 = strides.iter().map(|l| l.pixel * per_pixel / threads).sum();
    let bandwidth = if own <= rates.near_bytes { rates.near } else { rates.far };
    for work in strides {
        let (rows, columns) = ((job.height / work.stride) as f64, (job.width / work.stride) as f64);
        let multiply = |weights: f64| 2.0 * weights * rows * columns * block as f64 / threads / rates.flops;
        // Where positions are shared out, every thread reads all weights.
        let positions = block as f64 * columns;
        let readers = if positions >= threads * MANY_POSITIONS as f64 { 1.0 } else { threads };
        let per_row = if graph.is_sequence() { per_pixel } else { size_of::<f32>() as f64 };
        let read = work.row * per_row * rows / readers / rates.far;
        way.row += blocks * multiply(work.row).max(read);
        let read = work.pixel * per_pixel * rows * columns / threads / bandwidth;
        way.pixel += blocks * multiply(work.pixel).max(read);
    }
    if way.threads > 1 {
        let times: Vec<_> = graph.layers.iter().map(|layer| times(graph, layer, job, block)).collect();
        let inputs = |layer: &Layer| layer.taps.iter().map(Tap::in_channels).sum::<usize>();
        let handed = graph.layers.iter().zip(&times).filter(|(l, _)| !graph.is_row_known(l.output));
        let handed: usize = handed.map(|(layer, times)| times * inputs(layer)).sum();
        let bytes = (handed * size_of::<f32>() * block) as f64 * (1.0 - 1.0 / threads);
        way.barrier = blocks * (times.iter().sum::<usize>() as f64 * rates.barrier + bytes / rates.handed);
    }
    way
}

/// How often a layer runs, after which there is a barrier: for each of its rows, or for each of its pixels unless one
/// thread runs it alone.
fn times(graph: &Graph, layer: &Layer, job: &Job, block: usize) -> usize {
    let stride = graph.stride(layer);
    if graph.is_row_known(layer.output) {
        return job.height / stride;
    }
    let hoisted = graph.hoisted_taps(layer, [0, 0]);
    let inputs = layer.taps_of([0, 0]).skip(hoisted).map(Tap::in_channels).sum::<usize>();
    match inputs * graph.accumulators(layer) * block < ALONE {
        true => 0,
        false => job.height / stride * (job.width / stride),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::PixelCnnPp;

    fn best(config: PixelCnnPp, threads: usize, batch: usize) -> Way {
        let job = Job { precision: Precision::F32, threads, batch, height: 32, width: 32 };
        ways(&config.graph(), &Rates::nominal(Isa::Avx512), &job)[0]
    }

    #[test]
    fn one_image_of_a_large_model_is_made_together_and_many_apart() {
        let one = best(PixelCnnPp::PAPER, 2, 1);
        assert_eq!((one.split, one.teams, one.threads, one.block), (Split::Outputs, 1, 2, 1));
        let many = best(PixelCnnPp::PAPER, 2, 256);
        assert_eq!((many.split, many.teams, many.threads, many.block), (Split::Images, 2, 1, 64));
    }

    #[test]
    fn one_sound_is_made_together_and_many_apart() {
        let graph = crate::models::ModelConfig::from(crate::models::WaveNet::default()).graph();
        let best = |batch| {
            let job = Job { precision: Precision::F32, threads: 2, batch, height: 16_000, width: 1 };
            ways(&graph, &Rates::nominal(Isa::Avx2), &job)[0].split
        };
        assert_eq!([best(1), best(16)], [Split::Outputs, Split::Images]);
    }

    #[test]
    fn a_small_model_s_images_are_made_apart() {
        let demo = PixelCnnPp { resnets: 2, filters: 32, mixtures: 5, ..PixelCnnPp::PAPER };
        assert_eq!(best(demo, 2, 16).split, Split::Images);
    }

    #[test]
    fn blocks_are_even_and_no_image_is_left_out() {
        for batch in 1..200 {
            for threads in [1, 2, 3, 7] {
                for split in [Split::Images, Split::Outputs] {
                    let job = Job { precision: Precision::F32, threads, batch, height: 32, width: 32 };
                    let way = way(&PixelCnnPp::PAPER.graph(), &Rates::nominal(Isa::Avx512), &job, split);
                    assert!(way.block >= 1 && way.block <= batch.min(BLOCK_IMAGES * way.teams));
                    let blocks = way.blocks(batch);
                    assert!(batch.div_ceil(blocks) <= way.block, "{batch} images in blocks of {}", way.block);
                }
            }
        }
    }
}
