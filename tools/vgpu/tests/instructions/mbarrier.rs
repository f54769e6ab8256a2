//! Barriers in shared memory (mbarriers), and stores of a cluster's blocks to each other that complete at them.
//!
//! The idea: a body is run by two clusters of two blocks of 40 threads, each of which writes a word.

use super::common::{Args, Device};

/// A kernel whose thread `%t` of block `%k` of its cluster finds its own word in shared memory at `%s`, and 16 bytes of
/// its own at `%l`; `%ts`, `%tl` and `%tm` are its own, those and `m`, eight bytes that are multiples of 8, in the
/// cluster's other block. `%r0` is what it writes, as a word.
fn kernel(body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 out)\n{{\n\
         .reg .pred %p<4>, %first; .reg .b32 %r<8>; .reg .f32 %f<4>; .reg .b64 %d<8>; .reg .f64 %g<4>;\n\
         .reg .b32 %t, %k, %o, %s, %l, %m, %ts, %tl, %tm;\n\
         .shared .align 16 .b8 words[256]; .shared .align 16 .b8 lines[1024]; .shared .align 8 .b8 m[64];\n\
         mov.u32 %t, %tid.x; mov.u32 %k, %cluster_ctarank; xor.b32 %o, %k, 1; setp.eq.u32 %first, %t, 0;\n\
         shl.b32 %r1, %t, 2; mov.u32 %s, words; add.u32 %s, %s, %r1;\n\
         shl.b32 %r1, %t, 4; mov.u32 %l, lines; add.u32 %l, %l, %r1; mov.u32 %m, m;\n\
         mapa.shared::cluster.u32 %ts, %s, %o; mapa.shared::cluster.u32 %tl, %l, %o;\n\
         mapa.shared::cluster.u32 %tm, %m, %o; mov.u32 %r0, 0;\n{body}\n\
         barrier.cluster.arrive; barrier.cluster.wait;\n\
         ld.param.u64 %d0, [out]; mov.u32 %r1, %ctaid.x; mad.lo.u32 %r1, %r1, 40, %t;\n\
         mul.wide.u32 %d1, %r1, 4; add.s64 %d0, %d0, %d1; st.global.u32 [%d0], %r0;\nret;\n}}\n"
    )
}

/// Runs a body, in order and in random orders, and checks what each thread of each block of a cluster writes.
fn check(body: &str, expected: impl Fn(u32, u32) -> u32) {
    for seed in [None, Some(1), Some(2), Some(3), Some(4)] {
        let mut device = Device::new(&kernel(body));
        device.schedule.seed = seed;
        let out = device.put(&[0xeeee_eeee_u32; 4 * 40]);
        let result = device.launch_clusters("k", [4, 2, 40], 8, Args::new().and(out));
        result.unwrap_or_else(|fault| panic!("{body}: {fault}"));
        for (at, found) in device.get::<u32>(out, 4 * 40).into_iter().enumerate() {
            let (block, thread) = (at as u32 / 40 % 2, at as u32 % 40);
            assert_eq!(
                found,
                expected(block, thread),
                "{body}, block {block}, thread {thread}, seed {seed:?}"
            );
        }
    }
}

/// All blocks have made their barriers, and know that of each other.
const MET: &str =
    "fence.mbarrier_init.release.cluster; barrier.cluster.arrive.release; barrier.cluster.wait.acquire;";

/// Makes the barrier, for so many arrivals.
fn init(count: u32) -> String {
    format!("@%first mbarrier.init.shared::cta.b64 [m], {count}; {MET}")
}

/// Waits for the barrier's first phase.
const WAIT: &str = "{ W: mbarrier.try_wait.parity.shared::cta.b64 %p3, [m], 0; @!%p3 bra W; }";

