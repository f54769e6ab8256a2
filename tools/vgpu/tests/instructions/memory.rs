//! Loads, stores, atomic operations and asynchronous copies.
//!
//! The idea: a body is run by one block; each thread has a word or some words of input and as many of
//! output, and is asked what it found.

use vgpu::FaultKind;

use super::common::{Args, Device, assert_fault};

/// A kernel whose thread `%t` finds 16 words of input at `%i`, 0x01020304 * (word + 1) and so on, has 16
/// words of output at `%o`, and shares all input, from `%in`, and output, from `%out`, with the others.
pub fn kernel(declarations: &str, body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n.global .align 16 .b8 table[64];\n\
         .const .align 4 .b32 fixed[4] = {{ 11, 22, 33, 44 }};\n\
         .visible .entry k(.param .u64 in, .param .u64 out)\n{{\n\
         .reg .pred %p<8>; .reg .b16 %h<16>; .reg .b32 %r<32>; .reg .f32 %f<8>; .reg .b64 %d<16>;\n\
         .reg .f64 %g<4>; .reg .b32 %t; .reg .b64 %i, %o, %in, %out;\n\
         .shared .align 16 .b8 s[2048]; .local .align 16 .b8 l[64];\n{declarations}\
         ld.param.u64 %in, [in]; ld.param.u64 %out, [out]; mov.u32 %t, %tid.x;\n\
         mul.wide.u32 %d0, %t, 64; add.s64 %i, %in, %d0; add.s64 %o, %out, %d0;\n{body}\nret;\n}}\n"
    )
}

/// The input of a thread.
pub fn input(thread: u32) -> [u32; 16] {
    std::array::from_fn(|k| 0x0102_0304_u32.wrapping_mul(16 * thread + k as u32 + 1))
}

/// Runs a body on `threads` threads and returns what each wrote.
pub fn run(body: &str, threads: u32) -> Vec<Vec<u32>> {
    let mut device = Device::new(&kernel("", body));
    let words: Vec<u32> = (0..threads).flat_map(input).collect();
    let (from, to) = (device.put(&words), device.put(&vec![0xeeee_eeee_u32; words.len()]));
    let result = device.launch("k", [1; 3], [threads, 1, 1], Args::new().and(from).and(to));
    result.unwrap_or_else(|fault| panic!("{body}: {fault}"));
    device.get(to, words.len()).chunks(16).map(<[u32]>::to_vec).collect()
}

/// Runs a body on 40 threads, a full warp and a part of one, and checks the first words each wrote.
fn check<const N: usize>(body: &str, expected: impl Fn(u32) -> [u32; N]) {
    for (thread, found) in run(body, 40).iter().enumerate() {
        assert_eq!(found[..N], expected(thread as u32), "{body}, thread {thread}");
        assert!(found[N..].iter().all(|word| *word == 0xeeee_eeee), "{body} wrote more, thread {thread}");
    }
}

#[test]
fn loads_and_stores_of_all_widths() {
    for hint in
        ["", ".ca", ".cg", ".cs", ".lu", ".cv", ".nc", ".volatile", ".relaxed.gpu", ".acquire.gpu", ".weak"]
    {
        // `.nc` and caching stand after the space, order before it.
        let before =
            if [".volatile", ".relaxed.gpu", ".acquire.gpu", ".weak"].contains(&hint) { hint } else { "" };
        let after = if before.is_empty() { hint } else { "" };
        check(&format!("ld{before}.global{after}.u32 %r0, [%i+4]; st.global.u32 [%o], %r0;"), |t| {
            [input(t)[1]]
        });
    }
    for hint in ["", ".wb", ".cg", ".cs", ".wt"] {
        check(&format!("ld.global.u32 %r0, [%i]; st.global{hint}.u32 [%o], %r0;"), |t| [input(t)[0]]);
    }
    for order in [".volatile", ".relaxed.gpu", ".release.gpu", ".relaxed.cta", ".release.sys"] {
        check(&format!("ld.global.u32 %r0, [%i]; st{order}.global.u32 [%o], %r0;"), |t| [input(t)[0]]);
    }
    check("ld.global.s8 %r0, [%i+1]; st.global.u32 [%o], %r0;", |t| [(input(t)[0] >> 8) as u8 as i8 as u32]);
    check("ld.global.u8 %r0, [%i+1]; st.global.u32 [%o], %r0;", |t| [input(t)[0] >> 8 & 0xff]);
    check("ld.global.b16 %h0, [%i+2]; cvt.u32.u16 %r0, %h0; st.global.u32 [%o], %r0;", |t| {
        [input(t)[0] >> 16]
    });
    check("ld.global.s16 %r0, [%i+2]; st.global.u32 [%o], %r0;", |t| [(input(t)[0] >> 16) as i16 as u32]);
    check("ld.global.s32 %d1, [%i]; st.global.u64 [%o], %d1;", |t| {
        [input(t)[0], ((input(t)[0] as i32) >> 31) as u32]
    });
    check("ld.global.f64 %g0, [%i+8]; st.global.f64 [%o], %g0;", |t| [input(t)[2], input(t)[3]]);
    check(
        "ld.global.u32 %r0, [%i]; st.global.u8 [%o+1], %r0;",
        |t| [0xeeee_00ee | (input(t)[0] & 0xff) << 8],
    );
    check("ld.global.u32 %r0, [%i]; cvt.u16.u32 %h0, %r0; st.global.b16 [%o+2], %h0;", |t| {
        [0xeeee | input(t)[0] << 16]
    });
}

