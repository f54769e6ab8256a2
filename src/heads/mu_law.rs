//! The mu-law, by which sounds are cut into symbols: fine steps near silence, coarse ones where it is loud.
//!
//! The idea: `sign(y) ((1 + mu)^|y| - 1) / mu` for the symbols' values y, evenly spaced in [-1, 1], with mu one less
//! than there are symbols (ITU-T G.711; van den Oord et al. 2016, section 2.2).

/// The amplitude in [-1, 1] that a value in [-1, 1] stands for: a symbol's, or one between those of two symbols, as a
/// given sound has.
pub fn decode(value: f32, symbols: usize) -> f32 {
    let (mu, y) = ((symbols - 1) as f64, f64::from(value));
    let amplitude = (libm::pow(1.0 + mu, y.abs()) - 1.0) / mu;
    amplitude.copysign(y) as f32
}
