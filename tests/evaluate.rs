//! The program `evaluate` as a user runs it, on the golden data.

#[path = "common/models.rs"]
mod models;
#[path = "common/poison.rs"]
mod poison;
#[path = "common/run.rs"]
mod run;

use std::fs;
use std::path::Path;

use fast_pixel_cnn::{
    Nonlinearity, Weights,
    media::{images, npy},
    weights,
};
use models::argument;
use ndarray::{Array4, Axis};
use run::Run;
use serde_json::Value;

fn evaluate(args: &[&str]) -> Run {
    run::run("evaluate", args)
}

fn json(run: &Run) -> Value {
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    serde_json::from_str(&run.stdout).unwrap()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// The flags for a golden directory.
fn flags(directory: &str) -> Vec<String> {
    let weights = argument(&format!("{directory}/v2/params.ckpt"));
    let mut flags =
        vec!["-c".into(), weights, "--images".into(), argument(&format!("{directory}/images_u8.npy"))];
    if directory == "cond" {
        flags.extend(["--labels".into(), argument("cond/labels.npy")]);
    }
    if directory == "relu" {
        flags.extend(["--nonlinearity".into(), "relu".into()]);
    }
    flags
}

fn evaluate_golden(directory: &str, more: &[&str]) -> Run {
    let flags = flags(directory);
    evaluate(&[flags.iter().map(String::as_str).collect(), more.to_vec()].concat())
}

#[test]
fn every_golden_model_scores_as_in_the_reference() {
    for directory in ["tiny", "cond", "elu", "relu", "rect"] {
        let logits = argument(&format!("{directory}/logits.npy"));
        let run = evaluate_golden(directory, &["--compare-logits", &logits, "--json"]).succeeds();
        let json = json(&run);
        let expected =
            |name: &str| npy::read_f32(Path::new(&argument(&format!("{directory}/{name}")))).unwrap();
        for (key, file) in [("nats", "nll.npy"), ("bits_per_dim", "bits_per_dim.npy")] {
            let (found, expected) = (list(&json[key]), expected(file));
            assert_eq!(json["images"], found.len());
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(expected) {
                assert!((a / f64::from(b) - 1.0).abs() < 1e-5, "{directory} {key}: {a} {b}");
            }
        }
        let bits = list(&json["bits_per_dim"]);
        let mean = bits.iter().sum::<f64>() / bits.len() as f64;
        assert!((json["mean_bits_per_dim"].as_f64().unwrap() - mean).abs() < 1e-12);
        assert!(json["max_logit_difference"].as_f64().unwrap() < 1e-4);
        assert_eq!(json["schema"], "fast-pixel-cnn/evaluate/1");
    }
}

#[test]
fn raw_and_averaged_weights_are_told_apart() {
    let raw = argument("tiny/logits_raw_weights.npy");
    evaluate_golden("tiny", &["--raw", "--compare-logits", &raw]).succeeds();
    let run = evaluate_golden("tiny", &["--compare-logits", &raw, "--json"]);
    let line = "error: the logits differ by up to ";
    assert!(run.code == Some(1) && run.stderr.starts_with(line), "{}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(json(&run)["max_logit_difference"].as_f64().unwrap() > 1.0);
    let run = evaluate_golden("tiny", &["--compare-logits", &raw]);
    assert!(run.code == Some(1) && run.stdout.contains("above the tolerance of 1e-4"), "{}", run.stdout);
    evaluate_golden("tiny", &["--compare-logits", &raw, "--tolerance", "1e3"]).succeeds();
}

#[test]
fn the_demo_model_scores_held_out_digits() {
    let [images, labels, logits] =
        ["images_u8", "labels", "logits"].map(|name| argument(&format!("digits/{name}.npy")));
    let args = ["--images", &images, "--labels", &labels, "--compare-logits", &logits];
    let run = evaluate(&args).succeeds();
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 13, "{}", run.stdout);
    let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(words(lines[0]), ["image", "nats", "bits/dim"]);
    assert_eq!(words(lines[11])[0], "mean");
    assert!(lines[12].starts_with("largest logit difference: "));
    let expected = npy::read_f32(Path::new(&argument("digits/nll.npy"))).unwrap();
    for (line, expected) in lines[1..11].iter().zip(expected) {
        let nats: f64 = words(line)[1].parse().unwrap();
        assert!((nats / f64::from(expected) - 1.0).abs() < 1e-5, "{line}");
    }
}

#[test]
fn logits_that_were_written_compare_as_equal() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("logits.npy").display().to_string();
    let run = evaluate_golden("cond", &["--logits-out", &out, "--json"]).succeeds();
    assert!(json(&run).get("max_logit_difference").is_none());
    let same = ["--compare-logits", &out, "--tolerance", "0", "--threads", "1", "--json"];
    let run = evaluate_golden("cond", &same).succeeds();
    assert_eq!(json(&run)["max_logit_difference"], 0.0);
    // A number that is none is above any tolerance.
    let mut logits = npy::read_f32(Path::new(&out)).unwrap();
    logits[[0, 0, 0, 0]] = f32::NAN;
    images::write_npy(Path::new(&out), &logits).unwrap();
    let run = evaluate_golden("cond", &["--compare-logits", &out, "--tolerance", "inf", "--json"]);
    assert_eq!(run.code, Some(1));
    assert!(json(&run)["max_logit_difference"].is_null());
}

