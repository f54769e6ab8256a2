//! How long a generation will take on a device: predicted from the schedule, not tried.
//!
//! The idea: at small batches an image is a chain of stages, each of which takes the way of one item
//! ([`super::cost`]) and the way from its last store to the next stage's first input. So a sum over the steps of the
//! schedule, of each class of rows and pixels as often as an image has it, is the time.

use super::abi::{CLUSTER, DRAWERS};
use super::cost::{DRAW, DRAW_BY_CLUSTERS, DRAW_PREPARED, OVER, Room};
use super::loaded::SAMPLER_WARPS;
use super::packed::Packed;
use super::schedule::{PixelsBy, Schedule, images_of_cluster};
use super::team::Teams;
use super::{Prediction, Strategy, naive, shapes};
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;

/// Cycles from a store to where another multiprocessor may see it, beyond an undisturbed trip. This and the next two are
/// fitted, with [`OVER`], to the times of one H100 (docs/gpu-report-h100.md), which they give to within a fifth, but for naive
/// passes over few images.
const SEEN: f64 = 750.0;
/// Seconds from the end of a launch to the beginning of the next, in a graph and launched by the host.
const NODE: f64 = 1.8e-6;
const LAUNCH: f64 = 3.0e-6;
/// Cycles of an exchange within a cluster, from the last value sent to the first instruction behind it: measured by
/// itself, with words that are polled (`tools/exchange.cu`), not in a generation. That steps of clusters take as much longer than their machine code as
/// other stages do is assumed.
const SENT: f64 = 700.0;
/// Cycles a second of the device that the numbers above are fitted to.
pub const MEASURED_CLOCK: f64 = 1.98e9;

/// What a device is.
#[derive(Clone, Copy)]
pub struct Of {
    /// What launches find there.
    pub launches: Room,
    /// What the persistent kernel finds.
    pub persistent: Room,
    /// Bytes of shared memory that a block may have.
    pub block_memory: usize,
    /// Cycles a second.
    pub clock: f64,
}

/// The seconds of a batch on a device. A pass is over `part` of its images at a time. `None` for a strategy by which the network does
/// not fit the device's blocks.
pub fn predict(
    plan: &Plan,
    packed: &Packed,
    extent: Extent,
    of: Of,
    strategy: Strategy,
    part: usize,
) -> Option<Prediction> {
    let [rows, pixels, drawing] = cached(plan, packed, extent, of, strategy)?;
    Some(Prediction { strategy, rows, pixels, drawing, pass: pass(plan, packed, extent, of, part) })
}

/// The seconds of a full forward pass over `part` images at a time.
fn pass(plan: &Plan, packed: &Packed, extent: Extent, of: Of, part: usize) -> f64 {
    let (parts, last) = (extent.batch / part, extent.batch % part);
    let cycles = |batch: usize| {
        let table = naive::table(plan, packed, Extent { batch, ..extent }, of.launches);
        table.launches.iter().map(|launch| OVER * launch.cycles + NODE * of.clock).sum::<f64>()
    };
    let whole = if parts > 0 { parts as f64 * cycles(part) } else { 0.0 };
    (whole + if last > 0 { cycles(last) } else { 0.0 }) / of.clock
}

/// The seconds of cached generation: row phases, pixel phases, drawing.
pub fn cached(plan: &Plan, packed: &Packed, extent: Extent, of: Of, strategy: Strategy) -> Option<[f64; 3]> {
    let follow = if strategy == Strategy::Team { shapes::following(plan, extent) } else { None };
    let rows_follow = follow.is_some();
    let steps = follow.unwrap_or_else(|| Steps::above_first(plan));
    by_steps(plan, packed, extent, of, strategy, (&steps, rows_follow))
}

