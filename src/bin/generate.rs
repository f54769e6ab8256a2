//! `generate`: images from weights.
//!
//! The idea: flags and the files they name are made one [`Run`] before anything is generated or written;
//! what they say twice must agree. Then the library works, and here is only the telling of it.

#![allow(rustdoc::broken_intra_doc_links, reason = "help texts, whose brackets are shapes")]

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use fast_pixel_cnn::animation::{self, Race, Scene};
use fast_pixel_cnn::engine::{Engine, Given, Method};
use fast_pixel_cnn::generate::{self, Classes, Generated, Progress, RACE_PASSES, Run, RunNoise};
use fast_pixel_cnn::images::{self, Grid};
use fast_pixel_cnn::{Error, ModelConfig, Result, cli, device, memory};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ndarray::{Array1, Array4};
use serde::Serialize;

/// Exit status after Ctrl-C, as shells count it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Generate images with a PixelCNN++.
///
/// Image i of a seed is the same image however a run is split: by batch size, by --first-index, by
/// threads, cached or naive. Writes samples.png (a grid, not scaled), images.npy (uint8 [N, H, W, 3]),
/// samples.npy (float32, as sampled) and, for a class-conditional model, labels.npy into the save
/// folder. Ctrl-C writes the batches that are finished and exits with status 130; a second one stops at
/// once.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    weights: cli::WeightsArgs,

    /// Images made at a time
    #[arg(short, long, value_name = "N", default_value_t = 16)]
    batch_size: usize,

    /// Side of the images, or height and width as HxW; multiples of 4 [default: 32, or that of the
    /// files given]
    #[arg(short, long, value_name = "SIZE")]
    image_size: Option<Size>,

    /// Seed of the random numbers
    #[arg(short, long, value_name = "N", default_value_t = 2702)]
    seed: u64,

    /// Folder for the results; made if it does not exist, files of the same names are replaced
    #[arg(short = 'v', long, value_name = "DIR", default_value = "out")]
    save_dir: PathBuf,

    /// Number of images [default: one batch, or that of the files given]
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<usize>,

    /// Index of the first image
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_index: u64,

    /// Class of all images; with "all" image i has class i modulo the number of classes, and the grid a
    /// column for each class [default for a class-conditional model: all]
    #[arg(long, value_name = "K|all", value_parser = parse_classes)]
    class: Option<Classes>,

    /// Where to run: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,

    #[command(flatten)]
    engine: cli::EngineArgs,

    /// Draw with the mixture's logits divided, and the logistics' scales multiplied, by T: below 1 from the
    /// likelier images, above 1 from more of them
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = cli::parse_temperature)]
    temperature: f32,

    /// Do a full forward pass for each pixel, as the original does: the same images, slowly
    #[arg(long)]
    naive: bool,

    /// What to write
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',', default_value = "png,npy")]
    format: Vec<Format>,

    /// Complete given images (PNG, or .npy of type uint8 and shape [H, W, 3] or [N, H, W, 3]): the first
    /// rows are kept and the rest is generated. One image is completed in as many ways as --count says
    #[arg(long, value_name = "IMAGE", requires = "keep_rows")]
    complete: Option<PathBuf>,

    /// Rows of the given images to keep
    #[arg(long, value_name = "N", requires = "complete")]
    keep_rows: Option<usize>,

    /// Take the uniform random numbers from DIR/u_mix.npy [N, H, W, m] and DIR/u_logistic.npy
    /// [N, H, W, 3] (float32)
    #[arg(long, value_name = "DIR", conflicts_with = "seed")]
    noise: Option<PathBuf>,

    /// Also write an animation of the images filling in pixel by pixel, as GIF or animated PNG by the
    /// name's end
    #[arg(long, value_name = "FILE")]
    animate: Option<PathBuf>,

    /// Animate naive beside cached, each as fast as it is here: cached as this run, naive by the time of
    /// 3 full forward passes, times the pixels
    #[arg(long, requires = "animate", conflicts_with = "naive")]
    side_by_side: bool,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// samples.png
    Png,
    /// images.npy, samples.npy and labels.npy
    Npy,
}

/// Height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size([usize; 2]);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Size, String> {
        let (height, width) = text.split_once(['x', 'X']).unwrap_or((text, text));
        match (height.parse(), width.parse()) {
            (Ok(height), Ok(width)) => Ok(Size([height, width])),
            _ => Err("expected a number, or height and width as HxW".into()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.0[0], self.0[1])
    }
}

