//! AVX-512: a panel is one register. 32 registers hold a tile of 12 x 2 panels, 4 x 6 or 1 x 10.

use std::arch::x86_64::*;

use super::{Finish, LANES, MULTIPLY_ADD_CHAINS, MULTIPLY_ADD_STEPS, Shape, Tile, TileFn, tile_table};

/// Tiles whose sums, weights and one broadcast input fit into 32 registers.
pub fn tile(rows: usize, panels: usize) -> Option<TileFn> {
    tile_table!(product, rows, panels,
        1 x [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        2 x [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        3 x [1, 2, 3, 4, 5, 6],
        4 x [1, 2, 3, 4, 5, 6],
        5 x [1, 2, 3, 4],
        6 x [1, 2, 3, 4],
        7 x [1, 2, 3],
        8 x [1, 2, 3],
        9 x [1, 2],
        10 x [1, 2],
        11 x [1, 2],
        12 x [1, 2],
    )
}

/// The tile to prefer for so many rows.
pub fn shape(rows: usize) -> Shape {
    let panels = match rows {
        1 | 2 => 10,
        3 | 4 => 6,
        5 | 6 => 4,
        7 | 8 => 3,
        _ => 2,
    };
    Shape { rows: rows.min(12), panels }
}

/// See [`Tile`].
///
/// # Safety
/// As for [`TileFn`].
#[target_feature(enable = "avx512f")]
unsafe fn product<const ROWS: usize, const PANELS: usize>(t: &Tile) {
    // SAFETY: the extents are those of `Tile`, by the caller's promise.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
        for m in 0..ROWS {
            for p in 0..PANELS {
                sums[m][p] = _mm512_loadu_ps(t.init[m].add(p * LANES));
            }
        }
        for segment in t.segments {
            let inputs: [*const f32; ROWS] = std::array::from_fn(|m| segment.inputs.add(t.offsets[m]));
            let weights = t.weights.add(segment.first * LANES);
            for k in 0..segment.depth {
                let w: [__m512; PANELS] =
                    std::array::from_fn(|p| _mm512_loadu_ps(weights.add(p * t.panel_stride + k * LANES)));
                for m in 0..ROWS {
                    let x = _mm512_set1_ps(*inputs[m].add(k));
                    for p in 0..PANELS {
                        sums[m][p] = _mm512_fmadd_ps(x, w[p], sums[m][p]);
                    }
                }
            }
        }
        for m in 0..ROWS {
            for p in 0..PANELS {
                _mm512_storeu_ps(t.sums.add(m * t.sums_stride + p * LANES), sums[m][p]);
            }
        }
    }
}

/// See [`Finish`].
///
/// # Safety
/// As for [`super::FinishFn`].
#[target_feature(enable = "avx512f,avx2,fma")]
pub unsafe fn finish(f: &Finish) {
    // SAFETY: by the caller's promise.
    unsafe { super::finish::finish(f) }
}

/// See [`super::Kernels::multiply_add`].
///
/// # Safety
/// The processor has the instruction set.
#[target_feature(enable = "avx512f")]
pub unsafe fn multiply_add(rounds: usize) -> f32 {
    let (scale, step) = std::hint::black_box((_mm512_set1_ps(0.999), _mm512_set1_ps(0.001)));
    let mut sums = [_mm512_set1_ps(1.0); MULTIPLY_ADD_CHAINS];
    for _ in 0..rounds * MULTIPLY_ADD_STEPS {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, scale, step);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

/// See [`super::Kernels::read`].
///
/// # Safety
/// The processor has the instruction set.
#[target_feature(enable = "avx512f")]
pub unsafe fn read(floats: &[f32]) -> f32 {
    let mut sums = [_mm512_setzero_ps(); 8];
    for lines in floats.as_chunks::<{ LANES * 8 }>().0 {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: eight registers of floats are in the chunk.
            *sum = _mm512_add_ps(*sum, unsafe { _mm512_loadu_ps(lines.as_ptr().add(i * LANES)) });
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}
