//! A network as data: the one language between models and backends.
//!
//! The idea: a model says which maps there are and how each is summed from others; when a part of a sum can be
//! computed, what must be kept for it and how much work it is follows, in [`schedule`]. A backend reads this and
//! knows no model.

mod check;
mod layer;
#[doc(hidden)]
pub mod schedule;

pub use layer::*;

use crate::error::Result;
use crate::heads::Head;

/// The map of the image that is generated, as [`Input`] says.
pub const IMAGE: MapId = 0;

/// A network: parameters, maps, layers, and what the numbers of its last map mean.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Parameters in the order in which a checkpoint numbers them.
    pub parameters: Vec<Parameter>,
    /// Maps; 0 is the image.
    pub maps: Vec<Map>,
    /// What comes from outside.
    pub input: Input,
    /// Layers in an order in which each one's sources come before it. The last one makes the logits.
    pub layers: Vec<Layer>,
    /// What the logits mean.
    pub head: Head,
    /// Classes that there are terms for, 0 for none.
    pub classes: usize,
    /// For each map whether its row is known when that row of the image begins.
    row_known: Vec<bool>,
}

impl Graph {
    /// Builds a graph: derives which maps are known when a row begins, and brings each layer's taps that are
    /// known then to the front of its sum, which otherwise keeps its order.
    ///
    /// # Errors
    /// [`Error::Graph`](crate::Error::Graph) for what is no causal network: see [`Layer`] and [`Tap`].
    pub fn new(
        parameters: Vec<Parameter>,
        maps: Vec<Map>,
        layers: Vec<Layer>,
        head: Head,
        classes: usize,
        input: Input,
    ) -> Result<Graph> {
        let row_known = (0..maps.len()).map(|map| Some(map) == input.known).collect();
        let mut graph = Graph { parameters, maps, input, layers: Vec::new(), head, classes, row_known };
        check::inputs(&graph)?;
        let mut computed: Vec<_> = (0..graph.maps.len()).map(|map| graph.is_given(map)).collect();
        for mut layer in layers {
            check::layer(&graph, &layer, &computed)?;
            layer.taps.sort_by_key(|tap| !graph.is_known(tap, [0, 0]));
            let whole =
                |&parity: &[usize; 2]| graph.hoisted_taps(&layer, parity) == layer.taps_of(parity).count();
            graph.row_known[layer.output] = graph.parities(&layer).iter().all(whole);
            computed[layer.output] = true;
            graph.layers.push(layer);
        }
        check::outputs(&graph, &computed)?;
        Ok(graph)
    }

    /// The map of logits.
    pub fn logits(&self) -> MapId {
        self.layers.last().expect("a graph has layers").output
    }

    /// Whether the image has a channel that is 1 within it and 0 outside.
    pub fn ones(&self) -> bool {
        self.input.encoding == Encoding::Values && self.maps[IMAGE].channels > self.head.values()
    }

    /// Whether a map comes from outside rather than from a layer.
    pub fn is_given(&self, map: MapId) -> bool {
        map == IMAGE || Some(map) == self.input.known
    }

    /// Number of trained numbers, of a model that is trained with weight normalisation. One that is not has those of the
    /// folded [`Graph::arrays`].
    pub fn parameter_count(&self) -> usize {
        self.arrays(false).map(|(_, _, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Every array with its parameter, name and shape: see [`Parameter::arrays`].
    pub fn arrays(&self, folded: bool) -> impl Iterator<Item = (&Parameter, String, Vec<usize>)> {
        self.parameters
            .iter()
            .flat_map(move |p| p.arrays(folded).into_iter().map(move |(name, shape)| (p, name, shape)))
    }

    /// Channels of a map as an activation leaves them.
    pub fn channels(&self, map: MapId, read: Activation) -> usize {
        self.maps[map].channels * read.copies()
    }

    /// Channels of a layer's sum.
    pub fn accumulators(&self, layer: &Layer) -> usize {
        self.maps[layer.output].channels * if layer.epilogue.gated { 2 } else { 1 }
    }

    /// Pixels of the image from one position of a layer's output to the next.
    pub fn stride(&self, layer: &Layer) -> usize {
        self.maps[layer.output].stride
    }

    /// Positions of a layer's sources and of its output for one step of the layer: one of the two is 1.
    pub fn steps(&self, layer: &Layer) -> [usize; 2] {
        let (source, output) = (self.maps[layer.taps[0].source].stride, self.stride(layer));
        [(output / source).max(1), (source / output).max(1)]
    }

    /// The parities of outputs (row, column) that are sums of their own: one, or the square of the ratio where
    /// the sources have the wider stride.
    pub fn parities(&self, layer: &Layer) -> Vec<[usize; 2]> {
        let [_, step] = self.steps(layer);
        (0..step).flat_map(|row| (0..step).map(move |column| [row, column])).collect()
    }
}
