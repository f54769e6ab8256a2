//! Checked reading and writing of NumPy's `.npy` files.
//!
//! The idea: nothing is believed before the file's length confirms it. The crate `npyz` parses headers,
//! but multiplies a shape's numbers unchecked and recurses into nested brackets, so a header passes a
//! check of our own first; then type, order and the exact length are compared, and only then memory is
//! taken, into which the values are read as they stand.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1 to 3.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use bytemuck::Pod;
use ndarray::{ArrayD, ArrayView, Dimension, IxDyn};
use npyz::{DType, NpyHeader, Order, TypeChar, WriterBuilder};

use crate::error::{Error, Result};

/// The longest header accepted, in bytes. NumPy itself reads no longer ones.
pub const MAX_HEADER: usize = 10_000;

/// Brackets in brackets in a header: a dict holds a tuple, or a list of tuples for a structured type.
const MAX_DEPTH: usize = 6;

/// Bytes of data asked of a reader at a time: few enough to be still in the cache when a reader that
/// hashes comes to them, and enough to go past a buffer.
const PIECE: usize = 1 << 17;

/// A type that arrays are read and written in.
pub trait Element: npyz::AutoSerialize + Pod {
    /// NumPy's name for it, for messages: `float32`.
    const NAME: &'static str;
    /// NumPy's kind and size in bytes: `('f', 4)`.
    const KIND: (char, u64);
}

impl Element for f32 {
    const NAME: &'static str = "float32";
    const KIND: (char, u64) = ('f', 4);
}

impl Element for u8 {
    const NAME: &'static str = "uint8";
    const KIND: (char, u64) = ('u', 1);
}

impl Element for i32 {
    const NAME: &'static str = "int32";
    const KIND: (char, u64) = ('i', 4);
}

impl Element for i64 {
    const NAME: &'static str = "int64";
    const KIND: (char, u64) = ('i', 8);
}

/// Reads an array of one type from a regular file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Unsupported`] if it is a folder, a pipe or a
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

/// Reads class labels `[N]` of type int64, int32 or uint8.
///
/// # Errors
/// As for [`read`]; [`Error::Malformed`] also for another shape and for a label that is negative or
/// beyond 32 bits.
pub fn read_labels(path: &Path) -> Result<Vec<u32>> {
    let (file, length) = open_regular(path)?;
    let mut reader = BufReader::new(file);
    let header = read_header(path, &mut reader, length)?;
    let wide: Vec<i64> = match header.kind {
        Some(<i64 as Element>::KIND) => header.values::<i64>(path, reader)?.into_iter().collect(),
        Some(<i32 as Element>::KIND) => widen(header.values::<i32>(path, reader)?),
        Some(<u8 as Element>::KIND) => widen(header.values::<u8>(path, reader)?),
        _ => {
            let expected = "class labels of type int64, int32 or uint8";
            return Err(Error::malformed(path, "header", expected, header.type_name));
        }
    };
    if header.shape.len() != 1 {
        let found = format!("shape {:?}", header.shape);
        return Err(Error::malformed(path, "header", "class labels of shape [N]", found));
    }
    let narrow = |(i, label): (usize, i64)| {
        u32::try_from(label).map_err(|_| {
            let expected = "class labels from 0 to 4294967295";
            Error::malformed(path, format!("element {i}"), expected, label.to_string())
        })
    };
    wide.into_iter().enumerate().map(narrow).collect()
}

fn widen<T: Into<i64>>(labels: ArrayD<T>) -> Vec<i64> {
    labels.into_iter().map(Into::into).collect()
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
/// The writer's.
pub fn write_to<T: Element>(
    writer: impl Write,
    shape: &[usize],
    values: impl IntoIterator<Item = T>,
) -> std::io::Result<()> {
    let shape: Vec<u64> = shape.iter().map(|&d| d as u64).collect();
    let options = npyz::WriteOptions::<T>::new().default_dtype().shape(&shape);
    let mut npy = options.writer(writer).begin_nd()?;
    npy.extend(values)?;
    npy.finish()
}

/// Opens a regular file and tells its length. Looks before opening: opening a pipe would wait for a
/// writer.
///
/// # Errors
/// [`Error::Io`], or [`Error::Unsupported`] if it is not a regular file.
pub fn open_regular(path: &Path) -> Result<(File, u64)> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a folder" } else { "a pipe or device" };
        return Err(Error::Unsupported {
            file: path.into(),
            found: found.into(),
            hint: "give a regular file".into(),
        });
    }
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    Ok((file, metadata.len()))
}

