//! The files of a run.
//!
//! The idea: what could not be written after hours of work is refused before them. The save directory holds one
//! run: its files are put in place together, and an earlier run's that are not replaced go.

use std::fs;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::generate::{Generated, Run};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::media::files::{self, Draft, NewDirectories, Planned};
use fast_pixel_cnn::media::images;
use fast_pixel_cnn::{Error, Result, cli, media::npy};
use ndarray::{ArrayView4, Axis};

use crate::args::{Args, Format};
use crate::record::Record;
use crate::series;

/// The grid, and the arrays.
const GRID: &str = "samples.png";
const BYTES: &str = "images.npy";
const FLOATS: &str = "samples.npy";
const LABELS: &str = "labels.npy";
/// The directory of single images.
const IMAGES: &str = "images";

/// Files written before they are put in place together, each of which is open until then.
const TOGETHER: usize = 64;

/// Bytes before the values of an array of up to four axes, at most.
const ARRAY_HEADER: u64 = 192;

/// Bytes of a PNG beside its pixels, at most, and as many again in a thousand.
const PNG_FRAME: u64 = 256;

/// The save directory, ready for a run.
pub struct Outputs {
    dir: PathBuf,
    record: Record,
    grid: bool,
    arrays: bool,
    /// The series of the single images, if they are to be written.
    series: Option<String>,
    first_index: u64,
    /// Whether there are single images of this run.
    begun: bool,
}

impl Outputs {
    /// Makes the directory and claims it, and refuses, before hours of work, what could not be written after them.
    pub fn prepare(args: &Args, graph: &Graph, run: &Run) -> Result<Outputs> {
        let dir = &args.save_dir;
        // Gone again, if they are empty, where something is refused.
        let new = NewDirectories::make(dir)?;
        let outputs = Outputs::claim(args, graph, run)?;
        outputs.check(graph, run)?;
        // May be in the directory that was just made.
        args.animate.as_deref().map_or(Ok(()), files::check_writable)?;
        new.keep();
        Ok(outputs)
    }

    fn claim(args: &Args, graph: &Graph, run: &Run) -> Result<Outputs> {
        let mut record = Record::open(&args.save_dir)?;
        let images = args.save_dir.join(IMAGES);
        if is_empty(&images) {
            record.forget_series();
        }
        let asked = |format| args.format.contains(&format);
        let series = asked(Format::Images).then(|| series::of(args, graph.classes, run)).transpose()?;
        if let Some(earlier) = record.series()
            && earlier != series::of(args, graph.classes, run)?
        {
            return Err(other_images(images, "images of another run, of other weights, seed or flags"));
        }
        if record.series().is_none() && series.is_some() && !is_empty(&images) {
            return Err(other_images(images, "files that this program did not make"));
        }
        Ok(Outputs {
            dir: args.save_dir.clone(),
            record,
            grid: asked(Format::Png),
            arrays: asked(Format::Npy),
            series,
            first_index: run.first_index,
            begun: false,
        })
    }

