//! The images of a batch while they grow: given pixels in, sampled pixels and their logits out.
//!
//! The idea: sampling one pixel of one image is the same for naive and cached, so both go through
//! [`Own::sample`]; it depends on nothing but that image's logits and its own random numbers. Images are what
//! threads share out, so each image is lent to the one thread that draws it, and nothing here is unsafe.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, TryLockError};

use ndarray::{Array4, CowArray, Ix4};

use super::team::Thread;
use crate::engine::{Batch, Noise, Output};
use crate::error::{Error, Result};
use crate::graph::{Graph, IMAGE, Input};
use crate::heads::Head;
use crate::philox;

/// The images and logits of a batch, to be lent out with [`Pixels::lend`].
pub struct Pixels<'a> {
    batch: Batch<'a>,
    input: Input,
    /// Channels of the image's map.
    channels: usize,
    head: Head,
    /// The pixel before the first of each image, where the network reads that: `[batch, values]`.
    start: Vec<f32>,
    /// What is given for every position, `[batch, height, width, channels]`.
    known: Option<CowArray<'a, f32, Ix4>>,
    images: Vec<Mutex<Image<'a>>>,
    wants_logits: bool,
    stop: AtomicBool,
    error: Mutex<Option<Error>>,
}

/// One image of a batch.
struct Image<'a> {
    /// `[height, width, values]`.
    pixels: &'a mut [f32],
    /// `[height, width, logits]`, where they are kept.
    logits: Option<&'a mut [f32]>,
}

/// The images that one thread of a team draws. No other thread has access to them while this lives.
pub struct Own<'p, 'a> {
    pixels: &'p Pixels<'a>,
    /// The image that is the team's slot 0.
    first: usize,
    slots: Range<usize>,
    images: Vec<MutexGuard<'p, Image<'a>>>,
    /// The random numbers of one pixel.
    uniforms: Vec<f32>,
    /// One position of the image's map.
    input: Vec<f32>,
}

/// Allocates what a batch returns.
pub fn allocate(batch: &Batch, head: &Head) -> Output {
    let array = |channels| Array4::zeros((batch.size, batch.height, batch.width, channels));
    Output { images: array(head.values()), logits: batch.keep_logits.then(|| array(head.logits())) }
}

