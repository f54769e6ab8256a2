//! Memory of the device, copies and fills.
//!
//! The idea: a copy from or to the host without a stream is done at once, after all that keeps to one order with
//! the default stream; anything else is queued. Bytes that come from the host are copied when the call is made, as
//! from pageable memory; bytes that go to the host arrive when somebody has waited.

use std::alloc::{Layout, alloc_zeroed, dealloc};

use super::error::Code;
use super::state::{DEFAULT_STREAM, Handle, State, Work, call, give};
use crate::memory::MemoryError;

fn failed(state: &mut State, error: &MemoryError) -> Code {
    if !matches!(error, MemoryError::OutOfMemory { .. }) {
        eprintln!("vgpu: {error}");
        state.usage.faults.push(error.to_string());
    }
    Code::from(error)
}

/// Allocates.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> u32 {
    call("cuMemAlloc_v2", |state| {
        if bytes == 0 {
            return Err(Code::INVALID_VALUE);
        }
        let what = format!("allocation {}", state.usage.allocations.calls);
        let found = state.memory.alloc(bytes as u64, &what).map_err(|e| failed(state, &e))?;
        state.usage.allocations.add(bytes as u64);
        let taken = state.memory.total_bytes() - state.memory.free_bytes();
        state.usage.peak_bytes = state.usage.peak_bytes.max(taken);
        // SAFETY: as in `cuda.h`.
        unsafe { give(address, found) }
    })
}

/// Frees, after all work that may use it.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> u32 {
    let free = |state: &mut State| {
        if address == 0 {
            return Ok(());
        }
        state.memory.free(address).map_err(|e| failed(state, &e))
    };
    // What a program gives back after a fault is not held against it as a leak.
    if let Some(state) = super::state::lock().as_mut()
        && let Some(code) = state.sticky
    {
        let _ = free(state);
        return code.0;
    }
    call("cuMemFree_v2", |state| {
        state.wait_for_all()?;
        free(state)
    })
}

/// Free and total bytes.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32 {
    call("cuMemGetInfo_v2", |state| {
        let (f, t) = (state.memory.free_bytes() as usize, state.memory.total_bytes() as usize);
        // SAFETY: as in `cuda.h`.
        unsafe { give(free, f).and_then(|()| give(total, t)) }
    })
}

fn host_layout(bytes: usize) -> Result<Layout, Code> {
    Layout::from_size_align(bytes.max(1), 4096).map_err(|_| Code::OUT_OF_MEMORY)
}

/// Allocates page-locked memory on the host: here memory like any other.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(address: *mut Handle, bytes: usize, _flags: u32) -> u32 {
    call("cuMemHostAlloc", |state| {
        let layout = host_layout(bytes)?;
        // SAFETY: the layout has at least one byte.
        let found = unsafe { alloc_zeroed(layout) } as Handle;
        if found == 0 {
            return Err(Code::OUT_OF_MEMORY);
        }
        state.host.insert(found, bytes);
        // SAFETY: as in `cuda.h`.
        unsafe { give(address, found) }
    })
}

/// As `cuMemHostAlloc`.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(address: *mut Handle, bytes: usize) -> u32 {
    // SAFETY: the same promise.
    unsafe { cuMemHostAlloc(address, bytes, 0) }
}

/// Frees page-locked memory.
///
/// # Safety
/// The program does not use it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(address: Handle) -> u32 {
    call("cuMemFreeHost", |state| {
        let bytes = state.host.remove(&address).ok_or(Code::INVALID_VALUE)?;
        // SAFETY: it was allocated with this layout and is removed from the table.
        unsafe { dealloc(address as *mut u8, host_layout(bytes)?) };
        Ok(())
    })
}

/// Refuses what is not all inside of one allocation, at the call: what is queued is done later.
fn inside(state: &mut State, address: u64, bytes: u64) -> Result<(), Code> {
    state.memory.check(address, bytes).map_err(|e| failed(state, &e))
}

