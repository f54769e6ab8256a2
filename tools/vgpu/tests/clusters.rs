//! Planted faults of clusters: each check, by a small kernel that breaks its rule, and by one that just keeps it.

mod common;

use common::{Args, Device, assert_fault};
use vgpu::exec::Schedule;
use vgpu::{Fault, FaultKind};

/// In order, and in random orders.
const SEEDS: [Option<u64>; 6] = [None, Some(1), Some(2), Some(3), Some(4), Some(5)];

/// A kernel of clusters of four blocks: `%k` is the block's rank, `%own` the address of the thread's word in shared
/// memory, `%next` that of the thread's word in the next block's, `%zero` of the thread's in block 0's; `%m` is the
/// address of a barrier, `%mnext` of the next block's; `%a` of the thread's word in a buffer of all threads of the grid,
/// `%c` of the thread's in one of the cluster's; `%p7` tells threads other than 0.
fn device(body: &str) -> Device {
    let text = format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n\
         .visible .entry k(.param .u64 grid, .param .u64 cluster)\n{{\n\
         .reg .pred %p<8>; .reg .b32 %r<32>; .reg .b64 %d<16>; .reg .b64 %a, %c;\n\
         .reg .b32 %t, %k, %s, %own, %next, %zero, %m, %mnext;\n\
         .shared .align 16 .b8 s[4096]; .shared .align 8 .b8 m[64];\n\
         ld.param.u64 %a, [grid]; ld.param.u64 %c, [cluster]; mov.u32 %t, %tid.x; mov.u32 %k, %cluster_ctarank;\n\
         mov.u32 %s, s; mov.u32 %m, m; shl.b32 %r31, %t, 2; add.u32 %own, %r31, %s;\n\
         add.u32 %r30, %k, 1; and.b32 %r30, %r30, 3; mapa.shared::cluster.u32 %next, %own, %r30;\n\
         mapa.shared::cluster.u32 %mnext, %m, %r30; mapa.shared::cluster.u32 %zero, %own, 0;\n\
         mov.u32 %r29, %ctaid.x; mov.u32 %r28, %ntid.x; mad.lo.u32 %r27, %r29, %r28, %t; mul.wide.u32 %d15, %r27, 4;\n\
         add.s64 %a, %a, %d15; mul.wide.u32 %d14, %r31, 1; mov.u32 %r26, %clusterid.x; shl.b32 %r26, %r26, 12;\n\
         cvt.u64.u32 %d13, %r26; add.s64 %c, %c, %d14; add.s64 %c, %c, %d13; setp.ne.u32 %p7, %t, 0;\n\
         {body}\nret;\n}}\n"
    );
    Device::new(&text)
}

/// Launches two clusters of four blocks on buffers of zeros.
fn launch(device: &mut Device, threads: u32) -> Result<(), Fault> {
    let [grid, cluster] = [(); 2].map(|()| device.put(&[0_u32; 4096]));
    device.launch_clusters("k", [8, 4, threads], 8, Args::new().and(grid).and(cluster))
}

/// Fails in every order, in one way.
fn fails(body: &str, threads: u32, kind: FaultKind, part: &str) {
    for seed in SEEDS {
        let mut device = device(body);
        device.schedule = Schedule { seed, perturb: false };
        assert_fault(launch(&mut device, threads), kind, part);
    }
}

/// Runs in every order.
fn runs(body: &str, threads: u32) {
    for seed in SEEDS {
        let mut device = device(body);
        device.schedule = Schedule { seed, perturb: false };
        launch(&mut device, threads).unwrap_or_else(|fault| panic!("{seed:?}, {body}: {fault}"));
    }
}

/// The barrier of the cluster.
const MEET: &str = "barrier.cluster.arrive; barrier.cluster.wait;";
/// The same, which orders nothing but that all have begun.
const BEGIN: &str = "barrier.cluster.arrive.relaxed; barrier.cluster.wait;";

