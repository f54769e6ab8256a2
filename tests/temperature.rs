//! A temperature, in the library and in the program `generate`: one image whatever makes it, as at 1.

#[path = "common/golden.rs"]
#[allow(dead_code, reason = "not all of it is used here")]
mod golden;
#[path = "common/run.rs"]
#[allow(dead_code, reason = "not all of it is used here")]
mod run;

use fast_pixel_cnn::Weights;
use fast_pixel_cnn::cpu::{CpuEngine, Options};
use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise};
use fast_pixel_cnn::generate::Run;
use golden::{SMALL, bits};
use ndarray::{Array4, Axis, concatenate};
use serde_json::Value;

fn engine(threads: usize) -> CpuEngine {
    let options = Options { threads: Some(threads), ..Options::default() };
    CpuEngine::new(&Weights::synthetic(SMALL, 7), &options).unwrap()
}

fn batch(labels: &[u32], first_index: u64, temperature: f32, method: Method) -> Batch<'_> {
    Batch {
        labels: Some(labels),
        noise: Noise::Philox { seed: 2702, first_index },
        temperature,
        method,
        ..Batch::new(labels.len(), 8, 4)
    }
}

#[test]
fn an_image_is_one_array_of_bits_at_every_temperature() {
    let labels = [3, 0, 2, 1, 3];
    let generate =
        |threads: usize, batch: Batch| bits(&engine(threads).make(&batch, &|_| true).unwrap().images);
    let mut all = Vec::new();
    for temperature in [0.01, 0.7, 1.0, 3.0] {
        let cached = generate(2, batch(&labels, 10, temperature, Method::Cached));
        assert!(
            cached == generate(1, batch(&labels, 10, temperature, Method::Naive)),
            "{temperature}, naive"
        );
        assert!(
            cached == generate(3, batch(&labels, 10, temperature, Method::Cached)),
            "{temperature}, threads"
        );
        let alone = generate(2, batch(&labels[2..3], 12, temperature, Method::Cached));
        let image = cached.len() / labels.len();
        assert!(cached[2 * image..3 * image] == alone, "{temperature}, alone");
        all.push(cached);
    }
    all.dedup();
    assert_eq!(all.len(), 4, "a temperature makes no difference");
}

#[test]
fn a_run_has_the_temperature_in_all_its_batches() {
    let generate = |batch_size: usize, temperature: f32| {
        let run = Run::new(5).batch_size(batch_size).size(4, 4).first_index(3).seed(1);
        run.temperature(temperature).generate(&mut engine(1))
    };
    let images = |batch_size, temperature| generate(batch_size, temperature).unwrap().images;
    assert!(bits(&images(5, 0.5)) == bits(&images(2, 0.5)));
    assert!(bits(&images(5, 0.5)) != bits(&images(5, 1.0)));
    for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = generate(5, wrong).unwrap_err().to_string();
        assert!(error.starts_with("temperature: expected a finite number above 0, found"), "{error}");
    }
}

#[test]
fn the_program_takes_a_temperature_and_reports_it() {
    let dir = tempfile::tempdir().unwrap();
    let weights = golden::models::argument("cond/v2/params.ckpt");
    let mut runs = 0;
    let mut generate = |flags: &[&str]| {
        runs += 1;
        let out = dir.path().join(runs.to_string());
        let base = ["-c", &weights, "-i", "8", "-n", "3", "--json", "-v", out.to_str().unwrap()];
        let run = run::run("generate", &[&base[..], flags].concat()).succeeds();
        let json: Value = serde_json::from_str(&run.stdout).unwrap();
        let samples = std::fs::read(out.join("samples.npy")).unwrap();
        (json["temperature"].to_string(), samples)
    };
    let (one, plain) = generate(&[]);
    assert_eq!((one.as_str(), generate(&["--temperature", "1"])), ("1.0", ("1.0".into(), plain.clone())));
    let (cold, cached) = generate(&["--temperature", "0.6"]);
    assert_eq!(cold, "0.6");
    assert!(cached != plain);
    assert!(cached == generate(&["--temperature", "0.6", "--naive"]).1, "naive");
    assert!(cached == generate(&["--temperature", "0.6", "-b", "2"]).1, "batches of 2");
    for wrong in ["0", "-1", "nan", "inf", "1e-60", "1e60", "hot"] {
        let run = run::run("generate", &[format!("--temperature={wrong}")]);
        assert_eq!(run.code, Some(2));
        assert!(
            run.stderr.starts_with("error: ") && run.stderr.contains("a finite number above 0"),
            "{wrong}"
        );
    }
}

/// Far below 1 what is left is the mean of the likeliest component: the same image from any seed.
#[test]
fn near_0_the_noise_makes_no_difference() {
    let image = |seed: u64| -> Array4<f32> {
        let noise = Noise::Philox { seed, first_index: 0 };
        let cold = Batch { noise, ..batch(&[1, 2], 0, 1e-30, Method::Cached) };
        engine(1).make(&cold, &|_| true).unwrap().images
    };
    let (a, b) = (image(1), image(2));
    assert!(bits(&a) == bits(&b));
    let both = concatenate(Axis(0), &[a.view(), b.view()]).unwrap();
    assert!(both.iter().any(|v| *v != both[[0, 0, 0, 0]]));
}
