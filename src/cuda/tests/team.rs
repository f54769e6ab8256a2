//! Teams of every shape make what launches make, in whatever order their blocks and warps run.

use std::sync::Mutex;

use super::counters::number;
use super::{device, turn, vgpu};
use crate::cuda::Strategy;
use crate::cuda::cached::Cached;
use crate::cuda::cost::Shape;
use crate::cuda::driver::Device;
use crate::cuda::loaded::Extras;
use crate::cuda::packed::Packed;
use crate::cuda::stored::Stored;
use crate::engine::{Batch, Output};
use crate::error::Error;
use crate::graph::Graph;
use crate::models::{PixelCnnPp, WaveNet};
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::precision::Precision;
use crate::weights::Weights;

/// A model on a device of 16 multiprocessors.
struct OnDevice {
    plan: Plan,
    packed: Packed,
    stored: Stored,
    device: Device,
}

impl OnDevice {
    fn new(graph: Graph) -> OnDevice {
        let mut device = device();
        // For what comes before the pixels of a row: the virtual GPU takes its time for blocks that wait.
        device.properties.multiprocessors = 16;
        let plan = Plan::new(graph);
        let packed = Packed::places(&plan, Precision::F32);
        let weights = Weights::synthetic_for(plan.graph.clone(), 7);
        let mut stored = Stored::zeroed(&device, &packed, None).unwrap();
        packed.fill(&plan, &weights, |at, part| stored.put(&device, &packed, at, part)).unwrap();
        OnDevice { plan, packed, stored, device }
    }

    fn cached(&self, batch: &Batch, strategy: Strategy) -> Cached {
        let Self { plan, packed, stored, device } = self;
        let extent = Extent { batch: batch.size, height: batch.height, width: batch.width };
        Cached::new(device, plan, packed, stored, extent, Extras::of(batch), strategy).unwrap()
    }

    /// By teams of a shape, as launches have it.
    fn check(&self, batch: &Batch, shape: Shape, expected: &Output) {
        let mut cached = self.cached(batch, Strategy::Team);
        cached.reshape(&self.device, &self.plan, shape).unwrap();
        let (output, _) = cached.make(&self.device, batch, &|_| true, None).unwrap();
        let bits = |output: &Output| -> Vec<u32> {
            let all = output.images.iter().chain(output.logits.as_ref().unwrap());
            all.map(|x| x.to_bits()).collect()
        };
        assert!(bits(&output) == bits(expected), "{shape:?}");
    }

    fn by_launches(&self, batch: &Batch) -> Output {
        self.cached(batch, Strategy::Launch).make(&self.device, batch, &|_| true, None).unwrap().0
    }
}

fn shape([teams, blocks, images]: [usize; 3]) -> Shape {
    Shape { teams, blocks, images }
}

/// A sound's large layers, which the blocks of a team share; its dilated ones, which the first makes alone.
fn sounds() -> Graph {
    WaveNet { dilations: vec![1, 2, 4], quantization_channels: 32, ..WaveNet::default() }.graph()
}

/// One block or several, one image of a team or several, all teams at a time or in turns.
#[test]
fn every_shape_makes_the_same() {
    let _turn = turn();
    let model = OnDevice::new(sounds());
    let batch = Batch { keep_logits: true, ..Batch::new(5, 9, 1) };
    let expected = model.by_launches(&batch);
    for of in
        [[1, 1, 1], [5, 1, 1], [2, 1, 4], [3, 1, 2], [1, 2, 4], [5, 2, 1], [2, 4, 2], [1, 16, 1], [2, 8, 4]]
    {
        model.check(&batch, shape(of), &expected);
    }
}

/// Images, too: of a pixel the input's layers are small, and the others large, which the blocks of a team share.
#[test]
fn images_are_shared_out_as_well() {
    let _turn = turn();
    let config = PixelCnnPp { resnets: 1, filters: 128, mixtures: 2, classes: 0, ..PixelCnnPp::PAPER };
    let model = OnDevice::new(config.graph());
    let batch = Batch { keep_logits: true, ..Batch::new(3, 4, 4) };
    let expected = model.by_launches(&batch);
    for of in [[2, 1, 2], [3, 2, 1], [1, 4, 2], [2, 8, 1]] {
        model.check(&batch, shape(of), &expected);
    }
}

