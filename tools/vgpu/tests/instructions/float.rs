//! Arithmetic on floats.

use super::{Dyadic, Operand, execute, one, three, two};

/// Rounds an exact value to `f32` in a direction.
pub fn toward(exact: f64, mode: &str) -> f32 {
    let nearest = exact as f32;
    let back = f64::from(nearest);
    match mode {
        "rm" if back > exact => nearest.next_down(),
        "rp" if back < exact => nearest.next_up(),
        "rz" if exact > 0.0 && back > exact => nearest.next_down(),
        "rz" if exact < 0.0 && back < exact => nearest.next_up(),
        _ => nearest,
    }
}

/// The sign of a zero that two values of different signs cancel to: negative only when rounding down.
fn cancelled(sum: f32, differ: bool, mode: &str) -> f32 {
    if sum == 0.0 && differ && mode == "rm" { -0.0 } else { sum }
}

#[test]
fn to_the_nearest() {
    for name in ["add.f32", "add.rn.f32"] {
        two(name, |a: f32, b: f32| a + b);
    }
    two("sub.f32", |a: f32, b: f32| a - b);
    two("mul.f32", |a: f32, b: f32| a * b);
    three("fma.rn.f32", |a: f32, b: f32, c: f32| a.mul_add(b, c));
    two("add.f64", |a: f64, b: f64| a + b);
    two("sub.f64", |a: f64, b: f64| a - b);
    two("mul.f64", |a: f64, b: f64| a * b);
    three("fma.rn.f64", |a: f64, b: f64, c: f64| a.mul_add(b, c));
}

#[test]
fn in_a_direction() {
    for (add, sub, mul, fma) in [
        ("add.rz.f32", "sub.rz.f32", "mul.rz.f32", "fma.rz.f32"),
        ("add.rm.f32", "sub.rm.f32", "mul.rm.f32", "fma.rm.f32"),
        ("add.rp.f32", "sub.rp.f32", "mul.rp.f32", "fma.rp.f32"),
    ] {
        let mode = &add[4..6];
        // A part of a number as small as 2^-40 makes the sums inexact.
        let small = |b: Dyadic| f64::from(b.0) * 2.0_f64.powi(-14);
        let rows: Vec<(Dyadic, Dyadic)> = Dyadic::values()
            .into_iter()
            .flat_map(|a| Dyadic::values().into_iter().map(move |b| (a, b)))
            .collect();
        let bits: Vec<Vec<u64>> =
            rows.iter().map(|(a, b)| vec![a.to_bits(), (small(*b) as f32).to_bits().into()]).collect();
        for (opcode, sign) in [(add, 1.0), (sub, -1.0)] {
            for ((a, b), found) in rows.iter().zip(execute(opcode, &["b32", "b32"], "b32", &bits)) {
                let exact = f64::from(a.0) + sign * small(*b);
                let differ = a.0.is_sign_negative() != (sign * small(*b)).is_sign_negative();
                let expected = cancelled(toward(exact, mode), differ, mode);
                assert_eq!(
                    f32::from_bits(found as u32).to_bits(),
                    expected.to_bits(),
                    "{opcode} {a:?} {b:?}"
                );
            }
        }
        two(mul, |a: Dyadic, b: Dyadic| toward(f64::from(a.0) * f64::from(b.0), mode));
        three(fma, |a: Dyadic, b: Dyadic, c: Dyadic| {
            let (product, c) = (f64::from(a.0) * f64::from(b.0), f64::from(c.0));
            let differ = product.is_sign_negative() != c.is_sign_negative();
            cancelled(toward(product + c, mode), differ, mode)
        });
    }
}

