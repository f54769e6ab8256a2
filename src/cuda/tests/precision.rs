//! bfloat16 weights against float32 ones that were rounded when they were packed: the same bits, by every strategy and
//! method.

use super::device_for;
use crate::cuda::Strategy;
use crate::cuda::cached::Cached;
use crate::cuda::driver::Device;
use crate::cuda::loaded::Extras;
use crate::cuda::naive::Naive;
use crate::cuda::packed::Packed;
use crate::cuda::pages::Pages;
use crate::cuda::stored::Stored;
use crate::engine::{Batch, Given, Noise, Output};
use crate::models::{ModelConfig, Nonlinearity, PixelCnnPp, WaveNet};
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::precision::{Precision, bf16};
use crate::weights::Weights;

/// A model on the device.
struct OnDevice {
    device: Device,
    packed: Packed,
    stored: Stored,
}

impl OnDevice {
    /// Its weights in a precision; `rounded`: those that would be bfloat16 are rounded to it.
    fn new(plan: &Plan, weights: &Weights, precision: Precision, rounded: bool) -> OnDevice {
        let device = device_for(precision);
        let packed = Packed::places(plan, precision);
        // Of each piece come the weights of the row phase, those of the pixel phase, and the biases.
        let narrow = [plan.graph.is_sequence(), true, false];
        let mut parts = narrow.into_iter().cycle();
        let pages = Pages::new(plan, &packed, precision);
        let mut stored = Stored::zeroed(&device, &packed, Some(pages)).unwrap();
        let put = |at: usize, part: &[f32]| {
            let mut part = part.to_vec();
            if parts.next() == Some(true) && rounded {
                part.iter_mut().for_each(|w| *w = f32::from_bits(u32::from(bf16(*w)) << 16));
            }
            stored.put(&device, &packed, at, &part)
        };
        packed.fill(plan, weights, put).unwrap();
        OnDevice { device, packed, stored }
    }

    fn cached(&self, plan: &Plan, batch: &Batch, strategy: Strategy) -> Output {
        let (extent, extras) = (extent(batch), Extras::of(batch));
        let Self { device, packed, stored } = self;
        let mut cached = Cached::new(device, plan, packed, stored, extent, extras, strategy).unwrap();
        cached.make(device, batch, &|_| true, None).unwrap().0
    }

    fn naive(&self, plan: &Plan, batch: &Batch) -> Output {
        let (extent, extras) = (extent(batch), Extras::of(batch));
        let mut naive =
            Naive::new(&self.device, plan, &self.packed, &self.stored.all, extent, extras).unwrap();
        naive.make(&self.device, batch, &|_| true).unwrap().0
    }
}

fn extent(batch: &Batch) -> Extent {
    Extent { batch: batch.size, height: batch.height, width: batch.width }
}

fn models() -> [(ModelConfig, [usize; 2]); 2] {
    let images = PixelCnnPp {
        resnets: 1,
        filters: 12,
        mixtures: 1,
        channels: 3,
        classes: 0,
        nonlinearity: Nonlinearity::ConcatElu,
    };
    let sounds = WaveNet {
        dilations: vec![1, 2, 4],
        residual_channels: 12,
        dilation_channels: 12,
        skip_channels: 20,
        quantization_channels: 20,
        ..WaveNet::default()
    };
    [(images.into(), [4, 4]), (sounds.into(), [12, 1])]
}

#[test]
fn a_run_is_one_with_rounded_float32_weights_bit_for_bit() {
    let _turn = super::turn();
    for (config, [height, width]) in models() {
        let weights = Weights::synthetic(config, 3);
        let plan = Plan::new(weights.graph().clone());
        let on = |precision, rounded| OnDevice::new(&plan, &weights, precision, rounded);
        let noise = Noise::Philox { seed: 6, first_index: 0 };
        let batch = Batch { noise, keep_logits: true, ..Batch::new(3, height, width) };
        let exact = on(Precision::F32, false).cached(&plan, &batch, Strategy::Launch);
        let (rounded, narrow) = (on(Precision::F32, true), on(Precision::Bf16, false));
        assert!(narrow.packed.bytes() < rounded.packed.bytes());
        let expected = rounded.cached(&plan, &batch, Strategy::Launch);
        assert!(expected.logits != exact.logits, "rounded weights make no difference");
        for strategy in super::strategies(&narrow.device) {
            assert!(narrow.cached(&plan, &batch, strategy) == expected, "{strategy:?}");
        }
        assert!(narrow.naive(&plan, &batch) == expected, "naive");
        assert!(rounded.naive(&plan, &batch) == expected, "naive, rounded");
        // Of given rows every layer sums the taps of both phases at a time.
        let images = expected.images.view();
        let batch = Batch { given: Some(Given { images, rows: height / 2 }), ..batch };
        assert!(narrow.cached(&plan, &batch, Strategy::Persistent) == expected, "given rows");
    }
}
