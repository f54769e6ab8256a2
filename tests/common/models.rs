//! The reference data in `tests/golden/`, and the small models in it, for tests that run a program.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::path::{Path, PathBuf};

/// A file of the reference data: in the project, or where a packed test is told to look.
pub fn golden(path: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&root).join("tests/golden").join(path)
}

/// The same as an argument of a program.
pub fn argument(path: &str) -> String {
    golden(path).display().to_string()
}

/// A small conditional model of 10 classes, made for 8x8.
pub fn cond() -> String {
    argument("cond/v2/params.ckpt")
}

/// A small unconditional model, made for 8x8.
pub fn tiny() -> String {
    argument("tiny/v2/params.ckpt")
}
