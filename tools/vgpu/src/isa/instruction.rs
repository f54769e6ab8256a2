//! A decoded instruction.
//!
//! The idea: everything that can be known beforehand is: the operation is a function pointer, an operand
//! is a place in the register file, a branch has its target and the place where its threads meet again.

use super::lanes::{Operands, Operation, Slot};
pub use super::memory::*;
use crate::check::Scope;
use crate::counters::Class;

/// An instruction ready to execute.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// What it does.
    pub kind: Kind,
    /// The predicate of the lanes that execute it; [`Slot::TRUE`] for all.
    pub guard: Slot,
    /// Whether the guard is negated.
    pub negated: bool,
    /// How it is counted; `None` for one that the decoder added.
    pub class: Option<Class>,
    /// Line of the PTX.
    pub line: u32,
    /// Line of the source file, 0 if unknown.
    pub source: u32,
}

/// What an instruction does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A row of the table.
    Lanes(Operation, Operands, u8),
    /// Reads a special register.
    Special(Slot, Special),
    /// A load or store.
    Access(Box<Access>),
    /// `atom` or `red`.
    Atomic(Box<Atomic>),
    /// `cp.async`: a copy to shared memory that lands later.
    Copy(Box<Copy>),
    /// `cp.async.commit_group`
    CopyCommit,
    /// `cp.async.wait_group`: waits until at most this many groups are pending.
    CopyWait(u32),
    /// `membar` and `fence`; how far it reaches.
    Fence(Scope),
    /// `barrier.cluster.arrive`; whether it releases.
    ClusterArrive(bool),
    /// `barrier.cluster.wait`
    ClusterWait,
    /// `griddepcontrol.wait`
    LaunchWait,
    /// `griddepcontrol.launch_dependents`
    LaunchDependents,
    /// `mapa` and `getctarank`
    Map(Box<Map>),
    /// `mbarrier`
    Mbarrier(Box<Mbarrier>),
    /// `st.async`
    StoreAsync(Box<StoreAsync>),
    /// `bar` and `barrier`
    Barrier(Box<Barrier>),
    /// `bar.warp.sync`
    WarpSync(Slot),
    /// `shfl.sync`
    Shuffle(Box<Shuffle>),
    /// `vote.sync`, `match.sync`, `redux.sync`, `activemask`, `elect.sync`
    Exchange(Box<Exchange>),
    /// `bra`
    Branch(u32),
    /// `brx.idx`
    BranchTable(Slot, Box<[u32]>),
    /// `exit`, and `ret` of a kernel.
    Exit,
    /// `trap`, with why.
    Trap(&'static str),
    /// `nanosleep`
    Sleep,
}

/// Special registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// `%tid`, one component.
    Thread(u8),
    /// `%ntid`
    Threads(u8),
    /// `%ctaid`
    Block(u8),
    /// `%nctaid`
    Blocks(u8),
    /// `%clusterid`
    Cluster(u8),
    /// `%nclusterid`
    Clusters(u8),
    /// `%cluster_ctaid`
    Member(u8),
    /// `%cluster_nctaid`
    Members(u8),
    /// `%cluster_ctarank`
    MemberRank,
    /// `%cluster_nctarank`
    MemberCount,
    /// `%is_explicit_cluster`, a predicate.
    Clustered,
    /// `%laneid`
    Lane,
    /// `%warpid`
    Warp,
    /// `%nwarpid`
    Warps,
    /// `%smid`
    Multiprocessor,
    /// `%nsmid`
    Multiprocessors,
    /// `%gridid`, and other 32-bit constants.
    Value(u32),
    /// `%lanemask_eq`, `_le`, `_lt`, `_ge`, `_gt`, by number.
    LaneMask(u8),
    /// `%clock`
    Clock,
    /// `%clock64`, `%globaltimer`
    Clock64,
    /// `%dynamic_smem_size`
    DynamicShared,
    /// `%total_smem_size`
    TotalShared,
    /// `%envreg1` and `%envreg2`: the halves of the address of the grid's workspace, high one first.
    Workspace(bool),
}

/// What a barrier does besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    /// Waits.
    Sync,
    /// Does not wait.
    Arrive,
    /// Counts the threads whose predicate is true.
    Count,
    /// Whether all are true.
    And,
    /// Whether one is true.
    Or,
}

/// A barrier of the block's threads.
#[derive(Clone, Debug)]
pub struct Barrier {
    /// What it does.
    pub kind: BarrierKind,
    /// Its number, 0 to 15.
    pub id: Slot,
    /// Threads that take part; all if `None`.
    pub threads: Option<Slot>,
    /// The predicate of a reduction.
    pub predicate: Slot,
    /// The result of a reduction.
    pub result: Slot,
}

/// Whence a lane's shuffled value comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShuffleMode {
    /// A lane below.
    Up,
    /// A lane above.
    Down,
    /// By exclusive or.
    Butterfly,
    /// By number.
    Index,
}

