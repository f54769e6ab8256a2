//! What to read of a checkpoint for each tensor of a model, and reading it.
//!
//! The idea: whoever knows a trainer's names makes a plan from names and shapes alone; carrying it out needs no
//! name but those in it.

use std::collections::{BTreeMap, HashMap};

use super::{Source, fold};
use crate::checkpoint::{Checkpoint, DType, Format, Variable};
use crate::error::Result;
use crate::graph::Parameter;
use crate::models::ModelConfig;

/// Where the values of a tensor are in a checkpoint.
#[derive(Debug)]
pub(super) enum Stored {
    /// Under this name, as they are.
    Plain(String),
    /// A kernel of PyTorch's, whose first two axes are our last two, swapped: `[out, in, height, width]`, or
    /// `[in, out, height, width]` of a transposed convolution.
    Kernel {
        /// Its name.
        values: String,
        /// The name of the norms of `values[i]`, if they are apart from the kernel.
        gain: Option<String>,
    },
}

/// What to read of a checkpoint.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) config: ModelConfig,
    pub(super) warnings: Vec<String>,
    /// Bytes that the tensors take by their shapes and types.
    pub(super) claimed: u64,
    pub(super) averaged: bool,
    /// Whether tensors are `W` and `b`, not `V`, `g` and `b`.
    pub(super) folded: bool,
    /// By a tensor's name, `conv2d_0/V`.
    pub(super) stored: HashMap<String, Stored>,
}

impl Plan {
    pub(super) fn source(&self, format: Format) -> Source {
        Source { format: Some(format), averaged: self.averaged, folded: self.folded }
    }

    /// Reads a tensor of the network and checks its values.
    pub(super) fn read(
        &self,
        checkpoint: &mut Checkpoint,
        variable: &Parameter,
        name: &str,
        shape: &[usize],
    ) -> Result<Vec<f32>> {
        match &self.stored[name] {
            Stored::Plain(stored) => {
                let values = checkpoint.read_f32(stored)?;
                fold::check_values(checkpoint.path(), stored, variable, shape, &values)?;
                Ok(values)
            }
            Stored::Kernel { values: stored, gain } => {
                let mut values = checkpoint.read_f32(stored)?;
                let foreign = pytorch_shape(shape);
                fold::check_finite(checkpoint.path(), stored, &foreign, &values)?;
                if let Some(gain) = gain {
                    let g = checkpoint.read_f32(gain)?;
                    fold::check_finite(checkpoint.path(), gain, &foreign[..1], &g)?;
                    fold::fold_rows(checkpoint.path(), stored, &mut values, &g)?;
                }
                Ok(fold::from_pytorch(&values, shape))
            }
        }
    }
}

/// The shape that PyTorch gives to a kernel which is of `shape` here.
pub(super) fn pytorch_shape(shape: &[usize]) -> Vec<usize> {
    let (positions, last) = shape.split_at(shape.len() - 2);
    [&[last[1], last[0]], positions].concat()
}

/// The bytes of a variable, by its shape and type.
pub(super) fn bytes(variable: &Variable) -> u64 {
    let size = variable.dtype.float_size().unwrap_or(0) as u64;
    variable.shape.iter().fold(size, |bytes, &axis| bytes.saturating_mul(axis as u64))
}

/// Says so where values are not float32 in the checkpoint, a sentence for each type.
pub(super) fn warn_of_types<'a>(chosen: impl ExactSizeIterator<Item = &'a Variable>) -> Vec<String> {
    let (of, mut counts) = (chosen.len(), BTreeMap::new());
    for variable in chosen.filter(|variable| variable.dtype != DType::Float32) {
        *counts.entry(variable.dtype).or_insert(0usize) += 1;
    }
    let sentence = |(dtype, count): (DType, usize)| {
        let done = if dtype == DType::Float64 { "rounded" } else { "widened" };
        format!("{count} of {of} tensors are {dtype} and are {done} to float32")
    };
    counts.into_iter().map(sentence).collect()
}

/// The commonest of some sizes, of equals the first.
pub(super) fn commonest(sizes: impl Iterator<Item = usize>) -> Option<usize> {
    let mut votes: Vec<(usize, usize)> = Vec::new();
    for size in sizes {
        match votes.iter_mut().find(|(s, _)| *s == size) {
            Some((_, count)) => *count += 1,
            None => votes.push((size, 1)),
        }
    }
    votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(size, _)| size)
}
