//! Sets of files with something missing, tables that are damaged and files of 4 TiB, one by one: each is
//! refused with a message of one line that names the file, the place in it, what was expected and what was found.

#[path = "support/refusals.rs"]
mod refusals;
#[path = "support/tables.rs"]
mod tables;

use fast_pixel_cnn::checkpoint::Checkpoint;
use refusals::*;
use tables::*;

#[test]
fn the_sound_checkpoints_that_the_others_are_made_from_are_read() {
    let directory = Directory::new();
    let (entries, data) = v2_entries();
    let directory = directory.with("a", &table(&v1_entries())).with("b.index", &table(&entries));
    let directory = directory.with("b.data-00000-of-00001", &data);
    for name in ["a", "b"] {
        let mut checkpoint = Checkpoint::open(&directory.path(name)).unwrap();
        let names: Vec<_> = checkpoint.variables().iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["n", "w"]);
        assert_eq!(checkpoint.read_f32("w").unwrap(), [1.5, -2.0]);
    }
}

#[test]
fn missing_and_short_files_of_a_set_are_named() {
    let (entries, data) = v2_entries();
    let index = table(&entries);
    let directory = Directory::new().with("c.index", &index);
    for name in ["c", "c.index"] {
        assert!(directory.refusal(name).starts_with("c.data-00000-of-00001: cannot open: "));
    }
    let directory = Directory::new().with("c.data-00000-of-00001", &data);
    for name in ["c", "c.data-00000-of-00001"] {
        assert!(directory.refusal(name).starts_with("c.index: cannot open: "));
    }
    let directory = Directory::new().with("c.index", &index).with("c.data-00000-of-00001", &data[..15]);
    assert_eq!(
        directory.refusal("c"),
        "c.index: entry \"w\": expected 8 bytes at 8 of c.data-00000-of-00001, found a file of 15 bytes"
    );
    let directory = Directory::new().with("index", &index);
    assert!(
        directory
            .refusal("index")
            .starts_with("index: the index of a TensorFlow V2 checkpoint under another name; ")
    );

    let shard = table(&v1_entries());
    let directory = Directory::new().with("c-00000-of-00003", &shard).with("c-00002-of-00003", &shard);
    for name in ["c", "c-00000-of-00003"] {
        assert!(directory.refusal(name).starts_with("c-00001-of-00003: cannot open: "));
    }
    let directory = directory.with("c-00000-of-00001", &shard);
    assert_eq!(
        directory.refusal("c"),
        "c: the names of its shards: expected one number of shards, found 1 and 3"
    );
    assert!(Checkpoint::open(&directory.path("c-00000-of-00001")).is_ok());
    let directory = Directory::new().with("c-00000-of-00000", &shard);
    assert_eq!(directory.refusal("c"), "c: the names of its shards: expected at least 1 shard, found 0");
}

#[test]
fn shards_that_contradict_each_other_are_refused() {
    let mut other = v1_entries();
    other[0] = v1_list(&[v1_variable("w", 1, &shape(&[3]), &[&[None]])]);
    let directory = Directory::new().with("c-00000-of-00002", &table(&v1_entries()));
    let directory = directory.with("c-00001-of-00002", &table(&other));
    assert_eq!(
        directory.refusal("c"),
        "c-00001-of-00002: the list of variables: expected \"w\" as in another shard, float32 [2], \
         found float32 [3]"
    );
    let directory = directory.with("c-00001-of-00002", &table(&v1_entries()));
    let message = directory.refusal("c");
    assert!(message.contains("tensor \"w\": expected slices that do not overlap"), "{message}");
}

/// A table whose index is `index`, behind a data block of the list of variables at 0.
fn with_index(index: &[u8]) -> String {
    let mut writer = Writer::default();
    writer.data(&v1_entries());
    writer.index = index.to_vec();
    v1(&writer.finish())
}

/// A table whose one data block has these contents.
fn with_block(contents: &[u8]) -> String {
    let mut writer = Writer::default();
    v1(&writer.raw(contents, b"\xff").finish())
}

