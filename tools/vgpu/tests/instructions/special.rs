//! Division, roots and transcendental functions: what is exact to the bit, what the hardware approximates
//! within the bound that the PTX ISA gives.

use vgpu::exec::Schedule;

use super::float::toward;
use super::{Bf16, Dyadic, Operand, execute, execute_as, one, two};

#[test]
fn exact() {
    two("div.rn.f32", |a: f32, b: f32| a / b);
    one("rcp.rn.f32", |a: f32| a.recip());
    one("sqrt.rn.f32", |a: f32| a.sqrt());
    two("div.rn.f64", |a: f64, b: f64| a / b);
    one("rcp.rn.f64", |a: f64| a.recip());
    one("sqrt.rn.f64", |a: f64| a.sqrt());
}

#[test]
fn in_a_direction() {
    // A quotient or a root of `f32` that is not exact differs from each `f32` by far more than an `f64`'s
    // last bit, so the direction can be told from the `f64`.
    let finite = |x: f64, mode: &str| if x.is_finite() { toward(x, mode) } else { x as f32 };
    for (div, rcp, sqrt) in [
        ("div.rz.f32", "rcp.rz.f32", "sqrt.rz.f32"),
        ("div.rm.f32", "rcp.rm.f32", "sqrt.rm.f32"),
        ("div.rp.f32", "rcp.rp.f32", "sqrt.rp.f32"),
    ] {
        let mode = &div[4..6];
        two(div, |a: Dyadic, b: Dyadic| finite(f64::from(a.0) / f64::from(b.0), mode));
        one(rcp, |a: Dyadic| finite(1.0 / f64::from(a.0), mode));
        one(sqrt, |a: Dyadic| finite(f64::from(a.0).sqrt(), mode));
    }
}

/// Runs an approximate function on numbers, and hands each with its result to the check.
fn near(opcode: &str, numbers: &[f32], check: impl Fn(f64, f64) -> bool) {
    let rows: Vec<Vec<u64>> = numbers.iter().map(|x| vec![x.to_bits().into()]).collect();
    for (x, found) in numbers.iter().zip(execute(opcode, &["b32"], "b32", &rows)) {
        let found = f64::from(f32::from_bits(found as u32));
        assert!(check(f64::from(*x), found), "{opcode} of {x}: {found}");
    }
}

/// Whether a value is as near as a relative error allows.
fn within(found: f64, exact: f64, relative: f64) -> bool {
    found == exact || (found - exact).abs() <= relative * exact.abs() || found.is_nan() && exact.is_nan()
}

const NUMBERS: [f32; 12] = [0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 7.7, 100.0, 1e-3, 12_345.678, 0.999_999, 1.000_001];

#[test]
fn approximate() {
    let ulp = f64::from(f32::EPSILON);
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let signed: Vec<f32> = NUMBERS.iter().flat_map(|&x| [x, -x]).collect();
    near("rcp.approx.f32", &signed, |x, y| within(y, 1.0 / x, ulp));
    near("rcp.approx.f32", &[0.0, inf, nan], |x, y| within(y, 1.0 / x, 0.0));
    near("sqrt.approx.f32", &NUMBERS, |x, y| within(y, x.sqrt(), 2.0_f64.powi(-23)));
    near("sqrt.approx.f32", &[0.0, inf, -1.0, nan], |x, y| within(y, x.sqrt(), 0.0));
    near("rsqrt.approx.f32", &NUMBERS, |x, y| within(y, x.sqrt().recip(), 2.0_f64.powf(-22.9)));
    near("rsqrt.approx.f32", &[0.0, inf, -1.0, nan], |x, y| within(y, x.sqrt().recip(), 0.0));
    near("ex2.approx.f32", &signed[..16], |x, y| within(y, x.exp2(), 2.0_f64.powi(-22)));
    near("ex2.approx.f32", &[-inf, inf, nan, 0.0, 200.0], |x, y| within(y, f64::from(x.exp2() as f32), 0.0));
    near("lg2.approx.f32", &NUMBERS, |x, y| {
        (y - x.log2()).abs() <= 2.0_f64.powf(-21.6).max(ulp * x.log2().abs())
    });
    near("lg2.approx.f32", &[0.0, inf, -1.0, nan], |x, y| within(y, x.log2(), 0.0));
    let turns: Vec<f32> = signed.iter().copied().filter(|x| x.abs() <= std::f32::consts::PI).collect();
    near("sin.approx.f32", &turns, |x, y| (y - x.sin()).abs() <= 2.0_f64.powf(-20.5));
    near("cos.approx.f32", &turns, |x, y| (y - x.cos()).abs() <= 2.0_f64.powf(-20.5));
    near("sin.approx.f32", &[inf, nan], |_, y| y.is_nan());
    near("cos.approx.f32", &[inf, nan], |_, y| y.is_nan());
    near("tanh.approx.f32", &signed, |x, y| within(y, x.tanh(), 2.0_f64.powi(-11)));
    near("tanh.approx.f32", &[inf, -inf, nan], |x, y| within(y, x.tanh(), 0.0));
    for name in ["div.approx.f32", "div.full.f32"] {
        let rows: Vec<(f32, f32)> = NUMBERS.iter().flat_map(|&a| NUMBERS.map(|b| (a, b))).collect();
        let bits: Vec<Vec<u64>> =
            rows.iter().map(|(a, b)| vec![a.to_bits().into(), b.to_bits().into()]).collect();
        for ((a, b), found) in rows.iter().zip(execute(name, &["b32", "b32"], "b32", &bits)) {
            let exact = f64::from(*a) / f64::from(*b);
            assert!(within(f32::from_bits(found as u32).into(), exact, 2.0 * ulp), "{name} of {a} and {b}");
        }
    }
}

