//! Reads TensorFlow checkpoints, of the first format (V1) and the second (V2), without TensorFlow.
//!
//! The idea: opening takes in names, types, shapes and places only, checked against the files' lengths;
//! a variable's values are read when asked for, and verified by their checksum. So a training checkpoint
//! costs no more than what is wanted of it, and variables of types that nobody asks for do no harm.
//!
//! A file may be hostile. Nothing in it is believed: no number is used before it is checked, memory is
//! never reserved beyond what the file could fill, and reading every variable reads each byte once.
//!
//! Layers: [`table`] is the container of both formats; [`v1`] and [`v2`] find variables in it, with
//! `wire` and `messages` for what its values say, `slices` and `ordered_code` for variables in parts;
//! `locate` and `sniff` are for what a user may point at.

mod fault;
mod locate;
mod messages;
mod ordered_code;
mod slices;
mod sniff;
pub mod table;
pub mod v1;
pub mod v2;
mod wire;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use fault::quote;
use locate::{Location, locate, require_file, with_suffix};
use table::Table;

/// The most variables, and the most slices, that are taken in from one checkpoint. That of the paper's
/// model has 1,500 with the optimiser's; the limit keeps a hostile file from filling the memory.
const VARIABLES: usize = 1 << 16;

/// Which of TensorFlow's checkpoint formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A table with names and values in one file, or in shards `PREFIX-0000k-of-0000n`.
    V1,
    /// `PREFIX.index` and `PREFIX.data-0000k-of-0000n`.
    V2,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::V1 => "TensorFlow V1",
            Format::V2 => "TensorFlow V2",
        })
    }
}

/// The type of a variable's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// The one type that can be read.
    Float32,
    /// Double precision.
    Float64,
    /// Signed 32-bit integers.
    Int32,
    /// Signed 64-bit integers.
    Int64,
    /// Byte strings of any length.
    String,
    /// Any other, by its number in TensorFlow's `types.proto`.
    Other(i32),
}

impl From<i32> for DType {
    fn from(number: i32) -> DType {
        match number {
            1 => DType::Float32,
            2 => DType::Float64,
            3 => DType::Int32,
            7 => DType::String,
            9 => DType::Int64,
            other => DType::Other(other),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DType::Float32 => f.write_str("float32"),
            DType::Float64 => f.write_str("float64"),
            DType::Int32 => f.write_str("int32"),
            DType::Int64 => f.write_str("int64"),
            DType::String => f.write_str("string"),
            DType::Other(number) => write!(f, "TensorFlow's type {number}"),
        }
    }
}

/// A variable of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name, as the graph had it.
    pub name: String,
    /// The type of its values.
    pub dtype: DType,
    /// Its shape, empty for a scalar. The file's word: only reading checks it against the values.
    pub shape: Vec<usize>,
}

impl Variable {
    /// Type and shape, for a message.
    fn kind(&self) -> String {
        format!("{} {:?}", self.dtype, self.shape)
    }
}

/// The place of the float32 variable `name` in `variables`, which are sorted by name.
fn find_float(variables: &[Variable], file: &Path, name: &str) -> Result<usize> {
    let place = || format!("tensor {}", quote(name.as_bytes()));
    let index = variables.binary_search_by(|variable| variable.name.as_str().cmp(name)).map_err(|_| {
        let found = format!("none among {}", variables.len());
        Error::malformed(file, place(), "a variable of that name", found)
    })?;
    match variables[index].dtype {
        DType::Float32 => Ok(index),
        other => Err(Error::malformed(file, place(), "float32 values", other.to_string())),
    }
}

#[derive(Debug)]
enum Reader {
    V1(v1::Reader<File>),
    V2(v2::Reader<File>),
}

/// A TensorFlow checkpoint that is open for reading.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    reader: Reader,
}

impl Checkpoint {
    /// Opens the checkpoint that `path` names: a V1 file; one of a V1 checkpoint's shards or their
    /// prefix; a V2 checkpoint's prefix, its index or one of its data files. Every file that belongs to
    /// it must be there.
    ///
    /// # Errors
    /// [`Error::Io`] if a file is missing or cannot be read; [`Error::Unsupported`] if `path` is no
    /// regular file or a recognised file of another kind (a zip archive, an HTML page, a PyTorch file and
    /// the like), or a checkpoint of big-endian or compressed data; [`Error::Malformed`] if a file is
    /// damaged, cut short or none of these.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let reader = match locate(path)? {
            Location::Single(file) => {
                let mut table = open_table(&file)?;
                if v2::is_index(&mut table)? {
                    return Err(Error::Unsupported {
                        file,
                        found: "the index of a TensorFlow V2 checkpoint under another name".into(),
                        hint: "name it PREFIX.index, beside its PREFIX.data files".into(),
                    });
                }
                Reader::V1(v1::Reader::open(vec![table])?)
            }
            Location::Shards(files) => {
                let tables = files.iter().map(|file| open_table(file)).collect::<Result<_>>()?;
                Reader::V1(v1::Reader::open(tables)?)
            }
            Location::Bundle(prefix) => {
                let index = open_table(&with_suffix(&prefix, ".index"))?;
                let open_shard = |shard, count| {
                    let file = with_suffix(&prefix, &format!(".data-{shard:05}-of-{count:05}"));
                    let (source, length) = open_file(&file)?;
                    Ok(v2::Shard { source, file, length })
                };
                Reader::V2(v2::Reader::open(index, open_shard)?)
            }
        };
        Ok(Checkpoint { path: path.to_path_buf(), reader })
    }

    /// Which format it is in.
    pub fn format(&self) -> Format {
        match self.reader {
            Reader::V1(_) => Format::V1,
            Reader::V2(_) => Format::V2,
        }
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every variable, of any type, sorted by name.
    pub fn variables(&self) -> &[Variable] {
        match &self.reader {
            Reader::V1(reader) => reader.variables(),
            Reader::V2(reader) => reader.variables(),
        }
    }

    /// Bytes of all files that hold values: no checkpoint has more of them.
    pub fn length(&self) -> u64 {
        match &self.reader {
            Reader::V1(reader) => reader.length(),
            Reader::V2(reader) => reader.length(),
        }
    }

    /// The values of the float32 variable `name` in the file's order, row-major. Reading in the order of
    /// the names is fastest. Besides the values this takes memory for the block they are in (V1) or
    /// for one slice of a partitioned variable.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is no variable of that name and type, or its values do not fit its
    /// shape or their checksum; [`Error::Io`].
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        match &mut self.reader {
            Reader::V1(reader) => reader.read_f32(name),
            Reader::V2(reader) => reader.read_f32(name),
        }
    }
}

fn open_file(file: &Path) -> Result<(File, u64)> {
    require_file(file)?;
    let source = File::open(file).map_err(Error::io(file, "open"))?;
    let length = source.metadata().map_err(Error::io(file, "find the length"))?.len();
    Ok((source, length))
}

fn open_table(file: &Path) -> Result<Table<File>> {
    let (source, length) = open_file(file)?;
    if length == 0 {
        return Err(Error::malformed(file, "length", "a checkpoint", "an empty file"));
    }
    let mut head = Vec::new();
    (&source)
        .take(sniff::HEAD as u64)
        .read_to_end(&mut head)
        .map_err(Error::io(file, "read its beginning"))?;
    match sniff::identify(&head) {
        Some((found, hint)) => {
            Err(Error::Unsupported { file: file.to_path_buf(), found: found.into(), hint: hint.into() })
        }
        None => Table::open(source, file),
    }
}
