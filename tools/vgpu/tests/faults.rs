//! Planted faults: each check, by a small kernel that breaks its rule, and by one that just keeps it.

mod common;

use common::{Args, Device, LIMITS, assert_fault};
use vgpu::exec::{Launch, Limits, Schedule, run};
use vgpu::memory::MemoryError;
use vgpu::{Fault, FaultKind};

/// A kernel of two pointers and a number around a body, whose threads have `%i` as their number in the
/// grid and `%a` as the address of their word behind the first pointer.
fn device(body: &str) -> Device {
    let text = format!(
        ".version 7.0\n.target sm_75\n.address_size 64\n\
         .visible .entry k(.param .u64 p, .param .u64 q, .param .u32 n)\n{{\n\
         .reg .pred %p<8>; .reg .b32 %r<16>; .reg .f32 %f<8>; .reg .b64 %d<16>;\n\
         .reg .b32 %i, %t, %n; .reg .b64 %p0, %q0, %a, %b;\n\
         .shared .align 16 .b8 s[1024];\n\
         ld.param.u64 %p0, [p]; ld.param.u64 %q0, [q]; ld.param.u32 %n, [n];\n\
         mov.u32 %t, %tid.x; mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mad.lo.s32 %i, %r0, %r1, %t;\n\
         mul.wide.u32 %d0, %i, 4; add.s64 %a, %p0, %d0; add.s64 %b, %q0, %d0;\n\
         {body}\nret;\n}}\n"
    );
    Device::new(&text)
}

/// Launches on a buffer of 1024 zeros and one of as many never written.
fn launch(device: &mut Device, grid: u32, block: u32, n: u32) -> Result<(), Fault> {
    let p = device.put(&[0_u32; 1024]);
    let q = device.memory.alloc(4096, "the second buffer").unwrap();
    let args = Args::new().and(p).and(q).and(n);
    device.launch_with("k", [grid, 1, 1], [block, 1, 1], 0, grid > 1, args)
}

/// Launches on an ordered and on randomly ordered devices, all of which must fail alike.
fn fails(body: &str, grid: u32, block: u32, kind: FaultKind, part: &str) {
    for seed in [None, Some(1), Some(2), Some(3)] {
        let mut device = device(body);
        device.schedule = Schedule { seed, perturb: false };
        assert_fault(launch(&mut device, grid, block, 64), kind, part);
    }
}

/// The same for a body that keeps the rules.
fn runs(body: &str, grid: u32, block: u32) {
    for seed in [None, Some(1), Some(2), Some(3)] {
        let mut device = device(body);
        device.schedule = Schedule { seed, perturb: false };
        launch(&mut device, grid, block, 64).unwrap();
    }
}

#[test]
fn out_of_bounds() {
    runs("ld.global.u32 %r2, [%a];", 1, 1024);
    fails("ld.global.u32 %r2, [%a+4];", 1, 1024, FaultKind::OutOfBounds, "thread (1023,0,0)");
    fails(
        "st.global.u32 [%a+-4], %r2;",
        1,
        32,
        FaultKind::OutOfBounds,
        "4 bytes before test data (4096 bytes",
    );
    fails("mov.u64 %d1, 0; ld.global.u32 %r2, [%d1];", 1, 1, FaultKind::OutOfBounds, "null pointer");
    fails(
        "shl.b32 %r3, %t, 5; mov.u32 %r4, s; add.u32 %r3, %r3, %r4; st.shared.u32 [%r3], %t;",
        1,
        64,
        FaultKind::OutOfBounds,
        "lane 0, thread (32,0,0)",
    );
    fails("atom.global.add.u32 %r2, [%a+4096], 1;", 1, 32, FaultKind::OutOfBounds, "after the end of");
    fails("cp.async.ca.shared.global [s], [%p0+4096], 4;", 1, 1, FaultKind::OutOfBounds, "after the end of");
}

#[test]
fn use_after_free() {
    let mut d = device("ld.global.u32 %r2, [%a];");
    let p = d.put(&[0_u32; 32]);
    d.memory.free(p).unwrap();
    let launched = d.launch("k", [1, 1, 1], [32, 1, 1], Args::new().and(p).and(p).and(0));
    assert_fault(launched, FaultKind::UseAfterFree, "has been freed");
    assert!(matches!(d.memory.free(p), Err(MemoryError::NotAllocated { .. })));
    assert!(matches!(d.memory.read(p, &mut [0]), Err(MemoryError::OutOfBounds { .. })));
}

