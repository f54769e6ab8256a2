//! Layer by layer: stacks of convolutions made by hand, naive against a plain scalar evaluation and
//! cached against naive, bit for bit.
//!
//! The idea: a whole PixelCNN++ can hide a mistake in a layer it does not use that way. So small
//! networks are put together here that no PixelCNN++ has: only convolutions, strides and back, with and
//! without skips and class terms.

mod teams;

use ndarray::{Array4, s};

use super::*;
use crate::config::Nonlinearity;
use crate::engine::Noise;
use crate::network::*;

/// Builds a network of single layers; every layer's variable is a fresh one.
struct Stack {
    network: Network,
}

/// Channels of the hidden layers: one full panel and a part of one.
const FILTERS: usize = 18;

impl Stack {
    fn new(classes: usize, nonlinearity: Nonlinearity) -> Stack {
        let config = ModelConfig { resnets: 1, filters: FILTERS, mixtures: 2, classes, nonlinearity };
        let mut network = Network::new(config);
        network.variables.clear();
        network.layers.clear();
        network.tensors.truncate(1);
        Stack { network }
    }

    fn variable(&mut self, kind: VariableKind, inputs: usize, outputs: usize) -> VariableId {
        let name = format!("v{}", self.network.variables.len());
        self.network.variables.push(Variable { name, kind, inputs, outputs });
        self.network.variables.len() - 1
    }

    /// A layer with the taps `(source, row, column, parity)`, each with its own position of one kernel.
    fn layer(
        &mut self,
        (stream, level): (Stream, usize),
        (sampling, form): (Sampling, Form),
        taps: &[(TensorId, isize, isize, Option<[usize; 2]>)],
        epilogue: Epilogue,
        class_term: bool,
    ) -> TensorId {
        let depth = self.network.channels(taps[0].0, form);
        let sums = if epilogue == Epilogue::Store { FILTERS } else { 2 * FILTERS };
        let variable = self.variable(VariableKind::Conv { kernel: [1, taps.len()] }, depth, sums);
        let taps = taps.iter().enumerate().map(|(position, &(source, row, column, parity))| Tap {
            source,
            row,
            column,
            variable,
            position,
            inputs: std::iter::once(0..depth).collect(),
            parity,
        });
        let taps = taps.collect();
        let class_term =
            class_term.then(|| self.variable(VariableKind::Conditional, self.network.config.classes, sums));
        let name = format!("t{}", self.network.tensors.len());
        self.network.tensors.push(Tensor { name: name.clone(), stream, level, channels: FILTERS });
        let output = self.network.tensors.len() - 1;
        let biases = vec![Bias::Every(variable)];
        self.network.layers.push(Layer {
            name,
            stream,
            level,
            sampling,
            form,
            depth,
            taps,
            biases,
            class_term,
            epilogue,
            sums,
            output,
        });
        output
    }

    /// The first layer: reads the pixels before this one.
    fn input(&mut self, stream: Stream) -> TensorId {
        let taps: &[_] = match stream {
            Stream::Vertical => &[(IMAGE, -2, 0, None), (IMAGE, -1, -1, None), (IMAGE, -1, 1, None)],
            Stream::Horizontal => &[(IMAGE, -1, 1, None), (IMAGE, 0, -1, None)],
        };
        self.layer((stream, 1), (Sampling::Same, Form::Raw), taps, Epilogue::Store, false)
    }

    /// A 2x3 or 2x2 convolution.
    fn conv(
        &mut self,
        stream: Stream,
        source: TensorId,
        sampling: Sampling,
        gate: bool,
        class: bool,
    ) -> TensorId {
        let level = self.network.tensors[source].level;
        let (level, form) = match sampling {
            Sampling::Down => (2 * level, Form::Raw),
            _ => (level, Form::Activated),
        };
        let last = if stream == Stream::Vertical { 1 } else { 0 };
        let columns = || -1..=last;
        let taps: Vec<_> = (-1..1).flat_map(|r| columns().map(move |c| (source, r, c, None))).collect();
        let epilogue = if gate { Epilogue::Gate { residual: source } } else { Epilogue::Store };
        self.layer((stream, level), (sampling, form), &taps, epilogue, class)
    }

    /// A transposed convolution.
    fn up(&mut self, stream: Stream, source: TensorId) -> TensorId {
        let level = self.network.tensors[source].level / 2;
        let mut taps = Vec::new();
        for row in 0..2 {
            taps.push((source, 0, 0, Some([row, 0])));
            taps.push((source, 0, 0, Some([row, 1])));
            if stream == Stream::Vertical {
                taps.push((source, 0, 1, Some([row, 1])));
            }
        }
        self.layer((stream, level), (Sampling::Up, Form::Raw), &taps, Epilogue::Store, false)
    }

