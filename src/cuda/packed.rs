//! Weights in the order in which the kernels read them.
//!
//! The idea: `[slices][rows of a chunk][chunks][4 outputs]`, so that neighbouring threads, which have
//! neighbouring chunks, read neighbouring bytes. What the row phase reads and what the pixel phase reads
//! are apart. A gated layer alternates slices of values and of gates, so that both halves of an output
//! meet in one block.

use crate::error::Result;
use crate::network::{Bias, Epilogue, Form, Layer, Network, VariableId};
use crate::schedule;
use crate::weights::{Folded, Weights};

use super::stage::{CHUNK, SLICE};

/// The weights of some of a layer's taps.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where they begin, in floats.
    pub start: u64,
    /// Chunks of all these taps.
    pub chunks: usize,
}

/// One layer's weights for outputs of one parity.
#[derive(Clone, Copy, Debug)]
pub struct PackedLayer {
    /// For the taps that the row phase sums.
    pub row: Part,
    /// For the others.
    pub pixel: Part,
    /// Where the biases begin: `[classes, at least 1][slices][SLICE]`.
    pub bias: u64,
    /// Slices of outputs.
    pub slices: usize,
    /// Rows of weights of a chunk: 16 with concat_elu, else 8.
    pub rows: usize,
}

impl PackedLayer {
    fn part_len(&self, part: Part) -> usize {
        self.slices * self.rows * part.chunks * SLICE
    }
}

/// Where all weights lie.
#[derive(Clone, Debug)]
pub struct Packed {
    /// For each layer, one entry for each parity.
    pub layers: Vec<Vec<PackedLayer>>,
    /// Floats of all of them.
    pub len: usize,
    classes: usize,
}

/// Chunks of a source of so many channels.
pub fn chunks(channels: usize) -> usize {
    channels.div_ceil(CHUNK)
}

impl Packed {
    /// Finds every layer a place: first all that the row phase reads, then all that the pixel phase reads.
    pub fn plan(network: &Network) -> Packed {
        let mut packed = Packed { layers: Vec::new(), len: 0, classes: network.config.classes.max(1) };
        for layer in &network.layers {
            let unit = if layer.epilogue == Epilogue::Store { 1 } else { 2 };
            let slices = (layer.sums / unit).div_ceil(SLICE) * unit;
            let signs = if layer.form == Form::Activated { network.config.nonlinearity.width() } else { 1 };
            let parities = layer.parities().iter().map(|&parity| {
                let hoisted = schedule::hoisted_taps(network, layer, parity);
                let mut counts = [0; 2];
                for (i, tap) in layer.taps_of(parity).enumerate() {
                    counts[usize::from(i >= hoisted)] += chunks(network.tensors[tap.source].channels);
                }
                let [row, pixel] = counts.map(|chunks| Part { start: 0, chunks });
                PackedLayer { row, pixel, bias: 0, slices, rows: signs * CHUNK }
            });
            packed.layers.push(parities.collect());
        }
        let mut layers = std::mem::take(&mut packed.layers);
        for p in layers.iter_mut().flatten() {
            p.row.start = packed.reserve(p.part_len(p.row));
            p.bias = packed.reserve(packed.classes * p.slices * SLICE);
        }
        for p in layers.iter_mut().flatten() {
            p.pixel.start = packed.reserve(p.part_len(p.pixel));
        }
        packed.layers = layers;
        packed
    }

    fn reserve(&mut self, len: usize) -> u64 {
        let start = self.len;
        self.len += len.next_multiple_of(32);
        start as u64
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        (self.len * size_of::<f32>()) as u64
    }

    /// Reads, folds and packs layer after layer and hands each piece to `put`, with the float at which it
    /// begins.
    ///
    /// # Errors
    /// As for [`Weights::fold`], and those of `put`.
    pub fn fill(
        &self,
        network: &Network,
        weights: &Weights,
        mut put: impl FnMut(u64, &[f32]) -> Result<()>,
    ) -> Result<()> {
        for (layer, packed) in network.layers.iter().zip(&self.layers) {
            let read = LayerWeights::read(network, weights, layer)?;
            for (&parity, packed) in layer.parities().iter().zip(packed) {
                let [row, pixel] = read.parts(network, layer, parity, packed);
                put(packed.row.start, &row)?;
                put(packed.pixel.start, &pixel)?;
                put(packed.bias, &read.biases(layer, packed, self.classes))?;
            }
        }
        Ok(())
    }
}

