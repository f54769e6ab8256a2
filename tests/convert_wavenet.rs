//! WaveNet's checkpoints: what `convert` makes of them and the library reads directly, in both of TensorFlow's formats,
//! with the file beside them, named or missing, and with every kind of fault.

mod common;
#[path = "support/random.rs"]
mod random;
#[path = "common/sounds.rs"]
mod sounds;
#[path = "support/tables.rs"]
mod tables;

use std::fs;
use std::path::{Path, PathBuf};

use common::bundle::{self, Tensor};
use common::models;
use common::program::Place;
use fast_pixel_cnn::checkpoint::Checkpoint;
use fast_pixel_cnn::weights::{self, Options};
use fast_pixel_cnn::{Error, ModelConfig, Result, WaveNet, Weights};
use models::golden;
use random::Random;
use sounds::{SOUNDS, checkpoint};
use tempfile::TempDir;

fn load(checkpoint: &Path, params: Option<PathBuf>) -> Result<Weights> {
    Weights::load_with(checkpoint, &Options { params, ..Options::default() })
}

fn config(weights: &Weights) -> WaveNet {
    match weights.config() {
        Some(ModelConfig::WaveNet(config)) => config.clone(),
        other => panic!("{other:?}"),
    }
}

/// Every array of some weights, by name.
fn arrays(weights: &Weights) -> Vec<(String, Vec<f32>)> {
    let names = weights.graph().arrays(true).map(|(_, name, _)| name);
    names.map(|name| (name.clone(), weights.array(&name).unwrap().into_owned())).collect()
}

/// The variables of a golden directory.
fn tensors(directory: &str) -> Vec<Tensor> {
    let mut checkpoint = Checkpoint::open(&checkpoint(directory)).unwrap();
    let variables = checkpoint.variables().to_vec();
    let tensor = |v: fast_pixel_cnn::checkpoint::Variable| {
        Tensor::f32(&v.name, &v.shape, &checkpoint.read_f32(&v.name).unwrap())
    };
    variables.into_iter().map(tensor).collect()
}

fn params(directory: &str) -> PathBuf {
    golden(&format!("{directory}/wavenet_params.json"))
}

/// A checkpoint of these variables with nothing beside it.
fn written(tensors: &[Tensor]) -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let prefix = place.path().join("model.ckpt-1");
    bundle::write(&prefix, tensors);
    (place, prefix)
}

#[test]
fn a_checkpoint_and_its_directory_are_alike() {
    for directory in SOUNDS {
        let direct = load(&checkpoint(directory), None).unwrap();
        let said: serde_json::Value = serde_json::from_slice(&fs::read(params(directory)).unwrap()).unwrap();
        let mut known = serde_json::to_value(direct.config().unwrap()).unwrap();
        let known = known.as_object_mut().unwrap();
        let classes = if directory == "wavenet_gc" { 5 } else { 0 };
        assert_eq!(known.remove("gc_cardinality"), Some(classes.into()));
        assert_eq!(known.remove("model"), Some("wavenet".into()));
        assert_eq!(Some(&*known), said.as_object(), "{directory}");

        let place = Place::new();
        let run = place.convert(&checkpoint(directory), &[]).succeeds();
        assert_eq!(run.stderr, "", "{directory}");
        let expected = "raw weights from a TensorFlow V2 checkpoint\n";
        assert!(run.stdout.ends_with(expected) && run.stdout.lines().count() == 1, "{}", run.stdout);
        let converted = Weights::load(place.out()).unwrap();
        assert_eq!((converted.config(), converted.source()), (direct.config(), direct.source()));
        let [converted, direct] = [&converted, &direct].map(arrays);
        assert!(converted == direct, "{directory}");
        // The directory holds what the graph has, and no more.
        assert_eq!(place.files().len(), direct.len(), "{directory}");
    }
}

