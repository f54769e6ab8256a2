//! Launches of clusters: what is allowed, what fits, what is refused.

use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use std::ptr::{null, null_mut};

use vgpu::driver::context::cuCtxSynchronize;
use vgpu::driver::launch::{Attribute, Config, cuLaunchKernelEx, cuOccupancyMaxActiveClusters};
use vgpu::driver::module::{cuFuncGetAttribute, cuFuncSetAttribute};

use super::{Shape, alloc, alone, download, function, launch, load, start, upload};

/// `pass` hands each thread's word, its number in the grid, to the next block of the cluster, and stores what came;
/// `pairs` wants clusters of two blocks and stores the rank.
const PTX: &str = ".version 7.8\n.target sm_90\n.address_size 64\n.extern .shared .align 16 .b8 more[];\n\
    .visible .entry pass(.param .u64 out)\n{\n\
    .reg .b32 %r<12>; .reg .b64 %d<3>; .shared .align 4 .b8 s[128];\n\
    ld.param.u64 %d0, [out]; mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.u32 %r3, %r1, %r2, %r0;\n\
    mov.u32 %r4, %cluster_ctarank; mov.u32 %r5, %cluster_nctarank; add.u32 %r4, %r4, 1; rem.u32 %r4, %r4, %r5;\n\
    shl.b32 %r6, %r0, 2; mov.u32 %r7, s; add.u32 %r6, %r6, %r7; mapa.shared::cluster.u32 %r8, %r6, %r4;\n\
    barrier.cluster.arrive.relaxed; barrier.cluster.wait; st.shared::cluster.u32 [%r8], %r3;\n\
    barrier.cluster.arrive; barrier.cluster.wait; ld.shared.u32 %r9, [%r6];\n\
    mul.wide.u32 %d1, %r3, 4; add.s64 %d1, %d1, %d0; st.global.u32 [%d1], %r9; ret;\n}\n\
    .visible .entry pairs(.param .u64 out)\n.explicitcluster\n.reqnctapercluster 2, 1, 1\n{\n\
    .reg .b32 %r<12>; .reg .b64 %d<3>; ld.param.u64 %d0, [out]; mov.u32 %r0, %ctaid.x; mov.u32 %r1, %cluster_ctarank;\n\
    mul.wide.u32 %d1, %r0, 4; add.s64 %d1, %d1, %d0; st.global.u32 [%d1], %r1; ret;\n}\n\
    .visible .entry large()\n{\n.reg .b32 %r<2>; mov.u32 %r0, more; st.shared.u32 [%r0], %r0; ret;\n}\n";

const NON_PORTABLE: u32 = 14;
const MOST_DYNAMIC_SHARED: u32 = 8;
/// Launch attributes, by their numbers.
const IGNORE: u32 = 0;
const COOPERATIVE: u32 = 2;
const CLUSTER: u32 = 4;
const PRIORITY: u32 = 8;

pub fn attribute(id: u32, words: &[u32]) -> Attribute {
    let mut value = [0; 16];
    value[..words.len()].copy_from_slice(words);
    Attribute { id, pad: 0, value }
}

pub fn config(grid: u32, block: u32, shared: u32, attributes: &[Attribute]) -> Config {
    let (attributes, count) = (attributes.as_ptr(), attributes.len() as u32);
    Config { grid: [grid, 1, 1], block: [block, 1, 1], shared, stream: 0, attributes, count }
}

/// Launches with one argument, which kernels without any do not look at.
fn launch_ex(function: usize, config: &Config, out: u64) -> u32 {
    let pointers: [*const c_void; 1] = [std::ptr::from_ref(&out).cast()];
    // SAFETY: there is a pointer for each parameter.
    unsafe { cuLaunchKernelEx(config, function, pointers.as_ptr(), null_mut()) }
}

/// Clusters that fit at once, or the code.
pub fn fit(function: usize, config: &Config) -> Result<i32, u32> {
    let mut clusters = -1;
    // SAFETY: the pointers are to local variables.
    match unsafe { cuOccupancyMaxActiveClusters(&mut clusters, function, config) } {
        0 => Ok(clusters),
        code => Err(code),
    }
}

#[test]
fn structures_are_laid_out_as_in_cuda_h() {
    assert_eq!([size_of::<Config>(), size_of::<Attribute>()], [56, 72]);
    assert_eq!([offset_of!(Config, block), offset_of!(Config, shared)], [12, 24]);
    assert_eq!(
        [offset_of!(Config, stream), offset_of!(Config, attributes), offset_of!(Config, count)],
        [32, 40, 48]
    );
    assert_eq!([offset_of!(Attribute, value), align_of::<Attribute>()], [8, 8]);
}

