//! The driver as a program sees it: functions by their C names, codes, what is printed, the report.
//!
//! The idea: the driver's state and its settings are a process's, so each test runs in a process of its own:
//! it starts this program again for itself alone, with its settings, and looks at what came of it.

mod clusters;
mod dependent;
mod devices;
mod memory;
mod modules;
mod report;
mod streams;
mod unordered;

use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::ptr::null_mut;

use serde_json::Value;
use vgpu::driver::context::{cuCtxSetCurrent, cuDevicePrimaryCtxRetain, cuInit};
use vgpu::driver::launch::{cuLaunchCooperativeKernel, cuLaunchKernel};
use vgpu::driver::memory::{cuMemAlloc_v2, cuMemcpyDtoH_v2, cuMemcpyHtoD_v2};
use vgpu::driver::module::{cuModuleGetFunction, cuModuleLoadData};

/// The variable that tells a process which test it runs.
const ALONE: &str = "VGPU_TEST_ALONE";

/// What a process left.
pub struct Ended {
    /// Whether the body went through.
    pub success: bool,
    /// What it said.
    pub stderr: String,
    /// The report, if it got so far as to write one.
    pub report: Value,
}

/// Runs a test's body in a process of its own, and gives what it left; `None` in that process, when the body is
/// done. `name` is the test's own.
pub fn alone(name: &str, settings: &[(&str, &str)], body: impl FnOnce()) -> Option<Ended> {
    if std::env::var(ALONE).is_ok_and(|n| n == name) {
        body();
        return None;
    }
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "{}-{}.json",
        name.replace("::", "-"),
        settings.iter().map(|s| s.1).collect::<String>()
    ));
    let _ = std::fs::remove_file(&file);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, name);
    for (variable, _) in std::env::vars().filter(|(v, _)| v.starts_with("VGPU_") && v != ALONE) {
        command.env_remove(variable);
    }
    let output = command.env("VGPU_REPORT", &file).envs(settings.iter().copied()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
    Some(Ended { success: output.status.success(), stderr, report: report.unwrap_or(Value::Null) })
}

impl Ended {
    /// The body went through.
    pub fn fine(self) -> Ended {
        assert!(self.success, "{}", self.stderr);
        self
    }

    /// A number of the report.
    pub fn number(&self, path: &str) -> u64 {
        let found = self.report.pointer(path).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no {path} in {:#}", self.report))
    }
}

/// Starts the driver and makes the device's context the thread's.
pub fn start() {
    assert_eq!(cuInit(0), 0);
    let mut context = 0;
    // SAFETY: the pointer is to a local variable.
    unsafe { assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), 0) };
    assert_eq!(cuCtxSetCurrent(context), 0);
}

/// A module with some small kernels: `fill` stores `value + i` in each of `n` words, `ticket` hands numbers to
/// threads in the order in which they come, `wild` loads from where it must not, `big` has shared memory.
pub const PTX: &str = ".version 8.0\n.target sm_75\n.address_size 64\n.global .align 4 .b32 answer = 42;\n\
    .visible .entry fill(.param .u64 out, .param .u32 value, .param .u32 n)\n{\n\
    .reg .pred %p; .reg .b32 %r<6>; .reg .b64 %d<3>;\n\
    ld.param.u64 %d0, [out]; ld.param.u32 %r0, [value]; ld.param.u32 %r1, [n];\n\
    mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.u32 %r2, %r2, %r3, %r4;\n\
    setp.ge.u32 %p, %r2, %r1; @%p ret;\n\
    mul.wide.u32 %d1, %r2, 4; add.s64 %d1, %d1, %d0; add.u32 %r0, %r0, %r2; st.global.u32 [%d1], %r0; ret;\n}\n\
    .visible .entry ticket(.param .u64 out)\n{\n\
    .reg .b32 %r<6>; .reg .b64 %d<3>;\n\
    ld.param.u64 %d0, [out]; atom.global.add.u32 %r0, [%d0], 1;\n\
    mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.u32 %r2, %r2, %r3, %r4;\n\
    mul.wide.u32 %d1, %r2, 4; add.s64 %d1, %d1, %d0; st.global.u32 [%d1+4], %r0; ret;\n}\n\
    .visible .entry wild(.param .u64 at)\n{\n\
    .reg .b32 %r<2>; .reg .b64 %d<2>; ld.param.u64 %d0, [at]; ld.global.u32 %r0, [%d0]; st.global.u32 [%d0], %r0; ret;\n}\n\
    .visible .entry big()\n{\n.reg .b32 %r<2>; .shared .align 4 .b8 s[4096]; mov.u32 %r0, %tid.x; shl.b32 %r0, %r0, 2; mov.u32 %r1, s; add.u32 %r0, %r0, %r1; st.shared.u32 [%r0], %r1; ret;\n}\n";

