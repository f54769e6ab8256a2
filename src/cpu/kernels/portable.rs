//! Plain Rust: what runs on any machine, and the arithmetic that the others must repeat bit for bit.

use super::{
    EpilogueArgs, LANES, MULTIPLY_ADD_CHAINS, MULTIPLY_ADD_STEPS, Precision, Prefetch, Shape, Tile, TileFn,
    tile_table,
};

/// One row at a time; up to two panels, the values and gates of 16 outputs.
pub fn tile(rows: usize, panels: usize, precision: Precision) -> Option<TileFn> {
    tile_table!(product, (rows, panels, precision), 1 x [1, 2])
}

/// It has nothing to do it with.
pub const PREFETCHES: bool = false;

/// The tile to prefer.
pub fn shape(_: usize, _: usize, _: Precision) -> Shape {
    Shape { rows: 1, panels: 2 }
}

/// See [`Tile`].
///
/// # Safety
/// As for [`TileFn`].
unsafe fn product<const ROWS: usize, const PANELS: usize, const BF16: bool>(t: &Tile, _: &mut Prefetch) {
    for m in 0..ROWS {
        for p in 0..PANELS {
            // SAFETY: the extents are those of `Tile`, by the caller's promise.
            unsafe {
                let mut accumulators: [f32; LANES] =
                    t.init[m].add(p * LANES).cast::<[f32; LANES]>().read_unaligned();
                for (segment, inputs) in t.segments.iter().zip(t.inputs) {
                    let inputs = inputs.get().add(t.offsets[m] * segment.stride);
                    let weights = segment.weights.add(p * t.panel_stride);
                    for k in 0..segment.in_channels {
                        let x = *inputs.add(k);
                        let w = row::<BF16>(weights, k);
                        for i in 0..LANES {
                            accumulators[i] = x.mul_add(w[i], accumulators[i]);
                        }
                    }
                }
                t.accumulators
                    .add(m * t.accumulator_stride + p * LANES)
                    .cast::<[f32; LANES]>()
                    .write_unaligned(accumulators);
            }
        }
    }
}

/// The weights of input `k` in a panel.
///
/// # Safety
/// The panel's weights have that input.
unsafe fn row<const BF16: bool>(panel: *const f32, k: usize) -> [f32; LANES] {
    // SAFETY: by the caller's promise.
    unsafe {
        if !BF16 {
            return panel.add(k * LANES).cast::<[f32; LANES]>().read_unaligned();
        }
        let pairs = panel.add(k / 2 * LANES).cast::<[u32; LANES]>().read_unaligned();
        pairs.map(|pair| f32::from_bits(if k.is_multiple_of(2) { pair << 16 } else { pair & 0xffff_0000 }))
    }
}

/// See [`EpilogueArgs`].
///
/// # Safety
/// As for [`super::EpilogueFn`].
pub unsafe fn epilogue(f: &EpilogueArgs) {
    // SAFETY: by the caller's promise.
    unsafe { super::epilogue::epilogue(f) }
}

/// See [`super::Kernels::multiply_add`].
///
/// # Safety
/// Safe to call; `unsafe` only to match the pointer type in [`super::Kernels`].
pub unsafe fn multiply_add(rounds: usize) -> f32 {
    let (scale, step) = std::hint::black_box((0.999_f32, 0.001_f32));
    let mut accumulators = [[1.0_f32; LANES]; MULTIPLY_ADD_CHAINS];
    for _ in 0..rounds * MULTIPLY_ADD_STEPS {
        for sum in &mut accumulators {
            for lane in sum {
                *lane = lane.mul_add(scale, step);
            }
        }
    }
    accumulators.as_flattened().iter().sum()
}

/// See [`super::Kernels::read`].
///
/// # Safety
/// Safe to call; `unsafe` only to match the pointer type in [`super::Kernels`].
pub unsafe fn read(floats: &[f32]) -> f32 {
    let mut accumulators = [[0.0_f32; LANES]; 8];
    for lines in floats.chunks_exact(LANES * 8) {
        for (sum, line) in accumulators.iter_mut().zip(lines.chunks_exact(LANES)) {
            for (sum, x) in sum.iter_mut().zip(line) {
                *sum += x;
            }
        }
    }
    accumulators.as_flattened().iter().sum()
}
