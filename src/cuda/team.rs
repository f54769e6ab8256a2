//! What teams of blocks are told of the pixels that they make, and what they need of a block's shared memory.
//!
//! The idea: a step's record says where each of its inputs is to be had. What the first block of a team has made at this pixel is
//! in its shared memory, through each activation by which somebody reads it; all else is in the maps, and is brought ahead if it
//! has been there for long enough. Which is which follows from the order of the steps ([`super::walk`]).

use std::collections::HashMap;
use std::ops::Range;

use bytemuck::{Zeroable, bytes_of, cast_slice};

use super::abi::team::{
    Half, NOW, PLACES, Site, Step, Sum, TEAM_ADDERS, TEAM_BRINGERS, TEAM_MULTIPLIERS, TEAM_RECORDS, Task,
    Team, WIDE, flag,
};
use super::abi::{self, CHUNK, PART, SLICE, Tap, WARP, reciprocal};
use super::cost::Shape;
use super::schedule::Schedule;
use super::shapes::is_large;
use super::stage::Stage;
use super::walk::{self, Made, Sequence};
use crate::graph::Activation;
use crate::plan::Plan;
use crate::plan::steps::Steps;

/// Threads of a block.
pub const BLOCK: usize = TEAM_MULTIPLIERS + 2 * TEAM_ADDERS + 2 * TEAM_BRINGERS + WARP;
/// Steps from the one that makes a value to the first that may find it brought ahead: it is asked for during a step, and
/// put in its place during the next.
const AHEAD: usize = 3;
/// Float4s that eight threads read at a time: places begin on multiples.
const LINE: usize = 8;
/// Float4s of a record.
const PARTS: usize = (size_of::<Step>() + size_of::<abi::Stage>()) / PART;

/// What teams read, and what their blocks need.
#[derive(Debug)]
pub struct Teams {
    /// A record for each step.
    pub records: Vec<u8>,
    /// What multipliers do at the steps, and adders.
    pub tasks: Vec<Task>,
    /// What adders make.
    pub sums: Vec<Sum>,
    /// Halves of chunks that they read from maps.
    pub halves: Vec<Half>,
    /// The first record of a row, by row modulo the period.
    pub rows: Vec<usize>,
    /// What they are told, without addresses.
    pub told: Team,
    /// Bytes of a block's shared memory.
    pub shared: usize,
}

/// Where an input is.
enum Input {
    /// In shared memory, where this pixel's values of its map are.
    Made(Site),
    /// In its map. `late`: not for long enough to be brought ahead.
    Old { late: bool },
}

/// Sums of chunks that an adder adds, with padding.
fn padded(chunks: usize) -> usize {
    if chunks <= SLICE { SLICE } else { chunks.next_multiple_of(LINE) }
}

/// Floats from the chunks' sums of an output to those of the next.
fn line(chunks: usize) -> usize {
    chunks.next_multiple_of(LINE) + 4
}

/// Makes the records.
struct Builder<'a> {
    schedule: &'a Schedule,
    shape: Shape,
    /// Float4s of shared memory for an image's sums.
    room: usize,
    records: Vec<(Step, &'a Stage)>,
    tasks: Vec<Task>,
    sums: Vec<Sum>,
    halves: Vec<Half>,
    /// Where an image's values are, by map and activation.
    sites: HashMap<(u64, i32), Site>,
    /// Where what a stage reads from maps is put.
    brought: HashMap<usize, Site>,
    /// Float4s of an image's values, and of the sums of the step that has most.
    values: usize,
    most_sums: usize,
}

/// A chunk of a step's inputs, with its weights.
struct Chunk {
    /// Its number.
    number: usize,
    /// Floats from the start of the weights to those of the first slice's first row.
    weights: u64,
    stride: i32,
    /// Whether these are float32, whatever others are.
    is_wide: bool,
    place: Site,
}

impl<'a> Builder<'a> {
    fn is_shared(&self, stage: &Stage) -> bool {
        self.shape.blocks > 1 && is_large(stage)
    }

