//! The headers of `.npy` files, read and written.
//!
//! The idea: the crate `npyz` parses Python's grammar, but multiplies a shape's numbers unchecked and recurses
//! into nested brackets, so a header passes a check of our own first. What it writes, `(4, 8, 8, 3, )`, is not
//! what NumPy writes, and some readers only know NumPy's words; so these are written here, byte for byte.

use std::io::Read;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use npyz::{DType, NpyHeader, Order, TypeChar};

use super::Element;
use crate::error::{Error, Result};
use crate::memory;

/// The longest header accepted, in bytes. NumPy itself reads no longer ones.
const MAX_HEADER: usize = 10_000;

/// Brackets in brackets in a header: a dict holds a tuple, or a list of tuples for a structured type.
const MAX_DEPTH: usize = 6;

/// Bytes of data asked of a reader at a time: few enough to be still in the cache when a reader that
/// hashes comes to them, and enough to go past a buffer.
const PIECE: usize = 1 << 17;

/// Data begin at a multiple of this.
const ALIGN: usize = 64;

/// Digits for which NumPy leaves room, so that the first axis can grow in place.
const GROWTH_DIGITS: usize = 21;

/// What precedes the data of an array in C order: `numpy.save`'s own bytes.
///
/// # Errors
/// For a shape whose header is beyond 65,535 bytes.
pub(super) fn written<T: Element>(shape: &[usize]) -> std::io::Result<Vec<u8>> {
    let numbers: Vec<String> = shape.iter().map(usize::to_string).collect();
    let tuple = match &numbers[..] {
        [one] => format!("({one},)"),
        many => format!("({})", many.join(", ")),
    };
    let dict = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {tuple}, }}", T::DESCR);
    let growth = numbers.first().map_or(0, |first| GROWTH_DIGITS - first.len());
    // Magic, version, length, dict and line break; NumPy pads what is aligned by another whole piece.
    let used = 10 + dict.len() + growth + 1;
    let length = used + (ALIGN - used % ALIGN) - 10;
    let too_long = |_| std::io::Error::new(std::io::ErrorKind::InvalidInput, "a shape of too many axes");
    let stated = u16::try_from(length).map_err(too_long)?;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(stated.to_le_bytes());
    bytes.extend(format!("{dict:<width$}\n", width = length - 1).bytes());
    Ok(bytes)
}

/// A header whose shape can be counted.
pub(super) struct Header {
    pub(super) shape: Vec<usize>,
    /// Kind and size of a plain little-endian type.
    pub(super) kind: Option<(char, u64)>,
    /// The type for a message.
    pub(super) type_name: String,
    /// Bytes of the file after the header.
    data: u64,
}

impl Header {
    /// Compares the type with what is wanted, and the length with what the shape needs.
    pub(super) fn check<T: Element>(&self, path: &Path) -> Result<()> {
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
    pub(super) fn values<T: Element>(&self, path: &Path, mut reader: impl Read) -> Result<ArrayD<T>> {
        self.check::<T>(path)?;
        let mut values: Vec<T> = memory::zeros(self.data / T::KIND.1).map_err(|available| {
            let expected = format!("at most {} MiB, which is what memory holds", available >> 20);
            Error::malformed(path, "data", expected, format!("{} MiB", self.data >> 20))
        })?;
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
pub(super) fn read_header(path: &Path, mut reader: impl Read, length: u64) -> Result<Header> {
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
    check_header(&mut head[start..]).map_err(|found| bad("a dict that describes an array", found))?;
    let data = left - u64::from(size);
    if let Some((descr, kind, shape)) = usual(&head[start..]) {
        return Ok(Header { shape, kind: Some(kind), type_name: format!("type '{descr}'"), data });
    }
    let npy = NpyHeader::from_reader(&head[..])
        .map_err(|e| bad("a dict that describes an array", short(&e.to_string())))?;
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

/// A parser's message of several lines, which may show the whole header, as a line.
fn short(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

/// Type and shape of a header in the words that NumPy and this crate write, with the type's kind. Any
/// other, right or wrong, is for `npyz`, which reads Python's grammar: for a small array that takes longer
/// than all the rest.
fn usual(text: &[u8]) -> Option<(&str, (char, u64), Vec<usize>)> {
    let text = std::str::from_utf8(text).ok()?.strip_prefix("{'descr': '")?;
    let (descr, text) = text.split_once("', 'fortran_order': False, 'shape': (")?;
    let types = [of::<f32>(), of::<u8>(), of::<i32>(), of::<i64>()];
    let (_, kind) = types.into_iter().find(|(name, _)| *name == descr)?;
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

/// A type in a header's words, and its kind.
fn of<T: Element>() -> (&'static str, (char, u64)) {
    (T::DESCR, T::KIND)
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
/// and False are let through, so that no other spelling of a number (`0xff`, `1_000`) slips past; the L
/// that Python 2 wrote behind a long one is blanked. The error says what was found.
fn check_header(text: &mut [u8]) -> std::result::Result<(), String> {
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
                if text.get(at + digits) == Some(&b'L') {
                    text[at + digits] = b' ';
                }
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