impl<'a> Pixels<'a> {
    /// Fills the given rows of `output` and splits it into images.
    pub fn new(batch: &'a Batch<'_>, graph: &Graph, output: &'a mut Output) -> Pixels<'a> {
        if let Some(given) = &batch.given {
            let rows = ndarray::s![.., ..given.rows, .., ..];
            output.images.slice_mut(rows).assign(&given.images.slice(rows));
        }
        let each = |array: &'a mut Array4<f32>| {
            let floats = array.as_slice_mut().expect("a new array is contiguous");
            let image = floats.len() / batch.size;
            floats.chunks_exact_mut(image)
        };
        let wants_logits = output.logits.is_some();
        let mut logits = output.logits.as_mut().map(each);
        let images = each(&mut output.images).map(|pixels| {
            let logits = logits.as_mut().and_then(|logits| logits.next());
            Mutex::new(Image { pixels, logits })
        });
        Pixels {
            images: images.collect(),
            batch: batch.reborrow(),
            input: graph.input,
            channels: graph.maps[IMAGE].channels,
            head: graph.head,
            start: batch.starts(&graph.head),
            known: batch.known.as_ref().map(|known| known.as_standard_layout()),
            wants_logits,
            stop: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    /// Rows that are given.
    pub fn rows_given(&self) -> usize {
        self.batch.given.map_or(0, |g| g.rows)
    }

    /// Whether the logits are to be returned.
    pub fn wants_logits(&self) -> bool {
        self.wants_logits
    }

    /// A thread's share of the images `images`, which its team makes. Image `images.start` is slot 0.
    ///
    /// # Panics
    /// If another thread still has one of them.
    pub fn lend(&self, images: &Range<usize>, team: &Thread) -> Own<'_, 'a> {
        let slots = team.share(images.len());
        let first = images.start;
        let own = self.images[first + slots.start..first + slots.end].iter();
        let images = own.map(|image| match image.try_lock() {
            Ok(image) => image,
            // A thread that panicked while it held the lock has ended the run.
            Err(TryLockError::Poisoned(image)) => image.into_inner(),
            Err(TryLockError::WouldBlock) => panic!("an image is drawn by one thread"),
        });
        let images = images.collect();
        let input = vec![0.0; self.channels];
        Own { pixels: self, first, slots, images, uniforms: vec![0.0; self.head.draws()], input }
    }

    /// Stops all threads. Of several pixels the first in the order of generation is reported, rather
    /// than the first that a thread found, as far as the threads got.
    fn fail(&self, error: Error) {
        let order = |error: &Error| match *error {
            Error::NotFinite { image, row, column } => (0, row, column, image),
            _ => (1, 0, None, 0),
        };
        let mut slot = self.error.lock().unwrap_or_else(|e| e.into_inner());
        if slot.as_ref().is_none_or(|earlier| order(&error) < order(earlier)) {
            *slot = Some(error);
        }
        self.stop.store(true, Relaxed);
    }

    /// Asks all threads to stop at their next row, as if the user had.
    pub fn interrupt(&self) {
        self.fail(Error::Interrupted);
    }

    /// Whether some thread failed or the user asked to stop.
    pub fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// The first error, after all threads have ended.
    pub fn finish(self) -> Result<()> {
        let error = self.error.into_inner().unwrap_or_else(|e| e.into_inner());
        error.map_or(Ok(()), Err)
    }
}

impl Own<'_, '_> {
    /// The images, as slots of the team.
    pub fn slots(&self) -> Range<usize> {
        self.slots.clone()
    }

    fn offset(&self, row: usize, column: usize) -> usize {
        row * self.pixels.batch.width + column
    }

    /// What the image's map holds at a position: the encoded pixel, or the one before it. `at` is slot, row and
    /// column; what is read has been given or drawn.
    pub fn input(&mut self, at: [usize; 3]) -> &[f32] {
        let [slot, row, column] = at;
        let Pixels { input, head, .. } = self.pixels;
        let values = head.values();
        let pixel = match (self.offset(row, column), input.previous) {
            (0, true) => &self.pixels.start[(self.first + slot) * values..][..values],
            (offset, previous) => {
                let from = values * (offset - usize::from(previous));
                &self.images[slot - self.slots.start].pixels[from..from + values]
            }
        };
        input.encode(head, pixel, &mut self.input);
        &self.input
    }

    /// The position of the image's map that the pixel at a position fills: its own or the next in the row, which
    /// there may not be.
    pub fn filled_by(&self, [slot, row, column]: [usize; 3]) -> Option<[usize; 3]> {
        let column = column + usize::from(self.pixels.input.previous);
        (column < self.pixels.batch.width).then_some([slot, row, column])
    }

    /// The positions of the image's map in a row that are filled when the row begins: slot, row and column. All, if
    /// the row's pixels are all there; else the first, where it holds the last pixel of the row above.
    pub fn filled(&self, row: usize, whole: bool) -> impl Iterator<Item = [usize; 3]> + use<> {
        let columns = match whole {
            true => self.pixels.batch.width,
            false => usize::from(self.pixels.input.previous),
        };
        self.slots().flat_map(move |slot| (0..columns).map(move |column| [slot, row, column]))
    }

    /// What is given for every position of a row of these images, with slot, row and column.
    pub fn known(&self, row: usize) -> impl Iterator<Item = ([usize; 3], &[f32])> {
        let known = self.pixels.known.iter();
        known.flat_map(move |known| {
            let channels = known.shape()[3];
            let floats = known.as_slice().expect("standard layout");
            let (height, width) = (known.shape()[1], known.shape()[2]);
            let places = self.slots().flat_map(move |slot| (0..width).map(move |column| (slot, column)));
            places.map(move |(slot, column)| {
                let from = (((self.first + slot) * height + row) * width + column) * channels;
                ([slot, row, column], &floats[from..from + channels])
            })
        })
    }

    /// Keeps the logits of a pixel, if they are wanted.
    pub fn keep_logits(&mut self, logits: &[f32], at: [usize; 3]) {
        let [slot, row, column] = at;
        let to = self.offset(row, column) * logits.len();
        if let Some(kept) = &mut self.images[slot - self.slots.start].logits {
            kept[to..to + logits.len()].copy_from_slice(logits);
        }
    }

    /// Draws a pixel from its logits. Logits that are not finite stop all threads instead.
    pub fn sample(&mut self, logits: &[f32], at: [usize; 3]) {
        let [slot, row, column] = at;
        let (image, batch) = (self.first + slot, &self.pixels.batch);
        if logits.iter().any(|l| !l.is_finite()) {
            let column = (batch.width > 1).then_some(column);
            self.pixels.fail(Error::NotFinite { image, row, column });
            return;
        }
        match &batch.noise {
            Noise::Philox { seed, first_index } => {
                let index = (first_index + image as u64) as u32;
                philox::uniforms(*seed, index, row as u32, column as u32, &mut self.uniforms);
            }
            Noise::PhiloxAt { seed, indices } => {
                philox::uniforms(*seed, indices[image], row as u32, column as u32, &mut self.uniforms);
            }
            Noise::Given(noise) => {
                let given = noise.slice(ndarray::s![image, row, column, ..]);
                self.uniforms.iter_mut().zip(given).for_each(|(uniform, given)| *uniform = *given);
            }
        }
        let values = self.pixels.head.values();
        let to = values * self.offset(row, column);
        let pixel = &mut self.images[slot - self.slots.start].pixels[to..to + values];
        self.pixels.head.sample(logits, batch.temperature, &self.uniforms, pixel);
    }
}
