//! Which rows a naive pass computes.
//!
//! The idea: a row depends on so many above it and on no others. So a pass for some rows of a tall image need not
//! begin at the first, and one pixel of a long sound costs one receptive field.

use super::Plan;

/// The rows of a pass over images of some height: all, or, where the last of them depend on fewer, those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows of a pass.
    pub rows: usize,
    /// How many of the last see all that they depend on, wherever the pass begins.
    right: usize,
}

impl Window {
    /// The window of a plan for images of a height.
    pub fn new(plan: &Plan, height: usize) -> Window {
        let period = plan.graph.period();
        let above = (plan.graph.receptive_rows() - 1).next_multiple_of(period);
        match above + period < height {
            true => Window { rows: above + period, right: period },
            false => Window { rows: height, right: height },
        }
    }

    /// The first row of a pass whose logits are right at `row`, and where the rows end, from `row` on, at which they
    /// are.
    pub fn at(&self, row: usize) -> (usize, usize) {
        let end = (row / self.right + 1) * self.right;
        if row < self.rows { (0, self.rows) } else { (end - self.rows, end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::PixelCnnPp;

    #[test]
    fn a_window_has_what_its_last_rows_depend_on() {
        let plan = Plan::new(PixelCnnPp { resnets: 1, ..PixelCnnPp::PAPER }.graph());
        let (period, depends) = (plan.graph.period(), plan.graph.receptive_rows());
        let low = Window::new(&plan, depends);
        assert_eq!((low.rows, low.at(0), low.at(depends - 1)), (depends, (0, depends), (0, depends)));
        let height = 4 * depends.next_multiple_of(period);
        let window = Window::new(&plan, height);
        assert!(window.rows < height && window.rows.is_multiple_of(period));
        for row in 0..height {
            let (first, end) = window.at(row);
            assert!((first..end).contains(&row) && end <= height && end - first == window.rows);
            assert!(first == 0 || row - first + 1 >= depends, "{row}: from {first} on");
            assert!(first.is_multiple_of(period), "{row}: from {first} on");
        }
    }
}
