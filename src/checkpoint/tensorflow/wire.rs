//! The wire format of protocol buffers: numbered fields, each a varint, 8 bytes, 4 bytes or a run of
//! bytes.
//!
//! The idea: a message is an iterator over (number, value), and nothing is copied. What the numbers
//! mean stands in [`super::messages`]. Source: the "Encoding" page of the protocol buffers' manual.

use crate::checkpoint::fault::Fault;

/// Takes a base-128 number, lowest group first, off the front of `bytes`.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, Fault> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        let group = u64::from(byte & 0x7f);
        if i == 9 && group > 1 {
            return Err(Fault::new("a varint of at most 64 bits", "a longer one"));
        }
        value |= group << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    Err(if bytes.len() >= 10 {
        Fault::new("a varint of at most 10 bytes", "a longer one")
    } else {
        Fault::new("a varint", "the end of the data inside it")
    })
}

/// The value of one field, as far as the wire tells it.
pub(super) enum Value<'a> {
    /// Integers, booleans and enums.
    Varint(u64),
    /// Doubles, from their eight little-endian bytes.
    Fixed64(u64),
    /// Strings, embedded messages and packed numbers.
    Bytes(&'a [u8]),
    /// Floats and checksums, from their four little-endian bytes.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    fn kind(&self) -> &'static str {
        match self {
            Value::Varint(_) => "a varint",
            Value::Fixed64(_) => "8 bytes",
            Value::Bytes(_) => "a run of bytes",
            Value::Fixed32(_) => "4 bytes",
        }
    }

    fn not(&self, what: &str, kind: &str) -> Fault {
        Fault::new(format!("{what} as {kind}"), self.kind())
    }

    /// The number, if `what` is one.
    pub fn varint(self, what: &str) -> Result<u64, Fault> {
        match self {
            Value::Varint(value) => Ok(value),
            other => Err(other.not(what, "a varint")),
        }
    }

    /// The number, if `what` is an int64 that is not negative.
    pub fn natural(self, what: &str) -> Result<u64, Fault> {
        let value = self.varint(what)?;
        if value > i64::MAX as u64 {
            return Err(Fault::new(format!("{what} of 0 or more"), (value as i64).to_string()));
        }
        Ok(value)
    }

    /// The bytes, if `what` is a string, a message or packed.
    pub fn bytes(self, what: &str) -> Result<&'a [u8], Fault> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(other.not(what, "a run of bytes")),
        }
    }

    /// The eight bytes, if `what` is a fixed64.
    pub fn fixed64(self, what: &str) -> Result<u64, Fault> {
        match self {
            Value::Fixed64(value) => Ok(value),
            other => Err(other.not(what, "8 bytes")),
        }
    }

    /// The four bytes, if `what` is a fixed32.
    pub fn fixed32(self, what: &str) -> Result<u32, Fault> {
        match self {
            Value::Fixed32(value) => Ok(value),
            other => Err(other.not(what, "4 bytes")),
        }
    }
}

/// The fields of one message, in the order of the wire. After an error it must not be asked again.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let taken = usize::try_from(length).ok().and_then(|n| self.0.split_at_checked(n));
        let Some((head, tail)) = taken else {
            return Err(Fault::new(
                format!("a field of {length} bytes"),
                format!("{} bytes left in its message", self.0.len()),
            ));
        };
        self.0 = tail;
        Ok(head)
    }

    /// The next field's number and value.
    pub fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = varint(&mut self.0)?;
        let number = match u32::try_from(tag >> 3) {
            Ok(number @ 1..=0x1fff_ffff) => number,
            _ => {
                return Err(Fault::new("a field number from 1 to 2^29 - 1", (tag >> 3).to_string()));
            }
        };
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => {
                let (bytes, _) = self.take(8)?.as_chunks::<8>();
                Value::Fixed64(u64::from_le_bytes(bytes[0]))
            }
            2 => {
                let length = varint(&mut self.0)?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            other => {
                return Err(Fault::new(
                    "a field of wire type 0, 1, 2 or 5",
                    format!("wire type {other} in field {number}"),
                ));
            }
        };
        Ok(Some((number, value)))
    }
}
