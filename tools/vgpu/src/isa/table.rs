//! The table of lane-wise instructions, put together from the parts by concern.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::row::Row;

/// The mnemonics of rows that only the decoder names: no PTX has them.
pub const INTERNAL: [&str; 7] = ["flush", "saturate", "relu", "clamp", "shake", "pack", "unpack"];

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Row> {
    use super::{arithmetic, compare, convert, integer, special};
    let tables = [
        arithmetic::F32,
        arithmetic::F64,
        arithmetic::HALF,
        integer::INTEGER,
        integer::BITS,
        compare::COMPARE,
        compare::SELECT,
        convert::BETWEEN_INTEGERS,
        convert::TO_INTEGER,
        convert::FROM_INTEGER,
        convert::BETWEEN_FLOATS,
        special::EXACT,
        special::EXACT_LONG,
        special::APPROXIMATE,
        special::INTERNAL,
        special::SHAKE,
    ];
    tables.into_iter().flatten()
}

/// The row of an opcode.
pub fn find(opcode: &str) -> Option<&'static Row> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Row>> = OnceLock::new();
    let by_name = BY_NAME.get_or_init(|| {
        let mut names = HashMap::new();
        for row in all() {
            for name in row.names {
                names.insert(*name, row);
            }
        }
        names
    });
    by_name.get(opcode).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_rows_share_a_name() {
        let mut seen = HashSet::new();
        for name in all().flat_map(|row| row.names) {
            assert!(seen.insert(name), "{name} is in two rows");
        }
    }
}
