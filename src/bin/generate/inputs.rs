//! The files given on the command line, and the run that they and the flags describe.
//!
//! The idea: what flags and files say twice must agree.

use std::fmt;

use fast_pixel_cnn::engine::{Given, Method};
use fast_pixel_cnn::generate::{self, Classes, Indices, Run, RunNoise};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::media::images;
use fast_pixel_cnn::{Error, Result};
use ndarray::{Array2, Array4};

use crate::args::{Args, Size};
use crate::kind::Kind;
use crate::sounds::Sounds;

/// What flags and files say of a run, and what the files hold.
pub struct Inputs {
    count: usize,
    size: Size,
    keep: bool,
    /// Uniform numbers.
    noise: Option<Array4<f32>>,
    /// Images whose first rows are given, in [-1, 1], and how many rows.
    given: Option<(Array4<f32>, usize)>,
    /// The pixel before the first.
    start: Option<Array2<f32>>,
}

impl Inputs {
    /// Reads the files and compares what they say with the flags.
    pub fn read(args: &Args, kind: &Kind, graph: &Graph) -> Result<Inputs> {
        match kind {
            Kind::Images => Inputs::of_images(args, kind, graph),
            Kind::Sounds(sounds) => Inputs::of_sounds(args, kind, sounds, graph),
        }
    }

    fn of_images(args: &Args, kind: &Kind, graph: &Graph) -> Result<Inputs> {
        let head = &graph.head;
        let noise = args.noise.as_ref().map(|path| generate::read_noise(path, head)).transpose()?;
        let key = args.key.as_deref();
        let given = args.complete.as_ref().map(|file| images::read(&[file], key, head.values()));
        let given = given.transpose()?.map(|bytes| images::to_floats(bytes.view()));

        let dim = args.noise.as_ref().zip(noise.as_ref().map(|noise| noise.dim()));
        let noise_says = dim.map(|(path, dim)| (path.display().to_string(), dim));
        let dim = args.complete.as_ref().zip(given.as_ref().map(|given| given.dim()));
        let given_says = dim.map(|(file, dim)| (file.display().to_string(), dim));

        let sizes = [&noise_says, &given_says].into_iter().flatten();
        let sizes = sizes.map(|(whose, (_, h, w, _))| (whose.as_str(), Size([*h, *w])));
        let size = agree(args.image_size.map(|size| ("--image-size", size)).into_iter().chain(sizes))?;

        // A single image is completed as often as is asked for.
        let counts = noise_says.iter().chain(given_says.iter().filter(|(_, (n, ..))| *n != 1));
        let counts = counts.map(|(whose, (n, ..))| (whose.as_str(), *n));
        let count = agree(args.count.map(|n| ("--count", n)).into_iter().chain(counts))?;
        Ok(Inputs {
            count: count.unwrap_or(args.batch_size),
            size: size.unwrap_or(Size([32, 32])),
            keep: kind.keeps(args),
            noise,
            given: given.zip(args.keep_rows),
            start: None,
        })
    }

    fn of_sounds(args: &Args, kind: &Kind, sounds: &Sounds, graph: &Graph) -> Result<Inputs> {
        sounds.check_rate()?;
        let noise = args.noise.as_ref().map(|path| sounds.read_noise(path)).transpose()?;
        let dim = args.noise.as_ref().zip(noise.as_ref().map(|noise| noise.dim()));
        let noise_says = dim.map(|(path, (count, length, ..))| (path.display().to_string(), count, length));
        let noise_says = noise_says.as_ref().map(|(whose, count, length)| (whose.as_str(), *count, *length));

        let length = match (args.seconds, args.length) {
            (Some(seconds), _) => {
                let length = sounds.length(seconds);
                // Not so many digits as a number may have.
                sounds.check_length(length, "--seconds", format_args!("{seconds:e}"))?;
                Some(("--seconds", length))
            }
            (None, Some(length)) => {
                sounds.check_length(length, "--length", length)?;
                Some(("--length", length))
            }
            (None, None) => None,
        };
        let sources = length.into_iter().chain(noise_says.map(|(whose, _, length)| (whose, length)));
        let length = agree(sources.map(|(whose, length)| (whose, Samples(length))))?;
        let length = length.map_or_else(|| sounds.length(1.0), |Samples(length)| length);

        let count = args.count.map(|count| ("--count", count)).into_iter();
        let count = agree(count.chain(noise_says.map(|(whose, count, _)| (whose, count))))?;
        let classes = if args.class == Some(Classes::All) { graph.classes.max(1) } else { 1 };

        let before = args.prime.as_ref().map(|file| sounds.read_prime(file)).transpose()?;
        let height = length + before.as_ref().map_or(0, |before| before.rows());
        sounds.check_length(height, "--prime", format_args!("{height} with what is to be made"))?;
        Ok(Inputs {
            count: count.unwrap_or(classes),
            size: Size([height, 1]),
            keep: kind.keeps(args),
            noise: match &before {
                Some(before) => noise.map(|noise| before.noise(noise)),
                None => noise,
            },
            given: before.as_ref().map(|before| (before.image(height), before.rows())),
            start: before.map(|before| before.start),
        })
    }

    /// The run that the flags and the files describe together.
    pub fn run<'a>(&'a self, args: &'a Args) -> Run<'a> {
        let Size([height, width]) = self.size;
        Run {
            batch_size: args.batch_size,
            indices: Indices::From(args.first_index),
            classes: args.class,
            noise: match &self.noise {
                None => RunNoise::Seed(args.seed),
                Some(noise) => RunNoise::Given(noise.view()),
            },
            temperature: args.temperature,
            given: self.given.as_ref().map(|(images, rows)| Given { images: images.view(), rows: *rows }),
            start: self.start.as_ref().map(|start| start.view()),
            method: if args.naive { Method::Naive } else { Method::Cached },
            keep: self.keep,
            ..Run::new(self.count).size(height, width)
        }
    }
}

/// So many samples of a sound, which `--seconds` says otherwise.
#[derive(PartialEq)]
struct Samples(usize);

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples", self.0)
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
