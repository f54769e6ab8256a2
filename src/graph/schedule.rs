//! When each part of a layer can be computed while an image grows pixel by pixel.
//!
//! The idea: a tap is known when a row begins if its source's image row lies above the output's, or if its source
//! is itself known when the row begins. So a layer's taps fall into two parts: those that are known then are
//! summed for all columns at once (the row phase), and the rest when its pixel comes (the pixel phase). All
//! else, what must be kept for how long and how much work there is, follows from the taps. The paper's
//! `cache_every` and `run_every` are a map's stride: it has a new value only at rows and columns that are
//! multiples of it.

use super::{Activation, Graph, IMAGE, Layer, MapId, Tap};

/// Whether what a tap reads for outputs of one parity lies in rows of the image above theirs. An output of a parity whose row is
/// not 0 lies below the row of the source that it looks around.
fn is_above(tap: &Tap, parity: [usize; 2]) -> bool {
    tap.row < 0 || parity[0] > 0
}

impl Graph {
    /// Whether what a tap reads for outputs of one parity is known when their row begins.
    pub fn is_known(&self, tap: &Tap, parity: [usize; 2]) -> bool {
        is_above(tap, parity) || self.row_known[tap.source]
    }

    /// Whether a map's row is known when that row of the image begins.
    pub fn is_row_known(&self, map: MapId) -> bool {
        self.row_known[map]
    }

    /// How many of the layer's first taps, at outputs of one parity, are summed when the row begins. The last is
    /// left to the pixel phase where the epilogue must wait for it.
    pub fn hoisted_taps(&self, layer: &Layer, parity: [usize; 2]) -> usize {
        let count = layer.taps_of(parity).take_while(|tap| self.is_known(tap, parity)).count();
        debug_assert_eq!(count, layer.taps_of(parity).filter(|tap| self.is_known(tap, parity)).count());
        match layer.epilogue.add {
            Some(add) if !self.row_known[add] => count.min(layer.taps_of(parity).count() - 1),
            _ => count,
        }
    }

    /// How many of those, from the first on, read what is there before anything of the row is made: rows above, or what is given.
    pub fn taps_above(&self, layer: &Layer, parity: [usize; 2]) -> usize {
        let is_there = |tap: &&Tap| is_above(tap, parity) || Some(tap.source) == self.input.known;
        layer.taps_of(parity).take(self.hoisted_taps(layer, parity)).take_while(is_there).count()
    }

    /// Rows of each map that must be kept for its readers: the newest one and those above that a tap reaches.
    pub fn rows_kept(&self) -> Vec<usize> {
        let mut rows = vec![1; self.maps.len()];
        for tap in self.layers.iter().flat_map(|l| &l.taps) {
            rows[tap.source] = rows[tap.source].max(1 + tap.row.unsigned_abs());
        }
        rows
    }

    /// Rows of the image on which a row of the output depends, that row included; more than there are where it is
    /// all of them.
    pub fn receptive_rows(&self) -> usize {
        let mut above = vec![0; self.maps.len()];
        for layer in self.layers.iter().rev() {
            let from = above[layer.output];
            let ratio = self.steps(layer)[1];
            for tap in &layer.taps {
                let stride = self.maps[tap.source].stride;
                // An output of a narrower stride looks around the source's row above it.
                let around = if ratio > 1 { stride - 1 } else { 0 };
                let rows = from + around + tap.row.unsigned_abs() * stride;
                above[tap.source] = above[tap.source].max(rows);
            }
            if let Some(add) = layer.epilogue.add {
                above[add] = above[add].max(from);
            }
        }
        1 + above.into_iter().max().unwrap_or(0)
    }

    /// Columns beyond the left and the right end of a row that taps reach in any map of a stride.
    pub fn columns_reached(&self, stride: usize) -> [usize; 2] {
        let taps = self.layers.iter().flat_map(|l| &l.taps).filter(|t| self.maps[t.source].stride == stride);
        taps.fold([0, 0], |[left, right], tap| {
            [left.max((-tap.column).max(0) as usize), right.max(tap.column.max(0) as usize)]
        })
    }

    /// Whether no column depends on another: the graph is of sequences, such as sounds, and their images have one.
    pub fn is_sequence(&self) -> bool {
        self.period() == 1 && self.columns_reached(1) == [0, 0]
    }

