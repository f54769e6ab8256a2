//! PyTorch's files: the zip archives of `torch.save` (1.6 and later) and the legacy stream of pickles before.
//!
//! The idea: the crate `pytorch-reader` interprets the pickle, of which nothing is executed, and lists each tensor
//! by its dotted path through the file's dictionaries: `state_dict.u_init.conv.bias`. What a hostile file could
//! make it do is ruled out in front of it. It takes some 100 bytes for a byte of a pickle, a hundred for an entry
//! of the archive's directory, a name for every tensor however long its keys are, and reads at once what a tensor
//! spans in its storage; so pickles, directory and names are measured first, values may not be compressed, and
//! the file must fit the memory.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use pytorch_reader::{PickleError, PickleValue, PytorchError, PytorchReader, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::fault::{Fault, quote};
use super::{
    DType, Format, METADATA_LIMIT, VARIABLES, Variable, Verified, find_float, no_checksums, volume, zeros,
};
use crate::error::{Error, Result, cut, printable};
use crate::memory;

/// The most bytes of a file's pickles. A tensor takes some 200; those of the paper's model and an optimiser's
/// beside them some 400 KiB.
const PICKLES: u64 = 2 << 20;

/// The most bytes that are read to find an archive's directory and to take it in.
const DIRECTORY: u64 = 2 * METADATA_LIMIT as u64;

/// Pickles at the start of a legacy file: magic number, version, system, contents, order of the storages.
const LEGACY_PICKLES: usize = 5;

/// An open file of PyTorch's.
#[derive(Debug)]
pub(super) struct Reader {
    file: PathBuf,
    length: u64,
    format: Format,
    variables: Vec<Variable>,
    /// Of each variable, in the same order.
    tensors: Vec<Tensor>,
}

impl Reader {
    /// Takes in the names, types and shapes of every tensor. `length` and `format` are the file's.
    pub(super) fn open(file: &Path, source: File, length: u64, format: Format) -> Result<Reader> {
        if let Some(available) = memory::available().filter(|&available| length > available) {
            let expected = format!("at most the {} MiB of memory that are available", available >> 20);
            return Err(Error::malformed(file, "length", expected, format!("{} MiB", length >> 20)));
        }
        match format {
            Format::PyTorchLegacy => check_pickles(file, source)?,
            _ => check_archive(file, source)?,
        }
        let contents = PytorchReader::read_pickle_data(file, None).map_err(refusal(file))?;
        if !matches!(contents, PickleValue::Dict(_)) {
            return Err(not_a_dictionary(file, "it holds one other thing"));
        }
        measure(&contents, 0, &mut 0).map_err(|fault| fault.at(file, "the names of its tensors"))?;
        drop(contents);
        let tensors = PytorchReader::new(file).map_err(refusal(file))?.into_tensors();
        let mut tensors: Vec<_> = tensors.into_iter().collect();
        tensors.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let (variables, tensors) = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let variable = Variable { name, dtype: dtype(&tensor), shape: tensor.shape().to_vec() };
                (variable, tensor)
            })
            .unzip();
        Ok(Reader { file: file.into(), length, format, variables, tensors })
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn variables(&self) -> &[Variable] {
        &self.variables
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let (index, size) = find_float(&self.variables, &self.file, name)?;
        let Variable { dtype, shape, .. } = &self.variables[index];
        let place = || format!("tensor {}", quote(name.as_bytes()));
        let at = |fault: Fault| fault.at(&self.file, place());
        // A view may repeat its values: its shape is not bounded by its storage.
        let count = volume(shape, self.length / size as u64).map_err(at)?;
        let mut values = zeros::<f32>(count).map_err(at)?;
        let bytes = self.tensors[index].read().map_err(|error| match error.raw_os_error() {
            Some(_) => Error::io(&self.file, format!("read {}", place()))(error),
            None => at(Fault::new("its values", said(&error))),
        })?;
        // The crate gives them in the machine's order.
        let bytes = if cfg!(target_endian = "big") {
            bytes.chunks_exact(size).flat_map(|value| value.iter().rev().copied()).collect()
        } else {
            bytes
        };
        dtype.widen(&bytes, &mut values);
        Ok(values)
    }

    /// Compares the checksum of every entry of an archive; a legacy file has none.
    pub(super) fn verify(&self, watch: &mut dyn FnMut() -> Result<()>) -> Result<Verified> {
        if self.format == Format::PyTorchLegacy {
            return Err(no_checksums(&self.file, "a legacy PyTorch file"));
        }
        let source = File::open(&self.file).map_err(Error::io(&self.file, "open"))?;
        let mut archive = ZipArchive::new(BufReader::new(source)).map_err(damaged(&self.file))?;
        for index in 0..archive.len() {
            watch()?;
            let mut entry = archive.by_index(index).map_err(damaged(&self.file))?;
            if entry.crc32() == 0 && entry.size() > 0 {
                return Err(no_checksums(&self.file, "a PyTorch file of its kind"));
            }
            let name = entry.name().map(|name| quote(name.as_bytes())).unwrap_or_default();
            io::copy(&mut entry, &mut io::sink()).map_err(|error| match error.raw_os_error() {
                Some(_) => Error::io(&self.file, "read")(error),
                None => Error::malformed(&self.file, format!("entry {name}"), "its checksum", said(&error)),
            })?;
        }
        Ok(Verified { variables: self.variables.len(), bytes: self.length, skipped: Vec::new() })
    }
}

