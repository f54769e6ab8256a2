//! From text to syntax tree.
//!
//! The idea: PTX is an assembly language with a small grammar: directives, labels and instructions. The
//! tree keeps opcodes as they are written; what they mean is the decoder's affair. All names are slices
//! of the text.

mod parse;
mod statements;
mod tokens;
mod tree;

pub use parse::parse;
pub use tree::{Function, Init, Module, Operand, Space, Statement, StatementKind, Type, Variable};

/// Text that is not PTX, or a construct that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {what}")]
pub struct Error {
    /// Line of the text, from 1.
    pub line: u32,
    /// What was expected or not understood.
    pub what: String,
}

impl Error {
    /// An error at a line.
    pub fn new(line: u32, what: impl Into<String>) -> Error {
        Error { line, what: what.into() }
    }
}
