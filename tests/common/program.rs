//! Runs the program `convert` as a user does, in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::CommandCargoExt;
use tempfile::TempDir;

/// What a run of a program left.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `convert`.
pub fn convert<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Run {
    let output = Command::cargo_bin("convert").unwrap().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Run {
    /// Checks for status 0.
    pub fn succeeds(self) -> Run {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// One line of error, no line of results, status 2.
    pub fn fails_with(&self, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{}", self.stderr);
        assert!(
            self.stderr.starts_with("error: ") && self.stderr.trim_end().lines().count() == 1,
            "{}",
            self.stderr
        );
        for part in parts {
            assert!(self.stderr.contains(part), "{}\nlacks: {part}", self.stderr);
        }
    }
}

/// A place for one conversion; it must be empty again after a failure.
pub struct Place(pub TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    /// The folder to be made.
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

    /// Checks that neither the folder nor a draft of it is left.
    pub fn assert_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?} is left behind");
    }
}
