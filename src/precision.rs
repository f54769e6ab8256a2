//! How weights are stored that are read for every pixel.
//!
//! The idea: half the bytes are read in half the time. A weight in bfloat16 is rounded once, when it is packed; from then on
//! all is float32, so that a run is as exact as with float32 weights.

use crate::graph::Graph;

/// How the weights of the pixel phase are stored, and of a sequence, whose rows are single positions, the row phase's too.
/// Accumulators and activations are float32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// bfloat16, the upper half of a float32, in half the memory. The products are float32's, with the same bits on every
    /// device of a kind; the processor's own bfloat16 dot products round otherwise.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 2] = [Precision::F32, Precision::Bf16];

    /// The name, as `--precision` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }

    /// Bytes of a weight.
    pub fn bytes(self) -> f64 {
        match self {
            Precision::F32 => 4.0,
            Precision::Bf16 => 2.0,
        }
    }

    /// How the weights of the row phase are stored.
    pub(crate) fn of_rows(self, graph: &Graph) -> Precision {
        // A row of a sequence is one position, so that its weights too are read for every one.
        if graph.is_sequence() { self } else { Precision::F32 }
    }
}

/// The nearest bfloat16 to a finite number, ties to even: its upper half.
pub(crate) fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_bfloat16_is_taken_and_of_two_the_even_one() {
        let value = |half: u16| f64::from(f32::from_bits(u32::from(half) << 16));
        for upper in [0_u32, 0x3f80, 0x3f81, 0x3fff, 0x0080, 0x7f00, 0xbf80, 0xc0a1, 0x8000, 0x0001] {
            for lower in [0_u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(upper << 16 | lower);
                let [below, above] = [upper as u16, upper as u16 + 1];
                let [down, up] = [below, above].map(|half| (value(half) - f64::from(x)).abs());
                let even = if upper % 2 == 0 { below } else { above };
                let expected = if down < up {
                    below
                } else if up < down {
                    above
                } else {
                    even
                };
                assert_eq!(bf16(x), expected, "{x:e}");
            }
        }
    }
}
