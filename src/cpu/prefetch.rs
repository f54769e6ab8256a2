//! What a tile prefetches for those after it.
//!
//! The idea: the kernels work as fast as data come, so each tile asks for the inputs and weights of what runs next, some
//! cache lines at a time, between its own inputs.

use std::ops::Range;

use super::kernels::{BURST, LANES, SEGMENTS};
use super::stage::{Context, Stage};
use super::team::share;

/// Stretches of cache lines to prefetch. A tile takes what its segments have room for.
#[derive(Default)]
pub struct Prefetch {
    stretches: [(usize, usize); SEGMENTS],
    count: usize,
}

impl Prefetch {
    /// Adds `lines` cache lines from an address on, which need not be valid.
    pub fn push(&mut self, from: *const f32, lines: usize) {
        if lines > 0 && self.count < SEGMENTS {
            self.stretches[self.count] = (from.addr(), lines);
            self.count += 1;
        }
    }

    /// Prefetches share `index` of `count` of the weights for some vectors of outputs.
    pub fn weights(
        &mut self,
        context: &Context,
        stage: &Stage,
        taps: &Range<usize>,
        vectors: &Range<usize>,
        (index, count): (usize, usize),
    ) {
        let packed = &stage.packed;
        let hoisted = stage.piece.hoisted;
        let phases = [(&packed.row, 0..hoisted), (&packed.pixel, hoisted..stage.piece.taps)];
        for (panels, all) in phases {
            let taps = taps.start.max(all.start)..taps.end.min(all.end);
            if taps.is_empty() {
                continue;
            }
            let mut push = |from: usize, lines: usize| {
                let lines = share(lines, index, count);
                let from = from + lines.start * LANES;
                self.push(context.packed.floats.as_slice()[from..].as_ptr(), lines.len());
            };
            let (first, panel_count) = (vectors.start * packed.halves, vectors.len() * packed.halves);
            if panel_count == 0 {
                continue;
            }
            let panel = |panel: usize| stage.taps[taps.start].weights + panel * panels.stride();
            if taps == all {
                push(panel(first), panel_count * panels.lines);
            } else {
                let last = &stage.taps[taps.end - 1];
                let end = last.weights + panels.precision.lines(last.in_channels) * LANES;
                let lines = (end - stage.taps[taps.start].weights) / LANES;
                (first..first + panel_count).for_each(|i| push(panel(i), lines));
            }
        }
    }
}

/// Distributes the stretches over the segments.
pub struct Queue<'a> {
    prefetch: &'a Prefetch,
    next: usize,
    taken: usize,
}

impl<'a> Queue<'a> {
    /// All stretches.
    pub fn new(prefetch: &'a Prefetch) -> Queue<'a> {
        Queue { prefetch, next: 0, taken: 0 }
    }

    /// The next lines to prefetch, in at most `bursts` bursts.
    pub fn take(&mut self, bursts: usize) -> (*const f32, usize) {
        if self.next == self.prefetch.count || bursts == 0 {
            return (std::ptr::null(), 0);
        }
        let (from, lines) = self.prefetch.stretches[self.next];
        let from = from + self.taken * size_of::<[f32; LANES]>();
        let bursts = (lines - self.taken).div_ceil(BURST).min(bursts);
        self.taken += bursts * BURST;
        if self.taken >= lines {
            (self.next, self.taken) = (self.next + 1, 0);
        }
        (std::ptr::without_provenance(from), bursts)
    }
}