    /// A 1x1 layer over two sources of one level, both at the same position.
    fn join(&mut self, u: TensorId, ul: TensorId) -> TensorId {
        let level = self.network.tensors[ul].level;
        let taps = [(u, -1, 0, None), (u, 0, 0, None), (ul, 0, -1, None), (ul, 0, 0, None)];
        self.layer(
            (Stream::Horizontal, level),
            (Sampling::Same, Form::Activated),
            &taps,
            Epilogue::Store,
            true,
        )
    }

    /// Ends with the logits and returns the network.
    fn logits(mut self, source: TensorId) -> Network {
        let logits = self.network.config.logits();
        let variable = self.variable(VariableKind::Dense, FILTERS, logits);
        self.layer(
            (Stream::Horizontal, 1),
            (Sampling::Same, Form::Elu),
            &[(source, 0, 0, None)],
            Epilogue::Store,
            false,
        );
        // `layer` made a hidden one; the logits have their own width and variable.
        let layer = self.network.layers.last_mut().expect("just made");
        (layer.sums, layer.biases, layer.taps[0].variable) = (logits, vec![Bias::Every(variable)], variable);
        self.network.tensors[layer.output].channels = logits;
        self.network
    }
}

/// The stacks: name and network.
fn stacks(classes: usize) -> Vec<(&'static str, Network)> {
    use Stream::*;
    let class = classes > 0;
    let mut stacks = Vec::new();
    let new = |nonlinearity| Stack::new(classes, nonlinearity);

    let mut s = new(Nonlinearity::ConcatElu);
    let ul = s.input(Horizontal);
    let ul = s.conv(Horizontal, ul, Sampling::Same, false, class);
    let ul = s.conv(Horizontal, ul, Sampling::Same, true, class);
    stacks.push(("convolutions to the right and down", s.logits(ul)));

    let mut s = new(Nonlinearity::Elu);
    let ul = s.input(Horizontal);
    let mut x = s.conv(Horizontal, ul, Sampling::Down, false, class);
    x = s.conv(Horizontal, x, Sampling::Same, true, class);
    x = s.up(Horizontal, x);
    stacks.push(("stride 2 and back", s.logits(x)));

    let mut s = new(Nonlinearity::Relu);
    let ul = s.input(Horizontal);
    let mut x = s.conv(Horizontal, ul, Sampling::Down, false, false);
    x = s.conv(Horizontal, x, Sampling::Down, false, class);
    x = s.up(Horizontal, x);
    x = s.conv(Horizontal, x, Sampling::Same, false, class);
    x = s.up(Horizontal, x);
    stacks.push(("stride 4 and back", s.logits(x)));

    for down in [0, 1, 2] {
        let mut s = new(Nonlinearity::ConcatElu);
        let (mut u, mut ul) = (s.input(Vertical), s.input(Horizontal));
        for _ in 0..down {
            u = s.conv(Vertical, u, Sampling::Down, false, class);
            ul = s.conv(Horizontal, ul, Sampling::Down, false, class);
        }
        u = s.conv(Vertical, u, Sampling::Same, true, class);
        if class {
            ul = s.join(u, ul);
        }
        for _ in 0..down {
            u = s.up(Vertical, u);
            ul = s.up(Horizontal, ul);
        }
        u = s.conv(Vertical, u, Sampling::Same, false, class);
        let level_1 = s.layer(
            (Horizontal, 1),
            (Sampling::Same, Form::Activated),
            &[(u, 0, 0, None), (ul, 0, 0, None)],
            Epilogue::Gate { residual: ul },
            class,
        );
        stacks.push((["both streams", "both, stride 2", "both, stride 4"][down], s.logits(level_1)));
    }
    stacks
}

