//! Who touched a word last.
//!
//! The idea: a cell of 64 bits says when, by which warp, how and where in the program, the time in its
//! highest bits, so that everything before the launch is recognised by one comparison.

/// An access: time, warp, path, and how and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cell(pub u64);

impl Cell {
    /// Bits of the time.
    pub const TIME_BITS: u32 = 26;
    /// Bits of the warp's number in the grid.
    pub const WARP_BITS: u32 = 18;
    const WARP_SHIFT: u32 = 64 - Cell::TIME_BITS - Cell::WARP_BITS;
    const TIME_SHIFT: u32 = 64 - Cell::TIME_BITS;
    /// Paths of a warp that can be told apart between two barriers.
    pub const PATHS: u32 = 63;
    /// Memory instructions that can be told apart.
    pub const SITES: u32 = (1 << 12) - 1;
    const STRONG: u64 = 1 << 12;
    const NC: u64 = 1 << 13;

    /// An access.
    pub fn new(time: u64, warp: u32, path: u32, nc: bool, strong: bool, site: u32) -> Cell {
        let path = if path > Cell::PATHS { 0 } else { path };
        let how = if nc { Cell::NC } else { 0 } | if strong { Cell::STRONG } else { 0 };
        Cell(
            time << Cell::TIME_SHIFT
                | u64::from(warp) << Cell::WARP_SHIFT
                | u64::from(path) << 14
                | how
                | u64::from(site.min(Cell::SITES)),
        )
    }

    /// The earliest cell of a time.
    pub fn begin(time: u64) -> Cell {
        Cell(time << Cell::TIME_SHIFT)
    }

    /// When.
    #[inline(always)]
    pub fn time(self) -> u64 {
        self.0 >> Cell::TIME_SHIFT
    }

    /// By which warp.
    #[inline(always)]
    pub fn warp(self) -> u32 {
        (self.0 >> Cell::WARP_SHIFT) as u32 & ((1 << Cell::WARP_BITS) - 1)
    }

    /// When and by which warp.
    #[inline(always)]
    pub fn key(self) -> u64 {
        self.0 >> Cell::WARP_SHIFT
    }

    /// On which of the warp's paths; 0 if that is not known.
    pub fn path(self) -> u32 {
        (self.0 >> 14) as u32 & Cell::PATHS
    }

    /// Atomic, volatile or the like.
    #[inline(always)]
    pub fn strong(self) -> bool {
        self.0 & Cell::STRONG != 0
    }

    /// By `ld.global.nc`.
    #[inline(always)]
    pub fn nc(self) -> bool {
        self.0 & Cell::NC != 0
    }

    /// Which of the kernel's memory instructions.
    pub fn site(self) -> u32 {
        self.0 as u32 & Cell::SITES
    }
}

/// Who is about to access, and what he knows.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// The access.
    pub cell: Cell,
    /// Cells before this one are of no concern: from before the launch, or the block.
    pub start: Cell,
    /// Warps of his block.
    pub block: (u32, u32),
    /// The time of his block's last barrier.
    pub barrier: u64,
    /// Whether he is on one of several paths of his warp.
    pub parted: bool,
    /// The time at which the lanes of his warp met last, if that matters.
    pub met: u64,
}

impl Who {
    /// Whether an access is over, as far as warps of this block are concerned, and this one follows it.
    #[inline(always)]
    fn follows(&self, cell: Cell) -> bool {
        let warp = cell.warp();
        cell < self.start
            || warp == self.cell.warp()
            || (warp >= self.block.0 && warp < self.block.1 && cell.time() < self.barrier)
    }

    /// Whether there is nothing to ask about an access: it is over, whichever lane it was.
    #[inline(always)]
    fn settled(&self, cell: Cell) -> bool {
        let own = cell.warp() == self.cell.warp() && cell >= self.start;
        self.follows(cell) && !(own && (self.parted || cell.time() >= self.met))
    }

    /// Whether nothing orders an access before this one; two strong ones need no order.
    #[inline(always)]
    fn races(&self, cell: Cell, ordered: &mut impl FnMut(Cell) -> bool) -> bool {
        let both = cell.strong() && self.cell.strong();
        !both && !self.settled(cell) && !ordered(cell)
    }
}

/// Two accesses that are not ordered.
#[derive(Clone, Copy, Debug)]
pub struct Conflict {
    /// The first.
    pub earlier: Cell,
    /// Whether the first was a write.
    pub wrote: bool,
    /// The first byte of the word, from the segment's beginning.
    pub offset: u64,
    /// A write of what `ld.global.nc` reads, in whatever order.
    pub nc: bool,
}

