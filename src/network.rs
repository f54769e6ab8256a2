//! The architecture of PixelCNN++ as data.
//!
//! The idea: a layer is a list of taps (which tensor, which neighbour, which slice of which weights)
//! in the order in which they are summed, and an epilogue. Engines, schedules, the weight validator
//! and the work counts all read this list; nothing else knows how PixelCNN++ is wired.
//!
//! The wiring is that of openai/pixel-cnn (`pixel_cnn_pp/model.py`): a vertical stream `u`, whose row r
//! depends on the rows above r, and a horizontal stream `ul`, which adds the pixels to the left.

mod layer;

use std::ops::Range;

use crate::config::ModelConfig;
pub use layer::*;

/// A PixelCNN++ as lists of variables, tensors and layers.
#[derive(Clone, Debug)]
pub struct Network {
    /// The configuration it was built from.
    pub config: ModelConfig,
    /// Variables in the order in which TensorFlow numbers them.
    pub variables: Vec<Variable>,
    /// Tensors; 0 is the image with its constant-1 channel.
    pub tensors: Vec<Tensor>,
    /// Layers in an order in which each one's sources come before it. The last one makes the logits.
    pub layers: Vec<Layer>,
    /// The list `u` of the up pass, in the order in which it is filled.
    pub up_vertical: Vec<TensorId>,
    /// The list `ul` of the up pass.
    pub up_horizontal: Vec<TensorId>,
    /// `(cu, cul)` after each resnet pair of the down pass.
    pub down: Vec<[TensorId; 2]>,
    /// `(cu, cul)` after each transposed convolution.
    pub deconvs: Vec<[TensorId; 2]>,
}

/// The image tensor: R, G, B and a constant 1.
pub const IMAGE: TensorId = 0;
/// Channels of the image tensor.
pub const IMAGE_CHANNELS: usize = 4;

impl Network {
    /// Builds the network of a configuration.
    pub fn new(config: ModelConfig) -> Network {
        Builder::new(config).build()
    }

    /// The tensor of logits, `10 m` channels.
    pub fn logits(&self) -> TensorId {
        self.layers.last().expect("a network has layers").output
    }

    /// Number of trainable parameters.
    pub fn parameters(&self) -> usize {
        let tensors = self.variables.iter().flat_map(|v| v.tensors());
        tensors.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Channels of a tensor in a form.
    pub fn channels(&self, tensor: TensorId, form: Form) -> usize {
        let width = if form == Form::Activated { self.config.nonlinearity.width() } else { 1 };
        self.tensors[tensor].channels * width
    }

    /// Multiply-adds of a full forward pass over one image of `height` x `width` pixels.
    pub fn multiply_adds(&self, height: usize, width: usize) -> u64 {
        let per_layer =
            |l: &Layer| ((height / l.level) * (width / l.level)) as u64 * l.multiply_adds() as u64;
        self.layers.iter().map(per_layer).sum()
    }
}

/// Builds the lists in the order in which the reference constructs its graph, which is the order in
/// which TensorFlow numbers the variables.
struct Builder {
    network: Network,
    counts: [usize; 4],
}

impl Builder {
    fn new(config: ModelConfig) -> Builder {
        let image =
            Tensor { name: "image".into(), stream: Stream::Horizontal, level: 1, channels: IMAGE_CHANNELS };
        let network = Network {
            config,
            variables: Vec::new(),
            tensors: vec![image],
            layers: Vec::new(),
            up_vertical: Vec::new(),
            up_horizontal: Vec::new(),
            down: Vec::new(),
            deconvs: Vec::new(),
        };
        Builder { network, counts: [0; 4] }
    }

    fn variable(&mut self, kind: VariableKind, inputs: usize, outputs: usize) -> VariableId {
        let (slot, prefix) = match kind {
            VariableKind::Conv { .. } => (0, "conv2d"),
            VariableKind::Deconv { .. } => (1, "deconv2d"),
            VariableKind::Dense => (2, "dense"),
            VariableKind::Conditional => (3, "conditional_weights"),
        };
        let name = format!("{prefix}_{}", self.counts[slot]);
        self.counts[slot] += 1;
        self.network.variables.push(Variable { name, kind, inputs, outputs });
        self.network.variables.len() - 1
    }

    fn tensor(&mut self, name: String, stream: Stream, level: usize, channels: usize) -> TensorId {
        self.network.tensors.push(Tensor { name, stream, level, channels });
        self.network.tensors.len() - 1
    }

