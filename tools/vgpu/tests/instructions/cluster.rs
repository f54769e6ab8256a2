//! Clusters: special registers, addresses, other blocks' shared memory, barriers of clusters and in shared memory.
//!
//! The idea: a body is run by clusters, and each thread tells what it found.

use vgpu::FaultKind;
use vgpu::exec::{Launch, Schedule, run};

use super::common::{Args, Device, LIMITS, assert_fault};

/// A kernel whose threads have eight words at `%o` each, and their block's rank in `%k`, its cluster's size in `%n`;
/// `%s` is the address of 1024 bytes of shared memory, `%m` of a barrier.
fn kernel(body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 out)\n{{\n\
         .reg .pred %p<8>; .reg .b32 %r<32>; .reg .f32 %f<8>; .reg .f64 %g<4>; .reg .b64 %d<16>, %o;\n\
         .reg .b32 %t, %k, %n, %s, %m; .shared .align 16 .b8 s[1024]; .shared .align 8 .b8 m[16];\n\
         ld.param.u64 %o, [out]; mov.u32 %t, %tid.x; mov.u32 %k, %cluster_ctarank; mov.u32 %n, %cluster_nctarank;\n\
         mov.u32 %s, s; mov.u32 %m, m;\n\
         mov.u32 %r30, %ctaid.x; mov.u32 %r31, %nctaid.x; mov.u32 %r29, %ctaid.y; mad.lo.u32 %r30, %r29, %r31, %r30;\n\
         mov.u32 %r31, %ntid.x; mad.lo.u32 %r30, %r30, %r31, %t; mul.wide.u32 %d15, %r30, 32; add.s64 %o, %o, %d15;\n\
         {body}\nret;\n}}\n"
    )
}

/// Runs a body on a grid, in order and in random orders, and gives what each thread wrote to its eight words.
fn found(body: &str, grid: [u32; 2], cluster: Option<[u32; 3]>, threads: u32) -> Vec<Vec<u32>> {
    let mut all = [None, Some(1), Some(2)].into_iter().map(|seed| {
        let mut device = Device::new(&kernel(body));
        let count = (grid[0] * grid[1] * threads) as usize;
        let to = device.put(&vec![0xeeee_eeee_u32; 8 * count]);
        let args = Args::new().and(to);
        let launch = Launch {
            kernel: &device.kernel("k"),
            grid: [grid[0], grid[1], 1],
            block: [threads, 1, 1],
            dynamic_shared: 0,
            params: &args.0,
            cooperative: false,
            cluster,
        };
        let schedule = Schedule { seed, perturb: false };
        let done = run(&launch, &mut device.memory, &LIMITS, schedule, &mut device.counters);
        done.unwrap_or_else(|fault| panic!("{body}: {fault}"));
        device.get(to, 8 * count).chunks(8).map(<[u32]>::to_vec).collect::<Vec<_>>()
    });
    let first = all.next().unwrap();
    all.for_each(|other| assert_eq!(other, first, "{body}"));
    first
}

/// Two clusters of four blocks of 40 threads: what each thread finds, by its block's number in the grid and its own.
fn check<const N: usize>(body: &str, expected: impl Fn(u32, u32) -> [u32; N]) {
    let found = found(body, [8, 1], Some([4, 1, 1]), 40);
    for (thread, found) in (0..).zip(&found) {
        let (block, thread) = (thread / 40, thread % 40);
        assert_eq!(found[..N], expected(block, thread), "{body}, block {block}, thread {thread}");
    }
}

/// The barrier of the cluster.
const MEET: &str = "barrier.cluster.arrive; barrier.cluster.wait;";

/// The body fails, in clusters of four blocks, alike in order and in random orders.
fn fails(body: &str, kind: FaultKind, part: &str) {
    for seed in [None, Some(1), Some(2)] {
        let mut device = Device::new(&kernel(body));
        device.schedule = Schedule { seed, perturb: false };
        let to = device.put(&[0_u32; 8 * 8 * 40]);
        assert_fault(device.launch_clusters("k", [8, 4, 40], 8, Args::new().and(to)), kind, part);
    }
}

