//! PixelCNN++ as a graph.
//!
//! The idea: the wiring is that of openai/pixel-cnn (`pixel_cnn_pp/model.py`): a vertical stream `u`, whose row r
//! depends on the rows above r, and a horizontal stream `ul`, which adds the pixels to the left. Each is a list of
//! maps that an up pass fills and a down pass empties again.

use std::ops::Range;

use super::PixelCnnPp;
use crate::graph::{
    Activation, Bias, Epilogue, Graph, IMAGE, Input, Layer, Map, MapId, Parameter, ParameterId,
    ParameterKind, Tap,
};

/// One of the two streams.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// `u`: sees the rows above.
    Vertical,
    /// `ul`: sees the rows above and the pixels to the left.
    Horizontal,
}

impl Stream {
    fn name(self) -> &'static str {
        if self == Stream::Vertical { "u" } else { "ul" }
    }

    /// Height and width of its convolutions' kernels.
    fn kernel(self) -> [usize; 2] {
        if self == Stream::Vertical { [2, 3] } else { [2, 2] }
    }
}

impl PixelCnnPp {
    /// The graph of a PixelCNN++.
    pub fn graph(&self) -> Graph {
        Builder::new(*self).build()
    }
}

/// Builds the graph in the order in which the reference constructs its own, which is the order in which
/// TensorFlow numbers the variables.
struct Builder {
    config: PixelCnnPp,
    parameters: Vec<Parameter>,
    maps: Vec<Map>,
    layers: Vec<Layer>,
    /// The lists `u` and `ul` of the up pass.
    lists: [Vec<MapId>; 2],
    /// How many parameters there are of each kind.
    counts: [usize; 4],
}

impl Builder {
    fn new(config: PixelCnnPp) -> Builder {
        let image = Map { name: "image".into(), stride: 1, channels: config.image_channels() };
        Builder {
            config,
            parameters: Vec::new(),
            maps: vec![image],
            layers: Vec::new(),
            lists: [Vec::new(), Vec::new()],
            counts: [0; 4],
        }
    }

    fn parameter(&mut self, kind: ParameterKind, inputs: usize, outputs: usize) -> ParameterId {
        let (slot, prefix) = match kind {
            ParameterKind::Conv { .. } => (0, "conv2d"),
            ParameterKind::Deconv { .. } => (1, "deconv2d"),
            ParameterKind::Dense => (2, "dense"),
            ParameterKind::PerClass => (3, "conditional_weights"),
        };
        let name = format!("{prefix}_{}", self.counts[slot]);
        self.counts[slot] += 1;
        self.parameters.push(Parameter { name, kind, inputs, outputs, bias: true });
        self.parameters.len() - 1
    }

    /// Adds a layer that makes a new map. The layer's name is the map's.
    fn layer(&mut self, name: String, stride: usize, channels: usize, mut layer: Layer) -> MapId {
        layer.name = name.clone();
        layer.output = self.maps.len();
        self.maps.push(Map { name, stride, channels });
        self.layers.push(layer);
        self.maps.len() - 1
    }

    fn build(mut self) -> Graph {
        let PixelCnnPp { resnets, filters, .. } = self.config;
        self.input_layers();
        for stride in [1, 2, 4] {
            if stride > 1 {
                self.down_sample(Stream::Vertical, stride);
                self.down_sample(Stream::Horizontal, stride);
            }
            for _ in 0..resnets {
                let [us, uls] = &self.lists;
                let (u, ul, index) = (last(us), last(uls), us.len());
                let u = self.resnet(&index.to_string(), Stream::Vertical, stride, u, &[]);
                let ul = self.resnet(&index.to_string(), Stream::Horizontal, stride, ul, &[u]);
                self.push(u, ul);
            }
        }

        // The down pass pops what the up pass pushed.
        let [mut us, mut uls] = self.lists.clone();
        let mut pop =
            || (us.pop().expect("one push for each pop"), uls.pop().expect("one push for each pop"));
        let (mut u, mut ul) = pop();
        let mut index = 0;
        for stride in [4, 2, 1] {
            for _ in 0..resnets + usize::from(stride < 4) {
                let (name, (above, left)) = (format!("down/{index}"), pop());
                u = self.resnet(&name, Stream::Vertical, stride, u, &[above]);
                ul = self.resnet(&name, Stream::Horizontal, stride, ul, &[u, left]);
                index += 1;
            }
            if stride > 1 {
                u = self.up_sample(Stream::Vertical, stride / 2, u);
                ul = self.up_sample(Stream::Horizontal, stride / 2, ul);
            }
        }
        let head = self.config.head();
        let parameter = self.parameter(ParameterKind::Dense, filters, head.logits());
        let taps = vec![Tap::new(ul, [0, 0], parameter, 0, filters)];
        self.layer(
            "logits".into(),
            1,
            head.logits(),
            Layer { read: Activation::Elu, ..plain(taps, parameter) },
        );
        Graph::new(self.parameters, self.maps, self.layers, head, self.config.classes, Input::default())
            .expect("PixelCNN++ is causal")
    }

