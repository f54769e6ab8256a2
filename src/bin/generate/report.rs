//! What a run tells at its end: text, or one JSON object.

use std::path::{Path, PathBuf};

use fast_pixel_cnn::engine::Engine;
use fast_pixel_cnn::generate::{Generated, RACE_PASSES, Race, Run};
use fast_pixel_cnn::{Error, ModelConfig, Result, cli, memory};
use serde::Serialize;

use crate::args::{Args, Size};

/// The `--json` object.
#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    version: &'static str,
    device: String,
    method: &'static str,
    checkpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a ModelConfig>,
    seed: Option<u64>,
    noise: Option<String>,
    temperature: f32,
    first_index: u64,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_size: Option<[usize; 2]>,
    #[serde(flatten)]
    sounds: Option<Sounds>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    images_per_second: Option<f64>,
    side_by_side: Option<SideBySide>,
    files: Vec<String>,
}

/// What is told of sounds instead of the images' size and speed.
#[derive(Serialize)]
struct Sounds {
    sample_rate: u32,
    /// Samples of each, those that were given included.
    length: usize,
    /// The time of each.
    sound_seconds: f64,
    /// Samples of all sounds together, in a second of the time taken.
    samples_per_second: f64,
    /// Seconds of one sound in a second of its batch's time: 1 is just as fast as it is played.
    realtime_factor: f64,
}

impl Sounds {
    fn of(rate: u32, run: &Run, generated: &Generated) -> Sounds {
        let seconds: f64 = generated.batch_seconds.iter().sum();
        let made = run.height - run.given.map_or(0, |given| given.rows);
        let per_second = |sounds: usize| if sounds == 0 { 0.0 } else { (sounds * made) as f64 / seconds };
        let length = run.height + usize::from(run.start.is_some());
        Sounds {
            sample_rate: rate,
            length,
            sound_seconds: length as f64 / f64::from(rate),
            samples_per_second: per_second(generated.count),
            realtime_factor: per_second(generated.batch_seconds.len()) / f64::from(rate),
        }
    }
}

/// How the two sides of the animation were measured; seconds are for all images of the run.
#[derive(Serialize)]
struct SideBySide {
    naive_passes: usize,
    naive_seconds: f64,
    cached_seconds: f64,
    speedup: f64,
}

/// Tells what was made: text, or one JSON object.
pub fn report(
    args: &Args,
    model: Option<&ModelConfig>,
    engine: &dyn Engine,
    run: &Run,
    generated: &Generated,
    race: Option<Race>,
    files: &[PathBuf],
) -> Result<()> {
    let (count, height, width) = (generated.count, run.height, run.width);
    let seconds: f64 = generated.batch_seconds.iter().sum();
    let images_per_second = if count == 0 { 0.0 } else { count as f64 / seconds };
    let sounds = model.and_then(ModelConfig::sample_rate).map(|rate| Sounds::of(rate, run, generated));
    if !args.json {
        let made = match &sounds {
            None => {
                let size = Size([height, width]);
                format!("{count} images of {size} in {seconds:.2} s, {images_per_second:.2} images/s")
            }
            Some(sounds) => format!(
                "{count} sound{} of {:.2} s in {seconds:.2} s, {:.0} samples/s, {:.2} times real time each",
                if count == 1 { "" } else { "s" },
                sounds.sound_seconds,
                sounds.samples_per_second,
                sounds.realtime_factor
            ),
        };
        if count > 0 {
            cli::print(format_args!("{made} on {}", engine.name()))?;
        }
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
        model,
        seed: args.noise.is_none().then_some(args.seed),
        noise: args.noise.as_deref().map(name),
        temperature: run.temperature,
        first_index: args.first_index,
        count,
        image_size: sounds.is_none().then_some([height, width]),
        images_per_second: sounds.is_none().then_some(images_per_second),
        sounds,
        classes: generated.labels.as_deref(),
        interrupted: generated.interrupted,
        batch_size: size,
        weight_bytes: engine.weight_bytes(),
        batch_bytes: engine.batch_bytes(run.method, size, height, width),
        peak_resident_bytes: memory::peak_resident(),
        batch_seconds: &generated.batch_seconds,
        seconds,
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
