//! Planted faults of barriers in shared memory (mbarriers) and of the stores that complete at them: what they count, in
//! which phase, and who waits.

mod common;

use common::{Args, Device, assert_fault};
use vgpu::exec::Schedule;
use vgpu::{Fault, FaultKind};

/// In order, and in random orders.
const SEEDS: std::ops::Range<u64> = 0..12;

/// A kernel of clusters of two blocks around a body: `%k` is the block's rank, `%own` the address of the thread's word in
/// shared memory and `%other` of the same in the other block, `%m` and `%mother` of its two barriers there, of one
/// arrival each, `%o` of the thread's word of output. `%first` tells thread 0.
fn device(body: &str, seed: u64) -> Device {
    let text = format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 out)\n{{\n\
         .reg .pred %p<8>, %first; .reg .b32 %r<16>; .reg .b64 %d<8>, %o;\n\
         .reg .b32 %t, %k, %own, %other, %m, %mother;\n\
         .shared .align 16 .b8 s[1024]; .shared .align 8 .b8 m[16];\n\
         ld.param.u64 %o, [out]; mov.u32 %t, %tid.x; mov.u32 %k, %cluster_ctarank; setp.eq.u32 %first, %t, 0;\n\
         mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mad.lo.u32 %r0, %r0, %r1, %t; mul.wide.u32 %d0, %r0, 4;\n\
         add.s64 %o, %o, %d0; mov.u32 %own, s; shl.b32 %r1, %t, 2; add.u32 %own, %own, %r1; mov.u32 %m, m;\n\
         add.u32 %r2, %k, 1; mov.u32 %r3, %cluster_nctarank; rem.u32 %r2, %r2, %r3;\n\
         mapa.shared::cluster.u32 %other, %own, %r2; mapa.shared::cluster.u32 %mother, %m, %r2;\n\
         @%first mbarrier.init.shared::cta.b64 [%m], 1; @%first mbarrier.init.shared::cta.b64 [%m+8], 1;\n\
         {MEET}\n{body}\nret;\n}}\n"
    );
    let mut device = Device::new(&text);
    device.schedule = Schedule { seed: (seed > 0).then_some(seed), perturb: false };
    device
}

/// Launches two clusters, and returns what their threads wrote.
fn launch(device: &mut Device, threads: u32) -> Result<Vec<u32>, Fault> {
    let out = device.put(&vec![0xeeee_eeee_u32; 4 * threads as usize]);
    device.launch_clusters("k", [4, 2, threads], 8, Args::new().and(out))?;
    Ok(device.get(out, 4 * threads as usize))
}

/// Fails in every order.
fn fails(body: &str, threads: u32, kind: FaultKind, part: &str) {
    for seed in SEEDS {
        assert_fault(launch(&mut device(body, seed), threads).map(drop), kind, part);
    }
}

/// Runs in every order.
fn runs(body: &str, threads: u32) {
    for seed in SEEDS {
        let done = launch(&mut device(body, seed), threads);
        done.unwrap_or_else(|fault| panic!("seed {seed}, {body}: {fault}"));
    }
}

/// The barrier of the cluster.
const MEET: &str = "barrier.cluster.arrive; barrier.cluster.wait;";
/// An arrival at the first barrier.
const ARRIVE: &str = "mbarrier.arrive.shared::cta.b64 %d1, [%m];";
/// Each thread sends its number to the other block.
const SEND: &str = "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%other], %t, [%mother];";
const TAKE: &str = "ld.shared.u32 %r3, [%own]; st.global.u32 [%o], %r3;";

/// The first barrier waits for so many bytes.
fn expect(bytes: u32) -> String {
    format!("@%first mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], {bytes};")
}

/// Waits for a phase of the first barrier, by its parity.
fn wait(parity: u32) -> String {
    format!("{{ W: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%m], {parity}; @!%p1 bra W; }}")
}

