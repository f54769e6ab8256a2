//! Files that appear whole or not at all, directories that one run has for itself, and the room there is.
//!
//! The idea: whoever writes a draft or works in a directory holds a lock, and a lock ends with its process,
//! however that ends. So what a killed run left can be told from what another is writing, and goes.

use std::fs::{self, File, TryLockError};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use crate::error::{Error, Result};

/// A draft's name: this, letters and digits at random, and its end.
const START: &str = ".fast-pixel-cnn-";
const LETTERS: usize = 8;
const END: &str = ".draft";

/// Drafts from which on one call for the whole file system is less work than one for each: a file's own takes
/// milliseconds.
#[cfg(target_os = "linux")]
const MANY: usize = 8;

/// A file that is complete and not yet in its place. Dropped, it is gone.
pub struct Draft {
    file: NamedTempFile,
    place: PathBuf,
}

impl Draft {
    /// Writes a draft next to its place, with the permissions of what it is to replace, else of any new
    /// file.
    ///
    /// # Errors
    /// [`Error::Io`], also what `write` returns (a full disk).
    pub fn write(
        place: &Path,
        write: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
    ) -> Result<Draft> {
        let mut file = create(place).map_err(Error::io(place, "create"))?;
        let mut writer = BufWriter::with_capacity(1 << 16, file.as_file_mut());
        write(&mut writer).and_then(|()| writer.flush()).map_err(Error::io(place, "write"))?;
        drop(writer);
        Ok(Draft { file, place: place.into() })
    }

    /// What the file is known by, once it is in its place.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn metadata(&self) -> Result<fs::Metadata> {
        self.file.as_file().metadata().map_err(Error::io(&self.place, "read"))
    }
}

/// Directories that were made for what is to come. Dropped, those that are still empty are gone again.
pub struct NewDirectories(Vec<PathBuf>);

impl NewDirectories {
    /// Makes a directory and those around it, as far as they are missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn make(directory: &Path) -> Result<NewDirectories> {
        let missing = directory.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.exists());
        let new = NewDirectories(missing.map(Path::to_path_buf).collect());
        fs::create_dir_all(directory).map_err(Error::io(directory, "create a directory"))?;
        Ok(new)
    }

    /// Leaves them where they are.
    pub fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewDirectories {
    fn drop(&mut self) {
        // From the innermost on; one that is not empty cannot be removed so.
        self.0.iter().for_each(|directory| drop(fs::remove_dir(directory)));
    }
}

/// A directory that is being made beside its place. Dropped before it is put there, it is gone.
pub struct DraftDirectory {
    directory: TempDir,
    place: PathBuf,
    /// What the empty directory is like that is at its place.
    replaced: Option<fs::Metadata>,
    /// Held for as long as the draft is written; `None` where directories cannot be opened.
    _lock: Option<File>,
    /// The directories around it.
    around: NewDirectories,
}

impl DraftDirectory {
    /// Makes a draft beside its place, in directories that are made if need be, and removes the drafts of killed runs
    /// there. What stands at the place, if
    /// anything does, is an empty directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(place: &Path) -> Result<DraftDirectory> {
        let parent = directory_of(place);
        let around = NewDirectories::make(parent)?;
        sweep(parent);
        let replaced = fs::symlink_metadata(place).ok();
        let mut builder = tempfile::Builder::new();
        builder.prefix(START).suffix(END).rand_bytes(LETTERS);
        #[cfg(unix)]
        {
            // A draft is private by default, but this one becomes the directory: leave it to the umask, or to
            // the empty directory that is there.
            use std::os::unix::fs::PermissionsExt;
            let mode = replaced.as_ref().map_or(0o777, |metadata| metadata.permissions().mode());
            // What is written into a draft that is not the owner's to read would be out of reach.
            builder.permissions(fs::Permissions::from_mode(mode & 0o777 | 0o700));
        }
        loop {
            let directory = builder.tempdir_in(parent).map_err(plain);
            let directory = directory.map_err(Error::io(parent, "create a directory"))?;
            let lock = File::open(directory.path()).ok();
            // One that was swept between its creation and its lock is made anew.
            let held = lock.as_ref().map(|lock| hold(lock, directory.path()));
            if !matches!(held, Some(Ok(Held::Gone | Held::ByAnother))) {
                return Ok(DraftDirectory { directory, place: place.into(), replaced, _lock: lock, around });
            }
        }
    }

    /// Where its files are written.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts the directory in its place, when its files are on the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn place(self) -> Result<()> {
        sync_directory(self.path());
        if let Some(replaced) = &self.replaced {
            keep_access(self.path(), replaced).map_err(Error::io(&self.place, "keep its permissions"))?;
        }
        fs::rename(self.path(), &self.place).map_err(Error::io(&self.place, "put the directory there"))?;
        sync_directory(directory_of(&self.place));
        // The draft's name is gone; there is nothing left to remove.
        let _ = self.directory.keep();
        self.around.keep();
        Ok(())
    }
}

