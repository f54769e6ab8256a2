//! In which order the device does what it is given.
//!
//! The idea: a stream does one thing after the other, and all that an image waits for is given to one. Another one beside it is for
//! what is needed later: its launches begin when the first has come to some point, and get the room that the first one's leave. The
//! first has the higher priority: where blocks of both could begin, its own do. (The lowest is what streams have that ask for none,
//! so that the first goes before those of other libraries in the process, too.)

use std::cell::Cell;

use cust::error::CudaResult;
use cust::stream::{Stream, StreamFlags};

/// The streams of a device.
pub struct Streams {
    first: Stream,
    beside: Stream,
    /// Whether what is launched now goes to the second.
    is_beside: Cell<bool>,
}

impl Streams {
    /// Makes them, on the calling thread's device. They wait for copies and fills on the default stream, and those for them.
    ///
    /// # Errors
    /// The driver's.
    pub fn new() -> CudaResult<Streams> {
        // The lower the number, the higher the priority; a device that has no such takes the nearest.
        let [first, beside] = [-1, 0].map(|priority| Stream::new(StreamFlags::DEFAULT, Some(priority)));
        Ok(Streams { first: first?, beside: beside?, is_beside: Cell::new(false) })
    }

    /// The one to which goes what is launched now.
    pub fn now(&self) -> &Stream {
        if self.is_beside.get() { &self.beside } else { &self.first }
    }

    /// Lets what `work` launches go to the second.
    pub fn beside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _back = Back(&self.is_beside);
        self.is_beside.set(true);
        work()
    }

    /// Waits until all is done in both.
    ///
    /// # Errors
    /// The driver's, of the first in which something went wrong.
    pub fn wait(&self) -> CudaResult<()> {
        self.first.synchronize().and(self.beside.synchronize())
    }
}

/// Goes back to the first stream, even if a panic ends the work.
struct Back<'a>(&'a Cell<bool>);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