#[test]
fn vectors() {
    check("ld.global.v2.u32 {%r0, %r1}, [%i+8]; st.global.v2.u32 [%o], {%r1, %r0};", |t| {
        [input(t)[3], input(t)[2]]
    });
    check(
        "ld.global.nc.v4.f32 {%f0, %f1, %f2, %f3}, [%i+16]; st.global.v4.f32 [%o], {%f3, %f2, %f1, %f0};",
        |t| [7, 6, 5, 4].map(|k| input(t)[k]),
    );
    check("ld.global.v2.u64 {%d1, %d2}, [%i]; st.global.v2.u64 [%o], {%d2, %d1};", |t| {
        [2, 3, 0, 1].map(|k| input(t)[k])
    });
    check("ld.global.v4.u8 {%r0, %r1, %r2, %r3}, [%i]; st.global.v4.u8 [%o], {%r3, %r2, %r1, %r0};", |t| {
        [input(t)[0].swap_bytes()]
    });
    check("ld.global.v4.u32 {_, %r1, _, %r0}, [%i]; st.global.v2.u32 [%o], {%r0, %r1};", |t| {
        [input(t)[3], input(t)[1]]
    });
}

#[test]
fn every_space() {
    let own = "shl.b32 %r9, %t, 2; mov.u32 %r8, s; add.u32 %r9, %r9, %r8; ld.global.u32 %r0, [%i];";
    check(
        &format!("{own} st.shared.u32 [%r9], %r0; ld.shared.u32 %r1, [%r9]; st.global.u32 [%o], %r1;"),
        |t| [input(t)[0]],
    );
    check(
        &format!(
            "{own} st.volatile.shared.u32 [%r9], %r0; ld.volatile.shared.u32 %r1, [%r9]; st.global.u32 [%o], %r1;"
        ),
        |t| [input(t)[0]],
    );
    // The local memory of a thread is its own.
    check(
        &format!("{own} st.local.u32 [l+8], %r0; ld.local.u32 %r1, [l+8]; st.global.u32 [%o], %r1;"),
        |t| [input(t)[0]],
    );
    check("ld.const.u32 %r0, [fixed+8]; st.global.u32 [%o], %r0;", |_| [33]);
    check(
        "setp.eq.u32 %p0, %t, 0; @%p0 st.global.u32 [table+4], 77; bar.sync 0; ld.global.u32 %r0, [table+4]; st.global.u32 [%o], %r0;",
        |_| [77],
    );
    // Without a space, from where the address points.
    for (space, name, offset) in [("shared", "s", 0), ("local", "l", 0), ("const", "fixed", 4)] {
        let write = if space == "const" { String::new() } else { format!("st.{space}.u32 [{name}], 22;") };
        let write = if space == "shared" {
            format!("setp.eq.u32 %p0, %t, 0; @%p0 {write} bar.sync 0;")
        } else {
            write
        };
        check(
            &format!(
                "{write} mov.u64 %d1, {name}; cvta.{space}.u64 %d2, %d1; ld.u32 %r0, [%d2+{offset}]; st.global.u32 [%o], %r0;"
            ),
            |_| [22],
        );
        check(
            &format!(
                "mov.u64 %d1, {name}; cvta.{space}.u64 %d2, %d1; cvta.to.{space}.u64 %d3, %d2; setp.eq.u64 %p1, %d1, %d3; selp.u32 %r0, 1, 0, %p1; st.global.u32 [%o], %r0;"
            ),
            |_| [1],
        );
        check(
            &format!(
                "mov.u64 %d1, {name}; cvta.{space}.u64 %d2, %d1; isspacep.shared %p1, %d2; selp.u32 %r0, 1, 0, %p1; st.global.u32 [%o], %r0;"
            ),
            |_| [u32::from(space == "shared")],
        );
    }
    check(
        "cvta.to.global.u64 %d1, %i; ld.global.u32 %r0, [%d1]; cvta.global.u64 %d2, %o; st.u32 [%d2], %r0;",
        |t| [input(t)[0]],
    );
    check(
        "prefetch.global.L2 [%i]; ld.param.u64 %d1, [out]; sub.s64 %d1, %d1, %out; st.global.u64 [%o], %d1;",
        |_| [0, 0],
    );
}

