//! An open engine: images and sounds made, completed, scored.
//!
//! The idea: a call takes numpy's arrays as they are, hands views of them to the library, and makes its results in
//! arrays of numpy's, so that nothing is copied that need not be. Shapes and types have been seen to in Python; what
//! they mean is checked by the library.

use std::path::PathBuf;

use fast_pixel_cnn::checkpoint::Held;
use fast_pixel_cnn::device::CudaOptions;
use fast_pixel_cnn::engine::{Engine, Method};
use fast_pixel_cnn::evaluate::{self, Task};
use fast_pixel_cnn::generate::{Hooks, Progress, Run};
use fast_pixel_cnn::heads::Head;
use fast_pixel_cnn::media::images;
use fast_pixel_cnn::weights::Options;
use fast_pixel_cnn::{
    Device, Error, ModelConfig, Nonlinearity, Precision, Result, Weights, cpu, device, memory,
};
use ndarray::{Array4, ArrayView4, Dimension, Ix4};
use numpy::{
    Element, PyArray, PyArray1, PyArray2, PyArray4, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray4,
    PyReadonlyArrayDyn,
};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;

use crate::errors::exception;
use crate::watched::{Shared, Stoppable, watched};

/// Images in a batch, unless memory is short or the caller says otherwise: from here on more are no faster.
const BATCH: usize = 256;

/// An engine with the weights of one model.
#[pyclass(frozen, name = "Engine", module = "fast_pixel_cnn._engine")]
pub struct Opened {
    pub(crate) engine: Shared,
    config: Option<ModelConfig>,
    pub(crate) head: Head,
    /// What the weights' reader says, one sentence each.
    #[pyo3(get)]
    warnings: Vec<String>,
    /// What it runs on: "cpu (avx512, 2 threads)".
    #[pyo3(get)]
    device: String,
    /// Classes of a class-conditional model, else 0.
    #[pyo3(get)]
    classes: usize,
    /// Whether it makes sounds.
    #[pyo3(get)]
    sounds: bool,
    /// Samples of a second, of a model of sounds.
    #[pyo3(get)]
    sample_rate: Option<u32>,
    /// Height and width of images are multiples of this.
    #[pyo3(get)]
    period: usize,
}

/// Where weights come from.
#[derive(FromPyObject)]
pub enum Source<'py> {
    /// A trainer's arrays, by name.
    Arrays(Vec<(String, PyReadonlyArrayDyn<'py, f32>)>),
    /// A checkpoint, or a directory.
    Path(PathBuf),
}

/// Which weights are taken, as Python says it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Choice {
    raw: bool,
    nonlinearity: Option<String>,
    scope: Option<String>,
    params: Option<PathBuf>,
}

impl Choice {
    fn options(self) -> Result<Options> {
        let named = |name: String| {
            let found = Nonlinearity::ALL.into_iter().find(|nonlinearity| nonlinearity.name() == name);
            let expected = || Nonlinearity::ALL.map(Nonlinearity::name).join(", ");
            found.ok_or_else(|| Error::argument("nonlinearity", expected(), format!("\"{name}\"")))
        };
        let nonlinearity = self.nonlinearity.map(named).transpose()?;
        Ok(Options { raw: self.raw, nonlinearity, scope: self.scope, params: self.params })
    }
}

/// Loads weights and opens an engine with them.
#[pyfunction]
pub fn open(
    py: Python<'_>,
    source: Source<'_>,
    choice: Choice,
    device: &str,
    threads: Option<usize>,
    precision: &str,
) -> PyResult<Opened> {
    let found = Precision::ALL.into_iter().find(|one| one.name() == precision);
    let refused = || Error::argument("precision", "f32 or bf16", format!("\"{precision}\""));
    let precision = found.ok_or_else(refused).map_err(exception)?;
    let device = Device::named(device).map_err(exception)?;
    if let (Device::Cuda(_), Some(_)) = (device, threads) {
        return Err(exception(Error::refused("threads", "only for the processor")));
    }
    let options = choice.options().map_err(exception)?;
    // Copied while nobody else can write into them.
    let source = match source {
        Source::Path(path) => Ok(path),
        Source::Arrays(arrays) => Err(arrays.into_iter().map(held).collect::<PyResult<Vec<_>>>()?),
    };
    let opened = py.detach(|| {
        let weights = match source {
            Ok(path) => Weights::load_with(path, &options)?,
            Err(arrays) => Weights::from_held(arrays, &options)?,
        };
        let cpu = cpu::Options { threads, precision, ..cpu::Options::default() };
        let cuda = CudaOptions { precision, ..CudaOptions::default() };
        let engine = device.open_with(&weights, &device::Options { cpu, cuda })?;
        Ok(Opened::new(engine, &weights))
    });
    opened.map_err(exception)
}

