//! `run.json`, which says what lies in a save directory: of which series, which part of it, in which files.
//!
//! The idea: whoever finds the directory, on another machine and years later, can make the rest of the series, or put
//! parts of it together, from what is written there. What is in a directory of single images or sounds is read from
//! their names: earlier runs of the series have filled it too, even one that was killed.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use fast_pixel_cnn::generate::Run;
use serde::Serialize;

use crate::args::Format;
use crate::kind::Kind;
use crate::series::Series;

/// The file.
pub const NAME: &str = "run.json";
/// What is in it.
const SCHEMA: &str = "fast-pixel-cnn/run/1";

#[derive(Serialize)]
pub struct Contents<'a> {
    schema: &'static str,
    version: &'static str,
    #[serde(flatten)]
    series: &'a Series,
    /// Files that have all of some images or sounds, one after the other by index.
    files: Option<Files<'a>>,
    /// A directory with a file for each.
    singles: Option<Singles>,
}

#[derive(Serialize)]
struct Files<'a> {
    names: &'a [&'static str],
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Singles {
    directory: &'static str,
    format: &'static str,
    ranges: Vec<Range>,
}

/// Indices one after the other.
#[derive(Debug, Serialize)]
struct Range {
    first_index: u64,
    count: u64,
}

impl<'a> Contents<'a> {
    /// Nothing yet of a series.
    pub fn new(series: &'a Series) -> Contents<'a> {
        Contents { schema: SCHEMA, version: env!("CARGO_PKG_VERSION"), series, files: None, singles: None }
    }

    /// Adds the files that hold the first `count` of a run.
    pub fn with_files(self, names: &'a [&'static str], run: &Run, count: usize) -> Contents<'a> {
        let indices = (0..count).map(|i| run.indices.of(i)).collect();
        let files = (!names.is_empty()).then(|| Files { names, ranges: ranges(indices) });
        Contents { files, ..self }
    }

    /// Adds the single files that are there now, in a save directory.
    pub fn with_singles(self, dir: &Path, kind: &Kind, format: Format) -> Contents<'a> {
        let directory = kind.directory();
        let entries = fs::read_dir(dir.join(directory)).into_iter().flatten().flatten();
        let indices = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let index = name.split_once('.')?.0.parse().ok()?;
            (kind.name(index) == name).then_some(index)
        });
        let ranges = ranges(indices.collect());
        Contents { singles: Some(Singles { directory, format: format.name(), ranges }), ..self }
    }

    /// Writes the file, for people too.
    pub fn write(&self, mut writer: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut writer, self)?;
        writer.write_all(b"\n")
    }
}

/// Indices, in any order, as ranges.
fn ranges(mut indices: Vec<u64>) -> Vec<Range> {
    indices.sort_unstable();
    let runs = indices.chunk_by(|a, b| a + 1 == *b);
    runs.map(|run| Range { first_index: run[0], count: run.len() as u64 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_told_as_ranges() {
        let found = ranges(vec![7, 3, 4, 9, 8, 1]);
        let found: Vec<_> = found.iter().map(|range| (range.first_index, range.count)).collect();
        assert_eq!(found, [(1, 1), (3, 2), (7, 3)]);
        assert!(ranges(Vec::new()).is_empty());
    }
}
