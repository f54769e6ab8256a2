//! The oracle: PixelCNN++ as a plain scalar float64 forward pass.
//!
//! The idea: nothing is shared with the engine's description of the network. Outputs are really shifted,
//! transposed convolutions really scatter, and variables are named by counting them in the order in
//! which the reference constructs its graph. It is slow and meant to be read next to the reference.

use std::collections::HashMap;

use fast_pixel_cnn::{Nonlinearity, PixelCnnPp};

/// `[height, width, channels]` of one image.
#[derive(Clone, Debug)]
pub struct Map {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub values: Vec<f64>,
}

impl Map {
    pub fn zeros(height: usize, width: usize, channels: usize) -> Map {
        Map { height, width, channels, values: vec![0.0; height * width * channels] }
    }

    /// The channels at (row, column), or zeros outside.
    fn at(&self, row: isize, column: isize) -> Vec<f64> {
        let inside = |x: isize, size: usize| x >= 0 && (x as usize) < size;
        if !inside(row, self.height) || !inside(column, self.width) {
            return vec![0.0; self.channels];
        }
        let from = (row as usize * self.width + column as usize) * self.channels;
        self.values[from..from + self.channels].to_vec()
    }

    fn at_mut(&mut self, row: usize, column: usize) -> &mut [f64] {
        let from = (row * self.width + column) * self.channels;
        &mut self.values[from..from + self.channels]
    }

    /// The map moved by (rows, columns), with zeros where nothing comes from.
    fn shifted(&self, rows: isize, columns: isize) -> Map {
        let mut moved = Map::zeros(self.height, self.width, self.channels);
        for r in 0..self.height {
            for c in 0..self.width {
                let from = self.at(r as isize - rows, c as isize - columns);
                moved.at_mut(r, c).copy_from_slice(&from);
            }
        }
        moved
    }

    fn plus(mut self, other: &Map) -> Map {
        self.values.iter_mut().zip(&other.values).for_each(|(a, b)| *a += b);
        self
    }

    /// Both maps' channels, this one's first.
    fn concat(&self, other: &Map) -> Map {
        let mut both = Map::zeros(self.height, self.width, self.channels + other.channels);
        for r in 0..self.height {
            for c in 0..self.width {
                let channels = [self.at(r as isize, c as isize), other.at(r as isize, c as isize)].concat();
                both.at_mut(r, c).copy_from_slice(&channels);
            }
        }
        both
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Map {
        Map { values: self.values.iter().map(|x| f(*x)).collect(), ..self.clone() }
    }
}

fn elu(x: f64) -> f64 {
    if x > 0.0 { x } else { x.exp() - 1.0 }
}

/// Everything met on the way.
pub struct Pass {
    pub logits: Map,
    pub u: Vec<Map>,
    pub ul: Vec<Map>,
    pub down_u: Vec<Map>,
    pub down_ul: Vec<Map>,
    pub deconv_u: Vec<Map>,
    pub deconv_ul: Vec<Map>,
}

/// A model: its configuration, its arrays by name (`conv2d_0/V`), and the counters of construction.
struct Model<'a> {
    config: PixelCnnPp,
    array: &'a dyn Fn(&str) -> Vec<f32>,
    class: Option<usize>,
    counts: HashMap<&'static str, usize>,
}

/// The kernel of a convolution without weight normalisation, `[rows, columns, inputs, outputs]`.
struct Kernel {
    rows: usize,
    columns: usize,
    inputs: usize,
    outputs: usize,
    weights: Vec<f64>,
    bias: Vec<f64>,
}

impl Kernel {
    fn weight(&self, row: usize, column: usize, input: usize, output: usize) -> f64 {
        self.weights[((row * self.columns + column) * self.inputs + input) * self.outputs + output]
    }
}

