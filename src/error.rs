//! What can go wrong, as one enum with fields.
//!
//! The idea: a message names the file, the place in it, what was expected and what was found, and it
//! fits on one line. Programs print it after `error: ` and exit with status 2.

use std::path::{Path, PathBuf};

/// A `Result` with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Every error of the library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused memory.
    #[error("cannot allocate {bytes} bytes: {source}")]
    Allocate {
        /// How much.
        bytes: u64,
        /// The operating system's answer.
        source: std::io::Error,
    },

    /// The operating system refused to read or write.
    #[error("{}: cannot {action}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What was attempted, as a verb phrase: "open", "read 48 bytes at offset 0".
        action: String,
        /// The operating system's answer.
        source: std::io::Error,
    },

    /// A file's contents are not what its format promises.
    #[error("{}: {place}: expected {expected}, found {found}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// The tensor or the part of the file: "tensor model/conv2d_0/V", "index block at 1024".
        place: String,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },

    /// A well-formed file of a kind that is not supported; `hint` says what to do about it.
    #[error("{}: {found}; {hint}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// What it is.
        found: String,
        /// What would help.
        hint: String,
    },

    /// The weights are not those of the PixelCNN++ that was asked for. Every problem is listed.
    #[error("{}: not the weights of a PixelCNN++ ({expected}): {}", file.display(), problems.join("; "))]
    Mismatch {
        /// The checkpoint or folder.
        file: PathBuf,
        /// The configuration the names and shapes were compared with.
        expected: String,
        /// One entry for each missing, extra or mis-shaped variable.
        problems: Vec<String>,
    },

    /// An argument's value is out of range or does not fit the others.
    #[error("{name}: expected {expected}, found {found}")]
    Argument {
        /// The argument, as the user wrote it: "--image-size".
        name: String,
        /// What would be accepted.
        expected: String,
        /// What was given.
        found: String,
    },

    /// A batch does not fit into memory; nothing was allocated.
    #[error(
        "a batch of {batch} needs {} MiB and {} MiB are available; {}",
        needed >> 20,
        available >> 20,
        match fits { 0 => "not even a batch of 1 would fit".to_string(), n => format!("a batch of {n} would fit") }
    )]
    Memory {
        /// Images in the batch that was asked for.
        batch: usize,
        /// Bytes that batch needs.
        needed: u64,
        /// Bytes the machine has to give.
        available: u64,
        /// The largest batch that fits, 0 if none does.
        fits: usize,
    },

    /// A logit was not a number. `image` counts within the batch.
    #[error(
        "the logits of image {image} at row {row}, column {column} are not finite: the weights are unusable"
    )]
    NotFinite {
        /// Image, counted within the batch.
        image: usize,
        /// Row of the pixel.
        row: usize,
        /// Column of the pixel.
        column: usize,
    },

    /// The system would not start the threads.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were to work together.
        threads: usize,
        /// The system's answer.
        source: std::io::Error,
    },

    /// A device cannot be used, or failed while it was.
    #[error("{device}: cannot {action}: {found}")]
    Device {
        /// The device: "cuda:0".
        device: String,
        /// What was attempted, as a verb phrase: "open the device", "run the kernels".
        action: String,
        /// What its driver said.
        found: String,
    },

    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An [`Error::Io`], for `map_err`.
    pub fn io(file: &Path, action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let (file, action) = (file.to_path_buf(), action.into());
        move |source| Error::Io { file, action, source }
    }

    /// An [`Error::Malformed`].
    pub fn malformed(
        file: &Path,
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Malformed {
            file: file.to_path_buf(),
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// An [`Error::Argument`].
    pub fn argument(name: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Argument { name: name.into(), expected: expected.into(), found: found.into() }
    }
}
