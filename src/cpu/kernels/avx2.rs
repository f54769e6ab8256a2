//! AVX2 with fused multiply-add: a panel is two registers. 16 registers hold 6 x 1 panels, 2 x 2 or 1 x 4, of bfloat16
//! weights 5 x 1.

use std::arch::x86_64::*;

use super::{
    EpilogueArgs, LANES, MULTIPLY_ADD_CHAINS, MULTIPLY_ADD_STEPS, Precision, Prefetch, STEP, Shape, Tile,
    TileFn, tile_table,
};

/// Tiles whose accumulators leave registers for the weights and an input.
pub fn tile(rows: usize, panels: usize, precision: Precision) -> Option<TileFn> {
    tile_table!(product, (rows, panels, precision),
        1 x [1, 2, 3, 4],
        2 x [1, 2, 3, 4],
        3 x [1, 2, 3, 4],
        4 x [1, 2, 3, 4],
        5 x [1, 2, 3, 4],
        6 x [1, 2, 3, 4],
        7 x [1, 2, 3, 4],
        8 x [1, 2, 3, 4],
        9 x [1, 2, 3, 4],
        10 x [1, 2, 3, 4],
        11 x [1, 2, 3, 4],
        12 x [1, 2, 3, 4],
    )
}

/// Processors with these vectors and no longer ones fetch a stream of weights by themselves; to ask for the next one
/// beside it cost a sixth of the time of a sound.
pub const PREFETCHES: bool = false;

/// The tile to prefer for `rows` of so many rows. Few rows are one tile of several panels, which saves the way there;
/// of many rows each tile finds a single panel's weights in the cache.
pub fn shape(rows: usize, of: usize, precision: Precision) -> Shape {
    match (of, precision) {
        (..=12, _) => Shape { rows, panels: 4 },
        (_, Precision::F32) => Shape { rows: rows.min(6), panels: 1 },
        (_, Precision::Bf16) => Shape { rows: rows.min(5), panels: 1 },
    }
}

/// Rows of a tile that the registers hold at a time, from row `first` on. Of bfloat16 weights with six rows the way to
/// float32 has no register left, and three rows leave multiply-adds that wait for one another.
const fn rows_at_once(rows: usize, first: usize, bf16: bool) -> usize {
    match rows - first {
        6 if bf16 => 3,
        9 | 10 => 5,
        left @ ..=6 => left,
        _ => 4,
    }
}

/// See [`Tile`]. Panels, and rows where they are many, are taken one after the other: as many as the registers hold.
///
/// # Safety
/// As for [`TileFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn product<const ROWS: usize, const PANELS: usize, const BF16: bool>(t: &Tile, _: &mut Prefetch) {
    // SAFETY: the extents are those of `Tile`, by the caller's promise.
    unsafe {
        if ROWS == 1 {
            return panels::<ROWS, PANELS, BF16>(t, 0, 0);
        }
        let mut p = 0;
        if ROWS == 2 {
            while p + 2 <= PANELS {
                panels::<ROWS, 2, BF16>(t, 0, p);
                p += 2;
            }
        }
        while p < PANELS {
            let mut first = 0;
            while first < ROWS {
                let rows = rows_at_once(ROWS, first, BF16);
                match rows {
                    2 => panels::<2, 1, BF16>(t, first, p),
                    3 => panels::<3, 1, BF16>(t, first, p),
                    4 => panels::<4, 1, BF16>(t, first, p),
                    5 => panels::<5, 1, BF16>(t, first, p),
                    _ => panels::<6, 1, BF16>(t, first, p),
                }
                first += rows;
            }
            p += 1;
        }
    }
}

/// `ROWS` rows and `PANELS` panels of a tile, from the row `first` and the panel `first_panel` on.
///
/// # Safety
/// As for [`TileFn`]; the tile has these rows and panels.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn panels<const ROWS: usize, const PANELS: usize, const BF16: bool>(
    t: &Tile,
    first: usize,
    first_panel: usize,
) {
    const HALF: usize = LANES / 2;
    // SAFETY: by the caller's promise.
    unsafe {
        let skip = first_panel * LANES;
        let mut accumulators = [[[_mm256_setzero_ps(); 2]; PANELS]; ROWS];
        for m in 0..ROWS {
            for p in 0..PANELS {
                for h in 0..2 {
                    accumulators[m][p][h] =
                        _mm256_loadu_ps(t.init[first + m].add(skip + p * LANES + h * HALF));
                }
            }
        }
        for (segment, inputs) in t.segments.iter().zip(t.inputs) {
            let inputs: [*const f32; ROWS] =
                std::array::from_fn(|m| inputs.get().add(t.offsets[first + m] * segment.stride));
            let weights = segment.weights.add(first_panel * t.panel_stride);
            let weights: [*const f32; PANELS] = std::array::from_fn(|p| weights.add(p * t.panel_stride));
            let steps = segment.in_channels / STEP;
            for step in 0..steps {
                for k in (step * STEP..(step + 1) * STEP).step_by(2) {
                    input::<ROWS, PANELS, BF16, false>(&mut accumulators, &inputs, &weights, k);
                    input::<ROWS, PANELS, BF16, true>(&mut accumulators, &inputs, &weights, k + 1);
                }
            }
            for k in steps * STEP..segment.in_channels {
                match k % 2 {
                    0 => input::<ROWS, PANELS, BF16, false>(&mut accumulators, &inputs, &weights, k),
                    _ => input::<ROWS, PANELS, BF16, true>(&mut accumulators, &inputs, &weights, k),
                }
            }
        }
        for m in 0..ROWS {
            for p in 0..PANELS {
                for h in 0..2 {
                    let to =
                        t.accumulators.add((first + m) * t.accumulator_stride + skip + p * LANES + h * HALF);
                    _mm256_storeu_ps(to, accumulators[m][p][h]);
                }
            }
        }
    }
}

