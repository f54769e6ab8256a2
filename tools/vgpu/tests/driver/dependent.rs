//! Launches that may begin before the launch before them has ended.
//!
//! The idea: each test queues a few launches, in a stream and as a graph, and looks at whether that ends in a fault. A
//! new context begins after each.

use std::ffi::c_void;
use std::ptr::null_mut;

use vgpu::driver::context::cuDevicePrimaryCtxRelease_v2;
use vgpu::driver::event::cuEventRecord;
use vgpu::driver::graph::*;
use vgpu::driver::launch::{Config, cuLaunchKernelEx};
use vgpu::driver::memory::*;
use vgpu::driver::own::vgpuSeed;
use vgpu::driver::stream::*;

use super::clusters::{attribute, config, fit};
use super::streams::{event, stream};
use super::{alloc, alone, download, function, load, start, upload};

/// The launch attribute's number, and that of a cluster's size.
const DEPENDENT: u32 = 6;
const CLUSTER: u32 = 4;

const WAIT: &str = "griddepcontrol.wait;";
const LET: &str = "griddepcontrol.launch_dependents;";
const LOAD: &str = "ld.global.u32 %r1, [%d1];";
const STORE: &str = "st.global.u32 [%d0], %r1;";
const ADD: &str = "red.global.add.u32 [%d0], 1;";

/// Kernels that move a word for each thread, from `%d1` to `%d0`, and wait for the launch before somewhere or nowhere;
/// in `half` two threads of four wait, all at once.
fn ptx() -> String {
    let land = "shl.b32 %r2, %r0, 2; mov.u32 %r1, s; add.u32 %r2, %r2, %r1; cp.async.ca.shared.global [%r2], [%d1], 4; cp.async.wait_all;";
    let kernels: [(&str, &[&str]); 12] = [
        ("copy", &[LOAD, STORE]),
        ("waits", &[WAIT, LOAD, STORE]),
        ("late", &[WAIT, LET, LOAD, STORE]),
        ("hasty", &[LET, WAIT, LOAD, STORE]),
        ("reads", &[LOAD, WAIT, STORE]),
        ("early", &[LOAD, STORE, WAIT]),
        ("half", &["@%p", WAIT, LOAD, STORE]),
        ("adds", &[ADD, WAIT]),
        ("half_adds", &["@%p", WAIT, ADD]),
        ("lands", &[land, WAIT]),
        ("first_block", &["mov.u32 %r2, %ctaid.x; setp.eq.u32 %p, %r2, 0; @%p", WAIT, LOAD]),
        ("half_lets", &["@%p", WAIT, LET, WAIT, LOAD, STORE]),
    ];
    let kernels = kernels.map(|(name, body)| {
        format!(
            ".visible .entry {name}(.param .u64 out, .param .u64 from)\n{{\n\
             .reg .pred %p; .reg .b32 %r<3>; .reg .b64 %d<3>; .shared .align 16 .b8 s[16];\n\
             ld.param.u64 %d0, [out]; ld.param.u64 %d1, [from]; mov.u32 %r0, %tid.x; setp.lt.u32 %p, %r0, 2;\n\
             mul.wide.u32 %d2, %r0, 4; add.s64 %d0, %d0, %d2; add.s64 %d1, %d1, %d2; {} ret;\n}}\n",
            body.join(" ")
        )
    });
    format!(".version 7.8\n.target sm_90\n.address_size 64\n{}", kernels.concat())
}

/// A stream, the kernels, and five runs of four words.
struct Kit {
    stream: usize,
    module: usize,
    words: [u64; 5],
}

impl Kit {
    fn new(flags: u32) -> Kit {
        start();
        let words = [(); 5].map(|()| alloc(16).unwrap());
        words.iter().for_each(|&words| assert_eq!(upload(words, &[1, 2, 3, 4]), 0));
        Kit { stream: stream(flags), module: load(&ptx()).unwrap(), words }
    }

    /// A launch of some blocks of some threads that writes one run of words and reads another: the code.
    fn launch(
        &self,
        name: &str,
        [grid, threads]: [u32; 2],
        [out, from]: [usize; 2],
        dependent: Option<u32>,
    ) -> u32 {
        let function = function(self.module, name).unwrap();
        let attributes: Vec<_> = dependent.iter().map(|&value| attribute(DEPENDENT, &[value])).collect();
        let config = Config { stream: self.stream, ..config(grid, threads, 0, &attributes) };
        let arguments = [self.words[out], self.words[from]];
        let pointers: [*const c_void; 2] = arguments.each_ref().map(|a| std::ptr::from_ref(a).cast());
        // SAFETY: there is a pointer for each parameter.
        unsafe { cuLaunchKernelEx(&config, function, pointers.as_ptr(), null_mut()) }
    }

