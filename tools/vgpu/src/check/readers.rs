//! Readers of a word beyond the two that its cells hold.
//!
//! The idea: a barrier of the whole block lets one reader stand for all before it. Where barriers are of some warps none
//! may, and the last read of each warp is kept until somebody writes there.

use super::cell::Cell;

/// For each grain of a segment, more who have read it since it was written.
#[derive(Debug)]
pub struct Readers(Vec<Vec<Cell>>);

impl Readers {
    /// For so many grains.
    pub fn new(grains: usize) -> Readers {
        Readers(vec![Vec::new(); grains])
    }

    /// One grain for each byte of a word, from now on.
    pub fn refine(&mut self) {
        self.0 = self.0.iter().flat_map(|cells| std::array::from_fn::<_, 4, _>(|_| cells.clone())).collect();
    }

    /// Keeps one more. Those before `start` are over.
    pub fn keep(&mut self, grain: usize, old: Cell, start: Cell) {
        if old < start {
            return;
        }
        let cells = &mut self.0[grain];
        let same = |cell: &Cell| cell.warp() == old.warp() && cell.strong() == old.strong();
        match cells.iter_mut().find(|cell| **cell < start || same(cell)) {
            Some(cell) => *cell = old,
            None => cells.push(old),
        }
    }

    /// Those of a grain, which are forgotten with that.
    pub fn take(&mut self, grain: usize) -> impl Iterator<Item = Cell> {
        self.0[grain].drain(..)
    }

    /// Those of a grain.
    pub fn of(&self, grain: usize) -> impl Iterator<Item = Cell> {
        self.0[grain].iter().copied()
    }
}
