//! Named ranges in a profile: generate > row > known, hoist, pixels.
//!
//! The idea: a range is a value that ends where it is dropped. Without the feature `nvtx` it is nothing.

use std::ffi::CStr;

#[cfg(feature = "nvtx")]
unsafe extern "C" {
    fn fpc_nvtx_push(name: *const std::ffi::c_char);
    fn fpc_nvtx_pop();
}

/// A range that ends when it is dropped, inside those that have begun and not ended.
pub struct Range(());

impl Range {
    /// Begins a range.
    pub fn new(name: &'static CStr) -> Range {
        #[cfg(feature = "nvtx")]
        // SAFETY: the name ends with a zero.
        unsafe {
            fpc_nvtx_push(name.as_ptr())
        };
        #[cfg(not(feature = "nvtx"))]
        let _ = name;
        Range(())
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        #[cfg(feature = "nvtx")]
        // SAFETY: `new` pushed, and ranges end in the reverse order.
        unsafe {
            fpc_nvtx_pop()
        };
    }
}
