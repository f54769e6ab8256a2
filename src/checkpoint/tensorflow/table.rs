//! The sorted tables that both checkpoint formats are made of: keys to values, in blocks, each with a
//! checksum.
//!
//! The idea: only the index, which has one entry for each block, is held; a value costs one read of
//! its block. Every number in the file is checked against the file's length before it is used, and
//! data blocks may not share bytes, so that a file cannot make a reader read more than it holds.
//!
//! The format is LevelDB's (`doc/table_format.md` there) with TensorFlow's defaults:
//!
//! ```text
//! file    = data block ... metaindex block, index block, footer
//! block   = entry ... restart offsets (u32 each), their number (u32); then compression (u8), checksum (u32)
//! entry   = shared, unshared, value length (varints), unshared key bytes, value
//! footer  = handles of metaindex and index (offset and size as varints), zeros up to byte 40, magic (u64)
//! ```

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::wire::varint;
use crate::checkpoint::METADATA_LIMIT;
use crate::checkpoint::fault::{Fault, quote};
use crate::checkpoint::sniff::{FOOTER, MAGIC};
use crate::checkpoint::zeros;
use crate::error::{Error, Result};

/// Compression byte and checksum behind a block.
const TRAILER: u64 = 5;

/// The checksum that is stored for bytes whose CRC-32C is `crc`: rotated and shifted, since the CRC of
/// data that contains its own CRC is weak.
pub(super) fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Where a block lies, without its trailer.
#[derive(Clone, Copy, Debug)]
struct Handle {
    offset: u64,
    size: u64,
}

impl Handle {
    fn decode(bytes: &mut &[u8]) -> std::result::Result<Handle, Fault> {
        let offset = varint(bytes)?;
        let size = varint(bytes)?;
        Ok(Handle { offset, size })
    }

    /// The first byte behind the block's trailer, if that is at most `limit`.
    fn end(&self, limit: u64) -> std::result::Result<u64, Fault> {
        let end = (self.offset.checked_add(self.size)).and_then(|end| end.checked_add(TRAILER));
        end.filter(|&end| end <= limit).ok_or_else(|| {
            Fault::new(
                format!("a block that ends by byte {limit}"),
                format!("one of {} bytes at {}", self.size, self.offset),
            )
        })
    }
}

/// The entries of one block, in order. After an error it must not be asked again.
struct Entries<'a> {
    /// The block up to its restart offsets.
    data: &'a [u8],
    next: usize,
    /// The key of the entry that was returned last.
    key: Vec<u8>,
    started: bool,
}

