//! Image files as a library user meets them: what is written is read back, what is ambiguous or broken
//! is refused in a line that names the file, and files appear whole or not at all.

use std::path::{Path, PathBuf};

use fast_pixel_cnn::media::files;
use fast_pixel_cnn::media::images::{self, GAP, Grid};
use ndarray::{Array3, Array4, Axis, s};
use png::{BitDepth, ColorType};

/// Images in which every byte tells its place.
fn numbered(count: usize, height: usize, width: usize) -> Array4<u8> {
    let byte = |(n, h, w, c): (usize, usize, usize, usize)| (1 + n * 61 + h * 17 + w * 5 + c) as u8;
    Array4::from_shape_fn((count, height, width, 3), byte)
}

/// Writes a PNG of any kind.
fn png(path: &Path, size: (u32, u32), color: ColorType, depth: BitDepth, data: &[u8]) -> PathBuf {
    let file = std::fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, size.0, size.1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    path.into()
}

fn refusal(path: &Path) -> String {
    let message = images::read(&[path], None, 3).unwrap_err().to_string();
    assert!(message.starts_with(&path.display().to_string()), "{message}");
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn every_byte_survives_the_way_through_floats() {
    for byte in 0..=255 {
        assert_eq!(images::to_byte(images::to_float(byte)), byte);
    }
    assert_eq!((images::to_float(0), images::to_float(255)), (-1.0, 1.0));
    let edges = [(-1.0, 0), (1.0, 255), (-3.0, 0), (3.0, 255), (0.0, 128), (f32::NAN, 0)];
    for (value, byte) in edges {
        assert_eq!(images::to_byte(value), byte, "{value}");
    }
}

#[test]
fn grids_are_near_square_unless_columns_are_classes() {
    let columns = |n, h, w| Grid::near_square(n, h, w).columns;
    assert_eq!([1, 4, 5, 16, 17].map(|n| columns(n, 32, 32)), [1, 2, 3, 4, 5]);
    assert_eq!((columns(4, 4, 32), columns(4, 32, 4), columns(9, 8, 32)), (1, 4, 2));
    let by_class = |n, first| {
        let grid = Grid::by_class(n, first, 10);
        (grid.columns, grid.skip)
    };
    assert_eq!(by_class(40, 0), (10, 0));
    assert_eq!(by_class(40, 23), (10, 3));
    assert_eq!(by_class(4, 8), (4, 0));
}

#[test]
fn a_picture_holds_its_images_unscaled() {
    let stack = numbered(4, 4, 8);
    let floats = images::to_floats(stack.view());
    let mut png = Vec::new();
    images::encode_grid(&mut png, &Grid { columns: 2, skip: 1 }, floats.view()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.png");
    std::fs::write(&path, png).unwrap();
    let picture = images::read(&[&path], None, 3).unwrap().index_axis_move(Axis(0), 0);
    assert_eq!(picture.dim(), (3 * 4 + 2 * GAP, 2 * 8 + GAP, 3));
    for i in 0..4 {
        let cell = i + 1;
        let (row, column) = (cell / 2, cell % 2);
        let (top, left) = (row * (4 + GAP), column * (8 + GAP));
        let cell = picture.slice(s![top..top + 4, left..left + 8, ..]);
        assert_eq!(cell, stack.index_axis(Axis(0), i));
    }
    let sum = |a: &mut dyn Iterator<Item = &u8>| a.map(|&b| u64::from(b)).sum::<u64>();
    assert_eq!(sum(&mut picture.iter()), sum(&mut stack.iter()), "the rest is black");
}

#[test]
fn stacks_come_back_from_png_and_npy() {
    let directory = tempfile::tempdir().unwrap();
    let stack = numbered(3, 8, 4);
    let pngs: Vec<PathBuf> = (0..3).map(|i| directory.path().join(format!("{i}.png"))).collect();
    for (path, image) in pngs.iter().zip(stack.outer_iter()) {
        images::write_png(path, image).unwrap();
    }
    assert_eq!(images::read(&pngs, None, 3).unwrap(), stack);
    let npy = directory.path().join("images.data");
    images::write_npy(&npy, &stack).unwrap();
    assert_eq!(images::read(&[&npy], None, 3).unwrap(), stack);
    let one = directory.path().join("one.npy");
    images::write_npy(&one, &stack.index_axis(Axis(0), 1)).unwrap();
    let both = images::read(&[&npy, &one, &pngs[2]], None, 3).unwrap();
    assert_eq!(both.select(Axis(0), &[3, 4]), stack.select(Axis(0), &[1, 2]));
}

#[test]
fn gray_images_come_back_from_every_form() {
    let directory = tempfile::tempdir().unwrap();
    let stack = numbered(3, 8, 4).slice_move(s![.., .., .., ..1]);
    let at = |name: &str| directory.path().join(name);
    let read = |path: &Path| images::read(&[path], None, 1);
    for (i, image) in stack.outer_iter().enumerate() {
        images::write_png(&at(&format!("{i}.png")), image).unwrap();
    }
    let pngs: Vec<PathBuf> = (0..3).map(|i| at(&format!("{i}.png"))).collect();
    assert_eq!(images::read(&pngs, None, 1).unwrap(), stack);
    let header = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&pngs[0]).unwrap()));
    assert_eq!(header.read_info().unwrap().info().color_type, ColorType::Grayscale);
    let flat = stack.index_axis(Axis(3), 0);
    images::write_npy(&at("nhwc.npy"), &stack).unwrap();
    images::write_npy(&at("nhw.npy"), &flat).unwrap();
    images::write_npy(&at("hwc.npy"), &stack.index_axis(Axis(0), 1)).unwrap();
    images::write_npy(&at("hw.npy"), &flat.index_axis(Axis(0), 1)).unwrap();
    for (name, first, last) in [("nhwc", 0, 3), ("nhw", 0, 3), ("hwc", 1, 2), ("hw", 1, 2)] {
        let expected = stack.slice(s![first..last, .., .., ..]);
        assert_eq!(read(&at(&format!("{name}.npy"))).unwrap(), expected, "{name}");
    }
    // Colors that are all gray lose nothing; others would.
    let rgb = png(&at("rgb.png"), (2, 1), ColorType::Rgb, BitDepth::Eight, &[7, 7, 7, 200, 200, 200]);
    assert_eq!(read(&rgb).unwrap().into_raw_vec_and_offset().0, [7, 200]);
    let rgb = png(&at("rgb.png"), (1, 1), ColorType::Rgb, BitDepth::Eight, &[7, 7, 8]);
    let message = read(&rgb).unwrap_err().to_string();
    assert!(message.contains("colors") && message.contains("gray"), "{message}");
    images::write_npy(&at("colors.npy"), &numbered(2, 8, 4)).unwrap();
    let message = read(&at("colors.npy")).unwrap_err().to_string();
    assert!(message.contains("[2, 8, 4, 3], which looks like colors"), "{message}");
    assert!(refusal(&at("nhwc.npy")).contains("[3, 8, 4, 1], which looks like gray images"));
}

