//! Modules, what their kernels are, and launches that are refused.

use std::ffi::CString;

use vgpu::driver::context::cuCtxSynchronize;
use vgpu::driver::memory::cuMemFree_v2;
use vgpu::driver::module::*;

use super::{PTX, Shape, alloc, alone, download, function, kernel, launch, load, start};

#[test]
fn modules_that_cannot_be_loaded() {
    let body = || {
        start();
        assert_eq!(load("not PTX"), Err(218));
        assert_eq!(load(&PTX.replace("ret;", "retire;")), Err(218));
        // This device is an A100 whose driver is of CUDA 12.4.
        assert_eq!(load(&PTX.replace(".version 8.0", ".version 8.5")), Err(222));
        assert!(load(&PTX.replace(".version 8.0", ".version 8.4")).is_ok());
        assert_eq!(load(&PTX.replace("sm_75", "sm_90")), Err(209));
        assert!(load(&PTX.replace("sm_75", "sm_80")).is_ok());
        let module = load(PTX).unwrap();
        assert_eq!(function(module, "filler"), Err(500));
        assert_eq!(function(module + 1, "fill"), Err(400));
        assert!(function(module, "fill").is_ok());
        assert_eq!(cuModuleUnload(module), 0);
        assert_eq!(function(module, "fill"), Err(400));
    };
    let settings = [("VGPU_DEVICE", "a100"), ("VGPU_DRIVER_VERSION", "12040")];
    if let Some(ended) = alone("modules::modules_that_cannot_be_loaded", &settings, body) {
        ended.fine();
    }
}

#[test]
fn attributes_and_variables() {
    let body = || {
        start();
        let module = load(PTX).unwrap();
        let attribute = |name, number| {
            let mut value = -1;
            // SAFETY: the pointer is to a local variable.
            let code = unsafe { cuFuncGetAttribute(&mut value, number, function(module, name).unwrap()) };
            (code, value)
        };
        assert_eq!(attribute("big", 1), (0, 4096), "shared memory");
        assert_eq!(attribute("fill", 1), (0, 0));
        assert_eq!(attribute("fill", 0), (0, 1024), "threads of a block");
        assert_eq!(attribute("fill", 5), (0, 80), "PTX version");
        assert_eq!(attribute("fill", 1000).0, 1);
        let mut blocks = 0;
        let big = function(module, "big").unwrap();
        for (threads, expected) in [(1024, 2), (64, 32)] {
            // SAFETY: the pointer is to a local variable.
            unsafe {
                assert_eq!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, big, threads, 0), 0)
            };
            assert_eq!(blocks, expected, "blocks of {threads} threads");
        }
        let (name, mut address, mut bytes) = (CString::new("answer").unwrap(), 0, 0);
        // SAFETY: pointers to local variables, and text that ends with a zero.
        unsafe { assert_eq!(cuModuleGetGlobal_v2(&mut address, &mut bytes, module, name.as_ptr()), 0) };
        assert_eq!((bytes, download(address, 1)), (4, Ok(vec![42])));
    };
    if let Some(ended) = alone("modules::attributes_and_variables", &[], body) {
        ended.fine();
    }
}

/// A kernel for which all of a hundred values are live at once, with a directive.
fn of_many_values(directive: &str) -> String {
    let each = |of: &dyn Fn(usize) -> String| (0..100).map(of).collect::<String>();
    let loads = each(&|i| format!("ld.global.u32 %r{i}, [%d0+{}]; ", 4 * i));
    let stores = each(&|i| format!("st.global.u32 [%d0+{}], %r{}; ", 4 * i, 99 - i));
    let head = ".version 8.0\n.target sm_75\n.address_size 64\n.visible .entry many(.param .u64 at)";
    format!(
        "{head} {directive}\n{{\n.reg .b32 %r<100>; .reg .b64 %d0; ld.param.u64 %d0, [at]; {loads}{stores}ret;\n}}\n"
    )
}

#[test]
fn a_kernel_has_no_more_registers_than_the_blocks_that_it_promises_leave() {
    let body = || {
        start();
        for (directive, most, threads) in
            [("", 255, 512), (".maxntid 1024", 64, 1024), (".maxntid 128\n.minnctapersm 8", 64, 128)]
        {
            let many = function(load(&of_many_values(directive)).unwrap(), "many").unwrap();
            let (mut registers, mut blocks) = (0, 0);
            // SAFETY: pointers to local variables.
            unsafe {
                assert_eq!(cuFuncGetAttribute(&mut registers, 4, many), 0);
                assert_eq!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, many, threads, 0), 0);
            }
            assert!(
                registers <= most && (directive.is_empty() || registers == most),
                "{directive}: {registers}"
            );
            assert!(blocks > 0, "{directive}: no block of {threads} threads");
            assert!(!directive.is_empty() || registers > 100, "{registers} for a hundred values");
        }
    };
    let test = "modules::a_kernel_has_no_more_registers_than_the_blocks_that_it_promises_leave";
    if let Some(ended) = alone(test, &[], body) {
        ended.fine();
    }
}

