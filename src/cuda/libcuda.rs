//! The driver's library, loaded when it is first needed: one binary starts on machines with and without it.
//!
//! The idea: `cust` names the driver's functions and leaves them to the linker. They are defined here, each as a
//! call of the function of that name in `libcuda.so.1`, so that nothing is linked against the library itself. Where
//! it or one of its functions is missing, a call answers with an error, as the driver would.
//!
//! Every result comes through here, so it is checked here as well: newer drivers return codes that `cust`'s enum
//! lacks, and an enum that holds one is undefined behaviour. They become [`UNKNOWN`]; [`describe`] still knows
//! what the driver said.
//!
//! A function that is called and not listed here is an error of the linker.

use std::cell::Cell;
use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::transmute;
use std::ptr;
use std::sync::OnceLock;

use cust::sys::{
    CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphExec, CUgraphNode, CUmodule,
    CUstream, cudaError_enum,
};
use libloading::Library;

/// The library, where the loader looks.
const NAME: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// `CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND`, for a function that this driver lacks.
const NO_FUNCTION: u32 = 302;
/// `CUDA_ERROR_SHARED_OBJECT_INIT_FAILED`, where there is no driver.
const NO_LIBRARY: u32 = 303;
/// `CUDA_ERROR_UNKNOWN`.
const UNKNOWN: u32 = 999;

thread_local! {
    /// What became [`UNKNOWN`] in the thread's last call that failed so.
    static RAW: Cell<u32> = const { Cell::new(UNKNOWN) };
}

/// `CUlaunchConfig`, which `cust` lacks.
#[repr(C)]
pub struct LaunchConfig {
    pub grid: [c_uint; 3],
    pub block: [c_uint; 3],
    pub shared: c_uint,
    pub stream: CUstream,
    pub attributes: *mut LaunchAttribute,
    pub count: c_uint,
}

/// `CUlaunchAttribute`, of those whose values are words.
#[repr(C, align(8))]
pub struct LaunchAttribute {
    pub id: c_uint,
    pub padding: c_uint,
    pub value: [c_uint; 16],
}

const _: () = assert!(size_of::<LaunchConfig>() == 56 && size_of::<LaunchAttribute>() == 72);

impl LaunchAttribute {
    /// Clusters of so many blocks.
    pub fn cluster(blocks: u32) -> LaunchAttribute {
        // CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION.
        LaunchAttribute::of(4, [blocks, 1, 1])
    }

    /// A launch that may begin before the one before it in its stream has ended.
    pub fn follows() -> LaunchAttribute {
        // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION.
        LaunchAttribute::of(6, [1, 0, 0])
    }

    fn of(id: c_uint, [x, y, z]: [c_uint; 3]) -> LaunchAttribute {
        let mut value = [0; 16];
        value[..3].copy_from_slice(&[x, y, z]);
        LaunchAttribute { id, padding: 0, value }
    }
}

/// The library, or what the loader said.
fn library() -> Result<&'static Library, &'static str> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    // The loader's own words are behind those of the crate.
    let said = |e: libloading::Error| e.source().map_or_else(|| e.to_string(), |source| source.to_string());
    // SAFETY: what the driver runs when it is loaded asks nothing of us.
    let library = LIBRARY.get_or_init(|| unsafe { Library::new(NAME) }.map_err(said));
    library.as_ref().map_err(String::as_str)
}

/// Looks for the driver.
///
/// # Errors
/// What the loader said, if there is none.
pub fn load() -> Result<(), &'static str> {
    library().map(drop)
}

/// The address of a function of the library.
pub fn find(name: &str) -> Option<*const c_void> {
    // SAFETY: an address is only looked up; who calls what stands there knows its type.
    let symbol = unsafe { library().ok()?.get::<*const c_void>(name) };
    symbol.ok().map(|address| *address).filter(|address| !address.is_null())
}

/// The driver's text for a result; for [`UNKNOWN`] that of what the thread's last call returned.
pub fn describe(code: u32) -> String {
    let code = if code == UNKNOWN { RAW.get() } else { code };
    let mut text: *const c_char = ptr::null();
    // SAFETY: the function has this type, takes any number, and its texts last as long as the process.
    let text = unsafe {
        if let Some(function) = find("cuGetErrorString") {
            let function: unsafe extern "C" fn(u32, *mut *const c_char) -> u32 = transmute(function);
            function(code, &mut text);
        }
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    match (text, code) {
        (Some(text), _) => text,
        (None, NO_LIBRARY) => format!("there is no {NAME}"),
        (None, NO_FUNCTION) => "the driver is too old: it lacks a function".into(),
        (None, code) => format!("error {code}"),
    }
}

/// What the driver returned, as `cust` may see it.
fn checked(code: u32) -> u32 {
    if code != UNKNOWN && KNOWN.contains(&code) {
        return code;
    }
    RAW.set(code);
    UNKNOWN
}

macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
                static FOUND: OnceLock<Option<usize>> = OnceLock::new();
                let found = FOUND.get_or_init(|| find(stringify!($name)).map(|address| address as usize));
                let Some(address) = *found else {
                    return if load().is_ok() { NO_FUNCTION } else { NO_LIBRARY };
                };
                // SAFETY: the driver's function of that name has this type, and the caller keeps its promises.
                unsafe {
                    let function: unsafe extern "C" fn($($type),*) -> u32 = transmute(address as *const c_void);
                    checked(function($($argument),*))
                }
            }
        )*
    };
}

