//! Streams, events and graphs: what is done when.

use vgpu::driver::event::*;
use vgpu::driver::graph::*;
use vgpu::driver::memory::{cuMemcpyDtoHAsync_v2, cuMemcpyHtoD_v2};
use vgpu::driver::own::vgpuSeed;
use vgpu::driver::stream::*;

use super::{Shape, alloc, alone, download, kernel, launch, start, upload};

pub fn stream(flags: u32) -> usize {
    let mut stream = 0;
    // SAFETY: the pointer is to a local variable.
    unsafe { assert_eq!(cuStreamCreate(&mut stream, flags), 0) };
    stream
}

pub fn event() -> usize {
    let mut event = 0;
    // SAFETY: the pointer is to a local variable.
    unsafe { assert_eq!(cuEventCreate(&mut event, 0), 0) };
    event
}

pub fn on(stream: usize) -> Shape {
    Shape { stream, ..Shape::new(1, 4) }
}

#[test]
fn streams_keep_their_orders() {
    let body = || {
        start();
        let fill = kernel("fill");
        let (out, behind) = (alloc(16).unwrap(), alloc(16).unwrap());
        assert_eq!(upload(out, &[0; 4]), 0);
        // What a stream brings to the host, and when it has.
        let mut seen = 0_u32;
        let to = &raw mut seen;
        // SAFETY: the variable lives until the test ends.
        let bring = |from, stream| unsafe { assert_eq!(cuMemcpyDtoHAsync_v2(to.cast(), from, 4, stream), 0) };
        // SAFETY: as above.
        let seen = || unsafe { to.read_volatile() };
        // One that keeps to the default stream's order: its work comes before the copy.
        let blocking = stream(0);
        assert_eq!(launch(fill, on(blocking), &[out, 10, 4]), 0);
        assert_eq!(download(out, 1), Ok(vec![10]));
        // One that does not: its work waits until it is asked for.
        let free = stream(1);
        assert_eq!(launch(fill, on(free), &[out, 20, 4]), 0);
        bring(out, free);
        assert_eq!(seen(), 0);
        assert_eq!(cuStreamQuery(free), 0);
        assert_eq!((seen(), download(out, 1)), (20, Ok(vec![20])));
        // One that waits for an event of the other.
        let (other, mark) = (stream(1), event());
        assert_eq!(launch(fill, on(free), &[out, 30, 4]), 0);
        assert_eq!(cuEventRecord(mark, free), 0);
        assert_eq!(launch(fill, on(free), &[behind, 50, 4]), 0);
        bring(behind, free);
        assert_eq!(cuStreamWaitEvent(other, mark, 0), 0);
        assert_eq!(launch(fill, on(other), &[out, 40, 2]), 0);
        assert_eq!(cuStreamSynchronize(other), 0);
        assert_eq!(download(out, 4), Ok(vec![40, 41, 32, 33]));
        assert_eq!(seen(), 20, "what is behind the event is not done yet");
        let (mut flags, mut priority) = (9, 9);
        // SAFETY: pointers to local variables.
        unsafe {
            assert_eq!(cuStreamGetFlags(free, &mut flags), 0);
            assert_eq!(cuStreamGetPriority(free, &mut priority), 0);
        }
        assert_eq!((flags, priority), (1, 0));
        // A stream's end waits for its work.
        assert_eq!(cuStreamDestroy_v2(free), 0);
        assert_eq!(seen(), 50);
        assert_eq!(cuStreamSynchronize(free), 400);
        assert_eq!(cuStreamDestroy_v2(0), 400);
    };
    if let Some(ended) = alone("streams::streams_keep_their_orders", &[], body) {
        ended.fine();
    }
}