/// Puts drafts in their places, when all are on the disk, one right after the other, and waits until their
/// directories' lists of names are there too.
///
/// # Errors
/// [`Error::Io`]: for a disk that does not take them, and none is in place then; else the drafts before the one
/// it names are.
pub fn place(drafts: Vec<Draft>) -> Result<()> {
    sync(&drafts)?;
    let mut directories: Vec<PathBuf> = Vec::new();
    for Draft { file, place } in drafts {
        file.persist(&place).map_err(|e| Error::io(&place, "create")(e.error))?;
        let directory = directory_of(&place);
        if directories.last().is_none_or(|last| last != directory) {
            directories.push(directory.into());
        }
    }
    directories.iter().for_each(|directory| sync_directory(directory));
    Ok(())
}

/// Waits until drafts are on the disk.
fn sync(drafts: &[Draft]) -> Result<()> {
    #[cfg(target_os = "linux")]
    if let [first, ..] = drafts
        && drafts.len() >= MANY
        && drafts.iter().all(|draft| directory_of(&draft.place) == directory_of(&first.place))
        && rustix::fs::syncfs(first.file.as_file()).is_ok()
    {
        return Ok(());
    }
    drafts.iter().try_for_each(|d| d.file.as_file().sync_all().map_err(Error::io(&d.place, "write")))
}

/// Writes a file through a draft that is put in its place when it is complete, so that no reader sees a half
/// file and a failure leaves the old one.
///
/// # Errors
/// As for [`Draft::write`] and [`place`].
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
) -> Result<()> {
    place(vec![Draft::write(path, write)?])
}

/// Refuses a path that [`write_atomically`] could not write: a directory that takes no new file, or a
/// directory in the file's place. Call before a long run, so that it fails early. Drafts of killed runs beside it go.
///
/// # Errors
/// [`Error::Io`], [`Error::Unsupported`].
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::Unsupported {
            file: path.into(),
            found: "a directory stands where a file is to be written".into(),
            hint: "move it away or choose another place".into(),
        });
    }
    create(path).map_err(Error::io(path, "create"))?;
    sweep(directory_of(path));
    Ok(())
}