impl Model<'_> {
    fn next(&mut self, kind: &'static str) -> String {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        format!("{kind}_{}", *count - 1)
    }

    fn read(&self, name: &str, part: &str) -> Vec<f64> {
        (self.array)(&format!("{name}/{part}")).into_iter().map(f64::from).collect()
    }

    fn kernel(
        &mut self,
        kind: &'static str,
        rows: usize,
        columns: usize,
        inputs: usize,
        outputs: usize,
    ) -> Kernel {
        let name = self.next(kind);
        let (v, g, bias) = (self.read(&name, "V"), self.read(&name, "g"), self.read(&name, "b"));
        assert_eq!((v.len(), g.len()), (rows * columns * inputs * outputs, outputs), "{name}");
        // Where V holds the weight of (position, input, output).
        let index = |position: usize, input: usize, output: usize| match kind {
            "deconv2d" => (position * outputs + output) * inputs + input,
            _ => (position * inputs + input) * outputs + output,
        };
        let mut weights = vec![0.0; v.len()];
        for output in 0..outputs {
            let all = || (0..rows * columns).flat_map(|p| (0..inputs).map(move |i| (p, i)));
            let square: f64 = all().map(|(p, i)| v[index(p, i, output)].powi(2)).sum();
            let norm = if kind == "dense" { square.sqrt() } else { square.max(1e-12).sqrt() };
            for (p, i) in all() {
                weights[(p * inputs + i) * outputs + output] = g[output] * v[index(p, i, output)] / norm;
            }
        }
        Kernel { rows, columns, inputs, outputs, weights, bias }
    }

    /// A convolution that reads rows `s i - (rows - 1) ..= s i` and columns from `s j - left` on.
    fn conv(
        &mut self,
        x: &Map,
        [rows, columns]: [usize; 2],
        left: usize,
        stride: usize,
        outputs: usize,
    ) -> Map {
        let kernel = self.kernel("conv2d", rows, columns, x.channels, outputs);
        let mut y = Map::zeros(x.height / stride, x.width / stride, outputs);
        for i in 0..y.height {
            for j in 0..y.width {
                let mut accumulators = kernel.bias.clone();
                for a in 0..rows {
                    for b in 0..columns {
                        let row = (stride * i + a) as isize - (rows as isize - 1);
                        let column = (stride * j + b) as isize - left as isize;
                        for (input, value) in x.at(row, column).into_iter().enumerate() {
                            for (output, sum) in accumulators.iter_mut().enumerate() {
                                *sum += value * kernel.weight(a, b, input, output);
                            }
                        }
                    }
                }
                y.at_mut(i, j).copy_from_slice(&accumulators);
            }
        }
        y
    }

    fn down_shifted_conv(&mut self, x: &Map, rows: usize, stride: usize, outputs: usize) -> Map {
        self.conv(x, [rows, 3], 1, stride, outputs)
    }

    fn down_right_shifted_conv(&mut self, x: &Map, columns: usize, stride: usize, outputs: usize) -> Map {
        self.conv(x, [2, columns], columns - 1, stride, outputs)
    }

    /// A transposed convolution of stride 2: input (i, j) adds to outputs (2i + a, 2j + b - left).
    fn deconv(&mut self, x: &Map, columns: usize, left: isize) -> Map {
        let kernel = self.kernel("deconv2d", 2, columns, x.channels, x.channels);
        let mut y = Map::zeros(2 * x.height, 2 * x.width, x.channels);
        for r in 0..y.height {
            for c in 0..y.width {
                y.at_mut(r, c).copy_from_slice(&kernel.bias);
            }
        }
        for i in 0..x.height {
            for j in 0..x.width {
                for a in 0..kernel.rows {
                    for b in 0..kernel.columns {
                        let column = (2 * j + b) as isize - left;
                        if column < 0 || column >= y.width as isize {
                            continue;
                        }
                        for (input, value) in x.at(i as isize, j as isize).into_iter().enumerate() {
                            for (output, sum) in y.at_mut(2 * i + a, column as usize).iter_mut().enumerate() {
                                *sum += value * kernel.weight(a, b, input, output);
                            }
                        }
                    }
                }
            }
        }
        y
    }

    fn nin(&mut self, x: &Map, outputs: usize) -> Map {
        let kernel = self.kernel("dense", 1, 1, x.channels, outputs);
        let mut y = Map::zeros(x.height, x.width, outputs);
        for r in 0..x.height {
            for c in 0..x.width {
                let values = x.at(r as isize, c as isize);
                for (output, sum) in y.at_mut(r, c).iter_mut().enumerate() {
                    let products = values.iter().enumerate().map(|(i, v)| v * kernel.weight(0, 0, i, output));
                    *sum = kernel.bias[output] + products.sum::<f64>();
                }
            }
        }
        y
    }

    fn activate(&self, x: &Map) -> Map {
        match self.config.nonlinearity {
            Nonlinearity::ConcatElu => x.concat(&x.map(|v| -v)).map(elu),
            Nonlinearity::Elu => x.map(elu),
            Nonlinearity::Relu => x.map(|v| v.max(0.0)),
        }
    }

    fn resnet(&mut self, x: &Map, a: Option<&Map>, vertical: bool) -> Map {
        let n = x.channels;
        let conv = |model: &mut Self, x: &Map, outputs| match vertical {
            true => model.down_shifted_conv(x, 2, 1, outputs),
            false => model.down_right_shifted_conv(x, 2, 1, outputs),
        };
        let mut c = conv(self, &self.activate(x), n);
        if let Some(a) = a {
            let skip = self.activate(a);
            c = c.plus(&self.nin(&skip, n));
        }
        let mut c = conv(self, &self.activate(&c), 2 * n);
        if let Some(class) = self.class {
            let name = self.next("conditional_weights");
            let hw = self.read(&name, "hw")[class * 2 * n..][..2 * n].to_vec();
            c.values.chunks_exact_mut(2 * n).for_each(|p| p.iter_mut().zip(&hw).for_each(|(v, h)| *v += h));
        }
        let mut y = x.clone();
        for (y, c) in y.values.chunks_exact_mut(n).zip(c.values.chunks_exact(2 * n)) {
            for i in 0..n {
                y[i] += c[i] / (1.0 + (-c[n + i]).exp());
            }
        }
        y
    }

    fn forward(mut self, pixels: &[f64], height: usize, width: usize) -> Pass {
        let PixelCnnPp { resnets, filters: n, channels, .. } = self.config;
        let mut x = Map::zeros(height, width, channels + 1);
        for (x, pixel) in x.values.chunks_exact_mut(channels + 1).zip(pixels.chunks_exact(channels)) {
            x.copy_from_slice(&[pixel, &[1.0]].concat());
        }
        let mut u = vec![self.down_shifted_conv(&x, 2, 1, n).shifted(1, 0)];
        let above = self.down_shifted_conv(&x, 1, 1, n).shifted(1, 0);
        let left = self.down_right_shifted_conv(&x, 1, 1, n).shifted(0, 1);
        let mut ul = vec![above.plus(&left)];
        let last = |list: &[Map]| list.last().expect("never empty").clone();
        for level in [1, 2, 4] {
            if level > 1 {
                u.push(self.down_shifted_conv(&last(&u), 2, 2, n));
                ul.push(self.down_right_shifted_conv(&last(&ul), 2, 2, n));
            }
            for _ in 0..resnets {
                u.push(self.resnet(&last(&u), None, true));
                ul.push(self.resnet(&last(&ul), Some(&last(&u)), false));
            }
        }
        let (mut us, mut uls) = (u.clone(), ul.clone());
        let (mut cu, mut cul) = (us.pop().expect("pushed"), uls.pop().expect("pushed"));
        let mut pass = Pass {
            logits: Map::zeros(0, 0, 0),
            u,
            ul,
            down_u: Vec::new(),
            down_ul: Vec::new(),
            deconv_u: Vec::new(),
            deconv_ul: Vec::new(),
        };
        for (level, count) in [(4, resnets), (2, resnets + 1), (1, resnets + 1)] {
            for _ in 0..count {
                cu = self.resnet(&cu, us.pop().as_ref(), true);
                let skip = cu.concat(&uls.pop().expect("one push for each pop"));
                cul = self.resnet(&cul, Some(&skip), false);
                pass.down_u.push(cu.clone());
                pass.down_ul.push(cul.clone());
            }
            if level > 1 {
                cu = self.deconv(&cu, 3, 1);
                cul = self.deconv(&cul, 2, 0);
                pass.deconv_u.push(cu.clone());
                pass.deconv_ul.push(cul.clone());
            }
        }
        pass.logits = self.nin(&cul.map(elu), self.config.mixtures * per_component(channels));
        pass
    }
}

