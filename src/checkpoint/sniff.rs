//! Names what people have at hand when it is not a checkpoint, by a file's first bytes and its name.
//!
//! The idea: every table ends in the same eight bytes, and only what does not is looked at here, so a
//! checkpoint is never mistaken for something else. What begins as a checkpoint then is one that was cut off.

use std::path::Path;

/// How many bytes of a file are looked at.
pub(super) const HEAD: usize = 512;

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
            "it neither begins nor ends as a TensorFlow checkpoint",
            "give one V1 file, or the PREFIX of PREFIX.index and PREFIX.data-00000-of-00001",
        )
    };
    (found.into(), hint.into())
}

fn by_contents(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let contains = |needle: &[u8]| head.windows(needle.len()).any(|window| window == needle);
    let begins = |signature: &[u8]| head.starts_with(signature);
    let text = head.trim_ascii_start();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let markup =
        |tag: &str| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()));
    let (unpack, needed) = ("unpack it and give the checkpoint inside", "a TensorFlow checkpoint is needed");
    Some(if begins(b"PK\x03\x04") && (contains(b"data.pkl") || contains(b".data/serialization_id")) {
        ("a PyTorch file", needed)
    } else if begins(b"PK\x03\x04") || begins(b"PK\x05\x06") {
        ("a zip archive", "unzip it and give the checkpoint inside")
    } else if begins(b"\x1f\x8b") || begins(b"BZh") || begins(b"\xfd7zXZ\0") || begins(b"\x28\xb5\x2f\xfd") {
        ("a compressed file (gzip, bzip2, xz or zstd)", unpack)
    } else if head.get(257..262) == Some(b"ustar") {
        ("a tar archive", unpack)
    } else if markup("<!doctype html") || markup("<html") {
        ("an HTML page", "the download went wrong: fetch the checkpoint itself")
    } else if begins(b"version https://git-lfs") {
        ("a Git LFS pointer", "run `git lfs pull` to fetch the file")
    } else if begins(b"\x89HDF\r\n\x1a\n") {
        ("an HDF5 file (Keras)", needed)
    } else if matches!(head, [0x80, 2..=5, ..]) {
        ("a Python pickle (PyTorch)", needed)
    } else if head.get(8..10) == Some(b"{\"") {
        ("a safetensors file", needed)
    } else if is_message_pack(head) {
        ("a MessagePack file (Flax)", needed)
    } else if begins(&[0x08, 0x01, 0x12]) {
        ("the graph of a TensorFlow SavedModel", "give variables/variables, in the folder that it is in")
    } else if begins(b"\x93NUMPY") {
        ("a NumPy array", "give the folder of converted weights that it is in, or a TensorFlow checkpoint")
    } else if text.starts_with(b"{") {
        ("a JSON file", "give the folder of converted weights that it is in, or a TensorFlow checkpoint")
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