    /// A place for chunks, with negatives (two copies) or without. Of a stage's chunks the first of these has a number: threads
    /// that read its neighbours at a time are to read other banks.
    fn place(&mut self, chunks: usize, copies: usize, number: i32) -> Site {
        let aside = (number as usize + LINE - self.values % LINE) % LINE;
        let place = self.values + aside;
        self.values = place + 2 * copies * chunks;
        Site { place: place.min(usize::from(u16::MAX)) as u16, apart: chunks as u16 }
    }

    /// Where this pixel's values of a map are, as an activation reads them.
    fn site(&mut self, base: u64, channels: i32, activation: i32, number: i32) -> Site {
        if let Some(&site) = self.sites.get(&(base, activation)) {
            return site;
        }
        let site = self.place(channels as usize / CHUNK, copies(activation), number);
        self.sites.insert((base, activation), site);
        site
    }

    /// Where what a stage brings is put.
    fn brought(&mut self, index: usize, stage: &Stage) -> Site {
        if let Some(&site) = self.brought.get(&index) {
            return site;
        }
        let site = self.place(stage.header.chunks as usize, copies(stage.header.activation), 0);
        self.brought.insert(index, site);
        site
    }

    /// Where a step finds what has been made, as an activation reads it.
    fn find(
        &mut self,
        of: &Sequence,
        at: usize,
        made: Made,
        channels: i32,
        activation: i32,
        number: i32,
    ) -> Input {
        let Some(&maker) = of.makers.get(&made) else { return Input::Old { late: false } };
        let here = |i: usize| of.steps[i].step.expect("it makes or reads something").stage;
        let alone = |i: usize| !self.is_shared(here(i));
        let drawn = made.base == self.schedule.image.base;
        if !drawn && of.steps[maker].pixel == of.steps[at].pixel && alone(maker) && alone(at) {
            return Input::Made(self.site(made.base, channels, activation, number));
        }
        Input::Old { late: maker + AHEAD > at }
    }

    /// Finds where all inputs are, so that there is a place for what later steps read.
    fn find_all(&mut self, of: &Sequence) {
        let mut steady: Vec<_> = of.steady.clone().filter_map(|at| Some((at, of.steps[at].step?))).collect();
        // Stages of many taps have the first choice of places.
        steady.sort_by_key(|(_, step)| std::cmp::Reverse(step.stage.taps.len()));
        for (at, step) in steady {
            for tap in &step.stage.taps {
                if let Input::Old { .. } = self.input(of, at, &step, tap) {
                    self.brought(step.index, step.stage);
                }
            }
            self.added(of, at, &step);
        }
    }

    fn input(&mut self, of: &Sequence, at: usize, step: &walk::Step, tap: &Tap) -> Input {
        let activation = step.stage.header.activation;
        self.find(of, at, step.input(tap), tap.source.channels, activation, tap.first)
    }

    /// Where what is added to a step's output lies, unless in a map.
    fn added(&mut self, of: &Sequence, at: usize, step: &walk::Step) -> Site {
        let header = &step.stage.header;
        if header.adds == 0 {
            return Site::NONE;
        }
        let (made, identity) = (step.at_output(header.add), Activation::Identity as i32);
        match self.find(of, at, made, header.add.channels, identity, 0) {
            Input::Made(site) => site,
            Input::Old { .. } => Site::NONE,
        }
    }

    /// A step's chunks; with them whether its inputs from maps are late. What it brings is added to the table.
    fn inputs(&mut self, of: &Sequence, at: usize, step: &walk::Step<'a>) -> (Vec<Chunk>, bool) {
        let header = &step.stage.header;
        let halves_at = self.halves.len();
        // Brought ahead, it would be put where a step just before still reads.
        let mut again = of.steps[..at].iter().rev().take(AHEAD - 1).flat_map(|at| at.step);
        let mut late = again.any(|before| before.index == step.index) || self.is_shared(step.stage);
        let mut chunks = Vec::new();
        for (t, tap) in step.stage.taps.iter().enumerate() {
            let end = step.stage.taps.get(t + 1).map_or(header.chunks, |next| next.first);
            let input = self.input(of, at, step, tap);
            for chunk in tap.first..end {
                let of_tap = chunk - tap.first;
                let (site, place) = match &input {
                    Input::Made(site) => (*site, of_tap),
                    Input::Old { .. } => (self.brought(step.index, step.stage), chunk),
                };
                let place = Site { place: site.place + place as u16, ..site };
                let is_wide = chunk < header.wide;
                let words = if is_wide { SLICE } else { SLICE / 2 };
                let weights = tap.weights + of_tap as u64 * words as u64;
                chunks.push(Chunk { number: chunk as usize, weights, stride: tap.chunks, is_wide, place });
                let Input::Old { late: not_yet } = input else { continue };
                late |= not_yet;
                let half = |half: u16| Half {
                    source: tap.source,
                    row: tap.row,
                    column: tap.column,
                    channel: of_tap * CHUNK as i32 + i32::from(half) * SLICE as i32,
                    place: place.place + half * place.apart,
                    apart: place.apart,
                };
                self.halves.extend([0, 1].map(half));
            }
        }
        late |= (self.halves.len() - halves_at) * self.shape.images > TEAM_BRINGERS;
        (chunks, late)
    }

