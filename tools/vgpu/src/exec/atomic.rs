//! Atomic operations.
//!
//! The idea: lanes go one after the other, in their order.

use super::access::{addresses, resolve};
use super::block::Block;
use super::machine::Machine;
use super::warp::At;
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{Area, Atomic, AtomicKind};
use crate::isa::lanes::{Lanes, WARP};

/// The new value of a word or, with 8 bytes, a long.
fn apply(kind: AtomicKind, bytes: u32, old: u64, value: u64, swap: u64) -> u64 {
    let signed = |x: u64| if bytes == 4 { i64::from(x as u32 as i32) } else { x as i64 };
    match kind {
        AtomicKind::Add => old.wrapping_add(value),
        AtomicKind::AddF32 => {
            u64::from((f32::from_bits(old as u32) + f32::from_bits(value as u32)).to_bits())
        }
        AtomicKind::AddF64 => (f64::from_bits(old) + f64::from_bits(value)).to_bits(),
        AtomicKind::MinU => old.min(value),
        AtomicKind::MaxU => old.max(value),
        AtomicKind::MinS => signed(old).min(signed(value)) as u64,
        AtomicKind::MaxS => signed(old).max(signed(value)) as u64,
        AtomicKind::And => old & value,
        AtomicKind::Or => old | value,
        AtomicKind::Xor => old ^ value,
        AtomicKind::Exchange => value,
        AtomicKind::CompareSwap if old == value => swap,
        AtomicKind::CompareSwap => old,
        AtomicKind::Increment if old >= value => 0,
        AtomicKind::Increment => old + 1,
        AtomicKind::Decrement if old == 0 || old > value => value,
        AtomicKind::Decrement => old - 1,
    }
}

impl Machine<'_> {
    /// `atom` and `red`.
    pub fn atomic(&mut self, block: &mut Block, lanes: &Lanes, atomic: &Atomic, at: At) -> Result<(), Fault> {
        // SAFETY: the address is an operand of this kernel.
        let mut addresses = unsafe { addresses(lanes, &atomic.address) };
        let mut area = atomic.address.area;
        let first = at.mask.trailing_zeros() as usize;
        if area == Area::Generic {
            // The block's own shared memory is a part of the cluster's.
            let space = |lane: usize| match resolve(addresses[lane]).0 {
                Area::Shared => Area::Cluster,
                area => area,
            };
            area = space(first);
            if let Some(lane) = (0..WARP).find(|&lane| at.mask >> lane & 1 == 1 && space(lane) != area) {
                let what = "one atomic operation in several spaces is not supported";
                return Err(self.fault(
                    FaultKind::Limit,
                    block,
                    at,
                    lane as u32,
                    Some(addresses[lane]),
                    what,
                ));
            }
            addresses = addresses.map(|a| resolve(a).1);
        }
        match area {
            Area::Cluster => self.distributed_atomic(block, lanes, atomic, at, &addresses),
            area => self.atomic_in(block, lanes, atomic, at, area, &addresses),
        }
    }

    /// The same, in one space.
    pub fn atomic_in(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        atomic: &Atomic,
        at: At,
        area: Area,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let width = u64::from(atomic.bytes);
        // SAFETY: the operands are registers of this kernel.
        let [values, swaps] = [atomic.value, atomic.swap].map(|slot| unsafe {
            if width == 8 { lanes.longs(slot) } else { lanes.words(slot).map(u64::from) }
        });
        let mut site = self.take_site(atomic.site);
        site.pattern.update(addresses, at.mask, width);
        let bytes = width * u64::from(at.mask.count_ones());
        if area == Area::Shared {
            site.totals.add_shared(block.away(), bytes, site.pattern.conflicts);
        } else {
            site.totals.add(bytes, site.pattern.sectors, site.pattern.ideal);
            self.synchronised[0] += u64::from(atomic.order.release);
        }
        self.put_site(atomic.site, site);
        for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
            let address = addresses[lane];
            if !address.is_multiple_of(width) {
                return Err(self.misaligned(block, at, addresses, width));
            }
            let mut allocation = None;
            let segment = match area {
                Area::Shared if block.shared.holds(address, address.saturating_add(width)) => {
                    &mut block.shared
                }
                Area::Global => match self.memory.locate(address, address.saturating_add(width)) {
                    Some(k) => {
                        allocation = Some(k);
                        self.memory.segment_mut(k)
                    }
                    None => return Err(self.out_of_bounds(block, at, lane as u32, address, width)),
                },
                Area::Shared => {
                    let what =
                        format!("{width} bytes out of bounds of {} of shared memory", block.shared.len());
                    let kind = FaultKind::OutOfBounds;
                    return Err(self.fault(kind, block, at, lane as u32, Some(address), &what));
                }
                _ => {
                    let what = "an atomic operation on memory that nobody shares";
                    return Err(self.fault(FaultKind::Limit, block, at, lane as u32, Some(address), what));
                }
            };
            if !segment.is_written(address, width) {
                let memory = if area == Area::Shared { "shared" } else { "global" };
                return Err(self.unwritten(block, at, lane as u32, address, memory));
            }
            let place = segment.pointer(address);
            // SAFETY: the segment holds these bytes, at their alignment.
            let old = unsafe {
                if width == 8 { place.cast::<u64>().read() } else { u64::from(place.cast::<u32>().read()) }
            };
            let new = apply(atomic.kind, atomic.bytes, old, values[lane], swaps[lane]);
            // SAFETY: as above; the result is a register of this kernel.
            unsafe {
                if width == 8 {
                    place.cast::<u64>().write(new);
                } else {
                    place.cast::<u32>().write(new as u32);
                }
                if let Some(result) = atomic.result {
                    let to = lanes.at(result);
                    if width == 8 {
                        to.cast::<u64>().add(lane).write(old);
                    } else {
                        to.add(lane).write(old as u32);
                    }
                }
            }
            let same = if width == 8 { new == old } else { new as u32 == old as u32 };
            let watch = &mut block.warps[at.warp].watch;
            watch.look(at.pc, allocation, segment, [(address, width)].into_iter());
            // What another block has is looked at again and again.
            if !same || block.home != block.index {
                watch.change();
                self.progress += 1;
            }
        }
        self.order_atomic(block, atomic, at, area, addresses)
    }
}
