//! Runs the blocks of a launch.
//!
//! The idea: some clusters are resident, each of one block unless the launch says otherwise; a block runs
//! until all its warps wait or one looks for what another block is to do. In order, that is one block after
//! the other as far as it goes; with a seed, blocks and warps take random turns of random length.

use super::block::Block;
use super::cluster::Cluster;
use super::control::place;
use super::count::count;
use super::machine::{Machine, Stop};
use super::random::Random;
use super::warp::{State, Warp};
use super::{LARGEST_CLUSTER, Launch, Limits, Schedule, multiprocessor, resident_blocks, resident_clusters};
use crate::check::{Shadow, Steps};
use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};
use crate::isa::lanes::WARP;
use crate::memory::{Memory, Segment};

/// Warp instructions that a launch may execute, unless `VGPU_BUDGET` says otherwise.
const BUDGET: u64 = 200_000_000_000;
/// Turns of all resident warps without any change to memory, after which nothing is expected any more.
const VAIN_ROUNDS: u64 = 20_000;
/// Resident clusters of an ordinary launch with random turns.
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
    let done = clusters(&mut machine);
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
    let size = launch.cluster.unwrap_or([1; 3]);
    if launch.grid.iter().zip(size).any(|(n, of)| of == 0 || n % of != 0) {
        return fail(format!("a grid of {:?} blocks, in clusters of {size:?}", launch.grid));
    }
    let members = size.iter().map(|&n| u64::from(n)).product::<u64>();
    if members > LARGEST_CLUSTER {
        return fail(format!("clusters of {members} blocks; no device allows more than {LARGEST_CLUSTER}"));
    }
    let fit = clusters_at_once(launch, limits);
    if launch.cluster.is_some() && fit == 0 {
        return fail(format!("clusters of {size:?} blocks, of which none fits on the device"));
    }
    if launch.cooperative {
        let fit = fit * members;
        if blocks > fit {
            return fail(format!("a cooperative grid of {blocks} blocks; {fit} fit on the device at once"));
        }
    }
    Ok(())
}

/// Clusters of a launch that the device can hold at once.
fn clusters_at_once(launch: &Launch<'_>, limits: &Limits) -> u64 {
    let threads: u32 = launch.block.iter().product();
    let blocks = resident_blocks(launch.kernel, limits, threads, launch.dynamic_shared);
    match launch.cluster {
        Some(size) => resident_clusters(limits, blocks, size.iter().product()).into(),
        None => u64::from(blocks) * u64::from(limits.multiprocessors),
    }
}

