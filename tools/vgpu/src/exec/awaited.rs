//! Where copies are to land.
//!
//! The idea: a bit for each word, since there are many copies and all accesses ask.

use crate::check::WORD;

/// The words of a block's shared memory where copies are to land.
#[derive(Debug, Default)]
pub struct Awaited {
    count: u32,
    words: Vec<u64>,
}

impl Awaited {
    fn range(address: u64, bytes: u64) -> std::ops::Range<usize> {
        (address / WORD) as usize..(address + bytes).div_ceil(WORD) as usize
    }

    /// Something is to land.
    pub fn add(&mut self, address: u64, bytes: u64) {
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
