//! The strategies `cluster` and `team`, which have kernels of their own for pixels, make what launches make, bit for bit, in all
//! the shapes that stages can have there: so all that `cuda_conformance.rs` shows of launches is true of them. Some parts of that
//! suite are run all the same.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which. A device without clusters of 16 blocks is told.

#[path = "common/engines.rs"]
mod common;
#[path = "common/cuda.rs"]
mod cuda;

use std::collections::BTreeSet;

use common::conformance::Way;
use common::golden::*;
use common::stacks::{self, stacks};
use fast_pixel_cnn::cuda::{CudaEngine, Options, Strategy};
use fast_pixel_cnn::engine::{Batch, Engine, Given};
use fast_pixel_cnn::{PixelCnnPp, Precision, WaveNet, Weights};
use ndarray::{Array2, Array4};

/// The engines by clusters, unless the device has none, and by teams.
fn open(weights: &Weights, precision: Precision) -> Vec<CudaEngine> {
    let open = |strategy| match CudaEngine::new(weights, 0, &Options { strategy, precision }) {
        Ok(engine) => Some(engine),
        Err(error)
            if ["no clusters", "no cluster of 16"].iter().any(|words| error.to_string().contains(words)) =>
        {
            println!("not run: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    };
    [Strategy::Cluster, Strategy::Team].into_iter().filter_map(open).collect()
}

fn ways() -> Vec<Way> {
    let engines = open(&Weights::synthetic(SMALL, 1), Precision::F32);
    engines.iter().map(|engine| cuda::way(engine.strategy(), Precision::F32)).collect()
}

conformance!(
    ways();
    given_the_reference_s_noise_the_images_are_the_reference_s,
    unusable_batches_and_an_interruption_end_with_an_error,
);

/// With the engine by launches first.
fn engines(weights: &Weights, precision: Precision) -> Vec<CudaEngine> {
    let launches = Options { strategy: Strategy::Launch, precision };
    let launches = CudaEngine::new(weights, 0, &launches).unwrap();
    [launches].into_iter().chain(open(weights, precision)).collect()
}

/// All make the same, logits too.
fn make(engines: &mut [CudaEngine], batch: &Batch, place: &str) {
    let batch = Batch { keep_logits: true, ..batch.reborrow() };
    let [launches, others @ ..] = engines else { unreachable!("launches are the first") };
    let expected = launches.make(&batch, &|_| true).unwrap();
    for engine in others {
        let made = engine.make(&batch, &|_| true).unwrap();
        let place = format!("{place}, {}", engine.strategy().name());
        assert!(bits(&made.images) == bits(&expected.images), "{place}: other images");
        assert!(
            bits(made.logits.as_ref().unwrap()) == bits(expected.logits.as_ref().unwrap()),
            "{place}: other logits"
        );
    }
}

fn same_as_launches(weights: &Weights, batch: &Batch, precision: Precision) {
    make(&mut engines(weights, precision), batch, "");
}

#[test]
fn many_images_are_shared_out() {
    let weights = Weights::synthetic(PixelCnnPp { classes: 0, ..SMALL }, 5);
    let mut engines = engines(&weights, Precision::F32);
    // The first batch once more, with what stands ready from before.
    for size in [1, 2, 3, 5, 18, 1] {
        make(&mut engines, &Batch::new(size, 4, 4), &format!("{size} images"));
    }
}

/// As many as each cluster makes several of by each of its warps that draw, in rows that are longer than what is ready ahead.
#[test]
fn many_images_of_a_cluster_are_drawn() {
    let config = PixelCnnPp { resnets: 1, filters: 4, mixtures: 1, classes: 0, ..PixelCnnPp::PAPER };
    same_as_launches(&Weights::synthetic(config, 5), &Batch::new(70, 4, 12), Precision::F32);
}

/// More chunks than multipliers, so that they take them in rounds, two or three, which read their weights again for each tile.
#[test]
fn wide_layers_take_several_rounds() {
    for (channels, size) in [(208, 5), (288, 3)] {
        let weights = Weights::synthetic_for(stacks::wide(channels), 5);
        for precision in Precision::ALL {
            same_as_launches(&weights, &Batch::new(size, 2, 3), precision);
        }
    }
}

/// So that the blocks of a team have a share at every pixel, of one image or of several.
#[test]
fn large_layers_at_every_pixel_are_shared() {
    let weights = Weights::synthetic_for(stacks::large_at_every_pixel(), 5);
    for precision in Precision::ALL {
        let mut engines = engines(&weights, precision);
        for size in [1, 3, 9] {
            make(&mut engines, &Batch::new(size, 4, 4), &format!("{size} images, {precision:?}"));
        }
    }
}

/// As few channels as there are: most blocks have nothing to make. And channels that fill no chunk.
#[test]
fn narrow_layers_leave_blocks_without_a_share() {
    for filters in [1, 4, 12, 20] {
        let config = PixelCnnPp { resnets: 1, filters, mixtures: 1, classes: 0, ..PixelCnnPp::PAPER };
        same_as_launches(&Weights::synthetic(config, 5), &Batch::new(3, 4, 4), Precision::F32);
    }
}

/// Of more components than a warp has lanes, and more logits than it holds.
#[test]
fn a_mixture_of_many_components_is_the_same() {
    let config = PixelCnnPp { resnets: 1, filters: 8, mixtures: 40, classes: 0, ..PixelCnnPp::PAPER };
    same_as_launches(&Weights::synthetic(config, 5), &Batch::new(3, 4, 4), Precision::F32);
}

/// Graphs made by hand, with all that a layer can have; another temperature, and where they read it another pixel before the
/// first. Those with classes continue given rows. In one column, too, where a launch of teams may make many rows.
#[test]
fn every_stack_is_the_same() {
    for classes in [0, 3] {
        for (name, graph) in stacks(classes) {
            let weights = Weights::synthetic_for(graph, 5);
            let mut engines = engines(&weights, Precision::F32);
            let side = 4usize.next_multiple_of(weights.graph().period());
            let columns = if weights.graph().period() == 1 { 1 } else { side };
            for width in BTreeSet::from([side, columns]) {
                let (graph, size) = (weights.graph(), 3);
                let known = stacks::known(graph, size, side, width);
                let value = |(image, channel)| [0.31, -0.92, 0.77][(image + channel) % 3];
                let starts = Array2::from_shape_fn((size, graph.head.values()), value);
                let other =
                    Array4::from_elem((size, side, width, graph.head.values()), graph.head.nearest(0.4));
                let batch = Batch {
                    labels: (classes > 0).then_some(&[0, 1, 2]),
                    known: known.as_ref().map(|known| known.view()),
                    start: graph.input.previous.then(|| starts.view()),
                    given: (classes > 0).then(|| Given { images: other.view(), rows: side / 2 }),
                    temperature: 0.8,
                    ..Batch::new(size, side, width)
                };
                make(&mut engines, &batch, &format!("{name}, {classes} classes, {width} columns"));
            }
        }
    }
}

/// In bfloat16; its layers in float32 are in `cuda_engine.rs`.
#[test]
fn the_paper_s_model_is_the_same() {
    same_as_launches(&Weights::synthetic(PixelCnnPp::PAPER, 1), &Batch::new(1, 4, 4), Precision::Bf16);
}

#[test]
fn sounds_are_the_same() {
    same_as_launches(&Weights::synthetic(WaveNet::default(), 3), &Batch::new(2, 6, 1), Precision::Bf16);
}
