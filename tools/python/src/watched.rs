//! Long work beside Python: without the interpreter's lock, stopped by Ctrl-C, watched by a callable.
//!
//! The idea: the work is a thread's of its own that never waits for the interpreter, while the thread that called sleeps
//! and wakes up twenty times a second to ask for signals and to tell how far the work is.

use std::ops::{Deref, DerefMut};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{process, thread};

use fast_pixel_cnn::engine::{Batch, Engine, Method, Output, Watch};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::{Error, Result};
use ndarray::{Array4, ArrayView4};
use pyo3::prelude::*;

use crate::errors::exception;

/// How often Python is asked and told.
const PAUSE: Duration = Duration::from_millis(50);

/// What the work tells, and is told.
#[derive(Default)]
pub struct Told {
    /// Whether the work is to stop.
    pub stop: AtomicBool,
    /// How far it is, in images or sounds: a float's bits.
    done: AtomicU64,
}

impl Told {
    /// Tells how far the work is.
    pub fn progress(&self, done: f64) {
        self.done.store(done.to_bits(), Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// Does the work. `progress` is called with how much of `total` is done, from the thread that called.
///
/// # Errors
/// What Python raises in between (KeyboardInterrupt, or an exception of `progress`), after the work has stopped; the
/// work's own.
pub fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    total: usize,
    work: impl FnOnce(&Told) -> Result<T> + Send,
) -> PyResult<T> {
    let (told, mut raised) = (Told::default(), None);
    let ask = |done: f64| {
        Python::attach(|py| {
            py.check_signals()?;
            progress.map_or(Ok(()), |callable| callable.call1(py, (done, total)).map(drop))
        })
    };
    let made = py.detach(|| {
        thread::scope(|scope| {
            let (sender, receiver) = channel::<()>();
            let told = &told;
            let body = move || {
                // Its end hangs up, whatever becomes of the work.
                let _sender = sender;
                work(told)
            };
            let worker = thread::Builder::new().spawn_scoped(scope, body);
            let worker = worker.map_err(|source| Error::Threads { threads: 1, source })?;
            while receiver.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                if raised.is_none() {
                    raised = ask(f64::from_bits(told.done.load(Relaxed))).err();
                    told.stop.store(raised.is_some(), Relaxed);
                }
            }
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    });
    match raised {
        Some(raised) => Err(raised),
        None => {
            let made = made.map_err(exception)?;
            ask(total as f64)?;
            Ok(made)
        }
    }
}

/// An engine that threads take turns with.
pub struct Shared {
    engine: Mutex<Box<dyn Engine>>,
    /// The process whose thread has it; 0 if none has.
    taken: AtomicU32,
}

impl Shared {
    pub fn new(engine: Box<dyn Engine>) -> Shared {
        Shared { engine: Mutex::new(engine), taken: AtomicU32::new(0) }
    }

    /// Takes the engine for the work. Another thread of Python's may have it for long: waiting can be stopped too.
    ///
    /// # Errors
    /// [`Error::Interrupted`]. [`Error::Device`] in a process that was forked while a thread of its parent had the
    /// engine, since nobody will ever give it back there.
    pub fn take(&self, told: &Told) -> Result<Taken<'_>> {
        let process = process::id();
        while let Err(other) = self.taken.compare_exchange(0, process, Ordering::Acquire, Relaxed) {
            if other != process {
                return Err(Error::Device {
                    device: "the model".into(),
                    action: "be used in this process".into(),
                    found: "it was forked while another thread used the model; load one here".into(),
                });
            }
            if told.stopped() {
                return Err(Error::Interrupted);
            }
            thread::sleep(Duration::from_millis(1));
        }
        // A batch begins with everything set: what a panic left behind does not matter.
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Taken { engine, taken: &self.taken })
    }
}

/// A turn with an engine, which ends when this is dropped.
pub struct Taken<'a> {
    engine: MutexGuard<'a, Box<dyn Engine>>,
    taken: &'a AtomicU32,
}

impl<'a> Deref for Taken<'a> {
    type Target = dyn Engine + 'a;

    fn deref(&self) -> &(dyn Engine + 'a) {
        &**self.engine
    }
}

impl<'a> DerefMut for Taken<'a> {
    fn deref_mut(&mut self) -> &mut (dyn Engine + 'a) {
        &mut **self.engine
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.taken.store(0, Ordering::Release);
    }
}

/// An engine whose work stops when it is told so, after a batch, and which tells how many images it has been through.
pub struct Stoppable<'a> {
    engine: &'a mut dyn Engine,
    told: &'a Told,
    /// How often it is given each image.
    times: usize,
    images: usize,
}

impl<'a> Stoppable<'a> {
    pub fn new(engine: &'a mut dyn Engine, told: &'a Told, times: usize) -> Stoppable<'a> {
        Stoppable { engine, told, times: times.max(1), images: 0 }
    }

    fn check(&self) -> Result<()> {
        if self.told.stopped() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn done(&mut self, images: usize) {
        self.images += images;
        self.told.progress(self.images as f64 / self.times as f64);
    }
}

impl Engine for Stoppable<'_> {
    fn name(&self) -> String {
        self.engine.name()
    }

    fn graph(&self) -> &Graph {
        self.engine.graph()
    }

    fn weight_bytes(&self) -> u64 {
        self.engine.weight_bytes()
    }

    fn batch_bytes(&self, method: Method, size: usize, height: usize, width: usize) -> u64 {
        self.engine.batch_bytes(method, size, height, width)
    }

    fn available(&self) -> Option<u64> {
        self.engine.available()
    }

    fn nats(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<Vec<f64>> {
        self.check()?;
        let nats = self.engine.nats(images, labels)?;
        self.done(images.dim().0);
        Ok(nats)
    }

    fn logits(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<Array4<f32>> {
        self.check()?;
        let logits = self.engine.logits(images, labels)?;
        self.done(images.dim().0);
        Ok(logits)
    }

    fn make(&mut self, batch: &Batch, watch: Watch) -> Result<Output> {
        self.check()?;
        self.engine.make(batch, &|rows| watch(rows) && !self.told.stopped())
    }
}