#[test]
fn arrays_are_the_checkpoint_s() {
    for directory in SOUNDS {
        let weights = load(&checkpoint(directory), None).unwrap();
        let WaveNet { dilation_channels: d, classes, dilations, .. } = config(&weights);
        let mut file = Checkpoint::open(&checkpoint(directory)).unwrap();
        let mut read = |name: &str| file.read_f32(&format!("wavenet/{name}")).unwrap();
        let array = |name: &str| weights.array(name).unwrap().into_owned();
        assert_eq!(array("causal/W"), read("causal_layer/filter"));
        assert_eq!(array("post_2/W"), read("postprocessing/postprocess2"));
        for layer in 0..dilations.len() {
            let mut read = |part: &str| read(&format!("dilated_stack/layer{layer}/{part}"));
            let array = |part: &str| array(&format!("layer_{layer}/{part}"));
            let sides = |left: &[f32], right: &[f32]| -> Vec<f32> {
                let rows = left.chunks(d).zip(right.chunks(d));
                rows.flat_map(|(left, right)| left.iter().chain(right).copied()).collect()
            };
            assert_eq!(array("conv/W"), sides(&read("filter"), &read("gate")));
            assert_eq!(array("skip/W"), read("skip"));
            if config(&weights).use_biases {
                assert_eq!(array("conv/b"), sides(&read("Variable"), &read("Variable_1")));
                assert_eq!(array("skip/b"), read("Variable_3"));
                if layer + 1 < dilations.len() {
                    assert_eq!(array("dense/b"), read("Variable_2"));
                }
            }
            if classes > 0 {
                let [filter, gate] = ["gc_filter", "gc_gate"].map(&mut read);
                let table = Checkpoint::open(&checkpoint(directory)).unwrap();
                let table = { table }.read_f32("wavenet/embeddings/gc_embedding").unwrap();
                let k = 6;
                assert_eq!(table.len(), classes * k);
                let terms = |kernel: &[f32]| -> Vec<f32> {
                    let term = |class: usize, o: usize| {
                        let product =
                            |i: usize| f64::from(table[class * k + i]) * f64::from(kernel[i * d + o]);
                        (0..k).map(product).sum::<f64>() as f32
                    };
                    (0..classes)
                        .flat_map(|class| (0..d).map(move |o| (class, o)))
                        .map(|(c, o)| term(c, o))
                        .collect()
                };
                assert_eq!(array("class/hw"), sides(&terms(&filter), &terms(&gate)));
            }
        }
    }
}

#[test]
fn both_formats_are_read_alike() {
    use tables::*;
    for directory in SOUNDS {
        let tensors = tensors(directory);
        let dimensions = |t: &Tensor| shape(&t.shape.iter().map(|&d| d as u64).collect::<Vec<_>>());
        let whole = |t: &Tensor| vec![None; t.shape.len()];
        let list: Vec<Vec<u8>> =
            tensors.iter().map(|t| v1_variable(&t.name, 1, &dimensions(t), &[&whole(t)])).collect();
        let mut entries = vec![v1_list(&list)];
        entries.extend(tensors.iter().map(|t| v1_slice(&t.name, &whole(t), &run(5, &t.bytes))));
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.ckpt");
        fs::write(&file, table(&entries)).unwrap();
        fs::copy(params(directory), place.path().join("wavenet_params.json")).unwrap();
        let [v1, v2] = [file, checkpoint(directory)].map(|path| load(&path, None).unwrap());
        assert_eq!(v1.config(), v2.config());
        assert!(arrays(&v1) == arrays(&v2), "{directory}");
    }
}

#[test]
fn dilations_and_rate_are_from_the_file_that_is_named_or_beside_it() {
    let (place, prefix) = written(&tensors("wavenet_nobias"));
    let beside = place.path().join("wavenet_params.json");
    // Nothing: the reference's own, with a warning, and here they are the model's.
    let out = Place::new();
    let run = out.convert(&prefix, &[]).succeeds();
    let said = "dilations 1, 2, 4 ... 512 for its 5 layers and 16000 Hz are assumed\n";
    assert!(run.stderr.contains(said) && run.stderr.lines().count() == 1, "{}", run.stderr);
    let edited =
        |from: &str, to: &str| fs::read_to_string(params("wavenet_nobias")).unwrap().replace(from, to);
    fs::write(&beside, edited("16000", "11025")).unwrap();
    let found = load(&prefix, None).unwrap();
    assert_eq!((config(&found).sample_rate, found.warnings().len()), (11_025, 0));
    let named = place.path().join("named.json");
    fs::write(&named, edited("16\n", "600000\n")).unwrap();
    let found = config(&load(&prefix, Some(named.clone())).unwrap());
    assert_eq!((found.sample_rate, found.dilations), (16_000, vec![1, 2, 4, 8, 600_000]));

    let refused = |flags: &[&str], parts: &[&str]| {
        let out = Place::new();
        out.convert(&prefix, flags).fails_with(parts);
        out.assert_empty();
    };
    fs::write(&named, edited("16\n", "16, 32\n")).unwrap();
    let named = named.to_str().unwrap();
    refused(
        &["--params", named],
        &["named.json: number of dilations 6; ", "model.ckpt-1 has number of dilations 5"],
    );
    refused(&["--params", "none.json"], &["none.json: cannot open"]);
    refused(&["--params", place.path().to_str().unwrap()], &["a directory"]);
    refused(&["--nonlinearity", "elu"], &["--nonlinearity: a WaveNet's are tanh and sigmoid"]);
    // Another model's, beside it.
    fs::copy(params("wavenet_gc"), &beside).unwrap();
    refused(
        &[],
        &["wavenet_params.json: number of dilations 8, residual_channels 12, ", "another model's file?"],
    );
    fs::write(&beside, "{").unwrap();
    refused(&[], &["wavenet_params.json: JSON: expected the description of a WaveNet, found EOF"]);
    fs::write(&beside, vec![b' '; (1 << 20) + 1]).unwrap();
    refused(&[], &["wavenet_params.json: length: expected at most 1048576 bytes, found 1048577"]);
    fs::remove_file(&beside).unwrap();
    fs::create_dir(&beside).unwrap();
    refused(&[], &["wavenet_params.json", "a directory"]);
}

