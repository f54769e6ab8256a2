//! Comparison and selection, from what the relation of two operands is: less, equal, greater or none.

use std::cmp::Ordering;

use super::{Bf16, F16, Operand, three, two};

/// Types of floats, signed and unsigned integers, and bits.
const FLOATS: [&str; 4] = ["f32", "f64", "f16", "bf16"];
const SIGNED: [&str; 3] = ["s16", "s32", "s64"];
const UNSIGNED: [&str; 3] = ["u16", "u32", "u64"];
const BITS: [&str; 3] = ["b16", "b32", "b64"];

/// A relation, and what it says of less, equal, greater and unordered.
const RELATIONS: [(&str, [bool; 4]); 14] = [
    ("eq", [false, true, false, false]),
    ("ne", [true, false, true, false]),
    ("lt", [true, false, false, false]),
    ("le", [true, true, false, false]),
    ("gt", [false, false, true, false]),
    ("ge", [false, true, true, false]),
    ("equ", [false, true, false, true]),
    ("neu", [true, false, true, true]),
    ("ltu", [true, false, false, true]),
    ("leu", [true, true, false, true]),
    ("gtu", [false, false, true, true]),
    ("geu", [false, true, true, true]),
    ("num", [true, true, true, false]),
    ("nan", [false, false, false, true]),
];

/// The names that unsigned integers have beside the first six.
const OTHER_NAMES: [(&str, &str); 4] = [("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")];

fn says(relation: &str, order: Option<Ordering>) -> bool {
    let (_, answers) = RELATIONS.iter().find(|(name, _)| *name == relation).unwrap();
    answers[order.map_or(3, |o| (o as i8 + 1) as usize)]
}

fn relations(count: usize) -> impl Iterator<Item = &'static str> {
    RELATIONS[..count].iter().map(|(name, _)| *name)
}

/// Whether the tests below run an opcode: they build their names.
pub fn covers(name: &str) -> bool {
    let Some((relation, kind)) = name.strip_prefix("setp.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is = |count| relations(count).any(|r| r == relation);
    let other = OTHER_NAMES.iter().any(|(name, _)| *name == relation);
    FLOATS.contains(&kind) && is(14)
        || SIGNED.contains(&kind) && is(6)
        || UNSIGNED.contains(&kind) && (is(6) || other)
        || BITS.contains(&kind) && is(2)
}

fn compare<T: Operand>(kind: &str, count: usize, order: impl Fn(T, T) -> Option<Ordering> + Copy) {
    for relation in relations(count) {
        two(&format!("setp.{relation}.{kind}"), |a: T, b: T| says(relation, order(a, b)));
    }
}

#[test]
fn floats() {
    compare("f32", 14, |a: f32, b: f32| a.partial_cmp(&b));
    compare("f64", 14, |a: f64, b: f64| a.partial_cmp(&b));
    compare("f16", 14, |a: F16, b: F16| a.value().partial_cmp(&b.value()));
    compare("bf16", 14, |a: Bf16, b: Bf16| a.value().partial_cmp(&b.value()));
}

#[test]
fn integers() {
    compare("s16", 6, |a: i16, b: i16| Some(a.cmp(&b)));
    compare("s32", 6, |a: i32, b: i32| Some(a.cmp(&b)));
    compare("s64", 6, |a: i64, b: i64| Some(a.cmp(&b)));
    compare("u16", 6, |a: u16, b: u16| Some(a.cmp(&b)));
    compare("u32", 6, |a: u32, b: u32| Some(a.cmp(&b)));
    compare("u64", 6, |a: u64, b: u64| Some(a.cmp(&b)));
    compare("b16", 2, |a: u16, b: u16| Some(a.cmp(&b)));
    compare("b32", 2, |a: u32, b: u32| Some(a.cmp(&b)));
    compare("b64", 2, |a: u64, b: u64| Some(a.cmp(&b)));
    for (name, relation) in OTHER_NAMES {
        two(&format!("setp.{name}.u16"), |a: u16, b: u16| says(relation, Some(a.cmp(&b))));
        two(&format!("setp.{name}.u32"), |a: u32, b: u32| says(relation, Some(a.cmp(&b))));
        two(&format!("setp.{name}.u64"), |a: u64, b: u64| says(relation, Some(a.cmp(&b))));
    }
}

#[test]
fn with_a_predicate() {
    let combine = |opcode: &str, f: fn(bool, bool) -> bool| {
        three(opcode, |a: i32, b: i32, p: bool| f(a < b, p));
    };
    combine("setp.lt.and.s32", |a, b| a & b);
    combine("setp.lt.or.s32", |a, b| a | b);
    combine("setp.lt.xor.s32", |a, b| a ^ b);
    three("setp.leu.and.f32", |a: f32, b: f32, p: bool| {
        !matches!(a.partial_cmp(&b), Some(Ordering::Greater)) && p
    });
}

#[test]
fn selection() {
    for name in ["selp.b16", "selp.u16", "selp.s16"] {
        three(name, |a: u16, b: u16, p: bool| [b, a][usize::from(p)]);
    }
    for name in ["selp.b32", "selp.u32", "selp.s32", "selp.f32"] {
        three(name, |a: u32, b: u32, p: bool| [b, a][usize::from(p)]);
    }
    for name in ["selp.b64", "selp.u64", "selp.s64", "selp.f64"] {
        three(name, |a: u64, b: u64, p: bool| [b, a][usize::from(p)]);
    }
    for name in ["slct.b32.s32", "slct.u32.s32", "slct.s32.s32", "slct.f32.s32"] {
        three(name, |a: u32, b: u32, c: i32| [a, b][usize::from(c.is_negative())]);
    }
    for name in ["slct.b64.s32", "slct.u64.s32", "slct.s64.s32", "slct.f64.s32"] {
        three(name, |a: u64, b: u64, c: i32| [a, b][usize::from(c.is_negative())]);
    }
    // A NaN selects the second, and -0 the first.
    let second = |c: f32| usize::from(c.is_nan() || c < 0.0);
    for name in ["slct.b32.f32", "slct.u32.f32", "slct.s32.f32", "slct.f32.f32"] {
        three(name, |a: u32, b: u32, c: f32| [a, b][second(c)]);
    }
    for name in ["slct.b64.f32", "slct.u64.f32", "slct.s64.f32", "slct.f64.f32"] {
        three(name, |a: u64, b: u64, c: f32| [a, b][second(c)]);
    }
}
