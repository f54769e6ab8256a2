//! Checked reading and writing of NumPy's `.npy` files, and reading of `.npz`, which are archives of them.
//!
//! The idea: nothing is believed before the file's length confirms it. A header is checked and parsed; then
//! type, order and the exact length are compared, and the length with what memory holds; only then memory is
//! taken, into which the values are read as they stand.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1 to 3.

mod header;
mod labels;
mod npz;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use ndarray::{ArrayD, ArrayView, Dimension};

use crate::error::{Error, Result};
use header::{Header, read_header};
pub use labels::{Labels, labels_of, read_labels};

/// Values written at a time.
const PIECE: usize = 1 << 12;

/// A type that arrays are read and written in.
pub trait Element: Pod {
    /// NumPy's name for it, for messages: `float32`.
    const NAME: &'static str;
    /// NumPy's name for it in files: `<f4`.
    const DESCR: &'static str;
    /// NumPy's kind and size in bytes: `('f', 4)`.
    const KIND: (char, u64);
}

impl Element for f32 {
    const NAME: &'static str = "float32";
    const DESCR: &'static str = "<f4";
    const KIND: (char, u64) = ('f', 4);
}

impl Element for f64 {
    const NAME: &'static str = "float64";
    const DESCR: &'static str = "<f8";
    const KIND: (char, u64) = ('f', 8);
}

impl Element for u8 {
    const NAME: &'static str = "uint8";
    const DESCR: &'static str = "|u1";
    const KIND: (char, u64) = ('u', 1);
}

impl Element for u16 {
    const NAME: &'static str = "uint16";
    const DESCR: &'static str = "<u2";
    const KIND: (char, u64) = ('u', 2);
}

impl Element for i32 {
    const NAME: &'static str = "int32";
    const DESCR: &'static str = "<i4";
    const KIND: (char, u64) = ('i', 4);
}

impl Element for i64 {
    const NAME: &'static str = "int64";
    const DESCR: &'static str = "<i8";
    const KIND: (char, u64) = ('i', 8);
}

/// Reads an array of one type from a regular file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Unsupported`] if it is a directory, a pipe or a
/// device, [`Error::Malformed`] if it is not an `.npy` file of that type, in C order, of exactly the
/// length that its shape needs.
pub fn read<T: Element>(path: &Path) -> Result<ArrayD<T>> {
    let (file, length) = open_regular(path)?;
    read_from(path, BufReader::new(file), length)
}

/// [`read`] for float32.
///
/// # Errors
/// As for [`read`].
pub fn read_f32(path: &Path) -> Result<ArrayD<f32>> {
    read(path)
}

/// [`read`] for uint8.
///
/// # Errors
/// As for [`read`].
pub fn read_u8(path: &Path) -> Result<ArrayD<u8>> {
    read(path)
}

/// The shape of an array of one type, from its header and the file's length alone.
///
/// # Errors
/// As for [`read`].
pub fn shape_of<T: Element>(path: &Path) -> Result<Vec<usize>> {
    let (file, length) = open_regular(path)?;
    // A usual header is 128 bytes long: one read, and little that is read in vain.
    let header = read_header(path, &mut BufReader::with_capacity(256, file), length)?;
    header.check::<T>(path)?;
    Ok(header.shape)
}

/// Reads an array from the bytes of a whole `.npy` file. `name` stands in for the file in messages.
///
/// # Errors
/// [`Error::Malformed`] as for [`read`].
pub fn parse<T: Element>(name: &Path, bytes: &[u8]) -> Result<ArrayD<T>> {
    read_from(name, bytes, bytes.len() as u64)
}

/// Reads an array from the `length` bytes of a whole `.npy` file and leaves the reader behind them.
/// `name` stands in for the file in messages.
///
/// # Errors
/// [`Error::Io`] from the reader, [`Error::Malformed`] as for [`read`].
pub fn read_from<T: Element>(name: &Path, mut reader: impl Read, length: u64) -> Result<ArrayD<T>> {
    let header = read_header(name, &mut reader, length)?;
    header.values(name, reader)
}

/// Writes an array to a new file, or over an old one.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn write<T: Element, D: Dimension>(path: &Path, array: &ArrayView<T, D>) -> Result<()> {
    let file = File::create(path).map_err(Error::io(path, "create"))?;
    let mut writer = std::io::BufWriter::new(file);
    write_to(&mut writer, array.shape(), array.iter().copied())
        .and_then(|()| writer.flush())
        .map_err(Error::io(path, "write"))
}

/// Writes an array's header and values, given in C order, to any writer.
///
/// # Errors
/// The writer's; also for another number of values than the shape has.
pub fn write_to<T: Element>(
    mut writer: impl Write,
    shape: &[usize],
    values: impl IntoIterator<Item = T>,
) -> std::io::Result<()> {
    writer.write_all(&header::written::<T>(shape)?)?;
    let mut left: usize = shape.iter().product();
    let mut values = values.into_iter();
    let mut piece = Vec::with_capacity(left.min(PIECE));
    loop {
        piece.clear();
        piece.extend(values.by_ref().take(PIECE));
        if piece.len() > left || piece.is_empty() && left > 0 {
            let message = format!("another number of values than those of shape {shape:?}");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
        }
        if piece.is_empty() {
            return Ok(());
        }
        left -= piece.len();
        let bytes = bytemuck::cast_slice_mut::<T, u8>(&mut piece);
        if cfg!(target_endian = "big") {
            bytes.chunks_exact_mut(size_of::<T>()).for_each(<[u8]>::reverse);
        }
        writer.write_all(bytes)?;
    }
}

