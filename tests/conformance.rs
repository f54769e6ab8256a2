//! The CPU engine holds what every engine holds: on each instruction set, with several threads, shared out either way.

#[path = "common/engines.rs"]
mod common;

use common::conformance::Way;
use fast_pixel_cnn::cpu::{CpuEngine, Isa, Options, Split};

fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        for (threads, split) in
            [(1, Split::Outputs), (2, Split::Outputs), (2, Split::Images), (3, Split::Outputs)]
        {
            // Without a fused multiply-add in hardware everything takes a hundred times as long.
            let slow = isa == Isa::Portable;
            if slow && threads != 2 {
                continue;
            }
            let options =
                Options { threads: Some(threads), isa: Some(isa), split: Some(split), ..Options::default() };
            ways.push(Way {
                name: format!("{isa:?}, {threads} threads, {split:?}"),
                open: Box::new(move |weights| {
                    Box::new(CpuEngine::new(weights, &options).expect("an engine with these options"))
                }),
                slow,
            });
        }
    }
    ways
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
