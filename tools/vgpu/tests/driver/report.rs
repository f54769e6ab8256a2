//! The report, against numbers worked out by hand.

use vgpu::driver::own::{vgpuIsVirtual, vgpuReport, vgpuReset};

use super::{Shape, alloc, alone, download, function, launch, load, start, upload};

/// Each thread of 64: a word loaded with `.nc`, a word loaded by every second address, a word stored, one to
/// shared memory with stride `2`, a barrier, one from there, an atomic addition.
const COUNTED: &str = ".version 8.0\n.target sm_75\n.address_size 64\n.visible .entry counted(.param .u64 in, .param .u64 out)\n{\n\
    .reg .b32 %r<8>; .reg .f32 %f<4>; .reg .b64 %d<6>; .shared .align 4 .b8 s[512];\n\
    ld.param.u64 %d0, [in]; ld.param.u64 %d1, [out]; mov.u32 %r0, %tid.x;\n\
    mul.wide.u32 %d2, %r0, 4; add.s64 %d3, %d0, %d2; ld.global.nc.f32 %f0, [%d3];\n\
    add.s64 %d4, %d3, %d2; ld.global.f32 %f1, [%d4+256]; fma.rn.f32 %f0, %f0, %f1, %f1;\n\
    shl.b32 %r1, %r0, 3; mov.u32 %r2, s; add.u32 %r1, %r1, %r2; st.shared.f32 [%r1], %f0; bar.sync 0;\n\
    ld.shared.f32 %f2, [%r1]; add.s64 %d5, %d1, %d2; st.global.f32 [%d5+4], %f2; red.global.add.u32 [%d1], 1; ret;\n}\n";

#[test]
fn counts_are_exact() {
    let body = || {
        start();
        assert_eq!(vgpuIsVirtual(), 1);
        let counted = function(load(COUNTED).unwrap(), "counted").unwrap();
        let (from, to) = (alloc(256 + 512).unwrap(), alloc(260).unwrap());
        assert_eq!(upload(from, &[0x3f80_0000; 192]), 0);
        assert_eq!(upload(to, &[0; 65]), 0);
        assert_eq!(vgpuReset(1, 0), 0);
        assert_eq!(launch(counted, Shape::new(1, 64), &[from, to]), 0);
        assert_eq!(download(to, 2), Ok(vec![64, 0x4000_0000]));
    };
    let Some(ended) = alone("report::counts_are_exact", &[], body) else { return };
    let ended = ended.fine();
    for (path, expected) in [
        ("launches/counted/plain", 1),
        ("downloads/calls", 1),
        ("downloads/bytes", 8),
        ("uploads/calls", 0),
        ("kernels/counted/blocks", 1),
        ("kernels/counted/threads", 64),
        // Two warps; what they load is in whole sectors, which is the fewest.
        ("kernels/counted/nc_loads/requests", 2),
        ("kernels/counted/nc_loads/bytes", 256),
        ("kernels/counted/nc_loads/sectors", 8),
        ("kernels/counted/nc_loads/ideal_sectors", 8),
        ("kernels/counted/nc_loads/distinct_bytes", 256),
        // Every second word: twice the sectors.
        ("kernels/counted/loads/requests", 2),
        ("kernels/counted/loads/sectors", 16),
        ("kernels/counted/loads/ideal_sectors", 8),
        // A word beyond a sector's beginning: one sector more for each warp.
        ("kernels/counted/stores/sectors", 10),
        ("kernels/counted/stores/ideal_sectors", 8),
        ("kernels/counted/stores/distinct_bytes", 256),
        // Two lanes in each bank.
        ("kernels/counted/shared_stores/requests", 2),
        ("kernels/counted/shared_stores/conflicts", 2),
        ("kernels/counted/shared_loads/conflicts", 2),
        ("kernels/counted/block_barriers", 1),
        ("kernels/counted/atomics/requests", 2),
        ("kernels/counted/instructions/f32/warps", 2),
        ("kernels/counted/instructions/f32/threads", 64),
        ("kernels/counted/instructions/barrier/warps", 2),
        ("kernels/counted/instructions/global_load/warps", 4),
    ] {
        assert_eq!(ended.number(&format!("/{path}")), expected, "{path}");
    }
}

#[test]
fn a_report_can_be_asked_for() {
    let body = || {
        start();
        assert!(alloc(1000).is_ok());
        // SAFETY: no buffer is asked for, then one with room.
        unsafe {
            let length = vgpuReport(std::ptr::null_mut(), 0);
            let mut text = vec![1_u8; length];
            assert_eq!(vgpuReport(text.as_mut_ptr(), length - 1), length);
            assert_eq!(text[0], 1, "it had no room");
            assert_eq!(vgpuReport(text.as_mut_ptr(), length), length);
            assert_eq!(text.pop(), Some(0));
            let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(report["schema"], "vgpu-report-1");
            assert_eq!(report["peak_bytes"], 1000);
        }
    };
    if let Some(ended) = alone("report::a_report_can_be_asked_for", &[], body) {
        let ended = ended.fine();
        assert!(
            ended.stderr.contains("vgpu:") && ended.stderr.contains("1000 bytes"),
            "a leak: {}",
            ended.stderr
        );
        assert_eq!(ended.report["live"][0][1], 1000);
    }
}

#[test]
fn distinct_bytes_and_lines_on_request() {
    let body = || {
        start();
        let counted = function(load(COUNTED).unwrap(), "counted").unwrap();
        let (from, to) = (alloc(768).unwrap(), alloc(260).unwrap());
        assert_eq!(upload(from, &[0; 192]), 0);
        assert_eq!(upload(to, &[0; 65]), 0);
        assert_eq!(launch(counted, Shape::new(1, 64), &[from, to]), 0);
        assert!(download(to, 1).is_ok());
    };
    for (settings, distinct) in
        [(&[][..], 0), (&[("VGPU_DISTINCT", "1")][..], 256), (&[("VGPU_LINES", "1")][..], 0)]
    {
        let Some(ended) = alone("report::distinct_bytes_and_lines_on_request", settings, body) else {
            return;
        };
        let ended = ended.fine();
        assert_eq!(ended.number("/kernels/counted/nc_loads/distinct_bytes"), distinct);
        let of_line = |line: u32| {
            let path = |what| format!("/kernels/counted/lines/{line}/{what}");
            ["requests", "sectors", "conflicts"].map(|what| ended.number(&path(what)))
        };
        if settings.iter().any(|s| s.0 == "VGPU_LINES") {
            // The lines of COUNTED with the first load, the second, the store to shared memory and the rest.
            assert_eq!([8, 9, 10, 11].map(of_line), [[2, 8, 0], [2, 16, 0], [2, 0, 2], [6, 12, 2]]);
        } else {
            assert!(ended.report["kernels"]["counted"]["lines"].as_object().is_none_or(|l| l.is_empty()));
        }
    }
}
