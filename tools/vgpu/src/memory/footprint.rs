//! Which words a piece of work touches, and how.
//!
//! The idea: three bits for each word of four bytes, in groups of 64 words, of which only those are there that were
//! touched. Bytes count as their word.

use std::collections::HashMap;

/// Bytes of a word.
const WORD: u64 = 4;
/// Words of a group.
const GROUP: u64 = 64;

/// How a word is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Read.
    Read = 0,
    /// Written.
    Write = 1,
    /// By an atomic operation.
    Atomic = 2,
}

impl Touch {
    const ALL: [Touch; 3] = [Touch::Read, Touch::Write, Touch::Atomic];

    /// Whether two touches of a word must be ordered.
    fn clashes(self, other: Touch) -> bool {
        let harmless = matches!((self, other), (Touch::Read, Touch::Read) | (Touch::Atomic, Touch::Atomic));
        !harmless
    }
}

/// The words that a piece of work touches.
#[derive(Debug, Default)]
pub struct Footprint {
    /// For each group of words, by its number, those that are read, written, and changed by atomic operations.
    groups: HashMap<u64, [u64; 3]>,
}

impl Footprint {
    /// Adds runs of bytes, each an address and how many. Apart, so that whoever notes nothing stays short.
    #[inline(never)]
    pub fn add(&mut self, touch: Touch, runs: impl Iterator<Item = (u64, u64)>) {
        for (address, bytes) in runs.filter(|&(_, bytes)| bytes > 0) {
            let (mut word, end) = (address / WORD, (address + bytes).div_ceil(WORD));
            while word < end {
                let (group, first) = (word / GROUP, word % GROUP);
                let count = (GROUP - first).min(end - word);
                let mask = u64::MAX >> (GROUP - count) << first;
                self.groups.entry(group).or_default()[touch as usize] |= mask;
                word += count;
            }
        }
    }

    /// The first word that both touch though they must not, if nothing orders the two: its address, how this touches
    /// it, and how the other does.
    pub fn clash(&self, other: &Footprint) -> Option<(u64, Touch, Touch)> {
        if self.groups.len() > other.groups.len() {
            return other.clash(self).map(|(address, theirs, own)| (address, own, theirs));
        }
        let pairs = Touch::ALL.into_iter().flat_map(|own| Touch::ALL.map(|theirs| (own, theirs)));
        let pairs: Vec<_> = pairs.filter(|(own, theirs)| own.clashes(*theirs)).collect();
        let found = self.groups.iter().flat_map(|(number, own)| {
            let theirs = other.groups.get(number).copied().unwrap_or_default();
            pairs.iter().filter_map(move |&(a, b)| {
                let both = own[a as usize] & theirs[b as usize];
                let word = number * GROUP + u64::from(both.trailing_zeros());
                (both != 0).then_some((word * WORD, a, b))
            })
        });
        found.min_by_key(|&(address, own, theirs)| (address, own as u32, theirs as u32))
    }
}

/// What is noted of a piece of work.
#[derive(Debug, Default)]
pub struct Noted {
    /// What it touches.
    pub touched: Footprint,
    /// What those of its threads touch that have not waited for the launch before, if there is one to wait for.
    pub early: Option<Footprint>,
    /// Whether a thread has waited for the launch before.
    pub waited: bool,
    /// Whether a thread that had not let the next launch begin.
    pub hasty: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(touch: Touch, address: u64, bytes: u64) -> Footprint {
        let mut footprint = Footprint::default();
        footprint.add(touch, [(address, bytes)].into_iter());
        footprint
    }

    #[test]
    fn only_readers_and_atomic_operations_share() {
        use Touch::{Atomic, Read, Write};
        let at = |a, b| of(a, 0x1000, 4).clash(&of(b, 0x1000, 4));
        assert_eq!([at(Read, Read), at(Atomic, Atomic)], [None; 2]);
        for (a, b) in [(Read, Write), (Write, Read), (Write, Write), (Atomic, Write), (Read, Atomic)] {
            assert_eq!(at(a, b), Some((0x1000, a, b)));
        }
    }

    #[test]
    fn the_first_word_is_found_from_either_side() {
        // Across groups, from within a word to within another.
        let long = of(Touch::Write, 0x1002, 2000);
        for (address, bytes, found) in [
            (0x0ffc, 4, None),
            (0x1000, 1, Some(0x1000)),
            (0x10fc, 8, Some(0x10fc)),
            (0x17d1, 1, Some(0x17d0)),
            (0x17d4, 4, None),
            (0x1400, 0, None),
        ] {
            let short = of(Touch::Read, address, bytes);
            assert_eq!(short.clash(&long).map(|f| f.0), found, "{address:#x}");
            assert_eq!(long.clash(&short), found.map(|a| (a, Touch::Write, Touch::Read)), "{address:#x}");
        }
    }
}