    /// Adds a step, in as many records as its sums take, if they fit at all.
    fn add(&mut self, of: &Sequence, at: usize, step: &walk::Step<'a>) -> Option<()> {
        let (stage, header) = (step.stage, &step.stage.header);
        let halves_at = self.halves.len();
        let (chunks, late) = self.inputs(of, at, step);
        let halves = self.halves.len() - halves_at;
        let shared = self.is_shared(stage);
        let blocks = if shared { self.shape.blocks } else { 1 };
        // What the others of a team make, nobody reads in shared memory.
        let site = |activation: Activation| self.sites.get(&(header.output.base, activation as i32)).copied();
        let [identity, sites @ ..] =
            Activation::ALL.map(|a| site(a).filter(|_| !shared).unwrap_or(Site::NONE));
        let add = self.added(of, at, step);
        let units = (header.slices >> header.gated) as usize;
        let line = line(chunks.len());
        let room = |units: usize| (units.div_ceil(blocks) << header.gated) * line;
        let parts = (1..=units.max(1)).find(|&parts| room(units.div_ceil(parts)) <= self.room)?;
        for part in 0..parts {
            let units = units * part / parts..units * (part + 1) / parts;
            self.most_sums = self.most_sums.max(room(units.len()));
            let share = |block: usize| {
                units.start + units.len() * block / blocks..units.start + units.len() * (block + 1) / blocks
            };
            let most = units.len().div_ceil(blocks);
            let (tasks_at, sums_at) = (self.tasks.len(), self.sums.len());
            let tasks = ((most << header.gated) * chunks.len()).next_multiple_of(TEAM_MULTIPLIERS);
            let tasks = tasks.max(TEAM_MULTIPLIERS);
            for block in 0..blocks {
                let share = share(block);
                let all = self.tasks.len() + tasks;
                for (slice, chunk) in
                    (0..share.len() << header.gated).flat_map(|s| chunks.iter().map(move |c| (s, c)))
                {
                    self.tasks.push(chunk.task(stage, &share, slice, line)?);
                }
                self.tasks.resize(all, Task::zeroed());
                let all = self.sums.len() + most * SLICE;
                let outputs = share.clone().flat_map(|unit| (0..SLICE).map(move |o| (unit, o)));
                for (i, (unit, o)) in outputs.enumerate() {
                    let channel = unit * SLICE + o;
                    self.sums.push(Sum {
                        chunks: (i * line) as i32,
                        to_gates: if header.gated == 1 { (share.len() * SLICE * line) as i32 } else { 0 },
                        begun: (unit << header.gated) as i32 * SLICE as i32 + o as i32,
                        channel: channel as i32,
                        add_at: add.channel(channel),
                        put_at: identity.channel(channel),
                        padding: [0; 2],
                    });
                }
                self.sums.resize(all, Sum { chunks: -1, ..Sum::zeroed() });
            }
            let flags = [
                (flag::SHARED, shared),
                (flag::MEETS, shared && part == 0),
                // All other parts find the inputs where they are.
                (flag::LATE, late && part == 0),
                (flag::NEGATIVES, copies(header.activation) > 1),
                (flag::FURTHER, tasks > TEAM_MULTIPLIERS),
                (flag::PADS, padded(chunks.len()) != chunks.len()),
                (flag::MANY, most * SLICE * self.shape.images > TEAM_ADDERS),
                (flag::HYPERBOLIC, header.tanh == 1),
                (flag::GATED, header.gated == 1),
                (flag::ADDS, header.adds == 1),
                (flag::READ, sites.iter().any(|site| *site != Site::NONE)),
            ];
            let flags = flags.into_iter().filter(|(_, has)| *has).fold(0, |all, (flag, _)| all | flag);
            let halves = if part == 0 { halves } else { 0 };
            let head = Step {
                next: [0; 2],
                flags: [flags; 2],
                tasks_at: tasks_at as i32,
                tasks: tasks as i32,
                sums_at: sums_at as i32,
                sums: (most * SLICE) as i32,
                halves_at: halves_at as i32,
                halves: halves as i32,
                of_halves: reciprocal(halves),
                of_sums: reciprocal(most * SLICE),
                sites,
                chunks: padded(chunks.len()) as i32,
            };
            self.records.push((head, stage));
        }
        Some(())
    }

