//! Graphs made by hand that no PixelCNN++ is.
//!
//! The idea: a whole PixelCNN++ can hide a mistake in a layer that it does not use that way. So small graphs are put
//! together here: only convolutions, strides and back, with and without skips and class terms; and one with all
//! that the language has and PixelCNN++ has not.

use fast_pixel_cnn::graph::*;
use fast_pixel_cnn::heads::Head;
use ndarray::{Array2, Array4};

/// Channels of the hidden layers: one full panel and a part of one.
const CHANNELS: usize = 18;

/// Offsets of a source: map, row, column, parity.
type Offset = (MapId, isize, isize, Option<[usize; 2]>);

/// Builds a graph of single layers; every layer's parameter is a fresh one.
struct Stack {
    parameters: Vec<Parameter>,
    maps: Vec<Map>,
    layers: Vec<Layer>,
    head: Head,
    classes: usize,
    input: Input,
}

impl Stack {
    fn new(head: Head, classes: usize) -> Stack {
        let image = Map { name: "image".into(), stride: 1, channels: head.values() + 1 };
        Stack {
            parameters: Vec::new(),
            maps: vec![image],
            layers: Vec::new(),
            head,
            classes,
            input: Input::default(),
        }
    }

    fn map(&mut self, stride: usize, channels: usize) -> MapId {
        let name = format!("map {}", self.maps.len());
        self.maps.push(Map { name, stride, channels });
        self.maps.len() - 1
    }

    fn parameter(&mut self, kind: ParameterKind, inputs: usize, outputs: usize) -> ParameterId {
        let name = format!("p{}", self.parameters.len());
        self.parameters.push(Parameter { name, kind, inputs, outputs, bias: true });
        self.parameters.len() - 1
    }

    /// A layer with some offsets. All taps that read as many channels have positions of one kernel.
    fn layer(
        &mut self,
        [stride, channels]: [usize; 2],
        read: Activation,
        offsets: &[Offset],
        epilogue: Epilogue,
        class: bool,
    ) -> MapId {
        let accumulators = if epilogue.gated { 2 * channels } else { channels };
        let mut kernels: Vec<(usize, ParameterId)> = Vec::new();
        let mut taps = Vec::new();
        for (position, &(source, row, column, parity)) in offsets.iter().enumerate() {
            let inputs = self.maps[source].channels * read.copies();
            let kernel = kernels.iter().find(|(channels, _)| *channels == inputs).map(|(_, id)| *id);
            let parameter = kernel.unwrap_or_else(|| {
                let kind = ParameterKind::Conv { kernel: [1, offsets.len()] };
                let id = self.parameter(kind, inputs, accumulators);
                kernels.push((inputs, id));
                id
            });
            taps.push(Tap { parity, ..Tap::new(source, [row, column], parameter, position, inputs) });
        }
        let mut biases: Vec<_> = kernels.iter().map(|(_, id)| Bias::Every(*id)).collect();
        if class && self.classes > 0 {
            biases.push(Bias::PerClass(self.parameter(ParameterKind::PerClass, self.classes, accumulators)));
        }
        let output = self.map(stride, channels);
        let name = format!("layer {output}");
        self.layers.push(Layer { name, taps, biases, read, epilogue, output });
        output
    }

    /// A layer that reads the pixels before this one: of the rows above, or of this row too.
    fn input(&mut self, left: bool) -> MapId {
        let offsets: &[Offset] = match left {
            false => &[(IMAGE, -2, 0, None), (IMAGE, -1, -1, None), (IMAGE, -1, 1, None)],
            true => &[(IMAGE, -1, 1, None), (IMAGE, 0, -1, None)],
        };
        self.layer([1, CHANNELS], Activation::Identity, offsets, Epilogue::default(), false)
    }

    /// A 2x3 or, where the pixels to the left are seen, 2x2 convolution, with a stride of its own.
    fn conv(&mut self, left: bool, source: MapId, ratio: usize, read: Activation, gate: bool) -> MapId {
        let last = if left { 0 } else { 1 };
        let offsets: Vec<Offset> =
            (-1..1).flat_map(|r| (-1..=last).map(move |c| (source, r, c, None))).collect();
        let epilogue = Epilogue { gated: gate, add: gate.then_some(source), tanh: false };
        let stride = ratio * self.maps[source].stride;
        let read = if ratio > 1 { Activation::Identity } else { read };
        self.layer([stride, CHANNELS], read, &offsets, epilogue, true)
    }

