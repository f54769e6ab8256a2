//! What the persistent kernel does sooner than launches, without another result.

use super::{turn, vgpu};
use crate::cuda::abi::Span;
use crate::cuda::cost::Room;
use crate::cuda::packed::Packed;
use crate::cuda::schedule::{PixelsBy, Schedule};
use crate::cuda::{CudaEngine, Options, Strategy};
use crate::engine::{Batch, Engine, Output};
use crate::models::PixelCnnPp;
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;
use crate::precision::Precision;
use crate::weights::Weights;

/// How many of the stages of pixels have chunks that are added while others are awaited, and how many have not.
fn early(plan: &Plan, batch: usize) -> [usize; 2] {
    let packed = Packed::places(plan, Precision::F32);
    let (extent, room) = (Extent { batch, height: 4, width: 4 }, Room::promised(132));
    let by = PixelsBy::Persistent(room);
    let schedule = Schedule::new(plan, &Steps::above_first(plan), &packed, extent, room, by);
    let launches = schedule.pixels.iter().flatten().flatten();
    let stages: Vec<_> = launches.flat_map(|&launch| schedule.table.stages_of(launch)).collect();
    assert!(stages.iter().all(|stage| stage.header.span == Span::Pixel as i32));
    let early = stages.iter().filter(|stage| stage.header.of_form > 0).count();
    [early, stages.len() - early]
}

/// A batch with its logits, in some order of blocks and warps.
fn made(weights: &Weights, strategy: Strategy, precision: Precision, batch: &Batch, seed: u64) -> Output {
    let mut engine = CudaEngine::new(weights, 0, &Options { strategy, precision }).unwrap();
    if vgpu::is_virtual() {
        vgpu::seed(seed);
    }
    let output = engine.make(batch, &|_| true).unwrap();
    if vgpu::is_virtual() {
        vgpu::seed(0);
    }
    output
}

#[test]
fn chunks_that_are_added_before_others_come_make_the_same_sums() {
    let _turn = turn();
    // Whole reads of sums, and a rest of half a read.
    for (filters, size, precision) in [(64, 3, Precision::Bf16), (96, 1, Precision::F32)] {
        let config = PixelCnnPp { resnets: 1, filters, mixtures: 1, ..PixelCnnPp::PAPER };
        let weights = Weights::synthetic(config, 6);
        let [early, others] = early(&Plan::new(weights.graph().clone()), size);
        println!("{filters} filters, {size} images: {early} stages with early chunks, {others} without");
        assert!(early > 0);
        let batch = Batch { keep_logits: true, ..Batch::new(size, 4, 4) };
        let launched = made(&weights, Strategy::Launch, precision, &batch, 0);
        for seed in 0..2 {
            let handed = made(&weights, Strategy::Persistent, precision, &batch, seed);
            assert!(launched.images == handed.images && launched.logits == handed.logits);
        }
    }
}
