//! Reads an array of a checkpoint from where a model's recipe says that it is.
//!
//! The idea: an array leaves this place as the graph has it, whatever a trainer's order of axes is, and checked under
//! the name that the checkpoint has for it.

use super::fold;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::graph::Parameter;
use crate::models::Stored;

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
    }
}
