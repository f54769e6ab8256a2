//! What a decoder expected and what it found instead.
//!
//! The idea: a decoder of bytes does not know which file they came from. It returns a [`Fault`], and
//! its caller, who knows the file and the place in it, makes that an [`Error::Malformed`].

use std::path::Path;

use crate::error::Error;

/// One half of a message; [`Fault::at`] adds the other.
#[derive(Debug)]
pub(super) struct Fault {
    expected: String,
    found: String,
}

impl Fault {
    pub fn new(expected: impl Into<String>, found: impl Into<String>) -> Fault {
        Fault { expected: expected.into(), found: found.into() }
    }

    pub fn at(self, file: &Path, place: impl Into<String>) -> Error {
        Error::malformed(file, place, self.expected, self.found)
    }
}

/// Bytes of a file for a message: quoted, escaped so that the message stays one line, and cut where a
/// hostile file would fill the screen.
pub(super) fn quote(bytes: &[u8]) -> String {
    const SHOWN: usize = 100;
    if bytes.len() <= SHOWN {
        format!("\"{}\"", bytes.escape_ascii())
    } else {
        format!("\"{}...\" ({} bytes)", bytes[..SHOWN].escape_ascii(), bytes.len())
    }
}
