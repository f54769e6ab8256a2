//! A network of one's own, in a page: `cargo run --release --example graph`.
//!
//! The idea: a network is data. Maps hold what is known of each position, and each layer sums neighbours of each
//! position ("taps") into another map; no tap may look at a pixel that comes later. What can be computed when, and what
//! must be kept for it, follows from that alone: any such graph is generated cached, with the images that a full
//! forward pass for each pixel would make.

use fast_pixel_cnn::graph::{
    Activation, Bias, Epilogue, Graph, IMAGE, Input, Layer, Map, MapId, Parameter, ParameterKind, Tap,
};
use fast_pixel_cnn::heads::Head;
use fast_pixel_cnn::{Device, Result, Run, Weights};

/// Channels of the hidden maps.
const CHANNELS: usize = 16;

/// A graph that is being built.
struct Builder {
    parameters: Vec<Parameter>,
    maps: Vec<Map>,
    layers: Vec<Layer>,
}

impl Builder {
    /// Adds a layer, with a parameter and a map of its own, that reads `source` at (row, column) offsets.
    fn layer(
        &mut self,
        source: MapId,
        read: Activation,
        offsets: &[(isize, isize)],
        channels: usize,
        add: Option<MapId>,
    ) -> MapId {
        let [layer, parameter, output] = [self.layers.len(), self.parameters.len(), self.maps.len()];
        // One matrix of weights, [inputs, outputs], for each offset.
        let inputs = self.maps[source].channels * read.copies();
        let kind = ParameterKind::Conv { kernel: [1, offsets.len()] };
        self.parameters.push(Parameter {
            name: format!("conv_{layer}"),
            kind,
            inputs,
            outputs: channels,
            bias: true,
        });
        self.maps.push(Map { name: format!("map {output}"), stride: 1, channels });
        let tap = |(position, &(row, column)): (usize, &(isize, isize))| {
            Tap::new(source, [row, column], parameter, position, inputs)
        };
        self.layers.push(Layer {
            name: format!("layer {layer}"),
            taps: offsets.iter().enumerate().map(tap).collect(),
            biases: vec![Bias::Every(parameter)],
            read,
            // The sum as it is, and another map added to it where there is one: a residual connection.
            epilogue: Epilogue { add, ..Epilogue::default() },
            output,
        });
        output
    }
}

fn toy() -> Result<Graph> {
    // A pixel is one of four grays: four logits, and one value in [-1, 1].
    let head = Head::Categorical { symbols: 4 };
    let image = Map { name: "image".into(), stride: 1, channels: head.values() };
    let mut graph = Builder { parameters: Vec::new(), maps: vec![image], layers: Vec::new() };
    // Of the image only what is above and to the left may be read. The three taps that look up are known when a row
    // begins, so they are summed for the whole row at once; nobody has to say so.
    let above_and_left = [(-1, -1), (-1, 0), (-1, 1), (0, -1)];
    let first = graph.layer(IMAGE, Activation::Identity, &above_and_left, CHANNELS, None);
    // What was made of earlier pixels may be read at this position too.
    let with_own = [(-1, 0), (0, -1), (0, 0)];
    let second = graph.layer(first, Activation::ConcatElu, &with_own, CHANNELS, Some(first));
    // The last layer makes the logits.
    graph.layer(second, Activation::Elu, &[(0, 0)], head.logits(), None);
    // Refuses whatever is no causal network. No classes, and nothing given for every position.
    Graph::new(graph.parameters, graph.maps, graph.layers, head, 0, Input::default())
}

fn main() -> Result<()> {
    // Random weights. `Weights::from_arrays` takes trained ones; there is no file format for them here yet.
    let weights = Weights::synthetic_for(toy()?, 1);
    let mut engine = Device::auto().open(&weights)?;
    let run = Run::new(4).size(8, 8).seed(1);
    let cached = run.generate(&mut engine)?;
    let naive = run.naive().generate(&mut engine)?;
    assert_eq!(cached.images, naive.images, "cached and naive make the same images");

    println!("{} images on {}, cached = naive; the first:", cached.count, engine.name());
    for row in cached.images.index_axis(ndarray::Axis(0), 0).outer_iter() {
        let shade = |&value: &f32| [" .", " -", " +", " #"][((value + 1.0) * 1.5).round() as usize];
        println!("{}", row.iter().map(shade).collect::<String>());
    }
    Ok(())
}
