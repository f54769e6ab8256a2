//! The small golden models, for tests that run a program.

use std::path::Path;

/// A file of the reference data, as an argument.
pub fn golden(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path).display().to_string()
}

/// A small conditional model of 10 classes, made for 8x8.
pub fn cond() -> String {
    golden("cond/v2/params.ckpt")
}

/// A small unconditional model, made for 8x8.
pub fn tiny() -> String {
    golden("tiny/v2/params.ckpt")
}