fn parse_classes(text: &str) -> std::result::Result<Classes, String> {
    if text == "all" {
        return Ok(Classes::All);
    }
    let class = text.parse().map(Classes::One);
    class.map_err(|_| "expected the number of a class, or all".into())
}

/// What the files given on the command line hold.
#[derive(Default)]
struct Inputs {
    /// Uniform numbers for the mixture and the logistics.
    noise: Option<[Array4<f32>; 2]>,
    /// Images to complete, in [-1, 1].
    given: Option<Array4<f32>>,
}

/// The `--json` object.
#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    version: &'static str,
    device: String,
    method: &'static str,
    checkpoint: String,
    model: &'a ModelConfig,
    seed: Option<u64>,
    noise: Option<String>,
    temperature: f32,
    first_index: u64,
    count: usize,
    image_size: [usize; 2],
    classes: Option<&'a [u32]>,
    interrupted: bool,
    batch_size: usize,
    /// What the packed weights take.
    weight_bytes: u64,
    /// What a batch takes beside them.
    batch_bytes: u64,
    /// Null where the system does not say.
    peak_resident_bytes: Option<u64>,
    batch_seconds: &'a [f64],
    seconds: f64,
    images_per_second: f64,
    side_by_side: Option<SideBySide>,
    files: Vec<String>,
}

/// How the two sides of the animation were measured; seconds are for all images of the run.
#[derive(Serialize)]
struct SideBySide {
    naive_passes: usize,
    naive_seconds: f64,
    cached_seconds: f64,
    speedup: f64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(|| body(&args))
}

fn body(args: &Args) -> Result<ExitCode> {
    let weights = args.weights.load()?;
    let inputs = Inputs::read(args, weights.config())?;
    let mut engine = device::open(&args.device, &weights, &args.engine)?;
    drop(weights);
    let run = inputs.run(args)?;
    let available = engine.available();
    run.check(&*engine, available)?;
    check_animation(args, &*engine, &run, available)?;
    let files = Files::prepare(args, engine.config())?;
    let made = with_progress(&mut *engine, &run, available)?;
    let mut written = files.write(&made, &layout(&run, engine.config(), made.images.dim().0))?;
    let race = animate(args, &mut *engine, &run, &made, &mut written)?;
    report(args, &*engine, &run, &made, race, &written)?;
    if made.interrupted {
        let (done, count) = (made.images.dim().0, run.count);
        cli::warn(format_args!("interrupted: {done} of {count} images were finished"));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

impl Inputs {
    fn read(args: &Args, config: &ModelConfig) -> Result<Inputs> {
        let noise = args.noise.as_ref().map(|dir| generate::read_noise(dir, config.mixtures));
        let given = args.complete.as_ref().map(|file| images::read(&[file]));
        Ok(Inputs {
            noise: noise.transpose()?,
            given: given.transpose()?.map(|bytes| images::to_floats(bytes.view())),
        })
    }

    /// The run that the flags and the files describe together.
    fn run<'a>(&'a self, args: &'a Args) -> Result<Run<'a>> {
        let noise = args.noise.as_ref().zip(self.noise.as_ref().map(|[mixture, _]| mixture.dim()));
        let noise = noise.map(|(dir, dim)| (dir.display().to_string(), dim));
        let given = args.complete.as_ref().zip(self.given.as_ref().map(|given| given.dim()));
        let given = given.map(|(file, dim)| (file.display().to_string(), dim));
        let dictated = || [&noise, &given].into_iter().flatten();

        let sizes = dictated().map(|(whose, (_, h, w, _))| (whose.as_str(), Size([*h, *w])));
        let size = agree(args.image_size.map(|size| ("--image-size", size)).into_iter().chain(sizes))?;
        let Size([height, width]) = size.unwrap_or(Size([32, 32]));

        // A single image is completed as often as is asked for.
        let counts = noise.iter().chain(given.iter().filter(|(_, (n, ..))| *n != 1));
        let counts = counts.map(|(whose, (n, ..))| (whose.as_str(), *n));
        let count = agree(args.count.map(|n| ("--count", n)).into_iter().chain(counts))?;
        Ok(Run {
            count: count.unwrap_or(args.batch_size),
            batch_size: args.batch_size,
            height,
            width,
            first_index: args.first_index,
            classes: args.class,
            noise: match &self.noise {
                None => RunNoise::Seed(args.seed),
                Some([mixture, logistic]) => {
                    RunNoise::Given { mixture: mixture.view(), logistic: logistic.view() }
                }
            },
            temperature: args.temperature,
            given: self
                .given
                .as_ref()
                .zip(args.keep_rows)
                .map(|(images, rows)| Given { images: images.view(), rows }),
            method: if args.naive { Method::Naive } else { Method::Cached },
        })
    }
}

/// The value that all sources agree on, each named; `None` if there is no source.
fn agree<'a, T: PartialEq + fmt::Display>(sources: impl Iterator<Item = (&'a str, T)>) -> Result<Option<T>> {
    let mut agreed: Option<(&str, T)> = None;
    for (name, value) in sources {
        match &agreed {
            None => agreed = Some((name, value)),
            Some((_, first)) if *first == value => {}
            Some((first_name, first)) => {
                let found = format!("{first}");
                return Err(Error::argument(first_name, format!("{value} as in {name}"), found));
            }
        }
    }
    Ok(agreed.map(|(_, value)| value))
}