#[test]
fn damaged_footers_and_indices_are_refused() {
    let sound = table(&v1_entries());
    let end = sound.len() - 48;
    let with_footer =
        |metaindex: &[u8], index: &[u8]| v1(&[&sound[..end], &footer(metaindex, index)].concat());
    let far = handle(u64::MAX - 3, 8);
    let long = [[0xff; 10], [0x01; 10]].concat();
    let cases = [
        (with_footer(&far, &handle(0, 8)), "a block that ends by byte"),
        (with_footer(&handle(0, 8), &far), "a block that ends by byte"),
        (with_footer(&handle(0, 8), &handle(end as u64 - 8, 8)), "found one of 8 bytes at"),
        (
            with_footer(&handle(0, 8), &handle(4, 8)),
            "expected metaindex and index apart, found them at 0 and 4",
        ),
        (with_footer(&handle(0, 8), &handle(30, 8)), "metaindex block at 0: expected checksum"),
        (with_footer(&long, &[]), "a varint of at most 64 bits, found a longer one"),
        (with_footer(&[0x80; 40], &[]), "a varint of at most 10 bytes, found a longer one"),
        (with_index(&entry(0, b"z", &handle(u64::MAX, 1))), "index block at"),
        (with_index(&entry(0, b"z", &handle(1 << 40, 1))), "found one of 1 bytes at 1099511627776"),
        (with_index(&entry(0, b"z", &[0x80])), "expected a varint, found the end of the data inside it"),
        (with_index(&entry(0, b"z", &[])), "expected a varint, found the end of the data inside it"),
        (
            with_index(&entry(1, b"z", &handle(0, 8))),
            "at most the last key's 0 bytes shared with it, found 1",
        ),
        (
            with_index(&[entry(0, b"z", &handle(0, 8)), entry(0, b"y", &handle(13, 8))].concat()),
            "expected a key greater than \"z\", found \"y\"",
        ),
        (with_index(&[]), "expected an entry under the empty key, found none"),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message}\nis not\n{expected}");
    }
}

#[test]
fn an_index_cannot_make_a_reader_read_more_than_the_file() {
    // A million entries with one block, which would be some terabytes with a large block.
    let mut index = Vec::new();
    for number in 0..300_000_u32 {
        index.extend(entry(0, &number.to_be_bytes(), &handle(0, 8)));
    }
    let message = with_index(&index);
    assert!(
        message.contains("expected a data block behind the last, which ends at 13, found one at 0"),
        "{message}"
    );
    // The index as its own data block.
    let mut writer = Writer::default();
    writer.data(&v1_entries());
    let place = writer.bytes.len() as u64 + 13;
    writer.index.extend(entry(0, b"\xff", &handle(place, 8)));
    let message = v1(&writer.finish());
    assert!(message.contains("expected a block that ends by byte"), "{message}");
    // Keys that share nearly everything: a few bytes each in the file, a megabyte each in memory.
    let mut index = entry(0, &vec![b'a'; 1 << 20], &handle(0, 8));
    for number in 1..100 {
        index.extend(entry((1 << 20) + number - 1, b"a", &handle(13 * number, 8)));
    }
    let mut writer = Writer::default();
    for _ in 0..100 {
        writer.put(seal(&block(&[]), 0));
    }
    writer.index = index;
    let message = v1(&writer.finish());
    assert!(message.contains("expected keys of at most 4194304 bytes, found more"), "{message}");
    // The same in the names of a V2 checkpoint.
    let mut names = entry(0, b"", &v2_header(1).1);
    names.extend(entry(0, &vec![b'a'; 1 << 20], &[]));
    for number in 0..100 {
        names.extend(entry((1 << 20) + number, b"a", &[]));
    }
    let mut writer = Writer::default();
    let directory = Directory::new().with("c.index", &writer.raw(&block(&names), b"\xff").finish());
    let message = directory.with("c.data-00000-of-00001", b"").refusal("c");
    assert!(message.contains("expected keys of at most 4194304 bytes, found more"), "{message}");
}

