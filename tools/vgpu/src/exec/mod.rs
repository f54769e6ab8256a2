//! Runs a launch.

use crate::counters::Counters;
use crate::fault::Fault;
use crate::memory::Memory;
use crate::program::Kernel;

/// A launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Blocks in each direction.
    pub grid: [u32; 3],
    /// Threads of a block in each direction.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The arguments' bytes, laid out as `kernel.params` says.
    pub params: &'a [u8],
    /// Whether all blocks are resident at once and may wait for one another.
    pub cooperative: bool,
}

/// What a device can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Threads of a block.
    pub max_threads_per_block: u32,
    /// Blocks of a multiprocessor.
    pub max_blocks_per_multiprocessor: u32,
    /// Threads of a multiprocessor.
    pub max_threads_per_multiprocessor: u32,
    /// Bytes of shared memory of a multiprocessor.
    pub shared_per_multiprocessor: u32,
    /// Bytes of shared memory that a block may have, opted in.
    pub shared_per_block: u32,
    /// Bytes of shared memory that the system takes of each block.
    pub reserved_shared_per_block: u32,
    /// Registers of 32 bits of a multiprocessor.
    pub registers_per_multiprocessor: u32,
    /// Registers of a thread at most.
    pub registers_per_thread: u32,
}

/// In which order blocks and warps run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The seed of a random order; in order where there is none.
    pub seed: Option<u64>,
    /// Whether approximate functions err by up to one unit in the last place more.
    pub perturb: bool,
}

/// Blocks that a multiprocessor can hold at once; 0 if none fits.
pub fn resident_blocks(_kernel: &Kernel, _limits: &Limits, _threads: u32, _dynamic_shared: u32) -> u32 {
    todo!()
}

/// Runs a launch to its end.
///
/// # Errors
/// [`Fault`]: the first rule broken. Memory then holds what had been written.
pub fn run(
    _launch: &Launch<'_>,
    _memory: &mut Memory,
    _limits: &Limits,
    _schedule: Schedule,
    _counters: &mut Counters,
) -> Result<(), Fault> {
    todo!()
}
