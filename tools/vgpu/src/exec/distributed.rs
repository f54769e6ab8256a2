//! What the blocks of a cluster do together: they meet, and reach each other's shared memory.
//!
//! The idea: whoever accesses another block's shared memory exchanges it for its own, does what it would do with that, and
//! exchanges it back.

use super::block::Block;
use super::cluster::{Cluster, ranked};
use super::control::place;
use super::machine::{Machine, Stop};
use super::warp::{At, State};
use crate::check::Cell;
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{Access, Area, Atomic, Map};
use crate::isa::lanes::{Lanes, WARP};
use crate::memory::window;

/// The half of a generic address that says where in its memory.
const LOW: u64 = 0xffff_ffff;

impl Machine<'_> {
    /// Runs something with a block of a cluster, its others at hand.
    pub fn with<R>(
        &mut self,
        cluster: &mut Cluster,
        rank: usize,
        body: impl FnOnce(&mut Self, &mut Block) -> R,
    ) -> R {
        std::mem::swap(&mut self.cluster, cluster);
        let mut block = self.cluster.blocks[rank].take().expect("no other block runs");
        let result = body(self, &mut block);
        self.cluster.blocks[rank] = Some(block);
        std::mem::swap(&mut self.cluster, cluster);
        result
    }

    /// Blocks of a cluster.
    pub fn members(&self) -> u32 {
        self.launch.cluster.unwrap_or([1; 3]).iter().product()
    }

    /// Sorts addresses of the cluster's shared memory by their blocks, and does something with those of each.
    pub fn by_rank(
        &mut self,
        block: &mut Block,
        at: At,
        addresses: &[u64; WARP],
        width: u64,
        mut body: impl FnMut(&mut Self, &mut Block, At, &[u64; WARP]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let ranks = addresses.map(|a| ranked(a).0.unwrap_or(block.rank));
        let within = addresses.map(|a| ranked(a).1);
        let mut rest = at.mask;
        while rest != 0 {
            let lane = rest.trailing_zeros();
            let rank = ranks[lane as usize];
            let same = (0..WARP).filter(|&lane| ranks[lane] == rank).fold(0, |m, lane| m | 1 << lane) & rest;
            let of = At { mask: same, ..at };
            rest &= !same;
            if rank == block.rank {
                body(self, block, of, &within)?;
                continue;
            }
            let mut other = self.other(block, of, rank, addresses, &within, width)?;
            block.exchange(&mut other);
            let done = body(self, block, of, &within);
            block.exchange(&mut other);
            self.cluster.blocks[rank] = Some(other);
            done?;
        }
        Ok(())
    }

    /// Another block of the cluster, whose shared memory holds what lanes ask for.
    pub fn other(
        &mut self,
        block: &mut Block,
        at: At,
        rank: usize,
        addresses: &[u64; WARP],
        within: &[u64; WARP],
        width: u64,
    ) -> Result<Box<Block>, Fault> {
        let first = at.mask.trailing_zeros();
        let address = Some(addresses[first as usize]);
        let Some(mut other) = self.cluster.blocks.get_mut(rank).and_then(Option::take) else {
            let what = format!("block {rank} of a cluster of {}", self.members());
            return Err(self.fault(FaultKind::OutOfBounds, block, at, first, address, &what));
        };
        let [x, y, z] = other.place;
        if !self.has_begun(block, at, &other) {
            let what = format!(
                "shared memory of block ({x},{y},{z}), and nothing tells that it has begun (barrier.cluster)"
            );
            return Err(self.fault(FaultKind::Race, block, at, first, address, &what));
        }
        if other.done() {
            let what = format!("shared memory of block ({x},{y},{z}), which has exited");
            return Err(self.fault(FaultKind::UseAfterFree, block, at, first, address, &what));
        }
        let len = other.shared.len();
        let beyond = |&lane: &u32| at.mask >> lane & 1 == 1 && within[lane as usize] + width > len;
        if let Some(lane) = (0..WARP as u32).find(beyond) {
            let what = format!(
                "{width} bytes out of bounds of the {len} bytes of shared memory of block ({x},{y},{z})"
            );
            let address = Some(addresses[lane as usize]);
            return Err(self.fault(FaultKind::OutOfBounds, block, at, lane, address, &what));
        }
        other.visited = true;
        Ok(other)
    }

    /// Whether a warp knows that another block of its cluster has begun.
    fn has_begun(&self, block: &mut Block, at: At, other: &Block) -> bool {
        let bit = 1 << other.rank;
        let warp = &mut block.warps[at.warp];
        if warp.begun & bit == 0 && self.order.begun(&block.order, at.warp, &other.order) {
            warp.begun |= bit;
        }
        !self.order.on || warp.begun & bit != 0
    }

    /// A block has exited: what others did in its shared memory must be known to be over.
    pub fn left_behind(&self, block: &Block, at: At) -> Result<(), Fault> {
        let start = Cell::begin(block.order.start);
        let known = |cell| self.order.known_to_any(&block.order, cell);
        let Some(conflict) = block.shadow.foreign(start, block.order.warps, known) else { return Ok(()) };
        let what = format!(
            "the block exits, and nothing orders that after {} in its shared memory",
            self.earlier(&block.order, conflict)
        );
        let lane = at.mask.trailing_zeros();
        Err(self.fault(FaultKind::Race, block, at, lane, Some(conflict.offset), &what))
    }

    /// A load or store in the shared memory of the cluster's blocks; apart, so that others stay short.
    #[inline(never)]
    pub fn distributed(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let width = u64::from(access.bytes * access.count);
        self.by_rank(block, at, addresses, width, |machine, block, at, within| {
            machine.access_in(block, lanes, access, at, Area::Shared, within)
        })
    }

    /// An atomic operation there.
    #[inline(never)]
    pub fn distributed_atomic(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        atomic: &Atomic,
        at: At,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        self.by_rank(block, at, addresses, atomic.bytes.into(), |machine, block, at, within| {
            machine.atomic_in(block, lanes, atomic, at, Area::Shared, within)
        })
    }

    /// `mapa` and `getctarank`
    pub fn map(&mut self, block: &Block, lanes: &Lanes, map: &Map, at: At) -> Result<(), Fault> {
        // SAFETY: the operands are registers of this kernel.
        let (addresses, ranks) = unsafe {
            let addresses = match map.long {
                true => lanes.longs(map.address),
                false => lanes.words(map.address).map(u64::from),
            };
            (addresses, map.rank.map(|slot| lanes.words(slot)))
        };
        let Some(ranks) = ranks else {
            let found = addresses.map(|a| ranked(a & LOW).0.unwrap_or(block.rank) as u32);
            // SAFETY: the result holds words of this kernel.
            unsafe { lanes.set_words(map.result, at.mask, &found) };
            return Ok(());
        };
        let members = self.members();
        for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
            if ranks[lane] >= members {
                let what = format!("block {} of a cluster of {members}", ranks[lane]);
                return Err(self.fault(FaultKind::OutOfBounds, block, at, lane as u32, None, &what));
            }
            let (address, rank) = (addresses[lane], u64::from(ranks[lane]) + 1);
            let mapped = (address & !LOW) + rank * window::RANK + ranked(address).1;
            // SAFETY: the result is a register of this kernel, a long if the addresses are.
            unsafe {
                let to = lanes.at(map.result);
                match map.long {
                    true => to.cast::<u64>().add(lane).write(mapped),
                    false => to.add(lane).write(mapped as u32),
                }
            }
        }
        Ok(())
    }

    /// `barrier.cluster.arrive`
    pub fn arrive(&mut self, block: &mut Block, at: At, release: bool) -> Result<(), Fault> {
        self.whole_warp(block, at)?;
        if let Some((phase, pc)) = block.warps[at.warp].arrived {
            let line = self.launch.kernel.code[pc as usize].line;
            let what = format!(
                "the warp arrives at the cluster's barrier a second time{}, and has not waited since PTX line {line}",
                if phase == self.cluster.phase { "" } else { ", which has opened" }
            );
            return Err(self.fault(
                FaultKind::DivergentBarrier,
                block,
                at,
                at.mask.trailing_zeros(),
                None,
                &what,
            ));
        }
        self.order.gather(&mut self.cluster.gathering, &mut block.order, at.warp, release);
        block.warps[at.warp].arrived = Some((self.cluster.phase, at.pc));
        self.gone(block);
        Ok(())
    }

    /// `barrier.cluster.wait`
    pub fn wait(&mut self, block: &mut Block, at: At) -> Result<Option<Stop>, Fault> {
        self.whole_warp(block, at)?;
        let Some((phase, _)) = block.warps[at.warp].arrived else {
            let what = "the warp waits at the cluster's barrier, but has not arrived";
            return Err(self.fault(
                FaultKind::DivergentBarrier,
                block,
                at,
                at.mask.trailing_zeros(),
                None,
                what,
            ));
        };
        if phase == self.cluster.phase {
            block.warps[at.warp].state = State::Cluster;
            return Ok(Some(Stop::Blocked));
        }
        block.warps[at.warp].arrived = None;
        self.order.scatter(&self.cluster.gathering, &mut block.order, at.warp);
        Ok(None)
    }

    /// A warp has arrived, or exited without having arrived: whoever is the last opens the barrier.
    pub fn gone(&mut self, block: &mut Block) {
        self.cluster.missing -= 1;
        if self.cluster.missing > 0 {
            return;
        }
        self.progress += 1;
        self.cluster.phase += 1;
        self.order.open(&mut self.cluster.gathering);
        let mut cluster = std::mem::take(&mut self.cluster);
        let mut live = 0;
        for block in cluster.blocks.iter_mut().flatten().map(|block| &mut **block).chain([&mut *block]) {
            for warp in 0..block.warps.len() {
                let state = block.warps[warp].state;
                live += usize::from(state != State::Done);
                if state == State::Cluster {
                    block.warps[warp].state = State::Ready;
                    block.warps[warp].arrived = None;
                    self.order.scatter(&cluster.gathering, &mut block.order, warp);
                }
            }
        }
        cluster.missing = live;
        self.cluster = cluster;
        // The exit of the last is no barrier.
        self.cluster_barriers += u64::from(live > 0);
    }

    /// The place of a block's cluster among the grid's, and the block's within it.
    pub fn cluster_place(&self, block: &Block) -> [[u32; 3]; 2] {
        [self.cluster.place, place(block.rank as u64, self.launch.cluster.unwrap_or([1; 3]))]
    }
}
