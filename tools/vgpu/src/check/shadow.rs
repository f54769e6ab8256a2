//! Who touched a word last.
//!
//! The idea: each word has a cell for its last writer and two for readers, which are compared with whoever touches it
//! next.

use super::cell::{Cell, NOT_YET};
use super::readers::Readers;

/// Who is about to access, and what he knows.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// The access.
    pub cell: Cell,
    /// Cells before this one are of no concern: from before the launch, or the block.
    pub start: Cell,
    /// Warps of his block.
    pub block: (u32, u32),
    /// The time of his block's last barrier.
    pub barrier: u64,
    /// Whether he is on one of several paths of his warp.
    pub parted: bool,
    /// The time at which the lanes of his warp met last, if that matters.
    pub met: u64,
}

impl Who {
    /// Whether an access is over, as far as warps of this block are concerned, and this one follows it.
    #[inline(always)]
    pub fn follows(&self, cell: Cell) -> bool {
        let warp = cell.warp();
        cell < self.start
            || warp == self.cell.warp()
            || (warp >= self.block.0 && warp < self.block.1 && cell.time() < self.barrier)
    }

    /// Whether there is nothing to ask about an access: it is over, whichever lane it was.
    #[inline(always)]
    fn settled(&self, cell: Cell) -> bool {
        let own = cell.warp() == self.cell.warp() && cell >= self.start;
        self.follows(cell) && !(own && (self.parted || cell.time() >= self.met))
    }

    /// What is wrong if nothing orders an access before this one. Two strong ones need no order; of two
    /// that hand over, the caller knows when that is so.
    #[inline(always)]
    fn clash(&self, cell: Cell, ordered: &mut impl FnMut(Cell) -> bool) -> Option<Clash> {
        if cell.strong() && self.cell.strong() {
            return self.clash_of_strong(cell, ordered);
        }
        (!self.settled(cell) && !ordered(cell)).then_some(Clash::Race)
    }

    #[inline(never)]
    fn clash_of_strong(&self, cell: Cell, ordered: &mut impl FnMut(Cell) -> bool) -> Option<Clash> {
        let clash = match (cell.handover(), self.cell.handover()) {
            (false, false) => return None,
            (true, true) => Clash::Reset,
            _ => Clash::Mixed,
        };
        (!self.settled(cell) && !ordered(cell)).then_some(clash)
    }
}

/// What is wrong with two accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// Nothing orders them.
    Race,
    /// A write of what `ld.global.nc` reads, in whatever order.
    NonCoherent,
    /// Nothing orders them, and only one of them hands over.
    Mixed,
    /// Nothing orders a load and a store that hand over a value, and there was another value before.
    Reset,
}

/// Two accesses that are not ordered.
#[derive(Clone, Copy, Debug)]
pub struct Conflict {
    /// The first.
    pub earlier: Cell,
    /// Whether the first was a write.
    pub wrote: bool,
    /// The first byte of the word, from the segment's beginning.
    pub offset: u64,
    /// What is wrong.
    pub clash: Clash,
}

/// What an access is, for counting distinct bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `ld.global.nc`
    NcLoad = 0,
    /// Another load.
    Load = 1,
    /// A store.
    Store = 2,
}

/// The cells of a segment's words, or bytes once it was accessed by less than words.
#[derive(Debug, Default)]
pub struct Shadow {
    /// log2 of the bytes of a grain.
    shift: u32,
    writers: Vec<Cell>,
    readers: Vec<[Cell; 2]>,
    /// Other readers, if they are kept.
    others: Option<Readers>,
    /// What came before the values that were handed over, once any was: who resets a word must do so before
    /// anybody looks, and not only before the value comes.
    resets: Vec<Cell>,
    /// The launch that touched the grain last, and how.
    marks: Vec<u32>,
}

impl Shadow {
    /// For a segment of `bytes` bytes.
    pub fn new(bytes: u64) -> Shadow {
        let grains = bytes.div_ceil(4) as usize;
        let readers = vec![[Cell::default(); 2]; grains];
        let (writers, resets, marks) = (vec![Cell::default(); grains], Vec::new(), Vec::new());
        Shadow { shift: 2, writers, readers, others: None, resets, marks }
    }

    /// The same, which keeps more than two readers.
    pub fn with_all_readers(bytes: u64) -> Shadow {
        let shadow = Shadow::new(bytes);
        Shadow { others: Some(Readers::new(shadow.readers.len())), ..shadow }
    }

