//! What a stage takes of a device in each form that it can run in: predicted, not tried.
//!
//! The idea: an item, one block's share of a stage, has a latency, in which it passes from wait to wait, and takes up
//! its multiprocessor for a shorter time, in which others have to wait. So a launch ends no sooner than the rounds of
//! its longest item, and no sooner than all that its multiprocessors have to issue. Both are sums of a few terms in
//! cycles, read from the machine code for sm_90 (`tools/sass-cycles.py`), but for those that say that they were measured, on
//! an H100. They need not be another device's: only the order of the candidates matters.

use super::abi::team::{TEAM_ADDERS, TEAM_MULTIPLIERS};
use super::abi::{
    CLUSTER, GEMM_SLICES, GEMV_LANES, GEMV_LEAST_LANES, GEMV_TILE, MULTIPLIERS, SLICE, SPLIT_LOW,
    SPLIT_SLICES, SPLIT_TALL, SPLIT_THREADS, SPREAD_BLOCKS, SPREAD_LANES, SPREAD_LEAST, SPREAD_SLICES,
    SPREAD_TILE, THREADS, WARP,
};
use super::{Properties, rounds};

/// What runs on a device at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Blocks that each of them holds.
    pub resident: usize,
    /// Blocks of `masked_conv_spread` that each of them holds; none where there are no clusters.
    pub spread: usize,
}

impl Room {
    /// What launches find: three blocks of `masked_conv_gemv`, two of `masked_conv_gemm` and one of `masked_conv_split`, as their
    /// bounds promise. The shared memory of a multiprocessor of compute capability 7.5 holds two of `masked_conv_gemv`; of
    /// `masked_conv_spread` it holds two from 9.0 on, but of 12.0 one.
    pub fn of_launches(multiprocessors: usize, capability: (i32, i32)) -> Room {
        let spread = match capability.0 {
            ..9 => 0,
            12 => 1,
            _ => 2,
        };
        Room { multiprocessors, resident: if capability < (8, 0) { 2 } else { 3 }, spread }
    }

    /// What the persistent kernel finds: its bounds promise two blocks.
    pub fn promised(multiprocessors: usize) -> Room {
        Room { multiprocessors, resident: 2, spread: 0 }
    }

    /// What launches of one form find there.
    fn of(self, form: Form) -> Room {
        let resident = match form {
            Form::Gemv => self.resident,
            Form::Split(_) => 1,
            Form::Spread(_) => self.spread,
            Form::Gemm(_) => self.resident.min(2),
        };
        Room { resident, ..self }
    }

    /// Blocks that run at a time.
    pub fn blocks(&self) -> usize {
        self.multiprocessors * self.resident
    }
}

impl Properties {
    /// What launches find there.
    pub fn launches(&self) -> Room {
        // The first driver that knows the PTX of clusters' kernels (`CLUSTER_PTX` in build.rs).
        const CLUSTERS: (i32, i32) = (12, 1);
        let room = Room::of_launches(self.multiprocessors, self.capability);
        Room { spread: if self.clusters && self.driver >= CLUSTERS { room.spread } else { 0 }, ..room }
    }
}

/// How a launch is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// By `masked_conv_gemv`.
    Gemv,
    /// By `masked_conv_split`, in blocks of that many positions at most.
    Split(usize),
    /// By `masked_conv_spread`, in clusters of that many blocks.
    Spread(usize),
    /// By `masked_conv_gemm`, in blocks of that many positions.
    Gemm(usize),
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 10] = [
        Form::Gemv,
        Form::Spread(SPREAD_LEAST),
        Form::Spread(5),
        Form::Spread(6),
        Form::Spread(7),
        Form::Spread(SPREAD_BLOCKS),
        Form::Split(SPLIT_LOW),
        Form::Split(SPLIT_TALL),
        Form::Gemm(64),
        Form::Gemm(128),
    ];

    /// Whether stages can run so, by their chunks and by the multiprocessors: every device that has clusters runs those of eight
    /// blocks on eight of them, if they belong together.
    pub fn takes(self, works: &[Work], room: Room) -> bool {
        let Form::Spread(blocks) = self else { return true };
        room.spread > 0
            && blocks <= room.multiprocessors
            && works.iter().all(|work| work.chunks <= blocks * SPREAD_LANES)
    }
}

