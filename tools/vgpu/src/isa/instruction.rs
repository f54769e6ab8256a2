//! A decoded instruction.
//!
//! The idea: everything that can be known beforehand is: the operation is a function pointer, an operand
//! is a place in the register file, a branch has its target and the place where its threads meet again.

use super::lanes::{Operands, Operation, Slot};
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

/// The state space of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// No space given: the address tells.
    Generic,
    /// Global memory.
    Global,
    /// Constant memory, which lies in global memory.
    Const,
    /// The block's shared memory.
    Shared,
    /// The shared memory of a block of the cluster: the address tells which.
    Cluster,
    /// The thread's own memory.
    Local,
    /// The kernel's arguments.
    Param,
}

/// An address: a register, if any, and an offset.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// The register.
    pub base: Option<Slot>,
    /// Whether it has 64 bits.
    pub long: bool,
    /// What is added.
    pub offset: u64,
    /// Its space.
    pub area: Area,
}

/// Among whom an access is strong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// `.cta`
    #[default]
    Block,
    /// `.cluster`
    Cluster,
    /// `.gpu` and `.sys`
    Device,
}

/// What an access means for the order of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Volatile, relaxed or stronger: does not race with others of its kind.
    pub strong: bool,
    /// What others released through this address happened before what follows.
    pub acquire: bool,
    /// What came before is handed to whoever acquires.
    pub release: bool,
    /// How far it reaches.
    pub scope: Scope,
}

/// A load or store of one to eight elements by each lane.
#[derive(Clone, Debug)]
pub struct Access {
    /// Store, rather than load.
    pub store: bool,
    /// Where.
    pub address: Address,
    /// Bytes of an element.
    pub bytes: u32,
    /// Elements.
    pub count: u32,
    /// Whether a loaded element is extended by its sign.
    pub signed: bool,
    /// Whether the registers have 64 bits.
    pub long: bool,
    /// The registers.
    pub registers: [Slot; 8],
    /// `.nc`
    pub nc: bool,
    /// Its order.
    pub order: Order,
    /// `.relaxed`, beyond the block, of `.f32`: in global memory it hands over a value.
    pub handover: bool,
    /// Its number among the kernel's memory instructions.
    pub site: u32,
}

/// What an atomic operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicKind {
    /// Integer addition.
    Add,
    /// Addition of `f32`.
    AddF32,
    /// Addition of `f64`.
    AddF64,
    /// Minimum of unsigned integers.
    MinU,
    /// Minimum of signed integers.
    MinS,
    /// Maximum of unsigned integers.
    MaxU,
    /// Maximum of signed integers.
    MaxS,
    /// Bits.
    And,
    /// Bits.
    Or,
    /// Bits.
    Xor,
    /// Exchange.
    Exchange,
    /// Compare and swap.
    CompareSwap,
    /// Increment, to 0 after the bound.
    Increment,
    /// Decrement, to the bound after 0.
    Decrement,
}

/// An atomic operation.
#[derive(Clone, Debug)]
pub struct Atomic {
    /// What it does.
    pub kind: AtomicKind,
    /// Where.
    pub address: Address,
    /// 4 or 8.
    pub bytes: u32,
    /// Where the old value goes.
    pub result: Option<Slot>,
    /// The operand; for compare and swap what is compared.
    pub value: Slot,
    /// What compare and swap stores.
    pub swap: Slot,
    /// Its order.
    pub order: Order,
    /// Its number among the kernel's memory instructions.
    pub site: u32,
}

/// An asynchronous copy from global to shared memory.
#[derive(Clone, Debug)]
pub struct Copy {
    /// In shared memory.
    pub to: Address,
    /// In global memory.
    pub from: Address,
    /// Bytes written: 4, 8 or 16.
    pub bytes: u32,
    /// Bytes read; the others are zeros.
    pub present: Option<Slot>,
    /// The numbers of the load and of the store.
    pub sites: [u32; 2],
}

/// `mapa` and `getctarank`: from an address of shared memory to its like in a block of the cluster, and back to
/// the block's rank.
#[derive(Clone, Debug)]
pub struct Map {
    /// The result: an address, or a rank.
    pub result: Slot,
    /// The address, a long if the result of `mapa` is one.
    pub address: Slot,
    /// The rank of the block that `mapa` goes to; none for `getctarank`.
    pub rank: Option<Slot>,
    /// Whether addresses have 64 bits.
    pub long: bool,
}

/// What is done with a barrier in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MbarrierKind {
    /// It is made, for so many arrivals.
    Init(Slot),
    /// It is ended.
    Invalidate,
    /// So many arrive, and so many bytes are to come.
    Arrive {
        /// Arrivals.
        count: Slot,
        /// Bytes.
        bytes: Slot,
    },
    /// So many bytes have come.
    Complete(Slot),
    /// Whether a phase has completed.
    Test {
        /// What an arrival in it returned, or its parity.
        phase: Slot,
        /// Whether it is that.
        parity: bool,
        /// Whether it may come to nothing for no reason.
        tries: bool,
    },
}

/// `mbarrier`
#[derive(Clone, Debug)]
pub struct Mbarrier {
    /// What is done.
    pub kind: MbarrierKind,
    /// Where.
    pub address: Address,
    /// An arrival's phase, or a predicate.
    pub result: Option<Slot>,
    /// Whether it releases or acquires.
    pub strong: bool,
    /// Its number among the kernel's memory instructions.
    pub site: u32,
}

/// `st.async`: a store of one to four elements to a block of the cluster, which arrives later.
#[derive(Clone, Debug)]
pub struct StoreAsync {
    /// Where.
    pub to: Address,
    /// The barrier in the same block at which it completes.
    pub barrier: Address,
    /// Bytes of an element.
    pub bytes: u32,
    /// Elements.
    pub count: u32,
    /// The registers.
    pub registers: [Slot; 4],
    /// Its number among the kernel's memory instructions.
    pub site: u32,
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
            | Kind::Branch(_)
            | Kind::Exit
            | Kind::Trap(_)
            | Kind::Sleep => {}
        }
    }
}