#[test]
fn a_description_is_refused_where_there_is_a_better_one() {
    let named = params("wavenet_tiny");
    let named = named.to_str().unwrap();
    for path in [models::tiny(), models::argument("torch_gray/zip.pth")] {
        let out = Place::new();
        out.convert(Path::new(&path), &["--params", named]).fails_with(&["--params", "PixelCNN++"]);
        out.assert_empty();
    }
    let out = Place::new();
    out.convert(&checkpoint("wavenet_tiny"), &["--raw", "--scope", "wavenet"]).succeeds();
    let error = load(&out.out(), Some(named.into())).unwrap_err().to_string();
    assert!(error.starts_with("params: ") && error.contains("in model.json"), "{error}");
    let options = Options { nonlinearity: Some(fast_pixel_cnn::Nonlinearity::Elu), ..Options::default() };
    let error = Weights::load_with(out.out(), &options).unwrap_err().to_string();
    assert_eq!(error, "nonlinearity: a WaveNet's are tanh and sigmoid: there is no choice");
}

/// What a checkpoint of these variables is refused with, whether it is read or converted.
fn refusal(tensors: &[Tensor]) -> Error {
    let (place, prefix) = written(tensors);
    fs::copy(params("wavenet_gc"), place.path().join("wavenet_params.json")).unwrap();
    let direct = load(&prefix, None).and_then(|weights| {
        let names: Vec<_> = weights.graph().arrays(true).map(|(_, name, _)| name).collect();
        names.iter().try_for_each(|name| weights.array(name).map(drop))
    });
    let out = place.path().join("out");
    let error = weights::convert(&prefix, &out, &Options::default(), &|_| true).unwrap_err();
    assert!(!out.exists());
    assert_eq!(direct.unwrap_err().to_string(), error.to_string());
    error
}

#[test]
fn every_fault_is_named() {
    let sound = tensors("wavenet_gc");
    let edited = |name: &str, edit: &dyn Fn(&mut Tensor)| {
        let mut tensors = sound.clone();
        edit(tensors.iter_mut().find(|t| t.name == name).unwrap());
        refusal(&tensors).to_string()
    };
    let put = |at: usize, value: f32| {
        move |t: &mut Tensor| t.bytes[4 * at..][..4].copy_from_slice(&value.to_le_bytes())
    };
    let error = edited("wavenet/dilated_stack/layer3/gate", &put(7 * 16 + 2, f32::NAN));
    let expected =
        "tensor wavenet/dilated_stack/layer3/gate: expected finite numbers, found NaN at [0, 7, 2]";
    assert!(error.ends_with(expected), "{error}");
    let error = edited("wavenet/embeddings/gc_embedding", &put(3, f32::INFINITY));
    assert!(error.ends_with("found inf at [0, 3]"), "{error}");
    // Finite, but their product is not.
    let mut tensors = sound.clone();
    let names = ["wavenet/embeddings/gc_embedding", "wavenet/dilated_stack/layer0/gc_gate"];
    tensors.iter_mut().filter(|t| names.contains(&t.name.as_str())).for_each(put(0, 1e30));
    let error = refusal(&tensors).to_string();
    assert!(
        error.contains("gc_embedding times wavenet/dilated_stack/layer0/gc_gate: expected finite"),
        "{error}"
    );
    // A kernel of nothing but zeros is one.
    let mut tensors = sound.clone();
    tensors.iter_mut().filter(|t| t.name.ends_with("layer1/skip")).for_each(|t| t.bytes.fill(0));
    let (_place, prefix) = written(&tensors);
    assert!(load(&prefix, None).unwrap().array("layer_1/skip/W").unwrap().iter().all(|x| *x == 0.0));

    let mut tensors = sound.clone();
    tensors.retain(|t| t.name != "wavenet/dilated_stack/layer7/dense");
    tensors.push(Tensor::f32("wavenet/dilated_stack/layer8/dense", &[1, 16, 12], &[0.0; 192]));
    tensors.push(Tensor::i64("global_step", &[7]));
    let Error::Mismatch { model, problems, .. } = refusal(&tensors) else { panic!("no mismatch") };
    assert_eq!(
        (model, &problems[..]),
        (
            "WaveNet",
            &[
                "wavenet/dilated_stack/layer7/dense [1, 16, 12] is missing".to_string(),
                "wavenet/dilated_stack/layer8/dense is extra".to_string()
            ][..]
        )
    );
}

