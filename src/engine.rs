//! What a backend can do: a full forward pass, and a batch of images pixel by pixel.
//!
//! The idea: a backend sees arrays and a [`Batch`]; files, flags and progress bars stay above it.
//! [`crate::generate`] drives any of them.

use std::ops::Range;

use ndarray::{Array4, ArrayView2, ArrayView4, s};

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::heads::Head;
use crate::memory;

/// How images are generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Each position of each layer is computed once, when its pixel comes, and kept.
    Cached,
    /// One full forward pass for each pixel: what the cached engine is measured against.
    Naive,
}

/// Where the uniform random numbers of a batch come from.
#[derive(Clone, Copy, Debug)]
pub enum Noise<'a> {
    /// Philox4x32-10 with key `seed`; image b of the batch has the index `first_index + b`.
    Philox {
        /// The key.
        seed: u64,
        /// Index of the batch's first image. Indices are below 2^32.
        first_index: u64,
    },
    /// The same of images in any order.
    PhiloxAt {
        /// The key.
        seed: u64,
        /// The index of each image: `[batch]`.
        indices: &'a [u32],
    },
    /// Given numbers: `[batch, height, width, draws]`, where the draws of a pixel are what its
    /// [`Head`] takes, in that order, each within [`Head::uniforms`].
    Given(ArrayView4<'a, f32>),
}

/// The part of the images that is given and stays as it is.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// `[batch, height, width, values]` in [-1, 1].
    pub images: ArrayView4<'a, f32>,
    /// Rows kept, from the top. With all rows kept, [`Engine::make`] is a teacher-forced pass.
    pub rows: usize,
}

/// A batch of images to make.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Number of images, at least 1.
    pub size: usize,
    /// Rows of an image, a multiple of the graph's period.
    pub height: usize,
    /// Columns of an image, a multiple of the graph's period.
    pub width: usize,
    /// The class of each image, for a class-conditional model: `[batch]`.
    pub labels: Option<&'a [u32]>,
    /// The random numbers.
    pub noise: Noise<'a>,
    /// Finite and above 0: 1 draws from the model's distribution, less from its likelier parts. See
    /// [`Head::sample`](crate::heads::Head::sample).
    pub temperature: f32,
    /// What is given for every position, for a graph that has such a map: `[batch, height, width, channels]`.
    pub known: Option<ArrayView4<'a, f32>>,
    /// The pixel that comes before the first, for a graph whose image holds the previous pixel
    /// ([`Input`](crate::graph::Input)): `[batch, values]` in [-1, 1]. `None` for the value nearest to 0.
    pub start: Option<ArrayView2<'a, f32>>,
    /// The given part, for completion.
    pub given: Option<Given<'a>>,
    /// Cached or naive.
    pub method: Method,
    /// Whether [`Output::logits`] is wanted.
    pub keep_logits: bool,
}

/// A finished batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// `[batch, height, width, values]` in [-1, 1], as sampled: not rounded to bytes.
    pub images: Array4<f32>,
    /// The logits from which the pixels were drawn, `[batch, height, width, logits]`, if they were asked for.
    pub logits: Option<Array4<f32>>,
}

/// Progress callback: called with the rows finished so far (of the slowest thread), after each row, or after some
/// hundred where a device makes so many at a time, or once for all given rows. Returns whether to go on: `false` stops the batch with [`Error::Interrupted`], except after the last
/// row, when there is nothing left to stop.
pub type Watch<'a> = &'a (dyn Fn(usize) -> bool + Sync);

/// A backend with the weights of one model. One thread at a time uses it, whichever.
pub trait Engine: Send {
    /// What it runs on, for people: "cpu (avx512, 2 threads)".
    fn name(&self) -> String;

    /// The network.
    fn graph(&self) -> &Graph;

    /// Bytes that the weights take, as the engine holds them.
    fn weight_bytes(&self) -> u64;

