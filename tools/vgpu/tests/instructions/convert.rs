//! Conversion: between integers modulo the width, to integers clamped, to floats rounded by hand.

use super::float::toward;
use super::{Bf16, F16, Operand, execute, one};

const INTEGERS: [&str; 8] = ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"];

/// Whether the tests below run an opcode: they build these names.
pub fn covers(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let integer = |kind: &str| INTEGERS.contains(&kind);
    match parts[..] {
        ["cvt", to, from] => integer(to) && integer(from),
        ["cvt", mode, to, from] if integer(to) => {
            ["rni", "rzi", "rmi", "rpi"].contains(&mode) && ["f32", "f64", "f16"].contains(&from)
        }
        ["cvt", mode, to, from] if integer(from) => {
            ["rn", "rz", "rm", "rp"].contains(&mode) && ["f32", "f64"].contains(&to)
                || mode == "rn" && to == "f16"
        }
        _ => false,
    }
}

/// Calls a macro with each pair of a type's name and the type, after what is given.
macro_rules! each_integer {
    ($call:ident $(, $given:expr)*) => {
        $call!($($given,)* "u8", u8); $call!($($given,)* "s8", i8);
        $call!($($given,)* "u16", u16); $call!($($given,)* "s16", i16);
        $call!($($given,)* "u32", u32); $call!($($given,)* "s32", i32);
        $call!($($given,)* "u64", u64); $call!($($given,)* "s64", i64);
    };
}

/// From one integer type to all.
fn to_all<A: Operand + Into<i128>>(from: &str) {
    macro_rules! to {
        ($name:literal, $t:ty) => {
            one(&format!("cvt.{}.{from}", $name), |a: A| {
                let modulus = 1_i128 << <$t>::BITS;
                let rest = a.into().rem_euclid(modulus);
                <$t>::try_from(rest).or_else(|_| <$t>::try_from(rest - modulus)).unwrap()
            });
        };
    }
    each_integer!(to);
}

#[test]
fn between_integers() {
    macro_rules! from {
        ($name:literal, $t:ty) => {
            to_all::<$t>($name);
        };
    }
    each_integer!(from);
}

/// A whole number near a value.
fn whole(x: f64, mode: &str) -> f64 {
    let (below, above) = (x.floor(), x.ceil());
    match mode {
        "rmi" => below,
        "rpi" => above,
        "rzi" => {
            if x < 0.0 {
                above
            } else {
                below
            }
        }
        _ if x - below == above - x => {
            if below % 2.0 == 0.0 {
                below
            } else {
                above
            }
        }
        _ => {
            if x - below < above - x {
                below
            } else {
                above
            }
        }
    }
}

#[test]
fn floats_to_integers() {
    macro_rules! to {
        ($mode:expr, $name:literal, $t:ty) => {
            let clamped = |x: f64| {
                let near = if x.is_infinite() { x } else { whole(x, $mode) };
                // Beyond `f64`'s whole numbers the ends are not exact, and the comparison is made so that it
                // does not matter.
                match near {
                    n if n <= <$t>::MIN as f64 => <$t>::MIN,
                    n if n >= <$t>::MAX as f64 => <$t>::MAX,
                    n => <$t>::try_from(n as i128).unwrap(),
                }
            };
            // The PTX ISA: a NaN gives 0, or the highest bit alone if it is of 64 bits or becomes so.
            let highest = <$t>::MIN | (1 << (<$t>::BITS - 1));
            let of_nan = |long: bool| if long || <$t>::BITS == 64 { highest } else { 0 };
            let (mode, name) = ($mode, $name);
            one(&format!("cvt.{mode}.{name}.f32"), |a: f32| {
                if a.is_nan() { of_nan(false) } else { clamped(a.into()) }
            });
            one(
                &format!("cvt.{mode}.{name}.f64"),
                |a: f64| if a.is_nan() { of_nan(true) } else { clamped(a) },
            );
            one(&format!("cvt.{mode}.{name}.f16"), |a: F16| {
                if a.value().is_nan() { of_nan(false) } else { clamped(a.value()) }
            });
        };
    }
    for mode in ["rni", "rzi", "rmi", "rpi"] {
        each_integer!(to, mode);
    }
}

