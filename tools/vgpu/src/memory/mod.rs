//! The device's global memory.
//!
//! The idea: addresses are never used twice, and forbidden bytes lie between allocations, so a wrong
//! address says what it once was or what it is close to. A bit for each byte tells whether it was ever
//! written; fresh memory holds a pattern that no program expects.

mod footprint;
mod segment;
pub mod window;

use std::collections::VecDeque;

pub use footprint::{Footprint, Noted, Touch};
pub use segment::Segment;

use crate::check::{Cell, Shadow};

/// A use of memory, by the host, that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// More than what is free.
    #[error("out of memory: {bytes} bytes asked for, {free} of {total} free")]
    OutOfMemory {
        /// Asked for.
        bytes: u64,
        /// Free.
        free: u64,
        /// Of the device.
        total: u64,
    },
    /// Not an address that `alloc` returned, or freed before.
    #[error("{address:#x} is not the beginning of an allocation{hint}")]
    NotAllocated {
        /// The address.
        address: u64,
        /// What it is instead.
        hint: String,
    },
    /// Bytes outside every allocation.
    #[error("{bytes} bytes at {address:#x} are out of bounds{hint}")]
    OutOfBounds {
        /// The first byte.
        address: u64,
        /// How many.
        bytes: u64,
        /// The nearest allocation.
        hint: String,
    },
    /// A copy to the host of bytes that nobody has written.
    #[error("byte {offset} of {bytes} at {address:#x} was never written{hint}")]
    Unwritten {
        /// The copy's first byte.
        address: u64,
        /// The copy's bytes.
        bytes: u64,
        /// The first byte that was not written, from the copy's first.
        offset: u64,
        /// The allocation.
        hint: String,
    },
}

/// An allocation that has not been freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Where it begins.
    pub address: u64,
    /// Its bytes.
    pub bytes: u64,
    /// What it is for, as told to `alloc`.
    pub what: String,
}

/// Allocations begin at multiples of it.
const ALIGN: u64 = 256;
/// Forbidden bytes after each allocation, at least.
const GUARD: u64 = 4096;
/// Freed allocations that are remembered.
const REMEMBERED: usize = 4096;

/// An allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    /// Its bytes and their marks.
    pub segment: Segment,
    /// What it is for.
    pub what: String,
    /// Whether kernels may only read it.
    pub constant: bool,
    /// Who touched it, once a kernel has.
    shadow: Option<Box<Shadow>>,
}

/// The global memory of one device.
#[derive(Debug)]
pub struct Memory {
    total: u64,
    used: u64,
    next: u64,
    /// By address.
    allocations: Vec<Allocation>,
    freed: VecDeque<Live>,
    /// The time of the last launch's last event: launches follow one another.
    clock: u64,
    /// Launches so far.
    launches: u32,
    /// What the work at hand does, if that is noted.
    pub(crate) noted: Option<Noted>,
}

impl Memory {
    /// A device's memory of `total` bytes, all free.
    pub fn new(total: u64) -> Memory {
        Memory {
            total,
            used: 0,
            next: window::GLOBAL,
            allocations: Vec::new(),
            freed: VecDeque::new(),
            clock: 0,
            launches: 0,
            noted: None,
        }
    }

    /// Reserves `bytes`, aligned to 256, with forbidden bytes before and after. They count as never written.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`].
    pub fn alloc(&mut self, bytes: u64, what: &str) -> Result<u64, MemoryError> {
        let free = self.free_bytes();
        if bytes > free {
            return Err(MemoryError::OutOfMemory { bytes, free, total: self.total });
        }
        let address = self.next;
        self.next = (address + bytes + GUARD).next_multiple_of(ALIGN);
        self.used += bytes;
        self.allocations.push(Allocation {
            segment: Segment::new(address, bytes),
            what: what.to_string(),
            constant: false,
            shadow: None,
        });
        Ok(address)
    }

