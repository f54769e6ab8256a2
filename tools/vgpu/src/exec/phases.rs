//! What barriers in shared memory (mbarriers) count and hand over, and stores on their way to one.
//!
//! The idea: the counts lie in the barrier's eight bytes, where whoever waits for a phase rests until they change.

use std::rc::Rc;

use super::warp::Spot;
use crate::check::{Agent, Gathering, Known};
use crate::memory::Segment;

/// Bytes of a barrier.
pub const BYTES: u64 = 8;
/// Counts of arrivals and of bytes are below it.
pub const LIMIT: i64 = 1 << 20;

/// What a barrier counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Its phases so far, modulo 8.
    pub phase: u64,
    /// Arrivals of each phase.
    pub expected: i64,
    /// Arrivals that are still to come in this one.
    pub pending: i64,
    /// Bytes that are still to come.
    pub bytes: i64,
}

impl Counts {
    /// From memory.
    pub fn read(shared: &Segment, address: u64) -> Counts {
        let bits = shared.bytes(address, BYTES).try_into().map_or(0, u64::from_le_bytes);
        let field = |at: u32, len: u32| (bits >> at & ((1 << len) - 1)) as i64;
        let (bytes, pending, expected) = (field(0, 21) - LIMIT, field(21, 20), field(41, 20));
        Counts { phase: bits >> 61, expected, pending, bytes }
    }

    /// To memory.
    pub fn write(self, shared: &mut Segment, address: u64) {
        let Counts { phase, expected, pending, bytes } = self;
        let bits = phase << 61 | (expected as u64) << 41 | (pending as u64) << 21 | (bytes + LIMIT) as u64;
        shared.bytes_mut(address, BYTES).copy_from_slice(&bits.to_le_bytes());
    }
}

/// Lanes of a warp that have arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// The warp's number in the grid.
    pub warp: u32,
    /// The lanes.
    pub lanes: u32,
    /// When the first of them had.
    pub time: u64,
}

/// What goes with a barrier.
#[derive(Debug)]
pub struct Phases {
    /// What its phases hand over.
    pub gathering: Gathering,
    /// Who has arrived in this phase, and who had in the one before.
    pub arrived: [Vec<Arrived>; 2],
    /// In whose name stores complete at it.
    pub agent: Agent,
}

/// A store under way.
#[derive(Debug)]
pub struct Flight {
    /// To which block of the cluster.
    pub rank: usize,
    /// Where.
    pub to: u64,
    /// What.
    pub data: [u8; 16],
    /// How much of it.
    pub bytes: u64,
    /// At which barrier it completes.
    pub barrier: u64,
    /// What who asked for it knew then.
    pub known: Rc<Known>,
    /// The number of its instruction among those of memory.
    pub site: u32,
    /// Who asked for it.
    pub from: Spot,
}

impl Phases {
    /// A lane arrives.
    pub fn arrive(&mut self, warp: u32, lane: usize, time: u64) {
        match self.arrived[0].iter_mut().find(|a| a.warp == warp) {
            Some(arrived) => arrived.lanes |= 1 << lane,
            None => self.arrived[0].push(Arrived { warp, lanes: 1 << lane, time }),
        }
    }

    /// The phase has completed.
    pub fn turn(&mut self) {
        self.arrived.swap(0, 1);
        self.arrived[0].clear();
        self.agent.step();
    }

    /// When lanes of a warp arrived in the phase that has completed last, if they all did.
    pub fn met(&self, warp: u32, lanes: u32) -> Option<u64> {
        self.arrived[1].iter().find(|a| a.warp == warp && a.lanes & lanes == lanes).map(|a| a.time)
    }
}
