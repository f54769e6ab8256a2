//! A pixel's steps, cut where threads wait for one another.
//!
//! The idea: a barrier takes longer than a small layer. So one thread runs small layers alone, one after the other. If
//! what comes after them sums taps of many of them, as a WaveNet's skip connections do, the other threads follow that
//! thread: they sum what it has made already, and end when it does.

use std::ops::Range;

use super::kernels::SEGMENTS;
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
        /// Parts of the taps of the step after them, and how many of its steps the first thread must have run.
        parts: Vec<(Range<usize>, usize)>,
    },
}

/// Cuts the steps of a pixel into stretches. `small`: whether all stages of a step are run by one thread alone.
pub fn stretches(plan: &Plan, steps: &[Step], small: impl Fn(&Step) -> bool) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut at = 0;
    while at < steps.len() {
        let alone = at..at + steps[at..].iter().take_while(|step| small(step)).count();
        let parts = match steps.get(alone.end).map(Vec::as_slice) {
            Some([run]) if !alone.is_empty() => parts(plan, run, &steps[alone.clone()]),
            _ => Vec::new(),
        };
        if !parts.is_empty() {
            at = alone.end + 1;
            let piece = steps[alone.end][0].piece;
            stretches.push(Stretch::Followed { alone, piece, parts });
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

/// The taps of a run in parts, each with the number of `before`'s steps that make what it reads. None if all would wait
/// for the last of them, or the stage does not store its accumulators.
fn parts(plan: &Plan, run: &Run, before: &[Step]) -> Vec<(Range<usize>, usize)> {
    let piece = &plan.pieces[run.piece];
    let taps: Vec<_> = plan.taps(piece).collect();
    let made_by = |map: MapId| {
        let makes = |step: &Step| step.iter().any(|run| plan.layer(&plan.pieces[run.piece]).output == map);
        before.iter().rposition(makes).map_or(0, |step| step + 1)
    };
    let range = piece.part(run.part);
    if piece.taps <= SEGMENTS {
        return Vec::new();
    }
    let starts = range.clone().step_by(SEGMENTS);
    let parts = starts.map(|start| {
        let part = start..range.end.min(start + SEGMENTS);
        let steps = taps[part.clone()].iter().map(|tap| made_by(tap.source)).max();
        (part, steps.expect("a part has taps"))
    });
    let parts: Vec<_> = parts.collect();
    if parts[0].1 == before.len() { Vec::new() } else { parts }
}