/// Generates with a progress bar, if someone watches, and heeds Ctrl-C.
fn with_progress(engine: &mut dyn Engine, run: &Run, available: Option<u64>) -> Result<Generated> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
    })
    .map_err(|e| Error::Io {
        file: "signals".into(),
        action: "handle Ctrl-C".into(),
        source: std::io::Error::other(e),
    })?;

    let rows = (run.count * run.height) as u64;
    // Draws nothing unless stderr is a terminal.
    let bar = ProgressBar::with_draw_target(Some(rows), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{wide_bar} {msg} {eta} left").expect("a valid template");
    bar.set_style(style);
    let start = Instant::now();
    let progress = |p: Progress| {
        let done = p.images * run.height + p.batch * p.rows;
        let speed = done as f64 / run.height as f64 / start.elapsed().as_secs_f64();
        let (first, last) = (p.images + 1, p.images + p.batch);
        let (row, height) = (p.rows, run.height);
        bar.set_position(done as u64);
        bar.set_message(format!(
            "images {first}-{last} of {}: row {row} of {height}, {speed:.2} images/s,",
            run.count
        ));
    };
    let made = generate::generate(engine, run, available, &STOP, &progress);
    bar.finish_and_clear();
    made
}

/// The grid: a column for each class, if the images go through the classes.
fn layout(run: &Run, config: &ModelConfig, count: usize) -> Grid {
    match (config.classes, run.classes) {
        (classes @ 1.., None | Some(Classes::All)) => {
            let first_class = run.first_index % classes as u64;
            Grid::by_class(count, first_class as usize, classes)
        }
        _ => Grid::near_square(count, run.height, run.width),
    }
}

/// What an animation of the first `count` images of a run shows.
fn scene(run: &Run, config: &ModelConfig, count: usize) -> Scene {
    let given_rows = run.given.map_or(0, |given| given.rows);
    let grid = layout(run, config, count);
    Scene { grid, count, height: run.height, width: run.width, given_rows }
}

/// Refuses, before hours of work, an animation that could not be made after them.
fn check_animation(args: &Args, engine: &dyn Engine, run: &Run, available: Option<u64>) -> Result<()> {
    let Some(file) = &args.animate else { return Ok(()) };
    animation::check(file, &scene(run, engine.config(), run.count), args.side_by_side)?;
    if args.side_by_side {
        if run.given.is_some_and(|given| given.rows == run.height) {
            let expected = "rows to generate, to compare the two methods on";
            return Err(Error::argument("--side-by-side", expected, "that all are kept"));
        }
        Run { method: Method::Naive, ..*run }.check(engine, available)?;
    }
    images::check_writable(file)
}

/// Writes the animation that was asked for, if there is anything to show, and adds it to the files
/// written. Returns what was measured for it.
fn animate(
    args: &Args,
    engine: &mut dyn Engine,
    run: &Run,
    made: &Generated,
    written: &mut Vec<PathBuf>,
) -> Result<Option<Race>> {
    let Some(file) = args.animate.as_ref().filter(|_| !made.images.is_empty()) else { return Ok(None) };
    let race = args.side_by_side.then(|| generate::race(engine, run, made)).transpose()?;
    let scene = scene(run, engine.config(), made.images.dim().0);
    animation::write(file, &scene, images::to_bytes(made.images.view()).view(), race.as_ref())?;
    written.push(file.clone());
    Ok(race)
}

