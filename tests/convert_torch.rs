//! PyTorch's PixelCNN++, from a file in every form to logits, images and a directory of weights; and everything that
//! may be wrong with such a file.

#[allow(dead_code, reason = "not all of it is used here")]
#[path = "common/golden.rs"]
mod golden;
#[allow(dead_code, reason = "not all of it is used here")]
#[path = "common/program.rs"]
mod program;
#[allow(dead_code, reason = "not all of it is used here")]
#[path = "common/run.rs"]
mod run;
#[path = "support/torch.rs"]
mod torch;

use std::fs;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::checkpoint::Checkpoint;
use fast_pixel_cnn::cpu::{CpuEngine, Options};
use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise};
use fast_pixel_cnn::generate;
use fast_pixel_cnn::graph::ParameterKind;
use fast_pixel_cnn::{Nonlinearity, PixelCnnPp, Weights, media::npy};
use golden::*;
use ndarray::Array4;
use program::Place;
use run::run;
use serde_json::{Value, json};
use torch::{Tensor, dictionary, legacy, pickle, safetensors, state_dict, zip, zip_of};
use zip::CompressionMethod;

const FORMS: [(&str, &str, &str); 5] = [
    ("zip.pth", "pytorch", "a PyTorch checkpoint"),
    ("legacy.pth", "pytorch_legacy", "a legacy PyTorch checkpoint"),
    ("module_legacy.pth", "pytorch_legacy", "a legacy PyTorch checkpoint"),
    ("wrapped_parametrized.pth", "pytorch", "a PyTorch checkpoint"),
    ("model.safetensors", "safetensors", "a safetensors checkpoint"),
];

const RGB: PixelCnnPp = PixelCnnPp {
    resnets: 1,
    filters: 16,
    mixtures: 3,
    channels: 3,
    classes: 0,
    nonlinearity: Nonlinearity::ConcatElu,
};

fn rgb(file: &str) -> PathBuf {
    golden(&format!("torch_rgb/{file}"))
}

fn engine(weights: &Weights) -> CpuEngine {
    CpuEngine::new(weights, &Options { threads: Some(2), ..Options::default() }).unwrap()
}

/// The tensors of the golden RGB model.
fn tensors() -> Vec<Tensor> {
    let mut checkpoint = Checkpoint::open(&rgb("zip.pth")).unwrap();
    let variables = checkpoint.variables().to_vec();
    let tensor = |v: fast_pixel_cnn::checkpoint::Variable| {
        Tensor::f32(&v.name, &v.shape, &checkpoint.read_f32(&v.name).unwrap())
    };
    variables.into_iter().map(tensor).collect()
}

/// Converts a file of these bytes.
fn convert_bytes(bytes: &[u8], flags: &[&str]) -> (run::Run, Place) {
    let (place, directory) = (Place::new(), tempfile::tempdir().unwrap());
    let path = directory.path().join("model.pth");
    fs::write(&path, bytes).unwrap();
    (place.convert(&path, flags), place)
}

const GRAY: PixelCnnPp = PixelCnnPp { resnets: 2, filters: 12, mixtures: 4, channels: 1, ..RGB };

/// The golden models.
const MODELS: [(&str, PixelCnnPp); 2] = [("torch_rgb", RGB), ("torch_gray", GRAY)];