#[test]
fn events_tell_the_time() {
    let body = || {
        start();
        let (first, last, fill) = (event(), event(), kernel("fill"));
        let out = alloc(16).unwrap();
        let mut milliseconds = -1.0;
        // SAFETY: the pointer is to a local variable.
        let mut between = |a, b| unsafe { (cuEventElapsedTime(&mut milliseconds, a, b), milliseconds) };
        assert_eq!(between(first, last).0, 400, "they were not recorded");
        let stream = stream(1);
        assert_eq!(cuEventRecord(first, stream), 0);
        assert_eq!(launch(fill, on(stream), &[out, 1, 4]), 0);
        assert_eq!(cuEventRecord(last, stream), 0);
        assert_eq!(between(first, last).0, 600, "they were not reached");
        assert_eq!(cuEventSynchronize(last), 0);
        let (code, time) = between(first, last);
        assert!(code == 0 && time > 0.0, "{code} {time}");
        assert_eq!(cuEventQuery(first), 0);
        assert_eq!(cuEventDestroy_v2(first), 0);
        assert_eq!(cuEventQuery(first), 400);
    };
    if let Some(ended) = alone("streams::events_tell_the_time", &[], body) {
        ended.fine();
    }
}

#[test]
fn graphs_are_captured_and_replayed() {
    let body = || {
        start();
        let (fill, ticket) = (kernel("fill"), kernel("ticket"));
        let out = alloc(64).unwrap();
        assert_eq!(upload(out, &[0; 16]), 0);
        let stream = stream(0);
        let (mut graph, mut exec, mut nodes, mut capturing) = (0, 0, 0, 9);
        assert_eq!(cuStreamBeginCapture_v2(0, 0), 900, "the default stream cannot be captured");
        // SAFETY: pointers to local variables.
        unsafe {
            assert_eq!(cuStreamEndCapture(stream, &mut graph), 1, "nothing was begun");
            assert_eq!(cuStreamBeginCapture_v2(stream, 0), 0);
            assert_eq!(cuStreamIsCapturing(stream, &mut capturing), 0);
            assert_eq!(capturing, 1);
            assert_eq!(launch(ticket, Shape { stream, ..Shape::new(1, 1) }, &[out]), 0);
            assert_eq!(launch(fill, on(stream), &[out + 16, 7, 4]), 0);
            assert_eq!(cuStreamSynchronize(stream), 900, "nothing can be waited for");
            assert_eq!(cuStreamEndCapture(stream, &mut graph), 0);
            assert_eq!(download(out, 2), Ok(vec![0, 0]), "nothing was done");
            assert_eq!(cuGraphGetNodes(graph, std::ptr::null_mut(), &mut nodes), 0);
            assert_eq!(nodes, 2);
            assert_eq!(cuGraphInstantiateWithFlags(&mut exec, graph, 0), 0);
            assert_eq!(cuGraphDestroy(graph), 0);
        }
        for times in 1..=3 {
            assert_eq!(cuGraphLaunch(exec, stream), 0);
            assert_eq!(cuStreamSynchronize(stream), 0);
            assert_eq!(download(out, 8), Ok(vec![times, times - 1, 0, 0, 7, 8, 9, 10]));
        }
        assert_eq!(cuGraphExecDestroy(exec), 0);
        assert_eq!(cuGraphLaunch(exec, stream), 400);
    };
    if let Some(ended) = alone("streams::graphs_are_captured_and_replayed", &[], body) {
        let ended = ended.fine();
        assert_eq!(ended.number("/graph_launches"), 3);
        assert_eq!([ended.number("/launches/fill/by_graph"), ended.number("/launches/fill/plain")], [3, 0]);
    }
}

/// In which order blocks come, as tickets tell it.
fn order() -> Vec<u32> {
    let ticket = kernel("ticket");
    let out = alloc(4 * 65).unwrap();
    // SAFETY: 260 bytes are there.
    unsafe { assert_eq!(cuMemcpyHtoD_v2(out, [0_u8; 260].as_ptr(), 260), 0) };
    assert_eq!(launch(ticket, Shape::new(64, 1), &[out]), 0);
    download(out + 4, 64).unwrap()
}

#[test]
fn a_seed_is_an_order() {
    let body = || {
        start();
        let (plain, mut orders) = (order(), Vec::new());
        assert_eq!(plain, order());
        for seed in [1, 2, 1] {
            assert_eq!(vgpuSeed(seed), 0);
            orders.push(order());
            let mut sorted = orders.last().unwrap().clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..64).collect::<Vec<_>>());
        }
        assert!(orders[0] != orders[1] && orders[0] != plain);
        assert_eq!(orders[0], orders[2]);
        assert_eq!(vgpuSeed(0), 0);
        assert_eq!(order(), plain);
    };
    if let Some(ended) = alone("streams::a_seed_is_an_order", &[], body) {
        ended.fine();
    }
}
