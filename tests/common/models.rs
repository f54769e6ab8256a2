//! The reference data in `tests/golden/`, the small models in it, and those that come with the project.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::path::PathBuf;

/// Where files of the project are: in it, or where a packed test is told to look.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

/// A file of the reference data.
pub fn golden(path: &str) -> PathBuf {
    root().join("tests/golden").join(path)
}

/// A model that comes with the project.
pub fn bundled(name: &str) -> PathBuf {
    root().join("models").join(name)
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
