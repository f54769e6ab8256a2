//! Reads an array of a checkpoint from where a model's recipe says that it is.
//!
//! The idea: an array leaves this place as the graph has it, whatever a trainer's order of axes is, and checked under
//! the name that the checkpoint has for it.

use super::fold;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::graph::Parameter;
use crate::models::{Block, Named, Stored};

/// Reads an array of `shape` and checks its values.
pub(super) fn read(
    checkpoint: &mut Checkpoint,
    stored: &Stored,
    parameter: &Parameter,
    shape: &[usize],
) -> Result<Vec<f32>> {
    match stored {
        Stored::Plain(name) => {
            let values = checkpoint.read_f32(name)?;
            fold::check_values(checkpoint.path(), name, parameter, shape, &values)?;
            Ok(values)
        }
        Stored::Kernel { values: name, shape: there, gain } => {
            let mut values = checkpoint.read_f32(name)?;
            fold::check_finite(checkpoint.path(), name, there, &values)?;
            if let Some(gain) = gain {
                let g = checkpoint.read_f32(gain)?;
                fold::check_finite(checkpoint.path(), gain, &there[..1], &g)?;
                fold::fold_rows(checkpoint.path(), name, &mut values, &g)?;
            }
            Ok(fold::positions_first(&values, shape))
        }
        Stored::Beside(blocks) => beside(checkpoint, blocks, shape),
    }
}

/// Reads blocks and puts the rows of one behind those of another.
fn beside(checkpoint: &mut Checkpoint, blocks: &[Block], shape: &[usize]) -> Result<Vec<f32>> {
    if let [Block::Whole(only)] = blocks {
        return whole(checkpoint, only);
    }
    let columns = shape[shape.len() - 1];
    let rows = shape.iter().product::<usize>() / columns;
    let (mut values, mut begin) = (vec![0.0; rows * columns], 0);
    for block in blocks {
        let block = match block {
            Block::Whole(variable) => whole(checkpoint, variable)?,
            Block::Product(left, right) => product(checkpoint, left, right)?,
        };
        let width = block.len() / rows;
        for (row, block) in values.chunks_exact_mut(columns).zip(block.chunks_exact(width)) {
            row[begin..begin + width].copy_from_slice(block);
        }
        begin += width;
    }
    Ok(values)
}

/// A variable as it is.
fn whole(checkpoint: &mut Checkpoint, Named { name, shape }: &Named) -> Result<Vec<f32>> {
    let values = checkpoint.read_f32(name)?;
    fold::check_finite(checkpoint.path(), name, shape, &values)?;
    Ok(values)
}

/// `[n, k]` times `[k, m]`.
fn product(checkpoint: &mut Checkpoint, left: &Named, right: &Named) -> Result<Vec<f32>> {
    let (a, b) = (whole(checkpoint, left)?, whole(checkpoint, right)?);
    let (n, k, m) = (left.shape[0], left.shape[1], right.shape[right.shape.len() - 1]);
    let mut values = Vec::with_capacity(n * m);
    for a in a.chunks_exact(k) {
        let mut sums = vec![0.0; m];
        for (a, b) in a.iter().zip(b.chunks_exact(m)) {
            sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += f64::from(*a) * f64::from(*b));
        }
        values.extend(sums.into_iter().map(|sum| sum as f32));
    }
    let name = format!("{} times {}", left.name, right.name);
    fold::check_finite(checkpoint.path(), &name, &[n, m], &values)?;
    Ok(values)
}
