//! What a row's pixels ask of a cluster, as counted facts on the virtual GPU.
//!
//! The idea: what has to be read and sent follows from the plan and from how its pieces are shared among blocks. Asking for no
//! more than that is what clusters are for, so the counts are held to those very numbers.

use serde_json::Value;

use super::counters::number;
use super::{device_for, vgpu};
use crate::cuda::Strategy;
use crate::cuda::abi::{CHUNK, CLUSTER, PART, SLICE, Stage, Tap, Turn};
use crate::cuda::cached::Cached;
use crate::cuda::cluster::Clusters;
use crate::cuda::cost::Room;
use crate::cuda::kernels::{self, Kernel};
use crate::cuda::loaded::Extras;
use crate::cuda::packed::{Packed, PackedPiece};
use crate::cuda::pages::{Pages, Shares};
use crate::cuda::schedule::{PixelsBy, Schedule};
use crate::cuda::stored::Stored;
use crate::engine::Batch;
use crate::graph::{Activation, IMAGE};
use crate::models::PixelCnnPp;
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;
use crate::precision::Precision;
use crate::weights::Weights;

/// Rows and columns of an image: all classes of pixels.
const SIDE: usize = 4;

/// What an image takes.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    /// Sectors of weights and of records.
    sectors: u64,
    /// Bytes that are sent to blocks, those of tokens too.
    sent: u64,
    /// Steps of all blocks: each ends when what it brings has arrived. And what a pixel takes ahead of its logits.
    arrivals: u64,
    /// Barriers of a block.
    block_barriers: u64,
    /// Barriers of the cluster.
    cluster_barriers: u64,
}

impl Counts {
    /// As it is planned.
    fn planned(plan: &Plan, precision: Precision) -> Counts {
        let packed = Packed::places(plan, precision);
        let pages = Pages::new(plan, &packed, precision);
        let (steps, blocks) = (Steps::above_first(plan), CLUSTER as u64);
        let taps = steps.pixels.iter().flatten().flatten().flatten();
        let most = taps.map(|run| plan.pieces[run.piece].part(run.part).len()).max().unwrap_or(0);
        let record = size_of::<Turn>() + size_of::<Stage>() + most * size_of::<Tap>();
        let record = record.next_multiple_of(SECTOR);
        assert_eq!(steps.period, SIDE);
        // A block with something to send sends it to all, any other one a token.
        let sent = |floats, makers: usize| {
            let tokens = CLUSTER - makers.min(CLUSTER);
            blocks * (floats * size_of::<f32>() + tokens * PART) as u64
        };
        let extent = Extent { batch: 1, height: SIDE, width: SIDE };
        let room = Room::promised(CLUSTER);
        let schedule = Schedule::new(plan, &steps, &packed, extent, room, PixelsBy::Clusters(1));
        let clusters = Clusters::new(plan, &steps, &schedule, &pages, extent, usize::MAX, 1).unwrap();
        let turns = clusters.turns();
        // Before a row begins, and where no block leaves before the last value has come.
        let mut counts = Counts { cluster_barriers: 2 * SIDE as u64, ..Counts::default() };
        for row in 0..SIDE {
            let pixels = (0..SIDE).map(|column| steps.pixel(row, column).iter().flatten());
            let pieces: Vec<_> = pixels.flatten().map(|run| run.piece).collect();
            let shares: Vec<_> = pieces.iter().map(|&piece| pages.pieces[piece].unwrap()).collect();
            let of_piece = |(&piece, shares)| sectors(&packed.pieces[piece], shares, precision);
            counts.sectors += pieces.iter().zip(&shares).map(of_piece).sum::<u64>();
            // When a row ends, the weights of what would come next have been asked for.
            let next = steps.pixel(row, 1).iter().flatten().next().unwrap().piece;
            counts.sectors += of_piece((&next, &pages.pieces[next].unwrap()));
            // The first record, and at each step the next one.
            counts.sectors += blocks * ((shares.len() + 1) * record / SECTOR) as u64;
            let mut turn = &turns[clusters.rows[row]];
            for shares in &shares {
                assert_eq!(turn.units as usize, shares.units);
                // What is read through concat_elu is sent as its two parts.
                let copies = if turn.sent_by == Activation::ConcatElu as i32 { 2 } else { 1 };
                counts.sent += sent(copies * shares.units * SLICE, shares.units);
                // The inputs in maps are there, all sums are there, and the next record for bringers and for adders. And the sums
                // of all taps but the last, if they come early.
                counts.block_barriers += blocks * (4 + turn.older as u64);
                turn = &turns[turn.next as usize];
            }
            counts.sent += SIDE as u64 * sent(plan.graph.maps[IMAGE].channels.next_multiple_of(CHUNK), 1);
            counts.arrivals += blocks * (shares.len() + SIDE) as u64;
            // What drawing takes beside the logits, in the block that draws.
            counts.arrivals += SIDE as u64;
            // Once the first record is there.
            counts.block_barriers += blocks;
        }
        counts
    }

