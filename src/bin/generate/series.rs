//! Which images or sounds a directory of single ones can hold together: those of one series.
//!
//! The idea: number i is the same however a run is split, so parts of one series can be made by several runs.
//! Two runs are of one series if nothing differs that could change one: neither a flag, of which those
//! that are known to change none are left out, nor the length or time of a file that was read.

use std::fs;
use std::path::Path;

use clap::Parser;
use fast_pixel_cnn::Result;
use fast_pixel_cnn::generate::{Classes, Run};
use sha2::{Digest, Sha256};

use crate::args::{Args, Format};

/// A run's series, as a number that differs from that of any other.
pub fn of(args: &Args, classes: usize, run: &Run) -> Result<String> {
    let weights = args.weights.path()?;
    let given =
        [&args.complete, &args.prime, &args.noise, &args.weights.model.params].map(|path| path.as_deref());
    let files = [[Some(weights.as_path())].as_slice(), &given].concat();
    let files: Vec<_> = files.into_iter().map(|path| path.map(files_of)).collect();
    let classes = (classes > 0).then(|| run.classes.unwrap_or(Classes::All));
    let text = format!("{:?} {:?} {classes:?} {}x{}", deciding(args), files, run.height, run.width);
    Ok(Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The flags, without those that change no image, and those whose meaning is looked at itself.
fn deciding(args: &Args) -> Args {
    let mut deciding = args.clone();
    let usual = Args::parse_from(["generate"]);
    deciding.weights.checkpoint = None;
    deciding.batch_size = usual.batch_size;
    deciding.image_size = None;
    deciding.save_dir = usual.save_dir;
    deciding.count = None;
    deciding.first_index = 0;
    deciding.class = None;
    deciding.engine.threads = usual.engine.threads;
    deciding.engine.strategy = usual.engine.strategy;
    deciding.engine.precision = Some(args.engine.precision.unwrap_or_default());
    deciding.naive = false;
    // How the numbers of a sound are stored is what its file is.
    let floats = args.format.as_ref().is_some_and(|formats| formats.contains(&Format::WavF32));
    deciding.format = floats.then(|| vec![Format::WavF32]);
    deciding.seconds = None;
    deciding.length = None;
    deciding.prime = None;
    deciding.plot = None;
    deciding.complete = None;
    deciding.noise = None;
    deciding.animate = None;
    deciding.side_by_side = false;
    deciding.quiet = false;
    deciding.json = false;
    deciding
}

/// Names, lengths and times of the files that a path means: those of a directory, else the file and, for a
/// checkpoint of several, all whose names begin so.
fn files_of(path: &Path) -> Vec<String> {
    let path = fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.into());
    let (directory, start) = match (path.is_dir(), path.parent(), path.file_name()) {
        (false, Some(parent), Some(name)) => (parent, name.to_string_lossy().into_owned()),
        _ => (path.as_path(), String::new()),
    };
    let mut files = vec![path.display().to_string()];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (name, metadata) = (entry.file_name().to_string_lossy().into_owned(), entry.metadata());
        if let Ok(metadata) = metadata.as_ref().map_err(drop)
            && metadata.is_file()
            && name.starts_with(&start)
        {
            files.push(format!("{name} {} {:?}", metadata.len(), metadata.modified().ok()));
        }
    }
    files[1..].sort();
    files
}