#[test]
fn special_registers() {
    let read = |names: [&str; 8]| {
        let each = (0..)
            .zip(names)
            .map(|(k, name)| format!("mov.u32 %r0, %{name}; st.global.u32 [%o+{}], %r0;", 4 * k));
        each.collect::<String>()
    };
    // Clusters of 2 times 3 blocks in a grid of 4 times 6.
    let names = [
        "clusterid.x",
        "clusterid.y",
        "nclusterid.x",
        "nclusterid.y",
        "cluster_ctaid.x",
        "cluster_ctaid.y",
        "cluster_ctarank",
        "cluster_nctarank",
    ];
    for (block, words) in (0..).zip(found(&read(names), [4, 6], Some([2, 3, 1]), 1)) {
        let [x, y] = [block % 4, block / 4];
        assert_eq!(words, [x / 2, y / 3, 2, 2, x % 2, y % 3, x % 2 + y % 3 * 2, 6], "block {block}");
    }
    let names = [
        "clusterid.z",
        "nclusterid.z",
        "cluster_ctaid.z",
        "cluster_nctaid.x",
        "cluster_nctaid.y",
        "cluster_nctaid.z",
        "cluster_ctarank",
        "nctaid.x",
    ];
    assert_eq!(found(&read(names), [4, 6], Some([2, 3, 1]), 1)[0], [0, 1, 0, 2, 3, 1, 0, 4]);
    // Without clusters each block is one.
    let names = [
        "clusterid.x",
        "clusterid.y",
        "nclusterid.x",
        "nclusterid.y",
        "cluster_ctaid.x",
        "cluster_nctaid.x",
        "cluster_ctarank",
        "cluster_nctarank",
    ];
    for (block, words) in (0..).zip(found(&read(names), [3, 2], None, 1)) {
        assert_eq!(words, [block % 3, block / 3, 3, 2, 0, 1, 0, 1], "block {block}");
    }
    let explicit = "mov.pred %p0, %is_explicit_cluster; selp.u32 %r0, 1, 0, %p0; st.global.u32 [%o], %r0;";
    assert_eq!(found(explicit, [1, 1], Some([1; 3]), 1)[0][0], 1);
    assert_eq!(found(explicit, [1, 1], None, 1)[0][0], 0);
}

