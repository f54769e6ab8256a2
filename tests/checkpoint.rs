//! The checkpoints that TensorFlow wrote, read in every form they can be given in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::checkpoint::{Checkpoint, DType, Format};

const MODELS: [&str; 5] = ["tiny", "cond", "elu", "relu", "rect"];

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

/// Name, type and shape of every variable according to `variables.json`, sorted by name.
fn listed(model: &str) -> Vec<(String, String, Vec<usize>)> {
    #[derive(serde::Deserialize)]
    struct Listed {
        name: String,
        dtype: String,
        shape: Vec<usize>,
    }
    let text = std::fs::read_to_string(golden(&format!("{model}/variables.json"))).unwrap();
    let listed: Vec<Listed> = serde_json::from_str(&text).unwrap();
    let mut listed: Vec<_> = listed.into_iter().map(|v| (v.name, v.dtype, v.shape)).collect();
    listed.sort();
    listed
}

/// The bits of every float32 variable, by name.
fn values(checkpoint: &mut Checkpoint) -> BTreeMap<String, Vec<u32>> {
    let variables = checkpoint.variables().to_vec();
    let floats = variables.iter().filter(|variable| variable.dtype == DType::Float32);
    floats
        .map(|variable| {
            let values = checkpoint.read_f32(&variable.name).unwrap();
            assert_eq!(values.len(), variable.shape.iter().product::<usize>(), "{variable:?}");
            (variable.name.clone(), values.into_iter().map(f32::to_bits).collect())
        })
        .collect()
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap()
}

#[test]
fn every_variable_is_listed_and_both_formats_hold_the_same_values() {
    for model in MODELS {
        let mut v1 = open(&golden(&format!("{model}/v1/params.ckpt")));
        let mut v2 = open(&golden(&format!("{model}/v2/params.ckpt")));
        assert_eq!((v1.format(), v2.format()), (Format::V1, Format::V2));
        for checkpoint in [&v1, &v2] {
            let variables = checkpoint.variables().iter();
            let found: Vec<_> =
                variables.map(|v| (v.name.clone(), v.dtype.to_string(), v.shape.clone())).collect();
            assert_eq!(found, listed(model), "{model} {}", checkpoint.format());
        }
        let floats = values(&mut v1);
        assert_eq!(floats, values(&mut v2), "{model}");
        assert!(floats.values().flatten().all(|&bits| f32::from_bits(bits).is_finite()));
    }
}

#[test]
fn shards_hold_what_the_single_file_holds() {
    for model in ["tiny", "cond"] {
        for (format, suffixes) in [
            ("v1", &["", "-00000-of-00002", "-00001-of-00002"][..]),
            ("v2", &["", ".index", ".data-00000-of-00002", ".data-00001-of-00002"]),
        ] {
            let mut whole = open(&golden(&format!("{model}/{format}/params.ckpt")));
            let expected = values(&mut whole);
            for suffix in suffixes {
                let path = golden(&format!("{model}/{format}_sharded/params.ckpt{suffix}"));
                let mut sharded = open(&path);
                assert_eq!(sharded.path(), path);
                assert_eq!(sharded.format(), whole.format());
                assert_eq!(sharded.variables(), whole.variables(), "{}", path.display());
                assert_eq!(values(&mut sharded), expected, "{}", path.display());
            }
        }
    }
}

#[test]
fn labels_and_optimiser_slots_are_listed_but_only_floats_are_read() {
    for format in ["v1", "v2"] {
        let mut checkpoint = open(&golden(&format!("cond/{format}/params.ckpt")));
        let labels = checkpoint.variables()[0].clone();
        assert_eq!(
            (labels.name.as_str(), labels.dtype, labels.shape.as_slice()),
            ("Variable", DType::Int64, &[8][..])
        );
        let message = checkpoint.read_f32("Variable").unwrap_err().to_string();
        assert!(message.ends_with("tensor \"Variable\": expected float32 values, found int64"), "{message}");
        let message = checkpoint.read_f32("Variabl").unwrap_err().to_string();
        assert!(
            message.contains("tensor \"Variabl\": expected a variable of that name, found none among"),
            "{message}"
        );
        assert_eq!(checkpoint.read_f32("Variable_1").unwrap().len(), 1);
    }
}

#[test]
fn the_order_of_reading_does_not_matter() {
    let path = golden("rect/v1/params.ckpt");
    let expected = values(&mut open(&path));
    let mut checkpoint = open(&path);
    for (name, bits) in expected.iter().rev() {
        let read = checkpoint.read_f32(name).unwrap();
        assert!(read.iter().map(|value| value.to_bits()).eq(bits.iter().copied()), "{name}");
    }
}

#[test]
fn partitioned_variables_are_put_together() {
    for format in ["v1", "v2"] {
        let mut checkpoint = open(&golden(&format!("partitioned/{format}/params.ckpt")));
        let listed: Vec<_> =
            checkpoint.variables().iter().map(|v| (v.name.as_str(), v.shape.clone())).collect();
        let expected =
            [("box", vec![4, 6, 3]), ("count", vec![3]), ("plain", vec![5]), ("rows", vec![9000, 2])];
        assert_eq!(listed, expected);
        for (name, length) in [("rows", 18_000), ("box", 72), ("plain", 5)] {
            let counted: Vec<f32> = (0..length).map(|i| i as f32).collect();
            assert_eq!(checkpoint.read_f32(name).unwrap(), counted, "{format} {name}");
        }
    }
}

#[test]
fn a_prefix_may_also_be_the_name_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    for suffix in [".index", ".data-00000-of-00001"] {
        let from = golden(&format!("tiny/v2/params.ckpt{suffix}"));
        std::fs::copy(from, folder.path().join(format!("c{suffix}"))).unwrap();
    }
    std::fs::create_dir(folder.path().join("c")).unwrap();
    assert_eq!(open(&folder.path().join("c")).format(), Format::V2);
}