/// Removes the drafts, files and directories, in a directory whose writers are gone. What cannot be removed stays.
pub fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let letters = name.to_str().and_then(|n| n.strip_prefix(START)?.strip_suffix(END));
        let ours =
            letters.is_some_and(|l| l.len() == LETTERS && l.bytes().all(|b| b.is_ascii_alphanumeric()));
        let Some(kind) = entry.file_type().ok().filter(|kind| ours && (kind.is_file() || kind.is_dir()))
        else {
            continue;
        };
        let path = entry.path();
        // A directory can only be opened to be read.
        let opened = File::options().read(true).write(kind.is_file()).open(&path);
        if opened.is_ok_and(|opened| matches!(hold(&opened, &path), Ok(Held::Here))) {
            let _ = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

/// Opens a file, made if it does not exist, and locks it for as long as it is open. On a file system
/// without locks nothing is locked and nothing refused.
///
/// # Errors
/// [`Error::Io`]; [`Error::Unsupported`], which names the directory, if another process has it.
pub fn claim(path: &Path) -> Result<File> {
    loop {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(Error::io(path, "create"))?;
        match hold(&file, path) {
            Ok(Held::Here) | Err(_) => return Ok(file),
            // Removed by the one who had it.
            Ok(Held::Gone) => {}
            Ok(Held::ByAnother) => {
                return Err(Error::Unsupported {
                    file: directory_of(path).into(),
                    found: "another run is at work in this directory".into(),
                    hint: "wait for its end or choose another directory".into(),
                });
            }
        }
    }
}

/// Whether a file's lock was got.
enum Held {
    /// It was, and the file is the one that the path names.
    Here,
    /// It was, and the path names nothing or another file.
    Gone,
    /// It was not.
    ByAnother,
}

/// Locks a file until it is closed, and looks whether the path still names it: whoever removes a file has
/// its lock, so from then on nobody does.
fn hold(file: &File, path: &Path) -> std::io::Result<Held> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Held::ByAnother),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let open = file.metadata()?;
        let same = |named: fs::Metadata| (named.dev(), named.ino()) == (open.dev(), open.ino());
        Ok(if fs::symlink_metadata(path).is_ok_and(same) { Held::Here } else { Held::Gone })
    }
    #[cfg(not(unix))]
    Ok(if path.exists() { Held::Here } else { Held::Gone })
}

/// A new, locked, empty draft for a place.
fn create(place: &Path) -> std::io::Result<NamedTempFile> {
    let replaced = fs::symlink_metadata(place).ok().filter(fs::Metadata::is_file);
    let mut builder = tempfile::Builder::new();
    builder.prefix(START).suffix(END).rand_bytes(LETTERS);
    #[cfg(unix)]
    if replaced.is_none() {
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    }
    loop {
        let draft = builder.tempfile_in(directory_of(place)).map_err(plain)?;
        // One that was swept between its creation and its lock is made anew.
        if matches!(hold(draft.as_file(), draft.path()), Ok(Held::Gone | Held::ByAnother)) {
            continue;
        }
        if let Some(replaced) = replaced {
            keep_access(draft.path(), &replaced)?;
        }
        return Ok(draft);
    }
}

/// The system's own error: `tempfile` adds the name of a draft, which is nobody's.
fn plain(error: std::io::Error) -> std::io::Error {
    let source = error.get_ref().and_then(|e| e.source()).and_then(|e| e.downcast_ref::<std::io::Error>());
    source.and_then(std::io::Error::raw_os_error).map_or(error, std::io::Error::from_raw_os_error)
}

/// Gives `path` the permissions of what it replaces, and its owner and group where the user may.
fn keep_access(path: &Path, replaced: &fs::Metadata) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, chown};
        let own = fs::metadata(path)?;
        if own.gid() != replaced.gid() {
            let _ = chown(path, None, Some(replaced.gid()));
        }
        if own.uid() != replaced.uid() {
            let _ = chown(path, Some(replaced.uid()), None);
        }
    }
    // Last: a change of owner takes bits away.
    fs::set_permissions(path, replaced.permissions())
}

/// The directory in which a path's last name stands.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Waits until a directory's list of names is on the disk. The files are there already; that they stay through a
/// power cut at this moment is worth a try, not an error. Other systems than Unix cannot open directories.
pub fn sync_directory(directory: &Path) {
    if cfg!(unix) {
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
    }
}

/// Files of one size that are to be written.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// How many.
    pub files: u64,
    /// Bytes of each, or more.
    pub bytes: u64,
}

