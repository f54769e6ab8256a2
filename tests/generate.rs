//! The program `generate` as a user runs it.

#[path = "common/models.rs"]
mod models;
#[path = "common/run.rs"]
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::CommandCargoExt;
use fast_pixel_cnn::media::{images, npy};
use models::{argument, cond, tiny};
use ndarray::{Array4, Axis, Ix4, s};
use run::Run;
use serde_json::Value;
use tempfile::TempDir;

/// A run of the program and the directory it saved to.
struct Saved {
    run: Run,
    dir: TempDir,
}

/// Runs the program with a save directory of its own.
fn generate(args: &[&str]) -> Saved {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep/out").display().to_string();
    let run = run::run("generate", &[args, &["--save-dir", &out]].concat());
    Saved { run, dir }
}

/// The floats of a run that must succeed.
fn samples(args: &[&str]) -> Array4<f32> {
    generate(args).succeeds().samples()
}

impl Saved {
    fn succeeds(self) -> Saved {
        Saved { run: self.run.succeeds(), ..self }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("deep/out").join(name)
    }

    fn samples(&self) -> Array4<f32> {
        npy::read_f32(&self.path("samples.npy")).unwrap().into_dimensionality::<Ix4>().unwrap()
    }

    fn bytes(&self) -> Array4<u8> {
        images::read(&[self.path("images.npy")], None, 3).unwrap()
    }

    fn labels(&self) -> Vec<u32> {
        npy::read_labels(&self.path("labels.npy")).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".generate.json");
        names.sort();
        names
    }
}

#[test]
fn the_demo_model_makes_a_grid_with_a_column_for_each_class() {
    let saved = generate(&["-n", "23", "--first-index", "4"]).succeeds();
    assert_eq!(saved.files(), ["images.npy", "labels.npy", "run.json", "samples.npy", "samples.png"]);
    let labels: Vec<u32> = (4..27).map(|i| i % 10).collect();
    assert_eq!(saved.labels(), labels);
    let (bytes, floats) = (saved.bytes(), saved.samples());
    assert_eq!(bytes.dim(), (23, 32, 32, 3));
    assert_eq!(images::to_bytes(floats.view()), bytes);
    let grid = images::read(&[saved.path("samples.png")], None, 3).unwrap();
    assert_eq!(grid.dim(), (1, 3 * 34 - 2, 10 * 34 - 2, 3));
    assert!(grid.slice(s![.., ..32, ..4 * 34, ..]).iter().all(|&b| b == 0));
    assert_eq!(grid.slice(s![0, ..32, 4 * 34..4 * 34 + 32, ..]), bytes.index_axis(Axis(0), 0));
    assert_eq!(grid.slice(s![0, 68.., 6 * 34..6 * 34 + 32, ..]), bytes.index_axis(Axis(0), 22));
    let stdout = &saved.run.stdout;
    assert!(stdout.starts_with("23 images of 32x32 in "), "{stdout}");
    assert_eq!(stdout.lines().count(), 6, "{stdout}");
    assert!(saved.run.stderr.is_empty(), "{}", saved.run.stderr);
}

#[test]
fn an_image_is_the_same_however_a_run_is_split() {
    let cond = cond();
    let base = ["-c", &cond, "-i", "8", "-n", "5", "--seed", "7"];
    let whole = samples(&base);
    assert_eq!(whole.dim(), (5, 8, 8, 3));
    for other in [&["-b", "2"][..], &["-b", "1", "--threads", "1"], &["--naive"], &["--device", "cpu"]] {
        assert_eq!(samples(&[&base, other].concat()), whole, "{other:?}");
    }
    let tail = samples(&["-c", &cond, "-i", "8x8", "-n", "2", "--seed", "7", "--first-index", "3"]);
    assert_eq!(tail, whole.slice(s![3.., .., .., ..]));
    let other = samples(&["-c", &cond, "-i", "8", "-n", "5", "--seed", "8"]);
    assert!(other.outer_iter().zip(whole.outer_iter()).all(|(a, b)| a != b));
}

