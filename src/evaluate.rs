//! How likely a model finds given images, which class it takes them for, and how far its logits are from
//! given ones.
//!
//! A [`Task`] says what is evaluated, [`evaluate`] does it, and [`classify`] asks under which class images are likeliest;
//! [`evaluate_sounds`] does it for sounds.
//!
//! The idea: images go through full forward passes in batches as large as memory allows; nothing is kept
//! of a batch but its likelihoods, unless the logits are asked for. A likelihood is NaN where the logits are
//! not finite, whatever the engine.

mod sounds;

pub use sounds::{SoundScores, Sounds, evaluate_sounds};

use std::ops::Range;

use ndarray::{Array2, Array4, ArrayView4, s};

use crate::engine::{self, Engine, Method};
use crate::error::{Error, Result};
use crate::heads::Head;
use crate::{media::images, memory};

/// Images in a batch, or fewer where memory is short. More would not be faster.
const BATCH: usize = 16;

/// What to evaluate: [`Task::new`], and what differs from its defaults.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// `[N, H, W, values]`.
    pub images: ArrayView4<'a, u8>,
    /// The class of each image, for a class-conditional model: `[N]`.
    pub labels: Option<&'a [u32]>,
    /// Logits to compare with: `[N, H, W, logits]`.
    pub compare: Option<ArrayView4<'a, f32>>,
    /// Whether [`Scores::logits`] is wanted.
    pub keep_logits: bool,
}

