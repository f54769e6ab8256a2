//! Runs a program as a user does and looks at what it left.

use std::ffi::OsStr;
use std::process::Command;

use assert_cmd::cargo::CommandCargoExt;

/// What a run of a program left.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program of this package.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Run {
    let output = Command::cargo_bin(program).unwrap().args(args).output().unwrap();
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
