//! NEON: a panel is four registers. 32 registers hold a tile of 5 x 1 panels, 3 x 2, 2 x 2 or 1 x 4.
//!
//! The idea: a step of [`STEP`] inputs of a row is one register, whose lanes the multiply-adds take as
//! they are, so no input is spread over a register. What sets the time on a processor with two or four
//! vector units is then the multiply-adds, and bfloat16's shifts and masks, not the loads. So a tile need
//! not be as large as can be: one of 6 x 1 fits too, but leaves compilers no register to schedule with.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{
    BURST, EpilogueArgs, LANES, MULTIPLY_ADD_CHAINS, MULTIPLY_ADD_STEPS, Precision, Prefetch, STEP, Shape,
    Tile, TileFn, tile_table,
};

/// Floats of a register.
const REGISTER: usize = 4;
/// Registers of a panel.
const PANEL: usize = LANES / REGISTER;
/// A step's inputs are the lanes of a register.
const _: () = assert!(STEP == REGISTER);

/// Tiles whose accumulators leave registers for the inputs and for weights.
pub fn tile(rows: usize, panels: usize, precision: Precision) -> Option<TileFn> {
    tile_table!(product, (rows, panels, precision),
        1 x [1, 2, 3, 4],
        2 x [1, 2],
        3 x [1, 2],
        4 x [1, 2],
        5 x [1, 2],
    )
}

/// Not measured yet: as for AVX-512.
pub const PREFETCHES: bool = true;

/// The tile to prefer for `rows` rows.
pub fn shape(rows: usize, _: usize, _: Precision) -> Shape {
    let panels = match rows {
        1 => 4,
        2 | 3 => 2,
        _ => 1,
    };
    Shape { rows: rows.min(5), panels }
}

/// See [`Tile`]. Panels are taken one after the other where the rows fill the registers.
///
/// # Safety
/// As for [`TileFn`].
#[target_feature(enable = "neon")]
unsafe fn product<const ROWS: usize, const PANELS: usize, const BF16: bool>(
    t: &Tile,
    prefetch: &mut Prefetch,
) {
    // SAFETY: the extents are those of `Tile`, by the caller's promise.
    unsafe {
        // bfloat16 weights take registers of their own to become float32.
        if ROWS < if BF16 { 3 } else { 4 } {
            panels::<ROWS, PANELS, BF16>(t, 0, prefetch);
        } else {
            for p in 0..PANELS {
                panels::<ROWS, 1, BF16>(t, p, prefetch);
            }
        }
    }
}

/// `PANELS` panels of a tile from the panel `first_panel` on.
///
/// # Safety
/// As for [`TileFn`].
#[target_feature(enable = "neon")]
#[inline]
unsafe fn panels<const ROWS: usize, const PANELS: usize, const BF16: bool>(
    t: &Tile,
    first_panel: usize,
    prefetch: &mut Prefetch,
) {
    // SAFETY: the extents are those of `Tile`, by the caller's promise.
    unsafe {
        let skip = first_panel * LANES;
        let mut accumulators = [[[vdupq_n_f32(0.0); PANEL]; PANELS]; ROWS];
        for m in 0..ROWS {
            for p in 0..PANELS {
                for r in 0..PANEL {
                    accumulators[m][p][r] = vld1q_f32(t.init[m].add(skip + p * LANES + r * REGISTER));
                }
            }
        }
        for (segment, inputs) in t.segments.iter().zip(t.inputs) {
            let inputs: [*const f32; ROWS] =
                std::array::from_fn(|m| inputs.get().add(t.offsets[m] * segment.stride));
            let first = segment.weights.add(first_panel * t.panel_stride);
            let weights: [*const f32; PANELS] = std::array::from_fn(|p| first.add(p * t.panel_stride));
            let steps = segment.in_channels / STEP;
            let (lines, bursts) = prefetch.take(steps);
            for step in 0..steps {
                if step < bursts {
                    for line in 0..BURST {
                        prefetch_line(lines.wrapping_add((step * BURST + line) * LANES));
                    }
                }
                let k = step * STEP;
                let x: [float32x4_t; ROWS] = std::array::from_fn(|m| vld1q_f32(inputs[m].add(k)));
                pair::<ROWS, PANELS, BF16, 0, 1>(&mut accumulators, &x, &weights, k);
                pair::<ROWS, PANELS, BF16, 2, 3>(&mut accumulators, &x, &weights, k + 2);
            }
            for k in steps * STEP..segment.in_channels {
                for p in 0..PANELS {
                    for r in 0..PANEL {
                        let w = row::<BF16>(weights[p].add(r * REGISTER), k);
                        for m in 0..ROWS {
                            accumulators[m][p][r] = vfmaq_n_f32(accumulators[m][p][r], w, *inputs[m].add(k));
                        }
                    }
                }
            }
        }
        for m in 0..ROWS {
            for p in 0..PANELS {
                for r in 0..PANEL {
                    let to = t.accumulators.add(m * t.accumulator_stride + skip + p * LANES + r * REGISTER);
                    vst1q_f32(to, accumulators[m][p][r]);
                }
            }
        }
    }
}

