//! Modules and functions.

use std::ffi::{CStr, c_char, c_void};

use super::error::Code;
use super::state::{Function, Handle, State, call, give};
use crate::exec;
use crate::program::{LoadError, Module};

/// `CU_JIT_ERROR_LOG_BUFFER` and its size, among the options of `cuModuleLoadDataEx`.
const ERROR_LOG: [u32; 2] = [5, 6];

/// What PTX text asks of driver and device: version and target, from its directives.
fn demands(text: &str) -> Option<((u32, u32), u32)> {
    let directive = |name: &str| text.lines().find_map(|l| l.trim().strip_prefix(name)).map(str::trim);
    let (major, minor) = directive(".version")?.split_once('.')?;
    let target: String =
        directive(".target")?.strip_prefix("sm_")?.chars().take_while(char::is_ascii_digit).collect();
    Some(((major.parse().ok()?, minor.trim().parse().ok()?), target.parse().ok()?))
}

fn load(state: &mut State, text: &str) -> Result<Handle, (Code, String)> {
    let demands =
        demands(text).ok_or((Code::INVALID_PTX, "no PTX text: .version and .target are missing".into()))?;
    let ((major, minor), target) = demands;
    let (known, capability) = (state.device.ptx_version(), state.device.capability);
    if (major, minor) > known {
        let log =
            format!("PTX {major}.{minor} is newer than {}.{}, which this driver knows", known.0, known.1);
        return Err((Code::UNSUPPORTED_PTX_VERSION, log));
    }
    if target > capability.0 * 10 + capability.1 {
        let log = format!("sm_{target} is newer than the device, which is {}.{}", capability.0, capability.1);
        return Err((Code::NO_BINARY_FOR_GPU, log));
    }
    let module = Module::load(text, &mut state.memory).map_err(|error| {
        let code = match error {
            LoadError::Memory(_) => Code::OUT_OF_MEMORY,
            _ => Code::INVALID_PTX,
        };
        (code, error.to_string())
    })?;
    let handle = state.handle();
    state.modules.insert(handle, module);
    Ok(handle)
}

/// Loads PTX text.
///
/// # Safety
/// As in `cuda.h`; the image is text that ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut Handle,
    image: *const c_char,
    option_count: u32,
    options: *const u32,
    values: *const *mut c_void,
) -> u32 {
    call("cuModuleLoadDataEx", |state| {
        if image.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: by the caller's promise.
        let text = unsafe { CStr::from_ptr(image) }.to_str().map_err(|_| Code::INVALID_PTX)?;
        match load(state, text) {
            // SAFETY: as in `cuda.h`.
            Ok(handle) => unsafe { give(module, handle) },
            Err((code, log)) => {
                eprintln!("vgpu: {log}");
                let option = |wanted: u32| {
                    // SAFETY: the program promised that many options and values.
                    let found = (0..option_count as usize).find(|&i| unsafe { *options.add(i) } == wanted);
                    // SAFETY: as above.
                    found.map(|i| unsafe { *values.add(i) })
                };
                if let (Some(buffer), Some(size)) = (option(ERROR_LOG[0]), option(ERROR_LOG[1])) {
                    // The size is the value itself, not a pointer to it.
                    let length = log.len().min((size as usize).saturating_sub(1));
                    // SAFETY: the program promised a buffer of that size.
                    unsafe {
                        buffer.cast::<u8>().copy_from_nonoverlapping(log.as_ptr(), length);
                        buffer.cast::<u8>().add(length).write(0);
                    }
                }
                Err(code)
            }
        }
    })
}

/// Loads PTX text.
///
/// # Safety
/// As for `cuModuleLoadDataEx`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const c_char) -> u32 {
    // SAFETY: the same promise; there are no options.
    unsafe { cuModuleLoadDataEx(module, image, 0, std::ptr::null(), std::ptr::null()) }
}

/// Unloads a module after all work.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: Handle) -> u32 {
    // A module can be given back after a fault, too.
    if let Some(state) = super::state::lock().as_mut()
        && let Some(code) = state.sticky
    {
        if let Some(found) = state.modules.remove(&module) {
            let _ = found.unload(&mut state.memory);
        }
        return code.0;
    }
    call("cuModuleUnload", |state| {
        state.drain_all()?;
        let found = state.modules.remove(&module).ok_or(Code::INVALID_HANDLE)?;
        state.functions.retain(|_, f| f.module != module);
        found.unload(&mut state.memory).map_err(|e| Code::from(&e))
    })
}