/// What the cost of a stage depends on.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Positions.
    pub positions: usize,
    /// Chunks of the inputs.
    pub chunks: usize,
    /// Those of them whose weights are float32; the others' are bfloat16.
    pub wide: usize,
    /// Slices of the outputs.
    pub slices: usize,
    /// Rows of weights of a chunk.
    pub rows: usize,
    /// Whether the inputs go through an exponential on their way.
    pub activates: bool,
    /// Fewest slices of a block.
    pub least: usize,
}

/// How a stage is divided into items: blocks for its slices times blocks for its positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Division {
    /// Groups of slices.
    pub x: usize,
    /// Groups of positions.
    pub y: usize,
    /// `masked_conv_gemv`: lanes of a slice, slices of a group, tiles of positions of a block.
    pub lanes: usize,
    /// Slices of a group.
    pub group: usize,
    /// Tiles of positions of a block.
    pub tiles: usize,
    /// `masked_conv_gemm`, `masked_conv_split`: positions of a block. `masked_conv_spread`: chunks of a block.
    pub of_form: usize,
    /// Cycles from when an item's inputs are to be seen to its last store.
    pub latency: f64,
    /// Cycles in which its multiprocessor can do nothing else.
    pub issue: f64,
}

/// How a batch is divided into teams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Teams.
    pub teams: usize,
    /// Blocks of each, a power of 2.
    pub blocks: usize,
    /// Images that it makes at a time.
    pub images: usize,
}

impl Shape {
    /// Counters of the barriers of teams whose blocks have any, to a multiple of what is filled at a time.
    pub fn counters(&self) -> Option<usize> {
        (self.blocks > 1).then(|| self.teams.next_multiple_of(4))
    }
}

/// Groups of positions of a launch at most: a grid has no more blocks in y.
const MOST_GROUPS: usize = 65_535;
/// How much longer stages take than their machine code says, which knows of no queue in the memory system and of no
/// instruction that has to be fetched. Fitted to the times of one H100 (docs/gpu-report-h100.md), as what `predict.rs` adds.
pub const OVER: f64 = 1.6;
/// Cycles to draw a pixel: of a launch, from its beginning (3,490 for one of 256 symbols, 4,540 for a mixture of ten), and of a
/// warp that has worked out before all that does not depend on the logits, from these to its place in the map (1,655, 1,470).
pub const DRAW: f64 = 4000.0;
pub const DRAW_PREPARED: f64 = 1600.0;
/// The same in a cluster, until the pixel is sent: 1,888 for a mixture of ten.
pub const DRAW_BY_CLUSTERS: f64 = 1900.0;
/// Bytes that a multiprocessor gets from the second-level cache in a cycle.
const BYTES: f64 = 64.0;
/// A trip to the second-level cache, with half of one that came too soon.
const TRIP: f64 = 400.0;
/// Cycles that a wavefront of shared memory costs a matrix product, whose multiply-adds wait for some of them. On an H100 two
/// chunks of a tile of 32 positions, alone on its multiprocessor, took 1,550 cycles when they were 820 instructions, 860
/// wavefronts and 390 cycles of chains of dependent instructions (by `tools/sass-cycles.py`).
const WAVEFRONT: f64 = 0.4;
/// What a block does after an item, and before it can ask for the next one's inputs.
const BEGIN: f64 = 2150.0;
/// Bytes that a block of a team gets from the second-level cache in a cycle, and all of them together.
const TEAM_BYTES: f64 = 45.0;
const CACHE_BYTES: f64 = 2500.0;
/// Cycles of a barrier of a team, with what is brought behind it.
const MEETING: f64 = 2000.0;
/// Images that a cluster multiplies at a time, at most.
pub const CLUSTER_TILE: usize = 4;

