//! Writes TensorFlow V2 checkpoints, so that tests can make ones with any fault in the tensors but
//! every checksum right. One data shard, one table block, no compression.

use std::fs;
use std::path::Path;

/// A tensor of a checkpoint to be.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// The number of the type in TensorFlow's `types.proto`.
    pub dtype: u64,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn f32(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor { name: name.into(), dtype: 1, shape: shape.to_vec(), bytes }
    }

    pub fn i64(name: &str, values: &[i64]) -> Tensor {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor { name: name.into(), dtype: 9, shape: vec![values.len()], bytes }
    }
}

/// Writes `PREFIX.index` and `PREFIX.data-00000-of-00001`.
pub fn write(prefix: &Path, tensors: &[Tensor]) {
    let mut tensors = tensors.to_vec();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut data = Vec::new();
    // BundleHeaderProto: num_shards = 1, version { producer = 1 }.
    let mut entries = vec![(Vec::new(), vec![0x08, 1, 0x1a, 2, 0x08, 1])];
    for t in &tensors {
        let mut shape = Vec::new();
        for &d in &t.shape {
            let mut dim = Vec::new();
            int(&mut dim, 1, d as u64);
            bytes(&mut shape, 2, &dim);
        }
        // BundleEntryProto.
        let mut entry = Vec::new();
        int(&mut entry, 1, t.dtype);
        bytes(&mut entry, 2, &shape);
        int(&mut entry, 4, data.len() as u64);
        int(&mut entry, 5, t.bytes.len() as u64);
        entry.push(6 << 3 | 5);
        entry.extend(masked_crc(&t.bytes).to_le_bytes());
        entries.push((t.name.clone().into_bytes(), entry));
        data.extend(&t.bytes);
    }
    let mut table = Vec::new();
    let block = append_block(&mut table, &entries);
    let metaindex = append_block(&mut table, &[]);
    let index = append_block(&mut table, &[(vec![0xff], block)]);
    let mut footer = [metaindex, index].concat();
    footer.resize(40, 0);
    table.extend(footer);
    table.extend(0xdb47_7524_8b80_fb57_u64.to_le_bytes());
    let file = |ending: &str| format!("{}.{ending}", prefix.display());
    fs::write(file("index"), table).unwrap();
    fs::write(file("data-00000-of-00001"), data).unwrap();
}

/// Appends a block of keys and values, with its trailer, and returns its handle.
fn append_block(table: &mut Vec<u8>, entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let (start, mut block, mut restarts) = (table.len(), Vec::new(), Vec::new());
    for (key, value) in entries {
        // Every entry is a restart point: no key shares its beginning with the last.
        restarts.push(block.len() as u32);
        for n in [0, key.len(), value.len()] {
            varint(&mut block, n as u64);
        }
        block.extend(key);
        block.extend(value);
    }
    if restarts.is_empty() {
        restarts.push(0);
    }
    block.extend(restarts.iter().flat_map(|r| r.to_le_bytes()));
    block.extend((restarts.len() as u32).to_le_bytes());
    let mut handle = Vec::new();
    varint(&mut handle, start as u64);
    varint(&mut handle, block.len() as u64);
    block.push(0);
    let crc = masked_crc(&block);
    table.extend(block);
    table.extend(crc.to_le_bytes());
    handle
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn int(out: &mut Vec<u8>, field: u64, n: u64) {
    varint(out, field << 3);
    varint(out, n);
}

fn bytes(out: &mut Vec<u8>, field: u64, body: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, body.len() as u64);
    out.extend(body);
}