    /// Adds a step at which nothing is to do.
    fn add_idle(&mut self, idle: &'a Stage) {
        let tasks_at = self.tasks.len() as i32;
        self.tasks.resize(self.tasks.len() + TEAM_MULTIPLIERS, Task::zeroed());
        let head = Step { tasks_at, tasks: TEAM_MULTIPLIERS as i32, ..Step::zeroed() };
        self.records.push((Step { sites: [Site::NONE; 3], ..head }, idle));
    }

    /// The records of a class of rows, of which it returns the first.
    fn row(&mut self, of: &Sequence<'a>, idle: &'a Stage) -> Option<usize> {
        let begin = self.records.len();
        let mut ends = Vec::new();
        for at in of.steady.clone() {
            match of.steps[at].step {
                Some(step) => self.add(of, at, &step)?,
                None => self.add_idle(idle),
            }
            if of.steps.get(at + 1).is_none_or(|next| next.pixel != of.steps[at].pixel) {
                ends.push(self.records.len());
            }
        }
        let records = &mut self.records;
        let of_row = begin..records.len();
        for i in of_row.clone() {
            let follows = |i: usize| if i + 1 == of_row.end { begin } else { i + 1 };
            let ends_pixel = ends.contains(&(i + 1));
            let next = follows(i);
            let shared = |records: &[(Step, &Stage)], i: usize| records[i].0.flags[0] & flag::SHARED != 0;
            let closes = shared(records, i) && (ends_pixel || !shared(records, next));
            let next_shared = std::iter::successors(Some(next), |&i| Some(follows(i))).take(of_row.len());
            let next_shared = next_shared.take_while(|_| self.shape.blocks > 1).find(|&i| shared(records, i));
            // Whether the pixel ends before another step that is shared.
            let end = ends.iter().find(|&&end| end > i).copied().unwrap_or(of_row.end);
            let last_shared = (i + 1..end).all(|i| !shared(records, i));
            let step = &mut records[i].0;
            step.next = [next, next_shared.unwrap_or(begin)].map(|n| n as i32);
            let last = [ends_pixel, last_shared].map(|last| if last { flag::LAST } else { 0 });
            let closes = if closes { flag::CLOSES } else { 0 };
            step.flags = [0, 1].map(|i| step.flags[i] | last[i] | closes);
        }
        // The others of a team go on from pixel to pixel by what is shared.
        let mut first = begin;
        for end in ends {
            if self.shape.blocks > 1
                && records[first..end].iter().all(|(step, _)| step.flags[0] & flag::SHARED == 0)
            {
                return None;
            }
            first = end;
        }
        Some(begin)
    }
}