#[test]
fn logits_and_likelihoods_are_pytorch_s_from_every_form_and_directories_are_equal() {
    for (model, config) in MODELS {
        let file = |name: &str| golden(&format!("{model}/{name}"));
        let (images, expected) = (images(model), array(&format!("{model}/logits.npy")));
        let nll = npy::read_f32(&file("nll.npy")).unwrap();
        let bits_per_dim = npy::read_f32(&file("bits_per_dim.npy")).unwrap();
        let mut first = None;
        for (form, format, said) in FORMS {
            let place = Place::new();
            let run = place.convert(&file(form), &[]).succeeds();
            assert!(run.stdout.ends_with(&format!("raw weights from {said}\n")), "{}", run.stdout);
            assert_eq!(run.stderr, "");
            let manifest: Value =
                serde_json::from_slice(&fs::read(place.out().join("model.json")).unwrap()).unwrap();
            let source = json!({"format": format, "averaged": false, "folded": true});
            assert_eq!(manifest["source"], source);
            for path in [file(form), place.out()] {
                let weights = Weights::load(&path).unwrap();
                assert_eq!(weights.config(), Some(&config.into()));
                let (head, size) = (weights.graph().head, [images.dim().1, images.dim().2]);
                let logits = engine(&weights).logits(images.view(), None).unwrap();
                let off = largest(&logits, &expected);
                let nats = head.nats(logits.view(), images.view()).unwrap();
                let relative = |a: f64, b: &f32| (a / f64::from(*b) - 1.0).abs();
                let of_nats = nats.iter().zip(&nll).map(|(a, b)| relative(*a, b)).fold(0.0, f64::max);
                let bits_of = nats.iter().map(|nats| head.bits_per_dim(*nats, size[0], size[1]));
                let of_bits = bits_of.zip(&bits_per_dim).map(|(a, b)| relative(a, b)).fold(0.0, f64::max);
                println!("{}: logits within {off:e}, nats within {of_nats:e} relative", path.display());
                assert!(off <= 1e-4 && of_nats <= 1e-5 && of_bits <= 1e-5, "{off:e} {of_nats:e} {of_bits:e}");
                let files = (place.files(), bits(&logits));
                assert!(*first.get_or_insert_with(|| files.clone()) == files, "{form}");
            }
            // What was loaded from a directory is saved as it was.
            let again = place.0.path().join("again");
            Weights::load(place.out()).unwrap().save(&again).unwrap();
            for (name, bytes) in place.files() {
                assert!(fs::read(again.join(&name)).unwrap() == bytes, "{name}");
            }
            assert_eq!(
                fs::read(again.join("model.json")).unwrap(),
                fs::read(place.out().join("model.json")).unwrap()
            );
        }
    }
}

#[test]
fn given_pytorch_s_noise_the_images_are_pytorch_s() {
    // Rounding grows along an image, since each pixel is drawn from those before it. In float64 the gray images,
    // 784 pixels long, are 6.8e-5 from PyTorch's and 1.9e-4 from the engine's; from the same pixels the next one is
    // drawn within 1e-4.
    for ((model, _), tolerance) in MODELS.into_iter().zip([1e-4, 3e-4]) {
        let weights = Weights::load(golden(&format!("{model}/legacy.pth")));
        let weights = weights.unwrap();
        let head = weights.graph().head;
        let noise = generate::read_noise(&golden(&format!("{model}/gen")), &head).unwrap();
        let expected = array(&format!("{model}/gen/x_gen.npy"));
        let mut engine = engine(&weights);
        for method in [Method::Cached, Method::Naive] {
            let (size, height, width, _) = noise.dim();
            let batch =
                Batch { noise: Noise::Given(noise.view()), method, ..Batch::new(size, height, width) };
            let output = engine.make(&batch, &|_| true).unwrap();
            let off = largest(&output.images, &expected);
            println!("{model}, {method:?}: images within {off:e}");
            assert!(off <= tolerance);
        }
        let logits = engine.logits(expected.view(), None).unwrap();
        let drawn = logits.rows().into_iter().zip(noise.rows()).flat_map(|(logits, noise)| {
            let mut pixel = vec![0.0; head.values()];
            head.sample(&logits.to_vec(), 1.0, &noise.to_vec(), &mut pixel);
            pixel
        });
        let drawn = Array4::from_shape_vec(expected.dim(), drawn.collect()).unwrap();
        let off = largest(&drawn, &expected);
        println!("{model}: pixels within {off:e}");
        assert!(off <= 1e-4);
    }
}

#[test]
fn kernels_are_folded_along_their_first_axis_and_put_in_order() {
    let all = tensors();
    let find = |name: &str| all.iter().find(|t| t.name == name).unwrap();
    let floats = |t: &Tensor| -> Vec<f64> {
        t.bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    };
    let weights = Weights::load(rgb("zip.pth")).unwrap();
    let graph = RGB.graph();
    for (name, layer) in [
        ("conv2d_1", "ul_init.0.conv"),
        ("deconv2d_1", "upsize_ul_stream.0.deconv"),
        ("dense_0", "up_layers.0.ul_stream.0.nin_skip.lin_a"),
    ] {
        let variable = graph.parameters.iter().find(|v| v.name == name).unwrap();
        let [v, g] = ["weight_v", "weight_g"].map(|part| find(&format!("{layer}.{part}")));
        let (shape, v, g) = (v.shape.clone(), floats(v), floats(g));
        let positions = variable.positions();
        let norm = |row: usize| {
            let size = shape[1] * positions;
            v[row * size..][..size].iter().map(|v| v * v).sum::<f64>().sqrt()
        };
        let folded = weights.fold(variable).unwrap();
        let (inputs, outputs) = (variable.inputs, variable.outputs);
        assert_eq!(folded.kernel.len(), positions * inputs * outputs);
        for (at, found) in folded.kernel.iter().enumerate() {
            let (p, i, o) = (at / outputs / inputs, at / outputs % inputs, at % outputs);
            let deconv = matches!(variable.kind, ParameterKind::Deconv { .. });
            let (row, column) = if deconv { (i, o) } else { (o, i) };
            let expected = v[(row * shape[1] + column) * positions + p] * g[row] / norm(row);
            assert!((f64::from(*found) - expected).abs() <= 1e-6 * expected.abs(), "{name} {at}");
        }
        let stored = weights.array(&format!("{name}/W")).unwrap();
        let mut sorted = (stored.to_vec(), folded.kernel.clone());
        sorted.0.sort_by(f32::total_cmp);
        sorted.1.sort_by(f32::total_cmp);
        assert_eq!(sorted.0, sorted.1);
    }
}

