//! Conversions, each in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::run::{Run, run};

/// Runs `convert`.
pub fn convert<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Run {
    run("convert", args)
}

/// A place for one conversion; it must be empty again after a failure.
pub struct Place(pub TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    /// The directory to be made.
    pub fn out(&self) -> PathBuf {
        self.0.path().join("out")
    }

    /// Converts a checkpoint to [`Place::out`].
    pub fn convert(&self, checkpoint: &Path, flags: &[&str]) -> Run {
        let mut args = vec![checkpoint.as_os_str().to_owned(), self.out().into()];
        args.extend(flags.iter().map(Into::into));
        convert(&args)
    }

    /// Names and bytes of the files made, but for `model.json`.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.out()).unwrap() {
            let entry = entry.unwrap();
            files.push((entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
        }
        files.retain(|(name, _)| name != "model.json");
        files.sort();
        files
    }

    /// Checks that neither the directory nor a draft of it is left.
    pub fn assert_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?} is left behind");
    }
}
