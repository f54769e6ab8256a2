//! What teams of blocks are told of the pixels that they make, and what they need of a block's shared memory.
//!
//! The idea: a step's record says where each of its inputs is to be had. What the first block of a team has made at this pixel is
//! in its shared memory, through each activation by which somebody reads it; all else is in the maps, and is brought ahead if it
//! has been there for long enough. Which is which follows from the order of the steps ([`super::walk`]).

use std::collections::HashMap;

use bytemuck::{Zeroable, bytes_of};

use super::abi::{
    self, ASKED, CHUNK, Chunk, Form, Half, PART, SLICE, TEAM_ADDERS, TEAM_BRINGERS, TEAM_MULTIPLIERS,
    TEAM_RECORDS, Tap, reciprocal,
};
use super::schedule::{Launches, Schedule};
use super::stage::Stage;
use super::walk::{self, Made};
use crate::graph::Activation;
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;

/// Threads of a block.
pub const BLOCK: usize = TEAM_MULTIPLIERS + TEAM_ADDERS + TEAM_BRINGERS;
/// Steps from the one that makes a value to the first that may find it brought ahead: it is asked for during a step, and
/// put in its place during the next.
const AHEAD: usize = 3;
/// Bytes of weights from which on a stage is shared: that other blocks read most of them saves more than two barriers take.
const WIDE: usize = 256 << 10;
/// Float4s that eight threads read at a time: places begin on multiples.
const LINE: usize = 8;
/// Float4s of a record.
const PARTS: usize = (size_of::<abi::Step>() + size_of::<abi::Stage>()) / PART;

/// How a batch is divided.
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
    /// Those that a batch can have on a device that runs `room` blocks at a time. Where there are more images than teams have
    /// at a time, these take turns.
    pub fn all(batch: usize, room: usize) -> Vec<Shape> {
        let sizes = [1, 2, 4, 8, 16].into_iter().filter(|&blocks| blocks <= room);
        let of_size = |blocks| {
            [1, 2, 4].into_iter().filter(|&images| images <= batch.next_power_of_two()).map(move |images| {
                let teams = batch.div_ceil(images).min(room / blocks);
                Shape { teams, blocks, images }
            })
        };
        sizes.flat_map(of_size).collect()
    }

    /// Cycles of a pixel of all images, without drawing it: the mean of its classes.
    pub fn pixel(&self, schedule: &Schedule, batch: usize) -> f64 {
        let classes: Vec<_> = schedule.pixels.iter().flatten().collect();
        let turns = batch.div_ceil(self.teams * self.images) as f64;
        let of_class = |launches: &Launches| -> f64 {
            let stages = launches.iter().flat_map(|&launch| schedule.table.stages_of(launch));
            stages.map(|stage| stage.work(1).team_step(self, is_wide(stage))).sum()
        };
        turns * classes.iter().map(|class| of_class(class)).sum::<f64>() / classes.len() as f64
    }
}

/// What teams read, and what their blocks need.
#[derive(Debug)]
pub struct Teams {
    /// A record for each step.
    pub records: Vec<u8>,
    /// Chunks of the steps.
    pub chunks: Vec<Chunk>,
    /// Halves of chunks that they read from maps.
    pub halves: Vec<Half>,
    /// The first record of a row, by row modulo the period.
    pub rows: Vec<usize>,
    /// What they are told, without addresses.
    pub told: abi::Team,
    /// Bytes of a block's shared memory.
    pub shared: usize,
}

/// The steps of rows of one pixel that follow one another, with nothing to be made between them: so a launch makes many.
pub fn following(plan: &Plan, extent: Extent) -> Option<Steps> {
    Steps::of_pixels(plan).filter(|_| extent.width == 1)
}

/// Whether the blocks of a team share a stage.
pub fn is_wide(stage: &Stage) -> bool {
    let work = stage.work(1);
    work.chunks * work.rows * work.slices * SLICE * size_of::<f32>() >= WIDE
}

/// Where an input is.
enum Input {
    /// In shared memory, where this pixel's values of its map are.
    Made(Form),
    /// In its map. `late`: not for long enough to be brought ahead.
    Old { late: bool },
}

/// A step of one of some pixels that follow one another.
#[derive(Clone, Copy)]
struct At<'a> {
    /// None for a pixel that has no stage.
    step: Option<walk::Step<'a>>,
    pixel: usize,
}

