//! Arithmetic and logic on integers.
//!
//! The idea: everything wraps. Shifts beyond the width give zeros (or signs); division by zero gives all
//! ones, as the hardware does.

use super::row::rows;

/// The multiplicand's high half, for types whose double exists.
macro_rules! high {
    ($a:expr, $b:expr, $wide:ty, $narrow:ty, $bits:literal) => {
        ((<$wide>::from($a) * <$wide>::from($b)) >> $bits) as $narrow
    };
}

rows! {
    /// Arithmetic.
    INTEGER: Integer;
    "add.u16", "add.s16" => |a: u16, b: u16| -> u16 { a.wrapping_add(b) }
    "add.u32", "add.s32" => |a: u32, b: u32| -> u32 { a.wrapping_add(b) }
    "add.u64", "add.s64" => |a: u64, b: u64| -> u64 { a.wrapping_add(b) }
    "add.sat.s32" => |a: i32, b: i32| -> i32 { a.saturating_add(b) }
    "sub.u16", "sub.s16" => |a: u16, b: u16| -> u16 { a.wrapping_sub(b) }
    "sub.u32", "sub.s32" => |a: u32, b: u32| -> u32 { a.wrapping_sub(b) }
    "sub.u64", "sub.s64" => |a: u64, b: u64| -> u64 { a.wrapping_sub(b) }
    "sub.sat.s32" => |a: i32, b: i32| -> i32 { a.saturating_sub(b) }
    "mul.lo.u16", "mul.lo.s16" => |a: u16, b: u16| -> u16 { a.wrapping_mul(b) }
    "mul.lo.u32", "mul.lo.s32" => |a: u32, b: u32| -> u32 { a.wrapping_mul(b) }
    "mul.lo.u64", "mul.lo.s64" => |a: u64, b: u64| -> u64 { a.wrapping_mul(b) }
    "mul.hi.u16" => |a: u16, b: u16| -> u16 { high!(a, b, u32, u16, 16) }
    "mul.hi.s16" => |a: i16, b: i16| -> i16 { high!(a, b, i32, i16, 16) }
    "mul.hi.u32" => |a: u32, b: u32| -> u32 { high!(a, b, u64, u32, 32) }
    "mul.hi.s32" => |a: i32, b: i32| -> i32 { high!(a, b, i64, i32, 32) }
    "mul.hi.u64" => |a: u64, b: u64| -> u64 { high!(a, b, u128, u64, 64) }
    "mul.hi.s64" => |a: i64, b: i64| -> i64 { high!(a, b, i128, i64, 64) }
    "mul.wide.u16" => |a: u16, b: u16| -> u32 { u32::from(a) * u32::from(b) }
    "mul.wide.s16" => |a: i16, b: i16| -> i32 { i32::from(a) * i32::from(b) }
    "mul.wide.u32" => |a: u32, b: u32| -> u64 { u64::from(a) * u64::from(b) }
    "mul.wide.s32" => |a: i32, b: i32| -> i64 { i64::from(a) * i64::from(b) }
    "mad.lo.u16", "mad.lo.s16" => |a: u16, b: u16, c: u16| -> u16 { a.wrapping_mul(b).wrapping_add(c) }
    "mad.lo.u32", "mad.lo.s32" => |a: u32, b: u32, c: u32| -> u32 { a.wrapping_mul(b).wrapping_add(c) }
    "mad.lo.u64", "mad.lo.s64" => |a: u64, b: u64, c: u64| -> u64 { a.wrapping_mul(b).wrapping_add(c) }
    "mad.hi.u32" => |a: u32, b: u32, c: u32| -> u32 { high!(a, b, u64, u32, 32).wrapping_add(c) }
    "mad.hi.s32" => |a: i32, b: i32, c: i32| -> i32 { high!(a, b, i64, i32, 32).wrapping_add(c) }
    "mad.wide.u16" => |a: u16, b: u16, c: u32| -> u32 { (u32::from(a) * u32::from(b)).wrapping_add(c) }
    "mad.wide.s16" => |a: i16, b: i16, c: i32| -> i32 { (i32::from(a) * i32::from(b)).wrapping_add(c) }
    "mad.wide.u32" => |a: u32, b: u32, c: u64| -> u64 { (u64::from(a) * u64::from(b)).wrapping_add(c) }
    "mad.wide.s32" => |a: i32, b: i32, c: i64| -> i64 { (i64::from(a) * i64::from(b)).wrapping_add(c) }
    "div.u16" => |a: u16, b: u16| -> u16 { a.checked_div(b).unwrap_or(u16::MAX) }
    "div.s16" => |a: i16, b: i16| -> i16 { if b == 0 { -1 } else { a.wrapping_div(b) } }
    "div.u32" => |a: u32, b: u32| -> u32 { a.checked_div(b).unwrap_or(u32::MAX) }
    "div.s32" => |a: i32, b: i32| -> i32 { if b == 0 { -1 } else { a.wrapping_div(b) } }
    "div.u64" => |a: u64, b: u64| -> u64 { a.checked_div(b).unwrap_or(u64::MAX) }
    "div.s64" => |a: i64, b: i64| -> i64 { if b == 0 { -1 } else { a.wrapping_div(b) } }
    "rem.u16" => |a: u16, b: u16| -> u16 { a.checked_rem(b).unwrap_or(a) }
    "rem.s16" => |a: i16, b: i16| -> i16 { if b == 0 { a } else { a.wrapping_rem(b) } }
    "rem.u32" => |a: u32, b: u32| -> u32 { a.checked_rem(b).unwrap_or(a) }
    "rem.s32" => |a: i32, b: i32| -> i32 { if b == 0 { a } else { a.wrapping_rem(b) } }
    "rem.u64" => |a: u64, b: u64| -> u64 { a.checked_rem(b).unwrap_or(a) }
    "rem.s64" => |a: i64, b: i64| -> i64 { if b == 0 { a } else { a.wrapping_rem(b) } }
    "min.u16" => |a: u16, b: u16| -> u16 { a.min(b) }
    "min.s16" => |a: i16, b: i16| -> i16 { a.min(b) }
    "min.u32" => |a: u32, b: u32| -> u32 { a.min(b) }
    "min.s32" => |a: i32, b: i32| -> i32 { a.min(b) }
    "min.u64" => |a: u64, b: u64| -> u64 { a.min(b) }
    "min.s64" => |a: i64, b: i64| -> i64 { a.min(b) }
    "max.u16" => |a: u16, b: u16| -> u16 { a.max(b) }
    "max.s16" => |a: i16, b: i16| -> i16 { a.max(b) }
    "max.u32" => |a: u32, b: u32| -> u32 { a.max(b) }
    "max.s32" => |a: i32, b: i32| -> i32 { a.max(b) }
    "max.u64" => |a: u64, b: u64| -> u64 { a.max(b) }
    "max.s64" => |a: i64, b: i64| -> i64 { a.max(b) }
    "neg.s16" => |a: u16| -> u16 { a.wrapping_neg() }
    "neg.s32" => |a: u32| -> u32 { a.wrapping_neg() }
    "neg.s64" => |a: u64| -> u64 { a.wrapping_neg() }
    "abs.s16" => |a: i16| -> i16 { a.wrapping_abs() }
    "abs.s32" => |a: i32| -> i32 { a.wrapping_abs() }
    "abs.s64" => |a: i64| -> i64 { a.wrapping_abs() }
    "sad.u32" => |a: u32, b: u32, c: u32| -> u32 { c.wrapping_add(a.abs_diff(b)) }
    "sad.s32" => |a: i32, b: i32, c: u32| -> u32 { c.wrapping_add(a.abs_diff(b)) }
    "dp4a.s32.s32" => |a: u32, b: u32, c: i32| -> i32 {
        let (x, y) = (a.to_le_bytes(), b.to_le_bytes());
        (0..4).fold(c, |sum, k| sum.wrapping_add(i32::from(x[k] as i8) * i32::from(y[k] as i8)))
    }
    "dp4a.u32.u32" => |a: u32, b: u32, c: u32| -> u32 {
        let (x, y) = (a.to_le_bytes(), b.to_le_bytes());
        (0..4).fold(c, |sum, k| sum.wrapping_add(u32::from(x[k]) * u32::from(y[k])))
    }
}