#[test]
fn clusters_pass_words_round() {
    let body = || {
        start();
        let module = load(PTX).unwrap();
        let pass = function(module, "pass").unwrap();
        let out = alloc(4 * 16 * 32).unwrap();
        let expected = |size: u32| {
            (0..16 * 32).map(move |i| i / 32 / size * size * 32 + (i + (size - 1) * 32) % (size * 32))
        };
        for size in [1, 2, 4, 8] {
            let attributes = [attribute(IGNORE, &[7]), attribute(CLUSTER, &[size, 1, 1])];
            assert_eq!(launch_ex(pass, &config(16, 32, 0, &attributes), out), 0);
            assert_eq!(download(out, 16 * 32).unwrap(), expected(size).collect::<Vec<_>>());
        }
        // Without attributes it is a launch like others.
        assert_eq!(launch_ex(pass, &config(16, 32, 0, &[]), out), 0);
        assert_eq!(download(out, 16 * 32).unwrap(), expected(1).collect::<Vec<_>>());
        // A kernel that wants clusters has them however it is launched.
        let pairs = function(module, "pairs").unwrap();
        for plain in [true, false] {
            let launched = match plain {
                true => launch(pairs, Shape::new(4, 1), &[out]),
                false => launch_ex(pairs, &config(4, 1, 0, &[]), out),
            };
            assert_eq!((launched, download(out, 4)), (0, Ok(vec![0, 1, 0, 1])));
            assert_eq!(upload(out, &[9; 4]), 0);
        }
    };
    for seed in ["0", "1", "2"] {
        let Some(ended) = alone("clusters::clusters_pass_words_round", &[("VGPU_SEED", seed)], body) else {
            return;
        };
        let ended = ended.fine();
        for (path, expected) in [
            ("launches/pass/plain", 5),
            // Each block of a cluster of more than one sends a warp's words.
            ("kernels/pass/distributed_stores/requests", 3 * 16),
            ("kernels/pass/distributed_stores/bytes", 3 * 16 * 128),
            ("kernels/pass/distributed_stores/conflicts", 0),
            ("kernels/pass/distributed_loads/requests", 0),
            ("kernels/pass/shared_stores/requests", 2 * 16),
            ("kernels/pass/shared_loads/requests", 5 * 16),
            // Two for each cluster.
            ("kernels/pass/cluster_barriers", 2 * (16 + 8 + 4 + 2 + 16)),
            ("kernels/pass/block_barriers", 0),
        ] {
            assert_eq!(ended.number(&format!("/{path}")), expected, "{path}");
        }
    }
}

#[test]
fn what_is_refused_is_named() {
    let body = || {
        start();
        let module = load(PTX).unwrap();
        let [pass, pairs] = ["pass", "pairs"].map(|name| function(module, name).unwrap());
        let of = |size: [u32; 3]| [attribute(CLUSTER, &size)];
        let refused = |function, grid, attributes: &[Attribute]| {
            let config = config(grid, 32, 0, attributes);
            let launched = launch_ex(function, &config, 0);
            if attributes.iter().all(|a| a.id == CLUSTER) {
                assert_eq!(fit(function, &config), Err(launched));
            }
            launched
        };
        assert_eq!(refused(pass, 6, &of([4, 1, 1])), 912);
        assert_eq!(refused(pass, 6, &of([0, 1, 1])), 912);
        assert_eq!(refused(pass, 16, &of([16, 1, 1])), 912, "not allowed");
        let mut allowed = -1;
        // SAFETY: the pointer is to a local variable.
        unsafe { assert_eq!((cuFuncGetAttribute(&mut allowed, NON_PORTABLE, pass), allowed), (0, 0)) };
        assert_eq!(cuFuncSetAttribute(pass, NON_PORTABLE, 1), 0);
        // SAFETY: as above.
        unsafe { assert_eq!((cuFuncGetAttribute(&mut allowed, NON_PORTABLE, pass), allowed), (0, 1)) };
        assert_eq!(refused(pass, 32, &of([32, 1, 1])), 912, "more than any device has");
        assert_eq!(refused(pairs, 16, &of([4, 1, 1])), 912, "compiled for two");
        assert_eq!(refused(pass, 16, &[attribute(PRIORITY, &[1])]), 801);
        assert_eq!(refused(pass, 16, &[attribute(99, &[])]), 801);
        // SAFETY: no configuration, no function, no attributes though one is promised.
        unsafe {
            assert_eq!(cuLaunchKernelEx(null(), pass, null(), null()), 1);
            assert_eq!(cuLaunchKernelEx(&config(16, 32, 0, &[]), 12345, null(), null()), 400);
            let none = Config { attributes: null(), ..config(16, 32, 0, &of([1; 3])) };
            assert_eq!(cuLaunchKernelEx(&none, pass, null(), null()), 1);
        }
        assert_eq!(fit(pass, &config(16, 32, 0, &[])), Err(1), "of no clusters");
        // A size for all launches of a function is not understood.
        assert_eq!([10, 11, 12, 13].map(|size| cuFuncSetAttribute(pass, size, 2)), [801; 4]);
        // Nothing of all that was queued.
        assert_eq!(cuCtxSynchronize(), 0);
    };
    let Some(ended) = alone("clusters::what_is_refused_is_named", &[], body) else { return };
    let ended = ended.fine();
    for said in [
        "kernel pass: a grid of [6, 1, 1] blocks is no multiple of clusters of [4, 1, 1]",
        "clusters of [16, 1, 1] blocks; 1 to 8 are allowed (CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED)",
        "clusters of [32, 1, 1] blocks; 1 to 16 are allowed\n",
        "kernel pairs: clusters of [4, 1, 1] blocks; it was compiled for [2, 1, 1]",
        "launch attribute CU_LAUNCH_ATTRIBUTE_PRIORITY is not supported",
        "launch attribute 99 is not supported",
    ] {
        assert!(ended.stderr.contains(said), "{said} in {}", ended.stderr);
    }
    assert!(ended.report["launches"].as_object().is_none_or(|l| l.is_empty()));
}

