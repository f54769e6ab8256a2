//! TensorFlow's second checkpoint format, the bundle: an index, which is a table, and data files with
//! nothing in them but the values.
//!
//! The idea: the index is read whole and checked against the data files' lengths when the checkpoint
//! is opened, so that a missing or cut file is found at once; a variable is then one read of a data
//! file, straight to where the values are wanted.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use super::messages::{BundleEntry, BundleHeader};
use super::slices::{Slice, cover};
use super::table::{Table, masked};
use super::verify::{checksum, is_known};
use crate::checkpoint::fault::{Fault, quote};
use crate::checkpoint::{DType, VARIABLES, Variable, Verified, find_float, volume, zeros};
use crate::error::{Error, Result};

/// The most data files: their names count with five digits.
const SHARDS: u64 = 99_999;

/// The version of the format that is read here.
const VERSION: u64 = 1;

/// One data file.
#[derive(Debug)]
pub struct Shard<R> {
    /// Its contents.
    pub source: R,
    /// Its name in messages.
    pub file: PathBuf,
    /// Its length in bytes.
    pub length: u64,
}

/// Where values lie.
#[derive(Debug)]
struct Place {
    shard: usize,
    offset: u64,
    size: u64,
    /// The values that the shape has room for.
    count: u64,
    checksum: u32,
}

/// What the index has of a variable.
#[derive(Debug)]
struct Entry {
    place: Place,
    /// The slices under whose keys the values are, if not at `place`.
    slices: Vec<Slice>,
}

/// What the index has of a slice.
#[derive(Debug)]
struct Part {
    key: Vec<u8>,
    dtype: DType,
    place: Place,
}

/// A checkpoint in the V2 format.
#[derive(Debug)]
pub struct Reader<R> {
    index: PathBuf,
    shards: Vec<Shard<R>>,
    variables: Vec<Variable>,
    /// Of each variable, in the same order.
    entries: Vec<Entry>,
    /// Slices of variables, sorted by key.
    parts: Vec<Part>,
}

/// Whether the table is an index of this format, judged by its first entry: in field 1 the header of an
/// index has a number, the list of variables of a V1 table a message.
///
/// # Errors
/// As [`Table::get`].
pub fn is_index<R: Read + Seek>(table: &mut Table<R>) -> Result<bool> {
    Ok(table.get(b"")?.is_some_and(|entry| entry.first() == Some(&0x08)))
}

impl<R: Read + Seek> Reader<R> {
    /// Reads the whole index. `open_shard` opens a data file, given its number and how many there are.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the index is damaged or a data file is shorter than the index has it;
    /// [`Error::Unsupported`] for a bundle of big-endian values or of a later version; what
    /// [`Table::for_each`] and `open_shard` return.
    pub fn open(
        mut index: Table<R>,
        mut open_shard: impl FnMut(u64, u64) -> Result<Shard<R>>,
    ) -> Result<Reader<R>> {
        let header = header(&mut index)?;
        let mut reader = Reader {
            index: index.file().to_path_buf(),
            shards: (0..header.shards)
                .map(|number| open_shard(number, header.shards))
                .collect::<Result<_>>()?,
            variables: Vec::new(),
            entries: Vec::new(),
            parts: Vec::new(),
        };
        let mut slices = 0;
        index.for_each(|key, value| {
            if key.is_empty() {
                return Ok(());
            }
            let at = |fault: Fault| fault.at(&reader.index, format!("entry {}", quote(key)));
            let entry = BundleEntry::decode(value).map_err(at)?;
            slices += entry.slices.len();
            if reader.entries.len() + reader.parts.len() == VARIABLES || slices > VARIABLES {
                return Err(at(Fault::new(format!("at most {VARIABLES} variables and slices"), "more")));
            }
            let place = reader.place(&entry).map_err(at)?;
            // The key of a slice begins with a zero byte, which no name does.
            if key[0] == 0 {
                reader.parts.push(Part { key: key.to_vec(), dtype: entry.dtype, place });
                return Ok(());
            }
            let name = std::str::from_utf8(key)
                .map_err(|_| at(Fault::new("a variable's name in UTF-8", "other bytes")))?
                .to_string();
            reader.variables.push(Variable { name, dtype: entry.dtype, shape: entry.shape });
            reader.entries.push(Entry { place, slices: entry.slices });
            Ok(())
        })?;
        reader.check_apart()?;
        Ok(reader)
    }