/// Logits of a mixture component: itself, and for each channel a mean, a log-scale and, of three channels, a
/// coefficient.
fn per_component(channels: usize) -> usize {
    if channels == 1 { 3 } else { 10 }
}

/// A forward pass over one image, `[height, width, channels]` in [-1, 1]. `array` gives `conv2d_0/V` and so on.
pub fn forward(
    config: PixelCnnPp,
    array: &dyn Fn(&str) -> Vec<f32>,
    pixels: &[f32],
    [height, width]: [usize; 2],
    class: Option<usize>,
) -> Pass {
    let pixels: Vec<f64> = pixels.iter().copied().map(f64::from).collect();
    Model { config, array, class, counts: HashMap::new() }.forward(&pixels, height, width)
}

/// Nats of one image under its logits, straight from the definition: for each pixel the mixture's
/// probability of its bytes, as differences of logistic distribution functions at the bytes' edges.
pub fn nats(logits: &Map, pixels: &[f32]) -> f64 {
    let channels = pixels.len() * logits.channels / logits.values.len();
    let m = logits.channels / per_component(channels);
    let softplus = |x: f64| if x > 30.0 { x } else { x.exp().ln_1p() };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut total = 0.0;
    for (l, pixel) in logits.values.chunks_exact(logits.channels).zip(pixels.chunks_exact(channels)) {
        let v: Vec<f64> = pixel.iter().map(|v| f64::from(*v)).collect();
        let normaliser: f64 = l[..m].iter().map(|x| x.exp()).sum();
        let mut probability = 0.0;
        for k in 0..m {
            let mut log = 0.0;
            for c in 0..channels {
                let (mean, scale) = component(l, m, channels, k, c, &v);
                let (z, i) = (v[c] - mean, (-scale).exp());
                let (p, q) = (i * (z + 1.0 / 255.0), i * (z - 1.0 / 255.0));
                log += if v[c] < -0.999 {
                    p - softplus(p)
                } else if v[c] > 0.999 {
                    -softplus(q)
                } else if sigmoid(p) - sigmoid(q) > 1e-5 {
                    (sigmoid(p) - sigmoid(q)).ln()
                } else {
                    i * z - scale - 2.0 * softplus(i * z) - 127.5f64.ln()
                };
            }
            // Logs of hundreds below zero: add in the log domain, component by component.
            let term = l[k] - normaliser.ln() + log;
            probability = if k == 0 { term } else { log_sum(probability, term) };
        }
        total -= probability;
    }
    total
}

