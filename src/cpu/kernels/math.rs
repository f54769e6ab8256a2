//! Exponential functions in a fixed sequence of float32 operations.
//!
//! The idea: plain Rust without branches or calls, which the compiler turns into vectors of whatever
//! width the caller is compiled for. Multiplication, addition, division and fused multiply-add are
//! exactly rounded on every machine, so the bits are the same everywhere. A NaN stays a NaN.

/// `2^23 * 1.5`: adding it to a small number rounds that to an integer, which stands in the low bits.
const MAGIC: f32 = 12_582_912.0;
/// Below this, `exp` is smaller than the smallest normal number.
const LOWEST: f32 = -87.0;

/// `exp(x) = scale * (1 + tail)` for x <= 0, as `(scale, tail)`: scale is a power of 2, tail in
/// [-0.3, 0.42]. The polynomial is that of Cephes' `expf`.
#[inline(always)]
fn exp_parts(x: f32) -> (f32, f32) {
    let x = if x < LOWEST { LOWEST } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    // ln 2 in two parts, the first with so few bits that n times it is exact.
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_2e-4_f32;
    let p = p.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let tail = (p * r).mul_add(r, r);
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    (scale, tail)
}

/// `exp(-|x|) - 1`: the negative side of `elu`, for x of either sign.
#[inline(always)]
pub fn elu_tail(x: f32) -> f32 {
    let (scale, tail) = exp_parts(-x.abs());
    scale.mul_add(tail, scale - 1.0)
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let (scale, tail) = exp_parts(-x.abs());
    let e = scale.mul_add(tail, scale);
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// `(1 - exp(-2 |x|)) / (1 + exp(-2 |x|))` with the sign of x, without the cancellation near 0.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let tail = elu_tail(2.0 * x);
    (-tail / (2.0 + tail)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every float in (-90, 90) would take minutes; these are spread over all exponents.
    fn samples() -> impl Iterator<Item = f32> {
        let magnitudes = (0..2_000_000u32).map(|i| f32::from_bits(i * 575));
        magnitudes.filter(|x| *x < 90.0).flat_map(|x| [x, -x])
    }

    #[test]
    fn elu_is_within_two_units_in_the_last_place_of_1() {
        for x in samples().filter(|x| *x <= 0.0) {
            let exact = f64::from(x).exp_m1();
            let error = (f64::from(elu_tail(x)) - exact).abs();
            assert!(error <= 1.2e-7_f64.min(exact.abs() * 3e-7 + 1e-45), "elu({x}): off by {error:e}");
            assert_eq!(elu_tail(-x).to_bits(), elu_tail(x).to_bits());
        }
    }

    #[test]
    fn sigmoid_is_close_everywhere() {
        for x in samples() {
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            let error = (f64::from(sigmoid(x)) - exact).abs();
            assert!(error <= 1.2e-7_f64.min(3e-7 * exact + 1e-37), "sigmoid({x}): off by {error:e}");
        }
    }

    #[test]
    fn tanh_is_close_everywhere() {
        for x in samples() {
            let exact = f64::from(x).tanh();
            let error = (f64::from(tanh(x)) - exact).abs();
            assert!(error <= 1.8e-7_f64.min(exact.abs() * 4e-7 + 1e-45), "tanh({x}): off by {error:e}");
        }
        assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY), tanh(0.0)), (1.0, -1.0, 0.0));
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn infinities_saturate_and_nan_stays() {
        assert_eq!((elu_tail(f32::NEG_INFINITY), sigmoid(f32::INFINITY)), (-1.0, 1.0));
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37);
        assert!(elu_tail(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
        assert_eq!(elu_tail(0.0), 0.0);
    }
}
