//! What clusters are told of the pixels of a row, and what they need of a block's shared memory.
//!
//! The idea: a step's record says where each of its inputs is to be had. What one of the last two steps has made lies in
//! every block's shared memory, sent there through the activation of the first that reads it; all else has long been in the maps.
//! Which is which follows from the order of the steps and repeats with the period of the strides, but for the first pixel of a
//! row, which no step was before.

use std::collections::HashMap;

use bytemuck::{Zeroable, bytes_of, cast_slice};

use super::abi::{
    self, ADDERS, AHEADS, BRINGERS, CHUNK, CLUSTER, DRAWERS, Grid, MULTIPLIERS, PART, RECENT, RECENT_TAPS,
    RECORDS, SETS, SLICE, Turn, WARP, Work,
};
use super::cost::CLUSTER_TILE;
use super::pages::{Pages, Shares};
use super::recent::{Maker, Recent};
use super::schedule::{Schedule, images_of_cluster};
use super::stage::Stage;
use super::walk::{self, Made};
use crate::graph::Activation;
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;

/// Bytes that memory is read by.
const SECTOR: usize = 32;
/// Threads of a block.
pub const BLOCK: usize = MULTIPLIERS + SETS * (ADDERS + BRINGERS);

/// What clusters read, and their shape.
#[derive(Debug)]
pub struct Clusters {
    /// A record for each step; behind them the multipliers' tables.
    pub records: Vec<u8>,
    /// The first record of a row, by row modulo the period.
    pub rows: Vec<usize>,
    /// What they are told, without addresses.
    pub told: abi::Cluster,
    /// Bytes of a block's shared memory.
    pub shared: usize,
    /// Clusters of a launch.
    pub count: usize,
}

/// A step that the blocks of a cluster share.
struct Shared<'a> {
    step: walk::Step<'a>,
    shares: Shares,
}

impl Shared<'_> {
    /// Whether it makes all channels of a position, the padding too.
    fn fills(&self) -> bool {
        self.shares.units * SLICE == self.step.stage.header.output.channels as usize
    }

    /// The head of its record, when the last steps have made what is `recent`.
    fn turn(&self, recent: &mut Recent) -> Turn {
        let Shared { step, shares } = self;
        let (header, taps) = (&step.stage.header, &step.stage.taps);
        let since = taps.iter().take(RECENT_TAPS).map(|tap| recent.read(step.input(tap), header.activation));
        let since: Vec<usize> = since.collect();
        let of_taps = since.iter().enumerate().fold(0, |bits, (t, &steps)| bits | (steps as u64) << (2 * t));
        let mut in_maps = (0..taps.len()).filter(|&t| since.get(t).is_none_or(|&steps| steps == 0));
        let brought = in_maps.next_back().map_or(1, |t| t + 1);
        let fewest = shares.units / CLUSTER;
        // Halves of chunks of the largest tap, by whole warps.
        let firsts = taps.iter().map(|tap| tap.first).chain([header.chunks]);
        let sizes = firsts.clone().zip(firsts.skip(1)).map(|(first, end)| 2 * (end - first) as usize);
        let tap_shift = sizes.max().unwrap_or(0).next_power_of_two().max(WARP).trailing_zeros();
        let (chunks, early) = (header.chunks as usize, shares.early);
        let is_early = |t: usize| (taps[t].first as usize) < early;
        Turn {
            units: shares.units as i32,
            rounds: shares.rounds as i32,
            page: shares.page as i32,
            line: line(early, chunks) as i32,
            early: early as i32,
            older: i32::from(early > 0 && (0..since.len()).all(|t| !is_early(t) || since[t] != 1)),
            sent_by: Activation::Identity as i32,
            recent_add: if header.adds == 1 {
                recent.add(step.at_output(header.add), shares.units) as i32
            } else {
                0
            },
            of_outputs: [fewest, fewest + 1].map(|units| abi::reciprocal(units * SLICE)),
            tap_shift: tap_shift as i32,
            taps_shift: (brought << tap_shift).next_power_of_two().trailing_zeros() as i32,
            recent: of_taps,
            ..Turn::zeroed()
        }
    }
}

