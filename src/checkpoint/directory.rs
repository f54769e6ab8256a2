//! Directories of checkpoints, and TensorFlow's note in them of which is the latest.
//!
//! The idea: a directory stands for the checkpoint that its note names, else for the one that is in it. Where
//! there is a choice, none is made: the error lists it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::fault::quote;
use super::locate::{locate, split_shard, with_suffix};
use super::sniff;
use crate::error::{Error, Result, list};

/// What TensorFlow calls its note.
const NOTE: &str = "checkpoint";
/// How a note begins.
const KEY: &[u8] = b"model_checkpoint_path:";
/// The most bytes of a note: those of long trainings name thousands of checkpoints.
const NOTE_LIMIT: u64 = 1 << 20;
/// Characters that a list of names may take in a message, beside the rest of it.
const ROOM: usize = 150;

/// The path that names the checkpoint which `path` names or stands for.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    // A checkpoint and a directory of its name side by side: the prefix is meant.
    if path.is_dir() && !with_suffix(path, ".index").exists() {
        return only_checkpoint(path);
    }
    let noted = if path.is_file() { noted_checkpoint(path)? } else { None };
    Ok(noted.unwrap_or_else(|| path.to_path_buf()))
}

/// The checkpoint in a directory.
fn only_checkpoint(directory: &Path) -> Result<PathBuf> {
    let note = directory.join(NOTE);
    if note.is_file()
        && let Some(path) = noted_checkpoint(&note)?
    {
        return Ok(path);
    }
    let names = checkpoints(directory)?;
    let refuse = |found: String, hint: &str| {
        Err(Error::Unsupported { file: directory.into(), found, hint: hint.into() })
    };
    match &names[..] {
        [name] => Ok(directory.join(name)),
        [] if directory.join("variables/variables.index").exists() => {
            refuse("the directory of a TensorFlow SavedModel".into(), "give variables/variables in it")
        }
        [] => refuse(
            "a directory with neither a checkpoint nor model.json in it".into(),
            "give a checkpoint of TensorFlow or PyTorch, or a directory made by convert (model.json and one .npy for each \
             tensor)",
        ),
        several => refuse(
            format!("a directory of {} checkpoints: {}", several.len(), list(several, ", ", ROOM)),
            "give one of them",
        ),
    }
}

/// The checkpoint that `file` names, if it is a note.
fn noted_checkpoint(file: &Path) -> Result<Option<PathBuf>> {
    let mut text = Vec::new();
    let source = File::open(file).map_err(Error::io(file, "open"))?;
    let mut head = source.take(KEY.len() as u64);
    head.read_to_end(&mut text).map_err(Error::io(file, "read"))?;
    if text != KEY {
        return Ok(None);
    }
    head.into_inner().take(NOTE_LIMIT).read_to_end(&mut text).map_err(Error::io(file, "read"))?;
    let line = text[KEY.len()..].split(|&byte| byte == b'\n').next().unwrap_or(&[]);
    let Some(name) = unquote(line.trim_ascii()).filter(|name| !name.is_empty()) else {
        return Err(Error::malformed(
            file,
            "model_checkpoint_path",
            "a path in quotation marks",
            quote(line),
        ));
    };
    let directory = file.parent().unwrap_or(Path::new(""));
    // An absolute path is that of the machine where training ran: the files may have moved with the note.
    let moved = Path::new(&name).file_name().map(|name| directory.join(name));
    let places = [Some(directory.join(&name)), moved];
    if let Some(path) = places.into_iter().flatten().find(|path| is_there(path)) {
        return Ok(Some(path));
    }
    let there = checkpoints(if directory == Path::new("") { Path::new(".") } else { directory })?;
    Err(Error::Unsupported {
        file: file.into(),
        found: format!(
            "TensorFlow's note of its latest checkpoint, {}, which is not there",
            quote(name.as_bytes())
        ),
        hint: match &there[..] {
            [] => "nor is another: copy the checkpoint's files beside it".into(),
            names => format!("give another: {}", list(names, ", ", ROOM)),
        },
    })
}

/// Whether any file of the checkpoint is there.
fn is_there(path: &Path) -> bool {
    match locate(path) {
        Err(Error::Io { file, source, .. }) => file != path || source.kind() != ErrorKind::NotFound,
        _ => true,
    }
}

/// The names of the checkpoints in a directory, sorted. A checkpoint of one file, which may have any name,
/// is told by its contents; everything else by its name.
fn checkpoints(directory: &Path) -> Result<Vec<String>> {
    let (mut names, mut unread) = (BTreeSet::new(), None);
    for entry in fs::read_dir(directory).map_err(Error::io(directory, "list"))? {
        let entry = entry.map_err(Error::io(directory, "list"))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // What macOS keeps beside a file on other systems' disks, and what TensorFlow has not finished.
        if name.starts_with("._") || name.contains(".tempstate") || !entry.path().is_file() {
            continue;
        }
        if let Some(stem) = name.strip_suffix(".index") {
            names.insert(stem.to_string());
        } else if let Some((stem, ..)) = split_shard(&name) {
            names.insert(stem.strip_suffix(".data").unwrap_or(stem).to_string());
        } else {
            let path = entry.path();
            match File::open(&path).and_then(|mut file| sniff::format(&mut file)) {
                Ok(Some(_)) => drop(names.insert(name)),
                Ok(None) => {}
                Err(error) => unread = unread.or(Some((path, error))),
            }
        }
    }
    match unread {
        // It may be the one.
        Some((path, error)) if names.is_empty() => Err(Error::io(&path, "read")(error)),
        _ => Ok(names.into_iter().collect()),
    }
}

/// The text in quotation marks, as protocol buffers write it: bytes beyond ASCII are octal.
fn unquote(text: &[u8]) -> Option<String> {
    let text = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let (mut bytes, mut at) = (Vec::new(), 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let digits = text[at..].iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
        if digits > 0 {
            let number = std::str::from_utf8(&text[at..at + digits]).ok()?;
            bytes.push(u16::from_str_radix(number, 8).ok()? as u8);
            at += digits;
        } else {
            bytes.push(*text.get(at)?);
            at += 1;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::unquote;

    #[test]
    fn paths_are_unquoted() {
        let cases: [(&[u8], Option<&str>); 7] = [
            (b"\"model.ckpt-2000\"", Some("model.ckpt-2000")),
            (b"\"a\\\"b\\\\c\\'d\"", Some("a\"b\\c'd")),
            (b"\"gr\\303\\274n\"", Some("grün")),
            (b"\"\"", Some("")),
            (b"model.ckpt", None),
            (b"\"", None),
            (b"\"\\377\"", None),
        ];
        for (text, expected) in cases {
            assert_eq!(unquote(text).as_deref(), expected, "{}", text.escape_ascii());
        }
    }
}
