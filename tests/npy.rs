//! `.npy` files: what is written is read back, and what is broken or hostile is refused in one clear
//! line, without a panic and without taking memory that the file's length does not justify.

use std::path::Path;

use fast_pixel_cnn::media::npy;
use ndarray::{ArrayD, IxDyn, array};

/// The bytes of an `.npy` file with any version, header text and data.
fn bytes(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn header(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
}

fn parse(bytes: &[u8]) -> Result<ArrayD<f32>, String> {
    npy::parse::<f32>(Path::new("a.npy"), bytes).map_err(|e| e.to_string())
}

/// Two floats.
const DATA: [u8; 8] = [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40];

#[test]
fn every_version_is_read() {
    for version in 1..=3 {
        let read = parse(&bytes(version, &header("'<f4'", "False", "(2,)"), &DATA)).unwrap();
        assert_eq!(read, array![1.0, 2.0].into_dyn());
    }
    let scalar = parse(&bytes(1, &header("'<f4'", "False", "()"), &DATA[..4])).unwrap();
    assert_eq!(scalar, ndarray::arr0(1.0).into_dyn());
    let empty = parse(&bytes(1, &header("'<f4'", "False", "(0, 3)"), &[])).unwrap();
    assert_eq!(empty.shape(), [0, 3]);
}

#[test]
fn what_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.npy");
    let floats = ArrayD::from_shape_fn(IxDyn(&[2, 3, 4]), |i| (i[0] * 12 + i[1] * 4 + i[2]) as f32 - 7.5);
    npy::write(&path, &floats.view()).unwrap();
    assert_eq!(npy::read_f32(&path).unwrap(), floats);
    assert_eq!(npy::shape_of::<f32>(&path).unwrap(), [2, 3, 4]);
    // A view in another memory order is written in C order all the same.
    npy::write(&path, &floats.t()).unwrap();
    assert_eq!(npy::read_f32(&path).unwrap(), floats.t());
    let pixels = array![[0u8, 127], [128, 255]].into_dyn();
    npy::write(&path, &pixels.view()).unwrap();
    assert_eq!(npy::read_u8(&path).unwrap(), pixels);
}

#[test]
fn headers_are_numpy_s_own_byte_for_byte() {
    fn header<T: npy::Element>(shape: &[usize], values: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        npy::write_to(&mut bytes, shape, vec![T::zeroed(); values]).unwrap();
        bytes.truncate(bytes.len() - values * size_of::<T>());
        bytes
    }
    // What numpy.save of NumPy 2.4.6 wrote: the dict, and how many spaces.
    let numpy = |length: u8, dict: &str, spaces: usize| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend([length, 0]);
        bytes.extend(format!("{dict}{}\n", " ".repeat(spaces)).bytes());
        bytes
    };
    let dict = |descr: &str, shape: &str| {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")
    };
    let expected = numpy(0x76, &dict("|u1", "(4, 8, 8, 3)"), 52);
    assert_eq!(expected.len(), 128);
    assert_eq!(header::<u8>(&[4, 8, 8, 3], 768), expected);
    assert_eq!(header::<f32>(&[2], 2), numpy(0x76, &dict("<f4", "(2,)"), 60));
    assert_eq!(header::<f32>(&[], 1), numpy(0x76, &dict("<f4", "()"), 62));
    assert_eq!(header::<i64>(&[0, 3], 0), numpy(0x76, &dict("<i8", "(0, 3)"), 58));
    assert_eq!(header::<i64>(&[123_456, 1], 123_456), numpy(0x76, &dict("<i8", "(123456, 1)"), 53));
    // Here the room for a longer first axis is what makes the header longer.
    let ones = format!("({})", ["1"; 20].join(", "));
    assert_eq!(header::<i32>(&[1; 20], 1), numpy(0xb6, &dict("<i4", &ones), 68));
    let tens = "(0, 10, 10, 10, 10, 10, 10, 10)";
    assert_eq!(header::<u8>(&[0, 10, 10, 10, 10, 10, 10, 10], 0), numpy(0x76, &dict("|u1", tens), 33));

    let wrong = npy::write_to(Vec::new(), &[2, 2], [1u8; 3]).unwrap_err().to_string();
    assert!(wrong.contains("shape [2, 2]"), "{wrong}");
    assert!(npy::write_to(Vec::new(), &[2, 2], [1u8; 5]).is_err());
}

#[test]
fn the_demo_model_s_files_are_as_numpy_writes_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits");
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "npy") {
            let array = npy::read_f32(&path).unwrap();
            let mut bytes = Vec::new();
            npy::write_to(&mut bytes, array.shape(), array.iter().copied()).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "{}", path.display());
            files += 1;
        }
    }
    assert_eq!(files, 298);
}