/// A header whose shape fits the file.
struct Header {
    shape: Vec<usize>,
    /// Kind and size of a plain little-endian type.
    kind: Option<(char, u64)>,
    /// The type for a message.
    type_name: String,
    /// Bytes of the file after the header.
    data: u64,
}

impl Header {
    /// Compares the type with what is wanted, and the length with what the shape needs.
    fn check<T: Element>(&self, path: &Path) -> Result<()> {
        if self.kind != Some(T::KIND) {
            let expected = format!("little-endian {}", T::NAME);
            return Err(Error::malformed(path, "header", expected, self.type_name.clone()));
        }
        let elements = self.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let bytes = elements.and_then(|n| n.checked_mul(T::KIND.1));
        if bytes != Some(self.data) {
            let expected = match bytes {
                Some(bytes) => format!("{bytes} bytes of data for shape {:?}", self.shape),
                None => format!("data for shape {:?}", self.shape),
            };
            let found = format!("{} bytes", self.data);
            return Err(Error::malformed(path, "data", expected, found));
        }
        Ok(())
    }

    /// Checks, then reads the values.
    fn values<T: Element>(&self, path: &Path, mut reader: impl Read) -> Result<ArrayD<T>> {
        self.check::<T>(path)?;
        let mut values: Vec<T> = bytemuck::zeroed_vec(self.data as usize / size_of::<T>());
        let bytes = bytemuck::cast_slice_mut::<T, u8>(&mut values);
        bytes.chunks_mut(PIECE).try_for_each(|p| reader.read_exact(p)).map_err(Error::io(path, "read"))?;
        if cfg!(target_endian = "big") {
            bytes.chunks_exact_mut(size_of::<T>()).for_each(<[u8]>::reverse);
        }
        ArrayD::from_shape_vec(IxDyn(&self.shape), values).map_err(|e| {
            let expected = "a shape that an array can have";
            Error::malformed(path, "header", expected, format!("{:?} ({e})", self.shape))
        })
    }
}

/// Reads a header and leaves the reader at the data.
fn read_header(path: &Path, reader: &mut impl Read, length: u64) -> Result<Header> {
    let bad = |expected: &str, found: String| Error::malformed(path, "header", expected, found);
    let mut head = vec![0; 8];
    if length < 10 {
        return Err(bad("an .npy file", format!("{length} bytes")));
    }
    reader.read_exact(&mut head).map_err(Error::io(path, "read"))?;
    if &head[..6] != b"\x93NUMPY" {
        let found = format!("\"{}\"", head.escape_ascii());
        return Err(bad("an .npy file, which begins with \"\\x93NUMPY\"", found));
    }
    let width = match (head[6], head[7]) {
        (1, 0) => 2,
        (2 | 3, 0) => 4,
        (major, minor) => return Err(bad("version 1.0, 2.0 or 3.0", format!("{major}.{minor}"))),
    };
    let mut size = [0; 4];
    let mut limited = reader.take(length - 8);
    limited
        .read_exact(&mut size[..width])
        .map_err(|_| bad("the header's length", "the end of the file".into()))?;
    head.extend_from_slice(&size[..width]);
    let (size, left) = (u32::from_le_bytes(size), limited.limit());
    if u64::from(size) > left || size as usize > MAX_HEADER {
        let expected = format!("a header of at most {MAX_HEADER} bytes, within the file");
        return Err(bad(&expected, format!("{size} bytes, with {left} left in the file")));
    }
    let start = head.len();
    head.resize(start + size as usize, 0);
    limited.read_exact(&mut head[start..]).map_err(Error::io(path, "read"))?;
    check_header(&head[start..]).map_err(|found| bad("a dict that describes an array", found))?;
    let data = left - u64::from(size);
    if let Some((descr, kind, shape)) = usual(&head[start..]) {
        return Ok(Header { shape, kind: Some(kind), type_name: format!("type '{descr}'"), data });
    }
    let npy = NpyHeader::from_reader(&head[..])
        .map_err(|e| bad("a dict that describes an array", e.to_string().replace('\n', " ")))?;
    if npy.order() != Order::C {
        let found = "Fortran order; numpy.ascontiguousarray makes it so";
        return Err(bad("C order", found.into()));
    }
    let shape: std::result::Result<Vec<usize>, _> = npy.shape().iter().map(|&d| d.try_into()).collect();
    let shape = shape.map_err(|_| bad("a shape within memory", format!("{:?}", npy.shape())))?;
    let kind = little_endian_kind(&npy.dtype());
    let type_name = match npy.dtype() {
        DType::Plain(plain) => format!("type '{plain}'"),
        other => format!("the structured type {}", other.descr()),
    };
    Ok(Header { shape, kind, type_name, data })
}

