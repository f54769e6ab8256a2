//! The strategy `cluster` makes what launches make, bit for bit, in all the shapes that its clusters can take: so all that
//! `cuda_conformance.rs` shows of launches is true of it. Some parts of that suite are run all the same.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which. A device without clusters of 16 blocks is told.

#[path = "common/engines.rs"]
mod common;

use common::conformance::Way;
use common::golden::*;
use common::stacks::{self, stacks};
use fast_pixel_cnn::cuda::{CudaEngine, Options, Strategy};
use fast_pixel_cnn::engine::{Batch, Engine, Given};
use fast_pixel_cnn::{PixelCnnPp, Precision, WaveNet, Weights};
use ndarray::{Array2, Array4};

/// The engine by clusters, unless the device has none.
fn open(weights: &Weights, precision: Precision) -> Option<CudaEngine> {
    match CudaEngine::new(weights, 0, &Options { strategy: Strategy::Team, precision }) {
        Ok(engine) => Some(engine),
        Err(error)
            if ["no clusters", "no cluster of 16"].iter().any(|words| error.to_string().contains(words)) =>
        {
            println!("not run: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn ways() -> Vec<Way> {
    let way = Way {
        name: "Team".into(),
        open: Box::new(|weights| Box::new(open(weights, Precision::F32).expect("clusters"))),
        slow: true,
    };
    open(&Weights::synthetic(SMALL, 1), Precision::F32).map(|_| way).into_iter().collect()
}

conformance!(
    ways();
    given_the_reference_s_noise_the_images_are_the_reference_s,
    unusable_batches_and_an_interruption_end_with_an_error,
);

/// By clusters and by launches.
fn engines(weights: &Weights, precision: Precision) -> Option<[CudaEngine; 2]> {
    let launches = Options { strategy: Strategy::Launch, precision };
    open(weights, precision).map(|clusters| [clusters, CudaEngine::new(weights, 0, &launches).unwrap()])
}

/// Both make the same, logits too.
fn make(engines: &mut [CudaEngine; 2], batch: &Batch, place: &str) {
    let batch = Batch { keep_logits: true, ..batch.reborrow() };
    let [clusters, launches] = engines.each_mut().map(|engine| engine.make(&batch, &|_| true).unwrap());
    assert!(bits(&clusters.images) == bits(&launches.images), "{place}: other images");
    assert!(bits(&clusters.logits.unwrap()) == bits(&launches.logits.unwrap()), "{place}: other logits");
}

fn same_as_launches(weights: &Weights, batch: &Batch, precision: Precision) {
    let Some(mut engines) = engines(weights, precision) else { return };
    make(&mut engines, batch, "");
}

#[test]
fn one_cluster_makes_many_images_by_tiles() {
    let weights = Weights::synthetic(PixelCnnPp { classes: 0, ..SMALL }, 5);
    let Some(mut engines) = engines(&weights, Precision::F32) else { return };
    // The first batch once more, with what stands ready from before.
    for size in [1, 2, 3, 5, 18, 1] {
        make(&mut engines, &Batch::new(size, 4, 4), &format!("{size} images"));
    }
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

/// As few channels as there are: most blocks have nothing to make. And channels that fill no chunk.
#[test]
fn narrow_layers_leave_blocks_without_a_share() {
    for filters in [1, 4, 12, 20] {
        let config = PixelCnnPp { resnets: 1, filters, mixtures: 1, classes: 0, ..PixelCnnPp::PAPER };
        same_as_launches(&Weights::synthetic(config, 5), &Batch::new(3, 4, 4), Precision::F32);
    }
}

/// Graphs made by hand, with all that a layer can have; another temperature, and where they read it another pixel before the
/// first. Those with classes continue given rows.
#[test]
fn every_stack_is_the_same() {
    for classes in [0, 3] {
        for (name, graph) in stacks(classes) {
            let weights = Weights::synthetic_for(graph, 5);
            let (graph, size) = (weights.graph(), 3);
            let side = 4usize.next_multiple_of(graph.period());
            let known = stacks::known(graph, size, side, side);
            let value = |(image, channel)| [0.31, -0.92, 0.77][(image + channel) % 3];
            let starts = Array2::from_shape_fn((size, graph.head.values()), value);
            let other = Array4::from_elem((size, side, side, graph.head.values()), graph.head.nearest(0.4));
            let batch = Batch {
                labels: (classes > 0).then_some(&[0, 1, 2]),
                known: known.as_ref().map(|known| known.view()),
                start: graph.input.previous.then(|| starts.view()),
                given: (classes > 0).then(|| Given { images: other.view(), rows: side / 2 }),
                temperature: 0.8,
                ..Batch::new(size, side, side)
            };
            let Some(mut engines) = engines(&weights, Precision::F32) else { return };
            make(&mut engines, &batch, &format!("{name}, {classes} classes"));
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
