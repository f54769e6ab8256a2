//! Bytes with a mark for each: whether it was ever written.
//!
//! The idea: one type for an allocation, a block's shared memory and its threads' local memory, so that
//! loads and stores are checked by the same code. As soon as every byte has been written, and most soon
//! are, there is nothing left to check.

/// What fresh memory holds: as `f32` a NaN, as an index far outside.
const POISON: u8 = 0xfb;

/// A run of memory.
#[derive(Debug)]
pub struct Segment {
    base: u64,
    len: u64,
    /// In words, for their alignment.
    data: Vec<u64>,
    written: Vec<u64>,
    unwritten: u64,
}

impl Segment {
    /// Memory at `base` that nobody has written.
    pub fn new(base: u64, len: u64) -> Segment {
        let words = len.div_ceil(8) as usize;
        Segment {
            base,
            len,
            data: vec![u64::from_ne_bytes([POISON; 8]); words],
            written: vec![0; len.div_ceil(64) as usize],
            unwritten: len,
        }
    }

    /// Forgets everything: as if new.
    pub fn clear(&mut self) {
        self.data.fill(u64::from_ne_bytes([POISON; 8]));
        self.written.fill(0);
        self.unwritten = self.len;
    }

    /// Its first address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Its bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds the bytes from `low` to before `high`.
    #[inline(always)]
    pub fn holds(&self, low: u64, high: u64) -> bool {
        low >= self.base && high >= low && high <= self.base + self.len
    }

    /// Whether every byte has been written.
    #[inline(always)]
    pub fn all_written(&self) -> bool {
        self.unwritten == 0
    }

    /// Where the byte at an address it holds lies.
    #[inline(always)]
    pub fn pointer(&mut self, address: u64) -> *mut u8 {
        debug_assert!(self.holds(address, address + 1));
        self.data.as_mut_ptr().cast::<u8>().wrapping_add((address - self.base) as usize)
    }

    /// The bytes from an address on.
    pub fn bytes(&self, address: u64, bytes: u64) -> &[u8] {
        assert!(self.holds(address, address + bytes));
        let start = self.data.as_ptr().cast::<u8>().wrapping_add((address - self.base) as usize);
        // SAFETY: inside `data`, as just checked; any byte is a `u8`.
        unsafe { std::slice::from_raw_parts(start, bytes as usize) }
    }

    /// The bytes from an address on, to write.
    pub fn bytes_mut(&mut self, address: u64, bytes: u64) -> &mut [u8] {
        assert!(self.holds(address, address + bytes));
        let start = self.data.as_mut_ptr().cast::<u8>().wrapping_add((address - self.base) as usize);
        // SAFETY: as in `bytes`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start, bytes as usize) }
    }

    /// Whether up to 64 bytes that do not cross a multiple of 64 have all been written.
    #[inline(always)]
    pub fn is_written(&self, address: u64, bytes: u64) -> bool {
        let at = address - self.base;
        let mask = (u64::MAX >> (64 - bytes)) << (at % 64);
        self.written[(at / 64) as usize] & mask == mask
    }

    /// The first address in a range that was never written.
    pub fn first_unwritten(&self, address: u64, bytes: u64) -> Option<u64> {
        if self.all_written() {
            return None;
        }
        (address..address + bytes).find(|&a| !self.is_written(a, 1))
    }

    /// Marks up to 64 bytes that do not cross a multiple of 64.
    #[inline(always)]
    pub fn mark_few(&mut self, address: u64, bytes: u64) {
        let at = address - self.base;
        let mask = (u64::MAX >> (64 - bytes)) << (at % 64);
        let word = &mut self.written[(at / 64) as usize];
        self.unwritten -= u64::from((mask & !*word).count_ones());
        *word |= mask;
    }

    /// Marks a range as written.
    pub fn mark_written(&mut self, address: u64, bytes: u64) {
        if self.all_written() {
            return;
        }
        let (mut at, end) = (address, address + bytes);
        while at < end {
            let part = (64 - (at - self.base) % 64).min(end - at);
            self.mark_few(at, part);
            at += part;
        }
    }

    /// Marks a byte as written or not.
    pub fn set_written(&mut self, address: u64, written: bool) {
        if written {
            self.mark_few(address, 1);
        } else if self.is_written(address, 1) {
            let at = address - self.base;
            self.written[(at / 64) as usize] &= !(1 << (at % 64));
            self.unwritten += 1;
        }
    }
}
