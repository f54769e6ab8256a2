//! What a warp looked at in vain, and whether it is worth another look.
//!
//! The idea: whoever runs through a loop twice, reads flags at the same places, and has changed nothing,
//! waits for one of them to change. Until their bytes differ from what it saw, it need not run. A loop
//! that ends for another reason is not told apart; so when nobody else can go on, it runs all the same.

use crate::memory::{Memory, Segment};

/// Runs of bytes that are remembered at most; a warp that looks at more in one loop does not rest.
const MOST: usize = 512;

/// Where bytes are that a warp looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The instruction that looked.
    pc: u32,
    /// The number of the allocation in global memory; none for the block's shared memory.
    allocation: Option<usize>,
    address: u64,
    bytes: u64,
}

/// Places, and what was there.
#[derive(Debug, Default)]
struct Seen {
    runs: Vec<Run>,
    bytes: Vec<u8>,
}

impl Seen {
    fn clear(&mut self) {
        self.runs.clear();
        self.bytes.clear();
    }

    /// Each run with what was there.
    fn each(&self) -> impl Iterator<Item = (&Run, &[u8])> {
        let mut rest = &self.bytes[..];
        self.runs.iter().map(move |run| {
            let (seen, after) = rest.split_at(run.bytes as usize);
            rest = after;
            (run, seen)
        })
    }
}

/// What a warp has looked at.
#[derive(Debug, Default)]
pub struct Watch {
    /// Since its loop began anew, and before.
    now: Seen,
    /// In the loop's round before.
    last: Seen,
    /// The first and the last of the instructions that looked in `now`.
    looks: Option<(u32, u32)>,
    /// Whether it changed memory meanwhile.
    changed: bool,
    /// Whether it rests until what it saw last changes.
    rests: bool,
    /// The machine's progress when nothing had changed yet.
    checked: u64,
}

impl Watch {
    /// Notes a look, by the instruction `pc`, at runs of bytes of an allocation, or of shared memory.
    #[inline(never)]
    pub fn look(
        &mut self,
        pc: u32,
        allocation: Option<usize>,
        segment: &Segment,
        runs: impl Iterator<Item = (u64, u64)>,
    ) {
        let (first, last) = self.looks.unwrap_or((pc, pc));
        self.looks = Some((first.min(pc), last.max(pc)));
        for (address, bytes) in runs {
            if self.now.runs.len() == MOST {
                self.now.clear();
                self.changed = true;
            }
            self.now.runs.push(Run { pc, allocation, address, bytes });
            self.now.bytes.extend_from_slice(segment.bytes(address, bytes));
        }
    }

    /// Notes that the warp changed memory.
    #[inline(always)]
    pub fn change(&mut self) {
        self.changed = true;
    }

    /// The warp jumps back from `pc` to `target`: whether it has looked in this loop. It rests if that was
    /// in vain.
    #[inline(always)]
    pub fn again(&mut self, target: u32, pc: u32) -> bool {
        self.looks.is_some_and(|(first, last)| first <= pc && target <= last) && self.round(target, pc)
    }

    fn round(&mut self, target: u32, pc: u32) -> bool {
        let inside = |of: u32| target <= of && of <= pc;
        if !self.looks.is_some_and(|(first, last)| inside(first) && inside(last)) {
            // What it looked at before the loop is of no concern.
            let mut round = Seen::default();
            for (run, seen) in self.now.each().filter(|(run, _)| inside(run.pc)) {
                round.runs.push(*run);
                round.bytes.extend_from_slice(seen);
            }
            if round.runs.is_empty() {
                return false;
            }
            self.now = round;
        }
        self.rests = !self.changed && self.now.runs == self.last.runs;
        self.checked = u64::MAX;
        std::mem::swap(&mut self.now, &mut self.last);
        self.now.clear();
        (self.looks, self.changed) = (None, false);
        true
    }

    /// Whether it need not run, at this count of what others can see.
    pub fn rests(&mut self, progress: u64, memory: &Memory, shared: &Segment) -> bool {
        if !self.rests || self.checked == progress {
            return self.rests;
        }
        self.rests = self.last.each().all(|(run, seen)| {
            let now = match run.allocation {
                Some(number) => memory.segment(number).map(|s| s.bytes(run.address, run.bytes)),
                None => Some(shared.bytes(run.address, run.bytes)),
            };
            now == Some(seen)
        });
        self.checked = progress;
        self.rests
    }

    /// It may run again.
    pub fn wake(&mut self) {
        self.rests = false;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Watch::default();
    }
}