#[test]
fn launches_that_are_refused() {
    let body = || {
        start();
        let (fill, big) = (kernel("fill"), kernel("big"));
        let out = alloc(4096).unwrap();
        let with = |change: fn(&mut Shape)| {
            let mut shape = Shape::new(1, 32);
            change(&mut shape);
            launch(big, shape, &[])
        };
        assert_eq!(with(|_| ()), 0);
        assert_eq!(with(|s| s.block[0] = 1025), 1);
        assert_eq!(with(|s| s.block = [32, 8, 8]), 1, "2048 threads");
        assert_eq!(with(|s| s.block[2] = 65), 1);
        assert_eq!(with(|s| s.block[1] = 0), 1);
        assert_eq!(with(|s| s.grid[2] = 65_536), 1);
        assert_eq!(with(|s| s.grid[0] = 0), 1);
        // With the 4 KiB of its own more than every device has, and then as much as was asked for.
        assert_eq!(with(|s| s.shared = 45 << 10), 1);
        assert_eq!(cuFuncSetAttribute(big, 8, 228 << 10), 1);
        assert_eq!(cuFuncSetAttribute(big, 8, 60 << 10), 0);
        assert_eq!(with(|s| s.shared = 60 << 10), 0);
        assert_eq!(with(|s| s.shared = 61 << 10), 1);
        assert_eq!(with(|s| s.stream = 12_345), 400);
        assert_eq!(launch(fill + 1, Shape::new(1, 1), &[out, 0, 0]), 400);
        // 132 multiprocessors of 2048 threads.
        let together = |grid| launch(big, Shape { cooperative: true, ..Shape::new(grid, 1024) }, &[]);
        assert_eq!([together(264), together(265)], [0, 720]);
        assert_eq!(cuCtxSynchronize(), 0);
        // None of it has done harm.
        assert_eq!(launch(fill, Shape::new(2, 32), &[out, 100, 40]), 0);
        assert_eq!(download(out, 40), Ok((100..140).collect()));
    };
    if let Some(ended) = alone("modules::launches_that_are_refused", &[], body) {
        let ended = ended.fine();
        assert_eq!([ended.number("/launches/big/plain"), ended.number("/launches/big/cooperative")], [2, 1]);
    }
}

#[test]
fn a_device_without_cooperative_launches() {
    let body = || {
        start();
        let shape = Shape { cooperative: true, ..Shape::new(1, 32) };
        assert_eq!(launch(kernel("big"), shape, &[]), 801);
    };
    if let Some(ended) =
        alone("modules::a_device_without_cooperative_launches", &[("VGPU_DEVICE", "k40")], body)
    {
        ended.fine();
    }
}

/// The launch is accepted; who waits is told, and from then on everyone.
#[test]
fn a_fault_stays() {
    let body = || {
        start();
        let (wild, fill) = (kernel("wild"), kernel("fill"));
        let out = alloc(64).unwrap();
        assert_eq!(launch(wild, Shape::new(1, 1), &[out + 64]), 0);
        assert_eq!(launch(fill, Shape::new(1, 1), &[out, 1, 1]), 0);
        assert_eq!(cuCtxSynchronize(), 700);
        assert_eq!(cuCtxSynchronize(), 700);
        assert_eq!(alloc(4), Err(700));
        assert_eq!(launch(fill, Shape::new(1, 1), &[out, 1, 1]), 700);
        assert_eq!(cuMemFree_v2(out), 700);
    };
    if let Some(ended) = alone("modules::a_fault_stays", &[], body) {
        let ended = ended.fine();
        assert!(ended.stderr.contains("vgpu: kernel wild, PTX line"), "{}", ended.stderr);
        let faults = ended.report["faults"].as_array().unwrap();
        assert!(faults.len() == 1 && faults[0].as_str().unwrap().contains("after the end of"), "{faults:?}");
        assert!(ended.report["launches"].get("fill").is_none(), "what was queued behind it is not done");
        // Of what is left, nothing but the modules' variables: what is given back is no leak.
        assert!(ended.report["live"].as_array().unwrap().iter().all(|l| l[1] == 4), "{}", ended.stderr);
    }
}

#[test]
fn calls_fail_on_request() {
    let body = || {
        start();
        let fill = kernel("fill");
        assert!(alloc(4).is_ok());
        assert_eq!(alloc(4), Err(2));
        let out = alloc(4).unwrap();
        assert_eq!(launch(fill, Shape::new(1, 1), &[out, 1, 1]), 719);
        assert_eq!(launch(fill, Shape::new(1, 1), &[out, 1, 1]), 0);
        assert_eq!(cuCtxSynchronize(), 912, "a code of the caller's choice");
    };
    let settings = [("VGPU_FAIL", "cuMemAlloc_v2:2,cuLaunchKernel:1,cuCtxSynchronize:1=912")];
    if let Some(ended) = alone("modules::calls_fail_on_request", &settings, body) {
        ended.fine();
    }
}
