//! One test for each form of instruction: what it gives in each lane, against plain Rust.
//!
//! The idea: a form is run on a table of values that are likely to go wrong, in every combination, by
//! full warps and by warps of which a part is switched off. The last test asks whether every row of the
//! instruction table was named. What is not in the table, memory and the exchange between lanes, is tried
//! in `memory.rs`, `warp.rs` and `cluster.rs`.

mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod convert;
mod float;
mod integer;
mod memory;
mod modifiers;
mod special;
mod warp;

use std::fmt::Debug;

use common::{Args, Device};
use vgpu::exec::Schedule;

/// A type of operands: its registers, and values that are likely to go wrong.
pub trait Operand: Copy + Debug + 'static {
    /// Of its registers, and of loads and stores.
    const BITS: &'static str;
    /// Values to try.
    fn values() -> Vec<Self>;
    /// As it stands in memory.
    fn to_bits(self) -> u64;
    /// From what stands there.
    fn from_bits(bits: u64) -> Self;
    /// Whether two results are the same; any two NaN are.
    fn same(self, other: Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}

macro_rules! integers {
    ($($t:ty, $bits:literal;)*) => {$(
        impl Operand for $t {
            const BITS: &'static str = $bits;
            fn values() -> Vec<$t> {
                let mut all = vec![0, 1, 2, 3, 5, 7, 31, 33, 100, 0x55];
                all.extend([<$t>::MIN, <$t>::MAX, <$t>::MAX - 1, <$t>::MAX / 3, !0, <$t>::MIN + 2, <$t>::MAX / 120]);
                all
            }
            fn to_bits(self) -> u64 {
                self as u64 & (u64::MAX >> (64 - <$t>::BITS))
            }
            fn from_bits(bits: u64) -> $t {
                bits as $t
            }
        }
    )*};
}
integers! { u8, "b8"; i8, "b8"; u16, "b16"; i16, "b16"; u32, "b32"; i32, "b32"; u64, "b64"; i64, "b64"; }

impl Operand for f32 {
    const BITS: &'static str = "b32";
    fn values() -> Vec<f32> {
        vec![
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            1.5,
            -2.5,
            3.5,
            1.000_000_1,
            -0.333_333_34,
            1e-40,
            -1e-45,
            1e30,
            -3e38,
            16_777_217.0,
            -8_388_609.5,
            2_147_483_600.0,
            4e9,
            1e19,
            f32::MIN_POSITIVE,
            f32::MAX,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            std::f32::consts::PI,
            -100.25,
            7e-5,
        ]
    }
    fn to_bits(self) -> u64 {
        f32::to_bits(self).into()
    }
    fn from_bits(bits: u64) -> f32 {
        f32::from_bits(bits as u32)
    }
    fn same(self, other: f32) -> bool {
        f32::to_bits(self) == f32::to_bits(other) || self.is_nan() && other.is_nan()
    }
}

