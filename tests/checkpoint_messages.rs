//! Tables that are sound but whose messages are not, one by one: each is refused with a message of one
//! line that names the file, the variable, what was expected and what was found.

#[path = "support/refusals.rs"]
mod refusals;
#[path = "support/tables.rs"]
mod tables;

use fast_pixel_cnn::checkpoint::Checkpoint;
use refusals::*;
use tables::*;

#[test]
fn damaged_lists_of_variables_are_refused() {
    let list = |bytes: &[u8]| v1_of(&[(Vec::new(), run(1, bytes))]);
    let variable = |bytes: &[u8]| list(&run(1, bytes));
    let shaped = |shape: &[u8]| variable(&[run(1, b"w"), run(2, shape)].concat());
    let sliced = |slice: &[u8]| variable(&[run(1, b"w"), run(4, slice)].concat());
    let cases = [
        (list(&[0x0a, 100, 0]), "expected a field of 100 bytes, found 1 bytes left in its message"),
        (list(&[&[0x0a], &varint(u64::MAX)[..]].concat()), "expected a field of 18446744073709551615 bytes"),
        (list(&[0x0b]), "expected a field of wire type 0, 1, 2 or 5, found wire type 3 in field 1"),
        (list(&[0x0c]), "found wire type 4 in field 1"),
        (list(&[0x0f]), "found wire type 7 in field 1"),
        (list(&[0x02, 0]), "expected a field number from 1 to 2^29 - 1, found 0"),
        (list(&[0x80; 11]), "a varint of at most 10 bytes"),
        (list(&[0x09, 1, 2, 3]), "expected a field of 8 bytes, found 3 bytes left"),
        (list(&[0x0d, 1, 2, 3]), "expected a field of 4 bytes, found 3 bytes left"),
        (list(&number(1, 5)), "expected a variable as a run of bytes, found a varint"),
        (variable(&[]), "expected a variable's name, found none"),
        (variable(&run(1, b"")), "expected a variable's name in UTF-8, found \"\""),
        (variable(&run(1, b"\xff\n")), "expected a variable's name in UTF-8, found \"\\xff\\n\""),
        (variable(&fixed32(3, 1)), "expected a data type as a varint, found 4 bytes"),
        (shaped(&run(2, &number(1, u64::MAX))), "expected a dimension of 0 or more, found -1"),
        (shaped(&number(3, 1)), "expected a shape, found an unknown number of dimensions"),
        (shaped(&number(2, 1)), "expected a dimension as a run of bytes, found a varint"),
        (sliced(&run(1, &number(1, u64::MAX))), "expected the start of a slice of 0 or more, found -1"),
        (sliced(&run(1, &number(2, u64::MAX))), "expected the length of a slice of 0 or more, found -1"),
        (v1_of(&[v1_list(&[w(), w()])]), "expected each variable once, found \"w\" twice"),
        (v1_of(&[(b"x".to_vec(), vec![])]), "expected an entry under the empty key, found none"),
    ];
    for (message, expected) in cases {
        assert!(message.starts_with("the list of variables: expected "), "{message}");
        assert!(message.contains(expected), "{message}\nis not\n{expected}");
    }
}

