//! What the program remembers of a save directory: which files there are its own.
//!
//! The idea: a run must not leave an earlier run's files beside its own, nor touch what is not the program's.
//! So it keeps a list, with each file's length and time; what has changed since is no longer its own. The
//! file with the list is also the lock by which a run has the directory for itself.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use fast_pixel_cnn::{Error, Result, media::files};
use serde::{Deserialize, Serialize};

use crate::kind::DIRECTORIES;

/// The file with the list.
const NAME: &str = ".generate.json";
/// The only kind of list there is so far.
const SCHEMA: &str = "fast-pixel-cnn/outputs/1";
/// A list has a few hundred bytes, and about 70 for each sound.
const MAX_BYTES: u64 = 1 << 20;

/// The list.
#[derive(Default, Serialize, Deserialize)]
struct List {
    schema: String,
    /// The program's files, by name, those in a directory as `sounds/000000.wav`.
    files: BTreeMap<String, Stamp>,
    /// Which images or sounds are in the directory of single ones: the [`name`](crate::series::Series::name) of their series.
    series: Option<String>,
}

/// By which a file is recognised.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = since.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0);
        Stamp { bytes: metadata.len(), modified }
    }
}

/// A save directory that this process has for itself, and the list of the program's files there.
pub struct Record {
    directory: PathBuf,
    file: File,
    list: List,
}

impl Record {
    /// Claims a directory and reads its list. A list that cannot be read claims no file.
    pub fn open(directory: &Path) -> Result<Record> {
        let path = directory.join(NAME);
        let mut file = files::claim(&path)?;
        let mut text = Vec::new();
        (&mut file).take(MAX_BYTES).read_to_end(&mut text).map_err(Error::io(&path, "read"))?;
        let list = serde_json::from_slice::<List>(&text).ok().filter(|list| list.schema == SCHEMA);
        Ok(Record { directory: directory.into(), file, list: list.unwrap_or_default() })
    }

    /// Whether a file is there that is not known as the program's.
    pub fn is_foreign(&self, name: &str) -> bool {
        let found = fs::symlink_metadata(self.directory.join(name));
        found.is_ok_and(|found| self.list.files.get(name) != Some(&Stamp::of(&found)))
    }

    /// Which images or sounds the directory of single ones has, if the program made it.
    pub fn series(&self) -> Option<&str> {
        self.list.series.as_deref()
    }

    /// Forgets them, as they are not there any more.
    pub fn forget_series(&mut self) {
        self.list.series = None;
    }

    /// Whether all files that are seen in a directory of single images or sounds are the program's, unchanged.
    pub fn owns_all(&self, directory: &str) -> bool {
        let Ok(entries) = fs::read_dir(self.directory.join(directory)) else { return false };
        let own = |entry: std::io::Result<fs::DirEntry>| {
            let Some(name) = entry.ok().and_then(|entry| entry.file_name().into_string().ok()) else {
                return false;
            };
            name.starts_with('.') || !self.is_foreign(&format!("{directory}/{name}"))
        };
        entries.into_iter().all(own)
    }

    /// Writes down that the directory of single images or sounds has these.
    pub fn begin(&mut self, series: String) -> Result<()> {
        self.list.series = Some(series);
        self.save()
    }

    /// Puts drafts in their places in the directory, written down before, so that a kill in between leaves none
    /// unknown.
    pub fn place(&mut self, drafts: Vec<(&str, files::Draft)>) -> Result<()> {
        for (name, draft) in &drafts {
            self.list.files.insert((*name).into(), Stamp::of(&draft.metadata()?));
        }
        self.save()?;
        files::place(drafts.into_iter().map(|(_, draft)| draft).collect())
    }