#[test]
fn blocks_that_may_not_have_begun() {
    let store = "st.shared::cluster.u32 [%next], %t;";
    for meet in [MEET, BEGIN] {
        runs(&format!("{meet} {store} {MEET}"), 64);
    }
    fails(&format!("{store} {MEET}"), 64, FaultKind::Race, "nothing tells that it has begun");
    // One warp waits, and the others know of it; or they do not.
    let one = |then: &str| {
        let arrive = "barrier.cluster.arrive.relaxed; setp.ge.u32 %p0, %t, 32;";
        format!(
            "{arrive} @%p0 bra S; barrier.cluster.wait; S: {then} {store} @!%p0 bra E; barrier.cluster.wait; E: {MEET}"
        )
    };
    runs(&one("bar.sync 0;"), 64);
    fails(&one(""), 64, FaultKind::Race, "nothing tells that it has begun");
}

#[test]
fn blocks_that_have_exited() {
    let last = "setp.eq.u32 %p0, %k, 3;";
    let load = "ld.shared::cluster.u32 %r0, [%next];";
    let fill = "st.shared.u32 [%own], %t;";
    // Block 3 exits, and who has exited counts as arrived.
    let gone = format!(
        "{last} {fill} {MEET} @%p0 exit; {MEET} setp.ne.u32 %p1, %k, 2; @%p1 bra E; {load} E: {MEET}"
    );
    fails(&gone, 32, FaultKind::UseAfterFree, "which has exited");
    runs(
        &format!(
            "{last} {fill} {MEET} setp.ne.u32 %p1, %k, 2; @%p1 bra E; {load} E: {MEET} @%p0 exit; {MEET}"
        ),
        32,
    );
    // It exits some time after the load; only an arrival that releases tells when.
    runs(&format!("{fill} {MEET} {load} {MEET}"), 64);
    fails(
        &format!("{fill} {MEET} {load} {BEGIN}"),
        64,
        FaultKind::Race,
        "the block exits, and nothing orders that after the load",
    );
    let store = "st.shared::cluster.u32 [%next], %t;";
    fails(
        &format!("{MEET} {store} {BEGIN}"),
        64,
        FaultKind::Race,
        "the block exits, and nothing orders that after the store",
    );
}

#[test]
fn bounds_of_another_block() {
    for (access, kind, part) in [
        (
            "st.shared::cluster.u32 [%next+4160], %t;",
            FaultKind::OutOfBounds,
            "4160 bytes of shared memory of block (",
        ),
        ("ld.shared::cluster.u32 %r0, [%next+-4];", FaultKind::OutOfBounds, "block"),
        (
            "red.shared::cluster.add.u32 [%next+4160], 1;",
            FaultKind::OutOfBounds,
            "4160 bytes of shared memory of block (",
        ),
        ("st.shared::cluster.u32 [%next+2], %t;", FaultKind::Misaligned, "no multiple of 4"),
        (
            "st.shared.u32 [%next], %t;",
            FaultKind::OutOfBounds,
            "(of another block, or none: .shared::cluster)",
        ),
        (
            "mov.u32 %r0, 0x5000000; st.shared::cluster.u32 [%r0], %t;",
            FaultKind::OutOfBounds,
            "block 4 of a cluster of 4",
        ),
    ] {
        fails(&format!("{MEET} {access} {MEET}"), 1, kind, part);
    }
    runs(&format!("{MEET} st.shared::cluster.u32 [%next+4092], %t; {MEET}"), 1);
}

#[test]
fn unwritten_memory_of_another_block() {
    let load = "ld.shared::cluster.u32 %r0, [%next];";
    fails(&format!("{MEET} {load} {MEET}"), 32, FaultKind::Unwritten, "shared");
    fails(
        &format!("{MEET} red.shared::cluster.add.u32 [%next], 1; {MEET}"),
        32,
        FaultKind::Unwritten,
        "shared",
    );
    runs(&format!("st.shared.u32 [%own], %t; {MEET} {load} {MEET}"), 32);
    runs(&format!("{MEET} st.shared::cluster.u32 [%next], %t; {MEET} ld.shared.u32 %r0, [%own];"), 32);
}