/// Floats from the chunks' sums of an output to those of the next: eight threads that read 16 bytes of a line each read
/// different banks. The sums of either part begin at a multiple of 16 bytes.
fn line(early: usize, chunks: usize) -> usize {
    let both = early.next_multiple_of(SLICE) + (chunks - early).next_multiple_of(SLICE);
    both.next_multiple_of(8) + 4
}

/// Makes the records.
struct Builder<'a> {
    plan: &'a Plan,
    steps: &'a Steps,
    schedule: &'a Schedule,
    weights: &'a Pages,
    /// For a pixel that has no stage: one that has nothing to do.
    idle: &'a Stage,
    records: Vec<Record<'a>>,
}

/// A step's record, and how its weights are divided if it has a stage.
struct Record<'a> {
    turn: Turn,
    stage: &'a Stage,
    shares: Option<Shares>,
}

impl<'a> Builder<'a> {
    /// The steps of a pixel.
    fn of_pixel(&self, row: usize, column: usize) -> Vec<Shared<'a>> {
        let steps = walk::of_pixel(self.plan, self.steps, self.schedule, row, column);
        let share = |step: walk::Step<'a>| Shared {
            step,
            shares: self.weights.pieces[step.piece].expect("the pixel phase runs it"),
        };
        steps.into_iter().map(share).collect()
    }

    /// Adds a record.
    fn add(&mut self, turn: Turn, stage: &'a Stage, shares: Option<Shares>) {
        let turn = Turn { next: self.records.len() as i32 + 1, ..turn };
        self.records.push(Record { turn, stage, shares });
    }

    /// The records of a class of rows, of which it returns the first: the first pixel, those after it, and again one of the
    /// first's class.
    fn row(&mut self, row: usize) -> usize {
        let (period, previous) = (self.steps.period, usize::from(self.plan.graph.input.previous));
        // Far from the first rows, which no tap reaches above.
        let at = row + 64 * period;
        let begin = self.records.len();
        let mut recent = Recent::default();
        let mut firsts = Vec::new();
        // Of what the last pixel makes it is the one after it that tells how it is sent.
        for column in 0..=period + 1 {
            firsts.push(self.records.len());
            let steps = self.of_pixel(at, column);
            if steps.is_empty() {
                let turn = Turn { rounds: 1, ..Turn::zeroed() };
                recent.push(Maker { made: None, fills: false, units: 0, sent_by: None, record: None });
                self.add(turn, self.idle, None);
            }
            for shared in steps {
                let turn = shared.turn(&mut recent);
                recent.push(Maker {
                    made: Some(shared.step.output()),
                    fills: shared.fills(),
                    units: shared.shares.units,
                    sent_by: None,
                    record: Some(self.records.len()),
                });
                self.add(turn, shared.step.stage, Some(shared.shares));
            }
            let made = |map: Grid, column| Made { base: map.base, row: at as isize, column: column as isize };
            let turn = &mut self.records.last_mut().expect("every pixel has a record").turn;
            turn.last = 1;
            turn.sends_logits = i32::from(recent.draw(made(self.schedule.logits, column)));
            let drawn = Some(made(self.schedule.image, column + previous));
            let sent_by = Some(Activation::Identity as i32);
            recent.push(Maker { made: drawn, fills: true, units: 0, sent_by, record: None });
        }
        for (record, activation) in recent.sent {
            self.records[record].turn.sent_by = activation;
        }
        self.records.truncate(firsts[period + 1]);
        // After the period's last column comes one of the first's class, but with a step before it.
        self.records.last_mut().expect("every pixel has a record").turn.next = firsts[1] as i32;
        begin
    }
}

