//! Weights as a directory: one `.npy` for each array and `model.json`.
//!
//! The idea: the directory is complete or absent. It is written beside its place under another name,
//! synced and renamed; on opening, every file is expected by name and measured against the
//! configuration; a file is read when its array is asked for, and compared with its SHA-256.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Options, Source, Values, Weights, fold};
use crate::error::{Error, Result, printable};
use crate::graph::{Graph, Parameter};
use crate::media::files::DraftDirectory;
use crate::media::npy;
use crate::models::ModelConfig;

/// The file that describes the others.
pub(super) const MANIFEST: &str = "model.json";
/// The only kind of manifest there is so far.
const SCHEMA: &str = "fast-pixel-cnn/weights/1";
/// A manifest of the largest model allowed takes a third of this, in bytes.
const MAX_MANIFEST: u64 = 4 << 20;

/// The contents of `model.json`.
#[derive(Serialize, Deserialize)]
struct Manifest {
    schema: String,
    /// What wrote it, for people.
    program: String,
    config: ModelConfig,
    source: Source,
    /// From a file's name to the SHA-256 of its bytes, in hexadecimal.
    sha256: BTreeMap<String, String>,
}

/// The file of an array: `NAME/V` is in `NAME.V.npy`.
fn file_name(array: &str) -> String {
    format!("{}.npy", array.replace('/', "."))
}

/// A directory that is being written.
pub(super) struct Writer {
    place: PathBuf,
    draft: DraftDirectory,
}

impl Writer {
    /// Checks that `place` is free and creates a draft beside it.
    pub(super) fn create(place: &Path) -> Result<Writer> {
        if place.file_name().is_none() || place.parent().is_none() {
            let expected = "the name of a new directory";
            return Err(Error::argument("directory", expected, place.display().to_string()));
        }
        if let Ok(metadata) = fs::symlink_metadata(place) {
            let free = metadata.is_dir() && fs::read_dir(place).is_ok_and(|mut list| list.next().is_none());
            if !free {
                return Err(Error::Unsupported {
                    file: place.into(),
                    found: "something is there already".into(),
                    hint: "nothing is overwritten: give a new or an empty directory".into(),
                });
            }
        }
        Ok(Writer { place: place.into(), draft: DraftDirectory::create(place)? })
    }

    /// Asks for each array in turn by parameter, name and shape, writes it, and puts the directory in its
    /// place.
    pub(super) fn finish<'a>(
        self,
        config: &ModelConfig,
        source: Source,
        mut array: impl FnMut(&Parameter, &str, &[usize]) -> Result<Cow<'a, [f32]>>,
    ) -> Result<()> {
        let mut sha256 = BTreeMap::new();
        for (parameter, name, shape) in config.graph().arrays(source.folded) {
            let file = file_name(&name);
            let values = array(parameter, &name, &shape)?;
            let write = |w: &mut BufWriter<Hashing<File>>| npy::write_to(w, &shape, values.iter().copied());
            let hash = self.write(&file, write)?;
            sha256.insert(file, hash);
        }
        let program = format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let manifest = Manifest { schema: SCHEMA.into(), program, config: config.clone(), source, sha256 };
        self.write(MANIFEST, |w| {
            serde_json::to_writer_pretty(&mut *w, &manifest)?;
            w.write_all(b"\n")
        })?;
        self.sync(manifest.sha256.keys().map(String::as_str).chain([MANIFEST]))?;
        self.draft.place()
    }

    /// Writes a file of the draft and returns its SHA-256. Messages name the file to be.
    fn write(
        &self,
        name: &str,
        body: impl FnOnce(&mut BufWriter<Hashing<File>>) -> std::io::Result<()>,
    ) -> Result<String> {
        let fill = || {
            let file = File::create_new(self.draft.path().join(name))?;
            let hash = Sha256::new();
            let mut writer = BufWriter::with_capacity(1 << 16, Hashing { file, hash });
            body(&mut writer)?;
            let written = writer.into_inner().map_err(|e| e.into_error())?;
            Ok(hex(&written.hash.finalize()))
        };
        fill().map_err(Error::io(&self.place.join(name), "write"))
    }

    /// Waits until everything is on the disk. After all is written, since one journal commit then serves
    /// many files.
    fn sync<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<()> {
        for name in names {
            let file = File::options().write(true).open(self.draft.path().join(name));
            let synced = file.and_then(|file| file.sync_all());
            synced.map_err(Error::io(&self.place.join(name), "sync"))?;
        }
        Ok(())
    }
}

/// A file that hashes what is written to it, or read from it.
struct Hashing<F> {
    file: F,
    hash: Sha256,
}

impl<F: Write> Write for Hashing<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl<F: Read> Read for Hashing<F> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }
}

/// The SHA-256 of the file that an array would be in.
pub(super) fn sha256(shape: &[usize], values: &[f32]) -> String {
    let mut writer =
        BufWriter::with_capacity(1 << 16, Hashing { file: std::io::sink(), hash: Sha256::new() });
    npy::write_to(&mut writer, shape, values.iter().copied()).expect("a sink takes all");
    let written = writer.into_inner().map_err(|e| e.into_error()).expect("a sink takes all");
    hex(&written.hash.finalize())
}