/// A whole number rounded to `bits` bits.
fn rounded(value: i128, bits: u32, mode: &str) -> f64 {
    let magnitude = value.unsigned_abs();
    let excess = (128 - magnitude.leading_zeros()).saturating_sub(bits);
    let (kept, rest) = (magnitude >> excess, magnitude & ((1 << excess) - 1));
    let half = if excess == 0 { 1 } else { 1 << (excess - 1) };
    let up = match mode {
        "rm" => value < 0 && rest > 0,
        "rp" => value > 0 && rest > 0,
        "rn" => rest > half || rest == half && kept % 2 == 1,
        _ => false,
    };
    let result = (kept + u128::from(up)) as f64 * 2.0_f64.powi(excess as i32);
    if value < 0 { -result } else { result }
}

#[test]
fn integers_to_floats() {
    macro_rules! from {
        ($mode:expr, $name:literal, $t:ty) => {
            let (mode, name) = ($mode, $name);
            one(&format!("cvt.{mode}.f32.{name}"), |a: $t| rounded(a.into(), 24, mode) as f32);
            one(&format!("cvt.{mode}.f64.{name}"), |a: $t| rounded(a.into(), 53, mode));
        };
    }
    for mode in ["rn", "rz", "rm", "rp"] {
        each_integer!(from, mode);
    }
    macro_rules! to_half {
        ($name:literal, $t:ty) => {
            let rows: Vec<Vec<u64>> =
                <$t as Operand>::values().iter().map(|a| vec![Operand::to_bits(*a)]).collect();
            let all = execute(concat!("cvt.rn.f16.", $name), &[<$t as Operand>::BITS], "b16", &rows);
            for (a, found) in <$t as Operand>::values().into_iter().zip(all) {
                let exact = rounded(a.into(), 11, "rn");
                let expected = if exact.abs() >= 65_536.0 { f64::INFINITY.copysign(exact) } else { exact };
                assert_eq!(F16(found as u16).value(), expected, "cvt.rn.f16.{} of {a}", $name);
            }
        };
    }
    each_integer!(to_half);
}

