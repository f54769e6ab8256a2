//! Stores to a cluster's blocks that arrive later, and complete at a barrier there (`st.async`).
//!
//! The idea: a store under way is somebody of its own, who knows what its thread knew: nobody knows of it before its
//! barrier's phase has completed. With a seed it takes a while, and others overtake it.

use std::rc::Rc;

use super::access::addresses;
use super::block::Block;
use super::cluster::{Cluster, ranked};
use super::control::Site;
use super::machine::Machine;
use super::mbarrier::BYTES;
use super::random::Random;
use super::warp::At;
use crate::check::{Cell, How};
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::StoreAsync;
use crate::isa::lanes::{Lanes, WARP};

/// Bytes of a store at most.
const MOST: usize = 16;

/// A store under way.
#[derive(Debug)]
pub struct Flight {
    /// To which block of the cluster.
    rank: usize,
    to: u64,
    data: [u8; MOST],
    bytes: u64,
    barrier: u64,
    /// What its thread knew.
    known: Rc<Vec<u32>>,
    site: u32,
    /// Who asked for it.
    from: Site,
}

impl Machine<'_> {
    /// `st.async`
    pub fn store_async(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        op: &StoreAsync,
        at: At,
    ) -> Result<(), Fault> {
        // SAFETY: the operands are registers of this kernel.
        let (to, barriers) = unsafe { (addresses(lanes, &op.to), addresses(lanes, &op.barrier)) };
        let bytes = u64::from(op.bytes * op.count);
        let mut site = self.take_site(op.site);
        site.totals.add_async(bytes * u64::from(at.mask.count_ones()));
        self.put_site(op.site, site);
        block.warps[at.warp].watch.change();
        self.progress += 1;
        if self.members() == 1 {
            let lane = at.mask.trailing_zeros();
            let what = "st.async where a cluster is one block";
            return Err(self.fault(FaultKind::Mbarrier, block, at, lane, Some(to[lane as usize]), what));
        }
        let within = to.map(|a| ranked(a).1);
        // SAFETY: the registers are of this kernel, longs if the elements are.
        let values: [[u64; WARP]; 4] =
            std::array::from_fn(|k| unsafe { lanes.values(op.registers[k], op.bytes == 8) });
        let known = self.order.tell(&mut block.order, at.warp);
        for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
            let (rank, address) = (ranked(to[lane]).0.unwrap_or(block.rank), within[lane]);
            let from = Site { place: block.place, at, lane: lane as u32 };
            if ranked(barriers[lane]).0.unwrap_or(block.rank) != rank {
                let what = "st.async to one block with the mbarrier of another";
                return Err(self.fault_of(FaultKind::Mbarrier, &from, Some(barriers[lane]), what));
            }
            let mut data = [0; MOST];
            for (to, value) in data.chunks_exact_mut(op.bytes as usize).zip(&values[..op.count as usize]) {
                to.copy_from_slice(&value[lane].to_le_bytes()[..op.bytes as usize]);
            }
            let (barrier, known, site) = (ranked(barriers[lane]).1, known.clone(), op.site);
            let flight = Flight { rank, to: address, data, bytes, barrier, known, site, from };
            let late = self.schedule.seed.is_some();
            if rank != block.rank {
                let mut other = self.other(block, At { mask: 1 << lane, ..at }, rank, &to, &within, bytes)?;
                let done = if late { Ok(()) } else { self.arrives_at(&mut other, &flight) };
                self.cluster.blocks[rank] = Some(other);
                done?;
            } else if !late {
                self.arrives_at(block, &flight)?;
            }
            if late {
                self.cluster.flying.push(flight);
            }
        }
        Ok(())
    }

    /// A store arrives at its block, and completes at its barrier.
    fn arrives_at(&mut self, block: &mut Block, flight: &Flight) -> Result<(), Fault> {
        let &Flight { to, bytes, barrier, ref from, .. } = flight;
        let [x, y, z] = block.place;
        let fail = |machine: &Self, kind, address, what: &str| {
            let what = format!("{what} of block ({x},{y},{z})");
            Err(machine.fault_of(kind, from, Some(address), &what))
        };
        if block.done() {
            let what = format!("shared memory of block ({x},{y},{z}), which has exited");
            return Err(self.fault_of(FaultKind::UseAfterFree, from, Some(to), &what));
        }
        for (address, width) in [(to, bytes), (barrier, BYTES)] {
            if !address.is_multiple_of(width) {
                let what = format!("an address that is no multiple of {width}, in shared memory");
                return fail(self, FaultKind::Misaligned, address, &what);
            }
            if !block.shared.holds(address, address + width) {
                let what = format!("{width} bytes out of bounds of {} of shared memory", block.shared.len());
                return fail(self, FaultKind::OutOfBounds, address, &what);
            }
        }
        let mut counts = match block.counts(barrier) {
            Ok(counts) => counts,
            Err(what) => {
                return fail(self, FaultKind::Mbarrier, barrier, &format!("{what}, in shared memory"));
            }
        };
        if self.order.on {
            self.order_arrival(block, flight)?;
        }
        block.shared.bytes_mut(to, bytes).copy_from_slice(&flight.data[..bytes as usize]);
        block.shared.mark_written(to, bytes);
        self.progress += 1;
        counts.bytes -= bytes as i64;
        self.settle(block, barrier, counts)
            .map_err(|what| self.fault_of(FaultKind::Mbarrier, from, Some(barrier), &what))
    }

    /// What a store that arrives must come after, and who knows of it from now on.
    fn order_arrival(&mut self, block: &mut Block, flight: &Flight) -> Result<(), Fault> {
        let &Flight { to, bytes, barrier, site, ref from, ref known, .. } = flight;
        let mut ordered =
            |cell: Cell| known.get(cell.warp() as usize).is_some_and(|&time| u64::from(time) >= cell.time());
        let phases = block.mbarriers.get_mut(&barrier).expect("its being there was checked");
        for (address, width, how) in [(barrier, BYTES, How::Strong), (to, bytes, How::Weak)] {
            let who = phases.agent.who(block.order.start, how, site);
            if let Err(conflict) = block.shadow.write(address, width, &who, &[], &mut ordered) {
                let earlier = self.earlier(&block.order, conflict);
                let what = format!("a race: nothing orders this st.async after {earlier}");
                return Err(self.fault_of(FaultKind::Race, from, Some(conflict.offset), &what));
            }
        }
        if !phases.agent.awaited(known) {
            let what = "a store that may count for another phase of its mbarrier than it is for: its thread did \
                        not know that the one before had completed";
            return Err(self.fault_of(FaultKind::Mbarrier, from, Some(barrier), what));
        }
        self.order.deliver(&mut phases.gathering, known);
        Ok(())
    }

    /// One of a cluster's stores under way arrives.
    pub fn one_arrives(&mut self, cluster: &mut Cluster, random: &mut Random) -> Result<(), Fault> {
        let one = random.below(cluster.flying.len() as u64) as usize;
        let flight = cluster.flying.swap_remove(one);
        self.with(cluster, flight.rank, |machine, block| machine.arrives_at(block, &flight))
    }
}
