//! Runs the blocks of a launch.
//!
//! The idea: some blocks are resident; a block runs until all its warps wait or one looks for what
//! another block is to do. In order, that is one block after the other as far as it goes; with a seed,
//! blocks and warps take random turns of random length.

use super::block::Block;
use super::control::place;
use super::machine::{Machine, Stop};
use super::random::Random;
use super::warp::{State, Warp};
use super::{Launch, Limits, Schedule, resident_blocks};
use crate::check::{Shadow, Steps};
use crate::counters::{Class, Counters, Requests, SharedRequests};
use crate::fault::{Fault, FaultKind};
use crate::isa::instruction::{Area, Kind};
use crate::isa::lanes::WARP;
use crate::memory::{Memory, Segment};

/// Warp instructions that a launch may execute, unless `VGPU_BUDGET` says otherwise.
const BUDGET: u64 = 200_000_000_000;
/// Turns of all resident warps without any change to memory, after which nothing is expected any more.
const VAIN_ROUNDS: u64 = 20_000;
/// Resident blocks of an ordinary launch with random turns.
const RANDOM_RESIDENT: usize = 6;

/// Runs a launch to its end.
///
/// # Errors
/// [`Fault`]: the first rule broken. Memory then holds what had been written.
pub fn run(
    launch: &Launch<'_>,
    memory: &mut Memory,
    limits: &Limits,
    schedule: Schedule,
    counters: &mut Counters,
) -> Result<(), Fault> {
    check(launch, limits)?;
    let workspace = match launch.cooperative {
        false => 0,
        true => {
            let address = memory.alloc(256, "the grid's workspace");
            let address = address.map_err(|e| Fault::new(FaultKind::Launch, e.to_string()))?;
            memory.fill(address, 256, &[0]).expect("it was allocated just now");
            address
        }
    };
    let budget = std::env::var("VGPU_BUDGET").ok().and_then(|v| v.parse().ok()).unwrap_or(BUDGET);
    let mut machine = Machine::new(launch, memory, limits, schedule, budget);
    machine.workspace = workspace;
    machine.distinct = counters.distinct;
    let done = blocks(&mut machine);
    count(&machine, counters);
    let latest = machine.order.latest;
    memory.end_launch(latest);
    if workspace != 0 {
        memory.free(workspace).expect("it was allocated above");
    }
    done
}

fn check(launch: &Launch<'_>, limits: &Limits) -> Result<(), Fault> {
    let kernel = launch.kernel;
    let fail = |what: String| Err(Fault::new(FaultKind::Launch, format!("kernel {}: {what}", kernel.name)));
    let bytes = kernel.param_bytes();
    if launch.params.len() != bytes as usize {
        return fail(format!("{} bytes of arguments, but its parameters take {bytes}", launch.params.len()));
    }
    let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
    let blocks = launch.grid.iter().try_fold(1_u64, |all, &n| all.checked_mul(n.into()));
    let Some(blocks) = blocks.filter(|&b| b > 0 && threads > 0) else {
        return fail(format!("a grid of {:?} blocks of {:?} threads", launch.grid, launch.block));
    };
    if threads > u64::from(limits.max_threads_per_block) {
        return fail(format!(
            "{threads} threads in a block; the device allows {}",
            limits.max_threads_per_block
        ));
    }
    if let Some(most) = kernel.max_threads {
        let allowed: u64 = most.iter().map(|&n| u64::from(n)).product();
        if threads > allowed || kernel.exact_threads && launch.block != most {
            return fail(format!("blocks of {:?} threads; it was compiled for {most:?}", launch.block));
        }
    }
    let shared = u64::from(kernel.static_shared) + u64::from(launch.dynamic_shared);
    if shared > limits.shared_per_block.into() {
        return fail(format!(
            "{shared} bytes of shared memory; the device allows {}",
            limits.shared_per_block
        ));
    }
    if launch.cooperative {
        let fit = resident_blocks(kernel, limits, threads as u32, launch.dynamic_shared);
        let fit = u64::from(fit) * u64::from(limits.multiprocessors);
        if blocks > fit {
            return fail(format!("a cooperative grid of {blocks} blocks; {fit} fit on the device at once"));
        }
    }
    Ok(())
}

