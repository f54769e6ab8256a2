//! Class labels, in the types and shapes in which they are found.
//!
//! The idea: a label is a class from 0 on. Only ImageNet32's form counts from 1, and it is known by the
//! images beside it.

use std::path::Path;

use super::find;
use crate::error::{Error, Result};

/// What an array of labels is called where there are several, as in ImageNet32's files.
const USUAL: &str = "labels";

/// Class labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The class of each image, counted from 0.
    pub classes: Vec<u32>,
    /// Whether the file counts from 1, so that 1 was taken off each label.
    pub counted_from_one: bool,
}

/// [`labels_of`] a file of one array, or of one that is called `labels`: the classes alone.
///
/// # Errors
/// As for [`labels_of`].
pub fn read_labels(path: &Path) -> Result<Vec<u32>> {
    Ok(labels_of(path, None)?.classes)
}

/// Reads class labels `[N]` or `[N, 1]` of type int64, int32, uint16 or uint8 from an `.npy` file, or from an
/// `.npz` file: the array with the key, else the only one, else the one called `labels`. Beside images in
/// ImageNet32's form, that one counts from 1, unless a 0 in it shows that it does not.
///
/// # Errors
/// As for [`super::find`]; [`Error::Malformed`] also for another shape and for a label that is negative or
/// beyond 32 bits.
pub fn labels_of(path: &Path, key: Option<&str>) -> Result<Labels> {
    find(path, key, USUAL, |found| {
        let name = found.name.clone();
        if !matches!(found.shape(), [_] | [_, 1]) {
            let shape = format!("shape {:?}", found.shape());
            return Err(Error::malformed(&name, "header", "class labels of shape [N] or [N, 1]", shape));
        }
        let imagenet = found.imagenet && found.key.as_deref() == Some(USUAL);
        let wide = found.integers("class labels")?;
        let counted_from_one = imagenet && !wide.iter().any(|label| *label == 0);
        let narrow = |(i, label): (usize, i64)| {
            u32::try_from(label).map(|label| label - u32::from(counted_from_one)).map_err(|_| {
                let expected = "class labels from 0 to 4294967295";
                Error::malformed(&name, format!("element {i}"), expected, label.to_string())
            })
        };
        let classes = wide.into_iter().enumerate().map(narrow).collect::<Result<_>>()?;
        Ok(Labels { classes, counted_from_one })
    })
}
