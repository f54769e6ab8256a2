//! Exchange of values between the lanes of a warp.
//!
//! The idea: all lanes named take part at once, or it is a fault; then each is a function of an array.

use super::block::Block;
use super::machine::Machine;
use super::warp::At;
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{AtomicKind, Exchange, ExchangeKind, Shuffle, ShuffleMode};
use crate::isa::lanes::{Lanes, WARP};

impl Machine<'_> {
    /// `shfl.sync`
    pub fn shuffle(&mut self, block: &Block, lanes: &Lanes, shuffle: &Shuffle, at: At) -> Result<(), Fault> {
        self.named(block, lanes, shuffle.members, at)?;
        // SAFETY: the operands are registers of this kernel.
        let (values, picks, clamps) =
            unsafe { (lanes.words(shuffle.value), lanes.words(shuffle.lane), lanes.words(shuffle.clamp)) };
        let mut results = values;
        let mut valid = 0;
        for lane in (0..WARP as u32).filter(|lane| at.mask >> lane & 1 == 1) {
            let (pick, control) = (picks[lane as usize] & 31, clamps[lane as usize]);
            let (clamp, segment) = (control & 31, control >> 8 & 31);
            let highest = (lane & segment) | (clamp & !segment);
            let lowest = lane & segment;
            let (from, inside) = match shuffle.mode {
                ShuffleMode::Up => (lane.wrapping_sub(pick), lane as i32 - pick as i32 >= highest as i32),
                ShuffleMode::Down => (lane + pick, lane + pick <= highest),
                ShuffleMode::Butterfly => (lane ^ pick, (lane ^ pick) <= highest),
                ShuffleMode::Index => {
                    let from = lowest | (pick & !segment);
                    (from, from <= highest)
                }
            };
            let from = if inside { from } else { lane };
            if at.mask >> from & 1 == 0 {
                let what = format!("a shuffle reads lane {from}, which does not take part");
                return Err(self.fault(FaultKind::DivergentBarrier, block, at, lane, None, &what));
            }
            results[lane as usize] = values[from as usize];
            valid |= u32::from(inside) << lane;
        }
        // SAFETY: as above.
        unsafe {
            lanes.set_words(shuffle.result, at.mask, &results);
            lanes.set_mask(shuffle.valid, valid);
        }
        Ok(())
    }

    /// Votes, matches and reductions.
    pub fn exchange(&mut self, block: &Block, lanes: &Lanes, e: &Exchange, at: At) -> Result<(), Fault> {
        if let Some(members) = e.members {
            self.named(block, lanes, members, at)?;
        }
        let mask = at.mask;
        let active = |lane: &usize| mask >> lane & 1 == 1;
        // SAFETY: the operands are registers of this kernel, of the kind's widths.
        unsafe {
            let spread = |yes: bool| if yes { u32::MAX } else { 0 };
            match e.kind {
                ExchangeKind::All | ExchangeKind::Any | ExchangeKind::Uniform => {
                    let votes = lanes.mask(e.value) & mask;
                    let yes = match e.kind {
                        ExchangeKind::All => votes == mask,
                        ExchangeKind::Any => votes != 0,
                        _ => votes == mask || votes == 0,
                    };
                    lanes.set_mask(e.result, spread(yes));
                }
                ExchangeKind::Ballot => {
                    lanes.set_words(e.result, mask, &[lanes.mask(e.value) & mask; WARP]);
                }
                ExchangeKind::ActiveMask => lanes.set_words(e.result, mask, &[mask; WARP]),
                ExchangeKind::Elect => {
                    let leader = mask.trailing_zeros();
                    lanes.set_words(e.result, mask, &[leader; WARP]);
                    lanes.set_mask(e.predicate, 1 << leader);
                }
                ExchangeKind::MatchAny | ExchangeKind::MatchAll => {
                    let values = lanes.values(e.value, e.long);
                    let same = |lane: usize| {
                        (0..WARP)
                            .filter(active)
                            .filter(|&k| values[k] == values[lane])
                            .fold(0, |m, k| m | 1 << k)
                    };
                    if e.kind == ExchangeKind::MatchAny {
                        let results: [u32; WARP] = std::array::from_fn(same);
                        lanes.set_words(e.result, mask, &results);
                    } else {
                        let all = same(mask.trailing_zeros() as usize) == mask;
                        lanes.set_words(e.result, mask, &[if all { mask } else { 0 }; WARP]);
                        lanes.set_mask(e.predicate, spread(all));
                    }
                }
                ExchangeKind::Reduce(kind) => {
                    let values = lanes.words(e.value);
                    let reduced =
                        (0..WARP).filter(active).map(|lane| values[lane]).reduce(|a, b| match kind {
                            AtomicKind::Add => a.wrapping_add(b),
                            AtomicKind::MinS => (a as i32).min(b as i32) as u32,
                            AtomicKind::MaxS => (a as i32).max(b as i32) as u32,
                            AtomicKind::MinU => a.min(b),
                            AtomicKind::MaxU => a.max(b),
                            AtomicKind::And => a & b,
                            AtomicKind::Or => a | b,
                            _ => a ^ b,
                        });
                    lanes.set_words(e.result, mask, &[reduced.unwrap_or(0); WARP]);
                }
            }
        }
        Ok(())
    }
}
