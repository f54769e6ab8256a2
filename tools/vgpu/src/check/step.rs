//! Lanes of one warp that hand over shared memory.
//!
//! The idea: here the lanes of a warp run in step; a device since Volta promises that only where they meet,
//! at `bar.warp.sync` or at a barrier. So each word remembers which lane stored it last, and another lane
//! of the warp must have met it since. What a lane overwrites that another has only read is not noticed.

use super::cell::Cell;

/// A lane's store to a word.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    time: u32,
    /// One more than the warp's number in the block; 0 where nothing was stored.
    warp: u16,
    /// Which of the kernel's memory instructions.
    pub site: u16,
    /// The lane.
    pub lane: u8,
}

/// The last stores to the words of a block's shared memory.
#[derive(Debug)]
pub struct Steps {
    words: Vec<Stored>,
}

/// Bytes of a word; what is smaller is not followed.
pub const WORD: u64 = 4;

impl Steps {
    /// For `bytes` bytes.
    pub fn new(bytes: u64) -> Steps {
        Steps { words: vec![Stored::default(); bytes.div_ceil(WORD) as usize] }
    }

    fn range(address: u64, bytes: u64) -> std::ops::Range<usize> {
        (address / WORD) as usize..((address + bytes) / WORD) as usize
    }

    /// Notes a store.
    pub fn store(&mut self, address: u64, bytes: u64, time: u64, warp: usize, site: u32, lane: u32) {
        let stored = Stored {
            time: time as u32,
            warp: warp as u16 + 1,
            site: site.min(Cell::SITES) as u16,
            lane: lane as u8,
        };
        self.words[Steps::range(address, bytes)].fill(stored);
    }

    /// What another lane of the warp has stored there since they met, and at which address.
    pub fn other(&self, address: u64, bytes: u64, met: u64, warp: usize, lane: u32) -> Option<(u64, Stored)> {
        let range = Steps::range(address, bytes);
        let other =
            |s: &Stored| s.warp == warp as u16 + 1 && u64::from(s.time) >= met && u32::from(s.lane) != lane;
        let found = self.words[range.clone()].iter().position(other)?;
        Some(((range.start + found) as u64 * WORD, self.words[range.start + found]))
    }
}