    /// Rows and columns after which the parts that a pixel needs repeat: the least common multiple of all strides.
    pub fn period(&self) -> usize {
        let gcd = |mut a: usize, mut b: usize| {
            while b > 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        self.maps.iter().fold(1, |period, map| period / gcd(period, map.stride) * map.stride)
    }

    /// How each map is read, and so must be stored, in ascending order. The logits and what the image is fed with
    /// are stored as they are.
    pub fn activations_read(&self) -> Vec<Vec<Activation>> {
        let mut read = vec![Vec::new(); self.maps.len()];
        for layer in &self.layers {
            for tap in &layer.taps {
                read[tap.source].push(layer.read);
            }
            if let Some(add) = layer.epilogue.add {
                read[add].push(Activation::Identity);
            }
        }
        for map in [self.logits(), IMAGE].into_iter().chain(self.input.known) {
            read[map].push(Activation::Identity);
        }
        for activations in &mut read {
            activations.sort_unstable();
            activations.dedup();
        }
        read
    }

    /// Multiply-adds of a full forward pass over one image of `height` x `width` pixels.
    pub fn multiply_adds(&self, height: usize, width: usize) -> u64 {
        let all = self.work_by_stride().into_iter();
        let of = |work: StrideWork| (work.row + work.pixel) * work.positions(height, width);
        all.map(of).sum::<f64>() as u64
    }

    /// The weights of the graph by stride and phase, by ascending stride.
    pub fn work_by_stride(&self) -> Vec<StrideWork> {
        let mut all: Vec<StrideWork> = Vec::new();
        for layer in &self.layers {
            let stride = self.stride(layer);
            let at = match all.binary_search_by_key(&stride, |work| work.stride) {
                Ok(at) => at,
                Err(at) => {
                    all.insert(at, StrideWork { stride, row: 0.0, pixel: 0.0 });
                    at
                }
            };
            let parities = self.parities(layer);
            for &parity in &parities {
                let hoisted = self.hoisted_taps(layer, parity);
                for (i, tap) in layer.taps_of(parity).enumerate() {
                    let weights =
                        (tap.in_channels() * self.accumulators(layer)) as f64 / parities.len() as f64;
                    let phase = if i < hoisted { &mut all[at].row } else { &mut all[at].pixel };
                    *phase += weights;
                }
            }
        }
        all
    }
}

/// Weights that one position of the maps of a stride is multiplied with, by phase. Where a layer has weights of
/// its own for each parity, a position uses those of one, so that they count with the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StrideWork {
    /// The stride of the maps.
    pub stride: usize,
    /// Row phase: what is summed when a row begins.
    pub row: f64,
    /// Pixel phase: the rest.
    pub pixel: f64,
}

impl StrideWork {
    /// Positions of such a map.
    pub fn positions(&self, height: usize, width: usize) -> f64 {
        (height / self.stride) as f64 * (width / self.stride) as f64
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::{Activation, Graph, IMAGE};
    use crate::models::{Nonlinearity, PixelCnnPp};

    fn graph(config: PixelCnnPp) -> Graph {
        config.graph()
    }

    fn named(graph: &Graph, name: &str) -> usize {
        graph.maps.iter().position(|m| m.name == name).unwrap_or_else(|| panic!("no map {name}"))
    }

    #[test]
    fn four_fifths_of_the_work_are_done_when_a_row_begins() {
        let graph = graph(PixelCnnPp::PAPER);
        let work = graph.work_by_stride();
        assert_eq!(work.iter().map(|w| w.stride).collect::<Vec<_>>(), [1, 2, 4]);
        let positions = work.iter().map(|w| w.positions(32, 32));
        let (row, pixel) = (work.iter().zip(positions))
            .fold((0.0, 0.0), |(row, pixel), (w, n)| (row + w.row * n, pixel + w.pixel * n));
        assert_eq!(row + pixel, 24_370_216_960.0);
        assert_eq!(pixel, 4_981_391_360.0);
        assert_eq!(graph.multiply_adds(32, 32), 24_370_216_960);
        assert_eq!(graph.period(), 4);
    }

    /// What the vertical stream of PixelCNN++ makes, and nothing else, is known when a row begins; a transposed
    /// convolution's odd rows are known as a whole.
    #[test]
    fn the_vertical_stream_follows_from_the_taps() {
        for config in [
            PixelCnnPp::PAPER,
            PixelCnnPp { resnets: 2, classes: 3, nonlinearity: Nonlinearity::Elu, ..PixelCnnPp::PAPER },
            PixelCnnPp { resnets: 1, nonlinearity: Nonlinearity::Relu, ..PixelCnnPp::PAPER },
        ] {
            let graph = graph(config);
            for layer in &graph.layers {
                let vertical = graph.maps[layer.output].name.starts_with("u/");
                assert_eq!(graph.is_row_known(layer.output), vertical, "{}", layer.name);
                for parity in graph.parities(layer) {
                    let taps: Vec<_> = layer.taps_of(parity).collect();
                    let above = |t: &&&crate::graph::Tap| {
                        vertical || t.row < 0 || graph.maps[t.source].name.starts_with("u/") || parity[0] == 1
                    };
                    let hoisted = graph.hoisted_taps(layer, parity);
                    assert_eq!(hoisted, taps.iter().filter(above).count(), "{} {parity:?}", layer.name);
                }
            }
        }
    }

    #[test]
    fn two_rows_are_kept_where_a_convolution_reads_and_three_of_the_image() {
        let graph = graph(PixelCnnPp { resnets: 1, ..PixelCnnPp::PAPER });
        let (kept, last) = (graph.rows_kept(), graph.layers.last().unwrap().taps[0].source);
        assert_eq!([IMAGE, named(&graph, "u/0"), last].map(|map| kept[map]), [3, 2, 1]);
        assert_eq!(graph.activations_read()[last], [Activation::Elu]);
        assert_eq!([1, 2, 4].map(|stride| graph.columns_reached(stride)), [[1, 1]; 3]);
    }
}
