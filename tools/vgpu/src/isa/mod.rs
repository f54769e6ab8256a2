//! The instruction set.
//!
//! The idea: what an instruction does to each lane on its own is a row of a table: its names, its types
//! and an expression. Only what concerns the warp as a whole (memory, control, exchange between lanes)
//! is code.

pub mod half;
pub mod instruction;
pub mod lanes;
pub mod memory;
pub mod rounding;
pub mod row;
pub mod table;

mod arithmetic;
mod compare;
mod convert;
mod integer;
mod special;
