//! The plain evaluation of a graph, one output at a time.
//!
//! The idea: whatever a backend caches, hoists or divides, a layer is its biases and its taps' sums in float64, then the
//! epilogue.

use fast_pixel_cnn::Weights;
use fast_pixel_cnn::graph::*;
use ndarray::{Array4, ArrayView1, ArrayView3, Axis};

/// Logits `[1, height, width, logits]` of an image and what is given for it, both `[height, width, channels]`; `start`
/// `[values]` is the pixel before the first, where the network reads that.
pub fn forward(
    weights: &Weights,
    image: ArrayView3<f32>,
    known: ArrayView3<f32>,
    start: ArrayView1<f32>,
    class: usize,
) -> Array4<f64> {
    let graph = weights.graph();
    let (height, width, _) = image.dim();
    let mut maps: Vec<Vec<f64>> = vec![Vec::new(); graph.maps.len()];
    let mut pixels: Vec<Vec<f32>> = image.lanes(Axis(2)).into_iter().map(|pixel| pixel.to_vec()).collect();
    if graph.input.previous {
        pixels.insert(0, start.to_vec());
        pixels.pop();
    }
    for pixel in pixels {
        // Of q symbols the value of the i-th is 2 i / (q - 1) - 1, and mu is q - 1.
        let mu = graph.head.logits() as f64 - 1.0;
        let symbol = ((f64::from(pixel[0]) + 1.0) / 2.0 * mu).round();
        let values = pixel.iter().map(|x| f64::from(*x));
        match graph.input.encoding {
            Encoding::Values => maps[IMAGE].extend(values.chain(graph.ones().then_some(1.0))),
            Encoding::OneHot => {
                maps[IMAGE].extend((0..=mu as usize).map(|i| f64::from(u8::from(i as f64 == symbol))))
            }
            Encoding::MuLaw => {
                let y = f64::from(pixel[0]);
                maps[IMAGE].push(y.signum() * ((1.0 + mu).powf(y.abs()) - 1.0) / mu);
            }
        }
    }
    if let Some(map) = graph.input.known {
        maps[map].extend(known.iter().map(|x| f64::from(*x)));
    }
    let at = |maps: &[Vec<f64>], map: MapId, read: Activation, [r, c]: [isize; 2]| -> Vec<f64> {
        let Map { stride, channels, .. } = graph.maps[map];
        let (h, w) = ((height / stride) as isize, (width / stride) as isize);
        if r < 0 || c < 0 || r >= h || c >= w {
            return vec![0.0; channels * read.copies()];
        }
        let x = &maps[map][(r * w + c) as usize * channels..][..channels];
        let elu = |x: f64| if x > 0.0 { x } else { x.exp_m1() };
        match read {
            Activation::Identity => x.to_vec(),
            Activation::Elu => x.iter().map(|x| elu(*x)).collect(),
            Activation::Relu => x.iter().map(|x| x.max(0.0)).collect(),
            Activation::ConcatElu => x.iter().map(|x| elu(*x)).chain(x.iter().map(|x| elu(-*x))).collect(),
        }
    };
    for layer in &graph.layers {
        let Map { stride, channels, .. } = graph.maps[layer.output];
        let accumulators = if layer.epilogue.gated { 2 * channels } else { channels };
        let fold = |id: ParameterId| weights.fold(&graph.parameters[id]).expect("held");
        let mut initial = vec![0.0; accumulators];
        for bias in &layer.biases {
            let terms = match *bias {
                Bias::Every(id) => fold(id).bias,
                Bias::PerClass(id) => {
                    let all = weights.class_term(&graph.parameters[id]).expect("held");
                    all[class * accumulators..(class + 1) * accumulators].to_vec()
                }
            };
            initial.iter_mut().zip(terms).for_each(|(sum, term)| *sum += f64::from(term));
        }
        let kernels: Vec<_> = layer.taps.iter().map(|tap| fold(tap.parameter).kernel).collect();
        let source = graph.maps[layer.taps[0].source].stride;
        let mut output = Vec::new();
        for (r, c) in (0..height / stride).flat_map(|r| (0..width / stride).map(move |c| (r, c))) {
            let mut sum = initial.clone();
            for (tap, kernel) in layer.taps.iter().zip(&kernels) {
                let ratio = (source / stride).max(1);
                if tap.parity.is_some_and(|parity| parity != [r % ratio, c % ratio]) {
                    continue;
                }
                let around = [r, c].map(|x| (x * stride / source) as isize);
                let x = at(&maps, tap.source, layer.read, [around[0] + tap.row, around[1] + tap.column]);
                let inputs = graph.parameters[tap.parameter].inputs;
                for (x, input) in x.iter().zip(tap.inputs.iter().cloned().flatten()) {
                    let row = &kernel[(tap.position * inputs + input) * accumulators..][..accumulators];
                    sum.iter_mut().zip(row).for_each(|(sum, w)| *sum += x * f64::from(*w));
                }
            }
            let here = [r as isize, c as isize];
            let add = layer.epilogue.add.map(|map| at(&maps, map, Activation::Identity, here));
            for i in 0..channels {
                let value = if layer.epilogue.tanh { sum[i].tanh() } else { sum[i] };
                let gate = if layer.epilogue.gated { 1.0 / (1.0 + (-sum[channels + i]).exp()) } else { 1.0 };
                output.push(value * gate + add.as_ref().map_or(0.0, |add| add[i]));
            }
        }
        maps[layer.output] = output;
    }
    let logits = std::mem::take(&mut maps[graph.logits()]);
    Array4::from_shape_vec((1, height, width, graph.head.logits()), logits).expect("logits for each pixel")
}
