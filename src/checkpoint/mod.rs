//! Reads the checkpoints of trainers, without the trainers: names, shapes and types of arrays, and their values
//! as float32. What model they make up is not known here.
//!
//! The idea: opening takes in names, types, shapes and places only, checked against the files' lengths;
//! a variable's values are read when asked for, and verified by their checksum where the format has one. So a
//! training checkpoint costs no more than what is wanted of it, and variables of types that nobody asks for do
//! no harm.
//!
//! A file may be hostile. Nothing in it is believed: no number is used before it is checked, memory is
//! never reserved beyond what the file could fill and the machine has, and reading every variable reads each
//! byte once.
//!
//! Layers: [`tensorflow`], `pytorch` and `safetensors` for the formats; `dtype` makes float32 of what they hold; `locate`, `directory` and
//! `sniff` are for what a user may point at.

mod directory;
mod dtype;
mod fault;
mod held;
mod locate;
mod pytorch;
mod safetensors;
mod sniff;
#[doc(hidden)]
pub mod tensorflow;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::memory;
pub use dtype::DType;
use fault::{Fault, quote};
pub use held::Held;
use locate::{Location, locate, require_file};
use tensorflow::{v1, v2};

/// The most variables, and the most slices, that are taken in from one checkpoint. That of the paper's
/// model has 1,500 with the optimiser's; the limit keeps a hostile file from filling the memory.
const VARIABLES: usize = 1 << 16;

/// The most bytes of names, shapes and block keys that are taken in from one file. A checkpoint of a
/// PixelCNN++ has some 100 KiB of them; the limit keeps a hostile file from filling the memory.
const METADATA_LIMIT: usize = 4 << 20;

/// The format of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// TensorFlow's first: a table with names and values in one file, or in shards `PREFIX-0000k-of-0000n`.
    V1,
    /// TensorFlow's second: `PREFIX.index` and `PREFIX.data-0000k-of-0000n`.
    V2,
    /// PyTorch's since 1.6: a zip archive.
    #[serde(rename = "pytorch")]
    PyTorch,
    /// PyTorch's before: a stream of pickles, and the values.
    #[serde(rename = "pytorch_legacy")]
    PyTorchLegacy,
    /// A JSON header, and the values.
    Safetensors,
    /// None: arrays in memory.
    Held,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::V1 => "TensorFlow V1",
            Format::V2 => "TensorFlow V2",
            Format::PyTorch => "PyTorch",
            Format::PyTorchLegacy => "legacy PyTorch",
            Format::Safetensors => "safetensors",
            Format::Held => "memory",
        })
    }
}

/// A named array of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name: as TensorFlow's graph had it, or the dotted path to it through PyTorch's dictionaries.
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

/// What was verified of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many variables have the checksums that they should.
    pub variables: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Variables of types whose checksums are made in a way that is not known here.
    pub skipped: Vec<Variable>,
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

/// The number of values of a shape, if there are at most `limit`.
fn volume(shape: &[usize], limit: u64) -> std::result::Result<usize, Fault> {
    let volume = shape.iter().try_fold(1usize, |volume, &size| volume.checked_mul(size));
    volume.filter(|&volume| volume as u64 <= limit).ok_or_else(|| {
        Fault::new(
            format!("a shape of at most {limit} values, which the file could hold"),
            format!("{shape:?}"),
        )
    })
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
    PyTorch(pytorch::Reader),
    Safetensors(safetensors::Reader),
    Held(held::Reader),
}

/// A checkpoint that is open for reading.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    reader: Reader,
}