#[test]
fn races_in_another_blocks_memory() {
    let in_turn = |store: &str, meet: &str| {
        format!(
            "{MEET} mov.u32 %r0, 0; L: setp.ne.u32 %p0, %k, %r0; @%p0 bra S; {store} S: {meet}\n\
             add.u32 %r0, %r0, 1; setp.lt.u32 %p1, %r0, 4; @%p1 bra L; {MEET}"
        )
    };
    let store = "st.shared::cluster.u32 [%zero], %k;";
    runs(&in_turn(store, MEET), 64);
    fails(&in_turn(store, ""), 64, FaultKind::Race, "nothing orders this store after the store");
    fails(&in_turn(store, BEGIN), 64, FaultKind::Race, "nothing orders this store after the store");
    // The barrier of one block is no other's.
    fails(&in_turn(store, "bar.sync 0;"), 64, FaultKind::Race, "a race");
    // A load and a store, whichever comes first.
    let send = "st.shared::cluster.u32 [%next], %t;";
    let take = "ld.shared.u32 %r1, [%own];";
    let fill = "st.shared.u32 [%own], %t;";
    runs(&format!("{fill} {MEET} {send} {MEET} {take}"), 64);
    fails(&format!("{fill} {MEET} {send} {BEGIN} {take} {MEET}"), 64, FaultKind::Race, "a race");
    fails(&format!("{fill} {MEET} {take} {BEGIN} {send} {MEET}"), 64, FaultKind::Race, "a race");
    let fetch = "ld.shared::cluster.u32 %r1, [%next];";
    runs(&format!("{fill} {MEET} {fetch} {MEET} {fill}"), 64);
    fails(
        &format!("{fill} {MEET} {fetch} {BEGIN} {fill} {MEET}"),
        64,
        FaultKind::Race,
        "nothing orders this store after the load",
    );
    // Two strong accesses need no order; a weak one does.
    let strong = "st.relaxed.cluster.shared::cluster.u32 [%next], %t; ld.relaxed.cluster.shared::cluster.u32 %r1, [%own];";
    runs(&format!("{fill} {MEET} {strong} {MEET}"), 64);
    let mixed = "st.relaxed.cluster.shared::cluster.u32 [%next], %t;";
    fails(&format!("{fill} {MEET} {mixed} {BEGIN} {take} {MEET}"), 64, FaultKind::Race, "a race");
    // Lanes of one warp that have not met there.
    let near = "xor.b32 %r2, %next, 4; st.shared::cluster.u32 [%next], %t;";
    fails(
        &format!("{MEET} {near} ld.shared::cluster.u32 %r3, [%r2]; {MEET}"),
        32,
        FaultKind::Race,
        "the lanes have not met",
    );
    runs(&format!("{MEET} {near} bar.warp.sync -1; ld.shared::cluster.u32 %r3, [%r2]; {MEET}"), 32);
}

#[test]
fn flags_in_another_blocks_memory() {
    // Block 0 hands a word to the next, whose flag it sets.
    let hand = |store: &str, load: &str| {
        format!(
            "st.shared.u32 [%own+2048], 0; {MEET} setp.ne.u32 %p0, %k, 0; @%p0 bra T;\n\
             st.shared::cluster.u32 [%next], 7; {store} [%next+2048], 1; bra.uni E;\n\
             T: setp.ne.u32 %p0, %k, 1; @%p0 bra E; L: {load} %r0, [%own+2048]; setp.eq.u32 %p1, %r0, 0; @%p1 bra L;\n\
             ld.shared.u32 %r1, [%own]; E: {MEET}"
        )
    };
    let (release, acquire) = ("st.release.cluster.shared::cluster.u32", "ld.acquire.cluster.shared::cta.u32");
    runs(&hand(release, acquire), 1);
    runs(&hand("fence.acq_rel.cluster; st.relaxed.cluster.shared::cluster.u32", acquire), 1);
    fails(&hand("st.relaxed.cluster.shared::cluster.u32", acquire), 1, FaultKind::Race, "a race");
    fails(&hand(release, "ld.relaxed.cluster.shared.u32"), 1, FaultKind::Race, "a race");
    fails(&hand("st.release.cta.shared::cluster.u32", acquire), 1, FaultKind::Race, "a race");
}

