//! Checkpoints that are not quite the reference's, as people have them: in a directory, in another scope, of
//! other types, with an optimiser's scalars among the weights, damaged where nobody reads. What `convert`
//! takes, `generate` and `evaluate` take as well.

mod common;
#[path = "support/tables.rs"]
mod tables;

use std::fs;
use std::path::Path;

use common::bundle::{self, Tensor};
use common::models::golden;
use common::program::Place;
use common::run::run;
use common::training::{SMALL, convert_tensors, find, training};
use fast_pixel_cnn::weights::Weights;
use fast_pixel_cnn::{PixelCnnPp, media::npy};

/// Every tensor of some weights, one after the other.
fn values(path: &Path) -> Vec<f32> {
    let weights = Weights::load(path).unwrap();
    let names = weights.graph().arrays(false).map(|(_, name, _)| name);
    names.flat_map(|name| weights.array(&name).unwrap().into_owned()).collect()
}

fn image(weights: &Path, flags: &[&str]) -> (Vec<f32>, String) {
    let out = tempfile::tempdir().unwrap();
    let (weights, out) = (weights.to_str().unwrap(), out.path().to_str().unwrap());
    let args = [&["-c", weights, "-n", "2", "-i", "8", "-v", out][..], flags].concat();
    let done = run("generate", &args).succeeds();
    (npy::read_f32(&Path::new(out).join("samples.npy")).unwrap().into_iter().collect(), done.stderr)
}

#[test]
fn a_directory_and_its_note_are_taken_by_every_program_and_said_so() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str| place.path().join(name);
    for name in ["params.ckpt.index", "params.ckpt.data-00000-of-00001"] {
        fs::copy(golden("tiny/v2").join(name), file(name)).unwrap();
        fs::copy(golden("elu/v2").join(name), file(&name.replace("params", "other"))).unwrap();
    }
    fs::write(file("checkpoint"), "model_checkpoint_path: \"/where/it/was/trained/params.ckpt\"\n").unwrap();
    let images = file("images.npy");
    npy::write(&images, &ndarray::Array4::<u8>::zeros((1, 8, 8, 3)).view()).unwrap();
    for given in [place.path().to_path_buf(), file("checkpoint")] {
        let said = format!("warning: {}: {} is taken\n", given.display(), file("params.ckpt").display());
        let converted = Place::new();
        assert_eq!(converted.convert(&given, &[]).succeeds().stderr, said);
        let (found, stderr) = image(&given, &[]);
        assert!(stderr.contains(&said), "{stderr}");
        assert_eq!(found, image(&converted.out(), &[]).0);
        let args = ["-c".as_ref(), given.as_os_str(), "--images".as_ref(), images.as_os_str()];
        assert!(run("evaluate", &args).succeeds().stderr.contains(&said));
        assert_eq!(values(&given), values(&converted.out()));
    }
    fs::remove_file(file("checkpoint")).unwrap();
    let refused = Place::new();
    refused
        .convert(place.path(), &[])
        .fails_with(&["a directory of 2 checkpoints: other.ckpt, params.ckpt; give one"]);
    refused.assert_empty();
    // Weights that are converted already.
    let converted = Place::new();
    converted.convert(&golden("tiny/v2"), &[]).succeeds();
    refused
        .convert(&converted.out(), &[])
        .fails_with(&["out: a directory of weights that are converted already"]);
    refused
        .convert(&converted.out().join("model.json"), &[])
        .fails_with(&["a JSON file; give the directory"]);
}

#[test]
fn an_error_is_one_line_of_at_most_400_characters_whatever_names_there_are() {
    // A list of 600 missing tensors, and names that would clear a terminal or break the line.
    let mut tensors = training();
    tensors.retain(|t| !t.name.contains("conv2d_1"));
    tensors.extend((0..600).map(|i| Tensor::f32(&format!("model/\x1b[2J\n{i}"), &[1], &[1.0])));
    let (refused, place) = convert_tensors(&tensors, &[]);
    refused.fails_with(&["params.ckpt: not the weights of a PixelCNN++ (1 resnets", "is missing; ", " more"]);
    let line = refused.stderr.trim_end();
    assert!((300..=400).contains(&line.chars().count()) && !line.contains('\x1b'), "{line}");
    place.assert_empty();
    // A path longer than that.
    let long = ["directory"; 100].join("/");
    for refused in [run("convert", &[&long, "out"]), run("generate", &["-c", &long, "-n", "1"])] {
        refused.fails_with(&[
            "directory/",
            "no such file, directory or checkpoint prefix; give a directory made by",
        ]);
        assert_eq!(refused.stderr.trim_end().chars().count(), 400, "{}", refused.stderr);
    }
}