/// More samples than a launch makes: who watches is told what each has finished.
#[test]
fn samples_of_several_launches_are_the_same() {
    let _turn = turn();
    let model = OnDevice::new(
        WaveNet { dilations: vec![1, 2], quantization_channels: 16, ..WaveNet::default() }.graph(),
    );
    let batch = Batch { keep_logits: true, ..Batch::new(2, 300, 1) };
    let expected = model.by_launches(&batch);
    model.check(&batch, shape([2, 1, 1]), &expected);
    // In two turns, a launch makes half as many.
    for (of, watched) in [([1, 2, 2], vec![256, 300]), ([1, 1, 1], vec![128, 256, 300])] {
        let mut cached = model.cached(&batch, Strategy::Team);
        cached.reshape(&model.device, &model.plan, shape(of)).unwrap();
        let seen = Mutex::new(Vec::new());
        let watch = |rows| {
            seen.lock().unwrap().push(rows);
            true
        };
        cached.make(&model.device, &batch, &watch, None).unwrap();
        assert_eq!(*seen.lock().unwrap(), watched);
        let stopped = cached.make(&model.device, &batch, &|rows| rows < 200, None);
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
}

/// With little shared memory a large stage takes several records, or does not fit.
#[test]
fn little_memory_makes_the_same_or_is_refused() {
    let _turn = turn();
    let mut model = OnDevice::new(sounds());
    let batch = Batch { keep_logits: true, ..Batch::new(2, 5, 1) };
    let expected = model.by_launches(&batch);
    for limit in [64 << 10, 20_000] {
        model.device.properties.block_memory = limit;
        for of in [[2, 1, 1], [1, 4, 1]] {
            model.check(&batch, shape(of), &expected);
        }
    }
    model.device.properties.block_memory = 4_000;
    let extent = Extent { batch: 2, height: 5, width: 1 };
    let OnDevice { plan, packed, stored, device } = &model;
    let refused = Cached::new(device, plan, packed, stored, extent, Extras::of(&batch), Strategy::Team);
    let told = refused.err().expect("4 KB hold no records").to_string();
    assert!(told.contains("too large for a block") && told.contains("persistent"), "{told}");
}

/// The virtual GPU runs blocks and warps in other orders, and finds races in each.
#[test]
fn any_order_makes_the_same() {
    if !vgpu::is_virtual() {
        println!("not run: the order of blocks is a device's own");
        return;
    }
    let _turn = turn();
    let seeds: u64 = std::env::var("TEAM_SEEDS").map_or(4, |text| text.parse().unwrap());
    let model = OnDevice::new(sounds());
    let batch = Batch { keep_logits: true, ..Batch::new(3, 5, 1) };
    let expected = model.by_launches(&batch);
    for seed in 1..=seeds {
        vgpu::seed(seed);
        let of = [[3, 1, 1], [1, 2, 4], [2, 4, 1], [1, 8, 2]][seed as usize % 4];
        model.check(&batch, shape(of), &expected);
    }
    vgpu::seed(0);
}

/// What a sample of a sound asks for, on the virtual GPU: its weights once, beside them what its tasks and outputs are, a sixth of
/// that; no sector for less than it holds; and two barriers a step.
#[test]
fn a_sample_reads_its_weights_once() {
    if !vgpu::is_virtual() {
        println!("not run: nothing is counted on a real device");
        return;
    }
    let _turn = turn();
    let model = OnDevice::new(WaveNet::default().graph());
    let count = |height: usize| {
        let batch = Batch::new(1, height, 1);
        let mut cached = model.cached(&batch, Strategy::Team);
        cached.reshape(&model.device, &model.plan, shape([1, 1, 1])).unwrap();
        vgpu::reset(false);
        cached.make(&model.device, &batch, &|_| true, None).unwrap();
        let report = vgpu::report();
        let paths = [
            "launches",
            "nc_loads/bytes",
            "nc_loads/sectors",
            "nc_loads/ideal_sectors",
            "block_barriers",
            "shared_loads/requests",
            "shared_loads/conflicts",
            "shared_stores/requests",
            "shared_stores/conflicts",
        ];
        paths.map(|path| number(&report, &format!("/kernels/team_f32/{path}")) as i64)
    };
    let (few, more) = (count(2), count(4));
    let mut of_sample = [0; 9];
    of_sample.iter_mut().zip(few.iter().zip(more)).for_each(|(n, (a, b))| *n = (b - a) / 2);
    let [launches, bytes, sectors, ideal, barriers, loads, load_conflicts, stores, store_conflicts] =
        of_sample;
    let weights = model.packed.bytes() as i64;
    println!(
        "a sample: {bytes} bytes, of which weights {weights}; {sectors} sectors, {ideal} at best; {barriers} barriers; \
         shared memory: {loads} and {stores} requests, {load_conflicts} and {store_conflicts} conflicts"
    );
    assert_eq!([launches, few[0]], [0, 1]);
    assert!(bytes >= weights && bytes < weights + weights / 5);
    assert!(sectors < ideal + ideal / 40);
    let steps = model.plan.graph.layers.len() as i64;
    assert!((2 * steps..3 * steps).contains(&barriers), "{barriers} barriers, {steps} steps");
    assert!(load_conflicts < loads / 10 && store_conflicts < stores / 2);
}
