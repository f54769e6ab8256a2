//! How a launch ends that ends badly.
//!
//! The idea: one kind for programs to branch on, and one line for a person, which names the kernel, the
//! PTX line, the source line where the compiler noted it, block, warp and lane, and the address.

use std::fmt;

/// What rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The launch itself: shape, argument bytes, resources.
    Launch,
    /// An address outside every allocation, or across the end of one.
    OutOfBounds,
    /// An address inside an allocation that has been freed, or in the shared memory of a block that has exited.
    UseAfterFree,
    /// An address that is no multiple of the access' size.
    Misaligned,
    /// A read of bytes that nobody has written.
    Unwritten,
    /// A write to constant or parameter memory.
    ReadOnly,
    /// Two accesses, one of them a write, that nothing orders.
    Race,
    /// A launch that may begin before the one before it has ended, and never waits for it.
    Dependency,
    /// A value that is its own flag and may arrive never, twice, or in parts.
    Handover,
    /// `ld.global.nc` of bytes that the launch writes.
    NonCoherent,
    /// A barrier or `.sync` operation that not all of its threads reach together.
    DivergentBarrier,
    /// A barrier in shared memory (mbarrier) that is not there, or is used against its rules.
    Mbarrier,
    /// Nothing can go on.
    Deadlock,
    /// More instructions than the budget: most likely a loop without an end.
    Budget,
    /// The kernel executed `trap` or failed an assertion.
    Trap,
    /// More barriers or memory operations than the checks can number.
    Limit,
}

/// The end of a launch that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What rule was broken.
    pub kind: FaultKind,
    /// Where, by whom, and what.
    pub message: String,
}

impl Fault {
    /// A fault with its line for a person.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Fault {
        Fault { kind, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