/// What an access is, for counting distinct bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `ld.global.nc`
    NcLoad = 0,
    /// Another load.
    Load = 1,
    /// A store.
    Store = 2,
}

/// The cells of a segment's words, or bytes once it was accessed by less than words.
#[derive(Debug, Default)]
pub struct Shadow {
    /// log2 of the bytes of a grain.
    shift: u32,
    writers: Vec<Cell>,
    readers: Vec<[Cell; 2]>,
    /// The launch that touched the grain last, and how.
    marks: Vec<u32>,
}

impl Shadow {
    /// For a segment of `bytes` bytes.
    pub fn new(bytes: u64) -> Shadow {
        let grains = bytes.div_ceil(4) as usize;
        let readers = vec![[Cell::default(); 2]; grains];
        Shadow { shift: 2, writers: vec![Cell::default(); grains], readers, marks: Vec::new() }
    }

    /// One cell for each byte, from now on.
    #[cold]
    fn refine(&mut self) {
        fn spread<T: Copy>(cells: &mut Vec<T>) {
            *cells = cells.iter().flat_map(|&cell| [cell; 4]).collect();
        }
        spread(&mut self.writers);
        spread(&mut self.readers);
        spread(&mut self.marks);
        self.shift = 0;
    }

    #[inline(always)]
    fn grains(&mut self, offset: u64, bytes: u64) -> std::ops::Range<usize> {
        if self.shift == 2 && (offset | bytes) & 3 != 0 {
            self.refine();
        }
        (offset >> self.shift) as usize..((offset + bytes) >> self.shift) as usize
    }

    /// Notes a read of a range. `ordered` tells of two warps' accesses whether the first is known to the
    /// second.
    #[inline(always)]
    pub fn read(
        &mut self,
        offset: u64,
        bytes: u64,
        who: &Who,
        ordered: &mut impl FnMut(Cell) -> bool,
    ) -> Result<(), Conflict> {
        let range = self.grains(offset, bytes);
        let shift = self.shift;
        let me = who.cell;
        let cells = self.writers[range.clone()].iter().zip(&mut self.readers[range.clone()]);
        for (k, (&writer, readers)) in cells.enumerate() {
            if writer >= who.start {
                let conflict = Conflict {
                    earlier: writer,
                    wrote: true,
                    offset: ((range.start + k) as u64) << shift,
                    nc: me.nc(),
                };
                if me.nc() {
                    return Err(conflict);
                }
                if who.races(writer, ordered) {
                    return Err(conflict);
                }
            }
            if readers[0].key() == me.key() && !me.nc() {
                continue;
            }
            // Whoever follows the new read follows the old one too; what `.nc` read is kept.
            let first = !readers[0].nc() && who.follows(readers[0]) || readers[0] < who.start;
            readers[usize::from(!first)] = me;
        }
        Ok(())
    }

    /// Notes a write of a range.
    #[inline(always)]
    pub fn write(
        &mut self,
        offset: u64,
        bytes: u64,
        who: &Who,
        ordered: &mut impl FnMut(Cell) -> bool,
    ) -> Result<(), Conflict> {
        let range = self.grains(offset, bytes);
        let shift = self.shift;
        let me = who.cell;
        let cells = self.writers[range.clone()].iter_mut().zip(&mut self.readers[range.clone()]);
        for (k, (writer, readers)) in cells.enumerate() {
            for (cell, wrote) in [(*writer, true), (readers[0], false), (readers[1], false)] {
                if cell < who.start {
                    continue;
                }
                let conflict = |nc| {
                    let offset = ((range.start + k) as u64) << shift;
                    Err(Conflict { earlier: cell, wrote, offset, nc })
                };
                if cell.nc() {
                    return conflict(true);
                }
                if who.races(cell, ordered) {
                    return conflict(false);
                }
            }
            *writer = me;
            *readers = [Cell::default(); 2];
        }
        Ok(())
    }

    /// Marks a range as touched in a launch; the bytes that were not yet, in this way.
    pub fn touch(&mut self, offset: u64, bytes: u64, launch: u32, mark: Mark) -> u64 {
        let range = self.grains(offset, bytes);
        self.marks.resize(self.writers.len(), 0);
        let bit = 1 << mark as u32;
        let mut new = 0;
        for touched in &mut self.marks[range] {
            if *touched >> 3 != launch {
                *touched = launch << 3;
            }
            new += u64::from(*touched & bit == 0);
            *touched |= bit;
        }
        new << self.shift
    }
}
