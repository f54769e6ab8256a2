//! Small checkpoints cut at every length, with every bit flipped, and mutated at random, with the
//! checksums made right again so that what lies behind them is reached: the readers return values or
//! an error, and take no memory that the files do not account for.
//!
//! Everything is in memory, and allocations are counted for each thread.

#[path = "support/peak.rs"]
mod peak;
#[path = "support/random.rs"]
mod random;
#[path = "support/tables.rs"]
mod tables;

use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use fast_pixel_cnn::Result;
use fast_pixel_cnn::checkpoint::Variable;
use fast_pixel_cnn::checkpoint::tensorflow::table::Table;
use fast_pixel_cnn::checkpoint::tensorflow::{v1, v2};
use peak::peak;
use random::{Random, mutate};
use tables::*;

/// A checkpoint as bytes: tables, and the data files of a V2 one.
#[derive(Clone)]
struct Files {
    table: Vec<u8>,
    sealed: Vec<Range<usize>>,
    data: Option<Vec<u8>>,
}

/// All that can be read of a checkpoint.
type Contents = Vec<(Variable, Result<Vec<u32>>)>;

fn contents(variables: Vec<Variable>, mut read: impl FnMut(&str) -> Result<Vec<f32>>) -> Contents {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    variables
        .into_iter()
        .map(|variable| {
            let values = read(&variable.name).map(bits);
            (variable, values)
        })
        .collect()
}

fn open_v1(files: &Files) -> Result<v1::Reader<Cursor<&[u8]>>> {
    v1::Reader::open(vec![Table::open(Cursor::new(&files.table[..]), Path::new("table"))?])
}

fn open_v2<'a>(files: &'a Files, data: &'a [u8]) -> Result<v2::Reader<Cursor<&'a [u8]>>> {
    let table = Table::open(Cursor::new(&files.table[..]), Path::new("table"))?;
    v2::Reader::open(table, |number, _| {
        let length = data.len() as u64;
        Ok(v2::Shard { source: Cursor::new(data), file: format!("data {number}").into(), length })
    })
}

fn read(files: &Files) -> Result<Contents> {
    if let Some(data) = &files.data {
        let mut reader = open_v2(files, data)?;
        Ok(contents(reader.variables().to_vec(), |name| reader.read_f32(name)))
    } else {
        let mut reader = open_v1(files)?;
        Ok(contents(reader.variables().to_vec(), |name| reader.read_f32(name)))
    }
}

/// How many variables have the right checksums.
fn verify(files: &Files) -> Result<usize> {
    let verified = match &files.data {
        Some(data) => open_v2(files, data)?.verify(&mut || Ok(())),
        None => open_v1(files)?.verify(&mut || Ok(())),
    };
    verified.map(|verified| verified.variables)
}

/// Reads and verifies within bounds of memory: some copies of the files, what descriptions of variables take
/// when decoded, and room for messages.
fn read_bounded(files: &Files) -> Result<Contents> {
    let length = files.table.len() + files.data.as_ref().map_or(0, Vec::len);
    let bounded = |peak| assert!(peak < 16 * length + 8192, "{peak} bytes for files of {length}");
    bounded(peak(|| verify(files)).1);
    let (contents, peak) = peak(|| read(files));
    bounded(peak);
    contents
}

