//! Which work comes before which, and what work that nothing orders does to the same memory.
//!
//! The idea: what comes before a piece of work is certain when it is queued: what is in its stream, and what the
//! stream or the host has waited for. A clock that is kept with it says so. When the work is done, what it touches is
//! noted, but only if there is other work that comes neither before it nor after it, and is compared with what such
//! work has touched. Then it does not matter which of the two was done first.

use std::sync::Arc;

use super::clock::{Clock, Done};
use super::error::Code;
use super::state::{DEFAULT_STREAM, Handle, Queued, State, Work, own};
use crate::fault::{Fault, FaultKind};
use crate::memory::{Footprint, Touch};

/// A piece of work that is being done.
#[derive(Clone)]
pub struct Piece {
    /// Its stream.
    pub stream: Handle,
    /// Its number.
    pub number: u64,
    /// What comes before it, besides the work of its stream.
    pub before: Arc<Clock>,
    /// Whether other streams want to know what it touches.
    pub noted: bool,
    /// Whether a launch is next that may begin before this has ended.
    pub followed: bool,
}

impl State {
    /// What comes before work that is queued now, besides the work of its stream.
    pub fn before(&mut self, handle: Handle) -> Result<Arc<Clock>, Code> {
        let handle = own(handle);
        let stream = self.stream(handle)?;
        let (blocking, mut known) = (stream.blocking, Arc::clone(&stream.known));
        known.join(&self.waited);
        // The default stream waits for all that block, and they for it.
        let others = self.streams.iter().filter(|(h, s)| {
            blocking && s.blocking && **h != handle && (handle == DEFAULT_STREAM || **h == DEFAULT_STREAM)
        });
        for (other, stream) in others {
            known.join(&stream.known);
            known.learn(*other, stream.last);
        }
        self.stream(handle)?.known = Arc::clone(&known);
        Ok(known)
    }

    /// What is done when a stream has come to where it is now.
    pub fn reached(&mut self, handle: Handle) -> Result<Arc<Clock>, Code> {
        let stream = self.stream(handle)?;
        let mut known = Arc::clone(&stream.known);
        known.learn(own(handle), stream.last);
        Ok(known)
    }

    /// The host waits for all that there is.
    pub fn wait_for_all(&mut self) -> Result<(), Code> {
        self.waited = Arc::new(Clock::up_to(self.sequence));
        self.drain_all()
    }

    /// The host waits for a stream.
    pub fn wait_for(&mut self, handle: Handle) -> Result<(), Code> {
        if self.stream(handle)?.capture.is_none() {
            let reached = self.reached(handle)?;
            self.waited.join(&reached);
        }
        self.drain(handle, u64::MAX)
    }

    /// Whether there may be work still to be done that does not come after this.
    fn is_met(&self, stream: Handle, number: u64) -> bool {
        let unaware = |work: &Queued| !work.before.knows(stream, number);
        // A stream's later work knows no less than its first.
        let first = self.streams.iter().filter(|(h, _)| **h != stream);
        let mut first = first.filter_map(|(_, s)| s.queue.iter().find(|queued| queued.work.touches()));
        // What the host has not waited for, work may run beside that it has yet to queue.
        !self.waited.knows(stream, number) || first.any(unaware)
    }

    /// Takes note of a stream's next piece of work, which is still in its queue: whether it has to be noted what it
    /// touches. What nothing meets any more is forgotten.
    pub fn begins(&mut self, stream: Handle, number: u64, before: &Clock) -> bool {
        let mut done = std::mem::take(&mut self.done);
        done.retain(|d| self.is_met(d.stream, d.number));
        self.done = done;
        self.done.iter().any(|d| d.beside(stream, before)) || self.is_met(stream, number)
    }

    /// Compares what a piece of work, or a part of it, has touched with what others have beside it.
    ///
    /// # Errors
    /// A race.
    pub fn compare(&mut self, piece: &Piece, what: &str, touched: Arc<Footprint>) -> Result<(), Fault> {
        if !piece.noted {
            return Ok(());
        }
        for other in self.done.iter().filter(|d| d.beside(piece.stream, &piece.before)) {
            let Some((address, own, theirs)) = touched.clash(&other.touched) else { continue };
            let message = format!(
                "{what} on {}: a race: nothing orders its {} after the {} of {} on {} (address {address:#x}{})",
                name(piece.stream),
                noun(own),
                noun(theirs),
                other.what,
                name(other.stream),
                self.memory.hint(address)
            );
            return Err(Fault::new(FaultKind::Race, message));
        }
        let Piece { stream, number, .. } = *piece;
        self.done.push(Done { stream, number, what: what.to_string(), touched });
        Ok(())
    }
}

impl Work {
    /// Whether it touches memory.
    fn touches(&self) -> bool {
        !matches!(self, Work::Record(_) | Work::Wait(..))
    }
}

/// A stream, for messages.
pub fn name(stream: Handle) -> String {
    match stream {
        DEFAULT_STREAM => "the default stream".to_string(),
        handle => format!("stream {handle:#x}"),
    }
}

/// A touch, for messages.
pub fn noun(touch: Touch) -> &'static str {
    match touch {
        Touch::Read => "reads",
        Touch::Write => "writes",
        Touch::Atomic => "atomic operations",
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Stream;
    use super::*;

    #[test]
    fn only_what_others_may_meet_is_noted() {
        let mut state = State::from_environment().unwrap();
        let (to, [a, b]) = (state.memory.alloc(8, "words").unwrap(), [16, 32]);
        state.streams.extend([a, b].map(|stream| (stream, Stream::new(false))));
        let fill = |state: &mut State, stream, at: u64| {
            let work = Work::Fill { to: to + at, bytes: 4, pattern: vec![0] };
            state.queue(stream, work).unwrap()
        };
        // One stream, though another waits for it.
        let number = fill(&mut state, a, 0);
        state.queue(b, Work::Wait(a, number)).unwrap();
        fill(&mut state, a, 4);
        state.wait_for(a).unwrap();
        assert!(state.done.is_empty());
        // Two, until nothing more can come beside the first.
        fill(&mut state, a, 0);
        fill(&mut state, b, 4);
        state.wait_for(a).unwrap();
        assert_eq!(state.done.len(), 1);
        state.wait_for(b).unwrap();
        fill(&mut state, b, 0);
        state.wait_for(b).unwrap();
        assert!(state.done.is_empty());
    }
}
