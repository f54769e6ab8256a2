//! The files given on the command line, and the run that they and the flags describe.
//!
//! The idea: what flags and files say twice must agree.

use std::fmt;

use fast_pixel_cnn::engine::{Given, Method};
use fast_pixel_cnn::generate::{self, Run, RunNoise};
use fast_pixel_cnn::heads::Head;
use fast_pixel_cnn::media::images;
use fast_pixel_cnn::{Error, Result};
use ndarray::Array4;

use crate::args::{Args, Size};
use crate::outputs::Outputs;

/// What the files given on the command line hold.
#[derive(Default)]
pub struct Inputs {
    /// Uniform numbers.
    noise: Option<Array4<f32>>,
    /// Images to complete, in [-1, 1].
    given: Option<Array4<f32>>,
}

impl Inputs {
    /// Reads the files.
    pub fn read(args: &Args, head: &Head) -> Result<Inputs> {
        let noise = args.noise.as_ref().map(|dir| generate::read_noise(dir, head));
        let key = args.key.as_deref();
        let given = args.complete.as_ref().map(|file| images::read(&[file], key, head.values()));
        Ok(Inputs {
            noise: noise.transpose()?,
            given: given.transpose()?.map(|bytes| images::to_floats(bytes.view())),
        })
    }

    /// The run that the flags and the files describe together.
    pub fn run<'a>(&'a self, args: &'a Args) -> Result<Run<'a>> {
        let noise = args.noise.as_ref().zip(self.noise.as_ref().map(|noise| noise.dim()));
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
            batch_size: args.batch_size,
            first_index: args.first_index,
            classes: args.class,
            noise: match &self.noise {
                None => RunNoise::Seed(args.seed),
                Some(noise) => RunNoise::Given(noise.view()),
            },
            temperature: args.temperature,
            given: self
                .given
                .as_ref()
                .zip(args.keep_rows)
                .map(|(images, rows)| Given { images: images.view(), rows }),
            method: if args.naive { Method::Naive } else { Method::Cached },
            keep: Outputs::keeps(args),
            ..Run::new(count.unwrap_or(args.batch_size)).size(height, width)
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
