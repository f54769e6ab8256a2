//! Launches.
//!
//! The idea: everything that a real driver refuses at the call is refused at the call; what only shows
//! when the kernel runs shows when somebody waits. Arguments are copied by the kernel's own list of
//! parameters, so a launch with too few of them reads whatever the program's array holds, as on a GPU.

use std::ffi::c_void;

use super::error::Code;
use super::state::{Function, Handle, State, Work, call};
use crate::exec;
use crate::program::Kernel;

/// # Safety
/// As in `cuda.h`: a pointer for each parameter.
unsafe fn arguments(kernel: &Kernel, pointers: *const *const c_void) -> Result<Vec<u8>, Code> {
    let mut bytes = vec![0; kernel.param_bytes() as usize];
    if !kernel.params.is_empty() && pointers.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    for (i, param) in kernel.params.iter().enumerate() {
        // SAFETY: by the caller's promise.
        unsafe {
            let from = *pointers.add(i);
            if from.is_null() {
                return Err(Code::INVALID_VALUE);
            }
            let to = bytes[param.offset as usize..].as_mut_ptr();
            to.copy_from_nonoverlapping(from.cast(), param.size as usize);
        }
    }
    Ok(bytes)
}

/// Refuses what the device cannot run.
fn check(
    state: &State,
    function: &Function,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    cooperative: bool,
) -> Result<(), Code> {
    let kernel = &*function.kernel;
    let limits = &state.device.limits;
    let threads = block.iter().map(|&n| u64::from(n)).product::<u64>();
    let some = grid.iter().chain(&block).all(|&n| n > 0);
    let fits =
        block[0] <= 1024 && block[1] <= 1024 && block[2] <= 64 && grid[1] <= 65_535 && grid[2] <= 65_535;
    if !some || !fits || threads > u64::from(limits.max_threads_per_block) || grid[0] > i32::MAX as u32 {
        return Err(Code::INVALID_VALUE);
    }
    let refused = |[x, y, z]: [u32; 3]| {
        let most = u64::from(x) * u64::from(y) * u64::from(z);
        threads > most || (kernel.exact_threads && block != [x, y, z])
    };
    if kernel.max_threads.is_some_and(refused) {
        return Err(Code::INVALID_VALUE);
    }
    if kernel.static_shared.saturating_add(shared) > function.most_shared {
        return Err(Code::INVALID_VALUE);
    }
    let resident = exec::resident_blocks(kernel, limits, threads as u32, shared);
    if resident == 0 {
        return Err(Code::LAUNCH_OUT_OF_RESOURCES);
    }
    if cooperative {
        if !state.device.cooperative {
            return Err(Code::NOT_SUPPORTED);
        }
        let blocks = grid.iter().map(|&n| u64::from(n)).product::<u64>();
        if blocks > u64::from(resident) * u64::from(limits.multiprocessors) {
            return Err(Code::COOPERATIVE_LAUNCH_TOO_LARGE);
        }
    }
    Ok(())
}

/// # Safety
/// As in `cuda.h`.
unsafe fn launch(
    state: &mut State,
    function: Handle,
    [grid, block]: [[u32; 3]; 2],
    shared: u32,
    stream: Handle,
    pointers: *const *const c_void,
    cooperative: bool,
) -> Result<(), Code> {
    let function = state.functions.get(&function).ok_or(Code::INVALID_HANDLE)?.clone();
    check(state, &function, grid, block, shared, cooperative)?;
    let kernel = function.kernel;
    // SAFETY: by the caller's promise.
    let params = unsafe { arguments(&kernel, pointers) }?;
    state.queue(stream, Work::Launch { kernel, grid, block, shared, params, cooperative }).map(drop)
}

/// Launches a kernel.
///
/// # Safety
/// As in `cuda.h`. Arguments as one packed buffer (`extra`) are not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    gx: u32,
    gy: u32,
    gz: u32,
    bx: u32,
    by: u32,
    bz: u32,
    shared: u32,
    stream: Handle,
    arguments: *const *const c_void,
    extra: *const c_void,
) -> u32 {
    call("cuLaunchKernel", |state| {
        if !extra.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        // SAFETY: the same promise.
        unsafe { launch(state, function, [[gx, gy, gz], [bx, by, bz]], shared, stream, arguments, false) }
    })
}

/// Launches a kernel whose blocks all run at once.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchCooperativeKernel(
    function: Handle,
    gx: u32,
    gy: u32,
    gz: u32,
    bx: u32,
    by: u32,
    bz: u32,
    shared: u32,
    stream: Handle,
    arguments: *const *const c_void,
) -> u32 {
    call("cuLaunchCooperativeKernel", |state| {
        // SAFETY: the same promise.
        unsafe { launch(state, function, [[gx, gy, gz], [bx, by, bz]], shared, stream, arguments, true) }
    })
}
