//! Streams, and when their work is done.
//!
//! The idea: work is queued and done only when something waits for it. A program that forgets to wait then
//! sees what it would see on a slow device. The default stream and those that are not "non-blocking"
//! keep to one order among each other, as the driver promises.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::error::Code;
use super::order::Piece;
use super::state::{DEFAULT_STREAM, Handle, Queued, State, Stream, Work, call, give, own};
use crate::exec::{self, Launch};
use crate::fault::Fault;
use crate::memory::{Noted, Touch};

impl State {
    /// The stream of a handle.
    pub fn stream(&mut self, handle: Handle) -> Result<&mut Stream, Code> {
        self.streams.get_mut(&own(handle)).ok_or(Code::INVALID_HANDLE)
    }

    /// Queues work, or adds it to what is being captured. The number is that of the queued work.
    pub fn queue(&mut self, stream: Handle, work: Work) -> Result<u64, Code> {
        self.sequence += 1;
        let number = self.sequence;
        if let Some(captured) = &mut self.stream(stream)?.capture {
            captured.push(work);
            return Ok(number);
        }
        let before = self.before(stream)?;
        let stream = self.stream(stream)?;
        stream.last = number;
        stream.queue.push_back(Queued { number, before, work });
        Ok(number)
    }

    /// Does a stream's work up to a number, and whatever has to come before.
    pub fn drain(&mut self, handle: Handle, number: u64) -> Result<(), Code> {
        let handle = own(handle);
        loop {
            let stream = self.stream(handle)?;
            if stream.capture.is_some() {
                return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
            }
            let blocking = stream.blocking;
            let Some(&Queued { number: first, ref before, .. }) = stream.queue.front() else { return Ok(()) };
            let before = Arc::clone(before);
            if first > number {
                return Ok(());
            }
            // In blocking streams, earlier work on the default stream comes first, and before work on the
            // default stream whatever was queued earlier.
            let mut next = handle;
            if blocking {
                let is_default = handle == DEFAULT_STREAM;
                let others =
                    self.streams.iter().filter(|(h, s)| s.blocking && (is_default || **h == DEFAULT_STREAM));
                let earlier = others.filter_map(|(h, s)| Some((s.queue.front()?.number, *h)));
                if let Some((_, h)) = earlier.filter(|(n, _)| *n < first).min() {
                    next = h;
                }
            }
            if next != handle {
                self.drain(next, first - 1)?;
                continue;
            }
            let noted = self.begins(handle, first, &before);
            let queue = &mut self.stream(handle)?.queue;
            let Queued { work, .. } = queue.pop_front().expect("it was there");
            let followed = queue.front().is_some_and(|next| next.work.is_dependent());
            self.do_work(work, &Piece { stream: handle, number: first, before, noted, followed }, false)?;
        }
    }

    /// Does all work of all streams that are not being captured.
    pub fn drain_all(&mut self) -> Result<(), Code> {
        let mut handles: Vec<_> =
            self.streams.iter().filter(|(_, s)| s.capture.is_none()).map(|(h, _)| *h).collect();
        handles.sort_unstable();
        handles.into_iter().try_for_each(|h| self.drain(h, u64::MAX))
    }

    /// What a call that waits for the default stream waits for: blocking streams.
    pub fn synchronize_default(&mut self) -> Result<(), Code> {
        let blocking = self.streams.iter().filter(|(_, s)| s.blocking && s.capture.is_none());
        let mut handles: Vec<_> = blocking.map(|(h, _)| *h).collect();
        handles.sort_unstable();
        handles.into_iter().try_for_each(|h| self.wait_for(h))
    }

