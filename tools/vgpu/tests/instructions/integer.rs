//! Arithmetic, logic and bits.

use super::{execute, one, three, two};

#[test]
fn sums_and_products() {
    two("add.u16", |a: u16, b: u16| a.wrapping_add(b));
    two("add.s32", |a: i32, b: i32| a.wrapping_add(b));
    two("add.s64", |a: i64, b: i64| a.wrapping_add(b));
    two("sub.s16", |a: i16, b: i16| a.wrapping_sub(b));
    two("sub.s32", |a: i32, b: i32| a.wrapping_sub(b));
    two("sub.u64", |a: u64, b: u64| a.wrapping_sub(b));
    two("add.sat.s32", |a: i32, b: i32| a.saturating_add(b));
    two("sub.sat.s32", |a: i32, b: i32| a.saturating_sub(b));
    two("mul.lo.s16", |a: i16, b: i16| a.wrapping_mul(b));
    two("mul.lo.s32", |a: i32, b: i32| a.wrapping_mul(b));
    two("mul.lo.u64", |a: u64, b: u64| a.wrapping_mul(b));
    two("mul.hi.u16", |a: u16, b: u16| ((a as u32 * b as u32) >> 16) as u16);
    two("mul.hi.s16", |a: i16, b: i16| ((a as i32 * b as i32) >> 16) as i16);
    two("mul.hi.u32", |a: u32, b: u32| ((a as u64 * b as u64) >> 32) as u32);
    two("mul.hi.s32", |a: i32, b: i32| ((a as i64 * b as i64) >> 32) as i32);
    two("mul.hi.u64", |a: u64, b: u64| ((a as u128 * b as u128) >> 64) as u64);
    two("mul.hi.s64", |a: i64, b: i64| ((a as i128 * b as i128) >> 64) as i64);
    two("mul.wide.u16", |a: u16, b: u16| a as u32 * b as u32);
    two("mul.wide.s16", |a: i16, b: i16| a as i32 * b as i32);
    two("mul.wide.u32", |a: u32, b: u32| a as u64 * b as u64);
    two("mul.wide.s32", |a: i32, b: i32| a as i64 * b as i64);
}

#[test]
fn products_with_sums() {
    three("mad.lo.u16", |a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c));
    three("mad.lo.s32", |a: i32, b: i32, c: i32| a.wrapping_mul(b).wrapping_add(c));
    three("mad.lo.s64", |a: i64, b: i64, c: i64| a.wrapping_mul(b).wrapping_add(c));
    three("mad.hi.u32", |a: u32, b: u32, c: u32| (((a as u64 * b as u64) >> 32) as u32).wrapping_add(c));
    three("mad.hi.s32", |a: i32, b: i32, c: i32| (((a as i64 * b as i64) >> 32) as i32).wrapping_add(c));
    three("mad.wide.u16", |a: u16, b: u16, c: u32| (a as u32 * b as u32).wrapping_add(c));
    three("mad.wide.s16", |a: i16, b: i16, c: i32| (a as i32 * b as i32).wrapping_add(c));
    three("mad.wide.u32", |a: u32, b: u32, c: u64| (a as u64 * b as u64).wrapping_add(c));
    three("mad.wide.s32", |a: i32, b: i32, c: i64| (a as i64 * b as i64).wrapping_add(c));
    three("sad.u32", |a: u32, b: u32, c: u32| c.wrapping_add(a.abs_diff(b)));
    three("sad.s32", |a: i32, b: i32, c: u32| c.wrapping_add(a.abs_diff(b)));
    three("dp4a.s32.s32", |a: u32, b: u32, c: i32| {
        let part = |x: u32, k: u32| (x >> (8 * k)) as u8 as i8 as i32;
        (0..4).fold(c, |sum, k| sum.wrapping_add(part(a, k) * part(b, k)))
    });
    three("dp4a.u32.u32", |a: u32, b: u32, c: u32| {
        let part = |x: u32, k: u32| (x >> (8 * k)) & 255;
        (0..4).fold(c, |sum, k| sum.wrapping_add(part(a, k) * part(b, k)))
    });
}

