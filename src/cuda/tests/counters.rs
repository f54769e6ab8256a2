//! How well the kernels suit the hardware, as counted facts on the virtual GPU.

use serde_json::Value;

use super::{device, device_for, vgpu};
use crate::cuda::abi::{Entry, GEMV_TILE};
use crate::cuda::cached::Cached;
use crate::cuda::cost::Room;
use crate::cuda::driver::Device;
use crate::cuda::loaded::Extras;
use crate::cuda::packed::Packed;
use crate::cuda::schedule::{Flat, PixelsBy, Schedule};
use crate::cuda::stored::Stored;
use crate::cuda::{CudaEngine, Options, Strategy};
use crate::engine::{Batch, Engine, Method, Noise};
use crate::graph::Graph;
use crate::graph::schedule::StrideWork;
use crate::models::{PixelCnnPp, WaveNet};
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;
use crate::precision::Precision;
use crate::weights::Weights;

/// What an H100 holds of the persistent kernel.
const H100: Room = Room { multiprocessors: 132, resident: 2, spread: 2 };

/// The period of PixelCNN++.
const PERIOD: usize = 4;

fn batch(size: usize, height: usize, width: usize) -> Batch<'static> {
    Batch {
        size,
        height,
        width,
        labels: None,
        noise: Noise::Philox { seed: 1, first_index: 0 },
        temperature: 1.0,
        known: None,
        start: None,
        given: None,
        method: Method::Cached,
        keep_logits: false,
    }
}

pub fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn skipped() -> bool {
    if !vgpu::is_virtual() {
        println!("not run: nothing is counted on a real device");
    }
    !vgpu::is_virtual()
}

/// Dependent stages of a pixel at which maps of one, two and three strides have a position: two for each resnet, one each for down,
/// up, input, logits and sampling.
const STAGES: [usize; 3] = [25, 49, 71];

/// A batch by the persistent kernel.
fn scheduled(plan: &Plan, extent: Extent) -> Schedule {
    let packed = Packed::places(plan, Precision::F32);
    let launches = Room::of_launches(H100.multiprocessors, (9, 0));
    Schedule::new(plan, &Steps::above_first(plan), &packed, extent, launches, PixelsBy::Persistent(H100))
}

/// The entries of a pixel, by row and then column modulo the period.
fn pixels(flat: &Flat) -> Vec<&[Entry]> {
    flat.entries.split_inclusive(|entry| entry.last == 1).collect()
}

#[test]
fn a_pixel_has_as_many_steps_as_dependent_stages() {
    let _turn = super::turn();
    let plan = Plan::new(PixelCnnPp::PAPER.graph());
    let extent = Extent { batch: 1, height: 32, width: 32 };
    let schedule = scheduled(&plan, extent);
    assert_eq!(schedule.period, PERIOD);
    let flat = schedule.flat(H100.blocks());
    let mut total = 0;
    let pixels = pixels(&flat);
    assert_eq!(pixels.len(), PERIOD * PERIOD);
    for (i, run) in pixels.into_iter().enumerate() {
        let (row, column) = (i / PERIOD, i % PERIOD);
        let strides = [4, 2, 1].map(|s| row.is_multiple_of(s) && column.is_multiple_of(s));
        let stages = STAGES[2 - strides.iter().position(|runs| *runs).unwrap()];
        // Drawing the pixel is one more.
        let steps = schedule.pixels[row][column].len() + 1;
        assert!(steps.abs_diff(stages) <= 2, "({row}, {column}): {steps} steps, {stages} stages");
        assert_eq!(run.len(), schedule.pixels[row][column].len(), "an entry for each stage");
        total += steps;
    }
    println!("steps of each pixel: {:.2}; dependent stages: 32.4", total as f64 / 16.0);
    // Of each class of rows an image has 8, of each class of pixels 64; sampling is a launch too.
    let rows: usize = schedule.rows.iter().flatten().map(Vec::len).sum();
    println!("launches of an image, one by one: {}", 8 * rows + 64 * total);
}

/// What a sample of a sound takes.
#[derive(Debug, PartialEq)]
struct Sample {
    /// Layers, or parts of them, and drawing the sample.
    stages: usize,
    /// Before the sample begins and for it: as many nodes has each of its two graphs.
    launches: [usize; 2],
}

impl Sample {
    /// As the kernels are told of it.
    fn planned(graph: Graph) -> Sample {
        let plan = Plan::new(graph);
        let extent = Extent { batch: 1, height: 8, width: 1 };
        let schedule = scheduled(&plan, extent);
        let flat = schedule.flat(H100.blocks());
        assert_eq!([flat.rows.len(), pixels(&flat).len()], [1, 1]);
        let before = schedule.rows[0].concat();
        let of_launch = |&launch: &usize| schedule.table.launches[launch].count;
        let drawing = 1;
        Sample {
            stages: before.iter().map(of_launch).sum::<usize>() + flat.entries.len() + drawing,
            launches: [before.len(), schedule.pixels[0][0].len() + drawing],
        }
    }
}