impl Checkpoint {
    /// Opens the checkpoint that `path` names: a V1 file; one of a V1 checkpoint's shards or their
    /// prefix; a V2 checkpoint's prefix, its index or one of its data files; a file of PyTorch's or a safetensors
    /// file; TensorFlow's note `checkpoint` of the latest one, or a directory with such a note or with one
    /// checkpoint. Every file that belongs to it must be there.
    ///
    /// # Errors
    /// [`Error::Io`] if a file is missing or cannot be read; [`Error::Unsupported`] if `path` is a special
    /// file, a directory with no checkpoint or with several, a file that is cut off or of another kind (a zip
    /// archive, an HTML page, a graph and the like), a checkpoint of big-endian or compressed data, or a PyTorch
    /// file of something other than a dictionary of tensors; [`Error::Malformed`] if a file is damaged.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let path = directory::resolve(path)?;
        let reader = match locate(&path)? {
            Location::Single(file) => open_single(&file)?,
            Location::Shards(files) => Reader::V1(tensorflow::open_shards(&files)?),
            Location::Bundle(prefix) => Reader::V2(tensorflow::open_v2(&prefix)?),
        };
        Ok(Checkpoint { path, reader })
    }

    /// What a checkpoint would hold, from memory.
    ///
    /// # Errors
    /// [`Error::Argument`] for two arrays of one name, and for one whose shape and number of values differ.
    pub fn held(arrays: Vec<Held>) -> Result<Checkpoint> {
        Ok(Checkpoint { path: held::Reader::path(), reader: Reader::Held(held::Reader::new(arrays)?) })
    }

    /// Which format it is in.
    pub fn format(&self) -> Format {
        match &self.reader {
            Reader::V1(_) => Format::V1,
            Reader::V2(_) => Format::V2,
            Reader::PyTorch(reader) => reader.format(),
            Reader::Safetensors(_) => Format::Safetensors,
            Reader::Held(_) => Format::Held,
        }
    }

    /// The path that was opened: the one given, or what stands behind a directory or a note. For arrays in memory
    /// some words.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of that name beside the checkpoint, if there is one.
    pub(crate) fn beside(&self, name: &str) -> Option<PathBuf> {
        let file = self.path.with_file_name(name);
        (self.format() != Format::Held && file.exists()).then_some(file)
    }

    /// Every variable, of any type, sorted by name.
    pub fn variables(&self) -> &[Variable] {
        match &self.reader {
            Reader::V1(reader) => reader.variables(),
            Reader::V2(reader) => reader.variables(),
            Reader::PyTorch(reader) => reader.variables(),
            Reader::Safetensors(reader) => reader.variables(),
            Reader::Held(reader) => reader.variables(),
        }
    }

    /// Bytes of all files that hold values: no checkpoint has more of them.
    pub fn length(&self) -> u64 {
        match &self.reader {
            Reader::V1(reader) => reader.length(),
            Reader::V2(reader) => reader.length(),
            Reader::PyTorch(reader) => reader.length(),
            Reader::Safetensors(reader) => reader.length(),
            Reader::Held(reader) => reader.length(),
        }
    }

    /// The values of the floating-point variable `name` in the file's order, row-major, as float32: half
    /// precision and bfloat16 are widened, float64 is rounded. Reading in the order of the names is fastest.
    /// Besides the values this takes memory for the block they are in (V1), for one slice of a partitioned
    /// variable, or for the values as a PyTorch file has them.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is no variable of that name and type, or its values do not fit its
    /// shape, the machine's memory or their checksum; [`Error::Io`].
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        match &mut self.reader {
            Reader::V1(reader) => reader.read_f32(name),
            Reader::V2(reader) => reader.read_f32(name),
            Reader::PyTorch(reader) => reader.read_f32(name),
            Reader::Safetensors(reader) => reader.read_f32(name),
            Reader::Held(reader) => reader.read_f32(name),
        }
    }

    /// Reads every variable, of any type, and verifies its checksums. `watch` is called before each, or
    /// before each block of a V1 file, and ends it by returning `false`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a checksum is wrong, [`Error::Unsupported`] if the format has none,
    /// [`Error::Io`], [`Error::Interrupted`].
    pub fn verify(&mut self, watch: &dyn Fn() -> bool) -> Result<Verified> {
        let mut watch = || if watch() { Ok(()) } else { Err(Error::Interrupted) };
        match &mut self.reader {
            Reader::V1(reader) => reader.verify(&mut watch),
            Reader::V2(reader) => reader.verify(&mut watch),
            Reader::PyTorch(reader) => reader.verify(&mut watch),
            Reader::Safetensors(reader) => Err(no_checksums(reader.file(), "a safetensors file")),
            Reader::Held(_) => Err(no_checksums(&self.path, "memory")),
        }
    }
}

/// Opens the checkpoint that is one file.
fn open_single(file: &Path) -> Result<Reader> {
    let (mut source, length) = open_file(file)?;
    let format = sniff::format(&mut source).map_err(Error::io(file, "read"))?;
    Ok(match format {
        Some(format @ (Format::PyTorch | Format::PyTorchLegacy)) => {
            Reader::PyTorch(pytorch::Reader::open(file, source, length, format)?)
        }
        Some(Format::Safetensors) => Reader::Safetensors(safetensors::Reader::open(file, source, length)?),
        // What is no table is told what it is.
        _ => Reader::V1(tensorflow::open_v1(file)?),
    })
}

/// What has no checksums cannot be verified.
fn no_checksums(file: &Path, what: &str) -> Error {
    Error::Unsupported {
        file: file.into(),
        found: format!("{what}, which has no checksums"),
        hint: "there is nothing to verify it by".into(),
    }
}

/// Opens a regular file, and tells its length.
fn open_file(file: &Path) -> Result<(File, u64)> {
    require_file(file)?;
    let source = File::open(file).map_err(Error::io(file, "open"))?;
    let length = source.metadata().map_err(Error::io(file, "find the length"))?.len();
    Ok((source, length))
}
