//! Writes tables, messages and small checkpoints: sound ones and, a piece at a time, unsound ones.
//!
//! The idea: everything returns bytes, so a test builds any file by putting pieces together, and shares
//! no code with the readers it tests.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::ops::Range;

pub const MAGIC: u64 = 0xdb47_7524_8b80_fb57;

pub fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

// Fields of protocol buffers.

pub fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

pub fn run(field: u64, bytes: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2), &varint(bytes.len() as u64), bytes].concat()
}

pub fn fixed32(field: u64, value: u32) -> Vec<u8> {
    [&varint(field << 3 | 5)[..], &value.to_le_bytes()].concat()
}

// Tables.

/// An entry with the lengths it should have, but for `shared`.
pub fn entry(shared: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
    let lengths = [varint(shared), varint(key.len() as u64), varint(value.len() as u64)].concat();
    [&lengths, key, value].concat()
}

/// A block of entries with one restart offset, 0.
pub fn block(entries: &[u8]) -> Vec<u8> {
    [entries, &[0; 4], &1u32.to_le_bytes()].concat()
}

/// A block with its trailer.
pub fn seal(block: &[u8], compression: u8) -> Vec<u8> {
    let bytes = [block, &[compression]].concat();
    [&bytes[..], &masked(&bytes).to_le_bytes()].concat()
}

pub fn handle(offset: u64, size: u64) -> Vec<u8> {
    [varint(offset), varint(size)].concat()
}

/// A footer from two handles.
pub fn footer(metaindex: &[u8], index: &[u8]) -> Vec<u8> {
    let mut bytes = [metaindex, index].concat();
    bytes.resize(40, 0);
    bytes.extend(MAGIC.to_le_bytes());
    bytes
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A table in the making.
#[derive(Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
    /// The entries of the index block.
    pub index: Vec<u8>,
    /// The blocks with their trailers.
    pub sealed: Vec<Range<usize>>,
}

impl Writer {
    /// Adds sealed bytes to the file and returns their handle.
    pub fn put(&mut self, sealed: Vec<u8>) -> Vec<u8> {
        let start = self.bytes.len();
        self.bytes.extend(&sealed);
        self.sealed.push(start..self.bytes.len());
        handle(start as u64, sealed.len() as u64 - 5)
    }

    /// Adds a data block of any contents and its entry in the index.
    pub fn raw(&mut self, contents: &[u8], key: &[u8]) -> &mut Writer {
        let handle = self.put(seal(contents, 0));
        self.index.extend(entry(0, key, &handle));
        self
    }

    /// Adds a data block of these entries, in their order, whose keys share what they can.
    pub fn data(&mut self, entries: &[Entry]) -> &mut Writer {
        let mut bytes = Vec::new();
        let mut last: &[u8] = &[];
        for (key, value) in entries {
            let shared = key.iter().zip(last).take_while(|(a, b)| a == b).count();
            bytes.extend(entry(shared as u64, &key[shared..], value));
            last = key;
        }
        let last = last.to_vec();
        self.raw(&block(&bytes), &last)
    }

    /// Adds metaindex, index and footer.
    pub fn finish(&mut self) -> Vec<u8> {
        let metaindex = self.put(seal(&block(&[]), 0));
        let index = self.put(seal(&block(&self.index.clone()), 0));
        self.bytes.extend(footer(&metaindex, &index));
        self.bytes.clone()
    }
}

/// A table of one block for each entry, in their order.
pub fn table(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::default();
    for entry in entries {
        writer.data(std::slice::from_ref(entry));
    }
    writer.finish()
}

/// Makes the checksums of `sealed` blocks right again.
pub fn reseal(bytes: &mut [u8], sealed: &[Range<usize>]) {
    for range in sealed {
        let middle = range.end - 4;
        let checksum = masked(&bytes[range.start..middle]).to_le_bytes();
        bytes[middle..range.end].copy_from_slice(&checksum);
    }
}

// What both formats describe variables with.

pub fn shape(dimensions: &[u64]) -> Vec<u8> {
    dimensions.iter().flat_map(|&size| run(2, &number(1, size))).collect()
}

/// A slice: for each dimension start and length, or all of it.
pub type Extents<'a> = &'a [Option<(u64, u64)>];

pub fn slice(extents: Extents<'_>) -> Vec<u8> {
    let extent = |extent: &Option<(u64, u64)>| match extent {
        Some((start, length)) => run(1, &[number(1, *start), number(2, *length)].concat()),
        None => run(1, &[]),
    };
    extents.iter().flat_map(extent).collect()
}

/// The key of a slice; names and numbers are short ones, of one byte.
pub fn slice_key(name: &str, extents: Extents<'_>) -> Vec<u8> {
    let mut key = [&[0], name.as_bytes(), &[0, 1]].concat();
    match extents.len() {
        0 => key.push(0),
        rank => key.extend([1, rank as u8]),
    }
    for extent in extents {
        match *extent {
            Some((start, length)) => key.extend([0x80 | start as u8, 0x80 | length as u8]),
            None => key.extend([0x80, 0x7f]),
        }
    }
    key
}

pub fn packed(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

// The V1 format.

/// A variable for the list of variables.
pub fn v1_variable(name: &str, dtype: u64, shape: &[u8], slices: &[Extents<'_>]) -> Vec<u8> {
    let mut bytes = [run(1, name.as_bytes()), run(2, shape), number(3, dtype)].concat();
    for extents in slices {
        bytes.extend(run(4, &slice(extents)));
    }
    bytes
}

/// The entry that lists variables.
pub fn v1_list(variables: &[Vec<u8>]) -> Entry {
    let list: Vec<u8> = variables.iter().flat_map(|variable| run(1, variable)).collect();
    (Vec::new(), run(1, &list))
}

/// The entry of a slice whose TensorProto is `tensor`.
pub fn v1_slice(name: &str, extents: Extents<'_>, tensor: &[u8]) -> Entry {
    let saved = [run(1, name.as_bytes()), run(2, &slice(extents)), run(3, tensor)].concat();
    (slice_key(name, extents), run(2, &saved))
}

/// The entries of a checkpoint of the variable `w` of two values and `n` of one int64.
pub fn v1_entries() -> Vec<Entry> {
    let list = v1_list(&[v1_variable("n", 9, &[], &[&[]]), v1_variable("w", 1, &shape(&[2]), &[&[None]])]);
    vec![list, v1_slice("n", &[], &run(10, &[5])), v1_slice("w", &[None], &run(5, &packed(&[1.5, -2.0])))]
}

// The V2 format.

pub fn v2_header(shards: u64) -> Entry {
    (Vec::new(), [number(1, shards), run(3, &number(1, 1))].concat())
}

/// The index's value for a variable that is in shard 0.
pub fn v2_variable(dtype: u64, shape: &[u8], offset: u64, data: &[u8]) -> Vec<u8> {
    let size = number(5, data.len() as u64);
    [number(1, dtype), run(2, shape), number(4, offset), size, fixed32(6, masked(data))].concat()
}

/// The entries of an index, and the data, of a checkpoint of the same variables as [`v1_entries`].
pub fn v2_entries() -> (Vec<Entry>, Vec<u8>) {
    let (n, w) = (5u64.to_le_bytes(), packed(&[1.5, -2.0]));
    let entries = vec![
        v2_header(1),
        (b"n".to_vec(), v2_variable(9, &[], 0, &n)),
        (b"w".to_vec(), v2_variable(1, &shape(&[2]), 8, &w)),
    ];
    (entries, [&n[..], &w].concat())
}
