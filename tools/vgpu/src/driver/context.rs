//! Start, devices and contexts.
//!
//! The idea: there is one device, number 0. A context holds nothing here: whatever context is current, a
//! handle is valid in it.

use std::ffi::{CStr, c_char};

use super::error::Code;
use super::state::{CURRENT, Context, Handle, State, call, give, lock};

/// Writes the report where `VGPU_REPORT` says, and tells of memory that was not freed.
extern "C" fn at_exit() {
    let guard = lock();
    let Some(state) = guard.as_ref() else { return };
    for live in state.memory.live() {
        eprintln!("vgpu: {} bytes at {:#x} were never freed ({})", live.bytes, live.address, live.what);
    }
    if let Some(path) = std::env::var_os("VGPU_REPORT") {
        let handles = state.handles();
        let State { device, usage, memory, counters, .. } = state;
        let text = crate::report::json(&device.name, usage, memory, handles, counters);
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("vgpu: cannot write {}: {error}", path.display());
        }
    }
}

unsafe extern "C" {
    fn atexit(function: extern "C" fn()) -> i32;
}

/// Starts the driver.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: u32) -> u32 {
    if flags != 0 {
        return Code::INVALID_VALUE.0;
    }
    let mut guard = lock();
    if guard.is_none() {
        match State::from_environment() {
            Ok(state) => *guard = Some(state),
            Err(sentence) => {
                eprintln!("vgpu: {sentence}");
                return Code::INVALID_VALUE.0;
            }
        }
        // SAFETY: a function of the C library with a function that lives as long as this library.
        unsafe { atexit(at_exit) };
    }
    Code::SUCCESS.0
}

/// The CUDA version that the driver knows.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut i32) -> u32 {
    let known = match lock().as_ref() {
        Some(state) => Ok(state.device.driver_version),
        None => crate::device::Device::from_environment().map(|d| d.driver_version),
    };
    // SAFETY: as in `cuda.h`.
    let given = unsafe { give(version, known.unwrap_or(0) as i32) };
    given.map_or_else(|code| code.0, |()| 0)
}

/// The number of devices: 1.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut i32) -> u32 {
    // SAFETY: as in `cuda.h`.
    call("cuDeviceGetCount", |_| unsafe { give(count, 1) })
}

fn only(device: i32) -> Result<(), Code> {
    if device == 0 { Ok(()) } else { Err(Code::INVALID_DEVICE) }
}

/// The device of a number.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut i32, ordinal: i32) -> u32 {
    call("cuDeviceGet", |_| {
        only(ordinal)?;
        // SAFETY: as in `cuda.h`.
        unsafe { give(device, 0) }
    })
}

/// The device's name.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, capacity: i32, device: i32) -> u32 {
    call("cuDeviceGetName", |state| {
        only(device)?;
        if name.is_null() || capacity < 1 {
            return Err(Code::INVALID_VALUE);
        }
        let text = state.device.name.as_bytes();
        let length = text.len().min(capacity as usize - 1);
        // SAFETY: the program promised `capacity` bytes.
        unsafe {
            name.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), length);
            name.add(length).write(0);
        }
        Ok(())
    })
}

/// A number of the device's.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut i32, attribute: u32, device: i32) -> u32 {
    call("cuDeviceGetAttribute", |state| {
        only(device)?;
        let known = state.device.attribute(attribute).ok_or(Code::INVALID_VALUE)?;
        // SAFETY: as in `cuda.h`.
        unsafe { give(value, known) }
    })
}

/// Bytes of the device's memory.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: i32) -> u32 {
    call("cuDeviceTotalMem_v2", |state| {
        only(device)?;
        // SAFETY: as in `cuda.h`.
        unsafe { give(bytes, state.device.memory as usize) }
    })
}

/// The device's number among all devices in the world.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: i32) -> u32 {
    call("cuDeviceGetUuid", |_| {
        only(device)?;
        // SAFETY: as in `cuda.h`.
        unsafe { give(uuid, *b"vgpu-vgpu-vgpu-0") }
    })
}

/// Makes the primary context, or counts one more user of it.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: i32) -> u32 {
    call("cuDevicePrimaryCtxRetain", |state| {
        only(device)?;
        let handle = match state.primary {
            Some(handle) => handle,
            None => {
                let handle = state.handle();
                state.contexts.insert(handle, Context { primary: true, references: 0 });
                state.primary = Some(handle);
                handle
            }
        };
        state.contexts.get_mut(&handle).expect("it was made").references += 1;
        // SAFETY: as in `cuda.h`.
        unsafe { give(context, handle) }
    })
}

