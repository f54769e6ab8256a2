//! Checkpoints as training leaves them, of a small model.

use fast_pixel_cnn::weights::Weights;
use fast_pixel_cnn::{Nonlinearity, PixelCnnPp};

use super::bundle::{self, Tensor};
use super::program::Place;
use super::run::Run;

pub const SMALL: PixelCnnPp = PixelCnnPp {
    resnets: 1,
    filters: 4,
    mixtures: 2,
    channels: 3,
    classes: 3,
    nonlinearity: Nonlinearity::ConcatElu,
};

/// A checkpoint as training leaves it: averages (seed 1), raw values (seed 2), slots and labels.
pub fn training() -> Vec<Tensor> {
    let (averaged, raw) = (Weights::synthetic(SMALL, 1), Weights::synthetic(SMALL, 2));
    let mut tensors = vec![Tensor::i64("Variable", &[3, 1, 2]), Tensor::f32("beta1_power", &[], &[0.9])];
    for (i, (_, name, shape)) in SMALL.graph().arrays(false).enumerate() {
        let average = format!("model/{name}/ExponentialMovingAverage");
        tensors.push(Tensor::f32(&average, &shape, &averaged.array(&name).unwrap()));
        tensors.push(Tensor::f32(&format!("model/{name}"), &shape, &raw.array(&name).unwrap()));
        tensors.push(Tensor::f32(&format!("Variable_{i}"), &shape, &raw.array(&name).unwrap()));
    }
    tensors
}

pub fn find<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors.iter_mut().find(|t| t.name == name).unwrap()
}

/// Converts a checkpoint of these tensors.
pub fn convert_tensors(tensors: &[Tensor], flags: &[&str]) -> (Run, Place) {
    let (place, checkpoint) = (Place::new(), tempfile::tempdir().unwrap());
    let prefix = checkpoint.path().join("params.ckpt");
    bundle::write(&prefix, tensors);
    (place.convert(&prefix, flags), place)
}
