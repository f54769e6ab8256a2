//! A warp: its registers, and which of its lanes are where.
//!
//! The idea: lanes that a branch parts become entries of a stack, of which the topmost runs until it
//! comes to where the others are to meet it. That is how hardware before Volta works, and the strictest
//! reading of what later hardware guarantees.

use super::watch::Watch;
use crate::isa::lanes::Lanes;
use crate::program::NOWHERE;

/// A cache line of registers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Line(pub [u32; 16]);

/// Lanes that are at one place.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Their next instruction.
    pub pc: u32,
    /// Which they are.
    pub mask: u32,
    /// Where they wait for others.
    pub meeting: u32,
    /// Its number among the warp's paths since it waited last at one of the block's barriers; 0 for all lanes together.
    pub serial: u32,
    /// The numbers of paths that ran before it with other lanes of those that parted with it.
    pub siblings: (u32, u32),
    /// Whether it has begun to run.
    pub begun: bool,
}

impl Path {
    /// All lanes, from the beginning.
    fn whole(mask: u32) -> Path {
        Path { pc: 0, mask, meeting: NOWHERE, serial: 0, siblings: (0, 0), begun: true }
    }
}

/// Where an instruction executes, for messages and for the order of accesses.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The warp's number in its block.
    pub warp: usize,
    /// The instruction.
    pub pc: u32,
    /// The lanes that execute it.
    pub mask: u32,
}

/// Where an instruction executes, and by which lane.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// The block.
    pub place: [u32; 3],
    /// Where in it.
    pub at: At,
    /// The lane.
    pub lane: u32,
}

/// A barrier at which a warp has looked for a phase in vain, and the instruction that did.
#[derive(Clone, Copy, Debug)]
pub struct Missed {
    /// The barrier's address.
    pub address: u64,
    /// The instruction.
    pub pc: u32,
}

/// Why a warp does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can.
    Ready,
    /// It waits at a barrier.
    Barrier(u32),
    /// It waits at the cluster's barrier.
    Cluster,
    /// All its threads have exited.
    Done,
}

/// An asynchronous copy under way: where to, and what.
#[derive(Clone, Copy, Debug)]
pub struct Landing {
    /// In shared memory.
    pub to: u64,
    /// In global memory: where, and how many bytes.
    pub from: (u64, u64),
    /// The bytes.
    pub data: [u8; 16],
    /// How many.
    pub bytes: u32,
    /// The lane that asked for it.
    pub lane: u32,
    /// The instruction that did.
    pub pc: u32,
}

/// Copies that were committed together.
#[derive(Debug)]
pub struct Group {
    /// By which lanes, of those that still wait for it.
    pub lanes: u32,
    /// What they are.
    pub landings: Vec<Landing>,
}

/// A warp.
#[derive(Debug)]
pub struct Warp {
    /// Its number in the block.
    pub number: u32,
    file: Vec<Line>,
    /// The local memory of its lanes, one after the other.
    pub local: Vec<crate::memory::Segment>,
    /// The paths; the last runs.
    pub stack: Vec<Path>,
    /// The number of the next path.
    next_serial: u32,
    /// Lanes that exist.
    pub existing: u32,
    /// Lanes that have not exited.
    pub live: u32,
    /// Whether it can run.
    pub state: State,
    /// Since it has arrived at the cluster's barrier and not waited: in which phase, and by which instruction.
    pub arrived: Option<(u64, u32)>,
    /// Which blocks of its cluster it knows to have begun, a bit for each.
    pub begun: u32,
    /// Lanes that have waited for the launch before.
    pub follows: u32,
    /// What it looked at that others may change.
    pub watch: Watch,
    /// The barrier in shared memory that it looked at last, if in vain.
    pub missed: Option<Missed>,
    /// Whether it looked in vain in the block's turn.
    pub looking: bool,
    /// Copies not yet committed.
    pub copies: Vec<Landing>,
    /// Committed copies, by group.
    pub groups: std::collections::VecDeque<Group>,
}

impl Warp {
    /// A warp of `threads` threads that is to begin.
    pub fn new(number: u32, threads: u32, words: u32, local: u32) -> Warp {
        let existing = u32::MAX >> (32 - threads);
        let segments = if local == 0 { 0 } else { threads };
        Warp {
            number,
            file: vec![Line([0; 16]); (words as usize).div_ceil(16)],
            local: (0..segments).map(|_| crate::memory::Segment::new(0, local.into())).collect(),
            stack: vec![Path::whole(existing)],
            next_serial: 1,
            existing,
            live: existing,
            state: State::Ready,
            arrived: None,
            begun: 0,
            follows: 0,
            watch: Watch::default(),
            missed: None,
            looking: false,
            copies: Vec::new(),
            groups: Default::default(),
        }
    }

    /// Makes it begin again, for another block of the same launch.
    pub fn restart(&mut self) {
        self.local.iter_mut().for_each(crate::memory::Segment::clear);
        self.stack.clear();
        self.stack.push(Path::whole(self.existing));
        self.next_serial = 1;
        self.live = self.existing;
        self.state = State::Ready;
        self.arrived = None;
        self.begun = 0;
        self.follows = 0;
        self.watch.clear();
        self.missed = None;
        self.looking = false;
        self.copies.clear();
        self.groups.clear();
    }

    /// Its registers, with the kernel's constants.
    pub fn lanes(&mut self, constants: &[u32], perturb: bool) -> Lanes {
        // Constants are never written: the decoder gives no instruction a constant as its result.
        let constants = constants.as_ptr().cast_mut();
        Lanes { files: [self.file.as_mut_ptr().cast(), constants], keep: 0, perturb }
    }

    /// Parts the running path at a branch: `groups` go on at their targets, and meet at `meeting`.
    pub fn part(&mut self, meeting: u32, groups: &[(u32, u32)]) {
        let path = self.stack.last_mut().expect("a warp that runs has a path");
        if path.meeting == meeting {
            // Who waits there already waits for all of them.
            self.stack.pop();
        } else {
            path.pc = meeting;
        }
        for &(pc, mask) in groups {
            if pc != meeting {
                let serial = self.next_serial;
                self.next_serial += 1;
                self.stack.push(Path { pc, mask, meeting, serial, siblings: (0, 0), begun: false });
            }
        }
    }

    /// The path that is to run now.
    #[inline(always)]
    pub fn path(&mut self) -> Option<Path> {
        let path = self.stack.last_mut()?;
        if !path.begun {
            // The last of those that parted runs first; what has run since then has higher numbers.
            path.begun = true;
            path.siblings = (path.serial + 1, self.next_serial);
        }
        Some(*path)
    }

    /// Whether a path with this number ran apart from the one that runs.
    pub fn apart(&self, serial: u32) -> bool {
        self.stack.iter().any(|path| path.siblings.0 <= serial && serial < path.siblings.1)
    }

    /// It has waited at one of the block's barriers: what paths did before no longer matters.
    pub fn met(&mut self) {
        self.next_serial = 1;
        for path in &mut self.stack {
            (path.serial, path.siblings) = (0, (0, 0));
        }
    }

    /// Ends lanes; the stack keeps only paths with lanes left.
    pub fn exit(&mut self, lanes: u32) {
        self.live &= !lanes;
        for path in &mut self.stack {
            path.mask &= !lanes;
        }
        self.stack.retain(|path| path.mask != 0);
        if self.stack.is_empty() {
            self.state = State::Done;
        }
    }
}
