//! Launches that may begin before the launch before them has ended (`PROGRAMMATIC_STREAM_SERIALIZATION`).
//!
//! The idea: such a launch N begins when each block of the one before, N-1, has let it or has exited. Until one of its
//! threads has waited, nothing orders the thread after N-1: what it touches is compared with all that N-1 touches. What
//! comes before N-1 is over, unless N-1 may itself have begun early and some thread of it let N begin without having
//! waited: then N-2 need not have ended either, and so on. N must wait somewhere, else its end says nothing of N-1's.
//!
//! What a launch touches is noted only where it matters: it may itself begin early, or the next in the queue may, or
//! other streams want to know it. The next may be queued when this is done already; but then the host has waited for
//! this, which orders the two, or has not: then it is noted for other streams that might come.

use std::sync::Arc;

use super::clock::Ahead;
use super::error::Code;
use super::order::{Piece, name, noun};
use super::state::{State, Work};
use crate::fault::{Fault, FaultKind};
use crate::memory::{Footprint, Noted};

impl State {
    /// Before a launch: what of its stream need not have ended when it begins.
    pub fn begins_launch(&mut self, piece: &Piece, dependent: bool) -> Result<Vec<Ahead>, Code> {
        let mut ahead = std::mem::take(&mut self.stream(piece.stream)?.ahead);
        // The host or another stream may have waited in between.
        ahead.retain(|launch| dependent && !piece.before.knows(piece.stream, launch.number));
        let early = (!ahead.is_empty()).then(Footprint::default);
        let noted = piece.noted || piece.followed || early.is_some();
        self.memory.note(noted.then(|| Noted { early, ..Noted::default() }));
        Ok(ahead)
    }

    /// After it: compares what its threads touched before they had waited with what those have touched, and all of it
    /// with other streams.
    ///
    /// # Errors
    /// A race, or a launch that does not wait.
    pub fn ends_launch(&mut self, piece: &Piece, what: &str, ahead: Vec<Ahead>) -> Result<(), Fault> {
        let Some(noted) = self.memory.noted() else { return Ok(()) };
        if let Some(early) = &noted.early {
            self.check_early(piece, what, &ahead, early, noted.waited)?;
        }
        let (number, touched) = (piece.number, Arc::new(noted.touched));
        let mut next = vec![Ahead { number, what: what.to_string(), touched: Arc::clone(&touched) }];
        if noted.hasty {
            next.extend(ahead);
        }
        if let Ok(stream) = self.stream(piece.stream) {
            stream.ahead = next;
        }
        self.compare(piece, what, touched)
    }

    fn check_early(
        &self,
        piece: &Piece,
        what: &str,
        ahead: &[Ahead],
        early: &Footprint,
        waited: bool,
    ) -> Result<(), Fault> {
        let stream = name(piece.stream);
        for launch in ahead {
            let Some((address, own, theirs)) = early.clash(&launch.touched) else { continue };
            let message = format!(
                "{what} on {stream}: a race: it may begin before {} of its stream has ended, and nothing orders its {} \
                 before griddepcontrol.wait after the {} there (address {address:#x}{})",
                launch.what,
                noun(own),
                noun(theirs),
                self.memory.hint(address)
            );
            return Err(Fault::new(FaultKind::Race, message));
        }
        match ahead {
            [before, ..] if !waited => {
                let message = format!(
                    "{what} on {stream}: nothing waits for the launch before, {}: it may begin before that has ended, \
                     and no thread runs griddepcontrol.wait",
                    before.what
                );
                Err(Fault::new(FaultKind::Dependency, message))
            }
            _ => Ok(()),
        }
    }
}

impl Work {
    /// Whether it is a launch that may begin before the one before it has ended.
    pub fn is_dependent(&self) -> bool {
        matches!(self, Work::Launch { dependent: true, .. })
    }
}