fn dtype(tensor: &Tensor) -> DType {
    use pytorch_reader::DType as Torch;
    match tensor.dtype() {
        Torch::F64 => DType::Float64,
        Torch::F32 => DType::Float32,
        Torch::F16 => DType::Float16,
        Torch::BF16 => DType::BFloat16,
        Torch::I64 => DType::Int64,
        Torch::I32 => DType::Int32,
        Torch::I16 => DType::Named("int16"),
        Torch::I8 => DType::Named("int8"),
        Torch::U64 => DType::Named("uint64"),
        Torch::U32 => DType::Named("uint32"),
        Torch::U16 => DType::Named("uint16"),
        Torch::U8 => DType::Named("uint8"),
        Torch::Bool => DType::Named("bool"),
    }
}

/// What the crate says, fit for a line of a message.
fn said(error: &impl ToString) -> String {
    cut(&printable(&error.to_string()), 200)
}

/// What `torch.save` was given when it was no dictionary of tensors.
fn not_a_dictionary(file: &Path, what: &str) -> Error {
    Error::Unsupported {
        file: file.into(),
        found: format!("a PyTorch file without a dictionary of tensors: {what}"),
        hint: "save model.state_dict() with torch.save".into(),
    }
}

fn refusal(file: &Path) -> impl FnOnce(PytorchError) -> Error {
    move |error| match error {
        PytorchError::Io(e) | PytorchError::Pickle(PickleError::Io(e)) if e.raw_os_error().is_some() => {
            Error::io(file, "read")(e)
        }
        PytorchError::Pickle(PickleError::UnsupportedType(name)) => {
            not_a_dictionary(file, &format!("it holds {}", said(&name)))
        }
        other => Error::malformed(file, "contents", "what torch.save writes", said(&other)),
    }
}

fn damaged(file: &Path) -> impl FnOnce(zip::result::ZipError) -> Error {
    move |error| match error {
        zip::result::ZipError::Io(e) if e.raw_os_error().is_some() => Error::io(file, "read")(e),
        other => Error::malformed(file, "archive", "a whole and valid PyTorch file", said(&other)),
    }
}

/// A file that gives a limited number of bytes.
struct Rationed<'a> {
    source: File,
    left: &'a Cell<u64>,
}

impl Read for Rationed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(bytes)?;
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.ok_or_else(|| io::Error::other(format!("a directory beyond {DIRECTORY} bytes")))?);
        Ok(count)
    }
}

impl Seek for Rationed<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.source.seek(to)
    }
}