const HALVES: [Extents<'static>; 2] = [&[Some((0, 1)), None], &[Some((1, 1)), None]];

/// A V1 checkpoint of several blocks with whole, partitioned and other variables.
fn v1_files() -> Files {
    let list = v1_list(&[
        v1_variable("model/a", 1, &shape(&[3]), &[&[None]]),
        v1_variable("model/b", 1, &shape(&[2, 2]), &HALVES),
        v1_variable("model/c", 9, &[], &[&[]]),
        v1_variable("model/d", 1, &[], &[&[]]),
        v1_variable("model/e", 19, &shape(&[2]), &[&[None]]),
        v1_variable("model/f", 2, &shape(&[2]), &[&[None]]),
        v1_variable("model/g", 7, &shape(&[2]), &[&[None]]),
    ]);
    let mut writer = Writer::default();
    writer.data(&[list, v1_slice("model/a", &[None], &run(5, &packed(&[1.0, 2.0, 3.0])))]);
    writer.data(&[
        v1_slice("model/b", HALVES[0], &run(5, &packed(&[4.0, 5.0]))),
        v1_slice("model/b", HALVES[1], &run(5, &packed(&[6.0, 7.0]))),
    ]);
    writer.data(&[
        v1_slice("model/c", &[], &run(10, &[5])),
        v1_slice("model/d", &[], &fixed32(5, 8f32.to_bits())),
        v1_slice("model/e", &[None], &run(13, &[varint(0x3e00), varint(0xc000)].concat())),
        v1_slice("model/f", &[None], &run(6, &[1.5f64, -2.0].map(f64::to_le_bytes).concat())),
        v1_slice("model/g", &[None], &[run(8, b"one"), run(8, b"three")].concat()),
    ]);
    let table = writer.finish();
    let sealed = writer.sealed;
    Files { table, sealed, data: None }
}

/// The same variables as a V2 checkpoint.
fn v2_files() -> Files {
    let lengths = [3u32, 5].map(u32::to_le_bytes).concat();
    let lengths_checksum = masked(&lengths).to_le_bytes();
    let data = [
        packed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        5u64.to_le_bytes().to_vec(),
        vec![0x00, 0x3e, 0x00, 0xc0],
        [1.5f64, -2.0].map(f64::to_le_bytes).concat(),
        vec![3, 5],
        lengths_checksum.to_vec(),
        b"onethree".to_vec(),
    ]
    .concat();
    // In the checksum of strings their lengths are numbers of four bytes.
    let strings = masked(&[&lengths[..], &lengths_checksum, b"onethree"].concat());
    let strings =
        [number(1, 7), run(2, &shape(&[2])), number(4, 60), number(5, 14), fixed32(6, strings)].concat();
    let variable = |dtype, dimensions: &[u64], place: Range<usize>| {
        v2_variable(dtype, &shape(dimensions), place.start as u64, &data[place])
    };
    let slices: Vec<u8> = HALVES.iter().flat_map(|extents| run(7, &slice(extents))).collect();
    let mut writer = Writer::default();
    writer.data(&[
        v2_header(1),
        (slice_key("model/b", HALVES[0]), variable(1, &[1, 2], 12..20)),
        (slice_key("model/b", HALVES[1]), variable(1, &[1, 2], 20..28)),
    ]);
    writer.data(&[
        (b"model/a".to_vec(), variable(1, &[3], 0..12)),
        (b"model/b".to_vec(), [number(1, 1), run(2, &shape(&[2, 2])), slices].concat()),
        (b"model/c".to_vec(), variable(9, &[], 32..40)),
        (b"model/d".to_vec(), variable(1, &[], 28..32)),
        (b"model/e".to_vec(), variable(19, &[2], 40..44)),
        (b"model/f".to_vec(), variable(2, &[2], 44..60)),
        (b"model/g".to_vec(), strings),
    ]);
    let table = writer.finish();
    let sealed = writer.sealed;
    Files { table, sealed, data: Some(data) }
}

fn samples() -> [Files; 2] {
    [v1_files(), v2_files()]
}

/// What can be said of contents whatever the errors' words.
fn values(contents: &Contents) -> Vec<(&Variable, Option<&Vec<u32>>)> {
    contents.iter().map(|(variable, values)| (variable, values.as_ref().ok())).collect()
}

#[test]
fn the_samples_are_sound() {
    for files in samples() {
        let contents = read_bounded(&files).unwrap();
        assert_eq!(verify(&files).unwrap(), 7);
        let expected = [
            ("model/a", Some(vec![1.0, 2.0, 3.0])),
            ("model/b", Some(vec![4.0, 5.0, 6.0, 7.0])),
            ("model/c", None),
            ("model/d", Some(vec![8.0f32])),
            ("model/e", Some(vec![1.5, -2.0])),
            ("model/f", Some(vec![1.5, -2.0])),
            ("model/g", None),
        ];
        assert_eq!(contents.len(), expected.len());
        for ((variable, found), (name, values)) in contents.into_iter().zip(expected) {
            assert_eq!(variable.name, name);
            assert_eq!(variable.dtype.float_size().is_some(), values.is_some());
            assert_eq!(found.ok(), values.map(|values| values.into_iter().map(f32::to_bits).collect()));
        }
    }
}

#[test]
fn a_checkpoint_cut_short_is_refused_at_every_length() {
    for files in samples() {
        for length in 0..files.table.len() {
            let mut cut = files.clone();
            cut.table.truncate(length);
            assert!(read_bounded(&cut).is_err(), "{length}");
        }
        let Some(data) = &files.data else { continue };
        for length in 0..data.len() {
            let mut cut = files.clone();
            cut.data = Some(data[..length].to_vec());
            assert!(read_bounded(&cut).is_err(), "{length}");
        }
    }
}

#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    for files in samples() {
        let sound = read(&files).unwrap();
        let sound = values(&sound);
        let check = |flipped: &Files, part: &str, bit: usize| {
            let Ok(contents) = read_bounded(flipped) else {
                return;
            };
            for ((variable, found), (expected, values)) in contents.iter().zip(&sound) {
                assert_eq!(variable, *expected, "bit {bit} of {part}");
                assert!(found.is_err() || found.as_ref().ok() == *values, "bit {bit} of {part}");
            }
            assert_eq!(contents.len(), sound.len(), "bit {bit} of {part}");
        };
        for bit in 0..files.table.len() * 8 {
            let mut flipped = files.clone();
            flipped.table[bit / 8] ^= 1 << (bit % 8);
            check(&flipped, "the table", bit);
        }
        for bit in 0..files.data.as_ref().map_or(0, Vec::len) * 8 {
            let mut flipped = files.clone();
            if let Some(data) = &mut flipped.data {
                data[bit / 8] ^= 1 << (bit % 8);
            }
            assert!(verify(&flipped).is_err(), "bit {bit} of the data");
            check(&flipped, "the data", bit);
        }
    }
}

#[test]
fn random_mutations_do_no_harm() {
    let mut random = Random(2702);
    let (mut refused, mut opened, mut values) = (0, 0, 0);
    for round in 0..40_000 {
        let mut files = samples_of(round);
        for _ in 0..=random.below(4) {
            let target = random.below(8);
            match &mut files.data {
                Some(data) if target == 0 => mutate(data, &mut random),
                _ => mutate(&mut files.table, &mut random),
            }
        }
        // Three rounds of four reach what lies behind the checksums.
        if round % 4 != 0 {
            reseal(&mut files.table, &files.sealed);
        }
        match read_bounded(&files) {
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().contains('\n'), "{error}");
            }
            Ok(contents) => {
                opened += 1;
                values += contents.iter().filter(|(_, values)| values.is_ok()).count();
            }
        }
    }
    // Both outcomes are common, so neither layer hides the other.
    assert!(refused > 10_000 && opened > 5_000 && values > 5_000, "{refused} {opened} {values}");
}

fn samples_of(round: usize) -> Files {
    if round % 8 < 4 { v1_files() } else { v2_files() }
}
