//! Arrays that are in memory already, under the names that a trainer's checkpoint would have for them.
//!
//! The idea: a notebook has trained a model and asks for its images: what would be read of a file is here, sorted by
//! name, and the rest of the way is the same.

use std::path::{Path, PathBuf};

use super::{DType, Variable, find_float, volume};
use crate::error::{Error, Result};

/// A named array in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// Its shape, empty for a scalar.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// What stands for the path of a file in messages.
const PLACE: &str = "the arrays given";

/// Arrays in memory.
#[derive(Debug)]
pub(super) struct Reader {
    variables: Vec<Variable>,
    /// Of each variable, in the same order.
    values: Vec<Vec<f32>>,
}

impl Reader {
    pub(super) fn new(mut arrays: Vec<Held>) -> Result<Reader> {
        arrays.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = arrays.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Error::argument(
                "arrays",
                "one of each name",
                format!("two named {}", twice[0].name),
            ));
        }
        let (mut variables, mut values) = (Vec::new(), Vec::new());
        for Held { name, shape, values: held } in arrays {
            let fits = volume(&shape, held.len() as u64).is_ok_and(|volume| volume == held.len());
            if !fits {
                let expected = format!("{name} with the values of {shape:?}");
                return Err(Error::argument("arrays", expected, format!("{} of them", held.len())));
            }
            variables.push(Variable { name, dtype: DType::Float32, shape });
            values.push(held);
        }
        Ok(Reader { variables, values })
    }

    pub(super) fn path() -> PathBuf {
        PLACE.into()
    }

    pub(super) fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Bytes of all values.
    pub(super) fn length(&self) -> u64 {
        self.values.iter().map(|values| size_of_val(&values[..]) as u64).sum()
    }

    pub(super) fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let (index, _) = find_float(&self.variables, Path::new(PLACE), name)?;
        Ok(self.values[index].clone())
    }
}