    fn do_work(&mut self, work: Work, piece: &Piece, in_graph: bool) -> Result<(), Code> {
        match work {
            Work::Launch { .. } => {}
            // A record that was captured is no node of the graph.
            Work::Record(_) if in_graph => {}
            // Whatever else comes between two launches orders them.
            _ => self.stream(piece.stream)?.ahead.clear(),
        }
        self.memory.note(piece.noted.then(Noted::default));
        let (what, done) = match work {
            Work::Launch { kernel, grid, block, shared, params, cooperative, cluster, dependent } => {
                self.usage.ran(&kernel.name, in_graph, cooperative, dependent);
                let ahead = self.begins_launch(piece, dependent)?;
                let (kernel, params, dynamic_shared) = (&*kernel, &*params, shared);
                let launch = Launch { kernel, grid, block, dynamic_shared, params, cooperative, cluster };
                let limits = self.device.limits;
                let run = exec::run(&launch, &mut self.memory, &limits, self.schedule, &mut self.counters);
                let run =
                    run.and_then(|()| self.ends_launch(piece, &format!("kernel {}", kernel.name), ahead));
                return run.map_err(|fault| self.fails(&fault));
            }
            Work::Upload { to, bytes } => {
                self.usage.uploads.add(bytes.len() as u64);
                self.memory.touch(Touch::Write, to, bytes.len() as u64);
                ("a copy from the host", self.memory.write(to, &bytes))
            }
            Work::Download { from, to, bytes } => {
                self.usage.downloads.add(bytes as u64);
                self.memory.touch(Touch::Read, from, bytes as u64);
                // SAFETY: the program promised that many bytes there until it has waited for the stream.
                let to = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
                ("a copy to the host", self.memory.read(from, to))
            }
            Work::Copy { to, from, bytes } => {
                self.memory.touch(Touch::Read, from, bytes);
                self.memory.touch(Touch::Write, to, bytes);
                ("a copy within the device", self.memory.copy(to, from, bytes))
            }
            Work::Fill { to, bytes, pattern } => {
                self.usage.fills.add(bytes);
                self.memory.touch(Touch::Write, to, bytes);
                ("a fill", self.memory.fill(to, bytes, &pattern))
            }
            Work::Record(event) => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.reached = Some(Instant::now());
                }
                return Ok(());
            }
            // A stream that is gone has done all its work.
            Work::Wait(stream, _) if !self.streams.contains_key(&own(stream)) => return Ok(()),
            Work::Wait(stream, number) => return self.drain(stream, number),
            Work::Graph(nodes) => {
                self.do_nodes(nodes, piece)?;
                return Ok(());
            }
        };
        done.map_err(|error| {
            eprintln!("vgpu: {error}");
            self.usage.faults.push(error.to_string());
            Code::from(&error)
        })?;
        let Some(Noted { touched, .. }) = self.memory.noted() else { return Ok(()) };
        self.compare(piece, what, touched.into()).map_err(|fault| self.fails(&fault))
    }

    /// Does the work of a graph, which is ordered as a whole after what its stream did before.
    fn do_nodes(&mut self, nodes: Vec<Work>, piece: &Piece) -> Result<(), Code> {
        let mut nodes: VecDeque<Work> = nodes.into();
        while let Some(node) = nodes.pop_front() {
            let next = nodes.iter().find(|next| !matches!(next, Work::Record(_)));
            let followed = next.is_some_and(Work::is_dependent);
            self.do_work(node, &Piece { followed, ..piece.clone() }, true)?;
        }
        self.stream(piece.stream)?.ahead.clear();
        Ok(())
    }

    /// What a fault leaves behind: a context that has failed does nothing more.
    fn fails(&mut self, fault: &Fault) -> Code {
        eprintln!("vgpu: {fault}");
        self.usage.faults.push(fault.message.clone());
        let code = Code::from(fault.kind);
        self.sticky = Some(code);
        for stream in self.streams.values_mut() {
            stream.queue.clear();
            stream.ahead.clear();
        }
        self.done.clear();
        code
    }
}

/// Makes a stream; the flag 1 is "non-blocking".
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(stream: *mut Handle, flags: u32, _priority: i32) -> u32 {
    call("cuStreamCreateWithPriority", |state| {
        let handle = state.handle();
        state.streams.insert(handle, Stream::new(flags & 1 == 0));
        // SAFETY: as in `cuda.h`.
        unsafe { give(stream, handle) }
    })
}

/// Makes a stream.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut Handle, flags: u32) -> u32 {
    // SAFETY: the same promise.
    unsafe { cuStreamCreateWithPriority(stream, flags, 0) }
}

/// Ends a stream when its work is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: Handle) -> u32 {
    call("cuStreamDestroy_v2", |state| {
        if stream <= 2 || !state.streams.contains_key(&stream) {
            return Err(Code::INVALID_HANDLE);
        }
        let done = state.drain(stream, u64::MAX);
        state.streams.remove(&stream);
        done
    })
}

/// Waits for a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: Handle) -> u32 {
    call("cuStreamSynchronize", |state| {
        state.usage.waits += 1;
        match stream <= 2 {
            true => state.synchronize_default(),
            false => state.wait_for(stream),
        }
    })
}

/// Whether a stream is idle. Asking is waiting here: the work is done now.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: Handle) -> u32 {
    call("cuStreamQuery", |state| state.wait_for(stream))
}

/// Makes a stream wait for an event.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: u32) -> u32 {
    call("cuStreamWaitEvent", |state| {
        let event = state.events.get(&event).ok_or(Code::INVALID_HANDLE)?;
        let Some((other, number)) = event.recorded else { return Ok(()) };
        let known = event.known.clone();
        match (known, state.stream(stream)?.capture.is_some()) {
            (Some(known), false) => {
                state.queue(stream, Work::Wait(other, number))?;
                state.stream(stream)?.known.join(&known);
                Ok(())
            }
            (Some(_), true) => Err(Code::STREAM_CAPTURE_ISOLATION),
            // What is captured is in order.
            (None, true) if own(stream) == own(other) => Ok(()),
            (None, _) => {
                eprintln!("vgpu: a capture that goes on in a second stream is not supported");
                Err(Code::NOT_SUPPORTED)
            }
        }
    })
}

/// The flags a stream was made with.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetFlags(stream: Handle, flags: *mut u32) -> u32 {
    call("cuStreamGetFlags", |state| {
        let blocking = state.stream(stream)?.blocking;
        // SAFETY: as in `cuda.h`.
        unsafe { give(flags, u32::from(!blocking)) }
    })
}

/// A stream's priority: they all have the same.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetPriority(stream: Handle, priority: *mut i32) -> u32 {
    call("cuStreamGetPriority", |state| {
        state.stream(stream)?;
        // SAFETY: as in `cuda.h`.
        unsafe { give(priority, 0) }
    })
}