/// A checkpoint that claims more than its files hold is refused when it is opened.
#[test]
fn sizes_are_not_believed() {
    let large = WaveNet {
        dilations: vec![1; 1000],
        residual_channels: 10_000,
        dilation_channels: 1000,
        skip_channels: 10_000,
        ..WaveNet::default()
    };
    let (r, d, s, q) = (large.residual_channels, large.dilation_channels, large.skip_channels, 256);
    let claim = |name: String, shape: &[usize]| Tensor::f32(&format!("wavenet/{name}"), shape, &[1.0]);
    let mut tensors = vec![claim("causal_layer/filter".into(), &[2, q, r])];
    for layer in 0..1000 {
        let claim = |part: &str, shape: &[usize]| claim(format!("dilated_stack/layer{layer}/{part}"), shape);
        tensors.extend([claim("filter", &[2, r, d]), claim("gate", &[2, r, d])]);
        tensors.extend([claim("dense", &[1, d, r]), claim("skip", &[1, d, s])]);
    }
    tensors.extend([claim("postprocessing/postprocess1".into(), &[1, s, s])]);
    tensors.extend([claim("postprocessing/postprocess2".into(), &[1, s, q])]);
    let (_place, prefix) = written(&tensors);
    let error = load(&prefix, None).unwrap_err().to_string();
    assert!(error.contains("expected a shape of at most"), "{error}");
}

/// The descriptions with some bytes changed: they are read, or refused in one line.
#[test]
fn mutated_descriptions_never_panic() {
    let (place, prefix) = written(&tensors("wavenet_tiny"));
    let beside = place.path().join("wavenet_params.json");
    let converted = Place::new();
    converted.convert(&checkpoint("wavenet_tiny"), &[]).succeeds();
    let manifest = converted.out().join("model.json");
    let sound = [(params("wavenet_tiny"), beside, prefix), (manifest.clone(), manifest, converted.out())];
    let mut random = Random(2702);
    for (from, to, opened) in sound {
        let sound = fs::read(from).unwrap();
        let (mut refused, mut read) = (0, 0);
        for _ in 0..600 {
            let mut bytes = sound.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len().min(700));
                match random.below(3) {
                    0 => bytes[at] = b"0123456789\"{}[]:,-eE.truefalsn"[random.below(30)],
                    1 => bytes.insert(at, b"0123456789"[random.below(10)]),
                    _ => drop(bytes.remove(at)),
                }
            }
            fs::write(&to, &bytes).unwrap();
            match load(&opened, None) {
                Ok(weights) => {
                    read += 1;
                    assert_eq!(config(&weights).dilations.len(), 8);
                }
                Err(error) => {
                    refused += 1;
                    let error = error.to_string();
                    assert!(!error.contains('\n') && error.len() < 600, "{error}");
                }
            }
        }
        assert!(refused > 100 && read > 10, "{refused} {read}");
    }
}

/// The list of variables with shapes and names changed.
#[test]
fn mutated_checkpoints_never_panic() {
    let sound = tensors("wavenet_gc");
    let mut random = Random(11);
    let mut listed = 0;
    for round in 0..300 {
        let mut tensors = sound.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(tensors.len());
            let t = &mut tensors[at];
            match random.below(6) {
                0 => t.shape = vec![],
                1 => t.shape.insert(random.below(t.shape.len() + 1), random.below(3)),
                2 => t.name.truncate(random.below(t.name.len())),
                3 => t.name.push_str(["/Adam", "_1", "0", "/filter"][random.below(4)]),
                4 => t.shape.iter_mut().for_each(|axis| *axis = [0, 1, 7, usize::MAX >> 1][random.below(4)]),
                _ => drop(tensors.remove(at)),
            }
        }
        let mut names = std::collections::BTreeSet::new();
        tensors.retain(|t| !t.name.is_empty() && names.insert(t.name.clone()));
        let (_place, prefix) = written(&tensors);
        if let Err(error) = load(&prefix, (round % 2 == 0).then(|| params("wavenet_gc"))) {
            listed += usize::from(matches!(error, Error::Mismatch { .. }));
            assert!(!error.to_string().contains('\n') && error.to_string().len() < 600, "{error}");
        }
    }
    assert!(listed > 100, "{listed}");
}