#[test]
fn doubles_in_a_direction() {
    // One plus and times one and a bit: the result's last bit tells the direction.
    let bit = f64::EPSILON / 4.0;
    for (opcode, a, b, expected) in [
        ("add.rz.f64", 1.0, bit, 1.0),
        ("add.rm.f64", 1.0, bit, 1.0),
        ("add.rp.f64", 1.0, bit, 1.0_f64.next_up()),
        ("add.rz.f64", -1.0, -bit, -1.0),
        ("add.rm.f64", -1.0, -bit, (-1.0_f64).next_down()),
        ("sub.rz.f64", 1.0, bit, 1.0_f64.next_down()),
        ("sub.rm.f64", 1.0, bit, 1.0_f64.next_down()),
        ("sub.rp.f64", 1.0, bit, 1.0),
        ("mul.rz.f64", 1.0 + 4.0 * bit, 1.0 + 4.0 * bit, 1.0 + 8.0 * bit),
        ("mul.rm.f64", 1.0 + 4.0 * bit, 1.0 + 4.0 * bit, 1.0 + 8.0 * bit),
        ("mul.rp.f64", 1.0 + 4.0 * bit, 1.0 + 4.0 * bit, 1.0 + 12.0 * bit),
    ] {
        let found = execute(opcode, &["b64", "b64"], "b64", &[vec![a.to_bits(), b.to_bits()]]);
        assert_eq!(f64::from_bits(found[0]), expected, "{opcode}");
    }
}

#[test]
fn signs_and_bounds() {
    one("neg.f32", |a: f32| -a);
    one("abs.f32", |a: f32| a.abs());
    one("neg.f64", |a: f64| -a);
    one("abs.f64", |a: f64| a.abs());
    two("copysign.f32", |a: f32, b: f32| b.copysign(a));
    two("copysign.f64", |a: f64, b: f64| b.copysign(a));
    fn least(a: f32, b: f32) -> f32 {
        match (a.is_nan(), b.is_nan()) {
            (true, _) => b,
            (_, true) => a,
            _ if a == b => {
                if a.is_sign_negative() {
                    a
                } else {
                    b
                }
            }
            _ => {
                if a < b {
                    a
                } else {
                    b
                }
            }
        }
    }
    two("min.f32", least);
    two("max.f32", |a: f32, b: f32| -least(-a, -b));
    two("min.NaN.f32", |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { least(a, b) });
    two("max.NaN.f32", |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { -least(-a, -b) });
    let long = |a: f64, b: f64, sign: f64| {
        let (x, y) = (sign * a, sign * b);
        match (a.is_nan(), b.is_nan()) {
            (true, _) => b,
            (_, true) => a,
            _ if x == y => {
                if x.is_sign_negative() {
                    a
                } else {
                    b
                }
            }
            _ => {
                if x < y {
                    a
                } else {
                    b
                }
            }
        }
    };
    two("min.f64", |a: f64, b: f64| long(a, b, 1.0));
    two("max.f64", |a: f64, b: f64| long(a, b, -1.0));
}

#[test]
fn kinds() {
    one("testp.finite.f32", |a: f32| a.is_finite());
    one("testp.infinite.f32", |a: f32| a.is_infinite());
    one("testp.number.f32", |a: f32| !a.is_nan());
    one("testp.notanumber.f32", |a: f32| a.is_nan());
    one("testp.normal.f32", |a: f32| a.is_normal());
    one("testp.subnormal.f32", |a: f32| a.is_subnormal());
    one("testp.finite.f64", |a: f64| a.is_finite());
    one("testp.infinite.f64", |a: f64| a.is_infinite());
    one("testp.number.f64", |a: f64| !a.is_nan());
    one("testp.notanumber.f64", |a: f64| a.is_nan());
    one("testp.normal.f64", |a: f64| a.is_normal());
    one("testp.subnormal.f64", |a: f64| a.is_subnormal());
}

#[test]
fn flushed_and_saturated() {
    let flush = |a: f32| if a.is_subnormal() { 0.0_f32.copysign(a) } else { a };
    let saturate = |a: f32| if a.is_nan() { 0.0 } else { a.clamp(0.0, 1.0) + 0.0 };
    two("add.ftz.f32", |a: f32, b: f32| flush(flush(a) + flush(b)));
    two("mul.ftz.f32", |a: f32, b: f32| flush(flush(a) * flush(b)));
    three("fma.rn.ftz.f32", |a: f32, b: f32, c: f32| flush(flush(a).mul_add(flush(b), flush(c))));
    two("add.sat.f32", |a: f32, b: f32| saturate(a + b));
    three("fma.rn.ftz.sat.f32", |a: f32, b: f32, c: f32| {
        saturate(flush(flush(a).mul_add(flush(b), flush(c))))
    });
    one("cvt.sat.f32.f32", saturate);
}

