//! Special registers, moves of parts, exchange between lanes, barriers and control.

use vgpu::FaultKind;

use super::common::{Args, Device, assert_fault};
use super::memory::{kernel, run};

/// What each of 40 threads of a block writes as its first word.
fn check(body: &str, expected: impl Fn(u32) -> u32) {
    for (thread, found) in run(&format!("{body}; st.global.u32 [%o], %r0;"), 40).iter().enumerate() {
        assert_eq!(found[0], expected(thread as u32), "{body}, thread {thread}");
    }
}

#[test]
fn special_registers() {
    for (name, expected) in [
        ("%tid.x", (|t| t) as fn(u32) -> u32),
        ("%tid.y", |_| 0),
        ("%ntid.x", |_| 40),
        ("%ntid.z", |_| 1),
        ("%ctaid.x", |_| 0),
        ("%nctaid.x", |_| 1),
        ("%laneid", |t| t % 32),
        ("%warpid", |t| t / 32),
        ("%lanemask_eq", |t| 1 << (t % 32)),
        ("%lanemask_lt", |t| (1 << (t % 32)) - 1),
        ("%lanemask_le", |t| (2_u64 << (t % 32)).wrapping_sub(1) as u32),
        ("%lanemask_gt", |t| !((2_u64 << (t % 32)).wrapping_sub(1) as u32)),
        ("%lanemask_ge", |t| u32::MAX << (t % 32)),
    ] {
        check(&format!("mov.u32 %r0, {name}"), expected);
    }
    // Clocks go on.
    for (ty, register, clock) in
        [("u64", "%d", "%clock64"), ("u32", "%r", "%clock"), ("u64", "%d", "%globaltimer")]
    {
        check(
            &format!(
                "mov.{ty} {register}5, {clock}; mov.{ty} {register}6, {clock}; setp.gt.{ty} %p0, {register}6, {register}5; selp.u32 %r0, 1, 0, %p0"
            ),
            |_| 1,
        );
    }
    check(
        "mov.u32 %r1, %smid; mov.u32 %r2, %nsmid; setp.lt.u32 %p0, %r1, %r2; selp.u32 %r0, 1, 0, %p0",
        |_| 1,
    );
}

#[test]
fn blocks_and_threads_in_three_directions() {
    let body = "mov.u32 %r0, %tid.y; mov.u32 %r1, %tid.z; mov.u32 %r2, %ctaid.y; mov.u32 %r3, %ctaid.z; mov.u32 %r4, %nctaid.z; mov.u32 %r5, %ntid.y;\n\
        mov.u32 %r6, %tid.x; mov.u32 %r7, %ctaid.x; mad.lo.u32 %r8, %r3, 2, %r2; mad.lo.u32 %r8, %r8, 2, %r7; mad.lo.u32 %r8, %r8, 4, %r1; mad.lo.u32 %r8, %r8, 3, %r0; mad.lo.u32 %r8, %r8, 5, %r6;\n\
        mul.wide.u32 %d1, %r8, 16; add.s64 %d1, %d1, %out; mad.lo.u32 %r4, %r4, 100, %r5;\n\
        st.global.v4.u32 [%d1], {%r0, %r1, %r2, %r3}; st.global.u32 [%d1+12], %r4;";
    let mut device = Device::new(&kernel("", body));
    let threads = 5 * 3 * 4 * 2 * 2 * 3;
    let (from, to) = (device.put(&[0_u32]), device.put(&vec![0_u32; threads * 4]));
    device.launch("k", [2, 2, 3], [5, 3, 4], Args::new().and(from).and(to)).unwrap();
    for (n, found) in device.get::<u32>(to, threads * 4).chunks(4).enumerate() {
        let n = n as u32;
        assert_eq!(found, [n / 5 % 3, n / 15 % 4, n / 120 % 2, 303], "thread {n}");
    }
}

