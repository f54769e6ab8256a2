//! Seeded weights for benchmarks and tests.
//!
//! The idea: speed does not depend on the values, as long as nothing overflows, vanishes or turns
//! subnormal. With `V` of random direction, `g` alone sets the variance: 1 keeps it from layer to layer,
//! and a smaller one before each gate keeps the sum over many gated layers near 1.

use std::collections::{HashMap, HashSet};

use crate::graph::{Encoding, Graph, IMAGE};

/// Every array of the graph, by name.
pub(super) fn arrays(graph: &Graph, seed: u64) -> HashMap<String, Vec<f32>> {
    let mut arrays = HashMap::new();
    let mut random = SplitMix(seed);
    let gated = graph.layers.iter().filter(|layer| layer.epilogue.gated).flat_map(|layer| &layer.taps);
    let gated: HashSet<_> = gated.map(|tap| &graph.parameters[tap.parameter].name).collect();
    let image = graph.layers.iter().flat_map(|layer| &layer.taps).filter(|tap| tap.source == IMAGE);
    let image: HashSet<_> = image.map(|tap| &graph.parameters[tap.parameter].name).collect();
    for (parameter, name, shape) in graph.arrays(false) {
        let count = shape.iter().product();
        let before_gate = gated.contains(&parameter.name);
        // A tap on a symbol takes one row of the kernel for all of them.
        let symbols = graph.input.encoding == Encoding::OneHot && image.contains(&parameter.name);
        let look_up = if symbols { (parameter.inputs as f32).sqrt() } else { 1.0 };
        let (mean, deviation) = match name.rsplit('/').next() {
            Some("g") => (if before_gate { 0.5 } else { look_up }, 0.05),
            Some("b") => (0.0, 0.05),
            Some("hw") => (0.0, 0.1),
            _ => (0.0, 1.0),
        };
        arrays.insert(name, (0..count).map(|_| mean + deviation * random.bell()).collect());
    }
    arrays
}

/// The generator SplitMix64 (Steele, Lea, Flood, 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About normal, mean 0 and variance 1: the sum of four uniform 16-bit numbers. All steps are exact
    /// or rounded once, so every machine makes the same numbers.
    fn bell(&mut self) -> f32 {
        let bits = self.next();
        let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        // Four uniforms on [0, 65535] have the mean 131070 and the variance 4 * 65536^2 / 12.
        const SCALE: f32 = 1.0 / 37_837.227;
        (sum as f32 - 131_070.0) * SCALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_has_mean_zero_and_variance_one() {
        let mut random = SplitMix(7);
        let values: Vec<f64> = (0..100_000).map(|_| f64::from(random.bell())).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }
}