/// A value with `bits` bits of fraction and a lowest exponent; `mode` as in the opcodes, and "rna" for ties
/// away from zero.
fn fraction(x: f64, bits: i32, lowest: i32, mode: &str) -> f64 {
    if !x.is_finite() || x == 0.0 {
        return x;
    }
    let exponent = (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let unit = 2.0_f64.powi(exponent.max(lowest) - bits);
    let units = match mode {
        "rz" => (x / unit).trunc(),
        "rna" => (x / unit).round(),
        _ => (x / unit).round_ties_even(),
    };
    (units * unit).abs().copysign(x)
}

fn half(x: f64, mode: &str) -> f64 {
    let near = fraction(x, 10, -14, mode);
    if near.abs() < 65_520.0 || !x.is_finite() { near } else { overflow(x, 65_504.0, mode) }
}

fn brain(x: f64, mode: &str) -> f64 {
    let near = fraction(x, 7, -126, mode);
    let most = 255.0 * 2.0_f64.powi(120);
    if near.abs() <= most || !x.is_finite() { near } else { overflow(x, most, mode) }
}

fn overflow(x: f64, most: f64, mode: &str) -> f64 {
    if mode == "rz" { most } else { f64::INFINITY }.copysign(x)
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// What 16 bits stand for.
type Decode = fn(u16) -> f64;

/// Checks a conversion to 16 bits.
fn narrow<A: Operand>(opcode: &str, value: impl Fn(A) -> f64, decode: Decode, expected: impl Fn(f64) -> f64) {
    let rows: Vec<Vec<u64>> = A::values().iter().map(|a| vec![a.to_bits()]).collect();
    for (a, found) in A::values().into_iter().zip(execute(opcode, &[A::BITS], "b16", &rows)) {
        let (found, expected) = (decode(found as u16), expected(value(a)));
        assert!(same(found, expected), "{opcode} of {a:?}: {found}, expected {expected}");
    }
}

#[test]
fn floats_to_narrower_ones() {
    one("cvt.rn.f32.f64", |a: f64| toward(a, "rn"));
    one("cvt.rz.f32.f64", |a: f64| toward(a, "rz"));
    one("cvt.rm.f32.f64", |a: f64| toward(a, "rm"));
    one("cvt.rp.f32.f64", |a: f64| toward(a, "rp"));
    let f16: Decode = |b| F16(b).value();
    let bf16: Decode = |b| Bf16(b).value();
    narrow("cvt.rn.f16.f32", |a: f32| a.into(), f16, |x| half(x, "rn"));
    narrow("cvt.rz.f16.f32", |a: f32| a.into(), f16, |x| half(x, "rz"));
    narrow("cvt.rn.f16.f64", |a: f64| a, f16, |x| half(x, "rn"));
    narrow("cvt.rn.bf16.f32", |a: f32| a.into(), bf16, |x| brain(x, "rn"));
    narrow("cvt.rz.bf16.f32", |a: f32| a.into(), bf16, |x| brain(x, "rz"));
    narrow("cvt.rn.bf16.f64", |a: f64| a, bf16, |x| brain(x, "rn"));
    for (opcode, decode, expected) in
        [("cvt.rn.f16x2.f32", f16, half as fn(f64, &str) -> f64), ("cvt.rn.bf16x2.f32", bf16, brain)]
    {
        let pairs: Vec<(f32, f32)> =
            f32::values().iter().flat_map(|&a| f32::values().into_iter().map(move |b| (a, b))).collect();
        let rows: Vec<Vec<u64>> =
            pairs.iter().map(|(a, b)| vec![a.to_bits().into(), b.to_bits().into()]).collect();
        for ((a, b), found) in pairs.into_iter().zip(execute(opcode, &["b32", "b32"], "b32", &rows)) {
            assert!(same(decode((found >> 16) as u16), expected(a.into(), "rn")), "{opcode} of {a} and {b}");
            assert!(same(decode(found as u16), expected(b.into(), "rn")), "{opcode} of {a} and {b}");
        }
    }
    one("cvt.rna.tf32.f32", |a: f32| fraction(a.into(), 10, -126, "rna") as f32);
}

#[test]
fn floats_to_wider_ones() {
    one("cvt.f64.f32", |a: f32| f64::from(a));
    one("cvt.f32.f16", |a: F16| a.value() as f32);
    one("cvt.f64.f16", |a: F16| a.value());
    one("cvt.f32.bf16", |a: Bf16| a.value() as f32);
    one("cvt.f64.bf16", |a: Bf16| a.value());
    one("cvt.f32.f32", |a: f32| a);
    one("cvt.f64.f64", |a: f64| a);
}

#[test]
fn floats_to_whole_ones() {
    let keep_sign = |x: f64, mode: &str| if x.is_finite() { whole(x, mode).abs().copysign(x) } else { x };
    let f16: Decode = |b| F16(b).value();
    for (short, long, halves) in [
        ("cvt.rni.f32.f32", "cvt.rni.f64.f64", "cvt.rni.f16.f16"),
        ("cvt.rzi.f32.f32", "cvt.rzi.f64.f64", "cvt.rzi.f16.f16"),
        ("cvt.rmi.f32.f32", "cvt.rmi.f64.f64", "cvt.rmi.f16.f16"),
        ("cvt.rpi.f32.f32", "cvt.rpi.f64.f64", "cvt.rpi.f16.f16"),
    ] {
        let mode = &short[4..7];
        one(short, |a: f32| keep_sign(a.into(), mode) as f32);
        one(long, |a: f64| keep_sign(a, mode));
        narrow(halves, |a: F16| a.value(), f16, |x| keep_sign(x, mode));
    }
}