/// Evaluates a network layer by layer, one output at a time, in float64.
fn forward(network: &Network, weights: &Weights, image: &Array4<f32>, class: usize) -> Array4<f64> {
    let (_, height, width, _) = image.dim();
    let mut tensors: Vec<Vec<f64>> = vec![Vec::new(); network.tensors.len()];
    for r in 0..height {
        for c in 0..width {
            tensors[IMAGE].extend((0..3).map(|k| f64::from(image[[0, r, c, k]])).chain([1.0]));
        }
    }
    let elu = |x: f64| if x > 0.0 { x } else { x.exp_m1() };
    let read = |tensors: &[Vec<f64>], t: TensorId, form: Form, r: isize, c: isize| -> Vec<f64> {
        let tensor = &network.tensors[t];
        let (h, w) = (height / tensor.level, width / tensor.level);
        if r < 0 || c < 0 || r as usize >= h || c as usize >= w {
            return vec![0.0; network.channels(t, form)];
        }
        let x = &tensors[t][(r as usize * w + c as usize) * tensor.channels..][..tensor.channels];
        match (form, network.config.nonlinearity) {
            (Form::Raw, _) => x.to_vec(),
            (Form::Elu, _) | (Form::Activated, Nonlinearity::Elu) => x.iter().map(|x| elu(*x)).collect(),
            (Form::Activated, Nonlinearity::Relu) => x.iter().map(|x| x.max(0.0)).collect(),
            (Form::Activated, Nonlinearity::ConcatElu) => {
                x.iter().map(|x| elu(*x)).chain(x.iter().map(|x| elu(-*x))).collect()
            }
        }
    };
    for layer in &network.layers {
        let (h, w) = (height / layer.level, width / layer.level);
        let mut output = Vec::new();
        let kernels: Vec<_> = layer
            .taps
            .iter()
            .map(|t| weights.fold(&network.variables[t.variable]).expect("held").kernel)
            .collect();
        for (r, c) in (0..h).flat_map(|r| (0..w).map(move |c| (r, c))) {
            let mut sums = vec![0.0; layer.sums];
            for bias in &layer.biases {
                let Bias::Every(v) = *bias else { panic!("no stack shifts its bias") };
                let bias = weights.fold(&network.variables[v]).expect("held").bias;
                sums.iter_mut().zip(bias).for_each(|(s, b)| *s += f64::from(b));
            }
            if let Some(v) = layer.class_term {
                let hw = &weights.class_term(&network.variables[v]).expect("held")[class * layer.sums..];
                sums.iter_mut().zip(hw).for_each(|(s, b)| *s += f64::from(*b));
            }
            for (tap, kernel) in layer.taps.iter().zip(&kernels) {
                if tap.parity.is_some_and(|p| p != [r % 2, c % 2]) {
                    continue;
                }
                let at = |x: usize| match layer.sampling {
                    Sampling::Same => x as isize,
                    Sampling::Down => 2 * x as isize,
                    Sampling::Up => x as isize / 2,
                };
                let x = read(&tensors, tap.source, layer.form, at(r) + tap.row, at(c) + tap.column);
                for (i, x) in x.iter().enumerate() {
                    for (o, s) in sums.iter_mut().enumerate() {
                        *s += x * f64::from(kernel[(tap.position * layer.depth + i) * layer.sums + o]);
                    }
                }
            }
            if let Epilogue::Gate { residual } = layer.epilogue {
                let x = read(&tensors, residual, Form::Raw, r as isize, c as isize);
                let n = x.len();
                sums = (0..n).map(|i| x[i] + sums[i] / (1.0 + (-sums[n + i]).exp())).collect();
            }
            output.extend(sums);
        }
        tensors[layer.output] = output;
    }
    Array4::from_shape_vec((1, height, width, network.config.logits()), tensors[network.logits()].clone())
        .expect("one vector of logits for each pixel")
}

fn engine(network: &Network, weights: &Weights, options: &Options) -> CpuEngine {
    CpuEngine::of(network.clone(), weights, options).expect("weights in memory")
}

#[test]
fn packed_weights_do_not_depend_on_the_threads() {
    // With classes and transposed convolutions, on more threads than layers too.
    let config =
        ModelConfig { resnets: 1, filters: 5, mixtures: 2, classes: 3, nonlinearity: Nonlinearity::Elu };
    let (network, weights) = (Network::new(config), Weights::synthetic(config, 3));
    for precision in [Precision::F32, Precision::Bf16] {
        let packed =
            |threads| Packed::new(&network, &weights, precision, threads).expect("weights in memory");
        let bits = |packed: &Packed| packed.floats.as_slice().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let alone = bits(&packed(1));
        for threads in [2, 3, 1000] {
            assert!(bits(&packed(threads)) == alone, "{precision:?}, {threads} threads");
        }
    }
}

#[test]
fn every_stack_is_what_its_layers_say_and_cached_equals_naive() {
    stacks_agree(Precision::F32, 2e-5);
}

#[test]
fn with_bfloat16_weights_cached_equals_naive_too() {
    stacks_agree(Precision::Bf16, 0.05);
}