#[test]
fn races_in_global_memory() {
    // A word of the cluster's, which each block stores in turn.
    let turn = |meet: &str| {
        format!(
            "setp.ne.u32 %p0, %k, 0; @%p0 bra S; st.global.u32 [%c], %t; S: {meet} ld.global.u32 %r0, [%c]; {MEET}"
        )
    };
    runs(&turn(MEET), 64);
    fails(&turn(BEGIN), 64, FaultKind::Race, "a race");
    fails(&turn("bar.sync 0;"), 64, FaultKind::Race, "a race");
    fails(
        &turn("fence.acq_rel.cta; barrier.cluster.arrive.relaxed; barrier.cluster.wait;"),
        64,
        FaultKind::Race,
        "a race",
    );
    runs(&turn("fence.acq_rel.cluster; barrier.cluster.arrive.relaxed; barrier.cluster.wait;"), 64);
    // The barrier of a cluster is no other's: the first cluster's word is stored by both.
    let first = "sub.s64 %c, %c, %d13; setp.ne.u32 %p0, %k, 0; @%p0 bra S; st.global.u32 [%c], %t; S:";
    fails(&format!("{first} {MEET}"), 64, FaultKind::Race, "nothing orders this store after the store");
    // A flag that is released to the cluster is nothing to another.
    let flag = |scope: &str| {
        format!(
            "sub.s64 %c, %c, %d13; @%p7 bra E; mov.u32 %r0, %ctaid.x; setp.eq.u32 %p0, %r0, 7; @%p0 bra T;\n\
             setp.ne.u32 %p0, %r0, 0; @%p0 bra E; st.global.u32 [%c], 5; st.release.{scope}.global.u32 [%c+4], 1; bra.uni E;\n\
             T: L: ld.acquire.{scope}.global.u32 %r1, [%c+4]; setp.eq.u32 %p1, %r1, 0; @%p1 bra L; ld.global.u32 %r2, [%c]; E:"
        )
    };
    runs(&flag("gpu"), 1);
    fails(&flag("cluster"), 1, FaultKind::Race, "a race");
}

#[test]
fn barriers_that_are_used_wrongly() {
    let wrong = FaultKind::DivergentBarrier;
    fails("barrier.cluster.arrive; barrier.cluster.arrive;", 64, wrong, "a second time");
    fails("barrier.cluster.wait;", 64, wrong, "has not arrived");
    fails(&format!("{MEET} barrier.cluster.wait;"), 64, wrong, "has not arrived");
    fails(&format!("setp.lt.u32 %p0, %t, 16; @%p0 bra E; {MEET} E:"), 32, wrong, "only 0xffff0000");
    runs(&format!("setp.lt.u32 %p0, %t, 16; @%p0 exit; {MEET}"), 32);
    runs("barrier.cluster.arrive;", 64);
    // A warp of block 2 waits for its block, the other for the cluster.
    let apart = format!(
        "setp.ne.u32 %p0, %k, 2; @%p0 bra M; setp.ge.u32 %p1, %t, 32; @%p1 bra M; bar.sync 0; bra.uni E; M: {MEET} E:"
    );
    fails(&apart, 64, FaultKind::Deadlock, "at the cluster's barrier (first reached at PTX line");
    runs(&format!("setp.ne.u32 %p0, %k, 2; @%p0 bra M; bar.sync 0; M: {MEET}"), 64);
}

