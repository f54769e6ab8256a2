//! The program `evaluate` on sounds, as a user runs it, on the golden data; and what it is made of on long ones.

#[path = "common/models.rs"]
mod models;
#[path = "common/run.rs"]
mod run;
#[path = "common/sounds.rs"]
mod sounds;

use std::path::Path;

use fast_pixel_cnn::cpu::CpuEngine;
use fast_pixel_cnn::engine::{Batch, Engine, Method};
use fast_pixel_cnn::evaluate::{Sounds, evaluate_sounds};
use fast_pixel_cnn::media::npy;
use fast_pixel_cnn::media::sounds::{Encoding, write_wav};
use fast_pixel_cnn::{ModelConfig, Weights};
use models::{argument, golden};
use ndarray::{Array2, Ix2, s};
use run::Run;
use serde_json::Value;
use sounds::{SOUNDS, checkpoint, classes, codes, doubles, logits, values};

/// Runs `evaluate` with the model of a golden directory.
fn evaluate(directory: &str, more: &[&str]) -> Run {
    let weights = argument(&format!("{directory}/model.ckpt-72000"));
    run::run("evaluate", &[&["-c", &weights], more].concat())
}

fn json(run: &Run) -> Value {
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    serde_json::from_str(&run.stdout).unwrap()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn config(directory: &str) -> fast_pixel_cnn::WaveNet {
    let weights = Weights::load(checkpoint(directory)).unwrap();
    let Some(ModelConfig::WaveNet(config)) = weights.config() else { panic!("{:?}", weights.config()) };
    config.clone()
}

/// The waveforms of a golden directory as WAV files of floats, in a directory of their own.
fn waveforms(directory: &str, place: &Path) -> Vec<String> {
    let all = npy::read_f32(&golden(&format!("{directory}/waveform.npy"))).unwrap();
    let all = all.into_dimensionality::<Ix2>().unwrap();
    let write = |(i, sound): (usize, ndarray::ArrayView1<f32>)| {
        let path = place.join(format!("{i}.wav"));
        write_wav(&path, &sound.to_vec(), config(directory).sample_rate, Encoding::Float32).unwrap();
        path.to_str().unwrap().to_string()
    };
    all.rows().into_iter().enumerate().map(write).collect()
}

#[test]
fn every_golden_sound_scores_as_in_the_reference() {
    let place = tempfile::tempdir().unwrap();
    for directory in SOUNDS {
        let config = config(directory);
        let skip = config.receptive_field().to_string();
        let file = |name: &str| argument(&format!("{directory}/{name}"));
        let mut flags = vec!["--skip".into(), skip, "--json".into()];
        if config.scalar_input {
            flags.push("--sounds".into());
            flags.extend(waveforms(directory, place.path()));
        } else {
            flags.extend(["--codes".into(), file("codes.npy")]);
        }
        if config.classes > 0 {
            flags.extend(["--labels".into(), file("gc_ids.npy")]);
        }
        let with = |more: &[&str]| {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            json(&evaluate(directory, &[&flags[..], more].concat()).succeeds())
        };
        let report = with(&["--compare-logits", &file("logits.npy")]);
        assert!(report["max_logit_difference"].as_f64().unwrap() <= 1e-4, "{directory}: {report}");
        let expected = doubles(&format!("{directory}/nats.npy"));
        let nats = list(&report["nats"]);
        assert_eq!((nats.len(), report["sequences"].as_u64()), (expected.len(), Some(nats.len() as u64)));
        for (found, expected) in nats.iter().zip(&expected) {
            assert!(((found - expected) / expected).abs() <= 1e-5, "{directory}: {found} for {expected}");
        }
        let scored = codes(&format!("{directory}/codes.npy")).dim().1 - config.receptive_field();
        let bits = list(&report["bits_per_sample"]);
        let mean = report["mean_bits_per_sample"].as_f64().unwrap();
        for (bits, nats) in bits.iter().zip(&nats) {
            assert!((bits * scored as f64 * std::f64::consts::LN_2 / nats - 1.0).abs() < 1e-12);
        }
        assert!((mean / (bits.iter().sum::<f64>() / bits.len() as f64) - 1.0).abs() < 1e-12);
        if golden(&format!("{directory}/logits_from_zero_queues.npy")).exists() {
            let from = ["--compare-from", "0", "--compare-logits", &file("logits_from_zero_queues.npy")];
            let report = with(&from);
            assert!(report["max_logit_difference"].as_f64().unwrap() <= 1e-4, "{directory}: {report}");
            assert_eq!(list(&report["nats"]), nats, "{directory}");
        }
    }
}

#[test]
fn logits_at_other_positions_differ_and_that_is_status_1() {
    let (codes, logits) = (argument("wavenet_tiny/codes.npy"), argument("wavenet_tiny/logits.npy"));
    let flags = ["--codes", &codes, "--compare-logits", &logits, "--compare-from", "30"];
    let run = evaluate("wavenet_tiny", &flags);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("above the tolerance of 1e-4") && run.stdout.contains("above the tolerance"));
    let run = evaluate("wavenet_tiny", &[&flags[..], &["--tolerance", "1000"]].concat()).succeeds();
    assert!(run.stdout.contains("within the tolerance of 1e3"), "{}", run.stdout);
}