#[test]
fn images_are_taken_for_the_class_of_their_highest_likelihood() {
    let [images, labels] = ["images_u8", "labels"].map(|name| argument(&format!("digits/{name}.npy")));
    let run = evaluate(&["--images", &images, "--classify", "--json"]).succeeds();
    let found = json(&run);
    assert_eq!(found["schema"], "fast-pixel-cnn/classify/1");
    assert!(found.get("labels").is_none() && found.get("accuracy").is_none());
    let nats: Vec<Vec<f64>> = found["nats"].as_array().unwrap().iter().map(list).collect();
    let classes: Vec<usize> = list(&found["classes"]).iter().map(|c| *c as usize).collect();
    assert_eq!((nats.len(), classes.len(), nats[0].len()), (10, 10, 10));
    for (nats, class) in nats.iter().zip(&classes) {
        assert!(nats.iter().all(|n| *n >= nats[*class]), "{class}: {nats:?}");
    }
    // Each column is what a plain evaluation with that class says.
    let dir = tempfile::tempdir().unwrap();
    let all_of = dir.path().join("labels.npy");
    for class in [0_u8, 7] {
        images::write_npy(&all_of, &ndarray::Array1::from_elem(10, class)).unwrap();
        let run = evaluate(&["--images", &images, "--labels", all_of.to_str().unwrap(), "--json"]).succeeds();
        let column: Vec<f64> = nats.iter().map(|row| row[usize::from(class)]).collect();
        assert_eq!(list(&json(&run)["nats"]), column);
    }
    // Nine of the ten held-out digits are recognised.
    let run = evaluate(&["--images", &images, "--labels", &labels, "--classify", "--json"]).succeeds();
    let truth = npy::read_labels(Path::new(&labels)).unwrap();
    let right = classes.iter().zip(&truth).filter(|(class, label)| **class == **label as usize).count();
    assert_eq!((json(&run)["accuracy"].as_f64(), right), (Some(0.9), 9));
    let run = evaluate(&["--images", &images, "--labels", &labels, "--classify"]).succeeds();
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 12, "{}", run.stdout);
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["image", "class", "label", "nats", "bits/dim"]
    );
    assert_eq!(lines[11], "accuracy: 90.00 %, 9 of 10 images");
    let run = evaluate_golden("tiny", &["--classify"]);
    run.fails_with(&["--classify: the model is unconditional"]);
    let run = evaluate_golden("cond", &["--classify", "--compare-logits", "x.npy"]);
    assert_eq!(run.code, Some(2));
}

