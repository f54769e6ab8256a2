//! WaveNet as a graph.
//!
//! The idea: a layer's gated convolution and the dense layer behind it are a layer of the graph each; what all layers
//! give to the logits is one sum, of one tap for each, so that an engine makes it in one product at the end of a step.

use super::WaveNet;
use crate::graph::{
    Activation, Bias, Encoding, Epilogue, Graph, IMAGE, Input, Layer, Map, MapId, Parameter, ParameterId,
    ParameterKind, Tap,
};
use crate::heads::Head;

impl WaveNet {
    /// The graph of a WaveNet: rows are samples, the image is one column wide.
    ///
    /// # Panics
    /// If a number of the configuration other than the classes is 0, or a dilation reaches back too far.
    pub fn graph(&self) -> Graph {
        let (r, d, s) = (self.residual_channels, self.dilation_channels, self.skip_channels);
        let (encoding, channels) = match self.scalar_input {
            true => (Encoding::MuLaw, 1),
            false => (Encoding::OneHot, self.quantization_channels),
        };
        let mut b = Builder::new(channels);
        let width = self.causal_width();
        let causal = b.parameter("causal", conv(width), [channels, r], false);
        let taps = back(IMAGE, causal, width, 1, channels);
        let mut x = b.layer("causal", r, taps, &[], Activation::Identity, Epilogue::default());

        let (mut outputs, mut kernels) = (Vec::new(), Vec::new());
        for (i, &dilation) in self.dilations.iter().enumerate() {
            let name = |part: &str| format!("layer_{i}/{part}");
            let kernel = b.parameter(name("conv"), conv(self.filter_width), [r, 2 * d], self.use_biases);
            let mut biases = b.bias(kernel);
            if self.classes > 0 {
                let term = b.parameter(name("class"), ParameterKind::PerClass, [self.classes, 2 * d], false);
                biases.push(Bias::PerClass(term));
            }
            let gate = Epilogue { tanh: true, gated: true, add: None };
            let taps = back(x, kernel, self.filter_width, dilation, r);
            let o = b.layer(name("conv"), d, taps, &biases, Activation::Identity, gate);
            // What the last layer would pass on, nothing reads.
            if i + 1 < self.dilations.len() {
                let dense = b.parameter(name("dense"), ParameterKind::Dense, [d, r], self.use_biases);
                let add = Epilogue { add: Some(x), ..Epilogue::default() };
                let (taps, biases) = (vec![Tap::new(o, [0, 0], dense, 0, d)], b.bias(dense));
                x = b.layer(name("dense"), r, taps, &biases, Activation::Identity, add);
            }
            kernels.push(b.parameter(name("skip"), ParameterKind::Dense, [d, s], self.use_biases));
            outputs.push(o);
        }

        let taps =
            outputs.iter().zip(&kernels).map(|(&o, &kernel)| Tap::new(o, [0, 0], kernel, 0, d)).collect();
        let biases: Vec<Bias> = kernels.iter().flat_map(|&kernel| b.bias(kernel)).collect();
        let skip = b.layer("skip", s, taps, &biases, Activation::Identity, Epilogue::default());
        let post = b.dense("post_1", skip, s, s, self.use_biases);
        b.dense("post_2", post, s, self.quantization_channels, self.use_biases);
        b.finish(self.head(), self.classes, encoding)
    }
}

/// Channels of the benchmark's hidden layers, and linear steps of its samples.
const FAST_CHANNELS: usize = 128;
const FAST_SYMBOLS: usize = 256;

/// The network on which *Fast Generation for Convolutional Autoregressive Models* measured its speed-up of WaveNet: two
/// blocks of `layers` layers `h = relu(h[t - 2^i] W0 + h[t] W1)` of 128 channels, without biases, gates, residuals and
/// skips; a sample is read as one number, of 256 linear steps, and is drawn from a softmax over them.
///
/// # Panics
/// If there are no layers, or more than 21.
pub fn fast_wavenet(layers: usize) -> Graph {
    assert!((1..=21).contains(&layers), "1 to 21 layers in a block, not {layers}");
    let mut b = Builder::new(1);
    // A relu is how the next layer reads a sum.
    let (mut source, mut channels, mut read) = (IMAGE, 1, Activation::Identity);
    for block in 0..2 {
        for i in 0..layers {
            let name = format!("block_{block}/layer_{i}");
            let kernel = b.parameter(&name, conv(2), [channels, FAST_CHANNELS], false);
            let taps = back(source, kernel, 2, 1 << i, channels);
            source = b.layer(name, FAST_CHANNELS, taps, &[], read, Epilogue::default());
            (channels, read) = (FAST_CHANNELS, Activation::Relu);
        }
    }
    b.dense("logits", source, FAST_CHANNELS, FAST_SYMBOLS, true);
    b.finish(Head::Categorical { symbols: FAST_SYMBOLS }, 0, Encoding::Values)
}

/// A kernel over some samples.
fn conv(width: usize) -> ParameterKind {
    ParameterKind::Conv { kernel: [width, 1] }
}

