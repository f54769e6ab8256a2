//! A model's weights on a device: as the kernels read them, and once more those of the pixel phase as clusters do.
//!
//! The idea: they are packed piece by piece, and each part is copied as soon as it is.

use super::driver::{Buffer, Device};
use super::packed::{Packed, PackedPiece};
use super::pages::Pages;
use crate::error::Result;

/// The weights of one model.
pub struct Stored {
    /// All of them, where [`Packed`] says.
    pub all: Buffer<f32>,
    /// Those of the pixel phase by pages, if clusters read them.
    pub paged: Option<Paged>,
}

/// Weights as clusters read them.
pub struct Paged {
    /// Where they lie,
    pub pages: Pages,
    /// in this.
    pub weights: Buffer<f32>,
}

impl Stored {
    /// Room for them.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn zeroed(device: &Device, packed: &Packed, pages: Option<Pages>) -> Result<Stored> {
        let paged = pages.map(|pages| Ok(Paged { weights: device.zeroed(pages.len)?, pages }));
        Ok(Stored { all: device.zeroed(packed.len)?, paged: paged.transpose()? })
    }

    /// Brings a part to the device, as [`Packed::fill`] gives it.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn put(&mut self, device: &Device, packed: &Packed, at: usize, floats: &[f32]) -> Result<()> {
        device.write(&mut self.all, at, floats)?;
        // The weights of a piece's pixel phase begin where no others do.
        let begins = |p: &PackedPiece| p.pixel.start == at && p.pixel.chunks > 0 && !floats.is_empty();
        let piece = packed.pieces.iter().position(begins);
        let Some((Paged { pages, weights }, piece)) = self.paged.as_mut().zip(piece) else { return Ok(()) };
        match pages.arrange(piece, &packed.pieces[piece], floats) {
            Some((at, floats)) => device.write(weights, at, &floats),
            None => Ok(()),
        }
    }
}
