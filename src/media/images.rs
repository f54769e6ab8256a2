//! Images: bytes and floats, grids, and the files that hold them.
//!
//! The idea: an image file of any kind is a stack `[N, H, W, C]` of bytes, where C is 3, or 1 for gray images, so programs never ask what
//! kind it was. Reading believes no size before it is checked, and converts only what can be
//! converted without loss.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;

use ndarray::{Array3, Array4, ArrayD, ArrayView3, ArrayView4, Axis, Dimension, Ix4, concatenate, s};
use png::{BitDepth, ColorType, DecodingError, Transformations};

use crate::error::{Error, Result};
use crate::media::files::write_atomically;
use crate::media::npy;

/// The largest PNG read, in pixels. A few kilobytes of PNG can claim billions.
#[doc(hidden)]
pub const MAX_PIXELS: u64 = 1 << 24;

/// Pixels between two images of a grid, black.
pub const GAP: usize = 2;

/// A byte as the network sees it: `(p - 127.5) / 127.5`, in [-1, 1].
pub fn to_float(byte: u8) -> f32 {
    (f32::from(byte) - 127.5) / 127.5
}

/// A value as a byte: `round((x + 1) * 127.5)`, halves up, values outside of [-1, 1] as the nearest
/// end. The inverse of [`to_float`].
pub fn to_byte(value: f32) -> u8 {
    ((value + 1.0) * 127.5).round() as u8
}

/// [`to_float`] for images `[N, H, W, C]`.
pub fn to_floats(images: ArrayView4<u8>) -> Array4<f32> {
    images.mapv(to_float)
}

/// [`to_byte`] for images `[N, H, W, C]`.
pub fn to_bytes(images: ArrayView4<f32>) -> Array4<u8> {
    images.mapv(to_byte)
}

/// How images are laid out in a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Images in a row, at least 1.
    pub columns: usize,
    /// Cells left empty at the start.
    pub skip: usize,
}

impl Grid {
    /// The layout whose picture is nearest to a square, for `count` images of `height x width`.
    pub fn near_square(count: usize, height: usize, width: usize) -> Grid {
        let columns = (count as f64 * height as f64 / width as f64).sqrt().ceil() as usize;
        Grid { columns: columns.clamp(1, count.max(1)), skip: 0 }
    }

    /// The layout with one class in each column, where image i has the class `(first_class + i) %
    /// classes`: a column for each class, or a single row if there are no more images than classes.
    pub fn by_class(count: usize, first_class: usize, classes: usize) -> Grid {
        if count <= classes {
            return Grid { columns: count.max(1), skip: 0 };
        }
        Grid { columns: classes, skip: first_class % classes }
    }

    /// Rows and columns of the picture of `count` images; what is beyond counting is `usize::MAX` or
    /// little less.
    pub fn size(&self, count: usize, height: usize, width: usize) -> (usize, usize) {
        let rows = self.skip.saturating_add(count).div_ceil(self.columns);
        let side = |cells: usize, size: usize| cells.saturating_mul(size + GAP).saturating_sub(GAP);
        (side(rows, height), side(self.columns, width))
    }

    /// The uppermost row and the leftmost column of image `index` in the picture.
    pub fn corner(&self, index: usize, height: usize, width: usize) -> (usize, usize) {
        let cell = self.skip + index;
        (cell / self.columns * (height + GAP), cell % self.columns * (width + GAP))
    }

    /// A row of the picture of images `[N, H, W, C]` in [-1, 1], as bytes: unscaled, [`GAP`] pixels apart; the
    /// gaps and the cells without an image are black.
    fn row(&self, images: ArrayView4<f32>, y: usize) -> Vec<u8> {
        let (count, height, width, channels) = images.dim();
        let mut row = vec![0; self.size(count, height, width).1 * channels];
        let (line, within) = (y / (height + GAP), y % (height + GAP));
        if within >= height {
            return row;
        }
        let cells = line * self.columns..(line + 1) * self.columns;
        for image in cells.filter_map(|cell| cell.checked_sub(self.skip)).filter(|&image| image < count) {
            let left = self.corner(image, height, width).1 * channels;
            let pixels = images.slice(s![image, within, .., ..]);
            row[left..].iter_mut().zip(pixels).for_each(|(byte, &value)| *byte = to_byte(value));
        }
        row
    }
}

