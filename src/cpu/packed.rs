//! Weights in the order in which the kernels read them.
//!
//! The idea: weight norm is folded and the taps of a layer are laid behind one another once, at load,
//! as panels `[inputs of all taps][16 outputs]`. A layer with a gate alternates panels of values and of
//! gates, so that both halves of an output meet in one tile. What the row phase reads and what the pixel
//! phase reads are apart, so that the latter is one stretch of memory, in the order of its use, and may
//! be stored in half the bytes.

use super::buffer::Buffer;
use super::kernels::{LANES, Precision};
use crate::network::{Bias, Epilogue, Layer, Network, Tap};
use crate::schedule;
use crate::weights::Weights;

/// The weights of some of a layer's taps: `[panels][lines][LANES]`, where a line is one input's row, or
/// with [`Precision::Bf16`] two.
#[derive(Clone, Copy, Debug)]
pub struct Panels {
    /// Where they begin, in floats.
    pub start: usize,
    /// Lines of a panel, of all taps together.
    pub lines: usize,
    /// How they are stored.
    pub precision: Precision,
}

impl Panels {
    /// Floats from one panel to the next.
    pub fn stride(&self) -> usize {
        self.lines * LANES
    }
}

/// One layer's weights for outputs of one parity.
#[derive(Clone, Debug)]
pub struct PackedLayer {
    /// For the taps that the row phase sums.
    pub row: Panels,
    /// For the others.
    pub pixel: Panels,
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
    /// Folds and packs the weights of a network; those of the pixel phase in the given precision.
    pub fn new(network: &Network, weights: &Weights, precision: Precision) -> Packed {
        let (layers, len) = plan(network, precision);
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

fn plan(network: &Network, precision: Precision) -> (Vec<Vec<PackedLayer>>, usize) {
    let classes = network.config.classes.max(1);
    let mut len = 0;
    let mut reserve = |floats: usize| {
        let start = len;
        len += floats;
        start
    };
    let mut layers: Vec<Vec<PackedLayer>> = Vec::new();
    for layer in &network.layers {
        let unit = if layer.epilogue == Epilogue::Store { 1 } else { 2 };
        let units = (layer.sums / unit).div_ceil(LANES);
        let panels = |precision: Precision, taps: &[&Tap], start: usize| {
            let lines = taps.iter().map(|t| precision.lines(t.depth())).sum();
            Panels { start, lines, precision }
        };
        let parities = layer.parities().iter().map(|&parity| {
            let taps: Vec<_> = layer.taps_of(parity).collect();
            let (row, pixel) = taps.split_at(schedule::hoisted_taps(network, layer, parity));
            let mut row = panels(Precision::F32, row, 0);
            row.start = reserve(units * unit * row.stride());
            let biases = reserve(classes * units * unit * LANES);
            PackedLayer { row, pixel: panels(precision, pixel, 0), units, unit, biases }
        });
        layers.push(parities.collect());
    }
    for packed in layers.iter_mut().flatten() {
        packed.pixel.start = reserve(packed.panels() * packed.pixel.stride());
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

    let hoisted = schedule::hoisted_taps(network, layer, parity);
    // The next line of each part.
    let mut lines = [0; 2];
    for (index, tap) in layer.taps_of(parity).enumerate() {
        let variable = &network.variables[tap.variable];
        let kernel = &folded(tap.variable).kernel;
        let (part, line) = match index < hoisted {
            true => (&packed.row, &mut lines[0]),
            false => (&packed.pixel, &mut lines[1]),
        };
        for (i, input) in tap.inputs.iter().cloned().flatten().enumerate() {
            // The constant 1 is the image's last channel.
            let on_ones = layer.biases.iter().find_map(|b| match *b {
                Bias::OnOnes { variable, tap: t } if t == index && i + 1 == layer.depth => Some(variable),
                _ => None,
            });
            let from = (tap.position * variable.inputs + input) * variable.outputs;
            let from = &kernel[from..from + variable.outputs];
            for panel in 0..packed.panels() {
                let to = part.start + panel * part.stride();
                for lane in 0..LANES {
                    let Some(o) = output(packed, layer.sums, panel, lane) else {
                        continue;
                    };
                    let weight = from[o] + on_ones.map_or(0.0, |v| folded(v).bias[o]);
                    match part.precision {
                        Precision::F32 => floats[to + (*line + i) * LANES + lane] = weight,
                        Precision::Bf16 => {
                            let pair = &mut floats[to + (*line + i / 2) * LANES + lane];
                            *bytemuck::cast_mut::<f32, u32>(pair) |=
                                u32::from(bf16(weight)) << (16 * (i % 2));
                        }
                    }
                }
            }
        }
        *line += part.precision.lines(tap.depth());
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

/// The nearest bfloat16 to a finite number, ties to even: its upper half.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}
