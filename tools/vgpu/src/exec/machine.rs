//! Executes instructions.
//!
//! The idea: a warp runs until it waits, exits, looks in vain at memory that others change, or has used
//! up its slice. Each instruction costs a count, a guard and a jump to its operation.

use super::block::Block;
use super::cluster::Cluster;
use super::late::Late;
use super::pattern::Pattern;
use super::warp::At;
use super::{Launch, Limits, Schedule};
use crate::check::GridOrder;
use crate::counters::{AsyncRequests, LineRequests, Requests};
use crate::fault::Fault;
use crate::isa::instruction::Kind;
use crate::isa::lanes::Slot;
use crate::memory::{Memory, Segment};

/// What a memory instruction's requests add up to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Global requests.
    pub global: Requests,
    /// Requests to the block's shared memory, their bytes, and wavefronts added by conflicts.
    pub shared: [u64; 3],
    /// The same, to other blocks'.
    pub distributed: [u64; 3],
    /// Requests of stores that arrive later.
    pub later: AsyncRequests,
}

impl Totals {
    /// Adds a request to global memory.
    #[inline(always)]
    pub fn add(&mut self, bytes: u64, sectors: u32, ideal: u32) {
        self.global.requests += 1;
        self.global.bytes += bytes;
        self.global.sectors += u64::from(sectors);
        self.global.ideal_sectors += u64::from(ideal);
    }

    /// Adds a request to shared memory, the block's or, if `away`, another's.
    #[inline(always)]
    pub fn add_shared(&mut self, away: bool, bytes: u64, conflicts: u32) {
        let sums = if away { &mut self.distributed } else { &mut self.shared };
        sums[0] += 1;
        sums[1] += bytes;
        sums[2] += u64::from(conflicts);
    }

    /// Adds a request of stores that arrive later.
    pub fn add_later(&mut self, bytes: u64) {
        self.later.requests += 1;
        self.later.bytes += bytes;
    }

    /// For a line's report.
    pub fn line(&self, source_line: u32) -> LineRequests {
        LineRequests {
            source_line,
            requests: self.global.requests + self.shared[0] + self.distributed[0] + self.later.requests,
            sectors: self.global.sectors,
            ideal_sectors: self.global.ideal_sectors,
            conflicts: self.shared[2] + self.distributed[2],
        }
    }
}

/// What is remembered of a memory instruction.
#[derive(Debug, Default)]
pub struct Site {
    /// The figure of its last request.
    pub pattern: Pattern,
    /// The allocation that it fell into.
    pub allocation: usize,
    /// What its requests add up to.
    pub totals: Totals,
}

/// Why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It waits at a barrier, or has exited.
    Blocked,
    /// It looks at memory until another changes it.
    Looking,
    /// Its slice is used up.
    Slice,
}

/// Everything that instructions act on, besides their block.
pub struct Machine<'a> {
    /// The launch.
    pub launch: &'a Launch<'a>,
    /// The device's memory.
    pub memory: &'a mut Memory,
    /// What the device can hold.
    pub limits: &'a Limits,
    /// How blocks and warps are ordered.
    pub schedule: Schedule,
    /// The arguments.
    pub params: Segment,
    /// For each instruction, warps and threads that executed it.
    pub executed: Vec<[u64; 2]>,
    /// For each memory instruction, what is remembered of it.
    sites: Vec<Option<Box<Site>>>,
    /// Instructions executed by all warps.
    pub clock: u64,
    /// Instructions allowed.
    pub budget: u64,
    /// Counts what others can see: stores, barriers, exits.
    pub progress: u64,
    /// The grid's workspace, for cooperative groups.
    pub workspace: u64,
    /// Barriers of blocks.
    pub barriers: u64,
    /// Barriers of clusters.
    pub cluster_barriers: u64,
    /// Phases of barriers in shared memory that have completed.
    pub mbarrier_phases: u64,
    /// Looks for that which were not in vain.
    pub mbarrier_waits: u64,
    /// The cluster whose block runs.
    pub cluster: Cluster,
    /// Releases and acquires on global memory.
    pub synchronised: [u64; 2],
    /// The order of accesses.
    pub order: GridOrder,
    /// Whether distinct bytes are counted.
    pub distinct: bool,
    /// Values that arrive late.
    pub late: Late,
}