    /// A transposed convolution to a stride that is smaller by a ratio.
    fn up(&mut self, left: bool, source: MapId, ratio: usize) -> MapId {
        let mut offsets = Vec::new();
        for row in 0..ratio {
            for column in 0..ratio {
                offsets.push((source, 0, 0, Some([row, column])));
            }
            if !left {
                offsets.push((source, 0, 1, Some([row, ratio - 1])));
            }
        }
        let stride = self.maps[source].stride / ratio;
        self.layer([stride, CHANNELS], Activation::Identity, &offsets, Epilogue::default(), false)
    }

    /// Ends with the logits.
    fn logits(mut self, source: MapId) -> Graph {
        let shape = [1, self.head.logits()];
        self.layer(shape, Activation::Elu, &[(source, 0, 0, None)], Epilogue::default(), false);
        Graph::new(self.parameters, self.maps, self.layers, self.head, self.classes, self.input)
            .expect("a causal graph")
    }
}

/// The graphs by name, each with and without classes.
pub fn stacks(classes: usize) -> Vec<(&'static str, Graph)> {
    let mixture = Head::MixtureOfLogistics { mixtures: 2, channels: 3 };
    let new = || Stack::new(mixture, classes);
    let mut stacks = Vec::new();

    let mut s = new();
    let ul = s.input(true);
    let ul = s.conv(true, ul, 1, Activation::ConcatElu, false);
    let ul = s.conv(true, ul, 1, Activation::ConcatElu, true);
    stacks.push(("convolutions to the right and down", s.logits(ul)));

    // All taps are known when a row begins; what is added is not, so the last tap waits for the pixel.
    let mut s = new();
    let (u, mut x) = (s.input(false), s.input(true));
    for gated in [false, true] {
        let (read, epilogue) = (Activation::ConcatElu, Epilogue { gated, add: Some(x), tanh: false });
        x = s.layer([1, CHANNELS], read, &[(u, -1, 0, None), (u, 0, 0, None)], epilogue, false);
    }
    stacks.push(("a sum with what is not known", s.logits(x)));

    // Of odd rows all taps lie above; what is added is known when the row begins, but made then.
    let mut s = new();
    let (u, ul) = (s.input(false), s.input(true));
    let half = s.conv(true, ul, 2, Activation::Elu, false);
    let parities = [[0, 0], [0, 1], [1, 0], [1, 1]].map(|parity| (half, 0, 0, Some(parity)));
    let sum = Epilogue { gated: false, add: Some(u), tanh: false };
    let x = s.layer([1, CHANNELS], Activation::Identity, &parities, sum, false);
    stacks.push(("a sum with what the row has just made", s.logits(x)));

    let mut s = new();
    let ul = s.input(true);
    let mut x = s.conv(true, ul, 2, Activation::Elu, false);
    x = s.conv(true, x, 1, Activation::Elu, true);
    x = s.up(true, x, 2);
    stacks.push(("stride 2 and back", s.logits(x)));

    let mut s = new();
    let ul = s.input(true);
    let mut x = s.conv(true, ul, 2, Activation::Relu, false);
    x = s.conv(true, x, 2, Activation::Relu, false);
    x = s.up(true, x, 2);
    x = s.conv(true, x, 1, Activation::Relu, false);
    x = s.up(true, x, 2);
    stacks.push(("stride 4 and back", s.logits(x)));

    for down in [0, 1, 2] {
        let mut s = new();
        let read = Activation::ConcatElu;
        let (mut u, mut ul) = (s.input(false), s.input(true));
        for _ in 0..down {
            u = s.conv(false, u, 2, read, false);
            ul = s.conv(true, ul, 2, read, false);
        }
        u = s.conv(false, u, 1, read, true);
        if classes > 0 {
            let shape = [s.maps[ul].stride, CHANNELS];
            let offsets = [(u, -1, 0, None), (u, 0, 0, None), (ul, 0, -1, None), (ul, 0, 0, None)];
            ul = s.layer(shape, read, &offsets, Epilogue::default(), true);
        }
        for _ in 0..down {
            u = s.up(false, u, 2);
            ul = s.up(true, ul, 2);
        }
        u = s.conv(false, u, 1, read, false);
        let offsets = [(u, 0, 0, None), (ul, 0, 0, None)];
        let epilogue = Epilogue { gated: true, add: Some(ul), tanh: false };
        let x = s.layer([1, CHANNELS], read, &offsets, epilogue, true);
        stacks.push((["both streams", "both, stride 2", "both, stride 4"][down], s.logits(x)));
    }
    stacks.push(("another model", other(classes)));
    let symbols = Head::Categorical { symbols: 21 };
    stacks.push(("previous symbols", previous(symbols, Encoding::OneHot, 21, classes)));
    stacks.push(("previous amplitudes", previous(symbols, Encoding::MuLaw, 1, classes)));
    stacks.push(("previous pixels", previous(mixture, Encoding::Values, 4, classes)));
    if classes == 0 {
        stacks.push(("a chain that is followed", followed()));
        stacks.push(("a chain that nobody waits for", beside()));
        // Pixels for which nothing is left, and rows that begin with nothing.
        stacks.push(("to the left", single(&[[0, -1], [0, -2]])));
        stacks.push(("above", single(&[[-1, 0], [-2, 1]])));
        let gray = Head::MixtureOfLogistics { mixtures: 3, channels: 1 };
        stacks.push(("inputs through elu", reading(gray, Activation::Elu, 2, true)));
        stacks.push(("inputs through relu", reading(gray, Activation::Relu, 2, true)));
        stacks.push(("inputs through concat_elu", reading(gray, Activation::ConcatElu, 2, true)));
        let symbols = Head::Categorical { symbols: 40 };
        stacks.push(("sixty taps", reading(symbols, Activation::Identity, 60, false)));
    }
    stacks
}

