//! How engines are compared with the reference data in `tests/golden/`.

#[path = "models.rs"]
pub mod models;

use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise, Output};
use fast_pixel_cnn::{Nonlinearity, PixelCnnPp, Weights, media::npy, weights};
pub use models::golden;
use ndarray::{Array4, Axis, Ix4, concatenate};

/// The directories with a model each.
pub const DIRECTORIES: [&str; 5] = ["tiny", "cond", "elu", "relu", "rect"];

/// A model small enough for every instruction set, with all that a PixelCNN++ can have.
pub const SMALL: PixelCnnPp = PixelCnnPp {
    resnets: 1,
    filters: 20,
    mixtures: 3,
    channels: 3,
    classes: 4,
    nonlinearity: Nonlinearity::ConcatElu,
};

pub fn array(path: &str) -> Array4<f32> {
    npy::read_f32(&golden(path)).unwrap().into_dimensionality::<Ix4>().unwrap()
}

pub fn images(directory: &str) -> Array4<f32> {
    let bytes = npy::read_u8(&golden(&format!("{directory}/images_u8.npy"))).unwrap();
    bytes.into_dimensionality::<Ix4>().unwrap().mapv(|p| (f32::from(p) - 127.5) / 127.5)
}

pub fn labels(directory: &str) -> Option<Vec<u32>> {
    let path = golden(&format!("{directory}/labels.npy"));
    path.exists().then(|| npy::read_labels(&path).unwrap())
}

pub fn load(path: &str, raw: bool, nonlinearity: Option<Nonlinearity>) -> Weights {
    Weights::load_with(golden(path), &weights::Options { raw, nonlinearity, ..Default::default() }).unwrap()
}

pub fn relu(directory: &str) -> Option<Nonlinearity> {
    (directory == "relu").then_some(Nonlinearity::Relu)
}

pub fn largest(a: &Array4<f32>, b: &Array4<f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, d| if d.is_nan() || d > most { d } else { most })
}

/// The bits, so that -0 and 0 differ and a failure does not print a thousand numbers.
pub fn bits(a: &Array4<f32>) -> Vec<u32> {
    a.iter().map(|x| x.to_bits()).collect()
}

/// Generates with the noise of a golden directory, and asserts that images and logits are near the reference's.
pub fn generate_as_the_reference(engine: &mut dyn Engine, directory: &str, method: Method, name: &str) {
    let file = |name: &str| array(&format!("{directory}/gen/{name}.npy"));
    let (mixture, logistic) = (file("u_mix"), file("u_logistic"));
    let labels = labels(directory);
    let noise = concatenate(Axis(3), &[mixture.view(), logistic.view()]).unwrap();
    let (size, height, width, _) = noise.dim();
    let batch = Batch {
        labels: labels.as_deref(),
        noise: Noise::Given(noise.view()),
        method,
        keep_logits: true,
        ..Batch::new(size, height, width)
    };
    let output = engine.make(&batch, &|_| true).unwrap();
    let off = largest(&output.images, &file("x_gen"));
    let off_logits = largest(&output.logits.unwrap(), &file("logits_during_gen"));
    println!("{directory}, {name}: images within {off:e}, logits within {off_logits:e}");
    assert!(off <= 1e-4 && off_logits <= 1e-4);
}

pub fn generate(
    engine: &mut dyn Engine,
    first_index: u64,
    labels: &[u32],
    size: [usize; 2],
    method: Method,
) -> Output {
    let [height, width] = size;
    let batch = Batch {
        labels: Some(labels),
        noise: Noise::Philox { seed: 2702, first_index },
        method,
        keep_logits: true,
        ..Batch::new(labels.len(), height, width)
    };
    engine.make(&batch, &|_| true).unwrap()
}