// As in `cuda.h`, with the enums among the arguments as the numbers that they are.
functions! {
    cuInit(flags: c_uint);
    cuDriverGetVersion(version: *mut c_int);
    cuGetErrorString(code: u32, text: *mut *const c_char);
    cuProfilerStart();
    cuProfilerStop();

    cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: CUdevice);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGetName(name: *mut c_char, length: c_int, device: CUdevice);
    cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice);
    cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice);
    cuDevicePrimaryCtxRelease_v2(device: CUdevice);
    cuCtxSetCurrent(context: CUcontext);

    cuModuleLoadDataEx(
        module: *mut CUmodule, image: *const c_void, count: c_uint, options: *mut c_uint, values: *mut *mut c_void
    );
    cuModuleUnload(module: CUmodule);
    cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char);

    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize);
    cuMemFree_v2(address: CUdeviceptr);
    cuMemcpyHtoD_v2(to: CUdeviceptr, from: *const c_void, bytes: usize);
    cuMemcpyDtoH_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize);
    cuMemsetD8_v2(to: CUdeviceptr, value: u8, count: usize);

    cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int);
    cuStreamDestroy_v2(stream: CUstream);
    cuStreamSynchronize(stream: CUstream);
    cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint);
    cuStreamBeginCapture_v2(stream: CUstream, mode: c_uint);
    cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph);
    cuEventCreate(event: *mut CUevent, flags: c_uint);
    cuEventDestroy_v2(event: CUevent);
    cuEventRecord(event: CUevent, stream: CUstream);
    cuEventSynchronize(event: CUevent);
    cuEventElapsedTime(milliseconds: *mut f32, first: CUevent, last: CUevent);
    cuGraphInstantiate_v2(
        exec: *mut CUgraphExec, graph: CUgraph, node: *mut CUgraphNode, log: *mut c_char, bytes: usize
    );
    cuGraphDestroy(graph: CUgraph);
    cuGraphLaunch(exec: CUgraphExec, stream: CUstream);
    cuGraphExecDestroy(exec: CUgraphExec);

    cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int, function: CUfunction, threads: c_int, shared: usize
    );
    cuOccupancyMaxActiveClusters(clusters: *mut c_int, function: CUfunction, config: *const LaunchConfig);
    cuFuncSetAttribute(function: CUfunction, attribute: c_uint, value: c_int);
    cuLaunchKernelEx(
        config: *const LaunchConfig, function: CUfunction, arguments: *mut *mut c_void, extra: *mut *mut c_void
    );
    cuLaunchKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared: c_uint, stream: CUstream, arguments: *mut *mut c_void, extra: *mut *mut c_void
    );
    cuLaunchCooperativeKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared: c_uint, stream: CUstream, arguments: *mut *mut c_void
    );
}

macro_rules! results {
    ($($name:ident)*) => {
        /// The numbers that `cust`'s enum of results has.
        const KNOWN: &[u32] = &[$(cudaError_enum::$name as u32),*];

        // Does not compile if one is missing.
        const _: fn(cudaError_enum) = |result| match result { $(cudaError_enum::$name => (),)* };
    };
}

