//! What the images or sounds of a run are part of: a series.
//!
//! The idea: number i of a series is the same however the series is split over runs and machines. So two runs are of
//! one series if all is equal that could change one. Weights and files are told by what is in them, not by where they
//! are.

use fast_pixel_cnn::generate::{Classes, Run, RunNoise};
use fast_pixel_cnn::{Device, ModelConfig, Result, Weights};
use ndarray::{ArrayView, Dimension, s};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::args::{Args, Format};
use crate::kind::Kind;

/// All that decides what image or sound an index is.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// Of [`Weights::sha256`].
    weights: String,
    model: Option<ModelConfig>,
    /// The kind: bits differ between them.
    device: &'static str,
    precision: &'static str,
    /// `None` if the random numbers were given.
    seed: Option<u64>,
    /// SHA-256 of the random numbers, if they were given.
    noise: Option<String>,
    temperature: f32,
    /// `None` for an unconditional model.
    class: Option<Class>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_size: Option<[usize; 2]>,
    /// Samples of a sound, given ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<usize>,
    /// SHA-256 of the part that was given, if one was.
    given: Option<String>,
}

impl Series {
    /// What a run of these weights makes parts of.
    pub fn of(args: &Args, kind: &Kind, weights: &Weights, run: &Run) -> Result<Series> {
        let noise = match run.noise {
            RunNoise::Seed(_) => None,
            RunNoise::Given(noise) => Some(Digested::new().and(noise).hash()),
        };
        let given = (run.given.is_some() || run.start.is_some()).then(|| {
            let mut digested = Digested::new();
            if let Some(start) = run.start {
                digested = digested.and(start);
            }
            if let Some(given) = run.given {
                digested = digested.and(given.images.slice(s![.., ..given.rows, .., ..]));
            }
            digested.hash()
        });
        let (image_size, length) = match kind {
            Kind::Images => (Some([run.height, run.width]), None),
            Kind::Sounds(sounds) => (None, Some(sounds.samples(run))),
        };
        Ok(Series {
            weights: weights.sha256()?,
            model: weights.config().cloned(),
            device: Device::named(&args.engine.device)?.kind(),
            precision: args.engine.precision.unwrap_or_default().name(),
            seed: noise.is_none().then_some(args.seed),
            noise,
            temperature: run.temperature,
            class: (weights.graph().classes > 0).then(|| match run.classes {
                Some(Classes::One(class)) => Class::One(class),
                Some(Classes::All) | None => Class::All("all"),
                Some(Classes::Each(_)) => unreachable!("no flag says so"),
            }),
            image_size,
            length,
            given,
        })
    }

    /// A name that differs from that of any other series, stored in files of another format included.
    pub fn name(&self, format: Format) -> String {
        let told = serde_json::to_string(self).expect("names and numbers");
        let text = format!("{told} {}", format.name());
        hex(Sha256::digest(text.as_bytes()).as_slice())
    }
}

/// The class of all, or "all": the index modulo the number of classes.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
enum Class {
    One(u32),
    All(&'static str),
}

/// A hash of arrays, shapes included.
struct Digested(Sha256);

impl Digested {
    fn new() -> Digested {
        Digested(Sha256::new())
    }

    fn and<D: Dimension>(mut self, values: ArrayView<f32, D>) -> Digested {
        self.0.update(format!("{:?}", values.shape()));
        values.iter().for_each(|value| self.0.update(value.to_le_bytes()));
        self
    }

    fn hash(self) -> String {
        hex(&self.0.finalize())
    }
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
