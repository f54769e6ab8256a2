//! TensorFlow's checkpoints, of the first format (V1) and the second (V2).
//!
//! Layers: [`table`] is the container of both formats; [`v1`] and [`v2`] find variables in it, with
//! `wire` and `messages` for what its values say, `slices` and `ordered_code` for variables in parts, `floats`
//! for the values of a V1 file, and `verify` for what nobody asks for.

mod floats;
mod messages;
mod ordered_code;
mod slices;
pub mod table;
pub mod v1;
pub mod v2;
mod verify;
mod wire;

use std::fs::File;
use std::path::{Path, PathBuf};

use super::locate::with_suffix;
use super::{open_file, sniff};
use crate::error::{Error, Result};
use table::Table;

/// Opens a V1 checkpoint from its only table.
pub(super) fn open_v1(file: &Path) -> Result<v1::Reader<File>> {
    let mut table = open_table(file)?;
    if v2::is_index(&mut table)? {
        return Err(Error::Unsupported {
            file: file.into(),
            found: "the index of a TensorFlow V2 checkpoint under another name".into(),
            hint: "name it PREFIX.index, beside its PREFIX.data files".into(),
        });
    }
    v1::Reader::open(vec![table])
}

/// Opens a V1 checkpoint from its shards.
pub(super) fn open_shards(files: &[PathBuf]) -> Result<v1::Reader<File>> {
    v1::Reader::open(files.iter().map(|file| open_table(file)).collect::<Result<_>>()?)
}

/// Opens the V2 checkpoint of a prefix.
pub(super) fn open_v2(prefix: &Path) -> Result<v2::Reader<File>> {
    let index = open_table(&with_suffix(prefix, ".index"))?;
    v2::Reader::open(index, |shard, count| {
        let file = with_suffix(prefix, &format!(".data-{shard:05}-of-{count:05}"));
        let (source, length) = open_file(&file)?;
        Ok(v2::Shard { source, file, length })
    })
}

/// Opens a file as a table. What does not end as one is named for what it is.
fn open_table(file: &Path) -> Result<Table<File>> {
    let (mut source, length) = open_file(file)?;
    if length == 0 {
        return Err(Error::malformed(file, "length", "a checkpoint", "an empty file"));
    }
    if !sniff::ends_as_table(&mut source).map_err(Error::io(file, "read its end"))? {
        let head = sniff::head(&mut source).map_err(Error::io(file, "read its beginning"))?;
        let (found, hint) = sniff::identify(&head, file);
        return Err(Error::Unsupported { file: file.to_path_buf(), found, hint });
    }
    Table::open(source, file)
}
