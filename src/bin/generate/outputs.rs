//! The files of a run.
//!
//! The idea: what could not be written after hours of work is refused before them. The save directory holds one
//! run: its files are put in place together, and an earlier run's that are not replaced go.

use std::fs;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::generate::{Generated, Run};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::media::files::{self, Draft, NewDirectories};
use fast_pixel_cnn::{Error, Result, cli};
use ndarray::{ArrayView4, Axis};

use crate::args::{Args, Format};
use crate::contents::{self, Contents};
use crate::kind::{DIRECTORIES, FILES, Kind};
use crate::record::Record;
use crate::series::Series;

/// Files written before they are put in place together, each of which is open until then.
const TOGETHER: usize = 64;

/// The most sounds of a run that are written down one by one, so that another run can replace them.
const LISTED: usize = 1000;

/// The save directory, ready for a run.
pub struct Outputs<'a> {
    dir: PathBuf,
    kind: &'a Kind,
    run: &'a Run<'a>,
    record: Record,
    /// The files that are written at the end.
    names: Vec<&'static str>,
    /// What the run is part of.
    series: Series,
    /// The format of the single images or sounds, written by this run or an earlier one.
    format: Format,
    /// Whether they are to be written.
    singles: bool,
    /// Whether the single ones of an earlier run make room for this one's.
    replaces: bool,
    /// Whether there are single ones of this run.
    begun: bool,
}

