//! Runs of many images on any engine: batches, classes, noise, completion, and stopping in between.
//!
//! A [`Run`] says what is to be made, [`Run::generate`] makes it, and what came out is [`Generated`].
//!
//! The idea: image i of a run is image `first_index + i` of an endless series. Its noise and its class
//! follow from that index alone, so it is the same image however a run is split into batches or the
//! series into runs.

mod generated;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub use generated::Generated;
use ndarray::{Array4, ArrayView2, ArrayView4, Axis, Ix4, concatenate};

use crate::engine::{self, Batch, Engine, Given, Method, Noise};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::heads::Head;
use crate::media::images::Grid;
use crate::media::npy;
use crate::memory;

/// Which classes a class-conditional model makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classes<'a> {
    /// All images are of this class.
    One(u32),
    /// The image with index i has the class i modulo the number of classes.
    All,
    /// The class of each image of the run.
    Each(&'a [u32]),
}

/// Which images of a series a run makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indices<'a> {
    /// Those from this index on. Indices are below 2^32.
    From(u64),
    /// The index of each image of the run, in any order.
    Each(&'a [u32]),
}

impl Indices<'_> {
    /// The index of the run's image `i`.
    pub fn of(&self, i: usize) -> u64 {
        match self {
            Indices::From(first) => first + i as u64,
            Indices::Each(indices) => u64::from(indices[i]),
        }
    }
}

/// A run of images to make: [`Run::new`], and what differs from its defaults.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Number of images, at least 1.
    pub count: usize,
    /// Images in a batch; the last batch may be smaller.
    pub batch_size: usize,
    /// Rows of an image, a multiple of the graph's period.
    pub height: usize,
    /// Columns of an image, a multiple of the graph's period.
    pub width: usize,
    /// Which images of the series.
    pub indices: Indices<'a>,
    /// `None` for an unconditional model; for a conditional one it means [`Classes::All`].
    pub classes: Option<Classes<'a>>,
    /// The random numbers of the whole run; those of a seed follow from [`Run::indices`].
    pub noise: RunNoise<'a>,
    /// As [`Batch::temperature`]; 1 for the model's own distribution.
    pub temperature: f32,
    /// The given part, for completion: one image for each of the run, or one for all.
    pub given: Option<Given<'a>>,
    /// As [`Batch::start`]: one pixel for each image of the run, or one for all.
    pub start: Option<ArrayView2<'a, f32>>,
    /// Cached or naive.
    pub method: Method,
    /// Whether all images are kept until the end, or each batch only until [`Hooks::finished`] has seen it.
    pub keep: bool,
}

/// Where the uniform random numbers of a run come from.
#[derive(Clone, Copy, Debug)]
pub enum RunNoise<'a> {
    /// Philox4x32-10 with this key.
    Seed(u64),
    /// Given numbers: `[count, height, width, draws]`, as for [`Noise::Given`].
    Given(ArrayView4<'a, f32>),
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Images in finished batches.
    pub images: usize,
    /// Images in the current batch.
    pub batch: usize,
    /// Rows of the current batch that are finished.
    pub rows: usize,
}

/// What may look on while a run is made, and stop it. By default nobody does.
#[derive(Default)]
pub struct Hooks<'a> {
    /// Ends the run when it becomes true: after the current row, with the batches that are finished.
    pub stop: Option<&'a AtomicBool>,
    /// Called after each row, on one thread.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// Takes each finished batch.
    pub finished: Option<Finished<'a>>,
    /// Bytes that the run may take; `None` for what [`Engine::available`] says.
    pub available: Option<u64>,
}

/// Bytes that any run keeps for each image: its class, and a batch's seconds.
const KEPT_PER_IMAGE: u64 = 4 + 8;

/// Takes finished batches: the first image, counted within the run, and images `[B, height, width, values]` in
/// [-1, 1].
pub type Finished<'a> = Box<dyn FnMut(usize, ArrayView4<f32>) -> Result<()> + 'a>;

