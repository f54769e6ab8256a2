//! How a batch can be divided into teams, and what each way is predicted to take.
//!
//! The idea: a team of one block waits for no other, and one of several reads the weights of wide stages in a part of the time. Which
//! is faster depends on the network, on the batch and on the device; the sum of the steps says it.

use super::abi::SLICE;
use super::cost::Shape;
use super::schedule::{Launches, Schedule};
use super::stage::Stage;
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;

/// Bytes of weights from which on a stage is shared: that other blocks read most of them saves more than two barriers take.
const SHARED: usize = 256 << 10;

/// The steps of rows of one pixel that follow one another, with nothing to be made between them: so a launch makes many.
pub fn following(plan: &Plan, extent: Extent) -> Option<Steps> {
    if extent.width == 1 { Steps::of_pixels(plan) } else { None }
}

/// Whether the blocks of a team share a stage.
pub fn is_wide(stage: &Stage) -> bool {
    let work = stage.work(1);
    work.chunks * work.rows * work.slices * SLICE * size_of::<f32>() >= SHARED
}

/// The shapes that a batch can have on a device that runs `room` blocks at a time, with the cycles that a pixel of all images is
/// predicted to take, the fastest first. Where there are more images than teams have at a time, these take turns.
pub fn shapes(schedule: &Schedule, batch: usize, room: usize) -> Vec<(Shape, f64)> {
    let sizes = [1, 2, 4, 8, 16].into_iter().filter(|&blocks| blocks <= room);
    let of_size = |blocks| {
        [1, 2, 4].into_iter().filter(|&images| images <= batch.next_power_of_two()).map(move |images| {
            let teams = batch.div_ceil(images).min(room / blocks);
            Shape { teams, blocks, images }
        })
    };
    let with_cycles = |shape: Shape| (shape, pixel(shape, schedule, batch));
    let mut shapes: Vec<_> = sizes.flat_map(of_size).map(with_cycles).collect();
    shapes.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    shapes
}

/// Cycles of a pixel of all images, without drawing it: the mean of its classes.
fn pixel(shape: Shape, schedule: &Schedule, batch: usize) -> f64 {
    let classes: Vec<_> = schedule.pixels.iter().flatten().collect();
    let turns = batch.div_ceil(shape.teams * shape.images) as f64;
    let of_class = |launches: &Launches| -> f64 {
        let stages = launches.iter().flat_map(|&launch| schedule.table.stages_of(launch));
        stages.map(|stage| stage.work(1).team_step(shape, is_wide(stage))).sum()
    };
    turns * classes.iter().map(|class| of_class(class)).sum::<f64>() / classes.len() as f64
}