fn held((name, array): (String, PyReadonlyArrayDyn<'_, f32>)) -> PyResult<Held> {
    let array = array.as_array();
    let mut values = room(array.len())?;
    values.iter_mut().zip(&array).for_each(|(to, value)| *to = *value);
    Ok(Held { name, shape: array.shape().into(), values })
}

/// Zeros for what was given, which numpy may have spread out from much less.
///
/// # Errors
/// MemoryError, if there is no room for them.
pub(crate) fn room(count: usize) -> PyResult<Vec<f32>> {
    let needed = (count as u64).saturating_mul(size_of::<f32>() as u64);
    memory::zeros(count as u64).map_err(|available| {
        let line =
            format!("what is given needs {} MiB and {} MiB are available", needed >> 20, available >> 20);
        PyMemoryError::new_err(line)
    })
}

/// An array of numpy's, of zeros.
///
/// # Errors
/// numpy's MemoryError.
pub(crate) fn zeros<'py, T: Element, D: Dimension>(
    py: Python<'py>,
    shape: impl IntoPyObject<'py>,
) -> PyResult<Bound<'py, PyArray<T, D>>> {
    let made = py.import("numpy")?.call_method1("zeros", (shape, numpy::dtype::<T>(py)))?;
    Ok(made.cast_into::<PyArray<T, D>>()?)
}

/// Which classes are made.
#[derive(FromPyObject)]
pub enum Classes<'py> {
    /// One for each, `[count]`.
    Each(PyReadonlyArray1<'py, u32>),
    /// One for all.
    One(u32),
}

/// What is to be made, as Python says it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Order<'py> {
    pub(crate) count: usize,
    first_index: u64,
    /// `[count]`, or those from `first_index` on.
    indices: Option<PyReadonlyArray1<'py, u32>>,
    seed: u64,
    /// For a class-conditional model that has none, index modulo the number of classes.
    classes: Option<Classes<'py>>,
    temperature: f32,
    method: String,
    batch_size: Option<usize>,
}

impl<'py> Order<'py> {
    /// The run, of `height` rows and `width` columns.
    pub(crate) fn run(&self, height: usize, width: usize) -> PyResult<Run<'_>> {
        let mut run = Run::new(self.count).seed(self.seed).size(height, width).temperature(self.temperature);
        run.method = match &self.method[..] {
            "cached" => Method::Cached,
            "naive" => Method::Naive,
            other => {
                let error = Error::argument("method", "cached or naive", format!("\"{other}\""));
                return Err(exception(error));
            }
        };
        run = match &self.indices {
            Some(indices) => run.indices(indices.as_slice()?),
            None => run.first_index(self.first_index),
        };
        run = match &self.classes {
            Some(Classes::Each(classes)) => run.classes(classes.as_slice()?),
            Some(Classes::One(class)) => run.class(*class),
            None => run,
        };
        run.keep = false;
        Ok(run)
    }

    /// The run with its batches' size, if it fits the model and the memory beside results of `kept` bytes. Nothing has
    /// been allocated then.
    ///
    /// # Errors
    /// ValueError and MemoryError; KeyboardInterrupt while another thread uses the engine.
    pub(crate) fn prepare<'a>(
        &self,
        py: Python<'_>,
        opened: &Opened,
        run: Run<'a>,
        kept: u64,
    ) -> PyResult<Prepared<'a>> {
        let wanted = self.batch_size;
        watched(py, None, 0, move |told| {
            let engine = opened.engine.take(told)?;
            let room = engine.available();
            if let Some(room) = room.or(Some(isize::MAX as u64)).filter(|room| kept > *room) {
                let fits = room / (kept / run.count.max(1) as u64).max(1);
                return Err(Error::Memory {
                    batch: run.count,
                    needed: kept,
                    available: room,
                    fits: fits as usize,
                });
            }
            let available = room.map(|room| room - kept);
            let run = run.batch_size(wanted.unwrap_or_else(|| batch_size(&*engine, &run, available)));
            run.check(&*engine, available)?;
            Ok(Prepared { run, available })
        })
    }
}

