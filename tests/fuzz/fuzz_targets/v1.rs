//! V1 checkpoints: the frames are the entries of a table.
#![no_main]

mod frames;
#[path = "../../support/tables.rs"]
mod tables;

use std::io::Cursor;
use std::path::Path;

use fast_pixel_cnn::checkpoint::tensorflow::{table::Table, v1};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let bytes = tables::table(&frames::frames(input));
    let Ok(table) = Table::open(Cursor::new(bytes), Path::new("input")) else {
        return;
    };
    let Ok(mut reader) = v1::Reader::open(vec![table]) else {
        return;
    };
    let _ = reader.verify(&mut || Ok(()));
    for variable in reader.variables().to_vec() {
        if let Ok(values) = reader.read_f32(&variable.name) {
            assert_eq!(values.len(), variable.shape.iter().product::<usize>());
        }
    }
});