/// The blocks of a launch, of which some are resident.
fn blocks(machine: &mut Machine<'_>) -> Result<(), Fault> {
    let launch = machine.launch;
    let total: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
    let threads: u32 = launch.block.iter().product();
    let fit = resident_blocks(launch.kernel, machine.limits, threads, launch.dynamic_shared).max(1);
    let fit = u64::from(fit) * u64::from(machine.limits.multiprocessors.max(1));
    let mut random = machine.schedule.seed.map(Random::new);
    // How many may be resident, and how many are before anyone has to look for another.
    let most = if launch.cooperative { total } else { fit.min(total) };
    let mut wanted = match &random {
        _ if launch.cooperative => total,
        Some(_) => most.min(RANDOM_RESIDENT as u64),
        None => 1,
    };
    let mut order: Vec<u64> = (0..total).collect();
    if let Some(random) = &mut random
        && !launch.cooperative
    {
        for k in (1..order.len()).rev() {
            order.swap(k, random.below(k as u64 + 1) as usize);
        }
    }
    let mut coming = order.into_iter();
    let mut resident: Vec<Block> = Vec::new();
    let mut spare: Vec<Block> = Vec::new();
    let mut at = 0;
    let (mut vain, mut seen) = (0, 0);
    // Blocks asked since anybody ran.
    let mut idle = 0;
    loop {
        while (resident.len() as u64) < wanted {
            let Some(index) = coming.next() else { break };
            let block = enter(machine, spare.pop(), index);
            resident.push(block);
        }
        if resident.is_empty() {
            return Ok(());
        }
        if let Some(random) = &mut random
            && idle == 0
        {
            at = random.below(resident.len() as u64) as usize;
        }
        at %= resident.len();
        let before = machine.clock;
        let turn = turn(machine, &mut resident[at], random.as_mut())?;
        if turn == Turn::Waits && machine.clock == before {
            idle += 1;
            at += 1;
            if idle >= resident.len() {
                // All rest; whoever waits for something else than memory is to run again.
                let warps = resident.iter_mut().flat_map(|block| &mut block.warps);
                warps.for_each(|warp| warp.watch.wake());
                idle = 0;
            }
            continue;
        }
        idle = 0;
        match turn {
            Turn::Done => {
                let block = resident.remove(at);
                spare.push(block);
                continue;
            }
            Turn::Stuck => {
                // Only its own warps could open its barriers.
                return Err(stuck(machine, &resident[at]));
            }
            Turn::Waits => {
                if machine.progress == seen {
                    vain += 1;
                } else {
                    (vain, seen) = (0, machine.progress);
                }
                if (resident.len() as u64) < most && wanted < most && vain > resident.len() as u64 {
                    wanted += 1;
                }
                if vain > VAIN_ROUNDS * resident.len() as u64 {
                    return Err(deadlock(machine, &resident[at]));
                }
            }
            Turn::Goes => {}
        }
        at += 1;
    }
}

/// How a block's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// All threads have exited.
    Done,
    /// All that can run look for what others are to do.
    Waits,
    /// It can go on.
    Goes,
    /// No warp can run.
    Stuck,
}

/// Lets a block run for a while.
fn turn(machine: &mut Machine<'_>, block: &mut Block, random: Option<&mut Random>) -> Result<Turn, Fault> {
    if let Some(random) = random {
        let ready: Vec<usize> = (0..block.warps.len()).filter(|&w| runs(machine, block, w)).collect();
        if ready.is_empty() {
            return Ok(match block.ready() {
                true => Turn::Waits,
                false if block.done() => Turn::Done,
                false => Turn::Stuck,
            });
        }
        let warp = ready[random.below(ready.len() as u64) as usize];
        let longest = random.below(10);
        let slice = 1 + random.below(1 << longest);
        let stop = machine.run_warp(block, warp, slice)?;
        return Ok(match stop {
            _ if block.done() => Turn::Done,
            Stop::Looking => Turn::Waits,
            _ => Turn::Goes,
        });
    }
    let mut ran = true;
    while ran {
        ran = false;
        for warp in 0..block.warps.len() {
            if block.warps[warp].looking || !runs(machine, block, warp) {
                continue;
            }
            let stop = machine.run_warp(block, warp, u64::MAX / 4)?;
            block.warps[warp].looking = stop == Stop::Looking;
            ran |= stop != Stop::Looking;
        }
    }
    if block.done() {
        return Ok(Turn::Done);
    }
    for warp in &mut block.warps {
        warp.looking = false;
    }
    Ok(if block.ready() { Turn::Waits } else { Turn::Stuck })
}

/// Whether a warp is to run.
fn runs(machine: &Machine<'_>, block: &mut Block, warp: usize) -> bool {
    let warp = &mut block.warps[warp];
    warp.state == State::Ready && !warp.watch.rests(machine.progress, machine.memory, &block.shared)
}

fn enter(machine: &mut Machine<'_>, spare: Option<Block>, index: u64) -> Block {
    let launch = machine.launch;
    let threads: u32 = launch.block.iter().product();
    let place = place(index, launch.grid);
    let mut block = match spare {
        Some(mut block) => {
            block.warps.iter_mut().for_each(Warp::restart);
            block.shared.clear();
            block
        }
        None => {
            let kernel = launch.kernel;
            let shared = kernel.shared_with(launch.dynamic_shared).into();
            let warps = (0..threads.div_ceil(WARP as u32)).map(|number| {
                let count = (threads - number * WARP as u32).min(WARP as u32);
                Warp::new(number, count, kernel.file_words, kernel.local)
            });
            Block {
                index,
                place,
                multiprocessor: 0,
                warps: warps.collect(),
                shared: Segment::new(0, shared),
                meetings: Default::default(),
                shadow: Shadow::new(shared),
                steps: Steps::new(shared),
                order: Default::default(),
            }
        }
    };
    block.index = index;
    block.place = place;
    block.multiprocessor = (index % u64::from(machine.limits.multiprocessors.max(1))) as u32;
    let warps = block.warps.len() as u32;
    machine.order.enter(&mut block.order, index * u64::from(warps), warps);
    block
}

