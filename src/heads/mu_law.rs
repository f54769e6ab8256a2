//! The mu-law, by which sounds are cut into symbols: fine steps near silence, coarse ones where it is loud.
//!
//! The idea: `sign(y) ((1 + mu)^|y| - 1) / mu` for the symbols' values y, evenly spaced in [-1, 1], with mu one less
//! than there are symbols (ITU-T G.711; van den Oord et al. 2016, section 2.2).

/// The amplitude in [-1, 1] that a symbol stands for.
pub fn decode(symbol: usize, symbols: usize) -> f32 {
    let mu = (symbols - 1) as f64;
    let y = 2.0 * (symbol as f64 / mu) - 1.0;
    let amplitude = (libm::pow(1.0 + mu, y.abs()) - 1.0) / mu;
    amplitude.copysign(y) as f32
}