#[test]
fn parts_of_registers() {
    check("mov.u32 %r1, 0x12345678; mov.b32 {%h0, %h1}, %r1; mov.b32 %r0, {%h1, %h0}", |_| 0x5678_1234);
    check("mov.u64 %d1, 0x1122334455667788; mov.b64 {%r1, %r0}, %d1", |_| 0x1122_3344);
    check(
        "mov.u32 %r1, 3; mov.u32 %r2, 4; mov.b64 %d1, {%r1, %r2}; shr.u64 %d1, %d1, 32; cvt.u32.u64 %r0, %d1",
        |_| 4,
    );
    check(
        "mov.u64 %d1, 0x1122334455667788; mov.b64 {%h0, %h1, %h2, %h3}, %d1; mov.b32 %r0, {%h2, %h3}",
        |_| 0x1122_3344,
    );
    check("mov.f32 %f0, 0f3F800000; mov.b32 %r0, %f0", |_| 0x3f80_0000);
    check("mov.pred %p0, 1; selp.u32 %r0, 5, 6, %p0", |_| 5);
    check("set.lt.u32.u32 %r0, %t, 7", |t| if t < 7 { u32::MAX } else { 0 });
    check("set.lt.f32.u32 %f0, %t, 7; mov.b32 %r0, %f0", |t| if t < 7 { 0x3f80_0000 } else { 0 });
    check(
        "setp.lt.u32 %p0|%p1, %t, 7; selp.u32 %r1, 1, 0, %p0; selp.u32 %r2, 2, 0, %p1; add.u32 %r0, %r1, %r2",
        |t| {
            if t < 7 { 1 } else { 2 }
        },
    );
}

/// Lanes of a warp that exist: the second has eight.
fn lanes(t: u32) -> u32 {
    if t < 32 { 32 } else { 8 }
}

#[test]
fn shuffles() {
    let value = "mad.lo.u32 %r1, %t, 10, 3;";
    let of = |t: u32| t * 10 + 3;
    // A source lane that the warp does not have gives what is not defined, so the second warp asks for none.
    let up = |t: u32, n| if t % 32 >= n { of(t - n) } else { of(t) };
    check(&format!("{value} shfl.sync.up.b32 %r0, %r1, 3, 0, -1"), |t| up(t, 3));
    check(&format!("{value} shfl.sync.bfly.b32 %r0, %r1, 5, 31, -1"), |t| of(t ^ 5));
    check(&format!("{value} shfl.sync.idx.b32 %r0, %r1, 6, 31, -1"), |t| of(t / 32 * 32 + 6));
    check(&format!("{value} and.b32 %r2, %t, 3; shfl.sync.idx.b32 %r0, %r1, %r2, 31, -1"), |t| {
        of(t / 32 * 32 + t % 4)
    });
    // Within eighths of a warp: the clamp's high bits fix the high bits of the lane.
    check(&format!("{value} shfl.sync.idx.b32 %r0, %r1, 2, 0x1c1f, -1"), |t| of(t / 4 * 4 + 2));
    check(&format!("{value} shfl.sync.down.b32 %r0, %r1, 1, 0x1c03, -1"), |t| {
        if t % 4 == 3 { of(t) } else { of(t + 1) }
    });
    check(&format!("{value} shfl.sync.down.b32 %r2|%p0, %r1, 1, 0x1c03, -1; selp.u32 %r0, 1, 0, %p0"), |t| {
        u32::from(t % 4 != 3)
    });
    check(&format!("{value} shfl.sync.up.b32 %r2|%p0, %r1, 3, 0, -1; selp.u32 %r0, 1, 0, %p0"), |t| {
        u32::from(t % 32 >= 3)
    });
    // By a part of the warp, as its mask says.
    let part = "setp.lt.u32 %p1, %r3, 8; mov.u32 %r0, 9;";
    check(
        &format!("mov.u32 %r3, %laneid; {value} {part} @%p1 shfl.sync.bfly.b32 %r0, %r1, 1, 31, 0xff"),
        |t| {
            if t % 32 < 8 { of(t ^ 1) } else { 9 }
        },
    );
}

#[test]
fn votes() {
    let few = "mov.u32 %r1, %laneid; setp.lt.u32 %p0, %r1, 5;";
    check(&format!("{few} vote.sync.ballot.b32 %r0, %p0, -1"), |_| 0x1f);
    check(&format!("{few} vote.sync.ballot.b32 %r0, !%p0, -1"), |t| if t < 32 { 0xffff_ffe0 } else { 0xe0 });
    for (opcode, some, every, none) in [("all", 0, 1, 0), ("any", 1, 1, 0), ("uni", 0, 1, 1)] {
        let vote = format!("vote.sync.{opcode}.pred %p1, %p0, -1; selp.u32 %r0, 1, 0, %p1");
        check(&format!("{few} {vote}"), |_| some);
        check(&format!("mov.pred %p0, 1; {vote}"), |_| every);
        check(&format!("mov.pred %p0, 0; {vote}"), |_| none);
    }
    check("activemask.b32 %r0", |t| if t < 32 { u32::MAX } else { 0xff });
    check(&format!("{few} mov.u32 %r0, 0; @%p0 activemask.b32 %r0"), |t| if t % 32 < 5 { 0x1f } else { 0 });
    check("elect.sync %r1|%p0, -1; selp.u32 %r0, 1, 0, %p0", |t| u32::from(t % 32 == 0));
}