#[test]
fn long_sounds_score_in_windows_as_they_do_in_one_piece() {
    let weights = Weights::load(checkpoint("wavenet_gc")).unwrap();
    let mut engine = CpuEngine::new(&weights, &Default::default()).unwrap();
    let (head, symbols) = (weights.graph().head, weights.graph().head.logits());
    // More than two windows, whose edges lie within, and two sounds.
    let length = 9000;
    let code = |(n, t): (usize, usize)| ((t * t / 7 + 13 * n + t / 100) % symbols) as i32;
    let codes = Array2::from_shape_fn((2, length), code);
    let (sounds, labels) = (values(&codes, symbols), [1, 4]);
    let batch = Batch {
        method: Method::Cached,
        start: Some(sounds.slice(s![.., 0, 0, ..])),
        ..Batch::teacher_forced(sounds.slice(s![.., 1.., .., ..]), Some(&labels))
    };
    let logits = engine.make(&batch, &|_| true).unwrap().logits.unwrap();
    for skip in [1, 5000] {
        let task = Sounds {
            values: sounds.slice(s![.., .., 0, 0]),
            labels: Some(&labels),
            skip,
            compare: Some((logits.slice(s![.., .., 0, ..]), 0)),
        };
        let scores = evaluate_sounds(&mut engine, &task).unwrap();
        assert_eq!(scores.max_logit_difference, Some(0.0));
        let scored = s![.., skip - 1.., .., ..];
        let expected = head.nats(logits.slice(scored), sounds.slice(s![.., skip.., .., ..])).unwrap();
        for (found, expected) in scores.nats.iter().zip(&expected) {
            assert!((found / expected - 1.0).abs() < 1e-12, "{found} for {expected}");
        }
    }
}

#[test]
fn the_first_sample_is_scored_as_it_is_drawn() {
    // These were generated from the middle symbol on, and so the first logits are of the first of them.
    let directory = "wavenet_tiny";
    let (made, met) = (argument("wavenet_tiny/gen/codes.npy"), logits("wavenet_tiny/gen/logits.npy"));
    let report = json(&evaluate(directory, &["--codes", &made, "--skip", "0", "--json"]).succeeds());
    let codes = codes("wavenet_tiny/gen/codes.npy");
    for (n, found) in list(&report["nats"]).iter().enumerate() {
        let nats = |(t, code): (usize, &i32)| {
            let logits: Vec<f64> = met.slice(s![n, t, ..]).iter().map(|l| f64::from(*l)).collect();
            logits.iter().map(|l| l.exp()).sum::<f64>().ln() - logits[*code as usize]
        };
        let expected: f64 = codes.row(n).iter().enumerate().map(nats).sum();
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} for {expected}");
    }
}