/// Cached equals naive bit for bit, and the plain evaluation up to a tolerance.
fn stacks_agree(precision: Precision, tolerance: f64) {
    for classes in [0, 3] {
        for (name, network) in stacks(classes) {
            let weights = Weights::synthetic_for(&network, 5);
            let labels: Vec<u32> = (0..3).map(|i| i % classes.max(1) as u32).collect();
            let labels = (classes > 0).then_some(&labels[..]);
            for (i, isa) in Isa::ALL.into_iter().filter(|i| i.available()).enumerate() {
                let split = if i % 2 == 0 { Split::Outputs } else { Split::Images };
                let options = Options { threads: Some(2 + i), isa: Some(isa), split: Some(split), precision };
                let mut engine = engine(&network, &weights, &options);
                // Without a fused multiply-add in hardware everything takes a hundred times as long.
                let (size, height, width) = if isa == Isa::Portable { (2, 8, 4) } else { (3, 12, 8) };
                let labels = labels.map(|l| &l[..size]);
                let mut batch = Batch {
                    size,
                    height,
                    width,
                    labels,
                    noise: Noise::Philox { seed: 8, first_index: 0 },
                    temperature: 1.0,
                    given: None,
                    method: Method::Cached,
                    keep_logits: true,
                };
                let cached = engine.make(&batch, &|_| true).expect("sound batch");
                batch.method = Method::Naive;
                let naive = engine.make(&batch, &|_| true).expect("sound batch");
                assert!(cached == naive, "{name}, {isa:?}, {classes} classes: cached is not naive");

                let logits = cached.logits.expect("asked for");
                for image in 0..size {
                    let pixels = cached.images.slice(s![image..image + 1, .., .., ..]).to_owned();
                    let class = labels.map_or(0, |l| l[image] as usize);
                    let exact = forward(&network, &weights, &pixels, class);
                    let found = logits.slice(s![image..image + 1, .., .., ..]);
                    let largest = exact.iter().zip(&found).map(|(a, b)| (a - f64::from(*b)).abs());
                    let largest = largest.fold(0.0, f64::max);
                    assert!(largest < tolerance, "{name}, {isa:?}, {classes} classes: off by {largest:e}");
                }
            }
        }
    }
}

/// Every tensor of the network in every form in which it is stored, against the reference's lists.
#[test]
fn every_tensor_stored_is_the_reference_s() {
    use crate::{npy, weights};
    use std::path::Path;

    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny");
    let checkpoint = golden.join("v2/params.ckpt");
    let weights = Weights::load(&checkpoint, &weights::Options::default()).expect("golden checkpoint");
    let images = npy::read_u8(&golden.join("images_u8.npy")).expect("golden images");
    let images = images.into_dimensionality().expect("four axes");
    let images: Array4<f32> = images.mapv(|p: u8| (f32::from(p) - 127.5) / 127.5);
    let (size, height, width, _) = images.dim();
    let mut engine = CpuEngine::new(&weights, &Options::default()).expect("default options");
    engine.logits(images.view(), None).expect("golden images");

    let (_, block) = engine.naive_block.as_ref().expect("kept after a pass");
    let layout = grid::Layout::new(&engine.network, grid::Storage::Full, size, height, width);
    let network = &engine.network;
    let pairs = |list: &[[TensorId; 2]], i: usize| list.iter().map(|pair| pair[i]).collect();
    let lists: [(&str, Vec<TensorId>); 6] = [
        ("u_list", network.up_vertical.clone()),
        ("ul_list", network.up_horizontal.clone()),
        ("down_u", pairs(&network.down, 0)),
        ("down_ul", pairs(&network.down, 1)),
        ("deconv_u", pairs(&network.deconvs, 0)),
        ("deconv_ul", pairs(&network.deconvs, 1)),
    ];
    let elu = |x: f32| if x > 0.0 { x } else { x.exp_m1() };
    let mut compared = 0;
    for (name, list) in lists {
        for (i, tensor) in list.into_iter().enumerate() {
            let expected = npy::read_f32(&golden.join(format!("act/{name}_{i}.npy"))).expect("golden");
            for form in [Form::Raw, Form::Activated, Form::Elu] {
                let Some(grid) = layout.grid(tensor, form) else { continue };
                for image in 0..size {
                    for r in 0..expected.shape()[1] {
                        for c in 0..expected.shape()[2] {
                            let x = expected.slice(s![image, r, c, ..]);
                            let x: Vec<f32> = match form {
                                Form::Raw => x.to_vec(),
                                Form::Elu => x.iter().map(|x| elu(*x)).collect(),
                                Form::Activated => {
                                    x.iter().map(|x| elu(*x)).chain(x.iter().map(|x| elu(-*x))).collect()
                                }
                            };
                            let at = grid.at(image, r as isize, c as isize);
                            let found = &block.as_slice()[at..at + grid.channels];
                            assert_eq!(found.len(), x.len());
                            let off = found.iter().zip(&x).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                            assert!(off <= 1e-5, "{name}_{i} {form:?} at ({r}, {c}): off by {off:e}");
                            compared += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(compared > 1000, "only {compared} positions were compared");
}
