//! What barriers in shared memory (mbarriers) count and hand over, and stores on their way to one.
//!
//! The idea: the counts lie in the barrier's eight bytes, the phase in the last of them, where whoever waits for it rests
//! until it changes.

use std::rc::Rc;

use super::warp::{Missed, Spot};
use crate::check::{Agent, Gathering, Known};

/// Bytes of a barrier.
pub const BYTES: u64 = 8;
/// Counts of arrivals and of bytes are below it.
pub const LIMIT: i64 = 1 << 20;
/// Phases are counted modulo this.
pub const PHASES: u64 = 8;

/// What a barrier counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Its phases so far, modulo [`PHASES`].
    pub phase: u64,
    /// Arrivals of each phase.
    pub expected: i64,
    /// Arrivals that are still to come in this one.
    pub pending: i64,
    /// Bytes that are still to come: below 0 while more have come than are expected.
    pub bytes: i64,
}

impl Counts {
    /// From what lies in memory.
    fn read(bits: u64) -> Counts {
        let field = |at: u32, len: u32| (bits >> at & ((1 << len) - 1)) as i64;
        let (bytes, pending, expected) = (field(0, 21) - LIMIT, field(21, 20), field(41, 20));
        Counts { phase: bits >> 61, expected, pending, bytes }
    }

    /// As it lies in memory.
    fn bits(self) -> u64 {
        let Counts { phase, expected, pending, bytes } = self;
        phase << 61 | (expected as u64) << 41 | (pending as u64) << 21 | (bytes + LIMIT) as u64
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
    /// Whether somebody has seen that the phase before this one has completed.
    pub seen: bool,
    /// What its bytes hold.
    bits: u64,
    /// The instruction that made it.
    pc: u32,
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
    /// Of a barrier for so many arrivals.
    pub fn new(expected: i64, agent: Agent, pc: u32) -> Phases {
        let bits = Counts { phase: 0, expected, pending: expected, bytes: 0 }.bits();
        let (gathering, arrived) = (Gathering::default(), Default::default());
        Phases { gathering, arrived, agent, seen: true, bits, pc }
    }

    /// What it counts.
    pub fn counts(&self) -> Counts {
        Counts::read(self.bits)
    }

    /// Its bytes.
    pub fn bytes(&self) -> [u8; BYTES as usize] {
        self.bits.to_le_bytes()
    }

    /// Changes what it counts.
    pub fn set(&mut self, counts: Counts) {
        self.bits = counts.bits();
    }

    /// What waits there for what, for people.
    pub fn lacks(&self, line: impl Fn(u32) -> u32, missed: Missed) -> String {
        let Counts { phase, pending, bytes, .. } = self.counts();
        let bytes = match bytes {
            0.. => format!("{bytes} more bytes"),
            _ => format!("for somebody who expects {} bytes that have come", -bytes),
        };
        format!(
            "waits at PTX line {} at the mbarrier of PTX line {} (address {:#x}), whose phase {phase} waits for \
             {pending} more arrivals and {bytes}",
            line(missed.pc),
            line(self.pc),
            missed.address
        )
    }

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
        self.seen = false;
    }

    /// When lanes of a warp arrived in the phase that has completed last, if they all did.
    pub fn met(&self, warp: u32, lanes: u32) -> Option<u64> {
        self.arrived[1].iter().find(|a| a.warp == warp && a.lanes & lanes == lanes).map(|a| a.time)
    }
}