    fn build(mut self) -> Network {
        let ModelConfig { resnets, filters, .. } = self.network.config;
        self.input_layers();
        for level in [1, 2, 4] {
            if level > 1 {
                self.down_sample(Stream::Vertical, level);
                self.down_sample(Stream::Horizontal, level);
            }
            for _ in 0..resnets {
                let name = format!("up/{}", self.network.up_vertical.len());
                let u = last(&self.network.up_vertical);
                let u = self.resnet(&name, Stream::Vertical, level, u, &[]);
                self.network.up_vertical.push(u);
                let ul = last(&self.network.up_horizontal);
                let ul = self.resnet(&name, Stream::Horizontal, level, ul, &[u]);
                self.network.up_horizontal.push(ul);
            }
        }

        // The down pass pops what the up pass pushed.
        let mut us = self.network.up_vertical.clone();
        let mut uls = self.network.up_horizontal.clone();
        let mut u = us.pop().expect("the up pass pushed");
        let mut ul = uls.pop().expect("the up pass pushed");
        for level in [4, 2, 1] {
            for _ in 0..resnets + usize::from(level < 4) {
                let name = format!("down/{}", self.network.down.len());
                let skip = us.pop().expect("one push for each pop");
                u = self.resnet(&name, Stream::Vertical, level, u, &[skip]);
                let skip = uls.pop().expect("one push for each pop");
                ul = self.resnet(&name, Stream::Horizontal, level, ul, &[u, skip]);
                self.network.down.push([u, ul]);
            }
            if level > 1 {
                u = self.up_sample(Stream::Vertical, level / 2, u);
                ul = self.up_sample(Stream::Horizontal, level / 2, ul);
                self.network.deconvs.push([u, ul]);
            }
        }
        let outputs = self.network.config.logits();
        let variable = self.variable(VariableKind::Dense, filters, outputs);
        let taps = vec![tap(ul, 0, 0, variable, 0, filters)];
        let output = self.tensor("logits".into(), Stream::Horizontal, 1, outputs);
        self.layer(Layer {
            form: Form::Elu,
            ..plain("logits", Stream::Horizontal, 1, taps, variable, output)
        });
        self.network
    }

    /// The three convolutions of the image. Shifting their outputs down or right is reading one row
    /// further up or one column further left.
    fn input_layers(&mut self) {
        let n = self.network.config.filters;
        let conv = |b: &mut Builder, kernel| b.variable(VariableKind::Conv { kernel }, IMAGE_CHANNELS, n);
        let image =
            |row, column, variable, position| tap(IMAGE, row, column, variable, position, IMAGE_CHANNELS);

        let v = conv(self, [2, 3]);
        let mut taps = Vec::new();
        for (position, (row, column)) in grid(-2..0, -1..2).enumerate() {
            taps.push(image(row, column, v, position));
        }
        let output = self.tensor("u/0".into(), Stream::Vertical, 1, n);
        let mut layer = plain("u/input", Stream::Vertical, 1, taps, v, output);
        layer.biases = vec![Bias::OnOnes { variable: v, tap: 4 }];
        layer.form = Form::Raw;
        self.layer(layer);
        self.network.up_vertical.push(output);

        let (above, left) = (conv(self, [1, 3]), conv(self, [2, 1]));
        let taps = vec![
            image(-1, -1, above, 0),
            image(-1, 0, above, 1),
            image(-1, 1, above, 2),
            image(-1, -1, left, 0),
            image(0, -1, left, 1),
        ];
        let output = self.tensor("ul/0".into(), Stream::Horizontal, 1, n);
        let mut layer = plain("ul/input", Stream::Horizontal, 1, taps, left, output);
        layer.biases =
            vec![Bias::OnOnes { variable: above, tap: 1 }, Bias::OnOnes { variable: left, tap: 4 }];
        layer.form = Form::Raw;
        self.layer(layer);
        self.network.up_horizontal.push(output);
    }

