//! What a kernel prefetches for those after it.
//!
//! The idea: the kernels work as fast as data come, so each one asks for the inputs and weights of what runs next, some
//! cache lines at a time, between its own inputs.

use super::{LANES, SEGMENTS};

/// Cache lines that a kernel asks for at a time.
pub const BURST: usize = 8;

/// Stretches of cache lines to prefetch. A tile's segments take what they have room for.
#[derive(Default)]
pub struct Prefetch {
    stretches: [(usize, usize); SEGMENTS],
    count: usize,
    next: usize,
    taken: usize,
}

impl Prefetch {
    /// Adds `lines` cache lines from an address on, which need not be valid.
    pub fn push(&mut self, from: usize, lines: usize) {
        if lines > 0 && self.count < SEGMENTS {
            self.stretches[self.count] = (from, lines);
            self.count += 1;
        }
    }

    /// The next lines to prefetch, in at most `bursts` bursts of [`BURST`]: an address, which need not be valid, and how
    /// many bursts.
    pub fn take(&mut self, bursts: usize) -> (*const f32, usize) {
        if self.next == self.count || bursts == 0 {
            return (std::ptr::null(), 0);
        }
        let (from, lines) = self.stretches[self.next];
        let from = from + self.taken * size_of::<[f32; LANES]>();
        let bursts = (lines - self.taken).div_ceil(BURST).min(bursts);
        self.taken += bursts * BURST;
        if self.taken >= lines {
            (self.next, self.taken) = (self.next + 1, 0);
        }
        (std::ptr::without_provenance(from), bursts)
    }
}
