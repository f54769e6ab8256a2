//! Each kernel of each instruction set alone, with its share of what one core can do at most.
//!
//! The idea: what a kernel reaches with its weights at hand, and what is left when they come from beyond
//! the core's own cache, tells whether a slow layer wants a better kernel or better data. The bound is
//! the longer of the time to multiply and the time to read the weights, both measured in this run.
//!
//! `cargo bench --bench kernels` runs all of it, `-- avx512` a part.

use std::cell::Cell;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fast_pixel_cnn::Precision;
use fast_pixel_cnn::cpu::kernels::{
    EpilogueArgs, Isa, Kernels, LANES, MAX_ROWS, Prefetch, Segment, Target, Tile,
};
use fast_pixel_cnn::cpu::limits::{peak_flops, read_bandwidth};
use fast_pixel_cnn::graph::Epilogue;

/// Inputs of a tap: the 160 filters of the paper's model, doubled by concat_elu.
const DEPTH: usize = 320;
/// Taps: those of a pixel's convolution with its skip.
const TAPS: usize = 3;
/// Bytes of weights that a core's own cache holds, and that it does not.
const SETS: [(&str, usize); 2] = [("near", 256 << 10), ("far", 15 << 20)];

/// Runs a routine under criterion and prints its work for each second as a share of a bound.
fn share(c: &mut Criterion, name: &str, work: f64, bound: f64, unit: &str, mut routine: impl FnMut()) {
    let total = Cell::new((0u64, Duration::ZERO));
    let mut group = c.benchmark_group("kernels");
    group.throughput(Throughput::Elements(work as u64)).sample_size(20);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600));
    group.bench_function(name, |b| {
        b.iter_custom(|count| {
            let start = Instant::now();
            (0..count).for_each(|_| routine());
            let spent = start.elapsed();
            let (n, all) = total.get();
            total.set((n + count, all + spent));
            spent
        })
    });
    let (count, spent) = total.get();
    if count > 0 {
        let rate = work * count as f64 / spent.as_secs_f64();
        println!("{name}: {:.1} {unit}, {:.0} % of the bound\n", rate / 1e9, 100.0 * rate / bound);
    }
}

fn tiles(c: &mut Criterion) {
    for kernels in Isa::ALL.into_iter().filter_map(Kernels::new) {
        let isa = kernels.isa().name();
        let flops = peak_flops(&kernels, 1).expect("one thread");
        println!("{isa}: {:.0} GFLOP/s\n", flops / 1e9);
        for (place, bytes) in SETS {
            let bandwidth = read_bandwidth(&kernels, 1, bytes).expect("one thread");
            for precision in [Precision::F32, Precision::Bf16] {
                for rows in [1, 2, 4, 6, 8, 10, 12] {
                    let shape = kernels.shape(rows, 10, 1, precision);
                    if shape.rows != rows {
                        continue;
                    }
                    let name = format!("{isa} tile {rows}x{} {} {place}", shape.panels, precision.name());
                    let bench = TileBench::new(rows, shape.panels, precision, bytes);
                    let per_byte = 2.0 * rows as f64 / precision.bytes();
                    let bound = flops.min(per_byte * bandwidth);
                    share(c, &name, bench.operations(), bound, "GFLOP/s", || bench.run(&kernels));
                }
            }
        }
    }
}

/// All tiles of some megabytes of weights, one after the other.
struct TileBench {
    rows: usize,
    panels: usize,
    precision: Precision,
    tiles: usize,
    /// `[positions][DEPTH]`.
    inputs: Vec<f32>,
    /// `[tiles][panels][lines][LANES]`.
    weights: Vec<f32>,
}

impl TileBench {
    fn new(rows: usize, panels: usize, precision: Precision, bytes: usize) -> TileBench {
        let floats = panels * TAPS * precision.lines(DEPTH) * LANES;
        let tiles = (bytes / size_of::<f32>() / floats).max(1);
        let inputs = vec![0.5; (rows + TAPS) * DEPTH];
        TileBench { rows, panels, precision, tiles, inputs, weights: vec![0.001; tiles * floats] }
    }

    fn operations(&self) -> f64 {
        (2 * self.rows * self.panels * LANES * TAPS * DEPTH * self.tiles) as f64
    }

    fn run(&self, kernels: &Kernels) {
        let lines = self.precision.lines(DEPTH);
        let init = [0.0; 10 * LANES];
        let mut accumulators = vec![0.0; self.rows * self.panels * LANES];
        let kernel = kernels.tile(self.rows, self.panels, self.precision);
        for tile in self.weights.chunks_exact(self.panels * TAPS * lines * LANES) {
            let segments: [Segment; TAPS] = std::array::from_fn(|t| Segment {
                weights: tile[t * lines * LANES..].as_ptr(),
                stride: 1,
                in_channels: DEPTH,
            });
            let inputs: [_; TAPS] = std::array::from_fn(|t| Cell::new(self.inputs[t * DEPTH..].as_ptr()));
            let tile = Tile {
                segments: &segments,
                inputs: &inputs,
                offsets: &std::array::from_fn(|m| m * DEPTH),
                init: &[init.as_ptr(); MAX_ROWS],
                panel_stride: TAPS * lines * LANES,
                accumulators: accumulators.as_mut_ptr(),
                accumulator_stride: self.panels * LANES,
            };
            // SAFETY: the slices have the extents of a `Tile`, and the shape comes from `Kernels::shape`.
            unsafe { kernel(&tile, &mut Prefetch::default()) };
        }
        std::hint::black_box(&accumulators);
    }
}

/// The gate with concat_elu, which has an exponential for each sigmoid and each elu: outputs for each
/// second. The bound is two fused multiply-adds' time for each of the about 25 operations of both.
fn epilogue(c: &mut Criterion) {
    const FILTERS: usize = 160;
    const OPERATIONS: f64 = 2.0 * 25.0;
    for kernels in Isa::ALL.into_iter().filter_map(Kernels::new) {
        let flops = peak_flops(&kernels, 1).expect("one thread");
        let (rows, vectors) = (12, FILTERS / LANES);
        let accumulators = vec![0.3; rows * 2 * vectors * LANES];
        let (mut residual, mut raw) = (vec![0.1; rows * FILTERS], vec![0.0; rows * FILTERS]);
        let mut activated = vec![0.0; rows * 2 * FILTERS];
        let positions: Vec<usize> = (0..rows).collect();
        let args = EpilogueArgs {
            accumulators: accumulators.as_ptr(),
            accumulator_stride: 2 * vectors * LANES,
            positions: &positions,
            vectors,
            first_vector: 0,
            channels: FILTERS,
            epilogue: Epilogue { gated: true, add: Some(0), tanh: false },
            add: Some(Target { base: residual.as_mut_ptr(), channels: FILTERS }),
            outputs: [
                Some(Target { base: raw.as_mut_ptr(), channels: FILTERS }),
                None,
                None,
                Some(Target { base: activated.as_mut_ptr(), channels: 2 * FILTERS }),
            ],
        };
        let name = format!("{} epilogue", kernels.isa().name());
        // SAFETY: the vectors have the extents of a `EpilogueArgs`.
        let run = || unsafe { kernels.epilogue()(&args) };
        share(c, &name, (rows * FILTERS) as f64, flops / OPERATIONS, "G outputs/s", run);
    }
}

criterion_group!(benches, tiles, epilogue);
criterion_main!(benches);
