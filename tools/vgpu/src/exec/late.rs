//! Words that are shown late.
//!
//! The idea: a store reaches others word by word, in whatever order, and nothing tells when but the words
//! themselves. Here a store is there at once; so, with a seed, some words are shown late to who looks first.
//! Who takes one word for the flag of another then sees "not yet" where it expects a value.

use super::random::Random;
use crate::check::{Cell, Shadow, Who};

/// One in so many words is late.
const LATE: u64 = 4;
/// One in so many tries comes to nothing.
const VAIN: u64 = 4;

/// Which words are not shown yet.
#[derive(Debug)]
pub struct Late {
    random: Option<Random>,
    /// The addresses of those of the load at hand.
    pub words: Vec<u64>,
}

impl Late {
    /// With a seed, or never.
    pub fn new(seed: Option<u64>) -> Late {
        Late { random: seed.map(Random::new), words: Vec::new() }
    }

    /// Whether a try comes to nothing that need not succeed.
    pub fn doubts(&mut self) -> bool {
        self.random.as_mut().is_some_and(|random| random.below(VAIN) == 0)
    }

    /// Chooses among the words of a load, at an offset of a segment. What somebody has seen is never late
    /// again, nor what the warp knows to have come before.
    pub fn choose(
        &mut self,
        shadow: &Shadow,
        (base, offset, bytes): (u64, u64, u64),
        who: &Who,
        ordered: &mut impl FnMut(Cell) -> bool,
    ) {
        let Some(random) = &mut self.random else { return };
        for (word, writer) in shadow.fresh(offset, bytes, who.start) {
            if random.below(LATE) == 0 && !who.follows(writer) && !ordered(writer) {
                self.words.push(base + word);
            }
        }
    }
}
