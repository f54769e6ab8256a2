//! Values that are their own flags: a word holds "not yet" (all bits set) until its only writer hands it over.

mod common;

use common::{Args, Device, assert_fault};
use vgpu::exec::Schedule;
use vgpu::{Fault, FaultKind};

/// Many orders of blocks and warps.
const SEEDS: std::ops::Range<u64> = 0..12;

/// A kernel of three pointers around a body: `%a` is the address of the thread's word in the first buffer,
/// `%b` in the second, both by its number in its block; `%c` is a counter. `%k` is the block, `%v` that
/// number as a float.
fn device(body: &str, seed: u64) -> Device {
    let text = format!(
        ".version 7.0\n.target sm_75\n.address_size 64\n\
         .visible .entry k(.param .u64 p, .param .u64 q, .param .u64 c)\n{{\n\
         .reg .pred %p<8>; .reg .b32 %r<16>; .reg .b16 %h<4>; .reg .f32 %f<8>; .reg .b64 %d<8>;\n\
         .reg .b32 %k, %t, %blocks, %target; .reg .f32 %v; .reg .b64 %a, %b, %c;\n\
         ld.param.u64 %a, [p]; ld.param.u64 %b, [q]; ld.param.u64 %c, [c]; mov.u32 %target, 0;\n\
         mov.u32 %t, %tid.x; mov.u32 %k, %ctaid.x; mov.u32 %blocks, %nctaid.x;\n\
         mul.wide.u32 %d0, %t, 4; add.s64 %a, %a, %d0; add.s64 %b, %b, %d0; cvt.rn.f32.u32 %v, %t;\n\
         {body}\nret;\n}}\n"
    );
    let mut device = Device::new(&text);
    device.schedule = Schedule { seed: (seed > 0).then_some(seed), perturb: false };
    device
}

/// Launches on buffers of 4096 words that say "not yet", and returns the second.
fn launch(device: &mut Device, grid: u32, block: u32) -> Result<Vec<f32>, Fault> {
    let [p, q] = [(); 2].map(|()| device.put(&[u32::MAX; 4096]));
    let c = device.put(&[0_u32; 4]);
    let args = Args::new().and(p).and(q).and(c);
    device.launch_with("k", [grid, 1, 1], [block, 1, 1], 0, true, args)?;
    Ok(device.get(q, block as usize))
}

/// Fails in every order.
fn fails(body: &str, grid: u32, block: u32, kind: FaultKind, part: &str) {
    for seed in SEEDS {
        assert_fault(launch(&mut device(body, seed), grid, block).map(drop), kind, part);
    }
}

/// Runs in every order, and leaves this behind in the second buffer.
fn runs(body: &str, grid: u32, block: u32, expected: impl Fn(usize) -> f32) {
    for seed in SEEDS {
        let found = launch(&mut device(body, seed), grid, block).unwrap();
        assert_eq!(found, (0..block as usize).map(&expected).collect::<Vec<_>>(), "seed {seed}");
    }
}

/// Block 0 does one thing, block 1 the other.
fn two(give: &str, take: &str) -> String {
    format!("setp.ne.u32 %p1, %k, 0; @%p1 bra TAKE;\n{give} bra.uni END;\nTAKE: {take}\nEND:")
}

/// Waits for the word at an address; its value is `%f1`.
fn wait(address: &str) -> String {
    format!(
        "{{ W: ld.relaxed.gpu.global.f32 %f1, [{address}]; mov.b32 %r2, %f1;\n\
         setp.eq.s32 %p2, %r2, -1; @%p2 bra W; }}"
    )
}

const GIVE: &str = "st.relaxed.gpu.global.f32 [%a], %v;";
const KEEP: &str = "st.global.f32 [%b], %f1;";
const RESET: &str = "st.global.u32 [%a], -1;";

