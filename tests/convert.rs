//! The program `convert` as a user runs it, on the golden checkpoints that TensorFlow wrote and on
//! checkpoints with every kind of fault.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use assert_cmd::cargo::CommandCargoExt;
use common::bundle::{self, Tensor};
use common::models::golden;
use common::program::{Place, convert};
use common::training::{SMALL, convert_tensors, find, training};
use fast_pixel_cnn::cpu::{self, CpuEngine};
use fast_pixel_cnn::weights::{self, Options, Weights};
use fast_pixel_cnn::{Error, Nonlinearity, PixelCnnPp};
use serde_json::Value;

const MODELS: [(&str, &[&str]); 5] = [
    ("tiny", &["v1", "v2", "v1_sharded", "v2_sharded"]),
    ("cond", &["v1", "v2", "v1_sharded", "v2_sharded"]),
    ("elu", &["v1", "v2"]),
    ("relu", &["v1", "v2"]),
    ("rect", &["v1", "v2"]),
];

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_golden_checkpoint_converts_alike_from_every_format() {
    for (model, formats) in MODELS {
        let mut first = None;
        for format in formats {
            let place = Place::new();
            let run = place.convert(&golden(&format!("{model}/{format}/params.ckpt")), &[]).succeeds();
            assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
            let version = &format[..2];
            assert!(run.stdout.ends_with(&format!(
                "averaged weights from a TensorFlow {} checkpoint\n",
                version.to_uppercase()
            )));

            let (found, expected) =
                (json(&place.out().join("model.json")), json(&golden(&format!("{model}/config.json"))));
            for key in ["nr_resnet", "nr_filters", "nr_logistic_mix"] {
                assert_eq!(found["config"][key], expected[key], "{model} {key}");
            }
            assert_eq!(found["config"]["num_classes"], expected["num_classes"].as_u64().unwrap_or(0));
            assert_eq!(found["source"], serde_json::json!({"format": version, "averaged": true}));

            let files = place.files();
            assert_eq!(*first.get_or_insert_with(|| files.clone()), files, "{model} {format}");
        }
    }
}

#[test]
fn the_nonlinearity_follows_the_width_unless_it_is_given() {
    let cases = [
        ("tiny", &[][..], "concat_elu", false),
        ("tiny", &["--nonlinearity", "concat_elu"], "concat_elu", false),
        ("elu", &[], "elu", true),
        ("relu", &["--nonlinearity", "relu"], "relu", false),
    ];
    for (model, flags, expected, warned) in cases {
        let place = Place::new();
        let run = place.convert(&golden(&format!("{model}/v2/params.ckpt")), flags).succeeds();
        assert_eq!(json(&place.out().join("model.json"))["config"]["nonlinearity"], expected);
        assert_eq!(
            run.stderr.starts_with("warning: elu and relu models have the same shapes"),
            warned,
            "{}",
            run.stderr
        );
    }
    for (model, given, expected) in [("tiny", "relu", "concat_elu"), ("elu", "concat_elu", "elu or relu")] {
        let place = Place::new();
        let run = place.convert(&golden(&format!("{model}/v2/params.ckpt")), &["--nonlinearity", given]);
        run.fails_with(&["--nonlinearity: expected", expected, given]);
        place.assert_empty();
    }
}

#[test]
fn raw_weights_are_others_than_the_averaged_ones() {
    let checkpoint = golden("tiny/v1/params.ckpt");
    let (averaged, raw) = (Place::new(), Place::new());
    averaged.convert(&checkpoint, &[]).succeeds();
    let run = raw.convert(&checkpoint, &["--raw"]).succeeds();
    assert!(run.stdout.contains("raw weights") && run.stderr.is_empty(), "{} {}", run.stdout, run.stderr);
    assert_eq!(json(&raw.out().join("model.json"))["source"]["averaged"], false);
    for ((name, a), (other, b)) in averaged.files().iter().zip(&raw.files()) {
        assert_eq!(name, other);
        assert_ne!(a, b, "{name}");
    }
}