impl Chunk {
    /// What a multiplier does with it, for a slice of a share of the units; none if the numbers are too large.
    fn task(&self, stage: &Stage, share: &Range<usize>, slice: usize, line: usize) -> Option<Task> {
        let header = &stage.header;
        let rows = copies(header.activation) * CHUNK;
        let before = ((share.start << header.gated) + slice) * rows * self.stride as usize;
        let words = if self.is_wide { SLICE } else { SLICE / 2 };
        let weights = self.weights + (before * words) as u64;
        // First the values, then the gates.
        let unit = if header.gated == 1 { slice % 2 * share.len() + slice / 2 } else { slice };
        let chunk = self.number;
        Some(Task {
            weights: u32::try_from(weights / 2).ok()?,
            place: self.place.place,
            apart: self.place.apart,
            sums: u32::try_from(unit * SLICE * line + chunk).ok()?,
            stride: u16::try_from(self.stride).ok().filter(|&stride| stride < WIDE)?
                | if self.is_wide { WIDE } else { 0 },
            line: u16::try_from(line).ok()?,
        })
    }
}

impl Site {
    /// Where a channel lies, in floats from an image's first; below 0 for nowhere.
    fn channel(self, channel: usize) -> i32 {
        if self == Site::NONE {
            return -1;
        }
        let half = channel / SLICE;
        let quad = usize::from(self.place) + half % 2 * usize::from(self.apart) + half / 2;
        (quad * SLICE + channel % SLICE) as i32
    }
}

fn copies(activation: i32) -> usize {
    if activation == Activation::ConcatElu as i32 { 2 } else { 1 }
}

impl Teams {
    /// The tables, as the device gets them: records, tasks, sums, halves.
    pub fn tables(&self) -> [&[u8]; 4] {
        [&self.records, cast_slice(&self.tasks), cast_slice(&self.sums), cast_slice(&self.halves)]
    }

    /// For teams of a shape, on a device with `limit` bytes of shared memory a block; `rows_follow`: a launch makes rows of one
    /// pixel, one after the other. `None` if a pixel does not fit, or if nothing is there to be shared by several blocks.
    pub fn new(
        plan: &Plan,
        steps: &Steps,
        schedule: &Schedule,
        shape: Shape,
        limit: usize,
        rows_follow: bool,
    ) -> Option<Teams> {
        let idle = Stage { header: abi::Stage::zeroed(), taps: Vec::new() };
        let mut builder = Builder {
            schedule,
            shape,
            room: 0,
            records: Vec::new(),
            tasks: Vec::new(),
            sums: Vec::new(),
            halves: Vec::new(),
            sites: HashMap::new(),
            brought: HashMap::new(),
            values: 0,
            most_sums: 0,
        };
        let sequences: Vec<_> = (0..steps.period)
            .map(|row| Sequence::new(plan, steps, schedule, (row, rows_follow), AHEAD))
            .collect();
        sequences.iter().for_each(|of| builder.find_all(of));
        let images = shape.images;
        let values_at = (TEAM_RECORDS * PARTS).next_multiple_of(LINE);
        builder.values = builder.values.next_multiple_of(LINE);
        let sums_at = values_at + images * builder.values;
        let of_steps = TEAM_RECORDS * NOW / PART + TEAM_RECORDS * images * PLACES / PART;
        let behind = of_steps + (images * size_of::<i32>()).div_ceil(PART);
        builder.room = (limit / PART).checked_sub(sums_at + behind)? / images;
        if builder.values > usize::from(u16::MAX) {
            return None;
        }
        let rows = sequences.iter().map(|of| builder.row(of, &idle)).collect::<Option<_>>()?;
        let now_at = sums_at + images * builder.most_sums;
        let places_at = now_at + TEAM_RECORDS * NOW / PART;
        let classes_at = now_at + of_steps;
        let told = Team {
            blocks_shift: shape.blocks.trailing_zeros() as i32,
            images: images as i32,
            values: builder.values as i32,
            room: builder.most_sums as i32,
            values_at: values_at as i32,
            sums_at: sums_at as i32,
            now_at: now_at as i32,
            places_at: places_at as i32,
            classes_at: classes_at as i32,
            ..Team::zeroed()
        };
        let shared = (sums_at + images * builder.most_sums + behind) * PART;
        let bytes = |(step, stage): &(Step, &Stage)| [bytes_of(step), bytes_of(&stage.header)].concat();
        let records = builder.records.iter().flat_map(bytes).collect();
        let Builder { tasks, sums, halves, .. } = builder;
        Some(Teams { records, tasks, sums, halves, rows, told, shared })
    }
}
