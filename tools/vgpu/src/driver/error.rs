//! The driver's error codes: number, name and text of each that this driver returns.
//!
//! The idea: one table, which `cuGetErrorName` and `cuGetErrorString` read.

use std::ffi::CStr;

use crate::{FaultKind, memory::MemoryError};

/// An error code; see `CUresult` in `cuda.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

macro_rules! table {
    ($($name:ident, $number:literal, $cuda:literal, $text:literal;)*) => {
        impl Code {
            $(#[allow(missing_docs)] pub const $name: Code = Code($number);)*
        }

        const TABLE: &[(u32, &CStr, &CStr)] = &[$(($number, $cuda, $text),)*];
    };
}

table! {
    SUCCESS, 0, c"CUDA_SUCCESS", c"no error";
    INVALID_VALUE, 1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument";
    OUT_OF_MEMORY, 2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory";
    NOT_INITIALIZED, 3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error";
    INVALID_DEVICE, 101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal";
    INVALID_CONTEXT, 201, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context";
    NO_BINARY_FOR_GPU, 209, c"CUDA_ERROR_NO_BINARY_FOR_GPU", c"no kernel image is available for execution on the device";
    INVALID_PTX, 218, c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed";
    UNSUPPORTED_PTX_VERSION, 222, c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", c"the provided PTX was compiled with an unsupported toolchain.";
    INVALID_HANDLE, 400, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle";
    NOT_FOUND, 500, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found";
    NOT_READY, 600, c"CUDA_ERROR_NOT_READY", c"device not ready";
    ILLEGAL_ADDRESS, 700, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered";
    LAUNCH_OUT_OF_RESOURCES, 701, c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", c"too many resources requested for launch";
    LAUNCH_TIMEOUT, 702, c"CUDA_ERROR_LAUNCH_TIMEOUT", c"the launch timed out and was terminated";
    MISALIGNED_ADDRESS, 716, c"CUDA_ERROR_MISALIGNED_ADDRESS", c"misaligned address";
    LAUNCH_FAILED, 719, c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure";
    COOPERATIVE_LAUNCH_TOO_LARGE, 720, c"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", c"too many blocks in cooperative launch";
    NOT_SUPPORTED, 801, c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported";
    STREAM_CAPTURE_UNSUPPORTED, 900, c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", c"operation not permitted when stream is capturing";
    STREAM_CAPTURE_INVALIDATED, 901, c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", c"operation failed due to a previous error during capture";
    INVALID_CLUSTER_SIZE, 912, c"CUDA_ERROR_INVALID_CLUSTER_SIZE", c"a cluster of an unsupported size";
    STREAM_CAPTURE_ISOLATION, 905, c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION", c"dependency created on uncaptured work in another stream";
    CAPTURED_EVENT, 907, c"CUDA_ERROR_CAPTURED_EVENT", c"operation not permitted on an event last recorded in a capturing stream";
    UNKNOWN, 999, c"CUDA_ERROR_UNKNOWN", c"unknown error";
}

impl Code {
    /// Name and text, if there is such a code.
    pub fn describe(self) -> Option<(&'static CStr, &'static CStr)> {
        let entry = TABLE.iter().find(|(number, ..)| *number == self.0);
        entry.map(|(_, name, text)| (*name, *text))
    }
}

impl From<&MemoryError> for Code {
    fn from(error: &MemoryError) -> Code {
        match error {
            MemoryError::OutOfMemory { .. } => Code::OUT_OF_MEMORY,
            _ => Code::INVALID_VALUE,
        }
    }
}

impl From<FaultKind> for Code {
    fn from(kind: FaultKind) -> Code {
        match kind {
            FaultKind::OutOfBounds | FaultKind::UseAfterFree | FaultKind::Unwritten | FaultKind::ReadOnly => {
                Code::ILLEGAL_ADDRESS
            }
            FaultKind::Misaligned => Code::MISALIGNED_ADDRESS,
            FaultKind::Budget | FaultKind::Deadlock => Code::LAUNCH_TIMEOUT,
            FaultKind::Launch => Code::INVALID_VALUE,
            _ => Code::LAUNCH_FAILED,
        }
    }
}
