//! The picture of a run's images: still, as a grid, and moving.
//!
//! The idea: an animation is of the grid that is written beside it, and what could not be animated after hours
//! of work is refused before them.

use std::path::PathBuf;

use fast_pixel_cnn::animation::{self, Scene};
use fast_pixel_cnn::engine::{Engine, Method};
use fast_pixel_cnn::generate::{self, Classes, Generated, Race, Run};
use fast_pixel_cnn::images::{self, Grid};
use fast_pixel_cnn::{Error, Result};

use crate::args::Args;

/// The grid: a column for each class, if the images go through the classes.
pub fn layout(run: &Run, classes: usize, count: usize) -> Grid {
    match (classes, run.classes) {
        (classes @ 1.., None | Some(Classes::All)) => {
            let first_class = run.first_index % classes as u64;
            Grid::by_class(count, first_class as usize, classes)
        }
        _ => Grid::near_square(count, run.height, run.width),
    }
}

/// What an animation of the first `count` images of a run shows.
fn scene(run: &Run, classes: usize, count: usize) -> Scene {
    let given_rows = run.given.map_or(0, |given| given.rows);
    let grid = layout(run, classes, count);
    Scene { grid, count, height: run.height, width: run.width, given_rows }
}

/// Refuses, before hours of work, an animation that could not be made after them.
pub fn check_animation(args: &Args, engine: &dyn Engine, run: &Run, available: Option<u64>) -> Result<()> {
    let Some(file) = &args.animate else { return Ok(()) };
    animation::check(file, &scene(run, engine.graph().classes, run.count), args.side_by_side)?;
    if args.side_by_side {
        if run.given.is_some_and(|given| given.rows == run.height) {
            let reason = "all rows are kept: there are none to compare the two methods on";
            return Err(Error::refused("--side-by-side", reason));
        }
        Run { method: Method::Naive, ..*run }.check(engine, available)?;
    }
    Ok(())
}

/// Writes the animation that was asked for, if there is anything to show, and adds it to the files
/// written. Returns what was measured for it.
pub fn animate(
    args: &Args,
    engine: &mut dyn Engine,
    run: &Run,
    made: &Generated,
    written: &mut Vec<PathBuf>,
) -> Result<Option<Race>> {
    let Some(file) = args.animate.as_ref().filter(|_| !made.images.is_empty()) else { return Ok(None) };
    let race = args.side_by_side.then(|| generate::race(engine, run, made)).transpose()?;
    let scene = scene(run, engine.graph().classes, made.images.dim().0);
    let bytes = images::to_bytes(made.images.view());
    animation::write(file, &scene, bytes.view(), race.as_ref())?;
    written.push(file.clone());
    Ok(race)
}
