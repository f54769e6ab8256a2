//! The device as this engine uses it: one context, one stream, kernels by name, launches, graphs.
//!
//! The idea: everything that talks to the driver stands here, most of it through the crate `cust` and what
//! that has no wrapper for (graphs, cooperative launches) through its raw bindings; errors come out
//! as [`Error::Device`] with what was attempted.

use std::mem::MaybeUninit;
use std::ptr;

use bytemuck::Pod;
use cust::context::{Context, CurrentContext};
use cust::device::{Device as Handle, DeviceAttribute};
use cust::error::{CudaError, CudaResult};
use cust::event::{Event, EventFlags};
use cust::memory::{CopyDestination, DeviceBuffer, DeviceCopy};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use cust::sys;

use super::Properties;
use super::kernels::{self, KERNELS, Kernel, MODULES, NVCC};
use crate::error::{Error, Result};

/// An open device.
pub struct Device {
    /// What it can do.
    pub properties: Properties,
    /// Each kernel and the bytes of its arguments.
    functions: Vec<(sys::CUfunction, Vec<usize>)>,
    // Dropped in this order.
    _modules: Vec<Module>,
    stream: Stream,
    context: Context,
}

/// Numbers on the device.
pub type Buffer<T> = DeviceBuffer<T>;

/// Number of devices; `None` without a driver.
pub fn count() -> Option<u32> {
    cust::init(cust::CudaFlags::empty()).ok()?;
    Handle::num_devices().ok()
}

fn failed(label: &str, action: &str) -> impl FnOnce(CudaError) -> Error + use<> {
    let (device, action) = (label.to_string(), action.to_string());
    move |found| Error::Device { device, action, found: found.to_string() }
}

/// As 13.0: the driver counts 13000.
fn version(number: i32) -> (i32, i32) {
    (number / 1000, number % 1000 / 10)
}

impl Device {
    /// Opens the device of that number and loads the kernels.
    ///
    /// # Errors
    /// [`Error::Device`] without a driver or such a device, or if the driver refuses the kernels.
    pub fn open(ordinal: u32) -> Result<Device> {
        let label = format!("cuda:{ordinal}");
        cust::init(cust::CudaFlags::empty()).map_err(failed(&label, "start the driver"))?;
        let number = Handle::num_devices().map_err(failed(&label, "count the devices"))?;
        if ordinal >= number {
            let found = format!("there are {number} devices, counted from 0");
            return Err(Error::Device { device: label, action: "open the device".into(), found });
        }
        let open = || -> CudaResult<(Handle, Context, Stream)> {
            let handle = Handle::get_device(ordinal)?;
            let context = Context::new(handle)?;
            // One that waits for copies and fills on the default stream, and they for it.
            let stream = Stream::new(StreamFlags::DEFAULT, None)?;
            Ok((handle, context, stream))
        };
        let (handle, context, stream) = open().map_err(failed(&label, "open the device"))?;
        let properties = properties(&label, handle).map_err(failed(&label, "read the attributes"))?;
        let mut modules = Vec::new();
        for (_, text) in MODULES {
            let module = Module::from_ptx(text, &[]);
            modules.push(module.map_err(|e| refused(&properties, text, e))?);
        }
        let function = |(file, name): &(&str, &str)| -> Result<(sys::CUfunction, Vec<usize>)> {
            let at = kernels::module_of(file);
            let function = modules[at].get_function(name).map_err(failed(&label, &format!("find {name}")))?;
            Ok((function.to_raw(), kernels::arguments(MODULES[at].1, name)))
        };
        let functions = KERNELS.iter().map(function).collect::<Result<_>>()?;
        Ok(Device { properties, functions, _modules: modules, stream, context })
    }

