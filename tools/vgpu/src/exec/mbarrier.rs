//! Mbarriers: barriers in shared memory that count arrivals and bytes, phase after phase.
//!
//! The idea: what an mbarrier counts lies beside shared memory, and in shared memory, for the eight bytes that it takes,
//! only which phase it is in: whoever waits looks at that.

use std::collections::BTreeMap;

use super::access::{addresses, resolve};
use super::block::Block;
use super::cluster::ranked;
use super::machine::Machine;
use super::warp::At;
use crate::fault::{Fault, FaultKind};
use crate::isa::asynchronous::{Mbarrier, MbarrierKind};
use crate::isa::instruction::Area;
use crate::isa::lanes::{Lanes, WARP};

/// Bytes that an mbarrier takes.
const BYTES: u64 = 8;
/// What an mbarrier's bytes hold, but for the phase.
const MARK: u64 = 0x6d62_0000_0000_0000;
/// The most arrivals of a phase, and the most bytes that it can wait for.
const MOST: u32 = (1 << 20) - 1;

/// What an mbarrier counts.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Arrivals of a phase.
    pub arrivals: u32,
    /// Those that the phase still lacks.
    pub missing: u32,
    /// Bytes that it lacks; less than 0 while more have come than it was told to wait for.
    pub bytes: i64,
    /// How many phases are over.
    pub phase: u64,
    /// The instruction that made it.
    pub pc: u32,
}

/// The mbarriers in a block's shared memory, by address.
pub type Mbarriers = BTreeMap<u64, Counts>;

/// A wait that came to nothing.
#[derive(Clone, Copy, Debug)]
pub struct Awaited {
    /// The mbarrier.
    pub address: u64,
    /// The instruction that waited.
    pub pc: u32,
}

impl Counts {
    /// What a phase lacks.
    fn lacks(&self) -> String {
        let bytes = match self.bytes {
            0 => String::new(),
            n if n > 0 => format!(" and {n} more bytes"),
            n => format!(", while {} bytes have come that nobody expects", -n),
        };
        format!("{} more arrivals{bytes}", self.missing)
    }
}