/// The files to write.
struct Files {
    png: Option<PathBuf>,
    /// Bytes, floats, labels.
    npy: Option<[PathBuf; 3]>,
}

impl Files {
    /// Makes the folder and refuses, before hours of work, what could not be written after them.
    fn prepare(args: &Args, config: &ModelConfig) -> Result<Files> {
        let dir = &args.save_dir;
        std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
        let asked = |format| args.format.contains(&format);
        let npy = ["images.npy", "samples.npy", "labels.npy"].map(|name| dir.join(name));
        let files = Files {
            png: asked(Format::Png).then(|| dir.join("samples.png")),
            npy: asked(Format::Npy).then_some(npy),
        };
        let labels = usize::from(config.classes == 0);
        let npy = files.npy.iter().flat_map(|npy| &npy[..3 - labels]);
        files.png.iter().chain(npy).try_for_each(|file| images::check_writable(file))?;
        Ok(files)
    }

    /// Writes what was made, if anything was, and returns the files written.
    fn write(self, made: &Generated, grid: &Grid) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        if made.images.is_empty() {
            return Ok(written);
        }
        let bytes = images::to_bytes(made.images.view());
        if let Some(file) = self.png {
            images::write_png(&file, grid.picture(bytes.view()).view())?;
            written.push(file);
        }
        if let Some([bytes_file, floats_file, labels_file]) = self.npy {
            images::write_npy(&bytes_file, &bytes)?;
            images::write_npy(&floats_file, &made.images)?;
            written.extend([bytes_file, floats_file]);
            if let Some(labels) = &made.labels {
                let labels: Array1<i64> = labels.iter().map(|&label| i64::from(label)).collect();
                images::write_npy(&labels_file, &labels)?;
                written.push(labels_file);
            }
        }
        Ok(written)
    }
}

/// Tells what was made: text, or one JSON object.
fn report(
    args: &Args,
    engine: &dyn Engine,
    run: &Run,
    made: &Generated,
    race: Option<Race>,
    files: &[PathBuf],
) -> Result<()> {
    let (count, height, width, _) = made.images.dim();
    let seconds: f64 = made.batch_seconds.iter().sum();
    let images_per_second = if count == 0 { 0.0 } else { count as f64 / seconds };
    if !args.json {
        let size = Size([height, width]);
        cli::print(format_args!(
            "{count} images of {size} in {seconds:.2} s, {images_per_second:.2} images/s on {}",
            engine.name()
        ))?;
        if let Some(race) = race {
            cli::print(format_args!(
                "naive {:.2} s, by {RACE_PASSES} full forward passes times the pixels; cached is {:.0} times \
                 faster",
                race.naive_seconds,
                race.speedup()
            ))?;
        }
        return files.iter().try_for_each(|file| cli::print(file.display()));
    }
    let name = |path: &Path| path.display().to_string();
    let size = run.batch_size.min(run.count);
    let report = Report {
        schema: "fast-pixel-cnn/generate/1",
        version: env!("CARGO_PKG_VERSION"),
        device: engine.name(),
        method: if args.naive { "naive" } else { "cached" },
        checkpoint: name(&args.weights.path()?),
        model: engine.config(),
        seed: args.noise.is_none().then_some(args.seed),
        noise: args.noise.as_deref().map(name),
        temperature: run.temperature,
        first_index: run.first_index,
        count,
        image_size: [height, width],
        classes: made.labels.as_deref(),
        interrupted: made.interrupted,
        batch_size: size,
        weight_bytes: engine.weight_bytes(),
        batch_bytes: engine.batch_bytes(run.method, size, height, width),
        peak_resident_bytes: memory::peak_resident(),
        batch_seconds: &made.batch_seconds,
        seconds,
        images_per_second,
        side_by_side: race.map(|race| SideBySide {
            naive_passes: RACE_PASSES,
            naive_seconds: race.naive_seconds,
            cached_seconds: race.cached_seconds,
            speedup: race.speedup(),
        }),
        files: files.iter().map(|file| name(file)).collect(),
    };
    cli::print(serde_json::to_string(&report).map_err(|e| Error::io(Path::new("stdout"), "write")(e.into()))?)
}