#[test]
fn misaligned() {
    fails("ld.global.v4.u32 {%r2,%r3,%r4,%r5}, [%p0+8];", 1, 1, FaultKind::Misaligned, "no multiple of 16");
    fails("ld.global.u64 %d1, [%a];", 1, 2, FaultKind::Misaligned, "lane 1");
    fails("atom.global.add.u32 %r2, [%p0+2], 1;", 1, 1, FaultKind::Misaligned, "no multiple of 4");
    fails("st.shared.u32 [s+2], %t;", 1, 1, FaultKind::Misaligned, "no multiple of 4");
}

#[test]
fn unwritten() {
    fails("ld.global.u32 %r2, [%b];", 1, 32, FaultKind::Unwritten, "the second buffer");
    runs("st.global.u32 [%b], %t; ld.global.u32 %r2, [%b];", 1, 32);
    fails("st.global.u8 [%b], %t; ld.global.u32 %r2, [%b];", 1, 1, FaultKind::Unwritten, "global");
    fails("ld.shared.u32 %r2, [s];", 1, 32, FaultKind::Unwritten, "shared");
    fails("atom.global.add.u32 %r2, [%b], 1;", 1, 32, FaultKind::Unwritten, "global");
    // A later block does not find what an earlier one left in shared memory.
    let body = "setp.ne.u32 %p0_, %r0, 0; @%p0_ bra L; st.shared.u32 [s], %t; L: ld.shared.u32 %r2, [s];";
    let body = format!(".reg .pred %p0_; {body}");
    fails(&body, 2, 1, FaultKind::Unwritten, "block (1,0,0)");
}

#[test]
fn host_copies_of_unwritten_bytes() {
    let mut memory = vgpu::memory::Memory::new(1 << 20);
    let at = memory.alloc(64, "buffer").unwrap();
    memory.write(at, &[1; 60]).unwrap();
    memory.read(at, &mut [0; 60]).unwrap();
    let error = memory.read(at, &mut [0; 64]).unwrap_err();
    assert!(matches!(error, MemoryError::Unwritten { offset: 60, .. }), "{error}");
    assert!(memory.write(at + 60, &[0; 8]).is_err());
    assert!(memory.alloc(1 << 20, "too much").is_err());
    let other = memory.alloc(64, "other").unwrap();
    memory.copy(other, at, 64).unwrap();
    assert!(memory.read(other, &mut [0; 60]).is_ok());
    assert!(memory.read(other, &mut [0; 61]).is_err());
    assert_eq!(memory.live().len(), 2);
}

const OWN: &str = "shl.b32 %r3, %t, 2; mov.u32 %r4, s; add.u32 %r3, %r3, %r4;";

#[test]
fn races_in_shared_memory() {
    // The neighbour's word, 32 threads on: another warp's.
    let next = "add.u32 %r5, %t, 32; and.b32 %r5, %r5, 63; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r4;";
    let body = |first: &str, second: &str| {
        format!("{OWN} {next} st.shared.u32 [%r3], %t; {first} ld.shared.u32 %r6, [%r5]; {second}")
    };
    runs(&body("bar.sync 0;", ""), 1, 64);
    fails(&body("bar.sync 0;", "st.shared.u32 [%r3], %t;"), 1, 64, FaultKind::Race, "a race");
    runs(&body("bar.sync 0;", "bar.sync 0; st.shared.u32 [%r3], %t;"), 1, 64);
    let near = "xor.b32 %r5, %t, 1; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r4;";
    // Lanes that have parted.
    let parted = |meet: &str| {
        format!(
            "{OWN} {near} and.b32 %r7, %t, 1; setp.eq.u32 %p1, %r7, 0; @%p1 bra E;\n\
             st.shared.u32 [%r3], %t; {meet} bra.uni J;\nE: ld.shared.u32 %r6, [%r5];\nJ:"
        )
    };
    // Which side runs first is not told: the one that reads first finds nothing written.
    let mut device_ = device(&format!("{OWN} st.shared.u32 [%r3], %t; {}", parted("")));
    assert_fault(launch(&mut device_, 1, 32, 0), FaultKind::Race, "a race");
}