/// All blocks of one warp each meet.
const GRID: &str = "{ bar.sync 0; add.u32 %target, %target, %blocks; setp.ne.u32 %p3, %t, 0; @%p3 bra MET;\n\
    red.release.gpu.global.add.u32 [%c], 1;\n\
    G: ld.acquire.gpu.global.u32 %r3, [%c]; setp.lt.u32 %p4, %r3, %target; @%p4 bra G;\n\
    MET: bar.sync 0; }";

/// Block 0 hands over twice, block 1 keeps what came the second time.
fn twice(between: &str) -> String {
    let again = "add.f32 %v, %v, 0f3F800000;";
    let (own, take) = (two(&format!("{between} {again} {GIVE}"), &format!("{between} {}", wait("%a"))), KEEP);
    let first = format!("setp.ne.u32 %p1, %k, 0; @%p1 bra FIRST; {GIVE} bra.uni SECOND;");
    format!("{first}\nFIRST: {}\nSECOND: {}", wait("%a"), own.replace("\nEND:", &format!(" {take}\nEND:")))
}

#[test]
fn a_value_is_its_own_flag() {
    runs(&two(GIVE, &format!("{} {KEEP}", wait("%a"))), 2, 96, |t| t as f32);
    // Whoever wants it takes it, and what is taken can be handed on.
    let on = format!("{} add.f32 %f1, %f1, 0f3F800000; st.relaxed.gpu.global.f32 [%b], %f1;", wait("%a"));
    runs(&two(GIVE, &on), 2, 64, |t| t as f32 + 1.0);
    let each = format!("{} setp.eq.u32 %p5, %k, 3; @%p5 {KEEP}", wait("%a"));
    runs(&two(GIVE, &each), 9, 64, |t| t as f32);
    // Four words at once, all of them looked at.
    let four = "mul.wide.u32 %d1, %t, 12; add.s64 %d1, %d1, %a;";
    let give = format!("{four} st.relaxed.gpu.global.v4.f32 [%d1], {{%v, %v, %v, %v}};");
    let take = format!(
        "{four} W: ld.relaxed.gpu.global.v4.f32 {{%f1, %f2, %f3, %f4}}, [%d1];\n\
         mov.b32 %r1, %f1; mov.b32 %r2, %f2; mov.b32 %r3, %f3; mov.b32 %r4, %f4;\n\
         setp.eq.s32 %p2, %r1, -1; setp.eq.or.s32 %p2, %r2, -1, %p2;\n\
         setp.eq.or.s32 %p2, %r3, -1, %p2; setp.eq.or.s32 %p2, %r4, -1, %p2; @%p2 bra W;\n\
         add.f32 %f1, %f1, %f4; {KEEP}"
    );
    runs(&two(&give, &take), 2, 64, |t| 2.0 * t as f32);
}

#[test]
fn a_word_is_reset_before_it_is_used_again() {
    let reset = format!("setp.eq.u32 %p6, %k, 0; {GRID} @%p6 {RESET} {GRID}");
    runs(&twice(&reset), 2, 32, |t| t as f32 + 1.0);
    // By bytes, too.
    let bytes: String = (0..4).map(|k| format!("@%p6 st.global.u8 [%a+{k}], 255; ")).collect();
    runs(&twice(&reset.replace(&format!("@%p6 {RESET}"), &bytes)), 2, 32, |t| t as f32 + 1.0);
    let part = "a missing reset";
    fails(
        &twice(&reset.replace(&format!("@%p6 {RESET}"), &bytes.replace("255", "254"))),
        2,
        32,
        FaultKind::Handover,
        part,
    );
    fails(&twice(""), 2, 32, FaultKind::Handover, part);
    fails(&twice(GRID), 2, 32, FaultKind::Handover, part);
    // Nor was it ever filled.
    let give = "mov.f32 %v, 0f3F800000; st.relaxed.gpu.global.f32 [%c], %v;";
    fails(&two(give, &wait("%c")), 2, 32, FaultKind::Handover, part);
    // A reset that is not ordered after the old value was taken, or before the new one is awaited.
    let late = format!("setp.eq.u32 %p6, %k, 0; {GRID} @%p6 {RESET}");
    fails(&twice(&late), 2, 32, FaultKind::Race, "a race");
    let early = format!("setp.eq.u32 %p6, %k, 0; @%p6 {RESET} {GRID}");
    fails(&twice(&early), 2, 32, FaultKind::Race, "a race");
    // Who reads after a barrier needs no reset.
    let barrier = format!("setp.ne.u32 %p5, %k, 0; @!%p5 {GIVE} add.f32 %v, %v, %v; @!%p5 {GIVE} {GRID}");
    runs(&format!("{barrier} ld.global.f32 %f1, [%a]; @%p5 {KEEP}"), 2, 32, |t| 2.0 * t as f32);
}

