//! V2 checkpoints: the first frame's value is the contents of every data file, the others are the
//! entries of the index. Checksums of values, which no fuzzer guesses, are made right where an entry
//! ends in one, as TensorFlow's do.
#![no_main]

mod frames;
#[path = "../../support/tables.rs"]
mod tables;

use std::io::Cursor;
use std::path::Path;

use fast_pixel_cnn::checkpoint::tensorflow::{table::Table, v2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut entries = frames::frames(input);
    if entries.is_empty() {
        return;
    }
    let data = entries.remove(0).1;
    for (_, value) in &mut entries {
        // A one-byte place in the data: field 4 (offset) and field 5 (size), then field 6.
        if let [.., 0x20, offset, 0x28, size, 0x35, _, _, _, _] = value[..] {
            let place = usize::from(offset)..usize::from(offset) + usize::from(size);
            if let Some(values) = data.get(place) {
                let end = value.len();
                value[end - 4..].copy_from_slice(&tables::masked(values).to_le_bytes());
            }
        }
    }
    let Ok(table) = Table::open(Cursor::new(tables::table(&entries)), Path::new("input")) else {
        return;
    };
    let shard = |number, count| {
        // As many data files as a directory would have, not as many as the header claims.
        if count > 3 {
            return Err(fast_pixel_cnn::Error::Interrupted);
        }
        Ok(v2::Shard {
            source: Cursor::new(data.clone()),
            file: format!("data {number}").into(),
            length: data.len() as u64,
        })
    };
    let Ok(mut reader) = v2::Reader::open(table, shard) else {
        return;
    };
    let _ = reader.verify(&mut || Ok(()));
    for variable in reader.variables().to_vec() {
        if let Ok(values) = reader.read_f32(&variable.name) {
            assert_eq!(values.len(), variable.shape.iter().product::<usize>());
        }
    }
});