#[test]
fn the_default_is_one_batch_and_classes_are_chosen_by_flag() {
    let (tiny, cond) = (tiny(), cond());
    let saved = generate(&["-c", &tiny, "-i", "4x12", "-b", "3"]).succeeds();
    assert_eq!(saved.samples().dim(), (3, 4, 12, 3));
    assert_eq!(saved.files(), ["images.npy", "run.json", "samples.npy", "samples.png"]);
    let one = generate(&["-c", &cond, "-i", "4", "-b", "3", "--class", "9"]).succeeds();
    assert_eq!(one.labels(), [9, 9, 9]);
    let all = generate(&["-c", &cond, "-i", "4", "-b", "3", "--class", "all"]).succeeds();
    assert_eq!(all.labels(), [0, 1, 2]);
    assert_eq!(all.samples(), samples(&["-c", &cond, "-i", "4", "-b", "3"]));
    let png = generate(&["-c", &cond, "-i", "4", "-b", "3", "--format", "png"]).succeeds();
    assert_eq!(png.files(), ["run.json", "samples.png"]);
    let npy = generate(&["-c", &tiny, "-i", "4", "-b", "3", "--format", "npy"]).succeeds();
    assert_eq!(npy.files(), ["images.npy", "run.json", "samples.npy"]);
    generate(&["-c", &tiny, "--class", "1"]).run.fails_with(&["class", "unconditional"]);
    generate(&["-c", &cond, "--class", "10"]).run.fails_with(&["class", "classes 0 to 9", "found 10"]);
}

#[test]
fn given_rows_stay_as_they_are() {
    let (tiny, given) = (tiny(), argument("tiny/images_u8.npy"));
    let input = images::read(&[&given], None, 3).unwrap();
    let count = input.dim().0;
    let complete = |rows: &str, more: &[&str]| {
        generate(&[&["-c", &tiny, "--complete", &given, "--keep-rows", rows], more].concat()).succeeds()
    };
    let all = complete("8", &[]);
    assert_eq!(all.bytes(), input);
    assert_eq!(all.samples(), images::to_floats(input.view()));
    let some = complete("3", &["-b", "3"]);
    assert_eq!(some.bytes().slice(s![.., ..3, .., ..]), input.slice(s![.., ..3, .., ..]));
    assert_ne!(some.bytes(), input);
    assert_eq!(some.samples(), complete("3", &["--naive"]).samples());
    let count = count.to_string();
    assert_eq!(complete("0", &[]).samples(), samples(&["-c", &tiny, "-i", "8", "-n", &count]));

    // One picture is completed as often as is asked for.
    let dir = tempfile::tempdir().unwrap();
    let png = dir.path().join("one.png");
    images::write_png(&png, input.index_axis(Axis(0), 1)).unwrap();
    let png = png.display().to_string();
    let many =
        generate(&["-c", &tiny, "--complete", &png, "--keep-rows", "4", "-n", "3", "-b", "2"]).succeeds();
    let many = many.bytes();
    for image in many.outer_iter() {
        assert_eq!(image.slice(s![..4, .., ..]), input.slice(s![1, ..4, .., ..]));
    }
    assert_ne!(many.index_axis(Axis(0), 0), many.index_axis(Axis(0), 1));

    let wrong = |args: &[&str], parts: &[&str]| {
        generate(&[&["-c", &tiny, "--complete", &given], args].concat()).run.fails_with(parts);
    };
    wrong(&["--keep-rows", "9"], &["at most 8 rows"]);
    wrong(&["--keep-rows", "4", "-i", "32"], &["--image-size", "8x8", "images_u8.npy", "32x32"]);
    wrong(&["--keep-rows", "4", "-n", "77"], &["--count", &count, "77"]);
}

#[test]
fn given_noise_repeats_the_reference_s_images() {
    let near = |a: &Array4<f32>, b: &Array4<f32>| {
        assert_eq!(a.dim(), b.dim());
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4)
    };
    let expected = |directory: &str| {
        let file = argument(&format!("{directory}/gen/x_gen.npy"));
        npy::read_f32(Path::new(&file)).unwrap().into_dimensionality::<Ix4>().unwrap()
    };
    let (tiny, noise) = (tiny(), argument("tiny/gen"));
    let generated = samples(&["-c", &tiny, "--noise", &noise]);
    assert!(near(&generated, &expected("tiny")));
    assert_eq!(samples(&["-c", &tiny, "--noise", &noise, "-b", "1", "--naive"]), generated);
    let (cond, noise) = (cond(), argument("cond/gen"));
    let labels = npy::read_labels(Path::new(&argument("cond/labels.npy"))).unwrap();
    for (i, label) in labels.iter().enumerate() {
        let generated = samples(&["-c", &cond, "--noise", &noise, "--class", &label.to_string()]);
        let image = |all: &Array4<f32>| all.slice(s![i..=i, .., .., ..]).to_owned();
        assert!(near(&image(&generated), &image(&expected("cond"))));
    }
    let wrong = |args: &[&str], parts: &[&str]| {
        generate(&[&["-c", &tiny, "--noise"], args].concat()).run.fails_with(parts);
    };
    wrong(&[&argument("tiny")], &["u_mix.npy", "cannot open"]);
    wrong(&[&argument("tiny/gen"), "-i", "12"], &["--image-size", "8x8", "gen"]);
    wrong(&[&argument("tiny/gen"), "-n", "1"], &["--count", "gen"]);
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, array: &Array4<f32>| images::write_npy(&dir.path().join(name), array).unwrap();
    let at = dir.path().display().to_string();
    write("u_mix.npy", &Array4::from_elem((2, 8, 8, 5), 0.5));
    write("u_logistic.npy", &Array4::from_elem((1, 8, 8, 3), 0.5));
    wrong(&[&at], &["u_logistic.npy", "[2, 8, 8, 3]", "[1, 8, 8, 3]"]);
    write("u_logistic.npy", &Array4::from_elem((2, 8, 8, 3), 1.0));
    wrong(&[&at], &["u_logistic.npy", "element", "found 1"]);
    write("u_mix.npy", &Array4::from_elem((2, 8, 8, 4), 0.5));
    wrong(&[&at], &["u_mix.npy", "[N, H, W, 5]"]);
}