#[test]
fn arrivals() {
    // Each thread leaves its number to the one across, and arrives.
    let across = "mov.u32 %r2, words; mov.u32 %r3, 39; sub.u32 %r3, %r3, %t; shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r2;";
    let (store, load) = ("st.shared.u32 [%s], %t;", "ld.shared.u32 %r0, [%r3];");
    for space in ["", ".shared", ".shared::cta"] {
        let address = if space.is_empty() { "%d7" } else { "m" };
        let generic = "mov.u64 %d6, m; cvta.shared.u64 %d7, %d6;";
        for order in ["", ".release.cta", ".release.cluster"] {
            let begin =
                format!("{generic} @%first mbarrier.init{space}.b64 [{address}], 40; {MET} {across} {store}");
            let arrive = format!("mbarrier.arrive{order}{space}.b64 %d2, [{address}];");
            for wait in ["test_wait", "try_wait", "test_wait.acquire.cta", "try_wait.acquire.cluster"] {
                let state =
                    format!("{{ W: mbarrier.{wait}{space}.b64 %p3, [{address}], %d2; @!%p3 bra W; }}");
                check(&format!("{begin} {arrive} {state} {load}"), |_, t| 39 - t);
                let (head, tail) = wait.split_once('.').unwrap_or((wait, ""));
                let parity =
                    if tail.is_empty() { format!("{head}.parity") } else { format!("{head}.parity.{tail}") };
                let parity =
                    format!("{{ W: mbarrier.{parity}{space}.b64 %p3, [{address}], 0; @!%p3 bra W; }}");
                check(&format!("{begin} {arrive} {parity} {load}"), |_, t| 39 - t);
            }
        }
    }
    // For how long to try, several arrivals at once, and a state that nobody wants.
    let begin = format!("{} {across} {store}", init(120));
    let long = "{ W: mbarrier.try_wait.parity.shared::cta.b64 %p3, [m], 0, 1000; @!%p3 bra W; }";
    check(&format!("{begin} mbarrier.arrive.shared::cta.b64 _, [m], 3; {long} {load}"), |_, t| 39 - t);
    let expects = "mbarrier.arrive.expect_tx.release.cta.shared.b64 _, [m], 0;";
    check(&format!("{} {across} {store} {expects} {WAIT} {load}", init(40)), |_, t| 39 - t);
}

#[test]
fn phases() {
    // Forty in turn: parities and states change, and each phase wants all arrivals again.
    let turns = format!(
        "{} mov.u32 %r2, 0; T: mbarrier.arrive.shared.b64 %d2, [m];\n\
         mbarrier.test_wait.shared.b64 %p1, [m], %d2; and.b32 %r4, %r2, 1;\n\
         W: mbarrier.try_wait.parity.shared.b64 %p3, [m], %r4; @!%p3 bra W;\n\
         mbarrier.test_wait.shared.b64 %p1, [m], %d2; @!%p1 trap;\n\
         add.u32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, 40; @%p2 bra T; mov.u32 %r0, %r2;",
        init(40)
    );
    check(&turns, |_, _| 40);
    // The phase before the first is over, the first is not.
    let ask = |parity: u32| {
        format!(
            "{} mbarrier.test_wait.parity.shared.b64 %p1, [m], {parity}; selp.u32 %r0, 7, 8, %p1;",
            init(1)
        )
    };
    check(&ask(1), |_, _| 7);
    check(&ask(0), |_, _| 8);
    // What was a barrier is memory again, or another barrier.
    let again = format!(
        "{} bar.sync 0; @%first mbarrier.inval.shared::cta.b64 [m]; @%first mbarrier.init.shared::cta.b64 [m], 2;\n\
         bar.sync 0; @%first mbarrier.arrive.shared::cta.b64 _, [m], 2; {WAIT} bar.sync 0;\n\
         @%first mbarrier.inval.shared.b64 [m]; @%first st.shared.u32 [m], 5; bar.sync 0; ld.shared.u32 %r0, [m];",
        init(1)
    );
    check(&again, |_, _| 5);
}

#[test]
fn bytes() {
    let begin = init(1);
    for (expect, complete) in [
        (
            "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [m], 64;",
            "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [m], 64;",
        ),
        (
            "mbarrier.expect_tx.shared.b64 [m], 64;",
            "mbarrier.complete_tx.shared.b64 [m], 60; mbarrier.complete_tx.shared.b64 [m], 4;",
        ),
    ] {
        // Nothing is complete before all of it is there.
        let body = format!(
            "{begin} @!%first bra A; {expect} mbarrier.arrive.shared.b64 _, [m];\n\
             mbarrier.test_wait.parity.shared.b64 %p1, [m], 0; @%p1 trap; {complete} A: {WAIT} mov.u32 %r0, 3;"
        );
        check(&body, |_, _| 3);
        // Bytes may have come before anybody expects them.
        let body = format!(
            "{begin} @!%first bra A; {complete} mbarrier.test_wait.parity.shared.b64 %p1, [m], 0; @%p1 trap;\n\
             {expect} mbarrier.arrive.shared.b64 _, [m]; A: {WAIT} mov.u32 %r0, 3;"
        );
        check(&body, |_, _| 3);
    }
}

