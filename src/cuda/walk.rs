//! The stages of a pixel one after the other: what each reads and what each makes.
//!
//! The idea: whether an input has just been made, and by which step, follows from positions of maps alone. So it is found out once
//! for each class of pixels, and a kernel that keeps what its last steps have made is told where everything is.

use std::collections::HashMap;
use std::ops::Range;

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

/// A step of one of some pixels.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// None for a pixel that has no stage.
    pub step: Option<Step<'a>>,
    /// The number of its pixel.
    pub pixel: usize,
}

/// Pixels of a class of rows, one after the other.
pub struct Sequence<'a> {
    /// Their steps.
    pub steps: Vec<At<'a>>,
    /// Those of the pixels of a period, which others come before.
    pub steady: Range<usize>,
    /// Which step makes what; what is drawn is there behind its pixel's last.
    pub makers: HashMap<Made, usize>,
}

impl<'a> Sequence<'a> {
    /// For rows like one, with at least so many pixels before the period. `rows_follow`: a row is one pixel, and the next row's
    /// the next pixel.
    pub fn new(
        plan: &Plan,
        steps: &Steps,
        schedule: &'a Schedule,
        (row, rows_follow): (usize, bool),
        before: usize,
    ) -> Sequence<'a> {
        let (period, previous) = (steps.period, usize::from(plan.graph.input.previous));
        // Behind as many pixels as anybody looks back: what was made before has no maker here.
        let (first, before) = (row + 64 * period, before.next_multiple_of(period));
        let (mut all, mut makers, mut begin) = (Vec::new(), HashMap::new(), 0);
        for pixel in 0..before + period {
            if pixel == before {
                begin = all.len();
            }
            let (row, column) = if rows_follow { (first + pixel, 0) } else { (first, pixel) };
            let of_pixel = of_pixel(plan, steps, schedule, row, column);
            if of_pixel.is_empty() {
                all.push(At { step: None, pixel });
            }
            for step in of_pixel {
                makers.insert(step.output(), all.len());
                all.push(At { step: Some(step), pixel });
            }
            let drawn = if rows_follow { [row + previous, 0] } else { [row, column + previous] };
            let [row, column] = drawn.map(|n| n as isize);
            makers.insert(Made { base: schedule.image.base, row, column }, all.len() - 1);
        }
        Sequence { steady: begin..all.len(), steps: all, makers }
    }
}
