//! The images of a batch while they grow: given pixels in, sampled pixels out, and the logits met.
//!
//! The idea: sampling one pixel of one image is the same for naive and cached, so both go through
//! [`Pixels::sample`]; it depends on nothing but that image's logits and its own random numbers.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ndarray::Array4;

use super::buffer::Shared;
use super::grid::Grid;
use super::team::Member;
use crate::engine::{Batch, Made, Noise};
use crate::error::{Error, Result};
use crate::network::IMAGE_CHANNELS;
use crate::{logistic, philox};

/// The images and logits of a batch, written by several threads: each pixel by one of them.
pub struct Pixels<'a> {
    batch: Batch<'a>,
    mixtures: usize,
    images: Shared<'a>,
    logits: Option<Shared<'a>>,
    stop: AtomicBool,
    error: Mutex<Option<Error>>,
}

/// Allocates what a batch returns.
pub fn allocate(batch: &Batch, logits: usize) -> Made {
    let shape = |channels| (batch.size, batch.height, batch.width, channels);
    Made { images: Array4::zeros(shape(3)), logits: batch.keep_logits.then(|| Array4::zeros(shape(logits))) }
}

impl<'a> Pixels<'a> {
    /// Fills the given rows of `made` and shares it out.
    pub fn new(batch: &'a Batch<'_>, mixtures: usize, made: &'a mut Made) -> Pixels<'a> {
        if let Some(given) = &batch.given {
            let rows = ndarray::s![.., ..given.rows, .., ..];
            made.images.slice_mut(rows).assign(&given.images.slice(rows));
        }
        let shared = |array: &'a mut Array4<f32>| {
            Shared::new(array.as_slice_mut().expect("a new array is contiguous"))
        };
        Pixels {
            batch: batch.reborrow(),
            mixtures,
            images: shared(&mut made.images),
            logits: made.logits.as_mut().map(shared),
            stop: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    /// Rows that are given.
    pub fn rows_given(&self) -> usize {
        self.batch.given.map_or(0, |g| g.rows)
    }

    /// Whether the logits met on the way are wanted.
    pub fn wants_logits(&self) -> bool {
        self.logits.is_some()
    }

    /// Room for the random numbers of one pixel: m for the component, then one for each of R, G and B.
    pub fn uniforms(&self) -> Vec<f32> {
        vec![0.0; self.mixtures + 3]
    }

    fn offset(&self, image: usize, row: usize, column: usize) -> usize {
        (image * self.batch.height + row) * self.batch.width + column
    }

    /// Copies pixel (row, column) of `image` into the image grid as slot `slot` of the position, with
    /// its constant 1.
    ///
    /// # Safety
    /// Nothing else touches that pixel or that slot.
    pub unsafe fn enter(&self, memory: Shared, grid: Grid, slot: usize, at: [usize; 3]) {
        let [image, row, column] = at;
        // SAFETY: the position is in the image and in the grid.
        unsafe {
            let pixel = self.images.at(3 * self.offset(image, row, column), 3);
            let to = grid.at(slot, row as isize, column as isize);
            let to = memory.at(to, IMAGE_CHANNELS);
            to.copy_from_nonoverlapping(pixel, 3);
            *to.add(3) = 1.0;
        }
    }

    /// Enters all columns of some rows of the team's images, each member its share; `images` are the
    /// batch's images that lie in the grid from slot 0 on.
    ///
    /// # Safety
    /// Nobody else touches the grid before the team has met.
    pub unsafe fn enter_rows(
        &self,
        memory: Shared,
        grid: Grid,
        team: &Member,
        images: &Range<usize>,
        rows: Range<usize>,
    ) {
        for slot in team.share(images.len()) {
            for row in rows.clone() {
                for column in 0..self.batch.width {
                    // SAFETY: members share the images out.
                    unsafe { self.enter(memory, grid, slot, [images.start + slot, row, column]) };
                }
            }
        }
    }

    /// Keeps the logits of a pixel, if they are wanted.
    ///
    /// # Safety
    /// Nothing else touches that pixel's logits.
    pub unsafe fn keep_logits(&self, logits: &[f32], at: [usize; 3]) {
        let [image, row, column] = at;
        if let Some(kept) = self.logits {
            let to = self.offset(image, row, column) * logits.len();
            // SAFETY: the position is in the array.
            unsafe { kept.at(to, logits.len()).copy_from_nonoverlapping(logits.as_ptr(), logits.len()) };
        }
    }

    /// Draws a pixel from its logits.
    ///
    /// # Safety
    /// Nothing else touches that pixel.
    pub unsafe fn sample(&self, logits: &[f32], uniforms: &mut [f32], at: [usize; 3]) {
        let [image, row, column] = at;
        if logits.iter().any(|l| !l.is_finite()) {
            self.fail(Error::NotFinite { image, row, column });
            return;
        }
        let (mixture, logistic) = uniforms.split_at_mut(self.mixtures);
        match &self.batch.noise {
            Noise::Philox { seed, first_index } => {
                let index = (first_index + image as u64) as u32;
                philox::uniforms(*seed, index, row as u32, column as u32, uniforms);
            }
            Noise::Given { mixture: given_mixture, logistic: given_logistic } => {
                for (k, u) in mixture.iter_mut().enumerate() {
                    *u = given_mixture[[image, row, column, k]];
                }
                for (k, u) in logistic.iter_mut().enumerate() {
                    *u = given_logistic[[image, row, column, k]];
                }
            }
        }
        let (mixture, logistic) = uniforms.split_at(self.mixtures);
        let pixel = logistic::sample(logits, mixture, logistic);
        // SAFETY: the position is in the array.
        unsafe {
            let to = self.images.at(3 * self.offset(image, row, column), 3);
            to.copy_from_nonoverlapping(pixel.as_ptr(), 3);
        }
    }

    /// Stops all threads. Of several pixels the first in the order of generation is reported, rather
    /// than the first that a thread came upon, as far as the threads got.
    fn fail(&self, error: Error) {
        let order = |error: &Error| match *error {
            Error::NotFinite { image, row, column } => (0, row, column, image),
            _ => (1, 0, 0, 0),
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