#[test]
fn only_lanes_that_are_switched_on() {
    check(
        "and.b32 %r1, %t, 3; setp.eq.u32 %p0, %r1, 2; @%p0 st.global.u32 [%o], %t; @!%p0 st.global.u32 [%o], 5;",
        |t| [if t % 4 == 2 { t } else { 5 }],
    );
    check(
        "mov.u32 %r0, 9; setp.gt.u32 %p0, %t, 6; @%p0 ld.global.u32 %r0, [%i]; st.global.u32 [%o], %r0;",
        |t| [if t > 6 { input(t)[0] } else { 9 }],
    );
}

/// An operation by all threads on one word, which begins as the first input: what stands there in the end, and
/// what each thread was told, in order.
fn together(order: &str, opcode: &str, value: &str, start: u64, bytes: usize) -> (u64, Vec<u64>) {
    let (ty, register) = if bytes == 8 { ("b64", "%d") } else { ("b32", "%r") };
    let body = format!(
        "cvt.u64.u32 %d3, %t; mov.u32 %r3, %t; cvt.rn.f32.u32 %f3, %t; cvt.rn.f64.u32 %g3, %t; mov.b32 %r4, %f3; mov.b64 %d4, %g3;\n\
         atom.{order}global.{opcode} {register}1, [%in], {value}; st.global.{ty} [%o], {register}1;"
    );
    let mut device = Device::new(&kernel("", &body));
    let (from, to) = (device.put(&[start]), device.put(&[0_u64; 40 * 8]));
    device
        .launch("k", [1; 3], [40, 1, 1], Args::new().and(from).and(to))
        .unwrap_or_else(|f| panic!("{opcode}: {f}"));
    let mask = u64::MAX >> (64 - 8 * bytes);
    let told = device.get::<u64>(to, 40 * 8).chunks(8).map(|words| words[0] & mask).collect();
    (device.get::<u64>(from, 1)[0] & mask, told)
}

#[test]
fn atomic_operations() {
    type Step = fn(u64, u64) -> u64;
    // Opcode, operand of thread t, what becomes of the word.
    let words: [(&str, &str, u64, Step); 14] = [
        ("add.u32", "%r3", 5, |a, t| (a as u32).wrapping_add(t as u32).into()),
        ("add.s32", "%r3", 0xffff_fff0, |a, t| (a as u32).wrapping_add(t as u32).into()),
        ("min.u32", "%r3", 17, |a, t| a.min(t)),
        ("max.u32", "%r3", 17, |a, t| a.max(t)),
        ("min.s32", "%r3", 0xffff_ffff, |a, _| a),
        ("max.s32", "%r3", 0xffff_ffff, |a, t| (a as i32).max(t as i32) as u32 as u64),
        ("and.b32", "%r3", 0xff, |a, t| a & t),
        ("or.b32", "%r3", 0x40, |a, t| a | t),
        ("xor.b32", "%r3", 0x40, |a, t| a ^ t),
        ("exch.b32", "%r3", 99, |_, t| t),
        ("inc.u32", "%r3", 0, |a, t| if a >= t { 0 } else { a + 1 }),
        ("dec.u32", "%r3", 9, |a, t| if a == 0 || a > t { t } else { a - 1 }),
        ("add.f32", "%r4", 0x3f80_0000, |a, t| (f32::from_bits(a as u32) + t as f32).to_bits().into()),
        ("cas.b32", "%r3, 1000", 20, |a, t| if a == t { 1000 } else { a }),
    ];
    let longs: [(&str, &str, u64, Step); 10] = [
        ("add.u64", "%d3", u64::MAX, |a, t| a.wrapping_add(t)),
        ("min.u64", "%d3", 17, |a, t| a.min(t)),
        ("max.u64", "%d3", 17, |a, t| a.max(t)),
        ("min.s64", "%d3", u64::MAX, |a, _| a),
        ("max.s64", "%d3", u64::MAX, |a, t| (a as i64).max(t as i64) as u64),
        ("and.b64", "%d3", 0xff, |a, t| a & t),
        ("or.b64", "%d3", 1 << 40, |a, t| a | t),
        ("xor.b64", "%d3", 1 << 40, |a, t| a ^ t),
        ("exch.b64", "%d3", 99, |_, t| t),
        ("add.f64", "%d4", 0x3ff0_0000_0000_0000, |a, t| (f64::from_bits(a) + t as f64).to_bits()),
    ];
    let cas: [(&str, &str, u64, Step); 1] =
        [("cas.b64", "%d3, 1000", 20, |a, t| if a == t { 1000 } else { a })];
    for (bytes, operations) in [(4, &words[..]), (8, &longs[..]), (8, &cas[..])] {
        for &(opcode, value, start, step) in operations {
            for order in ["", "relaxed.gpu.", "acq_rel.gpu.", "release.gpu.", "acquire.sys."] {
                // The order stands before the space.
                let (end, told) = together(order, opcode, value, start, bytes);
                let mut word = start;
                for (t, told) in told.into_iter().enumerate() {
                    assert_eq!(told, word, "atom.{order}{opcode}: what thread {t} was told");
                    word = step(word, t as u64);
                }
                assert_eq!(end, word, "atom.{order}{opcode}");
            }
        }
    }
}