impl<'a> Task<'a> {
    /// Images `[N, H, W, values]`, without classes, and only their likelihoods.
    pub fn new(images: ArrayView4<'a, u8>) -> Task<'a> {
        Task { images, labels: None, compare: None, keep_logits: false }
    }

    /// With the class of each image, for a class-conditional model: `[N]`.
    pub fn labels(self, labels: &'a [u32]) -> Self {
        Task { labels: Some(labels), ..self }
    }
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Negative log-likelihood of each image, in nats; NaN if one of its logits is not finite.
    pub nats: Vec<f64>,
    /// The same in bits per pixel and value.
    pub bits_per_dim: Vec<f64>,
    /// The largest absolute difference to the logits to compare with, NaN if any is; `None` if none were
    /// given.
    pub max_logit_difference: Option<f64>,
    /// `[N, H, W, logits]`, if they were asked for.
    pub logits: Option<Array4<f32>>,
}

impl Scores {
    /// Bits per dimension, averaged over the images.
    pub fn mean_bits_per_dim(&self) -> f64 {
        self.bits_per_dim.iter().sum::<f64>() / self.bits_per_dim.len() as f64
    }
}

/// What images are taken for.
#[derive(Clone, Debug)]
pub struct Classified {
    /// Negative log-likelihood of each image under each class, in nats: `[N, K]`; NaN if one of the logits is
    /// not finite.
    pub nats: Array2<f64>,
    /// The class under which an image is likeliest, the first of equals: `[N]`. `None` if not all of its
    /// likelihoods are numbers.
    pub classes: Vec<Option<u32>>,
}

impl Classified {
    /// How many images are of the class they were taken for; `labels`: `[N]`.
    pub fn right(&self, labels: &[u32]) -> usize {
        self.classes.iter().zip(labels).filter(|(class, label)| **class == Some(**label)).count()
    }
}

/// The likelihoods of images `[N, H, W, values]` under each class of a class-conditional model, by a full forward
/// pass for each class; the likeliest class is the most probable one where all classes are as frequent.
///
/// # Errors
/// [`Error::Argument`] for a model without classes and for sizes that do not fit it, [`Error::Memory`] if not
/// even one image fits, and the engine's own.
pub fn classify(engine: &mut dyn Engine, images: ArrayView4<u8>) -> Result<Classified> {
    let (count, height, width, _) = images.dim();
    let (classes, head) = (engine.graph().classes, engine.graph().head);
    engine::check_size(engine.graph(), height, width)?;
    if classes == 0 {
        return Err(Error::refused("model", "the model is unconditional: it has no classes to tell apart"));
    }
    let batch = batch_size(engine, &Task::new(images))?;
    let mut nats = Array2::zeros((count, classes));
    for start in (0..count).step_by(batch) {
        let range = start..count.min(start + batch);
        let floats = floats(&head, images, &range);
        for class in 0..classes {
            let labels = vec![class as u32; range.len()];
            let of_class = engine.nats(floats.view(), Some(&labels))?;
            nats.slice_mut(s![range.clone(), class]).iter_mut().zip(of_class).for_each(|(to, n)| *to = n);
        }
    }
    let classes = nats.rows().into_iter().map(|row| {
        let least = |best: usize, class: usize| if row[class] < row[best] { class } else { best };
        let class = (0..classes).fold(0, least);
        row.iter().all(|n| !n.is_nan()).then_some(class as u32)
    });
    let classes = classes.collect();
    Ok(Classified { nats, classes })
}

/// Evaluates images, in batches of the size that fits into memory.
///
/// # Errors
/// [`Error::Argument`] for a task that does not fit the model or itself, [`Error::Memory`] if not even one
/// image fits, and the engine's own.
pub fn evaluate(engine: &mut dyn Engine, task: &Task) -> Result<Scores> {
    let (count, height, width, _) = task.images.dim();
    let head = engine.graph().head;
    let depth = head.logits();
    engine::check_size(engine.graph(), height, width)?;
    engine::check_labels(engine.graph(), task.labels, count)?;
    if let Some(found) = task.compare.as_ref().map(|c| c.shape()) {
        let expected = [count, height, width, depth];
        if found != expected {
            let expected = format!("shape {expected:?}");
            return Err(Error::argument("logits to compare with", expected, format!("{found:?}")));
        }
    }
    let batch = batch_size(engine, task)?;

    let mut scores = Scores {
        nats: Vec::new(),
        bits_per_dim: Vec::new(),
        max_logit_difference: task.compare.map(|_| 0.0),
        logits: None,
    };
    // All at once: a vector that grows would hold twice what has been counted.
    let mut kept = Vec::with_capacity(if task.keep_logits { count * height * width * depth } else { 0 });
    for start in (0..count).step_by(batch) {
        let range = start..count.min(start + batch);
        let floats = floats(&head, task.images, &range);
        let labels = task.labels.map(|labels| &labels[range.clone()]);
        if task.compare.is_none() && !task.keep_logits {
            scores.nats.extend(engine.nats(floats.view(), labels)?);
            continue;
        }
        let logits = engine.logits(floats.view(), labels)?;
        scores.nats.extend(head.nats(logits.view(), floats.view())?);
        if let Some((compare, so_far)) = task.compare.as_ref().zip(scores.max_logit_difference.as_mut()) {
            let other = compare.slice(s![range, .., .., ..]);
            let differences = logits.iter().zip(other).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
            *so_far = differences.fold(*so_far, largest);
        }
        if task.keep_logits {
            kept.extend(logits);
        }
    }
    let bits = |&nats: &f64| head.bits_per_dim(nats, height, width);
    scores.bits_per_dim = scores.nats.iter().map(bits).collect();
    scores.logits = task.keep_logits.then(|| {
        Array4::from_shape_vec((count, height, width, depth), kept)
            .expect("an engine gives the logits of every pixel it was given")
    });
    Ok(scores)
}

/// Some of the images as the network reads them: each byte as the nearest value that a pixel can be drawn with.
fn floats(head: &Head, images: ArrayView4<u8>, range: &Range<usize>) -> Array4<f32> {
    images.slice(s![range.clone(), .., .., ..]).mapv(|byte| head.nearest(images::to_float(byte)))
}

/// The larger number; not a number if either is none.
fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The largest batch up to [`BATCH`] that fits, with its logits and what is kept.
fn batch_size(engine: &dyn Engine, task: &Task) -> Result<usize> {
    let (count, height, width, _) = task.images.dim();
    let wanted = BATCH.min(count).max(1);
    let Some(available) = engine.available() else {
        return Ok(wanted);
    };
    // What is given may be spread out from one image, and more than could ever be.
    let logit = [height, width, engine.graph().head.logits(), size_of::<f32>()];
    let logits = |images| logit.iter().fold(images as u64, |bytes, &n| bytes.saturating_mul(n as u64));
    let kept = if task.keep_logits { logits(count) } else { 0 };
    let bytes = |size| {
        let batch = engine.batch_bytes(Method::Naive, size, height, width);
        batch.saturating_add(logits(size)).saturating_add(kept)
    };
    memory::check_batch(available, 1, bytes)?;
    Ok(memory::largest_batch(wanted, |size| memory::batches_fit(available, count, size, bytes)))
}
