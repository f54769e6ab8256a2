//! Values that are their own flags.
//!
//! The idea: a store reaches others word by word, in whatever order, and nothing tells when but the words
//! themselves. Here a store is there at once; so, with a seed, some words are shown late to who looks first.
//! Who takes one word for the flag of another then sees "not yet" where it expects a value.

use super::access::each;
use super::block::Block;
use super::machine::Machine;
use super::run::Random;
use super::warp::At;
use crate::check::{Cell, NOT_YET, Shadow, WORD, Who};
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::Access;
use crate::isa::lanes::{Lanes, WARP};

/// One in so many words is late.
const LATE: u64 = 4;

/// Which words are not shown yet.
#[derive(Debug)]
pub struct Late {
    random: Option<Random>,
    /// The addresses of those of the load at hand.
    words: Vec<u64>,
}

impl Late {
    /// With a seed, or never.
    pub fn new(seed: Option<u64>) -> Late {
        Late { random: seed.map(Random::new), words: Vec::new() }
    }

    /// Chooses among the words of a load, at an offset of a segment. What somebody has seen is never late
    /// again, nor what the warp knows to have come before.
    pub fn choose(
        &mut self,
        shadow: &Shadow,
        (base, offset, bytes): (u64, u64, u64),
        who: &Who,
        ordered: &mut impl FnMut(Cell) -> bool,
    ) {
        let Some(random) = &mut self.random else { return };
        for (word, writer) in shadow.fresh(offset, bytes, who.start) {
            if random.below(LATE) == 0 && !who.follows(writer) && !ordered(writer) {
                self.words.push(base + word);
            }
        }
    }
}

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
            let values = unsafe {
                if access.long { lanes.longs(slot).map(|long| long as u32) } else { lanes.words(slot) }
            };
            let never = (0..WARP).find(|&lane| at.mask >> lane & 1 == 1 && values[lane] == NOT_YET);
            if let Some(lane) = never {
                let address = addresses[lane] + k as u64 * WORD;
                let what = format!("a store of {NOT_YET:#x}, which stands for \"not yet\": it never arrives");
                return Err(self.fault(FaultKind::Handover, block, at, lane as u32, Some(address), &what));
            }
        }
        Ok(())
    }
}