impl<'a> Outputs<'a> {
    /// Makes the directory and claims it, and refuses, before hours of work, what could not be written after them.
    pub fn prepare(
        args: &Args,
        kind: &'a Kind,
        graph: &Graph,
        run: &'a Run<'a>,
        series: Series,
    ) -> Result<Outputs<'a>> {
        let dir = &args.save_dir;
        // Gone again, if they are empty, where something is refused.
        let new = NewDirectories::make(dir)?;
        let outputs = Outputs::claim(args, kind, graph, run, series)?;
        outputs.check(graph)?;
        // May be in the directory that was just made.
        args.animate.as_deref().map_or(Ok(()), files::check_writable)?;
        if let Kind::Sounds(sounds) = kind {
            sounds.check_plot(args, run)?;
        }
        new.keep();
        Ok(outputs)
    }

    fn claim(
        args: &Args,
        kind: &'a Kind,
        graph: &Graph,
        run: &'a Run<'a>,
        series: Series,
    ) -> Result<Outputs<'a>> {
        let dir = &args.save_dir;
        let mut record = Record::open(dir)?;
        let full = |name: &&&str| !is_empty(&dir.join(name));
        let found = DIRECTORIES.iter().find(full);
        if found.is_none() {
            record.forget_series();
        }
        let singles = kind.singles(args).is_some();
        let format = kind.single_format(args);
        let mut replaces = false;
        if let (Some(earlier), Some(found)) = (record.series(), found)
            && earlier != series.name(format)
        {
            let all = DIRECTORIES.iter().filter(full).all(|name| record.owns_all(name));
            if !all {
                let what = format!("{found} of another run, of other weights, seed or flags");
                return Err(others(dir.join(found), &what));
            }
            replaces = true;
        }
        let own = kind.directory();
        if record.series().is_none() && singles && !is_empty(&dir.join(own)) {
            return Err(others(dir.join(own), "files that this program did not make"));
        }
        Ok(Outputs {
            dir: dir.clone(),
            kind,
            run,
            record,
            names: kind.names(args, graph.classes > 0),
            series,
            format,
            singles,
            replaces,
            begun: false,
        })
    }

    /// Refuses what cannot be written, and tells what will stay though it is not of this run.
    fn check(&self, graph: &Graph) -> Result<()> {
        let mut names = self.names.iter().chain([&contents::NAME]);
        names.try_for_each(|name| files::check_writable(&self.dir.join(name)))?;
        files::sweep(&self.dir);
        let directory = self.dir.join(self.kind.directory());
        if self.singles && directory.symlink_metadata().is_ok() {
            if !directory.is_dir() {
                return Err(Error::Unsupported {
                    file: directory,
                    found: "a file stands where a directory is to be made".into(),
                    hint: "move it away or choose another place".into(),
                });
            }
            files::check_writable(&self.dir.join(self.single(0)))?;
        }
        let format = self.singles.then_some(self.format);
        files::check_room(&self.dir, &self.kind.planned(&self.names, format, graph, self.run))?;
        for name in FILES.iter().filter(|name| !self.names.contains(name)) {
            if self.record.is_foreign(name) {
                self.warn(name);
            }
        }
        if self.record.series().is_none() {
            let own = self.singles.then(|| self.kind.directory());
            let others = DIRECTORIES.iter().filter(|name| own != Some(**name));
            others.filter(|name| self.dir.join(name).is_dir()).for_each(|name| self.warn(name));
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

    /// The file of the run's image or sound `i`, in the directory.
    fn single(&self, i: usize) -> String {
        format!("{}/{}", self.kind.directory(), self.kind.name(self.run.indices.of(i)))
    }

    /// Writes a finished batch's single images or sounds, the first of which is the run's `first`.
    pub fn batch(&mut self, first: usize, batch: ArrayView4<f32>) -> Result<()> {
        if !self.singles {
            return Ok(());
        }
        if !self.begun {
            self.retire_singles()?;
            let directory = self.dir.join(self.kind.directory());
            fs::create_dir_all(&directory).map_err(Error::io(&directory, "create"))?;
            self.record.begin(self.series.name(self.format))?;
            self.record.retire(&[])?;
            // Before the first of them: a killed run's are told from others too.
            self.record.place(vec![(contents::NAME, self.describe(0)?)])?;
            self.begun = true;
        }
        let listed = matches!(self.kind, Kind::Sounds(_)) && self.run.count <= LISTED;
        for (chunk, images) in batch.axis_chunks_iter(Axis(0), TOGETHER).enumerate() {
            let names = (0..images.dim().0).map(|i| self.single(first + chunk * TOGETHER + i));
            let names: Vec<String> = names.collect();
            let draft = |(image, name): (_, &String)| {
                Draft::write(&self.dir.join(name), |writer| {
                    self.kind.write_single(writer, self.format, self.run, image)
                })
            };
            let drafts = images.outer_iter().zip(&names).map(draft).collect::<Result<Vec<_>>>()?;
            match listed {
                true => self.record.place(names.iter().map(String::as_str).zip(drafts).collect())?,
                false => files::place(drafts)?,
            }
        }
        Ok(())
    }

    /// Removes the single ones of an earlier run that this one replaces.
    fn retire_singles(&mut self) -> Result<()> {
        if std::mem::take(&mut self.replaces) {
            self.record.retire_singles()?;
            self.record.forget_series();
            for name in DIRECTORIES {
                // One that holds files that are not seen stays.
                let _ = fs::remove_dir(self.dir.join(name));
            }
        }
        Ok(())
    }

    /// Writes what was made, if anything was, and returns the files and directories written.
    pub fn finish(&mut self, generated: &Generated) -> Result<Vec<PathBuf>> {
        if generated.count == 0 {
            return Ok(Vec::new());
        }
        self.retire_singles()?;
        let draft = |name: &&'static str| {
            let draft = Draft::write(&self.dir.join(name), |writer| {
                self.kind.write(name, writer, self.run, generated)
            });
            Ok((*name, draft?))
        };
        let mut drafts = self.names.iter().map(draft).collect::<Result<Vec<_>>>()?;
        drafts.push((contents::NAME, self.describe(generated.count)?));
        self.record.remove(contents::NAME)?;
        self.record.place(drafts)?;
        let names = [&self.names, &[contents::NAME][..]].concat();
        self.record.retire(&names)?;
        let directory = self.begun.then_some(self.kind.directory());
        Ok(names.into_iter().chain(directory).map(|name| self.dir.join(name)).collect())
    }

    /// The description of the directory as it will be with the first `count` images or sounds in the files that are
    /// written at the end.
    fn describe(&self, count: usize) -> Result<Draft> {
        let mut contents = Contents::new(&self.series);
        if count > 0 {
            contents = contents.with_files(&self.names, self.run, count);
        }
        if self.record.series().is_some() {
            contents = contents.with_singles(&self.dir, self.kind, self.format);
        }
        Draft::write(&self.dir.join(contents::NAME), |writer| contents.write(writer))
    }
}

/// Whether a directory has no file that is seen, or is none.
fn is_empty(dir: &Path) -> bool {
    let seen = |entry: std::io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    };
    !fs::read_dir(dir).is_ok_and(|mut entries| entries.any(seen))
}

fn others(directory: PathBuf, what: &str) -> Error {
    Error::Unsupported {
        file: directory,
        found: format!("it holds {what}"),
        hint: "move it away or choose another directory".into(),
    }
}