#[test]
fn as_many_bytes_as_a_phase_waits_for() {
    let all = |bytes: u32, then: &str| format!("{} {MEET} {SEND} {} {then} {MEET}", expect(bytes), wait(0));
    runs(&all(256, TAKE), 64);
    let wrong = FaultKind::Mbarrier;
    fails(&all(252, ""), 64, wrong, "an st.async that may count for another phase");
    fails(
        &all(260, TAKE),
        64,
        FaultKind::Deadlock,
        "whose phase 0 waits for 0 more arrivals and 4 more bytes",
    );
    // Or all have come before it is told how many.
    let late = |bytes: u32| format!("{SEND} {MEET} {} {} {TAKE} {MEET}", expect(bytes), wait(0));
    runs(&late(256), 64);
    let in_order = launch(&mut device(&late(252), 0), 64).map(drop);
    assert_fault(in_order, wrong, "4 bytes more than an mbarrier's phase waits for");
    fails(
        &format!("{SEND} {} {MEET}", wait(0)),
        64,
        FaultKind::Deadlock,
        "who expects 256 bytes that have come",
    );
}

#[test]
fn bytes_count_for_the_phase_that_their_sender_knows() {
    // Two phases of one barrier. That the other block has seen the first complete, a sender must know before the second:
    // from its answer, or from a barrier.
    let [own, other] = [("[%m]", "[%other]"), ("[%m+8]", "[%r4]")];
    let answer = SEND.replace(own.1, other.1).replace("[%mother]", "[%r5]");
    let answered = wait(0).replace(own.0, other.0);
    let rounds = |between: &str, send: &str| {
        format!(
            "add.u32 %r4, %other, 512; add.u32 %r5, %mother, 8; {} {} {SEND} {} {TAKE} {between} {} {send} {} {MEET}",
            expect(256),
            expect(256).replace(own.0, other.0),
            wait(0),
            expect(256),
            wait(1)
        )
    };
    let answers = format!("{answer} {answered}");
    for between in [&answers[..], MEET] {
        runs(&rounds(between, SEND), 64);
    }
    fails(&rounds("", SEND), 64, FaultKind::Race, "nothing orders this st.async after the");
    // To other words it is no race.
    let elsewhere = SEND.replace(own.1, other.1);
    runs(&rounds(MEET, &elsewhere), 64);
    let part = "an st.async that may count for another phase";
    fails(&rounds("", &elsewhere), 64, FaultKind::Mbarrier, part);
}

#[test]
fn a_block_s_barrier_tells_who_sends_what_others_have_read() {
    // All threads read, one answers for them, and then the other block sends again.
    let answer = "@%first st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r4], %t, [%r5];";
    let both = |meet: &str| {
        format!(
            "add.u32 %r4, %other, 512; add.u32 %r5, %mother, 8; {} {} {SEND} {} {TAKE} {meet} {answer} {} {} {SEND} {} {MEET}",
            expect(256),
            expect(4).replace("[%m]", "[%m+8]"),
            wait(0),
            wait(0).replace("[%m]", "[%m+8]"),
            expect(256),
            wait(1)
        )
    };
    runs(&both("bar.sync 0;"), 64);
    fails(&both(""), 64, FaultKind::Race, "a race: nothing orders this");
}

#[test]
fn arrivals_count_for_the_phase_that_their_thread_knows() {
    let wrong = FaultKind::Mbarrier;
    let alone = |body: &str| format!("@!%first bra E; {body} E:");
    runs(&alone(&format!("{ARRIVE} {} {ARRIVE} {}", wait(0), wait(1))), 32);
    fails(&alone(&format!("{ARRIVE} {ARRIVE}")), 32, wrong, "nobody has waited for the phase before");
    // Two warps, one after the other, as a flag tells that orders them, or does not.
    let turns = |store: &str, load: &str| {
        format!(
            "@%first st.shared.u32 [%own+512], 0; bar.sync 0; setp.ge.u32 %p3, %t, 32; @%p3 bra B; @!%first bra E;\n\
             {ARRIVE} {} st.{store}.cta.shared.u32 [%own+512], 1; bra.uni E; B: setp.ne.u32 %p2, %t, 32; @%p2 bra E;\n\
             L: ld.{load}.cta.shared.u32 %r4, [%own+384]; setp.eq.u32 %p4, %r4, 0; @%p4 bra L; {ARRIVE} E:",
            wait(0)
        )
    };
    runs(&turns("release", "acquire"), 64);
    fails(&turns("relaxed", "relaxed"), 64, wrong, "an arrival that may count for another phase");
}

