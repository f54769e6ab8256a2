//! Comparison and selection.
//!
//! The idea: for floats each relation comes twice, false if an operand is a NaN, and true; integers have
//! other names for the unsigned ones, which say no more than their type.

#![expect(
    clippy::neg_cmp_op_on_partial_ord,
    clippy::double_comparisons,
    reason = "with a NaN, not less is more than greater or equal"
)]

use super::lanes::{Bf16, F16};
use super::row::rows;

/// The rows of `setp` for each type.
macro_rules! comparisons {
    ($table:ident: $($relations:ident $suffix:literal $type:ty;)*) => {
        comparisons!(@ $table [] $($relations $suffix $type;)*);
    };
    (@ $table:ident [$($done:tt)*] float $s:literal $t:ty; $($rest:tt)*) => {
        comparisons!(@ $table [$($done)*
            concat!("setp.eq.", $s) => |a: $t, b: $t| -> bool { a == b }
            concat!("setp.ne.", $s) => |a: $t, b: $t| -> bool { a < b || a > b }
            concat!("setp.lt.", $s) => |a: $t, b: $t| -> bool { a < b }
            concat!("setp.le.", $s) => |a: $t, b: $t| -> bool { a <= b }
            concat!("setp.gt.", $s) => |a: $t, b: $t| -> bool { a > b }
            concat!("setp.ge.", $s) => |a: $t, b: $t| -> bool { a >= b }
            concat!("setp.equ.", $s) => |a: $t, b: $t| -> bool { !(a < b || a > b) }
            concat!("setp.neu.", $s) => |a: $t, b: $t| -> bool { a != b }
            concat!("setp.ltu.", $s) => |a: $t, b: $t| -> bool { !(a >= b) }
            concat!("setp.leu.", $s) => |a: $t, b: $t| -> bool { !(a > b) }
            concat!("setp.gtu.", $s) => |a: $t, b: $t| -> bool { !(a <= b) }
            concat!("setp.geu.", $s) => |a: $t, b: $t| -> bool { !(a < b) }
            concat!("setp.num.", $s) => |a: $t, b: $t| -> bool { a == a && b == b }
            concat!("setp.nan.", $s) => |a: $t, b: $t| -> bool { a != a || b != b }
        ] $($rest)*);
    };
    (@ $table:ident [$($done:tt)*] signed $s:literal $t:ty; $($rest:tt)*) => {
        comparisons!(@ $table [$($done)*
            concat!("setp.eq.", $s) => |a: $t, b: $t| -> bool { a == b }
            concat!("setp.ne.", $s) => |a: $t, b: $t| -> bool { a != b }
            concat!("setp.lt.", $s) => |a: $t, b: $t| -> bool { a < b }
            concat!("setp.le.", $s) => |a: $t, b: $t| -> bool { a <= b }
            concat!("setp.gt.", $s) => |a: $t, b: $t| -> bool { a > b }
            concat!("setp.ge.", $s) => |a: $t, b: $t| -> bool { a >= b }
        ] $($rest)*);
    };
    (@ $table:ident [$($done:tt)*] unsigned $s:literal $t:ty; $($rest:tt)*) => {
        comparisons!(@ $table [$($done)*
            concat!("setp.eq.", $s) => |a: $t, b: $t| -> bool { a == b }
            concat!("setp.ne.", $s) => |a: $t, b: $t| -> bool { a != b }
            concat!("setp.lt.", $s), concat!("setp.lo.", $s) => |a: $t, b: $t| -> bool { a < b }
            concat!("setp.le.", $s), concat!("setp.ls.", $s) => |a: $t, b: $t| -> bool { a <= b }
            concat!("setp.gt.", $s), concat!("setp.hi.", $s) => |a: $t, b: $t| -> bool { a > b }
            concat!("setp.ge.", $s), concat!("setp.hs.", $s) => |a: $t, b: $t| -> bool { a >= b }
        ] $($rest)*);
    };
    (@ $table:ident [$($done:tt)*] bits $s:literal $t:ty; $($rest:tt)*) => {
        comparisons!(@ $table [$($done)*
            concat!("setp.eq.", $s) => |a: $t, b: $t| -> bool { a == b }
            concat!("setp.ne.", $s) => |a: $t, b: $t| -> bool { a != b }
        ] $($rest)*);
    };
    (@ $table:ident [$($done:tt)*]) => {
        rows! {
            /// `setp` without a combining predicate and with one result.
            $table: Integer;
            $($done)*
        }
    };
}

comparisons! { COMPARE:
    float "f32" f32;
    float "f64" f64;
    float "f16" F16;
    float "bf16" Bf16;
    signed "s16" i16;
    signed "s32" i32;
    signed "s64" i64;
    unsigned "u16" u16;
    unsigned "u32" u32;
    unsigned "u64" u64;
    bits "b16" u16;
    bits "b32" u32;
    bits "b64" u64;
}

rows! {
    /// Selection.
    SELECT: Integer;
    "selp.b16", "selp.u16", "selp.s16" => |a: u16, b: u16, p: bool| -> u16 { if p { a } else { b } }
    "selp.b32", "selp.u32", "selp.s32", "selp.f32" =>
        |a: u32, b: u32, p: bool| -> u32 { if p { a } else { b } }
    "selp.b64", "selp.u64", "selp.s64", "selp.f64" =>
        |a: u64, b: u64, p: bool| -> u64 { if p { a } else { b } }
    "slct.b32.s32", "slct.u32.s32", "slct.s32.s32", "slct.f32.s32" =>
        |a: u32, b: u32, c: i32| -> u32 { if c >= 0 { a } else { b } }
    "slct.b32.f32", "slct.u32.f32", "slct.s32.f32", "slct.f32.f32" =>
        |a: u32, b: u32, c: f32| -> u32 { if c >= 0.0 { a } else { b } }
    "slct.b64.s32", "slct.u64.s32", "slct.s64.s32", "slct.f64.s32" =>
        |a: u64, b: u64, c: i32| -> u64 { if c >= 0 { a } else { b } }
    "slct.b64.f32", "slct.u64.f32", "slct.s64.f32", "slct.f64.f32" =>
        |a: u64, b: u64, c: f32| -> u64 { if c >= 0.0 { a } else { b } }
}
