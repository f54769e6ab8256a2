//! Where the tensors of a batch lie in memory.
//!
//! The idea: a grid is `[rows][batch][columns + 2][channels]` with a column of zeros on each side, and
//! either all rows with zeros above (naive), or a ring of the few rows that are still read (cached).
//! A neighbour is then a fixed distance away for a whole row of a whole batch, padding needs no
//! special case, a push into the cache is the producer's store, and a pop is an index.

use super::buffer::Shared;
use crate::network::{Form, IMAGE, IMAGE_CHANNELS, Network, TensorId};
use crate::schedule;

/// Which rows of the tensors are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// The rows that are still read, as rings.
    Ring,
    /// All rows.
    Full,
}

/// A tensor in one form.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Where it begins, in floats.
    pub base: usize,
    rows: usize,
    /// Rows of zeros above row 0; with a ring none, its unwritten slots serve.
    above: usize,
    ring: bool,
    row_stride: usize,
    /// Columns of an image, padding included: positions from one image to the next.
    pub columns: usize,
    /// Channels of a position.
    pub channels: usize,
}

impl Grid {
    /// Where the position (row, column) of an image lies; it may be in the padding.
    pub fn at(&self, image: usize, row: isize, column: isize) -> usize {
        let row = if self.ring { row.rem_euclid(self.rows as isize) } else { row + self.above as isize };
        debug_assert!((0..self.rows as isize).contains(&row));
        debug_assert!((-1..self.columns as isize - 1).contains(&column));
        let position = image * self.columns + (column + 1) as usize;
        let offset = row as usize * self.row_stride + position * self.channels;
        debug_assert!(position * self.channels < self.row_stride);
        self.base + offset
    }

    /// Writes a pixel into the grid of the image: slot, row and column.
    ///
    /// # Safety
    /// This is the grid of [`IMAGE`] in that block of memory and has this slot, row and column, and no other
    /// thread reads or writes that position meanwhile.
    pub unsafe fn enter(&self, memory: Shared, at: [usize; 3], pixel: [f32; IMAGE_CHANNELS]) {
        let [slot, row, column] = at;
        let to = self.at(slot, row as isize, column as isize);
        // SAFETY: by the caller's promise.
        unsafe { memory.at(to, IMAGE_CHANNELS).copy_from_nonoverlapping(pixel.as_ptr(), IMAGE_CHANNELS) };
    }
}

/// The grids of a batch and the length of the block that holds them.
#[derive(Clone, Debug)]
pub struct Layout {
    grids: Vec<[Option<Grid>; 3]>,
    /// Floats needed.
    pub len: usize,
}

impl Layout {
    /// Lays out every tensor of the network in every form in which it is read.
    pub fn new(network: &Network, storage: Storage, batch: usize, height: usize, width: usize) -> Layout {
        let mut layout = Layout { grids: Vec::new(), len: 0 };
        let (kept, read) = (schedule::rows_kept(network), schedule::forms_read(network));
        for (id, tensor) in network.tensors.iter().enumerate() {
            let kept = kept[id];
            // All rows of the image stay, so that given rows can be written before the first pass.
            let (rows, above) = match storage {
                Storage::Ring if id != IMAGE => (kept, 0),
                _ => (height / tensor.level + kept - 1, kept - 1),
            };
            let mut forms = [None; 3];
            for &form in &read[id] {
                let channels = network.channels(id, form);
                let columns = width / tensor.level + 2;
                let row_stride = batch.saturating_mul(columns).saturating_mul(channels);
                let base = layout.reserve(row_stride.saturating_mul(rows));
                let ring = storage == Storage::Ring && id != IMAGE;
                forms[form as usize] = Some(Grid { base, rows, above, ring, row_stride, columns, channels });
            }
            layout.grids.push(forms);
        }
        layout
    }

    /// Reserves `len` floats that begin on a cache line. What is beyond counting stays `usize::MAX`,
    /// which no allocation is granted.
    pub fn reserve(&mut self, len: usize) -> usize {
        let base = self.len;
        self.len = base.saturating_add(len.checked_next_multiple_of(16).unwrap_or(usize::MAX));
        base
    }

    /// The grid of a tensor in a form, if that form is read by anything.
    pub fn grid(&self, tensor: TensorId, form: Form) -> Option<Grid> {
        self.grids[tensor][form as usize]
    }
}
