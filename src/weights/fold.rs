//! Weight normalisation, folded into plain kernels, and the check that it can be.
//!
//! The idea: `W = g[o] * V / ||V||_o` with the norm over everything but the output channel, as in
//! openai/pixel-cnn (`pixel_cnn_pp/nn.py`: conv2d, deconv2d, dense), computed once, in float64, with one
//! rounding to float32.

use std::path::Path;

use crate::error::{Error, Result};
use crate::graph::{Parameter, ParameterKind};

/// Below this a convolution's `sum V^2` is raised to it: the epsilon of `tf.nn.l2_normalize`.
const LEAST_SQUARE: f64 = 1e-12;

/// A kernel without weight normalisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// `[positions, inputs, outputs]`, whatever the kind: a transposed convolution's last two axes
    /// are swapped, a dense layer has one position.
    pub kernel: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

/// Folds `V` (in the shape of [`ParameterKind`]), `g` `[outputs]` and `b` `[outputs]`. `V` becomes the
/// kernel where it can, so that a kernel is not held twice.
pub(super) fn fold(parameter: &Parameter, v: Vec<f32>, g: &[f32], b: Vec<f32>) -> Folded {
    let mut scales = squared_norms(parameter, &v);
    for (scale, g) in scales.iter_mut().zip(g) {
        let square = match parameter.kind {
            ParameterKind::Conv { .. } | ParameterKind::Deconv { .. } => scale.max(LEAST_SQUARE),
            ParameterKind::Dense | ParameterKind::PerClass => *scale,
        };
        *scale = f64::from(*g) / square.sqrt();
    }
    scaled(parameter, v, &scales, b)
}

/// Puts a kernel that is folded already, in the shape of `V`, into the order of [`Folded`].
pub(super) fn ordered(parameter: &Parameter, w: Vec<f32>, b: Vec<f32>) -> Folded {
    scaled(parameter, w, &vec![1.0; parameter.outputs], b)
}

/// Multiplies each output channel by its scale.
fn scaled(parameter: &Parameter, mut v: Vec<f32>, scales: &[f64], b: Vec<f32>) -> Folded {
    let (inputs, outputs) = (parameter.inputs, parameter.outputs);
    if let ParameterKind::Deconv { .. } = parameter.kind {
        let mut kernel = vec![0.0; v.len()];
        let positions = kernel.chunks_exact_mut(inputs * outputs).zip(v.chunks_exact(inputs * outputs));
        for (to, from) in positions {
            for (o, (row, scale)) in from.chunks_exact(inputs).zip(scales).enumerate() {
                for (i, v) in row.iter().enumerate() {
                    to[i * outputs + o] = (f64::from(*v) * scale) as f32;
                }
            }
        }
        return Folded { kernel, bias: b };
    }
    for row in v.chunks_exact_mut(outputs) {
        for (v, scale) in row.iter_mut().zip(scales) {
            *v = (f64::from(*v) * scale) as f32;
        }
    }
    Folded { kernel: v, bias: b }
}

/// Folds a kernel whose norm is along the first axis, whose size is that of `g`: `W[i] = g[i] * V[i] / ||V[i]||`
/// (`torch.nn.utils.weight_norm`, which has no epsilon). `name` is the array's, in the file.
pub(super) fn fold_rows(file: &Path, name: &str, v: &mut [f32], g: &[f32]) -> Result<()> {
    let row = v.len() / g.len().max(1);
    for (i, (v, g)) in v.chunks_exact_mut(row.max(1)).zip(g).enumerate() {
        let square: f64 = v.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        if square == 0.0 {
            return Err(of_norm_zero(file, name, format!("channel {i}")));
        }
        let scale = f64::from(*g) / square.sqrt();
        v.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
    }
    Ok(())
}

/// Puts a kernel `[b, a, positions]` into the order of a graph's: `[positions, a, b]`, which is `shape`.
pub(super) fn positions_first(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let (positions, last) = shape.split_at(shape.len() - 2);
    let (positions, a, b) = (positions.iter().product::<usize>(), last[0], last[1]);
    let at = |p: usize, i: usize, j: usize| values[(j * a + i) * positions + p];
    let rows = (0..positions).flat_map(|p| (0..a).map(move |i| (p, i)));
    rows.flat_map(|(p, i)| (0..b).map(move |j| at(p, i, j))).collect()
}

/// `sum V^2` of each output channel.
fn squared_norms(parameter: &Parameter, v: &[f32]) -> Vec<f64> {
    let square = |v: &f32| f64::from(*v) * f64::from(*v);
    let mut sums = vec![0.0; parameter.outputs];
    if let ParameterKind::Deconv { .. } = parameter.kind {
        for (row, o) in v.chunks_exact(parameter.inputs).zip((0..parameter.outputs).cycle()) {
            sums[o] += row.iter().map(square).sum::<f64>();
        }
    } else {
        for row in v.chunks_exact(parameter.outputs) {
            for (sum, v) in sums.iter_mut().zip(row) {
                *sum += square(v);
            }
        }
    }
    sums
}