impl Operand for f64 {
    const BITS: &'static str = "b64";
    fn values() -> Vec<f64> {
        vec![
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            1.5,
            -2.5,
            1.000_000_000_000_1,
            -1.0 / 3.0,
            1e-310,
            5e-324,
            1e300,
            -1e308,
            9_007_199_254_740_993.0,
            2_147_483_647.5,
            -1e19,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            std::f64::consts::E,
            65_519.999,
            3.4e38,
            1e-42,
            7.0,
        ]
    }
    fn to_bits(self) -> u64 {
        f64::to_bits(self)
    }
    fn from_bits(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    fn same(self, other: f64) -> bool {
        f64::to_bits(self) == f64::to_bits(other) || self.is_nan() && other.is_nan()
    }
}

/// Sixteenths of a thousand and the like: sums and products are exact in `f64`, and not in `f32`.
#[derive(Clone, Copy, Debug)]
pub struct Dyadic(pub f32);

impl Operand for Dyadic {
    const BITS: &'static str = "b32";
    fn values() -> Vec<Dyadic> {
        let all = [0_i32, 1, -1, 1024, -1024, 3, 65_535, -65_535, 12_345, -54_321, 77, 40_001, -40_003, 333];
        all.iter().map(|&k| Dyadic(k as f32 / 1024.0)).collect()
    }
    fn to_bits(self) -> u64 {
        self.0.to_bits().into()
    }
    fn from_bits(bits: u64) -> Dyadic {
        Dyadic(f32::from_bits(bits as u32))
    }
}

macro_rules! halves {
    ($(#[$doc:meta])* $name:ident, $fraction:literal, $bias:literal, $special:literal, $($bits:literal)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(pub u16);

        impl $name {
            /// Its value, worked out from sign, exponent and fraction.
            pub fn value(self) -> f64 {
                let fraction = f64::from(self.0 & ((1 << $fraction) - 1));
                let exponent = i32::from(self.0 & 0x7fff) >> $fraction;
                let magnitude = match exponent {
                    0 => fraction * 2.0_f64.powi(1 - $bias - $fraction),
                    $special if fraction == 0.0 => f64::INFINITY,
                    $special => f64::NAN,
                    _ => (fraction + f64::from(1 << $fraction)) * 2.0_f64.powi(exponent - $bias - $fraction),
                };
                if self.0 >> 15 == 1 { -magnitude } else { magnitude }
            }
        }

        impl Operand for $name {
            const BITS: &'static str = "b16";
            fn values() -> Vec<$name> {
                vec![$($name($bits)),*]
            }
            fn to_bits(self) -> u64 {
                self.0.into()
            }
            fn from_bits(bits: u64) -> $name {
                $name(bits as u16)
            }
            fn same(self, other: $name) -> bool {
                self.0 == other.0 || self.value().is_nan() && other.value().is_nan()
            }
        }
    };
}
halves! {
    /// Half precision: 0, -0, 1, its neighbour, -5, a third, 2047, the largest, the smallest, the largest
    /// subnormal, -0.5, 1.5, 2.5, infinities, a NaN.
    F16, 10, 15, 31, 0x0000 0x8000 0x3c00 0x3c01 0xc500 0x3555 0x67ff 0x7bff 0x0001 0x83ff 0xb800 0x3e00 0x4100
    0x7c00 0xfc00 0x7e00
}
halves! {
    /// bfloat16, of the same kinds.
    Bf16, 7, 127, 255, 0x0000 0x8000 0x3f80 0x3f81 0xc0a0 0x3eab 0x44ff 0x7f7f 0x0001 0x807f 0xbf00 0x3fc0 0x4020
    0x7f80 0xff80 0x7fc0
}

/// A predicate, as a number that is 0 or 1.
impl Operand for bool {
    const BITS: &'static str = "pred";
    fn values() -> Vec<bool> {
        vec![false, true]
    }
    fn to_bits(self) -> u64 {
        self.into()
    }
    fn from_bits(bits: u64) -> bool {
        bits != 0
    }
}

/// Runs an instruction on rows of operands, each as bits, and gives back the results' bits.
pub fn execute(opcode: &str, types: &[&str], result: &str, rows: &[Vec<u64>]) -> Vec<u64> {
    execute_as(Schedule::default(), opcode, types, result, rows)
}

/// The same on a device that is asked for more than order.
pub fn execute_as(
    schedule: Schedule,
    opcode: &str,
    types: &[&str],
    result: &str,
    rows: &[Vec<u64>],
) -> Vec<u64> {
    let register = |bits: &str| if bits == "b8" { "b16" } else { bits }.to_string();
    let mut body = String::new();
    for (k, bits) in types.iter().enumerate() {
        body += &format!(".reg .{} %o{k}; add.s64 %d2, %d1, {};\n", register(bits), 8 * k);
        if *bits == "pred" {
            body += &format!("ld.global.u32 %r2, [%d2]; setp.ne.u32 %o{k}, %r2, 0;\n");
        } else {
            body += &format!("ld.global.{bits} %o{k}, [%d2];\n");
        }
    }
    let operands: Vec<String> = (0..types.len()).map(|k| format!("%o{k}")).collect();
    let operands = operands.join(", ");
    let width = types.len() * 8;
    // Odd warps take a way on which every third lane is switched off first, and comes later.
    let text = format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p, .param .u64 q, .param .u32 n)\n\
         {{\n.reg .pred %p<4>; .reg .b32 %r<8>; .reg .b64 %d<6>; .reg .{} %x;\n\
         ld.param.u64 %d0, [p]; ld.param.u64 %d4, [q]; ld.param.u32 %r7, [n];\n\
         mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mad.lo.s32 %r0, %r1, 64, %r0;\n\
         setp.ge.u32 %p0, %r0, %r7; @%p0 ret;\n\
         mul.wide.u32 %d3, %r0, {width}; add.s64 %d1, %d0, %d3;\n\
         mul.wide.u32 %d3, %r0, 8; add.s64 %d4, %d4, %d3;\n{body}\
         mov.u32 %r3, %warpid; rem.u32 %r4, %r0, 3; setp.eq.u32 %p1, %r3, 1; setp.eq.and.u32 %p1, %r4, 0, %p1;\n\
         @%p1 bra APART;\n{opcode} %x, {operands};\nbra.uni DONE;\nAPART:\n{opcode} %x, {operands};\nDONE:\n{}\nret;\n}}\n",
        register(result),
        match result {
            "pred" => "selp.u32 %r5, 1, 0, %x; st.global.u32 [%d4], %r5;".to_string(),
            "b8" => "cvt.u16.u8 %x, %x; st.global.b16 [%d4], %x;".to_string(),
            bits => format!("st.global.{bits} [%d4], %x;"),
        }
    );
    let mut device = Device::new(&text);
    device.schedule = schedule;
    let flat: Vec<u64> = rows.iter().flatten().copied().collect();
    let p = device.put(&flat);
    let q = device.put(&vec![0_u64; rows.len()]);
    let blocks = (rows.len() as u32).div_ceil(64);
    let args = Args::new().and(p).and(q).and(rows.len() as u32);
    device.launch("k", [blocks, 1, 1], [64, 1, 1], args).unwrap_or_else(|fault| panic!("{opcode}: {fault}"));
    device.get(q, rows.len())
}