/// The half-precision bits of a multiple of 1/256 below 8 in magnitude.
fn half(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let magnitude = if value == 0.0 { 0 } else { (bits >> 13 & 0x3_ffff) - (112 << 10) };
    ((bits >> 16 & 0x8000) as u16 | magnitude as u16).to_le_bytes()
}

#[test]
fn every_floating_point_type_is_taken_in_every_form() {
    type Encode = fn(f32) -> Vec<u8>;
    let types: [(&str, &str, Encode); 4] = [
        ("F32", "", |v| v.to_le_bytes().to_vec()),
        ("F16", "171 of 171 tensors are float16 and are widened", |v| half(v).to_vec()),
        ("F64", "171 of 171 tensors are float64 and are rounded", |v| f64::from(v).to_le_bytes().to_vec()),
        ("BF16", "171 of 171 tensors are bfloat16 and are widened", |v| v.to_le_bytes()[2..].to_vec()),
    ];
    // Numbers of 8 significant bits, which every type has; none is 0, so that no norm is.
    let coarse = |v: f32| {
        let v = (v * 256.0).round().clamp(-1000.0, 1000.0) / 256.0;
        f32::from_bits(if v == 0.0 { 1f32.to_bits() } else { v.to_bits() } & 0xffff_0000)
    };
    let mut reference = None;
    for (dtype, warning, encode) in types {
        let mut tensors = tensors();
        for tensor in &mut tensors {
            let floats = tensor.bytes.as_chunks::<4>().0.iter().map(|b| coarse(f32::from_le_bytes(*b)));
            (tensor.dtype, tensor.bytes) = (dtype, floats.flat_map(encode).collect());
        }
        for bytes in [safetensors(&tensors), zip(&tensors), legacy(&tensors)] {
            let (run, place) = convert_bytes(&bytes, &[]);
            let expected =
                if warning.is_empty() { String::new() } else { format!("warning: {warning} to float32\n") };
            assert_eq!(run.succeeds().stderr, expected);
            let files = place.files();
            assert!(*reference.get_or_insert_with(|| files.clone()) == files, "{dtype}");
        }
    }
}

#[test]
fn a_plain_kernel_is_taken_as_it_is() {
    // Normed before it is saved: PyTorch's remove_weight_norm.
    let mut plain = Vec::new();
    let all = tensors();
    for tensor in &all {
        if let Some(layer) = tensor.name.strip_suffix(".weight_g") {
            let v = all.iter().find(|t| t.name == format!("{layer}.weight_v")).unwrap();
            let floats = |t: &Tensor| -> Vec<f32> {
                t.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
            };
            let (mut values, g) = (floats(v), floats(tensor));
            for (row, g) in values.chunks_exact_mut(v.bytes.len() / 4 / g.len()).zip(g) {
                let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                row.iter_mut().for_each(|v| *v = (f64::from(*v) * (f64::from(g) / norm)) as f32);
            }
            plain.push(Tensor::f32(&format!("{layer}.weight"), &v.shape, &values));
        } else if tensor.name.ends_with(".bias") {
            plain.push(tensor.clone());
        }
    }
    let (run, place) = convert_bytes(&legacy(&plain), &[]);
    run.succeeds();
    let reference = Place::new();
    reference.convert(&rgb("zip.pth"), &[]).succeeds();
    assert!(place.files() == reference.files());
}

