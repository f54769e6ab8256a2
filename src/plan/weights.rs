//! The weights of one layer, in the order of its sum.
//!
//! The idea: packing is a backend's, but what is packed is not: which row of which kernel belongs to an input of a
//! tap, and the accumulators' initial values.

use std::borrow::Cow;

use crate::error::Error;
use crate::graph::{Bias, Graph, Layer, ParameterId, ParameterKind, Tap};
use crate::weights::{Folded, Weights};

/// The parameters of a layer. Layers share none, but the pieces of a layer do: read for all of them together, each
/// is read once.
pub struct LayerWeights<'a> {
    graph: &'a Graph,
    layer: &'a Layer,
    /// By ascending id.
    folded: Vec<(ParameterId, Folded)>,
    class_terms: Vec<Cow<'a, [f32]>>,
}

impl<'a> LayerWeights<'a> {
    /// Reads them in the graph's order, so that an error is that of the first parameter, which it comes with.
    ///
    /// # Errors
    /// As for [`Weights::fold`].
    pub fn read(
        graph: &'a Graph,
        weights: &'a Weights,
        layer: &'a Layer,
    ) -> std::result::Result<LayerWeights<'a>, (ParameterId, Error)> {
        let biases = layer.biases.iter().map(|bias| match *bias {
            Bias::Every(id) | Bias::PerClass(id) => id,
        });
        let of_tap = |tap: &Tap| [Some(tap.parameter), tap.bias_on_ones].into_iter().flatten();
        let mut ids: Vec<_> = layer.taps.iter().flat_map(of_tap).chain(biases).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut read = LayerWeights { graph, layer, folded: Vec::new(), class_terms: Vec::new() };
        for id in ids {
            let parameter = &graph.parameters[id];
            let place = |error| (id, error);
            if parameter.kind == ParameterKind::PerClass {
                read.class_terms.push(weights.class_term(parameter).map_err(place)?);
            } else {
                read.folded.push((id, weights.fold(parameter).map_err(place)?));
            }
        }
        Ok(read)
    }

    fn folded(&self, id: ParameterId) -> &Folded {
        let at = self.folded.binary_search_by_key(&id, |(id, _)| *id);
        &self.folded[at.expect("a parameter of this layer")].1
    }

    /// For each channel that a tap reads its weights: `[accumulators]`.
    pub fn rows<'b>(&'b self, tap: &'b Tap) -> impl Iterator<Item = Cow<'b, [f32]>> {
        let parameter = &self.graph.parameters[tap.parameter];
        let kernel = &self.folded(tap.parameter).kernel;
        let last = tap.in_channels() - 1;
        tap.inputs.iter().cloned().flatten().enumerate().map(move |(i, input)| {
            let from = (tap.position * parameter.inputs + input) * parameter.outputs;
            let row = &kernel[from..from + parameter.outputs];
            match tap.bias_on_ones {
                // The constant 1 is the image's last channel.
                Some(id) if i == last => {
                    Cow::Owned(row.iter().zip(&self.folded(id).bias).map(|(x, b)| x + b).collect())
                }
                _ => Cow::Borrowed(row),
            }
        })
    }

    /// The accumulators' initial values for images of a class: `[accumulators]`. Class 0 if there are none.
    pub fn biases(&self, class: usize) -> Vec<f32> {
        let mut biases = vec![0.0; self.graph.accumulators(self.layer)];
        let mut add = |terms: &[f32]| biases.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        for bias in &self.layer.biases {
            if let Bias::Every(id) = *bias {
                add(&self.folded(id).bias);
            }
        }
        let outputs = self.graph.accumulators(self.layer);
        for terms in &self.class_terms {
            add(&terms[class * outputs..(class + 1) * outputs]);
        }
        biases
    }
}
