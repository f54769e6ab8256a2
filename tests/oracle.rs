//! The oracle against the reference's float64 numbers, and the engine against the oracle where there is
//! no golden data: other sizes, other shapes of model.

#[path = "common/models.rs"]
mod models;
#[path = "oracle/mod.rs"]
mod plain;

use fast_pixel_cnn::cpu::{CpuEngine, Options};
use fast_pixel_cnn::engine::{Batch, Engine, Noise};
use fast_pixel_cnn::heads::Head;
use fast_pixel_cnn::{ModelConfig, Nonlinearity, PixelCnnPp, Weights, media::npy, weights};
use models::golden;
use ndarray::{Array4, Axis, concatenate};
use plain::Map;

/// A float64 or float32 array, flat.
fn array(path: &str) -> Vec<f64> {
    let bytes = std::fs::read(golden(path)).unwrap();
    let npy = npyz::NpyFile::new(&bytes[..]).unwrap();
    match npy.dtype().descr().contains("f8") {
        true => npy.into_vec::<f64>().unwrap(),
        false => npy.into_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
    }
}

fn largest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The images of a golden directory, each with its class.
fn images(directory: &str) -> (Vec<Vec<f32>>, [usize; 2], Vec<Option<usize>>) {
    let bytes = npy::read_u8(&golden(&format!("{directory}/images_u8.npy"))).unwrap();
    let shape = bytes.shape().to_vec();
    let images = bytes.outer_iter();
    let images = images.map(|i| i.iter().map(|p| (f32::from(*p) - 127.5) / 127.5).collect());
    let labels = golden(&format!("{directory}/labels.npy"));
    let classes = match labels.exists() {
        true => npy::read_labels(&labels).unwrap().into_iter().map(|l| Some(l as usize)).collect(),
        false => vec![None; shape[0]],
    };
    (images.collect(), [shape[1], shape[2]], classes)
}

fn load(directory: &str, raw: bool) -> Weights {
    let nonlinearity = (directory == "relu").then_some(Nonlinearity::Relu);
    let options = weights::Options { raw, nonlinearity, ..Default::default() };
    Weights::load_with(golden(&format!("{directory}/v2/params.ckpt")), &options).unwrap()
}

fn flat(maps: &[Map]) -> Vec<f64> {
    maps.iter().flat_map(|m| m.values.iter().copied()).collect()
}