impl Division {
    /// Items.
    pub fn items(&self) -> usize {
        self.x * self.y
    }

    /// Cycles of a launch of some stages with these divisions, the longest items first.
    pub fn cycles<'a>(divisions: impl IntoIterator<Item = &'a Division>, room: Room) -> f64 {
        let mut runs: Vec<_> = divisions.into_iter().map(|d| (d.latency, d.items(), d.issue)).collect();
        runs.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
        let items: usize = runs.iter().map(|(_, items, _)| items).sum();
        let issue: f64 = runs.iter().map(|&(_, items, issue)| items as f64 * issue).sum();
        let last =
            rounds::last_end(runs.iter().map(|&(latency, items, _)| (latency, items)), room.blocks(), BEGIN);
        let rounds = items.div_ceil(room.blocks()) as f64;
        // A block that is idle in the next stages gets ready for its next one meanwhile.
        let idle = (rounds * room.blocks() as f64 / items as f64 - 1.0) * runs[0].0;
        let ready = (BEGIN - idle).max(0.0);
        // The fullest multiprocessor ends last.
        let uneven = items.div_ceil(room.multiprocessors) as f64 * room.multiprocessors as f64 / items as f64;
        (last + ready).max(issue * uneven / room.multiprocessors as f64)
    }
}

impl Work {
    /// Multiply-adds.
    pub fn multiply_adds(&self) -> f64 {
        (self.positions * self.chunks * self.slices * self.rows) as f64
    }

    /// By `masked_conv_gemm`, in blocks of `tile` positions.
    pub fn gemm(&self, tile: usize) -> Division {
        // A thread has two slices, and so many positions by fours.
        let fours = (tile * GEMM_SLICES / THREADS) as f64 / 8.0;
        let (chunks, rows, positions) = (self.chunks as f64, self.rows as f64, tile as f64);
        let products = 32.0 * fours;
        // A chunk's instructions of a warp, of which each scheduler has one: rows, the sum of sums, what is brought.
        let of_channel = if self.activates { 22.0 } else { 1.0 } + rows / 8.0;
        let instructions = rows * (products + fours + 2.0) + products + of_channel * positions / 16.0 + 45.0;
        // Wavefronts of shared memory, of all four warps: what is loaded, what is stored.
        let wavefronts = rows * 8.0 * (fours + 2.0) + rows * (positions / 32.0 + 2.0);
        let of_chunk = instructions + WAVEFRONT * wavefronts;
        let of_end = positions / 16.0;
        Division {
            x: self.slices.div_ceil(GEMM_SLICES),
            y: self.positions.div_ceil(tile),
            lanes: 0,
            group: 0,
            tiles: 0,
            of_form: tile,
            latency: TRIP + 600.0 + chunks * (of_chunk + 50.0) + 1000.0 * of_end,
            issue: BEGIN / 4.0 + chunks * of_chunk + 240.0 * of_end,
        }
    }

    /// By `masked_conv_split`, in blocks of `tile` positions, or fewer if there are no more.
    pub fn split(&self, tile: usize) -> Division {
        let tile = if self.positions <= SPLIT_LOW { SPLIT_LOW } else { tile };
        // A warp multiplies as many positions at a time, of one chunk or of two.
        let at_a_time = SPLIT_THREADS / WARP * (SPLIT_TALL / tile);
        let (rounds, rows) = (self.chunks.div_ceil(at_a_time) as f64, self.rows as f64);
        // The instructions of a scheduler's two warps, and what they wait for each other. Of the inputs a thread brings three
        // halves of a chunk.
        let of_channel = if self.activates { 22.0 } else { 1.0 } + rows / 8.0;
        let of_round = 2.0 * (rows * 42.0 + 12.0 * of_channel + 340.0) + 400.0;
        Division {
            x: self.slices.div_ceil(SPLIT_SLICES),
            y: self.positions.div_ceil(tile),
            lanes: 0,
            group: 0,
            tiles: 0,
            of_form: tile,
            latency: TRIP + 1600.0 + rounds * of_round,
            issue: BEGIN / 4.0 + 400.0 + rounds * of_round,
        }
    }