impl<'a> Machine<'a> {
    /// A machine for a launch.
    pub fn new(
        launch: &'a Launch<'a>,
        memory: &'a mut Memory,
        limits: &'a Limits,
        schedule: Schedule,
        budget: u64,
    ) -> Machine<'a> {
        let mut params = Segment::new(0, launch.params.len() as u64);
        params.bytes_mut(0, launch.params.len() as u64).copy_from_slice(launch.params);
        params.mark_written(0, launch.params.len() as u64);
        let kernel = launch.kernel;
        let warps = launch.block.iter().product::<u32>().div_ceil(32);
        let all = launch.grid.iter().map(|&n| u64::from(n)).product::<u64>() * u64::from(warps);
        let races = std::env::var_os("VGPU_RACES").is_none_or(|v| v != "0");
        let order = GridOrder::new(races, memory.begin_launch(), all);
        Machine {
            launch,
            memory,
            limits,
            schedule,
            params,
            executed: vec![[0; 2]; kernel.code.len()],
            sites: (0..kernel.sites).map(|_| Some(Box::default())).collect(),
            clock: 0,
            budget,
            progress: 0,
            workspace: 0,
            barriers: 0,
            cluster_barriers: 0,
            mbarrier_phases: 0,
            mbarrier_waits: 0,
            cluster: Cluster::default(),
            synchronised: [0; 2],
            order,
            distinct: false,
            late: Late::new(schedule.seed),
        }
    }

    /// Takes what is remembered of a memory instruction, to be put back.
    #[inline(always)]
    pub fn take_site(&mut self, site: u32) -> Box<Site> {
        self.sites[site as usize].take().unwrap_or_default()
    }

    /// Puts it back.
    #[inline(always)]
    pub fn put_site(&mut self, site: u32, memory: Box<Site>) {
        self.sites[site as usize] = Some(memory);
    }

    /// What a memory instruction's requests add up to.
    pub fn totals(&self, site: u32) -> Totals {
        self.sites[site as usize].as_ref().map_or_else(Totals::default, |site| site.totals)
    }

    /// Runs a warp that can.
    ///
    /// # Errors
    /// The rule that one of its instructions broke.
    pub fn run_warp(&mut self, block: &mut Block, warp: usize, slice: u64) -> Result<Stop, Fault> {
        let kernel = self.launch.kernel;
        let end = (self.clock + slice).min(self.budget);
        let lanes = &mut block.warps[warp].lanes(&kernel.constants, self.schedule.perturb);
        'path: loop {
            let Some(path) = block.warps[warp].path() else { return Ok(Stop::Blocked) };
            let (mut pc, active, meeting) = (path.pc, path.mask, path.meeting);
            let gone = !block.warps[warp].live;
            loop {
                if pc == meeting {
                    block.warps[warp].stack.pop();
                    continue 'path;
                }
                if self.clock >= end {
                    block.warps[warp].stack.last_mut().expect("the path that runs").pc = pc;
                    return if self.clock >= self.budget {
                        Err(self.over_budget(block, warp, pc))
                    } else {
                        Ok(Stop::Slice)
                    };
                }
                let instruction = &kernel.code[pc as usize];
                let mut mask = active;
                if instruction.guard != Slot::TRUE {
                    // SAFETY: the guard is a predicate of this kernel.
                    let guard = unsafe { lanes.mask(instruction.guard) };
                    mask &= if instruction.negated { !guard } else { guard };
                }
                self.clock += 1;
                let count = &mut self.executed[pc as usize];
                count[0] += 1;
                count[1] += u64::from(mask.count_ones());
                lanes.keep = mask | gone;
                match &instruction.kind {
                    Kind::Lanes(operation, operands, _) => {
                        if mask != 0 {
                            // SAFETY: the decoder gave the operands the operation's widths, and the
                            // operation is one that this processor has.
                            unsafe { operation(lanes, operands) };
                        }
                        pc += 1;
                    }
                    Kind::Access(access) => {
                        if mask != 0 {
                            self.access(block, lanes, access, At { warp, pc, mask })?;
                        }
                        pc += 1;
                    }
                    Kind::Branch(target) => {
                        let stays = active & !mask;
                        let from = pc;
                        if mask == 0 {
                            pc += 1;
                        } else if stays == 0 {
                            pc = *target;
                        } else {
                            let groups = [(pc + 1, stays), (*target, mask)];
                            block.warps[warp].part(kernel.meetings[pc as usize], &groups);
                            continue 'path;
                        }
                        if pc <= from && block.warps[warp].watch.again(pc, from) {
                            block.warps[warp].stack.last_mut().expect("the path that runs").pc = pc;
                            return Ok(Stop::Looking);
                        }
                    }
                    _ => {
                        block.warps[warp].stack.last_mut().expect("the path that runs").pc = pc + 1;
                        match self.rare(block, lanes, &instruction.kind, At { warp, pc, mask }, active)? {
                            Some(stop) => return Ok(stop),
                            None => continue 'path,
                        }
                    }
                }
            }
        }
    }
}