    fn push(&mut self, u: MapId, ul: MapId) {
        self.lists[0].push(u);
        self.lists[1].push(ul);
    }

    /// The three convolutions of the image. Shifting their outputs down or right is reading one row
    /// further up or one column further left.
    fn input_layers(&mut self) {
        let (n, channels) = (self.config.filters, self.config.image_channels());
        let conv = |b: &mut Builder, kernel| b.parameter(ParameterKind::Conv { kernel }, channels, n);
        let image =
            |row, column, parameter, position| Tap::new(IMAGE, [row, column], parameter, position, channels);
        let with_bias = |tap: Tap| Tap { bias_on_ones: Some(tap.parameter), ..tap };

        let v = conv(self, [2, 3]);
        let mut taps = Vec::new();
        for (position, (row, column)) in grid(-2..0, -1..2).enumerate() {
            taps.push(image(row, column, v, position));
        }
        taps[4] = with_bias(taps[4].clone());
        let layer = |taps| Layer { read: Activation::Identity, biases: Vec::new(), ..plain(taps, v) };
        let u = self.layer("u/0".into(), 1, n, layer(taps));

        let (above, left) = (conv(self, [1, 3]), conv(self, [2, 1]));
        let taps = vec![
            image(-1, -1, above, 0),
            with_bias(image(-1, 0, above, 1)),
            image(-1, 1, above, 2),
            image(-1, -1, left, 0),
            with_bias(image(0, -1, left, 1)),
        ];
        let ul = self.layer("ul/0".into(), 1, n, layer(taps));
        self.push(u, ul);
    }

    /// `resnet(x, a, h)`: two convolutions around an activation, a skip into the first, a gate after
    /// the second. `skips` is empty, one map, or the two that the reference concatenates.
    fn resnet(&mut self, name: &str, stream: Stream, stride: usize, x: MapId, skips: &[MapId]) -> MapId {
        let PixelCnnPp { filters: n, classes, .. } = self.config;
        let read = self.config.nonlinearity.activation();
        let (kernel, copies) = (stream.kernel(), read.copies());
        let name = format!("{}/{name}", stream.name());

        let conv1 = self.parameter(ParameterKind::Conv { kernel }, copies * n, n);
        let nin =
            (!skips.is_empty()).then(|| self.parameter(ParameterKind::Dense, copies * n * skips.len(), n));
        let conv2 = self.parameter(ParameterKind::Conv { kernel }, copies * n, 2 * n);
        let class_term = (classes > 0).then(|| self.parameter(ParameterKind::PerClass, classes, 2 * n));

        let mut taps = conv_taps(stream, x, conv1, copies * n);
        let mut biases = vec![Bias::Every(conv1)];
        if let Some(nin) = nin {
            biases.push(Bias::Every(nin));
            // The activation of a concatenation [u, ul] is [u, ul, -u, -ul]: each source owns one
            // slice of the kernel's inputs for each of its own halves.
            let slices =
                |i: usize| (0..copies).map(move |h| (h * skips.len() + i) * n..(h * skips.len() + i + 1) * n);
            let first_own = taps.iter().position(|t| t.row == 0).expect("a conv reads its own row");
            let skips = skips.iter().enumerate();
            let skips = skips.map(|(i, &source)| Tap {
                inputs: slices(i).collect(),
                ..Tap::new(source, [0, 0], nin, 0, 0)
            });
            taps.splice(first_own..first_own, skips.collect::<Vec<_>>());
        }
        let layer = Layer { read, biases, ..plain(taps, conv1) };
        let mid = self.layer(format!("{name}/conv1"), stride, n, layer);

        let biases = [Bias::Every(conv2)].into_iter().chain(class_term.map(Bias::PerClass)).collect();
        let epilogue = Epilogue { gated: true, add: Some(x), ..Epilogue::default() };
        let taps = conv_taps(stream, mid, conv2, copies * n);
        self.layer(name, stride, n, Layer { read, biases, epilogue, ..plain(taps, conv2) })
    }