    /// Removes a file of the save directory that is about to be replaced, for as long as it would say what is not so.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path, "remove")(e)),
            _ => Ok(()),
        }
    }

    /// Removes the program's files in the save directory itself but those named, as far as they are unchanged, and
    /// forgets them.
    pub fn retire(&mut self, but: &[&str]) -> Result<()> {
        self.retire_all_but(|name| but.contains(&name) || name.contains('/'))
    }

    /// Does so with those in a directory of single images or sounds.
    pub fn retire_singles(&mut self) -> Result<()> {
        self.retire_all_but(|name| !name.contains('/'))
    }

    fn retire_all_but(&mut self, kept: impl Fn(&str) -> bool) -> Result<()> {
        let (kept, old) = std::mem::take(&mut self.list.files)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(name, _)| kept(name));
        for (name, stamp) in &old {
            let path = self.directory.join(name);
            // A name from the file is not believed to be one of a file in this directory.
            let inside = name.split_once('/').map_or(name.as_str(), |(directory, inside)| {
                if DIRECTORIES.contains(&directory) { inside } else { "" }
            });
            let here = Path::new(inside).file_name().is_some_and(|last| last == inside);
            let same = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && Stamp::of(&m) == *stamp);
            if here && same {
                fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
            }
        }
        self.list.files = kept;
        if old.is_empty() {
            return Ok(());
        }
        self.save()?;
        files::sync_directory(&self.directory);
        Ok(())
    }

    /// Writes the list over the old one: another file in its place would not have the lock.
    fn save(&mut self) -> Result<()> {
        self.list.schema = SCHEMA.into();
        let path = self.directory.join(NAME);
        let text = serde_json::to_vec(&self.list).map_err(|e| Error::io(&path, "write")(e.into()))?;
        let write = |file: &mut File| {
            file.rewind()?;
            file.write_all(&text)?;
            file.set_len(text.len() as u64)
        };
        write(&mut self.file).map_err(Error::io(&path, "write"))
    }
}

impl Drop for Record {
    /// A list of nothing goes, while it is still locked.
    fn drop(&mut self) {
        if self.file.metadata().is_ok_and(|m| m.len() == 0) {
            let _ = fs::remove_file(self.directory.join(NAME));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_s_own_unchanged_files_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let draft = |name: &str| files::Draft::write(&at(name), |w| w.write_all(b"made")).unwrap();
        let mut record = Record::open(directory.path()).unwrap();
        assert!(Record::open(directory.path()).is_err(), "one has the directory");
        record.place(vec![("a", draft("a")), ("b", draft("b")), ("c", draft("c"))]).unwrap();
        fs::write(at("d"), "the user's").unwrap();
        fs::write(at("b"), "changed").unwrap();
        drop(record);
        let mut record = Record::open(directory.path()).unwrap();
        let foreign = ["a", "b", "c", "d", "none"].map(|name| record.is_foreign(name));
        assert_eq!(foreign, [false, true, false, true, false]);
        record.place(vec![("c", draft("c"))]).unwrap();
        record.retire(&["c"]).unwrap();
        let there = ["a", "b", "c", "d"].map(|name| at(name).exists());
        assert_eq!(there, [false, true, true, true]);
    }

    #[test]
    fn sounds_make_room_where_all_that_is_seen_is_the_program_s() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let draft = |name: &str| files::Draft::write(&at(name), |w| w.write_all(b"made")).unwrap();
        fs::create_dir(at("sounds")).unwrap();
        let mut record = Record::open(directory.path()).unwrap();
        let names = ["a", "sounds/0.wav", "sounds/1.wav"];
        record.place(names.map(|name| (name, draft(name))).into()).unwrap();
        assert!(record.owns_all("sounds") && !record.owns_all("images"));
        fs::write(at("sounds/2.wav"), "the user's").unwrap();
        assert!(!record.owns_all("sounds"));
        fs::remove_file(at("sounds/2.wav")).unwrap();
        fs::write(at("sounds/1.wav"), "changed").unwrap();
        assert!(!record.owns_all("sounds"));
        record.retire(&[]).unwrap();
        assert_eq!(names.map(|name| at(name).exists()), [false, true, true]);
        record.retire_singles().unwrap();
        assert_eq!(names.map(|name| at(name).exists()), [false, false, true]);
    }

    #[test]
    fn a_list_is_not_believed_to_name_files_elsewhere_and_an_empty_one_goes() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        fs::create_dir(&out).unwrap();
        drop(Record::open(&out).unwrap());
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
        let other = directory.path().join("other");
        fs::write(&other, "the user's").unwrap();
        let stamp = serde_json::to_string(&Stamp::of(&fs::metadata(&other).unwrap())).unwrap();
        for name in ["../other", "sounds/../../other", "sounds/..", "/other"] {
            let list =
                format!("{{\"schema\":\"{SCHEMA}\",\"files\":{{\"{name}\":{stamp}}},\"series\":null}}");
            fs::write(out.join(NAME), list).unwrap();
            Record::open(&out).unwrap().retire(&[]).unwrap();
            Record::open(&out).unwrap().retire_singles().unwrap();
            assert!(other.exists());
        }
        for broken in ["{", "[]", "{\"schema\":\"another\",\"files\":{},\"series\":\"x\"}"] {
            fs::write(out.join(NAME), broken).unwrap();
            assert!(Record::open(&out).unwrap().series().is_none());
        }
    }
}
