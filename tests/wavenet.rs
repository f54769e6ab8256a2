//! WaveNets against the reference's numbers: logits and nats of given sounds, and sounds from given random numbers.

#[path = "common/models.rs"]
mod models;
#[path = "common/sounds.rs"]
mod sounds;

use fast_pixel_cnn::cpu::CpuEngine;
use fast_pixel_cnn::engine::{Batch, Engine, Method};
use fast_pixel_cnn::heads::{mu_law, symbol};
use fast_pixel_cnn::media::npy;
use fast_pixel_cnn::media::sounds::read;
use fast_pixel_cnn::{Run, WaveNet, Weights};
use models::{bundled, golden};
use ndarray::s;
use sounds::*;

fn open(directory: &str) -> (CpuEngine, WaveNet) {
    let (weights, config) = load(directory);
    (CpuEngine::new(&weights, &Default::default()).unwrap(), config)
}

#[test]
fn logits_and_nats_of_given_sounds_are_the_reference_s() {
    for directory in SOUNDS {
        let (mut engine, config) = open(directory);
        for method in [Method::Cached, Method::Naive] {
            score_as_the_reference(&mut engine, &config, directory, method);
            score_from_zero_queues(&mut engine, &config, directory, method);
        }
    }
}

#[test]
fn sounds_from_the_reference_s_random_numbers_are_its_sounds() {
    for directory in GENERATED {
        let (mut engine, config) = open(directory);
        for method in [Method::Cached, Method::Naive] {
            generate_as_the_reference(&mut engine, &config, directory, method, None);
        }
    }
}

#[test]
fn the_bundled_model_finds_words_that_it_never_heard_as_likely_as_the_reference_does() {
    let weights = Weights::load(bundled("spoken-digits")).unwrap();
    assert!(weights.warnings().is_empty(), "{:?}", weights.warnings());
    let mut engine = CpuEngine::new(&weights, &Default::default()).unwrap();
    let values = values(&codes("spoken_digits/codes.npy"), 256);
    let labels = npy::read_labels(&golden("spoken_digits/labels.npy")).unwrap();
    let (start, rows) = (values.slice(s![.., 0, 0, ..]), values.slice(s![.., 1.., .., ..]));
    let batch = Batch { start: Some(start), ..Batch::teacher_forced(rows, Some(&labels)) };
    let logits = engine.make(&batch, &|_| true).unwrap().logits.unwrap();
    let found = engine.graph().head.nats(logits.view(), rows).unwrap();
    for (found, expected) in found.iter().zip(doubles("spoken_digits/nats.npy")) {
        let off = ((found - expected) / expected).abs();
        println!("{found} for {expected}: {off:e}");
        assert!(off <= 1e-5, "{found} for {expected}");
    }
}

#[test]
fn a_sound_is_written_with_one_call() {
    let weights = Weights::load(checkpoint("wavenet_gc")).unwrap();
    let rate = weights.config().unwrap().sample_rate().unwrap();
    let mut engine = CpuEngine::new(&weights, &Default::default()).unwrap();
    let made = Run::new(2).size(50, 1).class(3).seed(1).generate(&mut engine).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let wav = directory.path().join("sound.wav");
    made.save_wav(1, rate, &wav).unwrap();
    let sound = read(&wav, None).unwrap();
    let stored = made.waveform(1).unwrap();
    assert_eq!((sound.rate, sound.samples.len(), stored.len()), (16_000, 50, 50));
    assert!(sound.samples.iter().zip(&stored).all(|(a, b)| (a - b).abs() <= 1.0 / 32768.0));
    assert_eq!(stored[7], mu_law::decode(symbol(made.images[[1, 7, 0, 0]], 64), 64));
    let refused = made.save_wav(2, rate, &wav).unwrap_err().to_string();
    assert_eq!(refused, "sound: expected one of the 2 that were kept, found 2");
}
