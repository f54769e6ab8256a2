//! What an open engine does with sounds, as far as they are not images.
//!
//! The idea: to an engine a sound is an image of one column. In Python it is its codes, the symbols of a mu-law,
//! `[N, T]`, and its amplitudes. A sound to go on from is the sample before the first row, and given rows.

use fast_pixel_cnn::engine::{Batch, Engine, Given, Method, check_labels};
use fast_pixel_cnn::evaluate::{Sounds, evaluate_sounds};
use fast_pixel_cnn::heads::{self, Head, mu_law};
use fast_pixel_cnn::{Error, Result, memory};
use ndarray::{Array2, Array4, ArrayView2, Axis, Ix2, concatenate, s};
use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::engine::{Opened, Order, room, zeros};
use crate::errors::exception;
use crate::watched::{Stoppable, watched};

/// Sounds whose logits are made at a time.
const BATCH: usize = 16;

/// Two arrays `[N, T]`: codes, and amplitudes.
type CodesAndWaveform<'py> = (Bound<'py, PyArray2<i32>>, Bound<'py, PyArray2<f32>>);

impl Opened {
    fn symbols(&self) -> Result<usize> {
        match self.head {
            Head::Categorical { symbols } if self.is_of_sounds() => Ok(symbols),
            _ => Err(Error::refused("model", "it makes images, not sounds")),
        }
    }

    /// The values that codes `[N, T]` stand for.
    fn values(&self, codes: ArrayView2<i32>) -> PyResult<Array2<f32>> {
        let symbols = self.symbols().map_err(exception)?;
        let outside = codes.iter().find(|code| !usize::try_from(**code).is_ok_and(|code| code < symbols));
        if let Some(code) = outside {
            return Err(exception(Error::argument("codes", format!("0 to {}", symbols - 1), code)));
        }
        let mut values = room(codes.len())?;
        values.iter_mut().zip(&codes).for_each(|(to, code)| *to = heads::value(*code as usize, symbols));
        Array2::from_shape_vec(codes.raw_dim(), values)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// Sounds of `length` samples behind those of `prime` `[N or 1, T]`: codes and amplitudes of all, `[N, T + length]`.
#[pyfunction]
pub fn sample_sounds<'py>(
    py: Python<'py>,
    opened: &Opened,
    order: Order<'py>,
    length: usize,
    prime: Option<PyReadonlyArray2<'py, i32>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<CodesAndWaveform<'py>> {
    let symbols = opened.symbols().map_err(exception)?;
    let prime = prime.map(|codes| opened.values(codes.as_array())).transpose()?;
    // The first sample of what is given is no row: the first row reads it.
    let before = prime.as_ref().map_or(0, |prime| prime.dim().1);
    let rows = before.saturating_sub(1);
    let given = prime.as_ref().filter(|_| rows > 0).map(|prime| begun(prime, rows + length));
    let given = given.transpose()?;
    let mut run = order.run(rows + length, 1)?;
    if let Some(given) = &given {
        run = run.given(given.view(), rows);
    }
    if let Some(prime) = &prime {
        run = run.start(prime.slice(s![.., ..1]));
    }
    let first = before.min(1);
    let samples = first + rows + length;
    let bytes = (order.count as u64).saturating_mul(samples as u64).saturating_mul(8);
    let prepared = order.prepare(py, opened, run, bytes)?;
    let codes = zeros::<i32, Ix2>(py, [order.count, samples])?;
    let waveform = zeros::<f32, Ix2>(py, [order.count, samples])?;
    let (mut to_codes, mut to_waveform) = (codes.readwrite(), waveform.readwrite());
    let (mut all_codes, mut all_amplitudes) = (to_codes.as_array_mut(), to_waveform.as_array_mut());
    let start = run.start;
    prepared.make(py, opened, progress.as_ref(), |place, images| {
        for (i, image) in images.axis_iter(Axis(0)).enumerate() {
            let sound = place + i;
            let beginning = start.map(|start| start[[if start.dim().0 == 1 { 0 } else { sound }, 0]]);
            let values = beginning.into_iter().chain(image.iter().copied());
            let to = all_codes.row_mut(sound).into_iter().zip(all_amplitudes.row_mut(sound));
            for (value, (code, amplitude)) in values.zip(to) {
                let symbol = heads::symbol(value, symbols);
                (*code, *amplitude) = (symbol as i32, mu_law::decode(symbol, symbols));
            }
        }
    })?;
    drop((to_codes, to_waveform));
    Ok((codes, waveform))
}

/// The rows `[N, rows, 1, 1]` of sounds, of which those that are there are set: all but the first of `prime` `[N, T]`.
fn begun(prime: &Array2<f32>, rows: usize) -> PyResult<Array4<f32>> {
    let (count, samples) = prime.dim();
    let given = Array4::from_shape_vec((count, rows, 1, 1), room(count.saturating_mul(rows))?);
    let mut given = given.map_err(|error| PyValueError::new_err(error.to_string()))?;
    given.slice_mut(s![.., ..samples - 1, 0, 0]).assign(&prime.slice(s![.., 1..]));
    Ok(given)
}

/// Negative log-likelihoods, in nats, of the samples of sounds `[N, T]` from `skip` on, given those before: `[N]`.
#[pyfunction]
pub fn nats_of_sounds<'py>(
    py: Python<'py>,
    opened: &Opened,
    codes: PyReadonlyArray2<'py, i32>,
    classes: Option<PyReadonlyArray1<'py, u32>>,
    skip: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let values = opened.values(codes.as_array())?;
    let labels = classes.as_ref().map(|classes| classes.as_slice()).transpose()?;
    let sounds = Sounds { values: values.view(), labels, skip, compare: None };
    let scores = watched(py, progress.as_ref(), values.dim().0, |told| {
        let mut engine = opened.engine.take(told)?;
        evaluate_sounds(&mut Stoppable::new(&mut *engine, told, 1), &sounds)
    })?;
    Ok(PyArray1::from_vec(py, scores.nats))
}

/// The logits of sounds `[N, T]`: `[N, T, depth]`, at position p those of the sample after `[..=p]`.
#[pyfunction]
pub fn logits_of_sounds<'py>(
    py: Python<'py>,
    opened: &Opened,
    codes: PyReadonlyArray2<'py, i32>,
    classes: Option<PyReadonlyArray1<'py, u32>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyArray3<f32>>> {
    let values = opened.values(codes.as_array())?;
    let labels = classes.as_ref().map(|classes| classes.as_slice()).transpose()?;
    let (count, length) = values.dim();
    let logits = watched(py, progress.as_ref(), count, |told| {
        let mut engine = opened.engine.take(told)?;
        check_labels(engine.graph(), labels, count)?;
        check_logits(&*engine, count, length)?;
        let depth = engine.graph().head.logits();
        let mut engine = Stoppable::new(&mut *engine, told, 1);
        let mut batches = Vec::new();
        for first in (0..count).step_by(BATCH) {
            let range = first..count.min(first + BATCH);
            let labels = labels.map(|labels| &labels[range.clone()]);
            batches.push(logits(&mut engine, values.slice(s![range.clone(), ..]), labels)?);
            told.progress(range.end as f64);
        }
        let views: Vec<_> = batches.iter().map(|batch| batch.view()).collect();
        Ok(concatenate(Axis(0), &views).unwrap_or_else(|_| Array4::zeros((0, length, 1, depth))))
    })?;
    Ok(PyArray3::from_owned_array(py, logits.remove_axis(Axis(2))))
}

