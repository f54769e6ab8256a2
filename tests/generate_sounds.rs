//! The program `generate` with a WaveNet, as a user runs it.

#[path = "common/models.rs"]
mod models;
#[path = "common/poison.rs"]
mod poison;
#[path = "common/run.rs"]
mod run;
#[path = "common/sounds.rs"]
mod sounds;

use std::fs;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::Weights;
use fast_pixel_cnn::heads::mu_law;
use fast_pixel_cnn::media::npy;
use fast_pixel_cnn::media::sounds::{Encoding, read, write_wav};
use models::{argument, golden, tiny};
use ndarray::{Array2, ArrayView, Axis, Dimension, Ix2, s};
use run::Run;
use serde_json::Value;
use sounds::{classes, codes};
use tempfile::TempDir;

/// A run of the program and the directory it saved to.
struct Saved {
    run: Run,
    dir: TempDir,
}

/// Runs the program with a save directory of its own.
fn generate(args: &[&str]) -> Saved {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out").display().to_string();
    let run = run::run("generate", &[args, &["--save-dir", &out]].concat());
    Saved { run, dir }
}

/// The symbols of a run that must succeed.
fn codes_of(args: &[&str]) -> Array2<i32> {
    generate(args).succeeds().codes()
}

impl Saved {
    fn succeeds(self) -> Saved {
        Saved { run: self.run.succeeds(), ..self }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    fn codes(&self) -> Array2<i32> {
        npy::read::<i32>(&self.path("codes.npy")).unwrap().into_dimensionality::<Ix2>().unwrap()
    }

    fn waveform(&self) -> Array2<f32> {
        npy::read_f32(&self.path("waveform.npy")).unwrap().into_dimensionality::<Ix2>().unwrap()
    }

    fn files(&self) -> Vec<String> {
        files(&self.path(""))
    }
}

/// The files of a directory that are seen.
fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".generate.json");
    names.sort();
    names
}

/// A golden WaveNet's checkpoint.
fn model(name: &str) -> String {
    argument(&format!("wavenet_{name}/model.ckpt-72000"))
}

