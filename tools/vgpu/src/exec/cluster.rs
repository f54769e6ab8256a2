//! Blocks that are resident together.
//!
//! The idea: of a cluster's blocks one runs, and the others lie beside it. A launch without clusters has those of one
//! block.

use super::block::Block;
use super::phases::Flight;
use crate::check::Gathering;
use crate::memory::window;

/// A cluster that is resident.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Its number in the grid.
    pub index: u64,
    /// The same, by direction.
    pub place: [u32; 3],
    /// Its blocks by rank, but for the one that runs.
    pub blocks: Vec<Option<Box<Block>>>,
    /// How often its barrier has opened.
    pub phase: u64,
    /// Warps that have neither arrived at the barrier nor exited.
    pub missing: usize,
    /// What those that have arrived release.
    pub gathering: Gathering,
    /// Stores under way.
    pub flying: Vec<Flight>,
}

impl Cluster {
    /// Its blocks, while none runs.
    pub fn each(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().flatten().map(|block| &**block)
    }

    /// The same, to change.
    pub fn each_mut(&mut self) -> impl Iterator<Item = &mut Block> {
        self.blocks.iter_mut().flatten().map(|block| &mut **block)
    }

    /// Whether all threads have exited.
    pub fn done(&self) -> bool {
        self.each().all(Block::done)
    }

    /// Whether a warp can run.
    pub fn ready(&self) -> bool {
        self.each().any(Block::ready)
    }
}

/// The rank that an address of a cluster's shared memory names, if any, and the address within the block.
pub fn ranked(address: u64) -> (Option<usize>, u64) {
    let rank = (address / window::RANK).checked_sub(1);
    (rank.map(|rank| rank as usize), address % window::RANK)
}
