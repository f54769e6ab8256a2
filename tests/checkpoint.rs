//! The checkpoints that TensorFlow wrote, read and verified in every form they can be given in.

#[path = "common/models.rs"]
mod models;

use std::collections::BTreeMap;
use std::path::Path;

use fast_pixel_cnn::checkpoint::{Checkpoint, DType, Format};
use models::golden;

const MODELS: [&str; 5] = ["tiny", "cond", "elu", "relu", "rect"];

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
        assert!(
            message.ends_with("tensor \"Variable\": expected floating-point values, found int64"),
            "{message}"
        );
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
fn a_prefix_may_also_be_the_name_of_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    for suffix in [".index", ".data-00000-of-00001"] {
        let from = golden(&format!("tiny/v2/params.ckpt{suffix}"));
        std::fs::copy(from, directory.path().join(format!("c{suffix}"))).unwrap();
    }
    std::fs::create_dir(directory.path().join("c")).unwrap();
    assert_eq!(open(&directory.path().join("c")).format(), Format::V2);
}

#[test]
fn every_floating_point_type_is_read() {
    // What TensorFlow's own `tf.cast` to float32 makes of the numbers in the golden files.
    let half: [f64; 10] = [
        0.0,
        -0.0,
        1.0,
        -2.5,
        65504.0,
        5.960464477539063e-08,
        6.097555160522461e-05,
        0.333251953125,
        -0.0010004043579101562,
        100.25,
    ];
    let bfloat16 = [
        0.0,
        -0.0,
        1.0,
        -2.5,
        65536.0,
        6.007030606269836e-08,
        6.103515625e-05,
        0.333984375,
        -0.00099945068359375,
        100.0,
    ];
    let float = [0.0, -0.0, 1.0, -2.5, 65504.0, 6e-8, 6.1e-5, 1.0 / 3.0, -1e-3, 100.25];
    let types = [
        ("half", DType::Float16, half),
        ("bfloat16", DType::BFloat16, bfloat16),
        ("double", DType::Float64, float),
        ("float", DType::Float32, float),
    ];
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let single = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<_>>();
    for format in ["v1", "v2"] {
        let mut checkpoint = open(&golden(&format!("types/{format}/params.ckpt")));
        // TensorFlow does not save bfloat16 as V1.
        for (name, dtype, values) in types.iter().filter(|(name, ..)| format == "v2" || *name != "bfloat16") {
            let variable = checkpoint.variables().iter().find(|v| v.name == *name).unwrap();
            assert_eq!(variable.dtype, *dtype);
            assert_eq!(bits(&checkpoint.read_f32(name).unwrap()), bits(&single(values)), "{format} {name}");
            let counted: Vec<f32> = (0..12).map(|i| i as f32).collect();
            assert_eq!(checkpoint.read_f32(&format!("parts_{name}")).unwrap(), counted, "{format} {name}");
        }
    }
}

#[test]
fn everything_that_tensorflow_wrote_verifies() {
    let mut paths: Vec<String> =
        MODELS.iter().flat_map(|m| ["v1", "v2"].map(|f| format!("{m}/{f}"))).collect();
    paths
        .extend(["tiny/v1_sharded", "tiny/v2_sharded", "partitioned/v1", "partitioned/v2"].map(String::from));
    paths.extend(["types/v1", "types/v2"].map(String::from));
    for path in paths {
        let mut checkpoint = open(&golden(&path).join("params.ckpt"));
        let verified = checkpoint.verify(&|| true).unwrap_or_else(|error| panic!("{path}: {error}"));
        let read = if path.contains("v1") { checkpoint.length() } else { verified.bytes };
        assert_eq!((verified.variables, verified.bytes), (checkpoint.variables().len(), read), "{path}");
        assert!(verified.bytes <= checkpoint.length() && verified.skipped.is_empty(), "{path}");
        assert!(matches!(checkpoint.verify(&|| false), Err(fast_pixel_cnn::Error::Interrupted)), "{path}");
    }
}

/// A bit is flipped in what no model reads: labels, an optimiser's slots, strings.
#[test]
fn damage_in_what_nobody_reads_is_found_by_verifying() {
    let directory = tempfile::tempdir().unwrap();
    for (model, format, file) in [
        ("types", "v1", "params.ckpt"),
        ("types", "v2", "params.ckpt.data-00000-of-00001"),
        ("partitioned", "v1", "params.ckpt"),
        ("partitioned", "v2", "params.ckpt.data-00000-of-00001"),
    ] {
        for entry in std::fs::read_dir(golden(&format!("{model}/{format}"))).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        let path = directory.path().join(file);
        let sound = std::fs::read(&path).unwrap();
        let mut found = 0;
        for at in (0..sound.len()).step_by(if sound.len() > 4096 { 1009 } else { 1 }) {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let opened = Checkpoint::open(&directory.path().join("params.ckpt"));
            found += usize::from(opened.and_then(|mut checkpoint| checkpoint.verify(&|| true)).is_err());
        }
        // All but what is no value's and no block's: the zeros in the footer of a table.
        let checked = sound.len().div_ceil(if sound.len() > 4096 { 1009 } else { 1 });
        assert!(found + 40 >= checked, "{model} {format}: {found} of {checked}");
        if format == "v2" {
            assert_eq!(found, checked, "{model}");
        }
    }
}
