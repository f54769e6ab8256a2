//! The kernels on a device: PTX that the driver compiles, file by file, when a kernel of it is first needed.
//!
//! The idea: compiling is what a first start waits for (the driver keeps the result for the next), so only
//! what a batch may use is compiled, and several files at once, each on a thread.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::ffi::{CString, c_void};
use std::ptr;

use cust::context::{Context, CurrentContext};
use cust::sys::{self, CUjit_option as Jit};

use super::abi::{MOST_SHARED, MOST_SHARED_IN_CLUSTERS};
use super::kernels::{self, KERNELS, Kernel, NVCC};
use super::{Properties, libcuda};
use crate::error::{Error, Result};
use crate::precision::Precision;

/// Bytes for what the driver's compiler has to say.
const LOG: usize = 8192;

/// A kernel's handle and the bytes of each of its arguments.
type Function = (sys::CUfunction, Vec<usize>);

/// The kernels for weights of one precision, each there or not yet.
pub struct Modules {
    precision: Precision,
    functions: [OnceCell<Function>; KERNELS.len()],
    loaded: RefCell<Vec<Module>>,
}

/// A file of kernels that the driver has compiled.
struct Module {
    raw: sys::CUmodule,
    functions: Vec<(Kernel, Function)>,
}

// SAFETY: the handles are the driver's, which takes them from any thread.
unsafe impl Send for Module {}
// SAFETY: as for a module; what is not safe to share, the cells, is not shared.
unsafe impl Send for Modules {}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: it is ours, and its functions are not used any more. An error has been told where it came up.
        unsafe { sys::cuModuleUnload(self.raw) };
    }
}

impl Modules {
    /// None of them is there yet.
    pub fn of(precision: Precision) -> Modules {
        Modules { precision, functions: Default::default(), loaded: RefCell::default() }
    }

    /// Has the files of these kernels compiled, all at a time, if they are not yet.
    ///
    /// # Errors
    /// [`Error::Device`] with the driver's words, if it refuses one; [`Error::Threads`].
    pub fn load(&self, properties: &Properties, context: &Context, kernels: &[Kernel]) -> Result<()> {
        let missing = kernels.iter().filter(|&&kernel| self.functions[kernel as usize].get().is_none());
        let files: BTreeSet<&str> = missing.map(|kernel| kernel.place(self.precision).0).collect();
        let precision = self.precision;
        let compile = |file: &'static str| -> Result<Module> {
            let entered = CurrentContext::set_current(context);
            entered.map_err(|e| {
                Error::device(&properties.label, "enter the context", libcuda::describe(e as u32))
            })?;
            Module::compile(properties, file, precision)
        };
        let modules = std::thread::scope(|scope| -> Result<Vec<Module>> {
            let start = |&file: &&'static str| {
                let thread = std::thread::Builder::new().spawn_scoped(scope, move || compile(file));
                thread.map_err(|source| Error::Threads { threads: files.len(), source })
            };
            let threads: Vec<_> = files.iter().map(start).collect::<Result<_>>()?;
            threads.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
        })?;
        for mut module in modules {
            for (kernel, function) in module.functions.drain(..) {
                let twice = self.functions[kernel as usize].set(function);
                twice.expect("only what was not there was compiled");
            }
            self.loaded.borrow_mut().push(module);
        }
        Ok(())
    }

    /// A kernel's name.
    pub fn name(&self, kernel: Kernel) -> &'static str {
        kernel.place(self.precision).1
    }

    /// A kernel's handle and the bytes of its arguments; its file is compiled if need be.
    ///
    /// # Errors
    /// As for [`Modules::load`].
    pub fn function(
        &self,
        properties: &Properties,
        context: &Context,
        kernel: Kernel,
    ) -> Result<(sys::CUfunction, &[usize])> {
        let place = &self.functions[kernel as usize];
        if place.get().is_none() {
            self.load(properties, context, &[kernel])?;
        }
        let (function, arguments) = place.get().expect("it was loaded above");
        Ok((*function, arguments))
    }
}