/// Models of sounds, and what a sample of each takes: the table in `docs/performance.md`.
fn sounds() -> [(&'static str, WaveNet, Sample); 2] {
    let json = include_str!("../../../models/spoken-digits/model.json");
    let json: Value = serde_json::from_str(json).unwrap();
    let digits = serde_json::from_value(json["config"].clone()).unwrap();
    [
        ("the default WaveNet", WaveNet::default(), Sample { stages: 155, launches: [1, 104] }),
        ("spoken digits", digits, Sample { stages: 71, launches: [1, 48] }),
    ]
}

#[test]
fn steps_of_a_sample_of_a_sound() {
    for (name, config, expected) in sounds() {
        let sample = Sample::planned(config.graph());
        println!("{name}: {sample:?}");
        assert_eq!(sample, expected, "{name}");
    }
}

/// A model's plan and its weights on the device.
fn on_device(device: &Device, config: PixelCnnPp, precision: Precision) -> (Plan, Packed, Stored) {
    let plan = Plan::new(config.graph());
    let packed = Packed::places(&plan, precision);
    let weights = Weights::synthetic(config, 2);
    let mut stored = Stored::zeroed(device, &packed, None).unwrap();
    packed.fill(&plan, &weights, |at, part| stored.put(device, &packed, at, part)).unwrap();
    (plan, packed, stored)
}

/// What a phase of the paper's model asked of the device, from the reports on it.
#[derive(Default)]
struct Counted {
    /// Bytes of weights that were read, and that had to be for each launch.
    weights: u64,
    distinct: u64,
    /// Sectors of weights, activations and stores, and the fewest that could hold their bytes.
    sectors: [u64; 3],
    ideal: [u64; 3],
    /// Wavefronts that bank conflicts add, shared memory's requests.
    conflicts: u64,
    shared: u64,
    /// Instructions of warps: multiplying and adding, all.
    f32: u64,
    all: u64,
    launches: u64,
}

impl Counted {
    fn add(&mut self, report: &Value) {
        assert_eq!(number(report, "/uploads/calls") + number(report, "/downloads/calls"), 0);
        let kernels = report.pointer("/kernels").and_then(Value::as_object).unwrap();
        for (name, kernel) in kernels {
            self.launches += number(kernel, "/launches");
            if !name.starts_with("masked_conv") {
                continue;
            }
            self.weights += number(kernel, "/nc_loads/bytes");
            self.distinct += number(kernel, "/nc_loads/distinct_bytes");
            for (i, what) in ["nc_loads", "loads", "stores"].into_iter().enumerate() {
                self.sectors[i] += number(kernel, &format!("/{what}/sectors"));
                self.ideal[i] += number(kernel, &format!("/{what}/ideal_sectors"));
            }
            for what in ["shared_loads", "shared_stores"] {
                self.conflicts += number(kernel, &format!("/{what}/conflicts"));
                self.shared += number(kernel, &format!("/{what}/requests"));
            }
            for (class, count) in kernel["instructions"].as_object().unwrap() {
                self.all += number(count, "/warps");
                self.f32 += if class == "f32" { number(count, "/warps") } else { 0 };
            }
        }
    }

    fn share(&self, i: usize) -> f64 {
        self.sectors[i] as f64 / self.ideal[i] as f64
    }

    /// Sectors are few, those of weights at most so many times the ideal, and no banks conflict.
    fn is_in_whole_sectors(&self, most: f64) {
        let [sectors, ideal] = [&self.sectors, &self.ideal].map(|n| n.iter().sum::<u64>() as f64);
        let few = self.share(0) < most && self.share(1) < 1.1 && sectors < 1.1 * ideal;
        assert!(few, "{:?}, {:?}", self.sectors, self.ideal);
        assert_eq!(self.conflicts, 0);
    }

    /// A row of the table in `docs/performance.md`, as an average over `parts`.
    fn print(&self, what: &str, parts: f64, least: f64) {
        let each = |n: u64| n as f64 / parts;
        println!(
            "| {what} | {:.2} | {:.2} | {:.2} | {:.2} | {:.3} | {:.3} | {:.3} | {:.0} | {} | {:.0} | {:.0} % |",
            each(self.launches),
            each(self.weights) / 1e6,
            each(self.distinct) / 1e6,
            least / parts / 1e6,
            self.share(0),
            self.share(1),
            self.share(2),
            each(self.shared),
            self.conflicts,
            each(self.all),
            100.0 * self.f32 as f64 / self.all as f64,
        );
    }
}

/// The paper's model on the device, of each class of rows and pixels one.
struct Paper {
    device: Device,
    precision: Precision,
    plan: Plan,
    packed: Packed,
    stored: Stored,
}

impl Paper {
    fn new(precision: Precision) -> Paper {
        let device = device_for(precision);
        let (plan, packed, stored) = on_device(&device, PixelCnnPp::PAPER, precision);
        Paper { device, precision, plan, packed, stored }
    }

    fn begun(&self, size: usize, width: usize) -> Cached {
        let Self { device, plan, packed, stored, .. } = self;
        let extent = Extent { batch: size, height: PERIOD, width };
        let extras = Extras { logits: false, noise: false, nats: false };
        let mut cached = Cached::new(device, plan, packed, stored, extent, extras, Strategy::Launch).unwrap();
        cached.begin(device, &batch(size, PERIOD, width)).unwrap();
        cached
    }

    /// What comes before the pixels of the first row, at which every stride has positions.
    fn row(&self, width: usize) -> Counted {
        let (cached, mut counted) = (self.begun(1, width), Counted::default());
        vgpu::reset(true);
        cached.begin_row(&self.device, 0).unwrap();
        counted.add(&vgpu::report());
        counted
    }

    /// The pixel phases of each class, without what comes before them, so that the test takes no longer.
    fn pixels(&self, size: usize) -> Counted {
        let (cached, mut counted) = (self.begun(size, PERIOD), Counted::default());
        for row in 0..PERIOD {
            vgpu::reset(true);
            cached.pixels(&self.device, row, PERIOD).unwrap();
            counted.add(&vgpu::report());
        }
        counted
    }

    /// Bytes of the weights of that row and of those pixels, each stride's as often as it runs.
    fn needed(&self) -> [f64; 2] {
        let work = self.plan.graph.work_by_stride();
        let runs = |work: &StrideWork| (PERIOD / work.stride).pow(2) as f64;
        let of_pixels = work.iter().map(|work| self.precision.bytes() * work.pixel * runs(work));
        [work.iter().map(|work| 4.0 * work.row).sum(), of_pixels.sum()]
    }
}

#[test]
fn weights_are_read_once_and_in_whole_sectors() {
    let _turn = super::turn();
    if skipped() {
        return;
    }
    println!(
        "| | launches | weights MB | distinct | at least | sectors / ideal: weights | activations | stores \
         | shared requests | conflicts | instructions | float32 |"
    );
    for (precision, sizes) in [(Precision::F32, &[1, 8][..]), (Precision::Bf16, &[1])] {
        let paper = Paper::new(precision);
        let [of_row, of_pixels] = paper.needed();
        if precision == Precision::F32 {
            let row = paper.row(32);
            row.print("a row of 32 before its pixels, batch 1", 1.0, of_row);
            assert!((row.distinct as f64) < 1.05 * of_row, "{} bytes, {of_row} needed", row.distinct);
            assert!((row.weights as f64) < 1.2 * of_row, "{} bytes, {of_row} needed", row.weights);
            // Where the chunks of a product are split among a block's warps two of them share a sector of weights.
            row.is_in_whole_sectors(1.2);
        }
        for &size in sizes {
            let pixels = paper.pixels(size);
            let name = format!("a pixel, batch {size}, {}", precision.name());
            pixels.print(&name, (PERIOD * PERIOD) as f64, of_pixels);
            // Beyond one tile of images, multiprocessors that would idle read the same weights for other images.
            let times = size.div_ceil(GEMV_TILE) as f64;
            let (read, distinct) = (pixels.weights as f64, pixels.distinct as f64);
            assert!(read < 1.05 * times * of_pixels, "{read} bytes, {of_pixels} needed");
            assert!(distinct < 1.05 * of_pixels, "{distinct} bytes, {of_pixels} needed");
            pixels.is_in_whole_sectors(1.01);
        }
    }
}

#[test]
fn tiles_are_brought_in_whole_sectors_and_without_bank_conflicts() {
    let _turn = super::turn();
    if skipped() {
        return;
    }
    let mut device = device();
    // Few multiprocessors: all of a row's layers go through masked_conv_gemm.
    device.properties.multiprocessors = 1;
    let config = PixelCnnPp { resnets: 1, filters: 64, mixtures: 2, ..PixelCnnPp::PAPER };
    let (plan, packed, stored) = on_device(&device, config, Precision::F32);
    let extent = Extent { batch: 8, height: 4, width: 32 };
    let extras = Extras { logits: false, noise: false, nats: false };
    let mut cached = Cached::new(&device, &plan, &packed, &stored, extent, extras, Strategy::Launch).unwrap();
    cached.begin(&device, &batch(8, 4, 32)).unwrap();
    vgpu::reset(false);
    cached.begin_row(&device, 0).unwrap();
    let report = vgpu::report();
    let at = |what: &str| number(&report, &format!("/kernels/masked_conv_gemm_f32/{what}"));
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
    let config = PixelCnnPp { resnets: 1, filters: 8, mixtures: 1, ..PixelCnnPp::PAPER };
    let weights = Weights::synthetic(config, 2);
    for strategy in [Strategy::Launch, Strategy::Graph, Strategy::Persistent] {
        let mut engine = CudaEngine::new(&weights, 0, &Options { strategy, ..Options::default() }).unwrap();
        let mut copies = Vec::new();
        for height in [4, 8] {
            engine.make(&batch(1, height, 4), &|_| true).unwrap();
            vgpu::reset(false);
            engine.make(&batch(1, height, 4), &|_| true).unwrap();
            let report = vgpu::report();
            copies.push([number(&report, "/uploads/calls"), number(&report, "/downloads/calls")]);
            assert_eq!(number(&report, "/allocations/calls"), 0, "{strategy:?} allocates in an image");
            let launches = report.pointer("/launches").and_then(Value::as_object).unwrap();
            let of = |how: &str| launches.values().map(|l| number(l, &format!("/{how}"))).sum::<u64>();
            let [plain, by_graph, cooperative] = [of("plain"), of("by_graph"), of("cooperative")];
            // Launches of rows, by the host and in graphs: of each list's layers but the first.
            assert!(of("early") > 2 * height as u64, "{strategy:?}: {} launches begin early", of("early"));
            let graphs = number(&report, "/graph_launches");
            println!(
                "{height}x4, {strategy:?}: {plain} launches, {graphs} graphs of {by_graph} nodes, {cooperative} cooperative"
            );
            match strategy {
                Strategy::Graph => assert_eq!(graphs, (height + height * 4) as u64),
                Strategy::Persistent => assert_eq!([graphs, cooperative], [height as u64; 2]),
                _ => assert_eq!(graphs + cooperative, 0),
            }
        }
        assert_eq!(copies[0], copies[1], "{strategy:?}: copies inside an image");
    }
}

/// What each strategy asks of the device for one more sample of a sound.
#[test]
fn launches_of_a_sample_by_strategy() {
    let _turn = super::turn();
    if skipped() {
        return;
    }
    for (name, config, sample) in sounds() {
        let weights = Weights::synthetic_for(config.graph(), 2);
        let labels = (config.classes > 0).then_some(&[0][..]);
        let [before, of_it] = sample.launches.map(|launches| launches as u64);
        for strategy in [Strategy::Launch, Strategy::Graph, Strategy::Persistent] {
            let mut engine =
                CudaEngine::new(&weights, 0, &Options { strategy, ..Options::default() }).unwrap();
            let mut asked = |length| {
                vgpu::reset(false);
                engine.make(&Batch { labels, ..batch(1, length, 1) }, &|_| true).unwrap();
                let report = vgpu::report();
                let launches = report.pointer("/launches").and_then(Value::as_object).unwrap();
                let of = |how: &str| launches.values().map(|l| number(l, &format!("/{how}"))).sum::<u64>();
                [of("plain"), number(&report, "/graph_launches"), of("by_graph"), of("cooperative")]
            };
            let (one, two) = (asked(1), asked(2));
            let more: Vec<u64> = two.iter().zip(one).map(|(two, one)| two - one).collect();
            println!(
                "{name}, {strategy:?}: {} launches, {} graphs of {} nodes, {} cooperative",
                more[0], more[1], more[2], more[3]
            );
            let expected = match strategy {
                Strategy::Graph => [0, 2, before + of_it, 0],
                // What is expected is made pending by a launch of its own.
                Strategy::Persistent => [1, 1, before, 1],
                _ => [before + of_it, 0, 0, 0],
            };
            assert_eq!(more, expected, "{name}, {strategy:?}");
        }
    }
}

#[test]
fn the_order_of_blocks_and_warps_makes_no_difference() {
    let _turn = super::turn();
    if skipped() {
        return;
    }
    let config = PixelCnnPp { resnets: 1, filters: 12, mixtures: 2, ..PixelCnnPp::PAPER };
    let weights = Weights::synthetic(config, 4);
    for strategy in super::strategies(&device()) {
        let mut images = Vec::new();
        for seed in 0..6 {
            let mut engine =
                CudaEngine::new(&weights, 0, &Options { strategy, ..Options::default() }).unwrap();
            vgpu::seed(seed);
            images.push(engine.make(&batch(2, 4, 4), &|_| true).unwrap().images);
        }
        vgpu::seed(0);
        assert!(images.iter().all(|i| *i == images[0]), "{strategy:?}");
    }
}
