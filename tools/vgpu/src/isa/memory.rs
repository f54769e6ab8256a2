//! The operands of instructions that touch memory.
//!
//! The idea: where, how much, and what it means for the order of others, for each kind of them.

use super::lanes::Slot;
use crate::check::Scope;

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
        /// Whether it may find nothing though it is there.
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
