//! What each warp has heard of the others.
//!
//! The idea: vector clocks. A block's time steps at each of its barriers, fences and releases. A release
//! leaves with an address what the releasing warp knows of every warp of the grid, and an acquire takes
//! it from there. A barrier at which the whole block waits is one time, before which all know all; one of
//! some warps is a release by those that arrive and an acquire by those that wait.

use std::collections::HashMap;
use std::rc::Rc;

use super::cell::{Cell, How};
use super::shadow::Who;

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

/// For each warp of the grid, and then for each agent, until when its accesses are known.
pub type Known = Vec<u32>;

fn join(to: &mut Option<Known>, from: &[u32]) {
    match to {
        None => *to = Some(from.to_vec()),
        Some(to) => merge(to, 0, from),
    }
}

/// `from` begins with the warp `first`.
fn merge(to: &mut Known, first: usize, from: &[u32]) {
    if to.len() < first + from.len() {
        to.resize(first + from.len(), 0);
    }
    to[first..].iter_mut().zip(from).for_each(|(a, b)| *a = (*a).max(*b));
}

/// What a warp knew of its own block at a fence.
#[derive(Clone, Debug)]
struct Fence {
    time: u64,
    /// When the block's last barrier was.
    barrier: u64,
    /// What it had heard of each of the block's warps.
    heard: Vec<u32>,
}

/// What a warp has heard since its block's last barrier.
#[derive(Debug, Default)]
pub struct WarpOrder {
    /// By acquiring.
    heard: Option<Known>,
    /// By looking, which counts once a fence follows.
    seen: Option<Known>,
    /// Its last fence for the cluster and for the device.
    fences: [Option<Fence>; 2],
    /// When its lanes met last, the block's barriers aside.
    met: u64,
    /// When it waited last at a barrier of some of the block's warps.
    waited: u64,
    /// The releases that it has heard and seen last: address and number.
    last: [(u64, u64); 2],
    /// The number of the last gathering that it has heard of.
    last_met: u64,
}

/// The order of a block's accesses.
#[derive(Debug, Default)]
pub struct BlockOrder {
    /// Now.
    pub time: u64,
    /// When the block began.
    pub start: u64,
    /// When its last barrier was at which all its warps waited.
    pub barrier: u64,
    /// The first of its warps' numbers in the grid, and one after the last.
    pub warps: (u32, u32),
    /// What all its warps know.
    known: Option<Known>,
    /// Its warps.
    pub each: Vec<WarpOrder>,
}

impl BlockOrder {
    /// When the lanes of a warp met last.
    pub fn met(&self, warp: usize) -> u64 {
        self.barrier.max(self.each[warp].met)
    }

    /// When a warp waited last at any of the block's barriers; its paths are numbered since then.
    pub fn waited(&self, warp: usize) -> u64 {
        self.barrier.max(self.each[warp].waited)
    }

    /// Where what is known of its own warps lies in what is known of so many.
    fn own(&self, len: usize) -> std::ops::Range<usize> {
        (self.warps.0 as usize).min(len)..(self.warps.1 as usize).min(len)
    }
}

/// What warps release and acquire at a barrier: the cluster's, an mbarrier, or one of some of a block's warps.
#[derive(Debug, Default)]
pub struct Gathering {
    /// What those that have arrived know.
    coming: Option<Known>,
    /// What was told last of that.
    told: Option<Rc<Known>>,
    /// What those knew that met last.
    met: Option<Known>,
    /// The number of that meeting; 0 if there was none.
    number: u64,
}

/// In whose name asynchronous stores are done that complete at one barrier. Its time is the barrier's phase: who has
/// seen that complete knows of all its stores.
#[derive(Debug)]
pub struct Agent {
    number: u32,
    time: u64,
    /// Its first time.
    first: u64,
}

impl Agent {
    /// Whether who knows so much knows that all phases before this one have completed.
    pub fn awaited(&self, known: &[u32]) -> bool {
        self.time == self.first
            || known.get(self.number as usize).is_some_and(|&time| u64::from(time) + 1 >= self.time)
    }

    /// The agent, about to store to a block that began at a time: after nothing but what the store's thread knew.
    pub fn who(&self, start: u64, how: How, site: u32) -> Who {
        let cell = Cell::new(self.time, self.number, 0, how, site);
        Who { cell, start: Cell::begin(start), block: (0, 0), barrier: 0, parted: false, met: 0 }
    }
}

