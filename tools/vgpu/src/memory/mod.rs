//! The device's global memory.

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

/// The global memory of one device.
#[derive(Debug)]
pub struct Memory {}

impl Memory {
    /// A device's memory of `total` bytes, all free.
    pub fn new(_total: u64) -> Memory {
        todo!()
    }

    /// Reserves `bytes`, aligned to 256, with forbidden bytes before and after. They count as never written.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`].
    pub fn alloc(&mut self, _bytes: u64, _what: &str) -> Result<u64, MemoryError> {
        todo!()
    }

    /// Gives an allocation back; its addresses are not used again soon.
    ///
    /// # Errors
    /// [`MemoryError::NotAllocated`].
    pub fn free(&mut self, _address: u64) -> Result<(), MemoryError> {
        todo!()
    }

    /// Copies to the host.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::Unwritten`].
    pub fn read(&self, _address: u64, _to: &mut [u8]) -> Result<(), MemoryError> {
        todo!()
    }

    /// Copies from the host.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn write(&mut self, _address: u64, _from: &[u8]) -> Result<(), MemoryError> {
        todo!()
    }

    /// Copies within the device; what was never written stays so. The ranges may overlap.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn copy(&mut self, _to: u64, _from: u64, _bytes: u64) -> Result<(), MemoryError> {
        todo!()
    }

    /// Fills `bytes` with a pattern, repeated.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn fill(&mut self, _address: u64, _bytes: u64, _pattern: &[u8]) -> Result<(), MemoryError> {
        todo!()
    }

    /// The allocation that holds an address, if it is live.
    pub fn find(&self, _address: u64) -> Option<Live> {
        todo!()
    }

    /// Bytes that can still be allocated.
    pub fn free_bytes(&self) -> u64 {
        todo!()
    }

    /// Bytes of the device.
    pub fn total_bytes(&self) -> u64 {
        todo!()
    }

    /// The allocations that have not been freed, by address.
    pub fn live(&self) -> Vec<Live> {
        todo!()
    }
}