impl Clusters {
    /// For a batch on a device that runs `resident` clusters at a time, with `limit` bytes of shared memory a block. `None`
    /// for a network that does not fit.
    pub fn new(
        plan: &Plan,
        steps: &Steps,
        schedule: &Schedule,
        weights: &Pages,
        extent: Extent,
        limit: usize,
        resident: usize,
    ) -> Option<Clusters> {
        let idle = Stage { header: abi::Stage::zeroed(), taps: Vec::new() };
        let mut builder = Builder { plan, steps, schedule, weights, idle: &idle, records: Vec::new() };
        let rows = (0..steps.period).map(|row| builder.row(row)).collect();
        let mut records = builder.records;
        let works = works_of(&mut records);
        let sizes = Sizes::of(&records, schedule.image);
        // As many images for each cluster as for any other, or fewer where they do not fit.
        let most = images_of_cluster(extent.batch, resident);
        let fewer = |&images: &usize| (images > 1).then_some(images / 2);
        let mut shapes = std::iter::successors(Some(most), fewer)
            .flat_map(|images| [CLUSTER_TILE, 2, 1].map(|tile| (images, tile)))
            .filter(|&(images, tile)| tile <= images.next_power_of_two());
        let (told, shared) = shapes.find_map(|(images, tile)| sizes.lay_out(images, tile, limit))?;
        let count = extent.batch.div_ceil(told.images as usize);
        let told = abi::Cluster { works_at: (records.len() * sizes.parts) as i32, ..told };
        let bytes = |Record { turn, stage, .. }: &Record| {
            let mut record = bytes_of(turn).to_vec();
            record.extend_from_slice(bytes_of(&stage.header));
            record.extend_from_slice(cast_slice(&stage.taps));
            record.resize(sizes.parts * PART, 0);
            record
        };
        let records = records.iter().flat_map(bytes).chain(cast_slice(&works).iter().copied()).collect();
        Some(Clusters { records, rows, told, shared, count })
    }
}

/// What the multipliers of a block with so many units do in a round of a step.
fn works(turn: &Turn, stage: &Stage, shares: &Shares, round: usize, units: usize) -> Vec<Work> {
    let (header, chunks) = (&stage.header, stage.header.chunks as usize);
    let task = |multiplier| {
        let task = shares.task(round, multiplier, chunks);
        task.filter(|&(slice, _)| slice < units << header.gated)
    };
    let tasks: Vec<_> = (0..MULTIPLIERS).map(task).collect();
    let of_task = |(multiplier, task): (usize, &Option<(usize, usize)>)| {
        let warp = &tasks[multiplier / WARP * WARP..][..WARP];
        let late = warp.iter().flatten().any(|&(_, chunk)| chunk >= shares.early);
        let Some((slice, chunk)) = *task else {
            return Work { told: i32::MIN | i32::from(late) << 20, sums: 0 };
        };
        let t = stage.taps.iter().rposition(|tap| tap.first as usize <= chunk).expect("taps have all chunks");
        let steps = if t < RECENT_TAPS { (turn.recent >> (2 * t) & 3) as i32 } else { 0 };
        let first = if steps > 0 { stage.taps[t].first as usize } else { 0 };
        let pads = if chunk + 1 == shares.early || chunk + 1 == chunks {
            pads_behind(shares.early, chunk + 1)
        } else {
            0
        };
        let at = if chunk < shares.early { chunk } else { chunk + pads_behind(shares.early, shares.early) };
        let unit = if header.gated == 1 { slice % 2 * units + slice / 2 } else { slice };
        let inputs = place(chunk - first);
        assert!(inputs < 1 << 16, "{chunks} chunks");
        Work {
            told: inputs as i32 | steps << 16 | (pads as i32) << 18 | i32::from(late) << 20,
            sums: (unit * SLICE * turn.line as usize + at) as i32,
        }
    };
    tasks.iter().enumerate().map(of_task).collect()
}

/// Places behind a part's last chunk up to a multiple of 16 bytes: `end` is behind it.
fn pads_behind(early: usize, end: usize) -> usize {
    let of_part = if end > early { end - early } else { end };
    of_part.next_multiple_of(SLICE) - of_part
}

/// Where the first half of a chunk lies, as `gemv::place` has it.
fn place(chunk: usize) -> usize {
    2 * chunk + (chunk >> 2 & 1)
}