#[test]
fn logits_that_are_not_finite_are_no_likelihood_but_one_line_and_status_1() {
    let dir = tempfile::tempdir().unwrap();
    let says = |run: Run, images: &str| {
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        let line = format!("error: the logits of {images} are not finite, first those of image 0");
        assert!(
            run.stderr.starts_with(&line) && run.stderr.trim_end().lines().count() == 1,
            "{}",
            run.stderr
        );
        run
    };
    // What is none deep in the network must come through every kind of activation.
    let nonlinearities = [("tiny", None), ("elu", None), ("relu", Some(Nonlinearity::Relu))];
    for (directory, nonlinearity) in nonlinearities {
        let options = weights::Options { nonlinearity, ..Default::default() };
        let sound =
            Weights::load_with(Path::new(&argument(&format!("{directory}/v2/params.ckpt"))), &options)
                .unwrap();
        for variable in ["conv2d_0.g", "conv2d_5.g"] {
            let place = dir.path().join(format!("{directory}.{variable}"));
            let place = poison::poison(&sound, &place, variable, None).display().to_string();
            let images = argument(&format!("{directory}/images_u8.npy"));
            let run = evaluate(&["-c", &place, "--images", &images, "--json", "--device", "cpu"]);
            let count = images::read(&[&images], None, 3).unwrap().dim().0;
            let run = says(run, &format!("{count} of {count} images"));
            assert!(json(&run)["nats"].as_array().unwrap().iter().all(|n| n.is_null()), "{}", run.stdout);
        }
    }
    // One of the last layer's: a mixture logit, a mean, a log-scale, a coefficient.
    let sound = Weights::load(Path::new("models/digits")).unwrap();
    let [images, labels] = ["images_u8", "labels"].map(|name| argument(&format!("digits/{name}.npy")));
    for element in [0, 5, 11, 16] {
        let place = dir.path().join(element.to_string());
        let place = poison::poison(&sound, &place, "dense_22/g", Some(&[element])).display().to_string();
        let base = ["-c", &place, "--images", &images, "--labels", &labels, "--device", "cpu"];
        let run = says(evaluate(&base), "10 of 10 images");
        assert_eq!(run.stdout.matches("NaN").count(), 22, "{}", run.stdout);
        if element == 11 {
            let out = dir.path().join("logits.npy").display().to_string();
            says(evaluate(&[&base[..], &["--logits-out", &out]].concat()), "10 of 10 images");
            let run = says(evaluate(&[&base[..], &["--classify", "--json"]].concat()), "10 of 10 images");
            assert!(json(&run)["classes"].as_array().unwrap().iter().all(|class| class.is_null()));
            assert_eq!(json(&run)["accuracy"], 0.0);
        }
    }
}

#[test]
fn png_files_score_as_the_same_images_in_one_file() {
    let stack = images::read(&[argument("tiny/images_u8.npy")], None, 3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<String> = (0..stack.dim().0)
        .map(|i| {
            let file = dir.path().join(format!("{i}.png"));
            images::write_png(&file, stack.index_axis(Axis(0), i)).unwrap();
            file.display().to_string()
        })
        .collect();
    let weights = argument("tiny/v1/params.ckpt");
    let mut args = vec!["-c", &weights, "--json", "--images"];
    args.extend(files.iter().map(String::as_str));
    let pngs = evaluate(&args).succeeds();
    let one = evaluate_golden("tiny", &["--json"]).succeeds();
    assert_eq!(json(&pngs)["nats"], json(&one)["nats"]);
}

#[test]
fn images_and_labels_of_one_archive_are_told_apart() {
    // Two images of 8x8 in ImageNet32's form, of the classes 0 and 9, which count from 1 there.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/imagenet.npz").display().to_string();
    let cond = argument("cond/v2/params.ckpt");
    let run = evaluate(&["-c", &cond, "--images", &file, "--labels", &file, "--json"]).succeeds();
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.starts_with("warning: ") && run.stderr.contains("1 was taken off each"));
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    images::write_npy(Path::new(&at("x.npy")), &images::read(&[&file], None, 3).unwrap()).unwrap();
    images::write_npy(Path::new(&at("y.npy")), &ndarray::array![[0_i32], [9]]).unwrap();
    let same = evaluate(&["-c", &cond, "--images", &at("x.npy"), "--labels", &at("y.npy"), "--json"]);
    assert_eq!(json(&run)["nats"], json(&same.succeeds())["nats"]);
    let keys = |keys: &str| evaluate(&["-c", &cond, "--images", &file, "--labels", &file, "--key", keys]);
    keys("data,labels").succeeds();
    keys("mean").fails_with(&["mean.npy", "uint8", "'<f8'"]);
    keys("data,mean").fails_with(&["mean.npy", "class labels"]);
    keys("data,labels,mean").fails_with(&["--key: expected a name for the images"]);
}

