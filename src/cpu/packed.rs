//! Weights in the order in which the kernels read them.
//!
//! The idea: weight norm is folded and the taps of a layer are laid behind one another once, at load,
//! as panels `[inputs of all taps][16 outputs]`. A layer with a gate alternates panels of values and of
//! gates, so that both halves of an output meet in one tile.

use super::buffer::Buffer;
use super::kernels::LANES;
use crate::network::{Bias, Epilogue, Layer, Network, Tap};
use crate::weights::Weights;

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
    /// Folds and packs the weights of a network.
    pub fn new(network: &Network, weights: &Weights) -> Packed {
        let (layers, len) = plan(network);
        let mut floats = Buffer::zeroed(len);
        // Several layers share no variable, but the parities of a transposed convolution do.
        for (layer, parities) in network.layers.iter().zip(&layers) {
            for (&parity, packed) in layer.parities().iter().zip(parities) {
                fill(network, weights, layer, parity, packed, floats.as_mut_slice());
            }
        }
        Packed { floats, layers }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.floats.as_slice()) as u64
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
    weights: &Weights,
    layer: &Layer,
    parity: [usize; 2],
    packed: &PackedLayer,
    floats: &mut [f32],
) {
    let ids = layer.taps_of(parity).map(|t| t.variable);
    let ids = ids.chain(layer.biases.iter().map(|b| match *b {
        Bias::Every(variable) | Bias::OnOnes { variable, .. } => variable,
    }));
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    let folded: Vec<_> = ids.iter().map(|&id| weights.fold(&network.variables[id])).collect();
    let folded = |id| &folded[ids.binary_search(&id).expect("collected above")];

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
                if let Some(variable) = layer.class_term {
                    let variable = &network.variables[variable];
                    *to += weights.class_term(variable)[class * variable.outputs + o];
                }
            }
        }
    }
}