#[test]
fn lanes_of_a_warp_that_have_not_met() {
    let near = "xor.b32 %r5, %t, 1; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r4;";
    let body = |meet: &str, then: &str| format!("{OWN} {near} st.shared.u32 [%r3], %t; {meet} {then}");
    let (load, store) = ("ld.shared.u32 %r6, [%r5];", "st.shared.u32 [%r5], %t;");
    for then in [load, store] {
        fails(&body("", then), 1, 64, FaultKind::Race, "the lanes have not met since");
        runs(&body("bar.warp.sync -1;", then), 1, 64);
        runs(&body("bar.sync 0;", then), 1, 64);
    }
    // A lane's own word; and four words at once, three of them other lanes'.
    runs(&body("", "ld.shared.u32 %r6, [%r3]; st.shared.u32 [%r3], %r6;"), 1, 64);
    let sum = "ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [s];";
    fails(
        &body("", &format!("bar.warp.sync -1; st.shared.u32 [%r3], %t; {sum}")),
        1,
        32,
        FaultKind::Race,
        "lane 1's store",
    );
    let copy = "cp.async.ca.shared.global [%r3], [%a], 4; cp.async.commit_group; cp.async.wait_group 0;";
    fails(&format!("{OWN} {near} {copy} {load}"), 1, 32, FaultKind::Race, "the lanes have not met since");
    runs(&format!("{OWN} {near} {copy} bar.warp.sync -1; {load}"), 1, 32);
}

#[test]
fn copies_that_nobody_has_waited_for() {
    let copy = "cp.async.ca.shared.global [%r3], [%a], 4; cp.async.commit_group;";
    let (load, store) = ("ld.shared.u32 %r5, [%r3];", "st.shared.u32 [%r3], %t;");
    let early = |body: &str, part: &str| fails(&format!("{OWN} {body}"), 1, 64, FaultKind::Race, part);
    let late = |body: &str| runs(&format!("{OWN} {body}"), 1, 64);
    for access in [load, store, "atom.shared.add.u32 %r5, [%r3], 1;", copy] {
        early(&format!("{store} {copy} {access} cp.async.wait_group 0;"), "has not been waited for");
        late(&format!("{store} {copy} cp.async.wait_group 0; {access} cp.async.wait_all;"));
    }
    early(&format!("{copy} {load} cp.async.wait_all;"), "has not been waited for");
    // Nor may others, whatever lies between; and they need a barrier once it was waited for.
    let (far, meet) = ("xor.b32 %r6, %r3, 128; ld.shared.u32 %r5, [%r6];", "bar.sync 0;");
    early(&format!("{copy} {meet} {far} cp.async.wait_all;"), "has not been waited for");
    early(&format!("{store} {meet} {copy} cp.async.wait_all; {far}"), "a race");
    late(&format!("{copy} cp.async.wait_all; {meet} {far}"));
    // It may land as soon as it is asked for: what others read there must be over before.
    let twice = |over: &str| format!("{store} {meet} {far} {over} {copy} {meet} cp.async.wait_all;");
    late(&twice(meet));
    early(&twice(""), "a race");
    // Nor may anybody in the block store where it reads.
    let across =
        "xor.b32 %r6, %i, 32; mul.wide.u32 %d1, %r6, 4; add.s64 %d1, %p0, %d1; st.global.u32 [%d1], %t;";
    late(&format!("{copy} cp.async.wait_all; {meet} {across}"));
    early(&format!("{copy} {meet} {across} cp.async.wait_all;"), "from here is under way");
    // Of two groups the first.
    let two = format!(
        "{copy} cp.async.ca.shared.global [%r3+512], [%a], 4; cp.async.commit_group; cp.async.wait_group 1;"
    );
    late(&format!("{two} {load}"));
    early(&format!("{two} ld.shared.u32 %r5, [%r3+512];"), "of PTX line");
}

#[test]
fn one_instruction_that_stores_twice() {
    fails("st.global.u32 [%p0], %t;", 1, 32, FaultKind::Race, "different values");
    runs("st.global.u32 [%p0], %n;", 1, 32);
    fails("st.shared.u32 [s], %t;", 1, 32, FaultKind::Race, "different values");
}

