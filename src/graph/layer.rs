//! The words in which a network is described: parameters, maps, taps and layers.
//!
//! The idea: a layer is a sum over taps in a fixed order and an epilogue. That is all an engine needs to
//! know to run it, to cache it, and to split it into what is known when a row begins and what is not.

use std::ops::Range;

use crate::heads::{Head, categorical, mu_law};

/// The kind of a parameter, which fixes the shapes of its arrays and how its norm is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// `V` is `[height, width, in, out]`.
    Conv {
        /// Height and width of the kernel.
        kernel: [usize; 2],
    },
    /// `V` is `[height, width, out, in]`.
    Deconv {
        /// Height and width of the kernel.
        kernel: [usize; 2],
    },
    /// `V` is `[in, out]` (nin).
    Dense,
    /// `hw` is `[classes, out]`.
    PerClass,
}

/// A parameter of the model: a kernel with gain and bias, or the class term of a resnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name without scope: `conv2d_0`.
    pub name: String,
    /// What it is.
    pub kind: ParameterKind,
    /// Input channels (classes for [`ParameterKind::PerClass`]).
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Whether it has a bias: an array `b` of its own.
    pub bias: bool,
}

impl Parameter {
    /// The arrays that make the parameter, by name (`conv2d_0/V`) and shape: `V` and `g`, or `W`, in the shape of
    /// `V`, where weight normalisation is `folded`, and `b` where it has a bias; `hw` of
    /// [`ParameterKind::PerClass`].
    pub fn arrays(&self, folded: bool) -> Vec<(String, Vec<usize>)> {
        let shape = match self.kind {
            ParameterKind::Conv { kernel: [h, w] } => vec![h, w, self.inputs, self.outputs],
            ParameterKind::Deconv { kernel: [h, w] } => vec![h, w, self.outputs, self.inputs],
            ParameterKind::Dense => vec![self.inputs, self.outputs],
            ParameterKind::PerClass => {
                return vec![(format!("{}/hw", self.name), vec![self.inputs, self.outputs])];
            }
        };
        let kernel = if folded { "W" } else { "V" };
        let array = |part: &str, shape: Vec<usize>| (format!("{}/{part}", self.name), shape);
        let mut arrays = vec![array(kernel, shape)];
        arrays.extend((!folded).then(|| array("g", vec![self.outputs])));
        arrays.extend(self.bias.then(|| array("b", vec![self.outputs])));
        arrays
    }

    /// Positions of the kernel: `height * width`, 1 for a dense layer.
    pub fn positions(&self) -> usize {
        match self.kind {
            ParameterKind::Conv { kernel } | ParameterKind::Deconv { kernel } => kernel[0] * kernel[1],
            ParameterKind::Dense | ParameterKind::PerClass => 1,
        }
    }
}

/// Index of a [`Parameter`] in [`super::Graph::parameters`].
pub type ParameterId = usize;
/// Index of a [`Map`] in [`super::Graph::maps`].
pub type MapId = usize;

/// What a layer reads and writes: `[height / stride, width / stride, channels]` for each image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// A name for people: `u/up/4`, what the vertical stream's fourth resnet makes.
    pub name: String,
    /// Pixels of the image from one position to the next.
    pub stride: usize,
    /// Channels before any activation.
    pub channels: usize,
}

/// What comes into a graph from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// How a pixel that is generated enters the image's map.
    pub encoding: Encoding,
    /// Whether a position of the image's map holds not its own pixel but the one generated just before it, in the
    /// order of rows and columns; the first holds the pixel that a run starts from. A layer may then look at the
    /// position that it makes. Outside of the image the map is zero all the same.
    pub previous: bool,
    /// A map that is given for every position before the first is generated: conditioning.
    pub known: Option<MapId>,
}

impl Input {
    /// Writes a pixel `[values]` as the image's map has it, `[channels]`. A symbol is the one whose value is nearest.
    ///
    /// # Panics
    /// If there are more values than channels, or none.
    pub fn encode(&self, head: &Head, pixel: &[f32], channels: &mut [f32]) {
        match self.encoding {
            Encoding::Values => {
                channels.fill(1.0);
                channels[..pixel.len()].copy_from_slice(pixel);
            }
            Encoding::OneHot => {
                channels.fill(0.0);
                channels[categorical::symbol(pixel[0], channels.len())] = 1.0;
            }
            Encoding::MuLaw => {
                channels[0] = mu_law::expand(pixel[0], head.logits());
            }
        }
    }
}