fn log_sum(a: f64, b: f64) -> f64 {
    a.max(b) + (-(a - b).abs()).exp().ln_1p()
}

/// Mean and log-scale of channel c in component k of m, given the channels before it.
fn component(l: &[f64], m: usize, channels: usize, k: usize, c: usize, before: &[f64]) -> (f64, f64) {
    let parts = if channels == 1 { 2 } else { 3 };
    let group = |c: usize, part: usize| l[m + c * parts * m + part * m + k];
    let coefficient = |c: usize| group(c, 2).tanh();
    let shift = match c {
        0 => 0.0,
        1 => coefficient(0) * before[0],
        _ => coefficient(1) * before[0] + coefficient(2) * before[1],
    };
    (group(c, 0) + shift, group(c, 1).max(-7.0))
}

/// The pixel that the uniforms `[m]` and `[channels]` draw from logits at a temperature: mixture logits
/// divided by it, and each logistic's scale, after its floor, times it.
pub fn sample(logits: &[f64], temperature: f64, u_mixture: &[f64], u_logistic: &[f64]) -> Vec<f64> {
    let (m, channels) = (u_mixture.len(), u_logistic.len());
    let score = |k: usize| logits[k] / temperature - (-u_mixture[k].ln()).ln();
    let k = (1..m).fold(0, |best, k| if score(k) > score(best) { k } else { best });
    let mut pixel = Vec::new();
    for (c, u) in u_logistic.iter().enumerate() {
        let (mean, scale) = component(logits, m, channels, k, c, &pixel);
        let noise = temperature * scale.exp() * (u.ln() - (1.0 - u).ln());
        pixel.push((mean + noise).clamp(-1.0, 1.0));
    }
    pixel
}

/// The image that uniforms `[height, width, m]` and `[height, width, C]` make, `[height, width, C]`, and the logits
/// met on the way: a whole forward pass for each pixel.
pub fn generate(
    config: PixelCnnPp,
    array: &dyn Fn(&str) -> Vec<f32>,
    temperature: f64,
    [u_mixture, u_logistic]: [&[f64]; 2],
    [height, width]: [usize; 2],
    class: Option<usize>,
) -> (Vec<f64>, Vec<f64>) {
    let PixelCnnPp { mixtures: m, channels, .. } = config;
    let (mut image, mut met) = (vec![0.0; height * width * channels], Vec::new());
    for pixel in 0..height * width {
        // Pixels not yet made are zeros, which nothing may depend on.
        let model = Model { config, array, class, counts: HashMap::new() };
        let pass = model.forward(&image, height, width);
        let count = pass.logits.channels;
        let logits = &pass.logits.values[pixel * count..][..count];
        let uniforms = [&u_mixture[pixel * m..][..m], &u_logistic[pixel * channels..][..channels]];
        let values = sample(logits, temperature, uniforms[0], uniforms[1]);
        image[pixel * channels..][..channels].copy_from_slice(&values);
        met.extend_from_slice(logits);
    }
    (image, met)
}