#[test]
fn another_scope_is_found_and_of_several_one_is_chosen() {
    let renamed = |scope: &str| {
        let mut tensors = training();
        for tensor in tensors.iter_mut().filter(|t| t.name.starts_with("model/")) {
            tensor.name = tensor.name.replacen("model", scope, 1);
        }
        tensors
    };
    let (run, first) = convert_tensors(&renamed("pixelcnn"), &[]);
    assert_eq!(run.succeeds().stderr, "");
    let (run, reference) = convert_tensors(&training(), &[]);
    run.succeeds();
    assert_eq!(first.files(), reference.files());

    let mut both = training();
    for mut tensor in renamed("teacher").into_iter().filter(|t| t.name.starts_with("teacher/")) {
        // Another model: the bits of all numbers are turned to their neighbours'.
        tensor.bytes.iter_mut().step_by(4).for_each(|byte| *byte ^= 1);
        both.push(tensor);
    }
    let (run, place) = convert_tensors(&both, &[]);
    run.fails_with(&["params.ckpt: 2 models, in the scopes model, teacher; choose one with --scope"]);
    place.assert_empty();
    let (run, model) = convert_tensors(&both, &["--scope", "model"]);
    run.succeeds();
    assert_eq!(model.files(), reference.files());
    let (run, teacher) = convert_tensors(&both, &["--scope", "teacher"]);
    run.succeeds();
    assert_ne!(teacher.files(), reference.files());
    let (run, place) = convert_tensors(&both, &["--scope", "student"]);
    run.fails_with(&["--scope: expected a scope with a model in it (model, teacher), found \"student\""]);
    place.assert_empty();

    let checkpoint = tempfile::tempdir().unwrap();
    bundle::write(&checkpoint.path().join("c"), &both);
    let direct = image(checkpoint.path(), &["--scope", "teacher", "--class", "1"]).0;
    assert_eq!(direct, image(&teacher.out(), &["--class", "1"]).0);
    assert_ne!(direct, image(&model.out(), &["--class", "1"]).0);
}

#[test]
fn an_optimiser_s_scalar_is_passed_over() {
    let mut tensors = training();
    tensors.push(Tensor::f32("model/beta1_power", &[], &[0.9]));
    tensors.push(Tensor::f32("model/conv2d_0/V/Adam", &[2], &[0.9, 0.1]));
    let (run, place) = convert_tensors(&tensors, &[]);
    let expected = "warning: an optimiser's scalars are passed over: model/beta1_power\n";
    assert_eq!(run.succeeds().stderr, expected);
    let (run, reference) = convert_tensors(&training(), &[]);
    run.succeeds();
    assert_eq!(place.files(), reference.files());
}

/// The half-precision bits of a multiple of 1/256 below 8 in magnitude.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = if value == 0.0 { 0 } else { (bits >> 13 & 0x3_ffff) - (112 << 10) };
    (bits >> 16 & 0x8000) as u16 | magnitude as u16
}

#[test]
fn weights_of_every_floating_point_type_become_float32() {
    let coarse = |value: f32| (value * 256.0).round().clamp(-2000.0, 2000.0) / 256.0;
    let floats = |t: &Tensor| -> Vec<f32> {
        t.bytes.as_chunks::<4>().0.iter().map(|b| coarse(f32::from_le_bytes(*b))).collect()
    };
    type Encode = fn(f32) -> Vec<u8>;
    let types: [(u64, &str, Encode); 4] = [
        (1, "", |v| v.to_le_bytes().to_vec()),
        (19, "187 of 187 tensors are float16 and are widened", |v| half(v).to_le_bytes().to_vec()),
        (2, "187 of 187 tensors are float64 and are rounded", |v| f64::from(v).to_le_bytes().to_vec()),
        // The numbers have 11 significant bits, bfloat16 8: cut them for all.
        (14, "187 of 187 tensors are bfloat16 and are widened", |v| v.to_le_bytes()[2..].to_vec()),
    ];
    let convert = |(number, warning, encode): (u64, &str, Encode), mask: u32| {
        let mut tensors = training();
        for tensor in tensors.iter_mut().filter(|t| t.dtype == 1 && t.name.starts_with("model/")) {
            let values = floats(tensor).into_iter().map(|v| f32::from_bits(v.to_bits() & mask));
            (tensor.dtype, tensor.bytes) = (number, values.flat_map(encode).collect());
        }
        let (run, place) = convert_tensors(&tensors, &["--verify-all"]);
        let expected =
            if warning.is_empty() { String::new() } else { format!("warning: {warning} to float32\n") };
        assert_eq!(run.succeeds().stderr, expected);
        place.files()
    };
    let reference = convert(types[0], u32::MAX);
    assert!(types[1..3].iter().all(|of| convert(*of, u32::MAX) == reference));
    assert_eq!(convert(types[3], 0xffff_0000), convert(types[0], 0xffff_0000));
}

