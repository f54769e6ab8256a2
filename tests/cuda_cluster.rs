//! The strategy `cluster` holds what every engine holds, in all the shapes that its clusters can take.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which. A device without clusters of 16 blocks is told.

#[path = "common/engines.rs"]
mod common;

use common::conformance::Way;
use common::golden::*;
use fast_pixel_cnn::cuda::{CudaEngine, Options, Strategy};
use fast_pixel_cnn::engine::{Batch, Engine};
use fast_pixel_cnn::{PixelCnnPp, Precision, WaveNet, Weights};

/// The engine by clusters, unless the device has none.
fn open(weights: &Weights, precision: Precision) -> Option<CudaEngine> {
    match CudaEngine::new(weights, 0, &Options { strategy: Strategy::Cluster, precision }) {
        Ok(engine) => Some(engine),
        Err(error) if error.to_string().contains("has no clusters") => {
            println!("not run: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn ways() -> Vec<Way> {
    let way = Way {
        name: "Cluster".into(),
        open: Box::new(|weights| Box::new(open(weights, Precision::F32).expect("clusters"))),
        slow: true,
    };
    open(&Weights::synthetic(SMALL, 1), Precision::F32).map(|_| way).into_iter().collect()
}

conformance!(ways());

/// The same bits as by launches, logits too.
fn same_as_launches(weights: &Weights, batch: &Batch, precision: Precision) {
    let Some(mut clusters) = open(weights, precision) else { return };
    let batch = Batch { keep_logits: true, ..*batch };
    let found = clusters.make(&batch, &|_| true).unwrap();
    let options = Options { strategy: Strategy::Launch, precision };
    let expected = CudaEngine::new(weights, 0, &options).unwrap().make(&batch, &|_| true).unwrap();
    assert!(bits(&found.images) == bits(&expected.images));
    assert!(bits(&found.logits.unwrap()) == bits(&expected.logits.unwrap()));
}

#[test]
fn one_cluster_makes_many_images_by_tiles() {
    let weights = Weights::synthetic(PixelCnnPp { classes: 0, ..SMALL }, 5);
    for size in [1, 2, 3, 5, 9, 18] {
        same_as_launches(&weights, &Batch::new(size, 4, 8), Precision::F32);
    }
}

/// More chunks than multipliers, so that they take them in rounds: two, with pages that several tiles read again, and three,
/// of which only one tile of images can be made at a time.
#[test]
fn wide_layers_take_several_rounds() {
    for (filters, size) in [(208, 5), (288, 2)] {
        let config = PixelCnnPp { resnets: 1, filters, mixtures: 2, classes: 0, ..PixelCnnPp::PAPER };
        same_as_launches(&Weights::synthetic(config, 5), &Batch::new(size, 4, 4), Precision::F32);
    }
}

/// As few channels as there are: most blocks have nothing to make. And channels that fill no chunk.
#[test]
fn narrow_layers_leave_blocks_without_a_share() {
    for filters in [1, 4, 12, 20] {
        let config = PixelCnnPp { resnets: 1, filters, mixtures: 1, classes: 0, ..PixelCnnPp::PAPER };
        same_as_launches(&Weights::synthetic(config, 5), &Batch::new(3, 4, 8), Precision::F32);
    }
}

#[test]
fn the_paper_s_model_is_the_same() {
    for precision in Precision::ALL {
        same_as_launches(&Weights::synthetic(PixelCnnPp::PAPER, 1), &Batch::new(1, 4, 4), precision);
    }
}

#[test]
fn sounds_are_the_same() {
    same_as_launches(&Weights::synthetic(WaveNet::default(), 3), &Batch::new(2, 6, 1), Precision::Bf16);
}