/// The multipliers' tables of all records, which are told where theirs are. Most are the same as others.
fn works_of(records: &mut [Record]) -> Vec<Work> {
    let (mut all, mut found) = (Vec::new(), HashMap::new());
    for Record { turn, stage, shares } in records.iter_mut() {
        let fewest = turn.units as usize / CLUSTER;
        let nothing = Shares::default();
        let rounds =
            (0..turn.rounds as usize).flat_map(|round| [fewest, fewest + 1].map(|units| (round, units)));
        let tables: Vec<_> = rounds
            .flat_map(|(round, units)| works(turn, stage, shares.as_ref().unwrap_or(&nothing), round, units))
            .collect();
        let before = all.len() / (2 * MULTIPLIERS);
        turn.works = *found.entry(tables).or_insert_with_key(|tables| {
            all.extend_from_slice(tables);
            before as i32
        });
    }
    for i in 0..records.len() {
        let next = records[records[i].turn.next as usize].turn;
        (records[i].turn.next_works, records[i].turn.next_units) = (next.works, next.units);
    }
    all
}

/// The most that a step needs.
#[derive(Default)]
struct Sizes {
    parts: usize,
    chunks: usize,
    /// Floats of an image's sums.
    sums: usize,
    /// Outputs of an image in one block.
    outputs: usize,
    /// Channels of what is sent of an image, and whether negatives are, too.
    recent_channels: usize,
    negatives: bool,
}

impl Sizes {
    fn of(records: &[Record], image: Grid) -> Sizes {
        let mut most = Sizes { recent_channels: image.channels as usize, ..Sizes::default() };
        for Record { turn, stage, .. } in records {
            let header = &stage.header;
            let units = turn.units as usize;
            let of_block = units.div_ceil(CLUSTER);
            // Whole sectors.
            most.parts = most.parts.max((size_of::<Turn>() + stage.len()).div_ceil(SECTOR) * (SECTOR / PART));
            most.chunks = most.chunks.max(header.chunks as usize);
            most.sums = most.sums.max((of_block << header.gated) * SLICE * turn.line as usize);
            most.outputs = most.outputs.max(of_block * SLICE);
            most.recent_channels = most.recent_channels.max(units * SLICE);
            most.negatives |= turn.sent_by == Activation::ConcatElu as i32;
        }
        most.recent_channels = most.recent_channels.next_multiple_of(CHUNK);
        most
    }

    /// A block's shared memory for so many images of a cluster, of which a tile is multiplied at a time, if it has room.
    fn lay_out(&self, images: usize, tile: usize, limit: usize) -> Option<(abi::Cluster, usize)> {
        let (inputs, sums) = (4 * self.chunks, self.sums / SLICE);
        let recent = self.recent_channels / SLICE;
        let copies = if self.negatives { 2 } else { 1 };
        let mut at = 0;
        let mut place = |float4s: usize| {
            at += float4s;
            (at - float4s) as i32
        };
        let told = abi::Cluster {
            parts: self.parts as i32,
            images: images as i32,
            tile: tile as i32,
            inputs: inputs as i32,
            sums: sums as i32,
            recent: (copies * recent) as i32,
            recent_negatives: recent as i32,
            own: self.outputs as i32,
            records_at: place(RECORDS * self.parts),
            inputs_at: place(2 * tile * inputs),
            sums_at: place(2 * tile * sums),
            recent_at: place(RECENT * images * copies * recent),
            own_at: place((RECENT * images * self.outputs).div_ceil(SLICE)),
            tokens_at: place(RECENT * CLUSTER),
            arrivals_at: place(((RECENT + AHEADS * DRAWERS) * size_of::<u64>()).div_ceil(PART)),
            aheads_at: place(AHEADS * images.div_ceil(CLUSTER) * WARP),
            ..abi::Cluster::zeroed()
        };
        let adds = self.outputs * tile <= ADDERS;
        (adds && at * PART <= limit).then_some((told, at * PART))
    }
}