#[test]
fn phases_that_can_be_waited_for() {
    let alone = |body: &str| format!("@!%first bra E; {body} E:");
    // The one that goes on and the one before; not what would never come.
    let asked = |parity: u32| alone(&format!("{ARRIVE} {} {}", wait(0), wait(parity)));
    runs(&asked(0), 32);
    fails(&asked(1), 32, FaultKind::Deadlock, "whose phase 1 waits for 1 more arrivals and 0 more bytes");
    fails(&asked(2), 32, FaultKind::Mbarrier, "a wait for parity 2 at an mbarrier in phase 1");
    let state = |more: &str| {
        let wait = "mbarrier.test_wait.shared::cta.b64 %p1, [%m], %d2; @!%p1 trap;";
        alone(&format!("{ARRIVE} mov.b64 %d2, %d1; {} {more} {wait}", wait_for_state()))
    };
    runs(&state(""), 32);
    let two = format!("{ARRIVE} {}", wait_for_state());
    fails(&state(&two), 32, FaultKind::Mbarrier, "a wait for state 0 at an mbarrier in phase 2");
}

/// Waits for the phase of the last arrival.
fn wait_for_state() -> &'static str {
    "{ W: mbarrier.try_wait.shared::cta.b64 %p1, [%m], %d1; @!%p1 bra W; }"
}

#[test]
fn nothing_else_is_stored_over_a_barrier() {
    let store = |offset: u32| format!("@!%first bra E; st.shared.u32 [%own+{offset}], 7; {ARRIVE} E:");
    runs(&store(1020), 32);
    fails(&store(1024), 32, FaultKind::Mbarrier, "over which something else was stored");
    fails(&store(1028), 32, FaultKind::Mbarrier, "over which something else was stored");
    // Unless it has ended.
    runs("@!%first bra E; mbarrier.inval.shared::cta.b64 [%m]; st.shared.u32 [%m], 7; E:", 32);
}

#[test]
fn who_tries_tries_again() {
    let once = |wait: &str| {
        format!(
            "@!%first bra E; {ARRIVE} mbarrier.{wait}.parity.shared::cta.b64 %p1, [%m], 0; @!%p1 trap; E:"
        )
    };
    runs(&once("test_wait"), 32);
    let tried = SEEDS.map(|seed| launch(&mut device(&once("try_wait"), seed), 32).map(drop));
    let (good, bad): (Vec<_>, Vec<_>) = tried.partition(Result::is_ok);
    assert!(!good.is_empty() && !bad.is_empty());
    bad.into_iter().for_each(|tried| assert_fault(tried, FaultKind::Trap, "trap"));
    launch(&mut device(&once("try_wait"), 0), 32).unwrap();
}

#[test]
fn stores_arrive_later() {
    // All have sent, and some orders have seen all of it arrive, others not.
    let ask = format!(
        "{} {MEET} {SEND} {MEET} mbarrier.test_wait.parity.shared::cta.b64 %p2, [%m], 0; selp.u32 %r4, 1, 0, %p2;\n\
         st.global.u32 [%o], %r4; {} {MEET}",
        expect(256),
        wait(0)
    );
    let found = SEEDS.map(|seed| launch(&mut device(&ask, seed), 64).unwrap());
    let arrived: Vec<bool> = found.map(|found| found.iter().all(|&seen| seen == 1)).collect();
    assert!(arrived[0]);
    assert!(!arrived.iter().all(|&all| all));
}

#[test]
fn a_cluster_of_one_block_sends_nothing() {
    let body = format!("{} {SEND} {} {TAKE} {MEET}", expect(128), wait(0));
    runs(&body, 32);
    let mut device = device(&body, 0);
    let out = device.put(&[0_u32; 4 * 32]);
    let alone = device.launch_clusters("k", [4, 1, 32], 8, Args::new().and(out));
    assert_fault(alone, FaultKind::Mbarrier, "st.async in a cluster of one block");
}

#[test]
fn who_waits_rests() {
    // Block 1 sends late, and word by word: whoever waits does not look at each.
    let late = format!(
        "{} {MEET} setp.eq.u32 %p2, %k, 0; @%p2 bra W0; mov.u32 %r5, 0;\n\
         D: add.u32 %r5, %r5, 1; setp.lt.u32 %p3, %r5, 20000; @%p3 bra D; W0: {SEND} {} {TAKE} {MEET}",
        expect(256),
        wait(0)
    );
    for seed in SEEDS {
        let mut device = device(&late, seed);
        launch(&mut device, 64).unwrap();
        let warps = device.counters.kernels["k"].all_instructions().warps;
        // Two blocks with two warps each go round the loop of three instructions.
        let loops = 2 * 2 * 3 * 20000;
        assert!(warps < loops + 8 * 150, "seed {seed}: {}", warps - loops);
    }
}