/// The same for steps, of which those of rows follow one another or do not.
fn by_steps(
    plan: &Plan,
    packed: &Packed,
    extent: Extent,
    Of { launches, persistent, block_memory, clock }: Of,
    strategy: Strategy,
    (steps, rows_follow): (&Steps, bool),
) -> Option<[f64; 3]> {
    let schedule = Schedule::new(plan, steps, packed, extent, launches, PixelsBy::of(strategy, persistent));
    let (of_row, of_pixel) = match strategy {
        Strategy::Launch => (LAUNCH * clock, LAUNCH * clock),
        Strategy::Graph => (NODE * clock, NODE * clock),
        Strategy::Auto | Strategy::Persistent => (NODE * clock, SEEN),
        Strategy::Cluster => (NODE * clock, SENT),
        // What a block draws it goes on with itself.
        Strategy::Team => (NODE * clock, 0.0),
    };
    let cycles = |launches: &[usize], between: f64| -> f64 {
        launches.iter().map(|&launch| OVER * schedule.table.launches[launch].cycles + between).sum()
    };
    // Of the images of one cluster, while as many as there are make theirs at a time.
    let images = images_of_cluster(extent.batch, (launches.multiprocessors / CLUSTER).max(1));
    let teams = || {
        let shapes = shapes::shapes(&schedule, extent.batch, launches.multiprocessors);
        let fits = |shape| Teams::new(plan, steps, &schedule, shape, block_memory, rows_follow).is_some();
        shapes.into_iter().find(|&(shape, _)| fits(shape))
    };
    let teams = if strategy == Strategy::Team { Some(teams()?) } else { None };
    let by_clusters = |launches: &[usize]| -> f64 {
        let stages = launches.iter().flat_map(|&launch| schedule.table.stages_of(launch));
        stages.map(|stage| OVER * stage.work(extent.batch).cluster_step(images) + SENT).sum()
    };
    // Of a class there are as many rows, or columns, as have its remainder.
    let count = |size: usize, class: usize| (size + schedule.period - 1 - class) / schedule.period;
    let (mut rows, mut pixels) = (0.0, 0.0);
    // What runs beside the pixels of the row before is waited for by the first row, which has none.
    rows += schedule.upper.as_ref().map_or(0.0, |upper| cycles(&upper[0], of_row));
    for (row, of_class) in schedule.rows.iter().enumerate() {
        let many = count(extent.height, row) as f64;
        rows += many * cycles(&of_class.concat(), of_row);
        for (column, launches) in schedule.pixels[row].iter().enumerate() {
            let of_pixel = match (strategy, teams) {
                (Strategy::Cluster, _) => by_clusters(launches),
                (_, Some((_, of_teams))) => OVER * of_teams,
                (_, None) => cycles(launches, of_pixel),
            };
            pixels += many * count(extent.width, column) as f64 * of_pixel;
        }
    }
    // A warp draws an image; a cluster's adders draw its own.
    let (turns, draw) = match strategy {
        Strategy::Launch | Strategy::Graph => (extent.batch.div_ceil(SAMPLER_WARPS), DRAW),
        Strategy::Auto | Strategy::Persistent => (extent.batch.div_ceil(persistent.blocks()), DRAW_PREPARED),
        Strategy::Cluster => (images.div_ceil(CLUSTER * DRAWERS), DRAW_BY_CLUSTERS),
        Strategy::Team => (teams.map_or(0, |(shape, _)| shapes::draws(shape, extent.batch)), DRAW_PREPARED),
    };
    let drawing = (extent.height * extent.width) as f64 * (turns as f64 * draw + of_pixel);
    Some([rows, pixels, drawing].map(|cycles| cycles / clock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{PixelCnnPp, WaveNet};
    use crate::precision::Precision;

    fn h100() -> Of {
        Of {
            launches: Room::of_launches(132, (9, 0)),
            persistent: Room::promised(132),
            block_memory: 227 << 10,
            clock: MEASURED_CLOCK,
        }
    }

    /// The paper's model on an H100.
    fn of(batch: usize, strategy: Strategy) -> Prediction {
        of_paper(batch, strategy, h100())
    }

    /// What an H100 had when it was measured: two blocks of `masked_conv_gemv` on a multiprocessor.
    fn measured() -> Of {
        Of { launches: Room::promised(132), ..h100() }
    }

    /// The seconds of cached generation by what was measured, each layer that is known when a row begins in one piece. (Drawing, which
    /// took a millisecond more of an image then, is as it is now.)
    fn then(batch: usize, strategy: Strategy) -> f64 {
        let plan = Plan::new(PixelCnnPp::PAPER.graph());
        let (packed, steps) = (Packed::places(&plan, Precision::F32), Steps::new(&plan));
        let extent = Extent { batch, height: 32, width: 32 };
        let seconds = by_steps(&plan, &packed, extent, measured(), strategy, (&steps, false));
        seconds.expect("it fits").iter().sum()
    }

    fn of_paper(batch: usize, strategy: Strategy, of: Of) -> Prediction {
        let plan = Plan::new(PixelCnnPp::PAPER.graph());
        let extent = Extent { batch, height: 32, width: 32 };
        predict(&plan, &Packed::places(&plan, Precision::F32), extent, of, strategy, 64).expect("it fits")
    }

    #[test]
    fn values_that_are_handed_over_are_the_fastest_but_for_many_images_and_launches_the_slowest() {
        // Seconds in docs/gpu-report-h100.md. (`persistent` made what comes before a row's pixels itself then, blocks of
        // `masked_conv_split` had other tiles, which fit several images less well, and all blocks passed their inputs through elu.)
        let report = [
            (1, [0.154, 0.111, 0.062]),
            (8, [0.221, 0.174, 0.143]),
            (16, [0.237, 0.202, 0.171]),
            (64, [0.474, 0.435, 0.369]),
            (256, [1.079, 1.034, 0.978]),
        ];
        for (batch, measured) in report {
            let [launch, graph, persistent] = [Strategy::Launch, Strategy::Graph, Strategy::Persistent]
                .map(|strategy| then(batch, strategy));
            assert!(graph < launch, "{graph}, {launch}");
            // Stages of so many positions are matrix products, which await nothing.
            assert_eq!(persistent < graph, batch < 256, "batch {batch}: {persistent}, {graph}");
            for (predicted, measured) in [launch, graph, persistent].into_iter().zip(measured) {
                let off = predicted / measured - 1.0;
                println!("batch {batch}: {predicted:.3} s, measured {measured} s");
                let least = if batch > 1 { -0.3 } else { -0.2 };
                assert!(least < off && off < 0.2, "batch {batch}: {predicted} s, measured {measured} s");
            }
        }
    }

    #[test]
    fn clusters_gain_where_each_has_few_images() {
        for batch in [1, 4, 8, 16, 64, 256] {
            let [persistent, cluster] = [Strategy::Persistent, Strategy::Cluster].map(|s| of(batch, s));
            println!(
                "batch {batch}: rows {:.3}, pixels by clusters {:.3}, in all {:.3} s; persistent {:.3} s",
                cluster.rows,
                cluster.pixels + cluster.drawing,
                cluster.cached(),
                persistent.cached()
            );
            // Eight clusters leave four multiprocessors.
            assert_eq!(cluster.rows < persistent.rows, batch <= 4, "batch {batch}");
            assert!(!(8..=64).contains(&batch) || cluster.cached() < persistent.cached(), "batch {batch}");
        }
    }

    #[test]
    fn a_batch_takes_less_time_than_its_images_one_by_one() {
        let [one, many] = [1, 256].map(|batch| of(batch, Strategy::Persistent));
        assert!(many.cached() > one.cached() && many.cached() < 32.0 * one.cached());
        assert!(many.pass > one.pass && many.pass < 256.0 * one.pass);
        println!("one image in {:.4} s, 256 in {:.3} s", one.cached(), many.cached());
        println!("naive: {:.1} and {:.0} s", one.naive(32, 32), many.naive(32, 32));
        // The same report's, of 256 images.
        let then = of_paper(256, Strategy::Persistent, measured());
        assert!((then.naive(32, 32) / 450.9 - 1.0).abs() < 0.2);
    }

    #[test]
    fn sounds_are_the_fastest_by_teams() {
        let plan = Plan::new(WaveNet::default().graph());
        let packed = Packed::places(&plan, Precision::F32);
        // Seconds for a second of sound, measured on an H100 by `graph` and `persistent`.
        for (batch, measured) in [(1, Some([5.14, 2.70])), (16, None), (64, Some([7.98, 5.04]))] {
            let extent = Extent { batch, height: 16_000, width: 1 };
            let of =
                |strategy| predict(&plan, &packed, extent, h100(), strategy, 64).expect("it fits").cached();
            let [graph, persistent, team] = [Strategy::Graph, Strategy::Persistent, Strategy::Team].map(of);
            println!(
                "{batch} sounds: graph {graph:.2} s, persistent {persistent:.2} s, measured {measured:?}; team {team:.2} s"
            );
            assert!(team < persistent && persistent < graph);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_predicted() {
        let plan = Plan::new(PixelCnnPp::PAPER.graph());
        let packed = Packed::places(&plan, Precision::F32);
        let extent = Extent { batch: 1, height: 32, width: 32 };
        let room = Room { multiprocessors: 40, resident: 1, spread: 0 };
        let of = |strategy| {
            let of = Of { launches: room, persistent: room, block_memory: 64 << 10, clock: 1.5e9 };
            predict(&plan, &packed, extent, of, strategy, 1)
        };
        assert!(of(Strategy::Team).is_none() && of(Strategy::Persistent).is_some());
    }
}
