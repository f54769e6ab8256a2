//! `.npz` files: what NumPy and others write is read, one array of several is chosen by its key, and what is
//! broken is refused in a line.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use fast_pixel_cnn::media::images;
use fast_pixel_cnn::media::npy::{self, Element};
use ndarray::Array4;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The bytes of an `.npy` file.
fn array<T: Element>(shape: &[usize], values: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    npy::write_to(&mut bytes, shape, values).unwrap();
    bytes
}

/// The bytes of an `.npz` file, as NumPy makes them: with 64-bit lengths.
fn npz(method: CompressionMethod, arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        let options = SimpleFileOptions::default().compression_method(method).large_file(true);
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

struct Place(TempDir);

impl Place {
    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("a.npz");
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn place() -> Place {
    Place(tempfile::tempdir().unwrap())
}

fn images_of(path: &Path, key: Option<&str>) -> Result<Array4<u8>, String> {
    let read = images::read(&[path], key, 3).map_err(|e| e.to_string());
    read.inspect_err(|e| assert!(!e.contains('\n') && e.len() < 400 && e.contains("a.npz"), "{e}"))
}

/// Two images of 8x8 in which every byte tells its place, and the same in ImageNet32's order.
fn two() -> (Array4<u8>, Vec<u8>) {
    let at = |(n, y, x, c): (usize, usize, usize, usize)| (n * 100 + c * 30 + y * 8 + x) as u8;
    let images = Array4::from_shape_fn((2, 8, 8, 3), at);
    let planes = Array4::from_shape_fn((2, 3, 8, 8), |(n, c, y, x)| images[[n, y, x, c]]);
    (images, planes.into_raw_vec_and_offset().0)
}

/// What `numpy.savez_compressed` of NumPy 2.4.6 wrote: `data` [2, 192], `labels` [1, 10] and `mean` of float64.
fn from_numpy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/imagenet.npz")
}

#[test]
fn the_only_array_needs_no_key_and_one_of_several_does() {
    let place = place();
    let (images, _) = two();
    let x = || array(&[2, 8, 8, 3], images.iter().copied());
    let zeros = || array(&[2, 8, 8, 3], [0u8; 384]);
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let path = place.file(&npz(method, &[("arr_0", x())]));
        assert_eq!(images_of(&path, None).unwrap(), images);
        assert_eq!(images_of(&path, Some("arr_0")).unwrap(), images);
        let path = place.file(&npz(method, &[("x_train", zeros()), ("x_test", x())]));
        assert_eq!(images_of(&path, Some("x_test")).unwrap(), images);
        let error = images_of(&path, None).unwrap_err();
        assert!(error.contains("2 arrays: x_train, x_test; choose one with key"), "{error}");
        let error = images_of(&path, Some("x")).unwrap_err();
        assert!(error.contains("expected one of the arrays x_train, x_test, found \"x\""), "{error}");
        let path = place.file(&npz(method, &[("zeros", zeros()), ("data", x())]));
        assert_eq!(images_of(&path, None).unwrap(), images, "the usual name");
    }
    // Where there are no keys, none is taken in silence.
    let plain = place.0.path().join("a.npz.npy");
    images::write_npy(&plain, &images).unwrap();
    assert!(images_of(&plain, Some("data")).unwrap_err().contains("leave the key out"));
    let png = place.0.path().join("a.npz.png");
    images::write_png(&png, images.index_axis(ndarray::Axis(0), 0)).unwrap();
    assert!(images_of(&png, Some("data")).unwrap_err().contains("leave the key out"));
    // Errors in an array name the file and the array.
    let path = place.file(&npz(CompressionMethod::Stored, &[("x", array(&[1, 3, 8, 8], [0u8; 192]))]));
    let error = images_of(&path, None).unwrap_err();
    assert!(error.contains("a.npz/x.npy: shape") && error.contains("NCHW"), "{error}");
}

#[test]
fn imagenet32_s_form_is_planar_and_counts_from_one() {
    let place = place();
    let (images, planes) = two();
    assert_eq!(images_of(&from_numpy(), None).unwrap_or_else(|e| panic!("{e}")), images);
    let labels = npy::labels_of(&from_numpy(), None).unwrap();
    assert_eq!((labels.classes, labels.counted_from_one), (vec![0, 9], true));

    let data = || array(&[2, 192], planes.iter().copied());
    let file = |labels: &[i64]| {
        let labels = array(&[labels.len()], labels.iter().copied());
        place.file(&npz(CompressionMethod::Stored, &[("data", data()), ("labels", labels)]))
    };
    let path = file(&[1000, 1]);
    assert_eq!(images_of(&path, None).unwrap(), images);
    assert_eq!(npy::labels_of(&path, Some("labels")).unwrap().classes, [999, 0]);
    // A 0 shows that these count from 0.
    let labels = npy::labels_of(&file(&[7, 0]), None).unwrap();
    assert_eq!((labels.classes, labels.counted_from_one), (vec![7, 0], false));
    // So do labels beside images of another form.
    let x = array(&[2, 8, 8, 3], images.iter().copied());
    let path =
        place.file(&npz(CompressionMethod::Stored, &[("data", x), ("labels", array(&[2], [3i64, 4]))]));
    assert_eq!(npy::labels_of(&path, None).unwrap().classes, [3, 4]);
    // Under another name nobody knows that they are planes.
    let path = place.file(&npz(CompressionMethod::Stored, &[("x", data())]));
    assert!(images_of(&path, None).unwrap_err().contains("reshape(-1, 3, 8, 8)"));
    assert_eq!(npy::planar_side(&[1, 3072]), Some(32));
    for shape in [&[1, 3071][..], &[1, 3073], &[1, 6], &[1, 0], &[3072], &[1, 3072, 1], &[1, usize::MAX]] {
        assert_eq!(npy::planar_side(shape), None, "{shape:?}");
    }
}

#[test]
fn broken_archives_are_refused_wherever_they_break() {
    let place = place();
    let (images, _) = two();
    let x = array(&[2, 8, 8, 3], images.iter().copied());
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let whole = npz(method, &[("x", x.clone())]);
        for length in 8..whole.len() {
            images_of(&place.file(&whole[..length]), None).unwrap_err();
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0x55;
            // Dates, versions and the like mean nothing here; what is read is right, or it is refused.
            if let Ok(read) = images_of(&place.file(&broken), None) {
                assert_eq!(read, images, "byte {at}");
            }
        }
    }
    assert!(
        images_of(&place.file(&npz(CompressionMethod::Stored, &[])), None).unwrap_err().contains("0 arrays")
    );
    let many: Vec<String> = (0..1000).map(|i| format!("{i:0>200}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), Vec::new())).collect();
    let error = images_of(&place.file(&npz(CompressionMethod::Stored, &many)), None).unwrap_err();
    assert!(error.contains("1000 arrays") && error.contains("and 992 more"), "{error}");
    // An array that says it is longer than its entry.
    let mut short = x.clone();
    short.truncate(300);
    let path = place.file(&npz(CompressionMethod::Stored, &[("x", short)]));
    assert!(images_of(&path, None).unwrap_err().contains("expected 384 bytes of data"));
}
