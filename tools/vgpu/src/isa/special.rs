//! Division, roots and transcendental functions.
//!
//! The idea: what the hardware rounds to the nearest is exact here too. What it approximates is computed
//! in `f64` and rounded, so better than the hardware; a test that wants to know whether that matters
//! shakes the last bit of each such result.

use super::lanes::{Lanes, Operands, Width, apply1};
use super::rounding::{self, Toward};
use super::row::{Row, rows};
use crate::counters::Class;

rows! {
    /// Rounded as IEEE 754 says, on `f32`.
    EXACT: Special;
    "div.rn.f32" => |a: f32, b: f32| -> f32 { a / b }
    "div.rz.f32" => |a: f32, b: f32| -> f32 { rounding::div(a, b, Toward::Zero) }
    "div.rm.f32" => |a: f32, b: f32| -> f32 { rounding::div(a, b, Toward::Down) }
    "div.rp.f32" => |a: f32, b: f32| -> f32 { rounding::div(a, b, Toward::Up) }
    "rcp.rn.f32" => |a: f32| -> f32 { 1.0 / a }
    "rcp.rz.f32" => |a: f32| -> f32 { rounding::div(1.0, a, Toward::Zero) }
    "rcp.rm.f32" => |a: f32| -> f32 { rounding::div(1.0, a, Toward::Down) }
    "rcp.rp.f32" => |a: f32| -> f32 { rounding::div(1.0, a, Toward::Up) }
    "sqrt.rn.f32" => |a: f32| -> f32 { a.sqrt() }
    "sqrt.rz.f32" => |a: f32| -> f32 { rounding::sqrt(a, Toward::Zero) }
    "sqrt.rm.f32" => |a: f32| -> f32 { rounding::sqrt(a, Toward::Down) }
    "sqrt.rp.f32" => |a: f32| -> f32 { rounding::sqrt(a, Toward::Up) }
}

rows! {
    /// Rounded as IEEE 754 says, on `f64`.
    EXACT_LONG: F64;
    "div.rn.f64" => |a: f64, b: f64| -> f64 { a / b }
    "rcp.rn.f64" => |a: f64| -> f64 { 1.0 / a }
    "sqrt.rn.f64" => |a: f64| -> f64 { a.sqrt() }
    // A first guess for Newton's method, of the high half alone.
    "rcp.approx.ftz.f64" => |a: f64| -> f64 { guess(1.0 / high(a)) }
    "rsqrt.approx.ftz.f64" => |a: f64| -> f64 { guess(1.0 / high(a).sqrt()) }
    "rsqrt.approx.f64" => |a: f64| -> f64 { 1.0 / a.sqrt() }
}

/// The value of the high half's bits; a subnormal one is zero, with its sign.
#[inline(always)]
fn high(a: f64) -> f64 {
    guess(a)
}

/// Drops the low half, and flushes to zero.
#[inline(always)]
fn guess(a: f64) -> f64 {
    if a.is_subnormal() { 0.0_f64.copysign(a) } else { f64::from_bits(a.to_bits() & !0xffff_ffff) }
}

/// A quotient as the hardware has it, by way of a reciprocal that is flushed to zero: the PTX ISA says
/// that divisors beyond 2^126 give 0, and a NaN if an infinity is divided.
#[inline(always)]
fn times_reciprocal(a: f32, b: f32) -> f32 {
    // 2^126
    let beyond = b.abs() > f32::from_bits(0x7e80_0000);
    if beyond { a * 0.0_f32.copysign(b) } else { a / b }
}

rows! {
    /// Approximate on the hardware.
    APPROXIMATE: Special;
    "div.full.f32" => |a: f32, b: f32| -> f32 { a / b }
    "div.approx.f32" => |a: f32, b: f32| -> f32 { times_reciprocal(a, b) }
    "rcp.approx.f32" => |a: f32| -> f32 { 1.0 / a }
    "sqrt.approx.f32" => |a: f32| -> f32 { a.sqrt() }
    "rsqrt.approx.f32" => |a: f32| -> f32 { (1.0 / f64::from(a).sqrt()) as f32 }
    "ex2.approx.f32" => |a: f32| -> f32 { f64::from(a).exp2() as f32 }
    "lg2.approx.f32" => |a: f32| -> f32 { f64::from(a).log2() as f32 }
    "sin.approx.f32" => |a: f32| -> f32 { f64::from(a).sin() as f32 }
    "cos.approx.f32" => |a: f32| -> f32 { f64::from(a).cos() as f32 }
    "tanh.approx.f32" => |a: f32| -> f32 { f64::from(a).tanh() as f32 }
}

rows! {
    /// What the decoder adds to an instruction for its modifiers.
    INTERNAL: Other;
    // `.ftz`: a subnormal operand or result becomes zero with its sign.
    "flush.f32" => |a: f32| -> f32 { if a.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(a) } else { a } }
    // `.sat`: between 0 and 1, a NaN becomes 0.
    "saturate.f32" => |a: f32| -> f32 { if a > 0.0 { a.min(1.0) } else { 0.0 } }
    "saturate.f64" => |a: f64| -> f64 { if a > 0.0 { a.min(1.0) } else { 0.0 } }
    // `.relu`: a NaN stays one.
    "relu.f32" => |a: f32| -> f32 { if a > 0.0 || a.is_nan() { a } else { 0.0 } }
    // `.sat` to an integer narrower than 64 bits, from one: the second and third are its bounds.
    "clamp.s64" => |a: i64, b: i64, c: i64| -> i64 { a.clamp(b, c) }
    "clamp.u64" => |a: u64, b: u64, c: u64| -> u64 { a.clamp(b, c) }
}

/// What the decoder adds to an approximate instruction: one unit in the last place up or down or
/// neither, by a hash of the value, if the launch asks for it.
pub static SHAKE: &[Row] = &[Row {
    names: &["shake.f32"],
    class: Class::Other,
    result: Width::Word,
    sources: &[Width::Word],
    portable: shake_lanes,
    wide: shake_lanes,
}];

unsafe fn shake_lanes(lanes: &Lanes, operands: &Operands) {
    // SAFETY: the decoder gave both operands a row's width, that of words.
    unsafe {
        if lanes.perturb {
            apply1(lanes, operands, shake);
        } else {
            apply1(lanes, operands, |a: u32| -> u32 { a });
        }
    }
}

/// A neighbour of a finite value, or the value itself, always the same one.
#[inline(always)]
fn shake(a: f32) -> f32 {
    if !a.is_normal() {
        return a;
    }
    let hash = a.to_bits().wrapping_mul(0x9e37_79b9) >> 16;
    match hash % 3 {
        0 => f32::from_bits(a.to_bits() - 1),
        1 => f32::from_bits(a.to_bits() + 1),
        _ => a,
    }
}