    /// One that begins after the one before.
    fn plain(&self, name: &str, runs: [usize; 2]) {
        assert_eq!(self.launch(name, [1, 4], runs, None), 0);
    }

    /// One that may begin before.
    fn next(&self, name: &str, runs: [usize; 2]) {
        assert_eq!(self.launch(name, [1, 4], runs, Some(1)), 0);
    }

    fn capture(&self, queue: impl Fn(&Kit)) -> usize {
        let (mut graph, mut exec) = (0, 0);
        assert_eq!(cuStreamBeginCapture_v2(self.stream, 0), 0);
        queue(self);
        // SAFETY: pointers to local variables.
        unsafe {
            assert_eq!(cuStreamEndCapture(self.stream, &mut graph), 0);
            assert_eq!(cuGraphInstantiate_v2(&mut exec, graph, null_mut(), null_mut(), 0), 0);
        }
        exec
    }
}

/// The code with which it ends.
fn ends(flags: u32, queue: impl Fn(&Kit)) -> u32 {
    let kit = Kit::new(flags);
    queue(&kit);
    let code = cuStreamSynchronize(kit.stream);
    // What a fault left behind goes with the context.
    assert_eq!(cuDevicePrimaryCtxRelease_v2(0), 0);
    code
}

/// The same, in a stream and as a graph.
fn both(queue: impl Fn(&Kit)) -> [u32; 2] {
    let replay = |kit: &Kit| assert_eq!(cuGraphLaunch(kit.capture(&queue), kit.stream), 0);
    [ends(1, &queue), ends(1, replay)]
}

#[track_caller]
fn clean(queue: impl Fn(&Kit)) {
    assert_eq!(both(queue), [0; 2]);
}

#[track_caller]
fn caught(queue: impl Fn(&Kit)) {
    assert_eq!(both(queue), [719; 2]);
}

/// Runs a test on its own, and asks for a part of each of its faults.
fn faults(name: &str, expected: &[&str], body: impl FnOnce()) {
    let Some(ended) = alone(&format!("dependent::{name}"), &[], body) else { return };
    let faults = ended.fine().report["faults"].clone();
    let faults = faults.as_array().unwrap();
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, part) in faults.iter().zip(expected) {
        assert!(fault.as_str().unwrap().contains(part), "{part} in {fault}");
    }
}

#[test]
fn who_waits_first_is_in_order() {
    faults("who_waits_first_is_in_order", &[], || {
        clean(|kit| {
            kit.plain("copy", [1, 0]);
            kit.next("waits", [2, 1]);
            kit.next("late", [3, 2]);
            kit.next("hasty", [4, 3]);
            kit.next("waits", [1, 4]);
        });
        // A graph launched twice, and the words themselves.
        let kit = Kit::new(1);
        assert_eq!(upload(kit.words[0], &[5, 6, 7, 8]), 0);
        let exec = kit.capture(|kit| {
            kit.next("late", [1, 0]);
            kit.next("late", [2, 1]);
        });
        assert_eq!([(); 2].map(|()| cuGraphLaunch(exec, kit.stream)), [0; 2]);
        assert_eq!(cuStreamSynchronize(kit.stream), 0);
        assert_eq!(download(kit.words[2], 4), Ok(vec![5, 6, 7, 8]));
    });
}

#[test]
fn reads_of_what_the_launch_before_writes() {
    const FAULT: &str = "a race: it may begin before kernel copy of its stream has ended, and nothing orders its reads \
                         before griddepcontrol.wait after the writes there (address 0x";
    faults("reads_of_what_the_launch_before_writes", &[FAULT; 4], || {
        for name in ["reads", "lands"] {
            caught(|kit| {
                kit.plain("copy", [1, 0]);
                kit.next(name, [2, 1]);
            });
        }
        // What nobody writes; and without the attribute, or with its value 0.
        clean(|kit| {
            kit.plain("copy", [1, 0]);
            kit.next("reads", [2, 0]);
        });
        for value in [None, Some(0)] {
            clean(|kit| {
                kit.plain("copy", [1, 0]);
                assert_eq!(kit.launch("reads", [1, 4], [2, 1], value), 0);
            });
        }
    });
}