impl Module {
    /// Has the driver compile a file.
    fn compile(properties: &Properties, file: &str, precision: Precision) -> Result<Module> {
        let ptx = kernels::ptx(file);
        let text = CString::new(ptx).expect("PTX is text");
        let mut log = vec![0u8; LOG];
        // With line information Nsight shows the source of what the driver compiled. A value that is not an address
        // stands for itself.
        let mut options = [
            Jit::CU_JIT_GENERATE_LINE_INFO,
            Jit::CU_JIT_ERROR_LOG_BUFFER,
            Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        let mut values: [*mut c_void; 3] =
            [ptr::without_provenance_mut(1), log.as_mut_ptr().cast(), ptr::without_provenance_mut(LOG)];
        let mut raw = ptr::null_mut();
        // SAFETY: text and log end where the driver is told; there is a value for each option.
        let code = unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            sys::cuModuleLoadDataEx(&mut raw, text.as_ptr().cast(), 3, options, values)
        };
        if code != sys::cudaError_enum::CUDA_SUCCESS {
            let log = log.split(|&byte| byte == 0).next().unwrap_or_default();
            let found = libcuda::describe(code as u32);
            return Err(refused(properties, ptx, &found, &String::from_utf8_lossy(log)));
        }
        let mut module = Module { raw, functions: Vec::new() };
        for (kernel, name) in kernels::of_file(file, precision) {
            let mut function = ptr::null_mut();
            let text = CString::new(name).expect("a kernel's name is text");
            // SAFETY: module and name are valid.
            let code = unsafe { sys::cuModuleGetFunction(&mut function, raw, text.as_ptr()) };
            if code != sys::cudaError_enum::CUDA_SUCCESS {
                return Err(Error::device(
                    &properties.label,
                    format!("find {name}"),
                    libcuda::describe(code as u32),
                ));
            }
            // What some kernels' blocks share is more than they may have unasked.
            let shared = match kernel {
                Kernel::Split => Some(MOST_SHARED),
                Kernel::Spread => Some(MOST_SHARED_IN_CLUSTERS),
                _ => None,
            };
            if let Some(shared) = shared {
                let code = allow(function, shared);
                if code != sys::cudaError_enum::CUDA_SUCCESS as u32 {
                    let action = format!("ask for shared memory for {name}");
                    return Err(Error::device(&properties.label, action, libcuda::describe(code)));
                }
            }
            module.functions.push((kernel, (function, kernels::arguments(ptx, name))));
        }
        Ok(module)
    }
}

/// Lets a kernel's blocks have so many bytes of dynamic shared memory, which may be more than any may have unasked. The driver's
/// code.
pub fn allow(function: sys::CUfunction, shared: usize) -> u32 {
    // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
    const SHARED: u32 = 8;
    // SAFETY: the function is one of ours.
    unsafe { libcuda::cuFuncSetAttribute(function, SHARED, shared as i32) }
}

/// The driver does not take the PTX: newer than the driver, or for a device younger than this one.
fn refused(properties: &Properties, ptx: &str, said: &str, log: &str) -> Error {
    let directive = |name: &str| {
        let line = ptx.lines().find_map(|l| l.trim().strip_prefix(name));
        line.map_or("unknown", |rest| rest.trim().trim_end_matches(';')).to_string()
    };
    let (driver, capability) = (properties.driver, properties.capability);
    // The compiler's words on one line.
    let words: Vec<&str> = log.split_whitespace().collect();
    let log = if words.is_empty() { String::new() } else { format!(" ({})", words.join(" ")) };
    let found = format!(
        "{said}{log}: the kernels are PTX {} for {}, from nvcc {NVCC}; the driver knows CUDA {}.{} and the device has \
         compute capability {}.{}. Update the driver, or build with CUDA_ARCH={}{}",
        directive(".version"),
        directive(".target"),
        driver.0,
        driver.1,
        capability.0,
        capability.1,
        capability.0,
        capability.1,
    );
    Error::device(&properties.label, "compile the kernels", found)
}