/// Refuses an archive with a directory or a pickle out of proportion, or with anything compressed:
/// `torch.save` compresses nothing, and what is not compressed is no longer than the file.
fn check_archive(file: &Path, source: File) -> Result<()> {
    let left = Cell::new(DIRECTORY);
    let mut archive =
        ZipArchive::new(BufReader::new(Rationed { source, left: &left })).map_err(damaged(file))?;
    left.set(u64::MAX);
    if archive.len() > VARIABLES {
        let found = archive.len().to_string();
        return Err(Error::malformed(file, "archive", format!("at most {VARIABLES} entries"), found));
    }
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(damaged(file))?;
        let name = entry.name().map_err(damaged(file))?;
        let place = || format!("entry {}", quote(name.as_bytes()));
        if entry.compression() != CompressionMethod::Stored {
            return Err(Error::Unsupported {
                file: file.into(),
                found: format!("a PyTorch file that was compressed ({})", place()),
                hint: "give it as torch.save wrote it".into(),
            });
        }
        if name.ends_with("data.pkl") && entry.size() > PICKLES {
            let found = format!("{} bytes", entry.size());
            return Err(Error::malformed(file, place(), format!("at most {PICKLES} bytes"), found));
        }
    }
    Ok(())
}

/// Refuses a legacy file with pickles out of proportion.
fn check_pickles(file: &Path, mut source: File) -> Result<()> {
    source.seek(SeekFrom::Start(0)).map_err(Error::io(file, "read"))?;
    let mut source = BufReader::new(source).take(PICKLES);
    for _ in 0..LEGACY_PICKLES {
        if let Err(error) = skip_pickle(&mut source) {
            if error.raw_os_error().is_some() {
                return Err(Error::io(file, "read")(error));
            }
            let expected = format!("{LEGACY_PICKLES} of at most {PICKLES} bytes");
            let found = if source.limit() == 0 { "more".into() } else { said(&error) };
            return Err(Error::malformed(file, "pickles", expected, found));
        }
    }
    Ok(())
}

/// Reads to the end of a pickle, which only its last opcode tells: each has an argument of its own form.
fn skip_pickle(source: &mut impl BufRead) -> io::Result<()> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    loop {
        let [opcode] = array(source)?;
        let length = match opcode {
            b'.' => return Ok(()),
            b'(' | b')' | b'0' | b'1' | b'2' | b'N' | b'Q' | b'R' | b']' | b'}' => 0,
            b'a' | b'b' | b'd' | b'e' | b'l' | b's' | b't' | b'u' | 0x81 | 0x85..=0x89 | 0x8f..=0x94 => 0,
            b'K' | b'h' | b'q' | 0x80 => 1,
            b'M' => 2,
            b'J' | b'j' | b'r' => 4,
            b'G' | 0x95 => 8,
            b'C' | b'U' | 0x8a | 0x8c => u8::from_le_bytes(array(source)?).into(),
            b'B' | b'T' | b'X' | 0x8b => u32::from_le_bytes(array(source)?).into(),
            0x8d | 0x8e | 0x96 => u64::from_le_bytes(array(source)?),
            b'F' | b'I' | b'L' | b'P' | b'V' | b'c' | b'g' | b'p' => {
                for _ in 0..=u8::from(opcode == b'c') {
                    source.skip_until(b'\n')?;
                }
                0
            }
            other => return Err(bad(format!("the opcode {other:#04x}"))),
        };
        if io::copy(&mut source.take(length), &mut io::sink())? < length {
            return Err(bad("the end of the file inside one".into()));
        }
    }
}

fn array<const N: usize>(source: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes).map(|()| bytes)
}

/// Adds up the bytes of the dotted names of all tensors, to each of which `path` leads from the root, and refuses
/// what is out of proportion.
fn measure(value: &PickleValue, path: usize, names: &mut usize) -> std::result::Result<(), Fault> {
    match value {
        PickleValue::Dict(entries) => {
            entries.iter().try_for_each(|(key, value)| measure(value, path + key.len() + 1, names))
        }
        PickleValue::List(items) => {
            let digits = items.len().to_string().len();
            items.iter().try_for_each(|value| measure(value, path + digits + 1, names))
        }
        // Tensors are among what has no value here. A short name counts for the rest of what each takes.
        PickleValue::Unsupported(_) => {
            *names += path.max(METADATA_LIMIT / VARIABLES);
            let most = format!("at most {METADATA_LIMIT} bytes and {VARIABLES} tensors");
            if *names > METADATA_LIMIT { Err(Fault::new(most, "more")) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}