#[test]
fn addresses_of_other_blocks() {
    // To the next block's word and back: of a register, of a variable, of 64 bits, generic.
    let next = "add.u32 %r0, %k, 1; rem.u32 %r0, %r0, %n; mul.lo.u32 %r1, %k, 100; add.u32 %r1, %r1, %t;\n\
                shl.b32 %r2, %t, 2; add.u32 %r3, %r2, %s; st.shared.u32 [%r3], %r1;";
    for (map, load) in [
        ("mapa.shared::cluster.u32 %r4, %r3, %r0;", "ld.shared::cluster.u32 %r5, [%r4];"),
        (
            "mapa.shared::cluster.u32 %r4, s, %r0; add.u32 %r4, %r4, %r2;",
            "ld.shared::cluster.u32 %r5, [%r4];",
        ),
        (
            "mapa.shared::cluster.u32 %r4, s+4, %r0; add.u32 %r4, %r4, %r2;",
            "ld.shared::cluster.u32 %r5, [%r4+-4];",
        ),
        (
            "cvt.u64.u32 %d0, %r3; mapa.shared::cluster.u64 %d1, %d0, %r0;",
            "ld.shared::cluster.u32 %r5, [%d1];",
        ),
        ("cvt.u64.u32 %d0, %r3; cvta.shared.u64 %d0, %d0; mapa.u64 %d1, %d0, %r0;", "ld.u32 %r5, [%d1];"),
        (
            "cvt.u64.u32 %d0, %r3; cvta.shared::cluster.u64 %d0, %d0; mapa.u64 %d1, %d0, %r0;",
            "cvta.to.shared::cluster.u64 %d1, %d1; ld.shared::cluster.u32 %r5, [%d1];",
        ),
    ] {
        let tell = "st.global.u32 [%o], %r5;";
        check(&format!("{next} {map} {MEET} {load} {tell} {MEET}"), |block, thread| {
            [(block % 4 + 1) % 4 * 100 + thread]
        });
    }
    // A block finds itself both ways; what has no rank is its own.
    let own = "mapa.shared::cluster.u32 %r4, %s, %k; st.shared::cluster.u32 [%r4], 7; ld.shared.u32 %r0, [%s];\n\
               st.shared::cluster.u32 [%s], 8; ld.shared::cluster.u32 %r1, [%r4]; st.global.v2.u32 [%o], {%r0, %r1};";
    check(&format!("setp.ne.u32 %p0, %t, 0; @%p0 bra E; {own} E:"), |_, thread| match thread {
        0 => [7, 8],
        _ => [0xeeee_eeee; 2],
    });
    let ranks = "mapa.shared::cluster.u32 %r0, %s, 3; getctarank.shared::cluster.u32 %r1, %r0;\n\
                 getctarank.shared::cluster.u32 %r2, %s; cvt.u64.u32 %d0, %s; cvta.shared.u64 %d0, %d0;\n\
                 mapa.u64 %d1, %d0, 2; getctarank.u64 %r3, %d1; st.global.v4.u32 [%o], {%r1, %r2, %r3, %n};";
    check(ranks, |block, _| [3, block % 4, 2, 4]);
    let spaces = "cvt.u64.u32 %d0, %s; cvta.shared.u64 %d0, %d0; xor.b32 %r9, %k, 1; mapa.u64 %d1, %d0, %r9;\n\
                  isspacep.shared %p0, %d0; isspacep.shared::cta %p1, %d1; isspacep.shared::cluster %p2, %d1; isspacep.global %p3, %d1;\n\
                  selp.u32 %r0, 1, 0, %p0; selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 1, 0, %p2; selp.u32 %r3, 1, 0, %p3;\n\
                  st.global.v4.u32 [%o], {%r0, %r1, %r2, %r3};";
    check(spaces, |_, _| [1, 0, 1, 0]);
    fails("mapa.shared::cluster.u32 %r0, %s, 4;", FaultKind::OutOfBounds, "block 4 of a cluster of 4");
}