impl<'a> Run<'a> {
    /// A run of `count` images of 32x32 from seed 0 and index 0 on, 16 at a time, cached, at temperature 1, of all
    /// classes in turn where the model has classes, and kept.
    pub fn new(count: usize) -> Run<'a> {
        Run {
            count,
            batch_size: 16,
            height: 32,
            width: 32,
            indices: Indices::From(0),
            classes: None,
            noise: RunNoise::Seed(0),
            temperature: 1.0,
            given: None,
            start: None,
            method: Method::Cached,
            keep: true,
        }
    }

    /// Random numbers of this seed.
    pub fn seed(self, seed: u64) -> Self {
        Run { noise: RunNoise::Seed(seed), ..self }
    }

    /// Given random numbers: `[count, height, width, draws]`, as for [`Noise::Given`].
    pub fn noise(self, noise: ArrayView4<'a, f32>) -> Self {
        Run { noise: RunNoise::Given(noise), ..self }
    }

    /// All images of one class of a class-conditional model, counted from 0.
    pub fn class(self, class: u32) -> Self {
        Run { classes: Some(Classes::One(class)), ..self }
    }

    /// The class of each image of the run.
    pub fn classes(self, classes: &'a [u32]) -> Self {
        Run { classes: Some(Classes::Each(classes)), ..self }
    }

    /// Images in a batch, at least 1: more take more memory, and up to a point less time for each.
    pub fn batch_size(self, batch_size: usize) -> Self {
        Run { batch_size, ..self }
    }

    /// The images' rows and columns of pixels, multiples of the graph's period.
    pub fn size(self, height: usize, width: usize) -> Self {
        Run { height, width, ..self }
    }

    /// Begins with another image of the series than its first. Indices are below 2^32.
    pub fn first_index(self, first_index: u64) -> Self {
        Run { indices: Indices::From(first_index), ..self }
    }

    /// These images of the series, as many as the run makes, in any order.
    pub fn indices(self, indices: &'a [u32]) -> Self {
        Run { indices: Indices::Each(indices), ..self }
    }

    /// As [`Batch::temperature`]: finite and above 0; below 1 draws from the likelier images.
    pub fn temperature(self, temperature: f32) -> Self {
        Run { temperature, ..self }
    }

    /// Completes images `[N, height, width, values]` in [-1, 1]: keeps `rows` rows from the top and generates the
    /// rest. N is the run's count, or 1 for one image that is completed in as many ways.
    pub fn given(self, images: ArrayView4<'a, f32>, rows: usize) -> Self {
        Run { given: Some(Given { images, rows }), ..self }
    }

    /// Begins behind given pixels, `[N, values]` in [-1, 1], of a model that reads the pixel before: see
    /// [`Batch::start`]. N as for [`Run::given`].
    pub fn start(self, pixels: ArrayView2<'a, f32>) -> Self {
        Run { start: Some(pixels), ..self }
    }

    /// By a full forward pass for each pixel: the same images, slowly.
    pub fn naive(self) -> Self {
        Run { method: Method::Naive, ..self }
    }

    /// Makes the images, batch by batch.
    ///
    /// # Errors
    /// As for [`Run::generate_with`].
    pub fn generate(&self, engine: &mut dyn Engine) -> Result<Generated> {
        self.generate_with(engine, Hooks::default())
    }

    /// The layout of a picture of the first `count` images: see [`Generated::grid`].
    #[doc(hidden)]
    pub fn grid(&self, graph: &Graph, count: usize) -> Grid {
        match (graph.classes, self.classes, self.indices) {
            (classes @ 1.., None | Some(Classes::All), Indices::From(first)) => {
                Grid::by_class(count, (first % classes as u64) as usize, classes)
            }
            _ => Grid::near_square(count, self.height, self.width),
        }
    }

    /// The class of each image, for a class-conditional model.
    ///
    /// # Errors
    /// [`Error::Argument`] if classes are asked of an unconditional model.
    pub fn labels(&self, graph: &Graph) -> Result<Option<Vec<u32>>> {
        let classes = match (graph.classes, self.classes) {
            (0, None) => return Ok(None),
            (0, Some(_)) => {
                return Err(Error::refused("class", "the model is unconditional"));
            }
            (_, classes) => classes.unwrap_or(Classes::All),
        };
        let k = graph.classes as u64;
        Ok(Some(match classes {
            Classes::One(class) => vec![class; self.count],
            Classes::All => (0..self.count).map(|i| (self.indices.of(i) % k) as u32).collect(),
            Classes::Each(classes) => classes.into(),
        }))
    }

    /// The whole run as one batch, which is never made but sliced.
    fn whole<'b>(&'b self, labels: Option<&'b [u32]>) -> Batch<'b> {
        let given = self.given.as_ref().map(|given| {
            let (images, height, width, channels) = given.images.dim();
            let spread = given.images.broadcast((self.count, height, width, channels));
            Given {
                // One image is for all; any other number that differs is refused by the batch's check.
                images: spread.filter(|_| images == 1).unwrap_or(given.images.reborrow()),
                rows: given.rows,
            }
        });
        let start = self.start.as_ref().map(|start| {
            let spread = start.broadcast((self.count, start.dim().1));
            spread.filter(|_| start.dim().0 == 1).unwrap_or(start.reborrow())
        });
        Batch {
            labels,
            start,
            noise: match (self.noise, self.indices) {
                (RunNoise::Given(noise), _) => Noise::Given(noise.reborrow()),
                (RunNoise::Seed(seed), Indices::From(first_index)) => Noise::Philox { seed, first_index },
                (RunNoise::Seed(seed), Indices::Each(indices)) => Noise::PhiloxAt { seed, indices },
            },
            temperature: self.temperature,
            given,
            method: self.method,
            ..Batch::new(self.count, self.height, self.width)
        }
    }

    /// Refuses what [`Run::generate_with`] would refuse before its first batch, in an order in which nothing is
    /// allocated before its size was found acceptable. `available` as in [`Hooks`]. Returns the labels.
    ///
    /// # Errors
    /// [`Error::Argument`] and [`Error::Memory`] as for [`Run::generate_with`].
    pub fn check(&self, engine: &dyn Engine, available: Option<u64>) -> Result<Option<Vec<u32>>> {
        engine::check_size(engine.graph(), self.height, self.width)?;
        for (name, number) in [("batch size", self.batch_size), ("count", self.count)] {
            if number == 0 {
                return Err(Error::argument(name, "at least 1", "0"));
            }
        }
        match self.indices {
            Indices::From(first) => {
                if first.checked_add(self.count as u64).is_none_or(|end| end > 1 << 32) {
                    let found = format!("{} from {first}", self.count);
                    return Err(Error::argument("first index", "indices below 2^32", found));
                }
            }
            Indices::Each(indices) => self.check_each("indices", indices)?,
        }
        if let Some(Classes::Each(classes)) = self.classes {
            self.check_each("class", classes)?;
        }
        let pixel = (engine.graph().head.values() * size_of::<f32>()) as u64;
        let pixels = if self.keep { (self.height as u64).saturating_mul(self.width as u64) } else { 0 };
        let image = pixels.saturating_mul(pixel).saturating_add(KEPT_PER_IMAGE);
        let kept = image.saturating_mul(self.count as u64);
        if let Some(available) = available.or_else(|| engine.available()) {
            if kept > available {
                let fit = available / image;
                let graph = engine.graph();
                let size = match graph.is_sequence() {
                    true => format!("{} samples", self.height),
                    false => format!("{}x{}", self.height, self.width),
                };
                let made = engine::plural(graph);
                let reason = format!("memory holds {fit} {made} of {size}, not {}", self.count);
                return Err(Error::refused("count", reason));
            }
            let size = self.batch_size.min(self.count);
            memory::check_batches(available - kept, self.count, size, |size| {
                engine.batch_bytes(self.method, size, self.height, self.width)
            })?;
        }
        let labels = self.labels(engine.graph())?;
        self.whole(labels.as_deref()).check(engine.graph())?;
        Ok(labels)
    }

    /// Refuses what there should be one of for each image.
    fn check_each(&self, name: &str, each: &[u32]) -> Result<()> {
        if each.len() == self.count {
            return Ok(());
        }
        Err(Error::argument(name, format!("one for each of {} images", self.count), each.len()))
    }

    /// [`Run::generate`], with [`Hooks`] to look on and to stop it.
    ///
    /// # Errors
    /// [`Error::Argument`] for a run that does not fit the model or itself, [`Error::Memory`] for a batch that does
    /// not fit into memory, both before anything large is allocated; [`Error::NotFinite`] and the engine's own, and
    /// those of [`Hooks::finished`].
    pub fn generate_with(&self, engine: &mut dyn Engine, mut hooks: Hooks) -> Result<Generated> {
        let labels = self.check(engine, hooks.available)?;
        // All at once: a vector that grows would hold twice what `check` has counted.
        let mut values = Vec::new();
        let kept = if self.keep { self.count } else { 0 };
        let channels = engine.graph().head.values();
        let numbers = kept.saturating_mul(self.height * self.width * channels);
        values
            .try_reserve_exact(numbers)
            .map_err(|_| Error::refused("count", format!("memory does not hold {}", self.count)))?;
        let stopped = || hooks.stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
        let mut batch_seconds = Vec::new();
        let mut done = 0;
        while done < self.count && !stopped() {
            let end = self.count.min(done.saturating_add(self.batch_size));
            let watch = |rows| {
                if let Some(progress) = hooks.progress {
                    progress(Progress { images: done, batch: end - done, rows });
                }
                !stopped()
            };
            let start = Instant::now();
            let whole = self.whole(labels.as_deref());
            let images = match engine.make(&whole.part(done..end), &watch) {
                Ok(output) => output.images,
                Err(Error::Interrupted) => break,
                Err(error) => return Err(error),
            };
            batch_seconds.push(start.elapsed().as_secs_f64());
            if let Some(finished) = &mut hooks.finished {
                finished(done, images.view())?;
            }
            if self.keep {
                values.extend(images);
            }
            done = end;
        }
        let kept = if self.keep { done } else { 0 };
        let images = Array4::from_shape_vec((kept, self.height, self.width, channels), values)
            .expect("an engine makes images of the size it was asked for");
        let labels = labels.map(|mut labels| {
            labels.truncate(done);
            labels
        });
        let (grid, interrupted) = (self.grid(engine.graph(), done), done < self.count);
        let head = engine.graph().head;
        Ok(Generated { count: done, images, labels, batch_seconds, interrupted, head, grid })
    }
}