#[test]
fn what_memory_cannot_hold_is_refused_before_it_is_reserved() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("huge.npy");
    // As long as it says, and sparse.
    let length = 4u64 << 40;
    let head = bytes(1, &header("'|u1'", "False", &format!("({length},)")), &[]);
    std::fs::write(&path, &head).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    if let Err(error) = file.set_len(head.len() as u64 + length) {
        eprintln!("no file of 4 TiB can be made here: {error}");
        return;
    }
    for error in [npy::read_u8(&path).unwrap_err(), npy::labels_of(&path, None).unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains("which is what memory holds, found 4194304 MiB"), "{error}");
    }
    assert_eq!(npy::shape_of::<u8>(&path).unwrap(), [length as usize]);
}

#[test]
fn labels_of_four_types_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("labels.npy");
    npy::write(&path, &array![3i64, 0, 9].view()).unwrap();
    assert_eq!(npy::read_labels(&path).unwrap(), [3, 0, 9]);
    npy::write(&path, &array![3i32, 0, 9].view()).unwrap();
    assert_eq!(npy::read_labels(&path).unwrap(), [3, 0, 9]);
    npy::write(&path, &array![3u16, 0, 9].view()).unwrap();
    assert_eq!(npy::read_labels(&path).unwrap(), [3, 0, 9]);
    npy::write(&path, &array![3u8, 0, 9].view()).unwrap();
    assert_eq!(npy::read_labels(&path).unwrap(), [3, 0, 9]);

    // As Keras has them.
    npy::write(&path, &array![[3i32], [0], [9]].view()).unwrap();
    assert_eq!(npy::read_labels(&path).unwrap(), [3, 0, 9]);

    let refused = |message: &str| {
        let error = npy::read_labels(&path).unwrap_err().to_string();
        assert!(error.contains("labels.npy") && error.contains(message), "{error}");
    };
    npy::write(&path, &array![3i64, -1].view()).unwrap();
    refused("element 1: expected class labels from 0 to 4294967295, found -1");
    npy::write(&path, &array![1i64 << 32].view()).unwrap();
    refused("element 0");
    npy::write(&path, &array![[1i64, 2]].view()).unwrap();
    refused("expected class labels of shape [N] or [N, 1], found shape [1, 2]");
    npy::write(&path, &array![1.0f32].view()).unwrap();
    refused("expected class labels of type int64, int32, uint16 or uint8, found type '<f4'");
}

#[test]
fn usual_and_unusual_wordings_of_a_header_mean_the_same() {
    let data = [DATA, DATA].concat();
    for (shape, expected) in [
        ("(4,)", &[4][..]),
        ("(4, )", &[4]),
        ("( 4 ,)", &[4]),
        ("[4]", &[4]),
        ("(2, 2)", &[2, 2]),
        ("(2,2)", &[2, 2]),
        ("(2,  2, )", &[2, 2]),
        ("(2 , 2)", &[2, 2]),
        // As Python 2 wrote them.
        ("(4L,)", &[4]),
        ("(2L, 2)", &[2, 2]),
        ("(2L, 2L)", &[2, 2]),
    ] {
        let usual = header("'<f4'", "False", shape);
        let padded = usual.replace("}\n", "}                \n");
        let reordered = format!("{{'fortran_order': False, 'shape': {shape}, 'descr': '<f4'}}\n");
        for text in [&usual, &padded, &reordered, &usual.replace('\'', "\""), &usual.replace(", }", "}")] {
            let read = parse(&bytes(1, text, &data)).unwrap();
            assert_eq!(read.shape(), expected, "{text}");
        }
    }
}