/// What was released through an address.
#[derive(Debug)]
struct Released {
    known: Option<Known>,
    number: u64,
}

/// The order of a grid's accesses.
#[derive(Debug)]
pub struct GridOrder {
    /// Whether accesses are checked at all.
    pub on: bool,
    /// When the launch began.
    pub start: u64,
    /// The latest time of any block.
    pub latest: u64,
    /// Warps of the grid.
    warps: u32,
    released: HashMap<u64, Released>,
    releases: u64,
    /// Agents so far, and the numbers of those that are not needed any more.
    agents: u32,
    free: Vec<u32>,
    /// The key of the last foreign cell that was in order, and for which warp.
    memo: (u64, u32),
}

impl GridOrder {
    /// For a launch of `warps` warps that starts at time `start`.
    pub fn new(on: bool, start: u64, warps: u64) -> GridOrder {
        let warps = warps.min(1 << Cell::WARP_BITS) as u32;
        GridOrder {
            on,
            start,
            latest: start,
            warps,
            released: HashMap::new(),
            releases: 0,
            agents: 0,
            free: Vec::new(),
            memo: (u64::MAX, u32::MAX),
        }
    }

    /// A block begins, no earlier than `since`; `first` is the number of its first warp in the grid.
    pub fn enter(&mut self, block: &mut BlockOrder, since: u64, first: u64, count: u32) {
        let first = (first % (1 << Cell::WARP_BITS)) as u32;
        let time = (block.time + 1).max(since);
        let each = (0..count).map(|_| WarpOrder::default()).collect();
        // That it has begun is known before anything that it does.
        *block = BlockOrder {
            time: time + 1,
            start: time,
            barrier: time + 1,
            warps: (first, first + count),
            known: None,
            each,
        };
        self.latest = self.latest.max(block.time);
    }

    /// Whether there are no more times.
    pub fn full(&self) -> bool {
        self.on && self.latest >= Cell::LAST
    }

    /// Time goes on.
    fn step(&mut self, block: &mut BlockOrder) {
        block.time = (block.time + 1).min(Cell::LAST);
        self.latest = self.latest.max(block.time);
        self.memo = (u64::MAX, u32::MAX);
    }

    /// All of a block's warps have waited for each other.
    pub fn barrier(&mut self, block: &mut BlockOrder) {
        self.step(block);
        block.barrier = block.time;
        for warp in &mut block.each {
            if let Some(heard) = warp.heard.take() {
                join(&mut block.known, &heard);
            }
        }
    }

    /// Some of a block's warps have waited at a barrier: for each other, and for those that have only arrived,
    /// which were gathered then.
    pub fn meet(
        &mut self,
        gathering: &mut Gathering,
        block: &mut BlockOrder,
        waiting: impl Iterator<Item = usize> + Clone,
    ) {
        if !self.on {
            return;
        }
        let known = gathering.coming.get_or_insert_with(|| vec![0; self.warps as usize]);
        waiting.clone().for_each(|warp| self.share(known, block, warp, None));
        self.open(gathering);
        self.step(block);
        for warp in waiting {
            self.hear(gathering, block, warp);
            (block.each[warp].met, block.each[warp].waited) = (block.time, block.time);
        }
    }

    /// Whether a warp knows that another block has begun.
    pub fn begun(&self, block: &BlockOrder, warp: usize, other: &BlockOrder) -> bool {
        let since = |known: &Known| {
            let (first, end) = (other.warps.0 as usize, other.warps.1 as usize);
            known.get(first..end).is_some_and(|times| times.iter().any(|&t| u64::from(t) >= other.start))
        };
        block.known.as_ref().is_some_and(since) || block.each[warp].heard.as_ref().is_some_and(since)
    }

    /// Whether one of a block's warps knows of an access of another.
    pub fn known_to_any(&self, block: &BlockOrder, cell: Cell) -> bool {
        let of = |known: &Option<Known>| {
            let until = known.as_ref().and_then(|k| k.get(cell.warp() as usize));
            until.is_some_and(|&t| u64::from(t) >= cell.time())
        };
        of(&block.known) || block.each.iter().any(|warp| of(&warp.heard))
    }

