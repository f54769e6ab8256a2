//! Planted faults of barriers of some of a block's warps: who learns what at them, and how that goes on.

mod common;

use common::{Args, Device, assert_fault};
use vgpu::exec::Schedule;
use vgpu::{Fault, FaultKind};

/// In order, and in random orders.
const SEEDS: std::ops::Range<u64> = 0..12;
/// Two warps are A, two are B, and one is C.
const THREADS: u32 = 160;

const MEET: &str = "barrier.cluster.arrive; barrier.cluster.wait;";

/// A kernel of clusters of two blocks in which A, B and C each have a body. `%x` is the address of a word in shared memory
/// that a thread of A shares with one of B, and with one of C if it is of A's first warp; `%next` is the word behind it.
/// `%flag` is another word, and all are 0 at first. `%m` is an mbarrier of one arrival. `%xother` and `%mother` are in the
/// other block. `%first` tells the first thread of each of the three.
fn device([a, b, c]: [&str; 3], seed: u64) -> Device {
    let text = format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k()\n{{\n\
         .reg .pred %p<8>, %first, %a, %c; .reg .b32 %r<16>; .reg .b64 %d<8>;\n\
         .reg .b32 %t, %x, %next, %xother, %flag, %m, %mother;\n\
         .shared .align 16 .b8 s[264]; .shared .align 8 .b8 m[8];\n\
         mov.u32 %t, %tid.x; setp.lt.u32 %a, %t, 64; setp.ge.u32 %c, %t, 128; and.b32 %r0, %t, 63;\n\
         setp.eq.u32 %first, %r0, 0; mov.u32 %r1, s; mad.lo.u32 %x, %r0, 4, %r1; add.u32 %next, %x, 4;\n\
         add.u32 %flag, %r1, 260; mov.u32 %m, m; mov.u32 %r2, %cluster_ctarank; xor.b32 %r2, %r2, 1;\n\
         mapa.shared::cluster.u32 %xother, %x, %r2; mapa.shared::cluster.u32 %mother, %m, %r2;\n\
         @!%a bra MADE; st.shared.u32 [%x], 0; @!%first bra MADE; st.shared.u32 [%x+256], 0; st.shared.u32 [%flag], 0;\n\
         mbarrier.init.shared::cta.b64 [%m], 1;\n\
         MADE: {MEET}\n@%c bra C; @!%a bra B;\nA: {a} bra.uni E;\nB: {b} bra.uni E;\nC: {c}\nE: {MEET} ret;\n}}\n"
    );
    let mut device = Device::new(&text);
    device.schedule = Schedule { seed: (seed > 0).then_some(seed), perturb: false };
    device
}

fn launch(bodies: [&str; 3], seed: u64) -> Result<(), Fault> {
    device(bodies, seed).launch_clusters("k", [4, 2, THREADS], 8, Args::new())
}

/// A race in every order.
fn races(bodies: [&str; 3]) {
    for seed in SEEDS {
        assert_fault(launch(bodies, seed), FaultKind::Race, "a race: ");
    }
}

/// Right in every order.
fn runs(bodies: [&str; 3]) {
    for seed in SEEDS {
        launch(bodies, seed).unwrap_or_else(|fault| panic!("seed {seed}, {bodies:?}: {fault}"));
    }
}

const STORE: &str = "st.shared.u32 [%x], %t;";
const LOAD: &str = "ld.shared.u32 %r4, [%x];";

/// Barriers of A alone, which tell nothing of others.
const OWN: &str = "barrier.sync 3, 64; barrier.sync 3, 64;";

/// Waits for a phase of the block's mbarrier.
const AWAIT: &str = "{ W: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%m], 0; @!%p1 bra W; }";
/// The mbarrier's phase brings so many bytes.
fn expect(bytes: u32) -> String {
    format!("@%first mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], {bytes};")
}

/// Bodies one after the other.
fn all(bodies: &[&str]) -> String {
    bodies.join(" ")
}

#[test]
fn who_waits_knows_what_came_before_arrivals() {
    let (arrive, sync) = ("barrier.arrive 1, 128;", "barrier.sync 1, 128;");
    for arrives in [arrive, sync] {
        runs([&all(&[STORE, arrives]), &all(&[sync, LOAD]), ""]);
        runs([&all(&[LOAD, arrives]), &all(&[sync, STORE]), ""]);
        // What comes behind the arrival is not known, nor anything before the wait.
        races([&all(&[arrives, STORE]), &all(&[sync, LOAD]), ""]);
        races([&all(&[STORE, arrives]), &all(&[LOAD, sync]), ""]);
    }
    races([STORE, LOAD, ""]);
    // Nor is it to somebody else, or from somebody else.
    races([&all(&[STORE, arrive]), sync, LOAD]);
    races([arrive, &all(&[sync, LOAD]), STORE]);
}

#[test]
fn who_only_arrives_learns_nothing() {
    for (threads, c) in [(128, ""), (THREADS, "barrier.arrive 1, 160;")] {
        let (arrive, sync) = (format!("barrier.arrive 1, {threads};"), format!("barrier.sync 1, {threads};"));
        let b = all(&[STORE, &sync]);
        runs([&all(&[&sync, LOAD]), &b, c]);
        races([&all(&[&arrive, LOAD]), &b, c]);
        races([&all(&[&arrive, OWN, LOAD]), &b, c]);
    }
}

#[test]
fn a_buffer_is_written_again_when_it_has_been_read() {
    // A fills it, and B says when it has read it. Barriers of A alone tell nothing of that.
    let read = "barrier.sync 2, 128;";
    let b = all(&["barrier.sync 1, 128;", LOAD, "barrier.arrive 2, 128;"]);
    for filled in ["barrier.arrive 1, 128;", "barrier.sync 1, 128;"] {
        runs([&all(&[STORE, filled, OWN, read, STORE]), &b, ""]);
        races([&all(&[STORE, filled, OWN, STORE, read]), &b, ""]);
    }
}

