//! How well the kernels suit the hardware, as counted facts on the virtual GPU.

use serde_json::Value;

use super::{device, vgpu};
use crate::config::ModelConfig;
use crate::cuda::cached::Cached;
use crate::cuda::layout::Extent;
use crate::cuda::loaded::Extras;
use crate::cuda::packed::Packed;
use crate::cuda::programs::{PERIOD, Programs};
use crate::cuda::{CudaEngine, Strategy};
use crate::engine::{Batch, Engine, Method, Noise};
use crate::network::Network;
use crate::schedule::level_weights;
use crate::weights::Weights;

fn batch(size: usize, height: usize, width: usize) -> Batch<'static> {
    Batch {
        size,
        height,
        width,
        labels: None,
        noise: Noise::Philox { seed: 1, first_index: 0 },
        given: None,
        method: Method::Cached,
        keep_logits: false,
    }
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn skipped() -> bool {
    if !vgpu::is_virtual() {
        println!("not run: nothing is counted on a real device");
    }
    !vgpu::is_virtual()
}

/// Dependent stages of a pixel where one, two and three levels run: two for each resnet, one each for down,
/// up, input, logits and sampling.
const STAGES: [usize; 3] = [25, 49, 71];

#[test]
fn barriers_of_a_pixel_are_its_dependent_stages() {
    let _turn = super::turn();
    let network = Network::new(ModelConfig::PAPER);
    let extent = Extent { batch: 1, height: 32, width: 32 };
    let programs = Programs::new(&network, &Packed::plan(&network), extent, 132);
    let (entries, _, pixels) = programs.flat();
    let mut total = 0;
    for (i, program) in pixels.iter().enumerate() {
        let (row, column) = (i / PERIOD, i % PERIOD);
        let levels = [4, 2, 1].map(|l| row.is_multiple_of(l) && column.is_multiple_of(l));
        let stages = STAGES[2 - levels.iter().position(|runs| *runs).unwrap()];
        let entries = &entries[program.first as usize..][..program.count as usize];
        let barriers = entries.iter().filter(|e| e.join == 1).count() + 1;
        assert!(barriers.abs_diff(stages) <= 2, "({row}, {column}): {barriers} barriers, {stages} stages");
        total += barriers;
    }
    println!("barriers for each pixel: {:.2}; dependent stages: 32.4", total as f64 / 16.0);
}

/// The paper's model, one image, one row of each class: what the pixel phase reads and how.
#[test]
fn a_pixel_reads_its_weights_once_and_in_whole_sectors() {
    let _turn = super::turn();
    if skipped() {
        return;
    }
    let (height, width) = (4, 32);
    let device = device();
    let network = Network::new(ModelConfig::PAPER);
    let weights = Weights::synthetic(ModelConfig::PAPER, 2);
    let packed = Packed::plan(&network);
    let mut floats = device.zeroed(packed.len).unwrap();
    packed.fill(&network, &weights, |at, part| device.write(&mut floats, at as usize, part)).unwrap();
    let extent = Extent { batch: 1, height, width };
    let extras = Extras { logits: false, noise: false };
    let mut cached =
        Cached::new(&device, &network, &packed, &floats, extent, extras, Strategy::Launch).unwrap();
    cached.begin(&device, &batch(1, height, width)).unwrap();
    let mut read = 0;
    let (mut sectors, mut ideal, mut conflicts) = ([0; 3], [0; 3], 0);
    for row in 0..height {
        cached.begin_row(&device, row).unwrap();
        vgpu::reset(false);
        cached.pixels(&device, row, width).unwrap();
        let report = vgpu::report();
        assert_eq!(number(&report, "/uploads/calls") + number(&report, "/downloads/calls"), 0);
        let kernel = "/kernels/masked_conv_narrow_f32";
        read += number(&report, &format!("{kernel}/nc_loads/bytes"));
        for (i, what) in ["nc_loads", "loads", "stores"].into_iter().enumerate() {
            sectors[i] += number(&report, &format!("{kernel}/{what}/sectors"));
            ideal[i] += number(&report, &format!("{kernel}/{what}/ideal_sectors"));
        }
        conflicts += number(&report, &format!("{kernel}/shared_loads/conflicts"));
        conflicts += number(&report, &format!("{kernel}/shared_stores/conflicts"));
    }
    let least: f64 = level_weights(&network)
        .iter()
        .map(|set| 4.0 * set.pixel * (height / set.level * (width / set.level)) as f64)
        .sum();
    let pixels = (height * width) as f64;
    println!(
        "weights read for each pixel: {:.2} MB, at least {:.2} MB",
        read as f64 / pixels / 1e6,
        least / pixels / 1e6
    );
    let share = |i: usize| sectors[i] as f64 / ideal[i] as f64;
    println!("sectors / ideal: weights {:.3}, activations {:.3}, stores {:.3}", share(0), share(1), share(2));
    println!("bank conflicts: {conflicts} wavefronts");
    assert!((read as f64) < 1.05 * least, "{read} bytes of weights, {least} are needed");
    assert!(share(0) < 1.01, "weights: {sectors:?} sectors, {ideal:?} would do");
    let all = sectors.iter().sum::<u64>() as f64 / ideal.iter().sum::<u64>() as f64;
    assert!(all < 1.1, "{sectors:?} sectors, {ideal:?} would do");
    assert_eq!(conflicts, 0);
}

