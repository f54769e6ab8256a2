//! What a batch is said to take of the device's memory is what the virtual GPU is asked for, to the byte.

use ndarray::Array4;

use super::{device, strategies, turn, vgpu};
use crate::cuda::loaded::Extras;
use crate::cuda::{CudaEngine, Options, Strategy};
use crate::engine::{Batch, Engine, Method, Noise};
use crate::graph::Graph;
use crate::heads::Head;
use crate::models::{PixelCnnPp, WaveNet};
use crate::plan::layout::Extent;
use crate::precision::Precision;
use crate::weights::Weights;

/// One of images, and one of sounds, whose rows follow one another in one column and whose large layers blocks of a team share.
fn models() -> [(Graph, [usize; 2]); 2] {
    let images = PixelCnnPp { resnets: 1, filters: 4, mixtures: 2, classes: 3, ..PixelCnnPp::PAPER };
    let sounds = WaveNet { dilations: vec![1, 2], quantization_channels: 16, ..WaveNet::default() };
    [(images.graph(), [4, 4]), (sounds.graph(), [2, 1])]
}

/// An engine by a strategy, and the bytes that were free before.
fn open(weights: &Weights, strategy: Strategy) -> (CudaEngine, u64) {
    let before = device().free().unwrap();
    let options = Options { strategy, precision: Precision::F32 };
    (CudaEngine::new(weights, 0, &options).unwrap(), before)
}

#[test]
fn what_is_counted_is_what_is_allocated() {
    if !vgpu::is_virtual() {
        println!("not run: a real device allocates by larger blocks");
        return;
    }
    let _turn = turn();
    for (graph, [height, width]) in models() {
        let weights = Weights::synthetic_for(graph, 3);
        let (draws, classes) = (weights.graph().head.draws(), weights.graph().classes);
        for strategy in strategies(&device()).into_iter().chain([Strategy::Auto]) {
            let (mut engine, before) = open(&weights, strategy);
            let free = engine.available().unwrap();
            assert_eq!(before - free, engine.weight_bytes(), "{strategy:?}: weights");
            assert_eq!(engine.batch_bytes(Method::Cached, usize::MAX, height, width), u64::MAX);
            for (size, logits, given) in [(1, true, false), (5, false, true)] {
                let labels = vec![0; size];
                let noise = Array4::from_elem((size, height, width, draws), 0.5);
                let batch = Batch {
                    labels: (classes > 0).then_some(&labels[..]),
                    keep_logits: logits,
                    ..Batch::new(size, height, width)
                };
                let batch = if given { Batch { noise: Noise::Given(noise.view()), ..batch } } else { batch };
                engine.make(&batch, &|_| true).unwrap();
                let extent = Extent { batch: size, height, width };
                let counted = engine.bytes(Method::Cached, extent, Extras::of(&batch));
                let asked = free - engine.available().unwrap();
                // By `Auto` it is what graphs would take, which are more.
                let is_enough = if strategy == Strategy::Auto { counted >= asked } else { counted == asked };
                assert!(
                    is_enough,
                    "{strategy:?}: {size} of {height}x{width}: {counted} bytes, asked for {asked}"
                );
            }
        }
    }
}

/// Of a pass over some images at a time, too, and of given ones, whose logits and likelihoods are held.
#[test]
fn what_is_counted_for_a_pass_is_what_is_allocated() {
    if !vgpu::is_virtual() {
        println!("not run: a real device allocates by larger blocks");
        return;
    }
    let _turn = turn();
    let config = PixelCnnPp { resnets: 1, filters: 4, mixtures: 1, classes: 0, ..PixelCnnPp::PAPER };
    let weights = Weights::synthetic(config, 3);
    let Head::MixtureOfLogistics { channels, .. } = weights.graph().head else { unreachable!("it is one") };
    let (mut engine, _) = open(&weights, Strategy::Launch);
    let free = engine.available().unwrap();
    for (size, part) in [(1, 1), (3, 3), (65, 64)] {
        let said = engine.batch_bytes(Method::Naive, size, 4, 4);
        assert_eq!(said, engine.batch_bytes(Method::Naive, part, 4, 4));
        let images = Array4::zeros((part, 4, 4, channels));
        engine.nats(images.view(), None).unwrap();
        let extras = Extras { logits: true, noise: false, nats: true };
        let counted = engine.bytes(Method::Naive, Extent { batch: part, height: 4, width: 4 }, extras);
        let asked = free - engine.available().unwrap();
        assert_eq!(counted, asked, "{part} images");
    }
}
