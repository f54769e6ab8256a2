//! What modifiers do to types that not all of them fit, and what the decoder has to refuse.
//!
//! The idea: a modifier that is read over changes what an instruction gives without a word, so each is
//! either seen in the results or an error when the module is loaded.

use vgpu::memory::Memory;
use vgpu::program::Module;

use super::memory::{kernel, run};
use super::{F16, Operand, execute, one, three, two};

/// That a body is no valid module, and why.
fn refused(body: &str, part: &str) {
    match Module::load(&kernel("", body), &mut Memory::new(1 << 20)) {
        Ok(_) => panic!("{body} was accepted"),
        Err(error) => assert!(error.to_string().contains(part), "{body}: {error}"),
    }
}

fn flush(a: f32) -> f32 {
    if a.is_subnormal() { 0.0_f32.copysign(a) } else { a }
}

#[test]
fn flushes_numbers_and_nothing_else() {
    // Of what is chosen between, not a bit changes: "slct.u32.f32".
    three("slct.ftz.u32.f32", |a: u32, b: u32, c: f32| [b, a][usize::from(flush(c) >= 0.0)]);
    three("slct.ftz.f32.f32", |a: u32, b: u32, c: f32| [b, a][usize::from(flush(c) >= 0.0)]);
    two("setp.lt.ftz.f32", |a: f32, b: f32| flush(a) < flush(b));
    one("cvt.rpi.ftz.s32.f32", |a: f32| flush(a).ceil() as i32);
    one("cvt.rn.ftz.f32.f64", |a: f64| flush(a as f32));
    one("cvt.ftz.f32.f16", |a: F16| a.value() as f32);
    for opcode in [
        "setp.lt.ftz.f16 %p0, %h0, %h1",
        "add.ftz.f16 %h0, %h1, %h2",
        "fma.rn.ftz.f16 %h0, %h1, %h2, %h3",
        "fma.rn.ftz.f16x2 %r0, %r1, %r2, %r3",
        "min.ftz.f16 %h0, %h1, %h2",
    ] {
        refused(&format!("{opcode};"), ".ftz on this type");
    }
}

#[test]
fn rectifies_and_saturates_what_it_can() {
    // The PTX ISA: a negative result becomes 0, a NaN the canonical one.
    let rows: Vec<Vec<u64>> = f32::values().iter().map(|x| vec![x.to_bits().into()]).collect();
    let found = execute("cvt.rn.relu.f16.f32", &["b32"], "b16", &rows);
    let plain = execute("cvt.rn.f16.f32", &["b32"], "b16", &rows);
    for ((x, found), plain) in f32::values().into_iter().zip(found).zip(plain) {
        let expected = if x.is_nan() {
            0x7fff
        } else if x.is_sign_negative() {
            0
        } else {
            plain
        };
        assert_eq!(found, expected, "relu of {x}");
    }
    refused("fma.rn.relu.f16 %h0, %h1, %h2, %h3;", ".relu on this type");
    refused("fma.rn.relu.bf16x2 %r0, %r1, %r2, %r3;", ".relu on this type");
    refused("add.sat.f16 %h0, %h1, %h2;", ".sat on this type");
    refused("testp.finite.sat.f32 %p0, %f1;", ".sat on this type");
    refused("set.lt.f16.f16 %h0, %h1, %h2;", "set to .f16");
}

/// A register wider than a conversion's result is filled by the result's sign.
#[test]
fn fills_wider_registers() {
    one("cvt.s16.s32", |a: i32| a as i16 as i32);
    one("cvt.s8.s32", |a: i32| a as i8 as i32);
    one("cvt.u16.s32", |a: i32| u32::from(a as u16));
    one("cvt.u8.s32", |a: i32| u32::from(a as u8));
    one("cvt.sat.s16.s32", |a: i32| a.clamp(-32_768, 32_767));
    one("cvt.rzi.s16.f32", |a: f32| i32::from(a as i16));
}

