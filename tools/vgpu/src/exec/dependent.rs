//! Launches that may begin before the launch before them has ended (`griddepcontrol`).
//!
//! The idea: launches run one after the other here. So what threads touch before they have waited is noted apart, and
//! the driver compares it with what the launch before has touched.

use super::block::Block;
use super::machine::Machine;
use super::pattern::Pattern;
use super::warp::At;
use crate::isa::lanes::WARP;
use crate::memory::Touch;

impl Machine<'_> {
    /// `griddepcontrol.wait`: from now on its threads come after the launch before.
    pub fn wait_for_launch(&mut self, block: &mut Block, at: At) {
        block.warps[at.warp].follows |= at.mask;
        if let Some(noted) = &mut self.memory.noted {
            noted.waited = true;
        }
    }

    /// `griddepcontrol.launch_dependents`: the next launch may begin, as far as its threads know.
    pub fn launch_dependents(&mut self, block: &Block, at: At) {
        if let Some(noted) = &mut self.memory.noted {
            noted.hasty |= at.mask & !block.warps[at.warp].follows != 0;
        }
    }

    /// Notes a request to global memory, if that is asked for.
    #[inline(always)]
    pub fn note(&mut self, block: &Block, at: At, touch: Touch, pattern: &Pattern, addresses: &[u64; WARP]) {
        if self.memory.noted.is_some() {
            self.note_request(block, at, touch, pattern, addresses);
        }
    }

    /// Apart, so that whoever notes nothing stays short.
    #[inline(never)]
    fn note_request(
        &mut self,
        block: &Block,
        at: At,
        touch: Touch,
        pattern: &Pattern,
        addresses: &[u64; WARP],
    ) {
        let Some(noted) = &mut self.memory.noted else { return };
        let origin = addresses[pattern.first as usize];
        let runs = pattern.runs.iter().map(|&(begin, len)| (origin.wrapping_add_signed(begin), len));
        noted.touched.add(touch, runs.clone());
        let Some(early) = &mut noted.early else { return };
        match at.mask & !block.warps[at.warp].follows {
            0 => {}
            lanes if lanes == at.mask => early.add(touch, runs),
            // Of the request's lanes some have waited.
            lanes => {
                let each = (0..WARP).filter(|lane| lanes >> lane & 1 == 1);
                early.add(touch, each.map(|lane| (addresses[lane], pattern.width)));
            }
        }
    }
}
