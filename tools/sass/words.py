"""Registers as the numbers that they stand for, and what instructions do to words.

The idea: a word is an unsigned integer of Python; here are the ways into integers with a sign and floats, and back.
"""

from __future__ import annotations

import math
import struct

M = 0xFFFFFFFF


def signed(x: int) -> int:
    return x - (1 << 32) if x >> 31 else x


def signed64(x: int) -> int:
    x &= (1 << 64) - 1
    return x - (1 << 64) if x >> 63 else x


def as_float(bits: int | None) -> float:
    if bits is None:
        raise TypeError
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def as_double(bits: int | None) -> float:
    if bits is None:
        raise TypeError
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def bits_of_double(x: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", x))[0]


def bits_of(x: float) -> int:
    try:
        return struct.unpack("<I", struct.pack("<f", x))[0]
    except OverflowError:
        return 0x7F800000 if x > 0 else 0xFF800000


def rounded_up(x: int) -> int:
    """The bits of the float32 that is not below an integer."""
    bits = bits_of(float(x))
    return bits + 1 if as_float(bits) < x else bits


def to_int(x: float, low: int, high: int) -> int:
    if math.isnan(x):
        return 0
    return max(low, min(high, math.trunc(x) if math.isfinite(x) else (high if x > 0 else low))) & M


def lut(a: int, b: int, c: int, table: int) -> int:
    result = 0
    for i in range(8):
        if table >> i & 1:
            result |= (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
    return result & M


def permuted(a: int, selector: int, b: int) -> int:
    both, result = b << 32 | a, 0
    for i in range(4):
        pick = selector >> 4 * i & 15
        byte = both >> 8 * (pick & 7) & 255
        result |= ((255 if byte >> 7 else 0) if pick & 8 else byte) << 8 * i
    return result


def funnel(
    low: int, shift: int, high: int, left: bool, wide: bool, arithmetic: bool, upper: bool, wraps: bool
) -> int:
    size = 64 if wide else 32
    shift = shift % size if wraps else min(shift, size)
    value = high << 32 | low
    if left:
        return ((value << shift) >> 32 if upper else low << shift) & M
    if arithmetic:
        value = signed64(value)
    return (value >> (shift + 32) if upper else value >> shift) & M


def special(name: str, x: float) -> float:
    try:
        if name == "RCP":
            return 1 / x if x else math.copysign(math.inf, x)
        if name == "EX2":
            return 2.0**x
        if name == "LG2":
            return math.log2(x) if x > 0 else (-math.inf if x == 0 else math.nan)
        if name == "RSQ":
            return 1 / math.sqrt(x) if x > 0 else math.inf
        if name == "SQRT":
            return math.sqrt(x)
    except (OverflowError, ValueError):
        return math.inf
    raise TypeError