    /// Makes the device the calling thread's.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn enter(&self) -> Result<()> {
        CurrentContext::set_current(&self.context).map_err(self.failed("enter the context"))
    }

    /// An [`Error::Device`] of this device, for `map_err`.
    pub fn failed(&self, action: &str) -> impl FnOnce(CudaError) -> Error + use<> {
        failed(&self.properties.label, action)
    }

    /// Bytes of memory that are free.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn free(&self) -> Result<u64> {
        let (free, _) = cust::memory::mem_get_info().map_err(self.failed("ask for free memory"))?;
        Ok(free as u64)
    }

    /// Allocates room for `len` numbers, at least one, and fills it with zeros.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn zeroed<T: Pod + DeviceCopy>(&self, len: usize) -> Result<Buffer<T>> {
        let action = format!("allocate {} bytes", len.saturating_mul(size_of::<T>()));
        let allocate = || -> CudaResult<Buffer<T>> {
            // SAFETY: every byte is set below, before anything can read it.
            let mut buffer = unsafe { DeviceBuffer::uninitialized(len.max(1)) }?;
            buffer.set_8(0)?;
            Ok(buffer)
        };
        allocate().map_err(self.failed(&action))
    }

    /// Allocates and fills.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn upload(&self, bytes: &[u8]) -> Result<Buffer<u8>> {
        let action = format!("allocate and fill {} bytes", bytes.len());
        DeviceBuffer::from_slice(if bytes.is_empty() { &[0] } else { bytes }).map_err(self.failed(&action))
    }

    /// Copies to the device.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn write<T: DeviceCopy>(&self, to: &mut Buffer<T>, at: usize, from: &[T]) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        let mut place = to.index(at..at + from.len());
        place.copy_from(from).map_err(self.failed("copy to the device"))
    }

    /// Waits for the stream and copies from the device.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn read<T: DeviceCopy>(&self, from: &Buffer<T>, to: &mut [T]) -> Result<()> {
        self.wait()?;
        from.index(0..to.len()).copy_to(to).map_err(self.failed("copy from the device"))
    }

    /// Launches a kernel. An argument is given as its bytes.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and what they point to outlives its run.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// # Panics
    /// If the arguments are not as many or not as long as the kernel declares.
    pub unsafe fn launch(&self, kernel: Kernel, grid: [u32; 3], block: u32, args: &[&[u8]]) -> Result<()> {
        let (function, ref declared) = self.functions[kernel as usize];
        let name = kernel.name();
        assert!(args.iter().map(|a| a.len()).eq(declared.iter().copied()), "{name} takes {declared:?} bytes");
        let mut args: Vec<_> = args.iter().map(|a| a.as_ptr().cast_mut().cast()).collect();
        // SAFETY: by the caller's promise; the driver copies the arguments before it returns.
        let code = unsafe {
            let [x, y, z] = grid;
            let stream = self.stream.as_inner();
            let args = args.as_mut_ptr();
            match kernel {
                Kernel::Persistent => {
                    sys::cuLaunchCooperativeKernel(function, x, y, z, block, 1, 1, 0, stream, args)
                }
                _ => sys::cuLaunchKernel(function, x, y, z, block, 1, 1, 0, stream, args, ptr::null_mut()),
            }
        };
        self.check(code, &format!("launch {name}"))
    }

    /// Blocks of a kernel that all run at once.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn resident(&self, kernel: Kernel, block: u32) -> Result<u32> {
        let mut blocks = 0;
        let (function, _) = self.functions[kernel as usize];
        // SAFETY: the function is one of ours.
        let code = unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, function, block as i32, 0)
        };
        self.check(code, "ask how many blocks fit")?;
        Ok(blocks as u32 * self.properties.multiprocessors as u32)
    }

    /// Records what `work` launches instead of running it.
    ///
    /// # Errors
    /// [`Error::Device`], and those of `work`.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours.
        let code = unsafe { sys::cuStreamBeginCapture_v2(self.stream.as_inner(), mode) };
        self.check(code, "begin to capture a graph")?;
        let done = work();
        let mut graph = MaybeUninit::uninit();
        // SAFETY: the capture began above; the graph is read only if the driver made it.
        let code = unsafe { sys::cuStreamEndCapture(self.stream.as_inner(), graph.as_mut_ptr()) };
        done?;
        self.check(code, "capture a graph")?;
        let mut exec = MaybeUninit::uninit();
        // SAFETY: as above; the graph is not needed once it has been instantiated.
        let code = unsafe {
            let graph = graph.assume_init();
            let null = ptr::null_mut();
            let code = sys::cuGraphInstantiate_v2(exec.as_mut_ptr(), graph, null, ptr::null_mut(), 0);
            sys::cuGraphDestroy(graph);
            code
        };
        self.check(code, "instantiate a graph")?;
        // SAFETY: the driver made it.
        Ok(Graph(unsafe { exec.assume_init() }))
    }

    /// Runs what was captured.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn replay(&self, graph: &Graph) -> Result<()> {
        // SAFETY: graph and stream are ours.
        self.check(unsafe { sys::cuGraphLaunch(graph.0, self.stream.as_inner()) }, "launch a graph")
    }

    /// Tells a profiler to begin or to end its capture, when all that was launched is done.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn profiler(&self, on: bool) -> Result<()> {
        self.wait()?;
        // SAFETY: no arguments.
        let code = unsafe { if on { sys::cuProfilerStart() } else { sys::cuProfilerStop() } };
        self.check(code, "switch the profiler")
    }

    /// A mark in the stream.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn mark(&self) -> Result<Event> {
        let mark = || -> CudaResult<Event> {
            let event = Event::new(EventFlags::DEFAULT)?;
            event.record(&self.stream)?;
            Ok(event)
        };
        mark().map_err(self.failed("record an event"))
    }

    /// Waits until the stream has come to a mark.
    ///
    /// # Errors
    /// [`Error::Device`]: what went wrong in a kernel shows here.
    pub fn reach(&self, mark: &Event) -> Result<()> {
        mark.synchronize().map_err(self.failed("run the kernels"))
    }

    /// Seconds between two marks that the stream has reached.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn between(&self, first: &Event, last: &Event) -> Result<f64> {
        let milliseconds = last.elapsed_time_f32(first).map_err(self.failed("read a clock"))?;
        Ok(f64::from(milliseconds) / 1e3)
    }

    /// Waits until all is done.
    ///
    /// # Errors
    /// [`Error::Device`]: what went wrong in a kernel shows here.
    pub fn wait(&self) -> Result<()> {
        self.stream.synchronize().map_err(self.failed("run the kernels"))
    }

    fn check(&self, code: sys::CUresult, action: &str) -> Result<()> {
        match code {
            sys::cudaError_enum::CUDA_SUCCESS => Ok(()),
            code => {
                let mut text = ptr::null();
                // SAFETY: the driver's texts live as long as the process.
                let text = unsafe {
                    sys::cuGetErrorString(code, &mut text);
                    match text.is_null() {
                        true => format!("error {}", code as u32),
                        false => std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned(),
                    }
                };
                let (device, action) = (self.properties.label.clone(), action.to_string());
                Err(Error::Device { device, action, found: text })
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Nothing may still run when modules and buffers go; an error has been told where it came up.
        let _ = self.stream.synchronize();
    }
}

/// What was captured, ready to run.
pub struct Graph(sys::CUgraphExec);

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it is ours and not used any more.
        unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}

