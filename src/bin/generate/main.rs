//! `generate`: images from weights.
//!
//! The idea: flags and the files they name are made one [`Run`](fast_pixel_cnn::generate::Run) before
//! anything is generated or written. Then the library works, and here is only the telling of it.

#![allow(rustdoc::broken_intra_doc_links, reason = "help texts, whose brackets are shapes")]

mod args;
mod inputs;
mod outputs;
mod progress;
mod report;

use std::process::ExitCode;

use clap::Parser;
use fast_pixel_cnn::{Result, cli, device};

use crate::args::Args;
use crate::inputs::Inputs;
use crate::outputs::{Files, animate, check_animation, layout};
use crate::progress::with_progress;
use crate::report::report;

/// Exit status after Ctrl-C, as shells count it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(|| body(&args))
}

fn body(args: &Args) -> Result<ExitCode> {
    let weights = args.weights.load()?;
    let inputs = Inputs::read(args, weights.config())?;
    let mut engine = device::open(&args.device, &weights, &args.engine)?;
    drop(weights);
    let run = inputs.run(args)?;
    let available = engine.available();
    run.check(&*engine, available)?;
    check_animation(args, &*engine, &run, available)?;
    let files = Files::prepare(args, engine.config())?;
    let made = with_progress(&mut *engine, &run, available)?;
    let mut written = files.write(&made, &layout(&run, engine.config(), made.images.dim().0))?;
    let race = animate(args, &mut *engine, &run, &made, &mut written)?;
    report(args, &*engine, &run, &made, race, &written)?;
    if made.interrupted {
        let (done, count) = (made.images.dim().0, run.count);
        cli::warn(format_args!("interrupted: {done} of {count} images were finished"));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}
