//! Barriers in shared memory (mbarriers), which count arrivals and bytes in phases.
//!
//! The idea: a barrier's counts lie in its eight bytes, where whoever looks for its phase rests until that changes;
//! what its phases hand over is kept beside the block's shared memory.

use super::access::{addresses, resolve};
use super::block::Block;
use super::machine::Machine;
use super::warp::{At, Warp};
use crate::check::{Agent, Gathering};
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{Area, Mbarrier, MbarrierKind};
use crate::isa::lanes::{Lanes, WARP};

/// Bytes of a barrier.
pub const BYTES: u64 = 8;
/// Counts of arrivals and of bytes are below it.
const LIMIT: i64 = 1 << 20;
/// Phases are counted modulo this.
const PHASES: u64 = 8;

/// What a barrier counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Its phases so far, modulo [`PHASES`].
    phase: u64,
    /// Arrivals of each phase.
    expected: i64,
    /// Arrivals that are still to come in this one.
    pending: i64,
    /// Bytes that are still to come: below 0 while more have come than are expected.
    pub bytes: i64,
}

impl Counts {
    /// The barrier's bytes. The phase is in the last of them, with nothing that changes.
    fn bits(self) -> u64 {
        let Counts { phase, expected, pending, bytes } = self;
        phase << 61 | (expected as u64) << 41 | (pending as u64) << 21 | (bytes + LIMIT) as u64
    }

    fn of(bits: u64) -> Counts {
        let field = |at: u32, len: u32| (bits >> at & ((1 << len) - 1)) as i64;
        let (bytes, pending, expected) = (field(0, 21) - LIMIT, field(21, 20), field(41, 20));
        Counts { phase: bits >> 61, expected, pending, bytes }
    }

    fn write(self, block: &mut Block, address: u64) {
        block.shared.bytes_mut(address, BYTES).copy_from_slice(&self.bits().to_le_bytes());
    }
}

/// What goes with a barrier.
#[derive(Debug)]
pub struct Phases {
    /// What its phases hand over.
    pub gathering: Gathering,
    /// In whose name stores complete at it.
    pub agent: Agent,
    /// The lanes of each warp that have arrived in this phase, and in the one before.
    lanes: [Vec<(usize, u32)>; 2],
    /// What its bytes hold.
    bits: u64,
    /// Whether somebody has seen the phase before this one complete.
    seen: bool,
    /// The instruction that made it.
    pc: u32,
}

/// A barrier that a warp has looked at in vain, and the instruction that did.
#[derive(Clone, Copy, Debug)]
pub struct Missed {
    address: u64,
    pc: u32,
}