/// The variables of one layer, folded.
struct LayerWeights {
    folded: Vec<(VariableId, Folded)>,
    class_term: Option<Vec<f32>>,
}

/// The output channel of the layer's sum that lane `o` of a slice holds, if there is one.
fn output(layer: &Layer, slice: usize, o: usize) -> Option<usize> {
    match layer.epilogue {
        Epilogue::Store => Some(slice * SLICE + o).filter(|&c| c < layer.sums),
        Epilogue::Gate { .. } => {
            let half = layer.sums / 2;
            let channel = slice / 2 * SLICE + o;
            (channel < half).then_some(slice % 2 * half + channel)
        }
    }
}

impl LayerWeights {
    /// Reads each variable once.
    fn read(network: &Network, weights: &Weights, layer: &Layer) -> Result<LayerWeights> {
        let biases = layer.biases.iter().map(|b| match *b {
            Bias::Every(variable) | Bias::OnOnes { variable, .. } => variable,
        });
        let mut ids: Vec<_> = layer.taps.iter().map(|t| t.variable).chain(biases).collect();
        ids.sort_unstable();
        ids.dedup();
        let fold = |id: VariableId| Ok((id, weights.fold(&network.variables[id])?));
        let folded = ids.into_iter().map(fold).collect::<Result<_>>()?;
        let class_term = layer.class_term.map(|id| weights.class_term(&network.variables[id]));
        let class_term = class_term.transpose()?.map(|term| term.into_owned());
        Ok(LayerWeights { folded, class_term })
    }

    fn folded(&self, id: VariableId) -> &Folded {
        let at = self.folded.binary_search_by_key(&id, |(id, _)| *id);
        &self.folded[at.expect("a variable of this layer")].1
    }

    /// The weights of the row phase's taps and of the others.
    fn parts(
        &self,
        network: &Network,
        layer: &Layer,
        parity: [usize; 2],
        packed: &PackedLayer,
    ) -> [Vec<f32>; 2] {
        let hoisted = schedule::hoisted_taps(network, layer, parity);
        let mut parts = [packed.row, packed.pixel].map(|p| vec![0.0; packed.part_len(p)]);
        let mut next_chunk = [0; 2];
        for (index, tap) in layer.taps_of(parity).enumerate() {
            let which = usize::from(index >= hoisted);
            let chunks_of_part = [packed.row, packed.pixel][which].chunks;
            let variable = &network.variables[tap.variable];
            let kernel = &self.folded(tap.variable).kernel;
            let channels = network.tensors[tap.source].channels;
            for (i, input) in tap.inputs.iter().cloned().flatten().enumerate() {
                let (sign, channel) = (i / channels, i % channels);
                let chunk = next_chunk[which] + channel / CHUNK;
                let row = sign * CHUNK + channel % CHUNK;
                // The constant 1 is the image's last channel.
                let on_ones = layer.biases.iter().find_map(|b| match *b {
                    Bias::OnOnes { variable, tap } if tap == index && i + 1 == layer.depth => Some(variable),
                    _ => None,
                });
                let from = (tap.position * variable.inputs + input) * variable.outputs;
                for slice in 0..packed.slices {
                    let to = ((slice * packed.rows + row) * chunks_of_part + chunk) * SLICE;
                    for (o, to) in parts[which][to..to + SLICE].iter_mut().enumerate() {
                        let Some(channel) = output(layer, slice, o) else { continue };
                        *to = kernel[from + channel] + on_ones.map_or(0.0, |v| self.folded(v).bias[channel]);
                    }
                }
            }
            next_chunk[which] += chunks(channels);
        }
        parts
    }

    /// Biases with the class term: `[classes][slices][SLICE]`.
    fn biases(&self, layer: &Layer, packed: &PackedLayer, classes: usize) -> Vec<f32> {
        let mut all = Vec::with_capacity(classes * packed.slices * SLICE);
        for class in 0..classes {
            for place in 0..packed.slices * SLICE {
                let channel = output(layer, place / SLICE, place % SLICE);
                all.push(channel.map_or(0.0, |channel| self.bias(layer, class, channel)));
            }
        }
        all
    }

    fn bias(&self, layer: &Layer, class: usize, channel: usize) -> f32 {
        let biases = layer.biases.iter().filter_map(|b| match *b {
            Bias::Every(variable) => Some(self.folded(variable).bias[channel]),
            Bias::OnOnes { .. } => None,
        });
        let bias: f32 = biases.sum();
        bias + self.class_term.as_ref().map_or(0.0, |term| term[class * layer.sums + channel])
    }
}
