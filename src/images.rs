//! Images: bytes and floats, grids, PNG files, and files that appear whole or not at all.
//!
//! The idea: an image file of any kind is a stack `[N, H, W, 3]` of bytes, so programs never ask what
//! kind it was. Reading believes no size before it is checked, and converts only what can be
//! converted without loss.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use ndarray::{Array3, Array4, ArrayView3, ArrayView4, Axis, Dimension, Ix4, concatenate, s};
use png::{BitDepth, ColorType, DecodingError, Transformations};

use crate::error::{Error, Result};
use crate::npy;

/// The largest PNG read, in pixels. A few kilobytes of PNG can claim billions.
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

/// [`to_float`] for images `[N, H, W, 3]`.
pub fn to_floats(images: ArrayView4<u8>) -> Array4<f32> {
    images.mapv(to_float)
}

/// [`to_byte`] for images `[N, H, W, 3]`.
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

    /// Images `[N, H, W, 3]` as one picture, row by row, unscaled, [`GAP`] pixels apart; the gaps and
    /// the cells without an image are black.
    pub fn picture(&self, images: ArrayView4<u8>) -> Array3<u8> {
        let (count, height, width, channels) = images.dim();
        let (rows, columns) = self.size(count, height, width);
        let mut picture = Array3::zeros((rows, columns, channels));
        for (i, image) in images.outer_iter().enumerate() {
            let (top, left) = self.corner(i, height, width);
            picture.slice_mut(s![top..top + height, left..left + width, ..]).assign(&image);
        }
        picture
    }
}

/// Writes a file through a sibling that is renamed when it is complete, so that no reader sees a half
/// file and a failure leaves the old one.
///
/// # Errors
/// [`Error::Io`], also what `write` returns (a full disk).
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
) -> Result<()> {
    let mut draft = draft(path).map_err(Error::io(path, "create"))?;
    let mut writer = BufWriter::new(draft.as_file_mut());
    write(&mut writer)
        .and_then(|()| writer.flush())
        .and_then(|()| writer.get_ref().sync_all())
        .map_err(Error::io(path, "write"))?;
    drop(writer);
    draft.persist(path).map_err(|e| Error::io(path, "create")(e.error))?;
    Ok(())
}

/// Refuses a path that [`write_atomically`] could not write: a folder that takes no new file, or a
/// folder in the file's place. To be asked before hours of work.
///
/// # Errors
/// [`Error::Io`], [`Error::Unsupported`].
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::Unsupported {
            file: path.into(),
            found: "a folder stands where a file is to be written".into(),
            hint: "move it away or choose another place".into(),
        });
    }
    draft(path).map_err(Error::io(path, "create"))?;
    Ok(())
}