#[test]
fn quotients() {
    two("div.u16", |a: u16, b: u16| a.checked_div(b).unwrap_or(!0));
    two("div.s16", |a: i16, b: i16| if b == 0 { -1 } else { a.wrapping_div(b) });
    two("div.u32", |a: u32, b: u32| a.checked_div(b).unwrap_or(!0));
    two("div.s32", |a: i32, b: i32| if b == 0 { -1 } else { a.wrapping_div(b) });
    two("div.u64", |a: u64, b: u64| a.checked_div(b).unwrap_or(!0));
    two("div.s64", |a: i64, b: i64| if b == 0 { -1 } else { a.wrapping_div(b) });
    two("rem.u16", |a: u16, b: u16| if b == 0 { a } else { a % b });
    two("rem.s16", |a: i16, b: i16| if b == 0 { a } else { a.wrapping_rem(b) });
    two("rem.u32", |a: u32, b: u32| if b == 0 { a } else { a % b });
    two("rem.s32", |a: i32, b: i32| if b == 0 { a } else { a.wrapping_rem(b) });
    two("rem.u64", |a: u64, b: u64| if b == 0 { a } else { a % b });
    two("rem.s64", |a: i64, b: i64| if b == 0 { a } else { a.wrapping_rem(b) });
}

#[test]
fn bounds_and_signs() {
    two("min.u16", |a: u16, b: u16| a.min(b));
    two("min.s16", |a: i16, b: i16| a.min(b));
    two("min.u32", |a: u32, b: u32| a.min(b));
    two("min.s32", |a: i32, b: i32| a.min(b));
    two("min.u64", |a: u64, b: u64| a.min(b));
    two("min.s64", |a: i64, b: i64| a.min(b));
    two("max.u16", |a: u16, b: u16| a.max(b));
    two("max.s16", |a: i16, b: i16| a.max(b));
    two("max.u32", |a: u32, b: u32| a.max(b));
    two("max.s32", |a: i32, b: i32| a.max(b));
    two("max.u64", |a: u64, b: u64| a.max(b));
    two("max.s64", |a: i64, b: i64| a.max(b));
    one("neg.s16", |a: i16| a.wrapping_neg());
    one("neg.s32", |a: i32| a.wrapping_neg());
    one("neg.s64", |a: i64| a.wrapping_neg());
    one("abs.s16", |a: i16| a.wrapping_abs());
    one("abs.s32", |a: i32| a.wrapping_abs());
    one("abs.s64", |a: i64| a.wrapping_abs());
}

#[test]
fn logic() {
    two("and.pred", |a: bool, b: bool| a & b);
    two("or.pred", |a: bool, b: bool| a | b);
    two("xor.pred", |a: bool, b: bool| a ^ b);
    one("not.pred", |a: bool| !a);
    one("mov.pred", |a: bool| a);
    two("and.b16", |a: u16, b: u16| a & b);
    two("and.b32", |a: u32, b: u32| a & b);
    two("and.b64", |a: u64, b: u64| a & b);
    two("or.b16", |a: u16, b: u16| a | b);
    two("or.b32", |a: u32, b: u32| a | b);
    two("or.b64", |a: u64, b: u64| a | b);
    two("xor.b16", |a: u16, b: u16| a ^ b);
    two("xor.b32", |a: u32, b: u32| a ^ b);
    two("xor.b64", |a: u64, b: u64| a ^ b);
    one("not.b16", |a: u16| !a);
    one("not.b32", |a: u32| !a);
    one("not.b64", |a: u64| !a);
    one("cnot.b16", |a: u16| u16::from(a == 0));
    one("cnot.b32", |a: u32| u32::from(a == 0));
    one("cnot.b64", |a: u64| u64::from(a == 0));
    let (a, b, c) = (0xf0f0_1234_u32, 0xcc55_5678_u32, 0xaa0f_9abc_u32);
    for (table, expected) in
        [(0x80, a & b & c), (0x96, a ^ b ^ c), (0xe8, a & b | b & c | a & c), (0x1a, (a | c) ^ (a & b))]
    {
        let found = execute("lop3.b32", &["b32"; 4], "b32", &[vec![a.into(), b.into(), c.into(), table]]);
        let by_bits = (0..32).fold(0, |word, k| {
            let index = (a >> k & 1) << 2 | (b >> k & 1) << 1 | (c >> k & 1);
            word | ((table as u32 >> index) & 1) << k
        });
        assert_eq!(found, [u64::from(by_bits)], "{table:#x}");
        if table != 0x1a {
            assert_eq!(by_bits, expected);
        }
    }
}

