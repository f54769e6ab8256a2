//! What a run made, and its files.
//!
//! The idea: whoever wants one picture or one sound writes it with one call; the rest is in arrays.

use std::path::Path;

use ndarray::{Array4, Axis};

use crate::error::{Error, Result};
use crate::heads::{Head, mu_law, symbol};
use crate::media::files::write_atomically;
use crate::media::images::{self, Grid};
use crate::media::sounds::{Encoding, write_wav};

/// What a run made.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Images in finished batches: below the run's count if it was interrupted.
    pub count: usize,
    /// `[N, height, width, values]` in [-1, 1], as sampled. N is the count if images are kept, else 0.
    pub images: Array4<f32>,
    /// The class of each image, for a class-conditional model.
    pub labels: Option<Vec<u32>>,
    /// Seconds that each finished batch took.
    pub batch_seconds: Vec<f64>,
    /// Whether the run was stopped before its end.
    pub interrupted: bool,
    /// What the pixels were drawn from.
    pub head: Head,
    /// How the images lie in one picture: a column for each class if they go through the classes, else near a
    /// square.
    pub grid: Grid,
}

impl Generated {
    /// Writes all images as one picture, atomically: a PNG, 8-bit RGB or gray, in the layout of
    /// [`Generated::grid`], 2 black pixels apart.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no images, [`Error::Io`] if the file cannot be written.
    pub fn save_png(&self, path: impl AsRef<Path>) -> Result<()> {
        if self.images.is_empty() {
            return Err(Error::refused("images", "none were finished, or none were kept"));
        }
        let images = self.images.view();
        write_atomically(path.as_ref(), |writer| images::encode_grid(writer, &self.grid, images))
    }

    /// The amplitudes of a sound, counted from 0 within the run: what a WaveNet made, whose symbols are mu-law's.
    ///
    /// # Errors
    /// [`Error::Argument`] if the run did not make or keep it, or did not make sounds: one column of symbols.
    pub fn waveform(&self, sound: usize) -> Result<Vec<f32>> {
        let (count, _, width, _) = self.images.dim();
        let Head::Categorical { symbols } = self.head else {
            return Err(Error::refused("sound", "the model makes images"));
        };
        if width != 1 {
            return Err(Error::argument("sound", "one column of samples", format!("{width} columns")));
        }
        if sound >= count {
            return Err(Error::argument("sound", format!("one of the {count} that were kept"), sound));
        }
        let values = self.images.index_axis(Axis(0), sound);
        Ok(values.iter().map(|value| mu_law::decode(symbol(*value, symbols), symbols)).collect())
    }

    /// Writes a sound, counted from 0 within the run, as a WAV file of 16 bits, atomically. `rate` is
    /// [`ModelConfig::sample_rate`](crate::ModelConfig::sample_rate).
    ///
    /// # Errors
    /// As for [`Generated::waveform`]; [`Error::Io`] if the file cannot be written.
    pub fn save_wav(&self, sound: usize, rate: u32, path: impl AsRef<Path>) -> Result<()> {
        write_wav(path.as_ref(), &self.waveform(sound)?, rate, Encoding::Pcm16)
    }
}
