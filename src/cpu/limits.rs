//! What this machine can do, measured: fused multiply-adds per second, and bytes read per second from
//! memory of several sizes.
//!
//! The idea: a share of a limit means something on any machine, a time only on one. So the limits are
//! measured in the same run, by loops that do nothing else, with the threads and the instruction set
//! that the engine uses.

use std::time::Instant;

use super::buffer::Buffer;
use super::kernels::Kernels;
use super::team;
use crate::error::Result;
use crate::graph::Graph;
use crate::graph::schedule::StrideWork;
use crate::precision::Precision;

/// Seconds that one repeat of a measurement takes at least.
const REPEAT_SECONDS: f64 = 0.02;
/// Repeats; the best counts, since everything that disturbs a measurement slows it.
const REPEATS: usize = 7;

/// Floats that [`Kernels::read`] takes at a time.
const READ_CHUNK: usize = 128;

/// Bytes at which reading comes from the main memory on nearly any machine.
pub const MAIN_MEMORY_BYTES: usize = 512 << 20;

/// Fused multiply-adds per second of a team of threads, counted as two operations each.
///
/// # Errors
/// [`crate::Error::Threads`].
pub fn peak_flops(kernels: &Kernels, threads: usize) -> Result<f64> {
    rate(threads, |_, rounds| kernels.multiply_add(rounds) as f64)
}

/// Bytes per second at which a team reads `bytes` of memory over and over, each thread its own part.
///
/// # Errors
/// [`crate::Error::Threads`], [`crate::Error::Allocate`].
pub fn read_bandwidth(kernels: &Kernels, threads: usize, bytes: usize) -> Result<f64> {
    let buffer = {
        let len = (bytes / size_of::<f32>()).max(threads * READ_CHUNK);
        let mut buffer = Buffer::zeroed(len)?;
        // Zeroed pages may all be one page until they are written.
        buffer.as_mut_slice().fill(1.0);
        buffer
    };
    let floats = buffer.as_slice();
    // The kernels read whole chunks, so every thread has whole ones, and at least one.
    let chunks = (floats.len() / READ_CHUNK).max(threads);
    rate(threads, |index, rounds| {
        let share = team::share(chunks, index, threads);
        let part = &floats[share.start * READ_CHUNK..share.end * READ_CHUNK];
        for _ in 0..rounds {
            kernels.read(part);
        }
        (rounds * size_of_val(part)) as f64
    })
}

/// Work per second of a team. `work(index, rounds)` does that many rounds and returns the amount of work.
fn rate(threads: usize, work: impl Fn(usize, usize) -> f64 + Sync) -> Result<f64> {
    let timed = |rounds: usize| -> Result<(f64, f64)> {
        let done = std::sync::Mutex::new(0.0);
        let start = std::sync::Mutex::new(None);
        team::run(&[threads], |_, thread| {
            work(thread.index, 1);
            thread.barrier();
            start.lock().expect("no panics").get_or_insert_with(Instant::now);
            let mine = work(thread.index, rounds);
            *done.lock().expect("no panics") += mine;
        })?;
        let start = start.into_inner().expect("no panics").expect("set by the first thread");
        Ok((start.elapsed().as_secs_f64(), done.into_inner().expect("no panics")))
    };
    let mut rounds = 1;
    while timed(rounds)?.0 < REPEAT_SECONDS {
        rounds *= 2;
    }
    let mut best = 0.0;
    for _ in 0..REPEATS {
        let (seconds, done) = timed(rounds)?;
        best = f64::max(best, done / seconds);
    }
    Ok(best)
}

/// The limits that bound a generation.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Floating point operations per second.
    pub flops: f64,
    /// Bytes per second from memory of the size of the weights that every pixel needs.
    pub every_pixel: f64,
    /// Bytes per second from memory of the size of the weights that some pixels need.
    pub some_pixels: f64,
    /// Bytes per second from the main memory.
    pub main_memory: f64,
    /// Bytes of a weight of the pixel phase.
    pub pixel_weight: f64,
}

/// Weights of the pixel phase in bytes: of the smallest stride, which every pixel needs, and of all strides.
fn pixel_bytes(graph: &Graph, precision: Precision) -> [usize; 2] {
    let sets = graph.work_by_stride();
    let bytes = |set: &StrideWork| (set.pixel * precision.bytes()) as usize;
    [bytes(&sets[0]), sets.iter().map(bytes).sum()]
}

impl Limits {
    /// Measures this machine for one network. Takes about two seconds.
    ///
    /// # Errors
    /// [`crate::Error::Threads`], [`crate::Error::Allocate`].
    pub fn measure(kernels: &Kernels, threads: usize, graph: &Graph, precision: Precision) -> Result<Limits> {
        let [every, all] = pixel_bytes(graph, precision);
        let bandwidth = |bytes: usize| read_bandwidth(kernels, threads, bytes.max(1 << 16));
        Ok(Limits {
            flops: peak_flops(kernels, threads)?,
            every_pixel: bandwidth(every)?,
            some_pixels: bandwidth(all)?,
            main_memory: bandwidth(MAIN_MEMORY_BYTES)?,
            pixel_weight: precision.bytes(),
        })
    }