#[test]
fn shifts() {
    two("shl.b16", |a: u16, b: u32| if b > 15 { 0 } else { a << b });
    two("shl.b32", |a: u32, b: u32| a.checked_shl(b).unwrap_or(0));
    two("shl.b64", |a: u64, b: u32| a.checked_shl(b).unwrap_or(0));
    two("shr.u16", |a: u16, b: u32| if b > 15 { 0 } else { a >> b });
    two("shr.u32", |a: u32, b: u32| a.checked_shr(b).unwrap_or(0));
    two("shr.u64", |a: u64, b: u32| a.checked_shr(b).unwrap_or(0));
    two("shr.s16", |a: i16, b: u32| a >> b.min(15));
    two("shr.s32", |a: i32, b: u32| a >> b.min(31));
    two("shr.s64", |a: i64, b: u32| a >> b.min(63));
    let pair = |low: u32, high: u32| (high as u64) << 32 | low as u64;
    three("shf.l.wrap.b32", |a: u32, b: u32, c: u32| (pair(a, b) << (c & 31) >> 32) as u32);
    three("shf.r.wrap.b32", |a: u32, b: u32, c: u32| (pair(a, b) >> (c & 31)) as u32);
    three("shf.l.clamp.b32", |a: u32, b: u32, c: u32| (pair(a, b) << c.min(32) >> 32) as u32);
    three("shf.r.clamp.b32", |a: u32, b: u32, c: u32| (pair(a, b) >> c.min(32)) as u32);
}

#[test]
fn bits() {
    one("popc.b32", |a: u32| a.count_ones());
    one("popc.b64", |a: u64| a.count_ones());
    one("clz.b32", |a: u32| a.leading_zeros());
    one("clz.b64", |a: u64| a.leading_zeros());
    one("brev.b32", |a: u32| a.reverse_bits());
    one("brev.b64", |a: u64| a.reverse_bits());
    let highest = |a: u64| a.checked_ilog2().unwrap_or(u32::MAX);
    one("bfind.u32", |a: u32| highest(a.into()));
    one("bfind.s32", |a: i32| highest(if a < 0 { !a } else { a } as u64));
    one("bfind.u64", highest);
    one("bfind.s64", |a: i64| highest(if a < 0 { !a } else { a } as u64));
    let amount = |top: u32, found: u32| if found == u32::MAX { u32::MAX } else { top - found };
    one("bfind.shiftamt.u32", |a: u32| amount(31, highest(a.into())));
    one("bfind.shiftamt.s32", |a: i32| amount(31, highest(if a < 0 { !a } else { a } as u64)));
    one("bfind.shiftamt.u64", |a: u64| amount(63, highest(a)));
    // As the manual describes it, bit by bit.
    let extract = |a: u64, b: u32, c: u32, bits: u32, signed: bool| {
        let (position, length) = (b & 255, c & 255);
        let sign = if !signed || length == 0 { 0 } else { a >> (position + length - 1).min(bits - 1) & 1 };
        (0..bits).fold(0, |word, k| {
            let bit = if k < length && position + k < bits { a >> (position + k) & 1 } else { sign };
            word | bit << k
        })
    };
    three("bfe.u32", |a: u32, b: u32, c: u32| extract(a.into(), b, c, 32, false) as u32);
    three("bfe.s32", |a: u32, b: u32, c: u32| extract(a.into(), b, c, 32, true) as u32);
    three("bfe.u64", |a: u64, b: u32, c: u32| extract(a, b, c, 64, false));
    three("bfe.s64", |a: u64, b: u32, c: u32| extract(a, b, c, 64, true));
    let insert = |b: u64, a: u64, position: u32, length: u32, bits: u32| {
        (0..length.min(bits))
            .filter(|k| position + k < bits)
            .fold(a, |word, k| word & !(1 << (position + k)) | (b >> k & 1) << (position + k))
    };
    for (position, length) in [(0, 0), (0, 8), (5, 7), (31, 4), (8, 32), (33, 3), (60, 10), (0, 64)] {
        let (x, y) = (0x1234_5678_9abc_def0_u64, 0xfedc_ba98_7654_3210_u64);
        let row = vec![x, y, position.into(), length.into()];
        let found = execute("bfi.b64", &["b64", "b64", "b32", "b32"], "b64", &[row]);
        assert_eq!(found, [insert(x, y, position, length, 64)]);
        let row = vec![x & 0xffff_ffff, y & 0xffff_ffff, position.into(), length.into()];
        let found = execute("bfi.b32", &["b32"; 4], "b32", &[row]);
        assert_eq!(found, [insert(x & 0xffff_ffff, y & 0xffff_ffff, position, length, 32)]);
    }
    let bytes = [(0x3210, 0x8877_66f5), (0x7654, 0x4433_2211), (0x0123, 0xf566_7788), (0x8c9d, 0xff00_0000)];
    for (selector, expected) in bytes {
        let row = vec![0x8877_66f5, 0x4433_2211, selector];
        assert_eq!(execute("prmt.b32", &["b32"; 3], "b32", &[row]), [expected], "{selector:#x}");
    }
}

#[test]
fn moves() {
    one("mov.b16", |a: u16| a);
    one("mov.b32", |a: u32| a);
    one("mov.b64", |a: u64| a);
}
