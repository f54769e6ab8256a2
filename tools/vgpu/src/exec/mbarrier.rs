//! Barriers in shared memory (mbarriers), and stores to the cluster's blocks that complete at them.
//!
//! The idea: a barrier's counts lie in its eight bytes, where whoever looks for its phase rests until they change;
//! what its phases hand over is kept beside the block's shared memory. A store under way is somebody of its own, who
//! knows what its thread knew: nobody knows of it before its barrier's phase has completed.

use super::access::{addresses, resolve};
use super::block::Block;
use super::cluster::ranked;
use super::machine::Machine;
use super::phases::{BYTES, Counts, Flight, LIMIT, PHASES, Phases};
use super::warp::{At, Missed, Spot, Warp};
use crate::check::{Cell, How};
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{Area, Mbarrier, MbarrierKind, StoreAsync};
use crate::isa::lanes::{Lanes, WARP};

/// Who does not know that a phase has completed cannot tell for which his arrival or his bytes count.
const UNSURE: &str = "that may count for another phase of its mbarrier than it is for: the thread did not know that \
                      the one before had completed";

const NO_BARRIER: &str = "there is no mbarrier (mbarrier.init)";

impl Block {
    /// What a barrier counts, or why there is none.
    fn counts(&self, address: u64) -> Result<Counts, &'static str> {
        match self.mbarriers.get(&address) {
            None => Err(NO_BARRIER),
            Some(phases) if *self.shared.bytes(address, BYTES) != phases.bytes() => {
                Err("an mbarrier over which something else was stored")
            }
            Some(phases) => Ok(phases.counts()),
        }
    }

    /// Changes what a barrier counts.
    fn set_counts(&mut self, address: u64, counts: Counts) {
        if let Some(phases) = self.mbarriers.get_mut(&address) {
            phases.set(counts);
            self.shared.bytes_mut(address, BYTES).copy_from_slice(&phases.bytes());
        }
    }
}

