//! Sounds: waveforms, the WAV files that hold them, and codes that stand for them.
//!
//! The idea: a sound is one list of amplitudes at a rate. What else a file may be, of several channels or
//! another rate, is made so when it is read, and said in a warning; nothing of it is believed before it is
//! checked.

mod codes;
#[cfg(feature = "cli")]
mod fourier;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod plot;
#[cfg(feature = "cli")]
mod raster;
mod resample;
mod wav;

pub use codes::read_codes;
pub use resample::resample;
#[doc(hidden)]
pub use wav::parse;
pub use wav::{Encoding, encode_wav, read, write_wav};

/// Samples per second that a sound can have.
pub const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// A sound of one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Sound {
    /// Amplitudes, at least one, all finite: in [-1, 1] where a file holds to that, which one of floats need not.
    pub samples: Vec<f32>,
    /// Samples per second.
    pub rate: u32,
    /// What was changed when it was read, a line that names the file: another rate.
    pub warnings: Vec<String>,
}