    /// By `masked_conv_spread`, in clusters of `blocks` blocks. Of its latency 940 cycles are taken away, by which a block asks for
    /// its inputs sooner than one of `masked_conv_gemv`: 1,330 behind the launch's beginning, not 2,270.
    pub fn spread(&self, blocks: usize) -> Division {
        let (chunks, rows) = (self.chunks as f64, self.rows as f64);
        // Positions that a warp multiplies.
        let mine = self.positions.min(SPREAD_TILE).div_ceil(THREADS / WARP) as f64;
        let bring = if self.activates { 70.0 } else { 0.0 };
        Division {
            x: self.slices.div_ceil(SPREAD_SLICES) * blocks,
            y: self.positions.div_ceil(SPREAD_TILE),
            lanes: 0,
            group: 0,
            tiles: 0,
            // Blocks that share a sector of weights would both read it: of chunks in bfloat16 four.
            of_form: self.chunks.div_ceil(blocks).next_multiple_of(4),
            latency: TRIP - 50.0 + mine * (5.5 * rows + 110.0 + bring) + 5.0 * chunks,
            issue: BEGIN / 4.0 + mine * (4.5 * rows + 22.0 + bring) + 2.0 * chunks + 150.0,
        }
    }

    /// By `masked_conv_gemv`, in groups of `group` slices and `tiles` tiles of positions.
    fn gemv_of(&self, lanes: usize, group: usize, tiles: usize) -> Division {
        let all = self.positions.div_ceil(GEMV_TILE);
        let live = self.positions.min(GEMV_TILE) as f64;
        let (chunks, rows, tile_count) = (self.chunks as f64, self.rows as f64, tiles as f64);
        let passes = self.chunks.div_ceil(lanes) as f64;
        let bring = if self.activates { 134.0 } else { 62.0 };
        let add = 4.0 * chunks + 60.0 * passes;
        // What each step of chunks costs where there are several, whose weights and addresses are not there yet: 1,480 measured, when
        // a search for taps and divisions that have been taken out since were, by the machine code, a third of it.
        let further = if passes > 1.0 { 1000.0 * passes } else { 0.0 };
        let of_tile = passes * (live * (bring + 11.0 * rows) + 150.0) + further + add + 350.0;
        let issued = passes * (live * (0.65 * bring + 5.0 * rows + 10.0) + 80.0) + 2.0 * chunks + 170.0;
        // Of a row of a slice: 16 for a chunk in float32, 8 in bfloat16.
        let bytes = 8 * (self.chunks + self.wide);
        let weights = (group * self.rows * bytes) as f64 / BYTES;
        let inputs = live * chunks * 32.0 / BYTES;
        Division {
            x: self.slices.div_ceil(group),
            y: all.div_ceil(tiles),
            lanes,
            group,
            tiles,
            of_form: 0,
            latency: TRIP + tile_count * of_tile,
            issue: BEGIN / 4.0 + weights + tile_count * issued.max(inputs),
        }
    }

    /// A step of a cluster that has so many images, beside the exchange behind it: for conv2 and conv1 of the paper's model in
    /// turn, by `tools/sass-cycles.py`, 1,120 cycles of one image, 1,410, 2,200, 4,720 and 9,640 of 2, 4, 8 and 16. Half of the
    /// chunks are added while the last step's values come.
    pub fn cluster_step(&self, images: usize) -> f64 {
        let (tiles, chunks) = (images.div_ceil(CLUSTER_TILE) as f64, self.chunks as f64);
        let tasks = self.slices.div_ceil(CLUSTER) * self.chunks;
        let further_rounds = (tasks.div_ceil(MULTIPLIERS).max(1) - 1) as f64;
        let first = 700.0 + 2.5 * chunks + 340.0 * images.min(CLUSTER_TILE) as f64;
        first + 2500.0 * (tiles - 1.0) + tiles * further_rounds * 2100.0
    }

