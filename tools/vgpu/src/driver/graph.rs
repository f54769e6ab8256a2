//! Graphs, made by capturing a stream.
//!
//! The idea: what is queued on a stream while it is captured is a list; the list is the graph, and a launch
//! of it is one piece of work that does the list in order.

use std::ffi::c_char;

use super::error::Code;
use super::state::{Handle, State, Work, call, give};

/// Begins to capture a stream; the default stream cannot be.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: Handle, _mode: u32) -> u32 {
    call("cuStreamBeginCapture_v2", |state| {
        if stream <= 2 {
            return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
        }
        let stream = state.stream(stream)?;
        if stream.capture.is_some() {
            return Err(Code::INVALID_VALUE);
        }
        stream.capture = Some(Vec::new());
        Ok(())
    })
}

/// Ends a capture.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) -> u32 {
    call("cuStreamEndCapture", |state| {
        let captured = state.stream(stream)?.capture.take().ok_or(Code::INVALID_VALUE)?;
        let handle = state.handle();
        state.graphs.insert(handle, captured);
        // SAFETY: as in `cuda.h`.
        unsafe { give(graph, handle) }
    })
}

/// Whether a stream is being captured: 0 or 1.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: Handle, status: *mut u32) -> u32 {
    call("cuStreamIsCapturing", |state| {
        let capturing = u32::from(state.stream(stream)?.capture.is_some());
        // SAFETY: as in `cuda.h`.
        unsafe { give(status, capturing) }
    })
}

/// The number of a graph's nodes; the nodes themselves have no handles here.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphGetNodes(graph: Handle, nodes: *mut Handle, count: *mut usize) -> u32 {
    call("cuGraphGetNodes", |state| {
        let length = state.graphs.get(&graph).ok_or(Code::INVALID_HANDLE)?.len();
        if !nodes.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        // SAFETY: as in `cuda.h`.
        unsafe { give(count, length) }
    })
}

fn instantiate(state: &mut State, exec: *mut Handle, graph: Handle) -> Result<(), Code> {
    let nodes = state.graphs.get(&graph).ok_or(Code::INVALID_HANDLE)?.clone();
    let handle = state.handle();
    state.execs.insert(handle, nodes);
    // SAFETY: null or to be written, as in `cuda.h`.
    unsafe { give(exec, handle) }
}

/// Makes a graph ready to run.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiate_v2(
    exec: *mut Handle,
    graph: Handle,
    _error_node: *mut Handle,
    _log: *mut c_char,
    _log_bytes: usize,
) -> u32 {
    call("cuGraphInstantiate_v2", |state| instantiate(state, exec, graph))
}

/// Makes a graph ready to run.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(exec: *mut Handle, graph: Handle, _flags: u64) -> u32 {
    call("cuGraphInstantiateWithFlags", |state| instantiate(state, exec, graph))
}

/// Runs a graph on a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(exec: Handle, stream: Handle) -> u32 {
    call("cuGraphLaunch", |state| {
        let nodes = state.execs.get(&exec).ok_or(Code::INVALID_HANDLE)?.clone();
        state.usage.graph_launches += 1;
        state.queue(stream, Work::Graph(nodes)).map(drop)
    })
}

/// Ends an instantiated graph.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(exec: Handle) -> u32 {
    call("cuGraphExecDestroy", |state| state.execs.remove(&exec).map(drop).ok_or(Code::INVALID_HANDLE))
}

/// Ends a graph.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: Handle) -> u32 {
    call("cuGraphDestroy", |state| state.graphs.remove(&graph).map(drop).ok_or(Code::INVALID_HANDLE))
}