/// Pixels of a class of rows, one after the other.
struct Sequence<'a> {
    steps: Vec<At<'a>>,
    /// Those of the pixels of a period, which others come before.
    steady: std::ops::Range<usize>,
    /// Which step makes what; what is drawn is there behind its pixel's last.
    makers: HashMap<Made, usize>,
}

/// Floats from the chunks' sums of an output to those of the next.
fn line(chunks: usize) -> usize {
    chunks.next_multiple_of(LINE) + 4
}

/// Makes the records.
struct Builder<'a> {
    plan: &'a Plan,
    steps: &'a Steps,
    schedule: &'a Schedule,
    shape: Shape,
    /// Whether rows are pixels that follow one another.
    rows_follow: bool,
    /// Float4s of shared memory for an image's sums.
    room: usize,
    records: Vec<(abi::Step, &'a Stage)>,
    chunks: Vec<Chunk>,
    halves: Vec<Half>,
    /// Where an image's values are, by map and activation.
    forms: HashMap<(u64, i32), Form>,
    /// Where what a stage reads from maps is put.
    brought: HashMap<usize, Form>,
    /// Float4s of an image's values, and of its sums.
    values: usize,
    sums: usize,
}

impl<'a> Builder<'a> {
    fn is_shared(&self, stage: &Stage) -> bool {
        self.shape.blocks > 1 && is_wide(stage)
    }

    /// A place for chunks, with negatives (two copies) or without.
    fn place(&mut self, chunks: usize, copies: usize) -> Form {
        let form = Form { place: self.values.min(usize::from(u16::MAX)) as u16, apart: chunks as u16 };
        self.values += (2 * copies * chunks).next_multiple_of(LINE);
        form
    }

    /// Where this pixel's values of a map are, as an activation reads them.
    fn form(&mut self, base: u64, channels: i32, activation: i32) -> Form {
        if let Some(&form) = self.forms.get(&(base, activation)) {
            return form;
        }
        let form = self.place(channels as usize / CHUNK, copies(activation));
        self.forms.insert((base, activation), form);
        form
    }

    /// Where what a stage brings is put.
    fn brought(&mut self, index: usize, stage: &Stage) -> Form {
        if let Some(&form) = self.brought.get(&index) {
            return form;
        }
        let form = self.place(stage.header.chunks as usize, copies(stage.header.activation));
        self.brought.insert(index, form);
        form
    }

