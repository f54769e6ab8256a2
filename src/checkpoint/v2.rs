//! TensorFlow's second checkpoint format, the bundle: an index, which is a table, and data files with
//! nothing in them but the values.
//!
//! The idea: the index is read whole and checked against the data files' lengths when the checkpoint
//! is opened, so that a missing or cut file is found at once; a variable is then one read of a data
//! file, straight to where the values are wanted.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::fault::{Fault, quote};
use super::messages::{BundleEntry, BundleHeader};
use super::slices::{Slice, cover, volume};
use super::table::{Table, masked};
use super::{DType, VARIABLES, Variable, find_float};
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
        Ok(Place { shard: number, offset: entry.offset, size, checksum: entry.checksum })
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

    /// The values of the float32 variable `name`, row-major.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is none of that name and type, or its size is not that of its
    /// shape, or its slices do not make it up, or a checksum is wrong; [`Error::Io`].
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        let index = find_float(&self.variables, &self.index, name)?;
        let (shape, entry) = (&self.variables[index].shape, &self.entries[index]);
        let place = format!("tensor {}", quote(name.as_bytes()));
        let at = |fault: Fault| fault.at(&self.index, &place);
        let volume = volume(shape, self.length()).map_err(at)?;
        if entry.slices.is_empty() {
            return read(&mut self.shards, &entry.place, volume, &self.index, &place);
        }
        let regions = cover(entry.slices.iter(), shape, volume).map_err(at)?;
        let mut whole = vec![0.0; volume];
        for (slice, region) in entry.slices.iter().zip(&regions) {
            let key = slice.key(name);
            let found = self.parts.binary_search_by(|part| part.key.cmp(&key)).ok();
            let Some(part) = found.map(|found| &self.parts[found]) else {
                return Err(at(Fault::new("an entry for each of its slices", "none for one")));
            };
            if part.dtype != DType::Float32 {
                return Err(at(Fault::new("float32 slices", part.dtype.to_string())));
            }
            let values = read(&mut self.shards, &part.place, region.volume(), &self.index, &place)?;
            region.scatter(&values, shape, &mut whole);
        }
        Ok(whole)
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

/// Reads `count` float32 values and verifies their checksum. A place is within its file.
fn read<R: Read + Seek>(
    shards: &mut [Shard<R>],
    place: &Place,
    count: usize,
    index: &Path,
    name: &str,
) -> Result<Vec<f32>> {
    if place.size != 4 * count as u64 {
        let found = format!("{} bytes", place.size);
        return Err(Fault::new(format!("{count} values of 4 bytes"), found).at(index, name));
    }
    let shard = &mut shards[place.shard];
    let action = || format!("read {} bytes at offset {}", place.size, place.offset);
    (shard.source.seek(SeekFrom::Start(place.offset))).map_err(Error::io(&shard.file, action()))?;
    let mut values = vec![0f32; count];
    let mut checksum = 0;
    // In pieces, so that a piece is still in the cache for its checksum.
    for piece in bytemuck::cast_slice_mut::<f32, u8>(&mut values).chunks_mut(1 << 18) {
        (shard.source.read_exact(piece)).map_err(Error::io(&shard.file, action()))?;
        checksum = crc32c::crc32c_append(checksum, piece);
    }
    if masked(checksum) != place.checksum {
        let fault =
            Fault::new(format!("checksum {:08x}", place.checksum), format!("{:08x}", masked(checksum)));
        return Err(fault.at(&shard.file, format!("{name} at byte {}", place.offset)));
    }
    if cfg!(target_endian = "big") {
        for value in &mut values {
            *value = f32::from_bits(u32::from_le(value.to_bits()));
        }
    }
    Ok(values)
}