/// A run that fits.
pub struct Prepared<'a> {
    pub(crate) run: Run<'a>,
    /// Bytes that it may take beside its results.
    available: Option<u64>,
}

impl Prepared<'_> {
    /// Makes the run and hands each batch, `[B, height, width, values]`, to `take` with the place of its first image.
    ///
    /// # Errors
    /// As for [`watched`].
    pub(crate) fn make(
        self,
        py: Python<'_>,
        opened: &Opened,
        progress: Option<&Py<PyAny>>,
        mut take: impl FnMut(usize, ArrayView4<f32>) + Send,
    ) -> PyResult<()> {
        let Prepared { run, available } = self;
        watched(py, progress, run.count, move |told| {
            let mut engine = opened.engine.take(told)?;
            let rows = run.height as f64;
            let progress = |at: Progress| {
                told.progress(at.images as f64 + at.batch as f64 * at.rows as f64 / rows);
            };
            let finished = Box::new(|first, images: ArrayView4<f32>| {
                take(first, images);
                Ok(())
            });
            let (stop, progress) = (Some(&told.stop), Some(&progress as &(dyn Fn(Progress) + Sync)));
            let hooks = Hooks { stop, progress, finished: Some(finished), available };
            let made = run.generate_with(&mut *engine, hooks)?;
            if made.interrupted { Err(Error::Interrupted) } else { Ok(()) }
        })
    }

    /// Makes the run as an array of numpy's of this shape, `[N, H, W, C]`, each value turned into what is wanted.
    ///
    /// # Errors
    /// As for [`watched`]; numpy's MemoryError.
    fn images<'py, T: Element>(
        self,
        py: Python<'py>,
        opened: &Opened,
        shape: [usize; 4],
        progress: Option<&Py<PyAny>>,
        turn: fn(f32) -> T,
    ) -> PyResult<Bound<'py, PyArray4<T>>> {
        let made = zeros::<T, Ix4>(py, shape)?;
        let mut array = made.readwrite();
        let all = array.as_slice_mut()?;
        let image = shape[1..].iter().product::<usize>();
        self.make(py, opened, progress, |first, images| {
            all[first * image..].iter_mut().zip(images).for_each(|(to, value)| *to = turn(*value));
        })?;
        drop(array);
        Ok(made)
    }
}

/// The largest batch up to [`BATCH`] that fits. If not even one image does, the run will say so.
fn batch_size(engine: &dyn Engine, run: &Run, available: Option<u64>) -> usize {
    let wanted = run.count.clamp(1, BATCH);
    let Some(available) = available else { return wanted };
    let bytes = |size| engine.batch_bytes(run.method, size, run.height, run.width);
    let fits = |size| memory::batches_fit(available, run.count, size, bytes);
    memory::largest_batch(wanted, fits).max(1)
}

/// Images `[N, H, W, C]` of which the first rows are given.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Begun<'py> {
    images: PyReadonlyArray4<'py, u8>,
    rows: usize,
}

impl Opened {
    pub(crate) fn is_of_sounds(&self) -> bool {
        self.sounds
    }

    fn new(engine: Box<dyn Engine>, weights: &Weights) -> Opened {
        let graph = engine.graph();
        Opened {
            head: graph.head,
            warnings: weights.warnings().into(),
            device: engine.name(),
            classes: graph.classes,
            sounds: graph.is_sequence(),
            sample_rate: weights.config().and_then(ModelConfig::sample_rate),
            period: graph.period(),
            config: weights.config().cloned(),
            engine: Shared::new(engine),
        }
    }
}

