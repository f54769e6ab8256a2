//! Events.
//!
//! The idea: an event is reached when the work before it has been done, which happens when somebody waits;
//! times are the CPU's, good for order, not for speed.

use std::time::Instant;

use super::error::Code;
use super::state::{Event, Handle, Work, call, give, own};

/// Makes an event.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut Handle, _flags: u32) -> u32 {
    call("cuEventCreate", |state| {
        let handle = state.handle();
        state.events.insert(handle, Event::default());
        // SAFETY: as in `cuda.h`.
        unsafe { give(event, handle) }
    })
}

/// Ends an event.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: Handle) -> u32 {
    call("cuEventDestroy_v2", |state| state.events.remove(&event).map(drop).ok_or(Code::INVALID_HANDLE))
}

/// Records an event behind a stream's work.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> u32 {
    call("cuEventRecord", |state| {
        if !state.events.contains_key(&event) {
            return Err(Code::INVALID_HANDLE);
        }
        let number = state.queue(stream, Work::Record(event))?;
        let known = state.reached(stream)?;
        let known = state.stream(stream)?.capture.is_none().then_some(known);
        state.events.insert(event, Event { recorded: Some((stream, number)), known, reached: None });
        Ok(())
    })
}

fn reach(function: &str, event: Handle) -> u32 {
    call(function, |state| {
        let event = state.events.get(&event).ok_or(Code::INVALID_HANDLE)?;
        let Some((stream, number)) = event.recorded else { return Ok(()) };
        let known = event.known.as_ref().ok_or(Code::CAPTURED_EVENT)?;
        state.waited.join(known);
        // A stream that is gone has done all its work.
        if !state.streams.contains_key(&own(stream)) {
            return Ok(());
        }
        state.drain(stream, number)
    })
}

/// Waits for an event.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: Handle) -> u32 {
    reach("cuEventSynchronize", event)
}

/// Whether an event is reached. Asking is waiting here.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: Handle) -> u32 {
    reach("cuEventQuery", event)
}

/// Milliseconds between two events that were reached.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, first: Handle, last: Handle) -> u32 {
    call("cuEventElapsedTime", |state| {
        let reached = |event: Handle| -> Result<Instant, Code> {
            let event = state.events.get(&event).ok_or(Code::INVALID_HANDLE)?;
            event.recorded.ok_or(Code::INVALID_HANDLE)?;
            event.reached.ok_or(Code::NOT_READY)
        };
        let (first, last) = (reached(first)?, reached(last)?);
        // SAFETY: as in `cuda.h`.
        unsafe { give(milliseconds, last.saturating_duration_since(first).as_secs_f32() * 1e3) }
    })
}
