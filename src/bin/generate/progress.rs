//! What someone who watches a run is told: a bar on a terminal, and elsewhere a line now and then.
//!
//! The idea: the library calls back after each row, which of a sound is a sample, or after some hundred; what is told, and when, is decided here, by a clock that is
//! an argument.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fast_pixel_cnn::engine::Engine;
use fast_pixel_cnn::generate::{Generated, Hooks, Progress, Run};
use fast_pixel_cnn::{Result, cli};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time from line to line where there is no terminal, and from one look of the bar to the next.
const EVERY: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// Generates, and tells how far it is, unless nobody wants to know. Sounds have a rate.
pub fn with_progress(
    engine: &mut dyn Engine,
    run: &Run,
    rate: Option<u32>,
    quiet: bool,
    hooks: Hooks,
) -> Result<Generated> {
    let terminal = std::io::stderr().is_terminal();
    let target = if terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(rows(run)), target);
    let style = ProgressStyle::with_template("{wide_bar} {msg}").expect("a valid template");
    bar.set_style(style);
    let start = Instant::now();
    let lines = Lines::new(rate, if terminal { LOOK } else { EVERY });
    let progress = |p: Progress| {
        if quiet {
            return;
        }
        match lines.line(run, &p, start.elapsed()) {
            Some(line) if terminal => {
                bar.set_position(done(run, &p));
                bar.set_message(line);
            }
            Some(line) => cli::note("progress", line),
            None => {}
        }
    };
    let generated = run.generate_with(engine, Hooks { progress: Some(&progress), ..hooks });
    bar.finish_and_clear();
    generated
}

/// Rows of all images of a run.
fn rows(run: &Run) -> u64 {
    run.count as u64 * run.height as u64
}

/// Those that are finished.
fn done(run: &Run, p: &Progress) -> u64 {
    (p.images * run.height + p.batch * p.rows) as u64
}

/// How far a run is after some time.
fn message(run: &Run, rate: Option<u32>, p: &Progress, elapsed: Duration) -> String {
    let (first, last, count) = (p.images + 1, p.images + p.batch, run.count);
    let (row, height) = (p.rows, run.height);
    let done = done(run, p) as f64;
    let rows_per_second = done / elapsed.as_secs_f64();
    let seconds = elapsed.as_secs_f64() * (rows(run) as f64 / done - 1.0);
    let left = Duration::try_from_secs_f64(seconds)
        .map_or("unknown time".into(), |left| HumanDuration(Duration::from_secs(left.as_secs())).to_string());
    match rate.map(f64::from) {
        None => {
            let speed = rows_per_second / height as f64;
            format!(
                "images {first}-{last} of {count}: row {row} of {height}, {speed:.2} images/s, {left} left"
            )
        }
        Some(rate) => {
            let [now, whole] = [row, height].map(|rows| rows as f64 / rate);
            format!(
                "sounds {first}-{last} of {count}: {now:.2} of {whole:.2} s, {rows_per_second:.0} samples/s, {left} \
                 left"
            )
        }
    }
}

/// Says when a line is due.
struct Lines {
    /// Of sounds.
    rate: Option<u32>,
    every: Duration,
    /// When the last one was, after the start.
    last: Mutex<Duration>,
}

impl Lines {
    fn new(rate: Option<u32>, every: Duration) -> Lines {
        Lines { rate, every, last: Mutex::new(Duration::ZERO) }
    }

    /// The line for a row that is finished some time after the start, if one is due.
    fn line(&self, run: &Run, p: &Progress, elapsed: Duration) -> Option<String> {
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if elapsed.saturating_sub(*last) < self.every {
            return None;
        }
        *last = elapsed;
        Some(message(run, self.rate, p, elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_after_each_interval_and_tells_what_is_left() {
        let run = Run::new(100).batch_size(10);
        let lines = Lines::new(None, EVERY);
        // A row of ten images takes 4 seconds.
        let mut told = Vec::new();
        for row in 0..320 {
            let p = Progress { images: row / 32 * 10, batch: 10, rows: row % 32 + 1 };
            let elapsed = Duration::from_secs(4 * (row as u64 + 1));
            told.extend(lines.line(&run, &p, elapsed).map(|line| (elapsed.as_secs(), line)));
        }
        let times: Vec<u64> = told.iter().map(|(time, _)| *time).collect();
        assert_eq!(times, (1..=40).map(|i| 32 * i).collect::<Vec<_>>());
        assert_eq!(told[0].1, "images 1-10 of 100: row 8 of 32, 0.08 images/s, 21 minutes left");
        assert_eq!(told[4].1, "images 11-20 of 100: row 8 of 32, 0.08 images/s, 19 minutes left");
        assert_eq!(told[39].1, "images 91-100 of 100: row 32 of 32, 0.08 images/s, 0 seconds left");
    }

    #[test]
    fn of_sounds_it_tells_their_time() {
        let run = Run::new(4).batch_size(2).size(16_000, 1);
        let p = Progress { images: 2, batch: 2, rows: 4000 };
        let line = Lines::new(Some(8000), EVERY).line(&run, &p, Duration::from_secs(40));
        let told = "sounds 3-4 of 4: 0.50 of 2.00 s, 1000 samples/s, 24 seconds left";
        assert_eq!(line.as_deref(), Some(told));
    }
}