#[test]
fn arrivals_at_another_block_s_barrier() {
    let load = "ld.shared.u32 %r0, [%s];";
    let store = "mad.lo.u32 %r2, %k, 100, %t; st.shared::cluster.u32 [%ts], %r2;";
    for arrive in [
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%tm];",
        "mbarrier.arrive.shared::cluster.b64 _, [%tm], 1;",
        "mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [%tm], 0;",
        "mbarrier.expect_tx.relaxed.cluster.shared::cluster.b64 [%tm], 8; mbarrier.arrive.shared::cluster.b64 _, [%tm];\n\
         mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%tm], 8;",
    ] {
        check(&format!("{} {store} {arrive} {WAIT} {load}", init(40)), |k, t| (1 - k) * 100 + t);
    }
}

#[test]
fn asynchronous_stores() {
    let value = "mad.lo.u32 %r2, %k, 100, %t; mov.b32 %f2, %r2; cvt.u64.u32 %d2, %r2; shl.b64 %d2, %d2, 32;\n\
                 or.b64 %d2, %d2, 9; mov.b64 %g2, %d2;";
    let own = |k: u32, t: u32| (1 - k) * 100 + t;
    let send = |weak: &str, form: &str, to: &str, value: &str| {
        format!("st.async{weak}.shared::cluster.mbarrier::complete_tx::bytes.{form} [{to}], {value}, [%tm];")
    };
    let body = |bytes: u32, sends: &str, load: &str| {
        let expect = format!("@%first mbarrier.arrive.expect_tx.shared::cta.b64 _, [m], {};", 40 * bytes);
        format!("{} {value} {expect} {sends} {WAIT} {load}", init(1))
    };
    for weak in ["", ".weak"] {
        for (ty, register) in [("b32", "%r2"), ("u32", "%r2"), ("s32", "%r2"), ("f32", "%f2")] {
            check(&body(4, &send(weak, ty, "%ts", register), "ld.shared.u32 %r0, [%s];"), own);
            let two = send(weak, &format!("v2.{ty}"), "%tl+8", &format!("{{{register}, {register}}}"));
            let sum = "ld.shared.v2.u32 {%r0, %r3}, [%l+8]; add.u32 %r0, %r0, %r3;";
            check(&body(8, &two, sum), |k, t| 2 * own(k, t));
            let four = send(weak, &format!("v4.{ty}"), "%tl", &format!("{{{}}}", [register; 4].join(", ")));
            let sum = "ld.shared.v4.u32 {%r0, %r3, %r4, %r5}, [%l]; add.u32 %r0, %r0, %r3; add.u32 %r4, %r4, %r5;\n\
                       add.u32 %r0, %r0, %r4;";
            check(&body(16, &four, sum), |k, t| 4 * own(k, t));
        }
        for (ty, register) in [("b64", "%d2"), ("u64", "%d2"), ("s64", "%d2"), ("f64", "%g2")] {
            let high = "ld.shared.v2.u32 {%r3, %r0}, [%l+8]; add.u32 %r0, %r0, %r3;";
            check(&body(8, &send(weak, ty, "%tl+8", register), high), |k, t| own(k, t) + 9);
            let two = send(weak, &format!("v2.{ty}"), "%tl", &format!("{{{register}, {register}}}"));
            check(&body(16, &two, high), |k, t| own(k, t) + 9);
        }
    }
    // Two stores of each thread, to both blocks.
    let mine = "mapa.shared::cluster.u32 %r3, %s, %k; mapa.shared::cluster.u32 %r4, %m, %k;\n\
                st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r3], %r2, [%r4];";
    let other = "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%tl], %r2, [%tm];";
    let sum = "ld.shared.u32 %r0, [%s]; ld.shared.u32 %r3, [%l]; add.u32 %r0, %r0, %r3;";
    check(&body(8, &format!("{mine} {other}"), sum), |_, t| 100 + 2 * t);
}
