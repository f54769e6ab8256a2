//! Random changes of files.

#![allow(dead_code, reason = "each test binary uses some of it")]

/// A small generator of random numbers (xorshift64*), so that a failure repeats.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound as u64) as usize
    }
}

/// Changes one place of `bytes` in one of the ways in which formats break.
pub fn mutate(bytes: &mut [u8], random: &mut Random) {
    const TELLING: [u8; 10] = [0x00, 0x01, 0x02, 0x04, 0x08, 0x0a, 0x12, 0x7f, 0x80, 0xff];
    let at = random.below(bytes.len());
    match random.below(5) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = TELLING[random.below(TELLING.len())],
        2 => bytes[at] = random.below(256) as u8,
        3 => {
            // A run of one byte: long varints, huge lengths.
            let end = bytes.len().min(at + 1 + random.below(12));
            bytes[at..end].fill(TELLING[random.below(TELLING.len())]);
        }
        _ => {
            // One place on another.
            let from = random.below(bytes.len());
            let length = (1 + random.below(16)).min(bytes.len() - at.max(from));
            bytes.copy_within(from..from + length, at);
        }
    }
}