/// Opens a regular file and tells its length. Looks before opening: opening a pipe would wait for a
/// writer.
///
/// # Errors
/// [`Error::Io`], or [`Error::Unsupported`] if it is not a regular file.
pub fn open_regular(path: &Path) -> Result<(File, u64)> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a directory" } else { "a pipe or device" };
        return Err(Error::Unsupported {
            file: path.into(),
            found: found.into(),
            hint: "give a regular file".into(),
        });
    }
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    Ok((file, metadata.len()))
}

/// An array of an `.npy` file, or one of an `.npz` file, before its values are read.
pub struct Found<'a> {
    /// The file, and for one of an `.npz` file its name there; for messages.
    pub name: PathBuf,
    /// Its key in an `.npz` file.
    pub key: Option<String>,
    /// Whether the file is in ImageNet32's form; see [`planar_side`].
    pub imagenet: bool,
    header: Header,
    reader: &'a mut dyn Read,
}

impl Found<'_> {
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.header.shape
    }

    /// NumPy's kind and size in bytes of a plain little-endian type: `('f', 4)`.
    pub fn kind(&self) -> Option<(char, u64)> {
        self.header.kind
    }

    /// The type, for messages.
    pub fn type_name(&self) -> &str {
        &self.header.type_name
    }

    /// [`Found::values`] of any of the types in which whole numbers are found: int64, int32, uint16 and uint8.
    /// `what` they are, for messages.
    ///
    /// # Errors
    /// As for [`read`].
    pub fn integers(self, what: &str) -> Result<ArrayD<i64>> {
        match self.kind() {
            Some(<i64 as Element>::KIND) => self.values(),
            Some(<i32 as Element>::KIND) => Ok(self.values::<i32>()?.mapv(i64::from)),
            Some(<u16 as Element>::KIND) => Ok(self.values::<u16>()?.mapv(i64::from)),
            Some(<u8 as Element>::KIND) => Ok(self.values::<u8>()?.mapv(i64::from)),
            _ => {
                let expected = format!("{what} of type int64, int32, uint16 or uint8");
                Err(Error::malformed(&self.name, "header", expected, self.type_name()))
            }
        }
    }

    /// Reads the values, up to the end of the array's file, where an archive compares its checksum.
    ///
    /// # Errors
    /// As for [`read`].
    pub fn values<T: Element>(self) -> Result<ArrayD<T>> {
        let values = self.header.values(&self.name, &mut *self.reader)?;
        match self.reader.read(&mut [0]) {
            Ok(0) => Ok(values),
            Ok(_) => Err(Error::malformed(&self.name, "data", "the end of the file", "more bytes")),
            Err(e) => Err(Error::io(&self.name, "read")(e)),
        }
    }
}

/// Finds the array of an `.npy` file, or one of an `.npz` file: that with the key, else the only one, else
/// the one that is called `usual`. The contents tell the kind of file, not the name.
///
/// # Errors
/// As for [`read`], and those of `body`. [`Error::Several`] for a file of several arrays, where none is
/// called so, and for a key where there is none to choose by it.
pub fn find<R>(
    path: &Path,
    key: Option<&str>,
    usual: &str,
    body: impl FnOnce(Found) -> Result<R>,
) -> Result<R> {
    let (file, length) = open_regular(path)?;
    let mut reader = BufReader::new(file);
    if npz::is_archive(reader.fill_buf().map_err(Error::io(path, "read"))?) {
        return npz::find(path, reader, key, usual, body);
    }
    if let Some(key) = key {
        return Err(no_key(path, key));
    }
    let header = read_header(path, &mut reader, length)?;
    body(Found { name: path.into(), key: None, imagenet: false, header, reader: &mut reader })
}

/// Whether a file that begins so is an `.npy` or `.npz` file; 8 bytes tell.
pub fn is_numpy(start: &[u8]) -> bool {
    start.starts_with(b"\x93NUMPY") || npz::is_archive(start)
}

/// What to say of a key where there are no keys.
pub fn no_key(path: &Path, key: &str) -> Error {
    Error::Unsupported {
        file: path.into(),
        found: format!("no .npz file, whose arrays have keys such as \"{}\"", key.escape_debug()),
        hint: "leave the key out".into(),
    }
}

/// The side of square images in ImageNet32's form, `[N, 3 * side * side]`: all of an image's red, then all of
/// its green and its blue, each row by row. `None` for another shape.
pub fn planar_side(shape: &[usize]) -> Option<usize> {
    let &[_, values] = shape else { return None };
    let side = (values / 3).isqrt();
    (values > 0 && side.checked_mul(side)?.checked_mul(3)? == values).then_some(side)
}