/// Writes an `.npy` file, atomically.
///
/// # Errors
/// As for [`write_atomically`].
pub fn write_npy<T: npy::Element, D: Dimension>(path: &Path, array: &ndarray::ArrayRef<T, D>) -> Result<()> {
    write_atomically(path, |writer| npy::write_to(writer, array.shape(), array.iter().copied()))
}

/// Writes a picture `[H, W, C]` as PNG, 8-bit RGB or gray, atomically.
///
/// # Errors
/// As for [`write_atomically`] and [`encode_png`].
pub fn write_png(path: &Path, picture: ArrayView3<u8>) -> Result<()> {
    write_atomically(path, |writer| encode_png(writer, picture))
}

/// Writes a picture `[H, W, C]` as PNG, 8-bit RGB or gray, to any writer.
///
/// # Errors
/// The writer's; also for a picture that no PNG can hold.
#[doc(hidden)]
pub fn encode_png(writer: impl Write, picture: ArrayView3<u8>) -> std::io::Result<()> {
    let (height, width, channels) = picture.dim();
    let rows = picture.outer_iter().map(|row| row.iter().copied().collect());
    encode_rows(writer, [height, width, channels], rows)
}

/// Writes images `[N, H, W, C]` in [-1, 1] as one picture to any writer, row by row, so that the picture is
/// never whole in memory.
///
/// # Errors
/// As for [`encode_png`].
#[doc(hidden)]
pub fn encode_grid(writer: impl Write, grid: &Grid, images: ArrayView4<f32>) -> std::io::Result<()> {
    let (count, height, width, channels) = images.dim();
    let (rows, columns) = grid.size(count, height, width);
    encode_rows(writer, [rows, columns, channels], (0..rows).map(|y| grid.row(images, y)))
}

/// Writes the rows of a picture `[H, W, C]` as PNG.
fn encode_rows(
    writer: impl Write,
    shape: [usize; 3],
    rows: impl Iterator<Item = Vec<u8>>,
) -> std::io::Result<()> {
    let [height, width, channels] = shape;
    let color = if channels == 1 { ColorType::Grayscale } else { ColorType::Rgb };
    let (Ok(h), Ok(w), 1 | 3) = (u32::try_from(height), u32::try_from(width), channels) else {
        let message = format!("a picture [H, W, 3 or 1] with sides below 2^32 is expected, not {shape:?}");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
    };
    let mut encoder = png::Encoder::new(writer, w, h);
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    let mut png = encoder.write_header()?;
    let mut data = png.stream_writer()?;
    for row in rows {
        data.write_all(&row)?;
    }
    data.finish()?;
    Ok(png.finish()?)
}

/// Reads images of one size and of `channels` channels, 3 or 1, from files, as one stack `[N, H, W, C]` in the order
/// given. Each is a PNG, or an `.npy` or `.npz` of type uint8 and shape `[H, W, C]` or `[N, H, W, C]`; gray images
/// may also have the shape `[N, H, W]` or `[H, W]`, and be PNG of colors that are all gray. The contents tell the
/// kind, not the name. Of an `.npz` it is the array with the key, else the only one, else the one called `data`,
/// which may be in ImageNet32's form, `[N, 3 * side * side]` with each image's red, green and blue in turn.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`] and [`Error::Unsupported`] for the file they name;
/// [`Error::Malformed`] for the first file whose images differ in size from those before.
pub fn read(files: &[impl AsRef<Path>], key: Option<&str>, channels: usize) -> Result<Array4<u8>> {
    let mut stacks: Vec<Array4<u8>> = Vec::new();
    for file in files {
        let stack = read_one(file.as_ref(), key, channels)?;
        if let Some(first) = stacks.first().filter(|first| first.shape()[1..] != stack.shape()[1..]) {
            let size = |s: &Array4<u8>| format!("{}x{}", s.shape()[1], s.shape()[2]);
            let expected = format!("{} like the files before", size(first));
            return Err(Error::malformed(file.as_ref(), "image size", expected, size(&stack)));
        }
        stacks.push(stack);
    }
    if stacks.len() == 1 {
        return Ok(stacks.remove(0));
    }
    let views: Vec<_> = stacks.iter().map(|stack| stack.view()).collect();
    concatenate(Axis(0), &views)
        .map_err(|e| Error::argument("images", "at least one file of images", e.to_string()))
}

