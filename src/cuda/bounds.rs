//! What a device can do at most, from its attributes.
//!
//! The idea: two bounds hold whatever the program does: every multiply-add takes a lane of a multiprocessor
//! for a cycle, and weights that do not stay on the chip are read from memory once for each use. Both come
//! from what the driver reports, so they are the data sheet's numbers, not measured ones.

use super::Properties;
use crate::graph::Graph;
use crate::precision::Precision;

/// A device's rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Float32 operations per second, a fused multiply-add being two.
    pub flops: f64,
    /// Bytes per second from the device's memory.
    pub memory: f64,
}

/// Float32 lanes of a multiprocessor (CUDA C++ Programming Guide, "Throughput of Native Arithmetic
/// Instructions").
fn lanes((major, minor): (i32, i32)) -> f64 {
    match (major, minor) {
        (7, _) | (8, 0) => 64.0,
        _ => 128.0,
    }
}

impl Bounds {
    /// The rates of a device, if it reports what they follow from.
    pub fn of(device: &Properties) -> Option<Bounds> {
        let multiprocessors = device.multiprocessors as f64;
        let flops = 2.0 * multiprocessors * lanes(device.capability) * device.clock;
        // Two transfers a cycle.
        let memory = 2.0 * device.memory_clock * device.bus_bits as f64 / 8.0;
        (flops > 0.0 && memory > 0.0).then_some(Bounds { flops, memory })
    }

    /// Seconds below which no cached generation of a batch can come if all weights come from the device's
    /// memory: those of the row phase once for each row, those of the pixel phase once for each pixel.
    pub fn cached_seconds(
        &self,
        graph: &Graph,
        precision: Precision,
        batch: usize,
        [height, width]: [usize; 2],
    ) -> f64 {
        let sets = graph.work_by_stride();
        let [of_row, of_pixel] = [precision.of_rows(graph), precision].map(Precision::bytes);
        let bytes = sets.iter().map(|set| {
            let (rows, columns) = ((height / set.stride) as f64, (width / set.stride) as f64);
            of_row * set.row * rows + of_pixel * set.pixel * rows * columns
        });
        let reading = bytes.sum::<f64>() / self.memory;
        reading.max(self.forward_seconds(graph, batch, height, width))
    }

    /// Seconds below which no full forward pass over a batch can come: cached generation has as much to
    /// multiply.
    pub fn forward_seconds(&self, graph: &Graph, batch: usize, height: usize, width: usize) -> f64 {
        2.0 * graph.multiply_adds(height, width) as f64 * batch as f64 / self.flops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::PixelCnnPp;

    #[test]
    fn one_image_waits_for_memory_and_many_for_the_multiprocessors() {
        // H100 SXM: 66.9 TFLOP/s, 3350 GB/s.
        let bounds = Bounds { flops: 66.9e12, memory: 3350e9 };
        let graph = PixelCnnPp::PAPER.graph();
        let seconds = |precision, batch| bounds.cached_seconds(&graph, precision, batch, [32, 32]);
        let one = seconds(Precision::F32, 1);
        assert!((0.0065..0.0075).contains(&one), "{one}");
        let half = seconds(Precision::Bf16, 1);
        assert!((0.5..0.7).contains(&(half / one)), "{half}");
        let many = seconds(Precision::F32, 256);
        assert!((0.18..0.19).contains(&many), "{many}");
    }

    #[test]
    fn rates_follow_from_what_is_reported() {
        let mut h100 = Properties {
            label: "cuda:0".into(),
            name: "H100".into(),
            capability: (9, 0),
            driver: (13, 0),
            multiprocessors: 132,
            cooperative: true,
            clusters: true,
            block_memory: 227 << 10,
            memory: 80 << 30,
            l2: 50 << 20,
            clock: 1980e6,
            memory_clock: 2619e6,
            bus_bits: 5120,
        };
        let Bounds { flops, memory } = Bounds::of(&h100).unwrap();
        assert!((66.8e12..67.0e12).contains(&flops) && (3350e9..3355e9).contains(&memory));
        h100.memory_clock = 0.0;
        assert_eq!(Bounds::of(&h100), None);
    }
}