#[test]
fn writes_of_what_the_launch_before_touches() {
    let parts = [
        "its writes before griddepcontrol.wait after the reads there",
        "its writes before griddepcontrol.wait after the writes there",
        "its atomic operations before griddepcontrol.wait after the writes there",
        "its writes before griddepcontrol.wait after the atomic operations there",
    ];
    let parts: Vec<&str> = parts.into_iter().flat_map(|part| [part; 2]).collect();
    faults("writes_of_what_the_launch_before_touches", &parts, || {
        for (before, name, out) in
            [("copy", "early", 0), ("copy", "early", 1), ("copy", "adds", 1), ("adds", "early", 1)]
        {
            caught(|kit| {
                kit.plain(before, [1, 0]);
                kit.next(name, [out, 2]);
            });
        }
        for (before, name, out) in [("copy", "early", 3), ("adds", "adds", 1)] {
            clean(|kit| {
                kit.plain(before, [1, 0]);
                kit.next(name, [out, 2]);
            });
        }
    });
}

#[test]
fn each_thread_waits_for_itself() {
    let race = "nothing orders its reads before griddepcontrol.wait after the writes there";
    let parts = ["at byte 8 of", "at byte 8 of", "at byte 8 of", "at byte 8 of", race, race];
    faults("each_thread_waits_for_itself", &parts, || {
        // Two threads of four have waited: they touch the first two words.
        for (name, runs) in [("half", [2, 1]), ("half_adds", [1, 2])] {
            for (threads, found) in [(4, [719; 2]), (2, [0; 2])] {
                let queue = |kit: &Kit| {
                    assert_eq!(kit.launch("copy", [1, threads], [1, 0], None), 0);
                    kit.next(name, runs);
                };
                assert_eq!(both(queue), found, "{name}");
            }
        }
        // Of two blocks the first.
        for (grid, found) in [(1, [0; 2]), (2, [719; 2])] {
            let queue = |kit: &Kit| {
                kit.plain("copy", [1, 0]);
                assert_eq!(kit.launch("first_block", [grid, 4], [2, 1], Some(1)), 0);
            };
            assert_eq!(both(queue), found);
        }
    });
}

#[test]
fn launches_before_the_one_before() {
    const FAULT: &str = "it may begin before kernel copy of its stream has ended";
    faults("launches_before_the_one_before", &[FAULT; 6], || {
        let chain = |between: &[&str]| {
            both(|kit| {
                kit.plain("copy", [1, 0]);
                between.iter().for_each(|name| kit.next(name, [3, 0]));
                kit.next("reads", [2, 1]);
            })
        };
        for between in [&["hasty"][..], &["half_lets"], &["hasty", "hasty"]] {
            assert_eq!(chain(between), [719; 2], "{between:?}");
        }
        for between in
            [&["late"][..], &["waits"], &["late", "hasty"], &["hasty", "late"], &["hasty", "waits", "hasty"]]
        {
            assert_eq!(chain(between), [0; 2], "{between:?}");
        }
        // Who began after all before it lets nobody pass them.
        clean(|kit| {
            kit.plain("copy", [1, 0]);
            kit.plain("hasty", [3, 0]);
            kit.next("reads", [2, 1]);
        });
    });
}

#[test]
fn somebody_must_wait() {
    const FAULT: &str = "nothing waits for the launch before, kernel copy: it may begin before that has ended, \
                         and no thread runs griddepcontrol.wait";
    faults("somebody_must_wait", &[FAULT; 2], || {
        caught(|kit| {
            kit.plain("copy", [1, 0]);
            kit.next("copy", [2, 3]);
        });
        // For nothing: there is no launch before, or something else is in between.
        clean(|kit| kit.next("copy", [2, 3]));
        clean(|kit| {
            kit.plain("copy", [1, 0]);
            kit.next("waits", [2, 1]);
            assert_eq!(cuMemsetD8Async(kit.words[4], 0, 1, kit.stream), 0);
            kit.next("copy", [3, 2]);
        });
        // A launch without the attribute, behind one with it.
        clean(|kit| {
            kit.plain("copy", [1, 0]);
            kit.next("waits", [2, 1]);
            kit.plain("copy", [3, 2]);
        });
    });
}