/// Type and shape of a header in the words that NumPy and this crate write, with the type's kind. Any
/// other, right or wrong, is for `npyz`, which reads Python's grammar: for a small array that takes longer
/// than all the rest.
fn usual(text: &[u8]) -> Option<(&str, (char, u64), Vec<usize>)> {
    let text = std::str::from_utf8(text).ok()?.strip_prefix("{'descr': '")?;
    let (descr, text) = text.split_once("', 'fortran_order': False, 'shape': (")?;
    let kind = match descr {
        "<f4" => ('f', 4),
        "|u1" => ('u', 1),
        "<i4" => ('i', 4),
        "<i8" => ('i', 8),
        _ => return None,
    };
    let (list, end) = text.split_once("), }")?;
    if !end.strip_suffix('\n')?.bytes().all(|b| b == b' ') {
        return None;
    }
    let list = list.trim_end_matches(' ');
    if list.is_empty() {
        return Some((descr, kind, Vec::new()));
    }
    let numbers = list.strip_suffix(',').unwrap_or(list);
    let number = |n: &str| {
        let digits = n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'));
        n.parse::<usize>().ok().filter(|_| digits)
    };
    let shape: Vec<_> =
        numbers.split(',').map(|n| number(n.trim_start_matches(' '))).collect::<Option<_>>()?;
    // One number in brackets without a comma is no tuple.
    (shape.len() > 1 || numbers.len() < list.len()).then_some((descr, kind, shape))
}

/// Kind and size of a plain little-endian type.
fn little_endian_kind(dtype: &DType) -> Option<(char, u64)> {
    let DType::Plain(plain) = dtype else { return None };
    let kind = match plain.type_char() {
        TypeChar::Float => 'f',
        TypeChar::Int => 'i',
        TypeChar::Uint => 'u',
        _ => return None,
    };
    let big = plain.endianness() == npyz::Endianness::Big && plain.size_field() > 1;
    (!big).then_some((kind, plain.size_field()))
}

/// Refuses what the parser behind must not see: nesting deep enough to exhaust the stack, and whole
/// numbers whose product overflows. Outside of strings only brackets, separators, decimal digits, True
/// and False are let through, so that no other spelling of a number (`0xff`, `1_000`) slips past.
/// The error says what was found.
fn check_header(text: &[u8]) -> std::result::Result<(), String> {
    let (mut depth, mut product) = (0usize, 1u64);
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        let word = |w: &[u8]| text[at..].starts_with(w).then_some(w.len());
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b':' | b',' | b' ' | b'\n' => {}
            b'\'' | b'"' => at += skip_string(&text[at..])?,
            b'0'..=b'9' => {
                let digits = text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                // A zero elsewhere in the shape does not help: strides are products of a part of it.
                let number = std::str::from_utf8(&text[at..at + digits]).ok();
                let number = number.and_then(|n| n.parse::<u64>().ok());
                product = number
                    .and_then(|n| product.checked_mul(n.max(1)))
                    .ok_or("a shape with more elements than 64 bits can count")?;
                at += digits - 1;
            }
            _ => match word(b"True").or_else(|| word(b"False")) {
                Some(length) => at += length - 1,
                None => return Err(format!("'{}' at byte {at}", byte.escape_ascii())),
            },
        }
        if depth > MAX_DEPTH {
            return Err(format!("brackets nested more than {MAX_DEPTH} deep"));
        }
        at += 1;
    }
    Ok(())
}

/// The distance from a string's opening quote to its closing one. Empty strings are refused, since
/// three quotes in a row would open another kind of string, and so are escapes.
fn skip_string(text: &[u8]) -> std::result::Result<usize, String> {
    match text[1..].iter().position(|b| *b == text[0] || *b == b'\\') {
        Some(n) if text[n + 1] == b'\\' => Err("an escape in a string".into()),
        Some(0) => Err("an empty string".into()),
        Some(n) => Ok(n + 1),
        None => Err("a string without end".into()),
    }
}
