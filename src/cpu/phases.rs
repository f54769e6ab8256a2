//! Where the time of a cached generation goes.
//!
//! The idea: one thread of a team notes the time whenever it turns from one kind of work to another, so
//! that the parts add up to the whole. A note takes some tens of nanoseconds and is taken only when
//! someone asks.

use std::cell::Cell;
use std::time::Instant;

use serde::Serialize;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The maps that are known when a row begins.
    Row,
    /// What other layers sum before a row's pixels come.
    Hoist,
    /// The rest, pixel by pixel.
    Pixels,
    /// Drawing pixels and feeding them back.
    Sampling,
    /// Waiting for the other threads.
    Waiting,
}

/// Seconds of one thread in each phase, and those that are left of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Phases {
    /// The maps that are known when a row begins.
    pub row: f64,
    /// What other layers sum then.
    pub hoist: f64,
    /// The rest, pixel by pixel.
    pub pixels: f64,
    /// Sampling.
    pub sampling: f64,
    /// Waiting for other threads of the team.
    pub waiting: f64,
    /// Starting threads, allocating, given rows, and telling of progress.
    pub rest: f64,
    /// All together.
    pub total: f64,
}

impl Phases {
    /// Adds the seconds of another stretch.
    pub(super) fn add(&mut self, seconds: [f64; 5]) {
        let [row, hoist, pixels, sampling, waiting] = seconds;
        self.row += row;
        self.hoist += hoist;
        self.pixels += pixels;
        self.sampling += sampling;
        self.waiting += waiting;
    }

    /// Sets the whole and what is left of it.
    pub(super) fn close(&mut self, total: f64) {
        self.total = total;
        self.rest = total - self.row - self.hoist - self.pixels - self.sampling - self.waiting;
    }
}

/// A thread's stopwatch, or none.
pub(super) struct Clock {
    last: Cell<Instant>,
    seconds: [Cell<f64>; 5],
    running: bool,
}

impl Clock {
    /// A clock that runs or, at no cost, does not.
    pub fn new(running: bool) -> Clock {
        Clock { last: Cell::new(Instant::now()), seconds: Default::default(), running }
    }

    /// What was done since the last note was this.
    pub fn note(&self, phase: Phase) {
        if self.running {
            let now = Instant::now();
            let seconds = &self.seconds[phase as usize];
            seconds.set(seconds.get() + (now - self.last.replace(now)).as_secs_f64());
        }
    }

    /// What was done since the last note does not count.
    pub fn skip(&self) {
        if self.running {
            self.last.set(Instant::now());
        }
    }

    /// The seconds of each phase.
    pub fn read(&self) -> [f64; 5] {
        std::array::from_fn(|i| self.seconds[i].get())
    }
}