/// Channels of what is given for every position of [`other`].
pub const KNOWN: usize = 5;

/// A graph with all that PixelCNN++ has not: strides 1, 3 and 6, taps that reach far, more of them than any layer of
/// PixelCNN++ has, sources of different widths, tanh gates without a sum and sums without a gate, a softmax, and
/// conditioning for every position.
fn other(classes: usize) -> Graph {
    let mut s = Stack::new(Head::Categorical { symbols: 11 }, classes);
    let known = s.map(1, KNOWN);
    s.input.known = Some(known);
    let relu = Activation::Relu;
    let gate = Epilogue { tanh: true, gated: true, add: None };
    let sum = |map| Epilogue { tanh: false, gated: false, add: Some(map) };

    // All of a 4x7 neighbourhood, and what is given here and around.
    let mut offsets: Vec<Offset> = (-3..0).flat_map(|r| (-3..4).map(move |c| (IMAGE, r, c, None))).collect();
    offsets.extend((-3..0).map(|c| (IMAGE, 0, c, None)));
    offsets.extend([(known, 0, 0, None), (known, 0, 2, None), (known, -5, 1, None)]);
    let first = s.layer([1, CHANNELS], Activation::Identity, &offsets, gate, true);

    let offsets = [(first, 0, 0, None), (first, -4, 0, None), (known, 0, 0, None)];
    let gated = s.layer([1, 7], Activation::Identity, &offsets, gate, true);
    let residual = s.layer([1, CHANNELS], Activation::Identity, &[(gated, 0, 0, None)], sum(first), false);

    let offsets = [(residual, -2, 4, None), (residual, 0, -2, None), (residual, 0, 0, None)];
    let third = s.layer([3, CHANNELS], relu, &offsets, Epilogue::default(), true);
    let sixth = s.conv(true, third, 2, relu, false);
    let sixth = s.conv(true, sixth, 1, relu, true);
    let mut up = s.up(true, sixth, 2);
    up = s.layer([3, CHANNELS], relu, &[(up, 0, 0, None), (third, 0, -1, None)], sum(third), false);
    up = s.up(true, up, 3);
    let offsets = [(up, -1, 3, None), (up, 0, -3, None), (up, 0, 0, None), (gated, 0, 0, None)];
    let skip = s.layer([1, CHANNELS], Activation::ConcatElu, &offsets, sum(residual), false);
    s.logits(skip)
}

