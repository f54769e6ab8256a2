//! The floating-point values of a TensorProto, as V1 files have them.
//!
//! The idea: TensorFlow writes every value of a V1 file to the list of its type (`float_val`, `double_val`,
//! `half_val`), packed or one by one, never to `tensor_content`; and it reads them without the rule by which
//! one value may stand for all. So a tensor is right if its list has as many values as its shape.

use super::messages::dtype;
use super::wire::{Fields, Value, varint};
use crate::checkpoint::DType;
use crate::checkpoint::fault::Fault;
use crate::checkpoint::zeros;

/// The fewest bytes of a value: those of half precision are varints.
pub(super) fn least_size(of: DType) -> usize {
    match of {
        DType::Float64 => 8,
        DType::Float16 | DType::BFloat16 => 1,
        _ => 4,
    }
}

/// The field with the values of a type.
fn list(of: DType) -> u32 {
    match of {
        DType::Float64 => 6,
        DType::Float16 | DType::BFloat16 => 13,
        _ => 5,
    }
}

/// The `count` values in `tensor`, which are of type `of`.
pub(super) fn read(tensor: &[u8], of: DType, count: usize) -> Result<Vec<f32>, Fault> {
    // A count that the bytes cannot hold reserves no memory.
    let values = zeros::<f32>(count.min(tensor.len() / least_size(of)))?;
    let mut list_of = List { of, count, values, filled: 0 };
    let mut fields = Fields(tensor);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, value) => match dtype(value)? {
                found if found == of || found == DType::Other(0) => {}
                other => return Err(Fault::new(format!("{of} values"), other.to_string())),
            },
            (number, Value::Bytes(packed)) if number == list(of) => list_of.take_packed(packed)?,
            (number, value) if number == list(of) => list_of.take(value)?,
            _ => {}
        }
    }
    if list_of.filled != count {
        return Err(Fault::new(format!("{count} values"), list_of.filled.to_string()));
    }
    Ok(list_of.values)
}

/// The values that are wanted, and those that have been found.
struct List {
    of: DType,
    count: usize,
    values: Vec<f32>,
    filled: usize,
}

impl List {
    fn push(&mut self, value: f32) -> Result<(), Fault> {
        match self.values.get_mut(self.filled) {
            Some(place) => *place = value,
            None => return Err(Fault::new(format!("{} values", self.count), "more")),
        }
        self.filled += 1;
        Ok(())
    }

    fn take(&mut self, value: Value<'_>) -> Result<(), Fault> {
        let value = match self.of {
            DType::Float64 => f64::from_bits(value.fixed64("a value")?) as f32,
            DType::Float16 | DType::BFloat16 => self.of.widen_bits(value.varint("a value")? as u16),
            _ => f32::from_bits(value.fixed32("a value")?),
        };
        self.push(value)
    }

    fn take_packed(&mut self, mut packed: &[u8]) -> Result<(), Fault> {
        if least_size(self.of) == 1 {
            while !packed.is_empty() {
                let value = varint(&mut packed)?;
                self.push(self.of.widen_bits(value as u16))?;
            }
            return Ok(());
        }
        let size = least_size(self.of);
        let (found, left) = (packed.len() / size, self.count - self.filled);
        if !packed.len().is_multiple_of(size) || found > left {
            let more = packed.len() % size + size * found.saturating_sub(left);
            return Err(Fault::new(
                format!("{} values of {size} bytes", self.count),
                format!("{more} bytes more"),
            ));
        }
        self.of.widen(packed, &mut self.values[self.filled..][..found]);
        self.filled += found;
        Ok(())
    }
}