#[test]
fn not_yet_is_no_value() {
    let give = |bits: &str| format!("mov.b32 %v, {bits}; {GIVE}");
    for seed in SEEDS {
        let body = two(&give("0x7fffffff"), &format!("{} {KEEP}", wait("%a")));
        assert!(launch(&mut device(&body, seed), 2, 32).unwrap().iter().all(|f| f.is_nan()));
    }
    fails(&two(&give("0xffffffff"), ""), 2, 32, FaultKind::Handover, "it never arrives");
    // One lane, one word of four.
    let some = "setp.eq.u32 %p5, %t, 7; mov.b32 %f2, -1; selp.f32 %f3, %f2, %v, %p5;";
    let give = format!("{some} add.s64 %d1, %a, %d0; st.relaxed.gpu.global.v2.f32 [%d1], {{%v, %f3}};");
    fails(&two(&give, ""), 2, 32, FaultKind::Handover, "lane 7");
}

#[test]
fn a_value_comes_in_one_piece() {
    let halves = "mov.b32 {%h0, %h1}, %v; st.relaxed.gpu.global.b16 [%a], %h0; \
                  st.relaxed.gpu.global.b16 [%a+2], %h1;";
    let part = "one hands a value over";
    fails(&two(halves, &wait("%a")), 2, 32, FaultKind::Handover, part);
    let half = "W: ld.relaxed.gpu.global.u16 %h0, [%a]; setp.eq.u16 %p2, %h0, 0xffff; @%p2 bra W;";
    fails(&two(GIVE, half), 2, 32, FaultKind::Handover, part);
    // Nor as another thing than a float for the device.
    for other in ["volatile.global.f32", "relaxed.cta.global.f32", "release.gpu.global.f32"] {
        fails(&two(&format!("st.{other} [%a], %v;"), &wait("%a")), 2, 32, FaultKind::Handover, part);
    }
    fails(&two("red.global.add.f32 [%a], %v;", &wait("%a")), 2, 32, FaultKind::Handover, part);
    // Where a barrier is between them, a word may be anything.
    let body = format!("setp.ne.u32 %p5, %k, 0; @%p5 bra B; {halves} B: {GRID} {} @%p5 {KEEP}", wait("%a"));
    runs(&body, 2, 32, |t| t as f32);
}

#[test]
fn flags_are_words_of_another_type() {
    // Turns: a flag that is written again and again, without a reset.
    let turns = |ty: &str| {
        format!(
            "setp.ne.u32 %p5, %t, 0; @%p5 bra OUT; mov.u32 %r1, 0;\n\
             NEXT: rem.u32 %r2, %r1, %blocks; setp.ne.u32 %p1, %r2, %k; @%p1 bra SKIP;\n\
             W: ld.relaxed.gpu.global.{ty} %r3, [%c]; setp.ne.u32 %p2, %r3, %r1; @%p2 bra W;\n\
             add.u32 %r4, %r1, 1; st.relaxed.gpu.global.{ty} [%c], %r4;\n\
             SKIP: add.u32 %r1, %r1, 1; setp.lt.u32 %p3, %r1, 12; @%p3 bra NEXT;\n\
             OUT: st.global.f32 [%b], %v;"
        )
    };
    for ty in ["u32", "s32", "b32"] {
        // Of all blocks only one stores its result.
        let body = turns(ty).replace("OUT:", "OUT: setp.eq.u32 %p6, %k, 1; @%p6");
        runs(&body, 3, 32, |t| t as f32);
    }
}

