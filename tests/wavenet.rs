//! WaveNets against the reference's numbers: logits and nats of given sounds, and sounds from given random numbers.

#[path = "common/models.rs"]
mod models;
#[path = "common/sounds.rs"]
mod sounds;

use std::path::Path;

use fast_pixel_cnn::cpu::CpuEngine;
use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise};
use fast_pixel_cnn::heads::{mu_law, symbol};
use fast_pixel_cnn::media::npy;
use fast_pixel_cnn::media::sounds::read;
use fast_pixel_cnn::{ModelConfig, Run, WaveNet, Weights};
use models::golden;
use ndarray::{Array3, Array4, Axis, s};
use sounds::{SOUNDS, amplitudes, checkpoint, classes, codes, doubles, logits, values};

fn open(directory: &str) -> (CpuEngine, WaveNet) {
    let weights = Weights::load(checkpoint(directory)).unwrap();
    assert!(weights.warnings().is_empty(), "{:?}", weights.warnings());
    let Some(ModelConfig::WaveNet(config)) = weights.config() else { panic!("{:?}", weights.config()) };
    (CpuEngine::new(&weights, &Default::default()).unwrap(), config.clone())
}

/// Logits of an engine less the axis of columns, of which sounds have one.
fn column(logits: Array4<f32>) -> Array3<f32> {
    logits.remove_axis(Axis(2))
}

fn largest(a: ndarray::ArrayView3<f32>, b: ndarray::ArrayView3<f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    off.fold(0.0, |most, off| if off.is_nan() || off > most { off } else { most })
}

#[test]
fn logits_and_nats_of_given_sounds_are_the_reference_s() {
    for directory in SOUNDS {
        let (mut engine, config) = open(directory);
        let codes = codes(&format!("{directory}/codes.npy"));
        let mut images = values(&codes, config.quantization_channels);
        if config.scalar_input {
            // The reference reads the sound itself, of which the symbols are the nearest.
            images.assign(&amplitudes(&format!("{directory}/waveform.npy"), config.quantization_channels));
        }
        let labels = classes(directory);
        let all = column(engine.logits(images.view(), labels.as_deref()).unwrap());

        // The first logits are of the sample behind one receptive field, the last of one behind the sound.
        let expected = logits(&format!("{directory}/logits.npy"));
        let (first, count) = (config.receptive_field(), expected.dim().1 - 1);
        assert_eq!(first + count, codes.dim().1, "{directory}");
        let found = all.slice(s![.., first.., ..]);
        let off = largest(found, expected.slice(s![.., ..count, ..]));
        println!("{directory}: logits within {off:e}");
        assert!(off <= 1e-4, "{directory}: {off:e}");

        let expected = doubles(&format!("{directory}/nats.npy"));
        let all = all.insert_axis(Axis(2));
        let behind = s![.., first.., .., ..];
        let found = config.head().nats(all.slice(behind), images.slice(behind));
        for (found, expected) in found.unwrap().iter().zip(&expected) {
            let off = ((found - expected) / expected).abs();
            assert!(off <= 1e-5, "{directory}: {found} for {expected}");
        }

        // These begin with the first sample in the place of what comes before a sound.
        let zero = format!("{directory}/logits_from_zero_queues.npy");
        if golden(&zero).exists() {
            let expected = logits(&zero);
            let rows = images.slice(s![.., 1..expected.dim().1 + 1, .., ..]);
            let start = images.slice(s![.., 0, 0, ..]);
            let batch = Batch { start: Some(start), ..Batch::teacher_forced(rows, labels.as_deref()) };
            let found = column(engine.make(&batch, &|_| true).unwrap().logits.unwrap());
            let off = largest(found.view(), expected.view());
            println!("{directory}: logits from zero queues within {off:e}");
            assert!(off <= 1e-4, "{directory}: {off:e}");
        }
    }
}

#[test]
fn sounds_from_the_reference_s_random_numbers_are_its_sounds() {
    for directory in ["wavenet_tiny", "wavenet_nobias", "wavenet_gc"] {
        let (mut engine, config) = open(directory);
        let expected = codes(&format!("{directory}/gen/codes.npy"));
        let met = logits(&format!("{directory}/gen/logits.npy"));
        let (size, length) = expected.dim();
        let noise = doubles(&format!("{directory}/gen/u.npy")).into_iter().map(|u| u as f32).collect();
        let noise = Array4::from_shape_vec((size, length, 1, 1), noise).unwrap();
        let labels = classes(directory);
        for method in [Method::Cached, Method::Naive] {
            let batch = Batch {
                labels: labels.as_deref(),
                noise: Noise::Given(noise.view()),
                method,
                keep_logits: true,
                ..Batch::new(size, length, 1)
            };
            let output = engine.make(&batch, &|_| true).unwrap();
            assert_eq!(output.images, values(&expected, config.quantization_channels), "{directory}");
            let off = largest(column(output.logits.unwrap()).view(), met.view());
            println!("{directory}, {method:?}: logits within {off:e}");
            assert!(off <= 1e-4, "{directory}: {off:e}");
        }
    }
}

#[test]
fn the_bundled_model_finds_words_that_it_never_heard_as_likely_as_the_reference_does() {
    let weights = Weights::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/spoken-digits")).unwrap();
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