#[test]
fn a_directory_of_folded_kernels_is_checked() {
    // A kernel without norms may have a channel of zeros.
    let plain = tensors().into_iter().filter(|t| !t.name.ends_with("weight_g")).map(|mut tensor| {
        tensor.name = tensor.name.replace("weight_v", "weight");
        if tensor.name == "nin_out.lin_a.weight" {
            tensor.bytes[..64].fill(0);
        }
        tensor
    });
    let (run, place) = convert_bytes(&safetensors(&plain.collect::<Vec<_>>()), &[]);
    run.succeeds();
    let load = || Weights::load(place.out());
    let last = RGB.graph().parameters.last().unwrap().clone();
    let kernel = load().unwrap().fold(&last).unwrap().kernel;
    assert!((0..16).all(|i| kernel[30 * i] == 0.0 && kernel[30 * i + 1] != 0.0));
    let manifest = place.out().join("model.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"folded\": true", "\"folded\": false")).unwrap();
    let error = load().unwrap_err().to_string();
    assert!(
        error
            .contains("conv2d_0.V.npy has no SHA-256 in model.json; conv2d_0.V.npy [2, 3, 4, 16] is missing"),
        "{error}"
    );
    fs::write(&manifest, &text).unwrap();
    let file = place.out().join("conv2d_0.W.npy");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let hash = |bytes: &[u8]| {
        use sha2::{Digest, Sha256};
        Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let (before, after) = (hash(&fs::read(&file).unwrap()), hash(&bytes));
    fs::write(&file, &bytes).unwrap();
    let read = || load().unwrap().array("conv2d_0/W").map(|_| ()).unwrap_err().to_string();
    assert!(read().contains("expected SHA-256 "), "{}", read());
    fs::write(&manifest, text.replace(&before, &after)).unwrap();
    assert!(
        read().ends_with("tensor conv2d_0/W: expected finite numbers, found NaN at [1, 2, 3, 15]"),
        "{}",
        read()
    );
}

#[test]
fn a_checkpoint_of_training_is_searched_for_its_model() {
    let storages: Vec<Vec<u8>> = tensors().into_iter().map(|t| t.bytes).collect();
    let storages: Vec<&[u8]> = storages.iter().map(|bytes| &bytes[..]).collect();
    let model = state_dict(&tensors());
    let moment = torch::pickled("F32", 0, 16, &[16], &[1]);
    let optimizer = dictionary(&[("state", dictionary(&[("0", dictionary(&[("exp_avg", moment)]))]))]);
    let file = |key: &str, ema: bool| {
        let mut entries =
            vec![("epoch", b"K\x07".to_vec()), (key, model.clone()), ("optimizer", optimizer.clone())];
        if ema {
            entries.push(("ema", model.clone()));
        }
        zip_of(&pickle(&dictionary(&entries)), &storages, CompressionMethod::Stored)
    };
    let reference = Place::new();
    reference.convert(&rgb("zip.pth"), &[]).succeeds();
    for key in ["state_dict", "model", "model_state_dict", "net"] {
        let (run, place) = convert_bytes(&file(key, false), &[]);
        run.succeeds();
        assert!(place.files() == reference.files(), "{key}");
    }
    let (run, place) = convert_bytes(&file("model", true), &[]);
    run.fails_with(&["model.pth: 2 models, under the keys \"ema\", \"model\"; choose one"]);
    place.assert_empty();
    let (run, place) = convert_bytes(&file("model", true), &["--scope", "ema"]);
    run.succeeds();
    assert!(place.files() == reference.files());
    let (run, place) = convert_bytes(&file("model", true), &["--scope", "teacher"]);
    run.fails_with(&["expected the key of a model (\"ema\", \"model\"), found \"teacher\""]);
    place.assert_empty();
    let only = zip_of(&pickle(&optimizer), &storages, CompressionMethod::Stored);
    let (run, place) = convert_bytes(&only, &[]);
    run.fails_with(&[
        "(tensors named u_init.conv.bias and so on): 1 tensors of other names: state.0.exp_avg",
    ]);
    place.assert_empty();
}

