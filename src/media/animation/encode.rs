//! The two formats of animations: APNG, which has all colours, and GIF, which everything shows.
//!
//! The idea: both take changes one after the other, each with the time until the next. A GIF's frame
//! has at most 255 colours of its own beside the transparent one, but it only holds the pixels that are
//! new; they rarely have more, and then the GIF is exact too.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Error, Result, Write};

use color_quant::NeuQuant;

use super::canvas::{Change, Color};

/// Colours of a GIF's frame, beside the transparent one.
const COLORS: usize = 255;

/// Writes an APNG that repeats for ever: the changes, and hundredths of a second until the next. The
/// first is the whole picture, `size` its width and height.
pub fn apng(
    out: &mut impl Write,
    size: [usize; 2],
    frames: usize,
    changes: impl Iterator<Item = (Change, u16)>,
) -> Result<()> {
    let mut encoder = png::Encoder::new(out, size[0] as u32, size[1] as u32);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    // Most of a frame is transparent, and differences of neighbours would only hide that.
    encoder.set_filter(png::Filter::NoFilter);
    encoder.set_animated(frames as u32, 0)?;
    encoder.set_blend_op(png::BlendOp::Over)?;
    encoder.set_dispose_op(png::DisposeOp::None)?;
    let mut writer = encoder.write_header()?;
    for (change, hold) in changes {
        // By way of the corner, since each step is checked against the picture's size.
        writer.set_frame_position(0, 0)?;
        writer.set_frame_dimension(change.width as u32, change.height as u32)?;
        writer.set_frame_position(change.left as u32, change.top as u32)?;
        writer.set_frame_delay(hold, 100)?;
        let rgba = |pixel: &Option<Color>| pixel.map_or([0; 4], |[r, g, b]| [r, g, b, 255]);
        let bytes: Vec<u8> = change.pixels.iter().flat_map(rgba).collect();
        writer.write_image_data(&bytes)?;
    }
    Ok(writer.finish()?)
}

/// Writes a GIF, as [`apng`] does. Both sides of the picture are below 65536.
pub fn gif(
    out: &mut impl Write,
    size: [usize; 2],
    changes: impl Iterator<Item = (Change, u16)>,
) -> Result<()> {
    let [width, height] = size.map(|side| side as u16);
    let mut encoder = gif::Encoder::new(out, width, height, &[]).map_err(plain)?;
    encoder.set_repeat(gif::Repeat::Infinite).map_err(plain)?;
    for (change, hold) in changes {
        let (palette, buffer) = indexed(&change.pixels);
        let frame = gif::Frame {
            delay: hold,
            dispose: gif::DisposalMethod::Keep,
            transparent: Some(0),
            left: change.left as u16,
            top: change.top as u16,
            width: change.width as u16,
            height: change.height as u16,
            palette: Some(palette),
            buffer: Cow::Owned(buffer),
            ..gif::Frame::default()
        };
        encoder.write_frame(&frame).map_err(plain)?;
    }
    encoder.into_inner().map_err(plain)?;
    Ok(())
}

fn plain(error: gif::EncodingError) -> Error {
    match error {
        gif::EncodingError::Io(error) => error,
        error => Error::other(error),
    }
}

/// A palette, and each pixel's index in it. Index 0 is the transparent one.
fn indexed(pixels: &[Option<Color>]) -> (Vec<u8>, Vec<u8>) {
    let mut indices: HashMap<Color, u8> = HashMap::new();
    let mut palette = vec![0; 3];
    for color in pixels.iter().flatten() {
        if indices.len() == COLORS && !indices.contains_key(color) {
            return quantized(pixels);
        }
        let next = indices.len() as u8 + 1;
        indices.entry(*color).or_insert_with(|| {
            palette.extend(color);
            next
        });
    }
    (palette, pixels.iter().map(|pixel| pixel.map_or(0, |color| indices[&color])).collect())
}

/// [`indexed`] for more than [`COLORS`] colours: each pixel gets the nearest of a palette learnt from
/// all.
fn quantized(pixels: &[Option<Color>]) -> (Vec<u8>, Vec<u8>) {
    let rgba: Vec<u8> = pixels.iter().flatten().flat_map(|&[r, g, b]| [r, g, b, 255]).collect();
    let net = NeuQuant::new(1, COLORS, &rgba);
    let palette = [vec![0; 3], net.color_map_rgb()].concat();
    let mut indices: HashMap<Color, u8> = HashMap::new();
    let mut index = |color: Color| {
        let [r, g, b] = color;
        *indices.entry(color).or_insert_with(|| net.index_of(&[r, g, b, 255]) as u8 + 1)
    };
    (palette, pixels.iter().map(|pixel| pixel.map_or(0, &mut index)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pixels as the palette shows them.
    fn shown(pixels: &[Option<Color>]) -> Vec<Option<Color>> {
        let (palette, indices) = indexed(pixels);
        assert!(palette.len() <= 3 * 256);
        let color = |&i: &u8| [0, 1, 2].map(|c| palette[3 * usize::from(i) + c]);
        indices.iter().map(|i| (*i != 0).then(|| color(i))).collect()
    }

    #[test]
    fn few_colours_stay_as_they_are_and_many_nearly() {
        let colors = |count: usize| {
            let color = |i: usize| Some([i as u8, (i / 2) as u8, (255 - i / 3) as u8]);
            (0..count).flat_map(|i| [color(i), None, color(i)]).collect::<Vec<_>>()
        };
        assert_eq!(shown(&colors(COLORS)), colors(COLORS));
        let many: Vec<_> =
            (0..20_000).map(|i| (i % 3 > 0).then_some([i as u8, (i / 200) as u8, 7])).collect();
        for (pixel, shown) in many.iter().zip(shown(&many)) {
            assert_eq!(pixel.is_some(), shown.is_some());
            if let (Some(pixel), Some(shown)) = (pixel, shown) {
                assert!(pixel.iter().zip(shown).all(|(a, b)| a.abs_diff(b) < 24), "{pixel:?} {shown:?}");
            }
        }
    }
}
