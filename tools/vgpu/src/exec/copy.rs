//! Copies from global to shared memory that land later.
//!
//! The idea: what is read is read at once, and kept until the thread waits for it. Until then nobody may touch the place
//! where it is to land, and what touched that before must be over.

use super::access::{addresses, resolve};
use super::block::Block;
use super::machine::Machine;
use super::pattern::Pattern;
use super::warp::{At, Group, Landing, Warp};
use crate::check::WORD;
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{Area, Copy};
use crate::isa::lanes::{Lanes, WARP};

impl Warp {
    /// Its copies under way.
    fn landings(&self) -> impl Iterator<Item = &Landing> {
        self.copies.iter().chain(self.groups.iter().flat_map(|group| &group.landings))
    }

    /// Makes the copies of some lanes a group.
    pub fn commit(&mut self, lanes: u32) {
        let mine = |landing: &mut Landing| lanes >> landing.lane & 1 == 1;
        let landings = self.copies.extract_if(.., mine).collect();
        self.groups.push_back(Group { lanes, landings });
    }

    /// Takes what lands if some lanes wait for all but their last groups.
    fn awaited(&mut self, lanes: u32, left: u32) -> Vec<Landing> {
        let mut later = [0; WARP];
        for group in self.groups.iter_mut().rev() {
            for (lane, later) in later.iter_mut().enumerate().filter(|(lane, _)| lanes >> lane & 1 == 1) {
                *later += group.lanes >> lane & 1;
                if *later > left {
                    group.lanes &= !(1 << lane);
                }
            }
        }
        let mut all = Vec::new();
        for group in &mut self.groups {
            let lanes = group.lanes;
            all.extend(group.landings.extract_if(.., |landing| lanes >> landing.lane & 1 == 0));
        }
        self.groups.retain(|group| group.lanes != 0);
        all
    }
}

