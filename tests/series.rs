//! `run.json`, by which parts of one series are known as such, whatever machine they were made on.

#[path = "common/models.rs"]
mod models;
#[path = "common/run.rs"]
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::Weights;
use models::{argument, bundled, cond, tiny};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs `generate` and reads what it says of its directory.
fn describe(out: &Path, args: &[&str]) -> Value {
    let run = run::run("generate", &[args, &["-v", &text(out)]].concat()).succeeds();
    assert!(run.stdout.lines().any(|line| line == text(&out.join("run.json"))), "{}", run.stdout);
    serde_json::from_slice(&fs::read(out.join("run.json")).unwrap()).unwrap()
}

/// The directory that `convert` makes of a checkpoint.
fn converted(dir: &TempDir, checkpoint: &str) -> PathBuf {
    let place = dir.path().join("converted");
    run::run("convert", &[checkpoint, &text(&place)]).succeeds();
    place
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn weights_are_known_by_what_is_in_them_in_any_form() {
    let dir = tempfile::tempdir().unwrap();
    let place = converted(&dir, &cond());
    let weights = Weights::load(&place).unwrap();
    // By hand: the configuration, then each array's name and the hash of its file.
    let manifest: Value = serde_json::from_slice(&fs::read(place.join("model.json")).unwrap()).unwrap();
    let mut told = serde_json::to_string(weights.config().unwrap()).unwrap();
    for (_, name, _) in weights.graph().arrays(false) {
        let file = format!("{}.npy", name.replace('/', "."));
        let own = hex(fs::read(place.join(&file)).unwrap());
        assert_eq!(manifest["sha256"][&file], own.as_str());
        told += &format!("\n{name} {own}");
    }
    let expected = hex(told);
    assert_eq!(weights.sha256().unwrap(), expected);
    // The same weights as TensorFlow's two formats have them, and others.
    assert_eq!(Weights::load(cond()).unwrap().sha256().unwrap(), expected);
    assert_eq!(Weights::load(argument("cond/v1/params.ckpt")).unwrap().sha256().unwrap(), expected);
    let raw = fast_pixel_cnn::weights::Options { raw: true, ..Default::default() };
    assert_ne!(Weights::load_with(cond(), &raw).unwrap().sha256().unwrap(), expected);
    let demo = Weights::load(bundled("digits")).unwrap();
    assert_ne!(demo.sha256().unwrap(), expected);
    // In memory too.
    let config = demo.config().unwrap().clone();
    let synthetic = Weights::synthetic(config, 1);
    let saved = dir.path().join("saved");
    synthetic.save(&saved).unwrap();
    assert_eq!(Weights::load(&saved).unwrap().sha256().unwrap(), synthetic.sha256().unwrap());
}

#[test]
fn what_changes_no_image_changes_nothing_and_all_else_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (cond, tiny) = (cond(), tiny());
    let place = text(&converted(&dir, &cond));
    let mut made = 0;
    let mut told = |args: &[&str]| {
        made += 1;
        describe(&dir.path().join(made.to_string()), args)
    };
    let base = ["-c", &cond, "-i", "8", "-n", "3", "--format", "npy"];
    let expected = told(&base);
    assert_eq!(expected["schema"], "fast-pixel-cnn/run/1");
    assert_eq!(expected["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(expected["model"]["num_classes"], 10);
    let names = json!(["images.npy", "samples.npy", "labels.npy"]);
    let ranges = json!([{ "first_index": 0, "count": 3 }]);
    assert_eq!(expected["files"], json!({ "names": names, "ranges": ranges }));
    assert_eq!(expected["singles"], Value::Null);
    for more in [&["-b", "2"][..], &["--threads", "1"], &["--naive"], &["--device", "cpu"], &["-c", &place]] {
        let args = if more[0] == "-c" { [more, &base[2..]].concat() } else { [&base, more].concat() };
        assert_eq!(told(&args), expected, "{more:?}");
    }
    let given = argument("tiny/images_u8.npy");
    for (more, field, value) in [
        (&["-s", "1"][..], "seed", json!(1)),
        (&["--temperature", "0.8"], "temperature", json!(0.8)),
        (&["--precision", "bf16"], "precision", json!("bf16")),
        (&["-i", "4x12"], "image_size", json!([4, 12])),
    ] {
        // Of a flag that is given twice none would be taken.
        let base: Vec<_> = if more[0] == "-i" { [&base[..2], &base[4..]].concat() } else { base.to_vec() };
        let mut other = told(&[&base, more].concat());
        assert_eq!(other[field], value);
        other[field] = expected[field].clone();
        assert_eq!(other, expected, "{more:?}");
    }
    let one = told(&[&base[..], &["--class", "7", "--first-index", "5"]].concat());
    let ranges = json!([{ "first_index": 5, "count": 3 }]);
    assert_eq!((&one["files"]["ranges"], &one["class"]), (&ranges, &json!(7)));
    // Of what is given, by its contents: the rows that are kept.
    let complete = |rows| ["-c", &tiny, "--complete", &given, "--format", "npy", "--keep-rows", rows];
    let [some, again, more] = ["3", "3", "4"].map(|rows| told(&complete(rows)));
    assert!(some["given"].is_string() && some["given"] != more["given"]);
    assert_eq!(some, again);
    let noise = argument("tiny/gen");
    let noisy = told(&["-c", &tiny, "--noise", &noise]);
    assert!(noisy["noise"].is_string() && noisy["seed"].is_null());
    assert_eq!((&noisy["class"], &expected["class"]), (&Value::Null, &json!("all")));
}

#[test]
fn a_directory_of_single_images_is_described_with_all_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (cond, out) = (cond(), dir.path().join("out"));
    let place = text(&converted(&dir, &cond));
    let part = |weights: &str, first: &str, more: &[&str]| {
        let args = ["-c", weights, "-i", "8", "-n", "2", "--first-index", first];
        describe(&out, &[&args, more].concat())
    };
    let range = |first: u64, count: u64| json!({ "first_index": first, "count": count });
    part(&cond, "0", &["--format", "images"]);
    // Where the weights lie and in what form does not matter.
    let told = part(&place, "6", &["--format", "images"]);
    let singles = |ranges: Value| json!({ "directory": "images", "format": "images", "ranges": ranges });
    assert_eq!(told["singles"], singles(json!([range(0, 2), range(6, 2)])));
    assert_eq!(told["files"], Value::Null);
    let other = ["-c", &place, "-i", "8", "-s", "1", "--format", "images", "-v", &text(&out)];
    run::run("generate", &other).fails_with(&["images: it holds images of another run"]);
    fs::remove_file(out.join("images/000000.png")).unwrap();
    fs::write(out.join("images/7.png"), "not a name that the program gives").unwrap();
    // Other files have what this run made, the directory what all did.
    let told = part(&cond, "2", &["--format", "npy,images"]);
    assert_eq!(told["singles"], singles(json!([range(1, 3), range(6, 2)])));
    assert_eq!(told["files"]["ranges"], json!([range(2, 2)]));
    let told = part(&cond, "9", &["--format", "png"]);
    assert_eq!(told["singles"], singles(json!([range(1, 3), range(6, 2)])));
    assert_eq!(told["files"], json!({ "names": ["samples.png"], "ranges": [range(9, 2)] }));
    // One that is not known as of this series is none of the run's.
    fs::remove_file(out.join(".generate.json")).unwrap();
    assert_eq!(part(&cond, "9", &["--format", "png"])["singles"], Value::Null);
}

#[test]
fn sounds_are_described_too() {
    let dir = tempfile::tempdir().unwrap();
    let model = argument("wavenet_tiny/model.ckpt-72000");
    let told = describe(dir.path(), &["-c", &model, "--length", "20", "-n", "3", "--format", "wav-f32,npy"]);
    assert_eq!((&told["length"], &told["image_size"]), (&json!(20), &Value::Null));
    let ranges = json!([{ "first_index": 0, "count": 3 }]);
    assert_eq!(told["files"], json!({ "names": ["codes.npy", "waveform.npy"], "ranges": ranges }));
    assert_eq!(told["singles"], json!({ "directory": "sounds", "format": "wav-f32", "ranges": ranges }));
    // What a sound begins with is told, and is part of its length.
    let prime = text(&dir.path().join("sounds/000001.wav"));
    let other = dir.path().join("primed");
    let primed = describe(&other, &["-c", &model, "--length", "5", "--prime", &prime]);
    assert_eq!(primed["length"], 25);
    assert!(primed["given"].is_string());
}