#[cfg(test)]
impl Clusters {
    /// The heads of all records.
    pub fn turns(&self) -> Vec<Turn> {
        let bytes = self.told.parts as usize * PART;
        let head = |record: &[u8]| bytemuck::pod_read_unaligned(&record[..size_of::<Turn>()]);
        self.records[..self.told.works_at as usize * PART].chunks(bytes).map(head).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::cost::Room;
    use crate::cuda::packed::Packed;
    use crate::cuda::schedule::PixelsBy;
    use crate::graph::Graph;
    use crate::models::{PixelCnnPp, WaveNet};
    use crate::precision::Precision;

    /// What an H100 gives to a block, and clusters of 16 that it runs at a time.
    const LIMIT: usize = 227 << 10;
    const RESIDENT: usize = 8;

    fn of(graph: Graph, extent: Extent) -> Option<Clusters> {
        let plan = Plan::new(graph);
        let packed = Packed::places(&plan, Precision::F32);
        let steps = Steps::above_first(&plan);
        let room = Room::promised(132);
        let schedule = Schedule::new(&plan, &steps, &packed, extent, room, PixelsBy::Clusters(1));
        let pages = Pages::new(&plan, &packed, Precision::F32);
        Clusters::new(&plan, &steps, &schedule, &pages, extent, LIMIT, RESIDENT)
    }

    #[test]
    fn images_are_shared_out_among_the_clusters_that_run_at_a_time() {
        for (batch, shape) in
            [(1, [1, 1, 1]), (8, [8, 1, 1]), (9, [5, 2, 2]), (64, [8, 8, 4]), (256, [8, 32, 4])]
        {
            let extent = Extent { batch, height: 32, width: 32 };
            let clusters = of(PixelCnnPp::PAPER.graph(), extent).unwrap();
            let found = [clusters.count, clusters.told.images as usize, clusters.told.tile as usize];
            println!("{batch} images: {found:?}, {} bytes", clusters.shared);
            assert_eq!(found, shape);
            assert!(clusters.shared <= LIMIT && clusters.count * clusters.told.images as usize >= batch);
        }
        // Where a thousand images' values do not fit, clusters take turns.
        let many = of(PixelCnnPp::PAPER.graph(), Extent { batch: 1000, height: 32, width: 32 }).unwrap();
        assert!(many.count > RESIDENT);
    }

    #[test]
    fn a_step_reads_what_the_last_two_have_made_where_they_have() {
        let clusters = of(PixelCnnPp::PAPER.graph(), Extent { batch: 1, height: 32, width: 32 }).unwrap();
        let turns = clusters.turns();
        // A row in which only maps of stride 1 have positions: at its first pixel no step was before, and nothing is recent.
        let first = clusters.rows[1];
        assert_eq!([turns[first].recent, turns[first].recent_add as u64], [0, 0]);
        // Of the first pixel after it, the input's convolution reads the pixel that has just been drawn; each residual block's
        // first one the block before, its second one the first, and adds what is two steps old.
        let second = (first..).find(|&i| turns[i].last == 1).unwrap() + 1;
        assert_eq!(turns[second].recent, 1);
        for i in 0..5 {
            let [conv1, conv2] = [1, 2].map(|k| turns[second + 2 * i + k]);
            assert_eq!([conv1.recent, conv2.recent], [1 << 2; 2]);
            // Only the pixel itself is waited for, and it comes through what both read by.
            assert_eq!([conv1.early, conv1.older, conv2.early, conv2.older], [20, 1, 20, 1]);
            assert_eq!(conv1.sent_by, Activation::ConcatElu as i32);
            assert_eq!([conv1.recent_add, conv2.recent_add], [0, 2]);
        }
        // Drawing reads the logits where the last step sends them.
        let identity = Activation::Identity as i32;
        assert!(
            turns
                .iter()
                .all(|turn| turn.sends_logits == turn.last && (turn.last == 0 || turn.sent_by == identity))
        );
        // The records go round by the period, but for the first pixel's.
        let mut at = first;
        let mut seen = std::collections::HashSet::new();
        while seen.insert(at) {
            at = turns[at].next as usize;
        }
        assert_eq!(at, second);
    }

    #[test]
    fn a_layer_of_more_outputs_than_the_adders_take_is_refused() {
        let extent = Extent { batch: 1, height: 4, width: 1 };
        let of = |skip_channels| of(WaveNet { skip_channels, ..WaveNet::default() }.graph(), extent);
        assert!(of(1024).is_some() && of(1040).is_none());
    }
}
