//! Where execution tells the checks of order what happens.

use super::access::At;
use super::block::Block;
use super::machine::{Machine, Site};
use crate::fault::Fault;
use crate::isa::instruction::{Access, Area, Atomic, Copy};
use crate::isa::lanes::WARP;

impl Machine<'_> {
    pub fn order_global(
        &mut self,
        _b: &mut Block,
        _a: &Access,
        _at: At,
        _s: &mut Site,
        _addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        Ok(())
    }
    pub fn order_shared(
        &mut self,
        _b: &mut Block,
        _a: &Access,
        _at: At,
        _s: &mut Site,
        _addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        Ok(())
    }
    pub fn order_atomic(
        &mut self,
        _b: &mut Block,
        _a: &Atomic,
        _at: At,
        _area: Area,
        _addresses: &[u64; WARP],
    ) -> Result<(), Fault> {
        Ok(())
    }
    pub fn order_copy_read(
        &mut self,
        _b: &mut Block,
        _c: &Copy,
        _at: At,
        _k: usize,
        _from: u64,
        _bytes: u64,
    ) -> Result<(), Fault> {
        Ok(())
    }
    pub fn order_landing(&mut self, _b: &mut Block, _at: At, _to: u64, _bytes: u64) -> Result<(), Fault> {
        Ok(())
    }
    pub fn order_parted(&mut self, _b: &mut Block, _warp: usize) {}
    pub fn order_joined(&mut self, _b: &mut Block, _warp: usize) {}
    pub fn order_fence(&mut self, _b: &mut Block, _at: At, _device: bool) {}
    pub fn order_barrier(&mut self, _b: &mut Block, _all: bool) {}
    pub fn order_enter(&mut self, _b: &mut Block) {}
    pub fn finish(&mut self) {}
    pub fn distinct(&self) -> [u64; 3] {
        [0; 3]
    }
}