/// The taps of a convolution, from the oldest to that at the output's own position.
fn back(source: MapId, kernel: ParameterId, width: usize, dilation: usize, channels: usize) -> Vec<Tap> {
    let row = |position: usize| -(((width - 1 - position) * dilation) as isize);
    (0..width).map(|position| Tap::new(source, [row(position), 0], kernel, position, channels)).collect()
}

/// A graph in the making: parameters, maps and layers in their order.
struct Builder {
    parameters: Vec<Parameter>,
    maps: Vec<Map>,
    layers: Vec<Layer>,
}

impl Builder {
    /// With an image of so many channels.
    fn new(channels: usize) -> Builder {
        let image = Map { name: "image".into(), stride: 1, channels };
        Builder { parameters: Vec::new(), maps: vec![image], layers: Vec::new() }
    }

    fn parameter(
        &mut self,
        name: impl Into<String>,
        kind: ParameterKind,
        [inputs, outputs]: [usize; 2],
        bias: bool,
    ) -> ParameterId {
        self.parameters.push(Parameter { name: name.into(), kind, inputs, outputs, bias });
        self.parameters.len() - 1
    }

    /// A parameter's bias, if it has one.
    fn bias(&self, parameter: ParameterId) -> Vec<Bias> {
        self.parameters[parameter].bias.then_some(Bias::Every(parameter)).into_iter().collect()
    }

    /// Adds a layer that makes a new map, which has its name.
    fn layer(
        &mut self,
        name: impl Into<String>,
        channels: usize,
        taps: Vec<Tap>,
        biases: &[Bias],
        read: Activation,
        epilogue: Epilogue,
    ) -> MapId {
        let (name, output) = (name.into(), self.maps.len());
        self.maps.push(Map { name: name.clone(), stride: 1, channels });
        self.layers.push(Layer { name, taps, biases: biases.to_vec(), read, epilogue, output });
        output
    }

    /// Adds a dense layer that reads one map through relu.
    fn dense(&mut self, name: &str, source: MapId, inputs: usize, outputs: usize, bias: bool) -> MapId {
        let kernel = self.parameter(name, ParameterKind::Dense, [inputs, outputs], bias);
        let (taps, biases) = (vec![Tap::new(source, [0, 0], kernel, 0, inputs)], self.bias(kernel));
        self.layer(name, outputs, taps, &biases, Activation::Relu, Epilogue::default())
    }

    /// The graph: at each sample the one before it comes in.
    fn finish(self, head: Head, classes: usize, encoding: Encoding) -> Graph {
        let input = Input { encoding, previous: true, known: None };
        Graph::new(self.parameters, self.maps, self.layers, head, classes, input)
            .expect("a WaveNet looks back only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_its_known_size_and_looks_back_as_far_as_the_reference() {
        let model = WaveNet::default();
        let graph = model.graph();
        // Kernels and biases, without gains and without the last layer's dense layer, which nothing reads.
        let layer = 2 * (2 * 32 * 32 + 32) + (32 * 32 + 32) + (32 * 512 + 512);
        let post = (512 * 512 + 512) + (512 * 256 + 256);
        let count: usize = graph.arrays(true).map(|(_, _, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(count, 2 * 256 * 32 + 50 * layer - (32 * 32 + 32) + post);
        assert_eq!((model.receptive_field(), graph.receptive_rows()), (5117, 5117));
        let scalar = WaveNet { scalar_input: true, ..model };
        assert_eq!((scalar.receptive_field(), scalar.graph().receptive_rows()), (5147, 5147));
        assert_eq!(scalar.graph().parameters[0].kind, conv(32));
    }

    #[test]
    fn past_taps_are_known_when_a_sample_begins_and_skips_are_one_sum() {
        let graph = WaveNet { filter_width: 3, classes: 4, ..WaveNet::default() }.graph();
        for layer in graph.layers.iter().filter(|layer| layer.epilogue.gated) {
            assert_eq!((graph.hoisted_taps(layer, [0, 0]), layer.taps.len()), (2, 3), "{}", layer.name);
            let [old, older] = [layer.taps[1].row, layer.taps[0].row];
            assert!(old < 0 && older == 2 * old && layer.taps[2].row == 0, "{}", layer.name);
            assert_eq!(layer.biases.len(), 2);
        }
        let skip = graph.layers.iter().find(|layer| layer.name == "skip").unwrap();
        assert_eq!((skip.taps.len(), skip.biases.len()), (50, 50));
    }

    #[test]
    fn the_benchmark_s_network_is_the_paper_s() {
        for layers in [1, 5, 14] {
            let graph = fast_wavenet(layers);
            assert_eq!(graph.layers.len(), 2 * layers + 1);
            assert_eq!(graph.receptive_rows(), (2 << layers) - 1);
            let weights = 2 * 128 + (2 * layers - 1) * 2 * 128 * 128 + 128 * 256;
            assert_eq!(graph.multiply_adds(1, 1), weights as u64);
            assert_eq!(graph.parameters.iter().filter(|parameter| parameter.bias).count(), 1);
        }
        fast_wavenet(21);
    }
}
