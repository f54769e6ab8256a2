//! Loads and stores.
//!
//! The idea: a warp's request is checked as a whole: alignment, bounds by its lowest and highest byte,
//! marks. Only where that fails are lanes looked at one by one, to name the one at fault.

use super::block::Block;
use super::machine::{Machine, Site};
use super::pattern::Shape;
use super::warp::At;
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{Access, Address, Area};
use crate::isa::lanes::{Lanes, WARP};
use crate::memory::{Segment, window};

/// The lanes' addresses.
///
/// # Safety
/// The address' register belongs to the kernel whose registers these are.
#[inline(always)]
pub unsafe fn addresses(lanes: &Lanes, address: &Address) -> [u64; WARP] {
    match address.base {
        None => [address.offset; WARP],
        // SAFETY: by the caller's promise.
        Some(base) if address.long => unsafe { lanes.longs(base) }.map(|a| a.wrapping_add(address.offset)),
        // SAFETY: as above. Addresses of 32 bits wrap.
        Some(base) => unsafe { lanes.words(base) }.map(|a| u64::from(a.wrapping_add(address.offset as u32))),
    }
}

/// The space of a generic address, and the address within it.
pub fn resolve(address: u64) -> (Area, u64) {
    match address & !0xffff_ffff {
        window::SHARED if address - window::SHARED >= window::RANK => {
            (Area::Cluster, address - window::SHARED)
        }
        window::SHARED => (Area::Shared, address - window::SHARED),
        window::LOCAL => (Area::Local, address - window::LOCAL),
        window::PARAM => (Area::Param, address - window::PARAM),
        _ => (Area::Global, address),
    }
}