impl Block {
    /// What a barrier counts, or what is wrong with it.
    pub fn counts(&self, address: u64) -> Result<Counts, &'static str> {
        match self.mbarriers.get(&address) {
            None => Err("there is no mbarrier (mbarrier.init)"),
            Some(phases) if self.shared.bytes(address, BYTES) != phases.bits.to_le_bytes() => {
                Err("something else was stored over an mbarrier")
            }
            Some(phases) => Ok(Counts::of(phases.bits)),
        }
    }

    fn phases(&mut self, address: u64) -> &mut Phases {
        self.mbarriers.get_mut(&address).expect("its being there was checked")
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
                return fail(self, FaultKind::Mbarrier, "another block's mbarrier");
            }
            match block.counts(address) {
                _ if creates && block.mbarriers.contains_key(&address) => {
                    return fail(self, FaultKind::Mbarrier, "there is an mbarrier already");
                }
                Err(what) if !creates => return fail(self, FaultKind::Mbarrier, what),
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
            _ => active().try_for_each(|lane| {
                let changed = self.change(block, lanes, op, at, lane, addresses[lane]);
                changed.map_err(|what| {
                    self.fault(FaultKind::Mbarrier, block, at, lane as u32, Some(addresses[lane]), &what)
                })
            }),
        }
    }

    /// One lane's operation that changes a barrier; what is wrong with it, if anything.
    fn change(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        op: &Mbarrier,
        at: At,
        lane: usize,
        address: u64,
    ) -> Result<(), String> {
        // SAFETY: the operands are registers of this kernel.
        let of = |slot| unsafe { i64::from(lanes.words(slot)[lane]) };
        block.warps[at.warp].watch.change();
        self.progress += 1;
        match op.kind {
            MbarrierKind::Init(count) => return self.init(block, address, of(count), at.pc),
            MbarrierKind::Invalidate => {
                if let Some(phases) = block.mbarriers.remove(&address) {
                    self.order.dismiss(phases.agent);
                }
                return Ok(());
            }
            MbarrierKind::Arrive { .. } | MbarrierKind::Complete(_) | MbarrierKind::Test { .. } => {}
        }
        let mut counts = block.counts(address)?;
        match op.kind {
            MbarrierKind::Arrive { count, bytes } => {
                if let Some(result) = op.result {
                    // SAFETY: the result is a long of this kernel.
                    unsafe { lanes.at(result).cast::<u64>().add(lane).write(counts.phase) };
                }
                counts.pending -= of(count);
                counts.bytes += of(bytes);
                if of(count) > 0 {
                    self.arrives_in_phase(block, At { mask: 1 << lane, ..at }, op.strong, address)?;
                }
            }
            MbarrierKind::Complete(bytes) => counts.bytes -= of(bytes),
            _ => {}
        }
        self.settle(block, address, counts)
    }

    /// `mbarrier.init`
    fn init(&mut self, block: &mut Block, address: u64, expected: i64, pc: u32) -> Result<(), String> {
        if !(1..LIMIT).contains(&expected) {
            return Err(format!("an mbarrier for {expected} arrivals; 1 to {} are allowed", LIMIT - 1));
        }
        let counts = Counts { phase: 0, expected, pending: expected, bytes: 0 };
        let (gathering, agent) = (Gathering::default(), self.order.agent());
        let lanes = Default::default();
        let phases = Phases { gathering, agent, lanes, bits: counts.bits(), seen: true, pc };
        if block.mbarriers.insert(address, phases).is_some() {
            return Err("two lanes make one mbarrier".to_string());
        }
        block.shared.mark_written(address, BYTES);
        counts.write(block, address);
        Ok(())
    }

    /// A thread arrives, and hands over what it knows if it releases.
    fn arrives_in_phase(
        &mut self,
        block: &mut Block,
        at: At,
        release: bool,
        address: u64,
    ) -> Result<(), String> {
        let phases = block.mbarriers.get_mut(&address).expect("its being there was checked");
        if !phases.seen {
            return Err("an arrival at an mbarrier, and nobody has waited for the phase before".to_string());
        }
        if !self.order.on {
            return Ok(());
        }
        if !self.order.awaited(&block.order, at.warp, &phases.agent) {
            return Err("an arrival that may count for an earlier phase: the thread does not know that the \
                        one before has completed"
                .to_string());
        }
        self.order.gather(&mut phases.gathering, &mut block.order, at.warp, release);
        if release {
            let warp = block.order.warps.0 as usize + at.warp;
            match phases.lanes[0].iter_mut().find(|(of, _)| *of == warp) {
                Some((_, lanes)) => *lanes |= at.mask,
                None => phases.lanes[0].push((warp, at.mask)),
            }
        }
        Ok(())
    }

    /// New counts: a phase that waits for nothing any more completes.
    pub fn settle(&mut self, block: &mut Block, address: u64, mut counts: Counts) -> Result<(), String> {
        if counts.pending < 0 {
            return Err(format!("more arrivals at an mbarrier than the {} it is for", counts.expected));
        }
        if counts.bytes.abs() >= LIMIT {
            let (bytes, most) = (counts.bytes, LIMIT - 1);
            return Err(format!("an mbarrier is to wait for {bytes} bytes; {most} are allowed"));
        }
        if counts.pending == 0 && counts.bytes < 0 {
            let more = -counts.bytes;
            return Err(format!("{more} bytes more have come to an mbarrier than its phase waits for"));
        }
        let complete = counts.pending == 0 && counts.bytes == 0;
        if complete {
            counts.phase = (counts.phase + 1) % PHASES;
            counts.pending = counts.expected;
            self.mbarrier_phases += 1;
        }
        let phases = block.phases(address);
        phases.bits = counts.bits();
        if complete {
            phases.seen = false;
            phases.lanes.swap(0, 1);
            phases.lanes[0].clear();
            self.order.complete(&mut phases.gathering, &mut phases.agent);
        }
        counts.write(block, address);
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
        // Trying may come to nothing for no reason.
        let vain = tries && self.late.doubts();
        let mut done = 0;
        let mut last = None;
        for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
            let address = addresses[lane];
            let phases = block.phases(address);
            let current = Counts::of(phases.bits).phase;
            // How many phases it is since.
            let since =
                if parity { (current ^ asked[lane]) & 1 } else { current.wrapping_sub(asked[lane]) % PHASES };
            if parity && asked[lane] > 1 || since > 1 {
                let what = format!(
                    "a wait for {} {} of an mbarrier, which is in phase {current}",
                    if parity { "parity" } else { "phase" },
                    asked[lane]
                );
                return Err(self.fault(FaultKind::Mbarrier, block, at, lane as u32, Some(address), &what));
            }
            let over = since == 1 && !vain;
            done |= u32::from(over) << lane;
            phases.seen |= over;
            if last == Some(address) {
                continue;
            }
            last = Some(address);
            let Warp { watch, missed, .. } = &mut block.warps[at.warp];
            // Of its bytes the phase.
            watch.look(at.pc, None, &block.shared, [(address + BYTES - 1, 1)].into_iter());
            *missed = (!over).then_some(Missed { address, pc: at.pc });
            if over && op.strong {
                self.completed(block, at, address);
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

    /// A warp knows that a phase has completed, and of all that arrived in it.
    fn completed(&mut self, block: &mut Block, at: At, address: u64) {
        let Some(phases) = block.mbarriers.get(&address) else { return };
        if !self.order.hear(&phases.gathering, &mut block.order, at.warp) {
            return;
        }
        let warp = block.order.warps.0 as usize + at.warp;
        let live = block.warps[at.warp].live;
        if phases.lanes[1].iter().any(|&(of, lanes)| of == warp && lanes & live == live) {
            // So do its lanes of one another.
            self.order.lanes_met(&mut block.order, at.warp);
        }
    }

    /// What is missing at a barrier that a warp has looked at in vain.
    pub fn missing(&self, block: &Block, missed: Missed) -> String {
        let line = |pc: u32| self.launch.kernel.code[pc as usize].line;
        let Missed { address, pc } = missed;
        let Some(phases) = block.mbarriers.get(&address) else { return String::new() };
        let Counts { phase, pending, bytes, .. } = Counts::of(phases.bits);
        format!(
            "waits at PTX line {} at the mbarrier of PTX line {} (address {address:#x}), whose phase {phase} \
             waits for {pending} more arrivals and {bytes} more bytes",
            line(pc),
            line(phases.pc)
        )
    }
}