#[test]
fn a_checkpoint_and_its_directory_load_alike() {
    for options in [Options::default(), Options { raw: true, ..Options::default() }] {
        let (place, checkpoint) = (Place::new(), golden("cond/v1_sharded/params.ckpt"));
        place.convert(&checkpoint, if options.raw { &["--raw"] } else { &[] }).succeeds();
        let direct = Weights::load_with(&checkpoint, &options).unwrap();
        let directory = Weights::load_with(place.out(), &options).unwrap();
        assert_eq!((direct.config(), direct.source()), (directory.config(), directory.source()));
        for (_, name, _) in direct.graph().arrays(false) {
            assert_eq!(direct.array(&name).unwrap(), directory.array(&name).unwrap(), "{name}");
        }
    }
}

#[test]
fn list_prints_every_variable() {
    for format in ["v1/params.ckpt", "v2_sharded/params.ckpt", "v2/params.ckpt.index"] {
        let run = convert(&[Path::new("--list"), &golden("cond").join(format)]).succeeds();
        let mut expected = Vec::new();
        for v in json(&golden("cond/variables.json")).as_array().unwrap() {
            let shape: Vec<u64> =
                v["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
            expected.push(format!(
                "{} {} {shape:?}",
                v["name"].as_str().unwrap(),
                v["dtype"].as_str().unwrap()
            ));
        }
        expected.sort();
        let mut found: Vec<_> = run.stdout.lines().map(String::from).collect();
        found.sort();
        assert_eq!(found, expected, "{format}");
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn a_reader_who_leaves_early_is_no_error() {
    let mut child = Command::cargo_bin("convert").unwrap();
    child.arg("--list").arg(golden("tiny/v2/params.ckpt")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn bad_usage_ends_with_status_2() {
    let checkpoint = golden("tiny/v2/params.ckpt");
    let checkpoint = checkpoint.to_str().unwrap();
    for args in [
        &[][..],
        &[checkpoint],
        &[checkpoint, "out", "--quick"],
        &[checkpoint, "out", "--nonlinearity", "gelu"],
        &[checkpoint, "out", "--list"],
    ] {
        let run = convert(args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    }
}

#[test]
fn an_existing_directory_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.out()).unwrap();
    fs::write(place.out().join("thesis.txt"), "years of work").unwrap();
    let run = place.convert(&golden("tiny/v2/params.ckpt"), &[]);
    run.fails_with(&["out: something is there already", "nothing is overwritten"]);
    assert_eq!(place.files(), [("thesis.txt".into(), b"years of work".to_vec())]);
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1);

    let inside = place.out().join("thesis.txt").join("out");
    convert(&[&golden("tiny/v2/params.ckpt"), &inside])
        .fails_with(&["thesis.txt: cannot create a directory"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let locked = place.0.path().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
        // The superuser may write there all the same.
        if fs::write(locked.join("probe"), "").is_err() {
            let run = convert(&[&golden("tiny/v2/params.ckpt"), &locked.join("out")]);
            run.fails_with(&["locked: cannot create a directory"]);
        }
    }
}

#[test]
fn damaged_checkpoints_leave_nothing_behind() {
    let (index, data) = ("params.ckpt.index", "params.ckpt.data-00000-of-00001");
    let damage = |file: &str, edit: &dyn Fn(&mut Vec<u8>)| {
        let (place, copy) = (Place::new(), tempfile::tempdir().unwrap());
        for name in [index, data] {
            fs::write(copy.path().join(name), fs::read(golden("tiny/v2").join(name)).unwrap()).unwrap();
        }
        let mut bytes = fs::read(copy.path().join(file)).unwrap();
        edit(&mut bytes);
        match bytes.len() {
            0 => fs::remove_file(copy.path().join(file)).unwrap(),
            _ => fs::write(copy.path().join(file), bytes).unwrap(),
        }
        let run = place.convert(&copy.path().join("params.ckpt"), &[]);
        run.fails_with(&["params.ckpt"]);
        place.assert_empty();
    };
    damage(data, &|bytes| bytes.truncate(bytes.len() / 2));
    damage(data, &Vec::clear);
    damage(index, &|bytes| bytes.truncate(bytes.len() - 1));
    damage(index, &Vec::clear);
    // The last tensor of the network to be read is the last dense layer's.
    let needle: Vec<u8> = Weights::load(golden("tiny/v2/params.ckpt"))
        .unwrap()
        .array("dense_13/b")
        .unwrap()
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    damage(data, &|bytes| {
        let at = bytes.windows(needle.len()).position(|w| w == needle).unwrap();
        bytes[at] ^= 1;
    });
}

#[test]
fn a_missing_shard_leaves_nothing_behind() {
    for format in ["v1_sharded", "v2_sharded"] {
        let (place, copy) = (Place::new(), tempfile::tempdir().unwrap());
        for entry in fs::read_dir(golden("tiny").join(format)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if !name.contains("-00001-of-") {
                fs::write(copy.path().join(&name), fs::read(entry.path()).unwrap()).unwrap();
            }
        }
        place.convert(&copy.path().join("params.ckpt"), &[]).fails_with(&["params.ckpt", "-00001-of-00002"]);
        place.assert_empty();
    }
}

#[test]
fn an_interrupted_conversion_leaves_nothing_behind() {
    let (place, checkpoint) = (Place::new(), golden("tiny/v2/params.ckpt"));
    let five = |written| written < 5;
    let result = weights::convert(&checkpoint, &place.out(), &Options::default(), &five);
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    place.assert_empty();
}

#[test]
fn averages_raw_values_and_mixtures_of_both_are_told_apart() {
    let same = |place: &Place, seed: u64| {
        let (found, expected) = (Weights::load(place.out()).unwrap(), Weights::synthetic(SMALL, seed));
        let mut names = found.graph().arrays(false).map(|(_, name, _)| name);
        names.all(|name| found.array(&name).unwrap() == expected.array(&name).unwrap())
    };
    let is_average = |t: &Tensor| t.name.ends_with("/ExponentialMovingAverage");
    let all = training();
    let (run, place) = convert_tensors(&all, &[]);
    assert_eq!(run.succeeds().stderr, "");
    assert!(same(&place, 1));
    let (run, place) = convert_tensors(&all, &["--raw"]);
    assert_eq!(run.succeeds().stderr, "");
    assert!(same(&place, 2));

    let raw: Vec<_> = all.iter().filter(|t| !is_average(t)).cloned().collect();
    let (run, place) = convert_tensors(&raw, &[]);
    let run = run.succeeds();
    assert!(run.stdout.contains("raw weights"), "{}", run.stdout);
    assert!(
        run.stderr.starts_with("warning: no variable ends in /ExponentialMovingAverage"),
        "{}",
        run.stderr
    );
    assert!(same(&place, 2));

    let averages: Vec<_> = all.iter().filter(|t| is_average(t)).cloned().collect();
    let (run, place) = convert_tensors(&averages, &[]);
    run.succeeds();
    assert!(same(&place, 1));
    let (run, place) = convert_tensors(&averages, &["--raw"]);
    run.fails_with(&["not the weights of a PixelCNN++"]);
    place.assert_empty();

    let lacks = "model/conv2d_3/V/ExponentialMovingAverage";
    let mixed: Vec<_> = all.iter().filter(|t| t.name != lacks).cloned().collect();
    let (run, place) = convert_tensors(&mixed, &[]);
    let run = run.succeeds();
    assert!(run.stderr.starts_with("warning: 1 of 187 tensors have no average"), "{}", run.stderr);
    assert_eq!(json(&place.out().join("model.json"))["source"]["averaged"], false);
    assert!(!same(&place, 1) && !same(&place, 2));
}

#[test]
fn every_difference_from_a_pixelcnn_is_listed() {
    let mut tensors = training();
    tensors.retain(|t| !t.name.starts_with("model/conv2d_7/") && !t.name.starts_with("model/dense_2/g"));
    find(&mut tensors, "model/dense_1/V/ExponentialMovingAverage").shape.reverse();
    let wrong = find(&mut tensors, "model/conv2d_0/g/ExponentialMovingAverage");
    (wrong.dtype, wrong.shape) = (3, vec![4]);
    tensors.push(Tensor::f32("model/conv2d_200/g", &[4], &[1.0; 4]));
    tensors.push(Tensor::f32("model/attention/query", &[1], &[1.0]));
    let (run, place) = convert_tensors(&tensors, &[]);
    run.fails_with(&[
        "not the weights of a PixelCNN++ (1 resnets, 4 filters, 2 mixtures, 3 classes, concat_elu)",
        "model/conv2d_0/g/ExponentialMovingAverage: expected floating-point numbers, found int32",
        " more",
    ]);
    assert!(run.stderr.trim_end().len() <= 400, "{}", run.stderr);
    place.assert_empty();
    // The library has all of them.
    let checkpoint = tempfile::tempdir().unwrap();
    bundle::write(&checkpoint.path().join("c"), &tensors);
    let error = Weights::load(checkpoint.path()).err();
    let Some(Error::Mismatch { problems, .. }) = error else { panic!("{error:?}") };
    for problem in [
        "model/conv2d_7/V [2, 3, 4, 4] is missing",
        "model/conv2d_7/g [4] is missing",
        "model/conv2d_7/b [4] is missing",
        "model/dense_2/g [4] is missing",
        "model/dense_1/V/ExponentialMovingAverage: expected shape [8, 4], found [4, 8]",
        "model/conv2d_200/g is extra",
        "model/attention/query is extra",
    ] {
        assert!(problems.iter().any(|found| found == problem), "{problems:?} lack {problem}");
    }

    let (run, place) = convert_tensors(&[Tensor::f32("dense/kernel", &[1], &[1.0])], &[]);
    run.fails_with(&["not the weights of a PixelCNN++", "dense/kernel"]);
    place.assert_empty();
}

#[test]
fn unusable_numbers_are_named_and_leave_nothing_behind() {
    let average = |tensor: &str| format!("model/{tensor}/ExponentialMovingAverage");
    let edit = |tensor: &str, edit: &dyn Fn(&mut [u8]), parts: &[&str]| {
        let mut tensors = training();
        edit(&mut find(&mut tensors, &average(tensor)).bytes);
        let (run, place) = convert_tensors(&tensors, &[]);
        run.fails_with(parts);
        run.fails_with(&[&format!("tensor {}", average(tensor))]);
        place.assert_empty();
    };
    let nan = f32::NAN.to_le_bytes();
    edit("dense_13/b", &|b| b[4..8].copy_from_slice(&nan), &["expected finite numbers, found NaN at [1]"]);
    edit("conv2d_0/V", &|b| b.fill(0), &["norm above 0, found nothing but zeros for output channel 0"]);
    // Output channel 2 of [2, 3, 4, 4] with outputs on axis 2.
    let channel = |b: &mut [u8]| b.chunks_exact_mut(16).skip(2).step_by(4).for_each(|row| row.fill(0));
    edit("deconv2d_0/V", &channel, &["output channel 2"]);
}

#[test]
fn a_checkpoint_is_checked_while_it_is_packed_and_before_room_is_made_for_it() {
    let refused = |tensors: &[Tensor]| {
        let place = tempfile::tempdir().unwrap();
        let prefix = place.path().join("params.ckpt");
        bundle::write(&prefix, tensors);
        let weights = Weights::load(&prefix)?;
        let threads = Some(3);
        CpuEngine::new(&weights, &cpu::Options { threads, ..Default::default() }).map(|_| "packed")
    };
    let mut tensors = training();
    assert_eq!(refused(&tensors).unwrap(), "packed");
    // The last comes first in the network.
    for tensor in ["dense_13/b", "deconv2d_0/g", "conv2d_9/b", "conditional_weights_0/hw", "conv2d_1/V"] {
        let name = format!("model/{tensor}/ExponentialMovingAverage");
        find(&mut tensors, &name).bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        let error = refused(&tensors).unwrap_err().to_string();
        assert!(error.contains(&format!("tensor {name}: expected finite numbers")), "{error}");
    }
    // A list that claims 8 TB: the first tensor that the file cannot hold is named.
    let large = PixelCnnPp { resnets: 100, filters: 10_000, ..SMALL };
    let graph = large.graph();
    let claimed =
        graph.arrays(false).map(|(_, name, shape)| Tensor::f32(&format!("model/{name}"), &shape, &[1.0]));
    let error = refused(&claimed.collect::<Vec<_>>()).unwrap_err().to_string();
    assert!(error.contains("tensor \"model/conv2d_0/V\": expected a shape of at most"), "{error}");
}

#[test]
fn the_demo_model_is_sound() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits");
    let weights = Weights::load(&directory).unwrap();
    let expected = PixelCnnPp {
        resnets: 2,
        filters: 32,
        mixtures: 5,
        channels: 3,
        classes: 10,
        nonlinearity: Nonlinearity::ConcatElu,
    };
    assert_eq!(weights.config(), Some(&expected.into()));
    assert!(weights.source().averaged);
    assert_eq!(expected.graph().parameter_count(), 991_076);
    CpuEngine::new(&weights, &Default::default()).unwrap();
}
