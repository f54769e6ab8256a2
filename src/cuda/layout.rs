//! Where the tensors of a batch lie in the device's memory.
//!
//! The idea: a grid is `[rows][batch][columns + 2][channels]` with a column of zeros on each side, and
//! either all rows with zeros above (naive) or a ring of the few rows that are still read (cached), in
//! raw form: the kernels activate on load. Channels are padded with zeros to whole chunks.

use bytemuck::{Pod, Zeroable};

use super::stage::CHUNK;
use crate::network::{IMAGE, Network, TensorId};
use crate::schedule;

/// `struct Grid` of `cuda/stage.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Grid {
    /// Floats from the begin of the arena.
    pub base: u64,
    /// Rows of a ring, or of the whole image with the zeros above it.
    pub rows: i32,
    /// Rows of zeros above row 0; of a ring all of its rows.
    pub above: i32,
    /// Positions from one image to the next, padding included.
    pub columns: i32,
    /// Floats of a position.
    pub channels: i32,
}

/// Which rows of the tensors are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// The rows that are still read, as rings.
    Ring,
    /// All rows.
    Full,
}

/// Images of a batch and their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Images.
    pub batch: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
}

/// The grids of a batch and the length of the arena that holds them.
#[derive(Clone, Debug)]
pub struct Layout {
    /// For each tensor its raw form.
    pub grids: Vec<Grid>,
    /// Floats needed; what is beyond counting stays `usize::MAX`.
    pub len: usize,
    extent: Extent,
    storage: Storage,
    /// Rows of each tensor that are still read.
    kept: Vec<usize>,
}

/// Floats of a position with so many channels.
pub fn padded(channels: usize) -> usize {
    channels.next_multiple_of(CHUNK)
}

impl Layout {
    /// Lays out every tensor of the network.
    pub fn new(network: &Network, storage: Storage, extent: Extent) -> Layout {
        let kept = schedule::rows_kept(network);
        let mut layout = Layout { grids: Vec::new(), len: 0, extent, storage, kept };
        for (id, tensor) in network.tensors.iter().enumerate() {
            let grid = layout.place(network, id, padded(tensor.channels));
            layout.grids.push(grid);
        }
        layout
    }

    /// Places a grid like a tensor's, of so many floats a position.
    pub fn place(&mut self, network: &Network, tensor: TensorId, channels: usize) -> Grid {
        let Extent { batch, height, width } = self.extent;
        let level = network.tensors[tensor].level;
        let kept = self.kept[tensor];
        // All rows of the image stay: given rows are written before the first pass, and it is the result.
        let ring = self.storage == Storage::Ring && tensor != IMAGE;
        let (rows, above) = match ring {
            true => (kept, kept),
            false => (height / level + kept - 1, kept - 1),
        };
        let columns = width / level + 2;
        let base = self.reserve([rows, batch, columns, channels].into_iter().fold(1, usize::saturating_mul));
        Grid {
            base: base as u64,
            rows: rows as i32,
            above: above as i32,
            columns: columns as i32,
            channels: channels as i32,
        }
    }

    /// Reserves `len` floats that begin on a line of 128 bytes.
    pub fn reserve(&mut self, len: usize) -> usize {
        let base = self.len;
        self.len = base.saturating_add(len.checked_next_multiple_of(32).unwrap_or(usize::MAX));
        base
    }

    /// The images it was made for.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Bytes of the arena.
    pub fn bytes(&self) -> u64 {
        (self.len as u64).saturating_mul(size_of::<f32>() as u64)
    }
}