    /// A warp's lanes have met.
    pub fn lanes_met(&mut self, block: &mut BlockOrder, warp: usize) {
        self.step(block);
        block.each[warp].met = block.time;
    }

    /// The same, some time ago.
    pub fn lanes_met_at(&self, block: &mut BlockOrder, warp: usize, time: u64) {
        let met = &mut block.each[warp].met;
        *met = (*met).max(time);
    }

    /// A warp's fence.
    pub fn fence(&mut self, block: &mut BlockOrder, warp: usize, scope: Scope) {
        if let Some(seen) = block.each[warp].seen.take() {
            join(&mut block.each[warp].heard, &seen);
        }
        let heard = block.each[warp].heard.as_ref();
        let heard = heard.map_or(Vec::new(), |heard| heard[block.own(heard.len())].to_vec());
        let now = Fence { time: block.time, barrier: block.barrier, heard };
        self.step(block);
        for (fence, reach) in block.each[warp].fences.iter_mut().zip([Scope::Cluster, Scope::Device]) {
            if scope >= reach {
                *fence = Some(now.clone());
            }
        }
    }

    /// A warp stores through an address that others may acquire; `replaces` unless it adds to what is there.
    pub fn publish(
        &mut self,
        block: &mut BlockOrder,
        warp: usize,
        address: u64,
        (release, scope): (bool, Scope),
        replaces: bool,
    ) {
        let fence = block.each[warp].fences[usize::from(scope == Scope::Device)].as_ref();
        if !release && fence.is_none() {
            if replaces {
                self.released.remove(&address);
            }
            return;
        }
        let mut known = vec![0; self.warps as usize];
        self.share(&mut known, block, warp, fence.filter(|_| !release));
        self.releases += 1;
        let number = self.releases;
        let entry = self.released.entry(address).or_insert(Released { known: None, number });
        if replaces {
            entry.known = None;
        }
        join(&mut entry.known, &known);
        entry.number = number;
        if release {
            self.step(block);
        }
    }

    /// A warp arrives at its cluster's barrier: what it knows is known to all who wait there, if it releases, and else
    /// what it knew at its last fence.
    pub fn gather(&mut self, to: &mut Gathering, block: &mut BlockOrder, warp: usize, release: bool) {
        if !self.on {
            return;
        }
        let fence = block.each[warp].fences[0].as_ref();
        let known = to.coming.get_or_insert_with(|| vec![0; self.warps as usize]);
        if !release && fence.is_none() {
            // Whoever has arrived has begun.
            return self.tell_own(known, block, warp, block.start, block.start);
        }
        self.share(known, block, warp, fence.filter(|_| !release));
        self.step(block);
    }

    /// All have arrived.
    pub fn open(&mut self, gathering: &mut Gathering) {
        self.releases += 1;
        (gathering.met, gathering.number) = (gathering.coming.take(), self.releases);
        gathering.told = None;
    }

    /// A warp has seen that all had arrived.
    pub fn hear(&mut self, from: &Gathering, block: &mut BlockOrder, warp: usize) {
        let order = &mut block.each[warp];
        if let Some(met) = &from.met
            && order.last_met != from.number
        {
            join(&mut order.heard, met);
            order.last_met = from.number;
        }
    }

    /// A warp has waited at its cluster's barrier.
    pub fn scatter(&mut self, from: &Gathering, block: &mut BlockOrder, warp: usize) {
        self.hear(from, block, warp);
        self.lanes_met(block, warp);
    }

    /// All that a warp knows, for somebody who acts in its name from now on.
    pub fn tell(&mut self, block: &mut BlockOrder, warp: usize) -> Rc<Known> {
        if !self.on {
            return Rc::default();
        }
        let mut known = vec![0; self.warps as usize];
        self.share(&mut known, block, warp, None);
        self.step(block);
        Rc::new(known)
    }

    /// Somebody new. What had the number before is over.
    pub fn agent(&mut self) -> Agent {
        let number = self.free.pop().unwrap_or_else(|| {
            self.agents += 1;
            (self.warps + self.agents - 1) % (1 << Cell::WARP_BITS)
        });
        self.latest += 1;
        Agent { number, time: self.latest, first: self.latest }
    }

