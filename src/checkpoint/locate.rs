//! From the path that names a checkpoint to its files.
//!
//! The idea: names decide, contents do not. A file is named by itself; a prefix, which names no file,
//! by the files that begin with it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, FileType};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The files of a checkpoint, as their names have it.
#[derive(Debug)]
pub(super) enum Location {
    /// One table with everything in it.
    Single(PathBuf),
    /// The shards of a V1 checkpoint, every one of which exists.
    Shards(Vec<PathBuf>),
    /// The prefix of a V2 checkpoint, whose index exists.
    Bundle(PathBuf),
}

/// `path` with `suffix` behind its last component.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Takes `-0000k-of-0000n` off the end of a name: what is before it, k and n.
pub(super) fn split_shard(name: &str) -> Option<(&str, u32, u32)> {
    let number = |digits: &str| {
        let plain = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    let (rest, count) = name.rsplit_once("-of-")?;
    let (stem, shard) = rest.rsplit_once('-')?;
    Some((stem, number(shard)?, number(count)?))
}

/// What a thing is that is no regular file.
fn describe(kind: FileType) -> &'static str {
    if kind.is_dir() {
        return "a directory";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a named pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_block_device() || kind.is_char_device() {
            return "a device";
        }
    }
    "a special file"
}

/// Refuses what is no regular file, without opening it: to open a named pipe would wait for a writer.
pub(super) fn require_file(path: &Path) -> Result<()> {
    let kind = fs::metadata(path).map_err(Error::io(path, "open"))?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let hint = "give a regular file".into();
    Err(Error::Unsupported { file: path.to_path_buf(), found: describe(kind).into(), hint })
}

/// Finds the files of the checkpoint that `path` names.
pub(super) fn locate(path: &Path) -> Result<Location> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let missing = match require_file(path) {
        Ok(()) => return of_file(path, name),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => source,
        Err(error) if !path.is_dir() || !with_suffix(path, ".index").exists() => return Err(error),
        Err(_) => return Ok(Location::Bundle(path.to_path_buf())),
    };
    let index = with_suffix(path, ".index");
    if index.exists() {
        return Ok(Location::Bundle(path.to_path_buf()));
    }
    let (mut counts, mut data) = (BTreeSet::new(), false);
    for file in siblings(path) {
        match split_shard(&file) {
            Some((stem, _, count)) if stem == name => {
                counts.insert(count);
            }
            Some((stem, ..)) => data |= stem.strip_suffix(".data") == Some(name),
            None => {}
        }
    }
    match (counts.pop_first(), counts.pop_first()) {
        (Some(few), Some(many)) => Err(Error::malformed(
            path,
            "the names of its shards",
            "one number of shards",
            format!("{few} and {many}"),
        )),
        (Some(count), None) => shards(path, count),
        (None, _) => Err(Error::io(if data { &index } else { path }, "open")(missing)),
    }
}

fn of_file(path: &Path, name: &str) -> Result<Location> {
    if let Some(stem) = name.strip_suffix(".index") {
        return Ok(Location::Bundle(path.with_file_name(stem)));
    }
    match split_shard(name) {
        None => Ok(Location::Single(path.to_path_buf())),
        Some((stem, _, count)) => match stem.strip_suffix(".data") {
            Some(stem) => Ok(Location::Bundle(path.with_file_name(stem))),
            None => shards(&path.with_file_name(stem), count),
        },
    }
}

/// The names in the directory of `path`, sorted; none if it cannot be read.
fn siblings(path: &Path) -> Vec<String> {
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The `count` shards of a V1 checkpoint.
fn shards(prefix: &Path, count: u32) -> Result<Location> {
    let files = (0..count).map(|shard| with_suffix(prefix, &format!("-{shard:05}-of-{count:05}")));
    let files = files.map(|file| require_file(&file).map(|()| file)).collect::<Result<Vec<_>>>()?;
    if files.is_empty() {
        return Err(Error::malformed(prefix, "the names of its shards", "at least 1 shard", "0"));
    }
    Ok(Location::Shards(files))
}

#[cfg(test)]
mod tests {
    use super::split_shard;

    #[test]
    fn shards_are_told_by_their_names() {
        assert_eq!(split_shard("a-b.ckpt-00001-of-00012"), Some(("a-b.ckpt", 1, 12)));
        assert_eq!(split_shard("m.data-00000-of-00001"), Some(("m.data", 0, 1)));
        for name in ["m.ckpt", "m-1-of-00002", "m-00001-of-+0002", "m-0000a-of-00002", "-of-00001", "m-12345"]
        {
            assert_eq!(split_shard(name), None, "{name}");
        }
    }
}