impl Machine<'_> {
    /// Executes a load or store.
    #[inline(always)]
    pub fn access(&mut self, block: &mut Block, lanes: &Lanes, access: &Access, at: At) -> Result<(), Fault> {
        // SAFETY: the access is an instruction of the kernel.
        let mut addresses = unsafe { addresses(lanes, &access.address) };
        match access.address.area {
            Area::Generic => self.generic(block, lanes, access, at, &mut addresses),
            area => self.access_in(block, lanes, access, at, area, &addresses),
        }
    }

    /// Sorts generic addresses by their spaces.
    fn generic(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        addresses: &mut [u64; WARP],
    ) -> Result<(), Fault> {
        let spaces: [Area; WARP] = addresses.map(|a| resolve(a).0);
        *addresses = addresses.map(|a| resolve(a).1);
        let mut rest = at.mask;
        while rest != 0 {
            let area = spaces[rest.trailing_zeros() as usize];
            let same = (0..WARP).filter(|&lane| spaces[lane] == area).fold(0, |m, lane| m | 1 << lane) & rest;
            self.access_in(block, lanes, access, At { mask: same, ..at }, area, addresses)?;
            rest &= !same;
        }
        Ok(())
    }

    pub fn access_in(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        area: Area,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let width = u64::from(access.bytes * access.count);
        match area {
            Area::Global | Area::Const | Area::Generic => {
                let mut site = self.take_site(access.site);
                site.pattern.update(addresses, at.mask, width);
                let done = self.global(block, lanes, access, at, &mut site, addresses);
                self.put_site(access.site, site);
                done
            }
            Area::Shared => {
                let mut site = self.take_site(access.site);
                site.pattern.update(addresses, at.mask, width);
                let done = self.shared(block, lanes, access, at, &mut site, addresses);
                self.put_site(access.site, site);
                done
            }
            Area::Cluster => self.distributed(block, lanes, access, at, addresses),
            Area::Local | Area::Param => {
                for lane in (0..WARP as u32).filter(|lane| at.mask >> lane & 1 == 1) {
                    self.private(block, lanes, access, at, area, lane, addresses[lane as usize])?;
                }
                Ok(())
            }
        }
    }

    #[inline(always)]
    fn global(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        site: &mut Site,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let pattern = &site.pattern;
        let width = u64::from(access.bytes * access.count);
        let origin = addresses[pattern.first as usize];
        let (low, high) = (origin.wrapping_add_signed(pattern.low), origin.wrapping_add_signed(pattern.high));
        if (origin | pattern.merged) & (width - 1) != 0 {
            return Err(self.misaligned(block, at, addresses, width));
        }
        let hit = self.memory.segment(site.allocation).is_some_and(|s| s.holds(low, high));
        if !hit {
            match self.memory.locate(low, high) {
                Some(found) => site.allocation = found,
                None => {
                    // Lanes in several allocations, or one that is wrong.
                    if at.mask.count_ones() == 1 {
                        return Err(self.out_of_bounds(block, at, pattern.first, origin, width));
                    }
                    for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
                        let mask = 1 << lane;
                        site.pattern.update(addresses, mask, width);
                        self.global(block, lanes, access, At { mask, ..at }, site, addresses)?;
                    }
                    return Ok(());
                }
            }
        }
        let bytes = width * u64::from(at.mask.count_ones());
        site.totals.add(bytes, pattern.sectors, pattern.ideal);
        if access.store && self.memory.is_constant(site.allocation) {
            return Err(self.fault(
                FaultKind::ReadOnly,
                block,
                at,
                pattern.first,
                Some(origin),
                "a store to constant memory",
            ));
        }
        self.order_global(block, lanes, access, at, site, addresses)?;
        let segment = self.memory.segment_mut(site.allocation);
        if access.store {
            // SAFETY: every lane's bytes are inside the segment, as just checked.
            unsafe { store(segment, lanes, access, at, site, addresses) };
            self.progress += 1;
            block.warps[at.warp].watch.change();
        } else {
            if !segment.all_written()
                && let Some((lane, address)) = unwritten(segment, at.mask, addresses, width)
            {
                return Err(self.unwritten(block, at, lane, address, "global"));
            }
            // SAFETY: as above.
            unsafe { load(segment, lanes, access, at, site, addresses) };
            if access.order.strong {
                let runs =
                    site.pattern.runs.iter().map(|&(begin, len)| (origin.wrapping_add_signed(begin), len));
                block.warps[at.warp].watch.look(at.pc, Some(site.allocation), segment, runs);
                self.hide(block, lanes, access, at, addresses);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn shared(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        site: &mut Site,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let pattern = &site.pattern;
        let width = u64::from(access.bytes * access.count);
        let origin = addresses[pattern.first as usize];
        let (low, high) = (origin.wrapping_add_signed(pattern.low), origin.wrapping_add_signed(pattern.high));
        if (origin | pattern.merged) & (width - 1) != 0 {
            return Err(self.misaligned(block, at, addresses, width));
        }
        if !block.shared.holds(low, high) {
            let len = block.shared.len();
            let lane = (0..WARP).filter(|lane| at.mask >> lane & 1 == 1);
            let lane =
                lane.into_iter().find(|&lane| addresses[lane].saturating_add(width) > len).unwrap_or(0);
            let hint = match addresses[lane] < window::RANK {
                true => "",
                false => " (of another block, or none: .shared::cluster)",
            };
            let what =
                format!("{width} bytes out of bounds of the block's {len} bytes of shared memory{hint}");
            return Err(self.fault(
                FaultKind::OutOfBounds,
                block,
                at,
                lane as u32,
                Some(addresses[lane]),
                &what,
            ));
        }
        let bytes = width * u64::from(at.mask.count_ones());
        site.totals.add_shared(block.away(), bytes, pattern.conflicts);
        self.order_shared(block, lanes, access, at, site, addresses)?;
        if access.store {
            // SAFETY: every lane's bytes are inside the segment, as just checked.
            unsafe { store(&mut block.shared, lanes, access, at, site, addresses) };
            self.progress += 1;
            block.warps[at.warp].watch.change();
        } else {
            if !block.shared.all_written()
                && let Some((lane, address)) = unwritten(&block.shared, at.mask, addresses, width)
            {
                return Err(self.unwritten(block, at, lane, address, "shared"));
            }
            // SAFETY: as above.
            unsafe { load(&mut block.shared, lanes, access, at, site, addresses) };
            if access.order.strong {
                let runs =
                    site.pattern.runs.iter().map(|&(begin, len)| (origin.wrapping_add_signed(begin), len));
                let watch = &mut block.warps[at.warp].watch;
                watch.look(at.pc, None, &block.shared, runs);
                if block.home != block.index {
                    // What another block has is looked at again and again.
                    watch.change();
                }
            }
        }
        Ok(())
    }

    /// One lane's access to its own memory or to the parameters.
    #[allow(clippy::too_many_arguments)]
    fn private(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        area: Area,
        lane: u32,
        address: u64,
    ) -> Result<(), Fault> {
        let width = u64::from(access.bytes * access.count);
        let (name, len) = match area {
            Area::Local => ("local memory", self.launch.kernel.local.into()),
            _ => ("parameters", self.params.len()),
        };
        if !address.is_multiple_of(width) {
            return Err(self.misaligned(block, at, &[address; WARP], width));
        }
        if address.saturating_add(width) > len {
            let what = format!("{width} bytes out of bounds of {len} bytes of {name}");
            return Err(self.fault(FaultKind::OutOfBounds, block, at, lane, Some(address), &what));
        }
        if area == Area::Param && access.store {
            return Err(self.fault(
                FaultKind::ReadOnly,
                block,
                at,
                lane,
                Some(address),
                "a store to parameters",
            ));
        }
        let written = match area {
            Area::Local => block.warps[at.warp].local[lane as usize].is_written(address, width),
            _ => true,
        };
        if !access.store && !written {
            return Err(self.unwritten(block, at, lane, address, "local"));
        }
        let segment = match area {
            Area::Local => &mut block.warps[at.warp].local[lane as usize],
            _ => &mut self.params,
        };
        let at = At { mask: 1 << lane, ..at };
        // SAFETY: the lane's bytes are inside the segment, as just checked.
        unsafe {
            if access.store {
                store(segment, lanes, access, at, &Site::default(), &[address; WARP]);
            } else {
                load(segment, lanes, access, at, &Site::default(), &[address; WARP]);
            }
        }
        Ok(())
    }

    #[cold]
    pub fn misaligned(&self, block: &Block, at: At, addresses: &[u64; WARP], width: u64) -> Fault {
        let lane = (0..WARP).filter(|lane| at.mask >> lane & 1 == 1);
        let lane = lane.into_iter().find(|&lane| !addresses[lane].is_multiple_of(width)).unwrap_or(0);
        let what = format!("an address that is no multiple of {width}");
        self.fault(FaultKind::Misaligned, block, at, lane as u32, Some(addresses[lane]), &what)
    }

    #[cold]
    pub fn out_of_bounds(&self, block: &Block, at: At, lane: u32, address: u64, width: u64) -> Fault {
        let freed = self.memory.was_freed(address);
        let kind = if freed { FaultKind::UseAfterFree } else { FaultKind::OutOfBounds };
        let what = format!("{width} bytes out of bounds{}", self.memory.hint(address));
        self.fault(kind, block, at, lane, Some(address), &what)
    }

    #[cold]
    pub fn unwritten(&self, block: &Block, at: At, lane: u32, address: u64, memory: &str) -> Fault {
        let hint = if memory == "global" { self.memory.hint(address) } else { String::new() };
        let what = format!("a read of {memory} memory that nobody has written{hint}");
        self.fault(FaultKind::Unwritten, block, at, lane, Some(address), &what)
    }
}

/// The first lane whose bytes are not all written.
fn unwritten(segment: &Segment, mask: u32, addresses: &[u64; WARP], width: u64) -> Option<(u32, u64)> {
    let mut active = (0..WARP).filter(|lane| mask >> lane & 1 == 1);
    let lane = active.find(|&lane| !segment.is_written(addresses[lane], width))?;
    Some((lane as u32, addresses[lane]))
}

/// Moves from memory to registers.
///
/// # Safety
/// Every active lane's bytes are inside the segment, and the access is the kernel's.
#[inline(always)]
unsafe fn load(
    segment: &mut Segment,
    lanes: &Lanes,
    access: &Access,
    at: At,
    site: &Site,
    addresses: &[u64; WARP],
) {
    let count = access.count as usize;
    let first = at.mask.trailing_zeros() as usize;
    let origin = addresses[first];
    let base = segment.pointer(origin);
    // SAFETY: all pointers stay inside the segment and the registers, by the caller's promise.
    unsafe {
        if access.bytes == 4 && !access.long {
            match site.pattern.shape {
                Shape::Uniform => {
                    for (k, &slot) in access.registers[..count].iter().enumerate() {
                        let value = base.cast::<u32>().add(k).read();
                        lanes.set_words(slot, at.mask, &[value; WARP]);
                    }
                }
                Shape::Contiguous if count == 1 => {
                    let to = lanes.at(access.registers[0]);
                    std::ptr::copy_nonoverlapping(base, to.cast::<u8>(), 4 * WARP);
                }
                _ if count == 4 => {
                    let to: [*mut u32; 4] = std::array::from_fn(|k| lanes.at(access.registers[k]));
                    each(at.mask, |lane| {
                        let from = base.wrapping_add((addresses[lane].wrapping_sub(origin)) as usize);
                        let values = from.cast::<[u32; 4]>().read();
                        for k in 0..4 {
                            *to[k].add(lane) = values[k];
                        }
                    });
                }
                _ => {
                    for (k, &slot) in access.registers[..count].iter().enumerate() {
                        let to = lanes.at(slot);
                        each(at.mask, |lane| {
                            let from = base.wrapping_add((addresses[lane].wrapping_sub(origin)) as usize);
                            *to.add(lane) = from.cast::<u32>().add(k).read();
                        });
                    }
                }
            }
            return;
        }
        for (k, &slot) in access.registers[..count].iter().enumerate() {
            let to = lanes.at(slot);
            each(at.mask, |lane| {
                let from = base.wrapping_add((addresses[lane].wrapping_sub(origin)) as usize);
                let value = match (access.bytes, access.signed) {
                    (1, false) => u64::from(from.add(k).read()),
                    (1, true) => from.cast::<i8>().add(k).read() as i64 as u64,
                    (2, false) => u64::from(from.cast::<u16>().add(k).read()),
                    (2, true) => from.cast::<i16>().add(k).read() as i64 as u64,
                    (4, false) => u64::from(from.cast::<u32>().add(k).read()),
                    (4, true) => from.cast::<i32>().add(k).read() as i64 as u64,
                    _ => from.cast::<u64>().add(k).read(),
                };
                if access.long {
                    to.cast::<u64>().add(lane).write(value);
                } else {
                    *to.add(lane) = value as u32;
                }
            });
        }
    }
}

/// Moves from registers to memory.
///
/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn store(
    segment: &mut Segment,
    lanes: &Lanes,
    access: &Access,
    at: At,
    site: &Site,
    addresses: &[u64; WARP],
) {
    let count = access.count as usize;
    let width = u64::from(access.bytes * access.count);
    let first = at.mask.trailing_zeros() as usize;
    let origin = addresses[first];
    let base = segment.pointer(origin);
    // SAFETY: all pointers stay inside the segment and the registers, by the caller's promise.
    unsafe {
        if access.bytes == 4 && count == 1 && !access.long && site.pattern.shape == Shape::Contiguous {
            let from = lanes.at(access.registers[0]);
            std::ptr::copy_nonoverlapping(from.cast::<u8>(), base, 4 * WARP);
        } else {
            for (k, &slot) in access.registers[..count].iter().enumerate() {
                let from = lanes.at(slot);
                each(at.mask, |lane| {
                    let to = base.wrapping_add((addresses[lane].wrapping_sub(origin)) as usize);
                    if access.bytes == 8 {
                        to.cast::<u64>().add(k).write(from.cast::<u64>().add(lane).read_unaligned());
                        return;
                    }
                    let value = if access.long { *from.add(2 * lane) } else { *from.add(lane) };
                    match access.bytes {
                        1 => to.add(k).write(value as u8),
                        2 => to.cast::<u16>().add(k).write(value as u16),
                        _ => to.cast::<u32>().add(k).write(value),
                    }
                });
            }
        }
    }
    if !segment.all_written() {
        each(at.mask, |lane| segment.mark_few(addresses[lane], width));
    }
}

/// Calls a function for each active lane.
#[inline(always)]
pub fn each(mask: u32, mut f: impl FnMut(usize)) {
    if mask == u32::MAX {
        for lane in 0..WARP {
            f(lane);
        }
        return;
    }
    let mut rest = mask;
    while rest != 0 {
        f(rest.trailing_zeros() as usize);
        rest &= rest - 1;
    }
}
