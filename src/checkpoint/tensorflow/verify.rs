//! Verifies what nobody asks for: a checkpoint's data whatever their type.
//!
//! The idea: a V1 file's blocks have their checksums, a V2 variable's data one of their own, so neither has
//! to be understood, but for one thing: TensorFlow takes that of V2 strings not over the bytes of the file
//! but with each length as a number of 4 bytes, or of 8 where it needs them (`tensor_bundle.cc`,
//! `WriteStringTensor`).

use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Take};

use crate::checkpoint::DType;
use crate::checkpoint::fault::Fault;

/// Whether it is known how the checksum of such values is made in a V2 checkpoint: not for handles and
/// variants, which are objects of the program that wrote them.
pub(super) fn is_known(dtype: DType) -> bool {
    !matches!(dtype, DType::Other(20 | 21))
}

/// Bytes that are read at a time: few enough to be in the cache when their checksum is computed.
const PIECE: u64 = 1 << 18;

/// The checksum, not yet masked, of the data of `count` values of a type that [`is_known`]. Reads them to the
/// end.
pub(super) fn checksum(
    data: Take<impl Read>,
    dtype: DType,
    count: u64,
) -> Result<std::result::Result<u32, Fault>> {
    let piece = data.limit().min(PIECE) as usize;
    let mut data = BufReader::with_capacity(piece, data);
    match dtype {
        DType::String => of_strings(data, count),
        _ => of_bytes(&mut data, 0).map(|(checksum, _)| Ok(checksum)),
    }
}

/// Goes on with a checksum over what is left, and counts it.
fn of_bytes(data: &mut impl BufRead, mut checksum: u32) -> Result<(u32, u64)> {
    let mut count = 0;
    loop {
        let piece = match data.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let length = piece.len();
        if length == 0 {
            return Ok((checksum, count));
        }
        checksum = crc32c::crc32c_append(checksum, piece);
        count += length as u64;
        data.consume(length);
    }
}

/// The lengths as varints, their checksum in 4 bytes, then the strings.
fn of_strings(mut data: impl BufRead, count: u64) -> Result<std::result::Result<u32, Fault>> {
    let (mut checksum, mut total) = (0, 4u64);
    for _ in 0..count {
        let Some(length) = varint(&mut data)? else {
            let found = "the end of the data, or a longer number, among them";
            return Ok(Err(Fault::new(format!("the lengths of {count} strings"), found)));
        };
        checksum = match u32::try_from(length) {
            Ok(length) => crc32c::crc32c_append(checksum, &length.to_le_bytes()),
            Err(_) => crc32c::crc32c_append(checksum, &length.to_le_bytes()),
        };
        total = total.saturating_add(length);
    }
    let (checksum, left) = of_bytes(&mut data, checksum)?;
    if left != total {
        return Ok(Err(Fault::new(format!("{total} bytes behind the lengths of strings"), left.to_string())));
    }
    Ok(Ok(checksum))
}

/// A number in groups of 7 bits, lowest first; `None` if there is none of at most 64 bits.
fn varint(data: &mut impl BufRead) -> Result<Option<u64>> {
    let mut bytes = Vec::with_capacity(10);
    for byte in data.take(10).bytes() {
        bytes.push(byte?);
        if bytes.last().is_some_and(|byte| byte & 0x80 == 0) {
            break;
        }
    }
    Ok(super::wire::varint(&mut &bytes[..]).ok())
}
