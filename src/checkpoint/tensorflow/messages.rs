//! The messages in the tables, as far as they are read: which numbered field is what.
//!
//! Sources: TensorFlow's `tensor_bundle.proto`, `saved_tensor_slice.proto`, `tensor_slice.proto`,
//! `tensor_shape.proto`, `tensor.proto`. A field that is not named here is stepped over; of one that is
//! repeated though it should not be, the last counts.

use super::slices::{Extent, Slice};
use super::wire::{Fields, Value};
use crate::checkpoint::DType;
use crate::checkpoint::fault::{Fault, quote};

/// The most dimensions of a TensorFlow tensor.
const RANK: usize = 254;

pub(super) fn dtype(value: Value<'_>) -> Result<DType, Fault> {
    // An enum is an int32; a negative one is extended to 64 bits on the wire.
    Ok(match value.varint("a data type")? as i32 {
        1 => DType::Float32,
        2 => DType::Float64,
        3 => DType::Int32,
        7 => DType::String,
        9 => DType::Int64,
        14 => DType::BFloat16,
        19 => DType::Float16,
        other => DType::Other(other),
    })
}

fn name(bytes: &[u8]) -> Result<&str, Fault> {
    match std::str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() => Ok(name),
        _ => Err(Fault::new("a variable's name in UTF-8", quote(bytes))),
    }
}

/// TensorShapeProto.
fn shape(bytes: &[u8]) -> Result<Vec<usize>, Fault> {
    let mut shape = Vec::new();
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            2 => {
                let mut size = 0;
                let mut dimension = Fields(value.bytes("a dimension")?);
                while let Some((number, value)) = dimension.next()? {
                    if number == 1 {
                        size = value.natural("a dimension")?;
                    }
                }
                shape.push(usize::try_from(size).map_err(|_| {
                    Fault::new(format!("a dimension of at most {}", usize::MAX), size.to_string())
                })?);
            }
            3 if value.varint("a flag")? != 0 => {
                return Err(Fault::new("a shape", "an unknown number of dimensions"));
            }
            _ => {}
        }
        if shape.len() > RANK {
            return Err(Fault::new(format!("at most {RANK} dimensions"), "more"));
        }
    }
    Ok(shape)
}

/// TensorSliceProto.
fn slice(bytes: &[u8]) -> Result<Slice, Fault> {
    let mut extents = Vec::new();
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        if number != 1 {
            continue;
        }
        let mut extent = Extent { start: 0, length: None };
        let mut parts = Fields(value.bytes("an extent")?);
        while let Some((number, value)) = parts.next()? {
            match number {
                1 => extent.start = value.natural("the start of a slice")?,
                2 => extent.length = Some(value.natural("the length of a slice")?),
                _ => {}
            }
        }
        extents.push(extent);
        if extents.len() > RANK {
            return Err(Fault::new(format!("a slice of at most {RANK} dimensions"), "more"));
        }
    }
    Ok(Slice(extents))
}

/// SavedSliceMeta: a variable of a V1 file.
pub(super) struct SavedVariable<'a> {
    pub name: &'a str,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub slices: Vec<Slice>,
}

/// The variables in the first entry of a V1 file: SavedTensorSlices with a SavedTensorSliceMeta in it.
/// `take` is called with each.
pub(super) fn saved_variables<'a>(
    entry: &'a [u8],
    mut take: impl FnMut(SavedVariable<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut fields = Fields(entry);
    while let Some((number, value)) = fields.next()? {
        if number != 1 {
            continue;
        }
        let mut meta = Fields(value.bytes("the list of variables")?);
        while let Some((number, value)) = meta.next()? {
            if number == 1 {
                take(saved_variable(value.bytes("a variable")?)?)?;
            }
        }
    }
    Ok(())
}

fn saved_variable(bytes: &[u8]) -> Result<SavedVariable<'_>, Fault> {
    let mut variable =
        SavedVariable { name: "", dtype: DType::Other(0), shape: Vec::new(), slices: Vec::new() };
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => variable.name = name(value.bytes("a name")?)?,
            2 => variable.shape = shape(value.bytes("a shape")?)?,
            3 => variable.dtype = dtype(value)?,
            4 => variable.slices.push(slice(value.bytes("a slice")?)?),
            _ => {}
        }
    }
    if variable.name.is_empty() {
        return Err(Fault::new("a variable's name", "none"));
    }
    Ok(variable)
}

/// The TensorProto in a data entry of a V1 file: SavedTensorSlices with a SavedSlice in it, which must be
/// `expected` of the variable `of`.
pub(super) fn saved_tensor<'a>(entry: &'a [u8], of: &str, expected: &Slice) -> Result<&'a [u8], Fault> {
    let (mut found_name, mut found_slice, mut tensor) = (&b""[..], Slice(Vec::new()), &b""[..]);
    let mut fields = Fields(entry);
    while let Some((number, value)) = fields.next()? {
        if number != 2 {
            continue;
        }
        let mut saved = Fields(value.bytes("a saved slice")?);
        while let Some((number, value)) = saved.next()? {
            match number {
                1 => found_name = value.bytes("a name")?,
                2 => found_slice = slice(value.bytes("a slice")?)?,
                3 => tensor = value.bytes("a tensor")?,
                _ => {}
            }
        }
    }
    if found_name != of.as_bytes() {
        return Err(Fault::new("the name of its key in the entry", format!("{} in it", quote(found_name))));
    }
    if found_slice != *expected {
        return Err(Fault::new("the slice of its key in the entry", "another slice in it"));
    }
    Ok(tensor)
}

/// BundleHeaderProto: the first entry of a V2 index.
#[derive(Default)]
pub(super) struct BundleHeader {
    pub shards: u64,
    pub big_endian: bool,
    /// The oldest reader that can read the files.
    pub min_consumer: u64,
}

impl BundleHeader {
    pub fn decode(bytes: &[u8]) -> Result<BundleHeader, Fault> {
        let mut header = BundleHeader::default();
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => header.shards = value.natural("the number of shards")?,
                2 => header.big_endian = value.varint("the byte order")? != 0,
                3 => {
                    let mut version = Fields(value.bytes("the version")?);
                    while let Some((number, value)) = version.next()? {
                        if number == 2 {
                            header.min_consumer = value.natural("a version")?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(header)
    }
}

/// BundleEntryProto: a variable, or a slice of one, of a V2 index.
pub(super) struct BundleEntry {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub shard: u64,
    pub offset: u64,
    pub size: u64,
    /// Masked CRC-32C of the `size` bytes.
    pub checksum: u32,
    /// Empty unless the variable's data are under the keys of these slices.
    pub slices: Vec<Slice>,
}

impl BundleEntry {
    pub fn decode(bytes: &[u8]) -> Result<BundleEntry, Fault> {
        let mut entry = BundleEntry {
            dtype: DType::Other(0),
            shape: Vec::new(),
            shard: 0,
            offset: 0,
            size: 0,
            checksum: 0,
            slices: Vec::new(),
        };
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => entry.dtype = dtype(value)?,
                2 => entry.shape = shape(value.bytes("a shape")?)?,
                3 => entry.shard = value.natural("a shard's number")?,
                4 => entry.offset = value.natural("an offset")?,
                5 => entry.size = value.natural("a size")?,
                6 => entry.checksum = value.fixed32("a checksum")?,
                7 => entry.slices.push(slice(value.bytes("a slice")?)?),
                _ => {}
            }
        }
        Ok(entry)
    }
}