/// What only the decoder names, "pack.b32.b16", "pack.b64.b32", "pack.b64.b16", "pack.b32.b8",
/// "unpack.b16.b32", "unpack.b16.b64" and "unpack.b32.b64" are moves, here and in `warp.rs`.
#[test]
fn moves_of_parts() {
    let words = |body: &str| {
        let body = format!(
            "mov.u64 %d1, 0x1122334455667788; mov.u32 %r1, 0xaabbccdd; {body} st.global.u64 [%o], %d2;"
        );
        let found = run(&body, 1);
        u64::from(found[0][1]) << 32 | u64::from(found[0][0])
    };
    assert_eq!(words("mov.b64 {%r2, %r3}, %d1; mov.b64 %d2, {%r3, %r2};"), 0x5566_7788_1122_3344);
    assert_eq!(
        words("mov.b64 {%h0, %h1, %h2, %h3}, %d1; mov.b64 %d2, {%h3, %h0, %h1, %h2};"),
        0x3344_5566_7788_1122
    );
    assert_eq!(
        words("mov.b32 {%h0, %h1}, %r1; mov.b32 %r2, {%h1, %h0}; mov.b64 %d2, {%r2, %r1};"),
        0xaabb_ccdd_ccdd_aabb
    );
    assert_eq!(
        words("mov.b32 {%h0, _}, %r1; mov.b32 %r2, {%h0, %h0}; mov.b64 %d2, {%r2, %r2};"),
        0xccdd_ccdd_ccdd_ccdd
    );
    // A part may be of the register that is taken apart.
    assert_eq!(
        words(
            "mov.b64 {%r1, %r2}, %d1; mov.b64 %d1, {%r2, %r1}; mov.b64 {%r1, %r2}, %d1; mov.b64 %d2, {%r1, %r2};"
        ),
        0x5566_7788_1122_3344
    );
    let bytes = ".reg .b8 %c<4>; ld.global.b8 %c0, [%i]; ld.global.b8 %c1, [%i+1]; ld.global.b8 %c2, [%i+2]; ld.global.b8 %c3, [%i+3];";
    assert_eq!(
        words(&format!("{bytes} mov.b32 %r2, {{%c3, %c2, %c1, %c0}}; mov.b64 %d2, {{%r2, %r2}};")),
        0x0403_0201_0403_0201
    );
    refused("mov.b32 {%r1, %r2, %r3}, %r4;", "does not fit");
}

#[test]
fn what_is_no_instruction_here() {
    for line in [
        "flush.f32 %f0, %f1;",
        "saturate.f64 %g0, %g1;",
        "relu.f32 %f0, %f1;",
        "clamp.s64 %d0, %d1, %d2, %d3;",
        "shake.f32 %f0, %f1;",
        "pack.b32.b16 %r0, %h0, %h1;",
        "unpack.b32.b64 %r0, %d1, %r1;",
        "saturate.ftz.f32 %f0, %f1;",
        "fused.f32 %f0, %f1;",
        // What it leaves of its bytes nobody may read, which no check knows.
        "discard.global.L2 [%i], 128;",
    ] {
        refused(line, "is not supported");
    }
}

/// Hints and what has no effect on one kernel alone change nothing.
#[test]
fn leaves_everything_as_it_was() {
    for line in [
        "prefetchu.L1 [%i];",
        "prefetch.global.L1 [%i];",
        "applypriority.global.L2::evict_normal [%i], 128;",
        "brkpt;",
        "pmevent 3;",
        "setmaxnreg.dec.sync.aligned.u32 24;",
    ] {
        let line = if line == "brkpt;" { "setp.gt.u32 %p0, %t, 99; @%p0 brkpt;" } else { line };
        let found = run(&format!("ldu.global.u32 %r0, [%i]; {line} st.global.u32 [%o], %r0;"), 40);
        for (t, words) in found.iter().enumerate() {
            assert_eq!(words[0], 0x0102_0304_u32.wrapping_mul(16 * t as u32 + 1), "{line}");
            assert!(words[1..].iter().all(|w| *w == 0xeeee_eeee), "{line}");
        }
    }
}

/// Quotients by numbers so large that their reciprocal is not normal, as the PTX ISA describes them.
#[test]
fn reciprocals_out_of_range() {
    let big = 2.0_f32.powi(126);
    for (a, b, expected) in [
        (big, big, 1.0),
        (3.0 * big, 1.5 * big, 0.0),
        (-f32::MAX, f32::MAX, 0.0),
        (f32::INFINITY, big.next_up(), f32::NAN),
        (f32::INFINITY, f32::INFINITY, f32::NAN),
        (1.0, f32::INFINITY, 0.0),
        (f32::INFINITY, 2.0, f32::INFINITY),
    ] {
        let row = vec![u64::from(a.to_bits()), b.to_bits().into()];
        let found = execute("div.approx.f32", &["b32", "b32"], "b32", std::slice::from_ref(&row));
        let found = f32::from_bits(found[0] as u32);
        assert!(found == expected || found.is_nan() && expected.is_nan(), "{a} / {b}: {found}");
        // The full range is what the other one has.
        let full = f32::from_bits(execute("div.full.f32", &["b32", "b32"], "b32", &[row])[0] as u32);
        assert!(full == a / b || full.is_nan() && (a / b).is_nan(), "{a} / {b}: {full}");
    }
    for (opcode, a, expected) in [
        ("rcp.approx.ftz.f64", 1e-308, f64::INFINITY),
        ("rcp.approx.ftz.f64", -1e-308, f64::NEG_INFINITY),
        ("rcp.approx.ftz.f64", 1.7e308, 0.0),
        ("rcp.approx.ftz.f64", f64::NEG_INFINITY, -0.0),
        ("rsqrt.approx.ftz.f64", 1e-308, f64::INFINITY),
        ("rsqrt.approx.ftz.f64", -0.0, f64::NEG_INFINITY),
        ("rsqrt.approx.ftz.f64", f64::INFINITY, 0.0),
        ("rsqrt.approx.ftz.f64", -1.0, f64::NAN),
    ] {
        let found = f64::from_bits(execute(opcode, &["b64"], "b64", &[vec![a.to_bits()]])[0]);
        assert!(
            found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
            "{opcode} of {a}: {found}"
        );
    }
}