/// A WaveNet in small, with columns too: every position of the image holds the pixel before it, layers look back
/// farther and farther, and what they make is summed at the end.
fn previous(head: Head, encoding: Encoding, channels: usize, classes: usize) -> Graph {
    let mut s = Stack::new(head, classes);
    s.maps[IMAGE].channels = channels;
    s.input = Input { encoding, previous: true, known: None };
    let offsets = [(IMAGE, -2, 1, None), (IMAGE, -1, 0, None), (IMAGE, 0, -1, None), (IMAGE, 0, 0, None)];
    let mut x = s.layer([1, CHANNELS], Activation::Identity, &offsets, Epilogue::default(), false);
    let mut gates = Vec::new();
    for dilation in [1, 4, 20] {
        let gate = Epilogue { tanh: true, gated: true, add: None };
        let offsets = [(x, -dilation, 0, None), (x, 0, 0, None)];
        gates.push(s.layer([1, 7], Activation::Identity, &offsets, gate, true));
        let sum = Epilogue { add: Some(x), ..Epilogue::default() };
        x = s.layer([1, CHANNELS], Activation::Identity, &[(gates[gates.len() - 1], 0, 0, None)], sum, false);
    }
    let offsets: Vec<Offset> = gates.iter().map(|&gate| (gate, 0, 0, None)).collect();
    let skip = s.layer([1, 33], Activation::Identity, &offsets, Epilogue::default(), false);
    s.logits(skip)
}

/// Small layers, large ones, a chain of small ones, and a large one that sums all that the chain makes: the CPU engine's
/// first thread runs the small ones, and the others sum what it has made so far.
fn followed() -> Graph {
    let mut s = Stack::new(Head::Categorical { symbols: 21 }, 0);
    s.maps[IMAGE].channels = 21;
    s.input = Input { encoding: Encoding::OneHot, previous: true, known: None };
    let identity = Activation::Identity;
    let plain = Epilogue::default();
    let mut x = s.layer([1, CHANNELS], identity, &[(IMAGE, -1, 0, None), (IMAGE, 0, 0, None)], plain, false);
    // More of them than the chain's first part waits for.
    for _ in 0..24 {
        x = s.layer([1, CHANNELS], Activation::Elu, &[(x, 0, 0, None)], plain, false);
    }
    x = s.layer([1, 320], Activation::Elu, &[(x, 0, 0, None)], plain, false);
    x = s.layer([1, CHANNELS], Activation::Elu, &[(x, 0, 0, None)], plain, false);
    let mut gates: Vec<Offset> = Vec::new();
    for layer in 0..20 {
        let gate = Epilogue { tanh: true, gated: true, add: None };
        let offsets = [(x, -1 - layer % 3, 0, None), (x, 0, 0, None)];
        let made = s.layer([1, 7], identity, &offsets, gate, false);
        let sum = Epilogue { add: Some(x), ..plain };
        x = s.layer([1, CHANNELS], identity, &[(made, 0, 0, None)], sum, false);
        gates.push((made, 0, 0, None));
    }
    let skip = s.layer([1, 130], identity, &gates, plain, false);
    s.logits(skip)
}

/// Large layers, a small one, and a large one that reads nothing of it: the CPU engine's threads begin that one while the
/// first runs the small one, and have nothing to wait for.
fn beside() -> Graph {
    let mut s = Stack::new(Head::Categorical { symbols: 21 }, 0);
    s.maps[IMAGE].channels = 21;
    s.input = Input { encoding: Encoding::OneHot, previous: true, known: None };
    let (identity, plain) = (Activation::Identity, Epilogue::default());
    let mut x = s.layer([1, 130], identity, &[(IMAGE, -1, 0, None), (IMAGE, 0, 0, None)], plain, false);
    x = s.layer([1, 130], Activation::Elu, &[(x, 0, 0, None)], plain, false);
    let small = s.layer([1, CHANNELS], Activation::Elu, &[(x, 0, 0, None)], plain, false);
    let offsets: Vec<Offset> = (-8..=0).map(|row| (x, row, 0, None)).collect();
    let wide = s.layer([1, 130], identity, &offsets, plain, false);
    let both = s.layer([1, CHANNELS], identity, &[(small, 0, 0, None), (wide, 0, 0, None)], plain, false);
    s.logits(both)
}

/// A graph that reads the image, with or without its constant 1, and what is given for every position through an
/// activation, beside another layer's output; with `places` taps above and a few others.
pub fn reading(head: Head, read: Activation, places: usize, ones: bool) -> Graph {
    let mut s = Stack::new(head, 0);
    s.maps[IMAGE].channels = head.values() + usize::from(ones);
    let known = s.map(1, KNOWN);
    s.input.known = Some(known);
    let offsets = [(IMAGE, -1, 0, None), (IMAGE, 0, -1, None)];
    let first = s.layer([1, 9], Activation::Identity, &offsets, Epilogue::default(), false);
    let above = |i: isize| (IMAGE, -1 - i / 7, i % 7 - 3, None);
    let mut offsets: Vec<Offset> = (0..places as isize).map(above).collect();
    offsets.extend([(IMAGE, 0, -1, None), (known, 0, 0, None), (known, -1, 1, None)]);
    offsets.extend([(first, 0, 0, None), (first, -1, -1, None)]);
    let second = s.layer([1, 12], read, &offsets, Epilogue::default(), false);
    s.logits(second)
}