#[test]
fn loads_and_stores_of_all_forms() {
    // Each thread sends to the block before its own, of which each is sent to by one.
    let to = "add.u32 %r0, %k, 3; rem.u32 %r0, %r0, %n; shl.b32 %r1, %t, 4; add.u32 %r1, %r1, %s;\n\
              mapa.shared::cluster.u32 %r2, %r1, %r0; mul.lo.u32 %r3, %k, 1000; add.u32 %r3, %r3, %t; add.u32 %r4, %r3, 1;";
    let own = "ld.shared.v4.u32 {%r5, %r6, %r7, %r8}, [%r1]; st.global.v4.u32 [%o], {%r5, %r6, %r7, %r8};";
    let zero = "mov.u32 %r9, 0; st.shared.v4.u32 [%r1], {%r9, %r9, %r9, %r9};";
    let value = |block: u32, thread: u32| (block % 4 + 1) % 4 * 1000 + thread;
    for order in ["", ".weak", ".relaxed.cluster", ".volatile", ".release.cluster"] {
        let store =
            |form: &str| format!("{to} {zero} {MEET} st{order}.shared::cluster{form} {MEET} {own} {MEET}");
        check(&store(".u32 [%r2], %r3;"), |b, t| [value(b, t), 0, 0, 0]);
        check(&store(".b32 [%r2+8], %r3;"), |b, t| [0, 0, value(b, t), 0]);
        check(&store(".v2.b32 [%r2], {%r3, %r4};"), |b, t| [value(b, t), value(b, t) + 1, 0, 0]);
        check(&store(".v4.u32 [%r2], {%r4, %r3, %r4, %r3};"), |b, t| {
            let v = value(b, t);
            [v + 1, v, v + 1, v]
        });
        let float = "cvt.rn.f32.u32 %f0, %r3;";
        check(
            &format!("{float} {}", store(".f32 [%r2], %f0;")).replace(float, &format!("{to} {float}")),
            |b, t| [(value(b, t) as f32).to_bits(), 0, 0, 0],
        );
        let long = "cvt.u64.u32 %d0, %r3; shl.b64 %d1, %d0, 32;";
        check(&format!("{to} {long} {}", store(".u64 [%r2], %d1;")), |b, t| [0, value(b, t), 0, 0]);
        let double = "cvt.rn.f64.u32 %g0, %r3;";
        check(&format!("{to} {double} {}", store(".v2.f64 [%r2], {%g0, %g0};")), |b, t| {
            let bits = f64::from(value(b, t)).to_bits();
            [bits as u32, (bits >> 32) as u32, bits as u32, (bits >> 32) as u32]
        });
    }
    for order in ["", ".weak", ".relaxed.cluster", ".volatile", ".acquire.cluster"] {
        let load = |form: &str, tell: &str| {
            let fill = "st.shared.v4.u32 [%r1], {%r3, %r4, %r4, %r3};";
            format!("{to} {fill} {MEET} ld{order}.shared::cluster{form} {tell} {MEET}")
        };
        let back = |b: u32, t: u32| (b % 4 + 3) % 4 * 1000 + t;
        check(&load(".u32 %r5, [%r2+4];", "st.global.u32 [%o], %r5;"), |b, t| [back(b, t) + 1]);
        check(&load(".f32 %f1, [%r2];", "st.global.f32 [%o], %f1;"), |b, t| [back(b, t)]);
        check(&load(".u64 %d3, [%r2];", "st.global.u64 [%o], %d3;"), |b, t| [back(b, t), back(b, t) + 1]);
        check(
            &load(".v4.b32 {%r5, %r6, %r7, %r8}, [%r2];", "st.global.v4.u32 [%o], {%r5, %r6, %r7, %r8};"),
            |b, t| {
                let v = back(b, t);
                [v, v + 1, v + 1, v]
            },
        );
    }
}

#[test]
fn atomic_operations() {
    // All threads of the cluster add to a word of each of its blocks.
    let zero = "setp.eq.u32 %p0, %t, 0; @%p0 st.shared.u32 [%s], 0;";
    let tell = "ld.shared.u32 %r9, [%s]; st.global.u32 [%o], %r9;";
    let each = |operation: &str| {
        let sums =
            (0..4).map(|k| format!("mapa.shared::cluster.u32 %r0, %s, {k}; {operation}")).collect::<String>();
        format!("{zero} {MEET} add.u32 %r1, %t, 1; {sums} {MEET} {tell}")
    };
    for operation in [
        "red.shared::cluster.add.u32 [%r0], %r1;",
        "red.relaxed.cluster.shared::cluster.add.u32 [%r0], %r1;",
        "atom.shared::cluster.add.u32 %r2, [%r0], %r1;",
        "atom.acq_rel.cluster.shared::cluster.add.u32 %r2, [%r0], %r1;",
        "cvt.u64.u32 %d0, %r0; cvta.shared::cluster.u64 %d0, %d0; red.add.u32 [%d0], %r1;",
    ] {
        check(&each(operation), |_, _| [4 * (40 * 41 / 2)]);
    }
}

