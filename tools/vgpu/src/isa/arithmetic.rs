//! Arithmetic on floating point numbers.
//!
//! The idea: to the nearest is what the processor does; other roundings are made from it by
//! [`super::rounding`]. `fma` rounds once.

use super::lanes::{Bf16, F16};
use super::rounding::{self, Toward};
use super::row::rows;

/// The smaller one; a NaN only if both are, and -0 is less than 0.
#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    let zeros = f32::from_bits(a.to_bits() | b.to_bits());
    let less = if a < b || b.is_nan() { a } else { b };
    if a == b && a == 0.0 { zeros } else { less }
}

/// The larger one; a NaN only if both are, and 0 is more than -0.
#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    let zeros = f32::from_bits(a.to_bits() & b.to_bits());
    let more = if a > b || b.is_nan() { a } else { b };
    if a == b && a == 0.0 { zeros } else { more }
}

/// `min` for `f64`.
#[inline(always)]
fn long_min(a: f64, b: f64) -> f64 {
    let zeros = f64::from_bits(a.to_bits() | b.to_bits());
    let less = if a < b || b.is_nan() { a } else { b };
    if a == b && a == 0.0 { zeros } else { less }
}

/// `max` for `f64`.
#[inline(always)]
fn long_max(a: f64, b: f64) -> f64 {
    let zeros = f64::from_bits(a.to_bits() & b.to_bits());
    let more = if a > b || b.is_nan() { a } else { b };
    if a == b && a == 0.0 { zeros } else { more }
}

rows! {
    /// On `f32`.
    F32: F32;
    "add.f32", "add.rn.f32" => |a: f32, b: f32| -> f32 { a + b }
    "add.rz.f32" => |a: f32, b: f32| -> f32 { rounding::add(a, b, Toward::Zero) }
    "add.rm.f32" => |a: f32, b: f32| -> f32 { rounding::add(a, b, Toward::Down) }
    "add.rp.f32" => |a: f32, b: f32| -> f32 { rounding::add(a, b, Toward::Up) }
    "sub.f32", "sub.rn.f32" => |a: f32, b: f32| -> f32 { a - b }
    "sub.rz.f32" => |a: f32, b: f32| -> f32 { rounding::add(a, -b, Toward::Zero) }
    "sub.rm.f32" => |a: f32, b: f32| -> f32 { rounding::add(a, -b, Toward::Down) }
    "sub.rp.f32" => |a: f32, b: f32| -> f32 { rounding::add(a, -b, Toward::Up) }
    "mul.f32", "mul.rn.f32" => |a: f32, b: f32| -> f32 { a * b }
    "mul.rz.f32" => |a: f32, b: f32| -> f32 { rounding::mul(a, b, Toward::Zero) }
    "mul.rm.f32" => |a: f32, b: f32| -> f32 { rounding::mul(a, b, Toward::Down) }
    "mul.rp.f32" => |a: f32, b: f32| -> f32 { rounding::mul(a, b, Toward::Up) }
    "fma.rn.f32", "mad.f32", "mad.rn.f32" => |a: f32, b: f32, c: f32| -> f32 { a.mul_add(b, c) }
    "fma.rz.f32" => |a: f32, b: f32, c: f32| -> f32 { rounding::fma(a, b, c, Toward::Zero) }
    "fma.rm.f32" => |a: f32, b: f32, c: f32| -> f32 { rounding::fma(a, b, c, Toward::Down) }
    "fma.rp.f32" => |a: f32, b: f32, c: f32| -> f32 { rounding::fma(a, b, c, Toward::Up) }
    "neg.f32" => |a: f32| -> f32 { -a }
    "abs.f32" => |a: f32| -> f32 { a.abs() }
    "min.f32" => |a: f32, b: f32| -> f32 { min(a, b) }
    "max.f32" => |a: f32, b: f32| -> f32 { max(a, b) }
    "min.NaN.f32" => |a: f32, b: f32| -> f32 { if a.is_nan() || b.is_nan() { f32::NAN } else { min(a, b) } }
    "max.NaN.f32" => |a: f32, b: f32| -> f32 { if a.is_nan() || b.is_nan() { f32::NAN } else { max(a, b) } }
    // The sign of the first, the magnitude of the second.
    "copysign.f32" => |a: f32, b: f32| -> f32 { b.copysign(a) }
    "testp.finite.f32" => |a: f32| -> bool { a.is_finite() }
    "testp.infinite.f32" => |a: f32| -> bool { a.is_infinite() }
    "testp.number.f32" => |a: f32| -> bool { !a.is_nan() }
    "testp.notanumber.f32" => |a: f32| -> bool { a.is_nan() }
    "testp.normal.f32" => |a: f32| -> bool { a.is_normal() }
    "testp.subnormal.f32" => |a: f32| -> bool { a.is_subnormal() }
}

