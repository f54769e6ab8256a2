//! How a batch can be divided into teams, and what each way is predicted to take.
//!
//! The idea: a team of one block waits for no other, and one of several reads the weights of large stages in a part of the time. Which
//! is faster depends on the network, on the batch and on the device; the sum of the steps says it.

use super::abi::team::TEAM_ADDERS;
use super::abi::{SLICE, WARP};
use super::cost::{DRAW_PREPARED, OVER, Shape};
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
pub fn is_large(stage: &Stage) -> bool {
    let work = stage.work(1);
    work.chunks * work.rows * work.slices * SLICE * size_of::<f32>() >= SHARED
}

/// Turns in which all images are made.
fn turns(shape: Shape, batch: usize) -> usize {
    batch.div_ceil(shape.teams * shape.images)
}

/// Images that are drawn one after the other: a team draws as many at a time as its adders have warps.
pub fn draws(shape: Shape, batch: usize) -> usize {
    turns(shape, batch) * shape.images.div_ceil(2 * TEAM_ADDERS / WARP)
}

/// The shapes that a batch can have on a device that runs `room` blocks at a time, with the cycles of a pixel's steps, of all
/// images, as their machine code says; first the one that is predicted to take least with what is drawn. Where there are more
/// images than teams have at a time, these take turns.
pub fn shapes(schedule: &Schedule, batch: usize, room: usize) -> Vec<(Shape, f64)> {
    let sizes = [1, 2, 4, 8, 16].into_iter().filter(|&blocks| blocks <= room);
    let of_size = |blocks| {
        [1, 2, 4].into_iter().filter(|&images| images / 2 < batch).map(move |images| {
            let teams = batch.div_ceil(images).min(room / blocks);
            Shape { teams, blocks, images }
        })
    };
    let with_cycles = |shape: Shape| (shape, pixel(shape, schedule, batch));
    let mut shapes: Vec<_> = sizes.flat_map(of_size).map(with_cycles).collect();
    let all = |&(shape, cycles): &(Shape, f64)| OVER * cycles + DRAW_PREPARED * draws(shape, batch) as f64;
    shapes.sort_by(|a, b| all(a).total_cmp(&all(b)));
    shapes
}

/// Cycles of a pixel's steps, of all images: the mean of its classes.
fn pixel(shape: Shape, schedule: &Schedule, batch: usize) -> f64 {
    let classes: Vec<_> = schedule.pixels.iter().flatten().collect();
    let turns = turns(shape, batch) as f64;
    let of_class = |launches: &Launches| -> f64 {
        let stages = launches.iter().flat_map(|&launch| schedule.table.stages_of(launch));
        stages.map(|stage| stage.work(1).team_step(shape, is_large(stage))).sum()
    };
    turns * classes.iter().map(|class| of_class(class)).sum::<f64>() / classes.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::cost::Room;
    use crate::cuda::packed::Packed;
    use crate::cuda::schedule::PixelsBy;
    use crate::models::WaveNet;
    use crate::precision::Precision;

    /// Teams that make several images in a turn take fewer turns, and each draws at the end of its own.
    #[test]
    fn what_is_drawn_counts_for_which_shape_is_the_fastest() {
        let model = WaveNet { dilations: vec![1, 2], quantization_channels: 16, ..WaveNet::default() };
        let plan = Plan::new(model.graph());
        let packed = Packed::places(&plan, Precision::F32);
        let room = Room::promised(132);
        let mut apart = 0;
        for batch in [1, 16, 133, 200, 300, 528, 600] {
            let extent = Extent { batch, height: 100, width: 1 };
            let steps = following(&plan, extent).expect("a column of sounds");
            let schedule = Schedule::new(&plan, &steps, &packed, extent, room, PixelsBy::Teams);
            let shapes = shapes(&schedule, batch, 132);
            // Four warps of adders draw a team's images, four at most, at a time.
            let turns = |shape: Shape| batch.div_ceil(shape.teams * shape.images) as f64;
            let all = |(shape, cycles): (Shape, f64)| 1.6 * cycles + 1600.0 * turns(shape);
            assert!(shapes.is_sorted_by(|&a, &b| all(a) <= all(b)), "{batch} sounds: {shapes:?}");
            apart += usize::from(!shapes.is_sorted_by(|a, b| a.1 <= b.1));
        }
        assert!(apart > 0, "the steps alone give the same order");
    }
}
