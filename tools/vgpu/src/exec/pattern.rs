//! The addresses of a warp's request, and what they cost.
//!
//! The idea: an instruction's lanes form the same figure each time, only somewhere else. Bounds, sectors
//! and bank conflicts depend on the figure (and where it begins within a sector), so they are worked out
//! once and kept until the figure changes.

use crate::isa::lanes::WARP;

/// Bytes of a sector.
const SECTOR: u64 = 32;

/// How lanes lie to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All at one address.
    Uniform,
    /// One after the other, all 32.
    Contiguous,
    /// Anything else.
    Scattered,
}

/// The figure of a request.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The active lanes.
    mask: u32,
    /// The lowest of them.
    pub first: u32,
    /// Where the first lane's address is within a sector.
    phase: u64,
    /// Bytes of each lane.
    pub width: u64,
    /// Each active lane's address less the first's.
    relative: [u64; WARP],
    /// All of them, or-ed, for alignment.
    pub merged: u64,
    /// The smallest, at most 0.
    pub low: i64,
    /// The end of the largest.
    pub high: i64,
    /// How they lie.
    pub shape: Shape,
    /// Whether two lanes share a byte.
    pub overlap: bool,
    /// The distinct bytes: where each run begins, less the first lane's address, and how long it is.
    pub runs: Vec<(i64, u64)>,
    /// Sectors touched.
    pub sectors: u32,
    /// The fewest sectors that could hold as many distinct bytes.
    pub ideal: u32,
    /// Wavefronts that bank conflicts add in shared memory.
    pub conflicts: u32,
}

impl Default for Pattern {
    fn default() -> Pattern {
        Pattern {
            mask: 0,
            first: 0,
            phase: 0,
            width: 0,
            relative: [0; WARP],
            merged: 0,
            low: 0,
            high: 0,
            shape: Shape::Scattered,
            overlap: false,
            runs: Vec::new(),
            sectors: 0,
            ideal: 0,
            conflicts: 0,
        }
    }
}

impl Pattern {
    /// Becomes the figure of these addresses; `mask` has a lane.
    #[inline(always)]
    pub fn update(&mut self, addresses: &[u64; WARP], mask: u32, width: u64) {
        let first = mask.trailing_zeros();
        let origin = addresses[first as usize];
        let mut differs = (self.mask ^ mask) as u64 | (self.phase ^ (origin % SECTOR)) | (self.width ^ width);
        if mask == u32::MAX {
            for (address, relative) in addresses.iter().zip(&self.relative) {
                differs |= address.wrapping_sub(origin) ^ relative;
            }
        } else {
            for (lane, (address, relative)) in addresses.iter().zip(&self.relative).enumerate() {
                let active = 0_u64.wrapping_sub(u64::from(mask >> lane & 1));
                differs |= (address.wrapping_sub(origin) ^ relative) & active;
            }
        }
        if differs != 0 {
            self.compute(addresses, mask, width);
        }
    }

    #[cold]
    fn compute(&mut self, addresses: &[u64; WARP], mask: u32, width: u64) {
        let first = mask.trailing_zeros();
        let origin = addresses[first as usize];
        *self = Pattern { mask, first, phase: origin % SECTOR, width, ..Pattern::default() };
        let mut contiguous = mask == u32::MAX;
        let mut uniform = true;
        let (mut low, mut high) = (0_i64, 0_i64);
        for (lane, &address) in addresses.iter().enumerate().filter(|(lane, _)| mask >> lane & 1 == 1) {
            let relative = address.wrapping_sub(origin);
            self.relative[lane] = relative;
            self.merged |= relative;
            (low, high) = (low.min(relative as i64), high.max(relative as i64));
            contiguous &= relative == lane as u64 * width;
            uniform &= relative == 0;
        }
        (self.low, self.high) = (low, high.saturating_add(width as i64));
        self.shape = match (uniform, contiguous) {
            (true, _) => Shape::Uniform,
            (_, true) => Shape::Contiguous,
            _ => Shape::Scattered,
        };
        self.count_sectors(addresses, mask, width);
        self.count_conflicts(addresses, mask, width);
    }