#[test]
fn races_in_global_memory() {
    // Between warps of a block.
    fails("st.global.u32 [%p0], %n;", 1, 64, FaultKind::Race, "of block (0,0,0)");
    runs(
        "bar.sync 0; setp.eq.u32 %p1, %t, 0; @%p1 st.global.u32 [%p0], %n; bar.sync 0; ld.global.u32 %r2, [%p0];",
        1,
        64,
    );
    fails(
        "setp.eq.u32 %p1, %t, 0; @%p1 st.global.u32 [%p0], %n; ld.global.u32 %r2, [%p0];",
        1,
        64,
        FaultKind::Race,
        "of block (0,0,0)",
    );
    // Between blocks.
    fails("st.global.u32 [%p0], %n;", 2, 1, FaultKind::Race, "of block (");
    runs("st.global.u32 [%b], %n; ld.global.u32 %r2, [%b];", 2, 32);
    // A plain access and an atomic one; two atomic ones.
    fails("red.global.add.u32 [%p0], 1; ld.global.u32 %r2, [%p0];", 2, 1, FaultKind::Race, "a race");
    runs("red.global.add.u32 [%p0], 1; ld.volatile.global.u32 %r2, [%p0];", 2, 1);
    // Bytes of one word.
    runs("cvt.u64.u32 %d2, %i; add.u64 %d2, %d2, %p0; st.global.u8 [%d2], %n;", 4, 1);
}

/// Block 0 writes, hands over through the counter in the first word, and block 1 takes and reads.
fn handover(write: &str, give: &str, take: &str, read: &str) -> String {
    format!(
        "setp.ne.u32 %p1, %r0, 0; setp.ne.u32 %p2, %t, 0; @%p1 bra TAKE;\n\
         {write} @%p2 bra END; {give} bra.uni END;\n\
         TAKE: @%p2 bra READ;\nSPIN: {take} setp.eq.u32 %p3, %r2, 0; @%p3 bra SPIN;\n\
         READ: {read}\nEND:"
    )
}

#[test]
fn releases_and_acquires() {
    let (write, read) = ("st.global.u32 [%p0+256], %n;", "ld.global.u32 %r5, [%p0+256];");
    let release = "red.release.gpu.global.add.u32 [%p0], 1;";
    let acquire = "ld.acquire.gpu.global.u32 %r2, [%p0];";
    let relaxed = "ld.relaxed.gpu.global.u32 %r2, [%p0];";
    let volatile = "ld.volatile.global.u32 %r2, [%p0];";
    runs(&handover(write, release, acquire, read), 2, 1);
    runs(&handover(write, "st.release.gpu.global.u32 [%p0], 1;", acquire, read), 2, 1);
    runs(
        &handover(
            write,
            "membar.gl; st.volatile.global.u32 [%p0], 1;",
            volatile,
            &format!("membar.gl; {read}"),
        ),
        2,
        1,
    );
    runs(&handover(write, "fence.acq_rel.gpu; atom.global.add.u32 %r3, [%p0], 1;", acquire, read), 2, 1);
    // Without the release, the acquire, or the fence, or with one that does not reach beyond the block.
    let race = FaultKind::Race;
    fails(&handover(write, "red.relaxed.gpu.global.add.u32 [%p0], 1;", acquire, read), 2, 1, race, "a race");
    fails(&handover(write, release, relaxed, read), 2, 1, race, "a race");
    fails(
        &handover(
            write,
            "membar.cta; st.volatile.global.u32 [%p0], 1;",
            volatile,
            &format!("membar.gl; {read}"),
        ),
        2,
        1,
        race,
        "a race",
    );
    fails(
        &handover(write, "membar.gl; st.volatile.global.u32 [%p0], 1;", volatile, read),
        2,
        1,
        race,
        "a race",
    );
    // What comes between fence and store is not handed over.
    fails(
        &handover("membar.gl;", &format!("{write} st.volatile.global.u32 [%p0], 1;"), acquire, read),
        2,
        1,
        race,
        "a race",
    );
}