/// `shfl.sync`
#[derive(Clone, Debug)]
pub struct Shuffle {
    /// Whence.
    pub mode: ShuffleMode,
    /// The value received.
    pub result: Slot,
    /// Whether the source lane is in range.
    pub valid: Slot,
    /// The value given.
    pub value: Slot,
    /// Which lane.
    pub lane: Slot,
    /// Segment and clamp.
    pub clamp: Slot,
    /// The lanes that take part.
    pub members: Slot,
}

/// What lanes learn from one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    /// `vote.all`
    All,
    /// `vote.any`
    Any,
    /// `vote.uni`
    Uniform,
    /// `vote.ballot`
    Ballot,
    /// `match.any`
    MatchAny,
    /// `match.all`
    MatchAll,
    /// `redux` of integers.
    Reduce(AtomicKind),
    /// `activemask`
    ActiveMask,
    /// `elect.sync`
    Elect,
}

/// An exchange among the lanes of a warp.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What.
    pub kind: ExchangeKind,
    /// A register, or for votes but the ballot a predicate.
    pub result: Slot,
    /// The second result, of `match.all` and `elect.sync`.
    pub predicate: Slot,
    /// The lane's own value or predicate.
    pub value: Slot,
    /// Whether the value has 64 bits.
    pub long: bool,
    /// The lanes that take part; `None` for `activemask`.
    pub members: Option<Slot>,
}

/// How an instruction uses a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads it.
    Use,
    /// Writes it.
    Define,
}

impl Instruction {
    /// Visits every operand, to read or replace it.
    pub fn visit(&mut self, f: &mut impl FnMut(&mut Slot, Role)) {
        use Role::{Define, Use};
        f(&mut self.guard, Use);
        let address = |a: &mut Address, f: &mut dyn FnMut(&mut Slot, Role)| {
            if let Some(base) = &mut a.base {
                f(base, Use);
            }
        };
        match &mut self.kind {
            Kind::Lanes(_, operands, count) => {
                operands.sources[..usize::from(*count)].iter_mut().for_each(|s| f(s, Use));
                f(&mut operands.result, Define);
            }
            Kind::Special(result, _) => f(result, Define),
            Kind::Access(access) => {
                address(&mut access.address, f);
                let role = if access.store { Use } else { Define };
                access.registers[..access.count as usize].iter_mut().for_each(|s| f(s, role));
            }
            Kind::Atomic(atomic) => {
                address(&mut atomic.address, f);
                f(&mut atomic.value, Use);
                f(&mut atomic.swap, Use);
                atomic.result.iter_mut().for_each(|s| f(s, Define));
            }
            Kind::Copy(copy) => {
                address(&mut copy.to, f);
                address(&mut copy.from, f);
                copy.present.iter_mut().for_each(|s| f(s, Use));
            }
            Kind::Barrier(barrier) => {
                f(&mut barrier.id, Use);
                barrier.threads.iter_mut().for_each(|s| f(s, Use));
                if !matches!(barrier.kind, BarrierKind::Sync | BarrierKind::Arrive) {
                    f(&mut barrier.predicate, Use);
                    f(&mut barrier.result, Define);
                }
            }
            Kind::Map(map) => {
                f(&mut map.address, Use);
                map.rank.iter_mut().for_each(|s| f(s, Use));
                f(&mut map.result, Define);
            }
            Kind::Mbarrier(op) => {
                address(&mut op.address, f);
                match &mut op.kind {
                    MbarrierKind::Invalidate => {}
                    MbarrierKind::Init(slot) | MbarrierKind::Complete(slot) => f(slot, Use),
                    MbarrierKind::Arrive { count, bytes } => {
                        [count, bytes].into_iter().for_each(|s| f(s, Use))
                    }
                    MbarrierKind::Test { phase, .. } => f(phase, Use),
                }
                op.result.iter_mut().for_each(|s| f(s, Define));
            }
            Kind::StoreAsync(op) => {
                address(&mut op.to, f);
                address(&mut op.barrier, f);
                op.registers[..op.count as usize].iter_mut().for_each(|s| f(s, Use));
            }
            Kind::WarpSync(members) => f(members, Use),
            Kind::Shuffle(s) => {
                for slot in [&mut s.value, &mut s.lane, &mut s.clamp, &mut s.members] {
                    f(slot, Use);
                }
                f(&mut s.result, Define);
                f(&mut s.valid, Define);
            }
            Kind::Exchange(e) => {
                f(&mut e.value, Use);
                e.members.iter_mut().for_each(|s| f(s, Use));
                f(&mut e.result, Define);
                f(&mut e.predicate, Define);
            }
            Kind::BranchTable(index, _) => f(index, Use),
            Kind::CopyCommit
            | Kind::CopyWait(_)
            | Kind::Fence(_)
            | Kind::ClusterArrive(_)
            | Kind::ClusterWait
            | Kind::LaunchWait
            | Kind::LaunchDependents
            | Kind::Branch(_)
            | Kind::Exit
            | Kind::Trap(_)
            | Kind::Sleep => {}
        }
    }
}