    /// Gives an allocation back; its addresses are not used again.
    ///
    /// # Errors
    /// [`MemoryError::NotAllocated`].
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        let Ok(at) = self.allocations.binary_search_by_key(&address, |a| a.segment.base()) else {
            return Err(MemoryError::NotAllocated { address, hint: self.hint(address) });
        };
        let allocation = self.allocations.remove(at);
        let bytes = allocation.segment.len();
        self.used -= bytes;
        if self.freed.len() == REMEMBERED {
            self.freed.pop_front();
        }
        self.freed.push_back(Live { address, bytes, what: allocation.what });
        Ok(())
    }

    /// Copies to the host.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::Unwritten`].
    pub fn read(&self, address: u64, to: &mut [u8]) -> Result<(), MemoryError> {
        let bytes = to.len() as u64;
        if bytes == 0 {
            return Ok(());
        }
        let at = self.within(address, bytes)?;
        let segment = &self.allocations[at].segment;
        if let Some(first) = segment.first_unwritten(address, bytes) {
            let (offset, hint) = (first - address, self.hint(first));
            return Err(MemoryError::Unwritten { address, bytes, offset, hint });
        }
        to.copy_from_slice(segment.bytes(address, bytes));
        Ok(())
    }

    /// Copies from the host.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn write(&mut self, address: u64, from: &[u8]) -> Result<(), MemoryError> {
        if from.is_empty() {
            return Ok(());
        }
        let at = self.within(address, from.len() as u64)?;
        let segment = &mut self.allocations[at].segment;
        segment.bytes_mut(address, from.len() as u64).copy_from_slice(from);
        segment.mark_written(address, from.len() as u64);
        Ok(())
    }

    /// Copies within the device; what was never written stays so. The ranges may overlap.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn copy(&mut self, to: u64, from: u64, bytes: u64) -> Result<(), MemoryError> {
        if bytes == 0 {
            return Ok(());
        }
        let (source, target) = (self.within(from, bytes)?, self.within(to, bytes)?);
        let segment = &self.allocations[source].segment;
        let data = segment.bytes(from, bytes).to_vec();
        let written: Vec<bool> = (from..from + bytes).map(|a| segment.is_written(a, 1)).collect();
        let segment = &mut self.allocations[target].segment;
        segment.bytes_mut(to, bytes).copy_from_slice(&data);
        for (k, written) in written.into_iter().enumerate() {
            segment.set_written(to + k as u64, written);
        }
        Ok(())
    }

    /// Whether bytes are all in one allocation.
    ///
    /// # Errors
    /// What they are instead.
    pub fn check(&self, address: u64, bytes: u64) -> Result<(), MemoryError> {
        if bytes == 0 { Ok(()) } else { self.within(address, bytes).map(drop) }
    }

    /// Fills `bytes` with a pattern, repeated.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn fill(&mut self, address: u64, bytes: u64, pattern: &[u8]) -> Result<(), MemoryError> {
        if bytes == 0 || pattern.is_empty() {
            return Ok(());
        }
        let at = self.within(address, bytes)?;
        let segment = &mut self.allocations[at].segment;
        for part in segment.bytes_mut(address, bytes).chunks_mut(pattern.len()) {
            part.copy_from_slice(&pattern[..part.len()]);
        }
        segment.mark_written(address, bytes);
        Ok(())
    }

    /// The allocation that holds an address, if it is live.
    pub fn find(&self, address: u64) -> Option<Live> {
        self.locate(address, address + 1).map(|at| live(&self.allocations[at]))
    }

    /// Bytes that can still be allocated.
    pub fn free_bytes(&self) -> u64 {
        self.total - self.used
    }

    /// Bytes of the device.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// The allocations that have not been freed, by address.
    pub fn live(&self) -> Vec<Live> {
        self.allocations.iter().map(live).collect()
    }

    /// The number of the allocation that holds the bytes from `low` to before `high`.
    pub(crate) fn locate(&self, low: u64, high: u64) -> Option<usize> {
        let after = self.allocations.partition_point(|a| a.segment.base() <= low);
        let at = after.checked_sub(1)?;
        self.allocations[at].segment.holds(low, high).then_some(at)
    }

    /// An allocation's bytes; its number is from [`Memory::locate`].
    pub(crate) fn segment_mut(&mut self, at: usize) -> &mut Segment {
        &mut self.allocations[at].segment
    }

    /// An allocation's bytes, if there are that many.
    pub(crate) fn segment(&self, at: usize) -> Option<&Segment> {
        self.allocations.get(at).map(|a| &a.segment)
    }

    /// Who touched an allocation, to be looked up and noted; its number is from [`Memory::locate`].
    #[inline(always)]
    pub(crate) fn shadow_mut(&mut self, at: usize) -> &mut Shadow {
        let allocation = &mut self.allocations[at];
        let bytes = allocation.segment.len();
        allocation.shadow.get_or_insert_with(|| Box::new(Shadow::new(bytes)))
    }

    /// Both.
    #[inline(always)]
    pub(crate) fn segment_and_shadow(&mut self, at: usize) -> (&Segment, &mut Shadow) {
        self.shadow_mut(at);
        let allocation = &mut self.allocations[at];
        (&allocation.segment, allocation.shadow.as_deref_mut().expect("it was made just now"))
    }

    /// From now on it is noted what is touched, or not.
    pub(crate) fn note(&mut self, noted: Option<Noted>) {
        self.noted = noted;
    }

    /// Notes a touch by something else than a kernel.
    pub(crate) fn touch(&mut self, touch: Touch, address: u64, bytes: u64) {
        if let Some(noted) = &mut self.noted {
            noted.touched.add(touch, [(address, bytes)].into_iter());
        }
    }

    /// Ends it: what was noted.
    pub(crate) fn noted(&mut self) -> Option<Noted> {
        self.noted.take()
    }

    /// A launch begins: its first time, later than all of the launches before.
    pub(crate) fn begin_launch(&mut self) -> u64 {
        self.launches += 1;
        // Far from the highest time there is: a launch has room for its own.
        if self.clock >= 1 << (Cell::TIME_BITS - 2) || self.launches >= 1 << 28 {
            self.allocations.iter_mut().for_each(|a| a.shadow = None);
            (self.clock, self.launches) = (0, 1);
        }
        self.clock + 1
    }

    /// A launch has ended, at its latest time.
    pub(crate) fn end_launch(&mut self, latest: u64) {
        self.clock = latest;
    }

    /// The number of the launch that runs.
    pub(crate) fn launch(&self) -> u32 {
        self.launches
    }

    /// Whether kernels may only read an allocation.
    pub(crate) fn is_constant(&self, at: usize) -> bool {
        self.allocations[at].constant
    }

    /// Forbids kernels to write the allocation at an address.
    pub(crate) fn make_constant(&mut self, address: u64) {
        if let Some(at) = self.locate(address, address + 1) {
            self.allocations[at].constant = true;
        }
    }

    /// Whether an address was inside an allocation that has been freed.
    pub(crate) fn was_freed(&self, address: u64) -> bool {
        self.freed.iter().any(|f| f.address <= address && address < f.address + f.bytes)
    }

    /// What an address is in or close to, as the end of a sentence.
    pub fn hint(&self, address: u64) -> String {
        if address < 4096 {
            return ": a null pointer".to_string();
        }
        if let Some(f) = self.freed.iter().find(|f| f.address <= address && address < f.address + f.bytes) {
            return format!(": in {} ({} bytes at {:#x}), which has been freed", f.what, f.bytes, f.address);
        }
        let after = self.allocations.partition_point(|a| a.segment.base() <= address);
        let describe = |a: &Allocation| {
            let (base, bytes) = (a.segment.base(), a.segment.len());
            let place = match address {
                a if a < base => format!("{} bytes before", base - a),
                a if a >= base + bytes => format!("{} bytes after the end of", a - base - bytes),
                a => format!("at byte {} of", a - base),
            };
            format!(": {place} {} ({bytes} bytes at {base:#x})", a.what)
        };
        let near = [after.checked_sub(1), Some(after)].into_iter().flatten();
        let near = near.filter_map(|k| self.allocations.get(k));
        let distance = |a: &&Allocation| {
            let (base, end) = (a.segment.base(), a.segment.base() + a.segment.len());
            if address < base { base - address } else { address.saturating_sub(end.saturating_sub(1)) }
        };
        near.min_by_key(distance).map_or_else(|| ": nothing is allocated".to_string(), describe)
    }

    fn within(&self, address: u64, bytes: u64) -> Result<usize, MemoryError> {
        let found = address.checked_add(bytes).and_then(|end| self.locate(address, end));
        found.ok_or_else(|| MemoryError::OutOfBounds { address, bytes, hint: self.hint(address) })
    }
}

fn live(a: &Allocation) -> Live {
    Live { address: a.segment.base(), bytes: a.segment.len(), what: a.what.clone() }
}