#[test]
fn barriers_of_the_cluster() {
    for aligned in ["", ".aligned"] {
        for (arrive, wait) in [("", ""), (".release", ".acquire")] {
            let meet =
                format!("barrier.cluster.arrive{arrive}{aligned}; barrier.cluster.wait{wait}{aligned};");
            let body = format!(
                "shl.b32 %r0, %t, 2; add.u32 %r0, %r0, %s; mov.u32 %r1, %k; add.u32 %r2, %k, 1; rem.u32 %r2, %r2, %n;\n\
                 mapa.shared::cluster.u32 %r3, %r0, %r2; mov.u32 %r4, 0;\n\
                 L: st.shared.u32 [%r0], %r1; {meet} ld.shared::cluster.u32 %r1, [%r3]; {meet}\n\
                 add.u32 %r4, %r4, 1; setp.lt.u32 %p0, %r4, 3; @%p0 bra L; st.global.u32 [%o], %r1;"
            );
            check(&body, |block, _| [(block % 4 + 3) % 4]);
        }
    }
    // What lies between arriving and waiting is nobody else's business; a relaxed arrival after a fence releases.
    let split = "shl.b32 %r0, %t, 2; add.u32 %r0, %r0, %s; st.shared.u32 [%r0], %k; xor.b32 %r1, %k, 1;\n\
                 mapa.shared::cluster.u32 %r2, %r0, %r1; ARRIVE mul.lo.u32 %r3, %t, 3; barrier.cluster.wait;\n\
                 ld.shared::cluster.u32 %r4, [%r2]; add.u32 %r3, %r3, %r4; st.global.u32 [%o], %r3;";
    for arrive in [
        "barrier.cluster.arrive;",
        "fence.acq_rel.cluster; barrier.cluster.arrive.relaxed;",
        "fence.sc.cluster; barrier.cluster.arrive.relaxed.aligned;",
        "fence.acq_rel.gpu; barrier.cluster.arrive.relaxed;",
    ] {
        check(&format!("{} {MEET}", split.replace("ARRIVE", arrive)), |block, thread| {
            [3 * thread + ((block % 4) ^ 1)]
        });
    }
    // Who has exited counts as arrived, whether he had or not.
    for exit in ["@%p0 exit;", "@%p0 bra N; bra.uni M; N: barrier.cluster.arrive; exit; M:"] {
        let body = format!("setp.eq.u32 %p0, %k, 2; {exit} {MEET} {MEET} st.global.u32 [%o], %k;");
        check(&body, |block, _| if block % 4 == 2 { [0xeeee_eeee] } else { [block % 4] });
    }
}

/// Thread 0 makes a barrier for so many arrivals, and everybody knows of it.
fn made(count: &str) -> String {
    format!(
        "setp.ne.u32 %p7, %t, 0; @%p7 bra MADE; mbarrier.init.shared::cta.b64 [%m], {count};\n\
         fence.mbarrier_init.release.cluster; MADE: {MEET}"
    )
}

/// Waits until the phase of a parity has completed.
fn await_parity(label: &str, parity: u32) -> String {
    format!("{label}: mbarrier.try_wait.parity.shared::cta.b64 %p6, [%m], {parity}; @!%p6 bra {label};")
}