#[test]
fn broken_and_hostile_files_are_refused_with_what_was_found() {
    let plain = |shape: &str| bytes(1, &header("'<f4'", "False", shape), &DATA);
    let mut long_header = bytes(2, "", &[]);
    long_header[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut version_9 = plain("(2,)");
    version_9[6] = 9;
    let padded = header("'<f4'", "False", "(2,)") + &" ".repeat(20_000);
    let nested = format!("{{'shape': {}{}}}", "(".repeat(3000), ")".repeat(3000));
    let twice_nested = format!("{{'shape': {}", "[".repeat(9000));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "found 0 bytes"),
        (b"\x93NUMPY\x01".to_vec(), "found 7 bytes"),
        (b"<!DOCTYPE html><html>".to_vec(), "found \"<!DOCTYP\""),
        (b"version https://git-lfs.github.com/spec/v1".to_vec(), "found \"version \""),
        (version_9, "expected version 1.0, 2.0 or 3.0, found 9.0"),
        (b"\x93NUMPY\x02\0\x10\0".to_vec(), "found the end of the file"),
        (long_header, "found 4294967295 bytes, with 0 left"),
        (bytes(2, &padded, &DATA), "a header of at most 10000 bytes"),
        (bytes(1, "", &[]), "a dict that describes an array"),
        (bytes(1, "not python", &[]), "found 'n' at byte 0"),
        (bytes(1, "{'descr': '<f4'}", &[]), "missing key"),
        (bytes(1, "{'descr': '<f4", &[]), "a string without end"),
        (bytes(1, "{'descr': '''<f4''' }", &[]), "an empty string"),
        (bytes(1, r"{'descr': '\x3cf4' }", &[]), "an escape in a string"),
        (bytes(1, &nested, &[]), "brackets nested more than 6 deep"),
        (bytes(1, &twice_nested, &[]), "brackets nested more than 6 deep"),
        (plain("(18446744073709551615, 2)"), "more elements than 64 bits can count"),
        (plain("(0, 18446744073709551615, 2)"), "more elements than 64 bits can count"),
        (plain("(18446744073709551616,)"), "more elements than 64 bits can count"),
        (plain("(0xffffffffffffffff, 2)"), "found 'x'"),
        (plain("(18_446_744_073_709_551_615, 2)"), "found '_'"),
        (plain("(-2,)"), "found '-'"),
        (plain("(2.0,)"), "found '.'"),
        (plain("(L2,)"), "found 'L'"),
        (plain("(2 L,)"), "found 'L'"),
        (plain("(2LL,)"), "found 'L'"),
        (plain("(18446744073709551616L,)"), "more elements than 64 bits can count"),
        (plain("'2'"), "shape must be list or tuple"),
        (plain("(2)"), "a dict that describes an array"),
        (plain("(,)"), "a dict that describes an array"),
        (plain("(2,,)"), "a dict that describes an array"),
        (plain("(2,)), }("), "a dict that describes an array"),
        (
            plain("(1000000000000,)"),
            "expected 4000000000000 bytes of data for shape [1000000000000], found 8",
        ),
        (plain("(4611686018427387904,)"), "expected data for shape [4611686018427387904], found 8 bytes"),
        (plain("(3,)"), "expected 12 bytes of data for shape [3], found 8 bytes"),
        (plain("(1,)"), "expected 4 bytes of data for shape [1], found 8 bytes"),
        (
            bytes(1, &header("'<f4'", "False", "(0, 9223372036854775808)"), &[]),
            "a shape that an array can have",
        ),
        (bytes(1, &header("'<f4'", "True", "(2,)"), &DATA), "expected C order, found Fortran order"),
        (bytes(1, &header("'<f4'", "1", "(2,)"), &DATA), "'fortran_order' value is not a bool"),
        (bytes(1, &header("'>f4'", "False", "(2,)"), &DATA), "little-endian float32, found type '>f4'"),
        (bytes(1, &header("'<f8'", "False", "(1,)"), &DATA), "little-endian float32, found type '<f8'"),
        (bytes(1, &header("'<i4'", "False", "(2,)"), &DATA), "little-endian float32, found type '<i4'"),
        (bytes(1, &header("'|O'", "False", "(2,)"), &DATA), "little-endian float32, found type '|O'"),
        (bytes(1, &header("'<f99999999999999999999'", "False", "(2,)"), &DATA), "invalid type string"),
        (bytes(1, &header("[('r', '<f4'), ('g', '<f4')]", "False", "(1,)"), &DATA), "structured type"),
        (bytes(1, &header("[('r', '<f4', (4294967296, 4294967296))]", "False", "(1,)"), &DATA), "64 bits"),
    ];
    for (bytes, message) in cases {
        let error = parse(&bytes).expect_err(message);
        assert!(error.starts_with("a.npy: ") && error.contains(message), "{error}\nlacks: {message}");
        assert!(!error.contains('\n') && error.len() < 600, "{error}");
    }
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |path: &Path, message: &str| {
        for error in [npy::read_f32(path).unwrap_err(), npy::read_labels(path).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains(message), "{error}");
        }
    };
    refused(&directory.path().join("none.npy"), "none.npy: cannot open: No such file");
    refused(directory.path(), "a directory; give a regular file");
    let pipe = directory.path().join("pipe.npy");
    if std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|s| s.success()) {
        refused(&pipe, "a pipe or device; give a regular file");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let locked = directory.path().join("locked.npy");
        npy::write(&locked, &array![1.0f32].view()).unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
        // The superuser may read it all the same.
        if std::fs::File::open(&locked).is_err() {
            refused(&locked, "cannot open: Permission denied");
        }
    }
}

/// A generator for mutations: SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn random_mutations_never_panic() {
    // Bytes that mean something in a header are likelier than others.
    const TELLING: &[u8] = b"{}[]()',:\"\\ 0129-_xTrueFalse<>|fiuOUSVm\n\x93\0\xff";
    let good = bytes(1, &header("'<f4'", "False", "(2, 1)"), &DATA);
    assert!(parse(&good).is_ok());
    let mut state = 2702;
    let mut accepted = 0;
    for _ in 0..30_000 {
        let mut bad = good.clone();
        for _ in 0..1 + next(&mut state) % 6 {
            let at = next(&mut state) as usize % bad.len();
            let byte = TELLING[next(&mut state) as usize % TELLING.len()];
            match next(&mut state) % 4 {
                0 => bad[at] = next(&mut state) as u8,
                1 => bad[at] = byte,
                2 => bad.insert(at, byte),
                _ if bad.len() > 1 => drop(bad.remove(at)),
                _ => {}
            }
        }
        if let Ok(array) = parse(&bad) {
            accepted += 1;
            assert!(array.len() * 4 < bad.len());
        }
    }
    assert!(accepted > 0, "mutations of the data alone are harmless");
}