#[test]
fn a_barrier_hands_over_for_all_threads() {
    let own = "st.global.u32 [%a+256], %n;";
    let theirs = "sub.s64 %d3, %a, 256; ld.global.u32 %r5, [%d3+256];";
    let release = "red.release.gpu.global.add.u32 [%p0], 1;";
    let acquire = "ld.acquire.gpu.global.u32 %r2, [%p0];";
    let spin = |give: &str, take: &str| {
        format!(
            "setp.ne.u32 %p1, %r0, 0; setp.ne.u32 %p2, %t, 0; @%p1 bra TAKE;\n\
             {own} {give} @%p2 bra END; {release} bra.uni END;\n\
             TAKE: @%p2 bra READ;\nSPIN: {acquire} setp.eq.u32 %p3, %r2, 0; @%p3 bra SPIN;\n\
             READ: {take} {theirs}\nEND:"
        )
    };
    runs(&spin("bar.sync 0;", "bar.sync 0;"), 2, 64);
    fails(&spin("", "bar.sync 0;"), 2, 64, FaultKind::Race, "a race");
    let mut failed = device(&spin("bar.sync 0;", ""));
    assert!(launch(&mut failed, 2, 64, 64).is_err());
}

#[test]
fn non_coherent_loads() {
    fails(
        "ld.global.nc.u32 %r2, [%a]; st.global.u32 [%a], %r2;",
        1,
        32,
        FaultKind::NonCoherent,
        "ld.global.nc",
    );
    fails(
        "st.global.u32 [%a], %n; ld.global.nc.u32 %r2, [%a];",
        1,
        32,
        FaultKind::NonCoherent,
        "ld.global.nc",
    );
    runs("ld.global.nc.u32 %r2, [%a]; st.global.u32 [%b], %r2;", 1, 32);
}

#[test]
fn barriers() {
    // A part of a warp.
    fails(
        "setp.lt.u32 %p1, %t, 16; @%p1 bra L; bar.sync 0; L:",
        1,
        32,
        FaultKind::DivergentBarrier,
        "0xffff0000",
    );
    // A warp that never comes.
    fails(
        "setp.lt.u32 %p1, %t, 32; @%p1 bra L; bar.sync 0; L:",
        1,
        64,
        FaultKind::DivergentBarrier,
        "have exited",
    );
    // Different barriers.
    let body = "setp.lt.u32 %p1, %t, 32; @%p1 bra L; bar.sync 0; bra.uni E; L: bar.sync 1; E:";
    fails(body, 1, 64, FaultKind::Deadlock, "barrier 1");
    // Different instructions of one barrier are fine, and so are parts of a block that say so.
    runs("setp.lt.u32 %p1, %t, 32; @%p1 bra L; bar.sync 0; bra.uni E; L: bar.sync 0; E:", 1, 64);
    runs("setp.lt.u32 %p1, %t, 32; @%p1 bra E; bar.sync 1, 64; E:", 1, 96);
    runs("setp.lt.u32 %p1, %t, 32; @%p1 bra L; bar.sync 1, 96; bra.uni E; L: bar.arrive 1, 96; E:", 1, 96);
    fails(
        "setp.lt.u32 %p1, %t, 32; selp.b32 %r2, 64, 96, %p1; bar.sync 1, %r2;",
        1,
        96,
        FaultKind::DivergentBarrier,
        "barrier 1 for",
    );
}

#[test]
fn lanes_that_should_meet() {
    let half = "setp.lt.u32 %p1, %t, 16; @%p1 bra L;";
    fails(
        &format!("{half} shfl.sync.down.b32 %r2, %t, 1, 31, -1; L:"),
        1,
        32,
        FaultKind::DivergentBarrier,
        "0xffff0000",
    );
    runs(&format!("{half} shfl.sync.down.b32 %r2, %t, 1, 31, 0xffff0000; L:"), 1, 32);
    fails(&format!("{half} bar.warp.sync -1; L:"), 1, 32, FaultKind::DivergentBarrier, "0xffffffff");
    fails(
        &format!("{half} shfl.sync.idx.b32 %r2, %t, 3, 31, 0xffff0000; L:"),
        1,
        32,
        FaultKind::DivergentBarrier,
        "reads lane 3",
    );
}

#[test]
fn nothing_goes_on() {
    fails(
        "L: ld.volatile.global.u32 %r2, [%p0]; setp.eq.u32 %p1, %r2, 0; @%p1 bra L;",
        2,
        32,
        FaultKind::Deadlock,
        "nobody changes",
    );
    let mut d = device("L: add.u32 %r2, %r2, 1; bra.uni L;");
    // A launch of its own process would set VGPU_BUDGET; here a test is content with the loop's neighbour.
    d.schedule = Schedule::default();
    assert_fault(launch(&mut device("trap;"), 1, 32, 0), FaultKind::Trap, "trap");
}

