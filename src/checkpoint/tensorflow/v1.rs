//! TensorFlow's first checkpoint format: one table, or several shards, with everything in it.
//!
//! The idea: the entry under the empty key lists every variable of its shard with shape, type and
//! slices; each slice's values are one entry of the table, which is looked up when it is asked for.
//! The shards' lists are merged, since a partitioned variable may be spread over several.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use super::floats;
use super::messages::{saved_tensor, saved_variables};
use super::slices::{Slice, cover};
use super::table::Table;
use crate::checkpoint::fault::{Fault, quote};
use crate::checkpoint::{METADATA_LIMIT, VARIABLES, Variable, Verified, find_float, volume, zeros};
use crate::error::Result;

/// One slice of a variable and the table that it is in.
#[derive(Debug)]
struct Part {
    shard: usize,
    slice: Slice,
}

/// A checkpoint in the V1 format.
#[derive(Debug)]
pub struct Reader<R> {
    shards: Vec<Table<R>>,
    variables: Vec<Variable>,
    /// Of each variable, in the same order.
    parts: Vec<Vec<Part>>,
}

impl<R: Read + Seek> Reader<R> {
    /// Takes in the list of variables of the tables, which are all shards of one checkpoint.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) if a list is missing or damaged or two contradict
    /// each other; what [`Table::get`] returns.
    pub fn open(mut shards: Vec<Table<R>>) -> Result<Reader<R>> {
        let mut merged = BTreeMap::new();
        let mut slices = 0;
        for (shard, table) in shards.iter_mut().enumerate() {
            let file = table.file().to_path_buf();
            let at = |fault: Fault| fault.at(&file, "the list of variables");
            let Some(entry) = table.get(b"")? else {
                return Err(at(Fault::new("an entry under the empty key", "none")));
            };
            if entry.len() > METADATA_LIMIT {
                let found = format!("{} bytes", entry.len());
                return Err(at(Fault::new(format!("at most {METADATA_LIMIT} bytes"), found)));
            }
            take_list(entry, shard, &mut merged, &mut slices).map_err(at)?;
        }
        let (variables, parts) = merged.into_values().map(|merged| (merged.variable, merged.parts)).unzip();
        Ok(Reader { shards, variables, parts })
    }

    /// The variables, sorted by name.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Bytes of all shards.
    pub fn length(&self) -> u64 {
        self.shards.iter().map(Table::length).fold(0, u64::saturating_add)
    }

    /// The values of the floating-point variable `name`, row-major.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) if there is none of that name and type, or its
    /// slices do not make up its shape, or a checksum is wrong; [`Error::Io`](crate::Error::Io).
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        let first = self.shards.first().map_or(Path::new(""), Table::file);
        let (index, _) = find_float(&self.variables, first, name)?;
        let (Variable { shape, dtype, .. }, parts) = (&self.variables[index], &self.parts[index]);
        let place = format!("tensor {}", quote(name.as_bytes()));
        let at = |fault: Fault| fault.at(first, &place);
        let volume = volume(shape, self.length() / floats::least_size(*dtype) as u64).map_err(at)?;
        let regions = cover(parts.iter().map(|part| &part.slice), shape, volume).map_err(at)?;

        let mut whole = zeros::<f32>(if parts.len() == 1 { 0 } else { volume }).map_err(at)?;
        for (part, region) in parts.iter().zip(&regions) {
            let table = &mut self.shards[part.shard];
            let file = table.file().to_path_buf();
            let values = match table.get(&part.slice.key(name))? {
                Some(entry) => saved_tensor(entry, name, &part.slice)
                    .and_then(|tensor| floats::read(tensor, *dtype, region.volume())),
                None => Err(Fault::new("an entry with its values", "none")),
            };
            let values = values.map_err(|fault| fault.at(&file, &place))?;
            if parts.len() == 1 {
                return Ok(values);
            }
            region.scatter(&values, shape, &mut whole);
        }
        Ok(whole)
    }

    /// Reads every block of every shard and verifies its checksum. `watch` is called before each.
    ///
    /// # Errors
    /// As [`Table::verify`].
    pub fn verify(&mut self, watch: &mut dyn FnMut() -> Result<()>) -> Result<Verified> {
        self.shards.iter_mut().try_for_each(|table| table.verify(watch))?;
        Ok(Verified { variables: self.variables.len(), bytes: self.length(), skipped: Vec::new() })
    }
}

/// A variable as the lists read so far have it.
struct Merged {
    variable: Variable,
    parts: Vec<Part>,
    /// The last shard that listed it: none lists a variable twice.
    shard: usize,
}

fn take_list(
    entry: &[u8],
    shard: usize,
    merged: &mut BTreeMap<String, Merged>,
    slices: &mut usize,
) -> std::result::Result<(), Fault> {
    saved_variables(entry, |saved| {
        *slices += saved.slices.len();
        if merged.len() == VARIABLES || *slices > VARIABLES {
            return Err(Fault::new(format!("at most {VARIABLES} variables and slices"), "more"));
        }
        let parts = saved.slices.into_iter().map(|slice| Part { shard, slice });
        let variable = Variable { name: saved.name.to_string(), dtype: saved.dtype, shape: saved.shape };
        let Some(known) = merged.get_mut(saved.name) else {
            let parts = parts.collect();
            merged.insert(saved.name.to_string(), Merged { variable, parts, shard });
            return Ok(());
        };
        if known.shard == shard {
            let found = format!("{} twice", quote(saved.name.as_bytes()));
            return Err(Fault::new("each variable once", found));
        }
        if known.variable != variable {
            return Err(Fault::new(
                format!("{} as in another shard, {}", quote(saved.name.as_bytes()), known.variable.kind()),
                variable.kind(),
            ));
        }
        known.shard = shard;
        known.parts.extend(parts);
        Ok(())
    })
}
