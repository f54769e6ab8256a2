//! Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy
//! as 1, 2, 3").
//!
//! The idea: the numbers of a pixel are a pure function of (seed, image index, row, column, draw), so
//! an image does not depend on how a run is split into batches and threads.

use std::ops::RangeInclusive;

/// Every uniform number lies in these bounds, as in the reference sampler.
pub const BOUNDS: RangeInclusive<f32> = 1e-5..=1.0 - 1e-5;

/// The multipliers of a round and the amounts by which the key grows (table 2 of the paper, and the
/// Weyl constants: the golden ratio and the square root of 3, less 1).
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// One block of four random words: Philox4x32 with 10 rounds, as in Random123.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..ROUNDS {
        let product0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let product1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) = (
            (product1 >> 32) as u32 ^ c1 ^ k0,
            product1 as u32,
            (product0 >> 32) as u32 ^ c3 ^ k1,
            product0 as u32,
        );
        k0 = k0.wrapping_add(KEY_STEPS[0]);
        k1 = k1.wrapping_add(KEY_STEPS[1]);
    }
    [c0, c1, c2, c3]
}

/// The uniform numbers of one pixel: `out[i]` is word `i % 4` of the block with the counter
/// (image, row, column, i / 4) and the key (low word, high word of the seed), through [`uniform`].
///
/// For a pixel of a model with m mixtures the first m numbers choose the component and the next 3 are
/// for the logistics of R, G and B.
pub fn uniforms(seed: u64, image: u32, row: u32, column: u32, out: &mut [f32]) {
    let key = [seed as u32, (seed >> 32) as u32];
    for (draw, numbers) in out.chunks_mut(4).enumerate() {
        let block = philox4x32_10([image, row, column, draw as u32], key);
        for (number, word) in numbers.iter_mut().zip(block) {
            *number = uniform(word);
        }
    }
}

/// Maps a word onto [`BOUNDS`]: `start + (word + 1/2) * ((end - start) / 2^32)`, in f64 without a
/// fused multiply-add, then rounded to f32, which cannot step over a bound since both are f32 numbers.
pub fn uniform(word: u32) -> f32 {
    let (start, end) = (f64::from(*BOUNDS.start()), f64::from(*BOUNDS.end()));
    let step = (end - start) / 4_294_967_296.0;
    (start + (f64::from(word) + 0.5) * step) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_known_answers_of_random123() {
        // kat_vectors of Random123 1.14, lines "philox4x32 10".
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn the_extreme_words_stay_in_the_bounds() {
        let (least, most) = (uniform(0), uniform(u32::MAX));
        assert!(BOUNDS.contains(&least) && least < 1.0001e-5, "{least:e}");
        assert_eq!(most, *BOUNDS.end());
        assert!((uniform(1 << 31) - 0.5).abs() < 1e-7);
        let words = (0..=u32::MAX).step_by(65_521);
        assert!(words.map(uniform).is_sorted());
    }

    #[test]
    fn a_number_depends_on_its_place_alone() {
        let seed = 0x0123_4567_89ab_cdef;
        let (mut short, mut long) = ([0.0; 6], [0.0; 13]);
        uniforms(seed, 7, 8, 9, &mut short);
        uniforms(seed, 7, 8, 9, &mut long);
        assert_eq!(short, long[..6]);
        let block = philox4x32_10([7, 8, 9, 2], [0x89ab_cdef, 0x0123_4567]);
        assert_eq!(long[8..12], block.map(uniform));
        for (s, image, row, column) in [
            (seed + 1, 7, 8, 9),
            (seed ^ 1 << 40, 7, 8, 9),
            (seed, 6, 8, 9),
            (seed, 7, 9, 8),
            (seed, 7, 8, 8),
        ] {
            let mut other = [0.0; 13];
            uniforms(s, image, row, column, &mut other);
            assert!(other.iter().zip(long).all(|(a, b)| *a != b));
        }
    }

    #[test]
    fn the_numbers_are_uniform() {
        // 64 cells, 65,536 numbers: chi-square with 63 degrees of freedom is below 104 with
        // probability 0.999.
        let mut cells = [0u32; 64];
        let mut numbers = [0.0; 16];
        for pixel in 0..4096 {
            uniforms(2702, pixel / 1024, pixel / 32 % 32, pixel % 32, &mut numbers);
            for number in numbers {
                cells[(number * 64.0) as usize] += 1;
            }
        }
        let chi_square: f64 = cells.iter().map(|&n| (f64::from(n) - 1024.0).powi(2) / 1024.0).sum();
        assert!(chi_square < 104.0, "{chi_square}");
    }
}