    /// A step of a team of some shape; one that its blocks share if it is large and they are several.
    pub fn team_step(&self, shape: Shape, is_large: bool) -> f64 {
        let shared = is_large && shape.blocks > 1;
        let (blocks, images) = (if shared { shape.blocks } else { 1 }, shape.images as f64);
        let slices = self.slices.div_ceil(blocks);
        let tasks = slices * self.chunks;
        let rounds = tasks.div_ceil(TEAM_MULTIPLIERS).max(1) as f64;
        let outputs = (slices * SLICE * shape.images / self.least).div_ceil(TEAM_ADDERS) as f64;
        // By `tools/sass-cycles.py`: for one sound's dilated convolutions and dense layers in turn 640 and 580, 450 for a
        // further task of each multiplier.
        let output = 5.5 * self.chunks as f64 + if self.least > 1 { 150.0 } else { 60.0 };
        let latency = 380.0 + 70.0 * images + outputs * output;
        let further = (rounds - 1.0) * (380.0 + 70.0 * images);
        // What all multiprocessors ask of the second-level cache at a time has to come from there.
        let bytes = (slices * self.rows * 8 * (self.chunks + self.wide)) as f64;
        let weights = bytes / TEAM_BYTES.min(CACHE_BYTES / (shape.teams * blocks) as f64);
        let meeting = if shared { 2.0 * MEETING } else { 0.0 };
        (latency + further).max(weights) + meeting
    }

    /// By `masked_conv_gemv`, divided so that it takes the least of `blocks` blocks of that room.
    pub fn gemv(&self, blocks: usize, room: Room) -> Division {
        let lanes = self.chunks.next_power_of_two().clamp(GEMV_LEAST_LANES, GEMV_LANES);
        let all = self.positions.div_ceil(GEMV_TILE);
        let share = Room { multiprocessors: blocks.div_ceil(room.resident).max(1), ..room };
        let mut best: Option<(f64, Division)> = None;
        let groups =
            [8, 4, 2, 1].into_iter().filter(|&group| group >= self.least && group * lanes <= THREADS);
        for group in groups {
            // Of equals the one that reads the weights least often.
            // Fewer and fewer: for each number of items the fewest tiles that it takes.
            let fewer = |&tiles: &usize| (tiles > 1).then(|| all.div_ceil(all.div_ceil(tiles - 1)));
            let tiles = std::iter::successors(Some(all), fewer);
            for tiles in tiles.take_while(|tiles| all.div_ceil(*tiles) <= MOST_GROUPS) {
                let division = self.gemv_of(lanes, group, tiles);
                let cycles = Division::cycles([&division], share);
                if best.is_none_or(|(least, _)| cycles < least) {
                    best = Some((cycles, division));
                }
            }
        }
        best.expect("a pair of slices of 64 lanes fits every block").1
    }