fn config(weights: &Weights) -> PixelCnnPp {
    match weights.config() {
        Some(ModelConfig::PixelCnnPp(config)) => *config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_oracle_is_the_reference_in_float64() {
    for directory in ["tiny", "cond", "elu", "relu", "rect"] {
        let weights = load(directory, false);
        let config = config(&weights);
        let parameter = |name: &str| weights.array(name).unwrap().to_vec();
        let (images, size, classes) = images(directory);
        let mut logits = Vec::new();
        let mut nats = Vec::new();
        for (image, class) in images.iter().zip(classes) {
            let pass = plain::forward(config, &parameter, image, size, class);
            nats.push(plain::nats(&pass.logits, image));
            logits.push(pass.logits);
        }
        let off = largest(&flat(&logits), &array(&format!("{directory}/logits_f64.npy")));
        let expected = array(&format!("{directory}/nll_f64.npy"));
        let relative = nats.iter().zip(&expected).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
        println!("{directory}: logits within {off:e}, nats within {relative:e} relative");
        assert!(off < 1e-9 && relative < 1e-9);
    }
}

#[test]
fn with_the_raw_weights_too() {
    for directory in ["tiny", "cond", "elu", "relu", "rect"] {
        let weights = load(directory, true);
        let config = config(&weights);
        let parameter = |name: &str| weights.array(name).unwrap().to_vec();
        let (images, size, classes) = images(directory);
        let pass =
            |(image, class): (&Vec<f32>, _)| plain::forward(config, &parameter, image, size, class).logits;
        let logits: Vec<Map> = images.iter().zip(classes).map(pass).collect();
        // The reference's numbers are float32 here.
        let off = largest(&flat(&logits), &array(&format!("{directory}/logits_raw_weights.npy")));
        println!("{directory}, raw weights: logits within {off:e}");
        assert!(off < 1e-5);
    }
}

#[test]
fn draws_and_whole_images_are_the_reference_s() {
    let [logits, u_mixture, u_logistic, samples] =
        ["logits", "u_mixture", "u_logistic", "samples"].map(|f| array(&format!("logistic/{f}.npy")));
    let uniforms = u_mixture.chunks_exact(5).zip(u_logistic.chunks_exact(3));
    let drawn =
        logits.chunks_exact(50).zip(uniforms).flat_map(|(l, (mix, log))| plain::sample(l, 1.0, mix, log));
    let off = largest(&drawn.collect::<Vec<_>>(), &samples);
    println!("logistic: samples within {off:e}");
    assert!(off < 1e-6);

    for directory in ["tiny", "cond"] {
        let weights = load(directory, false);
        let config = config(&weights);
        let parameter = |name: &str| weights.array(name).unwrap().to_vec();
        let (_, size, classes) = images(directory);
        let pixels = size[0] * size[1];
        let [u_mixture, u_logistic, expected, met] = ["u_mix", "u_logistic", "x_gen", "logits_during_gen"]
            .map(|f| array(&format!("{directory}/gen/{f}.npy")));
        for (i, class) in classes.into_iter().enumerate() {
            let of =
                |all: &[f64], channels: usize| all[i * pixels * channels..][..pixels * channels].to_vec();
            let uniforms = [of(&u_mixture, 5), of(&u_logistic, 3)];
            let (image, logits) =
                plain::generate(config, &parameter, 1.0, [&uniforms[0], &uniforms[1]], size, class);
            let off = [largest(&image, &of(&expected, 3)), largest(&logits, &of(&met, 50))];
            println!("{directory}, image {i}: values within {:e}, logits within {:e}", off[0], off[1]);
            assert!(off[0] < 1e-5 && off[1] < 1e-5);
        }
    }
}

#[test]
fn a_temperature_divides_the_mixture_s_logits_and_multiplies_the_scales() {
    let [logits, u_mixture, u_logistic] =
        ["logits", "u_mixture", "u_logistic"].map(|f| array(&format!("logistic/{f}.npy")));
    let narrow = |all: &[f64]| all.iter().map(|x| *x as f32).collect::<Vec<_>>();
    let mut moved = 0;
    for temperature in [1e-3, 0.3, 0.9, 1.0, 1.7, 40.0_f32] {
        let uniforms = u_mixture.chunks_exact(5).zip(u_logistic.chunks_exact(3));
        let mut most = 0.0_f64;
        for (logits, (mix, log)) in logits.chunks_exact(50).zip(uniforms) {
            let exact = plain::sample(logits, f64::from(temperature), mix, log);
            let mut found = [0.0; 3];
            let uniforms = [narrow(mix), narrow(log)].concat();
            let head = Head::MixtureOfLogistics { mixtures: mix.len(), channels: 3 };
            head.sample(&narrow(logits), temperature, &uniforms, &mut found);
            let found = found.map(f64::from);
            most = most.max(largest(&found, &exact));
            moved += usize::from(largest(&plain::sample(logits, 1.0, mix, log), &exact) > 1e-3);
        }
        println!("temperature {temperature}: samples within {most:e}");
        assert!(most < 1e-4, "temperature {temperature}: {most:e}");
    }
    assert!(moved > 100, "a temperature moved only {moved} pixels");
}

#[test]
fn every_activation_is_the_reference_s() {
    let weights = load("tiny", false);
    let config = config(&weights);
    let parameter = |name: &str| weights.array(name).unwrap().to_vec();
    let (images, size, _) = images("tiny");
    let passes: Vec<_> =
        images.iter().map(|image| plain::forward(config, &parameter, image, size, None)).collect();
    type List = fn(&plain::Pass) -> &Vec<Map>;
    let lists: [(&str, List); 6] = [
        ("u_list", |p| &p.u),
        ("ul_list", |p| &p.ul),
        ("down_u", |p| &p.down_u),
        ("down_ul", |p| &p.down_ul),
        ("deconv_u", |p| &p.deconv_u),
        ("deconv_ul", |p| &p.deconv_ul),
    ];
    for (name, list) in lists {
        for i in 0..list(&passes[0]).len() {
            let maps: Vec<Map> = passes.iter().map(|p| list(p)[i].clone()).collect();
            let off = largest(&flat(&maps), &array(&format!("tiny/act/{name}_{i}.npy")));
            assert!(off < 1e-5, "{name}_{i}: off by {off:e}");
        }
        let beyond = golden(&format!("tiny/act/{name}_{}.npy", list(&passes[0]).len()));
        assert!(!beyond.exists(), "{} has no counterpart", beyond.display());
    }
}

#[test]
fn the_engine_is_the_oracle_on_other_sizes_and_models() {
    for (resnets, filters, mixtures, channels, classes, nonlinearity) in [
        (1, 17, 1, 3, 0, Nonlinearity::ConcatElu),
        (2, 9, 2, 3, 3, Nonlinearity::ConcatElu),
        (1, 33, 3, 3, 2, Nonlinearity::Elu),
        (2, 16, 2, 3, 0, Nonlinearity::Relu),
        (1, 12, 4, 1, 0, Nonlinearity::ConcatElu),
        (1, 5, 1, 1, 2, Nonlinearity::Relu),
    ] {
        let config = PixelCnnPp { resnets, filters, mixtures, channels, classes, nonlinearity };
        let weights = Weights::synthetic(config, 11);
        let parameter = |name: &str| weights.array(name).unwrap().to_vec();
        let mut engine = CpuEngine::new(&weights, &Options::default()).unwrap();
        for [height, width] in [[4, 4], [4, 32], [12, 20]] {
            let images = Array4::from_shape_fn((2, height, width, channels), |(i, r, c, k)| {
                ((i * 101 + r * 31 + c * 57 + k * 83) % 256) as f32 / 127.5 - 1.0
            });
            let labels = [0, classes.max(1) as u32 - 1];
            let labels = (classes > 0).then_some(&labels[..]);
            let logits = engine.logits(images.view(), labels).unwrap();
            let nats = engine.nats(images.view(), labels).unwrap();
            for (i, image) in images.outer_iter().enumerate() {
                let class = labels.map(|l| l[i] as usize);
                let pixels: Vec<f32> = image.iter().copied().collect();
                let exact = plain::forward(config, &parameter, &pixels, [height, width], class).logits;
                let found: Vec<f64> =
                    logits.outer_iter().nth(i).unwrap().iter().map(|x| f64::from(*x)).collect();
                let off = largest(&found, &exact.values);
                assert!(off < 5e-5, "{config}, {height}x{width}: off by {off:e}");
                let relative = (nats[i] / plain::nats(&exact, &pixels) - 1.0).abs();
                assert!(relative < 1e-5, "{config}, {height}x{width}: nats off by {relative:e}");
            }
        }
    }
}

#[test]
fn the_engine_s_images_are_the_oracle_s_on_other_sizes_and_models() {
    for (mixtures, channels, classes, nonlinearity, [height, width], temperature) in [
        (1, 3, 0, Nonlinearity::Relu, [4, 12], 1.0),
        (2, 3, 3, Nonlinearity::ConcatElu, [8, 4], 1.0),
        (4, 3, 2, Nonlinearity::Elu, [4, 4], 1.0),
        (4, 3, 2, Nonlinearity::ConcatElu, [4, 4], 0.25),
        (3, 3, 0, Nonlinearity::Elu, [4, 8], 1.75),
        (3, 1, 0, Nonlinearity::ConcatElu, [8, 4], 1.0),
        (2, 1, 2, Nonlinearity::Elu, [4, 8], 0.5),
    ] {
        let config = PixelCnnPp { resnets: 1, filters: 9, mixtures, channels, classes, nonlinearity };
        let weights = Weights::synthetic(config, 4);
        let parameter = |name: &str| weights.array(name).unwrap().to_vec();
        let labels = [0, classes.max(1) as u32 - 1];
        let labels = (classes > 0).then_some(&labels[..]);
        let uniform = |channels: usize, salt: usize| {
            Array4::from_shape_fn((2, height, width, channels), |(i, r, c, k)| {
                ((i * 811 + r * 257 + c * 389 + k * 613 + salt) % 1009) as f32 / 1010.0 + 5e-4
            })
        };
        let (u_mixture, u_logistic) = (uniform(mixtures, 17), uniform(channels, 501));
        let noise = concatenate(Axis(3), &[u_mixture.view(), u_logistic.view()]).unwrap();
        let batch =
            Batch { labels, noise: Noise::Given(noise.view()), temperature, ..Batch::new(2, height, width) };
        let mut engine = CpuEngine::new(&weights, &Options::default()).unwrap();
        let output = engine.make(&batch, &|_| true).unwrap().images;
        for i in 0..2 {
            let of = |all: &Array4<f32>| -> Vec<f64> {
                all.outer_iter().nth(i).unwrap().iter().map(|x| f64::from(*x)).collect()
            };
            let uniforms = [of(&u_mixture), of(&u_logistic)];
            let class = labels.map(|l| l[i] as usize);
            let uniforms = [&uniforms[0][..], &uniforms[1]];
            let temperature = f64::from(temperature);
            let (exact, _) =
                plain::generate(config, &parameter, temperature, uniforms, [height, width], class);
            let off = largest(&of(&output), &exact);
            println!("{config}, {height}x{width}, temperature {temperature}: image within {off:e}");
            assert!(off < 1e-5);
        }
    }
}