#[test]
fn json_is_one_object_that_tells_everything() {
    let cond = cond();
    let args = ["-c", &cond, "-i", "4x8", "-n", "3", "-b", "2", "--json"];
    let saved = generate(&args).succeeds();
    assert_eq!(saved.run.stdout.lines().count(), 1);
    let json: Value = serde_json::from_str(&saved.run.stdout).unwrap();
    assert_eq!(json["schema"], "fast-pixel-cnn/generate/1");
    assert_eq!(json["model"]["nr_filters"], 8);
    assert_eq!((&json["seed"], &json["first_index"]), (&2702.into(), &0.into()));
    assert_eq!((&json["count"], &json["interrupted"]), (&3.into(), &false.into()));
    assert_eq!(json["image_size"], serde_json::json!([4, 8]));
    assert_eq!(json["classes"], serde_json::json!([0, 1, 2]));
    assert_eq!(json["batch_seconds"].as_array().unwrap().len(), 2);
    for key in ["seconds", "images_per_second", "batch_bytes", "weight_bytes"] {
        assert!(json[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!(json["device"].as_str().unwrap().starts_with("cpu ("));
    let files = json["files"].as_array().unwrap();
    assert_eq!(files.len(), 5);
    assert!(files.iter().all(|file| Path::new(file.as_str().unwrap()).is_file()));
}

#[test]
fn wrong_flags_are_one_line_of_error_and_status_2() {
    let tiny = tiny();
    let cases: [(&[&str], &str); 17] = [
        (&["-b", "0"], "--batch-size: "),
        (&["-n", "0"], "--count: "),
        (&["-i", "0"], "--image-size: "),
        (&["-i", "6"], "multiples of 4"),
        (&["-i", "8x10"], "found 8x10"),
        (&["-i", "4294967292"], "memory"),
        (&["-n", "4000000000"], "memory"),
        (&["--first-index", "4294967290"], "2^32"),
        (&["--first-index", "18446744073709551615"], "2^32"),
        (&["--threads", "0"], "--threads: expected 1 to 1024"),
        (&["--device", "tpu"], "auto, cpu, cuda or cuda:N"),
        (&["--device", "cuda:99"], "cuda:99: cannot"),
        (&["--class", "0"], "--class: the model is unconditional"),
        (&["--complete", "/nonexistent.png", "--keep-rows", "1"], "/nonexistent.png"),
        (&["--complete", &tiny, "--keep-rows", "1"], "params.ckpt"),
        (&["--noise", "/nonexistent"], "/nonexistent: cannot open"),
        (&["-c", "/nonexistent"], "/nonexistent"),
    ];
    for (args, part) in cases {
        let model: &[&str] = if args[0] == "-c" { &[] } else { &["-c", &tiny] };
        let saved = generate(&[model, args].concat());
        saved.run.fails_with(&[part]);
        assert_eq!(fs::read_dir(saved.dir.path()).unwrap().count(), 0, "{args:?} left something behind");
    }
    // These are refused by the parser of flags, which adds how to get help.
    let usage: [&[&str]; 11] = [
        &["-b", "-1"],
        &["-i", "8x"],
        &["-i", "8x8x8"],
        &["-s", "x"],
        &["--class", "one"],
        &["--format", "gif"],
        &["--keep-rows", "3"],
        &["--complete", "a.png"],
        &["--noise", "dir", "--seed", "1"],
        &["--nonsense"],
        &["stray"],
    ];
    for args in usage {
        let run = generate(args).run;
        let errors = run.stderr.lines().filter(|line| line.starts_with("error:")).count();
        assert_eq!((run.code, errors), (Some(2), 1), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn an_unusable_save_directory_is_refused_before_anything_is_generated() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("file"), "").unwrap();
    fs::create_dir_all(at("taken/samples.npy")).unwrap();
    // Hours of work, were it begun.
    let run = |save: &str| run::run("generate", &["-n", "10000", "--naive", "-v", save]);
    run(&at("file")).fails_with(&["file: cannot create"]);
    run(&at("file/below")).fails_with(&["below: cannot create"]);
    run(&at("taken")).fails_with(&["samples.npy: a directory"]);
    assert_eq!(fs::read_dir(at("taken")).unwrap().count(), 1);
}

#[test]
fn nobody_has_to_read_the_output() {
    let (dir, tiny) = (tempfile::tempdir().unwrap(), tiny());
    let mut command = Command::cargo_bin("generate").unwrap();
    command.args(["-c", &tiny, "-i", "8", "-b", "1"]).current_dir(dir.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    // The default directory.
    assert!(dir.path().join("out/samples.png").is_file());
}

/// Starts a long run, and waits until it heeds Ctrl-C.
#[cfg(unix)]
fn start(out: &Path, args: &[&str]) -> std::process::Child {
    let mut command = Command::cargo_bin("generate").unwrap();
    command.args(args).arg("-v").arg(out);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !out.exists() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    // The directory is made just before the handler is set.
    std::thread::sleep(Duration::from_millis(300));
    child
}

#[cfg(unix)]
fn interrupt(child: &std::process::Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_holds_the_packed_weights_once_and_the_batch() {
    use fast_pixel_cnn::{Nonlinearity, PixelCnnPp, Weights};

    let nonlinearity = Nonlinearity::ConcatElu;
    let config = PixelCnnPp { resnets: 1, filters: 64, mixtures: 10, channels: 3, classes: 0, nonlinearity };
    let place = tempfile::tempdir().unwrap();
    let model = place.path().join("model");
    Weights::synthetic(config, 1).save(&model).unwrap();
    // Cached takes memory for the rows that are read, naive for all rows.
    for (method, least) in [
        (&["-b", "4", "-i", "4x512"][..], 60e6),
        (&["-b", "16", "-n", "17", "-i", "4x128", "--threads", "1"], 60e6),
        (&["-b", "64", "-i", "8", "--naive"], 60e6),
        // Nothing but the weights.
        (&["-b", "1", "-i", "4"], 0.0),
    ] {
        let run = generate(&[&["-c", model.to_str().unwrap(), "--json"], method].concat()).succeeds().run;
        let json: Value = serde_json::from_str(&run.stdout).unwrap();
        let keys = ["weight_bytes", "batch_bytes", "peak_resident_bytes"];
        let [weights, batch, peak] = keys.map(|key| json[key].as_f64().unwrap());
        assert!(batch > least, "{method:?}: {batch}");
        // A process has code and stacks too, and holds a few layers unpacked while it packs them.
        let (counted, process) = (weights + batch, 12e6);
        let difference = (peak - counted).abs();
        assert!(difference <= 0.1 * counted + process, "{method:?}: {weights} + {batch}, {peak}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_writes_the_batches_that_are_finished() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let child = start(&out, &["-n", "50000", "-b", "2", "--json"]);
    std::thread::sleep(Duration::from_millis(1500));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["interrupted"], true);
    let count = json["count"].as_u64().unwrap() as usize;
    assert!((1..50_000).contains(&count) && count.is_multiple_of(2), "{count}");
    assert_eq!(stderr, format!("warning: interrupted: {count} of 50000 images were finished\n"));
    let images = images::read(&[out.join("images.npy")], None, 3).unwrap();
    assert_eq!(images.dim().0, count);
    assert_eq!(npy::read_labels(&out.join("labels.npy")).unwrap().len(), count);
    let first = npy::read_f32(&out.join("samples.npy")).unwrap();
    let alone = samples(&["-n", "1"]);
    assert_eq!(first.index_axis(Axis(0), 0), alone.index_axis(Axis(0), 0).into_dyn());
}

#[cfg(unix)]
#[test]
fn a_second_ctrl_c_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // A row takes seconds, so the first one is not heeded soon.
    let child = start(&out, &["--naive", "-b", "64", "-i", "64"]);
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(200));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0));
    assert!(output.stderr.is_empty(), "it ended in an orderly way: {output:?}");
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".generate.json"], "the claim, which the next run takes over");
}
