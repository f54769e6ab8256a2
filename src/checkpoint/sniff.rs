//! Tells formats by a file's contents, and names what people have at hand when it is not a checkpoint.
//!
//! The idea: every TensorFlow table ends in the same eight bytes, so that only what does not is looked at by its
//! beginning, and a table is never mistaken for something else. What begins as a checkpoint then is one that was
//! cut off.

use std::io::{Read, Result, Seek, SeekFrom};
use std::path::Path;

use super::Format;

/// How many bytes of a file are looked at.
const HEAD: usize = 512;

/// The length of the footer of TensorFlow's tables in bytes.
pub(super) const FOOTER: u64 = 48;

/// The last eight bytes of every table.
pub(super) const MAGIC: u64 = 0xdb47_7524_8b80_fb57;

/// The magic number of a legacy PyTorch file, as its first pickle has it.
const LEGACY: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The first bytes of a file.
pub(super) fn head(source: &mut (impl Read + Seek)) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    source.seek(SeekFrom::Start(0))?;
    source.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Whether a file ends as every table of TensorFlow's does. Reads nothing else of it.
pub(super) fn ends_as_table(source: &mut (impl Read + Seek)) -> Result<bool> {
    let mut magic = [0; 8];
    if source.seek(SeekFrom::End(0))? < FOOTER {
        return Ok(false);
    }
    source.seek(SeekFrom::End(-8))?;
    source.read_exact(&mut magic)?;
    Ok(magic == MAGIC.to_le_bytes())
}

/// The format of a file that is a checkpoint, or begins as one. Of TensorFlow's that is the first, which an index
/// of the second looks like.
pub(super) fn format(source: &mut (impl Read + Seek)) -> Result<Option<Format>> {
    if ends_as_table(source)? {
        return Ok(Some(Format::V1));
    }
    let head = head(source)?;
    Ok(if is_zip(&head) && (contains(&head, b"data.pkl") || contains(&head, b".data/serialization_id")) {
        Some(Format::PyTorch)
    } else if is_tar(&head) {
        None
    } else if is_pickle(&head) && contains(&head[..head.len().min(64)], &LEGACY) {
        Some(Format::PyTorchLegacy)
    } else if head.get(4..9) == Some(b"\0\0\0\0{") {
        // The length of the header, which is below 4 GiB, and its first byte.
        Some(Format::Safetensors)
    } else {
        None
    })
}

fn contains(head: &[u8], needle: &[u8]) -> bool {
    head.windows(needle.len()).any(|window| window == needle)
}

fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04")
}

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..])
}

/// What a file is that begins with `head` and does not end as a table, and what to do about it.
pub(super) fn identify(head: &[u8], file: &Path) -> (String, String) {
    if let Some((found, hint)) = by_contents(head) {
        return (found.into(), hint.into());
    }
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("");
    if let Some(stem) = name.strip_suffix(".meta") {
        let found = "the graph of a TensorFlow checkpoint, without its values";
        return (found.into(), format!("give {stem}, without .meta: the values are in the files beside it"));
    }
    let (found, hint) = if name.ends_with(".pb") || name.ends_with(".pbtxt") {
        ("a TensorFlow graph", "give the checkpoint that it was made from")
    } else if head.starts_with(&[0, 0]) {
        (
            "it begins as a TensorFlow checkpoint does but does not end as one: it is cut off",
            "copy or download it again",
        )
    } else {
        (
            "it neither begins nor ends as a checkpoint",
            "give a file of PyTorch's or safetensors, one TensorFlow V1 file, or the PREFIX of PREFIX.index and \
             PREFIX.data-00000-of-00001",
        )
    };
    (found.into(), hint.into())
}

fn by_contents(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let begins = |signature: &[u8]| head.starts_with(signature);
    let text = head.trim_ascii_start();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let markup =
        |tag: &str| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()));
    let needed = "a checkpoint of TensorFlow, PyTorch or safetensors is needed";
    let unpack = "unpack it and give the checkpoint inside";
    Some(if is_zip(head) || begins(b"PK\x05\x06") {
        ("a zip archive", "unzip it and give the checkpoint inside")
    } else if begins(b"\x1f\x8b") || begins(b"BZh") || begins(b"\xfd7zXZ\0") || begins(b"\x28\xb5\x2f\xfd") {
        ("a compressed file (gzip, bzip2, xz or zstd)", unpack)
    } else if is_tar(head) {
        ("a tar archive", unpack)
    } else if markup("<!doctype html") || markup("<html") {
        ("an HTML page", "the download went wrong: fetch the checkpoint itself")
    } else if begins(b"version https://git-lfs") {
        ("a Git LFS pointer", "run `git lfs pull` to fetch the file")
    } else if begins(b"\x89HDF\r\n\x1a\n") {
        ("an HDF5 file (Keras)", needed)
    } else if is_pickle(head) {
        ("a Python pickle that torch.save did not write", needed)
    } else if is_message_pack(head) {
        ("a MessagePack file (Flax)", needed)
    } else if begins(&[0x08, 0x01, 0x12]) {
        ("the graph of a TensorFlow SavedModel", "give variables/variables, in the directory that it is in")
    } else if begins(b"\x93NUMPY") {
        ("a NumPy array", "give the directory of converted weights that it is in, or a checkpoint")
    } else if text.starts_with(b"{") {
        ("a JSON file", "give the directory of converted weights that it is in, or a checkpoint")
    } else {
        return None;
    })
}

/// Whether a map of MessagePack begins here, with a string for its first key.
fn is_message_pack(head: &[u8]) -> bool {
    let key = match head {
        [0x81..=0x8f, key @ ..] | [0xde, _, _, key @ ..] | [0xdf, _, _, _, _, key @ ..] => key,
        _ => return false,
    };
    let Some((&length @ 0xa1..=0xbf, text)) = key.split_first() else { return false };
    text.get(..usize::from(length & 0x1f)).is_some_and(|text| text.iter().all(u8::is_ascii_graphic))
}