#[test]
fn barriers_in_shared_memory() {
    // Warp 1 reads what warp 0 has stored.
    let give = "shl.b32 %r0, %t, 2; add.u32 %r0, %r0, %s; setp.ge.u32 %p0, %t, 32; @%p0 bra TAKE; st.shared.u32 [%r0], %t;";
    let take = "ld.shared.u32 %r1, [%r0+-128]; st.global.u32 [%o], %r1;";
    let expected = |_: u32, thread: u32| if thread < 32 { [0xeeee_eeee] } else { [thread - 32] };
    for (count, arrive) in [
        ("32", "mbarrier.arrive.shared::cta.b64 %d0, [%m];"),
        ("32", "mbarrier.arrive.release.cta.shared::cta.b64 _, [%m];"),
        ("32", "mbarrier.arrive.shared.b64 _, [m];"),
        ("64", "mbarrier.arrive.release.cluster.shared::cta.b64 %d0, [%m], 2;"),
        ("32", "cvt.u64.u32 %d1, %m; cvta.shared.u64 %d1, %d1; mbarrier.arrive.b64 %d0, [%d1];"),
        ("1", "bar.warp.sync -1; setp.ne.u32 %p1, %t, 0; @%p1 bra E; mbarrier.arrive.shared.b64 %d0, [%m];"),
        (
            "32",
            "mapa.shared::cluster.u32 %r9, %m, %k; mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r9];",
        ),
    ] {
        let wait = await_parity("W", 0);
        check(&format!("{} {give} {arrive} bra.uni E; TAKE: {wait} {take} E:", made(count)), expected);
    }
    // A phase by what an arrival in it returned, in all forms.
    for wait in [
        "mbarrier.test_wait.shared::cta.b64 %p1, [%m], %d0;",
        "mbarrier.try_wait.acquire.cta.shared::cta.b64 %p1, [%m], %d0;",
        "mbarrier.try_wait.shared.b64 %p1, [%m], %d0, 1000;",
        "mbarrier.try_wait.acquire.cluster.b64 %p1, [%d2], %d0;",
    ] {
        let arrive = "cvt.u64.u32 %d2, %m; cvta.shared.u64 %d2, %d2; shl.b32 %r0, %t, 2; add.u32 %r0, %r0, %s;\n\
                      st.shared.u32 [%r0], %t; mbarrier.arrive.shared::cta.b64 %d0, [%m];";
        let read = "xor.b32 %r1, %t, 4; shl.b32 %r1, %r1, 2; add.u32 %r1, %r1, %s; ld.shared.u32 %r2, [%r1]; st.global.u32 [%o], %r2;";
        check(&format!("{} {arrive} W: {wait} @!%p1 bra W; {read}", made("40")), |_, thread| [thread ^ 4]);
    }
    // The parity of the phase before the first has completed, of the first not yet; an ended barrier can be made anew.
    let ask = "@%p7 bra E; mbarrier.test_wait.parity.shared::cta.b64 %p0, [%m], 1; mbarrier.test_wait.parity.shared::cta.b64 %p1, [%m], 0;\n\
               mbarrier.arrive.shared.b64 %d0, [%m]; mbarrier.test_wait.parity.relaxed.cta.shared::cta.b64 %p2, [%m], 0;\n\
               mbarrier.inval.shared.b64 [%m]; mbarrier.init.shared.b64 [%m], 5; mbarrier.test_wait.parity.shared.b64 %p3, [%m], 0;\n\
               selp.u32 %r0, 1, 0, %p0; selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 1, 0, %p2; selp.u32 %r3, 1, 0, %p3;\n\
               st.global.v4.u32 [%o], {%r0, %r1, %r2, %r3}; E:";
    check(
        &format!("{} {ask}", made("1")),
        |_, thread| if thread == 0 { [1, 0, 1, 0] } else { [0xeeee_eeee; 4] },
    );
    // Bytes that are to come hold a phase open, whichever is told first.
    let bytes = |first: &str, second: &str| {
        format!(
            "{} @%p7 bra E; {first} mbarrier.test_wait.parity.shared::cta.b64 %p0, [%m], 0; {second}\n\
             mbarrier.test_wait.parity.shared::cta.b64 %p1, [%m], 0; selp.u32 %r0, 1, 0, %p0; selp.u32 %r1, 1, 0, %p1;\n\
             st.global.v2.u32 [%o], {{%r0, %r1}}; E:",
            made("1")
        )
    };
    let [expect, arrive, complete] = [
        "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%m], 12;",
        "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%m], 12;",
        "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%m], 12;",
    ];
    let only = "mbarrier.arrive.shared.b64 _, [%m];";
    for (first, second) in [
        (arrive.to_string(), complete.to_string()),
        (complete.to_string(), arrive.to_string()),
        (format!("{expect} {only}"), complete.to_string()),
        (format!("{expect} {complete}"), only.to_string()),
    ] {
        check(&bytes(&first, &second), |_, thread| if thread == 0 { [0, 1] } else { [0xeeee_eeee; 2] });
    }
}

