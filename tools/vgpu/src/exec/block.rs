//! A block that is resident: its warps, shared memory and barriers.
//!
//! The idea: a barrier that not every thread of the block can reach any more is reported at once, by
//! whoever makes that so, and never waited for.

use std::collections::BTreeMap;

use super::awaited::Awaited;
use super::phases::Phases;
use super::warp::{State, Warp};
use crate::check::{BlockOrder, Gathering, Shadow, Steps};
use crate::isa::instruction::BarrierKind;
use crate::isa::lanes::{Slot, WARP};
use crate::memory::Segment;

/// Barriers of a block.
pub const BARRIERS: usize = 16;

/// One of a block's barriers.
#[derive(Debug, Default)]
pub struct Meeting {
    /// Threads that have arrived, in whole warps.
    pub arrived: u32,
    /// Threads expected; set by the first.
    pub expected: u32,
    /// Whether that is all of the block.
    pub all: bool,
    /// What the first came for; the others must want the same.
    pub kind: Option<BarrierKind>,
    /// The instruction of the first.
    pub pc: u32,
    /// Threads whose predicate was true, and all that were asked.
    pub votes: (u32, u32),
    /// Where each waiting warp wants the result.
    pub results: Vec<(usize, Slot, u32)>,
    /// What warps know that have arrived and do not wait.
    pub gathering: Gathering,
}

impl Meeting {
    /// Whether enough threads are left to complete it. Where all are to meet, none may have exited.
    pub fn can_complete(&self, block: &Block) -> bool {
        let waiting = self.results.len();
        let left = block.warps.iter().filter(|warp| warp.state != State::Done).count();
        let possible = self.arrived + (left.saturating_sub(waiting) * WARP) as u32;
        possible >= self.expected && !(self.all && block.exited() > 0)
    }
}

/// A resident block.
#[derive(Debug)]
pub struct Block {
    /// Its number in the grid.
    pub index: u64,
    /// The same, by direction.
    pub place: [u32; 3],
    /// The multiprocessor it is on.
    pub multiprocessor: u32,
    /// Its number in its cluster.
    pub rank: usize,
    /// Whether another block was in its shared memory.
    pub visited: bool,
    /// Its warps.
    pub warps: Vec<Warp>,
    /// The number in the grid of the block whose shared memory it has: its own but for a moment.
    pub home: u64,
    /// Shared memory, static before dynamic.
    pub shared: Segment,
    /// Its barriers.
    pub meetings: [Meeting; BARRIERS],
    /// Where copies are to land in it.
    pub awaited: Awaited,
    /// The barriers in it, by address.
    pub mbarriers: BTreeMap<u64, Phases>,
    /// Who touched it.
    pub shadow: Shadow,
    /// Which lanes stored to it.
    pub steps: Steps,
    /// The order of its accesses.
    pub order: BlockOrder,
}

impl Block {
    /// Exchanges shared memory with another.
    pub fn exchange(&mut self, other: &mut Block) {
        std::mem::swap(&mut self.home, &mut other.home);
        std::mem::swap(&mut self.shared, &mut other.shared);
        std::mem::swap(&mut self.awaited, &mut other.awaited);
        std::mem::swap(&mut self.mbarriers, &mut other.mbarriers);
        std::mem::swap(&mut self.shadow, &mut other.shadow);
        std::mem::swap(&mut self.steps, &mut other.steps);
    }

    /// Whether it has another's shared memory.
    #[inline(always)]
    pub fn away(&self) -> bool {
        self.home != self.index
    }

    /// A warp's number in the cluster.
    #[inline(always)]
    pub fn in_cluster(&self, warp: usize) -> usize {
        self.rank * self.warps.len() + warp
    }

    /// Whether all threads have exited.
    pub fn done(&self) -> bool {
        self.warps.iter().all(|warp| warp.state == State::Done)
    }

    /// Whether a warp can run.
    pub fn ready(&self) -> bool {
        self.warps.iter().any(|warp| warp.state == State::Ready)
    }

    /// Threads that have exited.
    pub fn exited(&self) -> u32 {
        self.warps.iter().map(|warp| (warp.existing & !warp.live).count_ones()).sum()
    }
}
