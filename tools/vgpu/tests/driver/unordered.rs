//! Work in several streams that touches the same memory: what orders it, and what does not.
//!
//! The idea: each test queues a few launches and asks for them in every order of the streams, since it must not matter
//! what is done first; in a race one of the waits fails. A new context begins after each.

use std::ptr::null_mut;

use vgpu::driver::context::{cuCtxSynchronize, cuDevicePrimaryCtxRelease_v2};
use vgpu::driver::event::*;
use vgpu::driver::graph::*;
use vgpu::driver::memory::*;
use vgpu::driver::own::vgpuSeed;
use vgpu::driver::stream::*;

use super::streams::{event, on, stream};
use super::{Shape, alloc, alone, download, function, launch, load, start, upload};

/// `copy` moves a word for each thread, `raise` adds 1 to a word in an atomic operation, `poll` looks at a word until it
/// is not 0.
const PTX: &str = ".version 8.0\n.target sm_75\n.address_size 64\n\
    .visible .entry copy(.param .u64 out, .param .u64 from)\n{\n\
    .reg .b32 %r<2>; .reg .b64 %d<4>;\n\
    ld.param.u64 %d0, [out]; ld.param.u64 %d1, [from]; mov.u32 %r0, %tid.x; mul.wide.u32 %d2, %r0, 4;\n\
    add.s64 %d0, %d0, %d2; add.s64 %d1, %d1, %d2; ld.global.u32 %r1, [%d1]; st.global.u32 [%d0], %r1; ret;\n}\n\
    .visible .entry raise(.param .u64 at)\n{\n\
    .reg .b64 %d<2>; ld.param.u64 %d0, [at]; red.global.add.u32 [%d0], 1; ret;\n}\n\
    .visible .entry land(.param .u64 from)\n{\n\
    .reg .b32 %r<2>; .reg .b64 %d<2>; .shared .align 16 .b8 s[16];\n\
    ld.param.u64 %d0, [from]; mov.u32 %r0, s; cp.async.ca.shared.global [%r0], [%d0], 4; cp.async.wait_all; ret;\n}\n\
    .visible .entry poll(.param .u64 at)\n{\n\
    .reg .pred %p; .reg .b32 %r<2>; .reg .b64 %d<2>; ld.param.u64 %d0, [at];\n\
    L: ld.volatile.global.u32 %r0, [%d0]; setp.eq.u32 %p, %r0, 0; @%p bra L; ret;\n}\n";

/// Two streams, two runs of four words and the kernels.
#[derive(Clone, Copy)]
struct Kit {
    a: usize,
    b: usize,
    copy: usize,
    raise: usize,
    land: usize,
    poll: usize,
    /// Words that are written.
    out: u64,
    /// Words that hold 1 to 4, and other words that do.
    from: [u64; 2],
}

impl Kit {
    /// With streams of these flags.
    fn new(flags: [u32; 2]) -> Kit {
        start();
        let module = load(&PTX.replace("sm_75", "sm_80")).unwrap();
        let [copy, raise, land, poll] =
            ["copy", "raise", "land", "poll"].map(|name| function(module, name).unwrap());
        let [out, first, second] = [(); 3].map(|()| alloc(32).unwrap());
        for words in [out, first, second] {
            assert_eq!(upload(words, &[1, 2, 3, 4]), 0);
        }
        let [a, b] = flags.map(stream);
        Kit { a, b, copy, raise, land, poll, out, from: [first, second] }
    }

    /// A launch that writes `to`.
    fn write(&self, stream: usize, to: u64) {
        assert_eq!(launch(self.copy, on(stream), &[to, self.from[0]]), 0);
    }

    /// A launch that reads `out`.
    fn read(&self, stream: usize) {
        assert_eq!(launch(self.copy, on(stream), &[self.from[1], self.out]), 0);
    }

    fn one(&self, kernel: usize, stream: usize, at: u64) {
        assert_eq!(launch(kernel, Shape { stream, ..Shape::new(1, 1) }, &[at]), 0);
    }
}

/// What follows on one stream once another has come to here.
fn after(stream: usize, other: usize) {
    let mark = event();
    assert_eq!(cuEventRecord(mark, other), 0);
    assert_eq!(cuStreamWaitEvent(stream, mark, 0), 0);
}

