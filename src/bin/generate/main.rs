//! `generate`: images or sounds from weights.
//!
//! The idea: flags and the files they name are made one [`Run`](fast_pixel_cnn::generate::Run) before
//! anything is generated or written. Then the library works, and here is only the telling of it.

#![allow(rustdoc::broken_intra_doc_links, reason = "help texts, whose brackets are shapes")]

mod args;
mod contents;
mod film;
mod inputs;
mod kind;
mod outputs;
mod progress;
mod record;
mod report;
mod series;
mod sounds;

use std::process::ExitCode;

use fast_pixel_cnn::cli::signals::Signals;
use fast_pixel_cnn::generate::Hooks;
use fast_pixel_cnn::{Result, cli};

use crate::args::{Args, NAMES};
use crate::film::{animate, check_animation, plot};
use crate::inputs::Inputs;
use crate::kind::Kind;
use crate::outputs::Outputs;
use crate::progress::with_progress;
use crate::report::report;
use crate::series::Series;

fn main() -> ExitCode {
    cli::run(&NAMES, body)
}

fn body(args: &Args) -> Result<ExitCode> {
    let weights = args.weights.load()?;
    let kind = Kind::of(args, weights.config())?;
    let inputs = Inputs::read(args, &kind, weights.graph())?;
    let mut engine = args.engine.open(&weights)?;
    let config = weights.config().cloned();
    let run = inputs.run(args);
    let available = engine.available();
    run.check(&engine, available)?;
    check_animation(args, &engine, &run, available)?;
    let series = Series::of(args, &kind, &weights, &run)?;
    drop(weights);
    let mut outputs = Outputs::prepare(args, &kind, engine.graph(), &run, series)?;
    let signals = Signals::heed()?;
    let batch = |first, images: ndarray::ArrayView4<f32>| outputs.batch(first, images);
    let hooks =
        Hooks { stop: Some(&signals.stop), finished: Some(Box::new(batch)), available, progress: None };
    let generated = with_progress(&mut engine, &run, kind.rate(), args.quiet, hooks)?;
    let mut written = outputs.finish(&generated)?;
    plot(args, &kind, &run, &generated, &mut written)?;
    let race = animate(args, &mut engine, &run, &generated, &mut written)?;
    let told = report(args, config.as_ref(), &engine, &run, &generated, race, &written);
    if generated.interrupted {
        // Whatever became of the terminal that was to be told.
        cli::warn(format_args!(
            "interrupted: {} of {} {} were finished",
            generated.count,
            run.count,
            kind.plural()
        ));
        return Ok(ExitCode::from(signals.status()));
    }
    told.map(|()| ExitCode::SUCCESS)
}