/// Does work on the default stream now.
fn now(state: &mut State, work: Work) -> Result<(), Code> {
    state.queue(DEFAULT_STREAM, work)?;
    state.synchronize_default()
}

/// # Safety
/// `from` points to `bytes` bytes.
unsafe fn upload(to: u64, from: *const u8, bytes: usize) -> Result<Work, Code> {
    if from.is_null() && bytes > 0 {
        return Err(Code::INVALID_VALUE);
    }
    let copied = match bytes {
        0 => Vec::new(),
        // SAFETY: by the caller's promise.
        _ => unsafe { std::slice::from_raw_parts(from, bytes) }.to_vec(),
    };
    Ok(Work::Upload { to, bytes: copied })
}

fn download(to: *mut u8, from: u64, bytes: usize) -> Result<Work, Code> {
    match to.is_null() {
        true => Err(Code::INVALID_VALUE),
        false => Ok(Work::Download { from, to: to as Handle, bytes }),
    }
}

/// Host to device, done on return.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const u8, bytes: usize) -> u32 {
    // SAFETY: as in `cuda.h`.
    call("cuMemcpyHtoD_v2", |state| now(state, unsafe { upload(to, from, bytes) }?))
}

/// Host to device on a stream.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, stream: Handle) -> u32 {
    call("cuMemcpyHtoDAsync_v2", |state| {
        inside(state, to, bytes as u64)?;
        // SAFETY: as in `cuda.h`.
        state.queue(stream, unsafe { upload(to, from, bytes) }?).map(drop)
    })
}

/// Device to host, done on return.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, bytes: usize) -> u32 {
    call("cuMemcpyDtoH_v2", |state| now(state, download(to, from, bytes)?))
}

/// Device to host on a stream.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, stream: Handle) -> u32 {
    call("cuMemcpyDtoHAsync_v2", |state| {
        inside(state, from, bytes as u64)?;
        state.queue(stream, download(to, from, bytes)?).map(drop)
    })
}

/// Within the device, on the default stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> u32 {
    cuMemcpyDtoDAsync_v2(to, from, bytes, DEFAULT_STREAM)
}

/// Within the device, on a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) -> u32 {
    call("cuMemcpyDtoDAsync_v2", |state| {
        let bytes = bytes as u64;
        inside(state, from, bytes)?;
        inside(state, to, bytes)?;
        state.queue(stream, Work::Copy { to, from, bytes }).map(drop)
    })
}

fn fill(function: &str, to: u64, pattern: &[u8], count: usize, stream: Handle) -> u32 {
    call(function, |state| {
        let bytes = count.checked_mul(pattern.len()).ok_or(Code::INVALID_VALUE)? as u64;
        inside(state, to, bytes)?;
        state.queue(stream, Work::Fill { to, bytes, pattern: pattern.to_vec() }).map(drop)
    })
}

/// Fills with a byte.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(to: u64, value: u8, count: usize) -> u32 {
    fill("cuMemsetD8_v2", to, &[value], count, DEFAULT_STREAM)
}

/// Fills with two bytes.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD16_v2(to: u64, value: u16, count: usize) -> u32 {
    fill("cuMemsetD16_v2", to, &value.to_le_bytes(), count, DEFAULT_STREAM)
}

/// Fills with four bytes.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32_v2(to: u64, value: u32, count: usize) -> u32 {
    fill("cuMemsetD32_v2", to, &value.to_le_bytes(), count, DEFAULT_STREAM)
}

/// Fills with a byte, on a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) -> u32 {
    fill("cuMemsetD8Async", to, &[value], count, stream)
}

/// Fills with two bytes, on a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: Handle) -> u32 {
    fill("cuMemsetD16Async", to, &value.to_le_bytes(), count, stream)
}

/// Fills with four bytes, on a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: Handle) -> u32 {
    fill("cuMemsetD32Async", to, &value.to_le_bytes(), count, stream)
}
