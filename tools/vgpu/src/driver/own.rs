//! What this driver has and a real one does not: a test finds these functions by name, or not at all.

use super::error::Code;
use super::state::{State, call, lock};
use crate::report::{self, Usage};

/// Yes.
#[unsafe(no_mangle)]
pub extern "C" fn vgpuIsVirtual() -> i32 {
    1
}

/// Does all work that is queued, then writes the report, as JSON that ends with a zero, into a buffer if it
/// has room, and returns the bytes that it needs.
///
/// # Safety
/// `buffer` is null or has `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vgpuReport(buffer: *mut u8, capacity: usize) -> usize {
    let mut guard = lock();
    let Some(state) = guard.as_mut() else { return 0 };
    // What goes wrong stands in the report.
    let _ = state.drain_all();
    let handles = state.handles();
    let State { device, usage, memory, counters, .. } = state;
    let text = report::json(&device.name, usage, memory, handles, counters);
    if !buffer.is_null() && text.len() < capacity {
        // SAFETY: by the caller's promise.
        unsafe {
            buffer.copy_from_nonoverlapping(text.as_ptr(), text.len());
            buffer.add(text.len()).write(0);
        }
    }
    text.len() + 1
}

/// Sets all counts to zero; `distinct` and `lines` say what is counted from now on.
#[unsafe(no_mangle)]
pub extern "C" fn vgpuReset(distinct: i32, lines: i32) -> u32 {
    call("vgpuReset", |state| {
        state.drain_all()?;
        state.usage = Usage::default();
        state.counters.kernels.clear();
        state.counters.distinct = distinct != 0;
        state.counters.by_line = lines != 0;
        Ok(())
    })
}

/// Runs blocks and warps in another order from now on: in order with seed 0.
#[unsafe(no_mangle)]
pub extern "C" fn vgpuSeed(seed: u64) -> u32 {
    call("vgpuSeed", |state| {
        state.drain_all().map_err(|_| Code::UNKNOWN)?;
        state.schedule.seed = (seed != 0).then_some(seed);
        Ok(())
    })
}