    fn down_sample(&mut self, stream: Stream, stride: usize) {
        let (n, kernel) = (self.config.filters, stream.kernel());
        let list = if stream == Stream::Vertical { 0 } else { 1 };
        let (name, source) =
            (format!("{}/{}", stream.name(), self.lists[list].len()), last(&self.lists[list]));
        let parameter = self.parameter(ParameterKind::Conv { kernel }, n, n);
        let layer = plain(conv_taps(stream, source, parameter, n), parameter);
        let output = self.layer(name, stride, n, layer);
        self.lists[list].push(output);
    }

    /// The transposed convolutions. Input (i, j) adds kernel (a, b) to output (2i + a, 2j + b - 1) in
    /// the vertical stream (three columns) and makes output (2i + a, 2j + b) in the horizontal one.
    fn up_sample(&mut self, stream: Stream, stride: usize, source: MapId) -> MapId {
        let (n, kernel) = (self.config.filters, stream.kernel());
        let parameter = self.parameter(ParameterKind::Deconv { kernel }, n, n);
        // For each parity of the output column: (offset of the input column, kernel column).
        let columns: [&[(isize, usize)]; 2] = match stream {
            Stream::Vertical => [&[(0, 1)], &[(0, 2), (1, 0)]],
            Stream::Horizontal => [&[(0, 0)], &[(0, 1)]],
        };
        let mut taps = Vec::new();
        for row in 0..2 {
            for (parity, list) in columns.iter().enumerate() {
                for &(column, b) in *list {
                    let t = Tap::new(source, [0, column], parameter, row * kernel[1] + b, n);
                    taps.push(Tap { parity: Some([row, parity]), ..t });
                }
            }
        }
        self.layer(format!("{}/up_sample/{stride}", stream.name()), stride, n, plain(taps, parameter))
    }
}

fn last(list: &[MapId]) -> MapId {
    *list.last().expect("the up pass starts with an input layer")
}

/// The taps of a stream's convolution: the row above, then this row, left to right.
fn conv_taps(stream: Stream, source: MapId, parameter: ParameterId, in_channels: usize) -> Vec<Tap> {
    let columns = match stream {
        Stream::Vertical => -1..2,
        Stream::Horizontal => -1..1,
    };
    let offsets = grid(-1..1, columns).enumerate();
    offsets.map(|(p, (row, column))| Tap::new(source, [row, column], parameter, p, in_channels)).collect()
}

/// Offsets in the order of the positions of a kernel.
fn grid(rows: Range<isize>, columns: Range<isize>) -> impl Iterator<Item = (isize, isize)> {
    rows.flat_map(move |row| columns.clone().map(move |column| (row, column)))
}

/// A layer that reads its sources as they are and stores its sum; callers change what differs.
fn plain(taps: Vec<Tap>, parameter: ParameterId) -> Layer {
    Layer {
        name: String::new(),
        taps,
        biases: vec![Bias::Every(parameter)],
        read: Activation::Identity,
        epilogue: Epilogue::default(),
        output: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paper_s_model_has_its_published_size() {
        let graph = PixelCnnPp::PAPER.graph();
        let count = |p: &str| graph.parameters.iter().filter(|v| v.name.starts_with(p)).count();
        assert_eq!((count("conv2d"), count("dense"), count("deconv2d")), (135, 50, 4));
        assert_eq!(graph.parameter_count(), 53_659_080);
        let conditional = PixelCnnPp { classes: 10, ..PixelCnnPp::PAPER }.graph();
        assert_eq!(conditional.parameter_count(), 53_863_880);
    }
}