/// Runs `queue` and waits for the streams in both orders: whether each ended in a race.
fn outcome(flags: [u32; 2], queue: impl Fn(&Kit)) -> [bool; 2] {
    [false, true].map(|swapped| {
        let kit = Kit::new(flags);
        queue(&kit);
        let (first, second) = if swapped { (kit.b, kit.a) } else { (kit.a, kit.b) };
        let codes = [cuStreamSynchronize(first), cuStreamSynchronize(second)];
        assert!([[0, 0], [0, 719], [719, 719]].contains(&codes), "{codes:?}");
        // What a fault left behind goes with the context.
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), 0);
        codes[1] != 0
    })
}

/// Streams that do not keep to one order with the default stream.
const FREE: [u32; 2] = [1, 1];

fn race(queue: impl Fn(&Kit)) {
    assert_eq!(outcome(FREE, queue), [true; 2]);
}

fn no_race(queue: impl Fn(&Kit)) {
    assert_eq!(outcome(FREE, queue), [false; 2]);
}

/// Runs a test on its own; the faults that it left, or none in the process that runs it.
fn faults(name: &str, body: impl FnOnce()) -> Option<Vec<String>> {
    let ended = alone(&format!("unordered::{name}"), &[], body)?.fine();
    let faults = ended.report["faults"].as_array().unwrap();
    Some(faults.iter().map(|fault| fault.as_str().unwrap().to_string()).collect())
}

#[test]
fn two_writers() {
    let faults = faults("two_writers", || {
        race(|kit| {
            kit.write(kit.a, kit.out);
            kit.write(kit.b, kit.out + 12);
        });
        no_race(|kit| {
            kit.write(kit.a, kit.out);
            after(kit.b, kit.a);
            kit.write(kit.b, kit.out);
        });
    });
    let Some(faults) = faults else { return };
    assert_eq!(faults.len(), 2, "{faults:?}");
    for fault in faults {
        assert!(fault.starts_with("kernel copy on stream 0x"), "{fault}");
        let part = "a race: nothing orders its writes after the writes of kernel copy on stream 0x";
        assert!(fault.contains(part), "{fault}");
        assert!(fault.contains(": at byte 12 of allocation "), "{fault}");
    }
}

#[test]
fn readers_and_atomic_operations_share() {
    faults("readers_and_atomic_operations_share", || {
        no_race(|kit| {
            kit.write(kit.a, kit.out);
            kit.write(kit.b, kit.from[1]);
        });
        no_race(|kit| [kit.a, kit.b].into_iter().for_each(|stream| kit.one(kit.raise, stream, kit.out)));
        race(|kit| {
            kit.one(kit.raise, kit.a, kit.out);
            kit.read(kit.b);
        });
        race(|kit| {
            kit.write(kit.a, kit.out);
            kit.one(kit.raise, kit.b, kit.out);
        });
    });
}

#[test]
fn a_writer_after_readers() {
    faults("a_writer_after_readers", || {
        let readers: [fn(&Kit); 3] = [
            |kit| kit.read(kit.a),
            |kit| kit.one(kit.land, kit.a, kit.out),
            |kit| kit.one(kit.poll, kit.a, kit.out),
        ];
        for reader in readers {
            race(|kit| {
                reader(kit);
                kit.write(kit.b, kit.out);
            });
            no_race(|kit| {
                reader(kit);
                after(kit.b, kit.a);
                kit.write(kit.b, kit.out);
            });
        }
    });
}

#[test]
fn an_event_is_what_was_recorded_when_it_was_waited_for() {
    faults("an_event_is_what_was_recorded_when_it_was_waited_for", || {
        // Before the launch.
        race(|kit| {
            after(kit.b, kit.a);
            kit.write(kit.a, kit.out);
            kit.write(kit.b, kit.out);
        });
        race(|kit| {
            let mark = event();
            assert_eq!(cuEventRecord(mark, kit.a), 0);
            kit.write(kit.a, kit.out);
            assert_eq!(cuStreamWaitEvent(kit.b, mark, 0), 0);
            kit.write(kit.b, kit.out);
        });
        // After it, but only once more, when the other already waits.
        race(|kit| {
            let mark = event();
            assert_eq!(cuEventRecord(mark, kit.a), 0);
            assert_eq!(cuStreamWaitEvent(kit.b, mark, 0), 0);
            kit.write(kit.a, kit.out);
            assert_eq!(cuEventRecord(mark, kit.a), 0);
            kit.write(kit.b, kit.out);
        });
        // Waited for behind the launch that should have waited.
        race(|kit| {
            kit.write(kit.a, kit.out);
            kit.write(kit.b, kit.out);
            after(kit.b, kit.a);
        });
        // Recorded behind more than is needed, and by way of another stream.
        no_race(|kit| {
            kit.write(kit.a, kit.out);
            kit.read(kit.a);
            let c = stream(1);
            after(c, kit.a);
            kit.write(c, kit.out);
            after(kit.b, c);
            kit.write(kit.b, kit.out);
        });
        // A chain with a gap.
        race(|kit| {
            let c = stream(1);
            kit.write(kit.a, kit.out);
            after(kit.b, c);
            after(c, kit.a);
            kit.write(kit.b, kit.out);
        });
    });
}