impl Machine<'_> {
    /// `cp.async`: reads now, and keeps what it read until it lands.
    pub fn copy(&mut self, block: &mut Block, lanes: &Lanes, copy: &Copy, at: At) -> Result<(), Fault> {
        // SAFETY: the operands are registers of this kernel.
        let (mut to, from, present) = unsafe {
            let present = copy.present.map_or([copy.bytes; WARP], |slot| lanes.words(slot));
            (addresses(lanes, &copy.to), addresses(lanes, &copy.from), present)
        };
        to = to.map(|a| if resolve(a).0 == Area::Shared { resolve(a).1 } else { a });
        let width = u64::from(copy.bytes);
        let mut sites = copy.sites.map(|site| self.take_site(site));
        sites[0].pattern.update(&from, at.mask, width);
        sites[1].pattern.update(&to, at.mask, width);
        let bytes = width * u64::from(at.mask.count_ones());
        let [load, store] = &mut sites;
        load.totals.add(bytes, load.pattern.sectors, load.pattern.ideal);
        store.totals.add_shared(false, bytes, store.pattern.conflicts);
        for (site, memory) in copy.sites.into_iter().zip(sites) {
            self.put_site(site, memory);
        }
        for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
            let one = At { mask: 1 << lane, ..at };
            if to[lane] % width != 0 {
                return Err(self.misaligned(block, one, &to, width));
            }
            if from[lane] % width != 0 {
                return Err(self.misaligned(block, one, &from, width));
            }
            if !block.shared.holds(to[lane], to[lane].saturating_add(width)) {
                let what = format!(
                    "a copy of {width} bytes out of bounds of {} of shared memory",
                    block.shared.len()
                );
                let kind = FaultKind::OutOfBounds;
                return Err(self.fault(kind, block, at, lane as u32, Some(to[lane]), &what));
            }
            let mut data = [0; 16];
            let count = u64::from(present[lane].min(copy.bytes));
            if count > 0 {
                let Some(k) = self.memory.locate(from[lane], from[lane].saturating_add(count)) else {
                    return Err(self.out_of_bounds(block, at, lane as u32, from[lane], count));
                };
                self.order_copy_read(block, copy, one, k, from[lane], count)?;
                let segment = self.memory.segment_mut(k);
                if let Some(first) = segment.first_unwritten(from[lane], count) {
                    return Err(self.unwritten(block, at, lane as u32, first, "global"));
                }
                data[..count as usize].copy_from_slice(segment.bytes(from[lane], count));
            }
            let (to, from) = (to[lane], (from[lane], count));
            let landing = Landing { to, from, data, bytes: copy.bytes, lane: lane as u32, pc: at.pc };
            self.order_landing(block, one, landing.to, width)?;
            block.awaited.add(landing.to, width, landing.from);
            block.warps[at.warp].copies.push(landing);
        }
        Ok(())
    }

    /// Lets all but the last groups of copies land.
    pub fn land(&mut self, block: &mut Block, at: At, left: u32) -> Result<(), Fault> {
        for landing in block.warps[at.warp].awaited(at.mask, left) {
            let bytes = u64::from(landing.bytes);
            let of = At { pc: landing.pc, mask: 1 << landing.lane, ..at };
            block.awaited.remove(landing.to, bytes);
            self.order_landing(block, of, landing.to, bytes)?;
            let data = &landing.data[..landing.bytes as usize];
            block.shared.bytes_mut(landing.to, bytes).copy_from_slice(data);
            block.shared.mark_written(landing.to, bytes);
        }
        Ok(())
    }

    /// Checks that no copy under way of the block reads what the block stores.
    #[inline(never)]
    pub fn has_read(
        &self,
        block: &Block,
        at: At,
        pattern: &Pattern,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let origin = addresses[pattern.first as usize];
        let runs = pattern.runs.iter().map(|&(begin, len)| (origin.wrapping_add_signed(begin), len));
        for (address, len) in runs.filter(|&(address, len)| block.awaited.may_read(address, len)) {
            let read = |l: &&Landing| l.from.0 < address + len && address < l.from.0 + l.from.1;
            let Some(landing) = block.warps.iter().flat_map(Warp::landings).find(read) else { continue };
            let line = self.launch.kernel.code[landing.pc as usize].line;
            let first = landing.from.0.max(address);
            let lane = (0..WARP).filter(|lane| at.mask >> lane & 1 == 1);
            let lane = lane.min_by_key(|&lane| first.wrapping_sub(addresses[lane])).unwrap_or(0);
            let what = format!(
                "a race: the copy of PTX line {line} (cp.async) from here is under way, and has not been waited for"
            );
            return Err(self.fault(FaultKind::Race, block, at, lane as u32, Some(first), &what));
        }
        Ok(())
    }

    /// Checks that no copy under way is to write what is touched.
    #[inline(never)]
    pub fn landed(
        &self,
        block: &Block,
        at: At,
        pattern: &Pattern,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        let origin = addresses[pattern.first as usize];
        let early = |&(begin, len): &(i64, u64)| block.awaited.first(origin.wrapping_add_signed(begin), len);
        match pattern.runs.iter().find_map(early) {
            Some(address) => Err(self.too_early(block, at, addresses, address)),
            None => Ok(()),
        }
    }

    /// A touch of what a copy under way is to write.
    #[cold]
    fn too_early(&self, block: &Block, at: At, addresses: &[u64; WARP], address: u64) -> Fault {
        let mut landings = block.warps.iter().filter(|_| !block.away()).flat_map(Warp::landings);
        let found = landings.find(|l| l.to < address + WORD && address < l.to + u64::from(l.bytes));
        let line = found.map_or(String::new(), |landing| {
            format!(" of PTX line {}", self.launch.kernel.code[landing.pc as usize].line)
        });
        let lane = (0..WARP).filter(|lane| at.mask >> lane & 1 == 1);
        let lane = lane.min_by_key(|&lane| address.wrapping_sub(addresses[lane])).unwrap_or(0);
        let what =
            format!("a race: the copy{line} (cp.async) to here is under way, and has not been waited for");
        self.fault(FaultKind::Race, block, at, lane as u32, Some(address), &what)
    }
}