#[test]
fn launches_that_cannot_be() {
    let mut d = device("");
    let p = d.put(&[0_u32; 4]);
    let short = d.launch("k", [1, 1, 1], [32, 1, 1], Args::new().and(p).and(p));
    assert_fault(short, FaultKind::Launch, "16 bytes of arguments, but its parameters take 20");
    let long = d.launch("k", [1, 1, 1], [32, 1, 1], Args::new().and(p).and(p).and(0_u32).and(0_u32));
    assert_fault(long, FaultKind::Launch, "24 bytes");
    let big = d.launch("k", [1, 1, 1], [1025, 1, 1], Args::new().and(p).and(p).and(0_u32));
    assert_fault(big, FaultKind::Launch, "1025 threads");
    let many = d.launch_with("k", [1000, 1, 1], [1024, 1, 1], 0, true, Args::new().and(p).and(p).and(0_u32));
    assert_fault(many, FaultKind::Launch, "fit on the device at once");
}

#[test]
fn clusters_that_cannot_be() {
    let mut d = device("");
    let p = d.put(&[0_u32; 4]);
    let mut launched = |grid, cluster, multiprocessors| {
        d.launch_clusters("k", [grid, cluster, 1024], multiprocessors, Args::new().and(p).and(p).and(0_u32))
    };
    assert_fault(launched(6, 4, 8), FaultKind::Launch, "[6, 1, 1] blocks, in clusters of [4, 1, 1]");
    assert_fault(launched(32, 32, 32), FaultKind::Launch, "no device allows more than 16");
    assert_fault(launched(32, 16, 7), FaultKind::Launch, "none fits");
    launched(32, 16, 8).unwrap();
}

#[test]
fn clusters_that_wait_for_each_other() {
    let wait = "red.release.gpu.global.add.u32 [%p0], 1;\nL: ld.acquire.gpu.global.u32 %r2, [%p0]; setp.ne.u32 %p1, %r2, 8; @%p1 bra L;";
    for (multiprocessors, fits) in [(8, true), (3, false)] {
        for seed in [None, Some(1), Some(2), Some(3)] {
            let mut d = device(&format!("setp.ne.u32 %p2, %t, 0; @%p2 ret; {wait}"));
            let p = d.put(&[0_u32; 1024]);
            let params = Args::new().and(p).and(p).and(0_u32).0;
            let launch = Launch {
                kernel: &d.kernel("k"),
                grid: [8, 1, 1],
                block: [1024, 1, 1],
                dynamic_shared: 0,
                params: &params,
                cooperative: true,
                cluster: Some([4, 1, 1]),
            };
            let (limits, schedule) =
                (Limits { multiprocessors, ..LIMITS }, Schedule { seed, perturb: false });
            let done = run(&launch, &mut d.memory, &limits, schedule, &mut d.counters);
            match fits {
                true => done.unwrap(),
                false => assert_fault(done, FaultKind::Launch, "4 fit on the device at once"),
            }
        }
    }
}

#[test]
fn constants_are_read_only() {
    let text = ".version 7.0\n.target sm_75\n.address_size 64\n.const .align 4 .u32 c = 5;\n\
        .visible .entry k() { .reg .b64 %d<2>; .reg .b32 %r<2>; ld.const.u32 %r1, [c];\n\
        mov.u64 %d1, c; st.global.u32 [%d1], %r1; ret; }\n";
    let mut d = Device::new(text);
    let launched = d.launch("k", [1, 1, 1], [1, 1, 1], Args::new());
    assert_fault(launched, FaultKind::ReadOnly, "constant");
}

#[test]
fn what_is_not_known_is_named() {
    let load = |body: &str| {
        let text = format!(
            ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry k()\n{{\n{body}\nret;\n}}\n"
        );
        let mut memory = vgpu::memory::Memory::new(1 << 20);
        vgpu::program::Module::load(&text, &mut memory).unwrap_err().to_string()
    };
    assert_eq!(load("wgmma.fence.sync.aligned;"), "PTX line 6: wgmma.fence.sync.aligned is not supported");
    assert!(load(".reg .b32 %r1;\nadd.s32 %r1, %r1, %r2;").starts_with("PTX line 7: %r2"));
    assert!(load(".reg .b32 %r1;\nbra NOWHERE;").contains("NOWHERE"));
}