results! {
    CUDA_SUCCESS CUDA_ERROR_INVALID_VALUE CUDA_ERROR_OUT_OF_MEMORY CUDA_ERROR_NOT_INITIALIZED
    CUDA_ERROR_DEINITIALIZED CUDA_ERROR_PROFILER_DISABLED CUDA_ERROR_PROFILER_NOT_INITIALIZED
    CUDA_ERROR_PROFILER_ALREADY_STARTED CUDA_ERROR_PROFILER_ALREADY_STOPPED CUDA_ERROR_STUB_LIBRARY
    CUDA_ERROR_NO_DEVICE CUDA_ERROR_INVALID_DEVICE CUDA_ERROR_DEVICE_NOT_LICENSED CUDA_ERROR_INVALID_IMAGE
    CUDA_ERROR_INVALID_CONTEXT CUDA_ERROR_CONTEXT_ALREADY_CURRENT CUDA_ERROR_MAP_FAILED CUDA_ERROR_UNMAP_FAILED
    CUDA_ERROR_ARRAY_IS_MAPPED CUDA_ERROR_ALREADY_MAPPED CUDA_ERROR_NO_BINARY_FOR_GPU CUDA_ERROR_ALREADY_ACQUIRED
    CUDA_ERROR_NOT_MAPPED CUDA_ERROR_NOT_MAPPED_AS_ARRAY CUDA_ERROR_NOT_MAPPED_AS_POINTER
    CUDA_ERROR_ECC_UNCORRECTABLE CUDA_ERROR_UNSUPPORTED_LIMIT CUDA_ERROR_CONTEXT_ALREADY_IN_USE
    CUDA_ERROR_PEER_ACCESS_UNSUPPORTED CUDA_ERROR_INVALID_PTX CUDA_ERROR_INVALID_GRAPHICS_CONTEXT
    CUDA_ERROR_NVLINK_UNCORRECTABLE CUDA_ERROR_JIT_COMPILER_NOT_FOUND CUDA_ERROR_UNSUPPORTED_PTX_VERSION
    CUDA_ERROR_JIT_COMPILATION_DISABLED CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY CUDA_ERROR_INVALID_SOURCE
    CUDA_ERROR_FILE_NOT_FOUND CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND CUDA_ERROR_SHARED_OBJECT_INIT_FAILED
    CUDA_ERROR_OPERATING_SYSTEM CUDA_ERROR_INVALID_HANDLE CUDA_ERROR_ILLEGAL_STATE CUDA_ERROR_NOT_FOUND
    CUDA_ERROR_NOT_READY CUDA_ERROR_ILLEGAL_ADDRESS CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES CUDA_ERROR_LAUNCH_TIMEOUT
    CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED
    CUDA_ERROR_PEER_ACCESS_NOT_ENABLED CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE CUDA_ERROR_CONTEXT_IS_DESTROYED
    CUDA_ERROR_ASSERT CUDA_ERROR_TOO_MANY_PEERS CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED
    CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED CUDA_ERROR_HARDWARE_STACK_ERROR CUDA_ERROR_ILLEGAL_INSTRUCTION
    CUDA_ERROR_MISALIGNED_ADDRESS CUDA_ERROR_INVALID_ADDRESS_SPACE CUDA_ERROR_INVALID_PC CUDA_ERROR_LAUNCH_FAILED
    CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE CUDA_ERROR_NOT_PERMITTED CUDA_ERROR_NOT_SUPPORTED
    CUDA_ERROR_SYSTEM_NOT_READY CUDA_ERROR_SYSTEM_DRIVER_MISMATCH CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
    CUDA_ERROR_MPS_CONNECTION_FAILED CUDA_ERROR_MPS_RPC_FAILURE CUDA_ERROR_MPS_SERVER_NOT_READY
    CUDA_ERROR_MPS_MAX_CLIENTS_REACHED CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED CUDA_ERROR_STREAM_CAPTURE_INVALIDATED CUDA_ERROR_STREAM_CAPTURE_MERGE
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED CUDA_ERROR_STREAM_CAPTURE_UNJOINED CUDA_ERROR_STREAM_CAPTURE_ISOLATION
    CUDA_ERROR_STREAM_CAPTURE_IMPLICIT CUDA_ERROR_CAPTURED_EVENT CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
    CUDA_ERROR_TIMEOUT CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE CUDA_ERROR_EXTERNAL_DEVICE CUDA_ERROR_UNKNOWN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_enum_lacks_is_an_unknown_error_that_is_described() {
        for code in [0, 2, 222, 719, 911] {
            assert_eq!(checked(code), code);
        }
        // CUDA_ERROR_UNSUPPORTED_DEVTYPE_SYNC and others that came after the enum; one that never was.
        for code in [36, 46, 225, 402, 721, 916, 123_456] {
            assert_eq!(checked(code), UNKNOWN);
            assert_eq!(RAW.get(), code);
            let text = describe(UNKNOWN);
            assert!(!text.is_empty(), "{code}");
        }
        assert_eq!(checked(UNKNOWN), UNKNOWN);
        assert_eq!(RAW.get(), UNKNOWN);
    }

    #[test]
    fn a_function_that_the_driver_lacks_is_not_found() {
        assert!(find("cuNoSuchFunction").is_none());
        assert!(describe(NO_FUNCTION).len() > 3 && describe(NO_LIBRARY).len() > 3);
    }
}
