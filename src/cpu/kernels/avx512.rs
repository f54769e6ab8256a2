//! AVX-512: a panel is one register. 32 registers hold a tile of 12 x 2 panels, 4 x 6 or 1 x 10.

use std::arch::x86_64::*;

use super::{
    BURST, EpilogueArgs, LANES, MULTIPLY_ADD_CHAINS, MULTIPLY_ADD_STEPS, Precision, Prefetch, STEP, Shape,
    Tile, TileFn, tile_table,
};

/// Tiles whose accumulators, weights and one broadcast input fit into 32 registers.
pub fn tile(rows: usize, panels: usize, precision: Precision) -> Option<TileFn> {
    tile_table!(product, (rows, panels, precision),
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

/// Measured on a processor whose shared cache is far away: see docs/performance.md.
pub const PREFETCHES: bool = true;

/// The tile to prefer for `rows` rows.
pub fn shape(rows: usize, _: usize, _: Precision) -> Shape {
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
unsafe fn product<const ROWS: usize, const PANELS: usize, const BF16: bool>(
    t: &Tile,
    prefetch: &mut Prefetch,
) {
    // SAFETY: the extents are those of `Tile`, by the caller's promise; a prefetch may miss.
    unsafe {
        let mut accumulators = [[_mm512_setzero_ps(); PANELS]; ROWS];
        for m in 0..ROWS {
            for p in 0..PANELS {
                accumulators[m][p] = _mm512_loadu_ps(t.init[m].add(p * LANES));
            }
        }
        for (segment, inputs) in t.segments.iter().zip(t.inputs) {
            let inputs: [*const f32; ROWS] =
                std::array::from_fn(|m| inputs.get().add(t.offsets[m] * segment.stride));
            let weights: [*const f32; PANELS] =
                std::array::from_fn(|p| segment.weights.add(p * t.panel_stride));
            let steps = segment.in_channels / STEP;
            let (lines, bursts) = prefetch.take(steps);
            for step in 0..steps {
                if step < bursts {
                    for line in 0..BURST {
                        let line = lines.wrapping_add((step * BURST + line) * LANES);
                        _mm_prefetch::<_MM_HINT_T1>(line.cast());
                    }
                }
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
                _mm512_storeu_ps(
                    t.accumulators.add(m * t.accumulator_stride + p * LANES),
                    accumulators[m][p],
                );
            }
        }
    }
}

/// Adds the products of input `k`, whose parity is known when it is compiled.
///
/// # Safety
/// The processor has the instruction set, and `inputs` and the panels' `weights` have that input.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn input<const ROWS: usize, const PANELS: usize, const BF16: bool, const ODD: bool>(
    accumulators: &mut [[__m512; PANELS]; ROWS],
    inputs: &[*const f32; ROWS],
    weights: &[*const f32; PANELS],
    k: usize,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let w: [__m512; PANELS] = std::array::from_fn(|p| {
            if !BF16 {
                return _mm512_loadu_ps(weights[p].add(k * LANES));
            }
            // Odd inputs load the line of the even ones again: cheaper than a register for each panel.
            let pairs = _mm512_loadu_epi32(weights[p].add(k / 2 * LANES).cast());
            _mm512_castsi512_ps(match ODD {
                false => _mm512_slli_epi32::<16>(pairs),
                true => _mm512_and_epi32(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32)),
            })
        });
        for m in 0..ROWS {
            let x = _mm512_set1_ps(*inputs[m].add(k));
            for p in 0..PANELS {
                accumulators[m][p] = _mm512_fmadd_ps(x, w[p], accumulators[m][p]);
            }
        }
    }
}

/// See [`EpilogueArgs`].
///
/// # Safety
/// As for [`super::EpilogueFn`].
#[target_feature(enable = "avx512f,avx2,fma")]
pub unsafe fn epilogue(f: &EpilogueArgs) {
    // SAFETY: by the caller's promise.
    unsafe { super::epilogue::epilogue(f) }
}

/// See [`super::Kernels::multiply_add`].
///
/// # Safety
/// The processor has the instruction set.
#[target_feature(enable = "avx512f")]
pub unsafe fn multiply_add(rounds: usize) -> f32 {
    let (scale, step) = std::hint::black_box((_mm512_set1_ps(0.999), _mm512_set1_ps(0.001)));
    let mut accumulators = [_mm512_set1_ps(1.0); MULTIPLY_ADD_CHAINS];
    for _ in 0..rounds * MULTIPLY_ADD_STEPS {
        for sum in &mut accumulators {
            *sum = _mm512_fmadd_ps(*sum, scale, step);
        }
    }
    accumulators.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

/// See [`super::Kernels::read`].
///
/// # Safety
/// The processor has the instruction set.
#[target_feature(enable = "avx512f")]
pub unsafe fn read(floats: &[f32]) -> f32 {
    let mut accumulators = [_mm512_setzero_ps(); 8];
    for lines in floats.as_chunks::<{ LANES * 8 }>().0 {
        for (i, sum) in accumulators.iter_mut().enumerate() {
            // SAFETY: eight registers of floats are in the chunk.
            *sum = _mm512_add_ps(*sum, unsafe { _mm512_loadu_ps(lines.as_ptr().add(i * LANES)) });
        }
    }
    accumulators.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}