#[test]
fn matches_and_reductions() {
    let thirds = "mov.u32 %r3, %laneid; rem.u32 %r1, %r3, 3;";
    let of = |t: u32, rest: u32| (0..lanes(t)).filter(|l| l % 3 == rest).fold(0, |m, l| m | 1 << l);
    check(&format!("{thirds} match.any.sync.b32 %r0, %r1, -1"), |t| of(t, t % 32 % 3));
    check(&format!("{thirds} cvt.u64.u32 %d1, %r1; match.any.sync.b64 %r0, %d1, -1"), |t| of(t, t % 32 % 3));
    check(&format!("{thirds} match.all.sync.b32 %r0|%p0, %r1, -1"), |_| 0);
    check("mov.u32 %r1, 4; match.all.sync.b32 %r0|%p0, %r1, -1", |t| of(t, 0) | of(t, 1) | of(t, 2));
    check("mov.u32 %r1, 4; match.all.sync.b32 %r2|%p0, %r1, -1; selp.u32 %r0, 1, 0, %p0", |_| 1);
    let value = "mov.u32 %r3, %laneid; sub.u32 %r1, %r3, 4;";
    let values = |t: u32| (0..lanes(t)).map(|l| l.wrapping_sub(4));
    check(&format!("{value} redux.sync.add.u32 %r0, %r1, -1"), |t| values(t).fold(0, u32::wrapping_add));
    check(&format!("{value} redux.sync.min.u32 %r0, %r1, -1"), |t| values(t).min().unwrap());
    check(&format!("{value} redux.sync.max.u32 %r0, %r1, -1"), |t| values(t).max().unwrap());
    check(&format!("{value} redux.sync.min.s32 %r0, %r1, -1"), |_| -4_i32 as u32);
    check(&format!("{value} redux.sync.max.s32 %r0, %r1, -1"), |t| lanes(t) - 5);
    check(&format!("{value} redux.sync.and.b32 %r0, %r1, -1"), |t| values(t).fold(u32::MAX, |a, b| a & b));
    check(&format!("{value} redux.sync.or.b32 %r0, %r1, -1"), |t| values(t).fold(0, |a, b| a | b));
    check(&format!("{value} redux.sync.xor.b32 %r0, %r1, -1"), |t| values(t).fold(0, |a, b| a ^ b));
}

#[test]
fn barriers_and_fences() {
    // Each thread reads what the last has written.
    let own = "shl.b32 %r9, %t, 2; mov.u32 %r8, s; add.u32 %r9, %r9, %r8; sub.u32 %r7, 39, %t; shl.b32 %r7, %r7, 2; add.u32 %r7, %r7, %r8;";
    for barrier in
        ["bar.sync 0", "barrier.sync 0", "barrier.sync.aligned 3", "bar.sync 1, 64", "barrier.cta.sync 0"]
    {
        check(&format!("{own} st.shared.u32 [%r9], %t; {barrier}; ld.shared.u32 %r0, [%r7]"), |t| 39 - t);
    }
    check(&format!("{own} setp.lt.u32 %p0, %t, 7; bar.red.popc.u32 %r0, 0, %p0"), |_| 7);
    for (opcode, few, every) in [("and", 0, 1), ("or", 1, 1)] {
        check(
            &format!("setp.lt.u32 %p0, %t, 7; bar.red.{opcode}.pred %p1, 0, %p0; selp.u32 %r0, 1, 0, %p1"),
            |_| few,
        );
        check(
            &format!("mov.pred %p0, 1; bar.red.{opcode}.pred %p1, 0, %p0; selp.u32 %r0, 1, 0, %p1"),
            |_| every,
        );
    }
    // The first warp writes and goes on; the second waits for it.
    let arrive = "setp.lt.u32 %p0, %t, 32; @%p0 bra A; bar.sync 2, 64; ld.shared.u32 %r0, [s]; bra.uni B;\n\
                  A: setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [s], 12; bar.arrive 2, 64; mov.u32 %r0, 5;\nB:";
    check(arrive, |t| if t < 32 { 5 } else { 12 });
    for fence in [
        "membar.gl",
        "membar.cta",
        "membar.sys",
        "fence.acq_rel.gpu",
        "fence.sc.gpu",
        "fence.sc.cta",
        "fence.proxy.async",
        "nanosleep.u32 20",
    ] {
        check(&format!("{fence}; mov.u32 %r0, 4"), |_| 4);
    }
    let near = "xor.b32 %r6, %t, 1; shl.b32 %r6, %r6, 2; add.u32 %r6, %r6, %r8;";
    check(
        &format!("{own} {near} st.shared.u32 [%r9], %t; bar.warp.sync -1; ld.shared.u32 %r0, [%r6]"),
        |t| t ^ 1,
    );
}