fn stuck(machine: &Machine<'_>, block: &Block) -> Fault {
    let waiting: Vec<String> = block
        .warps
        .iter()
        .filter_map(|warp| match warp.state {
            State::Barrier(id) => {
                let line = machine.launch.kernel.code[block.meetings[id as usize].pc as usize].line;
                Some(format!("warp {} at barrier {id} (first reached at PTX line {line})", warp.number))
            }
            _ => None,
        })
        .collect();
    let what = format!(
        "kernel {}, block {:?}: all its warps wait for one another: {}",
        machine.launch.kernel.name,
        block.place,
        waiting.join(", ")
    );
    Fault::new(FaultKind::Deadlock, what)
}

fn deadlock(machine: &Machine<'_>, block: &Block) -> Fault {
    let code = &machine.launch.kernel.code;
    let warp = block.warps.iter().find(|warp| warp.state == State::Ready);
    let pc = warp.and_then(|warp| warp.stack.last()).map_or(0, |path| path.pc);
    let what = format!(
        "kernel {}, block {:?}, near PTX line {}: every warp looks at memory that nobody changes any more",
        machine.launch.kernel.name, block.place, code[pc as usize].line
    );
    Fault::new(FaultKind::Deadlock, what)
}

/// Adds what was executed to the counters.
fn count(machine: &Machine<'_>, counters: &mut Counters) {
    let launch = machine.launch;
    let by_line = counters.by_line;
    let all = counters.kernels.entry(launch.kernel.name.clone()).or_default();
    all.launches += 1;
    let blocks: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
    all.blocks += blocks;
    all.threads += blocks * launch.block.iter().map(|&n| u64::from(n)).product::<u64>();
    all.block_barriers += machine.barriers;
    all.grid_releases += machine.synchronised[0];
    all.grid_acquires += machine.synchronised[1];
    let add = |to: &mut Requests, from: &Requests| {
        to.requests += from.requests;
        to.bytes += from.bytes;
        to.sectors += from.sectors;
        to.ideal_sectors += from.ideal_sectors;
        to.distinct_bytes += from.distinct_bytes;
    };
    let add_shared = |to: &mut SharedRequests, from: &[u64; 3]| {
        to.requests += from[0];
        to.bytes += from[1];
        to.conflicts += from[2];
    };
    for (instruction, executed) in launch.kernel.code.iter().zip(&machine.executed) {
        let Some(mut class) = instruction.class else { continue };
        if executed[0] == 0 {
            continue;
        }
        let mut sites = Vec::new();
        match &instruction.kind {
            Kind::Access(access) => {
                let totals = machine.totals(access.site);
                let (global, shared) = match (access.store, access.nc) {
                    (true, _) => (&mut all.stores, &mut all.shared_stores),
                    (false, true) => (&mut all.nc_loads, &mut all.shared_loads),
                    (false, false) => (&mut all.loads, &mut all.shared_loads),
                };
                if access.address.area != Area::Const {
                    add(global, &totals.global);
                    sites.push(totals);
                }
                add_shared(shared, &totals.shared);
                // A generic address shows only now what it was.
                if access.address.area == Area::Generic && totals.shared[0] > totals.global.requests {
                    class = if access.store { Class::SharedStore } else { Class::SharedLoad };
                }
            }
            Kind::Atomic(atomic) => {
                let totals = machine.totals(atomic.site);
                add(&mut all.atomics, &totals.global);
                add_shared(&mut all.shared_stores, &totals.shared);
                sites.push(totals);
            }
            Kind::Copy(copy) => {
                let [load, store] = copy.sites.map(|site| machine.totals(site));
                add(&mut all.loads, &load.global);
                add_shared(&mut all.shared_stores, &store.shared);
                sites.extend([load, store]);
            }
            _ => {}
        }
        let instructions = all.instructions.entry(class).or_default();
        instructions.warps += executed[0];
        instructions.threads += executed[1];
        if by_line {
            for totals in sites {
                let line = totals.line(instruction.source);
                let sum = all.lines.entry(instruction.line).or_default();
                sum.source_line = line.source_line;
                sum.requests += line.requests;
                sum.sectors += line.sectors;
                sum.ideal_sectors += line.ideal_sectors;
                sum.conflicts += line.conflicts;
            }
        }
    }
}
