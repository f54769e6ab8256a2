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

conformance!(ways());