#[test]
fn barriers_order_one_after_the_other_by_who_takes_part() {
    // C goes from A's barrier to B's, or the other way round.
    let (a, b) = (all(&[STORE, "barrier.arrive 1, 96;"]), all(&["barrier.sync 2, 96;", LOAD]));
    runs([&a, &b, "barrier.sync 1, 96; barrier.arrive 2, 96;"]);
    races([&a, &b, "barrier.arrive 2, 96; barrier.sync 1, 96;"]);
    // Or it does not wait at A's.
    let a = all(&[STORE, "barrier.sync 1, 96;"]);
    races([&a, &b, "barrier.arrive 1, 96; barrier.arrive 2, 96;"]);
    // A barrier of all goes on from there.
    let [a, b] = [
        all(&[STORE, "barrier.arrive 1, 128; barrier.sync 0;"]),
        "barrier.sync 1, 128; barrier.sync 0;".into(),
    ];
    runs([&a, &b, &all(&["barrier.sync 0;", LOAD])]);
    races([&a, &b, &all(&[LOAD, "barrier.sync 0;"])]);
}

#[test]
fn no_reader_is_forgotten() {
    // A reads first and last, and C stores when it has heard of that. B reads in between.
    let (load, store) = ("ld.shared.u32 %r4, [%flag];", "@%first st.shared.u32 [%flag], 7;");
    let a = |tells| all(&[load, OWN, load, tells]);
    let c = |hears| all(&[hears, store]);
    runs([&a("barrier.arrive 1, 160;"), &all(&[load, "barrier.arrive 1, 160;"]), &c("barrier.sync 1, 160;")]);
    races([&a("barrier.arrive 1, 96;"), load, &c("barrier.sync 1, 96;")]);
    // Of bytes too.
    let bytes = "ld.shared.u8 %r5, [%flag]; barrier.arrive 1, 96;";
    races([&a(bytes), load, &c("barrier.sync 1, 96;")]);
}

#[test]
fn who_waits_and_sends_tells_what_others_have_read() {
    // B of each block sends a word to the other's, which then knows that A has read there, and stores.
    let send = "@%first st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r5], %t, [%mother];";
    let send = all(&["add.u32 %r5, %xother, 256;", send]);
    let (a, sync) = (all(&[LOAD, "barrier.arrive 1, 128;", OWN]), "barrier.sync 1, 128;");
    let then = all(&[AWAIT, "st.shared::cluster.u32 [%xother], %t;"]);
    runs([&a, &all(&[&expect(4), sync, &send, &then]), ""]);
    races([&a, &all(&[&expect(4), &send, sync, &then]), ""]);
}

#[test]
fn what_has_come_from_another_block_is_told_too() {
    // A waits for what the other block has sent, and B reads it.
    let send = "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%xother], %t, [%mother];";
    let a = |tells: &str| all(&[&expect(256), send, AWAIT, tells]);
    let (sync, arrive) = ("barrier.sync 1, 128;", "barrier.arrive 1, 128;");
    runs([&a(arrive), &all(&[sync, LOAD]), ""]);
    races([&a(""), LOAD, ""]);
    races([&all(&[arrive, &a("")]), &all(&[sync, LOAD]), ""]);
}

#[test]
fn releases_and_fences_tell_what_was_known_before_them() {
    let a = all(&[STORE, "barrier.arrive 1, 128;"]);
    let c = all(&["L: ld.acquire.cta.shared.u32 %r5, [%flag]; setp.eq.u32 %p1, %r5, 0; @%p1 bra L;", LOAD]);
    let sync = "barrier.sync 1, 128;";
    let release = "@%first st.release.cta.shared.u32 [%flag], 1;";
    runs([&a, &all(&[sync, release]), &c]);
    races([&a, &all(&[release, sync]), &c]);
    let (fence, relaxed) = ("fence.acq_rel.cluster;", "@%first st.relaxed.cta.shared.u32 [%flag], 1;");
    runs([&a, &all(&[sync, fence, relaxed]), &c]);
    races([&a, &all(&[fence, sync, relaxed]), &c]);
    // What was known before the fence is told though more was heard since.
    let more = "barrier.sync 2, 64;";
    runs([&a, &all(&[sync, fence, more, relaxed]), &c]);
}

#[test]
fn lanes_meet_where_they_wait() {
    // Half of a warp's lanes store, and the others load what those have stored; or both halves do, each on its path.
    let half = "and.b32 %r6, %t, 16; setp.eq.u32 %p2, %r6, 0;";
    let one = ["@%p2 st.shared.u32 [%x], %t;", "@!%p2 ld.shared.u32 %r4, [%x+-64];"];
    let both = [
        "@%p2 bra S; st.shared.u32 [%x], %t; bra.uni T; S: st.shared.u32 [%x], %t; T:",
        "@%p2 bra U; ld.shared.u32 %r4, [%x+-64]; bra.uni V; U: ld.shared.u32 %r4, [%x+64]; V:",
    ];
    for [store, load] in [one, both] {
        let a = |barrier: &str| all(&[half, store, barrier, load]);
        runs([&a("barrier.sync 3, 64;"), "", ""]);
        runs([&a("barrier.sync 3, 128;"), "barrier.arrive 3, 128;", ""]);
        races([&a("barrier.arrive 3, 128;"), "barrier.sync 3, 128;", ""]);
        races([&a(""), "", ""]);
    }
}