/// Refuses files for which a directory's file system has no room, as far as it says. Call before a long
/// run, so that it fails early.
///
/// # Errors
/// [`Error::Unsupported`].
pub fn check_room(directory: &Path, planned: &[Planned]) -> Result<()> {
    let Some(room) = room(directory) else { return Ok(()) };
    let blocks = |p: &Planned| p.bytes.div_ceil(room.block).max(1).saturating_mul(room.block);
    let needed = planned.iter().fold(0u64, |sum, p| sum.saturating_add(p.files.saturating_mul(blocks(p))));
    let files = planned.iter().fold(0u64, |sum, p| sum.saturating_add(p.files));
    let found = if needed > room.bytes {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        format!(
            "{:.1} MiB are free, and up to {:.1} MiB are needed",
            mebibytes(room.bytes),
            mebibytes(needed)
        )
    } else if room.files.is_some_and(|free| files > free) {
        format!("{files} files are to be written, and the file system takes {} more", room.files.unwrap_or(0))
    } else {
        return Ok(());
    };
    Err(Error::Unsupported {
        file: directory.into(),
        found,
        hint: "make room or choose another directory".into(),
    })
}

/// What a file system has left for this user.
struct Room {
    bytes: u64,
    /// Bytes that a file takes at least, and multiples of which.
    block: u64,
    /// `None` where files are not counted.
    files: Option<u64>,
}

/// `None` where the system does not say.
fn room(directory: &Path) -> Option<Room> {
    #[cfg(unix)]
    {
        let said = rustix::fs::statvfs(directory).ok()?;
        let block = said.f_frsize.max(1);
        let files = (said.f_files > 0).then_some(said.f_favail);
        (said.f_blocks > 0).then(|| Room { bytes: said.f_bavail.saturating_mul(block), block, files })
    }
    #[cfg(not(unix))]
    {
        let _ = directory;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn drafts_whose_writer_is_gone_are_swept_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let live = Draft::write(&at("a"), |w| w.write_all(b"new")).unwrap();
        fs::write(at(".fast-pixel-cnn-aB3dE6gH.draft"), "left by a killed run").unwrap();
        let others =
            [".fast-pixel-cnn-x.draft", ".fast-pixel-cnn-aB3_E6gH.draft", ".draft-aB3dE6", "mine.draft"];
        others.iter().for_each(|name| fs::write(at(name), "").unwrap());
        fs::create_dir(at(".fast-pixel-cnn-folder00.draft")).unwrap();
        fs::write(at(".fast-pixel-cnn-folder00.draft/x.npy"), "left by a killed conversion").unwrap();
        let making = DraftDirectory::create(&at("b")).unwrap();
        fs::write(making.path().join("y.npy"), "").unwrap();
        sweep(directory.path());
        place(vec![live]).unwrap();
        making.place().unwrap();
        let mut expected = vec!["a", "b"];
        expected.extend(others);
        expected.sort();
        assert_eq!(names(directory.path()), expected);
        assert_eq!(fs::read(at("a")).unwrap(), b"new");
    }

    #[test]
    fn a_claim_is_for_one_and_ends_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("claim");
        let first = claim(&path).unwrap();
        let message = claim(&path).unwrap_err().to_string();
        assert!(message.contains("another run is at work") && !message.contains('\n'), "{message}");
        drop(first);
        let second = claim(&path).unwrap();
        // Whoever waited for a claim that was removed does not have it.
        fs::remove_file(&path).unwrap();
        let third = claim(&path).unwrap();
        drop(second);
        assert!(claim(&path).is_err());
        drop(third);
    }

    #[test]
    fn files_without_room_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let check = |files, bytes| {
            check_room(directory.path(), &[Planned { files: 1, bytes: 1 }, Planned { files, bytes }])
        };
        check(10, 100).unwrap();
        if room(directory.path()).is_none() {
            eprintln!("this file system does not say what room it has");
            return;
        }
        let message = check(1, u64::MAX).unwrap_err().to_string();
        assert!(message.contains("MiB are free") && !message.contains('\n'), "{message}");
        // Each file takes a block, be it of a few bytes.
        assert!(check(1 << 40, 1).is_err());
    }
}