/// A funnel shift by less than 32: the word that begins `shift` bits into the pair.
#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// A field of bits, extended by its sign if it has one.
#[inline(always)]
fn field(a: u64, position: u32, length: u32, bits: u32, signed: bool) -> u64 {
    let (position, length) = (position & 255, length & 255);
    let top = (position + length).saturating_sub(1).min(bits - 1);
    let sign = if signed && length > 0 { a >> top & 1 } else { 0 };
    let mask = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
    let shifted = if position >= bits { 0 } else { a >> position };
    // Bits that do not exist count as the sign.
    let present = (bits.saturating_sub(position)).min(length);
    let there = if present >= 64 { u64::MAX } else { (1 << present) - 1 };
    let value = shifted & mask & there;
    if sign == 1 { value | !there } else { value }
}

/// `a` with a field of its bits replaced by the lowest of `b`.
#[inline(always)]
fn insert(b: u64, a: u64, position: u32, length: u32, bits: u32) -> u64 {
    let (position, length) = (position & 255, length & 255);
    if position >= bits {
        return a;
    }
    let mask = if length >= 64 { u64::MAX } else { (1 << length) - 1 } << position;
    (a & !mask) | ((b << position) & mask)
}

/// Bytes of a pair of words, each picked by four bits.
#[inline(always)]
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = pair(a, b);
    (0..4).fold(0, |word, k| {
        let pick = selector >> (4 * k);
        let byte = (bytes >> (8 * (pick & 7))) as u8;
        // With the highest bit set the byte's sign is spread over it.
        let byte = if pick & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        word | u32::from(byte) << (8 * k)
    })
}