/// Reads the images of one file.
fn read_one(path: &Path, key: Option<&str>, channels: usize) -> Result<Array4<u8>> {
    let (mut file, length) = npy::open_regular(path)?;
    let mut start = Vec::new();
    (&mut file).take(8).read_to_end(&mut start).map_err(Error::io(path, "read"))?;
    if npy::is_numpy(&start) {
        return npy::find(path, key, "data", |found| read_array(found, channels));
    }
    if start != b"\x89PNG\r\n\x1a\n" {
        let found = match length {
            0 => "an empty file".into(),
            _ => format!("a file that begins with \"{}\"", start.escape_ascii()),
        };
        return Err(Error::malformed(path, "start", "a PNG, .npy or .npz file", found));
    }
    if let Some(key) = key {
        return Err(npy::no_key(path, key));
    }
    file.rewind().map_err(Error::io(path, "read"))?;
    Ok(decode_png(path, file, channels)?.insert_axis(Axis(0)))
}

/// The images of an array.
fn read_array(found: npy::Found, channels: usize) -> Result<Array4<u8>> {
    let (name, shape) = (found.name.clone(), found.shape().to_vec());
    let wrong =
        |place: &str, expected: &str, found: String| Err(Error::malformed(&name, place, expected, found));
    if found.kind() != Some(<u8 as npy::Element>::KIND) {
        let found = format!("{}; {}", found.type_name(), as_bytes(found.kind()));
        return wrong("header", "images of type uint8", found);
    }
    let gray = channels == 1;
    let images = match gray {
        true => "gray images of shape [N, H, W, 1], [N, H, W] or [H, W]",
        false => "images of shape [N, H, W, 3] or [H, W, 3]",
    };
    let full = match shape[..] {
        [_, _, _, c] if c == channels => shape.clone(),
        [h, w, c] if c == channels => vec![1, h, w, c],
        [_, _, _, 3] | [_, _, 3] if gray => {
            let found = format!("{shape:?}, which looks like colors: the model is of gray images");
            return wrong("shape", images, found);
        }
        [_, _, _, 1] | [_, _, 1] => {
            let found = format!("{shape:?}, which looks like gray images: the model is of colors");
            return wrong("shape", images, found);
        }
        [_, 1, _, _] if gray => {
            let found = format!("{shape:?}, which looks like NCHW; numpy's x.transpose(0, 2, 3, 1) mends it");
            return wrong("shape", images, found);
        }
        [n, h, w] if gray => vec![n, h, w, 1],
        [h, w] if gray => vec![1, h, w, 1],
        [_, 3, _, _] => {
            let found = format!("{shape:?}, which looks like NCHW; numpy's x.transpose(0, 2, 3, 1) mends it");
            return wrong("shape", images, found);
        }
        [3, _, _] => {
            let found = format!("{shape:?}, which looks like CHW; numpy's x.transpose(1, 2, 0) mends it");
            return wrong("shape", images, found);
        }
        [count, _] => match npy::planar_side(&shape) {
            Some(side) if found.key.as_deref() == Some("data") && count > 0 => {
                return Ok(from_planar(found.values()?, [count, side]));
            }
            Some(side) => {
                let mend = format!("numpy's x.reshape(-1, 3, {side}, {side}).transpose(0, 2, 3, 1)");
                let found = format!(
                    "{shape:?}; if each image is its red, then its green and its blue, {mend} mends it"
                );
                return wrong("shape", images, found);
            }
            None => return wrong("shape", images, format!("{shape:?}")),
        },
        _ => return wrong("shape", images, format!("{shape:?}")),
    };
    if shape.contains(&0) {
        return wrong("shape", images, format!("{shape:?}"));
    }
    let array = found.values::<u8>()?.into_shape_with_order(full).expect("the same numbers");
    array.into_dimensionality::<Ix4>().or_else(|_| wrong("shape", images, format!("{shape:?}")))
}

