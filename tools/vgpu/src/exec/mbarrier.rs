//! Barriers in shared memory (mbarriers), and stores to the cluster's blocks that complete at them.
//!
//! The idea: a barrier's counts lie in its eight bytes, where whoever looks for its phase rests until they change;
//! what its phases hand over is kept beside the block's shared memory. A store under way is somebody of its own, who
//! knows what its thread knew: nobody knows of it before its barrier's phase has completed.

use super::access::{addresses, resolve};
use super::block::Block;
use super::cluster::ranked;
use super::machine::Machine;
use super::phases::{BYTES, Counts, Flight, LIMIT, Phases};
use super::warp::{At, Spot};
use crate::check::{Gathering, How};
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{Area, Mbarrier, MbarrierKind, StoreAsync};
use crate::isa::lanes::{Lanes, WARP};

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
            match block.mbarriers.contains_key(&address) {
                true if creates => return fail(self, FaultKind::Mbarrier, "there is an mbarrier already"),
                false if !creates => {
                    return fail(self, FaultKind::Mbarrier, "there is no mbarrier (mbarrier.init)");
                }
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
                active()
                    .try_for_each(|lane| self.count(block, lanes, op, (at, lane), addresses[lane], &mut told))
            }
        }
    }

    /// One lane's operation that changes a barrier; `told` is where and in which phase lanes before it have arrived.
    fn count(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        op: &Mbarrier,
        (at, lane): (At, usize),
        address: u64,
        told: &mut Option<(u64, u64)>,
    ) -> Result<(), Fault> {
        // SAFETY: the operands are registers of this kernel.
        let of = |slot| unsafe { i64::from(lanes.words(slot)[lane]) };
        block.warps[at.warp].watch.change();
        self.progress += 1;
        let mut counts = Counts::read(&block.shared, address);
        match op.kind {
            MbarrierKind::Init(count) => {
                let expected = of(count);
                if !(1..LIMIT).contains(&expected) {
                    let what = format!("an mbarrier for {expected} arrivals; 1 to {} are allowed", LIMIT - 1);
                    return Err(self.fault(
                        FaultKind::Mbarrier,
                        block,
                        at,
                        lane as u32,
                        Some(address),
                        &what,
                    ));
                }
                let (gathering, arrived) = (Gathering::default(), Default::default());
                let phases = Phases { gathering, arrived, agent: self.order.agent() };
                if block.mbarriers.insert(address, phases).is_some() {
                    let what = "two lanes make one mbarrier";
                    return Err(self.fault(FaultKind::Mbarrier, block, at, lane as u32, Some(address), what));
                }
                block.shared.mark_written(address, BYTES);
                Counts { phase: 0, expected, pending: expected, bytes: 0 }.write(&mut block.shared, address);
                return Ok(());
            }
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
            MbarrierKind::Test { .. } => {}
        }
        self.settle(block, address, counts)
            .map_err(|what| self.fault(FaultKind::Mbarrier, block, at, lane as u32, Some(address), &what))
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
        if counts.pending == 0 && counts.bytes == 0 {
            counts.phase = (counts.phase + 1) % 8;
            counts.pending = counts.expected;
            let phases = block.mbarriers.get_mut(&address).expect("its being there was checked");
            self.order.open(&mut phases.gathering);
            phases.turn();
        }
        counts.write(&mut block.shared, address);
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
        let (MbarrierKind::Test { phase, parity }, Some(result)) = (op.kind, op.result) else {
            return Ok(());
        };
        let first = at.mask.trailing_zeros();
        if block.away() {
            let address = Some(addresses[first as usize]);
            let what = "a wait at another block's mbarrier";
            return Err(self.fault(FaultKind::Mbarrier, block, at, first, address, what));
        }
        // SAFETY: the phase is a register of this kernel, a long unless it is a parity.
        let asked = unsafe { if parity { lanes.words(phase).map(u64::from) } else { lanes.longs(phase) } };
        let mut done = 0;
        let mut last = None;
        for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
            let address = addresses[lane];
            let current = Counts::read(&block.shared, address).phase;
            let other = if parity { (current ^ asked[lane]) & 1 == 1 } else { current != asked[lane] };
            done |= u32::from(other) << lane;
            if last == Some(address) {
                continue;
            }
            last = Some(address);
            let watch = &mut block.warps[at.warp].watch;
            watch.look(at.pc, None, &block.shared, [(address, BYTES)].into_iter());
            if other && op.strong {
                let phases = &block.mbarriers[&address];
                self.order.hear(&phases.gathering, &mut block.order, at.warp);
                let warp = block.order.warps.0 + at.warp as u32;
                if let Some(time) = phases.met(warp, block.warps[at.warp].live) {
                    self.order.lanes_met_at(&mut block.order, at.warp, time);
                }
            }
        }
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
        site.totals.add_shared(true, bytes * u64::from(at.mask.count_ones()), 0);
        self.put_site(op.site, site);
        block.warps[at.warp].watch.change();
        self.progress += 1;
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
            for (k, &slot) in op.registers[..op.count as usize].iter().enumerate() {
                // SAFETY: the register is one of this kernel, a long if the element is.
                let value = unsafe { lanes.values(slot, op.bytes == 8)[lane] };
                let at = k * op.bytes as usize;
                data[at..at + op.bytes as usize].copy_from_slice(&value.to_le_bytes()[..op.bytes as usize]);
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
        let &Flight { to, bytes, barrier, site, ref from, .. } = flight;
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
        let Some(phases) = block.mbarriers.get_mut(&barrier) else {
            return fail(
                self,
                FaultKind::Mbarrier,
                barrier,
                "there is no mbarrier (mbarrier.init) in shared memory",
            );
        };
        if self.order.on {
            let mut ordered = |cell: crate::check::Cell| {
                flight.known.get(cell.warp() as usize).is_some_and(|&t| u64::from(t) >= cell.time())
            };
            for (address, width, how) in [(to, bytes, How::Weak), (barrier, BYTES, How::Strong)] {
                let who = phases.agent.who(block.order.start, how, site);
                if let Err(conflict) = block.shadow.write(address, width, &who, &[], &mut ordered) {
                    let what = format!(
                        "a race: nothing orders this st.async after {}",
                        self.earlier(&block.order, conflict)
                    );
                    return Err(self.fault_of(FaultKind::Race, from, Some(conflict.offset), &what));
                }
            }
            self.order.deliver(&mut phases.gathering, &phases.agent, &flight.known);
        }
        block.shared.bytes_mut(to, bytes).copy_from_slice(&flight.data[..bytes as usize]);
        block.shared.mark_written(to, bytes);
        self.progress += 1;
        let mut counts = Counts::read(&block.shared, barrier);
        counts.bytes -= bytes as i64;
        self.settle(block, barrier, counts)
            .map_err(|what| self.fault_of(FaultKind::Mbarrier, from, Some(barrier), &what))
    }
}