    /// Seconds below which no cached generation of `batch` images can come on this machine: for each
    /// stride and phase the longer of the time to multiply and the time to read the weights once for
    /// each use. The row phase uses its weights once for each row, from the main memory, since all of
    /// them together fit into no cache; the pixel phase once for each pixel, whatever the batch.
    pub fn cached_seconds(&self, graph: &Graph, batch: usize, height: usize, width: usize) -> f64 {
        let mut seconds = 0.0;
        for (i, set) in graph.work_by_stride().iter().enumerate() {
            let (rows, columns) = ((height / set.stride) as f64, (width / set.stride) as f64);
            let flops = |weights: f64| 2.0 * weights * rows * columns * batch as f64;
            let phase = |weights, bytes, uses, bandwidth| {
                f64::max(flops(weights) / self.flops, weights * bytes * uses / bandwidth)
            };
            seconds += phase(set.row, size_of::<f32>() as f64, rows, self.main_memory);
            let bandwidth = if i == 0 { self.every_pixel } else { self.some_pixels };
            seconds += phase(set.pixel, self.pixel_weight, rows * columns, bandwidth);
        }
        seconds
    }

    /// Seconds below which no full forward pass over `batch` images can come.
    pub fn forward_seconds(&self, graph: &Graph, batch: usize, height: usize, width: usize) -> f64 {
        2.0 * graph.multiply_adds(height, width) as f64 * batch as f64 / self.flops
    }
}

/// The limits that bound a sound, sample by sample.
#[derive(Clone, Copy, Debug)]
pub struct SampleLimits {
    /// Floating point operations per second.
    pub flops: f64,
    /// Bytes per second from memory of the size of all weights, each of which every sample needs.
    pub read: f64,
    /// Bytes of all weights.
    pub bytes: f64,
}

impl SampleLimits {
    /// Measures this machine for one network. Takes less than a second.
    ///
    /// # Errors
    /// [`crate::Error::Threads`], [`crate::Error::Allocate`].
    pub fn measure(
        kernels: &Kernels,
        threads: usize,
        graph: &Graph,
        precision: Precision,
    ) -> Result<SampleLimits> {
        let sets = graph.work_by_stride();
        let bytes = sets.iter().map(|set| (set.row + set.pixel) * precision.bytes()).sum();
        Ok(SampleLimits {
            flops: peak_flops(kernels, threads)?,
            read: read_bandwidth(kernels, threads, (bytes as usize).max(1 << 16))?,
            bytes,
        })
    }

    /// Seconds below which no sample of each of `batch` sounds can come: the longer of the time to multiply and the
    /// time to read all weights once.
    pub fn seconds(&self, graph: &Graph, batch: usize) -> f64 {
        let flops = 2.0 * graph.multiply_adds(1, 1) as f64 * batch as f64;
        f64::max(flops / self.flops, self.bytes / self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{PixelCnnPp, fast_wavenet};

    /// The machine for which the lower bounds of the paper's model have been worked out.
    const LIMITS: Limits =
        Limits { flops: 480e9, every_pixel: 190e9, some_pixels: 75e9, main_memory: 39e9, pixel_weight: 4.0 };

    #[test]
    fn the_lower_bound_counts_every_multiply_add_once_when_nothing_waits_for_memory() {
        let graph = PixelCnnPp::PAPER.graph();
        let infinite = Limits { every_pixel: 1e30, some_pixels: 1e30, main_memory: 1e30, ..LIMITS };
        let seconds = infinite.cached_seconds(&graph, 3, 32, 32);
        let exact = 3.0 * 2.0 * 24_370_216_960.0 / 480e9;
        assert!((seconds / exact - 1.0).abs() < 1e-9, "{seconds} {exact}");
        assert!((infinite.forward_seconds(&graph, 3, 32, 32) / exact - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_sound_waits_for_memory_and_many_do_not() {
        let graph = fast_wavenet(4);
        let weights = graph.multiply_adds(1, 1) as f64;
        let limits = SampleLimits { flops: 200e9, read: 50e9, bytes: 4.0 * weights };
        assert_eq!(limits.seconds(&graph, 1), 4.0 * weights / 50e9);
        assert_eq!(limits.seconds(&graph, 16), 32.0 * weights / 200e9);
    }

    #[test]
    fn one_image_waits_for_memory_and_many_do_not() {
        let graph = PixelCnnPp::PAPER.graph();
        let one = LIMITS.cached_seconds(&graph, 1, 32, 32);
        assert!((0.2..0.3).contains(&one), "{one}");
        let many = LIMITS.cached_seconds(&graph, 64, 32, 32) / 64.0;
        assert!((0.10..0.125).contains(&many), "{many}");
    }
}