#[pymethods]
impl Opened {
    /// The model's configuration, in JSON.
    #[getter]
    fn config(&self) -> PyResult<Option<String>> {
        let json = self.config.as_ref().map(serde_json::to_string).transpose();
        json.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// Channels of an image.
    #[getter]
    fn channels(&self) -> usize {
        self.head.values()
    }

    /// Logits of a pixel or a sample.
    #[getter]
    fn depth(&self) -> usize {
        self.head.logits()
    }

    /// Images `[N, H, W, C]`: bytes, or the floats as they were drawn.
    #[pyo3(signature = (order, size, begun, floats, progress))]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        order: Order<'py>,
        size: [usize; 2],
        begun: Option<Begun<'py>>,
        floats: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let [height, width] = size;
        let run = order.run(height, width)?;
        let given = begun.as_ref().map(|begun| floats_of(begun.images.as_array())).transpose()?;
        let run = match (&given, &begun) {
            (Some(images), Some(begun)) => run.given(images.view(), begun.rows),
            _ => run,
        };
        let shape = [order.count, height, width, self.head.values()];
        let values = shape.iter().fold(1, |product: u64, &axis| product.saturating_mul(axis as u64));
        let bytes = values.saturating_mul(if floats { 4 } else { 1 });
        let prepared = order.prepare(py, self, run, bytes)?;
        if floats {
            return Ok(prepared.images(py, self, shape, progress.as_ref(), |value| value)?.into_any());
        }
        Ok(prepared.images(py, self, shape, progress.as_ref(), images::to_byte)?.into_any())
    }

    /// Negative log-likelihoods of images `[N, H, W, C]`, in nats: `[N]`.
    fn nats<'py>(
        &self,
        py: Python<'py>,
        images: PyReadonlyArray4<'py, u8>,
        classes: Option<PyReadonlyArray1<'py, u32>>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let scores = self.evaluate(py, &images, classes.as_ref(), false, progress)?;
        Ok(PyArray1::from_vec(py, scores.nats))
    }

    /// Logits of images `[N, H, W, C]`: `[N, H, W, depth]`.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        images: PyReadonlyArray4<'py, u8>,
        classes: Option<PyReadonlyArray1<'py, u32>>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray4<f32>>> {
        let scores = self.evaluate(py, &images, classes.as_ref(), true, progress)?;
        Ok(PyArray4::from_owned_array(py, scores.logits.unwrap_or_else(|| Array4::zeros((0, 0, 0, 0)))))
    }

    /// Negative log-likelihoods of images `[N, H, W, C]` under each class, in nats: `[N, K]`.
    fn nats_by_class<'py>(
        &self,
        py: Python<'py>,
        images: PyReadonlyArray4<'py, u8>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let (count, images) = (images.as_array().dim().0, images.as_array());
        let found = watched(py, progress.as_ref(), count, |told| {
            let mut engine = self.engine.take(told)?;
            evaluate::classify(&mut Stoppable::new(&mut *engine, told, self.classes), images)
        })?;
        Ok(PyArray2::from_owned_array(py, found.nats))
    }
}

impl Opened {
    fn evaluate(
        &self,
        py: Python<'_>,
        images: &PyReadonlyArray4<'_, u8>,
        classes: Option<&PyReadonlyArray1<'_, u32>>,
        keep_logits: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<evaluate::Scores> {
        let labels = classes.map(|classes| classes.as_slice()).transpose()?;
        let images = images.as_array();
        let task = Task { labels, keep_logits, ..Task::new(images) };
        watched(py, progress.as_ref(), images.dim().0, |told| {
            let mut engine = self.engine.take(told)?;
            evaluate::evaluate(&mut Stoppable::new(&mut *engine, told, 1), &task)
        })
    }
}

/// Given images as floats.
fn floats_of(images: ArrayView4<u8>) -> PyResult<Array4<f32>> {
    let mut values = room(images.len())?;
    values.iter_mut().zip(&images).for_each(|(to, byte)| *to = images::to_float(*byte));
    let floats = Array4::from_shape_vec(images.raw_dim(), values);
    floats.map_err(|error| PyValueError::new_err(error.to_string()))
}
