//! The rules of order: which accesses happen before which.

/// The order of a block's accesses.
#[derive(Debug, Default)]
pub struct BlockOrder {}

/// The order of a grid's accesses.
#[derive(Debug, Default)]
pub struct GridOrder {}
impl GridOrder {
    /// A
    pub fn new(_l: &crate::exec::Launch<'_>, _m: &crate::memory::Memory) -> GridOrder {
        GridOrder {}
    }
}