/// Adds the products of input `k`, whose parity is known when it is compiled.
///
/// # Safety
/// The processor has the instruction set, and `inputs` and the panels' `weights` have that input.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn input<const ROWS: usize, const PANELS: usize, const BF16: bool, const ODD: bool>(
    accumulators: &mut [[[__m256; 2]; PANELS]; ROWS],
    inputs: &[*const f32; ROWS],
    weights: &[*const f32; PANELS],
    k: usize,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let x = |m: usize| _mm256_set1_ps(*inputs[m].add(k));
        if ROWS <= 2 {
            // Few inputs for many weights: the inputs stay in registers while the weights pass.
            let x: [__m256; ROWS] = std::array::from_fn(x);
            for p in 0..PANELS {
                for h in 0..2 {
                    let w = weight::<BF16, ODD>(weights[p], k, h);
                    for m in 0..ROWS {
                        accumulators[m][p][h] = _mm256_fmadd_ps(x[m], w, accumulators[m][p][h]);
                    }
                }
            }
        } else {
            for p in 0..PANELS {
                let w = [weight::<BF16, ODD>(weights[p], k, 0), weight::<BF16, ODD>(weights[p], k, 1)];
                for m in 0..ROWS {
                    let x = x(m);
                    for h in 0..2 {
                        accumulators[m][p][h] = _mm256_fmadd_ps(x, w[h], accumulators[m][p][h]);
                    }
                }
            }
        }
    }
}

/// Half `h` of a panel's weights for input `k`.
///
/// # Safety
/// As for [`input`].
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn weight<const BF16: bool, const ODD: bool>(weights: *const f32, k: usize, h: usize) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe {
        let line = |line: usize| weights.add(line * LANES + h * (LANES / 2));
        if !BF16 {
            return _mm256_loadu_ps(line(k));
        }
        let pairs = _mm256_loadu_si256(line(k / 2).cast());
        _mm256_castsi256_ps(match ODD {
            false => _mm256_slli_epi32::<16>(pairs),
            true => _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32)),
        })
    }
}

/// See [`EpilogueArgs`].
///
/// # Safety
/// As for [`super::EpilogueFn`].
#[target_feature(enable = "avx2,fma")]
pub unsafe fn epilogue(f: &EpilogueArgs) {
    // SAFETY: by the caller's promise.
    unsafe { super::epilogue::epilogue(f) }
}

/// See [`super::Kernels::multiply_add`]. The accumulators of 12 panels are more than 16 registers hold, so they
/// grow half by half.
///
/// # Safety
/// The processor has the instruction set.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply_add(rounds: usize) -> f32 {
    let (scale, step) = std::hint::black_box((_mm256_set1_ps(0.999), _mm256_set1_ps(0.001)));
    let mut accumulators = [_mm256_set1_ps(1.0); MULTIPLY_ADD_CHAINS];
    for _ in 0..2 * rounds * MULTIPLY_ADD_STEPS {
        for sum in &mut accumulators {
            *sum = _mm256_fmadd_ps(*sum, scale, step);
        }
    }
    total(accumulators)
}

/// See [`super::Kernels::read`].
///
/// # Safety
/// The processor has the instruction set.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn read(floats: &[f32]) -> f32 {
    const HALF: usize = LANES / 2;
    let mut accumulators = [_mm256_setzero_ps(); 8];
    for lines in floats.as_chunks::<{ HALF * 8 }>().0 {
        for (i, sum) in accumulators.iter_mut().enumerate() {
            // SAFETY: eight registers of floats are in the chunk.
            *sum = _mm256_add_ps(*sum, unsafe { _mm256_loadu_ps(lines.as_ptr().add(i * HALF)) });
        }
    }
    total(accumulators)
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn total<const N: usize>(accumulators: [__m256; N]) -> f32 {
    let mut all = _mm256_setzero_ps();
    for sum in accumulators {
        all = _mm256_add_ps(all, sum);
    }
    let mut lanes = [0.0; LANES / 2];
    // SAFETY: the array has room for a register.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), all) };
    lanes.iter().sum()
}