/// How a pixel is written into the image's map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Its values, then, if the map has one channel more, a constant 1.
    #[default]
    Values,
    /// Of a symbol: 1 in its own channel, 0 in those of all others. A tap is a look-up then.
    OneHot,
    /// The amplitude that a value stands for by the mu-law: one channel in [-1, 1]. A given sound's amplitudes are not
    /// cut into symbols.
    MuLaw,
}

/// How a layer reads its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Activation {
    /// As they are.
    Identity,
    /// `x` where positive, else `exp(x) - 1`.
    Elu,
    /// `max(x, 0)`.
    Relu,
    /// `elu(concat(x, -x))` on the channels, which doubles them.
    ConcatElu,
}

impl Activation {
    /// All of them, in the enum's order.
    pub const ALL: [Activation; 4] =
        [Activation::Identity, Activation::Elu, Activation::Relu, Activation::ConcatElu];

    /// Channels that one channel becomes.
    pub fn copies(self) -> usize {
        if self == Activation::ConcatElu { 2 } else { 1 }
    }
}

/// One term of a layer's sum: `weights[position][inputs] . source(row + self.row, column + self.column)`.
///
/// Rows and columns count in the source's positions from the one that the output lies on: output (i, j) of a
/// map of stride s looks around position (i s / t, j s / t), rounded down, of a source of stride t.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// What is read.
    pub source: MapId,
    /// Row offset, never positive.
    pub row: isize,
    /// Column offset.
    pub column: isize,
    /// The weights.
    pub parameter: ParameterId,
    /// Position in the kernel, `row * kernel width + column`.
    pub position: usize,
    /// Inputs of the kernel at that position, in the order of the source's channels as they are read.
    pub inputs: Vec<Range<usize>>,
    /// Where the source has the wider stride: the outputs (row, column modulo the ratio of the strides) that
    /// this tap serves. `None` for all.
    pub parity: Option<[usize; 2]>,
    /// A parameter whose bias rides on the source's last channel, the constant 1 of the image, which is 0
    /// outside: so a convolution whose output is shifted down or right has no bias in its first row or column,
    /// without a special case.
    pub bias_on_ones: Option<ParameterId>,
}

impl Tap {
    /// A tap that reads all channels of its source (twice as many through concat_elu) with as many inputs of its
    /// parameter, for outputs of every parity. Callers change what differs.
    pub fn new(
        source: MapId,
        [row, column]: [isize; 2],
        parameter: ParameterId,
        position: usize,
        in_channels: usize,
    ) -> Tap {
        let inputs = std::iter::once(0..in_channels).collect();
        Tap { source, row, column, parameter, position, inputs, parity: None, bias_on_ones: None }
    }

    /// Channels read.
    pub fn in_channels(&self) -> usize {
        self.inputs.iter().map(|r| r.len()).sum()
    }
}

/// What becomes of a finished sum: `value`, then `* sigmoid(gate)`, then `+ map`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epilogue {
    /// Whether the sum, or its first half where it is gated, goes through tanh.
    pub tanh: bool,
    /// Whether the sum has twice the output's channels, whose second half are gates.
    pub gated: bool,
    /// A map of the output's stride and channels that is added, as it is.
    pub add: Option<MapId>,
}

/// A bias of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// A parameter's bias, at every output.
    Every(ParameterId),
    /// A term for each class, constant over the image.
    PerClass(ParameterId),
}

/// A layer: a sum over taps, then an epilogue. Its sources all have one stride, which divides the output's or
/// is a multiple of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// A name for people: `ul/up/1/conv2`.
    pub name: String,
    /// The terms in the order of summation. [`super::Graph::new`] brings those to the front that are known when
    /// a row begins.
    pub taps: Vec<Tap>,
    /// Biases, with which the sum begins.
    pub biases: Vec<Bias>,
    /// How the sources are read.
    pub read: Activation,
    /// What becomes of the sum.
    pub epilogue: Epilogue,
    /// The map made.
    pub output: MapId,
}

impl Layer {
    /// The taps that serve outputs of one parity.
    pub fn taps_of(&self, parity: [usize; 2]) -> impl Iterator<Item = &Tap> {
        self.taps.iter().filter(move |t| t.parity.is_none_or(|p| p == parity))
    }
}
