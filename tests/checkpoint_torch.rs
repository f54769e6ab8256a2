//! PyTorch's files and safetensors: what the golden ones hold, and what hostile ones can do, which is to be
//! refused. Allocations are counted for each thread.

#[path = "support/peak.rs"]
mod peak;
#[path = "support/random.rs"]
mod random;
#[path = "support/torch.rs"]
mod torch;

use std::fs;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::checkpoint::{Checkpoint, DType, Format, Variable};
use fast_pixel_cnn::{Error, Result};
use peak::peak;
use random::{Random, mutate};
use tempfile::TempDir;
use torch::*;
use zip::CompressionMethod;

const FILES: [(&str, Format); 5] = [
    ("zip.pth", Format::PyTorch),
    ("legacy.pth", Format::PyTorchLegacy),
    ("module_legacy.pth", Format::PyTorchLegacy),
    ("wrapped_parametrized.pth", Format::PyTorch),
    ("model.safetensors", Format::Safetensors),
];

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

/// A file of these bytes, whose name says nothing.
struct File(TempDir);

impl File {
    fn new(bytes: &[u8]) -> File {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), bytes).unwrap();
        File(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("file")
    }
}

type Contents = Vec<(Variable, Result<Vec<f32>>)>;

fn read_path(path: &Path) -> Result<(Format, Contents)> {
    let mut checkpoint = Checkpoint::open(path)?;
    let variables = checkpoint.variables().to_vec();
    let contents = variables.into_iter().map(|variable| {
        let values = checkpoint.read_f32(&variable.name);
        (variable, values)
    });
    let contents = contents.collect();
    Ok((checkpoint.format(), contents))
}

fn read(bytes: &[u8]) -> Result<(Format, Contents)> {
    read_path(&File::new(bytes).path())
}

/// The message with which a file, or else its first tensor of floats, is refused, less its name.
fn refusal(bytes: &[u8]) -> String {
    let file = File::new(bytes);
    let message = match read_path(&file.path()) {
        Err(error) => error.to_string(),
        Ok((_, contents)) => {
            let float = contents.into_iter().find(|(variable, _)| variable.dtype.float_size().is_some());
            float.expect("a tensor").1.unwrap_err().to_string()
        }
    };
    assert!(!message.contains('\n'), "{message:?}");
    message
        .strip_prefix(&format!("{}: ", file.path().display()))
        .unwrap_or_else(|| panic!("{message}"))
        .into()
}

#[test]
fn the_golden_files_hold_the_same_in_every_form() {
    for model in ["torch_rgb", "torch_gray"] {
        let mut first: Option<Vec<(Vec<usize>, Vec<f32>)>> = None;
        for (file, expected) in FILES {
            let (format, contents) = read_path(&golden(&format!("{model}/{file}"))).unwrap();
            assert_eq!(format, expected);
            let mut found: Vec<_> = contents
                .into_iter()
                .map(|(variable, values)| {
                    assert_eq!(variable.dtype, DType::Float32);
                    let name = variable.name.replace("state_dict.", "").replace("module.", "");
                    let name = name.replace("parametrizations.weight.original0", "weight_g");
                    let name = name.replace("parametrizations.weight.original1", "weight_v");
                    (name, variable.shape, values.unwrap())
                })
                .collect();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            let found: Vec<_> = found.into_iter().map(|(_, shape, values)| (shape, values)).collect();
            assert!(found.iter().all(|(shape, values)| values.len() == shape.iter().product::<usize>()));
            assert!(*first.get_or_insert_with(|| found.clone()) == found, "{model}/{file}");
        }
    }
}

#[test]
fn archives_verify_and_the_others_have_nothing_to_verify_by() {
    let verify = |path: &Path| Checkpoint::open(path).unwrap().verify(&|| true);
    for (file, format) in FILES {
        match (verify(&golden(&format!("torch_rgb/{file}"))), format) {
            (Ok(verified), Format::PyTorch) => {
                assert!(verified.variables == 171 && verified.bytes > 600_000, "{verified:?}");
            }
            (Err(Error::Unsupported { .. }), Format::PyTorchLegacy | Format::Safetensors) => {}
            other => panic!("{file}: {other:?}"),
        }
    }
    let mut bytes = zip(&small());
    let values = 3f32.to_le_bytes();
    let at = bytes.windows(4).position(|window| window == values).unwrap();
    bytes[at] ^= 1;
    let file = File::new(&bytes);
    let error = verify(&file.path()).unwrap_err().to_string();
    assert!(error.contains("entry \"archive/data/0\": expected its checksum"), "{error}");
    assert!(refusal(&bytes).contains("tensor \"a.w\": expected its values, found"), "{}", refusal(&bytes));
    assert!(matches!(Checkpoint::open(&file.path()).unwrap().verify(&|| false), Err(Error::Interrupted)));
}

