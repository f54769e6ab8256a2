//! Where a checkpoint has a model's arrays, and what every trainer's names need to find that out.
//!
//! The idea: a place is told in words that know no trainer, so that whoever reads it needs no name but those in it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Read;
use std::path::Path;

use crate::checkpoint::{DType, Variable};
use crate::error::{Error, Result, list};
use crate::media::npy::open_regular;

/// Characters that a list of names may take in a message, beside the rest of it.
pub(super) const ROOM: usize = 150;

/// Where the values of an array are in a checkpoint.
#[derive(Debug)]
pub(crate) enum Stored {
    /// In the variable of this name, as they are.
    Plain(String),
    /// A kernel whose last two axes come first there, swapped, and whose norm is folded when it is read.
    Kernel {
        /// The variable's name.
        values: String,
        /// Its shape, `[b, a, positions...]` where the array's is `[positions, a, b]`.
        shape: Vec<usize>,
        /// The name of the norms of `values[i]`, if they are apart from the kernel.
        gain: Option<String>,
    },
    /// Side by side: each row of the array, along its last axis, is a row of the first block, then one of the next.
    Beside(Vec<Block>),
}

/// A part of an array's rows.
#[derive(Debug)]
pub(crate) enum Block {
    /// A variable as it is.
    Whole(Named),
    /// The product of two, summed in float64 and rounded once: of `[n, k]` with `[.., k, m]`, whose axes before those
    /// are 1.
    Product(Named, Named),
}

/// A variable's name and its shape.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

/// What keeps a variable from being an array of `shape`, one sentence each.
pub(super) fn differences(variable: &Variable, shape: &[usize]) -> Vec<String> {
    let Variable { name, dtype, shape: found } = variable;
    let mut differences = Vec::new();
    if dtype.float_size().is_none() {
        differences.push(format!("{name}: expected floating-point numbers, found {dtype}"));
    }
    if found != shape {
        differences.push(format!("{name}: expected shape {shape:?}, found {found:?}"));
    }
    differences
}

/// The most bytes of a file that describes a model: one with a thousand layers takes a hundredth of this.
const DESCRIPTION: u64 = 1 << 20;

/// Reads a file beside a checkpoint that describes its model.
pub(super) fn read_description(file: &Path) -> Result<Vec<u8>> {
    let (source, length) = open_regular(file)?;
    if length > DESCRIPTION {
        let expected = format!("at most {DESCRIPTION} bytes");
        return Err(Error::malformed(file, "length", expected, length.to_string()));
    }
    let mut text = Vec::new();
    source.take(DESCRIPTION).read_to_end(&mut text).map_err(Error::io(file, "read"))?;
    Ok(text)
}

/// What a file beside a checkpoint says and what the checkpoint has, where both tell and they differ.
pub(super) fn differ<T: PartialEq + Display>(
    name: &str,
    said: Option<T>,
    known: Option<T>,
) -> Option<(String, String)> {
    let (said, known) = (said?, known?);
    (said != known).then(|| (format!("{name} {said}"), format!("{name} {known}")))
}

/// Refuses a file that says ([`differ`]) what the checkpoint beside it has not.
pub(super) fn agree(
    file: &Path,
    checkpoint: &Path,
    differences: impl Iterator<Item = (String, String)>,
) -> Result<()> {
    let (said, has): (Vec<String>, Vec<String>) = differences.unzip();
    if said.is_empty() {
        return Ok(());
    }
    let has = list(&has, ", ", ROOM);
    Err(Error::Unsupported {
        file: file.into(),
        found: list(&said, ", ", ROOM),
        hint: format!("{} has {has}: is this another model's file?", checkpoint.display()),
    })
}

/// The bytes of some variables, by their shapes and types.
pub(super) fn bytes<'a>(variables: impl Iterator<Item = &'a Variable>) -> u64 {
    let bytes = |variable: &Variable| {
        let size = variable.dtype.float_size().unwrap_or(0) as u64;
        variable.shape.iter().fold(size, |bytes, &axis| bytes.saturating_mul(axis as u64))
    };
    variables.map(bytes).fold(0, u64::saturating_add)
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
