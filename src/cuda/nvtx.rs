//! Named ranges in a profile: a no-operation unless built with the feature `nvtx`.

/// A range that ends when it is dropped.
pub struct Range;

impl Range {
    /// Begins a range inside those that have begun and not ended.
    pub fn new(_name: &str) -> Range {
        Range
    }
}
