//! Graphs made by hand with bfloat16 weights: cached equals naive, bit for bit, on every instruction set.
//! (`conformance.rs` has float32.)

#[path = "common/engines.rs"]
mod common;

use common::stacks::{known, stacks};
use fast_pixel_cnn::cpu::{CpuEngine, Isa, Options};
use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise};
use fast_pixel_cnn::{Precision, Weights};

#[test]
fn with_bfloat16_weights_cached_equals_naive_too() {
    let mut moved = 0;
    for classes in [0, 3] {
        for (name, graph) in stacks(classes) {
            let period = graph.period();
            let weights = Weights::synthetic_for(graph, 5);
            let [size, height, width] =
                [2, 8, 4].map(|n: usize| if n > 2 { n.next_multiple_of(period) } else { n });
            let labels: Vec<u32> = (0..size as u32).map(|i| i % classes.max(1) as u32).collect();
            let known = known(weights.graph(), size, height, width);
            let batch = Batch {
                labels: (classes > 0).then_some(&labels[..]),
                noise: Noise::Philox { seed: 8, first_index: 0 },
                known: known.as_ref().map(|known| known.view()),
                keep_logits: true,
                ..Batch::new(size, height, width)
            };
            let naive = Batch { method: Method::Naive, ..batch };
            let open = |precision, isa| {
                let options = Options { isa: Some(isa), precision, ..Options::default() };
                CpuEngine::new(&weights, &options).expect("weights in memory")
            };
            let mut all = Vec::new();
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                let mut engine = open(Precision::Bf16, isa);
                let cached = engine.make(&batch, &|_| true).expect("sound batch");
                let naive = engine.make(&naive, &|_| true).expect("sound batch");
                assert!(cached == naive, "{name}, {isa:?}, {classes} classes: cached is not naive");
                all.push(cached);
            }
            assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{name}: instruction sets differ");
            // Rounded weights move the logits, a little.
            let given = Batch::teacher_forced(all[0].images.view(), batch.labels);
            let given = Batch { known: batch.known, ..given };
            let exact = open(Precision::F32, Isa::Portable).make(&given, &|_| true).expect("sound batch");
            let [a, b] = [&exact, &all[0]].map(|output| output.logits.as_ref().expect("asked for"));
            let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 0.05, "{name}, {classes} classes: off by {off:e}");
            moved += usize::from(off > 0.0);
        }
    }
    // Where all is summed when a row begins, no weight is rounded.
    assert!(moved > 10, "only {moved} stacks are moved by rounded weights");
}