#[test]
fn metadata_beyond_all_measure_is_refused() {
    let many: Vec<u8> =
        (0..70_000).flat_map(|i| run(1, &v1_variable(&format!("{i:06}"), 1, &[], &[&[]]))).collect();
    let cases = [
        v1_of(&[(Vec::new(), run(1, &many))]),
        v1_of(&[v1_list(&[v1_variable("w", 1, &shape(&[2]), &vec![&[][..]; 70_000])])]),
        v1_of(&[(Vec::new(), run(1, &run(9, &vec![0; 4 << 20])))]),
        v1_of(&[v1_list(&[v1_variable("w", 1, &shape(&[1; 255]), &[])])]),
        v1_of(&[v1_list(&[v1_variable("w", 1, &shape(&[2]), &[&[None; 255]])])]),
        v1_of(&[v1_list(&[v1_variable("w", 1, &shape(&[2]), &vec![&[None][..]; 2000])])]),
    ];
    for (message, expected) in cases.iter().zip([
        "at most 65536 variables and slices",
        "at most 65536 variables and slices",
        "at most 4194304 bytes",
        "at most 254 dimensions",
        "a slice of at most 254 dimensions",
        "at most 1024 slices, found 2000",
    ]) {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn damaged_blocks_are_refused() {
    let list = v1_entries().remove(0);
    let whole = entry(0, &list.0, &list.1);
    let counted = |count: u32| [&whole[..], &count.to_le_bytes()].concat();
    let mut flipped = table(&v1_entries());
    flipped[9] ^= 1;
    let mut compressed = Writer::default();
    let handle = compressed.put(seal(&block(&whole), 1));
    compressed.index = entry(0, b"\xff", &handle);
    let mut unknown = Writer::default();
    let handle = unknown.put(seal(&block(&whole), 7));
    unknown.index = entry(0, b"\xff", &handle);
    let cases = [
        (v1(&flipped), "data block at 0: expected checksum "),
        (v1(&compressed.finish()), "data block at 0 is compressed with Snappy; "),
        (v1(&unknown.finish()), "data block at 0: expected compression type 0 (none), found 7"),
        (with_block(&[0; 3]), "expected a block of at least 4 bytes, found 3 bytes"),
        (with_block(&counted(u32::MAX)), "restart offsets in a block of"),
        (with_block(&counted(1 << 20)), "restart offsets in a block of"),
        (with_block(&block(&entry(3, b"", b""))), "at most the last key's 0 bytes shared with it, found 3"),
        (with_block(&block(&[[0x80; 10], [0; 10]].concat())), "a varint of at most 10 bytes"),
        (with_block(&block(&[[0xff; 10], [1; 10]].concat())), "a varint of at most 64 bits"),
        (
            with_block(&block(&[0, 5, 5, 1])),
            "a key and value of at most the 1 bytes left in the block, found 5 and 5",
        ),
        (with_block(&block(&[0])), "expected a varint, found the end of the data inside it"),
        (
            with_block(&block(&[&entry(0, b"b", b"")[..], &entry(0, b"a", b"")].concat())),
            "a key greater than \"b\", found \"a\"",
        ),
        (
            with_block(&block(&[&entry(0, b"b", b"")[..], &entry(1, b"", b"")].concat())),
            "a key greater than \"b\", found \"b\"",
        ),
        (
            with_block(&block(&[&entry(0, b"b", b"")[..], &entry(0, b"", b"")].concat())),
            "a key greater than \"b\", found \"\"",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message}\nis not\n{expected}");
    }
    // The keys of a later block belong behind those of the one before.
    let mut writer = Writer::default();
    writer.data(&[v2_header(1)]).data(&[(b"b".to_vec(), vec![])]);
    writer.raw(&block(&entry(0, b"a", b"")), b"c");
    let directory = Directory::new().with("c.index", &writer.finish()).with("c.data-00000-of-00001", b"");
    let message = directory.refusal("c");
    assert!(message.contains("expected keys above \"b\" and up to \"c\", found \"a\""), "{message}");
}

/// 4 TiB, more than a machine has and, in a file without contents, no byte on the disk.
#[cfg(target_os = "linux")]
const SPARSE: u64 = 1 << 42;

/// Puts `end` at the end of `name`, made 4 TiB long. `false`, and a word, where the disk has no such files.
#[cfg(target_os = "linux")]
fn stretch(directory: &Directory, name: &str, end: &[u8]) -> bool {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = std::fs::File::options().write(true).open(directory.path(name)).unwrap();
    if let Err(error) = file.set_len(SPARSE) {
        println!("no sparse file was tried: {error}");
        return false;
    }
    file.seek(SeekFrom::End(-(end.len() as i64))).unwrap();
    file.write_all(end).unwrap();
    true
}

/// Metaindex, index of `blocks` (key, offset, size) and footer, for the end of a file of 4 TiB.
#[cfg(target_os = "linux")]
fn far_end(blocks: &[(&[u8], u64, u64)]) -> Vec<u8> {
    let index: Vec<u8> =
        blocks.iter().flat_map(|(key, offset, size)| entry(0, key, &handle(*offset, *size))).collect();
    let sealed = [seal(&block(&[]), 0), seal(&block(&index), 0)];
    let place = SPARSE - 48 - sealed.concat().len() as u64;
    let handles = [
        handle(place, sealed[0].len() as u64 - 5),
        handle(place + sealed[0].len() as u64, sealed[1].len() as u64 - 5),
    ];
    [&sealed.concat()[..], &footer(&handles[0], &handles[1])].concat()
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_is_reserved_for_what_a_sparse_file_holds() {
    let refused = |directory: &Directory, name: &str, expected: &str| {
        let message = directory.refusal(name);
        assert!(message.contains(expected), "{message}\nis not\n{expected}");
    };
    let memory = "of memory that are available, found 4";
    // Nothing but zeros.
    let directory = Directory::new().with("c", b"");
    if !stretch(&directory, "c", b"") {
        return;
    }
    refused(&directory, "c", "it is cut off");
    // A block of nearly all of it: the list of variables, or the values of one.
    let list = {
        let (key, value) = &v1_entries()[0];
        seal(&block(&entry(0, key, value)), 0)
    };
    let size = list.len() as u64;
    for blocks in [
        &[(&b"\xff"[..], 0, SPARSE - 4096)][..],
        &[(b"", 0, size - 5), (b"\xff", size, SPARSE - 4096 - size)],
    ] {
        let directory = Directory::new().with("c", &list);
        assert!(stretch(&directory, "c", &far_end(blocks)));
        refused(&directory, "c", memory);
        // As the index of a V2 checkpoint: no block of one is large.
        let header = seal(&block(&entry(0, b"", &v2_header(1).1)), 0);
        let size = header.len() as u64;
        let blocks: &[(&[u8], u64, u64)] = &[(b"", 0, size - 5), (b"\xff", size, SPARSE - 4096 - size)];
        let directory = Directory::new().with("c.index", &header).with("c.data-00000-of-00001", b"");
        assert!(stretch(&directory, "c.index", &far_end(blocks)));
        refused(&directory, "c", "expected at most 4194304 bytes, found 43980465");
    }
    // Metaindex and index.
    let end = footer(&handle(0, SPARSE - 4096), &handle(SPARSE - 4000, 100));
    let directory = Directory::new().with("c", &list);
    assert!(stretch(&directory, "c", &end));
    refused(
        &directory,
        "c",
        "metaindex block at 0: expected at most 4194304 bytes, found 4398046507008 bytes",
    );
    // The values of a variable in a data file, of every type and in slices.
    for (dtype, size) in [(1, 4), (2, 8), (19, 2), (14, 2)] {
        let half = SPARSE / 2 / size;
        let slices: [Extents<'_>; 2] = [&[Some((0, half))], &[Some((half, half))]];
        let whole =
            [number(1, dtype), run(2, &shape(&[2 * half])), number(5, SPARSE), fixed32(6, 0)].concat();
        let sliced: Vec<u8> = slices.iter().flat_map(|extents| run(7, &slice(extents))).collect();
        let sliced = [number(1, dtype), run(2, &shape(&[2 * half])), sliced].concat();
        for variable in [whole, sliced] {
            let index = table(&[v2_header(1), (b"w".to_vec(), variable)]);
            let directory = Directory::new().with("c.index", &index).with("c.data-00000-of-00001", b"");
            assert!(stretch(&directory, "c.data-00000-of-00001", b""));
            refused(&directory, "c", "of memory that are available, found ");
        }
    }
    // A V1 variable in slices, for which room would be made before any is looked up.
    let half = SPARSE / 16;
    let slices: [Extents<'_>; 2] = [&[Some((0, half))], &[Some((half, half))]];
    let (key, value) = v1_list(&[v1_variable("w", 1, &shape(&[2 * half]), &slices)]);
    let list = seal(&block(&entry(0, &key, &value)), 0);
    let directory = Directory::new().with("c", &list);
    assert!(stretch(&directory, "c", &far_end(&[(b"\xff", 0, list.len() as u64 - 5)])));
    refused(&directory, "c", "of memory that are available, found ");
}