/// The clusters of a launch, of which some are resident.
fn clusters(machine: &mut Machine<'_>) -> Result<(), Fault> {
    let launch = machine.launch;
    let size: u64 = machine.members().into();
    let total = launch.grid.iter().map(|&n| u64::from(n)).product::<u64>() / size;
    let mut random = machine.schedule.seed.map(Random::new);
    // How many may be resident, and how many are before anyone has to look for another.
    let most =
        if launch.cooperative { total } else { clusters_at_once(launch, machine.limits).clamp(1, total) };
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
    let mut resident: Vec<Cluster> = Vec::new();
    let mut spare: Vec<Cluster> = Vec::new();
    let mut at = 0;
    let (mut vain, mut seen) = (0, 0);
    // Clusters asked since anybody ran.
    let mut idle = 0;
    loop {
        while (resident.len() as u64) < wanted {
            let Some(index) = coming.next() else { break };
            let cluster = enter(machine, spare.pop(), index);
            resident.push(cluster);
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
        if machine.order.full() {
            return Err(beyond(machine));
        }
        if turn == Turn::Waits && machine.clock == before {
            idle += 1;
            at += 1;
            if idle >= resident.len() {
                // All rest; whoever waits for something else than memory is to run again.
                let warps =
                    resident.iter_mut().flat_map(Cluster::each_mut).flat_map(|block| &mut block.warps);
                warps.for_each(|warp| warp.watch.wake());
                idle = 0;
            }
            continue;
        }
        idle = 0;
        match turn {
            Turn::Done => {
                let cluster = resident.remove(at);
                spare.push(cluster);
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

/// How a cluster's turn ended.
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

/// Lets a cluster run for a while.
fn turn(
    machine: &mut Machine<'_>,
    cluster: &mut Cluster,
    random: Option<&mut Random>,
) -> Result<Turn, Fault> {
    if let Some(random) = random {
        // Stores arrive some time, in any order.
        let flying = cluster.flying.len() as u64;
        if flying > 0 && random.below(2) == 0 {
            for _ in 0..=random.below(flying) {
                arrives(machine, cluster, random)?;
            }
        }
        let mut ready: Vec<(usize, usize)> = Vec::new();
        for block in cluster.each_mut() {
            let warps = (0..block.warps.len()).filter(|&warp| runs(machine, block, warp));
            ready.extend(warps.collect::<Vec<_>>().into_iter().map(|warp| (block.rank, warp)));
        }
        if ready.is_empty() {
            if cluster.flying.is_empty() {
                return Ok(without_any(cluster));
            }
            arrives(machine, cluster, random)?;
            return Ok(Turn::Goes);
        }
        let (rank, warp) = ready[random.below(ready.len() as u64) as usize];
        let longest = random.below(10);
        let slice = 1 + random.below(1 << longest);
        let stop = machine.with(cluster, rank, |machine, block| machine.run_warp(block, warp, slice))?;
        while cluster.done() && !cluster.flying.is_empty() {
            arrives(machine, cluster, random)?;
        }
        return Ok(match stop {
            _ if cluster.done() => Turn::Done,
            Stop::Looking => Turn::Waits,
            _ => Turn::Goes,
        });
    }
    for rank in 0..cluster.blocks.len() {
        machine.with(cluster, rank, |machine, block| as_far_as_it_goes(machine, block))?;
    }
    Ok(without_any(cluster))
}

/// One of the stores under way arrives.
fn arrives(machine: &mut Machine<'_>, cluster: &mut Cluster, random: &mut Random) -> Result<(), Fault> {
    let one = random.below(cluster.flying.len() as u64) as usize;
    let flight = cluster.flying.swap_remove(one);
    machine.with(cluster, flight.rank, |machine, block| machine.arrives_at(block, &flight))
}

/// How the turn of a cluster ends of which no warp is to run now.
fn without_any(cluster: &Cluster) -> Turn {
    match cluster.ready() {
        true => Turn::Waits,
        false if cluster.done() => Turn::Done,
        false => Turn::Stuck,
    }
}

/// Runs a block until all its warps wait or look.
fn as_far_as_it_goes(machine: &mut Machine<'_>, block: &mut Block) -> Result<(), Fault> {
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
    for warp in &mut block.warps {
        warp.looking = false;
    }
    Ok(())
}

/// Whether a warp is to run.
fn runs(machine: &Machine<'_>, block: &mut Block, warp: usize) -> bool {
    let warp = &mut block.warps[warp];
    warp.state == State::Ready && !warp.watch.rests(machine.progress, machine.memory, &block.shared)
}

/// A cluster begins, all its blocks at once.
fn enter(machine: &mut Machine<'_>, spare: Option<Cluster>, index: u64) -> Cluster {
    let launch = machine.launch;
    let size = launch.cluster.unwrap_or([1; 3]);
    let members = machine.members() as usize;
    let mut cluster = spare.unwrap_or_default();
    cluster.blocks.resize_with(members, || None);
    cluster.index = index;
    cluster.place = place(index, std::array::from_fn(|k| launch.grid[k] / size[k]));
    cluster.phase = 0;
    cluster.gathering = Default::default();
    // Whoever reaches another's memory goes by its own time: theirs must not differ when they begin.
    let since = if members > 1 { machine.order.latest + 1 } else { machine.order.start };
    for (rank, block) in cluster.blocks.iter_mut().enumerate() {
        let within = place(rank as u64, size);
        let place: [u32; 3] = std::array::from_fn(|k| cluster.place[k] * size[k] + within[k]);
        let mut entered = block.take().map_or_else(
            || Box::new(new_block(launch, rank)),
            |mut block| {
                block.warps.iter_mut().for_each(Warp::restart);
                block.shared.clear();
                block.awaited.clear();
                for (_, phases) in std::mem::take(&mut block.mbarriers) {
                    machine.order.dismiss(phases.agent);
                }
                block
            },
        );
        let [x, y, z] = place.map(u64::from);
        entered.index = (z * u64::from(launch.grid[1]) + y) * u64::from(launch.grid[0]) + x;
        entered.home = entered.index;
        entered.visited = false;
        entered.place = place;
        entered.multiprocessor = match launch.cluster {
            Some(_) => multiprocessor(machine.limits, index, rank as u32),
            None => (entered.index % u64::from(machine.limits.multiprocessors.max(1))) as u32,
        };
        let warps = entered.warps.len() as u32;
        machine.order.enter(&mut entered.order, since, entered.index * u64::from(warps), warps);
        *block = Some(entered);
    }
    cluster.missing = cluster.each().map(|block| block.warps.len()).sum();
    cluster
}

fn new_block(launch: &Launch<'_>, rank: usize) -> Block {
    let kernel = launch.kernel;
    let threads: u32 = launch.block.iter().product();
    let shared = kernel.shared_with(launch.dynamic_shared).into();
    let shadow = if kernel.partial_barriers { Shadow::with_all_readers } else { Shadow::new };
    let warps = (0..threads.div_ceil(WARP as u32)).map(|number| {
        let count = (threads - number * WARP as u32).min(WARP as u32);
        Warp::new(number, count, kernel.file_words, kernel.local)
    });
    Block {
        index: 0,
        place: [0; 3],
        multiprocessor: 0,
        rank,
        visited: false,
        warps: warps.collect(),
        home: 0,
        shared: Segment::new(0, shared),
        awaited: Default::default(),
        mbarriers: Default::default(),
        meetings: Default::default(),
        shadow: shadow(shared),
        steps: Steps::new(shared),
        order: Default::default(),
    }
}

fn stuck(machine: &Machine<'_>, cluster: &Cluster) -> Fault {
    /// Waiting warps that are named.
    const NAMED: usize = 8;
    let code = &machine.launch.kernel.code;
    let mut waiting: Vec<String> = Vec::new();
    for block in cluster.each() {
        for warp in &block.warps {
            let (barrier, pc) = match (warp.state, warp.arrived) {
                (State::Barrier(id), _) => (format!("barrier {id}"), block.meetings[id as usize].pc),
                (State::Cluster, Some((_, pc))) => ("the cluster's barrier".to_string(), pc),
                _ => continue,
            };
            let line = code[pc as usize].line;
            waiting.push(format!(
                "block {:?}, warp {} at {barrier} (first reached at PTX line {line})",
                block.place, warp.number
            ));
        }
    }
    let more = match waiting.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(", and {n} more"),
    };
    waiting.truncate(NAMED);
    let what = format!(
        "kernel {}: all its warps wait for one another: {}{more}",
        machine.launch.kernel.name,
        waiting.join(", ")
    );
    Fault::new(FaultKind::Deadlock, what)
}

fn beyond(machine: &Machine<'_>) -> Fault {
    let what = "more barriers, fences and releases than the checks of order can number (VGPU_RACES=0 turns them off)";
    Fault::new(FaultKind::Limit, format!("kernel {}: {what}", machine.launch.kernel.name))
}

fn deadlock(machine: &Machine<'_>, cluster: &Cluster) -> Fault {
    let code = &machine.launch.kernel.code;
    let ready = |warp: &&Warp| warp.state == State::Ready;
    let kernel = &machine.launch.kernel.name;
    for block in cluster.each() {
        let missed = |warp: &'_ Warp| {
            let missed = warp.missed?;
            Some((warp.number, missed, block.mbarriers.get(&missed.address)?))
        };
        if let Some((warp, missed, phases)) = block.warps.iter().filter(ready).find_map(missed) {
            let lacks = phases.lacks(|pc| code[pc as usize].line, missed);
            let what = format!("kernel {kernel}, block {:?}, warp {warp} {lacks}", block.place);
            return Fault::new(FaultKind::Deadlock, what);
        }
    }
    let found = cluster.each().find_map(|block| Some((block, block.warps.iter().find(ready)?)));
    let (place, warp) = found.map_or((cluster.place, None), |(block, warp)| (block.place, Some(warp)));
    let pc = warp.and_then(|warp| warp.stack.last()).map_or(0, |path| path.pc);
    let what = format!(
        "kernel {}, block {:?}, near PTX line {}: every warp looks at memory that nobody changes any more",
        kernel, place, code[pc as usize].line
    );
    Fault::new(FaultKind::Deadlock, what)
}
