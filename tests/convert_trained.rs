//! Runs of this package's own trainer: class terms, kernels whose channels do not double, and the `config.json` that
//! tells what shapes cannot.

#[allow(dead_code, reason = "not all of it is used here")]
#[path = "common/golden.rs"]
mod golden;
#[allow(dead_code, reason = "not all of it is used here")]
#[path = "common/program.rs"]
mod program;
#[allow(dead_code, reason = "not all of it is used here")]
#[path = "common/run.rs"]
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::cpu::{CpuEngine, Options};
use fast_pixel_cnn::engine::Engine;
use fast_pixel_cnn::{Nonlinearity, PixelCnnPp, Weights, media::npy};
use golden::*;
use program::Place;
use run::run;
use serde_json::{Value, json};
use tempfile::TempDir;

const GRAY: PixelCnnPp = PixelCnnPp {
    resnets: 1,
    filters: 8,
    mixtures: 2,
    channels: 1,
    classes: 3,
    nonlinearity: Nonlinearity::Relu,
};
const RGB: PixelCnnPp = PixelCnnPp { channels: 3, classes: 4, nonlinearity: Nonlinearity::Elu, ..GRAY };

/// The golden models.
const MODELS: [(&str, PixelCnnPp); 2] = [("trained_gray", GRAY), ("trained_rgb", RGB)];

/// A run's directory as training leaves it, with a state that would be a checkpoint of its own.
fn run_of(model: &str, config: Option<&str>) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::create_dir(path.join("state")).unwrap();
    fs::create_dir(path.join("samples")).unwrap();
    fs::copy(golden(&format!("{model}/model.safetensors")), path.join("model.safetensors")).unwrap();
    fs::copy(golden("torch_rgb/zip.pth"), path.join("state/latest.pt")).unwrap();
    fs::write(path.join("log.jsonl"), "{\"step\": 50, \"bits_per_dim\": 1.0}\n").unwrap();
    match config {
        Some(text) => fs::write(path.join("config.json"), text).unwrap(),
        None => drop(fs::copy(golden(&format!("{model}/config.json")), path.join("config.json")).unwrap()),
    }
    directory
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn logits_and_likelihoods_are_the_trainer_s() {
    for (model, config) in MODELS {
        let directory = run_of(model, None);
        let (images, labels) = (images(model), labels(model).unwrap());
        let expected = array(&format!("{model}/logits.npy"));
        let nll = npy::read_f32(&golden(&format!("{model}/nll.npy"))).unwrap();
        let place = Place::new();
        let run = place.convert(directory.path(), &[]).succeeds();
        assert!(run.stdout.ends_with("averaged weights from a safetensors checkpoint\n"), "{}", run.stdout);
        let manifest: Value =
            serde_json::from_slice(&fs::read(place.out().join("model.json")).unwrap()).unwrap();
        assert_eq!(manifest["source"], json!({"format": "safetensors", "averaged": true, "folded": true}));
        let mut first = None;
        for path in [directory.path().to_path_buf(), directory.path().join("model.safetensors"), place.out()]
        {
            let weights = Weights::load(&path).unwrap();
            assert_eq!(weights.config(), Some(&config.into()));
            let mut engine =
                CpuEngine::new(&weights, &Options { threads: Some(2), ..Options::default() }).unwrap();
            let logits = engine.logits(images.view(), Some(&labels)).unwrap();
            let off = largest(&logits, &expected);
            let nats = weights.graph().head.nats(logits.view(), images.view()).unwrap();
            let relative = nats.iter().zip(&nll).map(|(a, b)| (a / f64::from(*b) - 1.0).abs());
            let relative = relative.fold(0.0, f64::max);
            println!("{}: logits within {off:e}, nats within {relative:e} relative", path.display());
            assert!(off <= 1e-5 && relative <= 1e-5, "{off:e} {relative:e}");
            let bits = bits(&logits);
            assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{}", path.display());
            // The classes are not all one to the network.
            let others: Vec<u32> = labels.iter().map(|label| (label + 1) % config.classes as u32).collect();
            let off = largest(&engine.logits(images.view(), Some(&others)).unwrap(), &expected);
            assert!(off > 1e-2, "{off:e}");
        }
    }
}

