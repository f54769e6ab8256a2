//! Conversion.
//!
//! The idea: between integers, bits are cut off or extended by the source's sign; to integers, values
//! beyond the range give its end. What has no row of its own (`.sat`, `.ftz`) the decoder makes of two.

use super::half;
use super::lanes::{Bf16, F16};
use super::rounding::{self, Toward};
use super::row::rows;

/// Every pair of integer types.
macro_rules! between_integers {
    ($table:ident: $($types:tt)*) => { between_integers!(@ $table [] [$($types)*] $($types)*); };
    (@ $table:ident [$($done:tt)*] [$($s:literal $t:ty,)*] $from:literal $source:ty, $($rest:tt)*) => {
        between_integers!(@ $table [$($done)*
            $(concat!("cvt.", $s, ".", $from) => |a: $source| -> $t { a as $t })*
        ] [$($s $t,)*] $($rest)*);
    };
    (@ $table:ident [$($done:tt)*] [$($all:tt)*]) => {
        rows! {
            /// Between integers.
            $table: Integer;
            $($done)*
        }
    };
}

between_integers! { BETWEEN_INTEGERS:
    "u8" u8, "s8" i8, "u16" u16, "s16" i16, "u32" u32, "s32" i32, "u64" u64, "s64" i64,
}

/// What a NaN becomes: the highest bit alone if it had or is to have 64 bits, else 0.
macro_rules! or_nan {
    ($a:expr, $long:expr, $t:ty, $value:expr) => {
        match $a.is_nan() {
            true if $long || <$t>::BITS == 64 => <$t>::MIN | 1 << (<$t>::BITS - 1),
            true => 0,
            false => $value as $t,
        }
    };
}

/// Every float to every integer, in every rounding.
macro_rules! to_integer {
    ($table:ident: $($types:tt)*) => { to_integer!(@ $table [] $($types)*); };
    (@ $table:ident [$($done:tt)*] $s:literal $t:ty; $($rest:tt)*) => {
        to_integer!(@ $table [$($done)*
            concat!("cvt.rni.", $s, ".f32") => |a: f32| -> $t { or_nan!(a, false, $t, a.round_ties_even()) }
            concat!("cvt.rzi.", $s, ".f32") => |a: f32| -> $t { or_nan!(a, false, $t, a) }
            concat!("cvt.rmi.", $s, ".f32") => |a: f32| -> $t { or_nan!(a, false, $t, a.floor()) }
            concat!("cvt.rpi.", $s, ".f32") => |a: f32| -> $t { or_nan!(a, false, $t, a.ceil()) }
            concat!("cvt.rni.", $s, ".f64") => |a: f64| -> $t { or_nan!(a, true, $t, a.round_ties_even()) }
            concat!("cvt.rzi.", $s, ".f64") => |a: f64| -> $t { or_nan!(a, true, $t, a) }
            concat!("cvt.rmi.", $s, ".f64") => |a: f64| -> $t { or_nan!(a, true, $t, a.floor()) }
            concat!("cvt.rpi.", $s, ".f64") => |a: f64| -> $t { or_nan!(a, true, $t, a.ceil()) }
            concat!("cvt.rni.", $s, ".f16") => |a: F16| -> $t { or_nan!(a.0, false, $t, a.0.round_ties_even()) }
            concat!("cvt.rzi.", $s, ".f16") => |a: F16| -> $t { or_nan!(a.0, false, $t, a.0) }
            concat!("cvt.rmi.", $s, ".f16") => |a: F16| -> $t { or_nan!(a.0, false, $t, a.0.floor()) }
            concat!("cvt.rpi.", $s, ".f16") => |a: F16| -> $t { or_nan!(a.0, false, $t, a.0.ceil()) }
        ] $($rest)*);
    };
    (@ $table:ident [$($done:tt)*]) => {
        rows! {
            /// Floats to integers.
            $table: Integer;
            $($done)*
        }
    };
}

to_integer! { TO_INTEGER:
    "u8" u8; "s8" i8; "u16" u16; "s16" i16;
    "u32" u32; "s32" i32; "u64" u64; "s64" i64;
}

/// Every integer to every float.
macro_rules! from_integer {
    ($table:ident: $($types:tt)*) => { from_integer!(@ $table [] $($types)*); };
    (@ $table:ident [$($done:tt)*] $s:literal $t:ty; $($rest:tt)*) => {
        from_integer!(@ $table [$($done)*
            concat!("cvt.rn.f32.", $s) => |a: $t| -> f32 { a as f32 }
            concat!("cvt.rz.f32.", $s) => |a: $t| -> f32 { rounding::from_integer(a as i128, Toward::Zero) }
            concat!("cvt.rm.f32.", $s) => |a: $t| -> f32 { rounding::from_integer(a as i128, Toward::Down) }
            concat!("cvt.rp.f32.", $s) => |a: $t| -> f32 { rounding::from_integer(a as i128, Toward::Up) }
            concat!("cvt.rn.f64.", $s) => |a: $t| -> f64 { a as f64 }
            concat!("cvt.rz.f64.", $s) => |a: $t| -> f64 { rounding::long_from_integer(a as i128, Toward::Zero) }
            concat!("cvt.rm.f64.", $s) => |a: $t| -> f64 { rounding::long_from_integer(a as i128, Toward::Down) }
            concat!("cvt.rp.f64.", $s) => |a: $t| -> f64 { rounding::long_from_integer(a as i128, Toward::Up) }
            concat!("cvt.rn.f16.", $s) => |a: $t| -> F16 {
                F16(odd(rounding::from_integer(a as i128, Toward::Zero), a as i128))
            }
        ] $($rest)*);
    };
    (@ $table:ident [$($done:tt)*]) => {
        rows! {
            /// Integers to floats.
            $table: Integer;
            $($done)*
        }
    };
}