pub(super) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// Opens a directory: everything is checked but the values.
pub(super) fn load(directory: &Path, options: &Options) -> Result<Weights> {
    let path = directory.join(MANIFEST);
    let manifest = read_manifest(&path)?;
    manifest.config.check_limits(&path)?;
    if options.raw && manifest.source.averaged {
        let reason =
            format!("{} has averaged weights alone: the checkpoint has the raw ones", directory.display());
        return Err(Error::refused("raw", reason));
    }
    if options.scope.is_some() {
        let reason = format!("{} has one model: it was converted, and is no checkpoint", directory.display());
        return Err(Error::refused("scope", reason));
    }
    if options.params.is_some() {
        let reason =
            format!("{} has them in {MANIFEST}: it was converted, and is no checkpoint", directory.display());
        return Err(Error::refused("params", reason));
    }
    let graph = manifest.config.graph();
    compare(directory, &graph, &manifest)?;
    let config = manifest.config.with_nonlinearity(options.nonlinearity)?;
    let values = Values::Directory(Reader {
        directory: directory.into(),
        sha256: manifest.sha256,
        folded: manifest.source.folded,
    });
    let graph = config.graph();
    Ok(Weights { config: Some(config), graph, source: manifest.source, warnings: Vec::new(), values })
}

/// A directory that has every array of its model.
#[derive(Debug)]
pub(super) struct Reader {
    directory: PathBuf,
    sha256: BTreeMap<String, String>,
    /// Whether the arrays are `W` and `b`, not `V`, `g` and `b`.
    folded: bool,
}

impl Reader {
    /// An array's SHA-256 by the manifest.
    pub(super) fn sha256(&self, name: &str) -> String {
        self.sha256[&file_name(name)].to_ascii_lowercase()
    }

    /// Reads and checks an array, in one pass over its file.
    pub(super) fn read(&self, parameter: &Parameter, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let file = file_name(name);
        let path = self.directory.join(&file);
        let (source, length) = npy::open_regular(&path)?;
        let mut reader = BufReader::new(Hashing { file: source, hash: Sha256::new() });
        let values = npy::read_from::<f32>(&path, &mut reader, length)?.into_raw_vec_and_offset().0;
        let (expected, found) = (&self.sha256[&file], hex(&reader.into_inner().hash.finalize()));
        if !expected.eq_ignore_ascii_case(&found) {
            let expected = format!("SHA-256 {} as in {MANIFEST}", printable(expected));
            return Err(Error::malformed(&path, "contents", expected, found));
        }
        if self.folded {
            fold::check_finite(&path, name, shape, &values)?;
        } else {
            fold::check_values(&path, name, parameter, shape, &values)?;
        }
        Ok(values)
    }
}

/// Reads a manifest of a known schema.
fn read_manifest(path: &Path) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct Schema {
        schema: String,
    }
    let (file, length) = npy::open_regular(path)?;
    if length > MAX_MANIFEST {
        let expected = format!("at most {MAX_MANIFEST} bytes");
        return Err(Error::malformed(path, "length", expected, length.to_string()));
    }
    let mut text = Vec::new();
    file.take(MAX_MANIFEST).read_to_end(&mut text).map_err(Error::io(path, "read"))?;
    let bad = |e: serde_json::Error| {
        Error::malformed(path, "JSON", "the description of a model", printable(&e.to_string()))
    };
    let Schema { schema } = serde_json::from_slice(&text).map_err(bad)?;
    if schema != SCHEMA {
        let found = format!("\"{}\"", printable(&schema));
        return Err(Error::malformed(path, "schema", format!("\"{SCHEMA}\""), found));
    }
    serde_json::from_slice(&text).map_err(bad)
}

/// Compares names, on the disk and in the manifest, and shapes with the network's. Reads headers only.
fn compare(directory: &Path, graph: &Graph, manifest: &Manifest) -> Result<()> {
    let mut present = BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(Error::io(directory, "list"))? {
        let name = entry.map_err(Error::io(directory, "list"))?.file_name().to_string_lossy().into_owned();
        // macOS keeps what other systems' disks have no place for in a second file of such a name.
        if name.ends_with(".npy") && !name.starts_with("._") {
            present.insert(name);
        }
    }
    let folded = manifest.source.folded;
    let expected = graph.arrays(folded).count();
    if expected > 2 * present.len() + 1000 {
        // Not an accident to list, but a description of something else.
        let problems =
            vec![format!("at least {} of {expected} tensors are missing", expected - present.len())];
        return Err(manifest.config.mismatch(directory, problems));
    }
    let mut listed: BTreeSet<&str> = manifest.sha256.keys().map(String::as_str).collect();
    let mut problems = Vec::new();
    for (_, name, shape) in graph.arrays(folded) {
        let file = file_name(&name);
        if !listed.remove(file.as_str()) {
            problems.push(format!("{file} has no SHA-256 in {MANIFEST}"));
        }
        if !present.remove(&file) {
            problems.push(format!("{file} {shape:?} is missing"));
            continue;
        }
        let found = npy::shape_of::<f32>(&directory.join(&file))?;
        if found != shape {
            problems.push(format!("{file}: expected shape {shape:?}, found {found:?}"));
        }
    }
    problems.extend(present.iter().map(|name| format!("{} is extra", name.escape_debug())));
    problems.extend(listed.iter().map(|name| format!("{} is extra in {MANIFEST}", name.escape_debug())));
    if problems.is_empty() {
        return Ok(());
    }
    Err(manifest.config.mismatch(directory, problems))
}