#[test]
fn a_word_has_one_writer() {
    let both = |own: &str| format!("setp.ge.u32 %p5, %k, 2; @%p5 bra T; {own} {GIVE} bra.uni E; T: E:");
    fails(&both(""), 2, 32, FaultKind::Race, "a race");
    fails(&both(""), 3, 32, FaultKind::Race, "a race");
    // Two warps of one block: the same word, and one for each.
    let same = "and.b32 %r1, %t, 31; mul.wide.u32 %d1, %r1, 4; sub.s64 %a, %a, %d0; add.s64 %a, %a, %d1;";
    fails(&two(&format!("{same} {GIVE}"), ""), 2, 64, FaultKind::Race, "a race");
    runs(
        &both("mul.wide.u32 %d1, %k, 128; add.s64 %a, %a, %d1; st.global.f32 [%b], %v;")
            .replace("st.global.f32 [%b]", "setp.eq.u32 %p6, %k, 0; @%p6 st.global.f32 [%b]"),
        2,
        32,
        |t| t as f32,
    );
    // One after the other, with a reset.
    let (first, second) = ("setp.eq.u32 %p5, %k, 0;", "setp.eq.u32 %p6, %k, 1;");
    let body = |reset: &str| {
        format!("{first} {second} @%p5 {GIVE} {GRID} {reset} {GRID} @%p6 {GIVE} {} @%p5 {KEEP}", wait("%a"))
    };
    runs(&body(&format!("@%p5 {RESET}")), 2, 32, |t| t as f32);
    fails(&body(""), 2, 32, FaultKind::Handover, "a missing reset");
}

#[test]
fn every_word_is_its_own_flag_only() {
    // The next word's too: seen, or only read.
    let pair = "add.s64 %d1, %a, %d0;";
    let give = format!("{pair} add.f32 %f2, %v, %v; st.relaxed.gpu.global.v2.f32 [%d1], {{%v, %f2}};");
    let take = |second: &str| format!("{pair} {} {second} {KEEP}", wait("%d1"));
    runs(&two(&give, &take(&wait("%d1+4"))), 2, 32, |t| 2.0 * t as f32);
    fails(&two(&give, &take("ld.global.f32 %f1, [%d1+4];")), 2, 32, FaultKind::Race, "a race");
    // Looked at, and taken without being asked: in some orders it is not there yet, though one instruction
    // stored both.
    let early = |ask: &str| {
        let ask = ask.replace("ASK", "setp.eq.or.s32 %p2, %r3, -1, %p2;");
        format!(
            "{pair} W: ld.relaxed.gpu.global.v2.f32 {{%f2, %f1}}, [%d1]; mov.b32 %r2, %f2; mov.b32 %r3, %f1;\n\
             setp.eq.s32 %p2, %r2, -1; {ask} @%p2 bra W; {KEEP}"
        )
    };
    runs(&two(&give, &early("ASK")), 2, 32, |t| 2.0 * t as f32);
    let found = SEEDS.map(|seed| launch(&mut device(&two(&give, &early("")), seed), 2, 32).unwrap());
    let wrong = found.map(|found| found.iter().any(|value| value.to_bits() == u32::MAX));
    assert!(wrong.skip(1).any(|wrong| wrong));
    // A weak load that came first does not hide behind a look.
    let before = format!("{pair} ld.global.f32 %f1, [%d1+4]; {} {KEEP}", wait("%d1+4"));
    fails(&two(&give, &before), 2, 32, FaultKind::Race, "a race");
    // It orders nothing else, fences or not: that is what flags are for.
    let data = "st.global.f32 [%b+2048], %v; membar.gl;";
    let read = "membar.gl; ld.global.f32 %f1, [%b+2048]; st.global.f32 [%b], %f1;";
    fails(
        &two(&format!("{data} {GIVE}"), &format!("{} {read}", wait("%a"))),
        2,
        32,
        FaultKind::Race,
        "a race",
    );
    let flag = "mov.b32 %r1, %v; st.relaxed.gpu.global.u32 [%a], %r1;";
    let see = "W: ld.relaxed.gpu.global.u32 %r2, [%a]; setp.eq.s32 %p2, %r2, -1; @%p2 bra W;";
    runs(&two(&format!("{data} {flag}"), &format!("{see} {read}")), 2, 32, |t| t as f32);
}