    /// A phase of an agent's barrier has completed: whoever hears of it knows that.
    pub fn complete(&mut self, gathering: &mut Gathering, agent: &mut Agent) {
        let number = agent.number as usize;
        let coming = gathering.coming.get_or_insert_default();
        if coming.len() <= number {
            coming.resize(number + 1, 0);
        }
        coming[number] = agent.time as u32;
        self.open(gathering);
        agent.time += 1;
        self.latest = self.latest.max(agent.time);
    }

    /// Whether a warp knows that all phases of an agent's barrier before this one have completed.
    pub fn awaited(&self, block: &BlockOrder, warp: usize, agent: &Agent) -> bool {
        let of = |known: &Option<Known>| agent.awaited(known.as_deref().unwrap_or_default());
        of(&block.known) || of(&block.each[warp].heard)
    }

    /// An agent is not needed any more.
    pub fn dismiss(&mut self, agent: Agent) {
        self.free.push(agent.number);
    }

    /// Whether a number is an agent's, and no warp's.
    pub fn is_agent(&self, number: u32) -> bool {
        number >= self.warps
    }

    /// A store has arrived in the name of who knew so much.
    pub fn deliver(&self, to: &mut Gathering, known: &Rc<Known>) {
        if to.told.as_ref().is_some_and(|told| Rc::ptr_eq(told, known)) {
            return;
        }
        to.told = Some(known.clone());
        join(&mut to.coming, known);
    }

    /// All that a warp knows is known to others; of its own block only what it knew at a fence, if that is all that
    /// it tells.
    fn share(&self, to: &mut Known, block: &BlockOrder, warp: usize, fence: Option<&Fence>) {
        for known in [&block.known, &block.each[warp].heard].into_iter().flatten() {
            let own = if fence.is_some() { block.own(known.len()) } else { 0..0 };
            merge(to, 0, &known[..own.start]);
            merge(to, own.end, &known[own.end..]);
        }
        let (time, barrier) = fence.map_or((block.time, block.barrier), |fence| (fence.time, fence.barrier));
        if let Some(fence) = fence {
            merge(to, block.warps.0 as usize, &fence.heard);
        }
        self.tell_own(to, block, warp, time, barrier);
    }

    /// Of its own block a warp knows all before the block's barrier, and of itself all so far.
    fn tell_own(&self, known: &mut Known, block: &BlockOrder, warp: usize, time: u64, barrier: u64) {
        for number in block.warps.0..block.warps.1.min(self.warps) {
            let own = &mut known[number as usize];
            *own = (*own).max(barrier.saturating_sub(1) as u32);
        }
        let own = block.warps.0 + warp as u32;
        if let Some(own) = known.get_mut(own as usize) {
            *own = (*own).max(time as u32);
        }
    }

    /// A warp looks at an address; with `acquire` it knows at once what was released through it.
    pub fn look(&mut self, block: &mut BlockOrder, warp: usize, address: u64, acquire: bool) {
        let Some(released) = self.released.get(&address) else { return };
        let order = &mut block.each[warp];
        let last = &mut order.last[usize::from(!acquire)];
        if *last == (address, released.number) {
            return;
        }
        *last = (address, released.number);
        if let Some(known) = &released.known {
            join(if acquire { &mut order.heard } else { &mut order.seen }, known);
        }
        self.memo = (u64::MAX, u32::MAX);
    }

    /// Whether a warp knows of an access of another.
    pub fn ordered(&mut self, block: &BlockOrder, warp: usize, cell: Cell) -> bool {
        let me = block.warps.0 + warp as u32;
        if self.memo == (cell.key(), me) {
            return true;
        }
        let of = |known: &Option<Known>| {
            known
                .as_ref()
                .and_then(|k| k.get(cell.warp() as usize))
                .is_some_and(|&t| u64::from(t) >= cell.time())
        };
        let ordered = of(&block.known) || of(&block.each[warp].heard);
        if ordered {
            self.memo = (cell.key(), me);
        }
        ordered
    }

    /// A warp of a block, about to access.
    pub fn who(&self, block: &BlockOrder, warp: usize, path: u32, how: How, site: u32, shared: bool) -> Who {
        let number = block.warps.0 + warp as u32;
        Who {
            cell: Cell::new(block.time, number, path, how, site),
            start: Cell::begin(if shared { block.start } else { self.start }),
            block: block.warps,
            barrier: block.barrier,
            parted: path != 0,
            met: if shared { block.met(warp) } else { u64::MAX },
        }
    }
}