#[test]
fn reductions_and_orders() {
    for order in ["", ".relaxed.gpu", ".release.gpu", ".acq_rel.sys", ".relaxed.cta"] {
        let found = run(&format!("red{order}.global.add.u32 [%out], %t;"), 40);
        assert_eq!(found[0][0], 0xeeee_eeee_u32.wrapping_add(39 * 20), "red{order}");
        let found = run(&format!("atom{order}.global.max.u32 %r0, [%out], -1;"), 40);
        assert_eq!(found[0][0], u32::MAX, "atom{order}");
    }
    let zero = "setp.eq.u32 %p0, %t, 0; @%p0 st.shared.u32 [s], 0; bar.sync 0;";
    let read = "bar.sync 0; ld.shared.u32 %r0, [s]; st.global.u32 [%o], %r0;";
    check(&format!("{zero} red.shared.add.u32 [s], %t; {read}"), |_| [39 * 20]);
    check(&format!("{zero} atom.shared.add.u32 %r1, [s], 2; {read}"), |_| [80]);
}

#[test]
fn asynchronous_copies() {
    let own = "shl.b32 %r9, %t, 4; mov.u32 %r8, s; add.u32 %r9, %r9, %r8;";
    let read = "ld.shared.v4.u32 {%r0, %r1, %r2, %r3}, [%r9]; st.global.v4.u32 [%o], {%r0, %r1, %r2, %r3};";
    let zero = "st.shared.v4.u32 [%r9], {7, 7, 7, 7};";
    let all = |t: u32| [0, 1, 2, 3].map(|k| input(t)[k]);
    for wait in ["cp.async.wait_all;", "cp.async.commit_group; cp.async.wait_group 0;"] {
        check(&format!("{own} cp.async.cg.shared.global [%r9], [%i], 16; {wait} {read}"), all);
        check(&format!("{own} {zero} cp.async.ca.shared.global [%r9], [%i], 4; {wait} {read}"), |t| {
            [input(t)[0], 7, 7, 7]
        });
        check(&format!("{own} {zero} cp.async.ca.shared.global [%r9+8], [%i], 8; {wait} {read}"), |t| {
            [7, 7, input(t)[0], input(t)[1]]
        });
        // What is not there is filled with zeros.
        check(&format!("{own} cp.async.cg.shared.global [%r9], [%i], 16, 8; {wait} {read}"), |t| {
            [input(t)[0], input(t)[1], 0, 0]
        });
    }
    // It lands when it is waited for, and not before: of two groups the first.
    let two = "cp.async.ca.shared.global [%r9], [%i], 4; cp.async.commit_group; cp.async.ca.shared.global [%r9+4], [%i], 4; cp.async.commit_group;";
    let first = "ld.shared.u32 %r0, [%r9]; st.global.u32 [%o], %r0;";
    check(
        &format!("{own} {zero} {two} cp.async.wait_group 1; {first} cp.async.wait_all;"),
        |t| [input(t)[0]],
    );
    // Hints say nothing; each lane waits for its own groups.
    for hint in [".L2::64B", ".L2::128B", ".L2::256B"] {
        check(
            &format!("{own} cp.async.cg.shared.global{hint} [%r9], [%i], 16; cp.async.wait_all; {read}"),
            all,
        );
        check(
            &format!("{own} cp.async.ca.shared::cta.global{hint} [%r9], [%i], 16; cp.async.wait_all; {read}"),
            all,
        );
    }
    let odd = "and.b32 %r7, %t, 1; setp.eq.u32 %p0, %r7, 1; @%p0 cp.async.commit_group;";
    let copy = "cp.async.cg.shared.global [%r9], [%i], 16;";
    check(&format!("{own} {copy} {odd} @%p0 cp.async.wait_group 0; @!%p0 cp.async.wait_all; {read}"), all);
    let mut device =
        Device::new(&kernel("", &format!("{own} cp.async.cg.shared.global [%r9], [%i], 16; {read}")));
    let (from, to) = (device.put(&[0_u32; 16]), device.put(&[0_u32; 16]));
    let result = device.launch("k", [1; 3], [1; 3], Args::new().and(from).and(to));
    assert_fault(result, FaultKind::Race, "has not been waited for");
}