    /// Of some forms the one that stages that run at a time are predicted to take least in, the first of equals; with it
    /// what [`Work::divide`] says. Of those that a grid has room for: `masked_conv_gemv` takes any number of positions.
    pub fn fastest(works: &[Work], forms: &[Form], room: Room) -> (Form, (Vec<Division>, f64)) {
        let forms = forms.iter().filter(|form| form.takes(works, room));
        let divided = forms.map(|&form| (form, Work::divide(works, form, room)));
        let launched = divided.filter(|(_, (divisions, _))| divisions.iter().all(|d| d.y <= MOST_GROUPS));
        launched.min_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b)).expect("there are forms")
    }

    /// The divisions of stages that run at a time, in a form, and the cycles they take together.
    pub fn divide(works: &[Work], form: Form, room: Room) -> (Vec<Division>, f64) {
        let all: f64 = works.iter().map(Work::multiply_adds).sum();
        let room = room.of(form);
        let of_stage = |work: &Work| match form {
            Form::Split(tile) => work.split(tile),
            Form::Spread(blocks) => work.spread(blocks),
            Form::Gemm(tile) => work.gemm(tile),
            Form::Gemv => {
                let share = work.multiply_adds() / all * room.blocks() as f64;
                work.gemv((share.round() as usize).max(1), room)
            }
        };
        let divisions: Vec<_> = works.iter().map(of_stage).collect();
        let cycles = Division::cycles(&divisions, room);
        (divisions, cycles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: Room = Room { multiprocessors: 132, resident: 3, spread: 2 };

    fn conv2(positions: usize, chunks: usize) -> Work {
        Work { positions, chunks, wide: chunks, slices: 80, rows: 16, activates: true, least: 2 }
    }

    fn best(work: Work) -> Form {
        Work::fastest(&[work], &Form::ALL, H100).0
    }

    #[test]
    fn few_positions_take_one_round_of_short_items_and_many_the_matrix_product() {
        for positions in [1, 2, 4, 8, 16] {
            let (divisions, _) = Work::divide(&[conv2(positions, 40)], Form::Gemv, H100);
            let division = divisions[0];
            assert!(division.items() <= H100.blocks(), "{positions} positions: {division:?}");
            assert!(division.y * division.tiles * GEMV_TILE >= positions);
            assert!((division.y - 1) * division.tiles * GEMV_TILE < positions);
        }
        assert_eq!(best(conv2(1, 40)), Form::Gemv);
        assert_eq!(best(conv2(32, 60)), Form::Spread(4));
        // A cluster's blocks have no more chunks; and before there were clusters there was none.
        assert_eq!(best(conv2(32, 140)), Form::Gemv);
        let before = Room { spread: 0, ..H100 };
        assert_eq!(Work::fastest(&[conv2(32, 60)], &Form::ALL, before).0, Form::Gemv);
        assert_eq!(best(conv2(512, 240)), Form::Split(SPLIT_TALL));
        assert_eq!(best(conv2(8192, 120)), Form::Gemm(64));
        assert_eq!(best(conv2(65536, 120)), Form::Gemm(128));
    }

    #[test]
    fn a_launch_has_no_more_groups_of_positions_than_a_grid_has_blocks() {
        let one = Room::promised(1);
        let mut forms = Vec::new();
        for positions in [1 << 18, 1 << 21, 1 << 22, 1 << 23, 1 << 26] {
            for (chunks, room) in [(1, H100), (40, H100), (1, one), (40, one)] {
                let (form, (divisions, _)) = Work::fastest(&[conv2(positions, chunks)], &Form::ALL, room);
                let of_group = match form {
                    Form::Gemv => divisions[0].tiles * GEMV_TILE,
                    Form::Split(tile) | Form::Gemm(tile) => tile,
                    Form::Spread(_) => SPREAD_TILE,
                };
                let groups = divisions[0].y;
                assert!(groups <= 65_535 && groups * of_group >= positions, "{positions}: {divisions:?}");
                forms.push(form);
            }
        }
        assert!(forms.contains(&Form::Gemm(128)) && forms.contains(&Form::Gemv));
    }

    #[test]
    fn stages_that_run_together_read_their_weights_once() {
        let works = vec![conv2(32, 40); 60];
        let (divisions, _) = Work::divide(&works, Form::Gemv, H100);
        assert!(divisions.iter().all(|division| division.y == 1), "{divisions:?}");
    }

    #[test]
    fn a_multiprocessor_too_many_is_no_faster_than_its_fullest() {
        let item = conv2(4, 40).gemv_of(64, 2, 1);
        let of = |count: usize| Division::cycles(vec![&Division { x: 1, y: count, ..item }], H100);
        assert_eq!(of(1), item.latency);
        assert!(of(132) < of(133) && of(133) <= of(264));
        assert!(of(265) >= 2.0 * item.latency);
    }
}
