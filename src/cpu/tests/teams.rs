//! What teams do to one another, and what they hold together.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::super::*;
use crate::engine::Noise;
use crate::models::{Nonlinearity, PixelCnnPp};

fn model(filters: usize, classes: usize) -> Weights {
    let nonlinearity = Nonlinearity::ConcatElu;
    Weights::synthetic(PixelCnnPp { resnets: 1, filters, mixtures: 1, channels: 3, classes, nonlinearity }, 1)
}

fn engine(weights: &Weights, threads: usize, split: Option<Split>) -> CpuEngine {
    let options = Options { threads: Some(threads), split, ..Options::default() };
    CpuEngine::new(weights, &options).expect("weights in memory")
}

#[test]
fn a_panic_in_one_team_ends_the_others_at_their_next_row() {
    let mut engine = engine(&model(4, 2), 2, Some(Split::Images));
    // A class that the packed weights do not have, and the check of the batch does not know it: the first
    // image's team panics in its first row. The last image's team is watched.
    engine.plan.graph.classes = u32::MAX as usize;
    let rows = AtomicUsize::new(0);
    let watch = |done| {
        rows.store(done, Relaxed);
        std::thread::sleep(Duration::from_millis(50));
        true
    };
    let batch = Batch {
        size: 2,
        height: 64,
        width: 4,
        labels: Some(&[u32::MAX - 1, 0]),
        noise: Noise::Philox { seed: 1, first_index: 0 },
        given: None,
        method: Method::Cached,
        keep_logits: false,
        temperature: 1.0,
        known: None,
        start: None,
    };
    let output = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| engine.make(&batch, &watch)));
    assert!(output.is_err(), "a class that does not exist was made");
    let rows = rows.into_inner();
    assert!((1..batch.height).contains(&rows), "the other team made {rows} of {} rows", batch.height);
}

#[test]
fn a_batch_is_said_to_need_what_is_allocated_for_it() {
    let weights = model(8, 0);
    let (height, width) = (8, 12);
    let mut fell = 0;
    for threads in [1, 2, 3, 7, 40] {
        for split in [None, Some(Split::Images), Some(Split::Outputs)] {
            let engine = engine(&weights, threads, split);
            let mut before = 0;
            for size in 1..200 {
                let way = engine.way(size, height, width);
                let blocks = way.blocks(size);
                let plans = |images: Range<usize>| {
                    let teams = way.teams.min(images.len());
                    let share = move |i| team::share(images.len(), i, teams);
                    (0..teams).map(share).map(|share| engine.block(share, height, width).bytes()).sum::<u64>()
                };
                let most = (0..blocks).map(|block| plans(team::share(size, block, blocks))).max();
                let images = (size * height * width * 3 * size_of::<f32>()) as u64;
                let said = engine.batch_bytes(Method::Cached, size, height, width);
                assert_eq!(said - images, most.unwrap(), "{threads} threads, {split:?}, {size} images");
                fell += usize::from(said < before);
                before = said;
            }
        }
    }
    assert!(fell > 0, "no batch needs less than a smaller one");
}