    fn count_sectors(&mut self, addresses: &[u64; WARP], mask: u32, width: u64) {
        let active = (0..WARP).filter(|lane| mask >> lane & 1 == 1);
        let mut ranges: Vec<(u64, u64)> =
            active.map(|lane| (addresses[lane], addresses[lane].saturating_add(width))).collect();
        ranges.sort_unstable();
        let origin = addresses[self.first as usize];
        let (mut sectors, mut bytes) = (0, 0);
        let (mut sector_end, mut byte_end) = (0, 0);
        for (from, to) in ranges {
            self.overlap |= from < byte_end;
            bytes += to.saturating_sub(from.max(byte_end));
            let begin = from.wrapping_sub(origin) as i64;
            match self.runs.last_mut() {
                Some((run, len)) if from <= byte_end => *len = (*len).max((begin - *run) as u64 + width),
                _ => self.runs.push((begin, width)),
            }
            byte_end = byte_end.max(to);
            let (begin, end) = (from / SECTOR, to.div_ceil(SECTOR));
            sectors += end.saturating_sub(begin.max(sector_end));
            sector_end = sector_end.max(end);
        }
        self.sectors = sectors as u32;
        self.ideal = bytes.div_ceil(SECTOR) as u32;
    }

    /// Lanes are served together as long as they ask for at most 128 bytes: all, halves or quarters. A
    /// wavefront delivers one word of each of the 32 banks.
    fn count_conflicts(&mut self, addresses: &[u64; WARP], mask: u32, width: u64) {
        let together = (128 / width.max(4)).clamp(4, 32) as usize;
        for group in (0..WARP).step_by(together) {
            let mut words: Vec<u64> = Vec::with_capacity(together * 4);
            for lane in (group..group + together).filter(|lane| mask >> lane & 1 == 1) {
                words.extend(addresses[lane] / 4..=(addresses[lane].saturating_add(width - 1)) / 4);
            }
            words.sort_unstable();
            words.dedup();
            let mut banks = [0_u32; 32];
            words.iter().for_each(|word| banks[(word % 32) as usize] += 1);
            self.conflicts += banks.into_iter().max().unwrap_or(0).saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(address: impl Fn(u64) -> u64, mask: u32, width: u64) -> Pattern {
        let mut pattern = Pattern::default();
        pattern.update(&std::array::from_fn(|lane| address(lane as u64)), mask, width);
        pattern
    }

    #[test]
    fn sectors_and_shapes() {
        let p = pattern(|lane| 0x1000 + 4 * lane, u32::MAX, 4);
        assert_eq!((p.shape, p.sectors, p.ideal, p.overlap), (Shape::Contiguous, 4, 4, false));
        let p = pattern(|lane| 0x1010 + 4 * lane, u32::MAX, 4);
        assert_eq!((p.shape, p.sectors, p.ideal), (Shape::Contiguous, 5, 4));
        let p = pattern(|_| 0x1004, u32::MAX, 4);
        assert_eq!((p.shape, p.sectors, p.ideal, p.overlap), (Shape::Uniform, 1, 1, true));
        let p = pattern(|lane| 0x1000 + 128 * lane, u32::MAX, 4);
        assert_eq!((p.shape, p.sectors, p.ideal), (Shape::Scattered, 32, 4));
        let p = pattern(|lane| 0x2000 - 4 * lane, u32::MAX, 4);
        assert_eq!((p.shape, p.low, p.high), (Shape::Scattered, -124, 4));
        let p = pattern(|lane| 0x1000 + 16 * lane, 0xff, 16);
        assert_eq!((p.sectors, p.ideal, p.first), (4, 4, 0));
    }

    #[test]
    fn bank_conflicts() {
        assert_eq!(pattern(|lane| 4 * lane, u32::MAX, 4).conflicts, 0);
        assert_eq!(pattern(|_| 4, u32::MAX, 4).conflicts, 0);
        assert_eq!(pattern(|lane| 8 * lane, u32::MAX, 4).conflicts, 1);
        assert_eq!(pattern(|lane| 128 * lane, u32::MAX, 4).conflicts, 31);
        assert_eq!(pattern(|lane| 132 * lane, u32::MAX, 4).conflicts, 0);
        // Eight and sixteen bytes: by halves and quarters.
        assert_eq!(pattern(|lane| 8 * lane, u32::MAX, 8).conflicts, 0);
        assert_eq!(pattern(|lane| 16 * lane, u32::MAX, 16).conflicts, 0);
        assert_eq!(pattern(|lane| 32 * lane, u32::MAX, 16).conflicts, 4);
    }

    #[test]
    fn a_figure_that_moves_by_sectors_is_the_same() {
        let mut pattern = Pattern::default();
        for origin in [0, 32, 64, 4096] {
            pattern.update(&std::array::from_fn(|lane| origin + 4 * lane as u64), u32::MAX, 4);
            assert_eq!((pattern.sectors, pattern.low, pattern.high), (4, 0, 128));
        }
        pattern.update(&std::array::from_fn(|lane| 4100 + 4 * lane as u64), u32::MAX, 4);
        assert_eq!(pattern.sectors, 5);
    }
}