#[test]
fn every_program_takes_a_run() {
    let directory = run_of("trained_gray", None);
    let out = tempfile::tempdir().unwrap();
    let file = |name: &str| golden(&format!("trained_gray/{name}"));
    let (images, labels, logits) = (file("images_u8.npy"), file("labels.npy"), file("logits.npy"));
    let args = ["-c", text(directory.path()), "--images", text(&images), "--labels", text(&labels)];
    let run_it = run("evaluate", &[&args[..], &["--compare-logits", text(&logits)]].concat()).succeeds();
    assert!(run_it.stderr.contains("model.safetensors is taken"), "{}", run_it.stderr);
    let args = ["-c", text(directory.path()), "-i", "8", "-n", "3", "--class", "all", "-v", text(out.path())];
    run("generate", &args).succeeds();
    assert!(out.path().join("samples.png").exists());
}

/// How loading a run of the RGB model, an elu one, with this `config.json` ends.
fn loaded(config: &str) -> (TempDir, fast_pixel_cnn::Result<Weights>) {
    let directory = run_of("trained_rgb", Some(config));
    let weights = Weights::load(directory.path());
    (directory, weights)
}

#[test]
fn what_shapes_cannot_tell_is_in_the_configuration() {
    let nonlinearity = |weights: &Weights| match weights.config() {
        Some(fast_pixel_cnn::ModelConfig::PixelCnnPp(config)) => config.nonlinearity,
        other => panic!("{other:?}"),
    };
    let relu = "{\"nr_resnet\": 1, \"nonlinearity\": \"relu\"}";
    let (_run, weights) = loaded(relu);
    let weights = weights.unwrap();
    assert_eq!((nonlinearity(&weights), weights.source().averaged), (Nonlinearity::Relu, false));
    assert_eq!(weights.warnings().len(), 1, "{:?}", weights.warnings());
    // Another program's says nothing, and then one is assumed.
    for config in ["{\"model_type\": \"gpt2\", \"nonlinearity\": \"relu\"}", "not JSON"] {
        let (_run, weights) = loaded(config);
        let weights = weights.unwrap();
        assert_eq!(nonlinearity(&weights), Nonlinearity::Elu);
        assert!(weights.warnings()[1].contains("elu is assumed"), "{:?}", weights.warnings());
    }
    // What the user says comes first.
    let directory = run_of("trained_rgb", Some(relu));
    let named =
        fast_pixel_cnn::weights::Options { nonlinearity: Some(Nonlinearity::Elu), ..Default::default() };
    assert_eq!(nonlinearity(&Weights::load_with(directory.path(), &named).unwrap()), Nonlinearity::Elu);
}

#[test]
fn a_configuration_of_another_model_is_refused() {
    let text = fs::read_to_string(golden("trained_rgb/config.json")).unwrap();
    for (from, to, part) in [
        ("\"nr_filters\": 8", "\"nr_filters\": 16", "nr_filters 16; "),
        ("\"num_classes\": 4", "\"num_classes\": 0", "num_classes 0; "),
        ("\"elu\"", "\"concat_elu\"", "nonlinearity concat_elu; "),
        ("\"elu\"", "\"gelu\"", "unknown variant `gelu`"),
        ("}", "", "EOF while parsing"),
    ] {
        assert!(text.contains(from), "{from}");
        let (directory, weights) = loaded(&text.replacen(from, to, 1));
        let error = weights.unwrap_err().to_string();
        let file: PathBuf = directory.path().join("config.json");
        assert!(error.starts_with(&format!("{}: ", file.display())) && error.contains(part), "{error}");
        let place = Place::new();
        place.convert(directory.path(), &[]).fails_with(&["config.json: ", part]);
        place.assert_empty();
    }
    let (directory, _) = loaded("{\"nr_resnet\": 1}");
    fs::write(directory.path().join("config.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    let error = Weights::load(directory.path()).unwrap_err().to_string();
    assert!(error.ends_with("length: expected at most 1048576 bytes, found 1048577"), "{error}");
}