rows! {
    /// On `f64`.
    F64: F64;
    "add.f64", "add.rn.f64" => |a: f64, b: f64| -> f64 { a + b }
    "add.rz.f64" => |a: f64, b: f64| -> f64 { rounding::long_add(a, b, Toward::Zero) }
    "add.rm.f64" => |a: f64, b: f64| -> f64 { rounding::long_add(a, b, Toward::Down) }
    "add.rp.f64" => |a: f64, b: f64| -> f64 { rounding::long_add(a, b, Toward::Up) }
    "sub.f64", "sub.rn.f64" => |a: f64, b: f64| -> f64 { a - b }
    "sub.rz.f64" => |a: f64, b: f64| -> f64 { rounding::long_add(a, -b, Toward::Zero) }
    "sub.rm.f64" => |a: f64, b: f64| -> f64 { rounding::long_add(a, -b, Toward::Down) }
    "sub.rp.f64" => |a: f64, b: f64| -> f64 { rounding::long_add(a, -b, Toward::Up) }
    "mul.f64", "mul.rn.f64" => |a: f64, b: f64| -> f64 { a * b }
    "mul.rz.f64" => |a: f64, b: f64| -> f64 { rounding::long_mul(a, b, Toward::Zero) }
    "mul.rm.f64" => |a: f64, b: f64| -> f64 { rounding::long_mul(a, b, Toward::Down) }
    "mul.rp.f64" => |a: f64, b: f64| -> f64 { rounding::long_mul(a, b, Toward::Up) }
    "fma.rn.f64", "mad.rn.f64" => |a: f64, b: f64, c: f64| -> f64 { a.mul_add(b, c) }
    "neg.f64" => |a: f64| -> f64 { -a }
    "abs.f64" => |a: f64| -> f64 { a.abs() }
    "min.f64" => |a: f64, b: f64| -> f64 { long_min(a, b) }
    "max.f64" => |a: f64, b: f64| -> f64 { long_max(a, b) }
    "copysign.f64" => |a: f64, b: f64| -> f64 { b.copysign(a) }
    "testp.finite.f64" => |a: f64| -> bool { a.is_finite() }
    "testp.infinite.f64" => |a: f64| -> bool { a.is_infinite() }
    "testp.number.f64" => |a: f64| -> bool { !a.is_nan() }
    "testp.notanumber.f64" => |a: f64| -> bool { a.is_nan() }
    "testp.normal.f64" => |a: f64| -> bool { a.is_normal() }
    "testp.subnormal.f64" => |a: f64| -> bool { a.is_subnormal() }
}

/// Two values of 16 bits in a register, one by one.
macro_rules! pair {
    ($wide:path, $narrow:path, $f:expr, $($x:ident),+) => {{
        let f = $f;
        let low = $narrow(f($($wide($x as u16)),+));
        let high = $narrow(f($($wide(($x >> 16) as u16)),+));
        u32::from(low) | u32::from(high) << 16
    }};
}

use super::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

/// A product and sum of values with 11 bits or less, rounded to `f32` so that a second rounding, to
/// such a value, gives what one rounding would: to odd.
#[inline(always)]
fn fma_odd(a: f32, b: f32, c: f32) -> f32 {
    let down = rounding::fma(a, b, c, Toward::Zero);
    let exact = f64::from(a).mul_add(f64::from(b), f64::from(c));
    if down.is_finite() && f64::from(down) != exact { f32::from_bits(down.to_bits() | 1) } else { down }
}

