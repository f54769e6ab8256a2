//! Where the maps of a batch lie in memory.
//!
//! The idea: a grid is `[rows][batch][columns and padding][channels]` with as many columns of zeros on each side as
//! taps reach, and either all rows with zeros above (naive), or a ring of the few rows that are still read (cached).
//! A neighbour is then a fixed distance away for a whole row of a whole batch, padding needs no special case, a
//! push into the cache is the producer's store, and a pop is an index. Maps of one stride have the same columns, so
//! that positions are as far apart in each.

use std::collections::HashMap;

use crate::graph::{Graph, MapId};

/// Which rows of the maps are kept.
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

/// A map in memory, in floats from the start of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Where column 0 of row slot 0 of image 0 lies.
    pub base: usize,
    /// Slots for rows: of a ring, or of the whole image with the zeros above it.
    pub rows: usize,
    /// Added to a row before it is taken modulo `rows`. Full storage: the rows of zeros above row 0. Ring: `rows`,
    /// so that row -k wraps to a slot that nothing has written yet.
    pub above: usize,
    /// Images.
    pub batch: usize,
    /// Positions from one image to the next: the columns with the padding on both sides.
    pub columns: usize,
    /// Floats of a position.
    pub channels: usize,
}

impl Grid {
    /// Where the position (row, column) of an image lies; it may be in the padding.
    pub fn at(&self, image: usize, row: isize, column: isize) -> usize {
        let row = row + self.above as isize;
        debug_assert!(row >= 0 && image < self.batch && column < self.columns as isize);
        // Rows are fewer than 2^32, and such numbers are divided in a fraction of the time.
        let slot = (row as u32 % self.rows as u32) as usize;
        let line = (slot * self.batch + image) * self.columns;
        let position = line as isize + column;
        self.base.wrapping_add_signed(position * self.channels as isize)
    }
}

/// Places grids and other arrays in one block of floats.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Floats needed; it saturates near `usize::MAX`, which no allocator grants.
    pub len: usize,
    extent: Extent,
    storage: Storage,
    /// Floats of a line of memory, on which everything begins.
    line: usize,
    maps: Vec<Shape>,
    /// Floats of each array, of all images.
    arrays: Vec<usize>,
}

/// What the graph says of a map's grid.
#[derive(Clone, Copy, Debug)]
struct Shape {
    stride: usize,
    /// Rows that are still read: the newest and those above that taps reach.
    kept: usize,
    /// Columns of padding on the left and on the right.
    padding: [usize; 2],
}

impl Layout {
    /// An empty block for images of some extent.
    pub fn new(graph: &Graph, storage: Storage, extent: Extent, line: usize) -> Layout {
        let mut reached = HashMap::new();
        let shape = |(map, kept): (MapId, usize)| {
            let stride = graph.maps[map].stride;
            let padding = *reached.entry(stride).or_insert_with(|| graph.columns_reached(stride));
            Shape { stride, kept, padding }
        };
        let maps = graph.rows_kept().into_iter().enumerate().map(shape).collect();
        Layout { len: 0, extent, storage, line, maps, arrays: Vec::new() }
    }

    /// Keeps rows of a map longer than its readers need them.
    pub fn keep(&mut self, map: MapId, more: usize) {
        self.maps[map].kept += more;
    }

    /// Places a grid for a map, of `channels` floats a position.
    pub fn place(&mut self, map: MapId, channels: usize) -> Grid {
        let Extent { batch, height, width } = self.extent;
        let Shape { stride, kept, padding: [left, right] } = self.maps[map];
        let (rows, above) = match self.storage {
            Storage::Ring => (kept, kept),
            Storage::Full => (height / stride + kept - 1, kept - 1),
        };
        let columns = left + width / stride + right;
        let base = self.reserve(&[rows, batch, columns, channels]);
        Grid { base: base.saturating_add(left * channels), rows, above, batch, columns, channels }
    }

    /// Reserves an array of some dimensions, of which one is the batch, and returns where it begins, on a line of memory.
    pub fn reserve(&mut self, dimensions: &[usize]) -> usize {
        let base = self.len;
        let floats = dimensions.iter().fold(1, |len: usize, &n| len.saturating_mul(n));
        self.len = base.saturating_add(self.whole_lines(floats));
        self.arrays.push(floats);
        base
    }

    /// An array's floats, to the end of its last line.
    fn whole_lines(&self, floats: usize) -> usize {
        floats.checked_next_multiple_of(self.line).unwrap_or(usize::MAX)
    }

    /// The images that it is for.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Bytes of the same block for another number of images.
    pub fn bytes_for(&self, batch: usize) -> u64 {
        let floats = |array: &usize| self.whole_lines((array / self.extent.batch).saturating_mul(batch));
        let len = self.arrays.iter().map(floats).fold(0, usize::saturating_add);
        (len as u64).saturating_mul(size_of::<f32>() as u64)
    }
}
