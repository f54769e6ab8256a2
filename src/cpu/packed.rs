//! Weights in the order in which the kernels read them.
//!
//! The idea: weight norm is folded and the taps of a layer are laid behind one another once, at load,
//! as panels `[inputs of all taps][16 outputs]`. A layer with a gate alternates panels of values and of
//! gates, so that both halves of an output meet in one tile.

use std::borrow::Cow;
use std::sync::Mutex;

use super::buffer::Buffer;
use super::kernels::LANES;
use super::team;
use crate::error::{Error, Result};
use crate::network::{Bias, Epilogue, Layer, Network, Tap, VariableId};
use crate::weights::{Folded, Weights};

/// One layer's weights for outputs of one parity.
#[derive(Clone, Debug)]
pub struct PackedLayer {
    /// Where the panels begin: `[panels][inputs][LANES]`.
    pub weights: usize,
    /// Inputs of all taps together.
    pub inputs: usize,
    /// Units of outputs: one panel each, or a panel of values and one of gates.
    pub units: usize,
    /// Panels of a unit, 1 or 2.
    pub unit: usize,
    /// Where the biases begin: `[classes, at least 1][panels][LANES]`.
    pub biases: usize,
}

impl PackedLayer {
    /// Panels of the layer.
    pub fn panels(&self) -> usize {
        self.units * self.unit
    }

    /// Floats of one row of sums.
    pub fn width(&self) -> usize {
        self.panels() * LANES
    }
}

/// All layers' weights.
pub struct Packed {
    /// Panels and biases.
    pub floats: Buffer,
    /// For each layer, one entry for each parity.
    pub layers: Vec<Vec<PackedLayer>>,
}

impl Packed {
    /// Reads, folds and packs the weights of a network, on so many threads: each takes a layer at a time.
    ///
    /// # Errors
    /// As for [`Weights::fold`]: of several variables that are wrong the first of the network's, whichever
    /// thread came upon it. [`Error::Threads`].
    pub fn new(network: &Network, weights: &Weights, threads: usize) -> Result<Packed> {
        let (layers, len) = plan(network);
        let mut floats = Buffer::zeroed(len);
        let mut jobs = Vec::new();
        let mut rest = floats.as_mut_slice();
        for (index, layer) in network.layers.iter().enumerate() {
            // Layers lie one behind the other.
            let begin = layers[index][0].weights;
            let end = layers.get(index + 1).map_or(len, |next| next[0].weights);
            let (own, others) = rest.split_at_mut(end - begin);
            rest = others;
            jobs.push(Job { layer, parities: &layers[index], begin, floats: own });
        }
        let threads = threads.min(jobs.len()).max(1);
        let jobs = Mutex::new(jobs.into_iter());
        let fault: Mutex<Option<(VariableId, Error)>> = Mutex::new(None);
        let next = || jobs.lock().unwrap_or_else(|e| e.into_inner()).next();
        team::run(&[threads], |_, _| {
            // To the end after a fault too: an earlier variable may be wrong as well.
            while let Some(job) = next() {
                if let Err((id, error)) = job.run(network, weights) {
                    let mut fault = fault.lock().unwrap_or_else(|e| e.into_inner());
                    if fault.as_ref().is_none_or(|(first, _)| id < *first) {
                        *fault = Some((id, error));
                    }
                }
            }
        })?;
        match fault.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some((_, error)) => Err(error),
            None => Ok(Packed { floats, layers }),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.floats.as_slice()) as u64
    }
}

/// A layer to pack.
struct Job<'a> {
    layer: &'a Layer,
    parities: &'a [PackedLayer],
    /// Where its floats begin among those of all layers.
    begin: usize,
    /// Its floats.
    floats: &'a mut [f32],
}

impl Job<'_> {
    /// Packs the layer; the error comes with its variable.
    fn run(self, network: &Network, weights: &Weights) -> std::result::Result<(), (VariableId, Error)> {
        let read = LayerWeights::read(network, weights, self.layer)?;
        for (&parity, packed) in self.layer.parities().iter().zip(self.parities) {
            let (weights, biases) = (packed.weights - self.begin, packed.biases - self.begin);
            let packed = PackedLayer { weights, biases, ..packed.clone() };
            fill(network, &read, self.layer, parity, &packed, self.floats);
        }
        Ok(())
    }
}