/// A temporary file next to `path`, with the permissions of any new file.
fn draft(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".draft-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Writes an `.npy` file, atomically.
///
/// # Errors
/// As for [`write_atomically`].
pub fn write_npy<T: npy::Element, D: Dimension>(path: &Path, array: &ndarray::ArrayRef<T, D>) -> Result<()> {
    write_atomically(path, |writer| npy::write_to(writer, array.shape(), array.iter().copied()))
}

/// Writes a picture `[H, W, 3]` as PNG, 8-bit RGB, atomically.
///
/// # Errors
/// As for [`write_atomically`]; [`Error::Argument`] for a picture that no PNG can hold.
pub fn write_png(path: &Path, picture: ArrayView3<u8>) -> Result<()> {
    let (height, width, channels) = picture.dim();
    let (Ok(h), Ok(w), 3) = (u32::try_from(height), u32::try_from(width), channels) else {
        let expected = "[H, W, 3] with sides below 2^32";
        return Err(Error::argument("picture", expected, format!("{:?}", picture.shape())));
    };
    let bytes: Vec<u8> = picture.iter().copied().collect();
    write_atomically(path, |writer| {
        let mut encoder = png::Encoder::new(writer, w, h);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        let mut png = encoder.write_header()?;
        png.write_image_data(&bytes)?;
        Ok(png.finish()?)
    })
}

/// Reads images of one size from files, each a PNG, or an `.npy` of type uint8 and shape `[H, W, 3]` or
/// `[N, H, W, 3]`, as one stack `[N, H, W, 3]` in the order given. The contents tell the kind, not the
/// name.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`] and [`Error::Unsupported`] for the file they name;
/// [`Error::Malformed`] for the first file whose images differ in size from those before.
pub fn read(files: &[impl AsRef<Path>]) -> Result<Array4<u8>> {
    let mut stacks: Vec<Array4<u8>> = Vec::new();
    for file in files {
        let stack = read_one(file.as_ref())?;
        if let Some(first) = stacks.first().filter(|first| first.shape()[1..] != stack.shape()[1..]) {
            let size = |s: &Array4<u8>| format!("{}x{}", s.shape()[1], s.shape()[2]);
            let expected = format!("{} like the files before", size(first));
            return Err(Error::malformed(file.as_ref(), "image size", expected, size(&stack)));
        }
        stacks.push(stack);
    }
    let views: Vec<_> = stacks.iter().map(|stack| stack.view()).collect();
    concatenate(Axis(0), &views)
        .map_err(|e| Error::argument("images", "at least one file of images", e.to_string()))
}

/// Reads the images of one file.
fn read_one(path: &Path) -> Result<Array4<u8>> {
    let (mut file, length) = npy::open_regular(path)?;
    let mut start = Vec::new();
    (&mut file).take(8).read_to_end(&mut start).map_err(Error::io(path, "read"))?;
    if start.starts_with(b"\x93NUMPY") {
        return read_npy(path);
    }
    if start != b"\x89PNG\r\n\x1a\n" {
        let found = match length {
            0 => "an empty file".into(),
            _ => format!("a file that begins with \"{}\"", start.escape_ascii()),
        };
        return Err(Error::malformed(path, "start", "a PNG or .npy file", found));
    }
    file.rewind().map_err(Error::io(path, "read"))?;
    Ok(decode_png(path, file)?.insert_axis(Axis(0)))
}

fn read_npy(path: &Path) -> Result<Array4<u8>> {
    let array = npy::read_u8(path)?;
    let shape = array.shape().to_vec();
    let array = if shape.len() == 3 { array.insert_axis(Axis(0)) } else { array };
    match array.into_dimensionality::<Ix4>() {
        Ok(images) if images.shape()[3] == 3 && !images.is_empty() => Ok(images),
        _ => {
            let expected = "images of shape [N, H, W, 3] or [H, W, 3]";
            Err(Error::malformed(path, "shape", expected, format!("{shape:?}")))
        }
    }
}

/// Decodes a PNG to `[H, W, 3]`. Palettes and grey become RGB, and an alpha channel that is opaque
/// everywhere is dropped; 16-bit, transparent and animated pictures are refused.
fn decode_png(path: &Path, file: File) -> Result<Array3<u8>> {
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
    let channels = color.samples();
    let pixels = width as usize * height as usize;
    let mut bytes = vec![0; pixels * channels];
    reader.next_frame(&mut bytes).map_err(bad)?;
    // What follows the picture is checked too, so that a file cut short does not pass.
    reader.finish().map_err(bad)?;
    let colors = channels - usize::from(matches!(color, ColorType::GrayscaleAlpha | ColorType::Rgba));
    let transparent = |pixel: &[u8]| pixel[colors..].iter().any(|&alpha| alpha != 255);
    if bytes.chunks_exact(channels).any(transparent) {
        return Err(unsupported("transparent pixels", "flatten it onto a background"));
    }
    // Channel c of a grey pixel is its only one.
    let rgb = |pixel: &[u8]| [0, 1, 2].map(|c: usize| pixel[c.min(colors - 1)]);
    let rgb: Vec<u8> = bytes.chunks_exact(channels).flat_map(rgb).collect();
    Array3::from_shape_vec((height as usize, width as usize, 3), rgb)
        .map_err(|e| Error::malformed(path, "PNG data", format!("{pixels} pixels"), e.to_string()))
}