/// The logits `[N, T, 1, depth]` after each sample of `[N, T]`.
fn logits(engine: &mut dyn Engine, values: ArrayView2<f32>, labels: Option<&[u32]>) -> Result<Array4<f32>> {
    let (count, length) = values.dim();
    if length == 0 {
        return Err(Error::argument("codes", "sounds of at least 1 sample", "none"));
    }
    // A row's sample is the one that comes after its position; behind the last any will do.
    let mut rows = Array4::zeros((count, length, 1, 1));
    rows.slice_mut(s![.., ..length - 1, 0, 0]).assign(&values.slice(s![.., 1..]));
    let batch = Batch {
        labels,
        start: Some(values.slice(s![.., ..1])),
        given: Some(Given { images: rows.view(), rows: length }),
        keep_logits: true,
        ..Batch::new(count, length, 1)
    };
    let made = engine.make(&batch, &|_| true)?;
    Ok(made.logits.unwrap_or_else(|| Array4::zeros((count, length, 1, 0))))
}

/// Refuses logits that there is no room for: a batch's, and all of them twice while batches are put together.
fn check_logits(engine: &dyn Engine, count: usize, length: usize) -> Result<()> {
    let Some(available) = engine.available() else { return Ok(()) };
    let numbers = [count, length, engine.graph().head.logits(), size_of::<f32>()];
    let kept = numbers.iter().fold(2, |bytes: u64, &n| bytes.saturating_mul(n as u64));
    let batch = count.clamp(1, BATCH);
    memory::check_batch(available, batch, |size| {
        engine.batch_bytes(Method::Cached, size, length, 1).saturating_add(kept)
    })
}