    /// Bytes that a batch needs beyond the weights, without [`Output::logits`]; `u64::MAX` on
    /// overflow. 0 for an empty batch. A larger batch may need less.
    fn batch_bytes(&self, method: Method, size: usize, height: usize, width: usize) -> u64;

    /// Bytes that a batch may take; `None` if that is not known. Unless an engine says otherwise, what the
    /// machine has.
    fn available(&self) -> Option<u64> {
        memory::available()
    }

    /// The negative log-likelihoods of given images, in nats; `images` and `labels` as for
    /// [`Engine::logits`]. NaN for an image that has a logit that is not finite.
    ///
    /// # Errors
    /// As for [`Engine::logits`].
    fn nats(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<Vec<f64>> {
        let logits = self.logits(images, labels)?;
        self.graph().head.nats(logits.view(), images)
    }

    /// A full forward pass: images `[batch, height, width, values]` in [-1, 1] to logits
    /// `[batch, height, width, logits]`. `labels` as in [`Batch::labels`]. The logits of unusable weights may
    /// be infinite or not a number.
    ///
    /// # Errors
    /// [`Error::Argument`] for sizes and labels that do not fit; what the device refuses.
    fn logits(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<Array4<f32>> {
        let output = self.make(&Batch::teacher_forced(images, labels), &|_| true)?;
        Ok(output.logits.expect("the logits were asked for"))
    }

    /// Makes a batch of images. `watch` is called on one thread.
    ///
    /// # Errors
    /// [`Error::Argument`] as for [`Batch::check`], [`Error::Interrupted`] when `watch` says so,
    /// [`Error::NotFinite`] for logits from which no pixel can be drawn; what the device refuses.
    fn make(&mut self, batch: &Batch, watch: Watch) -> Result<Output>;
}

/// What [`Device::open`](crate::device::Device::open) gives is an engine too: calls go to the engine in it.
impl<E: Engine + ?Sized> Engine for Box<E> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn graph(&self) -> &Graph {
        (**self).graph()
    }

    fn weight_bytes(&self) -> u64 {
        (**self).weight_bytes()
    }

    fn batch_bytes(&self, method: Method, size: usize, height: usize, width: usize) -> u64 {
        (**self).batch_bytes(method, size, height, width)
    }

    fn available(&self) -> Option<u64> {
        (**self).available()
    }

    fn nats(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<Vec<f64>> {
        (**self).nats(images, labels)
    }

    fn logits(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<Array4<f32>> {
        (**self).logits(images, labels)
    }

    fn make(&mut self, batch: &Batch, watch: Watch) -> Result<Output> {
        (**self).make(batch, watch)
    }
}

/// Refuses image sizes that the strides of the network cannot divide.
#[doc(hidden)]
pub fn check_size(graph: &Graph, height: usize, width: usize) -> Result<()> {
    let period = graph.period();
    if height == 0 || width == 0 || !height.is_multiple_of(period) || !width.is_multiple_of(period) {
        let expected = match period {
            1 => "height and width of at least 1".into(),
            _ => format!("height and width that are positive multiples of {period}"),
        };
        return Err(Error::argument("image size", expected, format!("{height}x{width}")));
    }
    Ok(())
}

/// What a graph makes, as people call it.
pub(crate) fn plural(graph: &Graph) -> &'static str {
    if graph.is_sequence() { "sounds" } else { "images" }
}

/// Refuses labels that do not fit the classes of a model or a batch of `size` images or sounds.
#[doc(hidden)]
pub fn check_labels(graph: &Graph, labels: Option<&[u32]>, size: usize) -> Result<()> {
    match (graph.classes, labels) {
        (0, None) => Ok(()),
        (0, Some(_)) => Err(Error::refused("class", "the model is unconditional")),
        (k, None) => Err(Error::refused(
            "class",
            format!(
                "the model is conditional on {k} classes: one is needed for each of {size} {}",
                plural(graph)
            ),
        )),
        (k, Some(labels)) => {
            if labels.len() != size {
                let found = format!("{} labels", labels.len());
                return Err(Error::argument(
                    "class",
                    format!("one for each of {size} {}", plural(graph)),
                    found,
                ));
            }
            match labels.iter().find(|&&l| l as usize >= k) {
                Some(label) => {
                    Err(Error::argument("class", format!("classes 0 to {}", k - 1), label.to_string()))
                }
                None => Ok(()),
            }
        }
    }
}

impl<'a> Batch<'a> {
    /// A batch of the model's own images: cached, from seed 0 and index 0 on, without classes, nothing given and no
    /// logits kept. Callers change what differs.
    pub fn new(size: usize, height: usize, width: usize) -> Batch<'a> {
        Batch {
            size,
            height,
            width,
            labels: None,
            noise: Noise::Philox { seed: 0, first_index: 0 },
            temperature: 1.0,
            known: None,
            start: None,
            given: None,
            method: Method::Cached,
            keep_logits: false,
        }
    }

    /// A batch whose pixels are all given and whose logits are wanted, by full forward passes: `images` and `labels` as
    /// for [`Engine::logits`].
    pub fn teacher_forced(images: ArrayView4<'a, f32>, labels: Option<&'a [u32]>) -> Batch<'a> {
        let (size, height, width, _) = images.dim();
        let given = Some(Given { images, rows: height });
        Batch { labels, given, method: Method::Naive, keep_logits: true, ..Batch::new(size, height, width) }
    }

