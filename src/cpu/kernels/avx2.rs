//! AVX2 with fused multiply-add: a panel is two registers. 16 registers hold a tile of 6 x 1 panels,
//! 2 x 2 or 1 x 4.

use std::arch::x86_64::*;

use super::{Finish, LANES, MULTIPLY_ADD_CHAINS, MULTIPLY_ADD_STEPS, Shape, Tile, TileFn, tile_table};

/// Tiles whose sums leave registers for the weights and an input.
pub fn tile(rows: usize, panels: usize) -> Option<TileFn> {
    tile_table!(product, rows, panels,
        1 x [1, 2, 3, 4],
        2 x [1, 2],
        3 x [1, 2],
        4 x [1, 2],
        5 x [1, 2],
        6 x [1, 2],
    )
}

/// The tile to prefer for so many rows.
pub fn shape(rows: usize) -> Shape {
    let panels = match rows {
        1 => 4,
        2 => 2,
        _ => 1,
    };
    Shape { rows: rows.min(6), panels }
}

/// See [`Tile`]. Panels are taken one after the other where the rows fill the registers.
///
/// # Safety
/// As for [`TileFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn product<const ROWS: usize, const PANELS: usize>(t: &Tile) {
    // SAFETY: the extents are those of `Tile`, by the caller's promise.
    unsafe {
        if ROWS > 2 || PANELS == 1 {
            for p in 0..PANELS {
                panels::<ROWS, 1>(t, p);
            }
        } else {
            panels::<ROWS, PANELS>(t, 0);
        }
    }
}

/// `PANELS` panels of a tile from the panel `first_panel` on.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn panels<const ROWS: usize, const PANELS: usize>(t: &Tile, first_panel: usize) {
    const HALF: usize = LANES / 2;
    // SAFETY: as for `product`.
    unsafe {
        let skip = first_panel * LANES;
        let mut sums = [[[_mm256_setzero_ps(); 2]; PANELS]; ROWS];
        for m in 0..ROWS {
            for p in 0..PANELS {
                for h in 0..2 {
                    sums[m][p][h] = _mm256_loadu_ps(t.init[m].add(skip + p * LANES + h * HALF));
                }
            }
        }
        for segment in t.segments {
            let inputs: [*const f32; ROWS] = std::array::from_fn(|m| segment.inputs.add(t.offsets[m]));
            let weights = t.weights.add(first_panel * t.panel_stride + segment.first * LANES);
            for k in 0..segment.depth {
                for p in 0..PANELS {
                    let w = weights.add(p * t.panel_stride + k * LANES);
                    let w = [_mm256_loadu_ps(w), _mm256_loadu_ps(w.add(HALF))];
                    for m in 0..ROWS {
                        let x = _mm256_set1_ps(*inputs[m].add(k));
                        for h in 0..2 {
                            sums[m][p][h] = _mm256_fmadd_ps(x, w[h], sums[m][p][h]);
                        }
                    }
                }
            }
        }
        for m in 0..ROWS {
            for p in 0..PANELS {
                for h in 0..2 {
                    let to = t.sums.add(m * t.sums_stride + skip + p * LANES + h * HALF);
                    _mm256_storeu_ps(to, sums[m][p][h]);
                }
            }
        }
    }
}

/// See [`Finish`].
///
/// # Safety
/// As for [`super::FinishFn`].
#[target_feature(enable = "avx2,fma")]
pub unsafe fn finish(f: &Finish) {
    // SAFETY: by the caller's promise.
    unsafe { super::finish::finish(f) }
}

/// See [`super::Kernels::multiply_add`]. The sums of 12 panels are more than 16 registers hold, so they
/// grow half by half.
///
/// # Safety
/// The processor has the instruction set.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply_add(rounds: usize) -> f32 {
    let (scale, step) = std::hint::black_box((_mm256_set1_ps(0.999), _mm256_set1_ps(0.001)));
    let mut sums = [_mm256_set1_ps(1.0); MULTIPLY_ADD_CHAINS];
    for _ in 0..2 * rounds * MULTIPLY_ADD_STEPS {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, scale, step);
        }
    }
    total(sums)
}

/// See [`super::Kernels::read`].
///
/// # Safety
/// The processor has the instruction set.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn read(floats: &[f32]) -> f32 {
    const HALF: usize = LANES / 2;
    let mut sums = [_mm256_setzero_ps(); 8];
    for lines in floats.as_chunks::<{ HALF * 8 }>().0 {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: eight registers of floats are in the chunk.
            *sum = _mm256_add_ps(*sum, unsafe { _mm256_loadu_ps(lines.as_ptr().add(i * HALF)) });
        }
    }
    total(sums)
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn total<const N: usize>(sums: [__m256; N]) -> f32 {
    let mut all = _mm256_setzero_ps();
    for sum in sums {
        all = _mm256_add_ps(all, sum);
    }
    let mut lanes = [0.0; LANES / 2];
    // SAFETY: the array has room for a register.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), all) };
    lanes.iter().sum()
}