#[test]
fn the_host_waits_in_between() {
    faults("the_host_waits_in_between", || {
        let marked = |kit: &Kit| {
            let mark = event();
            assert_eq!(cuEventRecord(mark, kit.a), 0);
            mark
        };
        let waits: [&dyn Fn(&Kit) -> u32; 6] = [
            &|kit| cuStreamSynchronize(kit.a),
            &|kit| cuStreamQuery(kit.a),
            &|kit| cuEventSynchronize(marked(kit)),
            &|kit| cuEventQuery(marked(kit)),
            &|_| cuCtxSynchronize(),
            &|_| cuMemFree_v2(alloc(16).unwrap()),
        ];
        for wait in waits {
            no_race(|kit| {
                kit.write(kit.a, kit.out);
                assert_eq!(wait(kit), 0);
                kit.write(kit.b, kit.out);
            });
        }
        // It is too late for what is there already.
        race(|kit| {
            kit.write(kit.a, kit.out);
            kit.write(kit.b, kit.out);
            assert_eq!(cuStreamSynchronize(kit.a), 0);
        });
        // It waits for what comes before an event only.
        race(|kit| {
            let mark = marked(kit);
            kit.write(kit.a, kit.out);
            assert_eq!(cuEventSynchronize(mark), 0);
            kit.write(kit.b, kit.out);
        });
    });
}

#[test]
fn what_is_done_is_not_waited_for() {
    faults("what_is_done_is_not_waited_for", || {
        // A stream's end does not wait, on a device.
        race(|kit| {
            let c = stream(1);
            kit.write(c, kit.out);
            assert_eq!(cuStreamDestroy_v2(c), 0);
            kit.write(kit.a, kit.out);
        });
        no_race(|kit| {
            let c = stream(1);
            kit.write(c, kit.out);
            assert_eq!(cuStreamDestroy_v2(c), 0);
            assert_eq!(cuCtxSynchronize(), 0);
            kit.write(kit.a, kit.out);
        });
        // Who waits for what it has done need not know that it is gone.
        no_race(|kit| {
            let c = stream(1);
            kit.write(c, kit.out);
            after(kit.a, c);
            assert_eq!(cuStreamDestroy_v2(c), 0);
            kit.write(kit.a, kit.out);
        });
        race(|kit| {
            kit.write(kit.a, kit.out);
            assert_eq!(vgpuSeed(0), 0);
            kit.write(kit.b, kit.out);
        });
    });
}

#[test]
fn the_default_stream_keeps_an_order() {
    faults("the_default_stream_keeps_an_order", || {
        const BLOCKING: [u32; 2] = [0, 0];
        let between: [fn(&Kit); 4] = [
            // Its work comes after, and before; through it, others are in order.
            |kit| kit.write(0, kit.out),
            |kit| kit.write(0, kit.from[1]),
            |kit| kit.write(1, kit.out),
            |kit| assert_eq!(cuMemsetD32_v2(kit.from[1], 1, 1), 0),
        ];
        for work in between {
            let queue = |kit: &Kit| {
                kit.write(kit.a, kit.out);
                work(kit);
                kit.write(kit.b, kit.out);
            };
            assert_eq!(outcome(BLOCKING, queue), [false; 2]);
            race(queue);
            assert_eq!(outcome([1, 0], queue), [true; 2]);
            assert_eq!(outcome([0, 1], queue), [true; 2]);
        }
        // By any of its names.
        for name in 0..3 {
            no_race(|kit| {
                kit.write(name, kit.out);
                after(kit.b, name);
                kit.write(kit.b, kit.out);
            });
            no_race(|kit| {
                kit.write(name, kit.out);
                assert_eq!(cuStreamSynchronize(name), 0);
                kit.write(kit.b, kit.out);
            });
        }
        // A copy that is done on return has waited for blocking streams.
        for (flags, found) in [([0, 1], [false; 2]), ([1, 0], [true; 2])] {
            let queue = |kit: &Kit| {
                kit.write(kit.a, kit.out);
                assert_eq!(download(kit.from[0], 1), Ok(vec![1]));
                kit.write(kit.b, kit.out);
            };
            assert_eq!(outcome(flags, queue), found);
        }
        // Among each other they have none.
        let both = |kit: &Kit| [kit.a, kit.b].into_iter().for_each(|stream| kit.write(stream, kit.out));
        assert_eq!(outcome(BLOCKING, both), [true; 2]);
    });
}

