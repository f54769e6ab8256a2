//! From virtual registers to places in a small register file.
//!
//! The idea: a compiler numbers its registers without end, but few are live at once, and a register
//! file that stays in the processor's first cache is what makes execution fast. A register occupies its
//! place from the first to the last instruction where it is live; that is coarse, and quick to find.

use super::flow::Block;
use crate::isa::instruction::{Instruction, Kind, Role};
use crate::isa::lanes::{Slot, Width};

/// The register file's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Words it takes for a warp.
    pub words: u32,
    /// 32-bit registers live at once at most.
    pub pressure: u32,
}

/// Sets of virtual registers, one after another.
struct Sets {
    words: usize,
    bits: Vec<u64>,
}

impl Sets {
    fn new(count: usize, registers: usize) -> Sets {
        let words = registers.div_ceil(64);
        Sets { words, bits: vec![0; count * words] }
    }

    fn get(&self, set: usize) -> &[u64] {
        &self.bits[set * self.words..(set + 1) * self.words]
    }

    fn add(&mut self, set: usize, register: u32) {
        self.bits[set * self.words + register as usize / 64] |= 1 << (register % 64);
    }

    fn has(&self, set: usize, register: u32) -> bool {
        self.bits[set * self.words + register as usize / 64] >> (register % 64) & 1 == 1
    }
}

/// Replaces virtual registers by places.
pub fn allocate(code: &mut [Instruction], blocks: &[Block], widths: &[Width]) -> File {
    let intervals = intervals(code, blocks, widths.len());
    let (places, file) = places(&intervals, widths);
    for instruction in code {
        instruction.visit(&mut |slot, _| {
            if !slot.is_constant() {
                *slot = Slot(places[slot.0 as usize]);
            }
        });
    }
    file
}

/// From where to where each register is live, in half instructions: sources are read at even ones,
/// results written at odd ones.
fn intervals(code: &mut [Instruction], blocks: &[Block], registers: usize) -> Vec<Option<(u32, u32)>> {
    let (mut used, mut defined) = (Sets::new(blocks.len(), registers), Sets::new(blocks.len(), registers));
    for (b, block) in blocks.iter().enumerate() {
        for at in block.range.0..block.range.1 {
            let instruction = &mut code[at as usize];
            // A guarded result keeps the old value in some lanes.
            let guarded = instruction.guard != Slot::TRUE;
            let mut results = [u32::MAX; 10];
            let mut count = 0;
            instruction.visit(&mut |slot, role| match role {
                _ if slot.is_constant() => {}
                Role::Use if !defined.has(b, slot.0) => used.add(b, slot.0),
                Role::Use => {}
                Role::Define => {
                    results[count] = slot.0;
                    count += 1;
                }
            });
            if !guarded {
                results[..count].iter().for_each(|&r| defined.add(b, r));
            }
        }
    }
    // Live at each block's beginning.
    let mut live = used;
    let mut out = Sets::new(blocks.len(), registers);
    let mut changed = true;
    while changed {
        changed = false;
        for (b, block) in blocks.iter().enumerate().rev() {
            for &next in &block.next {
                for w in 0..out.words {
                    out.bits[b * out.words + w] |= live.get(next)[w];
                }
            }
            for w in 0..live.words {
                let k = b * live.words + w;
                let new = live.bits[k] | (out.bits[k] & !defined.bits[k]);
                changed |= new != live.bits[k];
                live.bits[k] = new;
            }
        }
    }
    let mut intervals: Vec<Option<(u32, u32)>> = vec![None; registers];
    let mut cover = |register: u32, at: u32| {
        let interval = intervals[register as usize].get_or_insert((at, at));
        *interval = (interval.0.min(at), interval.1.max(at));
    };
    let each = |set: &[u64], f: &mut dyn FnMut(u32)| {
        for (w, &word) in set.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                f(w as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
    };
    for (b, block) in blocks.iter().enumerate() {
        each(live.get(b), &mut |register| cover(register, 2 * block.range.0));
        each(out.get(b), &mut |register| cover(register, 2 * block.range.1 - 1));
        for at in block.range.0..block.range.1 {
            let instruction = &mut code[at as usize];
            // Only lane-wise operations read all sources of a lane before they write its result.
            let apart = u32::from(!matches!(instruction.kind, Kind::Lanes(..)));
            instruction.visit(&mut |slot, role| match role {
                _ if slot.is_constant() => {}
                Role::Use => cover(slot.0, 2 * at + apart),
                Role::Define => {
                    cover(slot.0, 2 * at + 1);
                }
            });
        }
    }
    intervals
}

/// A place for each register that is ever live: first all words, then all longs, then all predicates.
fn places(intervals: &[Option<(u32, u32)>], widths: &[Width]) -> (Vec<u32>, File) {
    let mut order: Vec<(u32, u32, usize)> = Vec::new();
    for (register, interval) in intervals.iter().enumerate() {
        if let Some((first, last)) = interval {
            order.push((*first, *last, register));
        }
    }
    order.sort_unstable();
    let mut places = vec![0; widths.len()];
    let mut counts = [0_u32; 3];
    let mut pressure = 0;
    let mut free: [Vec<u32>; 3] = Default::default();
    // What is occupied, by when it becomes free.
    let mut busy: std::collections::BinaryHeap<std::cmp::Reverse<(u32, usize)>> = Default::default();
    let mut now = 0_u32;
    for (first, last, register) in order {
        while let Some(&std::cmp::Reverse((end, old))) = busy.peek() {
            if end >= first {
                break;
            }
            busy.pop();
            free[kind(widths[old])].push(places[old]);
            now -= cost(widths[old]);
        }
        let k = kind(widths[register]);
        places[register] = free[k].pop().unwrap_or_else(|| {
            counts[k] += 1;
            counts[k] - 1
        });
        now += cost(widths[register]);
        pressure = pressure.max(now);
        busy.push(std::cmp::Reverse((last, register)));
    }
    let longs = (counts[0] * 32).next_multiple_of(64);
    let bits = longs + counts[1] * 64;
    for (place, width) in places.iter_mut().zip(widths) {
        *place = match width {
            Width::Word => *place * 32,
            Width::Long => longs + *place * 64,
            Width::Bit => bits + *place,
        };
    }
    (places, File { words: bits + counts[2], pressure })
}

fn kind(width: Width) -> usize {
    match width {
        Width::Word => 0,
        Width::Long => 1,
        Width::Bit => 2,
    }
}

/// 32-bit registers that one takes on hardware; predicates have their own.
fn cost(width: Width) -> u32 {
    match width {
        Width::Word => 1,
        Width::Long => 2,
        Width::Bit => 0,
    }
}