#[test]
fn copies_under_way_to_another_block() {
    let copy = "cp.async.ca.shared.global [%own], [%a], 4;";
    let body = |first: &str, then: &str| {
        format!("{copy} {first} {MEET} ld.shared::cluster.u32 %r0, [%next]; {then} {MEET}")
    };
    fails(&body("", "cp.async.wait_all;"), 64, FaultKind::Race, "has not been waited for");
    runs(&body("cp.async.wait_all;", ""), 64);
}

/// Makes a barrier for so many arrivals in each block.
fn made(count: u32) -> String {
    format!(
        "@%p7 bra M; mbarrier.init.shared.b64 [%m], {count}; fence.mbarrier_init.release.cluster; M: {BEGIN}"
    )
}

/// Waits for the first phase, or another.
fn done(label: &str, parity: u32) -> String {
    format!("{label}: mbarrier.try_wait.parity.shared.b64 %p6, [%m], {parity}; @!%p6 bra {label};")
}

#[test]
fn barriers_in_shared_memory_that_are_used_wrongly() {
    let wrong = FaultKind::Mbarrier;
    let arrive = "mbarrier.arrive.shared.b64 %d0, [%m];";
    fails(arrive, 1, wrong, "no mbarrier");
    fails(&done("W", 1), 1, wrong, "no mbarrier");
    fails("mbarrier.init.shared.b64 [%m], 1; mbarrier.init.shared.b64 [%m], 1;", 1, wrong, "already");
    fails("mbarrier.init.shared.b64 [%m], 1;", 2, wrong, "two lanes");
    fails("mbarrier.init.shared.b64 [%m], 0;", 1, wrong, "for 0 arrivals");
    runs(
        "mbarrier.init.shared.b64 [%m], 1; mbarrier.inval.shared.b64 [%m]; mbarrier.init.shared.b64 [%m], 1;",
        1,
    );
    fails("mbarrier.init.shared.b64 [%m+4], 1;", 1, FaultKind::Misaligned, "no multiple of 8");
    fails("mbarrier.init.shared.b64 [%s+-64], 1;", 1, FaultKind::OutOfBounds, "an mbarrier out of bounds");
    fails("mbarrier.init.b64 [%a], 1;", 1, FaultKind::OutOfBounds, "outside of shared memory");
    fails(
        "mbarrier.init.shared.b64 [%m], 2; mbarrier.arrive.shared.b64 %d0, [%m], 3;",
        1,
        wrong,
        "more arrivals",
    );
    fails(
        "mbarrier.init.shared.b64 [%m], 2; mbarrier.expect_tx.shared.b64 [%m], 1048576;",
        1,
        wrong,
        "1048576 bytes",
    );
    runs("mbarrier.init.shared.b64 [%m], 2; mbarrier.expect_tx.shared.b64 [%m], 1048575;", 1);
    let far = "mbarrier.test_wait.parity.shared::cluster.b64 %p0, [%mnext], 1;";
    fails(&format!("{} {far} {MEET}", made(1)), 1, wrong, "another block's mbarrier");
    // Nobody arrives.
    fails(&format!("{} {}", made(2), done("W", 0)), 1, FaultKind::Deadlock, "waits for 2 more arrivals");
    // It must have been made before anybody uses it; and it is no word like others.
    let other = "@%p7 bra M; mbarrier.init.shared.b64 [%m], 2; M: MEET setp.ne.u32 %p0, %t, 32; @%p0 bra E; mbarrier.arrive.shared.b64 %d0, [%m]; E:";
    runs(&other.replace("MEET", "bar.sync 0;"), 64);
    let mut in_order = device(&other.replace("MEET", ""));
    assert_fault(launch(&mut in_order, 64), FaultKind::Race, "a race");
    let plain = "mbarrier.init.shared.b64 [%m], 64; bar.sync 0; mbarrier.arrive.shared.b64 %d0, [%m]; setp.ne.u32 %p0, %t, 32; @%p0 bra E; st.shared.u64 [%m], %d0; E:";
    fails(&plain.replace("mbarrier.init", "@!%p7 mbarrier.init"), 64, FaultKind::Race, "a race");
}

