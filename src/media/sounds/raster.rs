//! Pixels for `plotters` to draw on.
//!
//! The idea: its own pixels come with a font library; the few letters of our own do.

use std::convert::Infallible;

use ndarray::{Array3, s};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind};

use crate::media::font;

/// Points of a text's size for each size of a dot.
const POINTS: f64 = 8.0;

/// A picture `[height, width, 3]`, white at first. Text is horizontal.
pub struct Raster<'a>(&'a mut Array3<u8>);

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

impl Raster<'_> {
    /// Draws on a picture `[height, width, 3]`.
    pub fn new(picture: &mut Array3<u8>) -> Raster<'_> {
        Raster(picture)
    }
}

impl DrawingBackend for Raster<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        let (height, width, _) = self.0.dim();
        (width as u32, height as u32)
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        let [Ok(x), Ok(y)] = [x, y].map(usize::try_from) else { return Ok(()) };
        let (height, width, _) = self.0.dim();
        if x < width && y < height {
            let (red, green, blue) = color.rgb;
            for (channel, new) in self.0.slice_mut(s![y, x, ..]).iter_mut().zip([red, green, blue]) {
                let mixed = f64::from(*channel) * (1.0 - color.alpha) + f64::from(new) * color.alpha;
                *channel = mixed.round() as u8;
            }
        }
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, (x, y): BackendCoord) -> Drawn {
        let scale = (style.size() / POINTS).round().max(1.0) as usize;
        let width = (text.chars().count() * font::ADVANCE).saturating_sub(1) * scale;
        let height = font::HEIGHT * scale;
        let left = x - match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => width as i32 / 2,
            HPos::Right => width as i32,
        };
        let top = y - match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => height as i32 / 2,
            VPos::Bottom => height as i32,
        };
        for (row, column) in font::dots(text) {
            for dot in 0..scale * scale {
                let [column, row] = [scale * column + dot % scale, scale * row + dot / scale];
                self.draw_pixel((left + column as i32, top + row as i32), style.color())?;
            }
        }
        Ok(())
    }
}