fn samples() -> [Vec<u8>; 3] {
    [zip(&small()), legacy(&small()), safetensors(&small())]
}

#[test]
fn the_samples_are_sound() {
    for bytes in samples() {
        let contents = read(&bytes).unwrap().1;
        let values = |name: &str| {
            let (_, values) = contents.iter().find(|(variable, _)| variable.name == name).unwrap();
            values.as_ref().ok().cloned()
        };
        assert_eq!(values("a.w").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(values("b").unwrap(), [1.5, -2.0]);
        assert_eq!((values("n"), contents.len()), (None, 3));
    }
    // A view is put in order.
    let pickle = pickle(&dictionary(&[("t", pickled("F32", 0, 6, &[3, 2], &[1, 3]))]));
    let bytes = zip_of(&pickle, &[&small()[0].bytes], CompressionMethod::Stored);
    assert_eq!(*read(&bytes).unwrap().1[0].1.as_ref().unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
}

/// What a file of some hundred bytes may take: buffers, and what its descriptions take when decoded.
const BOUND: usize = 1 << 20;

#[test]
fn a_file_cut_short_is_refused_at_every_length() {
    for bytes in samples() {
        for length in 0..bytes.len() {
            let file = File::new(&bytes[..length]);
            let (contents, peak) = peak(|| read_path(&file.path()));
            let whole = contents.is_ok_and(|(_, contents)| {
                contents.iter().all(|(v, values)| v.dtype == DType::Int64 || values.is_ok())
            });
            assert!(!whole && peak < BOUND, "{length} of {}: {peak}", bytes.len());
        }
    }
}

#[test]
fn random_mutations_do_no_harm() {
    let mut random = Random(2703);
    let (mut refused, mut opened) = ([0; 3], [0; 3]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for round in 0..3000 {
        let mut bytes = samples()[round % 3].clone();
        for _ in 0..=random.below(2) {
            mutate(&mut bytes, &mut random);
        }
        fs::write(&path, &bytes).unwrap();
        let (contents, peak) = peak(|| read_path(&path));
        assert!(peak < BOUND, "{peak} bytes");
        match contents {
            Ok(_) => opened[round % 3] += 1,
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "{error}");
                refused[round % 3] += 1;
            }
        }
    }
    assert!(refused.iter().chain(&opened).all(|count| *count > 100), "{refused:?} {opened:?}");
}

#[test]
fn pickles_out_of_proportion_are_refused_before_they_are_interpreted() {
    let bomb = vec![b'N'; 3 << 20];
    let stored = zip_of(&bomb, &[], CompressionMethod::Stored);
    let legacy = [legacy_head(true), bomb.clone(), bomb.clone()].concat();
    let text = [legacy_head(true), b"F".to_vec(), vec![b'0'; 8 << 20]].concat();
    let string = [legacy_head(true), b"X\xff\xff\xff\xff".to_vec(), vec![b'0'; 8 << 20]].concat();
    let deflated = zip_of(&vec![0; 64 << 20], &[], CompressionMethod::Deflated);
    let values = vec![0; 64 << 20];
    let compressed = zip_of(&pickle(&state_dict(&small())), &[&values], CompressionMethod::Deflated);
    let cases: [(&[u8], &str); 6] = [
        (&stored, "entry \"archive/data.pkl\": expected at most 2097152 bytes, found 3145728 bytes"),
        (&legacy, "pickles: expected 5 of at most 2097152 bytes, found more"),
        (&text, "pickles: expected 5 of at most 2097152 bytes, found more"),
        (&string, "pickles: expected 5 of at most 2097152 bytes, found more"),
        (&deflated, "a PyTorch file that was compressed (entry \"archive/data.pkl\"); give it as torch.save"),
        (&compressed, "a PyTorch file that was compressed (entry "),
    ];
    for (bytes, expected) in cases {
        let (message, peak) = peak(|| refusal(bytes));
        assert!(message.starts_with(expected), "{message}");
        assert!(peak < BOUND, "{peak} bytes: {message}");
    }
}

#[test]
fn what_a_pickle_may_take_is_bounded() {
    // Each opcode another thing on the stack; small lists; tensors by the thousand, of which each is named.
    let tensor = pickled("F32", 0, 1, &[1], &[1]);
    let copies = |key: usize, count: usize| {
        let list = [&b"]("[..], &tensor, b"q\x00", &b"h\x00".repeat(count), b"e"].concat();
        pickle(&dictionary(&[(&"k".repeat(key), list)]))
    };
    let cases = [
        vec![b'N'; 2 << 20],
        b"]q\x00".repeat(600_000),
        b"K\x00\x85".repeat(600_000),
        copies(1 << 20, 60_000),
        copies(1, 900_000),
        copies(1000, 200_000),
    ];
    for (case, bytes) in cases.into_iter().enumerate() {
        let bytes = zip_of(&bytes, &[&[0; 4]], CompressionMethod::Stored);
        let file = File::new(&bytes);
        let (found, peak) = peak(|| read_path(&file.path()).map(|_| ()));
        let message = found.unwrap_err().to_string();
        println!("case {case}: {} MiB, {message}", peak >> 20);
        assert!(peak < 512 << 20, "{peak} bytes: {message}");
    }
    let long = zip_of(&copies(1 << 20, 60_000), &[&[0; 4]], CompressionMethod::Stored);
    let expected = "the names of its tensors: expected at most 4194304 bytes and 65536 tensors, found more";
    assert_eq!(refusal(&long), expected);
}

#[test]
fn a_directory_out_of_proportion_is_refused() {
    let none = vec![&[][..]; 80_000];
    let (message, peak) =
        peak(|| refusal(&zip_of(&pickle(&dictionary(&[])), &none, CompressionMethod::Stored)));
    assert!(message.starts_with("archive: expected at most 65536 entries, found 80003"), "{message}");
    drop(none);
    println!("{} MiB", peak >> 20);
    let none = vec![&[][..]; 200_000];
    let bytes = zip_of(&pickle(&dictionary(&[])), &none, CompressionMethod::Stored);
    let file = File::new(&bytes);
    let (found, peak) = self::peak::peak(|| read_path(&file.path()).map(|_| ()));
    let message = found.unwrap_err().to_string();
    println!("{} MiB", peak >> 20);
    assert!(message.contains("a directory beyond 8388608 bytes") && peak < 128 << 20, "{peak}: {message}");
}

#[test]
fn what_a_shape_claims_is_not_believed() {
    let values = small()[0].bytes.clone();
    let zip = |tensor: Vec<u8>| {
        zip_of(&pickle(&dictionary(&[("t", tensor)])), &[&values], CompressionMethod::Stored)
    };
    // One value for a thousand million, values beyond the storage, a storage beyond the file.
    let expected = "tensor \"t\": expected a shape of at most ";
    assert!(refusal(&zip(pickled("F32", 0, 6, &[1 << 30], &[0]))).starts_with(expected));
    let message = refusal(&zip(pickled("F32", 0, 6, &[7], &[1])));
    assert!(
        message.starts_with("contents: expected what torch.save writes, found pickle: invalid"),
        "{message}"
    );
    let message = refusal(&zip(pickled("F32", 0, 7, &[7], &[1])));
    assert!(message.contains("tensor \"t\": expected its values, found "), "{message}");
    let message = refusal(&zip(pickled("F32", 3, 6, &[6], &[1])));
    assert!(message.contains("not found in archive"), "{message}");
    let header = |shape: &str, end: u64| {
        let entry = format!("{{\"t\":{{\"dtype\":\"F32\",\"shape\":[{shape}],\"data_offsets\":[0,{end}]}}}}");
        refusal(&safetensors_of(&entry, &[0; 8]))
    };
    assert!(header("4", 16).starts_with("length: expected the "), "{}", header("4", 16));
    assert!(header("1", 4).starts_with("length: expected the "));
    let cases =
        [("3", 8), ("4294967296,4294967296,16", 8), ("18446744073709551615", 8), ("-1", 8), ("2", 12)];
    for (shape, end) in cases {
        let message = header(shape, end);
        assert!(
            message.starts_with("the header: expected a description of tensors in JSON, found "),
            "{message}"
        );
    }
}

#[test]
fn headers_of_safetensors_are_bounded() {
    let with_length = |length: u64, rest: &[u8]| [&length.to_le_bytes(), rest].concat();
    let cases = [
        with_length(u64::from(u32::MAX), b"{\"a\":1}"),
        with_length(5 << 20, &[b"{".to_vec(), vec![b' '; 6 << 20]].concat()),
        with_length(8, b"{\"a\":1}"),
    ];
    for bytes in cases {
        let (message, peak) = peak(|| refusal(&bytes));
        assert!(message.starts_with("the header: expected at most ") && peak < BOUND, "{peak}: {message}");
    }
    // Nested, and a list of a million numbers.
    for inside in ["[".repeat(4_000_000), format!("[0{}]", ",0".repeat(2_000_000))] {
        let bytes = safetensors_of(&format!("{{\"t\":{{\"dtype\":\"F32\",\"shape\":{inside}}}}}"), &[]);
        let file = File::new(&bytes);
        let (found, peak) = peak(|| read_path(&file.path()).map(|_| ()));
        println!("{} MiB", peak >> 20);
        let message = found.unwrap_err().to_string();
        assert!(
            message.contains("a description of tensors in JSON") && peak < 256 << 20,
            "{peak}: {message}"
        );
    }
}

#[test]
fn files_of_other_contents_are_named() {
    let stored = |bytes: &[u8]| zip_of(&pickle(bytes), &[&[0; 4]], CompressionMethod::Stored);
    let tensor = pickled("F32", 0, 1, &[1], &[1]);
    let no_dictionary = "a PyTorch file without a dictionary of tensors: it holds ";
    // A tensor alone, a list, and an object with a tensor in it that is no module.
    let object = [b"c__main__\nNet\n)\x81", &dictionary(&[("w", tensor.clone())])[..], b"b"].concat();
    for (bytes, found) in [
        (stored(&tensor), "one other thing; save model.state_dict() with torch.save"),
        (stored(b"]"), "one other thing"),
        (stored(&object), "__main__.Net; save model.state_dict()"),
    ] {
        assert!(refusal(&bytes).starts_with(&format!("{no_dictionary}{found}")), "{}", refusal(&bytes));
    }
    // A whole module is read as its state_dict.
    let tables = [
        ("_parameters", dictionary(&[("w", tensor)])),
        ("_buffers", dictionary(&[])),
        ("_modules", dictionary(&[])),
    ];
    let module = [b"c__main__\nNet\n)\x81", &dictionary(&tables)[..], b"b"].concat();
    let contents = read(&stored(&module)).unwrap().1;
    assert_eq!((contents.len(), &contents[0].0.name[..]), (1, "w"));
    let foreign = [legacy_head(false), legacy(&small())[legacy_head(true).len()..].to_vec()].concat();
    assert!(
        refusal(&foreign).contains("Big-endian PyTorch files are not supported"),
        "{}",
        refusal(&foreign)
    );
    let bytes = zip(&small());
    let cut = refusal(&bytes[..bytes.len() - 30]);
    assert!(cut.starts_with("archive: expected a whole and valid PyTorch file, found "), "{cut}");
    let bytes = legacy(&small());
    let cut = refusal(&bytes[..bytes.len() - 1]);
    assert!(cut.contains("extends beyond the end of the file"), "{cut}");
    // What calls for something to be run is a thing of an unknown kind.
    let call = [b"cos\nsystem\n", &string("touch /tmp/fast-pixel-cnn-was-here")[..], b"\x85R"].concat();
    let evil = stored(&dictionary(&[("x", call), ("w", pickled("F32", 0, 1, &[1], &[1]))]));
    assert_eq!(read(&evil).unwrap().1.len(), 1);
    assert!(!Path::new("/tmp/fast-pixel-cnn-was-here").exists());
}