/// Bits of `f16` and `bf16` numbers, small whole ones and fractions.
const F16: [(u16, f64); 6] = [
    (0x0000, 0.0),
    (0x3c00, 1.0),
    (0x3c01, 1.0 + 1.0 / 1024.0),
    (0xc500, -5.0),
    (0x6400, 1024.0),
    (0x3555, 0.333_251_953_125),
];
const BF16: [(u16, f64); 5] =
    [(0x0000, 0.0), (0x3f80, 1.0), (0x3f81, 1.007_812_5), (0xc0a0, -5.0), (0x4380, 256.0)];

/// The nearest number with `fraction` bits of fraction, ties to even; all here are normal.
fn nearest(exact: f64, fraction: i32) -> f64 {
    if exact == 0.0 {
        return 0.0;
    }
    let unit = 2.0_f64.powi(exact.abs().log2().floor() as i32 - fraction);
    (exact / unit).round_ties_even() * unit
}

fn halves(names: [&str; 4], table: &[(u16, f64)], fraction: i32, most: f64, decode: impl Fn(u16) -> f64) {
    let pairs: Vec<((u16, f64), (u16, f64))> =
        table.iter().flat_map(|&a| table.iter().map(move |&b| (a, b))).collect();
    type Exact = fn(f64, f64) -> f64;
    let operations: [Exact; 4] = [|a, b| a + b, |a, b| a - b, |a, b| a * b, |a, b| a * b + 1.0];
    for (name, exact) in names.into_iter().zip(operations) {
        let packed = name.ends_with("x2");
        let bits = if packed { "b32" } else { "b16" };
        let pack = |x: u16| if packed { u64::from(x) << 16 | u64::from(x) } else { x.into() };
        let one = pack(table[1].0);
        let fma = name.starts_with("fma");
        let rows: Vec<Vec<u64>> = pairs
            .iter()
            .map(|(a, b)| if fma { vec![pack(a.0), pack(b.0), one] } else { vec![pack(a.0), pack(b.0)] })
            .collect();
        let types = if fma { &[bits, bits, bits][..] } else { &[bits, bits][..] };
        for ((a, b), found) in pairs.iter().zip(execute(name, types, bits, &rows)) {
            let near = nearest(exact(a.1, b.1), fraction);
            let expected = if near.abs() > most { f64::INFINITY.copysign(near) } else { near };
            for shift in if packed { &[0, 16][..] } else { &[0][..] } {
                assert_eq!(decode((found >> shift) as u16), expected, "{name} of {a:?} and {b:?}");
            }
        }
    }
}

#[test]
fn halves_and_pairs_of_them() {
    let (f16, bf16) = (|bits| super::F16(bits).value(), |bits| super::Bf16(bits).value());
    halves(["add.f16", "sub.f16", "mul.f16", "fma.rn.f16"], &F16, 10, 65_504.0, f16);
    halves(["add.f16x2", "sub.f16x2", "mul.f16x2", "fma.rn.f16x2"], &F16, 10, 65_504.0, f16);
    halves(["add.bf16", "sub.bf16", "mul.bf16", "fma.rn.bf16"], &BF16, 7, 3e38, bf16);
    halves(["add.bf16x2", "sub.bf16x2", "mul.bf16x2", "fma.rn.bf16x2"], &BF16, 7, 3e38, bf16);
    for name in ["neg.f16", "neg.bf16"] {
        one(name, |a: u16| a ^ 0x8000);
    }
    for name in ["abs.f16", "abs.bf16"] {
        one(name, |a: u16| a & 0x7fff);
    }
    one("neg.f16x2", |a: u32| a ^ 0x8000_8000);
    one("abs.f16x2", |a: u32| a & 0x7fff_7fff);
    let bounds = [
        ("min.f16", "b16", 0x3c00, 0xc500, 0xc500),
        ("max.f16", "b16", 0x3c00, 0xc500, 0x3c00),
        ("min.bf16", "b16", 0x3f80, 0xc0a0, 0xc0a0),
        ("max.bf16", "b16", 0x3f80, 0xc0a0, 0x3f80),
        ("min.f16x2", "b32", 0x3c00_c500, 0xc500_3c00, 0xc500_c500),
        ("max.f16x2", "b32", 0x3c00_c500, 0xc500_3c00, 0x3c00_3c00),
    ];
    for (name, bits, a, b, expected) in bounds {
        assert_eq!(execute(name, &[bits, bits], bits, &[vec![a, b]]), [expected], "{name}");
    }
}
