//! The stages of a pixel one after the other: what each reads and what each makes.
//!
//! The idea: whether an input has just been made, and by which step, follows from positions of maps alone. So it is found out once
//! for each class of pixels, and a kernel that keeps what its last steps have made is told where everything is.

use super::abi::{Grid, Tap};
use super::schedule::Schedule;
use super::stage::Stage;
use crate::plan::Plan;
use crate::plan::steps::{Run, Steps};

/// What a step has made of an image: a position of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Made {
    /// Where the map begins.
    pub base: u64,
    /// Its row.
    pub row: isize,
    /// Its column.
    pub column: isize,
}

/// A stage of the pixel phase at a pixel.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// Its index in the table.
    pub index: usize,
    /// The piece that it runs.
    pub piece: usize,
    /// The stage's own row and column.
    pub at: [isize; 2],
}

impl Step<'_> {
    /// The position that it makes.
    pub fn output(&self) -> Made {
        self.at_output(self.stage.header.output)
    }

    /// The same position of another map.
    pub fn at_output(&self, grid: Grid) -> Made {
        let header = &self.stage.header;
        let [row, column] = self.at.map(|at| at * header.output_step as isize);
        let (row, column) = (row + header.parity_row as isize, column + header.parity_column as isize);
        Made { base: grid.base, row, column }
    }

    /// The position that a tap reads.
    pub fn input(&self, tap: &Tap) -> Made {
        let [row, column] = self.at.map(|at| at * self.stage.header.input_step as isize);
        Made { base: tap.source.base, row: row + tap.row as isize, column: column + tap.column as isize }
    }
}

/// The steps of a pixel, in the order of the schedule.
pub fn of_pixel<'a>(
    plan: &Plan,
    steps: &Steps,
    schedule: &'a Schedule,
    row: usize,
    column: usize,
) -> Vec<Step<'a>> {
    let period = steps.period;
    let stages = schedule.pixels[row % period][column % period].iter().flat_map(|&launch| {
        let launch = &schedule.table.launches[launch];
        launch.first..launch.first + launch.count
    });
    let runs = steps.pixel(row, column).iter().flatten();
    let step = |(index, run): (usize, &Run)| {
        let piece = &plan.pieces[run.piece];
        let at = [(0, row), (1, column)]
            .map(|(axis, at)| piece.step(axis, at).expect("it runs at this pixel") as isize);
        Step { stage: schedule.table.stage(index), index, piece: run.piece, at }
    };
    stages.zip(runs).map(step).collect()
}
