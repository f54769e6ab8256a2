//! Control, barriers and special registers: what concerns a warp or a block as a whole.
//!
//! The idea: instructions that demand company check that it is there. A barrier in a branch that only a
//! part of the threads takes, or that others can no longer reach, is a fault at once.

use super::block::{BARRIERS, Block};
use super::machine::{Machine, Stop};
use super::warp::{At, Spot, State};
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{Barrier, BarrierKind, Kind, Special};
use crate::isa::lanes::{Lanes, Slot, WARP};

impl Machine<'_> {
    /// Executes what is neither lane-wise nor a load, store or branch. The warp's path is already at the
    /// next instruction.
    pub fn rare(
        &mut self,
        block: &mut Block,
        lanes: &mut Lanes,
        kind: &Kind,
        at: At,
        active: u32,
    ) -> Result<Option<Stop>, Fault> {
        let mask = at.mask;
        match kind {
            Kind::Exit if mask != 0 => return self.exit(block, at),
            Kind::Trap(why) if mask != 0 => {
                return Err(self.fault(FaultKind::Trap, block, at, mask.trailing_zeros(), None, why));
            }
            Kind::Sleep if mask != 0 => return Ok(Some(Stop::Looking)),
            Kind::BranchTable(index, targets) if mask != 0 => {
                self.branch_table(block, lanes, (*index, targets), at, active)?;
            }
            Kind::Barrier(barrier) if mask != 0 => return self.barrier(block, lanes, barrier, at),
            Kind::ClusterArrive(release) if mask != 0 => self.arrive(block, at, *release)?,
            Kind::ClusterWait if mask != 0 => return self.wait(block, at),
            Kind::LaunchWait if mask != 0 => self.wait_for_launch(block, at),
            Kind::LaunchDependents if mask != 0 => self.launch_dependents(block, at),
            Kind::Mbarrier(op) if mask != 0 => self.mbarrier(block, lanes, op, at)?,
            Kind::StoreAsync(op) if mask != 0 => self.store_async(block, lanes, op, at)?,
            Kind::Map(map) if mask != 0 => self.map(block, lanes, map, at)?,
            Kind::WarpSync(members) if mask != 0 => {
                self.named(block, lanes, *members, at)?;
                self.order.lanes_met(&mut block.order, at.warp);
            }
            Kind::Special(result, what) if mask != 0 => self.special(block, lanes, *result, *what, at),
            Kind::Atomic(atomic) if mask != 0 => {
                self.atomic(block, lanes, atomic, at)?;
            }
            Kind::Fence(scope) if mask != 0 => self.order.fence(&mut block.order, at.warp, *scope),
            Kind::Shuffle(shuffle) if mask != 0 => self.shuffle(block, lanes, shuffle, at)?,
            Kind::Exchange(exchange) if mask != 0 => self.exchange(block, lanes, exchange, at)?,
            Kind::Copy(copy) if mask != 0 => self.copy(block, lanes, copy, at)?,
            Kind::CopyCommit if mask != 0 => block.warps[at.warp].commit(mask),
            Kind::CopyWait(left) if mask != 0 => self.land(block, at, *left)?,
            _ => {}
        }
        Ok(None)
    }

    fn exit(&mut self, block: &mut Block, at: At) -> Result<Option<Stop>, Fault> {
        self.progress += 1;
        block.warps[at.warp].exit(at.mask);
        if let Some(meeting) = block.meetings.iter().position(|m| m.arrived > 0 && !m.can_complete(block)) {
            return Err(self.never_met(block, at, block.meetings[meeting].pc));
        }
        if block.warps[at.warp].state != State::Done {
            return Ok(None);
        }
        // Who has exited counts as arrived.
        if block.warps[at.warp].arrived.is_none_or(|(phase, _)| phase != self.cluster.phase) {
            self.gone(block);
        }
        if block.visited && block.done() {
            self.left_behind(block, at)?;
        }
        Ok(Some(Stop::Blocked))
    }

    /// Threads of a block, in whole warps.
    fn all(&self, block: &Block) -> u32 {
        (block.warps.len() * WARP) as u32
    }

    fn never_met(&self, block: &Block, at: At, pc: u32) -> Fault {
        let line = self.launch.kernel.code[pc as usize].line;
        let exited = block.exited();
        let what = format!(
            "threads wait at the barrier of PTX line {line} for others, but {exited} threads of the block have exited"
        );
        self.fault(FaultKind::DivergentBarrier, block, at, at.mask.trailing_zeros(), None, &what)
    }

    fn branch_table(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        (index, targets): (Slot, &[u32]),
        at: At,
        active: u32,
    ) -> Result<(), Fault> {
        // SAFETY: the index is a register of this kernel.
        let indices = unsafe { lanes.words(index) };
        let mut groups: Vec<(u32, u32)> = Vec::new();
        let mut add = |pc: u32, lane: u32| match groups.iter_mut().find(|g| g.0 == pc) {
            Some(group) => group.1 |= 1 << lane,
            None => groups.push((pc, 1 << lane)),
        };
        for lane in (0..WARP as u32).filter(|lane| active >> lane & 1 == 1) {
            if at.mask >> lane & 1 == 0 {
                add(at.pc + 1, lane);
                continue;
            }
            let Some(&target) = targets.get(indices[lane as usize] as usize) else {
                let what = format!("index {} beyond a table of {}", indices[lane as usize], targets.len());
                return Err(self.fault(FaultKind::OutOfBounds, block, at, lane, None, &what));
            };
            add(target, lane);
        }
        let warp = &mut block.warps[at.warp];
        if let [(pc, _)] = groups[..] {
            warp.stack.last_mut().expect("the path that runs").pc = pc;
        } else {
            warp.part(self.launch.kernel.meetings[at.pc as usize], &groups);
        }
        Ok(())
    }

    /// Checks that exactly the lanes that a `.sync` operation names execute it.
    pub fn named(&self, block: &Block, lanes: &Lanes, members: Slot, at: At) -> Result<(), Fault> {
        // SAFETY: the mask is a register of this kernel.
        let masks = unsafe { lanes.words(members) };
        let existing = block.warps[at.warp].existing;
        for lane in (0..WARP as u32).filter(|lane| at.mask >> lane & 1 == 1) {
            // Lanes that the block does not have do not count.
            let named = masks[lane as usize] & existing;
            if named != at.mask {
                let what =
                    format!("the lanes {named:#010x} are to meet here, but {:#010x} have come", at.mask);
                return Err(self.fault(FaultKind::DivergentBarrier, block, at, lane, None, &what));
            }
        }
        Ok(())
    }

    /// Checks that all lanes of the warp come to a barrier.
    pub fn whole_warp(&self, block: &Block, at: At) -> Result<(), Fault> {
        let live = block.warps[at.warp].live;
        if at.mask == live {
            return Ok(());
        }
        let what = format!("a barrier that only {:#010x} of the warp's lanes {live:#010x} reach", at.mask);
        Err(self.fault(FaultKind::DivergentBarrier, block, at, at.mask.trailing_zeros(), None, &what))
    }

    fn barrier(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        barrier: &Barrier,
        at: At,
    ) -> Result<Option<Stop>, Fault> {
        let lane = at.mask.trailing_zeros();
        self.whole_warp(block, at)?;
        // SAFETY: the operands are registers of this kernel.
        let (id, threads, votes) = unsafe {
            let id = lanes.words(barrier.id)[lane as usize];
            let threads = barrier.threads.map(|slot| lanes.words(slot)[lane as usize]);
            (id, threads, lanes.mask(barrier.predicate) & at.mask)
        };
        if id as usize >= BARRIERS {
            let what = format!("barrier {id}; there are {BARRIERS}");
            return Err(self.fault(FaultKind::DivergentBarrier, block, at, lane, None, &what));
        }
        let all = self.all(block);
        let expected = threads.unwrap_or(all).next_multiple_of(WARP as u32);
        if threads.is_none() && block.exited() > 0 {
            return Err(self.never_met(block, at, at.pc));
        }
        let waits = barrier.kind != BarrierKind::Arrive;
        let meeting = &mut block.meetings[id as usize];
        let same_kind = |a: BarrierKind, b: BarrierKind| {
            let plain = |k| matches!(k, BarrierKind::Sync | BarrierKind::Arrive);
            a == b || plain(a) && plain(b)
        };
        if meeting.arrived == 0 {
            meeting.expected = expected;
            meeting.all = threads.is_none();
            meeting.kind = Some(barrier.kind);
            meeting.pc = at.pc;
        } else if meeting.expected != expected || !meeting.kind.is_some_and(|k| same_kind(k, barrier.kind)) {
            let line = self.launch.kernel.code[meeting.pc as usize].line;
            let what = format!(
                "barrier {id} for {expected} threads, while others wait at PTX line {line} for {} or another result",
                meeting.expected
            );
            return Err(self.fault(FaultKind::DivergentBarrier, block, at, lane, None, &what));
        }
        meeting.arrived += WARP as u32;
        meeting.votes.0 += votes.count_ones();
        meeting.votes.1 += at.mask.count_ones();
        if waits {
            meeting.results.push((at.warp, barrier.result, at.pc));
            block.warps[at.warp].state = State::Barrier(id);
        } else {
            self.order.gather(&mut meeting.gathering, &mut block.order, at.warp, true);
        }
        if block.meetings[id as usize].arrived < block.meetings[id as usize].expected {
            return Ok(waits.then_some(Stop::Blocked));
        }
        self.open(block, id as usize);
        Ok(None)
    }

    /// Lets everyone who waits at a barrier go on.
    fn open(&mut self, block: &mut Block, id: usize) {
        let mut meeting = std::mem::take(&mut block.meetings[id]);
        self.progress += 1;
        self.barriers += 1;
        let (yes, asked) = meeting.votes;
        for &(warp, result, _) in &meeting.results {
            let warp = &mut block.warps[warp];
            warp.state = State::Ready;
            warp.met();
            let mut lanes = warp.lanes(&self.launch.kernel.constants, false);
            lanes.keep = u32::MAX;
            // SAFETY: the result is a register of this kernel, of the kind's width.
            unsafe {
                match meeting.kind {
                    Some(BarrierKind::Count) => lanes.set_words(result, u32::MAX, &[yes; WARP]),
                    Some(BarrierKind::And) => lanes.set_mask(result, if yes == asked { u32::MAX } else { 0 }),
                    Some(BarrierKind::Or) => lanes.set_mask(result, if yes > 0 { u32::MAX } else { 0 }),
                    _ => {}
                }
            }
        }
        if meeting.results.len() == block.warps.len() {
            self.order.barrier(&mut block.order);
        } else {
            let waiting = meeting.results.iter().map(|&(warp, ..)| warp);
            self.order.meet(&mut meeting.gathering, &mut block.order, waiting);
        }
    }

    fn special(&mut self, block: &Block, lanes: &Lanes, result: Slot, what: Special, at: At) {
        let launch = self.launch;
        let all = |value: u32| [value; WARP];
        let values = match what {
            Special::Thread(k) => std::array::from_fn(|lane| {
                place((at.warp * WARP + lane) as u64, launch.block)[usize::from(k)]
            }),
            Special::Threads(k) => all(launch.block[usize::from(k)]),
            Special::Block(k) => all(block.place[usize::from(k)]),
            Special::Blocks(k) => all(launch.grid[usize::from(k)]),
            Special::Cluster(k) => all(self.cluster.place[usize::from(k)]),
            Special::Clusters(k) => {
                let k = usize::from(k);
                all(launch.grid[k] / launch.cluster.unwrap_or([1; 3])[k])
            }
            Special::Member(k) => all(self.cluster_place(block)[1][usize::from(k)]),
            Special::Members(k) => all(launch.cluster.unwrap_or([1; 3])[usize::from(k)]),
            Special::MemberRank => all(block.rank as u32),
            Special::MemberCount => all(self.members()),
            Special::Clustered => {
                // SAFETY: the result is a predicate of this kernel.
                unsafe { lanes.set_mask(result, if launch.cluster.is_some() { u32::MAX } else { 0 }) };
                return;
            }
            Special::Lane => std::array::from_fn(|lane| lane as u32),
            Special::Warp => all(at.warp as u32),
            Special::Warps => all(block.warps.len() as u32),
            Special::Multiprocessor => all(block.multiprocessor),
            Special::Multiprocessors => all(self.limits.multiprocessors),
            Special::Value(value) => all(value),
            Special::LaneMask(k) => std::array::from_fn(|lane| {
                let (own, below) = (1_u32 << lane, (1_u32 << lane) - 1);
                [own, own | below, below, !below, !(own | below)][usize::from(k)]
            }),
            Special::Clock => all(self.clock as u32),
            Special::Clock64 => {
                for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
                    // SAFETY: the result is a long of this kernel.
                    unsafe { lanes.at(result).cast::<u64>().add(lane).write(self.clock) };
                }
                return;
            }
            Special::DynamicShared => all(launch.dynamic_shared),
            Special::TotalShared => all(block.shared.len() as u32),
            Special::Workspace(high) => all((self.workspace >> if high { 32 } else { 0 }) as u32),
        };
        // SAFETY: the result holds words of this kernel.
        unsafe { lanes.set_words(result, at.mask, &values) };
    }

    /// A fault with its place.
    #[cold]
    pub fn fault(
        &self,
        kind: FaultKind,
        block: &Block,
        at: At,
        lane: u32,
        address: Option<u64>,
        what: &str,
    ) -> Fault {
        self.fault_of(kind, &Spot { place: block.place, at, lane }, address, what)
    }

    /// The same, of an instruction that may have been executed some time ago.
    #[cold]
    pub fn fault_of(&self, kind: FaultKind, spot: &Spot, address: Option<u64>, what: &str) -> Fault {
        let &Spot { place: [x, y, z], at, lane } = spot;
        let kernel = self.launch.kernel;
        let instruction = &kernel.code[at.pc as usize];
        let thread = place((at.warp * WARP) as u64 + u64::from(lane), self.launch.block);
        let address = address.map_or(String::new(), |a| format!(" (address {a:#x})"));
        let source = match instruction.source {
            0 => String::new(),
            line => format!(", source line {line}"),
        };
        let [tx, ty, tz] = thread;
        Fault::new(
            kind,
            format!(
                "kernel {}, PTX line {}{source}, block ({x},{y},{z}), warp {}, lane {lane}, \
                 thread ({tx},{ty},{tz}): {what}{address}",
                kernel.name, instruction.line, at.warp
            ),
        )
    }

    #[cold]
    pub fn over_budget(&self, block: &Block, warp: usize, pc: u32) -> Fault {
        let what = format!(
            "the launch's budget of {} warp instructions is used up: a loop without an end? (VGPU_BUDGET sets it)",
            self.budget
        );
        let mask = block.warps[warp].live;
        self.fault(FaultKind::Budget, block, At { warp, pc, mask }, mask.trailing_zeros(), None, &what)
    }
}

/// A number's place in a box, x first.
pub fn place(number: u64, size: [u32; 3]) -> [u32; 3] {
    let [x, y, _] = size.map(u64::from);
    [(number % x) as u32, (number / x % y) as u32, (number / (x * y)) as u32]
}