#[test]
fn shapes_and_slices_that_do_not_fit_are_refused() {
    let two = run(5, &packed(&[1.0, 2.0]));
    let shaped = |dimensions: &[u64]| v1_with(v1_variable("w", 1, &shape(dimensions), &[&[None]]), &two);
    let sliced = |slices: &[Extents<'_>]| v1_with(v1_variable("w", 1, &shape(&[4]), slices), &two);
    let (huge, half) = (i64::MAX as u64, 1 << 33);
    let cases = [
        (shaped(&[1 << 40]), "which the file could hold, found [1099511627776]"),
        (shaped(&[half, half]), "which the file could hold, found [8589934592, 8589934592]"),
        (shaped(&[huge, huge, huge]), "which the file could hold"),
        (shaped(&[1, 2]), "expected slices of 2 dimensions, found 1"),
        (shaped(&[]), "expected slices of 0 dimensions, found 1"),
        (sliced(&[]), "expected slices that cover all 4 values, found 0 slices of 0 values"),
        (sliced(&[&[Some((0, 2))]]), "expected slices that cover all 4 values, found 1 slices of 2 values"),
        (sliced(&[&[Some((0, 2))], &[Some((1, 2))]]), "expected slices that do not overlap"),
        (sliced(&[&[None], &[None]]), "expected slices that do not overlap"),
        (sliced(&[&[Some((2, 3))]]), "expected slices within the 4 of dimension 0, found 3 from 2 on"),
        (sliced(&[&[Some((huge, huge))]]), "expected slices within the 4 of dimension 0"),
        (sliced(&[&[Some((0, 2))], &[Some((2, 2))]]), "expected an entry with its values, found none"),
        (
            v1_with(v1_variable("w", 2, &shape(&[huge, huge]), &[&[None]]), &two),
            "which the file could hold, found [9223372036854775807, 9223372036854775807]",
        ),
        (
            v1_with(v1_variable("w", 3, &shape(&[huge, huge]), &[&[None]]), &two),
            "expected floating-point values, found int32",
        ),
        (v1_with(v1_variable("w", 99, &shape(&[2]), &[&[None]]), &two), "found TensorFlow's type 99"),
        (
            v1_with(v1_variable("v", 1, &shape(&[2]), &[&[None]]), &two),
            "a variable of that name, found none among 1",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.starts_with("tensor \"w\": expected "), "{message}");
        assert!(message.contains(expected), "{message}\nis not\n{expected}");
    }
}

#[test]
fn values_that_do_not_fit_their_shape_are_refused() {
    let value = |value: f32| fixed32(5, value.to_bits());
    let (one, three) = (run(5, &packed(&[1.0])), run(5, &packed(&[1.0; 3])));
    let typed = |dtype, tensor: &[u8]| v1_with(v1_variable("w", dtype, &shape(&[2]), &[&[None]]), tensor);
    let renamed = |saved: Vec<u8>| v1_of(&[v1_list(&[w()]), (slice_key("w", &[None]), run(2, &saved))]);
    let cases = [
        (v1_with(w(), &[]), "expected 2 values, found 0"),
        // One value may stand for all in other messages, not in a checkpoint.
        (v1_with(w(), &one), "expected 2 values, found 1"),
        (v1_with(w(), &value(1.0)), "expected 2 values, found 1"),
        (v1_with(w(), &three), "expected 2 values of 4 bytes, found 4 bytes more"),
        (v1_with(w(), &[one.clone(), one.clone(), one].concat()), "found 4 bytes more"),
        (v1_with(w(), &[value(1.0), value(2.0), value(3.0)].concat()), "expected 2 values, found more"),
        (v1_with(w(), &run(5, &[0; 7])), "expected 2 values of 4 bytes, found 3 bytes more"),
        (v1_with(w(), &number(5, 1)), "expected a value as 4 bytes, found a varint"),
        (v1_with(w(), &[number(1, 2), three].concat()), "expected float32 values, found float64"),
        (typed(2, &run(6, &[0; 24])), "expected 2 values of 8 bytes, found 8 bytes more"),
        (typed(2, &run(6, &[0; 15])), "expected 2 values of 8 bytes, found 7 bytes more"),
        (typed(2, &run(5, &[0; 8])), "expected 2 values, found 0"),
        (typed(2, &fixed32(6, 0)), "expected a value as 8 bytes, found 4 bytes"),
        (typed(19, &run(13, &[0; 3])), "expected 2 values, found more"),
        (typed(19, &run(13, &[0])), "expected 2 values, found 1"),
        (typed(19, &run(13, &[0, 0x80])), "expected a varint, found the end of the data inside it"),
        (typed(19, &[number(1, 1), run(13, &[0, 0])].concat()), "expected float16 values, found float32"),
        (typed(14, &fixed32(13, 0)), "expected a value as a varint, found 4 bytes"),
        (v1_with(w(), &run(4, &packed(&[1.0, 2.0]))), "expected 2 values, found 0"),
        (renamed(run(1, b"v")), "expected the name of its key in the entry, found \"v\" in it"),
        (
            renamed([run(1, b"w"), run(2, &slice(&[Some((0, 2))]))].concat()),
            "expected the slice of its key in the entry",
        ),
        (renamed(vec![]), "expected the name of its key in the entry, found \"\" in it"),
    ];
    for (message, expected) in cases {
        assert!(message.starts_with("tensor \"w\": expected "), "{message}");
        assert!(message.contains(expected), "{message}\nis not\n{expected}");
    }
    // Not every number on its own needs to be packed.
    let doubles = [1.5f64, -2.0].map(|value| [&[6 << 3 | 1][..], &value.to_le_bytes()].concat()).concat();
    let halves = [0x3e00, 0xc000].map(|bits| number(13, bits)).concat();
    let cases = [
        (1, [value(1.5), value(-2.0)].concat()),
        (2, doubles),
        (19, halves.clone()),
        (19, run(13, &[varint(0x3e00), varint(0xc000)].concat())),
        (14, [0x3fc0, 0xc000].map(|bits| number(13, bits)).concat()),
    ];
    for (dtype, tensor) in cases {
        let list = v1_list(&[v1_variable("w", dtype, &shape(&[2]), &[&[None]])]);
        let directory = Directory::new().with("c", &table(&[list, v1_slice("w", &[None], &tensor)]));
        let values = Checkpoint::open(&directory.path("c")).unwrap().read_f32("w").unwrap();
        assert_eq!(values, [1.5, -2.0], "type {dtype}");
    }
}

#[test]
fn damaged_bundles_are_refused() {
    let data = packed(&[1.5, -2.0]);
    let header = |bytes: Vec<u8>| v2_of(&[(Vec::new(), bytes)], &data);
    let of = |value: Vec<u8>| v2_of(&[v2_header(1), (b"w".to_vec(), value)], &data);
    let sound = || v2_variable(1, &shape(&[2]), 0, &data);
    let also = |field: Vec<u8>| of([sound(), field].concat());
    // A header of 142 bytes in all and a string tensor of a huge shape crashed TensorFlow's own reader.
    let huge = shape(&[i64::MAX as u64, i64::MAX as u64, 8]);
    let cases = [
        (
            header([number(1, 1), number(2, 1)].concat()),
            "c.index: a TensorFlow V2 checkpoint with big-endian values; ",
        ),
        (
            header([number(1, 1), run(3, &number(2, 2))].concat()),
            "c.index: a checkpoint for readers of version 2 and later; ",
        ),
        (header(number(1, 0)), "c.index: the bundle's header: expected 1 to 99999 data files, found 0"),
        (header(number(1, 1 << 31)), "expected 1 to 99999 data files, found 2147483648"),
        (header(number(1, u64::MAX)), "expected the number of shards of 0 or more, found -1"),
        (header(number(1, 99_999)), "c.data-00000-of-99999: cannot open: "),
        (header(run(1, b"x")), "c.index: the bundle's header: expected the number of shards as a varint"),
        (v2_of(&[(b"w".to_vec(), vec![])], &data), "expected an entry under the empty key, found none"),
        (also(number(3, 1)), "c.index: entry \"w\": expected a shard below 1, found 1"),
        (also(number(3, u64::MAX)), "expected a shard's number of 0 or more, found -1"),
        (also(number(4, 1)), "expected 8 bytes at 1 of c.data-00000-of-00001, found a file of 8 bytes"),
        (also(number(4, i64::MAX as u64)), "found a file of 8 bytes"),
        (also(number(4, u64::MAX)), "expected an offset of 0 or more, found -1"),
        (also(number(5, u64::MAX)), "expected a size of 0 or more, found -1"),
        (also(number(5, 4)), "c.index: tensor \"w\": expected 2 values of 4 bytes, found 4 bytes"),
        (also(number(5, 7)), "c.index: tensor \"w\": expected 2 values of 4 bytes, found 7 bytes"),
        (
            also(fixed32(6, 0)),
            "c.data-00000-of-00001: tensor \"w\" at byte 0: expected checksum 00000000, found ",
        ),
        (
            also(run(2, &number(3, 1))),
            "c.index: entry \"w\": expected a shape, found an unknown number of dimensions",
        ),
        (also(run(2, &run(2, &number(1, u64::MAX)))), "expected a dimension of 0 or more, found -1"),
        (
            of(v2_variable(7, &huge, 0, &data)),
            "c.index: tensor \"w\": expected floating-point values, found string",
        ),
        (of(v2_variable(1, &huge, 0, &data)), "which the file could hold"),
        (of(vec![]), "c.index: tensor \"w\": expected floating-point values, found TensorFlow's type 0"),
        (
            of(vec![0x0b]),
            "c.index: entry \"w\": expected a field of wire type 0, 1, 2 or 5, found wire type 3",
        ),
        (
            v2_of(&[v2_header(1), (b"\xff".to_vec(), sound())], &data),
            "expected a variable's name in UTF-8, found other bytes",
        ),
        (
            v2_of(
                &[
                    v2_header(1),
                    (b"v".to_vec(), v2_variable(9, &[], 0, &data[..5])),
                    (b"w".to_vec(), sound()),
                ],
                &data,
            ),
            "expected values at or behind byte",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message}\nis not\n{expected}");
    }
}

#[test]
fn bundles_with_damaged_slices_are_refused() {
    let data = packed(&[1.5, -2.0]);
    let halves: [Extents<'_>; 2] = [&[Some((0, 1))], &[Some((1, 1))]];
    let sliced = |slices: &[Extents<'_>]| {
        let slices: Vec<u8> = slices.iter().flat_map(|extents| run(7, &slice(extents))).collect();
        (b"w".to_vec(), [number(1, 1), run(2, &shape(&[2])), slices].concat())
    };
    let part = |extents: Extents<'_>, dtype, offset: usize, size: usize| {
        let value = v2_variable(dtype, &shape(&[1]), offset as u64, &data[offset..offset + size]);
        (slice_key("w", extents), value)
    };
    let of = |entries: &[Entry]| v2_of(&[&[v2_header(1)], entries].concat(), &data);
    let cases = [
        (
            of(&[part(halves[0], 1, 0, 4), sliced(&halves)]),
            "expected an entry for each of its slices, found none for one",
        ),
        (
            of(&[part(halves[0], 1, 0, 4), sliced(&halves[..1])]),
            "expected slices that cover all 2 values, found 1 slices of 1 values",
        ),
        (
            of(&[part(halves[0], 1, 0, 4), part(halves[1], 3, 4, 4), sliced(&halves)]),
            "expected float32 slices, found int32",
        ),
        (
            of(&[part(halves[0], 1, 0, 4), part(halves[1], 1, 4, 3), sliced(&halves)]),
            "expected 1 values of 4 bytes, found 3 bytes",
        ),
        (
            of(&[part(halves[0], 1, 0, 4), part(halves[1], 1, 2, 4), sliced(&halves)]),
            "expected values at or behind byte 4 of shard 0, found two variables' at byte 2",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message}\nis not\n{expected}");
    }
}