#[test]
fn other_kinds_of_png_are_converted_where_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.png");
    let read = |path: &Path| images::read(&[path], None, 3).unwrap().into_raw_vec_and_offset().0;
    let grey = png(&path, (2, 1), ColorType::Grayscale, BitDepth::Eight, &[7, 200]);
    assert_eq!(read(&grey), [7, 7, 7, 200, 200, 200]);
    let bits = png(&path, (2, 1), ColorType::Grayscale, BitDepth::One, &[0b0100_0000]);
    assert_eq!(read(&bits), [0, 0, 0, 255, 255, 255]);
    let palette = png(&path, (2, 1), ColorType::Indexed, BitDepth::Eight, &[1, 0]);
    assert_eq!(read(&palette), [40, 50, 60, 10, 20, 30]);
    let opaque = png(&path, (1, 1), ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 255]);
    assert_eq!(read(&opaque), [1, 2, 3]);
    let grey = png(&path, (1, 1), ColorType::GrayscaleAlpha, BitDepth::Eight, &[9, 255]);
    assert_eq!(read(&grey), [9, 9, 9]);
    let clear = png(&path, (1, 1), ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 254]);
    assert!(refusal(&clear).contains("transparent"));
    let deep = png(&path, (1, 1), ColorType::Rgb, BitDepth::Sixteen, &[0; 6]);
    assert!(refusal(&deep).contains("16 bits"));
}

