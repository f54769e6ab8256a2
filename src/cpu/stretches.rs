//! A pixel's steps, cut where threads wait for one another.
//!
//! The idea: a barrier takes longer than a small layer. So one thread runs small layers alone, one after the other. If
//! what comes after them sums taps of many of them, as a WaveNet's skip connections do, the other threads follow that
//! thread: they sum what it has made already, and end when it does.

use std::ops::Range;

use super::kernels::SEGMENTS;
use super::share::chunks_of;
use crate::graph::MapId;
use crate::plan::Plan;
use crate::plan::steps::{Run, Step};

/// Multiply-adds of a stage below which one thread runs it alone: another's half would take less than the barrier.
pub const ALONE: usize = 1 << 14;

/// Consecutive steps of a pixel, with a barrier after the last.
#[derive(Debug)]
pub enum Stretch {
    /// A step that all threads share.
    Shared(usize),
    /// Steps of small stages, all of them the first thread's.
    Alone(Range<usize>),
    /// Such steps and the one after them, which sums many taps of what they make: the other threads sum those already
    /// that are there.
    Followed {
        /// The steps of the first thread.
        alone: Range<usize>,
        /// The piece that the step after them runs.
        piece: usize,
        /// For each of its [chunks](super::share::Chunk), how many of the steps the first thread must have run.
        chunks: Vec<usize>,
    },
}

/// Cuts the steps of a pixel into stretches. `small`: whether all stages of a step are run by one thread alone.
pub fn stretches(plan: &Plan, steps: &[Step], small: impl Fn(&Step) -> bool) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut at = 0;
    while at < steps.len() {
        let alone = at..at + steps[at..].iter().take_while(|step| small(step)).count();
        let chunks = match steps.get(alone.end).map(Vec::as_slice) {
            Some([run]) if !alone.is_empty() => followed(plan, run, &steps[alone.clone()]),
            _ => Vec::new(),
        };
        if !chunks.is_empty() {
            at = alone.end + 1;
            let piece = steps[alone.end][0].piece;
            stretches.push(Stretch::Followed { alone, piece, chunks });
        } else if !alone.is_empty() {
            at = alone.end;
            stretches.push(Stretch::Alone(alone));
        } else {
            stretches.push(Stretch::Shared(at));
            at += 1;
        }
    }
    stretches
}

/// For each chunk of a run, how many of the steps before it make what it reads. None if all would wait for the last of
/// them, or the stage is one chunk and does not store its accumulators.
fn followed(plan: &Plan, run: &Run, before: &[Step]) -> Vec<usize> {
    let piece = &plan.pieces[run.piece];
    let taps: Vec<_> = plan.taps(piece).collect();
    let made_by = |map: MapId| {
        let makes = |step: &Step| step.iter().any(|run| plan.layer(&plan.pieces[run.piece]).output == map);
        before.iter().rposition(makes).map_or(0, |step| step + 1)
    };
    if piece.taps <= SEGMENTS {
        return Vec::new();
    }
    let steps = |taps_of: Range<usize>| taps[taps_of].iter().map(|tap| made_by(tap.source)).max();
    let chunks = chunks_of(piece, piece.part(run.part)).map(|taps| steps(taps).expect("a chunk has taps"));
    let chunks: Vec<_> = chunks.collect();
    if chunks[0] == before.len() { Vec::new() } else { chunks }
}
