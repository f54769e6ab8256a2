//! Where control can go, and where threads that parted meet again.
//!
//! The idea: threads of a warp that a branch parts meet at the branch's immediate post-dominator: the
//! first instruction that all ways from it to the kernel's end have in common.

use crate::isa::instruction::{Instruction, Kind};
use crate::isa::lanes::Slot;

/// The end of the kernel, as a place to meet.
pub const NOWHERE: u32 = u32::MAX;

/// A run of instructions that is entered at its beginning only and left at its end only.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its instructions: first, and one after the last.
    pub range: (u32, u32),
    /// The blocks that may come next.
    pub next: Vec<usize>,
}

/// The blocks of a kernel in order.
pub fn blocks(code: &[Instruction]) -> Vec<Block> {
    let mut leaders = vec![false; code.len() + 1];
    leaders[0] = true;
    leaders[code.len()] = true;
    for (at, instruction) in code.iter().enumerate() {
        match &instruction.kind {
            Kind::Branch(target) => leaders[*target as usize] = true,
            Kind::BranchTable(_, targets) => {
                targets.iter().for_each(|&target| leaders[target as usize] = true);
            }
            Kind::Exit => {}
            _ => continue,
        }
        leaders[at + 1] = true;
    }
    let starts: Vec<usize> = (0..leaders.len()).filter(|&at| leaders[at]).collect();
    let block_of = |at: u32| starts.binary_search(&(at as usize)).expect("a target begins a block");
    let ranges = starts.windows(2);
    ranges
        .map(|range| {
            let last = &code[range[1] - 1];
            let guarded = last.guard != Slot::TRUE;
            let falls = range[1] < code.len();
            let mut next = match &last.kind {
                Kind::Branch(target) => vec![block_of(*target)],
                Kind::BranchTable(_, targets) => targets.iter().map(|&t| block_of(t)).collect(),
                Kind::Exit => Vec::new(),
                // A trap ends the launch, so where control would go makes no difference; but threads that
                // did not come by meet the others as if it went on.
                _ => vec![block_of(range[1] as u32)],
            };
            let parts = matches!(last.kind, Kind::Branch(_) | Kind::BranchTable(..) | Kind::Exit);
            if parts && guarded && falls {
                next.push(block_of(range[1] as u32));
            }
            next.sort_unstable();
            next.dedup();
            Block { range: (range[0] as u32, range[1] as u32), next }
        })
        .collect()
}

/// For each block, the instruction where threads parted at its end meet again.
pub fn meetings(blocks: &[Block]) -> Vec<u32> {
    // Cooper, Harvey and Kennedy's algorithm on the reversed graph, whose root is the end.
    let end = blocks.len();
    let mut previous = vec![Vec::new(); end + 1];
    for (at, block) in blocks.iter().enumerate() {
        block.next.iter().for_each(|&next| previous[next].push(at));
        if block.next.is_empty() {
            previous[end].push(at);
        }
    }
    let mut order = Vec::with_capacity(end + 1);
    let mut seen = vec![false; end + 1];
    let mut stack = vec![(end, 0)];
    seen[end] = true;
    while let Some((at, k)) = stack.pop() {
        if let Some(&child) = previous[at].get(k) {
            stack.push((at, k + 1));
            if !seen[child] {
                seen[child] = true;
                stack.push((child, 0));
            }
        } else {
            order.push(at);
        }
    }
    let mut rank = vec![usize::MAX; end + 1];
    order.iter().enumerate().for_each(|(k, &at)| rank[at] = k);
    let mut dominator = vec![usize::MAX; end + 1];
    dominator[end] = end;
    let mut changed = true;
    while changed {
        changed = false;
        for &at in order.iter().rev().filter(|&&at| at != end) {
            let exits = [end];
            let next = if blocks[at].next.is_empty() { &exits[..] } else { &blocks[at].next[..] };
            let mut new = usize::MAX;
            for &successor in next.iter().filter(|&&s| dominator[s] != usize::MAX) {
                if new == usize::MAX {
                    new = successor;
                    continue;
                }
                let mut other = successor;
                while new != other {
                    while rank[new] < rank[other] {
                        new = dominator[new];
                    }
                    while rank[other] < rank[new] {
                        other = dominator[other];
                    }
                }
            }
            if new != usize::MAX && dominator[at] != new {
                dominator[at] = new;
                changed = true;
            }
        }
    }
    // An endless loop has no way to the end, and its threads need not meet.
    let place = |d: usize| if d >= end { NOWHERE } else { blocks[d].range.0 };
    (0..end).map(|at| place(dominator[at])).collect()
}