impl Machine<'_> {
    /// `mbarrier`
    pub fn mbarrier(&mut self, block: &mut Block, lanes: &Lanes, op: &Mbarrier, at: At) -> Result<(), Fault> {
        // SAFETY: the address is an operand of this kernel.
        let mut addresses = unsafe { addresses(lanes, &op.address) };
        let mut area = op.address.area;
        if area == Area::Generic {
            area = resolve(addresses[at.mask.trailing_zeros() as usize]).0;
            addresses = addresses.map(|a| resolve(a).1);
        }
        let waits = matches!(op.kind, MbarrierKind::Wait | MbarrierKind::WaitParity);
        let here = waits || matches!(op.kind, MbarrierKind::Init | MbarrierKind::Invalidate);
        match area {
            Area::Shared => self.mbarrier_in(block, lanes, op, at, &addresses),
            Area::Cluster if !here || addresses.iter().all(|&a| ranked(a).0.is_none()) => {
                self.by_rank(block, at, &addresses, BYTES, |machine, block, at, within| {
                    machine.mbarrier_in(block, lanes, op, at, within)
                })
            }
            _ => {
                let lane = at.mask.trailing_zeros();
                let address = Some(addresses[lane as usize]);
                let what = "an mbarrier that is not in the block's shared memory";
                Err(self.fault(FaultKind::Mbarrier, block, at, lane, address, what))
            }
        }
    }

    /// The same, in the block's shared memory, or the one that it has for now.
    fn mbarrier_in(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        op: &Mbarrier,
        at: At,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        // SAFETY: the operand is a register of this kernel, a long if it is a state.
        let values = unsafe { lanes.values(op.value, op.kind == MbarrierKind::Wait) };
        let mut done = 0;
        for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
            let (address, value) = (addresses[lane], values[lane]);
            let of = At { mask: 1 << lane, ..at };
            if !address.is_multiple_of(BYTES) {
                return Err(self.misaligned(block, of, addresses, BYTES));
            }
            match op.kind {
                MbarrierKind::Init => {
                    self.init_mbarrier(block, of, address, value as u32)?;
                    continue;
                }
                MbarrierKind::Invalidate => {
                    self.counts(block, of, address)?;
                    block.mbarriers.remove(&address);
                    continue;
                }
                MbarrierKind::Wait | MbarrierKind::WaitParity => {
                    let counts = self.counts(block, of, address)?;
                    let over = match op.kind {
                        MbarrierKind::WaitParity => counts.phase & 1 != value & 1,
                        _ => counts.phase > value,
                    };
                    done |= u32::from(over) << lane;
                    self.looked(block, of, op, address, over);
                    continue;
                }
                _ => {}
            }
            if op.order.release && self.order.on {
                let key = (block.home + 1) << 48 | address;
                self.order.publish(&mut block.order, at.warp, key, true, false);
            }
            let state = self.counts(block, of, address)?.phase;
            match op.kind {
                MbarrierKind::Arrive => self.count(block, of, address, value as u32, 0)?,
                MbarrierKind::ArriveExpecting => self.count(block, of, address, 1, value as u32 as i64)?,
                MbarrierKind::Expect => self.count(block, of, address, 0, value as u32 as i64)?,
                _ => self.count(block, of, address, 0, -(value as u32 as i64))?,
            }
            if let Some(result) = op.result {
                // SAFETY: the result is a long of this kernel.
                unsafe { lanes.at(result).cast::<u64>().add(lane).write(state) };
            }
        }
        if let (MbarrierKind::Wait | MbarrierKind::WaitParity, Some(result)) = (op.kind, op.result) {
            // SAFETY: the result is a predicate of this kernel.
            unsafe {
                let kept = lanes.mask(result) & !at.mask;
                lanes.set_mask(result, kept | done);
            }
            self.mbarrier_waits += u64::from(done != 0);
        }
        Ok(())
    }

    /// `mbarrier.init`
    fn init_mbarrier(&mut self, block: &mut Block, at: At, address: u64, arrivals: u32) -> Result<(), Fault> {
        let lane = at.mask.trailing_zeros();
        if !block.shared.holds(address, address.saturating_add(BYTES)) {
            let what = format!(
                "an mbarrier out of bounds of the block's {} bytes of shared memory",
                block.shared.len()
            );
            return Err(self.fault(FaultKind::OutOfBounds, block, at, lane, Some(address), &what));
        }
        if arrivals == 0 || arrivals > MOST {
            let what = format!("an mbarrier of {arrivals} arrivals; there can be 1 to {MOST}");
            return Err(self.fault(FaultKind::Mbarrier, block, at, lane, Some(address), &what));
        }
        let counts = Counts { arrivals, missing: arrivals, bytes: 0, phase: 0, pc: at.pc };
        block.mbarriers.insert(address, counts);
        self.show(block, address, 0);
        self.progress += 1;
        block.warps[at.warp].watch.change();
        Ok(())
    }

    /// Shows in shared memory which phase an mbarrier is in.
    fn show(&self, block: &mut Block, address: u64, phase: u64) {
        block.shared.bytes_mut(address, BYTES).copy_from_slice(&(MARK ^ phase).to_ne_bytes());
        block.shared.mark_written(address, BYTES);
    }

    /// What an mbarrier counts.
    fn counts(&self, block: &Block, at: At, address: u64) -> Result<Counts, Fault> {
        let lane = at.mask.trailing_zeros();
        let Some(&counts) = block.mbarriers.get(&address) else {
            let what = "no mbarrier: nobody has made one here (mbarrier.init)";
            return Err(self.fault(FaultKind::Mbarrier, block, at, lane, Some(address), what));
        };
        if block.shared.bytes(address, BYTES) != (MARK ^ counts.phase).to_ne_bytes() {
            let what = "an mbarrier that was overwritten";
            return Err(self.fault(FaultKind::Mbarrier, block, at, lane, Some(address), what));
        }
        Ok(counts)
    }

    /// Counts arrivals and bytes that are to come, or, below 0, that have; what completes a phase begins the next.
    pub fn count(
        &mut self,
        block: &mut Block,
        at: At,
        address: u64,
        arrivals: u32,
        bytes: i64,
    ) -> Result<(), Fault> {
        let mut counts = self.counts(block, at, address)?;
        let fault = |machine: &Self, block: &Block, what: &str| {
            Err(machine.fault(FaultKind::Mbarrier, block, at, at.mask.trailing_zeros(), Some(address), what))
        };
        if arrivals > counts.missing {
            let what = format!("{arrivals} arrivals at an mbarrier whose phase lacks {}", counts.lacks());
            return fault(self, block, &what);
        }
        counts.missing -= arrivals;
        counts.bytes += bytes;
        if counts.bytes.unsigned_abs() > MOST.into() {
            let what = format!("an mbarrier that lacks {}; it counts up to {MOST} bytes", counts.lacks());
            return fault(self, block, &what);
        }
        if counts.missing == 0 && counts.bytes < 0 {
            let what =
                format!("{} bytes more have come to an mbarrier than its phase expects", -counts.bytes);
            return fault(self, block, &what);
        }
        if counts.missing == 0 && counts.bytes == 0 {
            counts.phase += 1;
            counts.missing = counts.arrivals;
            self.mbarrier_phases += 1;
            self.show(block, address, counts.phase);
        }
        block.mbarriers.insert(address, counts);
        self.progress += 1;
        block.warps[at.warp].watch.change();
        Ok(())
    }

    /// A lane has waited.
    fn looked(&mut self, block: &mut Block, at: At, op: &Mbarrier, address: u64, over: bool) {
        let warp = &mut block.warps[at.warp];
        warp.awaits = (!over).then_some(Awaited { address, pc: at.pc });
        warp.watch.look(at.pc, None, &block.shared, [(address, BYTES)].into_iter());
        if over && op.order.acquire && self.order.on {
            let key = (block.home + 1) << 48 | address;
            self.order.look(&mut block.order, at.warp, key, true);
        }
    }

    /// What a warp waits for that nobody brings any more.
    pub fn awaited(&self, block: &Block, awaited: Awaited) -> String {
        let code = &self.launch.kernel.code;
        let Some(counts) = block.mbarriers.get(&awaited.address) else { return String::new() };
        format!(
            "waits at PTX line {} at the mbarrier of PTX line {} (address {:#x}), whose phase {} lacks {}",
            code[awaited.pc as usize].line,
            code[counts.pc as usize].line,
            awaited.address,
            counts.phase,
            counts.lacks()
        )
    }
}