/// Images `[N, 3 * side * side]` of three planes each, as `[N, side, side, 3]`.
fn from_planar(planes: ArrayD<u8>, [count, side]: [usize; 2]) -> Array4<u8> {
    let planes = planes.into_shape_with_order((count, 3, side, side)).expect("its shape was looked at");
    planes.permuted_axes([0, 2, 3, 1]).as_standard_layout().into_owned()
}

/// What makes bytes of images of a NumPy kind.
fn as_bytes(kind: Option<(char, u64)>) -> &'static str {
    match kind {
        Some(('f', _)) => {
            "save numpy's np.rint(x).astype('uint8') if x is from 0 to 255, np.rint(x * 255).astype('uint8') if \
             from 0 to 1, np.rint((x + 1) * 127.5).astype('uint8') if from -1 to 1"
        }
        Some(('i' | 'u', _)) => "save numpy's x.astype('uint8') if x is from 0 to 255",
        _ => "save bytes from 0 to 255",
    }
}

/// Decodes a PNG to `[H, W, C]`. Palettes and gray become RGB, RGB that is gray everywhere becomes gray, and an
/// alpha channel that is opaque everywhere is dropped; 16-bit, transparent and animated pictures are refused, and
/// colors where gray is wanted.
fn decode_png(path: &Path, file: File, channels: usize) -> Result<Array3<u8>> {
    let unsupported = |found: &str, hint: &str| Error::Unsupported {
        file: path.into(),
        found: found.into(),
        hint: hint.into(),
    };
    let bad = |e: DecodingError| match e {
        DecodingError::IoError(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
            Error::io(path, "read")(e)
        }
        e => Error::malformed(path, "PNG data", "a whole and valid PNG", e.to_string()),
    };
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(Transformations::EXPAND);
    let info = decoder.read_header_info().map_err(bad)?;
    let (width, height) = info.size();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        let expected = format!("at most {MAX_PIXELS} pixels");
        return Err(Error::malformed(path, "PNG header", expected, format!("{height}x{width}")));
    }
    if info.bit_depth == BitDepth::Sixteen {
        return Err(unsupported("16 bits per channel", "convert it to 8 bits per channel"));
    }
    let mut reader = decoder.read_info().map_err(bad)?;
    if reader.info().is_animated() {
        return Err(unsupported("an animated PNG", "give a still picture"));
    }
    let (color, _) = reader.output_color_type();
    let samples = color.samples();
    let pixels = width as usize * height as usize;
    let mut bytes = vec![0; pixels * samples];
    reader.next_frame(&mut bytes).map_err(bad)?;
    // What follows the picture is checked too, so that a file cut short does not pass.
    reader.finish().map_err(bad)?;
    let colors = samples - usize::from(matches!(color, ColorType::GrayscaleAlpha | ColorType::Rgba));
    let transparent = |pixel: &[u8]| pixel[colors..].iter().any(|&alpha| alpha != 255);
    if bytes.chunks_exact(samples).any(transparent) {
        return Err(unsupported("transparent pixels", "flatten it onto a background"));
    }
    if channels == 1
        && bytes.chunks_exact(samples).any(|pixel| pixel[..colors].iter().any(|&c| c != pixel[0]))
    {
        return Err(unsupported("colors", "the model is of gray images: convert it to gray"));
    }
    // Channel c of a gray pixel is its only one.
    let values = |pixel: &[u8]| (0..channels).map(|c| pixel[c.min(colors - 1)]).collect::<Vec<_>>();
    let values: Vec<u8> = bytes.chunks_exact(samples).flat_map(values).collect();
    Array3::from_shape_vec((height as usize, width as usize, channels), values)
        .map_err(|e| Error::malformed(path, "PNG data", format!("{pixels} pixels"), e.to_string()))
}