    fn sequence(&self, row: usize) -> Sequence<'a> {
        let period = self.steps.period;
        let previous = usize::from(self.plan.graph.input.previous);
        // Far from the first rows, which no tap reaches above; behind as many pixels as are looked back.
        let (first, before) = (row + 64 * period, AHEAD.next_multiple_of(period));
        let (mut steps, mut makers) = (Vec::new(), HashMap::new());
        let mut begin = 0;
        for pixel in 0..before + period {
            if pixel == before {
                begin = steps.len();
            }
            let (row, column) = if self.rows_follow { (first + pixel, 0) } else { (first, pixel) };
            let of_pixel = walk::of_pixel(self.plan, self.steps, self.schedule, row, column);
            if of_pixel.is_empty() {
                steps.push(At { step: None, pixel });
            }
            for step in of_pixel {
                makers.insert(step.output(), steps.len());
                steps.push(At { step: Some(step), pixel });
            }
            let [row, column] =
                if self.rows_follow { [row + previous, 0] } else { [row, column + previous] }.map(|n| n as isize);
            makers.insert(Made { base: self.schedule.image.base, row, column }, steps.len() - 1);
        }
        Sequence { steady: begin..steps.len(), steps, makers }
    }

    /// Where a step finds what has been made, as an activation reads it.
    fn find(&mut self, of: &Sequence, at: usize, made: Made, channels: i32, activation: i32) -> Input {
        let Some(&maker) = of.makers.get(&made) else { return Input::Old { late: false } };
        let here = |i: usize| of.steps[i].step.expect("it makes or reads something").stage;
        let alone = |i: usize| !self.is_shared(here(i));
        let drawn = made.base == self.schedule.image.base;
        if !drawn && of.steps[maker].pixel == of.steps[at].pixel && alone(maker) && alone(at) {
            return Input::Made(self.form(made.base, channels, activation));
        }
        Input::Old { late: maker + AHEAD > at }
    }

    /// Finds where all inputs are, so that there is a place for what later steps read.
    fn find_all(&mut self, of: &Sequence) {
        for at in of.steady.clone() {
            let Some(step) = of.steps[at].step else { continue };
            for tap in &step.stage.taps {
                if let Input::Old { .. } = self.input(of, at, &step, tap) {
                    self.brought(step.index, step.stage);
                }
            }
            self.added(of, at, &step);
        }
    }

    fn input(&mut self, of: &Sequence, at: usize, step: &walk::Step, tap: &Tap) -> Input {
        self.find(of, at, step.input(tap), tap.source.channels, step.stage.header.activation)
    }

    /// Where what is added to a step's output lies, unless in a map.
    fn added(&mut self, of: &Sequence, at: usize, step: &walk::Step) -> Form {
        let header = &step.stage.header;
        if header.adds == 0 {
            return Form::NONE;
        }
        let (made, identity) = (step.at_output(header.add), Activation::Identity as i32);
        match self.find(of, at, made, header.add.channels, identity) {
            Input::Made(form) => form,
            Input::Old { .. } => Form::NONE,
        }
    }

    /// Adds a step's chunks and what it brings; returns its head, but for what follows from its neighbours.
    fn head(&mut self, of: &Sequence, at: usize, step: &walk::Step<'a>) -> abi::Step {
        let stage = step.stage;
        let header = &stage.header;
        let shared = self.is_shared(stage);
        let (chunks_at, halves_at) = (self.chunks.len(), self.halves.len());
        // Brought ahead, it would be put where a step just before still reads.
        let again = of.steps[..at].iter().rev().take(AHEAD - 1);
        let mut late = again.flat_map(|at| at.step).any(|before| before.index == step.index) || shared;
        for (t, tap) in stage.taps.iter().enumerate() {
            let end = stage.taps.get(t + 1).map_or(header.chunks, |next| next.first);
            let input = self.input(of, at, step, tap);
            for chunk in tap.first..end {
                let of_tap = chunk - tap.first;
                let (form, place) = match &input {
                    Input::Made(form) => (*form, of_tap),
                    Input::Old { .. } => (self.brought(step.index, stage), chunk),
                };
                let place = form.place + place as u16;
                let words = if chunk < header.wide { SLICE } else { SLICE / 2 };
                let weights = tap.weights + of_tap as u64 * words as u64;
                self.chunks.push(Chunk { weights, stride: tap.chunks, place, apart: form.apart });
                let Input::Old { late: not_yet } = input else { continue };
                late |= not_yet;
                let half = |half: u16| Half {
                    source: tap.source,
                    row: tap.row,
                    column: tap.column,
                    channel: of_tap * CHUNK as i32 + i32::from(half) * SLICE as i32,
                    place: place + half * form.apart,
                    apart: form.apart,
                };
                self.halves.extend([0, 1].map(half));
            }
        }
        let halves = self.halves.len() - halves_at;
        late |= halves * self.shape.images > ASKED * TEAM_BRINGERS;
        // What the others of a team make, nobody reads in shared memory.
        let form = |activation: Activation| self.forms.get(&(header.output.base, activation as i32)).copied();
        let forms = Activation::ALL.map(|a| form(a).filter(|_| !shared).unwrap_or(Form::NONE));
        abi::Step {
            shared: shared.into(),
            late: late.into(),
            chunks_at: chunks_at as i32,
            halves_at: halves_at as i32,
            halves: halves as i32,
            of_halves: reciprocal(halves),
            line: line(header.chunks as usize) as i32,
            of_chunks: reciprocal(header.chunks as usize),
            forms,
            add: self.added(of, at, step),
            ..abi::Step::zeroed()
        }
    }

    /// Adds a step, in as many records as its sums take, if they fit at all.
    fn add(&mut self, head: abi::Step, stage: &'a Stage) -> Option<()> {
        let header = &stage.header;
        let units = (header.slices >> header.gated) as usize;
        let blocks = if head.shared == 1 { self.shape.blocks } else { 1 };
        let sums = |units: usize| (units.div_ceil(blocks) << header.gated) * head.line as usize;
        let parts = (1..=units.max(1)).find(|&parts| sums(units.div_ceil(parts)) <= self.room)?;
        for part in 0..parts {
            let share = units * part / parts..units * (part + 1) / parts;
            let fewest = share.len() / blocks;
            self.sums = self.sums.max(sums(share.len()));
            let of_outputs = if blocks > 1 { [fewest, fewest + 1] } else { [share.len(); 2] };
            let first = part == 0;
            let step = abi::Step {
                unit: share.start as i32,
                units: share.len() as i32,
                of_outputs: of_outputs.map(|units| reciprocal(units * SLICE)),
                meets: (first && head.shared == 1).into(),
                late: u8::from(first) * head.late,
                halves: i32::from(first) * head.halves,
                ..head
            };
            self.records.push((step, stage));
        }
        Some(())
    }

    /// The records of a class of rows, of which it returns the first.
    fn row(&mut self, of: &Sequence<'a>, idle: &'a Stage) -> Option<usize> {
        let begin = self.records.len();
        let mut ends = Vec::new();
        for at in of.steady.clone() {
            match of.steps[at].step {
                Some(step) => {
                    let head = self.head(of, at, &step);
                    self.add(head, step.stage)?;
                }
                None => self.records.push((abi::Step { line: 4, add: Form::NONE, ..abi::Step::zeroed() }, idle)),
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
            let shared = |records: &[(abi::Step, &Stage)], i: usize| records[i].0.shared == 1;
            let closes = shared(records, i) && (ends_pixel || !shared(records, next));
            let next_shared = std::iter::successors(Some(next), |&i| Some(follows(i))).take(of_row.len());
            let next_shared = next_shared.take_while(|_| self.shape.blocks > 1).find(|&i| shared(records, i));
            // Whether the pixel ends before another step that is shared.
            let end = ends.iter().find(|&&end| end > i).copied().unwrap_or(of_row.end);
            let last_shared = (i + 1..end).all(|i| !shared(records, i));
            let step = &mut records[i].0;
            step.next = [next, next_shared.unwrap_or(begin)].map(|n| n as i32);
            step.last = [ends_pixel, last_shared].map(u8::from);
            step.closes = closes.into();
        }
        // The others of a team go on from pixel to pixel by what is shared.
        let mut first = begin;
        for end in ends {
            if self.shape.blocks > 1 && records[first..end].iter().all(|(step, _)| step.shared == 0) {
                return None;
            }
            first = end;
        }
        Some(begin)
    }
}

