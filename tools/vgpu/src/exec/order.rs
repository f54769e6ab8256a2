//! Where execution tells the checks of order what happens.
//!
//! The idea: a request touches few runs of bytes, however many lanes it has; runs are checked, and only
//! a conflict asks which lane it was.

use super::access::each;
use super::block::Block;
use super::machine::{Machine, Site};
use super::pattern::Pattern;
use super::warp::{At, Warp};
use crate::check::{BlockOrder, Cell, Clash, Conflict, GridOrder, How, Mark, NOT_YET, Scope, WORD};
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{Access, Area, Atomic, Copy, Kind, Order};
use crate::isa::lanes::{Lanes, WARP};
use crate::memory::Touch;

/// Whether a cell's access is known to the warp: by its own program, or by what it has heard.
#[inline(always)]
pub fn known(order: &mut GridOrder, block: &BlockOrder, warp: &Warp, number: usize, cell: Cell) -> bool {
    if cell.warp() == block.warps.0 + number as u32 {
        return cell.time() < block.waited(number) || !warp.apart(cell.path());
    }
    order.ordered(block, number, cell)
}

/// How an access to global memory goes.
#[inline(always)]
fn how(access: &Access) -> How {
    match (access.nc, access.handover, access.order.strong) {
        (true, ..) => How::Nc,
        (_, true, _) => How::Handover,
        (_, _, true) => How::Strong,
        _ => How::Weak,
    }
}

/// What the names of addresses differ by that only a cluster uses: no address has this bit.
const ONLY_CLUSTER: u64 = 1 << 47;