/// The first guesses for Newton's method have 20 bits, and nothing in their low half.
#[test]
fn guesses() {
    for (name, exact) in [
        ("rcp.approx.ftz.f64", (|x| 1.0 / x) as fn(f64) -> f64),
        ("rsqrt.approx.ftz.f64", |x| 1.0 / x.sqrt()),
    ] {
        let rows: Vec<Vec<u64>> = NUMBERS.iter().map(|x| vec![f64::from(*x).to_bits()]).collect();
        for (x, found) in NUMBERS.iter().zip(execute(name, &["b64"], "b64", &rows)) {
            assert_eq!(found as u32, 0, "{name} of {x}");
            assert!(within(f64::from_bits(found), exact((*x).into()), 2.0_f64.powi(-19)), "{name} of {x}");
        }
    }
    let rows: Vec<Vec<u64>> = NUMBERS.iter().map(|x| vec![f64::from(*x).to_bits()]).collect();
    for (x, found) in NUMBERS.iter().zip(execute("rsqrt.approx.f64", &["b64"], "b64", &rows)) {
        assert!(within(f64::from_bits(found), f64::from(*x).sqrt().recip(), 2.0_f64.powi(-22)), "of {x}");
    }
}

/// "shake.f32": on request an approximate result is off by a unit in its last place, or not, always the same.
#[test]
fn shaken() {
    let rows: Vec<Vec<u64>> = (1..200).map(|x| vec![(x as f32 * 0.37).to_bits().into()]).collect();
    let run = |opcode, perturb| execute_as(Schedule { seed: None, perturb }, opcode, &["b32"], "b32", &rows);
    let (plain, shaken) = (run("ex2.approx.f32", false), run("ex2.approx.f32", true));
    let apart: Vec<i64> = plain.iter().zip(&shaken).map(|(a, b)| *b as i64 - *a as i64).collect();
    for unit in [-1, 0, 1] {
        assert!(apart.iter().filter(|d| **d == unit).count() > 20, "{apart:?}");
    }
    assert!(apart.iter().all(|d| d.abs() <= 1), "{apart:?}");
    assert_eq!(shaken, run("ex2.approx.f32", true));
    assert_eq!(run("sqrt.rn.f32", true), run("sqrt.rn.f32", false));
}

/// What the decoder makes modifiers of is tried through them.
#[test]
fn modifiers() {
    let flush = |a: f32| if a.is_subnormal() { 0.0_f32.copysign(a) } else { a };
    let saturate = |a: f32| if a.is_nan() { 0.0 } else { a.clamp(0.0, 1.0) + 0.0 };
    // "flush.f32"
    two("div.rn.ftz.f32", |a: f32, b: f32| flush(flush(a) / flush(b)));
    // "saturate.f32", "saturate.f64"
    two("mul.sat.f32", |a: f32, b: f32| saturate(a * b));
    one("cvt.sat.f64.f64", |a: f64| if a.is_nan() { 0.0 } else { a.clamp(0.0, 1.0) + 0.0 });
    relu();
    // "clamp.s64", "clamp.u64"
    one("cvt.sat.s8.s32", |a: i32| a.clamp(-128, 127) as i8);
    one("cvt.sat.u8.s32", |a: i32| a.clamp(0, 255) as u8);
    one("cvt.sat.u16.u64", |a: u64| a.min(65_535) as u16);
    one("cvt.sat.u32.s64", |a: i64| a.clamp(0, u32::MAX.into()) as u32);
}

/// "relu.f32"
fn relu() {
    let rows: Vec<Vec<u64>> = f32::values().iter().map(|x| vec![x.to_bits().into()]).collect();
    let rows = rows.into_iter().filter(|r| !f32::from_bits(r[0] as u32).is_nan()).collect::<Vec<_>>();
    for (row, found) in rows.iter().zip(execute("cvt.rn.relu.bf16.f32", &["b32"], "b16", &rows)) {
        let x = f32::from_bits(row[0] as u32);
        let value = Bf16(found as u16).value();
        let expected = f64::from(x.max(0.0));
        assert!(
            within(value, expected, 2.0_f64.powi(-8)) || !(1e-38..=3.3e38).contains(&x),
            "relu of {x}: {value}"
        );
    }
}
