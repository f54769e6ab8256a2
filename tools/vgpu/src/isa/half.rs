//! The two floating point types of 16 bits.
//!
//! The idea: a register holds the bits; arithmetic is done in `f32` and rounded once, which is exact for
//! sums and products, since 24 bits are more than twice 11 and two.

/// The value of `f16` bits.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15), (bits >> 10) & 31, u32::from(bits & 1023));
    let magnitude = match exponent {
        // 2^-24 is the unit of subnormal numbers.
        0 => fraction as f32 * f32::from_bits(0x3380_0000),
        31 => f32::from_bits(0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(((u32::from(exponent) + 112) << 23) | (fraction << 13)),
    };
    f32::from_bits(magnitude.to_bits() | (sign << 31))
}

/// Rounds to the nearest `f16`, ties to even.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let (sign, magnitude) = (((bits >> 16) & 0x8000) as u16, bits & 0x7fff_ffff);
    if magnitude > 0x7f80_0000 {
        return 0x7fff;
    }
    // From half a unit above the largest number on.
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    // Adding a number whose last bit is worth the result's last bit rounds to it.
    let unit = (magnitude >> 23).max(113) + 13;
    let shift = f32::from_bits(unit << 23);
    let rounded = f32::from_bits(magnitude) + shift;
    let units = rounded.to_bits() & 0x7f_ffff;
    let exponent = ((unit - 13) - 113) as u16;
    sign | ((exponent << 10) + units as u16)
}

/// The value of `bf16` bits.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds to the nearest `bf16`, ties to even.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return 0x7fff;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_round_trips_and_rounds_to_even() {
        for bits in 0..=u16::MAX {
            let x = f16_to_f32(bits);
            if x.is_nan() {
                assert_eq!(f32_to_f16(x), 0x7fff);
            } else {
                assert_eq!(f32_to_f16(x), bits, "{bits:#x}");
            }
        }
        for bits in 0..0x7bff_u16 {
            let (a, b) = (f16_to_f32(bits), f16_to_f32(bits + 1));
            let middle = (a + b) / 2.0;
            assert_eq!(f32_to_f16(middle), bits + (bits & 1), "between {bits:#x} and the next");
            assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() - 1)), bits);
            assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() + 1)), bits + 1);
        }
        assert_eq!(f32_to_f16(65519.9), 0x7bff);
        assert_eq!(f32_to_f16(-65520.0), 0xfc00);
    }

    #[test]
    fn bf16_rounds_to_even() {
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8001)), 0x3f81);
        assert_eq!(f32_to_bf16(f32::INFINITY), 0x7f80);
        assert_eq!(f32_to_bf16(f32::NAN), 0x7fff);
    }
}
