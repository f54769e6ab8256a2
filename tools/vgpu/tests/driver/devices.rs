//! What a program can ask of the device, and how the environment changes it.

use std::ffi::CStr;

use vgpu::driver::context::*;
use vgpu::driver::unsupported::{cuCtxCreate_v2, cuDeviceGetPCIBusId};

use super::{alone, start};

fn attribute(number: u32) -> i32 {
    let mut value = -1;
    // SAFETY: the pointer is to a local variable.
    unsafe { assert_eq!(cuDeviceGetAttribute(&mut value, number, 0), 0) };
    value
}

fn name() -> String {
    let mut text = [0; 64];
    // SAFETY: there is room for 64 bytes.
    unsafe {
        assert_eq!(cuDeviceGetName(text.as_mut_ptr(), 64, 0), 0);
        CStr::from_ptr(text.as_ptr()).to_str().unwrap().to_string()
    }
}

#[test]
fn each_device_has_its_shape() {
    // Multiprocessors, capability, cooperative launches, clusters, KiB of shared memory of a block, GiB.
    let shapes = [
        ("k40", 15, (7, 5), [0, 0], 64, 12),
        ("v100", 80, (7, 5), [1, 0], 96, 16),
        ("a100", 108, (8, 0), [1, 0], 163, 80),
        ("h100", 132, (9, 0), [1, 1], 227, 80),
    ];
    for (device, multiprocessors, (major, minor), [cooperative, clusters], shared, gib) in shapes {
        let body = || {
            let Ok(wanted) = std::env::var("VGPU_DEVICE") else { return };
            if wanted != device {
                return;
            }
            start();
            assert!(name().to_lowercase().contains(device), "{}", name());
            assert_eq!([16, 75, 76, 95].map(attribute), [multiprocessors, major, minor, cooperative]);
            assert_eq!([97, 120].map(attribute), [shared << 10, clusters]);
            let (mut total, mut count) = (0, 0);
            // SAFETY: pointers to local variables.
            unsafe {
                assert_eq!(cuDeviceTotalMem_v2(&mut total, 0), 0);
                assert_eq!(cuDeviceGetCount(&mut count), 0);
            }
            assert_eq!((total, count), (gib << 30, 1));
        };
        if let Some(ended) = alone("devices::each_device_has_its_shape", &[("VGPU_DEVICE", device)], body) {
            ended.fine();
        }
    }
}

#[test]
fn settings_change_it() {
    let settings = [
        ("VGPU_DEVICE", "a100"),
        ("VGPU_MULTIPROCESSORS", "7"),
        ("VGPU_COOPERATIVE", "0"),
        ("VGPU_DRIVER_VERSION", "12040"),
        ("VGPU_MEMORY", "123456"),
    ];
    let body = || {
        start();
        assert_eq!([16, 95].map(attribute), [7, 0]);
        let (mut version, mut total) = (0, 0);
        // SAFETY: pointers to local variables.
        unsafe {
            assert_eq!(cuDriverGetVersion(&mut version), 0);
            assert_eq!(cuDeviceTotalMem_v2(&mut total, 0), 0);
        }
        assert_eq!((version, total), (12_040, 123_456));
    };
    if let Some(ended) = alone("devices::settings_change_it", &settings, body) {
        ended.fine();
    }
}

#[test]
fn a_wrong_setting_is_named() {
    for (variable, value) in [("VGPU_DEVICE", "tpu"), ("VGPU_MEMORY", "lots"), ("VGPU_FAIL", "cuMemAlloc_v2")]
    {
        let body = || assert_eq!(cuInit(0), 1);
        if let Some(ended) = alone("devices::a_wrong_setting_is_named", &[(variable, value)], body) {
            let said = ended.fine().stderr;
            assert!(said.contains(&format!("vgpu: {variable}: expected")) && said.contains(value), "{said}");
        }
    }
}

#[test]
fn contexts_are_counted() {
    let body = || {
        let mut device = -1;
        // SAFETY: pointers to local variables.
        unsafe {
            assert_eq!(cuDeviceGet(&mut device, 0), 3, "not initialised");
            assert_eq!(cuInit(1), 1);
            assert_eq!(cuInit(0), 0);
            assert_eq!(cuDeviceGet(&mut device, 1), 101, "there is one device");
            assert_eq!(cuDeviceGet(&mut device, 0), 0);
            let (mut context, mut again, mut current) = (0, 0, 1);
            assert_eq!(cuCtxGetCurrent(&mut current), 0);
            assert_eq!(current, 0);
            assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), 0);
            assert_eq!(cuDevicePrimaryCtxRetain(&mut again, 0), 0);
            assert_eq!(context, again);
            assert_eq!(cuCtxPushCurrent_v2(context), 0);
            assert_eq!(cuCtxGetCurrent(&mut current), 0);
            assert_eq!(current, context);
            assert_eq!(cuCtxPopCurrent_v2(&mut current), 0);
            assert_eq!(cuCtxSetCurrent(context + 1), 201, "no such context");
            assert_eq!(cuDevicePrimaryCtxRelease_v2(0), 0);
            assert_eq!(cuDevicePrimaryCtxRelease_v2(0), 0);
            assert_ne!(cuDevicePrimaryCtxRelease_v2(0), 0, "it was retained twice");
        }
    };
    if let Some(ended) = alone("devices::contexts_are_counted", &[], body) {
        ended.fine();
    }
}

#[test]
fn errors_have_names_and_texts() {
    for (code, name, text) in [
        (0, "CUDA_SUCCESS", "no error"),
        (720, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch"),
    ] {
        let (mut found, mut said) = (std::ptr::null(), std::ptr::null());
        // SAFETY: pointers to local variables; the texts are the library's own.
        unsafe {
            assert_eq!(cuGetErrorName(code, &mut found), 0);
            assert_eq!(cuGetErrorString(code, &mut said), 0);
            assert_eq!((CStr::from_ptr(found).to_str(), CStr::from_ptr(said).to_str()), (Ok(name), Ok(text)));
            assert_eq!(cuGetErrorName(123_456, &mut found), 1);
        }
    }
}

#[test]
fn what_is_missing_says_its_name_once() {
    let body = || {
        assert_eq!([cuCtxCreate_v2(), cuCtxCreate_v2(), cuDeviceGetPCIBusId()], [801; 3]);
    };
    if let Some(ended) = alone("devices::what_is_missing_says_its_name_once", &[], body) {
        let said = ended.fine().stderr;
        for function in ["cuCtxCreate_v2", "cuDeviceGetPCIBusId"] {
            assert_eq!(said.matches(&format!("vgpu: {function} is not supported")).count(), 1, "{said}");
        }
    }
}