/// An integer cut to `f32`, its last bit set if something was cut off: it can be rounded once more.
#[inline(always)]
fn odd(cut: f32, exact: i128) -> f32 {
    if cut as i128 == exact { cut } else { f32::from_bits(cut.to_bits() | 1) }
}

/// An `f64` cut to `f32` in the same way.
#[inline(always)]
fn odd_long(exact: f64) -> f32 {
    let cut = rounding::narrow(exact, Toward::Zero);
    if f64::from(cut) == exact || exact.is_nan() { cut } else { f32::from_bits(cut.to_bits() | 1) }
}

from_integer! { FROM_INTEGER:
    "u8" u8; "s8" i8; "u16" u16; "s16" i16; "u32" u32; "s32" i32; "u64" u64; "s64" i64;
}

/// Cuts a value to `f16` bits, towards zero.
#[inline(always)]
fn cut_f16(x: f32) -> u16 {
    let nearest = half::f32_to_f16(x);
    if half::f16_to_f32(nearest).abs() > x.abs() && !x.is_infinite() { nearest - 1 } else { nearest }
}

/// Two values in a register, the first in its high half.
#[inline(always)]
fn halves(high: u16, low: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

rows! {
    /// Floats to floats, and to whole numbers as floats.
    BETWEEN_FLOATS: Integer;
    "cvt.f64.f32" => |a: f32| -> f64 { a.into() }
    "cvt.rn.f32.f64" => |a: f64| -> f32 { a as f32 }
    "cvt.rz.f32.f64" => |a: f64| -> f32 { rounding::narrow(a, Toward::Zero) }
    "cvt.rm.f32.f64" => |a: f64| -> f32 { rounding::narrow(a, Toward::Down) }
    "cvt.rp.f32.f64" => |a: f64| -> f32 { rounding::narrow(a, Toward::Up) }
    "cvt.f32.f32" => |a: f32| -> f32 { a }
    "cvt.f64.f64" => |a: f64| -> f64 { a }
    "cvt.rni.f32.f32" => |a: f32| -> f32 { a.round_ties_even() }
    "cvt.rzi.f32.f32" => |a: f32| -> f32 { a.trunc() }
    "cvt.rmi.f32.f32" => |a: f32| -> f32 { a.floor() }
    "cvt.rpi.f32.f32" => |a: f32| -> f32 { a.ceil() }
    "cvt.rni.f64.f64" => |a: f64| -> f64 { a.round_ties_even() }
    "cvt.rzi.f64.f64" => |a: f64| -> f64 { a.trunc() }
    "cvt.rmi.f64.f64" => |a: f64| -> f64 { a.floor() }
    "cvt.rpi.f64.f64" => |a: f64| -> f64 { a.ceil() }
    "cvt.rni.f16.f16" => |a: F16| -> F16 { F16(a.0.round_ties_even()) }
    "cvt.rzi.f16.f16" => |a: F16| -> F16 { F16(a.0.trunc()) }
    "cvt.rmi.f16.f16" => |a: F16| -> F16 { F16(a.0.floor()) }
    "cvt.rpi.f16.f16" => |a: F16| -> F16 { F16(a.0.ceil()) }
    "cvt.f32.f16" => |a: F16| -> f32 { a.0 }
    "cvt.f64.f16" => |a: F16| -> f64 { a.0.into() }
    "cvt.f32.bf16" => |a: Bf16| -> f32 { a.0 }
    "cvt.f64.bf16" => |a: Bf16| -> f64 { a.0.into() }
    "cvt.rn.f16.f32" => |a: f32| -> F16 { F16(a) }
    "cvt.rz.f16.f32" => |a: f32| -> u16 { cut_f16(a) }
    "cvt.rn.f16.f64" => |a: f64| -> F16 { F16(odd_long(a)) }
    "cvt.rn.bf16.f32" => |a: f32| -> Bf16 { Bf16(a) }
    "cvt.rz.bf16.f32" => |a: f32| -> u16 { if a.is_nan() { 0x7fff } else { (a.to_bits() >> 16) as u16 } }
    "cvt.rn.bf16.f64" => |a: f64| -> Bf16 { Bf16(odd_long(a)) }
    "cvt.rn.f16x2.f32" => |a: f32, b: f32| -> u32 { halves(half::f32_to_f16(a), half::f32_to_f16(b)) }
    "cvt.rn.bf16x2.f32" => |a: f32, b: f32| -> u32 { halves(half::f32_to_bf16(a), half::f32_to_bf16(b)) }
    // Ten bits of the fraction are kept, ties away from zero.
    "cvt.rna.tf32.f32" => |a: f32| -> u32 {
        if a.is_finite() { a.to_bits().wrapping_add(0x1000) & !0x1fff } else { a.to_bits() }
    }
}
