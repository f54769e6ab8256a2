//! Writes files as `torch.save` does, zip and legacy, and safetensors: sound ones and, a piece at a time, unsound
//! ones. No code is shared with the readers.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A tensor of a file to be.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// The type as safetensors names it.
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn f32(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { name: name.into(), dtype: "F32", shape: shape.to_vec(), bytes }
    }
}

/// Two tensors, of which one is of half precision, and one of integers.
pub fn small() -> Vec<Tensor> {
    let half = [0x00, 0x3e, 0x00, 0xc0].to_vec();
    vec![
        Tensor::f32("a.w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        Tensor { name: "b".into(), dtype: "F16", shape: vec![2], bytes: half },
        Tensor { name: "n".into(), dtype: "I64", shape: vec![], bytes: 7i64.to_le_bytes().to_vec() },
    ]
}

/// A safetensors file of a header and what is behind it.
pub fn safetensors_of(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for Tensor { name, dtype, shape, bytes } in tensors {
        let start = data.len();
        data.extend(bytes);
        let end = data.len();
        entries.push(format!(
            "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        ));
    }
    safetensors_of(&format!("{{{}}}", entries.join(",")), &data)
}

// Pickles of protocol 2.

pub fn string(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(value: usize) -> Vec<u8> {
    [b"J", &(value as u32).to_le_bytes()[..]].concat()
}

fn ints(values: &[usize]) -> Vec<u8> {
    [&b"("[..], &values.iter().flat_map(|value| int(*value)).collect::<Vec<_>>(), b"t"].concat()
}

/// A tensor of `shape` and `stride` in storage `key` of `count` values.
pub fn pickled(dtype: &str, key: usize, count: usize, shape: &[usize], stride: &[usize]) -> Vec<u8> {
    let storage = match dtype {
        "F16" => "HalfStorage",
        "BF16" => "BFloat16Storage",
        "F64" => "DoubleStorage",
        "I64" => "LongStorage",
        _ => "FloatStorage",
    };
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &string("storage")[..],
        format!("ctorch\n{storage}\n").as_bytes(),
        &string(&key.to_string()),
        &string("cpu"),
        &int(count),
        b"tQ",
        &int(0),
        &ints(shape),
        &ints(stride),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

/// A dictionary of keys and pickled values.
pub fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> =
        entries.iter().flat_map(|(key, value)| [string(key), value.clone()].concat()).collect();
    [&b"}("[..], &entries, b"u"].concat()
}

/// A dictionary of tensors in storages of their own.
pub fn state_dict(tensors: &[Tensor]) -> Vec<u8> {
    let entries = tensors.iter().enumerate().map(|(key, Tensor { name, dtype, shape, .. })| {
        let count = shape.iter().product();
        let stride: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        (&name[..], pickled(dtype, key, count, shape, &stride))
    });
    dictionary(&entries.collect::<Vec<_>>())
}

/// A pickle of its own.
pub fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

/// A zip archive as `torch.save` writes it, around a pickle.
pub fn zip_of(pickle: &[u8], storages: &[&[u8]], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    let mut put = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    put("data.pkl", pickle);
    put("byteorder", b"little");
    for (key, bytes) in storages.iter().enumerate() {
        put(&format!("data/{key}"), bytes);
    }
    put("version", b"3\n");
    zip.finish().unwrap().into_inner()
}

pub fn zip(tensors: &[Tensor]) -> Vec<u8> {
    let storages: Vec<&[u8]> = tensors.iter().map(|tensor| &tensor.bytes[..]).collect();
    zip_of(&pickle(&state_dict(tensors)), &storages, CompressionMethod::Stored)
}

/// The beginning of a legacy file: its first three pickles.
pub fn legacy_head(little_endian: bool) -> Vec<u8> {
    let order = if little_endian { b"\x88" } else { b"\x89" };
    [
        pickle(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"),
        pickle(&int(1001)),
        pickle(&dictionary(&[("little_endian", order.to_vec())])),
    ]
    .concat()
}

pub fn legacy(tensors: &[Tensor]) -> Vec<u8> {
    let keys: Vec<u8> = (0..tensors.len()).flat_map(|key| string(&key.to_string())).collect();
    let keys = [&b"]("[..], &keys, b"e"].concat();
    let mut bytes = [legacy_head(true), pickle(&state_dict(tensors)), pickle(&keys)].concat();
    for Tensor { shape, bytes: values, .. } in tensors {
        bytes.extend(shape.iter().product::<usize>().to_le_bytes());
        bytes.extend(values);
    }
    bytes
}
