//! Reads TensorFlow checkpoints, of the first format (V1) and the second (V2), without TensorFlow.
//!
//! The idea: opening takes in names, types, shapes and places only, checked against the files' lengths;
//! a variable's values are read when asked for, and verified by their checksum. So a training checkpoint
//! costs no more than what is wanted of it, and variables of types that nobody asks for do no harm.
//!
//! A file may be hostile. Nothing in it is believed: no number is used before it is checked, memory is
//! never reserved beyond what the file could fill and the machine has, and reading every variable reads each
//! byte once.
//!
//! Layers: [`table`] is the container of both formats; [`v1`] and [`v2`] find variables in it, with
//! `wire` and `messages` for what its values say, `slices` and `ordered_code` for variables in parts;
//! `dtype` and `floats` make float32 of what they hold. `locate`, `directory` and `sniff` are for what a
//! user may point at, `verify` for what nobody asks for.

mod directory;
mod dtype;
mod fault;
mod floats;
mod locate;
mod messages;
mod ordered_code;
mod slices;
mod sniff;
pub mod table;
pub mod v1;
pub mod v2;
mod verify;
mod wire;

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::memory;
pub use dtype::DType;
use fault::{Fault, quote};
use locate::{Location, locate, require_file, with_suffix};
use table::Table;
pub use verify::Verified;

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

/// The place in `variables`, which are sorted by name, of the floating-point variable `name`, and the bytes
/// of one of its values.
fn find_float(variables: &[Variable], file: &Path, name: &str) -> Result<(usize, usize)> {
    let place = || format!("tensor {}", quote(name.as_bytes()));
    let index = variables.binary_search_by(|variable| variable.name.as_str().cmp(name)).map_err(|_| {
        let found = format!("none among {}", variables.len());
        Error::malformed(file, place(), "a variable of that name", found)
    })?;
    match variables[index].dtype.float_size() {
        Some(size) => Ok((index, size)),
        None => {
            let found = variables[index].dtype.to_string();
            Err(Error::malformed(file, place(), "floating-point values", found))
        }
    }
}

/// `count` zeros, unless the machine has no room for them.
fn zeros<T: bytemuck::Zeroable>(count: usize) -> std::result::Result<Vec<T>, Fault> {
    memory::zeros(count as u64).map_err(|available| {
        let needed = (count as u64).saturating_mul(size_of::<T>() as u64);
        let found = format!("{} MiB", needed >> 20);
        if needed <= available {
            return Fault::new("what the system gives memory for", found);
        }
        Fault::new(format!("at most the {} MiB of memory that are available", available >> 20), found)
    })
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
    /// prefix; a V2 checkpoint's prefix, its index or one of its data files; TensorFlow's note `checkpoint`
    /// of the latest one, or a folder with such a note or with one checkpoint. Every file that belongs to it
    /// must be there.
    ///
    /// # Errors
    /// [`Error::Io`] if a file is missing or cannot be read; [`Error::Unsupported`] if `path` is a special
    /// file, a folder with no checkpoint or with several, a file that is cut off or of another kind (a zip
    /// archive, an HTML page, a graph, a PyTorch file and the like), or a checkpoint of big-endian or
    /// compressed data; [`Error::Malformed`] if a file is damaged.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let (path, location) = locate(path)?;
        let reader = match location {
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
        Ok(Checkpoint { path, reader })
    }

    /// Which format it is in.
    pub fn format(&self) -> Format {
        match self.reader {
            Reader::V1(_) => Format::V1,
            Reader::V2(_) => Format::V2,
        }
    }

    /// The path that was opened: the one given, or what stands behind a folder or a note.
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

    /// The values of the floating-point variable `name` in the file's order, row-major, as float32: half
    /// precision and bfloat16 are widened, float64 is rounded. Reading in the order of the names is fastest.
    /// Besides the values this takes memory for the block they are in (V1) or for one slice of a partitioned
    /// variable.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is no variable of that name and type, or its values do not fit its
    /// shape, the machine's memory or their checksum; [`Error::Io`].
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        match &mut self.reader {
            Reader::V1(reader) => reader.read_f32(name),
            Reader::V2(reader) => reader.read_f32(name),
        }
    }

    /// Reads every variable, of any type, and verifies its checksums. `watch` is called before each, or
    /// before each block of a V1 file, and ends it by returning `false`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a checksum is wrong, [`Error::Io`], [`Error::Interrupted`].
    pub fn verify(&mut self, watch: &dyn Fn() -> bool) -> Result<Verified> {
        let mut watch = || if watch() { Ok(()) } else { Err(Error::Interrupted) };
        match &mut self.reader {
            Reader::V1(reader) => reader.verify(&mut watch),
            Reader::V2(reader) => reader.verify(&mut watch),
        }
    }
}

fn open_file(file: &Path) -> Result<(File, u64)> {
    require_file(file)?;
    let source = File::open(file).map_err(Error::io(file, "open"))?;
    let length = source.metadata().map_err(Error::io(file, "find the length"))?.len();
    Ok((source, length))
}

/// Opens a file as a table. What does not end as one is named for what it is.
fn open_table(file: &Path) -> Result<Table<File>> {
    let (mut source, length) = open_file(file)?;
    if length == 0 {
        return Err(Error::malformed(file, "length", "a checkpoint", "an empty file"));
    }
    if !table::ends_as_one(&mut source).map_err(Error::io(file, "read its end"))? {
        let mut head = Vec::new();
        (source.seek(SeekFrom::Start(0)))
            .and_then(|_| source.take(sniff::HEAD as u64).read_to_end(&mut head))
            .map_err(Error::io(file, "read its beginning"))?;
        let (found, hint) = sniff::identify(&head, file);
        return Err(Error::Unsupported { file: file.to_path_buf(), found, hint });
    }
    Table::open(source, file)
}