#[test]
fn what_a_barrier_in_shared_memory_orders() {
    let give = "setp.ge.u32 %p0, %t, 32; @%p0 bra T; st.shared.u32 [%own], %t;";
    let take = "xor.b32 %r0, %own, 128; ld.shared.u32 %r1, [%r0]; E:";
    let hand = |arrive: &str, wait: &str| format!("{} {give} {arrive} bra.uni E; T: {wait} {take}", made(32));
    let arrive = "mbarrier.arrive.shared.b64 %d0, [%m];";
    runs(&hand(arrive, &done("W", 0)), 64);
    let relaxed = arrive.replace("arrive.", "arrive.relaxed.cta.");
    fails(&hand(&relaxed, &done("W", 0)), 64, FaultKind::Race, "a race");
    let unordered = done("W", 0).replace("parity.", "parity.relaxed.cta.");
    fails(&hand(arrive, &unordered), 64, FaultKind::Race, "a race");
    // The phase before the first has completed, and hands over nothing: warp 0 takes before warp 1 gives.
    let early = hand(arrive, &done("W", 1)).replace("setp.ge", "setp.lt");
    assert_fault(launch(&mut device(&early), 64), FaultKind::Unwritten, "shared");
    // Arrivals of another block.
    let far = |arrive: &str| {
        let wait = done("W", 0);
        format!(
            "{} st.shared::cluster.u32 [%next], %t; {arrive} {wait} ld.shared.u32 %r0, [%own]; {MEET}",
            made(32)
        )
    };
    runs(&far("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%mnext];"), 32);
    fails(
        &far("mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [%mnext];"),
        32,
        FaultKind::Race,
        "a race",
    );
    // Lanes of a warp meet where all of them arrive, and not where one does for all.
    let lanes = |count: u32, arrive: &str| {
        let wait = done("W", 0);
        let near = "xor.b32 %r0, %own, 4; ld.shared.u32 %r1, [%r0];";
        format!("{} st.shared.u32 [%own], %t; {arrive} {wait} {near}", made(count))
    };
    runs(&lanes(32, arrive), 32);
    fails(&lanes(1, &format!("@!%p7 {arrive}")), 32, FaultKind::Race, "the lanes have not met");
}

/// `st.async` of a word.
const SEND: &str = "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%next], %t, [%mnext];";
/// A barrier in each block that waits for a warp's words.
const EXPECT: &str = "@%p7 bra X; mbarrier.arrive.expect_tx.shared.b64 _, [%m], 128; X:";

#[test]
fn stores_that_nobody_has_waited_for() {
    let take = "ld.shared.u32 %r0, [%own];";
    let all = |then: &str| format!("{} {EXPECT} {SEND} {then} {MEET}", made(1));
    runs(&all(&format!("{} {take}", done("W", 0))), 32);
    // Another warp, which has not waited itself; a barrier tells it.
    let warps = |meet: &str| {
        let first =
            format!("setp.ge.u32 %p0, %t, 32; @%p0 bra O; {EXPECT} {SEND} {} O: {meet}", done("W", 0));
        format!(
            "{} {first} and.b32 %r1, %t, 31; shl.b32 %r1, %r1, 2; add.u32 %r1, %r1, %s; ld.shared.u32 %r0, [%r1]; {MEET}",
            made(1)
        )
    };
    runs(&warps("bar.sync 0;"), 64);
    let unwaited = |body: &str| {
        for seed in SEEDS {
            let mut device = device(body);
            device.schedule = Schedule { seed, perturb: false };
            let fault = launch(&mut device, 64).unwrap_err();
            assert!(matches!(fault.kind, FaultKind::Race | FaultKind::Unwritten), "{fault}");
        }
    };
    unwaited(&warps(""));
    // The barrier of the cluster says nothing of a store under way.
    let body = format!("st.shared.u32 [%own], 0; {} {EXPECT} {MEET} {SEND} {MEET} {take} {MEET}", made(1));
    fails(&body, 32, FaultKind::Race, "a race");
    let body = body.replace(&format!("{take} {MEET}"), &format!("{} {take} {MEET}", done("W", 0)));
    runs(&body, 32);
    // Nor may the block exit before it has come.
    let body = format!("{} {SEND} {MEET}", made(1));
    for seed in SEEDS {
        let mut device = device(&body);
        device.schedule = Schedule { seed, perturb: false };
        let fault = launch(&mut device, 32).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Race | FaultKind::UseAfterFree), "{fault}");
        assert!(fault.message.contains("exit"), "{fault}");
    }
}