/// Any function of three bits: `table` has its value for each of the eight triples.
#[inline(always)]
fn logic3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    (0..8).filter(|k| table >> k & 1 == 1).fold(0, |word, k: u32| {
        let pick = |x: u32, bit: u32| if k >> bit & 1 == 1 { x } else { !x };
        word | (pick(a, 2) & pick(b, 1) & pick(c, 0))
    })
}

rows! {
    /// Logic, shifts and bits.
    BITS: Integer;
    "and.pred" => |a: bool, b: bool| -> bool { a & b }
    "or.pred" => |a: bool, b: bool| -> bool { a | b }
    "xor.pred" => |a: bool, b: bool| -> bool { a ^ b }
    "not.pred" => |a: bool| -> bool { !a }
    "mov.pred" => |a: bool| -> bool { a }
    "and.b16" => |a: u16, b: u16| -> u16 { a & b }
    "and.b32" => |a: u32, b: u32| -> u32 { a & b }
    "and.b64" => |a: u64, b: u64| -> u64 { a & b }
    "or.b16" => |a: u16, b: u16| -> u16 { a | b }
    "or.b32" => |a: u32, b: u32| -> u32 { a | b }
    "or.b64" => |a: u64, b: u64| -> u64 { a | b }
    "xor.b16" => |a: u16, b: u16| -> u16 { a ^ b }
    "xor.b32" => |a: u32, b: u32| -> u32 { a ^ b }
    "xor.b64" => |a: u64, b: u64| -> u64 { a ^ b }
    "not.b16" => |a: u16| -> u16 { !a }
    "not.b32" => |a: u32| -> u32 { !a }
    "not.b64" => |a: u64| -> u64 { !a }
    "cnot.b16" => |a: u16| -> u16 { u16::from(a == 0) }
    "cnot.b32" => |a: u32| -> u32 { u32::from(a == 0) }
    "cnot.b64" => |a: u64| -> u64 { u64::from(a == 0) }
    "lop3.b32" => |a: u32, b: u32, c: u32, d: u32| -> u32 { logic3(a, b, c, d) }
    "shl.b16" => |a: u16, b: u32| -> u16 { if b > 15 { 0 } else { a << b } }
    "shl.b32" => |a: u32, b: u32| -> u32 { if b > 31 { 0 } else { a << b } }
    "shl.b64" => |a: u64, b: u32| -> u64 { if b > 63 { 0 } else { a << b } }
    "shr.u16", "shr.b16" => |a: u16, b: u32| -> u16 { if b > 15 { 0 } else { a >> b } }
    "shr.u32", "shr.b32" => |a: u32, b: u32| -> u32 { if b > 31 { 0 } else { a >> b } }
    "shr.u64", "shr.b64" => |a: u64, b: u32| -> u64 { if b > 63 { 0 } else { a >> b } }
    "shr.s16" => |a: i16, b: u32| -> i16 { a >> b.min(15) }
    "shr.s32" => |a: i32, b: u32| -> i32 { a >> b.min(31) }
    "shr.s64" => |a: i64, b: u32| -> i64 { a >> b.min(63) }
    "shf.l.wrap.b32" => |a: u32, b: u32, c: u32| -> u32 { ((pair(a, b) << (c & 31)) >> 32) as u32 }
    "shf.r.wrap.b32" => |a: u32, b: u32, c: u32| -> u32 { (pair(a, b) >> (c & 31)) as u32 }
    "shf.l.clamp.b32" => |a: u32, b: u32, c: u32| -> u32 { ((pair(a, b) << c.min(32)) >> 32) as u32 }
    "shf.r.clamp.b32" => |a: u32, b: u32, c: u32| -> u32 { (pair(a, b) >> c.min(32)) as u32 }
    "popc.b32" => |a: u32| -> u32 { a.count_ones() }
    "popc.b64" => |a: u64| -> u32 { a.count_ones() }
    "clz.b32" => |a: u32| -> u32 { a.leading_zeros() }
    "clz.b64" => |a: u64| -> u32 { a.leading_zeros() }
    "brev.b32" => |a: u32| -> u32 { a.reverse_bits() }
    "brev.b64" => |a: u64| -> u64 { a.reverse_bits() }
    // The highest bit that differs from the sign; all ones where there is none.
    "bfind.u32" => |a: u32| -> u32 { 31_u32.wrapping_sub(a.leading_zeros()) }
    "bfind.s32" => |a: i32| -> u32 { 31_u32.wrapping_sub((a ^ (a >> 31)).leading_zeros()) }
    "bfind.u64" => |a: u64| -> u32 { 63_u32.wrapping_sub(a.leading_zeros()) }
    "bfind.s64" => |a: i64| -> u32 { 63_u32.wrapping_sub((a ^ (a >> 63)).leading_zeros()) }
    "bfind.shiftamt.u32" => |a: u32| -> u32 { if a == 0 { u32::MAX } else { a.leading_zeros() } }
    "bfind.shiftamt.s32" => |a: i32| -> u32 {
        let rest = a ^ (a >> 31);
        if rest == 0 { u32::MAX } else { rest.leading_zeros() }
    }
    "bfind.shiftamt.u64" => |a: u64| -> u32 { if a == 0 { u32::MAX } else { a.leading_zeros() } }
    "bfe.u32" => |a: u32, b: u32, c: u32| -> u32 { field(a.into(), b, c, 32, false) as u32 }
    "bfe.s32" => |a: u32, b: u32, c: u32| -> u32 { field(a.into(), b, c, 32, true) as u32 }
    "bfe.u64" => |a: u64, b: u32, c: u32| -> u64 { field(a, b, c, 64, false) }
    "bfe.s64" => |a: u64, b: u32, c: u32| -> u64 { field(a, b, c, 64, true) }
    "bfi.b32" => |a: u32, b: u32, c: u32, d: u32| -> u32 { insert(a.into(), b.into(), c, d, 32) as u32 }
    "bfi.b64" => |a: u64, b: u64, c: u32, d: u32| -> u64 { insert(a, b, c, d, 64) }
    "prmt.b32" => |a: u32, b: u32, c: u32| -> u32 { permute(a, b, c) }
    "mov.b16", "mov.u16", "mov.s16" => |a: u16| -> u16 { a }
    "mov.b32", "mov.u32", "mov.s32", "mov.f32" => |a: u32| -> u32 { a }
    "mov.b64", "mov.u64", "mov.s64", "mov.f64" => |a: u64| -> u64 { a }
    // `mov` with a vector on one side: the decoder names the parts.
    "pack.b32.b16" => |a: u16, b: u16| -> u32 { u32::from(a) | u32::from(b) << 16 }
    "pack.b64.b32" => |a: u32, b: u32| -> u64 { pair(a, b) }
    "pack.b64.b16" => |a: u16, b: u16, c: u16, d: u16| -> u64 {
        u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48
    }
    "pack.b32.b8" => |a: u8, b: u8, c: u8, d: u8| -> u32 { u32::from_le_bytes([a, b, c, d]) }
    "unpack.b16.b32" => |a: u32, b: u32| -> u16 { (a >> (16 * b)) as u16 }
    "unpack.b16.b64" => |a: u64, b: u32| -> u16 { (a >> (16 * b)) as u16 }
    "unpack.b32.b64" => |a: u64, b: u32| -> u32 { (a >> (32 * b)) as u32 }
}