/// Checks an instruction of one operand.
pub fn one<A: Operand, R: Operand>(opcode: &str, f: impl Fn(A) -> R) {
    let rows: Vec<Vec<u64>> = A::values().iter().map(|a| vec![a.to_bits()]).collect();
    let found = execute(opcode, &[A::BITS], R::BITS, &rows);
    for (a, found) in A::values().into_iter().zip(found) {
        let (found, expected) = (R::from_bits(found), f(a));
        assert!(found.same(expected), "{opcode} of {a:?}: {found:?}, expected {expected:?}");
    }
}

/// Checks an instruction of two operands.
pub fn two<A: Operand, B: Operand, R: Operand>(opcode: &str, f: impl Fn(A, B) -> R) {
    let mut operands = Vec::new();
    for a in A::values() {
        operands.extend(B::values().into_iter().map(|b| (a, b)));
    }
    let rows: Vec<Vec<u64>> = operands.iter().map(|(a, b)| vec![a.to_bits(), b.to_bits()]).collect();
    let found = execute(opcode, &[A::BITS, B::BITS], R::BITS, &rows);
    for ((a, b), found) in operands.into_iter().zip(found) {
        let (found, expected) = (R::from_bits(found), f(a, b));
        assert!(found.same(expected), "{opcode} of {a:?}, {b:?}: {found:?}, expected {expected:?}");
    }
}

/// Checks an instruction of three operands.
pub fn three<A: Operand, B: Operand, C: Operand, R: Operand>(opcode: &str, f: impl Fn(A, B, C) -> R) {
    let mut operands = Vec::new();
    for a in A::values() {
        for b in B::values() {
            operands.extend(C::values().into_iter().map(|c| (a, b, c)));
        }
    }
    let rows: Vec<Vec<u64>> =
        operands.iter().map(|(a, b, c)| vec![a.to_bits(), b.to_bits(), c.to_bits()]).collect();
    let found = execute(opcode, &[A::BITS, B::BITS, C::BITS], R::BITS, &rows);
    for ((a, b, c), found) in operands.into_iter().zip(found) {
        let (found, expected) = (R::from_bits(found), f(a, b, c));
        assert!(found.same(expected), "{opcode} of {a:?}, {b:?}, {c:?}: {found:?}, expected {expected:?}");
    }
}

/// Every row of the table is named by a test of this directory.
#[test]
fn no_row_is_forgotten() {
    let sources = [
        include_str!("compare.rs"),
        include_str!("convert.rs"),
        include_str!("float.rs"),
        include_str!("integer.rs"),
        include_str!("modifiers.rs"),
        include_str!("special.rs"),
    ];
    let rows = vgpu::isa::table::all();
    let mut forgotten = Vec::new();
    for row in rows {
        let tested = |name: &str| {
            let quoted = format!("\"{name}\"");
            sources.iter().any(|s| s.contains(&quoted)) || convert::covers(name) || compare::covers(name)
        };
        if !row.names.iter().any(|name| tested(name)) {
            forgotten.push(row.names[0]);
        }
    }
    assert!(forgotten.is_empty(), "no test names {forgotten:?}");
}

/// Every mnemonic outside of the table begins an instruction that a test of this directory runs.
#[test]
fn no_mnemonic_is_forgotten() {
    let sources = [
        include_str!("cluster.rs"),
        include_str!("memory.rs"),
        include_str!("modifiers.rs"),
        include_str!("warp.rs"),
    ];
    let sources = sources.map(|source| source.replace("\\n", " "));
    // As it stands in a body: after what cannot be part of a name, and before a modifier or an operand.
    let runs = |source: &str, mnemonic: &str| {
        source.match_indices(mnemonic).any(|(at, _)| {
            let before = source[..at].chars().next_back();
            let after = source[at + mnemonic.len()..].chars().next();
            before.is_some_and(|c| c == ' ' || c == '"') && after.is_some_and(|c| "{.; \"".contains(c))
        })
    };
    let forgotten: Vec<&str> = vgpu::program::OUTSIDE_THE_TABLE
        .into_iter()
        .filter(|m| !sources.iter().any(|s| runs(s, m)))
        .collect();
    assert!(forgotten.is_empty(), "no test runs {forgotten:?}");
}
