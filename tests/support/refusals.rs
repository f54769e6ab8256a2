//! Asks for a refusal: puts files into a directory, opens them as a checkpoint and returns the message.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::fs;
use std::path::PathBuf;

use fast_pixel_cnn::checkpoint::Checkpoint;
use tempfile::TempDir;

use crate::tables::*;

/// A directory with files in it.
pub struct Directory(TempDir);

impl Directory {
    pub fn new() -> Directory {
        Directory(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn with(self, name: &str, bytes: &[u8]) -> Directory {
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    /// The message with which `name`, or else the variable `w` in it, is refused, less the directory.
    pub fn refusal(&self, name: &str) -> String {
        let read = Checkpoint::open(&self.path(name)).and_then(|mut checkpoint| checkpoint.read_f32("w"));
        let message = match read {
            Ok(values) => panic!("{name} was read as {values:?}"),
            Err(error) => error.to_string(),
        };
        assert!(!message.contains('\n'), "{message:?}");
        let directory = format!("{}/", self.0.path().display());
        assert!(message.starts_with(&directory), "{message} does not name the file");
        message.replace(&directory, "")
    }
}

/// The message for the V1 checkpoint `bytes`, less its name.
pub fn v1(bytes: &[u8]) -> String {
    let message = Directory::new().with("c", bytes).refusal("c");
    message.strip_prefix("c: ").unwrap_or(&message).to_string()
}

pub fn v1_of(entries: &[Entry]) -> String {
    v1(&table(entries))
}

pub fn v2_of(entries: &[Entry], data: &[u8]) -> String {
    Directory::new().with("c.index", &table(entries)).with("c.data-00000-of-00001", data).refusal("c")
}

/// A V1 checkpoint with `w` listed as `variable` and stored as `tensor`.
pub fn v1_with(variable: Vec<u8>, tensor: &[u8]) -> String {
    v1_of(&[v1_list(&[variable]), v1_slice("w", &[None], tensor)])
}

pub fn w() -> Vec<u8> {
    v1_variable("w", 1, &shape(&[2]), &[&[None]])
}