fn properties(label: &str, handle: Handle) -> CudaResult<Properties> {
    let attribute = |a| handle.get_attribute(a);
    // Newer drivers need not know what only a table of `bench` is made of.
    let reported = |a| handle.get_attribute(a).map_or(0, |n| n.max(0));
    let (mut driver, mut cooperative) = (0, 0);
    // SAFETY: the driver writes a number each.
    unsafe {
        sys::cuDriverGetVersion(&mut driver);
        let attribute = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH;
        sys::cuDeviceGetAttribute(&mut cooperative, attribute, handle.as_raw());
    }
    Ok(Properties {
        label: label.into(),
        name: handle.name()?,
        capability: (
            attribute(DeviceAttribute::ComputeCapabilityMajor)?,
            attribute(DeviceAttribute::ComputeCapabilityMinor)?,
        ),
        driver: version(driver),
        multiprocessors: attribute(DeviceAttribute::MultiprocessorCount)?.max(1) as usize,
        cooperative: cooperative != 0,
        memory: handle.total_memory()? as u64,
        l2: reported(DeviceAttribute::L2CacheSize) as u64,
        clock: f64::from(reported(DeviceAttribute::ClockRate)) * 1e3,
        memory_clock: f64::from(reported(DeviceAttribute::MemoryClockRate)) * 1e3,
        bus_bits: reported(DeviceAttribute::GlobalMemoryBusWidth) as usize,
    })
}

/// The driver does not take the PTX: newer than the driver, or for a device younger than this one.
fn refused(properties: &Properties, ptx: &str, error: CudaError) -> Error {
    let directive = |name: &str| {
        let line = ptx.lines().find_map(|l| l.trim().strip_prefix(name));
        line.map_or("unknown", |rest| rest.trim().trim_end_matches(';')).to_string()
    };
    let (driver, capability) = (properties.driver, properties.capability);
    let found = format!(
        "{error}: the kernels are PTX {} for {}, from nvcc {NVCC}; the driver knows CUDA {}.{} and the device has \
         compute capability {}.{}. Build with an nvcc no newer than the driver and CUDA_ARCH={}{}, or \
         update the driver",
        directive(".version"),
        directive(".target"),
        driver.0,
        driver.1,
        capability.0,
        capability.1,
        capability.0,
        capability.1,
    );
    Error::Device { device: properties.label.clone(), action: "load the kernels".into(), found }
}
