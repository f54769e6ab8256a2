//! Tables: the input as it is, and its frames as the blocks of a table with their keys in the index.
#![no_main]

mod frames;
#[path = "../../support/tables.rs"]
mod tables;

use std::io::Cursor;
use std::path::Path;

use fast_pixel_cnn::checkpoint::tensorflow::table::Table;
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8]) {
    let Ok(mut table) = Table::open(Cursor::new(bytes), Path::new("input")) else {
        return;
    };
    let mut entries = Vec::new();
    let read = table.for_each(|key, value| {
        entries.push((key.to_vec(), value.to_vec()));
        Ok(())
    });
    assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
    // In a table that is sound throughout, every key that is listed is found.
    for (key, value) in entries {
        let found = table.get(&key);
        assert!(read.is_err() || found.is_ok_and(|found| found == Some(&value[..])));
    }
}

fuzz_target!(|input: &[u8]| {
    read(input);
    let mut writer = tables::Writer::default();
    for (key, contents) in frames::frames(input) {
        writer.raw(&contents, &key);
    }
    read(&writer.finish());
});
