//! What the virtual GPU tells of itself, found by name in the `libcuda.so.1` that is loaded; a real driver
//! has none of it.

use serde_json::Value;

use crate::cuda::libcuda::find;

/// Whether the tests run on the virtual GPU.
pub fn is_virtual() -> bool {
    find("vgpuIsVirtual").is_some()
}

/// Sets all counts to zero.
pub fn reset(distinct: bool) {
    begin(distinct, false);
}

/// The same; from now on requests are counted by line of PTX too.
pub fn reset_by_line() {
    begin(false, true);
}

fn begin(distinct: bool, by_line: bool) {
    let function = find("vgpuReset").expect("the virtual GPU");
    // SAFETY: the function has this type.
    let function: extern "C" fn(i32, i32) -> u32 = unsafe { std::mem::transmute(function) };
    assert_eq!(function(i32::from(distinct), i32::from(by_line)), 0);
}

/// Runs blocks and warps in another order from now on; in order with 0.
pub fn seed(seed: u64) {
    let function = find("vgpuSeed").expect("the virtual GPU");
    // SAFETY: the function has this type.
    let function: extern "C" fn(u64) -> u32 = unsafe { std::mem::transmute(function) };
    assert_eq!(function(seed), 0);
}

/// The report, when all work is done.
pub fn report() -> Value {
    let function = find("vgpuReport").expect("the virtual GPU");
    // SAFETY: the function has this type.
    let function: unsafe extern "C" fn(*mut u8, usize) -> usize = unsafe { std::mem::transmute(function) };
    let mut text = vec![0; 1 << 20];
    // SAFETY: the buffer has that many bytes.
    let length = unsafe { function(text.as_mut_ptr(), text.len()) };
    assert!(length <= text.len(), "the report has {length} bytes");
    serde_json::from_slice(&text[..length - 1]).unwrap()
}
