//! Runs a launch.
//!
//! The idea: [`run`] takes blocks, blocks have warps, and a warp executes one instruction for its 32
//! lanes at a time. Everything is done by one thread, in an order that is the same each time.

mod access;
mod atomic;
mod awaited;
mod block;
mod cluster;
mod control;
mod copy;
mod count;
mod dependent;
mod distributed;
mod exchange;
mod handover;
mod late;
mod machine;
mod mbarrier;
mod order;
mod pattern;
mod phases;
mod random;
mod run;
mod warp;
mod watch;

pub use run::run;

use crate::isa::lanes::WARP;
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
    /// Blocks of a cluster in each direction, if the launch has clusters.
    pub cluster: Option<[u32; 3]>,
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

/// Blocks of a cluster at most, on any device.
pub const LARGEST_CLUSTER: u64 = 16;

/// Registers come to a warp in steps of this many.
const REGISTER_STEP: u32 = 256;

/// Blocks that a multiprocessor can hold at once; 0 if none fits.
pub fn resident_blocks(kernel: &Kernel, limits: &Limits, threads: u32, dynamic_shared: u32) -> u32 {
    let warps = threads.div_ceil(WARP as u32).max(1);
    let shared = kernel.static_shared.saturating_add(dynamic_shared);
    if threads > limits.max_threads_per_block || shared > limits.shared_per_block {
        return 0;
    }
    let shared = shared + limits.reserved_shared_per_block;
    let registers = (kernel.registers * WARP as u32).next_multiple_of(REGISTER_STEP) * warps;
    let by_shared = limits.shared_per_multiprocessor.checked_div(shared).unwrap_or(u32::MAX);
    let by_registers = limits.registers_per_multiprocessor.checked_div(registers).unwrap_or(u32::MAX);
    let by_threads = limits.max_threads_per_multiprocessor / (warps * WARP as u32);
    by_shared.min(by_registers).min(by_threads).min(limits.max_blocks_per_multiprocessor)
}

/// The multiprocessors of each of a device's clusters of processors (GPCs): an H100 has two of 18 and six of 16, and
/// other devices have as many of 16 as there are, the last with what is left.
pub fn processor_clusters(multiprocessors: u32) -> impl Iterator<Item = u32> {
    let large = if multiprocessors == 132 { 2 } else { 0 };
    let rest = multiprocessors - large * 18;
    let last = Some(rest % 16).filter(|&n| n > 0);
    (0..large).map(|_| 18).chain((0..rest / 16).map(|_| 16)).chain(last)
}

/// The multiprocessor of a block of a cluster: the clusters take turns at the clusters of processors.
fn multiprocessor(limits: &Limits, cluster: u64, rank: u32) -> u32 {
    let all = limits.multiprocessors.max(1);
    let turn = cluster % processor_clusters(all).count() as u64;
    let first: u32 = processor_clusters(all).take(turn as usize).sum();
    let own = processor_clusters(all).nth(turn as usize).unwrap_or(all);
    first + rank % own
}

/// Clusters of `size` blocks that the device can hold at once, where a multiprocessor can hold `blocks`: each lies in
/// one cluster of processors.
pub fn resident_clusters(limits: &Limits, blocks: u32, size: u32) -> u32 {
    let each = processor_clusters(limits.multiprocessors);
    each.map(|multiprocessors| multiprocessors.saturating_mul(blocks) / size.max(1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    fn limits(multiprocessors: u32) -> Limits {
        Limits { multiprocessors, ..Device::named("h100").unwrap().limits }
    }

    #[test]
    fn processors_lie_in_clusters_of_their_own() {
        let each = |n| processor_clusters(n).collect::<Vec<_>>();
        assert_eq!(each(132), [18, 18, 16, 16, 16, 16, 16, 16]);
        assert_eq!([each(33), each(16), each(6)], [vec![16, 16, 1], vec![16], vec![6]]);
        assert_eq!([1, 2, 16].map(|size| resident_clusters(&limits(132), 1, size)), [132, 66, 8]);
        // Several blocks of a cluster may share a multiprocessor.
        assert_eq!([2, 3].map(|blocks| resident_clusters(&limits(6), blocks, 16)), [0, 1]);
    }

    #[test]
    fn a_cluster_stays_in_one_of_them() {
        let of =
            |n, cluster| (0..16).map(|rank| multiprocessor(&limits(n), cluster, rank)).collect::<Vec<_>>();
        assert_eq!(of(132, 1), (18..34).collect::<Vec<_>>());
        assert_eq!(of(132, 10), (36..52).collect::<Vec<_>>());
        assert_eq!(of(6, 3), (0..16).map(|rank| rank % 6).collect::<Vec<_>>());
    }
}
