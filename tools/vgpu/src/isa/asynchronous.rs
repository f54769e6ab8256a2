//! What is not done at once: mbarriers, and stores that arrive later.
//!
//! The idea: an mbarrier counts in phases who has arrived and how many bytes have; a store that arrives later tells the
//! mbarrier beside its data so.

use super::instruction::{Address, Order, Role};
use super::lanes::Slot;

/// What an operation on an mbarrier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MbarrierKind {
    /// `init`: makes one, of so many arrivals in each phase.
    Init,
    /// `inval`: ends one.
    Invalidate,
    /// `arrive`: so many of the phase's arrivals.
    Arrive,
    /// `arrive.expect_tx`: one of the phase's arrivals, behind more bytes that it waits for.
    ArriveExpecting,
    /// `expect_tx`: more bytes that the phase waits for.
    Expect,
    /// `complete_tx`: fewer.
    Complete,
    /// `test_wait` and `try_wait`: whether a phase is over, which its state names.
    Wait,
    /// The same with `.parity`: which its parity names.
    WaitParity,
}

/// An operation on an mbarrier.
#[derive(Clone, Debug)]
pub struct Mbarrier {
    /// What it does.
    pub kind: MbarrierKind,
    /// Where the mbarrier lies.
    pub address: Address,
    /// The operand: arrivals, bytes, a state, a parity.
    pub value: Slot,
    /// The result: of an arrival the phase's state, of a wait a predicate.
    pub result: Option<Slot>,
    /// Its order.
    pub order: Order,
    /// Its number among the kernel's memory instructions.
    pub site: u32,
}

/// `st.async`: a store to a block of the cluster of one to four elements by each lane.
#[derive(Clone, Debug)]
pub struct Send {
    /// Where to.
    pub address: Address,
    /// The mbarrier, in the same block.
    pub mbarrier: Address,
    /// Bytes of an element: 4 or 8.
    pub bytes: u32,
    /// Elements.
    pub count: u32,
    /// The registers.
    pub registers: [Slot; 4],
    /// Its number among the kernel's memory instructions.
    pub site: u32,
}

impl Mbarrier {
    /// Visits every operand.
    pub fn visit(&mut self, f: &mut impl FnMut(&mut Slot, Role)) {
        self.address.base.iter_mut().for_each(|s| f(s, Role::Use));
        f(&mut self.value, Role::Use);
        self.result.iter_mut().for_each(|s| f(s, Role::Define));
    }
}

impl Send {
    /// Visits every operand.
    pub fn visit(&mut self, f: &mut impl FnMut(&mut Slot, Role)) {
        self.address.base.iter_mut().for_each(|s| f(s, Role::Use));
        self.mbarrier.base.iter_mut().for_each(|s| f(s, Role::Use));
        self.registers[..self.count as usize].iter_mut().for_each(|s| f(s, Role::Use));
    }
}