    /// Where an entry's values are, which must be in a shard; nowhere if they are in slices.
    fn place(&self, entry: &BundleEntry) -> std::result::Result<Place, Fault> {
        let count = self.shards.len();
        let number = usize::try_from(entry.shard).unwrap_or(usize::MAX);
        let Some(shard) = self.shards.get(number) else {
            let found = entry.shard.to_string();
            return Err(Fault::new(format!("a shard below {count}"), found));
        };
        let size = if entry.slices.is_empty() { entry.size } else { 0 };
        if entry.offset.checked_add(size).is_none_or(|end| end > shard.length) {
            return Err(Fault::new(
                format!("{size} bytes at {} of {}", entry.offset, shard.file.display()),
                format!("a file of {} bytes", shard.length),
            ));
        }
        let count = entry.shape.iter().fold(1, |count: u64, &size| count.saturating_mul(size as u64));
        Ok(Place { shard: number, offset: entry.offset, size, count, checksum: entry.checksum })
    }

    /// No two entries share bytes: reading every variable reads no more than the files hold.
    fn check_apart(&self) -> Result<()> {
        let entries = self.entries.iter().map(|entry| &entry.place);
        let places = entries.chain(self.parts.iter().map(|part| &part.place));
        let mut places: Vec<&Place> = places.filter(|place| place.size > 0).collect();
        places.sort_by_key(|place| (place.shard, place.offset));
        for pair in places.windows(2) {
            let end = pair[0].offset + pair[0].size;
            if pair[0].shard == pair[1].shard && pair[1].offset < end {
                let fault = Fault::new(
                    format!("values at or behind byte {end} of shard {}", pair[1].shard),
                    format!("two variables' at byte {}", pair[1].offset),
                );
                return Err(fault.at(&self.index, "the places of the variables"));
            }
        }
        Ok(())
    }

    /// The variables, sorted by name.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Bytes of all data files.
    pub fn length(&self) -> u64 {
        self.shards.iter().map(|shard| shard.length).fold(0, u64::saturating_add)
    }

    /// The values of the floating-point variable `name`, row-major.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is none of that name and type, or its size is not that of its
    /// shape, or its slices do not make it up, or a checksum is wrong; [`Error::Io`].
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        let (index, size) = find_float(&self.variables, &self.index, name)?;
        let (Variable { shape, dtype, .. }, entry) = (&self.variables[index], &self.entries[index]);
        let place = format!("tensor {}", quote(name.as_bytes()));
        let at = |fault: Fault| fault.at(&self.index, &place);
        let volume = volume(shape, self.length() / size as u64).map_err(at)?;
        let mut read = |from: &Place, count: usize| {
            if from.size != size as u64 * count as u64 {
                let found = format!("{} bytes", from.size);
                return Err(at(Fault::new(format!("{count} values of {size} bytes"), found)));
            }
            self.shards[from.shard].read(from, *dtype, zeros(count).map_err(at)?, &place)
        };
        if entry.slices.is_empty() {
            return read(&entry.place, volume);
        }
        let regions = cover(entry.slices.iter(), shape, volume).map_err(at)?;
        let mut whole = zeros::<f32>(volume).map_err(at)?;
        for (slice, region) in entry.slices.iter().zip(&regions) {
            let key = slice.key(name);
            let found = self.parts.binary_search_by(|part| part.key.cmp(&key)).ok();
            let Some(part) = found.map(|found| &self.parts[found]) else {
                return Err(at(Fault::new("an entry for each of its slices", "none for one")));
            };
            if part.dtype != *dtype {
                return Err(at(Fault::new(format!("{dtype} slices"), part.dtype.to_string())));
            }
            region.scatter(&read(&part.place, region.volume())?, shape, &mut whole);
        }
        Ok(whole)
    }

    /// Reads the values of every variable and verifies their checksums. `watch` is called before each.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a checksum is wrong; [`Error::Io`]; what `watch` returns.
    pub fn verify(&mut self, watch: &mut dyn FnMut() -> Result<()>) -> Result<Verified> {
        let mut done = Verified { variables: 0, bytes: 0, skipped: Vec::new() };
        for (variable, entry) in self.variables.iter().zip(&self.entries) {
            watch()?;
            if !is_known(variable.dtype) {
                done.skipped.push(variable.clone());
                continue;
            }
            // A variable in slices has no values of its own.
            if entry.slices.is_empty() {
                let place = format!("tensor {}", quote(variable.name.as_bytes()));
                self.shards[entry.place.shard].verify(&entry.place, variable.dtype, &place)?;
                done.bytes += entry.place.size;
            }
            done.variables += 1;
        }
        for part in self.parts.iter().filter(|part| is_known(part.dtype)) {
            watch()?;
            let place = format!("slice {}", quote(&part.key));
            self.shards[part.place.shard].verify(&part.place, part.dtype, &place)?;
            done.bytes += part.place.size;
        }
        Ok(done)
    }
}