/// Gives the primary context back. A context that has failed can be given back too.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(device: i32) -> u32 {
    let mut guard = lock();
    let Some(state) = guard.as_mut() else { return Code::NOT_INITIALIZED.0 };
    let Some(handle) = state.primary.filter(|_| device == 0) else { return Code::INVALID_CONTEXT.0 };
    let context = state.contexts.get_mut(&handle).expect("the primary context is there");
    context.references -= 1;
    if context.references == 0 {
        state.contexts.remove(&handle);
        state.primary = None;
        // With its last user all that a fault left behind goes.
        if state.contexts.is_empty() {
            state.sticky = None;
        }
    }
    Code::SUCCESS.0
}

/// Flags are of no consequence here.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: i32, _flags: u32) -> u32 {
    call("cuDevicePrimaryCtxSetFlags_v2", |_| only(device))
}

/// Makes a context the calling thread's; null for none.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: Handle) -> u32 {
    call("cuCtxSetCurrent", |state| {
        if context != 0 && !state.contexts.contains_key(&context) {
            return Err(Code::INVALID_CONTEXT);
        }
        CURRENT.with_borrow_mut(|stack| {
            stack.pop();
            if context != 0 {
                stack.push(context);
            }
        });
        Ok(())
    })
}

/// The calling thread's context, null if none.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> u32 {
    // SAFETY: as in `cuda.h`.
    call("cuCtxGetCurrent", |_| unsafe {
        give(context, CURRENT.with_borrow(|s| s.last().copied().unwrap_or(0)))
    })
}

/// Makes a context the calling thread's until it is popped.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPushCurrent_v2(context: Handle) -> u32 {
    call("cuCtxPushCurrent_v2", |state| {
        if !state.contexts.contains_key(&context) {
            return Err(Code::INVALID_CONTEXT);
        }
        CURRENT.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    })
}

/// Undoes the last push.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: *mut Handle) -> u32 {
    call("cuCtxPopCurrent_v2", |_| {
        let popped = CURRENT.with_borrow_mut(|stack| stack.pop()).ok_or(Code::INVALID_CONTEXT)?;
        if !context.is_null() {
            // SAFETY: as in `cuda.h`.
            unsafe { context.write(popped) };
        }
        Ok(())
    })
}

/// The calling thread's device.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(device: *mut i32) -> u32 {
    // SAFETY: as in `cuda.h`.
    call("cuCtxGetDevice", |_| unsafe { give(device, 0) })
}

/// A context's version of the interface.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetApiVersion(_context: Handle, version: *mut u32) -> u32 {
    // SAFETY: as in `cuda.h`.
    call("cuCtxGetApiVersion", |_| unsafe { give(version, 3020) })
}

/// A limit: nothing is limited here, so the answer is a number that a real device could give.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetLimit(value: *mut usize, _limit: u32) -> u32 {
    // SAFETY: as in `cuda.h`.
    call("cuCtxGetLimit", |_| unsafe { give(value, 1 << 20) })
}

/// Waits for everything.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> u32 {
    call("cuCtxSynchronize", |state| {
        state.usage.waits += 1;
        state.wait_for_all()
    })
}

/// Priorities of streams: there is one.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) -> u32 {
    call("cuCtxGetStreamPriorityRange", |_| {
        // SAFETY: as in `cuda.h`.
        unsafe { give(least, 0).and_then(|()| give(greatest, 0)) }
    })
}

/// A code's text.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: u32, text: *mut *const c_char) -> u32 {
    // SAFETY: the same promise.
    unsafe { describe(code, text, |(_, text)| text) }
}

/// A code's name.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: u32, name: *mut *const c_char) -> u32 {
    // SAFETY: the same promise.
    unsafe { describe(code, name, |(name, _)| name) }
}

/// # Safety
/// `to` is null or may be written.
unsafe fn describe(
    code: u32,
    to: *mut *const c_char,
    which: impl Fn((&'static CStr, &'static CStr)) -> &'static CStr,
) -> u32 {
    let found = Code(code).describe();
    let pointer = found.map_or(std::ptr::null(), |entry| which(entry).as_ptr());
    // SAFETY: by the caller's promise.
    match unsafe { give(to, pointer) } {
        Ok(()) if found.is_some() => Code::SUCCESS.0,
        _ => Code::INVALID_VALUE.0,
    }
}
