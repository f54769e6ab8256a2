//! Directed rounding, without touching the processor's rounding mode.
//!
//! The idea: an operation on `f32`, done in `f64`, leaves a sum of two `f64` that is exact or nearly so:
//! a value and a small error. Rounding that sum to `f32` to the nearest and then stepping one down or up,
//! if the result lies on the wrong side of the exact value, is the directed rounding.

/// Towards where a result is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// `.rz`
    Zero,
    /// `.rm`
    Down,
    /// `.rp`
    Up,
}

/// Rounds the exact value `high + low` to `f32`; `low` is at most half a unit of `high`.
#[inline(always)]
pub fn round(high: f64, low: f64, toward: Toward) -> f32 {
    let nearest = high as f32;
    if high == 0.0 && low == 0.0 || high.is_nan() || (high.is_infinite()) {
        return nearest;
    }
    // Exact: both are close, and neighbours of one another in `f64`.
    let difference = f64::from(nearest) - high;
    let above = difference > low || nearest == f32::INFINITY;
    let below = difference < low || nearest == f32::NEG_INFINITY;
    let toward = match toward {
        Toward::Zero if high > 0.0 => Toward::Down,
        Toward::Zero => Toward::Up,
        other => other,
    };
    match toward {
        Toward::Down if above && nearest != f32::NEG_INFINITY => nearest.next_down(),
        Toward::Up if below && nearest != f32::INFINITY => nearest.next_up(),
        _ => nearest,
    }
}

/// `a + b` as a value and its exact error.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// `a + b`.
#[inline(always)]
pub fn add(a: f32, b: f32, toward: Toward) -> f32 {
    fma(a, 1.0, b, toward)
}

/// `a * b`.
#[inline(always)]
pub fn mul(a: f32, b: f32, toward: Toward) -> f32 {
    round(f64::from(a) * f64::from(b), 0.0, toward)
}

/// `a * b + c`.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32, toward: Toward) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let (high, low) = two_sum(product, c);
    if high == 0.0 && toward == Toward::Down && (product != 0.0 || product.signum() != c.signum()) {
        // x - x is -0 when rounding down.
        return -0.0;
    }
    if high.is_finite() { round(high, low, toward) } else { high as f32 }
}

/// `a / b`.
#[inline(always)]
pub fn div(a: f32, b: f32, toward: Toward) -> f32 {
    let (x, y) = (f64::from(a), f64::from(b));
    let quotient = x / y;
    if !quotient.is_finite() || quotient == 0.0 {
        return quotient as f32;
    }
    // The remainder's sign tells on which side of the quotient the exact value lies.
    let remainder = (-quotient).mul_add(y, x);
    round(quotient, remainder / y, toward)
}

/// The square root.
#[inline(always)]
pub fn sqrt(a: f32, toward: Toward) -> f32 {
    let x = f64::from(a);
    let root = x.sqrt();
    if !root.is_finite() || root == 0.0 {
        return root as f32;
    }
    let remainder = (-root).mul_add(root, x);
    round(root, remainder / (2.0 * root), toward)
}

/// An `f64` to `f32`.
#[inline(always)]
pub fn narrow(a: f64, toward: Toward) -> f32 {
    round(a, 0.0, toward)
}

/// An integer to `f32`.
#[inline(always)]
pub fn from_integer(a: i128, toward: Toward) -> f32 {
    let high = a as f64;
    // An integer of 64 bits less its nearest f64 is small, so exact.
    round(high, (a - high as i128) as f64, toward)
}

/// An integer to `f64`.
#[inline(always)]
pub fn long_from_integer(a: i128, toward: Toward) -> f64 {
    let nearest = a as f64;
    let back = nearest as i128;
    let down = match toward {
        Toward::Down => true,
        Toward::Up => false,
        Toward::Zero => a > 0,
    };
    if down && back > a {
        nearest.next_down()
    } else if !down && back < a {
        nearest.next_up()
    } else {
        nearest
    }
}

/// An operation on `f64`, from its nearest result and the sign of the exact value less that result.
#[inline(always)]
pub fn long(nearest: f64, error: f64, toward: Toward) -> f64 {
    if !nearest.is_finite() || error == 0.0 {
        return nearest;
    }
    let down = match toward {
        Toward::Down => true,
        Toward::Up => false,
        Toward::Zero => nearest > 0.0,
    };
    if down && error < 0.0 {
        nearest.next_down()
    } else if !down && error > 0.0 {
        nearest.next_up()
    } else {
        nearest
    }
}

/// `a + b` on `f64`.
#[inline(always)]
pub fn long_add(a: f64, b: f64, toward: Toward) -> f64 {
    let (high, low) = two_sum(a, b);
    if high == 0.0 && a != 0.0 && toward == Toward::Down { -0.0 } else { long(high, low, toward) }
}

/// `a * b` on `f64`.
#[inline(always)]
pub fn long_mul(a: f64, b: f64, toward: Toward) -> f64 {
    let product = a * b;
    long(product, a.mul_add(b, -product), toward)
}