#[test]
fn stores_of_two_rounds() {
    // Each block sends twice to the same place; what tells the sender that the first was read is the reader's own store,
    // a round further, or nothing.
    let second = "add.u32 %r2, %mnext, 8; add.u32 %r3, %next, 1024; st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r3], %t, [%r2];";
    let make = format!("@%p7 bra M8; mbarrier.init.shared.b64 [%m+8], 1; M8: {}", made(1));
    let expect8 = EXPECT.replace("[%m]", "[%m+8]").replace('X', "X8");
    let wait8 = done("W8", 0).replace("[%m]", "[%m+8]");
    let expect = EXPECT.replace('X', "XX");
    // All blocks send to the next: after four rounds a block knows that its next has read. With a ring of four, the chain
    // next -> ... -> own takes three more sends; a barrier of the cluster does as well.
    let rounds = |between: &str| {
        format!(
            "{make} {EXPECT} {SEND} {} ld.shared.u32 %r0, [%own]; {between} {expect} {SEND} {} ld.shared.u32 %r0, [%own]; {MEET}",
            done("W", 0),
            done("V", 1)
        )
    };
    runs(&rounds(MEET), 32);
    fails(&rounds(""), 32, FaultKind::Race, "a race: nothing orders this st.async after the");
    // A block that sends back after it has read: pairs of blocks, so that the next's next is the block itself.
    let pair = |source: String| {
        format!(
            "xor.b32 %r30, %k, 1; mapa.shared::cluster.u32 %next, %own, %r30; mapa.shared::cluster.u32 %mnext, %m, %r30; {source}"
        )
    };
    let back = format!("{expect8} bar.warp.sync -1; {second} {wait8}");
    runs(&pair(rounds(&back)), 32);
    // It sends back before it has read.
    let early =
        rounds("").replace("ld.shared.u32 %r0, [%own];  ", &format!("{back} ld.shared.u32 %r0, [%own]; "));
    assert!(early.contains("W8"), "{early}");
    fails(&pair(early), 32, FaultKind::Race, "a race");
}

#[test]
fn stores_to_barriers_that_are_wrong() {
    let wrong = FaultKind::Mbarrier;
    fails(&format!("{BEGIN} {SEND} {MEET}"), 32, wrong, "no mbarrier");
    fails(
        &format!("{} {} {MEET}", made(1), SEND.replace("[%mnext]", "[%m]")),
        32,
        wrong,
        "mbarrier of another",
    );
    fails(
        &format!("{} {} {MEET}", made(1), SEND.replace("[%next]", "[%next+2]")),
        32,
        FaultKind::Misaligned,
        "no multiple of 4",
    );
    fails(
        &format!("{} {} {MEET}", made(1), SEND.replace("[%next]", "[%next+4160]")),
        32,
        FaultKind::OutOfBounds,
        "of block (",
    );
    fails(SEND, 32, FaultKind::Race, "nothing tells that it has begun");
    // It was made, but nothing tells so.
    let made = made(1).replace("fence.mbarrier_init.release.cluster;", "");
    fails(&format!("{made} {EXPECT} {SEND} {} {MEET}", done("W", 0)), 32, FaultKind::Race, "a race");
    // Two stores to one word.
    let same = format!("{} {EXPECT} {SEND} {SEND} {MEET}", self::made(1));
    fails(&same, 32, FaultKind::Race, "after the st.async of PTX line");
}