#[test]
fn bad_input_is_one_line_of_error_and_status_2() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let write =
        |name: &str, shape| images::write_npy(Path::new(&at(name)), &Array4::<u8>::zeros(shape)).unwrap();
    write("odd.npy", (1, 6, 8, 3));
    write("grey.npy", (1, 8, 8, 1));
    fs::write(at("text"), "hello\n").unwrap();
    let (tiny, cond) = (argument("tiny/v2/params.ckpt"), argument("cond/v2/params.ckpt"));
    let [tiny_images, images, labels] =
        ["tiny/images_u8.npy", "cond/images_u8.npy", "cond/labels.npy"].map(argument);
    images::write_npy(Path::new(&at("high.npy")), &ndarray::array![0_i64, 1, 2, 10]).unwrap();
    images::write_npy(Path::new(&at("low.npy")), &ndarray::array![0_i64, 1, 2, -1]).unwrap();
    images::write_npy(Path::new(&at("few.npy")), &ndarray::array![0_i64, 1]).unwrap();
    let wrong = |args: &[&str], parts: &[&str]| evaluate(args).fails_with(parts);

    wrong(&["-c", &tiny, "--images", &at("none.npy")], &["none.npy", "cannot open"]);
    wrong(&["-c", &tiny, "--images", &at("odd.npy")], &["odd.npy", "multiples of 4", "6x8"]);
    wrong(&["-c", &tiny, "--images", &at("grey.npy")], &["grey.npy", "[1, 8, 8, 1]"]);
    wrong(&["-c", &tiny, "--images", &at("text")], &["text", "hello"]);
    wrong(&["-c", &tiny, "--images", &at("")], &["directory"]);
    wrong(&["-c", &tiny, "--images", &tiny_images, &at("text")], &["text", "hello"]);
    wrong(&["-c", &tiny, "--images", &images, "--labels", &labels], &["--labels", "unconditional"]);
    wrong(&["-c", &cond, "--images", &images], &["--labels", "conditional on 10 classes"]);
    for (labels, part) in [("high.npy", "found 10"), ("low.npy", "-1"), ("few.npy", "2 labels")] {
        wrong(&["-c", &cond, "--images", &images, "--labels", &at(labels)], &[labels, part]);
    }
    let given = ["-c", &tiny, "--images", &tiny_images];
    let with = |more: &[&str], parts: &[&str]| wrong(&[&given, more].concat(), parts);
    with(
        &["--compare-logits", &argument("rect/logits.npy")],
        &["rect/logits.npy", "shape", "[3, 8, 12, 30]"],
    );
    with(&["--compare-logits", &tiny_images], &["images_u8.npy", "float32"]);
    with(&["--logits-out", &at("none/logits.npy")], &["none/logits.npy", "cannot create"]);
    with(&["--logits-out", &at("")], &["directory"]);
    with(&["--threads", "0"], &["threads: expected 1 to 1024"]);
    with(&["--device", "tpu"], &["auto, cpu, cuda or cuda:N", "tpu"]);
    // What a device would ignore is refused, before there is need of the device.
    with(&["--device", "cpu", "--strategy", "auto"], &["--strategy: only for a CUDA device"]);
    with(&["--device", "cuda", "--threads", "2"], &["--threads: only for --device cpu; this runs on cuda:0"]);

    let usage: [&[&str]; 5] = [
        &[],
        &["--images"],
        &["--images", "a", "--tolerance", "1"],
        &["--images", "a", "--compare-logits", "b", "--tolerance", "nan"],
        &["--images", "a", "--compare-logits", "b", "--tolerance=-1"],
    ];
    for args in usage {
        let run = evaluate(args);
        assert!(run.code == Some(2) && run.stderr.starts_with("error: "), "{args:?}: {}", run.stderr);
    }
}