#[test]
fn what_comes_between_orders_launches() {
    let race = "its reads before griddepcontrol.wait after the writes there";
    faults("what_comes_between_orders_launches", &[race; 5], || {
        let between = |flags: u32, work: &dyn Fn(&Kit)| {
            ends(flags, |kit| {
                kit.plain("copy", [1, 0]);
                work(kit);
                kit.next("reads", [2, 1]);
            })
        };
        assert_eq!(between(1, &|_| {}), 719);
        // The host waits, or has the work done without.
        assert_eq!(between(1, &|kit| assert_eq!(cuStreamSynchronize(kit.stream), 0)), 0);
        assert_eq!(between(1, &|_| assert_eq!(vgpuSeed(0), 0)), 719);
        // The default stream, if it is one that the stream keeps to.
        let fill = |kit: &Kit| assert_eq!(cuMemsetD8Async(kit.words[4], 0, 1, 0), 0);
        assert_eq!([between(0, &fill), between(1, &fill)], [0, 719]);
        // A record, which is nothing in a graph.
        let record = |kit: &Kit| assert_eq!(cuEventRecord(event(), kit.stream), 0);
        let queue = |kit: &Kit| {
            kit.plain("copy", [1, 0]);
            record(kit);
            kit.next("reads", [2, 1]);
        };
        assert_eq!(both(queue), [0, 719]);
        // A graph is ordered as a whole.
        let give = |kit: &Kit, as_graph: bool, work: &dyn Fn(&Kit)| match as_graph {
            true => assert_eq!(cuGraphLaunch(kit.capture(work), kit.stream), 0),
            false => work(kit),
        };
        for (first, second, found) in
            [(false, false, 719), (false, true, 0), (true, false, 0), (true, true, 0)]
        {
            let queue = |kit: &Kit| {
                give(kit, first, &|kit| {
                    kit.plain("copy", [1, 0]);
                    kit.next("waits", [2, 1]);
                });
                give(kit, second, &|kit| kit.next("reads", [3, 2]));
            };
            assert_eq!(ends(1, queue), found);
        }
    });
}

#[test]
fn other_streams_race_with_them_too() {
    let race = "nothing orders its writes after the writes of kernel waits";
    faults("other_streams_race_with_them_too", &[race; 1], || {
        let queue = |kit: &Kit| {
            kit.plain("copy", [1, 0]);
            kit.next("waits", [2, 1]);
            let other = Kit { stream: stream(1), ..*kit };
            other.plain("copy", [2, 3]);
            assert_eq!(cuStreamSynchronize(kit.stream), 0);
            assert_eq!(cuStreamSynchronize(other.stream), 719);
        };
        assert_eq!(ends(1, queue), 719);
    });
}

#[test]
fn who_does_not_know_them_refuses() {
    let body = || {
        let kit = Kit::new(1);
        let copy = function(kit.module, "copy").unwrap();
        let both = [attribute(DEPENDENT, &[1]), attribute(CLUSTER, &[1, 1, 1])];
        assert_eq!(fit(copy, &config(1, 32, 0, &both)), Ok(132 * 32));
        assert_eq!(kit.launch("copy", [1, 4], [1, 0], Some(1)), 0);
        let newer = std::env::var("VGPU_DRIVER_VERSION").unwrap() == "12030";
        assert_eq!(cuStreamBeginCapture_v2(kit.stream, 0), 0);
        assert_eq!(kit.launch("copy", [1, 4], [1, 0], Some(1)), if newer { 0 } else { 801 });
        assert_eq!(kit.launch("copy", [1, 4], [1, 0], Some(0)), 0);
    };
    for (version, said) in [("12020", true), ("12030", false)] {
        let settings = [("VGPU_DRIVER_VERSION", version)];
        let Some(ended) = alone("dependent::who_does_not_know_them_refuses", &settings, body) else { return };
        let line = "kernel copy: PROGRAMMATIC_STREAM_SERIALIZATION in a capture is new in CUDA 12.3";
        assert_eq!(ended.fine().stderr.contains(line), said);
    }
}

#[test]
fn older_devices_refuse() {
    let body = || {
        start();
        let fill = super::kernel("fill");
        let attributes = [attribute(DEPENDENT, &[1])];
        let dependent = config(1, 4, 0, &attributes);
        let arguments: [*const c_void; 3] = [std::ptr::from_ref(&0_u64).cast(); 3];
        // SAFETY: there is a pointer for each parameter.
        assert_eq!(unsafe { cuLaunchKernelEx(&dependent, fill, arguments.as_ptr(), null_mut()) }, 801);
    };
    let Some(ended) = alone("dependent::older_devices_refuse", &[("VGPU_DEVICE", "a100")], body) else {
        return;
    };
    let line = "kernel fill: launches that begin before the one before has ended (PROGRAMMATIC_STREAM_SERIALIZATION) \
                are new in compute capability 9.0; the device has 8.0";
    let ended = ended.fine();
    assert!(ended.stderr.contains(line), "{}", ended.stderr);
}
