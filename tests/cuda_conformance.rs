//! The CUDA engine holds what every engine holds, by each strategy.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which.

#[path = "common/engines.rs"]
mod common;

use common::conformance::Way;
use fast_pixel_cnn::cuda::{CudaEngine, Strategy};

fn ways() -> Vec<Way> {
    let way = |strategy: Strategy| Way {
        name: format!("{strategy:?}"),
        open: Box::new(move |weights| Box::new(CudaEngine::new(weights, 0, strategy).expect("a device"))),
        // The virtual GPU interprets every thread.
        slow: true,
    };
    [Strategy::Launch, Strategy::Graph, Strategy::Persistent].map(way).into()
}

conformance!(
    ways();
    logits_and_likelihoods_are_the_reference_s,
    given_the_reference_s_noise_the_images_are_the_reference_s,
    an_image_is_one_array_of_bits_whatever_makes_it,
    a_temperature_is_one_array_of_bits_too,
    given_rows_stay_and_the_rest_does_not_depend_on_how_they_came,
    rows_of_another_image_stay_and_steer_the_rest,
    unusable_batches_and_an_interruption_end_with_an_error,
    every_stack_is_what_its_layers_say_and_cached_equals_naive,
);
