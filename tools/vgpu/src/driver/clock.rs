//! What is known to be done at some point: by a stream, an event or the host.
//!
//! The idea: work is numbered in the order in which it is queued, so that one number says for a stream how much of its
//! work is known. Streams go by their handles.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::memory::Footprint;

/// What is known to be done: of each stream, the work up to a number.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Of all streams.
    all: u64,
    /// Of some, more.
    streams: BTreeMap<usize, u64>,
}

impl Clock {
    /// All work up to a number.
    pub fn up_to(all: u64) -> Clock {
        Clock { all, streams: BTreeMap::new() }
    }

    /// Whether a stream's work is known to be done.
    pub fn knows(&self, stream: usize, number: u64) -> bool {
        number <= self.all || self.streams.get(&stream).is_some_and(|&known| number <= known)
    }

    /// Makes a stream's work known.
    pub fn learn(self: &mut Arc<Clock>, stream: usize, number: u64) {
        if !self.knows(stream, number) {
            Arc::make_mut(self).streams.insert(stream, number);
        }
    }

    /// Makes known what another clock knows.
    pub fn join(self: &mut Arc<Clock>, other: &Clock) {
        if other.all > self.all {
            let own = Arc::make_mut(self);
            own.all = other.all;
            own.streams.retain(|_, number| *number > other.all);
        }
        other.streams.iter().for_each(|(&stream, &number)| self.learn(stream, number));
    }
}

/// What work has touched that other work may still run beside.
#[derive(Debug)]
pub struct Done {
    /// Its stream.
    pub stream: usize,
    /// Its number.
    pub number: u64,
    /// A kernel, or what else.
    pub what: String,
    /// What it has touched.
    pub touched: Arc<Footprint>,
}

/// A launch that need not have ended when the next in its stream begins.
#[derive(Clone, Debug)]
pub struct Ahead {
    /// Its number.
    pub number: u64,
    /// What it is.
    pub what: String,
    /// What it has touched.
    pub touched: Arc<Footprint>,
}

impl Done {
    /// Whether work of a stream, which comes later in time, is not ordered after it.
    pub fn beside(&self, stream: usize, before: &Clock) -> bool {
        self.stream != stream && !before.knows(self.stream, self.number)
    }
}