impl Machine<'_> {
    /// A request to global memory: races, distinct bytes, and what it synchronises.
    #[inline(always)]
    pub fn order_global(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        site: &mut Site,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let origin = addresses[site.pattern.first as usize];
        if self.distinct {
            let mark = match (access.store, access.nc) {
                (true, _) => Mark::Store,
                (_, true) => Mark::NcLoad,
                _ => Mark::Load,
            };
            self.touch(site, origin, mark);
        }
        if !self.order.on {
            return Ok(());
        }
        let touch = if access.store { Touch::Write } else { Touch::Read };
        self.note(block, at, touch, &site.pattern, addresses);
        let base = self.memory.segment(site.allocation).map_or(0, |s| s.base());
        let Machine { memory, order, late, .. } = self;
        let warp = &block.warps[at.warp];
        let path = warp.stack.last().map_or(0, |p| p.serial);
        let who = order.who(&block.order, at.warp, path, how(access), access.site, false);
        let (segment, shadow) = memory.segment_and_shadow(site.allocation);
        let mut ordered = |cell| known(order, &block.order, warp, at.warp, cell);
        let mut found = Ok(());
        for &(begin, len) in &site.pattern.runs {
            let offset = origin.wrapping_add_signed(begin) - base;
            if access.handover && !access.store {
                late.choose(shadow, (base, offset, len), &who, &mut ordered);
            }
            found = if access.store {
                let old = if access.handover { segment.bytes(base + offset, len) } else { &[] };
                shadow.write(offset, len, &who, old, &mut ordered)
            } else {
                shadow.read(offset, len, &who, &mut ordered)
            };
            if found.is_err() {
                break;
            }
        }
        if let Err(conflict) = found {
            return Err(self.race(block, at, conflict, base, addresses, !access.store));
        }
        if access.store && site.pattern.overlap {
            self.same_values(block, lanes, access, at, addresses)?;
        }
        if access.store && block.awaited.any() {
            self.has_read(block, at, &site.pattern, addresses)?;
        }
        if access.handover {
            // A value that is its own flag says nothing of any other.
            return if access.store { self.arrives(block, lanes, access, at, addresses) } else { Ok(()) };
        }
        if access.order.strong {
            self.synchronise(block, at, access.order, !access.store, access.store, true, addresses, 0);
        }
        Ok(())
    }

    /// A request to shared memory.
    #[inline(always)]
    pub fn order_shared(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        site: &mut Site,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        if !self.order.on {
            return Ok(());
        }
        let strong = access.order.strong;
        let own =
            self.check_shared(block, at, &site.pattern, addresses, access.store, strong, access.site)?;
        if u64::from(access.bytes) >= WORD && !strong && (own || access.store) {
            let bytes = u64::from(access.bytes * access.count);
            self.in_step(block, at, addresses, bytes, access.site, own, access.store)?;
        }
        if access.store && site.pattern.overlap {
            self.same_values(block, lanes, access, at, addresses)?;
        }
        if strong {
            let key = (block.home + 1) << 48;
            self.synchronise(block, at, access.order, !access.store, access.store, true, addresses, key);
        }
        Ok(())
    }

    /// Lanes of one warp that take from each other without having met; `own` tells whether the warp has
    /// stored there since.
    #[allow(clippy::too_many_arguments)]
    fn in_step(
        &mut self,
        block: &mut Block,
        at: At,
        addresses: &[u64; WARP],
        bytes: u64,
        site: u32,
        own: bool,
        store: bool,
    ) -> Result<(), Fault> {
        if own {
            let (met, warp) = (block.order.met(at.warp), block.in_cluster(at.warp));
            for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
                let other = block.steps.other(addresses[lane], bytes, met, warp, lane as u32);
                if let Some((address, stored)) = other {
                    let what = format!(
                        "a race: this {} after lane {}'s store of {}, and the lanes have not met since \
                         (bar.warp.sync)",
                        if store { "store" } else { "load" },
                        stored.lane,
                        self.line(stored.site.into())
                    );
                    return Err(self.fault(FaultKind::Race, block, at, lane as u32, Some(address), &what));
                }
            }
        }
        if store {
            let (time, warp) = (block.order.time, block.in_cluster(at.warp));
            let steps = &mut block.steps;
            each(at.mask, |lane| steps.store(addresses[lane], bytes, time, warp, site, lane as u32));
        }
        Ok(())
    }

    /// Where a memory instruction stands.
    fn line(&self, site: u32) -> String {
        let kernel = self.launch.kernel;
        match kernel.site_code.get(site as usize) {
            Some(&pc) if site < Cell::SITES => {
                let instruction = &kernel.code[pc as usize];
                format!("PTX line {} (source line {})", instruction.line, instruction.source)
            }
            _ => "an unknown line".to_string(),
        }
    }

    /// Whether the warp itself was there since its lanes met, or a race.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    pub fn check_shared(
        &mut self,
        block: &mut Block,
        at: At,
        pattern: &Pattern,
        addresses: &[u64; WARP],
        write: bool,
        strong: bool,
        site: u32,
    ) -> Result<bool, Fault> {
        let origin = addresses[pattern.first as usize];
        if block.awaited.any() {
            self.landed(block, at, pattern, addresses)?;
        }
        let order = &mut self.order;
        let warp = &block.warps[at.warp];
        let path = warp.stack.last().map_or(0, |p| p.serial);
        let how = if strong { How::Strong } else { How::Weak };
        let who = order.who(&block.order, at.warp, path, how, site, true);
        let mut own = false;
        let mut ordered = |cell: Cell| {
            own |= cell.warp() == who.cell.warp();
            known(order, &block.order, warp, at.warp, cell)
        };
        let mut found = Ok(());
        for &(begin, len) in &pattern.runs {
            let offset = origin.wrapping_add_signed(begin);
            found = if write {
                block.shadow.write(offset, len, &who, &[], &mut ordered)
            } else {
                block.shadow.read(offset, len, &who, &mut ordered)
            };
            if found.is_err() {
                break;
            }
        }
        match found {
            Ok(()) => Ok(own),
            Err(conflict) => Err(self.race(block, at, conflict, 0, addresses, !write)),
        }
    }

    /// An atomic operation: a write that does not race with its like.
    pub fn order_atomic(
        &mut self,
        block: &mut Block,
        atomic: &Atomic,
        at: At,
        area: Area,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        if !self.order.on {
            return Ok(());
        }
        let site = self.take_site(atomic.site);
        let done = self.check_atomic(block, atomic, at, area, addresses, &site);
        self.put_site(atomic.site, site);
        done?;
        let key = if area == Area::Shared { (block.home + 1) << 48 } else { 0 };
        self.synchronise(block, at, atomic.order, true, true, false, addresses, key);
        Ok(())
    }

    fn check_atomic(
        &mut self,
        block: &mut Block,
        atomic: &Atomic,
        at: At,
        area: Area,
        addresses: &[u64; WARP],
        site: &Site,
    ) -> Result<(), Fault> {
        if area == Area::Shared {
            return self.check_shared(block, at, &site.pattern, addresses, true, true, atomic.site).map(drop);
        }
        self.note(block, at, Touch::Atomic, &site.pattern, addresses);
        let origin = addresses[site.pattern.first as usize];
        for &(begin, len) in &site.pattern.runs {
            let address = origin.wrapping_add_signed(begin);
            let Some(k) = self.memory.locate(address, address + len) else { continue };
            self.check_one(block, at, k, (address, len), true, true, atomic.site, addresses)?;
        }
        Ok(())
    }

    /// One run of bytes in global memory, of an atomic operation or, if it is no write, of a copy.
    #[allow(clippy::too_many_arguments)]
    fn check_one(
        &mut self,
        block: &mut Block,
        at: At,
        allocation: usize,
        (address, len): (u64, u64),
        write: bool,
        strong: bool,
        site: u32,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let base = self.memory.segment(allocation).map_or(0, |s| s.base());
        let Machine { memory, order, .. } = self;
        let warp = &block.warps[at.warp];
        let path = warp.stack.last().map_or(0, |p| p.serial);
        let how = if strong { How::Strong } else { How::Weak };
        let who = order.who(&block.order, at.warp, path, how, site, false);
        let mut ordered = |cell| known(order, &block.order, warp, at.warp, cell);
        let shadow = memory.shadow_mut(allocation);
        let found = if write {
            shadow.write(address - base, len, &who, &[], &mut ordered)
        } else {
            shadow.read(address - base, len, &who, &mut ordered)
        };
        found.map_err(|conflict| self.race(block, at, conflict, base, addresses, !write))
    }

    /// The read of an asynchronous copy.
    pub fn order_copy_read(
        &mut self,
        block: &mut Block,
        copy: &Copy,
        at: At,
        allocation: usize,
        from: u64,
        bytes: u64,
    ) -> Result<(), Fault> {
        if self.distinct {
            let mut site = self.take_site(copy.sites[0]);
            let (base, launch) =
                (self.memory.segment(allocation).map_or(0, |s| s.base()), self.memory.launch());
            let new = self.memory.shadow_mut(allocation).touch(from - base, bytes, launch, Mark::Load);
            site.totals.global.distinct_bytes += new;
            self.put_site(copy.sites[0], site);
        }
        if !self.order.on {
            return Ok(());
        }
        if self.memory.noted.is_some() {
            let mut pattern = Pattern::default();
            pattern.update(&[from; WARP], at.mask, bytes);
            self.note(block, at, Touch::Read, &pattern, &[from; WARP]);
        }
        self.check_one(block, at, allocation, (from, bytes), false, false, copy.sites[0], &[from; WARP])
    }

    /// The write of an asynchronous copy, when it lands.
    pub fn order_landing(&mut self, block: &mut Block, at: At, to: u64, bytes: u64) -> Result<(), Fault> {
        if !self.order.on {
            return Ok(());
        }
        let Kind::Copy(copy) = &self.launch.kernel.code[at.pc as usize].kind else { return Ok(()) };
        let mut pattern = Pattern::default();
        pattern.update(&[to; WARP], at.mask, bytes);
        let own = self.check_shared(block, at, &pattern, &[to; WARP], true, false, copy.sites[1])?;
        self.in_step(block, at, &[to; WARP], bytes, copy.sites[1], own, true)
    }

    fn touch(&mut self, site: &mut Site, origin: u64, mark: Mark) {
        let base = self.memory.segment(site.allocation).map_or(0, |s| s.base());
        let launch = self.memory.launch();
        let shadow = self.memory.shadow_mut(site.allocation);
        for &(begin, len) in &site.pattern.runs {
            let offset = origin.wrapping_add_signed(begin) - base;
            site.totals.global.distinct_bytes += shadow.touch(offset, len, launch, mark);
        }
    }

    /// Whether lanes that store to one address store one value.
    #[cold]
    fn same_values(
        &self,
        block: &Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let mut stored: Vec<(u64, u64, u32)> = Vec::new();
        for (k, &slot) in access.registers[..access.count as usize].iter().enumerate() {
            // SAFETY: the register is one of this kernel.
            let values = unsafe { lanes.values(slot, access.long) };
            let kept = u64::MAX >> (64 - 8 * access.bytes);
            each(at.mask, |lane| {
                let address = addresses[lane] + k as u64 * u64::from(access.bytes);
                stored.push((address, values[lane] & kept, lane as u32));
            });
        }
        stored.sort_unstable();
        for pair in stored.windows(2) {
            let [(address, value, lane), (next, other, by)] = [pair[0], pair[1]];
            if address == next && value != other {
                let what = format!("a race: lanes {lane} and {by} store different values to one address");
                return Err(self.fault(FaultKind::Race, block, at, by, Some(address), &what));
            }
        }
        Ok(())
    }

    /// What a strong access or atomic operation hands over and takes, for each of its addresses.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    fn synchronise(
        &mut self,
        block: &mut Block,
        at: At,
        order: Order,
        looks: bool,
        stores: bool,
        replaces: bool,
        addresses: &[u64; WARP],
        key: u64,
    ) {
        // What does not reach beyond block or cluster goes by another name, which only they use.
        let key = match order.scope {
            Scope::Block if block.away() => (block.index + 1) << 48 | ONLY_CLUSTER ^ (block.home + 1) << 24,
            Scope::Block => (block.index + 1) << 48,
            Scope::Cluster if key == 0 => (self.cluster.index + 1) << 48 | ONLY_CLUSTER,
            _ => key,
        };
        if key == 0 && looks && order.acquire {
            self.synchronised[1] += 1;
        }
        let mut last = None;
        each(at.mask, |lane| {
            let address = addresses[lane] ^ key;
            if last == Some(address) {
                return;
            }
            last = Some(address);
            if looks {
                self.order.look(&mut block.order, at.warp, address, order.acquire);
            }
            if stores {
                self.order.publish(
                    &mut block.order,
                    at.warp,
                    address,
                    (order.release, order.scope),
                    replaces,
                );
            }
        });
    }

    /// The first of two accesses that nothing orders, to the memory of a block of this order.
    #[cold]
    pub fn earlier(&self, order: &BlockOrder, conflict: Conflict) -> String {
        let earlier = conflict.earlier;
        let line = self.line(earlier.site());
        if self.order.is_agent(earlier.warp()) {
            return format!("the st.async of {line}");
        }
        let per_block = (order.warps.1 - order.warps.0).max(1);
        let [x, y, z] = super::control::place(u64::from(earlier.warp() / per_block), self.launch.grid);
        let name = if conflict.wrote { "store" } else { "load" };
        format!("the {name} of {line} by warp {} of block ({x},{y},{z})", earlier.warp() % per_block)
    }

    /// Two accesses that nothing orders.
    #[cold]
    fn race(
        &self,
        block: &Block,
        at: At,
        conflict: Conflict,
        base: u64,
        addresses: &[u64; WARP],
        read: bool,
    ) -> Fault {
        let address = base + conflict.offset;
        // The lane whose address is the last at or below the word.
        let lane = (0..WARP).filter(|lane| at.mask >> lane & 1 == 1);
        let lane = lane.min_by_key(|&lane| address.wrapping_sub(addresses[lane])).unwrap_or(0);
        let other = self.earlier(&block.order, conflict);
        let this = if read { "load" } else { "store" };
        let (kind, what) = match conflict.clash {
            Clash::Race => (FaultKind::Race, format!("a race: nothing orders this {this} after {other}")),
            Clash::NonCoherent => {
                let what =
                    format!("this {this} and {other}: the launch writes what it reads with ld.global.nc");
                (FaultKind::NonCoherent, what)
            }
            Clash::Mixed => {
                let what = format!(
                    "this {this} and {other}, which nothing orders: one hands a value over (.relaxed.gpu of .f32), \
                     the other does not"
                );
                (FaultKind::Handover, what)
            }
            Clash::Reset => {
                let (store, load) = if read { (&*other, "this load") } else { ("this store", &*other) };
                let what = format!(
                    "a missing reset: {store} replaced a value, not {NOT_YET:#x}, and {load}, which nothing \
                     orders, may take the old one for the new"
                );
                (FaultKind::Handover, what)
            }
        };
        self.fault(kind, block, at, lane as u32, Some(address), &what)
    }
}
