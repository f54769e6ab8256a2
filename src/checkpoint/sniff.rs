//! Recognises what people have at hand when it is not a checkpoint, by a file's first bytes.
//!
//! The idea: a table begins with a zero byte (its first key shares nothing with the one before), and
//! nothing that is recognised here does, so a checkpoint is never mistaken for something else.

/// How many bytes of a file are looked at.
pub(super) const HEAD: usize = 512;

/// What a file is that begins with `head`, and what to do about it.
pub(super) fn identify(head: &[u8]) -> Option<(&'static str, &'static str)> {
    if head.first() == Some(&0) {
        return None;
    }
    let contains = |needle: &[u8]| head.windows(needle.len()).any(|window| window == needle);
    let begins = |signature: &[u8]| head.starts_with(signature);
    let text = head.trim_ascii_start();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let markup =
        |tag: &str| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()));
    let unpack = "unpack it and give the checkpoint inside";
    Some(if begins(b"PK\x03\x04") && (contains(b"data.pkl") || contains(b".data/serialization_id")) {
        ("a PyTorch file", "a TensorFlow checkpoint is needed")
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
        ("an HDF5 file (Keras)", "a TensorFlow checkpoint is needed")
    } else if matches!(head, [0x80, 2..=5, ..]) {
        ("a Python pickle (PyTorch)", "a TensorFlow checkpoint is needed")
    } else if begins(b"\x93NUMPY") {
        ("a NumPy array", "give the folder of converted weights that it is in, or a TensorFlow checkpoint")
    } else if begins(b"model_checkpoint_path:") {
        ("TensorFlow's note of its latest checkpoint", "give the checkpoint that it names")
    } else {
        return None;
    })
}