#[test]
fn stores_that_complete_later() {
    // Each of 16 threads of a block sends to the next block, whose barrier waits for all their bytes.
    let send = |form: &str, bytes: u32| {
        let wait = await_parity("W", 0);
        format!(
            "{} @%p7 bra T; mbarrier.arrive.expect_tx.shared::cta.b64 %d0, [%m], {};\n\
             T: add.u32 %r0, %k, 1; rem.u32 %r0, %r0, %n; shl.b32 %r1, %t, 4; add.u32 %r1, %r1, %s;\n\
             mapa.shared::cluster.u32 %r2, %r1, %r0; mapa.shared::cluster.u32 %r3, %m, %r0;\n\
             mul.lo.u32 %r4, %k, 1000; add.u32 %r4, %r4, %t; add.u32 %r5, %r4, 1; cvt.u64.u32 %d1, %r4; shl.b64 %d2, %d1, 32;\n\
             mov.b32 %f0, %r4; mov.b32 %f1, %r5; setp.ge.u32 %p0, %t, 16; @%p0 bra J; {form} J: {wait}\n\
             @%p0 bra E; ld.shared.u32 %r6, [%r1]; st.global.u32 [%o], %r6; READ E: {MEET}",
            made("1"),
            16 * bytes
        )
    };
    let second = "ld.shared.u32 %r7, [%r1+4]; st.global.u32 [%o+4], %r7;";
    let value = |block: u32, thread: u32| (block % 4 + 3) % 4 * 1000 + thread;
    let st = "st.async.shared::cluster.mbarrier::complete_tx::bytes";
    let weak = "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes";
    for (form, bytes, expected) in [
        (format!("{st}.u32 [%r2], %r4, [%r3];"), 4, None),
        (format!("{st}.b32 [%r2], %r4, [%r3];"), 4, None),
        (format!("{weak}.f32 [%r2], %f0, [%r3];"), 4, None),
        (format!("{st}.v2.b32 [%r2], {{%r4, %r5}}, [%r3];"), 8, Some(1)),
        (format!("{st}.v2.f32 [%r2], {{%f0, %f1}}, [%r3];"), 8, Some(1)),
        (format!("{st}.v4.u32 [%r2], {{%r4, %r5, %r4, %r5}}, [%r3];"), 16, Some(1)),
        (format!("{weak}.v4.f32 [%r2], {{%f0, %f1, %f0, %f1}}, [%r3];"), 16, Some(1)),
    ] {
        let body = send(&form, bytes).replace("READ", if expected.is_some() { second } else { "" });
        check(&body, |block, thread| match (thread, expected) {
            (16.., _) => [0xeeee_eeee; 2],
            (_, None) => [value(block, thread), 0xeeee_eeee],
            (_, Some(more)) => [value(block, thread), value(block, thread) + more],
        });
    }
    let long = send(&format!("{st}.b64 [%r2], %d2, [%r3];"), 8).replace("READ", second);
    check(&long, |block, thread| if thread < 16 { [0, value(block, thread)] } else { [0xeeee_eeee; 2] });
}

#[test]
fn a_launch_that_follows_no_other_waits_for_nothing() {
    let both = "griddepcontrol.launch_dependents; setp.lt.u32 %p0, %t, 7; @%p0 griddepcontrol.wait;\n\
                @%p0 griddepcontrol.launch_dependents; griddepcontrol.wait; st.global.u32 [%o], %t;";
    check(both, |_, thread| [thread]);
    let load = |version: &str, target: &str, what: &str| {
        let text = kernel(what).replace("9.0", version).replace("sm_90", target);
        let loaded = vgpu::program::Module::load(&text, &mut vgpu::memory::Memory::new(1 << 20));
        loaded.map(drop).map_err(|error| error.to_string())
    };
    for what in ["griddepcontrol.wait;", "griddepcontrol.launch_dependents;"] {
        for target in ["sm_90", "sm_90a", "sm_100f"] {
            assert_eq!(load("7.8", target, what), Ok(()));
        }
        for (version, target) in [("7.7", "sm_90"), ("7.8", "sm_89")] {
            let error = load(version, target, what).unwrap_err();
            assert!(error.contains("is new in PTX 7.8 and needs sm_90"), "{error}");
        }
    }
    for what in ["griddepcontrol;", "griddepcontrol.wait.all;"] {
        assert!(load("9.0", "sm_90", what).unwrap_err().contains("is not supported"));
    }
    assert!(load("9.0", "sm_90", "griddepcontrol.wait 1;").is_err());
}