/// Refuses numbers that are not finite and, in a `V`, an output channel of zeros, whose direction is
/// undefined (the epsilon of a convolution would hide it). `name` is the array's, in the file.
pub(super) fn check_values(
    file: &Path,
    name: &str,
    parameter: &Parameter,
    shape: &[usize],
    values: &[f32],
) -> Result<()> {
    // V is the one array of a parameter with more than one axis, but for hw.
    let is_v = shape.len() > 1 && parameter.kind != ParameterKind::PerClass;
    if !is_v {
        return check_finite(file, name, shape, values);
    }
    check_count(file, name, shape, values)?;
    let norms = squared_norms(parameter, values);
    // Finite float32 have finite sums of squares in float64, and others do not: no need to look twice.
    if norms.iter().any(|s| !s.is_finite()) {
        check_finite(file, name, shape, values)?;
    }
    if let Some(o) = norms.iter().position(|s| *s == 0.0) {
        return Err(of_norm_zero(file, name, format!("output channel {o}")));
    }
    Ok(())
}

fn of_norm_zero(file: &Path, name: &str, channel: String) -> Error {
    let found = format!("nothing but zeros for {channel}");
    Error::malformed(file, format!("tensor {name}"), "a kernel of norm above 0", found)
}

/// Refuses numbers that are not finite, and another count than `shape` has.
pub(super) fn check_finite(file: &Path, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
    check_count(file, name, shape, values)?;
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        let found = format!("{} at {:?}", values[at], indices(at, shape));
        return Err(Error::malformed(file, format!("tensor {name}"), "finite numbers", found));
    }
    Ok(())
}

fn check_count(file: &Path, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
    if values.len() != shape.iter().product::<usize>() {
        let found = format!("{} numbers", values.len());
        return Err(Error::malformed(file, format!("tensor {name}"), format!("shape {shape:?}"), found));
    }
    Ok(())
}

/// The position along each axis of an element in C order.
fn indices(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut indices = vec![0; shape.len()];
    for (index, &d) in indices.iter_mut().zip(shape).rev() {
        *index = at % d;
        at /= d;
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(kind: ParameterKind, inputs: usize, outputs: usize) -> Parameter {
        Parameter { name: "v".into(), kind, inputs, outputs, bias: true }
    }

    #[test]
    fn a_convolution_is_normalised_over_all_but_its_last_axis() {
        // [1, 2, 1, 2]: output 0 has (3, 4), output 1 has (0, 2).
        let conv = parameter(ParameterKind::Conv { kernel: [1, 2] }, 1, 2);
        let folded = fold(&conv, vec![3.0, 0.0, 4.0, 2.0], &[10.0, -1.0], vec![0.5, 0.25]);
        assert_eq!(folded.kernel, [6.0, 0.0, 8.0, -1.0]);
        assert_eq!(folded.bias, [0.5, 0.25]);
    }

    #[test]
    fn a_transposed_convolution_swaps_its_last_axes() {
        // [1, 2, 2 outputs, 3 inputs]
        let deconv = parameter(ParameterKind::Deconv { kernel: [1, 2] }, 3, 2);
        let v = vec![1.0, 2.0, 0.0, 0.0, 0.0, 3.0, 2.0, 0.0, 4.0, 0.0, 4.0, 0.0];
        let folded = fold(&deconv, v, &[5.0, 10.0], vec![0.0, 0.0]);
        // Norms: output 0 has 1 + 4 + 4 + 16 = 25, output 1 has 9 + 16 = 25.
        assert_eq!(folded.kernel, [1.0, 0.0, 2.0, 0.0, 0.0, 6.0, 2.0, 0.0, 0.0, 8.0, 4.0, 0.0]);
    }

    #[test]
    fn tiny_kernels_meet_the_epsilon_in_convolutions_only() {
        let v = vec![1e-8, 0.0];
        let conv = parameter(ParameterKind::Conv { kernel: [1, 1] }, 2, 1);
        assert_eq!(fold(&conv, v.clone(), &[1.0], vec![0.0]).kernel, [1e-2, 0.0]);
        let dense = parameter(ParameterKind::Dense, 2, 1);
        assert_eq!(fold(&dense, v, &[1.0], vec![0.0]).kernel, [1.0, 0.0]);
    }

    #[test]
    fn unusable_values_are_named() {
        let dense = parameter(ParameterKind::Dense, 2, 3);
        let check = |values: &[f32]| {
            let result = check_values(Path::new("file"), "dense_0/V", &dense, &[2, 3], values);
            result.map_err(|e| e.to_string())
        };
        assert_eq!(check(&[1.0; 6]), Ok(()));
        let nan = check(&[1.0, 1.0, 1.0, 1.0, f32::NAN, 1.0]).unwrap_err();
        assert_eq!(nan, "file: tensor dense_0/V: expected finite numbers, found NaN at [1, 1]");
        let zero = check(&[1.0, 1.0, 0.0, 1.0, 1.0, -0.0]).unwrap_err();
        assert!(zero.ends_with("found nothing but zeros for output channel 2"), "{zero}");
        // Squares of the smallest floats are above zero in float64, and those of the largest finite.
        assert_eq!(check(&[1e-45; 6]), Ok(()));
        assert_eq!(check(&[f32::MAX; 6]), Ok(()));
        assert!(check(&[1.0; 5]).is_err());
    }
}