/// The weights of one layer. Layers share no variable, but the parities of a transposed convolution do:
/// read for all of them together, each variable is read once.
struct LayerWeights<'a> {
    /// By ascending id.
    folded: Vec<(VariableId, Folded)>,
    class_term: Option<Cow<'a, [f32]>>,
}

impl<'a> LayerWeights<'a> {
    /// Reads them in the network's order, so that an error is the first.
    fn read(
        network: &Network,
        weights: &'a Weights,
        layer: &Layer,
    ) -> std::result::Result<LayerWeights<'a>, (VariableId, Error)> {
        let biases = layer.biases.iter().map(|b| match *b {
            Bias::Every(variable) | Bias::OnOnes { variable, .. } => variable,
        });
        let taps = layer.taps.iter().map(|t| t.variable);
        let mut ids: Vec<_> = taps.chain(biases).chain(layer.class_term).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut read = LayerWeights { folded: Vec::new(), class_term: None };
        for id in ids {
            let variable = &network.variables[id];
            if layer.class_term == Some(id) {
                read.class_term = Some(weights.class_term(variable).map_err(|e| (id, e))?);
            } else {
                read.folded.push((id, weights.fold(variable).map_err(|e| (id, e))?));
            }
        }
        Ok(read)
    }

    fn folded(&self, id: VariableId) -> &Folded {
        let at = self.folded.binary_search_by_key(&id, |(id, _)| *id);
        &self.folded[at.expect("a variable of this layer")].1
    }
}

fn plan(network: &Network) -> (Vec<Vec<PackedLayer>>, usize) {
    let classes = network.config.classes.max(1);
    let mut len = 0;
    let mut layers = Vec::new();
    for layer in &network.layers {
        let unit = if layer.epilogue == Epilogue::Store { 1 } else { 2 };
        let units = (layer.sums / unit).div_ceil(LANES);
        let mut parities = Vec::new();
        for &parity in layer.parities() {
            let inputs: usize = layer.taps_of(parity).map(Tap::depth).sum();
            let mut packed = PackedLayer { weights: len, inputs, units, unit, biases: 0 };
            len += inputs * packed.width();
            packed.biases = len;
            len += classes * packed.width();
            parities.push(packed);
        }
        layers.push(parities);
    }
    (layers, len)
}

/// The output that lane `lane` of panel `panel` stands for, if there is one.
fn output(packed: &PackedLayer, sums: usize, panel: usize, lane: usize) -> Option<usize> {
    let channels = sums / packed.unit;
    let channel = panel / packed.unit * LANES + lane;
    (channel < channels).then_some(panel % packed.unit * channels + channel)
}

fn fill(
    network: &Network,
    weights: &LayerWeights,
    layer: &Layer,
    parity: [usize; 2],
    packed: &PackedLayer,
    floats: &mut [f32],
) {
    let folded = |id| weights.folded(id);

    let mut row = 0;
    for (index, tap) in layer.taps_of(parity).enumerate() {
        let variable = &network.variables[tap.variable];
        let kernel = &folded(tap.variable).kernel;
        for (i, input) in tap.inputs.iter().cloned().flatten().enumerate() {
            // The constant 1 is the image's last channel.
            let on_ones = layer.biases.iter().find_map(|b| match *b {
                Bias::OnOnes { variable, tap: t } if t == index && i + 1 == layer.depth => Some(variable),
                _ => None,
            });
            let from = (tap.position * variable.inputs + input) * variable.outputs;
            let from = &kernel[from..from + variable.outputs];
            for panel in 0..packed.panels() {
                let to = packed.weights + (panel * packed.inputs + row) * LANES;
                for (lane, to) in floats[to..to + LANES].iter_mut().enumerate() {
                    let Some(o) = output(packed, layer.sums, panel, lane) else {
                        continue;
                    };
                    *to = from[o] + on_ones.map_or(0.0, |v| folded(v).bias[o]);
                }
            }
            row += 1;
        }
    }

    for class in 0..network.config.classes.max(1) {
        for panel in 0..packed.panels() {
            let to = packed.biases + class * packed.width() + panel * LANES;
            for (lane, to) in floats[to..to + LANES].iter_mut().enumerate() {
                let Some(o) = output(packed, layer.sums, panel, lane) else {
                    continue;
                };
                for bias in &layer.biases {
                    if let Bias::Every(variable) = *bias {
                        *to += folded(variable).bias[o];
                    }
                }
                if let Some(class_term) = &weights.class_term {
                    *to += class_term[class * layer.sums + o];
                }
            }
        }
    }
}