impl Machine<'_> {
    /// An operation of an mbarrier.
    pub fn mbarrier(&mut self, block: &mut Block, lanes: &Lanes, op: &Mbarrier, at: At) -> Result<(), Fault> {
        // SAFETY: the address is an operand of this kernel.
        let mut addresses = unsafe { addresses(lanes, &op.address) };
        let mut area = op.address.area;
        if area == Area::Generic {
            let other = |&lane: &usize| {
                at.mask >> lane & 1 == 1
                    && !matches!(resolve(addresses[lane]).0, Area::Shared | Area::Cluster)
            };
            if let Some(lane) = (0..WARP).find(other) {
                let address = Some(addresses[lane]);
                let what = "an mbarrier outside of shared memory";
                return Err(self.fault(FaultKind::OutOfBounds, block, at, lane as u32, address, what));
            }
            addresses = addresses.map(|a| resolve(a).1);
            area = Area::Cluster;
        }
        match area {
            Area::Cluster => self.by_rank(block, at, &addresses, BYTES, |machine, block, at, within| {
                machine.mbarrier_in(block, lanes, op, at, within)
            }),
            _ => self.mbarrier_in(block, lanes, op, at, &addresses),
        }
    }

    fn mbarrier_in(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        op: &Mbarrier,
        at: At,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let active = || (0..WARP).filter(|lane| at.mask >> lane & 1 == 1);
        let creates = matches!(op.kind, MbarrierKind::Init(_));
        let counts = matches!(op.kind, MbarrierKind::Arrive { .. } | MbarrierKind::Complete(_));
        for lane in active() {
            let address = addresses[lane];
            if !address.is_multiple_of(BYTES) {
                return Err(self.misaligned(block, at, addresses, BYTES));
            }
            let fail = |machine: &Self, kind, what: &str| {
                Err(machine.fault(kind, block, at, lane as u32, Some(address), what))
            };
            if !block.shared.holds(address, address.saturating_add(BYTES)) {
                let what = format!("an mbarrier out of bounds of {} of shared memory", block.shared.len());
                return fail(self, FaultKind::OutOfBounds, &what);
            }
            if block.away() && !counts {
                return fail(self, FaultKind::Mbarrier, "this operation at another block's mbarrier");
            }
            match block.mbarriers.contains_key(&address) {
                true if creates => return fail(self, FaultKind::Mbarrier, "there is an mbarrier already"),
                false if !creates => return fail(self, FaultKind::Mbarrier, NO_BARRIER),
                _ => {}
            }
        }
        if self.order.on {
            let mut site = self.take_site(op.site);
            site.pattern.update(addresses, at.mask, BYTES);
            let reads = matches!(op.kind, MbarrierKind::Test { .. });
            let plain = creates || op.kind == MbarrierKind::Invalidate;
            let done = self.check_shared(block, at, &site.pattern, addresses, !reads, !plain, op.site);
            self.put_site(op.site, site);
            done?;
        }
        match op.kind {
            MbarrierKind::Test { .. } => self.test(block, lanes, op, at, addresses),
            _ => {
                let mut told = None;
                active().try_for_each(|lane| {
                    let done = self.count(block, lanes, op, (at, lane), addresses[lane], &mut told);
                    let address = Some(addresses[lane]);
                    done.map_err(|what| {
                        self.fault(FaultKind::Mbarrier, block, at, lane as u32, address, &what)
                    })
                })
            }
        }
    }

    /// One lane's operation that changes a barrier; `told` is where and in which phase lanes before it have arrived. Or
    /// what is wrong with it.
    fn count(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        op: &Mbarrier,
        (at, lane): (At, usize),
        address: u64,
        told: &mut Option<(u64, u64)>,
    ) -> Result<(), String> {
        // SAFETY: the operands are registers of this kernel.
        let of = |slot| unsafe { i64::from(lanes.words(slot)[lane]) };
        block.warps[at.warp].watch.change();
        self.progress += 1;
        if let MbarrierKind::Init(count) = op.kind {
            let expected = of(count);
            if !(1..LIMIT).contains(&expected) {
                return Err(format!("an mbarrier for {expected} arrivals; 1 to {} are allowed", LIMIT - 1));
            }
            let phases = Phases::new(expected, self.order.agent(), at.pc);
            let counts = phases.counts();
            if block.mbarriers.insert(address, phases).is_some() {
                return Err("two lanes make one mbarrier".to_string());
            }
            block.shared.mark_written(address, BYTES);
            block.set_counts(address, counts);
            return Ok(());
        }
        let mut counts = block.counts(address)?;
        match op.kind {
            MbarrierKind::Init(_) | MbarrierKind::Test { .. } => {}
            MbarrierKind::Invalidate => {
                if let Some(phases) = block.mbarriers.remove(&address) {
                    self.order.dismiss(phases.agent);
                }
                return Ok(());
            }
            MbarrierKind::Arrive { count, bytes } => {
                let phase = counts.phase;
                if let Some(result) = op.result {
                    // SAFETY: the result is a long of this kernel.
                    unsafe { lanes.at(result).cast::<u64>().add(lane).write(phase) };
                }
                counts.pending -= of(count);
                counts.bytes += of(bytes);
                if of(count) > 0 {
                    let (order, from) = (&mut self.order, &mut block.order);
                    let phases = block.mbarriers.get_mut(&address).expect("its being there was checked");
                    if !phases.seen {
                        return Err(
                            "an arrival at an mbarrier, and nobody has waited for the phase before".into()
                        );
                    }
                    if order.on && !order.awaited(from, at.warp, &phases.agent) {
                        return Err(format!("an arrival {UNSURE}"));
                    }
                    if *told != Some((address, phase)) {
                        order.gather(&mut phases.gathering, from, at.warp, op.strong);
                        *told = Some((address, phase));
                    }
                    if op.strong {
                        phases.arrive(from.warps.0 + at.warp as u32, lane, from.time);
                    }
                }
            }
            MbarrierKind::Complete(bytes) => counts.bytes -= of(bytes),
        }
        self.settle(block, address, counts)
    }

    /// New counts: a phase that waits for nothing any more completes.
    fn settle(&mut self, block: &mut Block, address: u64, mut counts: Counts) -> Result<(), String> {
        if counts.pending < 0 {
            return Err(format!("more arrivals at an mbarrier than the {} it is for", counts.expected));
        }
        if counts.bytes.abs() >= LIMIT {
            return Err(format!(
                "an mbarrier is to wait for {} bytes; {} are allowed",
                counts.bytes,
                LIMIT - 1
            ));
        }
        if counts.pending == 0 && counts.bytes < 0 {
            return Err(format!("{} bytes more than an mbarrier's phase waits for", -counts.bytes));
        }
        if counts.pending == 0 && counts.bytes == 0 {
            counts.phase = (counts.phase + 1) % PHASES;
            counts.pending = counts.expected;
            let phases = block.mbarriers.get_mut(&address).expect("its being there was checked");
            self.order.complete(&mut phases.gathering, &mut phases.agent);
            phases.turn();
            self.mbarrier_phases += 1;
        }
        block.set_counts(address, counts);
        Ok(())
    }

    /// Whether phases have completed.
    fn test(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        op: &Mbarrier,
        at: At,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let (MbarrierKind::Test { phase, parity, tries }, Some(result)) = (op.kind, op.result) else {
            return Ok(());
        };
        // SAFETY: the phase is a register of this kernel, a long unless it is a parity.
        let asked = unsafe { lanes.values(phase, !parity) };
        // Who only tries may find nothing though it is there.
        let vain = tries && self.late.doubts();
        let mut done = 0;
        let mut last = None;
        for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
            let (address, asked) = (addresses[lane], asked[lane]);
            let current = block.counts(address).map(|counts| counts.phase).map_err(|what| {
                self.fault(FaultKind::Mbarrier, block, at, lane as u32, Some(address), what)
            })?;
            let since = if parity { (current ^ asked) & 1 } else { current.wrapping_sub(asked) % PHASES };
            if since > 1 || parity && asked > 1 {
                let name = if parity { "parity" } else { "state" };
                let what = format!("a wait for {name} {asked} at an mbarrier in phase {current}");
                return Err(self.fault(FaultKind::Mbarrier, block, at, lane as u32, Some(address), &what));
            }
            let other = since == 1 && !vain;
            if other && let Some(phases) = block.mbarriers.get_mut(&address) {
                phases.seen = true;
            }
            done |= u32::from(other) << lane;
            if last == Some(address) {
                continue;
            }
            last = Some(address);
            let Warp { watch, missed, .. } = &mut block.warps[at.warp];
            // Its phase.
            watch.look(at.pc, None, &block.shared, [(address + BYTES - 1, 1)].into_iter());
            *missed = (!other).then_some(Missed { address, pc: at.pc });
            if other && op.strong {
                let phases = &block.mbarriers[&address];
                self.order.hear(&phases.gathering, &mut block.order, at.warp);
                let warp = block.order.warps.0 + at.warp as u32;
                if let Some(time) = phases.met(warp, block.warps[at.warp].live) {
                    self.order.lanes_met_at(&mut block.order, at.warp, time);
                }
            }
        }
        if vain {
            block.warps[at.warp].watch.change();
        }
        self.mbarrier_waits += u64::from(done != 0);
        // SAFETY: the result is a predicate of this kernel.
        unsafe { lanes.set_mask(result, done) };
        Ok(())
    }

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
        site.totals.add_later(bytes * u64::from(at.mask.count_ones()));
        self.put_site(op.site, site);
        if self.members() == 1 {
            let lane = at.mask.trailing_zeros();
            let what = "st.async in a cluster of one block";
            return Err(self.fault(FaultKind::Mbarrier, block, at, lane, Some(to[lane as usize]), what));
        }
        block.warps[at.warp].watch.change();
        self.progress += 1;
        // SAFETY: the registers are of this kernel, longs if the elements are.
        let values: [[u64; WARP]; 4] =
            std::array::from_fn(|k| unsafe { lanes.values(op.registers[k], op.bytes == 8) });
        let within = to.map(|a| ranked(a).1);
        let known = self.order.tell(&mut block.order, at.warp);
        for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
            let (rank, address) = (ranked(to[lane]).0.unwrap_or(block.rank), within[lane]);
            let from = Spot { place: block.place, at, lane: lane as u32 };
            if ranked(barriers[lane]).0.unwrap_or(block.rank) != rank {
                let what = "st.async to one block with the mbarrier of another";
                return Err(self.fault_of(FaultKind::Mbarrier, &from, Some(barriers[lane]), what));
            }
            let mut data = [0; 16];
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
    pub fn arrives_at(&mut self, block: &mut Block, flight: &Flight) -> Result<(), Fault> {
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
        if !block.mbarriers.contains_key(&barrier) {
            return fail(self, FaultKind::Mbarrier, barrier, &format!("{NO_BARRIER} in shared memory"));
        }
        if self.order.on {
            self.order_arrival(block, flight)?;
        }
        block.shared.bytes_mut(to, bytes).copy_from_slice(&flight.data[..bytes as usize]);
        block.shared.mark_written(to, bytes);
        self.progress += 1;
        let counts = block.counts(barrier).map_err(str::to_string);
        let counts = counts.map(|counts| Counts { bytes: counts.bytes - bytes as i64, ..counts });
        counts
            .and_then(|counts| self.settle(block, barrier, counts))
            .map_err(|what| self.fault_of(FaultKind::Mbarrier, from, Some(barrier), &what))
    }

    /// What a store that arrives must come after, and who knows of it from now on.
    fn order_arrival(&mut self, block: &mut Block, flight: &Flight) -> Result<(), Fault> {
        let &Flight { to, bytes, barrier, site, ref from, ref known, .. } = flight;
        let mut ordered =
            |cell: Cell| known.get(cell.warp() as usize).is_some_and(|&time| u64::from(time) >= cell.time());
        let phases = block.mbarriers.get_mut(&barrier).expect("its being there was checked");
        for (address, width, how) in [(to, bytes, How::Weak), (barrier, BYTES, How::Strong)] {
            let who = phases.agent.who(block.order.start, how, site);
            if let Err(conflict) = block.shadow.write(address, width, &who, &[], &mut ordered) {
                let earlier = self.earlier(&block.order, conflict);
                let what = format!("a race: nothing orders this st.async after {earlier}");
                return Err(self.fault_of(FaultKind::Race, from, Some(conflict.offset), &what));
            }
        }
        if !phases.agent.awaited(known) {
            let what = format!("an st.async {UNSURE}");
            return Err(self.fault_of(FaultKind::Mbarrier, from, Some(barrier), &what));
        }
        self.order.deliver(&mut phases.gathering, known);
        Ok(())
    }
}