/// The entry under the empty key.
fn header<R: Read + Seek>(index: &mut Table<R>) -> Result<BundleHeader> {
    let file = index.file().to_path_buf();
    let at = |fault: Fault| fault.at(&file, "the bundle's header");
    let Some(entry) = index.get(b"")? else {
        return Err(at(Fault::new("an entry under the empty key", "none")));
    };
    let header = BundleHeader::decode(entry).map_err(at)?;
    let unsupported =
        |found: String, hint: &str| Error::Unsupported { file: file.clone(), found, hint: hint.into() };
    if header.big_endian {
        return Err(unsupported(
            "a TensorFlow V2 checkpoint with big-endian values".into(),
            "save it again on a little-endian machine",
        ));
    }
    if header.min_consumer > VERSION {
        return Err(unsupported(
            format!("a checkpoint for readers of version {} and later", header.min_consumer),
            "version 1 is supported",
        ));
    }
    if !(1..=SHARDS).contains(&header.shards) {
        let found = header.shards.to_string();
        return Err(at(Fault::new(format!("1 to {SHARDS} data files"), found)));
    }
    Ok(header)
}

impl<R: Read + Seek> Shard<R> {
    fn seek(&mut self, place: &Place) -> Result<()> {
        self.source.seek(SeekFrom::Start(place.offset)).map_err(|error| self.unread(place, error)).map(|_| ())
    }

    fn unread(&self, place: &Place, error: std::io::Error) -> Error {
        Error::io(&self.file, format!("read {} bytes at offset {}", place.size, place.offset))(error)
    }

    /// Fills `values`, of type `dtype`, and verifies their checksum. A place is within
    /// its file.
    fn read(&mut self, place: &Place, dtype: DType, mut values: Vec<f32>, name: &str) -> Result<Vec<f32>> {
        self.seek(place)?;
        let mut checksum = 0;
        let seen = |bytes: &[u8]| checksum = crc32c::crc32c_append(checksum, bytes);
        dtype.read(&mut self.source, &mut values, seen).map_err(|error| self.unread(place, error))?;
        self.compare(place, checksum, name)?;
        Ok(values)
    }

    /// Reads what is at a place, of a type that [`is_known`], and verifies its checksum.
    fn verify(&mut self, place: &Place, dtype: DType, name: &str) -> Result<()> {
        self.seek(place)?;
        let bytes = self.source.by_ref().take(place.size);
        match checksum(bytes, dtype, place.count).map_err(|error| self.unread(place, error))? {
            Ok(found) => self.compare(place, found, name),
            Err(fault) => Err(fault.at(&self.file, format!("{name} at byte {}", place.offset))),
        }
    }

    fn compare(&self, place: &Place, checksum: u32, name: &str) -> Result<()> {
        if masked(checksum) == place.checksum {
            return Ok(());
        }
        let fault =
            Fault::new(format!("checksum {:08x}", place.checksum), format!("{:08x}", masked(checksum)));
        Err(fault.at(&self.file, format!("{name} at byte {}", place.offset)))
    }
}