#[test]
fn tiles_are_brought_in_whole_sectors_and_without_bank_conflicts() {
    let _turn = super::turn();
    if skipped() {
        return;
    }
    let mut device = device();
    // Few multiprocessors: all of a row's layers go through masked_conv_wide.
    device.properties.multiprocessors = 1;
    let config = ModelConfig { resnets: 1, filters: 64, mixtures: 2, ..ModelConfig::PAPER };
    let network = Network::new(config);
    let packed = Packed::plan(&network);
    let mut floats = device.zeroed(packed.len).unwrap();
    let weights = Weights::synthetic(config, 2);
    packed.fill(&network, &weights, |at, part| device.write(&mut floats, at as usize, part)).unwrap();
    let extent = Extent { batch: 8, height: 4, width: 32 };
    let extras = Extras { logits: false, noise: false };
    let mut cached =
        Cached::new(&device, &network, &packed, &floats, extent, extras, Strategy::Launch).unwrap();
    cached.begin(&device, &batch(8, 4, 32)).unwrap();
    vgpu::reset(false);
    cached.begin_row(&device, 0).unwrap();
    let report = vgpu::report();
    let at = |what: &str| number(&report, &format!("/kernels/masked_conv_wide_f32/{what}"));
    for what in ["nc_loads", "loads", "stores"] {
        let share = at(&format!("{what}/sectors")) as f64 / at(&format!("{what}/ideal_sectors")) as f64;
        println!("{what}: sectors / ideal {share:.3}");
        assert!(share < 1.1, "{what}");
    }
    let conflicts = at("shared_loads/conflicts") + at("shared_stores/conflicts");
    assert!(at("shared_loads/requests") > 0);
    assert_eq!(conflicts, 0, "bank conflicts");
}

/// What the host does for an image does not depend on how many pixels it has, but for the launches.
#[test]
fn launches_of_an_image_by_strategy() {
    let _turn = super::turn();
    if skipped() {
        return;
    }
    let config = ModelConfig { resnets: 1, filters: 8, mixtures: 1, ..ModelConfig::PAPER };
    let weights = Weights::synthetic(config, 2);
    for strategy in [Strategy::Launch, Strategy::Graph, Strategy::Persistent] {
        let mut engine = CudaEngine::new(&weights, 0, strategy).unwrap();
        let mut copies = Vec::new();
        for height in [4, 8] {
            engine.make(&batch(2, height, 8), &|_| true).unwrap();
            vgpu::reset(false);
            engine.make(&batch(2, height, 8), &|_| true).unwrap();
            let report = vgpu::report();
            copies.push([number(&report, "/uploads/calls"), number(&report, "/downloads/calls")]);
            assert_eq!(number(&report, "/allocations/calls"), 0, "{strategy:?} allocates in an image");
            let launches = report.pointer("/launches").and_then(Value::as_object).unwrap();
            let of = |how: &str| launches.values().map(|l| number(l, &format!("/{how}"))).sum::<u64>();
            let [plain, by_graph, cooperative] = [of("plain"), of("by_graph"), of("cooperative")];
            let graphs = number(&report, "/graph_launches");
            println!(
                "{height}x8, {strategy:?}: {plain} launches, {graphs} graphs of {by_graph} nodes, {cooperative} cooperative"
            );
            match strategy {
                Strategy::Graph => assert_eq!(graphs, (height + height * 8) as u64),
                Strategy::Persistent => assert_eq!(cooperative, height as u64),
                _ => assert_eq!(graphs + cooperative, 0),
            }
        }
        assert_eq!(copies[0], copies[1], "{strategy:?}: copies inside an image");
    }
}

#[test]
fn the_order_of_blocks_and_warps_makes_no_difference() {
    let _turn = super::turn();
    if skipped() {
        return;
    }
    let config = ModelConfig { resnets: 1, filters: 12, mixtures: 2, ..ModelConfig::PAPER };
    let weights = Weights::synthetic(config, 4);
    for strategy in [Strategy::Launch, Strategy::Graph, Strategy::Persistent] {
        let mut images = Vec::new();
        for seed in 0..6 {
            vgpu::seed(seed);
            let mut engine = CudaEngine::new(&weights, 0, strategy).unwrap();
            images.push(engine.make(&batch(2, 4, 8), &|_| true).unwrap().images);
        }
        vgpu::seed(0);
        assert!(images.iter().all(|i| *i == images[0]), "{strategy:?}");
    }
}