    /// `resnet(x, a, h)`: two convolutions around an activation, a skip into the first, a gate after
    /// the second. `skips` is empty, one tensor, or the two that the reference concatenates.
    fn resnet(
        &mut self,
        name: &str,
        stream: Stream,
        level: usize,
        x: TensorId,
        skips: &[TensorId],
    ) -> TensorId {
        let config = self.network.config;
        let (n, width) = (config.filters, config.nonlinearity.width());
        let kernel = kernel_of(stream);
        let prefix = match stream {
            Stream::Vertical => "u",
            Stream::Horizontal => "ul",
        };

        let conv1 = self.variable(VariableKind::Conv { kernel }, width * n, n);
        let nin = (!skips.is_empty()).then(|| self.variable(VariableKind::Dense, width * n * skips.len(), n));
        let conv2 = self.variable(VariableKind::Conv { kernel }, width * n, 2 * n);
        let class_term =
            (config.classes > 0).then(|| self.variable(VariableKind::Conditional, config.classes, 2 * n));

        let mut taps = conv_taps(stream, x, conv1, width * n, kernel[0]);
        let mut biases = vec![Bias::Every(conv1)];
        if let Some(nin) = nin {
            biases.push(Bias::Every(nin));
            // The activation of a concatenation [u, ul] is [u, ul, -u, -ul]: each source owns one
            // slice of the kernel's inputs for each of its own halves.
            let slices =
                |i: usize| (0..width).map(move |h| (h * skips.len() + i) * n..(h * skips.len() + i + 1) * n);
            let first_own = taps.iter().position(|t| t.row == 0).expect("a conv reads its own row");
            let skips = skips.iter().enumerate();
            let skips =
                skips.map(|(i, &source)| Tap { inputs: slices(i).collect(), ..tap(source, 0, 0, nin, 0, 0) });
            taps.splice(first_own..first_own, skips.collect::<Vec<_>>());
        }
        let mid = self.tensor(format!("{prefix}/{name}/conv1"), stream, level, n);
        let layer = plain(&format!("{prefix}/{name}/conv1"), stream, level, taps, conv1, mid);
        self.layer(Layer { biases, ..layer });

        let taps = conv_taps(stream, mid, conv2, width * n, kernel[0]);
        let output = self.tensor(format!("{prefix}/{name}"), stream, level, n);
        let layer = plain(&format!("{prefix}/{name}/conv2"), stream, level, taps, conv2, output);
        self.layer(Layer { epilogue: Epilogue::Gate { residual: x }, class_term, ..layer });
        output
    }

    fn down_sample(&mut self, stream: Stream, level: usize) {
        let n = self.network.config.filters;
        let kernel = kernel_of(stream);
        let (prefix, list) = match stream {
            Stream::Vertical => ("u", &self.network.up_vertical),
            Stream::Horizontal => ("ul", &self.network.up_horizontal),
        };
        let (name, source) = (format!("{prefix}/{}", list.len()), last(list));
        let variable = self.variable(VariableKind::Conv { kernel }, n, n);
        let taps = conv_taps(stream, source, variable, n, kernel[0]);
        let output = self.tensor(name, stream, level, n);
        let layer = plain(&format!("{prefix}/down_sample/{level}"), stream, level, taps, variable, output);
        self.layer(Layer { sampling: Sampling::Down, form: Form::Raw, ..layer });
        match stream {
            Stream::Vertical => self.network.up_vertical.push(output),
            Stream::Horizontal => self.network.up_horizontal.push(output),
        }
    }

    /// The transposed convolutions. Input (i, j) adds kernel (a, b) to output (2i + a, 2j + b - 1) in
    /// the vertical stream (three columns) and makes output (2i + a, 2j + b) in the horizontal one.
    fn up_sample(&mut self, stream: Stream, level: usize, source: TensorId) -> TensorId {
        let n = self.network.config.filters;
        let kernel = kernel_of(stream);
        let prefix = match stream {
            Stream::Vertical => "u",
            Stream::Horizontal => "ul",
        };
        let variable = self.variable(VariableKind::Deconv { kernel }, n, n);
        // For each parity of the output column: (offset of the input column, kernel column).
        let columns: [&[(isize, usize)]; 2] = match stream {
            Stream::Vertical => [&[(0, 1)], &[(0, 2), (1, 0)]],
            Stream::Horizontal => [&[(0, 0)], &[(0, 1)]],
        };
        let mut taps = Vec::new();
        for row in 0..2 {
            for (parity, list) in columns.iter().enumerate() {
                for &(column, b) in *list {
                    let position = row * kernel[1] + b;
                    let t = tap(source, 0, column, variable, position, n);
                    taps.push(Tap { parity: Some([row, parity]), ..t });
                }
            }
        }
        let output = self.tensor(format!("{prefix}/up_sample/{level}"), stream, level, n);
        let layer = plain(&format!("{prefix}/up_sample/{level}"), stream, level, taps, variable, output);
        self.layer(Layer { sampling: Sampling::Up, form: Form::Raw, ..layer });
        output
    }