    /// One cell for each byte, from now on.
    #[cold]
    fn refine(&mut self) {
        fn spread<T: Copy>(cells: &mut Vec<T>) {
            *cells = cells.iter().flat_map(|&cell| [cell; 4]).collect();
        }
        spread(&mut self.writers);
        spread(&mut self.readers);
        self.others.iter_mut().for_each(Readers::refine);
        spread(&mut self.resets);
        spread(&mut self.marks);
        self.shift = 0;
    }

    #[inline(always)]
    fn grains(&mut self, offset: u64, bytes: u64) -> std::ops::Range<usize> {
        if self.shift == 2 && (offset | bytes) & 3 != 0 {
            self.refine();
        }
        (offset >> self.shift) as usize..((offset + bytes) >> self.shift) as usize
    }

    /// The words of a range that were handed over since `start` and that nobody has looked at since: where
    /// they are, and by whom.
    pub fn fresh(&self, offset: u64, bytes: u64, start: Cell) -> impl Iterator<Item = (u64, Cell)> {
        (offset..offset + bytes).step_by(4).filter_map(move |word| {
            let grain = (word >> self.shift) as usize;
            let writer = self.writers[grain];
            let unseen = self.readers[grain].iter().all(|&reader| reader < start);
            (writer.handover() && writer >= start && unseen).then_some((word, writer))
        })
    }

    /// Notes a read of a range. `ordered` tells of two warps' accesses whether the first is known to the
    /// second.
    #[inline(always)]
    pub fn read(
        &mut self,
        offset: u64,
        bytes: u64,
        who: &Who,
        ordered: &mut impl FnMut(Cell) -> bool,
    ) -> Result<(), Conflict> {
        match who.cell.handover() {
            true => self.read_handover(offset, bytes, who, ordered),
            false => self.read_as::<false>(offset, bytes, who, ordered),
        }
    }

    /// Apart, so that the others stay short.
    #[inline(never)]
    fn read_handover(
        &mut self,
        offset: u64,
        bytes: u64,
        who: &Who,
        ordered: &mut impl FnMut(Cell) -> bool,
    ) -> Result<(), Conflict> {
        self.read_as::<true>(offset, bytes, who, ordered)
    }

    #[inline(always)]
    fn read_as<const HANDOVER: bool>(
        &mut self,
        offset: u64,
        bytes: u64,
        who: &Who,
        ordered: &mut impl FnMut(Cell) -> bool,
    ) -> Result<(), Conflict> {
        let range = self.grains(offset, bytes);
        let shift = self.shift;
        let me = who.cell;
        let (strong, nc) = (me.strong(), me.nc());
        // What the last read must share with this one to stand for it too.
        let same = u64::MAX << Cell::WARP_SHIFT | if strong { 0 } else { Cell::STRONG };
        let cells = self.writers[range.clone()].iter().zip(&mut self.readers[range.clone()]);
        for (k, (&writer, readers)) in cells.enumerate() {
            if writer >= who.start {
                let conflict = |earlier, clash| {
                    let offset = ((range.start + k) as u64) << shift;
                    Err(Conflict { earlier, wrote: true, offset, clash })
                };
                if nc {
                    return conflict(writer, Clash::NonCoherent);
                }
                let arrived = HANDOVER && writer.handover() && !writer.over();
                let first = if arrived { self.resets[range.start + k] } else { writer };
                if (!arrived || first >= who.start)
                    && let Some(clash) = who.clash(first, ordered)
                {
                    return conflict(first, clash);
                }
            }
            // Whoever follows the new read follows the old one too; but a strong one allows what a weak one
            // does not, and what `.nc` read is kept.
            let old = readers[0];
            if (old.0 ^ me.0) & same == 0 && !nc {
                continue;
            }
            let hides = strong && !old.strong() && old >= who.start;
            let first = !old.nc() && !hides && who.follows(old) || old < who.start;
            let place = &mut readers[usize::from(!first)];
            if !first && let Some(others) = &mut self.others {
                keep(others, range.start + k, *place, who);
            }
            *place = me;
        }
        Ok(())
    }

    /// Notes a write of a range; for one that hands over, `old` is what is there.
    #[inline(always)]
    pub fn write(
        &mut self,
        offset: u64,
        bytes: u64,
        who: &Who,
        old: &[u8],
        ordered: &mut impl FnMut(Cell) -> bool,
    ) -> Result<(), Conflict> {
        match who.cell.handover() {
            true => self.write_handover(offset, bytes, who, old, ordered),
            false => self.write_as::<false>(offset, bytes, who, old, ordered),
        }
    }

    /// Apart, so that the others stay short.
    #[inline(never)]
    fn write_handover(
        &mut self,
        offset: u64,
        bytes: u64,
        who: &Who,
        old: &[u8],
        ordered: &mut impl FnMut(Cell) -> bool,
    ) -> Result<(), Conflict> {
        self.write_as::<true>(offset, bytes, who, old, ordered)
    }