/// Loads PTX; the code instead if that fails.
pub fn load(text: &str) -> Result<usize, u32> {
    let (text, mut module) = (CString::new(text).unwrap(), 0);
    // SAFETY: text that ends with a zero.
    match unsafe { cuModuleLoadData(&mut module, text.as_ptr()) } {
        0 => Ok(module),
        code => Err(code),
    }
}

/// A kernel of [`PTX`], or the code.
pub fn function(module: usize, name: &str) -> Result<usize, u32> {
    let (name, mut function) = (CString::new(name).unwrap(), 0);
    // SAFETY: text that ends with a zero.
    match unsafe { cuModuleGetFunction(&mut function, module, name.as_ptr()) } {
        0 => Ok(function),
        code => Err(code),
    }
}

/// A kernel of a module that was just loaded.
pub fn kernel(name: &str) -> usize {
    function(load(PTX).unwrap(), name).unwrap()
}

/// An address of the device, or the code.
pub fn alloc(bytes: usize) -> Result<u64, u32> {
    let mut address = 0;
    // SAFETY: the pointer is to a local variable.
    match unsafe { cuMemAlloc_v2(&mut address, bytes) } {
        0 => Ok(address),
        code => Err(code),
    }
}

/// Copies words to the device.
pub fn upload(to: u64, words: &[u32]) -> u32 {
    // SAFETY: that many bytes are there.
    unsafe { cuMemcpyHtoD_v2(to, words.as_ptr().cast(), size_of_val(words)) }
}

/// Copies words from the device, or gives the code.
pub fn download(from: u64, count: usize) -> Result<Vec<u32>, u32> {
    let mut words = vec![0_u32; count];
    // SAFETY: there is room for as many bytes.
    match unsafe { cuMemcpyDtoH_v2(words.as_mut_ptr().cast(), from, 4 * count) } {
        0 => Ok(words),
        code => Err(code),
    }
}

/// How a kernel is launched.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// On which stream.
    pub stream: usize,
    /// Whether all blocks are to run at once.
    pub cooperative: bool,
}

impl Shape {
    /// `grid` blocks of `block` threads, on the default stream.
    pub fn new(grid: u32, block: u32) -> Shape {
        Shape { grid: [grid, 1, 1], block: [block, 1, 1], shared: 0, stream: 0, cooperative: false }
    }
}

/// Launches a kernel with arguments of eight bytes, of which it takes as many as it declares.
pub fn launch(function: usize, shape: Shape, arguments: &[u64]) -> u32 {
    let pointers: Vec<*const c_void> = arguments.iter().map(|a| std::ptr::from_ref(a).cast()).collect();
    let Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared, stream, cooperative } = shape;
    let pointers = pointers.as_ptr();
    // SAFETY: there is a pointer for each parameter.
    unsafe {
        match cooperative {
            true => cuLaunchCooperativeKernel(function, gx, gy, gz, bx, by, bz, shared, stream, pointers),
            false => cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, pointers, null_mut()),
        }
    }
}