    /// Fills in what follows from the rest.
    fn layer(&mut self, mut layer: Layer) {
        layer.depth = self.network.channels(layer.taps[0].source, layer.form);
        let channels = self.network.tensors[layer.output].channels;
        layer.sums = match layer.epilogue {
            Epilogue::Store => channels,
            Epilogue::Gate { .. } => 2 * channels,
        };
        debug_assert!(layer.taps.iter().all(|t| t.depth() == layer.depth));
        self.network.layers.push(layer);
    }
}

fn last(list: &[TensorId]) -> TensorId {
    *list.last().expect("the up pass starts with an input layer")
}

/// Kernel height and width of a stream's convolutions.
fn kernel_of(stream: Stream) -> [usize; 2] {
    match stream {
        Stream::Vertical => [2, 3],
        Stream::Horizontal => [2, 2],
    }
}

/// The taps of a stream's convolution: the row above, then this row, left to right.
fn conv_taps(
    stream: Stream,
    source: TensorId,
    variable: VariableId,
    depth: usize,
    height: usize,
) -> Vec<Tap> {
    let columns = match stream {
        Stream::Vertical => -1..2,
        Stream::Horizontal => -1..1,
    };
    let offsets = grid(1 - height as isize..1, columns);
    let taps = offsets.enumerate().map(|(p, (row, column))| tap(source, row, column, variable, p, depth));
    taps.collect()
}

/// Offsets in the order of the positions of a kernel.
fn grid(rows: Range<isize>, columns: Range<isize>) -> impl Iterator<Item = (isize, isize)> {
    rows.flat_map(move |row| columns.clone().map(move |column| (row, column)))
}

fn tap(
    source: TensorId,
    row: isize,
    column: isize,
    variable: VariableId,
    position: usize,
    depth: usize,
) -> Tap {
    Tap { source, row, column, variable, position, inputs: std::iter::once(0..depth).collect(), parity: None }
}

/// A layer on one grid that reads activated sources and stores its sum; callers change what differs.
fn plain(
    name: &str,
    stream: Stream,
    level: usize,
    taps: Vec<Tap>,
    variable: VariableId,
    output: TensorId,
) -> Layer {
    Layer {
        name: name.into(),
        stream,
        level,
        sampling: Sampling::Same,
        form: Form::Activated,
        depth: 0,
        taps,
        biases: vec![Bias::Every(variable)],
        class_term: None,
        epilogue: Epilogue::Store,
        sums: 0,
        output,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paper_s_model_has_its_published_size() {
        let network = Network::new(ModelConfig::PAPER);
        let count = |p: &str| network.variables.iter().filter(|v| v.name.starts_with(p)).count();
        assert_eq!((count("conv2d"), count("dense"), count("deconv2d")), (135, 50, 4));
        assert_eq!(network.parameters(), 53_659_080);
        assert_eq!(network.multiply_adds(32, 32), 24_370_216_960);
        let conditional = Network::new(ModelConfig { classes: 10, ..ModelConfig::PAPER });
        assert_eq!(conditional.parameters(), 53_863_880);
    }

    #[test]
    fn every_source_is_made_before_it_is_read_and_is_causal() {
        let network = Network::new(ModelConfig { resnets: 2, ..ModelConfig::PAPER });
        let mut made = vec![false; network.tensors.len()];
        made[IMAGE] = true;
        for layer in &network.layers {
            for tap in &layer.taps {
                assert!(made[tap.source], "{} reads ahead", layer.name);
                assert!(tap.row <= 0);
                let source = &network.tensors[tap.source];
                if layer.stream == Stream::Vertical && tap.source != IMAGE {
                    assert_eq!(source.stream, Stream::Vertical, "{}", layer.name);
                }
                if tap.source == IMAGE {
                    assert!(tap.row < 0 || tap.column < 0, "{} reads its own pixel", layer.name);
                }
                if layer.stream == Stream::Horizontal && source.stream == Stream::Horizontal && tap.row == 0 {
                    assert!(tap.column <= 0, "{} reads to the right", layer.name);
                }
            }
            made[layer.output] = true;
        }
        assert!(made.iter().all(|m| *m));
    }
}