fn write<T: npy::Element, D: Dimension>(directory: &TempDir, name: &str, array: ArrayView<T, D>) -> String {
    let path = directory.path().join(name);
    npy::write(&path, &array).unwrap();
    path.display().to_string()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn the_reference_s_random_numbers_make_its_sounds() {
    for name in ["tiny", "nobias", "gc"] {
        let directory = format!("wavenet_{name}");
        let labels = classes(&directory).map(|labels| labels[0].to_string());
        let class: Vec<&str> = labels.iter().flat_map(|label| ["--class", label.as_str()]).collect();
        let (model, noise) = (model(name), argument(&format!("{directory}/gen")));
        let file = argument(&format!("{directory}/gen/u.npy"));
        let expected = codes(&format!("{directory}/gen/codes.npy"));
        let heard = npy::read_f32(&golden(&format!("{directory}/gen/waveform.npy"))).unwrap();
        let heard = heard.into_dimensionality::<Ix2>().unwrap();
        for other in
            [&["--noise", &noise][..], &["--noise", &file, "--naive"], &["--noise", &noise, "-b", "1"]]
        {
            let saved = generate(&[&["-c", &model], other, &class].concat()).succeeds();
            assert_eq!(saved.codes(), expected, "{name} {other:?}");
            let off = (&saved.waveform() - &heard).mapv(f32::abs).fold(0.0, |a: f32, &b| a.max(b));
            println!("{name} {other:?}: waveform within {off:e}");
            assert!(off <= 1e-6, "{name}: {off:e}");
        }
    }
}

#[test]
fn a_sound_is_the_same_however_a_run_is_split() {
    let gc = model("gc");
    let base = ["-c", &gc, "--length", "60", "-n", "5", "--seed", "7"];
    let whole = codes_of(&base);
    assert_eq!(whole.dim(), (5, 60));
    for other in [&["-b", "2"][..], &["-b", "1", "--threads", "1"], &["--naive"], &["--device", "cpu"]] {
        assert_eq!(codes_of(&[&base, other].concat()), whole, "{other:?}");
    }
    let tail = codes_of(&["-c", &gc, "--length", "60", "-n", "2", "--seed", "7", "--first-index", "3"]);
    assert_eq!(tail, whole.slice(s![3.., ..]));
    // A longer sound begins as the shorter one.
    let longer = codes_of(&["-c", &gc, "--length", "70", "-n", "5", "--seed", "7"]);
    assert_eq!(longer.slice(s![.., ..60]), whole);
    let other = codes_of(&["-c", &gc, "--length", "60", "-n", "5", "--seed", "8"]);
    assert!(other.outer_iter().zip(whole.outer_iter()).all(|(a, b)| a != b));
    let cold = codes_of(&[&base[..], &["--temperature", "0.5"]].concat());
    assert_ne!(cold, whole);
}

#[test]
fn files_hold_one_sound_in_three_ways() {
    let gc = model("gc");
    let saved =
        generate(&["-c", &gc, "--class", "all", "--seconds", "0.01", "--first-index", "3"]).succeeds();
    assert_eq!(saved.files(), ["codes.npy", "labels.npy", "run.json", "sounds", "waveform.npy"]);
    // A sound for each class, of 16,000 samples in a second.
    let (codes, waveform) = (saved.codes(), saved.waveform());
    assert_eq!((codes.dim(), waveform.dim()), ((5, 160), (5, 160)));
    assert_eq!(npy::read_labels(&saved.path("labels.npy")).unwrap(), [3, 4, 0, 1, 2]);
    assert_eq!(codes.mapv(|code| mu_law::decode(code as usize, 64)), waveform);
    assert_eq!(files(&saved.path("sounds")), (3..8).map(|i| format!("{i:06}.wav")).collect::<Vec<_>>());
    for (i, amplitudes) in waveform.outer_iter().enumerate() {
        let sound = read(&saved.path(&format!("sounds/{:06}.wav", i + 3)), None).unwrap();
        assert_eq!(sound.rate, 16_000);
        let stored = amplitudes.mapv(|a| (a * 32768.0).round().clamp(-32768.0, 32767.0) / 32768.0);
        assert_eq!(sound.samples, stored.to_vec());
    }
    let stdout = &saved.run.stdout;
    assert!(stdout.starts_with("5 sounds of 0.01 s in "), "{stdout}");
    assert_eq!(stdout.lines().count(), 6, "{stdout}");

    // One second of one sound is the default; floats are as they are; a picture is drawn of either kind.
    let dir = tempfile::tempdir().unwrap();
    let [svg, png] = ["a.svg", "a.png"].map(|name| text(&dir.path().join(name)));
    let tiny = model("tiny");
    let float = generate(&["-c", &tiny, "--format", "wav-f32,npy", "--plot", &svg]).succeeds();
    let sound = read(&float.path("sounds/000000.wav"), None).unwrap();
    assert_eq!((sound.samples.len(), float.codes().dim()), (16_000, (1, 16_000)));
    assert_eq!(sound.samples, float.waveform().row(0).to_vec());
    assert!(fs::read_to_string(&svg).unwrap().contains("sound 0"));
    let alone = generate(&["-c", &tiny, "--length", "9", "--format", "wav", "--plot", &png]).succeeds();
    assert_eq!(alone.files(), ["run.json", "sounds"]);
    assert!(fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    let arrays = generate(&["-c", &tiny, "--length", "9", "--format", "npy"]).succeeds();
    assert_eq!(arrays.files(), ["codes.npy", "run.json", "waveform.npy"]);
}

#[test]
fn json_tells_of_sounds() {
    let gc = model("gc");
    let args = ["-c", &gc, "--class", "4", "-n", "3", "-b", "2", "--length", "80", "--json"];
    let saved = generate(&args).succeeds();
    let told: Value = serde_json::from_str(&saved.run.stdout).unwrap();
    assert_eq!(told["schema"], "fast-pixel-cnn/generate/1");
    assert_eq!((&told["sample_rate"], &told["length"]), (&16_000.into(), &80.into()));
    assert_eq!((&told["sound_seconds"], &told["count"]), (&0.005.into(), &3.into()));
    assert_eq!((&told["classes"], &told["batch_size"]), (&vec![4, 4, 4].into(), &2.into()));
    assert_eq!((&told["model"]["model"], told.get("image_size")), (&"wavenet".into(), None));
    let [seconds, speed, factor] =
        ["seconds", "samples_per_second", "realtime_factor"].map(|key| told[key].as_f64().unwrap());
    assert!((speed * seconds / 240.0 - 1.0).abs() < 1e-9 && factor > 0.0, "{told}");
    assert_eq!(told["files"].as_array().unwrap().len(), 5);
}

#[test]
fn a_sound_to_go_on_from_is_held_and_heard() {
    let dir = tempfile::tempdir().unwrap();
    let wav = dir.path().join("begin.wav");
    for (name, symbols) in [("tiny", 32), ("scalar", 64)] {
        let model = model(name);
        let first =
            generate(&["-c", &model, "--length", "90", "-s", "3", "--format", "npy,wav-f32"]).succeeds();
        let (codes, waveform) = (first.codes(), first.waveform());
        write_wav(&wav, &waveform.row(0).to_vec()[..40], 16_000, Encoding::Float32).unwrap();
        let wav = text(&wav);
        let primed =
            |more: &[&str]| codes_of(&[&["-c", &model, "--prime", &wav, "--length", "50"], more].concat());
        let three = primed(&["-n", "3", "-s", "5"]);
        assert_eq!(three.dim(), (3, 90));
        for sound in three.outer_iter() {
            assert_eq!(sound.slice(s![..40]), codes.slice(s![0, ..40]), "{name}");
        }
        assert_ne!(three.row(0), three.row(1));
        assert_eq!(primed(&["-n", "3", "-s", "5", "-b", "2", "--naive"]), three, "{name}");

        // Given numbers are of what is made. The start is the middle symbol in a run that has none: a sound that
        // begins with it is one that is not primed.
        let noise = Array2::from_shape_fn((2, 50), |(n, t)| ((n * 50 + t) as f32 * 0.618).fract());
        let noise = write(&dir, "u.npy", noise.view());
        let plain = codes_of(&["-c", &model, "--noise", &noise]);
        let middle = text(&dir.path().join("middle.wav"));
        let amplitude = mu_law::decode(symbols / 2, symbols);
        write_wav(Path::new(&middle), &[amplitude], 16_000, Encoding::Float32).unwrap();
        let behind = codes_of(&["-c", &model, "--noise", &noise, "--prime", &middle]);
        assert_eq!(behind.dim(), (2, 51));
        assert_eq!(behind.slice(s![.., 1..]), plain, "{name}");
        assert!(behind.column(0).iter().all(|code| *code as usize == symbols / 2));
        let other = text(&dir.path().join("other.wav"));
        write_wav(Path::new(&other), &[0.9], 16_000, Encoding::Float32).unwrap();
        assert_ne!(codes_of(&["-c", &model, "--noise", &noise, "--prime", &other]).slice(s![.., 1..]), plain);
    }
    // What the rest of a sound was drawn from goes on as it went.
    let tiny = model("tiny");
    let expected = codes("wavenet_tiny/gen/codes.npy");
    let heard = expected.row(0).mapv(|code| mu_law::decode(code as usize, 32));
    let u = sounds::doubles("wavenet_tiny/gen/u.npy");
    let rest = Array2::from_shape_vec((1, expected.dim().1 - 30), u[30..expected.dim().1].to_vec()).unwrap();
    let rest = write(&dir, "rest.npy", rest.view());
    // The middle symbol is what the reference began with.
    let begin = [&[mu_law::decode(16, 32)], &heard.to_vec()[..30]].concat();
    write_wav(&wav, &begin, 16_000, Encoding::Float32).unwrap();
    let whole = codes_of(&["-c", &tiny, "--prime", &text(&wav), "--noise", &rest]);
    assert_eq!(whole.slice(s![0, 1..]), expected.row(0));

    // Another rate, two channels, 8 bits: said, or simply read.
    write_wav(&wav, &[0.25; 400], 8000, Encoding::Pcm16).unwrap();
    let saved = generate(&["-c", &tiny, "--prime", &text(&wav), "--length", "5"]).succeeds();
    assert_eq!(saved.codes().dim(), (1, 805));
    assert_eq!(saved.codes()[[0, 400]] as usize, mu_law::encode(0.25, 32));
    assert!(saved.run.stderr.contains("resampled from 8000 to 16000"), "{}", saved.run.stderr);
    assert_eq!(saved.run.stderr.lines().count(), 1);
}

/// A WAV file of PCM.
fn wav(channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
    let block = channels * bits / 8;
    let mut bytes =
        [b"RIFF", &(36 + data.len() as u32).to_le_bytes()[..], b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
    for half in [1, channels] {
        bytes.extend(half.to_le_bytes());
    }
    for word in [16_000, 16_000 * u32::from(block)] {
        bytes.extend(word.to_le_bytes());
    }
    for half in [block, bits] {
        bytes.extend(half.to_le_bytes());
    }
    [&bytes[..], b"data", &(data.len() as u32).to_le_bytes(), data].concat()
}

#[test]
fn wav_files_of_other_kinds_are_read_and_broken_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = model("tiny");
    let primed = |bytes: &[u8]| {
        let file = dir.path().join("prime.wav");
        fs::write(&file, bytes).unwrap();
        generate(&["-c", &tiny, "--prime", &text(&file), "--length", "3"])
    };
    let wide = primed(&wav(1, 24, &[0, 0, 0, 0, 0, 64, 0, 0, 192])).succeeds();
    let expected = [0.0, 0.5, -0.5].map(|a| mu_law::encode(a, 32) as i32);
    assert_eq!(wide.codes().slice(s![0, ..3]).to_vec(), expected);

    let whole = wav(1, 16, &[0; 8]);
    for (bytes, parts) in [
        (&b""[..], &["prime.wav", "an empty file"][..]),
        (b"RIFF", &["prime.wav", "a WAV file"]),
        (b"hello, this is no sound at all", &["prime.wav", "a WAV file"]),
        (&whole[..40], &["prime.wav"]),
        (&whole[..whole.len() - 3], &["prime.wav", "8 bytes"]),
        (&wav(1, 16, &[]), &["prime.wav", "none"]),
        (&wav(0, 16, &[0; 8]), &["prime.wav", "channel"]),
        (&wav(1, 12, &[0; 8]), &["prime.wav", "12 bits"]),
        (&wav(1, 8, &[128, 192, 64]), &["prime.wav", "8 bits", "one channel of PCM"]),
        (&wav(2, 16, &[0; 8]), &["prime.wav", "2 channels"]),
    ] {
        let refused = primed(bytes);
        refused.run.fails_with(parts);
        assert!(!refused.path("").exists(), "{parts:?}");
    }
    for path in ["/nonexistent.wav", "/", "/dev/null"] {
        generate(&["-c", &tiny, "--prime", path]).run.fails_with(&[path]);
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let (sound, gc, image) = (model("tiny"), model("gc"), tiny());
    let dir = tempfile::tempdir().unwrap();
    let half = Array2::from_elem((2, 30), 0.5_f32);
    let noise = write(&dir, "u.npy", half.view());
    let flat = write(&dir, "flat.npy", half.row(0));
    let mut wrong = half.clone();
    wrong[[1, 7]] = 1.5;
    let wrong = write(&dir, "wrong.npy", wrong.view());
    let empty = write(&dir, "empty.npy", half.slice(s![..0, ..]));
    let whole = write(&dir, "whole.npy", half.mapv(|_| 1_i32).view());
    let [before, slow] = ["before.wav", "slow.json"].map(|name| text(&dir.path().join(name)));
    write_wav(Path::new(&before), &[0.0; 5], 16_000, Encoding::Pcm16).unwrap();
    let params = fs::read_to_string(golden("wavenet_tiny/wavenet_params.json")).unwrap();
    fs::write(&slow, params.replace("16000", "100")).unwrap();
    for (args, parts) in [
        (&["--image-size", "8"][..], &["--image-size", "only for images", "makes sounds"][..]),
        (&["--complete", "a.png", "--keep-rows", "1"], &["--complete", "only for images"]),
        (&["--animate", "a.gif"], &["--animate", "only for images"]),
        (&["--format", "png"], &["--format", "png is only for images"]),
        (&["--format", "wav,images"], &["--format", "images is only for images"]),
        (&["--format", "wav,wav-f32"], &["--format", "choose one"]),
        (&["--seconds", "1", "--length", "2"], &["--seconds", "--length"]),
        (&["--seconds", "0"], &["--seconds", "above 0"]),
        (&["--seconds", "nan"], &["--seconds", "above 0"]),
        (&["--seconds", "1e300"], &["--seconds: expected a sound of 1 to ", "samples", "found 1e300"]),
        (&["--length", "0"], &["--length: expected a sound of 1 to ", "found 0"]),
        (&["--length", "4000000000"], &["--length", "found 4000000000"]),
        (&["--length", "1073741791", "--prime", &before], &["--prime", "found 1073741795 with"]),
        (&["--length", "1000000000", "-n", "1000"], &["--count", "sounds of 1000000000 samples, not 1000"]),
        (&["-n", "0"], &["--count: expected at least 1, found 0"]),
        (&["-b", "0"], &["--batch-size: expected at least 1, found 0"]),
        (&["--first-index", "4294967296"], &["--first-index", "indices below 2^32"]),
        (&["--class", "1"], &["--class", "unconditional"]),
        (&["--plot", "a.pdf"], &["a.pdf", ".svg or .png"]),
        (&["--plot", "a.svg", "-n", "51"], &["--plot", "50 sounds at most"]),
        (&["--plot", "/nonexistent/a.svg"], &["/nonexistent/a.svg"]),
        (&["--noise", "/nonexistent"], &["/nonexistent"]),
        (&["--noise", "/"], &["/u.npy"]),
        (&["--noise", &flat], &["flat.npy", "[N, T]", "[30]"]),
        (&["--noise", &empty], &["empty.npy", "[N, T]"]),
        (&["--noise", &whole], &["whole.npy", "float32 or float64, found type '<i4'"]),
        (&["--noise", &wrong], &["wrong.npy", "(1, 7)", "from 0 to 1", "1.5"]),
        (&["--noise", &noise, "--length", "31"], &["--length", "30 samples as in", "u.npy", "31"]),
        (&["--noise", &noise, "--seconds", "1"], &["--seconds", "30 samples as in", "16000"]),
        (&["--noise", &noise, "-n", "3"], &["--count", "2 as in", "3"]),
        (&["--params", &slow], &["the model's sample rate: expected 1000 to 768000", "found 100"]),
    ] {
        let refused = generate(&[&["-c", &sound, "--threads", "1"], args].concat());
        refused.run.fails_with(parts);
        assert!(!refused.path("").exists(), "{args:?}");
        // It is told of images only where they are what is refused.
        let of_images = parts.iter().any(|part| part.contains("image"));
        assert_eq!(refused.run.stderr.contains("image"), of_images, "{}", refused.run.stderr);
    }
    for (args, parts) in [
        (&["--seconds", "1"][..], &["--seconds", "only for sounds", "makes images"][..]),
        (&["--length", "1"], &["--length", "only for sounds"]),
        (&["--prime", "a.wav"], &["--prime", "only for sounds"]),
        (&["--plot", "a.svg"], &["--plot", "only for sounds"]),
        (&["--format", "wav"], &["--format", "wav is only for sounds"]),
        (&["--format", "png,wav-f32"], &["--format", "wav-f32 is only for sounds"]),
    ] {
        generate(&[&["-c", &image], args].concat()).run.fails_with(parts);
    }
    generate(&["-c", &gc, "--class", "5"]).run.fails_with(&["--class", "classes 0 to 4", "found 5"]);
    generate(&["-c", &gc, "--class", "x"]).run.fails_with(&["--class"]);
}

#[test]
fn logits_that_are_not_finite_are_named_by_sound_and_sample() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("poisoned");
    let place = poison::poison(&Weights::load(model("tiny")).unwrap(), &place, "post_1/W", None);
    let refused = generate(&["-c", &text(&place), "--length", "9", "-n", "2"]).run;
    refused.fails_with(&["the logits of sound 0 at sample 0 are not finite: the weights are unusable"]);
}

#[test]
fn a_save_directory_holds_one_run_of_sounds() {
    let dir = tempfile::tempdir().unwrap();
    let (sound, image) = (model("tiny"), tiny());
    let out = text(dir.path());
    let run = |model: &str, more: &[&str]| run::run("generate", &[&["-c", model, "-v", &out], more].concat());
    let sounds = || files(&dir.path().join("sounds"));
    let short = ["--length", "20", "-b", "2"];
    run(&sound, &[&short[..], &["-n", "3"]].concat()).succeeds();
    let first = fs::read(dir.path().join("sounds/000000.wav")).unwrap();
    // Of the same series: they are filled up.
    run(&sound, &[&short[..], &["-n", "2", "--first-index", "3"]].concat()).succeeds();
    assert_eq!(sounds(), (0..5).map(|i| format!("{i:06}.wav")).collect::<Vec<_>>());
    // Of another: all of them make room.
    run(&sound, &[&short[..], &["-n", "1", "-s", "1"]].concat()).succeeds();
    assert_eq!(sounds(), ["000000.wav"]);
    assert_ne!(fs::read(dir.path().join("sounds/000000.wav")).unwrap(), first);
    // But not where a file is the user's.
    fs::write(dir.path().join("sounds/mine.wav"), "mine").unwrap();
    let other = [&short[..], &["-s", "2"]].concat();
    run(&sound, &other).fails_with(&["sounds", "of another run"]);
    run(&image, &["-i", "4", "-b", "1"]).fails_with(&["sounds", "of another run"]);
    fs::remove_file(dir.path().join("sounds/mine.wav")).unwrap();
    run(&image, &["-i", "4", "-b", "1"]).succeeds();
    assert_eq!(files(dir.path()), ["images.npy", "run.json", "samples.npy", "samples.png"]);
    run(&sound, &other).succeeds();
    assert_eq!(files(dir.path()), ["codes.npy", "run.json", "sounds", "waveform.npy"]);
}

#[test]
fn the_bundled_model_says_digits() {
    let model = text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/spoken-digits"));
    let saved = generate(&["-c", &model, "--class", "all", "--seconds", "0.3"]).succeeds();
    let waveform = saved.waveform();
    assert_eq!(waveform.dim(), (10, 2400));
    // Words, not silence and not noise: loud somewhere, and not from one sample to the next.
    for (digit, word) in waveform.axis_iter(Axis(0)).enumerate() {
        let power: f32 = word.iter().map(|a| a * a).sum();
        let change: f32 = word.windows(2).into_iter().map(|pair| (pair[1] - pair[0]).powi(2)).sum();
        assert!(power > 0.5 && change < power, "{digit}: {power} {change}");
    }
}