    /// The same batch, borrowed for a shorter time: array views do not shorten by themselves.
    pub fn reborrow(&self) -> Batch<'_> {
        let noise = match self.noise {
            Noise::Philox { seed, first_index } => Noise::Philox { seed, first_index },
            Noise::PhiloxAt { seed, indices } => Noise::PhiloxAt { seed, indices },
            Noise::Given(noise) => Noise::Given(noise.reborrow()),
        };
        let given = self.given.map(|g| Given { images: g.images.reborrow(), rows: g.rows });
        let known = self.known.map(|known| known.reborrow());
        let start = self.start.map(|start| start.reborrow());
        Batch { noise, given, known, start, labels: self.labels, ..*self }
    }

    /// The images `range` of a batch, as a batch of their own.
    pub fn part(&self, range: Range<usize>) -> Batch<'_> {
        let rows = s![range.clone(), .., .., ..];
        let noise = match &self.noise {
            Noise::Philox { seed, first_index } => {
                Noise::Philox { seed: *seed, first_index: first_index + range.start as u64 }
            }
            Noise::PhiloxAt { seed, indices } => {
                Noise::PhiloxAt { seed: *seed, indices: &indices[range.clone()] }
            }
            Noise::Given(noise) => Noise::Given(noise.slice(rows)),
        };
        let given = self.given.as_ref().map(|g| Given { images: g.images.slice(rows), rows: g.rows });
        let known = self.known.as_ref().map(|known| known.slice(rows));
        let start = self.start.as_ref().map(|start| start.slice(s![range.clone(), ..]));
        let labels = self.labels.map(|labels| &labels[range.clone()]);
        Batch { size: range.len(), noise, given, known, start, labels, ..*self }
    }

    /// The pixel that comes before the first of each image, for a head: `[batch, values]`.
    pub(crate) fn starts(&self, head: &Head) -> Vec<f32> {
        match &self.start {
            Some(start) => start.iter().copied().collect(),
            None => vec![head.nearest(0.0); self.size * head.values()],
        }
    }

    /// Refuses a batch whose parts do not fit each other or the model: [`Engine::make`] begins with it.
    ///
    /// # Errors
    /// [`Error::Argument`] for sizes, labels, noise, a temperature or given parts that do not fit.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        let head = &graph.head;
        check_size(graph, self.height, self.width)?;
        // Random numbers are counted by rows and columns of 32 bits, and rings divide by such numbers.
        if self.height.max(self.width) > u32::MAX as usize {
            let found = format!("{}x{}", self.height, self.width);
            return Err(Error::argument("image size", "height and width below 2^32", found));
        }
        if self.size == 0 {
            return Err(Error::argument("batch size", "at least 1", "0"));
        }
        // The largest array is that of the logits; memory is for the caller to check, counting is not.
        let dimensions = [self.height, self.width, head.logits().max(head.values()), size_of::<f32>()];
        let bytes = dimensions.iter().try_fold(self.size, |bytes, d| bytes.checked_mul(*d));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            let found = format!("{} of {}x{}", self.size, self.height, self.width);
            return Err(Error::refused(
                "batch",
                format!("too large: {found} pixels do not fit in the address space"),
            ));
        }
        check_labels(graph, self.labels, self.size)?;
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            let found = self.temperature.to_string();
            return Err(Error::argument("temperature", "a finite number above 0", found));
        }
        let same = |name: &str, found: &[usize], channels: usize| {
            let expected = [self.size, self.height, self.width, channels];
            if found == expected {
                return Ok(());
            }
            Err(Error::argument(name, format!("shape {expected:?}"), format!("{found:?}")))
        };
        match &self.noise {
            Noise::Philox { first_index, .. } => {
                if first_index.checked_add(self.size as u64).is_none_or(|end| end > 1 << 32) {
                    let found = first_index.to_string();
                    return Err(Error::argument("first index", "indices below 2^32", found));
                }
            }
            Noise::PhiloxAt { indices, .. } if indices.len() != self.size => {
                let found = format!("{} indices", indices.len());
                return Err(Error::argument("indices", format!("one for each of {}", self.size), found));
            }
            Noise::PhiloxAt { .. } => {}
            Noise::Given(noise) => {
                same("noise", noise.shape(), head.draws())?;
                let bounds = head.uniforms();
                if let Some(u) = noise.iter().find(|u| !bounds.contains(u)) {
                    let expected = format!("numbers in [{}, {}]", bounds.start(), bounds.end());
                    return Err(Error::argument("noise", expected, u.to_string()));
                }
            }
        }
        if let Some(start) = &self.start {
            if !graph.input.previous {
                return Err(Error::argument(
                    "start",
                    "none: the model reads no pixel before the first",
                    "an array",
                ));
            }
            let expected = [self.size, head.values()];
            if start.shape() != expected {
                return Err(Error::argument(
                    "start",
                    format!("shape {expected:?}"),
                    format!("{:?}", start.shape()),
                ));
            }
            if let Some(v) = start.iter().find(|v| !(-1.0..=1.0).contains(*v)) {
                return Err(Error::argument("start", "values in [-1, 1]", v.to_string()));
            }
        }
        match (graph.input.known, &self.known) {
            (None, None) => {}
            (Some(map), Some(known)) => {
                same("conditioning", known.shape(), graph.maps[map].channels)?;
                if let Some(x) = known.iter().find(|x| !x.is_finite()) {
                    return Err(Error::argument("conditioning", "finite numbers", x.to_string()));
                }
            }
            (Some(_), None) => {
                return Err(Error::argument("conditioning", "a vector for each position", "none"));
            }
            (None, Some(_)) => {
                return Err(Error::argument("conditioning", "none: the model takes none", "an array"));
            }
        }
        if let Some(given) = &self.given {
            same("given images", given.images.shape(), head.values())?;
            if given.rows > self.height {
                let expected = format!("at most {} rows to keep", self.height);
                return Err(Error::argument("given rows", expected, given.rows.to_string()));
            }
            if let Some(v) = given.images.iter().find(|v| !(-1.0..=1.0).contains(*v)) {
                return Err(Error::argument("given images", "values in [-1, 1]", v.to_string()));
            }
        }
        Ok(())
    }
}