#[test]
fn older_devices_have_none() {
    let body = || {
        start();
        let kernel = super::kernel("fill");
        let attributes = [attribute(CLUSTER, &[2, 1, 1])];
        assert_eq!(launch_ex(kernel, &config(4, 32, 0, &attributes), 0), 801);
        assert_eq!(fit(kernel, &config(4, 32, 0, &attributes)), Err(801));
        assert_eq!(load(PTX), Err(209));
    };
    let settings = [("VGPU_DEVICE", "a100")];
    let Some(ended) = alone("clusters::older_devices_have_none", &settings, body) else { return };
    let said = ended.fine().stderr;
    assert!(
        said.contains("kernel fill: clusters are new in compute capability 9.0; the device has 8.0"),
        "{said}"
    );
}

#[test]
fn as_many_fit_as_the_parts_of_the_device_hold() {
    // Clusters of 1, 2, 4, 8 and 16 blocks that each fill a multiprocessor, and of 16 of which a multiprocessor holds four.
    for (multiprocessors, filling, small) in [
        ("132", [132, 66, 32, 16, 8], 2 * 4 + 6 * 4),
        ("33", [33, 16, 8, 4, 2], 2 * 4),
        ("36", [36, 18, 9, 4, 2], 2 * 4 + 1),
        ("6", [6, 3, 1, 0, 0], 1),
        ("3", [3, 1, 0, 0, 0], 0),
    ] {
        let body = || {
            let Ok(number) = std::env::var("VGPU_MULTIPROCESSORS") else { return };
            if number != multiprocessors {
                return;
            }
            start();
            let large = function(load(PTX).unwrap(), "large").unwrap();
            assert_eq!(cuFuncSetAttribute(large, NON_PORTABLE, 1), 0);
            let most = 227 << 10;
            assert_eq!(cuFuncSetAttribute(large, MOST_DYNAMIC_SHARED, most + 1), 1);
            assert_eq!(cuFuncSetAttribute(large, MOST_DYNAMIC_SHARED, most), 0);
            let found = [1, 2, 4, 8, 16].map(|size| {
                let attributes = [attribute(CLUSTER, &[size, 1, 1])];
                let config = config(size, 32, most as u32, &attributes);
                let fit = fit(large, &config).unwrap();
                assert_eq!(launch_ex(large, &config, 0), if fit == 0 { 912 } else { 0 });
                fit
            });
            assert_eq!(found, filling);
            let sixteen = [attribute(CLUSTER, &[16, 1, 1]), attribute(COOPERATIVE, &[1])];
            let config = |clusters: u32| config(16 * clusters, 32, 55 << 10, &sixteen);
            assert_eq!(fit(large, &config(1)), Ok(small));
            // All at once, or not at all.
            if small > 0 {
                assert_eq!(launch_ex(large, &config(small as u32), 0), 0);
            }
            assert_eq!(launch_ex(large, &config(small as u32 + 1), 0), 720);
            assert_eq!(cuCtxSynchronize(), 0);
        };
        let settings = [("VGPU_MULTIPROCESSORS", multiprocessors)];
        let name = "clusters::as_many_fit_as_the_parts_of_the_device_hold";
        if let Some(ended) = alone(name, &settings, body) {
            ended.fine();
        }
    }
}
