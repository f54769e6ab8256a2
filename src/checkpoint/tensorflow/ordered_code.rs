//! The keys under which slices of tensors are stored: encoded so that the bytes sort as the values do.
//!
//! The idea: nothing is decoded. A reader knows from the metadata which slices exist, makes the key of
//! each and looks it up. Source: TensorFlow's `lib/strings/ordered_code.cc` and
//! `util/saved_tensor_slice_util.cc`.

/// Appends a number of 0 or more: how many bytes it needs, then those, highest first.
fn natural(key: &mut Vec<u8>, value: u64) {
    let bytes = value.to_be_bytes();
    let skipped = value.leading_zeros() as usize / 8;
    key.push((8 - skipped) as u8);
    key.extend_from_slice(&bytes[skipped..]);
}

/// Appends a string: its bytes, with a second byte after each 0x00 and 0xff to tell them from the end.
fn string(key: &mut Vec<u8>, value: &[u8]) {
    for &byte in value {
        key.push(byte);
        match byte {
            0x00 => key.push(0xff),
            0xff => key.push(0x00),
            _ => {}
        }
    }
    key.extend_from_slice(&[0x00, 0x01]);
}

/// Appends a number of either sign: its low bytes, highest first, headed by as many set bits (clear
/// ones for a negative number) as it takes bytes, each of which so carries 7 bits.
fn integer(key: &mut Vec<u8>, value: i64) {
    let magnitude = if value < 0 { !value } else { value };
    let length = (64 - magnitude.leading_zeros() as usize) / 7 + 1;
    let mut bytes = [if value < 0 { 0xff } else { 0 }; 10];
    bytes[2..].copy_from_slice(&value.to_be_bytes());
    let bytes = &mut bytes[10 - length..];
    let header = !(0xffff_u32 >> length) as u16;
    bytes[0] ^= (header >> 8) as u8;
    if let Some(second) = bytes.get_mut(1) {
        *second ^= header as u8;
    }
    key.extend_from_slice(bytes);
}

/// The key of a slice of the tensor `name`: for each dimension its start and its length, which is -1
/// where the slice takes the whole dimension.
pub(super) fn slice_key(name: &str, extents: impl ExactSizeIterator<Item = (i64, i64)>) -> Vec<u8> {
    let mut key = Vec::new();
    natural(&mut key, 0);
    string(&mut key, name.as_bytes());
    natural(&mut key, extents.len() as u64);
    for (start, length) in extents {
        integer(&mut key, start);
        integer(&mut key, length);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodings worked out by hand from the description of the format; those of real checkpoints are
    /// tested with the golden files.
    #[test]
    fn integers_are_encoded_as_described() {
        let cases: [(i64, &[u8]); 11] = [
            (0, &[0x80]),
            (1, &[0x81]),
            (63, &[0xbf]),
            (64, &[0xc0, 0x40]),
            (8191, &[0xdf, 0xff]),
            (8192, &[0xe0, 0x20, 0x00]),
            (-1, &[0x7f]),
            (-64, &[0x40]),
            (-65, &[0x3f, 0xbf]),
            (1 << 55, &[0xff, 0x80, 0x80, 0, 0, 0, 0, 0, 0]),
            (i64::MAX, &[0xff, 0xc0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ];
        for (value, expected) in cases {
            let mut key = Vec::new();
            integer(&mut key, value);
            assert_eq!(key, expected, "{value}");
        }
    }

    #[test]
    fn encodings_sort_as_their_numbers_do() {
        let mut values = vec![i64::MIN, i64::MAX, 0];
        for bit in 0..63 {
            for near in -1..=1 {
                values.extend([(1_i64 << bit) + near, -(1_i64 << bit) + near]);
            }
        }
        values.sort();
        values.dedup();
        let keys = values.iter().map(|&value| {
            let mut key = Vec::new();
            integer(&mut key, value);
            key
        });
        assert!(keys.collect::<Vec<_>>().is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_whole_tensor_has_start_0_and_length_minus_1_in_each_dimension() {
        assert_eq!(
            slice_key("g\0\u{e9}", [(0, -1), (300, 2)].into_iter()),
            b"\0g\0\xff\xc3\xa9\0\x01\x01\x02\x80\x7f\xc1\x2c\x82"
        );
    }
}