/// A gated layer of so many channels, which reads as many above, to the left and here, and little else.
pub fn wide(channels: usize) -> Graph {
    let mut s = Stack::new(Head::MixtureOfLogistics { mixtures: 2, channels: 3 }, 0);
    let offsets = [(IMAGE, -1, 0, None), (IMAGE, 0, -1, None)];
    let x = s.layer([1, channels], Activation::Identity, &offsets, Epilogue::default(), false);
    let gate = Epilogue { gated: true, add: Some(x), tanh: false };
    let offsets = [(x, -1, 0, None), (x, 0, -1, None), (x, 0, 0, None)];
    let x = s.layer([1, channels], Activation::ConcatElu, &offsets, gate, false);
    s.logits(x)
}

/// Large layers and small ones in turn, two large ones one after the other, and large logits: at every pixel, beside some at
/// every fourth.
pub fn large_at_every_pixel() -> Graph {
    let mut s = Stack::new(Head::Categorical { symbols: 520 }, 0);
    let (read, plain) = (Activation::ConcatElu, Epilogue::default());
    let first = [(IMAGE, -1, 0, None), (IMAGE, 0, -1, None)];
    let first = s.layer([1, 136], Activation::Identity, &first, plain, false);
    let gate = Epilogue { gated: true, add: Some(first), tanh: false };
    let x = s.layer(
        [1, 136],
        read,
        &[(first, -1, 0, None), (first, 0, -1, None), (first, 0, 0, None)],
        gate,
        false,
    );
    let x = s.layer(
        [1, 136],
        read,
        &[(x, 0, -1, None), (x, 0, 0, None)],
        Epilogue { add: Some(x), ..plain },
        false,
    );
    let small = s.layer([1, 12], Activation::Elu, &[(x, 0, 0, None)], plain, false);
    let fewer = s.layer([2, 24], Activation::Identity, &[(x, -1, 0, None), (x, 0, 0, None)], plain, false);
    let again = s.up(true, fewer, 2);
    let offsets = [(x, 0, 0, None), (first, 0, 0, None), (small, 0, 0, None), (again, 0, 0, None)];
    let x = s.layer([1, 136], read, &offsets, plain, false);
    s.logits(x)
}

/// More values at a pixel than a block's shared memory has room for, by layers of few weights.
pub fn much_at_a_pixel() -> Graph {
    let mut s = Stack::new(Head::MixtureOfLogistics { mixtures: 1, channels: 1 }, 0);
    let (read, plain) = (Activation::Elu, Epilogue::default());
    let mut x = s.layer([1, 8], Activation::Identity, &[(IMAGE, 0, -1, None)], plain, false);
    for _ in 0..80 {
        let many = s.layer([1, 1024], read, &[(x, 0, 0, None)], plain, false);
        x = s.layer([1, 8], read, &[(many, 0, 0, None)], plain, false);
    }
    s.logits(x)
}

/// A single layer that reads the image at some rows and columns, and the logits.
fn single(at: &[[isize; 2]]) -> Graph {
    let mut s = Stack::new(Head::MixtureOfLogistics { mixtures: 2, channels: 1 }, 0);
    let offsets: Vec<Offset> = at.iter().map(|&[row, column]| (IMAGE, row, column, None)).collect();
    let x = s.layer([1, CHANNELS], Activation::Identity, &offsets, Epilogue::default(), false);
    s.logits(x)
}

/// Numbers in [-1, 1] for every position, for a graph that is given some.
pub fn known(graph: &Graph, size: usize, height: usize, width: usize) -> Option<Array4<f32>> {
    let channels = graph.maps[graph.input.known?].channels;
    let number = |(n, r, c, k)| ((n * 31 + r * 17 + c * 7 + k * 3) % 41) as f32 / 20.0 - 1.0;
    Some(Array4::from_shape_fn((size, height, width, channels), number))
}

/// The pixel before the first of `size` images where none is given: `[size, values]`.
pub fn start(graph: &Graph, size: usize) -> Array2<f32> {
    Array2::from_elem((size, graph.head.values()), graph.head.nearest(0.0))
}
