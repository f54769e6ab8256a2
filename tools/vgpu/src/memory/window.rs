//! Where generic addresses show the memories of a block and a thread.
//!
//! The idea: a generic address says by its high half which memory it is of; global memory lies above all
//! windows, so that its addresses are what they are.

/// Of the block's shared memory.
pub const SHARED: u64 = 0x7e01_0000_0000;
/// What a rank in the cluster makes an address of shared memory differ by: that of rank `r` lies `r + 1` times so
/// far on, and what has none is the block's own.
pub const RANK: u64 = 1 << 24;
/// Of the thread's local memory.
pub const LOCAL: u64 = 0x7e02_0000_0000;
/// Of the kernel's parameters, the last window.
pub const PARAM: u64 = 0x7e03_0000_0000;
/// Where global memory begins.
pub const GLOBAL: u64 = 0x7f00_0000_0000;
