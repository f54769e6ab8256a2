//! What a launch is measured by: counts, never times.
//!
//! The idea: how well a kernel suits the hardware shows in facts that do not depend on a clock: the
//! instructions of each class, the sectors that a request touches against the fewest that could hold its
//! bytes, the wavefronts that bank conflicts add, the barriers.

use std::collections::BTreeMap;

use serde::Serialize;

/// Classes of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Arithmetic on `f32`.
    F32,
    /// Arithmetic on `f64`.
    F64,
    /// Arithmetic and logic on integers, comparisons, moves, conversions.
    Integer,
    /// Loads from global memory.
    GlobalLoad,
    /// Stores to global memory.
    GlobalStore,
    /// Atomic operations.
    Atomic,
    /// Loads from shared memory.
    SharedLoad,
    /// Stores to shared memory.
    SharedStore,
    /// Barriers and fences.
    Barrier,
    /// Branches and exits.
    Branch,
    /// Approximate functions, division, roots.
    Special,
    /// Shuffles and votes.
    Warp,
    /// Everything else: parameters, constants, local memory.
    Other,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 13;

    /// All of them, in the order of their numbers.
    pub const ALL: [Class; Class::COUNT] = [
        Class::F32,
        Class::F64,
        Class::Integer,
        Class::GlobalLoad,
        Class::GlobalStore,
        Class::Atomic,
        Class::SharedLoad,
        Class::SharedStore,
        Class::Barrier,
        Class::Branch,
        Class::Special,
        Class::Warp,
        Class::Other,
    ];
}

/// Instructions of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Instructions {
    /// Counted once for a warp.
    pub warps: u64,
    /// Counted once for each active thread.
    pub threads: u64,
}

/// Requests of warps to global memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Instructions executed by a warp with at least one active thread.
    pub requests: u64,
    /// Bytes asked for by all threads.
    pub bytes: u64,
    /// Sectors of 32 bytes touched.
    pub sectors: u64,
    /// The fewest sectors that could hold the distinct bytes asked for.
    pub ideal_sectors: u64,
    /// Distinct bytes touched in a launch, added up over launches; 0 unless [`Counters::distinct`].
    pub distinct_bytes: u64,
}

/// Requests of warps to shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SharedRequests {
    /// Instructions executed by a warp with at least one active thread.
    pub requests: u64,
    /// Bytes asked for by all threads.
    pub bytes: u64,
    /// Wavefronts beyond the fewest: bank conflicts.
    pub conflicts: u64,
}

/// Requests of warps that are done later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AsyncRequests {
    /// Instructions executed by a warp with at least one active thread.
    pub requests: u64,
    /// Bytes sent by all threads.
    pub bytes: u64,
}

/// Memory requests of one line of PTX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LineRequests {
    /// The line in the source file that the compiler noted, 0 if none.
    pub source_line: u32,
    /// Instructions executed by a warp.
    pub requests: u64,
    /// Sectors of 32 bytes touched; 0 for shared memory.
    pub sectors: u64,
    /// The fewest sectors that could do.
    pub ideal_sectors: u64,
    /// Wavefronts added by bank conflicts; 0 for global memory.
    pub conflicts: u64,
}

/// The counts of one kernel, over all its launches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelCounters {
    /// Launches.
    pub launches: u64,
    /// Blocks of all launches.
    pub blocks: u64,
    /// Threads of all launches.
    pub threads: u64,
    /// Instructions by class; classes that never ran are absent.
    pub instructions: BTreeMap<Class, Instructions>,
    /// Loads by `ld.global.nc`.
    pub nc_loads: Requests,
    /// Other loads from global memory.
    pub loads: Requests,
    /// Stores to global memory.
    pub stores: Requests,
    /// Atomic operations on global memory (`atom` and `red`).
    pub atomics: Requests,
    /// Loads from shared memory.
    pub shared_loads: SharedRequests,
    /// Stores to shared memory, atomic operations included.
    pub shared_stores: SharedRequests,
    /// Loads from the shared memory of other blocks of a cluster.
    pub distributed_loads: SharedRequests,
    /// Stores to it, atomic operations included.
    pub distributed_stores: SharedRequests,
    /// Stores to the blocks of a cluster that arrive later (`st.async`).
    pub async_stores: AsyncRequests,
    /// Barriers of a block: once for all warps that meet.
    pub block_barriers: u64,
    /// Barriers of a cluster: once for all blocks.
    pub cluster_barriers: u64,
    /// Phases of mbarriers that were completed.
    pub mbarrier_phases: u64,
    /// Waits of warps for them, but for those in vain.
    pub mbarrier_waits: u64,
    /// Atomic operations on global memory that release: arrivals at grid barriers.
    pub grid_releases: u64,
    /// Acquiring loads from global memory, the vain ones of a spin loop included.
    pub grid_acquires: u64,
    /// Requests by line of PTX; empty unless [`Counters::by_line`].
    pub lines: BTreeMap<u32, LineRequests>,
}

impl KernelCounters {
    /// Instructions of all classes.
    pub fn all_instructions(&self) -> Instructions {
        self.instructions.values().fold(Instructions::default(), |sum, c| Instructions {
            warps: sum.warps + c.warps,
            threads: sum.threads + c.threads,
        })
    }
}

/// The counts of a device.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counters {
    /// Whether requests are also kept by line of PTX.
    pub by_line: bool,
    /// Whether distinct bytes are counted, which takes a mark for every word of memory.
    pub distinct: bool,
    /// By kernel name.
    pub kernels: BTreeMap<String, KernelCounters>,
}