/// The files of a directory of noise, where it is parted.
#[doc(hidden)]
pub const NOISE_FILES: [&str; 2] = ["u_mix.npy", "u_logistic.npy"];

/// Reads the uniform numbers of a run, `[N, H, W, draws]`, from a file, or from a directory in which they are parted
/// into `u_mix.npy` (`[N, H, W, m]`) and `u_logistic.npy` (`[N, H, W, values]`).
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] for a file that is not such an array, and for numbers outside of
/// [`Head::uniforms`].
#[doc(hidden)]
pub fn read_noise(path: &Path, head: &Head) -> Result<Array4<f32>> {
    let (mut shape, bounds): (Option<[usize; 3]>, _) = (None, head.uniforms());
    let mut read = |file: &Path, channels: usize| {
        let array = npy::read_f32(file)?;
        let (found, any) = (format!("{:?}", array.shape()), ["N", "H", "W"].map(String::from));
        let [n, h, w] = shape.map_or(any, |shape| shape.map(|d| d.to_string()));
        let bad = || {
            let expected = format!("[{n}, {h}, {w}, {channels}]");
            Error::malformed(file, "shape", expected, found)
        };
        let Ok(array) = array.into_dimensionality::<Ix4>() else {
            return Err(bad());
        };
        let (count, height, width, depth) = array.dim();
        let first = *shape.get_or_insert([count, height, width]);
        if first != [count, height, width] || depth != channels || count == 0 {
            return Err(bad());
        }
        if let Some((at, u)) = array.indexed_iter().find(|(_, u)| !bounds.contains(u)) {
            let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
            return Err(Error::malformed(file, format!("element {at:?}"), expected, u.to_string()));
        }
        Ok(array)
    };
    if !path.is_dir() {
        return read(path, head.draws());
    }
    let channels = [head.draws() - head.values(), head.values()];
    let [mixture, logistic] = NOISE_FILES.map(|name| path.join(name));
    let parts = [read(&mixture, channels[0])?, read(&logistic, channels[1])?];
    Ok(concatenate(Axis(3), &[parts[0].view(), parts[1].view()]).expect("both have the same pixels"))
}