    #[inline(always)]
    fn write_as<const HANDOVER: bool>(
        &mut self,
        offset: u64,
        bytes: u64,
        who: &Who,
        old: &[u8],
        ordered: &mut impl FnMut(Cell) -> bool,
    ) -> Result<(), Conflict> {
        let range = self.grains(offset, bytes);
        let shift = self.shift;
        let me = who.cell;
        if HANDOVER {
            self.replaces(range.clone());
        }
        if self.others.is_some() {
            self.after_others(range.clone(), who, ordered)?;
        }
        let cells = self.writers[range.clone()].iter_mut().zip(&mut self.readers[range.clone()]);
        for (k, (writer, readers)) in cells.enumerate() {
            let over = HANDOVER && !waits(old, k << shift);
            for (cell, wrote) in [(*writer, true), (readers[0], false), (readers[1], false)] {
                if cell < who.start {
                    continue;
                }
                let conflict = |clash| {
                    let offset = ((range.start + k) as u64) << shift;
                    Err(Conflict { earlier: cell, wrote, offset, clash })
                };
                if cell.nc() {
                    return conflict(Clash::NonCoherent);
                }
                match who.clash(cell, ordered) {
                    None => {}
                    Some(Clash::Reset) if wrote => return conflict(Clash::Race),
                    Some(Clash::Reset) if !over => {}
                    Some(clash) => return conflict(clash),
                }
            }
            *writer = if over { Cell(me.0 | Cell::OVER) } else { me };
            *readers = [Cell::default(); 2];
        }
        Ok(())
    }

    /// Checks a write against the readers beyond the first two, in shared memory, where nothing is handed over.
    #[inline(never)]
    fn after_others(
        &mut self,
        range: std::ops::Range<usize>,
        who: &Who,
        ordered: &mut impl FnMut(Cell) -> bool,
    ) -> Result<(), Conflict> {
        let Some(others) = &mut self.others else { return Ok(()) };
        for grain in range {
            for earlier in others.take(grain).filter(|&cell| cell >= who.start) {
                if let Some(clash) = who.clash(earlier, ordered) {
                    let offset = (grain as u64) << self.shift;
                    return Err(Conflict { earlier, wrote: false, offset, clash });
                }
            }
        }
        Ok(())
    }

    /// Notes what came before values.
    #[inline(never)]
    fn replaces(&mut self, range: std::ops::Range<usize>) {
        self.resets.resize(self.writers.len(), Cell::default());
        self.resets[range.clone()].copy_from_slice(&self.writers[range]);
    }

    /// The first access since `start` that is of none of a block's warps, and that is not known.
    pub fn foreign(
        &self,
        start: Cell,
        block: (u32, u32),
        mut known: impl FnMut(Cell) -> bool,
    ) -> Option<Conflict> {
        let mut unknown =
            |cell: Cell| cell >= start && !(block.0..block.1).contains(&cell.warp()) && !known(cell);
        self.writers.iter().zip(&self.readers).enumerate().find_map(|(k, (&writer, readers))| {
            let others = self.others.iter().flat_map(|others| others.of(k));
            let read = readers.iter().copied().chain(others).map(|cell| (cell, false));
            let (earlier, wrote) =
                [(writer, true)].into_iter().chain(read).find(|&(cell, _)| unknown(cell))?;
            Some(Conflict { earlier, wrote, offset: (k as u64) << self.shift, clash: Clash::Race })
        })
    }

    /// Marks a range as touched in a launch; the bytes that were not yet, in this way.
    pub fn touch(&mut self, offset: u64, bytes: u64, launch: u32, mark: Mark) -> u64 {
        let range = self.grains(offset, bytes);
        self.marks.resize(self.writers.len(), 0);
        let bit = 1 << mark as u32;
        let mut new = 0;
        for touched in &mut self.marks[range] {
            if *touched >> 3 != launch {
                *touched = launch << 3;
            }
            new += u64::from(*touched & bit == 0);
            *touched |= bit;
        }
        new << self.shift
    }
}

/// Keeps a reader whose place another takes, unless that one stands for it too; apart, so that others stay short.
#[cold]
#[inline(never)]
fn keep(others: &mut Readers, grain: usize, old: Cell, by: &Who) {
    if !by.follows(old) || by.cell.strong() && !old.strong() {
        others.keep(grain, old, by.start);
    }
}

/// Whether the word around a byte of `old` has not been handed over yet.
fn waits(old: &[u8], at: usize) -> bool {
    old.chunks_exact(4).nth(at / 4).is_some_and(|word| word == NOT_YET.to_ne_bytes())
}