rows! {
    /// On `f16`, `bf16` and pairs of them.
    HALF: F32;
    "add.f16", "add.rn.f16" => |a: F16, b: F16| -> F16 { F16(a.0 + b.0) }
    "sub.f16", "sub.rn.f16" => |a: F16, b: F16| -> F16 { F16(a.0 - b.0) }
    "mul.f16", "mul.rn.f16" => |a: F16, b: F16| -> F16 { F16(a.0 * b.0) }
    "fma.rn.f16" => |a: F16, b: F16, c: F16| -> F16 { F16(fma_odd(a.0, b.0, c.0)) }
    "neg.f16" => |a: u16| -> u16 { a ^ 0x8000 }
    "abs.f16" => |a: u16| -> u16 { a & 0x7fff }
    "min.f16" => |a: F16, b: F16| -> F16 { F16(min(a.0, b.0)) }
    "max.f16" => |a: F16, b: F16| -> F16 { F16(max(a.0, b.0)) }
    "add.bf16", "add.rn.bf16" => |a: Bf16, b: Bf16| -> Bf16 { Bf16(a.0 + b.0) }
    "sub.bf16", "sub.rn.bf16" => |a: Bf16, b: Bf16| -> Bf16 { Bf16(a.0 - b.0) }
    "mul.bf16", "mul.rn.bf16" => |a: Bf16, b: Bf16| -> Bf16 { Bf16(a.0 * b.0) }
    "fma.rn.bf16" => |a: Bf16, b: Bf16, c: Bf16| -> Bf16 { Bf16(fma_odd(a.0, b.0, c.0)) }
    "neg.bf16" => |a: u16| -> u16 { a ^ 0x8000 }
    "abs.bf16" => |a: u16| -> u16 { a & 0x7fff }
    "min.bf16" => |a: Bf16, b: Bf16| -> Bf16 { Bf16(min(a.0, b.0)) }
    "max.bf16" => |a: Bf16, b: Bf16| -> Bf16 { Bf16(max(a.0, b.0)) }
    "add.f16x2", "add.rn.f16x2" => |a: u32, b: u32| -> u32 {
        pair!(f16_to_f32, f32_to_f16, |a: f32, b: f32| a + b, a, b)
    }
    "sub.f16x2", "sub.rn.f16x2" => |a: u32, b: u32| -> u32 {
        pair!(f16_to_f32, f32_to_f16, |a: f32, b: f32| a - b, a, b)
    }
    "mul.f16x2", "mul.rn.f16x2" => |a: u32, b: u32| -> u32 {
        pair!(f16_to_f32, f32_to_f16, |a: f32, b: f32| a * b, a, b)
    }
    "fma.rn.f16x2" => |a: u32, b: u32, c: u32| -> u32 { pair!(f16_to_f32, f32_to_f16, fma_odd, a, b, c) }
    "min.f16x2" => |a: u32, b: u32| -> u32 { pair!(f16_to_f32, f32_to_f16, min, a, b) }
    "max.f16x2" => |a: u32, b: u32| -> u32 { pair!(f16_to_f32, f32_to_f16, max, a, b) }
    "neg.f16x2", "neg.bf16x2" => |a: u32| -> u32 { a ^ 0x8000_8000 }
    "abs.f16x2", "abs.bf16x2" => |a: u32| -> u32 { a & 0x7fff_7fff }
    "add.bf16x2", "add.rn.bf16x2" => |a: u32, b: u32| -> u32 {
        pair!(bf16_to_f32, f32_to_bf16, |a: f32, b: f32| a + b, a, b)
    }
    "sub.bf16x2", "sub.rn.bf16x2" => |a: u32, b: u32| -> u32 {
        pair!(bf16_to_f32, f32_to_bf16, |a: f32, b: f32| a - b, a, b)
    }
    "mul.bf16x2", "mul.rn.bf16x2" => |a: u32, b: u32| -> u32 {
        pair!(bf16_to_f32, f32_to_bf16, |a: f32, b: f32| a * b, a, b)
    }
    "fma.rn.bf16x2" => |a: u32, b: u32, c: u32| -> u32 { pair!(bf16_to_f32, f32_to_bf16, fma_odd, a, b, c) }
}