#[test]
fn branches_and_ends() {
    check(
        "mov.u32 %r0, 0; mov.u32 %r1, 0;\nL: add.u32 %r0, %r0, %r1; add.u32 %r1, %r1, 1; setp.le.u32 %p0, %r1, %t; @%p0 bra L;\nmov.u32 %r2, 1",
        |t| t * (t + 1) / 2,
    );
    check(
        "mov.u32 %r0, 1; setp.lt.u32 %p0, %t, 9; @!%p0 bra.uni J; mov.u32 %r0, 2;\nJ: add.u32 %r0, %r0, 5",
        |t| if t < 9 { 7 } else { 6 },
    );
    check(
        "rem.u32 %r1, %t, 3; T: .branchtargets X, Y, Z;\nbrx.idx %r1, T;\nX: mov.u32 %r0, 10; bra E;\nY: mov.u32 %r0, 20; bra E;\nZ: mov.u32 %r0, 30;\nE: add.u32 %r0, %r0, 1",
        |t| [11, 21, 31][t as usize % 3],
    );
    // A label belongs to its braces, and what is inside may jump out.
    let count = "{ L: add.u32 %r0, %r0, 1; setp.lt.u32 %p0, %r0, LIMIT; @%p0 bra L; setp.eq.u32 %p1, %t, 3; @%p1 bra OUT; }";
    let twice = [count.replace("LIMIT", "5"), count.replace("LIMIT", "9")].join("\n");
    check(&format!("mov.u32 %r0, 0; {twice} add.u32 %r0, %r0, 100;\nOUT: mov.u32 %r1, 0"), |t| {
        if t == 3 { 5 } else { 109 }
    });
    for end in ["ret", "exit"] {
        let found = run(&format!("setp.gt.u32 %p0, %t, 9; @%p0 {end}; st.global.u32 [%o], 1;"), 40);
        assert!((0..40).all(|t| (found[t][0] == 1) == (t <= 9)), "{end}");
    }
    let mut device = Device::new(&kernel("", "setp.eq.u32 %p0, %t, 33; @%p0 trap;"));
    let args = Args::new().and(0_u64).and(0_u64);
    assert_fault(device.launch("k", [1; 3], [40, 1, 1], args), FaultKind::Trap, "thread (33,0,0)");
}

#[test]
fn calls() {
    let text = ".version 9.0\n.target sm_90\n.address_size 64\n\
        .func (.param .b32 result) twice(.param .b32 x)\n{ .reg .b32 %a, %b; ld.param.b32 %a, [x]; add.u32 %b, %a, %a; st.param.b32 [result], %b; ret; }\n\
        .visible .entry k(.param .u64 out)\n{ .reg .b64 %d<3>; .reg .b32 %r<4>; ld.param.u64 %d0, [out]; mov.u32 %r0, %tid.x;\n\
        mul.wide.u32 %d1, %r0, 4; add.s64 %d1, %d1, %d0;\n\
        { .param .b32 p; .param .b32 r; st.param.b32 [p], %r0; call.uni (r), twice, (p); ld.param.b32 %r1, [r]; }\n\
        st.global.u32 [%d1], %r1; ret; }\n";
    let mut device = Device::new(text);
    let to = device.put(&[0_u32; 40]);
    device.launch("k", [1; 3], [40, 1, 1], Args::new().and(to)).unwrap();
    assert_eq!(device.get::<u32>(to, 40), (0..40).map(|t| 2 * t).collect::<Vec<_>>());
}
