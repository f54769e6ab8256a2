//! From text to syntax tree.

/// Text that is not PTX, or a construct that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {what}")]
pub struct Error {
    /// Line of the text, from 1.
    pub line: u32,
    /// What was expected or not understood.
    pub what: String,
}
