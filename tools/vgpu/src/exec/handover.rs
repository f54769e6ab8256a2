//! Values that are their own flags, in the registers of who reads them.
//!
//! The idea: a load has brought everything that is in memory; what is shown late is taken back afterwards.

use super::access::each;
use super::block::Block;
use super::machine::Machine;
use super::warp::At;
use crate::check::{NOT_YET, WORD};
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::Access;
use crate::isa::lanes::{Lanes, WARP};

impl Machine<'_> {
    /// Takes back what a load has brought too early; the warp has then not looked in vain.
    pub fn hide(
        &mut self,
        block: &mut Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        addresses: &[u64; WARP],
    ) {
        if self.late.words.is_empty() {
            return;
        }
        for (k, &slot) in access.registers[..access.count as usize].iter().enumerate() {
            each(at.mask, |lane| {
                if self.late.words.contains(&(addresses[lane] + k as u64 * WORD)) {
                    // SAFETY: the register is one of this kernel, at least as wide as a word.
                    unsafe { *lanes.at(slot).add(if access.long { 2 * lane } else { lane }) = NOT_YET };
                }
            });
        }
        self.late.words.clear();
        block.warps[at.warp].watch.change();
    }

    /// Whether what is handed over differs from what stands for "not yet".
    pub fn arrives(
        &self,
        block: &Block,
        lanes: &Lanes,
        access: &Access,
        at: At,
        addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        for (k, &slot) in access.registers[..access.count as usize].iter().enumerate() {
            // SAFETY: the register is one of this kernel.
            let values = unsafe { lanes.values(slot, access.long) };
            let never = (0..WARP).find(|&lane| at.mask >> lane & 1 == 1 && values[lane] as u32 == NOT_YET);
            if let Some(lane) = never {
                let address = addresses[lane] + k as u64 * WORD;
                let what = format!("a store of {NOT_YET:#x}, which stands for \"not yet\": it never arrives");
                return Err(self.fault(FaultKind::Handover, block, at, lane as u32, Some(address), &what));
            }
        }
        Ok(())
    }
}