/// Adds the products of two inputs, `k` and `k + 1`, which are two lanes of `x`. A register of accumulators takes
/// both before the next one does, so that of bfloat16's lines only a part is in registers at a time.
///
/// # Safety
/// As for [`TileFn`].
#[target_feature(enable = "neon")]
#[inline]
unsafe fn pair<const ROWS: usize, const PANELS: usize, const BF16: bool, const LANE: i32, const NEXT: i32>(
    accumulators: &mut [[[float32x4_t; PANEL]; PANELS]; ROWS],
    x: &[float32x4_t; ROWS],
    weights: &[*const f32; PANELS],
    k: usize,
) {
    for p in 0..PANELS {
        for r in 0..PANEL {
            // SAFETY: by the caller's promise.
            let [w, next] = [k, k + 1].map(|k| unsafe { row::<BF16>(weights[p].add(r * REGISTER), k) });
            for m in 0..ROWS {
                accumulators[m][p][r] = vfmaq_laneq_f32::<LANE>(accumulators[m][p][r], w, x[m]);
            }
            for m in 0..ROWS {
                accumulators[m][p][r] = vfmaq_laneq_f32::<NEXT>(accumulators[m][p][r], next, x[m]);
            }
        }
    }
}

/// A register of the weights of input `k`; that of input 0 is at `line`.
///
/// # Safety
/// As for [`TileFn`].
#[target_feature(enable = "neon")]
#[inline]
unsafe fn row<const BF16: bool>(line: *const f32, k: usize) -> float32x4_t {
    // SAFETY: by the caller's promise.
    unsafe {
        if !BF16 {
            return vld1q_f32(line.add(k * LANES));
        }
        let pairs = vld1q_u32(line.add(k / 2 * LANES).cast());
        vreinterpretq_f32_u32(match k % 2 {
            0 => vshlq_n_u32::<16>(pairs),
            _ => vandq_u32(pairs, vdupq_n_u32(0xffff_0000)),
        })
    }
}

/// Asks for a cache line, into the core's second cache. It may lie anywhere.
#[inline(always)]
fn prefetch_line(line: *const f32) {
    // SAFETY: a prefetch never faults, and changes nothing that a program can see.
    unsafe { asm!("prfm pldl2keep, [{}]", in(reg) line, options(readonly, nostack, preserves_flags)) }
}

/// See [`EpilogueArgs`].
///
/// # Safety
/// As for [`super::EpilogueFn`].
#[target_feature(enable = "neon")]
pub unsafe fn epilogue(f: &EpilogueArgs) {
    // SAFETY: by the caller's promise.
    unsafe { super::epilogue::epilogue(f) }
}

/// See [`super::Kernels::multiply_add`]. The accumulators of 12 panels are more than 32 registers hold, so they
/// grow half by half.
///
/// # Safety
/// The processor has the instruction set.
#[target_feature(enable = "neon")]
pub unsafe fn multiply_add(rounds: usize) -> f32 {
    const HALVES: usize = 2;
    let (scale, step) = std::hint::black_box((vdupq_n_f32(0.999), vdupq_n_f32(0.001)));
    let mut accumulators = [vdupq_n_f32(1.0); MULTIPLY_ADD_CHAINS * PANEL / HALVES];
    for _ in 0..HALVES * rounds * MULTIPLY_ADD_STEPS {
        for sum in &mut accumulators {
            // The instruction adds to its register: `sum * scale + step` would copy `step` first.
            *sum = vfmaq_f32(*sum, scale, step);
        }
    }
    total(accumulators)
}

/// See [`super::Kernels::read`].
///
/// # Safety
/// The processor has the instruction set.
#[target_feature(enable = "neon")]
pub unsafe fn read(floats: &[f32]) -> f32 {
    let mut accumulators = [vdupq_n_f32(0.0); 16];
    for lines in floats.as_chunks::<{ REGISTER * 16 }>().0 {
        for (i, sum) in accumulators.iter_mut().enumerate() {
            // SAFETY: sixteen registers of floats are in the chunk.
            *sum = vaddq_f32(*sum, unsafe { vld1q_f32(lines.as_ptr().add(i * REGISTER)) });
        }
    }
    total(accumulators)
}

#[target_feature(enable = "neon")]
#[inline]
fn total<const N: usize>(accumulators: [float32x4_t; N]) -> f32 {
    accumulators.into_iter().map(|sum| vaddvq_f32(sum)).sum()
}
