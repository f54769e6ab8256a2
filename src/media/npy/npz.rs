//! `.npz` files: ZIP archives with an `.npy` file for each array, stored or deflated.
//!
//! The idea: an archive's entry is a reader of a stated length, as a file is; what the entry claims is
//! believed as little as what a file claims, and its checksum is compared behind the last byte.

use std::io::{Read, Seek};
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::header::{Header, read_header};
use super::{Found, planar_side};
use crate::error::{Error, Result};

/// Keys listed in a message.
const LISTED: usize = 8;

/// Letters of a key in a message.
const LETTERS: usize = 30;

/// Whether a file that begins so is a ZIP archive, be it an empty one.
pub(super) fn is_archive(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06")
}

/// [`super::find`] for an archive.
pub(super) fn find<R>(
    path: &Path,
    reader: impl Read + Seek,
    key: Option<&str>,
    usual: &str,
    body: impl FnOnce(Found) -> Result<R>,
) -> Result<R> {
    let mut archive = ZipArchive::new(reader).map_err(bad(path))?;
    let mut keys = Vec::new();
    for name in archive.file_names() {
        keys.extend(name.map_err(bad(path))?.strip_suffix(".npy").map(String::from));
    }
    let has = |key: &str| keys.iter().any(|k| k == key);
    let key = match (key, &keys[..]) {
        (Some(key), _) if has(key) => key,
        (Some(key), _) => {
            let expected = format!("one of the arrays {}", list(&keys));
            return Err(Error::malformed(path, "key", expected, format!("\"{}\"", key.escape_debug())));
        }
        (None, [only]) => only,
        (None, [_, _, ..]) if has(usual) => usual,
        (None, _) => {
            return Err(Error::Several {
                file: path.into(),
                found: format!("{} arrays: {}", keys.len(), list(&keys)),
                name: "key".into(),
            });
        }
    };
    let imagenet = has("data") && {
        let shape = with(path, &mut archive, "data", |_, header, _| Ok(header.shape))?;
        planar_side(&shape).is_some()
    };
    with(path, &mut archive, key, |name, header, reader| {
        body(Found { name: name.into(), key: Some(key.into()), imagenet, header, reader })
    })
}

/// Opens one array of an archive.
fn with<R>(
    path: &Path,
    archive: &mut ZipArchive<impl Read + Seek>,
    key: &str,
    body: impl FnOnce(&Path, Header, &mut dyn Read) -> Result<R>,
) -> Result<R> {
    let file = format!("{key}.npy");
    let name = path.join(&file);
    let mut entry = archive.by_name(&file).map_err(bad(&name))?;
    let length = entry.size();
    let header = read_header(&name, &mut entry, length)?;
    body(&name, header, &mut entry)
}

fn bad(path: &Path) -> impl FnOnce(ZipError) -> Error {
    |error| match error {
        ZipError::Io(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => Error::io(path, "read")(e),
        e => Error::malformed(path, "archive", "a whole and valid .npz file", e.to_string()),
    }
}

/// Keys for a message, not all of very many.
fn list(keys: &[String]) -> String {
    let shown = keys.iter().take(LISTED).map(|key| {
        let letters: String = key.chars().take(LETTERS).collect();
        letters.escape_debug().to_string()
    });
    let mut list = shown.collect::<Vec<_>>().join(", ");
    if keys.len() > LISTED {
        list += &format!(" and {} more", keys.len() - LISTED);
    }
    list
}