impl<'a> Entries<'a> {
    /// The restart offsets serve binary search in a block; a scan needs only to know where they begin.
    fn new(block: &'a [u8]) -> std::result::Result<Entries<'a>, Fault> {
        let Some((rest, count)) = block.split_last_chunk::<4>() else {
            return Err(Fault::new("a block of at least 4 bytes", format!("{} bytes", block.len())));
        };
        let count = u32::from_le_bytes(*count);
        let restarts = u64::from(count) * 4;
        if restarts > rest.len() as u64 {
            return Err(Fault::new(
                format!("at most {} restart offsets in a block of {} bytes", rest.len() / 4, block.len()),
                count.to_string(),
            ));
        }
        Ok(Entries {
            data: &rest[..rest.len() - restarts as usize],
            next: 0,
            key: Vec::new(),
            started: false,
        })
    }

    /// Steps to the next entry: its key is then in `self.key`, and its value is at the returned range
    /// of the block.
    fn step(&mut self) -> std::result::Result<Option<Range<usize>>, Fault> {
        let mut rest = &self.data[self.next..];
        if rest.is_empty() {
            return Ok(None);
        }
        let shared = varint(&mut rest)?;
        let unshared = varint(&mut rest)?;
        let length = varint(&mut rest)?;
        if shared > self.key.len() as u64 {
            return Err(Fault::new(
                format!("at most the last key's {} bytes shared with it", self.key.len()),
                shared.to_string(),
            ));
        }
        let left = rest.len() as u64;
        if unshared.checked_add(length).is_none_or(|needed| needed > left) {
            return Err(Fault::new(
                format!("a key and value of at most the {left} bytes left in the block"),
                format!("{unshared} and {length}"),
            ));
        }
        let (shared, (delta, rest)) = (shared as usize, rest.split_at(unshared as usize));
        // Both keys begin with the shared bytes, so the rest alone tells which is greater.
        if self.started && *delta <= self.key[shared..] {
            return Err(Fault::new(
                format!("a key greater than {}", quote(&self.key)),
                quote(&[&self.key[..shared], delta].concat()),
            ));
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(delta);
        self.started = true;
        let start = self.data.len() - rest.len();
        self.next = start + length as usize;
        Ok(Some(start..self.next))
    }
}

/// One data block as the index has it.
#[derive(Debug)]
struct Indexed {
    /// Where its key ends in [`Table::keys`]: no key in the block is greater.
    key_end: usize,
    handle: Handle,
}

/// A table that is open for reading.
#[derive(Debug)]
pub struct Table<R> {
    source: R,
    file: PathBuf,
    length: u64,
    /// The index's keys one after another.
    keys: Vec<u8>,
    blocks: Vec<Indexed>,
    /// The data block that was read last, by number: neighbours in name order are often neighbours in
    /// a block.
    held: Option<(usize, Vec<u8>)>,
}

impl<R: Read + Seek> Table<R> {
    /// Reads the index of the table in `source`; `file` is its name in messages.
    ///
    /// # Errors
    /// [`Error::Malformed`] unless footer, index and the blocks' places are sound; [`Error::Unsupported`]
    /// if the index is compressed; [`Error::Io`].
    pub fn open(mut source: R, file: &Path) -> Result<Table<R>> {
        let length = (source.seek(SeekFrom::End(0))).map_err(Error::io(file, "find the end"))?;
        let mut table = Table {
            source,
            file: file.to_path_buf(),
            length,
            keys: Vec::new(),
            blocks: Vec::new(),
            held: None,
        };
        let (metaindex, index) = table.footer()?;
        // Nothing in the metaindex is used, but damage there tells of a damaged file.
        for (handle, name) in [(metaindex, "metaindex block"), (index, "index block")] {
            if handle.size > METADATA_LIMIT as u64 {
                let fault =
                    Fault::new(format!("at most {METADATA_LIMIT} bytes"), format!("{} bytes", handle.size));
                return Err(fault.at(file, format!("{name} at {}", handle.offset)));
            }
        }
        table.block(metaindex, "metaindex block")?;
        let block = table.block(index, "index block")?;
        table
            .take_index(&block, metaindex.offset.min(index.offset))
            .map_err(|fault| fault.at(file, format!("index block at {}", index.offset)))?;
        Ok(table)
    }

    /// The handles of the metaindex and the index, both within the file and apart.
    fn footer(&mut self) -> Result<(Handle, Handle)> {
        let Some(start) = self.length.checked_sub(FOOTER) else {
            let found = format!("{} bytes", self.length);
            return Err(Fault::new("at least 48 bytes", found).at(&self.file, "footer"));
        };
        let footer = self.read(start, FOOTER, "footer")?;
        let at = |fault: Fault| fault.at(&self.file, format!("footer at {start}"));
        let (mut handles, magic) = (&footer[..40], &footer[40..]);
        if *magic != MAGIC.to_le_bytes() {
            let found = magic.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>();
            return Err(at(Fault::new(format!("magic {MAGIC:016x}"), found)));
        }
        let metaindex = Handle::decode(&mut handles).map_err(at)?;
        let index = Handle::decode(&mut handles).map_err(at)?;
        let metaindex_end = metaindex.end(start).map_err(at)?;
        let index_end = index.end(start).map_err(at)?;
        if metaindex.offset < index_end && index.offset < metaindex_end {
            let found = format!("them at {} and {}", metaindex.offset, index.offset);
            return Err(at(Fault::new("metaindex and index apart", found)));
        }
        Ok((metaindex, index))
    }

    /// Takes in the keys and places of the data blocks, all of which must end by `limit`.
    fn take_index(&mut self, block: &[u8], limit: u64) -> std::result::Result<(), Fault> {
        let mut entries = Entries::new(block)?;
        let mut end = 0;
        while let Some(value) = entries.step()? {
            let mut value = &block[value];
            let handle = Handle::decode(&mut value)?;
            if handle.offset < end {
                let found = format!("one at {}", handle.offset);
                return Err(Fault::new(format!("a data block behind the last, which ends at {end}"), found));
            }
            end = handle.end(limit)?;
            // Shared bytes make a key longer than what it takes in the file, so that is checked apart.
            if self.keys.len() + entries.key.len() > METADATA_LIMIT {
                return Err(Fault::new(format!("keys of at most {METADATA_LIMIT} bytes"), "more"));
            }
            self.keys.extend_from_slice(&entries.key);
            let key_end = self.keys.len();
            self.blocks.push(Indexed { key_end, handle });
        }
        Ok(())
    }

    /// The name of the file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The length of the file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The value at `key`, if the table has one.
    ///
    /// # Errors
    /// As [`Table::open`], for the one block that may hold the key.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        // The first block whose key is not below the wanted one: the index is sorted.
        let (mut low, mut high) = (0, self.blocks.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.index_key(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low == self.blocks.len() {
            return Ok(None);
        }
        let range = self.find(low, key)?;
        Ok(range.and_then(|range| self.held.as_ref().map(|(_, block)| &block[range])))
    }

    /// Calls `visit` with every key and value, in order.
    ///
    /// # Errors
    /// As [`Table::open`], for any block; the first error of `visit`; [`Error::Malformed`] if the keys
    /// together, or a block, are longer than a checkpoint's names and shapes can be.
    pub fn for_each(&mut self, mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let mut total = 0;
        for number in 0..self.blocks.len() {
            let Handle { offset, size } = self.blocks[number].handle;
            if size > METADATA_LIMIT as u64 {
                let fault = Fault::new(format!("at most {METADATA_LIMIT} bytes"), format!("{size} bytes"));
                return Err(fault.at(&self.file, format!("data block at {offset}")));
            }
            let offset = self.hold(number)?;
            let Some((_, block)) = &self.held else { continue };
            let at = |fault: Fault| fault.at(&self.file, format!("data block at {offset}"));
            let mut entries = Entries::new(block).map_err(at)?;
            while let Some(value) = entries.step().map_err(at)? {
                self.check_key(number, &entries.key).map_err(at)?;
                total += entries.key.len();
                if total > METADATA_LIMIT {
                    return Err(at(Fault::new(format!("keys of at most {METADATA_LIMIT} bytes"), "more")));
                }
                visit(&entries.key, &block[value])?;
            }
        }
        Ok(())
    }

    /// Reads every data block and verifies its checksum. `watch` is called before each.
    ///
    /// # Errors
    /// As [`Table::open`], for any block; what `watch` returns.
    pub fn verify(&mut self, watch: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        for number in 0..self.blocks.len() {
            watch()?;
            self.hold(number)?;
        }
        Ok(())
    }

    fn index_key(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.blocks[before].key_end);
        &self.keys[start..self.blocks[number].key_end]
    }

    /// A block's keys lie above the index's key for the block before and reach at most its own: with
    /// that, keys that ascend in each block ascend in the table.
    fn check_key(&self, number: usize, key: &[u8]) -> std::result::Result<(), Fault> {
        let above = number.checked_sub(1).map(|before| self.index_key(before));
        if above.is_some_and(|above| key <= above) || key > self.index_key(number) {
            return Err(Fault::new(
                format!(
                    "keys above {} and up to {}",
                    above.map_or("nothing".into(), quote),
                    quote(self.index_key(number))
                ),
                quote(key),
            ));
        }
        Ok(())
    }

    /// The place of the value at `key` in data block `number`, which is then held.
    fn find(&mut self, number: usize, key: &[u8]) -> Result<Option<Range<usize>>> {
        let offset = self.hold(number)?;
        let Some((_, block)) = &self.held else {
            return Ok(None);
        };
        let at = |fault: Fault| fault.at(&self.file, format!("data block at {offset}"));
        let mut entries = Entries::new(block).map_err(at)?;
        while let Some(value) = entries.step().map_err(at)? {
            if entries.key == key {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Makes data block `number` the held one and returns its offset.
    fn hold(&mut self, number: usize) -> Result<u64> {
        let handle = self.blocks[number].handle;
        if self.held.as_ref().is_none_or(|(held, _)| *held != number) {
            // Let go of the old block first: a block may be as large as the largest tensor.
            self.held = None;
            self.held = Some((number, self.block(handle, "data block")?));
        }
        Ok(handle.offset)
    }

    /// Reads a block, without its trailer, and verifies its checksum. The handle must be within the file.
    fn block(&mut self, handle: Handle, name: &str) -> Result<Vec<u8>> {
        let place = || format!("{name} at {}", handle.offset);
        let mut block = self.read(handle.offset, handle.size + TRAILER, &place())?;
        let size = block.len() - TRAILER as usize;
        let stored = u32::from_le_bytes([block[size + 1], block[size + 2], block[size + 3], block[size + 4]]);
        let computed = masked(crc32c::crc32c(&block[..=size]));
        if stored != computed {
            let fault = Fault::new(format!("checksum {stored:08x}"), format!("{computed:08x}"));
            return Err(fault.at(&self.file, place()));
        }
        match block[size] {
            0 => block.truncate(size),
            1 => {
                return Err(Error::Unsupported {
                    file: self.file.clone(),
                    found: format!("{} is compressed with Snappy", place()),
                    hint: "save the checkpoint again with TensorFlow, which does not compress".into(),
                });
            }
            other => {
                let fault = Fault::new("compression type 0 (none)", other.to_string());
                return Err(fault.at(&self.file, place()));
            }
        }
        Ok(block)
    }

    /// Reads `size` bytes, which are within the file; `place` is what they are.
    fn read(&mut self, offset: u64, size: u64, place: &str) -> Result<Vec<u8>> {
        let count = usize::try_from(size).unwrap_or(usize::MAX);
        let mut bytes = zeros::<u8>(count).map_err(|fault| fault.at(&self.file, place))?;
        self.source
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.source.read_exact(&mut bytes))
            .map_err(Error::io(&self.file, format!("read {size} bytes at offset {offset}")))?;
        Ok(bytes)
    }
}
