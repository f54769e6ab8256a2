//! A run with someone who watches it: the progress bar, and the signals that end it early.
//!
//! The idea: the library calls back after each row; what is told, and when, is decided here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fast_pixel_cnn::engine::Engine;
use fast_pixel_cnn::generate::{self, Generated, Progress, Run};
use fast_pixel_cnn::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::INTERRUPTED;

/// Generates with a progress bar, if someone watches, and heeds Ctrl-C.
pub fn with_progress(engine: &mut dyn Engine, run: &Run, available: Option<u64>) -> Result<Generated> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
    })
    .map_err(|e| Error::Io {
        file: "signals".into(),
        action: "handle Ctrl-C".into(),
        source: std::io::Error::other(e),
    })?;

    let rows = (run.count * run.height) as u64;
    // Draws nothing unless stderr is a terminal.
    let bar = ProgressBar::with_draw_target(Some(rows), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{wide_bar} {msg} {eta} left").expect("a valid template");
    bar.set_style(style);
    let start = Instant::now();
    let progress = |p: Progress| {
        let done = p.images * run.height + p.batch * p.rows;
        let speed = done as f64 / run.height as f64 / start.elapsed().as_secs_f64();
        let (first, last) = (p.images + 1, p.images + p.batch);
        let (row, height) = (p.rows, run.height);
        bar.set_position(done as u64);
        bar.set_message(format!(
            "images {first}-{last} of {}: row {row} of {height}, {speed:.2} images/s,",
            run.count
        ));
    };
    let made = generate::generate(engine, run, available, &STOP, &progress);
    bar.finish_and_clear();
    made
}