    /// The files that are written at the end.
    fn names(&self, labels: bool) -> Vec<&'static str> {
        let mut names = Vec::new();
        names.extend(self.grid.then_some(GRID));
        names.extend([BYTES, FLOATS].iter().filter(|_| self.arrays));
        names.extend((self.arrays && labels).then_some(LABELS));
        names
    }

    /// Refuses what cannot be written, and tells what will stay though it is not of this run.
    fn check(&self, graph: &Graph, run: &Run) -> Result<()> {
        let names = self.names(graph.classes > 0);
        names.iter().try_for_each(|name| files::check_writable(&self.dir.join(name)))?;
        files::sweep(&self.dir);
        let images = self.dir.join(IMAGES);
        if self.series.is_some() && images.symlink_metadata().is_ok() {
            if !images.is_dir() {
                return Err(Error::Unsupported {
                    file: images,
                    found: "a file stands where a directory is to be made".into(),
                    hint: "move it away or choose another place".into(),
                });
            }
            files::check_writable(&self.image(0))?;
        }
        files::check_room(&self.dir, &self.planned(graph, run))?;
        for name in [GRID, BYTES, FLOATS, LABELS].iter().filter(|name| !names.contains(name)) {
            if self.record.is_foreign(name) {
                self.warn(name);
            }
        }
        if self.series.is_none() && self.record.series().is_none() && images.is_dir() {
            self.warn(IMAGES);
        }
        Ok(())
    }

    fn warn(&self, name: &str) {
        let path = self.dir.join(name);
        cli::warn(format_args!(
            "{} is not of this run: it stays, as it is not known as made here",
            path.display()
        ));
    }

    /// What is going to be written: of arrays it is known, of PNG files what they take at most.
    fn planned(&self, graph: &Graph, run: &Run) -> Vec<Planned> {
        let (count, values) = (run.count as u64, graph.head.values() as u64);
        let png = |(rows, columns): (usize, usize)| {
            let row = (columns as u64).saturating_mul(values).saturating_add(1);
            let bytes = (rows as u64).saturating_mul(row);
            bytes.saturating_add(bytes / 1000).saturating_add(PNG_FRAME)
        };
        let numbers =
            count.saturating_mul((run.height as u64).saturating_mul(run.width as u64)).saturating_mul(values);
        let mut planned = Vec::new();
        if self.grid {
            let size = run.grid(graph, run.count).size(run.count, run.height, run.width);
            planned.push(Planned { files: 1, bytes: png(size) });
        }
        if self.arrays {
            let labels = if graph.classes > 0 { count.saturating_mul(8) } else { 0 };
            let sizes = [numbers, numbers.saturating_mul(4), labels];
            planned
                .extend(sizes.map(|bytes| Planned { files: 1, bytes: bytes.saturating_add(ARRAY_HEADER) }));
        }
        if self.series.is_some() {
            planned.push(Planned { files: count, bytes: png((run.height, run.width)) });
        }
        planned
    }

    /// The file of the run's image `i`.
    fn image(&self, i: usize) -> PathBuf {
        self.dir.join(IMAGES).join(format!("{:06}.png", self.first_index + i as u64))
    }

    /// Whether images are needed at the end.
    pub fn keeps(args: &Args) -> bool {
        args.animate.is_some() || args.format.iter().any(|format| *format != Format::Images)
    }

    /// Writes a finished batch's single images, the first of which is the run's image `first`.
    pub fn batch(&mut self, first: usize, batch: ArrayView4<f32>) -> Result<()> {
        let Some(series) = &self.series else { return Ok(()) };
        if !self.begun {
            let dir = self.dir.join(IMAGES);
            fs::create_dir_all(&dir).map_err(Error::io(&dir, "create"))?;
            self.record.begin(series.clone())?;
            self.record.retire(&[])?;
            self.begun = true;
        }
        for (chunk, images) in batch.axis_chunks_iter(Axis(0), TOGETHER).enumerate() {
            let drafts = images.outer_iter().enumerate().map(|(i, image)| {
                let bytes = image.mapv(images::to_byte);
                let place = self.image(first + chunk * TOGETHER + i);
                Draft::write(&place, |writer| images::encode_png(writer, bytes.view()))
            });
            files::place(drafts.collect::<Result<_>>()?)?;
        }
        Ok(())
    }

    /// Writes what was made, if anything was, and returns the files and directories written.
    pub fn finish(&mut self, generated: &Generated) -> Result<Vec<PathBuf>> {
        if generated.count == 0 {
            return Ok(Vec::new());
        }
        let names = self.names(generated.labels.is_some());
        let draft = |name: &&'static str| {
            let draft = Draft::write(&self.dir.join(name), |writer| match *name {
                GRID => images::encode_grid(writer, &generated.grid, generated.images.view()),
                BYTES => npy::write_to(
                    writer,
                    generated.images.shape(),
                    generated.images.iter().map(|&x| images::to_byte(x)),
                ),
                FLOATS => npy::write_to(writer, generated.images.shape(), generated.images.iter().copied()),
                _ => {
                    let labels = generated.labels.iter().flatten().map(|&label| i64::from(label));
                    npy::write_to(writer, &[generated.count], labels)
                }
            });
            Ok((*name, draft?))
        };
        let drafts = names.iter().map(draft).collect::<Result<_>>()?;
        self.record.place(drafts)?;
        self.record.retire(&names)?;
        let images = self.begun.then_some(IMAGES);
        Ok(names.into_iter().chain(images).map(|name| self.dir.join(name)).collect())
    }
}

/// Whether a directory has no file that is seen, or is none.
fn is_empty(dir: &Path) -> bool {
    let seen = |entry: std::io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    };
    !fs::read_dir(dir).is_ok_and(|mut entries| entries.any(seen))
}

fn other_images(images: PathBuf, what: &str) -> Error {
    Error::Unsupported {
        file: images,
        found: format!("it holds {what}"),
        hint: "move it away or choose another directory".into(),
    }
}
