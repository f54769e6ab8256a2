//! The library's errors as Python's exceptions.
//!
//! The idea: what the caller said or gave is a ValueError, and so on by kind; the line is the engine's own, with an
//! argument called as Python calls it.

use std::io::ErrorKind;

use fast_pixel_cnn::Error;
use pyo3::PyErr;
use pyo3::exceptions::{
    PyFileNotFoundError, PyFloatingPointError, PyKeyboardInterrupt, PyMemoryError, PyOSError, PyRuntimeError,
    PyValueError,
};

/// What Python calls an argument of the library.
fn python_name(name: &str) -> String {
    match name {
        "class" => "classes".into(),
        "count" => "n".into(),
        "first index" => "indices".into(),
        "image size" => "size".into(),
        "raw weights" => "raw".into(),
        "given images" | "start" | "codes" => "given".into(),
        "given rows" => "keep_rows".into(),
        other => other.replace(' ', "_"),
    }
}

/// The exception for an error.
pub fn exception(error: Error) -> PyErr {
    let error = error.renamed(python_name);
    // Names of files and of arrays may have any character.
    let line = error.to_string().replace(char::is_control, " ");
    match error {
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        Error::Memory { .. } | Error::Allocate { .. } => PyMemoryError::new_err(line),
        Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
            PyFileNotFoundError::new_err(line)
        }
        Error::Io { .. } => PyOSError::new_err(line),
        Error::NotFinite { .. } => PyFloatingPointError::new_err(line),
        Error::Device { .. } | Error::Threads { .. } => PyRuntimeError::new_err(line),
        // What the caller said or gave; the enum may grow.
        _ => PyValueError::new_err(line),
    }
}
