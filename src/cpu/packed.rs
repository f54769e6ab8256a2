//! Weights in the order in which the kernels read them.
//!
//! The idea: weight norm is folded and the taps of a layer are laid behind one another once, at load,
//! as panels `[inputs of all taps][16 outputs]`. A layer with a gate alternates panels of values and of
//! gates, so that both halves of an output meet in one tile. What the row phase reads and what the pixel
//! phase reads are apart, so that the latter is one stretch of memory, in the order of its use, and may
//! be stored in half the bytes.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Mutex;

use super::buffer::Buffer;
use super::kernels::{LANES, Precision};
use super::team;
use crate::error::{Error, Result};
use crate::network::{Bias, Epilogue, Layer, Network, Tap, VariableId};
use crate::schedule;
use crate::weights::{Folded, Weights};

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
    /// Reads, folds and packs the weights of a network, those of the pixel phase in the given precision,
    /// on so many threads: each takes a layer at a time.
    ///
    /// # Errors
    /// As for [`Weights::fold`]: of several variables that are wrong the first of the network's, whichever
    /// thread came upon it. [`Error::Threads`], [`Error::Allocate`].
    pub fn new(network: &Network, weights: &Weights, precision: Precision, threads: usize) -> Result<Packed> {
        let (layers, len) = plan(network, precision);
        let mut floats = Buffer::zeroed(len)?;
        let mut jobs = Vec::new();
        // Layers lie one behind the other, all of them for the row phase and then for the pixel phase.
        let first = |packed: &PackedLayer| [packed.row.start, packed.pixel.start];
        let boundary = first(&layers[0][0])[1];
        let (rows, pixels) = floats.as_mut_slice().split_at_mut(boundary);
        let mut rest = [rows, pixels];
        for (index, layer) in network.layers.iter().enumerate() {
            let begin = first(&layers[index][0]);
            let end = layers.get(index + 1).map_or([boundary, len], |next| first(&next[0]));
            let own = std::array::from_fn(|i| {
                let (own, others) = std::mem::take(&mut rest[i]).split_at_mut(end[i] - begin[i]);
                rest[i] = others;
                own
            });
            jobs.push(Job { layer, parities: &layers[index], begin, floats: own });
        }
        let threads = threads.min(jobs.len()).max(1);
        let jobs = Mutex::new(jobs.into_iter());
        let fault: Mutex<Option<(VariableId, Error)>> = Mutex::new(None);
        let next = || jobs.lock().unwrap_or_else(|e| e.into_inner()).next();
        team::run(&[threads], |_, member| {
            // To the end after a fault too: an earlier variable may be wrong as well.
            while let Some(job) = next().filter(|_| !member.abandoned()) {
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
    /// Where its floats for the row phase and for the pixel phase begin among those of all layers.
    begin: [usize; 2],
    /// Its floats.
    floats: [&'a mut [f32]; 2],
}

impl Job<'_> {
    /// Packs the layer; the error comes with its variable.
    fn run(mut self, network: &Network, weights: &Weights) -> std::result::Result<(), (VariableId, Error)> {
        let read = LayerWeights::read(network, weights, self.layer)?;
        for (&parity, packed) in self.layer.parities().iter().zip(self.parities) {
            let [row, pixel] = self.begin;
            let mut packed = packed.clone();
            packed.row.start -= row;
            packed.biases -= row;
            packed.pixel.start -= pixel;
            fill(network, &read, self.layer, parity, &packed, &mut self.floats);
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

/// The channels of the sum that a panel holds, from lane 0 on: at most [`LANES`].
fn outputs(packed: &PackedLayer, sums: usize, panel: usize) -> Range<usize> {
    let channels = sums / packed.unit;
    let first = panel / packed.unit * LANES;
    let half = panel % packed.unit * channels;
    half + first..half + channels.min(first + LANES)
}

/// Fills a layer's panels of the row phase, with its biases, and of the pixel phase.
fn fill(
    network: &Network,
    weights: &LayerWeights,
    layer: &Layer,
    parity: [usize; 2],
    packed: &PackedLayer,
    [rows, pixels]: &mut [&mut [f32]; 2],
) {
    let folded = |id| weights.folded(id);
    let hoisted = schedule::hoisted_taps(network, layer, parity);
    // The next line of each part.
    let mut lines = [0; 2];
    for (index, tap) in layer.taps_of(parity).enumerate() {
        let variable = &network.variables[tap.variable];
        let kernel = &folded(tap.variable).kernel;
        let (part, floats, line) = match index < hoisted {
            true => (&packed.row, &mut *rows, &mut lines[0]),
            false => (&packed.pixel, &mut *pixels, &mut lines[1]),
        };
        for (i, input) in tap.inputs.iter().cloned().flatten().enumerate() {
            // The constant 1 is the image's last channel.
            let on_ones = layer.biases.iter().find_map(|b| match *b {
                Bias::OnOnes { variable, tap: t } if t == index && i + 1 == layer.depth => Some(variable),
                _ => None,
            });
            let from = (tap.position * variable.inputs + input) * variable.outputs;
            for panel in 0..packed.panels() {
                let outputs = outputs(packed, layer.sums, panel);
                let mut row = [0.0; LANES];
                let row = &mut row[..outputs.len()];
                row.copy_from_slice(&kernel[from + outputs.start..from + outputs.end]);
                if let Some(variable) = on_ones {
                    row.iter_mut().zip(&folded(variable).bias[outputs]).for_each(|(x, b)| *x += b);
                }
                let to = part.start + panel * part.stride();
                match part.precision {
                    Precision::F32 => floats[to + (*line + i) * LANES..][..row.len()].copy_from_slice(row),
                    Precision::Bf16 => {
                        let pairs = &mut floats[to + (*line + i / 2) * LANES..][..row.len()];
                        for (pair, x) in bytemuck::cast_slice_mut::<f32, u32>(pairs).iter_mut().zip(row) {
                            *pair |= u32::from(bf16(*x)) << (16 * (i % 2));
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
            let outputs = outputs(packed, layer.sums, panel);
            for (to, o) in rows[to..].iter_mut().zip(outputs) {
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

/// The nearest bfloat16 to a finite number, ties to even: its upper half.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}