#[test]
fn graphs_are_one_piece_of_work() {
    faults("graphs_are_one_piece_of_work", || {
        // Reads what it has written.
        let replay = |kit: &Kit| {
            let (mut graph, mut exec) = (0, 0);
            assert_eq!(cuStreamBeginCapture_v2(kit.a, 0), 0);
            kit.write(kit.a, kit.out);
            kit.read(kit.a);
            // SAFETY: pointers to local variables.
            unsafe {
                assert_eq!(cuStreamEndCapture(kit.a, &mut graph), 0);
                assert_eq!(cuGraphInstantiate_v2(&mut exec, graph, null_mut(), null_mut(), 0), 0);
            }
            assert_eq!(cuGraphLaunch(exec, kit.a), 0);
        };
        race(|kit| {
            replay(kit);
            kit.write(kit.b, kit.out);
        });
        race(|kit| {
            kit.read(kit.b);
            replay(kit);
        });
        no_race(|kit| {
            kit.read(kit.b);
            after(kit.a, kit.b);
            replay(kit);
            replay(kit);
            after(kit.b, kit.a);
            kit.write(kit.b, kit.out);
        });
    });
}

#[test]
fn events_do_not_leave_a_capture() {
    faults("events_do_not_leave_a_capture", || {
        let kit = Kit::new(FREE);
        let (outside, inside) = (event(), event());
        assert_eq!(cuEventRecord(outside, kit.b), 0);
        assert_eq!(cuStreamBeginCapture_v2(kit.a, 0), 0);
        assert_eq!(cuEventRecord(inside, kit.a), 0);
        assert_eq!(cuStreamWaitEvent(kit.a, inside, 0), 0);
        assert_eq!(cuStreamWaitEvent(kit.a, outside, 0), 905);
        assert_eq!(cuStreamWaitEvent(kit.b, inside, 0), 801, "a device would capture the other stream, too");
        assert_eq!(cuEventSynchronize(inside), 907);
        assert_eq!(cuStreamSynchronize(kit.b), 0);
    });
}

#[test]
fn copies_and_fills_count() {
    let faults = faults("copies_and_fills_count", || {
        let mut host = [0_u32; 4];
        let to = host.as_mut_ptr() as usize;
        let copies: [&dyn Fn(&Kit) -> u32; 5] = [
            // SAFETY: as many bytes are there, until the test ends.
            &|kit| unsafe { cuMemcpyHtoDAsync_v2(kit.out, to as *const u8, 4, kit.a) },
            // SAFETY: as above.
            &|kit| unsafe { cuMemcpyDtoHAsync_v2(to as *mut u8, kit.out, 4, kit.a) },
            &|kit| cuMemcpyDtoDAsync_v2(kit.out, kit.from[0], 4, kit.a),
            &|kit| cuMemcpyDtoDAsync_v2(kit.from[1], kit.out, 4, kit.a),
            &|kit| cuMemsetD8Async(kit.out + 3, 0, 1, kit.a),
        ];
        for copy in copies {
            race(|kit| {
                assert_eq!(copy(kit), 0);
                kit.write(kit.b, kit.out);
            });
            no_race(|kit| {
                assert_eq!(copy(kit), 0);
                after(kit.b, kit.a);
                kit.write(kit.b, kit.out);
            });
        }
        // The host's own copy is on the default stream.
        race(|kit| {
            kit.write(kit.a, kit.out);
            assert_eq!(download(kit.out, 1), Ok(vec![1]), "what was there before the launch");
        });
    });
    let Some(faults) = faults else { return };
    for what in ["a copy from the host", "a copy to the host", "a copy within the device", "a fill"] {
        assert!(faults.iter().any(|fault| fault.starts_with(what)), "{what}: {faults:?}");
    }
    assert!(
        faults.iter().any(|fault| fault.contains("the reads of a copy to the host on the default stream ("))
    );
}