#[test]
fn what_is_wrong_is_one_line() {
    let changed = |change: &dyn Fn(&mut Vec<Tensor>)| {
        let mut tensors = tensors();
        change(&mut tensors);
        safetensors(&tensors)
    };
    let value = |name: &'static str, at: usize, value: f32| {
        changed(&|tensors| {
            let tensor = tensors.iter_mut().find(|t| t.name == name).unwrap();
            tensor.bytes[4 * at..][..4].copy_from_slice(&value.to_le_bytes());
        })
    };
    let zeros = changed(&|tensors| {
        let tensor = tensors.iter_mut().find(|t| t.name == "nin_out.lin_a.weight_v").unwrap();
        tensor.bytes[64 * 5..][..64].fill(0);
    });
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let bytes = zip(&tensors());
    let safe = safetensors(&tensors());
    let cases: [(&[u8], &[&str]); 11] = [
        (
            &changed(&|tensors| tensors.retain(|t| !t.name.starts_with("downsize_u_stream.1"))),
            &["downsize_u_stream.1.conv.weight_v [16, 16, 2, 3] is missing; ", "conv.bias [16] is missing"],
        ),
        (
            &changed(&|tensors| tensors.push(Tensor::f32("nin_out.scale", &[1], &[1.0]))),
            &["not the weights of a PixelCNN++ (1 resnets, 16 filters, 3 ", "nin_out.scale is extra"],
        ),
        (
            &changed(&|tensors| tensors[0].shape = vec![4, 4]),
            &["down_layers.0.u_stream.0.conv_input.conv.bias: expected shape [16], found [4, 4]"],
        ),
        (
            &value("u_init.conv.weight_v", 7, f32::NAN),
            &["tensor u_init.conv.weight_v: expected finite numbers, found NaN at [0, 1, 0, 1]"],
        ),
        (
            &value("u_init.conv.weight_g", 7, f32::INFINITY),
            &["tensor u_init.conv.weight_g: expected finite numbers, found inf at [7]"],
        ),
        (
            &value("u_init.conv.bias", 7, f32::INFINITY),
            &["tensor u_init.conv.bias: expected finite numbers, found inf at [7]"],
        ),
        (
            &zeros,
            &[
                "nin_out.lin_a.weight_v: expected a kernel of norm above 0, found nothing but zeros for channel 5",
            ],
        ),
        (&bytes[..bytes.len() / 2], &["expected a whole and valid PyTorch file, found "]),
        (&safe[..safe.len() - 1], &["length: expected the ", "bytes that the header describes, found "]),
        (lfs, &["a Git LFS pointer; run `git lfs pull`"]),
        (
            b"\x80\x02}q\x00.",
            &["a Python pickle that torch.save did not write; a checkpoint of TensorFlow, PyTorch"],
        ),
    ];
    for (bytes, parts) in cases {
        let (run, place) = convert_bytes(bytes, &[]);
        run.fails_with(&[&["model.pth: "], parts].concat());
        assert!(run.stderr.trim_end().chars().count() <= 400, "{}", run.stderr);
        place.assert_empty();
    }
    for (flags, parts) in [
        (&["--raw"][..], "raw weights: expected a TensorFlow checkpoint"),
        (&["--nonlinearity", "elu"], "expected concat_elu, since the model's channels double, found elu"),
        (&["--verify-all"], "a safetensors file, which has no checksums"),
    ] {
        let (run, place) = convert_bytes(&safe, flags);
        run.fails_with(&[parts]);
        place.assert_empty();
    }
    let (run, _place) = convert_bytes(&bytes, &["--verify-all"]);
    assert!(run.succeeds().stdout.contains("; all 171 variables ("));
}

#[test]
fn every_program_takes_them() {
    let out = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::copy(rgb("model.safetensors"), directory.path().join("model.safetensors")).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_string();
    let (checkpoint, images) = (text(&rgb("wrapped_parametrized.pth")), text(&rgb("images_u8.npy")));
    let (logits, output) = (text(&rgb("logits.npy")), text(out.path()));
    run("generate", &["-c", &checkpoint, "-n", "2", "-i", "8", "-v", &output]).succeeds();
    let args = ["-c", &checkpoint, "--images", &images, "--compare-logits", &logits];
    let alone = run("evaluate", &args).succeeds();
    // A directory stands for the file in it.
    let args = ["-c", &text(directory.path()), "--images", &images, "--compare-logits", &logits];
    let inside = run("evaluate", &args).succeeds();
    assert_eq!(alone.stdout, inside.stdout);
    assert!(inside.stderr.contains("model.safetensors is taken"), "{}", inside.stderr);
    let listed = run("convert", &["--list", &checkpoint]).succeeds().stdout;
    assert_eq!(listed.lines().count(), 171);
    assert!(listed.contains("state_dict.nin_out.lin_a.bias float32 [30]\n"), "{listed}");
}