#[test]
fn what_is_not_an_image_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    assert!(refusal(&path).contains("cannot open"));
    assert!(refusal(directory.path()).contains("directory"));
    for (contents, found) in [(&b""[..], "empty"), (b"<html>\n", "<html>\\n"), (b"\x89PNG", "x89PNG")] {
        std::fs::write(&path, contents).unwrap();
        assert!(refusal(&path).contains(found));
    }
    for shape in [vec![2, 4, 4, 1], vec![4, 4], vec![0, 4, 4, 3], vec![1, 2, 4, 4, 3]] {
        images::write_npy(&path, &ndarray::ArrayD::<u8>::zeros(shape.clone())).unwrap();
        assert!(refusal(&path).contains(&format!("{shape:?}")));
    }
    images::write_npy(&path, &Array4::<f32>::zeros((1, 4, 4, 3))).unwrap();
    let message = refusal(&path);
    assert!(
        message.contains("uint8") && message.contains("np.rint((x + 1) * 127.5).astype('uint8')"),
        "{message}"
    );
    images::write_npy(&path, &Array4::<i64>::zeros((1, 4, 4, 3))).unwrap();
    let message = refusal(&path);
    assert!(message.contains("found type '<i8'; save numpy's x.astype('uint8')"), "{message}");
    images::write_npy(&path, &Array4::<u8>::zeros((2, 3, 8, 8))).unwrap();
    assert!(refusal(&path).contains("looks like NCHW; numpy's x.transpose(0, 2, 3, 1)"));
    images::write_npy(&path, &Array3::<u8>::zeros((3, 8, 8))).unwrap();
    assert!(refusal(&path).contains("looks like CHW; numpy's x.transpose(1, 2, 0)"));
    images::write_npy(&path, &ndarray::Array2::<u8>::zeros((2, 3072))).unwrap();
    assert!(refusal(&path).contains("x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)"));
    assert!(images::read(&[] as &[&Path], None, 3).is_err());

    let other = directory.path().join("b");
    images::write_npy(&path, &numbered(1, 4, 8)).unwrap();
    images::write_npy(&other, &numbered(1, 8, 4)).unwrap();
    let message = images::read(&[&path, &other], None, 3).unwrap_err().to_string();
    assert!(message.contains("expected 4x8") && message.contains("found 8x4"), "{message}");
}

#[test]
fn a_broken_png_is_an_error_wherever_it_breaks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.png");
    images::write_png(&path, numbered(1, 8, 8).index_axis(Axis(0), 0)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        refusal(&path);
    }
    for at in 0..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 0x55;
        std::fs::write(&path, &broken).unwrap();
        // Only a chunk that may be skipped could pass, and there is none.
        refusal(&path);
    }
    // A header that claims 2^31 - 1 pixels a side, with a right checksum.
    let mut bomb = whole.clone();
    bomb[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let checksum = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
    std::fs::write(&path, &bomb).unwrap();
    assert!(refusal(&path).contains("pixels"));
}

/// The checksum of PNG chunks (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ if c & 1 == 1 { 0xedb8_8320 } else { 0 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.png");
    let old: Array3<u8> = Array3::zeros((4, 4, 3));
    images::write_png(&path, old.view()).unwrap();
    let failed = files::write_atomically(&path, |w| {
        std::io::Write::write_all(w, &[1; 100_000])?;
        Err(std::io::ErrorKind::StorageFull.into())
    });
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("a.png: cannot write"), "{message}");
    assert_eq!(images::read(&[&path], None, 3).unwrap().index_axis(Axis(0), 0), old);
    files::check_writable(&path).unwrap();
    files::check_writable(&directory.path().join("b")).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    assert!(files::check_writable(directory.path()).is_err());
    assert!(files::check_writable(&directory.path().join("none/b")).is_err());
    let wide = Array3::zeros((1, 1, 4));
    assert!(images::write_png(&path, wide.view()).is_err());
}
