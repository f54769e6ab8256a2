//! An access to a word, as it is remembered.
//!
//! The idea: a cell of 64 bits says when, by which warp, how and where in the program, the time in its
//! highest bits, so that everything before the launch is recognised by one comparison.

/// How a word is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Like any memory.
    Weak = 0,
    /// Atomic, volatile, acquire, release, or relaxed but for what hands over: flags and counters.
    Strong = 1,
    /// By `ld.global.nc`.
    Nc = 2,
    /// Relaxed, as `.f32`, beyond the block: a value that is its own flag.
    Handover = 3,
}

/// What a word holds that is to be handed over, and has not yet been.
pub const NOT_YET: u32 = u32::MAX;

/// An access: time, warp, path, and how and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cell(pub u64);

impl Cell {
    /// Bits of the time.
    pub const TIME_BITS: u32 = 26;
    /// The last time that there is.
    pub const LAST: u64 = (1 << Cell::TIME_BITS) - 1;
    /// Bits of the warp's number in the grid.
    pub const WARP_BITS: u32 = 18;
    pub(super) const WARP_SHIFT: u32 = 64 - Cell::TIME_BITS - Cell::WARP_BITS;
    const TIME_SHIFT: u32 = 64 - Cell::TIME_BITS;
    /// Paths of a warp that can be told apart between two barriers.
    pub const PATHS: u32 = 63;
    /// Memory instructions that can be told apart.
    pub const SITES: u32 = (1 << 11) - 1;
    const HOW_SHIFT: u32 = 11;
    pub(super) const STRONG: u64 = 1 << Cell::HOW_SHIFT;
    const HOW: u64 = 3 << Cell::HOW_SHIFT;
    pub(super) const OVER: u64 = 1 << (Cell::HOW_SHIFT + 2);

    /// An access.
    pub fn new(time: u64, warp: u32, path: u32, how: How, site: u32) -> Cell {
        let path = if path > Cell::PATHS { 0 } else { path };
        Cell(
            time << Cell::TIME_SHIFT
                | u64::from(warp) << Cell::WARP_SHIFT
                | u64::from(path) << 14
                | (how as u64) << Cell::HOW_SHIFT
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

    /// Atomic, volatile or the like, or handing over.
    #[inline(always)]
    pub fn strong(self) -> bool {
        self.0 & Cell::STRONG != 0
    }

    /// By `ld.global.nc`.
    #[inline(always)]
    pub fn nc(self) -> bool {
        self.0 & Cell::HOW == (How::Nc as u64) << Cell::HOW_SHIFT
    }

    /// Handing over.
    #[inline(always)]
    pub fn handover(self) -> bool {
        self.0 & Cell::HOW == (How::Handover as u64) << Cell::HOW_SHIFT
    }

    /// Whether it handed over a value where there was another before.
    pub(super) fn over(self) -> bool {
        self.0 & Cell::OVER != 0
    }

    /// Which of the kernel's memory instructions.
    pub fn site(self) -> u32 {
        self.0 as u32 & Cell::SITES
    }
}