/// The seconds that the two methods take for the images of a run.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Race {
    /// Of naive generation, estimated from full forward passes.
    pub naive_seconds: f64,
    /// Of cached generation.
    pub cached_seconds: f64,
}

impl Race {
    /// How many times faster cached generation is.
    pub fn speedup(&self) -> f64 {
        self.naive_seconds / self.cached_seconds
    }
}

/// Full forward passes that [`race`] times for each size of batch, after one that does not count.
#[doc(hidden)]
pub const RACE_PASSES: usize = 3;

/// What naive generation of the same images would have taken, beside what the cached run took. Naive
/// does a full forward pass over the batch for each pixel that is not given, so it is the median of
/// [`RACE_PASSES`] such passes times the number of these pixels; drawing them is left out, in its favour. The
/// run kept its images.
///
/// # Errors
/// The engine's own.
#[doc(hidden)]
pub fn race(engine: &mut dyn Engine, run: &Run, generated: &Generated) -> Result<Race> {
    let mut seconds_of_pass = |range: Range<usize>| {
        let images = generated.images.slice_axis(Axis(0), range.clone().into());
        let labels = generated.labels.as_ref().map(|labels| &labels[range]);
        let mut seconds = [0.0; RACE_PASSES];
        engine.logits(images, labels)?;
        for seconds in &mut seconds {
            let start = Instant::now();
            engine.logits(images, labels)?;
            *seconds = start.elapsed().as_secs_f64();
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[RACE_PASSES / 2])
    };
    let count = generated.images.dim().0;
    let (full, rest) = (count / run.batch_size, count % run.batch_size);
    // All full batches cost the same.
    let mut passes = 0.0;
    if full > 0 {
        passes += full as f64 * seconds_of_pass(0..run.batch_size)?;
    }
    if rest > 0 {
        passes += seconds_of_pass(count - rest..count)?;
    }
    let pixels = (run.height - run.given.map_or(0, |given| given.rows)) * run.width;
    Ok(Race { naive_seconds: passes * pixels as f64, cached_seconds: generated.batch_seconds.iter().sum() })
}