#[test]
fn what_is_converted_is_verified_and_the_rest_if_asked_for() {
    let checkpoint = tempfile::tempdir().unwrap();
    let prefix = checkpoint.path().join("params.ckpt");
    let damage = |name: &str| {
        bundle::write(&prefix, &training());
        let data = checkpoint.path().join("params.ckpt.data-00000-of-00001");
        let mut bytes = fs::read(&data).unwrap();
        let wanted = find(&mut training(), name).bytes.clone();
        let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
        bytes[at] ^= 1;
        fs::write(&data, bytes).unwrap();
    };
    // Each raw weight stands twice in the file, as itself and as an optimiser's.
    for (name, read) in [("model/conv2d_3/V/ExponentialMovingAverage", true), ("Variable", false)] {
        damage(name);
        let (place, all) = (Place::new(), Place::new());
        let message = format!("tensor \"{name}\" at byte ");
        let run = place.convert(&prefix, &[]);
        if read {
            run.fails_with(&[&message, "expected checksum"]);
            place.assert_empty();
        } else {
            run.succeeds();
        }
        all.convert(&prefix, &["--verify-all"]).fails_with(&[&message, "expected checksum"]);
        all.assert_empty();
    }
    bundle::write(&prefix, &training());
    let place = Place::new();
    let run = place.convert(&prefix, &["--verify-all"]).succeeds();
    let bytes = fs::metadata(checkpoint.path().join("params.ckpt.data-00000-of-00001")).unwrap().len();
    let expected = format!("; all {} variables ({bytes} bytes) verified\n", training().len());
    assert!(run.stdout.ends_with(&expected), "{}", run.stdout);
    // Handles have no checksum that could be told: the others are verified.
    let mut tensors = training();
    tensors.push(Tensor { name: "handle".into(), dtype: 20, shape: vec![], bytes: vec![1, 2, 3] });
    let (run, _place) = convert_tensors(&tensors, &["--verify-all"]);
    let run = run.succeeds();
    assert_eq!(run.stderr, "warning: 1 variables are of types whose checksums are not known: handle\n");
    assert!(run.stdout.ends_with(&expected), "{}", run.stdout);
}

/// A list that claims what 4 TiB of nothing could hold.
#[cfg(target_os = "linux")]
#[test]
fn sparse_checkpoints_are_refused_by_every_program() {
    use tables::{fixed32, number, run as message, shape, table, v2_header};
    let place = tempfile::tempdir().unwrap();
    let prefix = place.path().join("c");
    let large = PixelCnnPp { filters: 10_000, classes: 0, ..SMALL };
    let mut entries = vec![v2_header(1)];
    let mut offset = 0;
    for (_, name, dimensions) in large.graph().arrays(false) {
        let size = 4 * dimensions.iter().product::<usize>() as u64;
        let dimensions: Vec<u64> = dimensions.iter().map(|&d| d as u64).collect();
        let fields = [number(1, 1), message(2, &shape(&dimensions)), number(4, offset), number(5, size)];
        entries.push((format!("model/{name}").into_bytes(), [fields.concat(), fixed32(6, 0)].concat()));
        offset += size;
    }
    entries.sort();
    fs::write(place.path().join("c.index"), table(&entries)).unwrap();
    let data = fs::File::create(place.path().join("c.data-00000-of-00001")).unwrap();
    assert!((1 << 36..1 << 42).contains(&offset), "{offset}");
    if let Err(error) = data.set_len(1 << 42) {
        println!("no sparse file was tried: {error}");
        return;
    }
    let (c, out) = (prefix.to_str().unwrap(), place.path().join("out"));
    let out = out.to_str().unwrap();
    run("convert", &[c, out]).fails_with(&["tensor \"model/conv2d_0/V\" at byte 0: expected checksum"]);
    // An engine makes room for all weights first, if the system lets it.
    let images = place.path().join("images.npy");
    npy::write(&images, &ndarray::Array4::<u8>::zeros((1, 8, 8, 3)).view()).unwrap();
    for done in [
        run("generate", &["-c", c, "-n", "1", "-i", "8", "-v", out]),
        run("evaluate", &["-c", c, "--images", images.to_str().unwrap()]),
    ] {
        let error = done.stderr.lines().last().unwrap();
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(error.contains("cannot allocate ") || error.contains("expected checksum"), "{error}");
        assert_eq!(
            done.stderr.lines().filter(|line| !line.starts_with("warning: ")).count(),
            1,
            "{}",
            done.stderr
        );
    }
}
