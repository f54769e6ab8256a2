//! The pictures of a run beside its files: images moving, and sounds drawn.
//!
//! The idea: an animation is of the grid that is written beside it, and what could not be animated after hours
//! of work is refused before them.

use std::path::PathBuf;

use fast_pixel_cnn::engine::Engine;
use fast_pixel_cnn::generate::{self, Generated, Race, Run};
use fast_pixel_cnn::media::animation::{self, Scene};
use fast_pixel_cnn::media::images::{self, Grid};
use fast_pixel_cnn::{Error, Result};

use crate::args::Args;
use crate::kind::Kind;

/// What an animation of the first `count` images of a run shows.
fn scene(run: &Run, grid: Grid, count: usize) -> Scene {
    let given_rows = run.given.map_or(0, |given| given.rows);
    Scene { grid, count, height: run.height, width: run.width, given_rows }
}

/// Refuses, before hours of work, an animation that could not be made after them.
pub fn check_animation(args: &Args, engine: &dyn Engine, run: &Run, available: Option<u64>) -> Result<()> {
    let Some(file) = &args.animate else { return Ok(()) };
    animation::check(file, &scene(run, run.grid(engine.graph(), run.count), run.count), args.side_by_side)?;
    if args.side_by_side {
        if run.given.is_some_and(|given| given.rows == run.height) {
            let reason = "all rows are kept: there are none to compare the two methods on";
            return Err(Error::refused("--side-by-side", reason));
        }
        run.naive().check(engine, available)?;
    }
    Ok(())
}

/// Writes the animation that was asked for, if there is anything to show, and adds it to the files
/// written. Returns what was measured for it.
pub fn animate(
    args: &Args,
    engine: &mut dyn Engine,
    run: &Run,
    generated: &Generated,
    written: &mut Vec<PathBuf>,
) -> Result<Option<Race>> {
    let Some(file) = args.animate.as_ref().filter(|_| !generated.images.is_empty()) else { return Ok(None) };
    let race = args.side_by_side.then(|| generate::race(engine, run, generated)).transpose()?;
    let scene = scene(run, generated.grid, generated.count);
    let bytes = images::to_bytes(generated.images.view());
    animation::write(file, &scene, bytes.view(), race.map(|race| [race.naive_seconds, race.cached_seconds]))?;
    written.push(file.clone());
    Ok(race)
}

/// Draws the sounds that were made, if that was asked for, and adds the picture to the files written.
pub fn plot(
    args: &Args,
    kind: &Kind,
    run: &Run,
    generated: &Generated,
    written: &mut Vec<PathBuf>,
) -> Result<()> {
    if let (Kind::Sounds(sounds), Some(file)) = (kind, &args.plot)
        && generated.count > 0
    {
        sounds.plot(file, run, generated)?;
        written.push(file.clone());
    }
    Ok(())
}