#[test]
fn wav_files_of_any_length_are_the_codes_that_they_stand_for() {
    let place = tempfile::tempdir().unwrap();
    let config = config("wavenet_tiny");
    let codes = codes("wavenet_tiny/codes.npy").slice_move(s![..1, ..]);
    let amplitudes: Vec<f32> = codes
        .iter()
        .map(|&code| fast_pixel_cnn::heads::mu_law::decode(code as usize, config.quantization_channels))
        .collect();
    let wav = |name: &str, samples: &[f32]| {
        let path = place.path().join(name);
        write_wav(&path, samples, config.sample_rate, Encoding::Float32).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (whole, part) = (wav("whole.wav", &amplitudes), wav("part.wav", &amplitudes[..50]));
    let found = json(&evaluate("wavenet_tiny", &["--json", "--sounds", &whole, &part]).succeeds());
    let files = [("whole.npy", codes.view()), ("part.npy", codes.slice(s![.., ..50]))];
    let expected = files.map(|(name, codes)| {
        let path = place.path().join(name);
        npy::write(&path, &codes).unwrap();
        let run = evaluate("wavenet_tiny", &["--json", "--codes", path.to_str().unwrap()]).succeeds();
        list(&json(&run)["nats"])[0]
    });
    assert_eq!(list(&found["nats"]), expected);
    let bits = (expected[0] + expected[1]) / (119.0 + 49.0) / std::f64::consts::LN_2;
    assert!((found["mean_bits_per_sample"].as_f64().unwrap() / bits - 1.0).abs() < 1e-12);
    // The shorter one has no position 50.
    let logits = argument("wavenet_tiny/logits.npy");
    let refused = evaluate("wavenet_tiny", &["--sounds", &whole, &part, "--compare-logits", &logits]);
    refused.fails_with(&["logits.npy: shape: expected [2, M, 32] with M from 1 to 50"]);
}

#[test]
fn bad_input_is_one_line_of_error_and_status_2() {
    let tiny = |more: &[&str]| evaluate("wavenet_tiny", more);
    let (codes, logits) = (argument("wavenet_tiny/codes.npy"), argument("wavenet_tiny/logits.npy"));
    let (others, gray) = (argument("wavenet_gc/codes.npy"), argument("tiny/images_u8.npy"));
    tiny(&["--images", &gray]).fails_with(&["--images", "the model is one of sounds"]);
    tiny(&["--codes", &others]).fails_with(&["codes.npy", "sound 0", "a code from 0 to 31"]);
    tiny(&["--codes", &logits]).fails_with(&["logits.npy", "codes of shape [N, T] or [T]"]);
    tiny(&["--codes", &codes, "--skip", "120"])
        .fails_with(&["--skip: expected less than the 120 samples of a sound in ", "codes.npy, found 120"]);
    tiny(&["--codes", &codes, "--labels", &argument("wavenet_gc/gc_ids.npy")])
        .fails_with(&["--labels", "unconditional"]);
    tiny(&["--codes", &codes, "--classify"]).fails_with(&["--classify"]);
    tiny(&["--codes", &codes, "--logits-out", "x.npy"]).fails_with(&["--logits-out"]);
    tiny(&["--codes", &codes, "--compare-from", "3"]).fails_with(&["--compare-logits"]);
    let far = ["--codes", &codes, "--compare-logits", &logits, "--compare-from", "32"];
    tiny(&far).fails_with(&["logits.npy: shape: expected [2, M, 32] with M from 1 to 88"]);
    let beyond = ["--codes", &codes, "--compare-logits", &logits, "--compare-from", "120"];
    tiny(&beyond).fails_with(&["--compare-from: expected less than the 120 samples of a sound in "]);
    tiny(&["--codes", &codes, "--compare-logits", &argument("wavenet_gc/logits.npy")])
        .fails_with(&["logits.npy: shape: expected [2, M, 32]"]);
    tiny(&["--sounds", &codes]).fails_with(&["codes.npy", "WAV"]);
    tiny(&["--codes", &codes, "--sounds", &codes]).fails_with(&["--codes", "--sounds"]);
    tiny(&[]).fails_with(&["--codes"]);
    assert_eq!(classes("wavenet_gc").unwrap().len(), 1);
    let place = tempfile::tempdir().unwrap();
    let conditional = |labels: &[i64]| {
        let file = place.path().join("labels.npy");
        npy::write(&file, &ndarray::aview1(labels)).unwrap();
        evaluate("wavenet_gc", &["--codes", &others, "--labels", file.to_str().unwrap()])
    };
    evaluate("wavenet_gc", &["--codes", &others])
        .fails_with(&["--labels: the model is conditional on 5 classes: one is needed for each of 1 sounds"]);
    conditional(&[0, 1]).fails_with(&["labels.npy: expected one for each of 1 sounds, found 2 labels"]);
    conditional(&[5]).fails_with(&["labels.npy: expected classes 0 to 4, found 5"]);
    conditional(&[-1]).fails_with(&["labels.npy: element 0", "found -1"]);
    let wav = |name: &str, samples: &[f32]| {
        let path = place.path().join(name);
        write_wav(&path, samples, 16_000, Encoding::Pcm16).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (long, short) = (wav("long.wav", &[0.0; 9]), wav("short.wav", &[0.0]));
    tiny(&["--sounds", &long, &short])
        .fails_with(&["--skip: expected less than the 1 sample of a sound in ", "short.wav, found 1"]);
    let image = argument("tiny/v2/params.ckpt");
    let of_images = |more: &[&str]| run::run("evaluate", &[&["-c", &image], more].concat());
    of_images(&["--codes", &codes]).fails_with(&["--codes", "the model is one of images"]);
    of_images(&["--images", &gray, "--skip", "1"]).fails_with(&["--skip", "--images"]);
}