fn copies(activation: i32) -> usize {
    if activation == Activation::ConcatElu as i32 { 2 } else { 1 }
}

impl Teams {
    /// In the shape that is predicted to be the fastest of those that fit, for a device that runs `room` blocks at a time.
    pub fn fastest(
        plan: &Plan,
        steps: &Steps,
        schedule: &Schedule,
        extent: Extent,
        room: usize,
        limit: usize,
        rows_follow: bool,
    ) -> Option<(Shape, Teams)> {
        let mut shapes = Shape::all(extent.batch, room);
        let cycles = |shape: &Shape| shape.pixel(schedule, extent.batch);
        shapes.sort_by(|a, b| cycles(a).total_cmp(&cycles(b)));
        shapes.into_iter().find_map(|shape| {
            Some((shape, Teams::new(plan, steps, schedule, shape, limit, rows_follow)?))
        })
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
            plan,
            steps,
            schedule,
            shape,
            rows_follow,
            room: 0,
            records: Vec::new(),
            chunks: Vec::new(),
            halves: Vec::new(),
            forms: HashMap::new(),
            brought: HashMap::new(),
            values: 0,
            sums: 0,
        };
        let sequences: Vec<_> = (0..steps.period).map(|row| builder.sequence(row)).collect();
        sequences.iter().for_each(|of| builder.find_all(of));
        let images = shape.images;
        let values_at = (TEAM_RECORDS * PARTS).next_multiple_of(LINE);
        let others = values_at + builder.values * images + (images * size_of::<i32>()).div_ceil(PART);
        builder.room = (limit / PART).checked_sub(others)? / images;
        if builder.values > usize::from(u16::MAX) {
            return None;
        }
        let rows = sequences.iter().map(|of| builder.row(of, &idle)).collect::<Option<_>>()?;
        let sums_at = values_at + images * builder.values;
        let classes_at = sums_at + images * builder.sums;
        let told = abi::Team {
            blocks_shift: shape.blocks.trailing_zeros() as i32,
            images: images as i32,
            values: builder.values as i32,
            sums: builder.sums as i32,
            values_at: values_at as i32,
            sums_at: sums_at as i32,
            classes_at: classes_at as i32,
            ..abi::Team::zeroed()
        };
        let shared = classes_at * PART + (images * size_of::<i32>()).next_multiple_of(PART);
        let bytes = |(step, stage): &(abi::Step, &Stage)| [bytes_of(step), bytes_of(&stage.header)].concat();
        let records = builder.records.iter().flat_map(bytes).collect();
        let Builder { chunks, halves, .. } = builder;
        Some(Teams { records, chunks, halves, rows, told, shared })
    }
}