    /// As it was counted.
    fn counted(kernel: &Value, sectors: u64) -> Counts {
        Counts {
            sectors,
            sent: number(kernel, "/async_stores/bytes"),
            arrivals: number(kernel, "/mbarrier_phases"),
            block_barriers: number(kernel, "/block_barriers"),
            cluster_barriers: number(kernel, "/cluster_barriers"),
        }
    }
}

/// Bytes that memory is read by.
const SECTOR: usize = 32;

/// Of a piece's weights, in all blocks: on a page the multipliers' shares of a line lie side by side, either part's by itself.
fn sectors(piece: &PackedPiece, shares: &Shares, precision: Precision) -> u64 {
    let lines = piece.rows * SLICE * precision.bytes() as usize / PART;
    let units = piece.slices / piece.halves;
    let of_block = |block: usize| {
        let slices = (units * (block + 1) / CLUSTER - units * block / CLUSTER) * piece.halves;
        assert_eq!(shares.rounds, 1);
        let of_part = |chunks: usize| lines * (slices * chunks * PART).div_ceil(SECTOR);
        of_part(shares.early) + of_part(piece.pixel.chunks - shares.early)
    };
    (0..CLUSTER).map(of_block).sum::<usize>() as u64
}

/// On an image of a model, on a device with few multiprocessors for what comes before a row's pixels.
fn report(plan: &Plan, precision: Precision) -> Value {
    let mut device = device_for(precision);
    device.properties.multiprocessors = CLUSTER;
    let packed = Packed::places(plan, precision);
    let pages = Pages::new(plan, &packed, precision);
    let mut stored = Stored::zeroed(&device, &packed, Some(pages)).unwrap();
    let weights = Weights::synthetic_for(plan.graph.clone(), 1);
    packed.fill(plan, &weights, |at, part| stored.put(&device, &packed, at, part)).unwrap();
    let batch = Batch::new(1, SIDE, SIDE);
    let (extent, extras) = (Extent { batch: 1, height: SIDE, width: SIDE }, Extras::of(&batch));
    let mut cached = Cached::new(&device, plan, &packed, &stored, extent, extras, Strategy::Cluster).unwrap();
    vgpu::reset_by_line();
    cached.make(&device, &batch, &|_| true, None).unwrap();
    vgpu::report()
}

/// How well it suits the hardware, at worst.
struct Bounds {
    /// Sectors against the fewest that could do: of loads of inputs, and of stores.
    sectors: [f64; 2],
    /// Bank conflicts of a request to shared memory: of loads and of stores.
    conflicts: [f64; 2],
}

impl Bounds {
    fn hold(&self, name: &str, kernel: &Value) {
        let share = |place: &str, part: &str, whole: &str| {
            let [part, whole] = [part, whole].map(|what| number(kernel, &format!("/{place}/{what}")));
            part as f64 / whole as f64
        };
        for (i, what) in ["loads", "stores"].into_iter().enumerate() {
            let sectors = share(what, "sectors", "ideal_sectors");
            let conflicts = share(&format!("shared_{what}"), "conflicts", "requests");
            println!("{name}, {what}: sectors / ideal {sectors:.3}; {conflicts:.4} bank conflicts a request");
            assert!(sectors < self.sectors[i] && conflicts < self.conflicts[i], "{name}, {what}");
        }
    }
}

#[test]
fn an_image_reads_its_weights_once_and_sends_what_it_makes() {
    let _turn = super::turn();
    if !vgpu::is_virtual() {
        println!("not run: nothing is counted on a real device");
        return;
    }
    // All layers that the paper's model has, one of a kind. A block's two or three slices of a map fill no sectors, and a warp that
    // has chunks of two slices stores some of their sums to the same banks.
    let paper = PixelCnnPp { resnets: 1, ..PixelCnnPp::PAPER };
    let paper_bounds = Bounds { sectors: [1.05, 1.2], conflicts: [0.01, 0.55] };
    // Six blocks have a slice, the others send tokens.
    let narrow = PixelCnnPp { filters: 24, mixtures: 1, ..paper };
    let narrow_bounds = Bounds { sectors: [1.05, 1.01], conflicts: [0.01, 0.05] };
    for (config, precision, bounds) in
        [(paper, Precision::F32, paper_bounds), (narrow, Precision::Bf16, narrow_bounds)]
    {
        let plan = Plan::new(config.graph());
        let report = report(&plan, precision);
        let (file, name) = Kernel::Cluster.place(precision);
        let kernel = &report["kernels"][name];
        let text: Vec<&str> = kernels::ptx(file).lines().collect();
        let lines = kernel["lines"].as_object().unwrap().iter();
        let lines: Vec<_> = lines.map(|(n, l)| (text[n.parse::<usize>().unwrap() - 1], l)).collect();
        for (line, counts) in lines.iter().filter(|(_, counts)| number(counts, "/conflicts") > 0) {
            println!("{name}: {}: {counts}", line.trim());
        }
        let read = lines.iter().filter(|(line, _)| line.contains("ld.global.nc.v4"));
        let sectors = read.map(|(_, counts)| number(counts, "/sectors")).sum();
        let (found, planned) = (Counts::counted(kernel, sectors), Counts::planned(&plan, precision));
        assert_eq!(found, planned, "{name}");
        bounds.hold(name, kernel);
    }
}