#[test]
fn who_waits_rests() {
    // A chain from the last block to the first, each of which adds 1.
    let last = "sub.u32 %r5, %blocks, 1; setp.eq.u32 %p5, %k, %r5;";
    let row = "mul.wide.u32 %d1, %k, 128; add.s64 %a, %a, %d1; mov.f32 %f1, %v; @%p5 bra GO;";
    let go = "GO: add.f32 %f1, %f1, 0f3F800000; setp.eq.u32 %p6, %k, 0; @%p6 st.global.f32 [%b], %f1;\n\
              @!%p6 st.relaxed.gpu.global.f32 [%a], %f1;";
    let body = format!("{last} {row} {}\n{go}", wait("%a+128"));
    runs(&body, 100, 32, |t| t as f32 + 100.0);
    for seed in SEEDS {
        let mut device = device(&body, seed);
        launch(&mut device, 100, 32).unwrap();
        let warps = device.counters.kernels["k"].all_instructions().warps;
        // Of each block some 30 to go through the kernel, and a few looks of four; not one for every step
        // of the others.
        assert!(warps < 100 * 80, "seed {seed}: {warps}");
    }
}

#[test]
fn who_does_not_only_wait_goes_on() {
    // Two loops, one after the other: the first has what it wants at once.
    let loops = format!("{} mov.f32 %f2, %f1; {} add.f32 %f1, %f1, %f2; {KEEP}", wait("%a"), wait("%a+2048"));
    let give = format!("{GIVE} st.relaxed.gpu.global.f32 [%a+2048], %v;");
    runs(&two(&give, &loops), 2, 32, |t| 2.0 * t as f32);
    // Loops that look, and end by themselves, while others wait for who runs them.
    let delay = |step: &str| {
        format!(
            "mov.u32 %r5, 0; D: ld.relaxed.gpu.global.u32 %r6, [%c]; {step} add.u32 %r5, %r5, 1;\n\
             setp.lt.u32 %p5, %r5, 1000; @%p5 bra D; {GIVE}"
        )
    };
    for step in ["", "nanosleep.u32 10;", "ld.volatile.global.u32 %r6, [%c+8];"] {
        runs(&two(&delay(step), &format!("{} {KEEP}", wait("%a"))), 2, 32, |t| t as f32);
    }
    // A block that waits for one which only then gets its place on the device.
    for seed in SEEDS {
        let mut device = device(&two(&format!("{} {KEEP}", wait("%a")), GIVE), seed);
        let [p, q] = [(); 2].map(|()| device.put(&[u32::MAX; 32]));
        let args = Args::new().and(p).and(q).and(q);
        device.launch("k", [2, 1, 1], [32, 1, 1], args).unwrap();
        assert_eq!(device.get::<f32>(q, 2), [0.0, 1.0]);
    }
    // What never comes.
    fails(&two("", &wait("%a")), 2, 32, FaultKind::Deadlock, "nobody changes");
    fails(&two(&wait("%a"), &wait("%a")), 2, 64, FaultKind::Deadlock, "nobody changes");
}