/// # Safety
/// `name` is null or a text that ends with a zero.
unsafe fn text<'a>(name: *const c_char) -> Result<&'a str, Code> {
    if name.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: by the caller's promise.
    unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| Code::INVALID_VALUE)
}

/// A module's kernel by name.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut Handle,
    module: Handle,
    name: *const c_char,
) -> u32 {
    call("cuModuleGetFunction", |state| {
        // SAFETY: as in `cuda.h`.
        let name = unsafe { text(name) }?;
        let found = state.modules.get(&module).ok_or(Code::INVALID_HANDLE)?;
        let kernel = found.kernels.iter().find(|k| k.name == name).ok_or(Code::NOT_FOUND)?.clone();
        let handle = state.handle();
        let most_shared = state.device.shared_per_block;
        state.functions.insert(handle, Function { module, kernel, most_shared, large_clusters: false });
        // SAFETY: as in `cuda.h`.
        unsafe { give(function, handle) }
    })
}

/// A module's variable by name; either result may be null.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: *mut u64,
    bytes: *mut usize,
    module: Handle,
    name: *const c_char,
) -> u32 {
    call("cuModuleGetGlobal_v2", |state| {
        // SAFETY: as in `cuda.h`.
        let name = unsafe { text(name) }?;
        let found = state.modules.get(&module).ok_or(Code::INVALID_HANDLE)?;
        let variable = found.globals.iter().find(|g| g.name == name).ok_or(Code::NOT_FOUND)?;
        // SAFETY: as in `cuda.h`.
        unsafe {
            if !address.is_null() {
                address.write(variable.address);
            }
            if !bytes.is_null() {
                bytes.write(variable.size as usize);
            }
        }
        Ok(())
    })
}

/// A number of a kernel's.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(value: *mut i32, attribute: u32, function: Handle) -> u32 {
    call("cuFuncGetAttribute", |state| {
        let Function { module, kernel, large_clusters, .. } =
            state.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        let version = state.modules[module].version;
        let number = match attribute {
            0 => kernel.max_threads.map_or(1024, |[x, y, z]| x * y * z),
            1 => kernel.static_shared,
            2 => 0,
            3 => kernel.local,
            4 => kernel.registers,
            5 => version.0 * 10 + version.1,
            6 => state.device.capability.0 * 10 + state.device.capability.1,
            11..=13 => kernel.cluster.map_or(0, |size| size[attribute as usize - 11]),
            14 => u32::from(*large_clusters),
            7..=15 => 0,
            _ => return Err(Code::INVALID_VALUE),
        };
        // SAFETY: as in `cuda.h`.
        unsafe { give(value, number as i32) }
    })
}

/// Blocks of a kernel that a multiprocessor can hold.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut i32,
    function: Handle,
    threads: i32,
    shared: usize,
) -> u32 {
    call("cuOccupancyMaxActiveBlocksPerMultiprocessor", |state| {
        let Function { kernel, most_shared, .. } =
            state.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        let found = match kernel.static_shared as usize + shared <= *most_shared as usize {
            true => exec::resident_blocks(kernel, &state.device.limits, threads as u32, shared as u32),
            false => 0,
        };
        // SAFETY: as in `cuda.h`.
        unsafe { give(blocks, found as i32) }
    })
}

/// Allows a kernel more dynamic shared memory than every device has, or larger clusters; other settings are of no
/// consequence here.
#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(function: Handle, attribute: u32, value: i32) -> u32 {
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
    const MOST_DYNAMIC_SHARED: u32 = 8;
    /// `CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`
    const LARGE_CLUSTERS: u32 = 14;
    call("cuFuncSetAttribute", |state| {
        let most = state.device.limits.shared_per_block;
        let found = state.functions.get_mut(&function).ok_or(Code::INVALID_HANDLE)?;
        match attribute {
            MOST_DYNAMIC_SHARED => {
                let asked =
                    u32::try_from(value).ok().and_then(|value| value.checked_add(found.kernel.static_shared));
                found.most_shared = asked.filter(|&bytes| bytes <= most).ok_or(Code::INVALID_VALUE)?;
            }
            LARGE_CLUSTERS => found.large_clusters = value != 0,
            // Clusters that the function wants however it is launched.
            10..=13 => return Err(Code::NOT_SUPPORTED),
            _ => {}
        }
        Ok(())
    })
}

/// As `cuFuncSetAttribute`.
#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetCacheConfig(function: Handle, _config: u32) -> u32 {
    cuFuncSetAttribute(function, 0, 0)
}
