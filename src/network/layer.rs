//! The words in which a network is described: variables, tensors, taps and layers.
//!
//! The idea: a layer is a sum over taps in a fixed order and an epilogue. That is all an engine needs to
//! know to run it, to cache it, and to split it into what is known when a row begins and what is not.

use std::ops::Range;

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// `u`: sees the rows above.
    Vertical,
    /// `ul`: sees the rows above and the pixels to the left.
    Horizontal,
}

/// The kind of a variable, which fixes the shapes of its tensors and how its norm is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableKind {
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
    Conditional,
}

/// A variable of the model: a kernel with gain and bias, or the class term of a resnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The name without scope: `conv2d_0`.
    pub name: String,
    /// What it is.
    pub kind: VariableKind,
    /// Input channels (classes for [`VariableKind::Conditional`]).
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
}

impl Variable {
    /// The tensors that make the variable, by name (`conv2d_0/V`) and shape.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let shape = match self.kind {
            VariableKind::Conv { kernel: [h, w] } => vec![h, w, self.inputs, self.outputs],
            VariableKind::Deconv { kernel: [h, w] } => vec![h, w, self.outputs, self.inputs],
            VariableKind::Dense => vec![self.inputs, self.outputs],
            VariableKind::Conditional => {
                return vec![(format!("{}/hw", self.name), vec![self.inputs, self.outputs])];
            }
        };
        vec![
            (format!("{}/V", self.name), shape),
            (format!("{}/g", self.name), vec![self.outputs]),
            (format!("{}/b", self.name), vec![self.outputs]),
        ]
    }

    /// Positions of the kernel: `height * width`, 1 for a dense layer.
    pub fn positions(&self) -> usize {
        match self.kind {
            VariableKind::Conv { kernel } | VariableKind::Deconv { kernel } => kernel[0] * kernel[1],
            VariableKind::Dense | VariableKind::Conditional => 1,
        }
    }
}

/// Index of a [`Variable`] in [`super::Network::variables`].
pub type VariableId = usize;
/// Index of a [`Tensor`] in [`super::Network::tensors`].
pub type TensorId = usize;

/// What a layer reads and writes: `[height / level, width / level, channels]` for each image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// A name for people: `u/4`, the fifth element of the list `u` of the up pass.
    pub name: String,
    /// The stream that makes it.
    pub stream: Stream,
    /// The stride of its grid: 1, 2 or 4.
    pub level: usize,
    /// Channels before any activation.
    pub channels: usize,
}

/// In which form a layer reads its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// As they are.
    Raw,
    /// Through the model's nonlinearity.
    Activated,
    /// Through a plain elu, whatever the model's nonlinearity.
    Elu,
}

/// How the grid of a layer's sources relates to the grid of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// The same grid: output (i, j) looks around input (i, j).
    Same,
    /// Stride 2: output (i, j) looks around input (2i, 2j).
    Down,
    /// Transposed, stride 2: output (i, j) looks around input (i / 2, j / 2), through taps of its own
    /// for each parity of i and j.
    Up,
}

/// One term of a layer's sum: `weights[position][rows] . source(row + self.row, column + self.column)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// What is read.
    pub source: TensorId,
    /// Row offset in the source's grid, never positive.
    pub row: isize,
    /// Column offset in the source's grid.
    pub column: isize,
    /// The weights.
    pub variable: VariableId,
    /// Position in the kernel, `row * kernel width + column`.
    pub position: usize,
    /// Input rows of the kernel at that position, in the order of the source's channels.
    pub inputs: Vec<Range<usize>>,
    /// With [`Sampling::Up`]: the parities (row, column) of the outputs that this tap serves.
    pub parity: Option<[usize; 2]>,
}

impl Tap {
    /// Channels read.
    pub fn depth(&self) -> usize {
        self.inputs.iter().map(|r| r.len()).sum()
    }
}

/// What happens to the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// The sum is the output.
    Store,
    /// `output = residual + sum[..n] * sigmoid(sum[n..])`.
    Gate {
        /// The input of the resnet.
        residual: TensorId,
    },
}

/// Where a layer's bias comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// Added to every output.
    Every(VariableId),
    /// The output of the convolution is shifted down or right, so its first row or column is zero and
    /// has no bias. Exact and free of special cases: the bias rides on the constant-1 channel of
    /// this tap, which is 0 outside the image.
    OnOnes {
        /// Whose bias.
        variable: VariableId,
        /// Index in [`Layer::taps`].
        tap: usize,
    },
}

/// A layer: a sum over taps, then an epilogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// A name for people: `ul/up/1/conv2`.
    pub name: String,
    /// Its stream.
    pub stream: Stream,
    /// The stride of the grid of its output.
    pub level: usize,
    /// Grid of the sources.
    pub sampling: Sampling,
    /// Form of the sources.
    pub form: Form,
    /// Channels of one source in that form.
    pub depth: usize,
    /// The terms in the order of summation: rows above first, then the skips from `u` and from `ul`,
    /// then this row from left to right.
    pub taps: Vec<Tap>,
    /// Biases.
    pub biases: Vec<Bias>,
    /// The class term, added to the bias.
    pub class_term: Option<VariableId>,
    /// What happens to the sum.
    pub epilogue: Epilogue,
    /// Channels of the sum.
    pub sums: usize,
    /// The tensor made.
    pub output: TensorId,
}

impl Layer {
    /// The parities that need weights of their own: all four for [`Sampling::Up`], else one.
    pub fn parities(&self) -> &'static [[usize; 2]] {
        match self.sampling {
            Sampling::Up => &[[0, 0], [0, 1], [1, 0], [1, 1]],
            _ => &[[0, 0]],
        }
    }

    /// The taps that serve outputs of one parity.
    pub fn taps_of(&self, parity: [usize; 2]) -> impl Iterator<Item = &Tap> {
        self.taps.iter().filter(move |t| t.parity.is_none_or(|p| p == parity))
    }

    /// Multiply-adds for one output position, the mean over parities.
    pub fn multiply_adds(&self) -> usize {
        self.taps.iter().map(|t| t.depth()).sum::<usize>() * self.sums / self.parities().len()
    }
}
