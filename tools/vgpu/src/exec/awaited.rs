//! Where copies are to land, and what they read.
//!
//! The idea: a bit for each word that is to be written, since there are many copies and all accesses ask; of what is read
//! only the bounds.

use crate::check::WORD;

/// The words of a block's shared memory where copies are to land.
#[derive(Debug, Default)]
pub struct Awaited {
    count: u32,
    words: Vec<u64>,
    /// Between which addresses of global memory they read.
    reads: (u64, u64),
}

impl Awaited {
    fn range(address: u64, bytes: u64) -> std::ops::Range<usize> {
        (address / WORD) as usize..(address + bytes).div_ceil(WORD) as usize
    }

    /// Something is to land, of so many bytes from `source`.
    pub fn add(&mut self, address: u64, bytes: u64, source: (u64, u64)) {
        let end = source.0 + source.1;
        let (low, high) = if self.count == 0 { (source.0, end) } else { self.reads };
        self.reads = (low.min(source.0), high.max(end));
        self.count += 1;
        for word in Awaited::range(address, bytes) {
            if self.words.len() <= word / 64 {
                self.words.resize(word / 64 + 1, 0);
            }
            self.words[word / 64] |= 1 << (word % 64);
        }
    }

    /// It has landed.
    pub fn remove(&mut self, address: u64, bytes: u64) {
        self.count -= 1;
        Awaited::range(address, bytes).for_each(|word| self.words[word / 64] &= !(1 << (word % 64)));
    }

    /// Whether there are any.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.count > 0
    }

    /// Whether some may read in a range of global memory.
    #[inline(always)]
    pub fn may_read(&self, address: u64, bytes: u64) -> bool {
        self.count > 0 && address < self.reads.1 && address + bytes > self.reads.0
    }

    /// The first address of a range at which something is to land.
    pub fn first(&self, address: u64, bytes: u64) -> Option<u64> {
        let awaited =
            |word: &usize| self.words.get(word / 64).is_some_and(|bits| bits >> (word % 64) & 1 == 1);
        Awaited::range(address, bytes).find(awaited).map(|word| word as u64 * WORD)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Awaited::default();
    }
}
