//! The device as this engine uses it: one context, its streams, kernels by name, launches, graphs.
//!
//! The idea: all calls of the driver are here, most of them through the crate `cust`; what it does not wrap
//! (graphs, cooperative launches, clusters) goes through raw bindings, its own or those of [`libcuda`]. Errors become
//! [`Error::Device`] with what was attempted.

use std::ptr;

use bytemuck::Pod;
use cust::context::{Context, CurrentContext};
use cust::device::{Device as Handle, DeviceAttribute};
use cust::error::{CudaError, CudaResult};
pub use cust::event::Event;
use cust::event::EventFlags;
use cust::memory::{CopyDestination, DeviceBuffer, DeviceCopy};
use cust::stream::StreamWaitEventFlags;
use cust::sys;

use super::abi::CLUSTER;
use super::cost::Room;
use super::kernels::Kernel;
use super::libcuda::{LaunchAttribute, LaunchConfig};
use super::modules::{self, Modules};
use super::streams::Streams;
use super::{Properties, libcuda};
use crate::error::{Error, Result};
use crate::precision::Precision;

/// An open device.
pub struct Device {
    /// What it can do.
    pub properties: Properties,
    // Dropped in this order.
    modules: Modules,
    streams: Streams,
    context: Context,
}

/// Numbers on the device.
pub type Buffer<T> = DeviceBuffer<T>;

/// The shape of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of shared memory that a block has beside the kernel's own.
    pub shared: u32,
    /// Blocks of a cluster, for kernels of clusters.
    pub cluster: Option<u32>,
    /// Whether its blocks may begin before the launch before has ended, for kernels that wait for that themselves
    /// (`cuda/dependent.cuh`).
    pub follows: bool,
}

impl Shape {
    /// A row of blocks.
    pub fn row(blocks: u32, block: u32) -> Shape {
        Shape { grid: [blocks, 1, 1], block, shared: 0, cluster: None, follows: false }
    }
}

/// The first driver that lets a launch in a graph begin before the one before has ended.
const FOLLOWING: (i32, i32) = (12, 3);

/// Number of devices; `None` without a driver.
pub fn count() -> Option<u32> {
    libcuda::load().ok()?;
    cust::init(cust::CudaFlags::empty()).ok()?;
    Handle::num_devices().ok()
}

fn failed(label: &str, action: &str) -> impl FnOnce(CudaError) -> Error + use<> {
    let (device, action) = (label.to_string(), action.to_string());
    // Not by the error's own `Display`, which panics where the driver has no text.
    move |found| Error::Device { device, action, found: libcuda::describe(found as u32) }
}

/// As 13.0: the driver counts 13000.
fn version(number: i32) -> (i32, i32) {
    (number / 1000, number % 1000 / 10)
}

impl Device {
    /// Opens the device of that number, for weights of that precision. Kernels are compiled when they are first needed, or
    /// by [`Device::load`].
    ///
    /// # Errors
    /// [`Error::Device`] without a driver or such a device.
    pub fn open(ordinal: u32, precision: Precision) -> Result<Device> {
        let label = format!("cuda:{ordinal}");
        if let Err(found) = libcuda::load() {
            let found = format!("{found}; it comes with NVIDIA's driver");
            return Err(Error::device(&label, "start the driver", found));
        }
        cust::init(cust::CudaFlags::empty()).map_err(failed(&label, "start the driver"))?;
        let number = Handle::num_devices().map_err(failed(&label, "count the devices"))?;
        if ordinal >= number {
            let found = format!("there are {number} devices, counted from 0");
            return Err(Error::device(&label, "open the device", found));
        }
        let open = || -> CudaResult<(Handle, Context, Streams)> {
            let handle = Handle::get_device(ordinal)?;
            let context = Context::new(handle)?;
            Ok((handle, context, Streams::new()?))
        };
        let (handle, context, streams) = open().map_err(failed(&label, "open the device"))?;
        let properties = properties(&label, handle).map_err(failed(&label, "read the attributes"))?;
        Ok(Device { properties, modules: Modules::of(precision), streams, context })
    }

    /// Makes the device the calling thread's.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn enter(&self) -> Result<()> {
        CurrentContext::set_current(&self.context).map_err(self.failed("enter the context"))
    }

    /// Has the driver compile these kernels now, all files at a time: those that are used while a graph is
    /// captured have to be there before.
    ///
    /// # Errors
    /// [`Error::Device`] with the driver's words, if it refuses one; [`Error::Threads`].
    pub fn load(&self, kernels: &[Kernel]) -> Result<()> {
        self.modules.load(&self.properties, &self.context, kernels)
    }

    fn function(&self, kernel: Kernel) -> Result<(sys::CUfunction, &[usize])> {
        self.modules.function(&self.properties, &self.context, kernel)
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

    /// Waits until all is done and copies from the device.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn read<T: DeviceCopy>(&self, from: &Buffer<T>, to: &mut [T]) -> Result<()> {
        self.wait()?;
        from.index(0..to.len()).copy_to(to).map_err(self.failed("copy from the device"))
    }

    /// Launches a kernel in some shape. An argument is given as its bytes.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and what they point to outlives its run.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// # Panics
    /// If the arguments are not as many or not as long as the kernel declares.
    pub unsafe fn launch(&self, kernel: Kernel, shape: Shape, args: &[&[u8]]) -> Result<()> {
        let (function, declared) = self.function(kernel)?;
        let name = self.modules.name(kernel);
        assert!(args.iter().map(|a| a.len()).eq(declared.iter().copied()), "{name} takes {declared:?} bytes");
        let mut args: Vec<_> = args.iter().map(|a| a.as_ptr().cast_mut().cast()).collect();
        // SAFETY: by the caller's promise; the driver copies the arguments before it returns.
        let code = unsafe {
            let Shape { grid: [x, y, z], block, shared, cluster, .. } = shape;
            let stream = self.streams.now().as_inner();
            let (args, extra) = (args.as_mut_ptr(), ptr::null_mut());
            let mut attributes: Vec<_> = cluster.map(LaunchAttribute::cluster).into_iter().collect();
            if shape.follows && self.properties.driver >= FOLLOWING {
                attributes.push(LaunchAttribute::follows());
            }
            match kernel {
                Kernel::Persistent | Kernel::Team => {
                    sys::cuLaunchCooperativeKernel(function, x, y, z, block, 1, 1, shared, stream, args)
                        as u32
                }
                _ if !attributes.is_empty() => {
                    libcuda::cuLaunchKernelEx(&self.config(shape, &mut attributes), function, args, extra)
                }
                _ => sys::cuLaunchKernel(function, x, y, z, block, 1, 1, shared, stream, args, extra) as u32,
            }
        };
        self.check_code(code, &format!("launch {name}"))
    }

    /// A launch with attributes.
    fn config(&self, shape: Shape, attributes: &mut [LaunchAttribute]) -> LaunchConfig {
        let (block, stream) = ([shape.block, 1, 1], self.streams.now().as_inner());
        LaunchConfig {
            grid: shape.grid,
            block,
            shared: shape.shared,
            stream,
            attributes: attributes.as_mut_ptr(),
            count: attributes.len() as u32,
        }
    }

    /// Lets a kernel's blocks have so many bytes of dynamic shared memory, which may be more than any may have unasked.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn allow(&self, kernel: Kernel, shared: usize) -> Result<()> {
        let (function, _) = self.function(kernel)?;
        self.check_code(modules::allow(function, shared), "ask for shared memory")
    }

    /// How many clusters the device runs at a time of a kernel's blocks, each of `block` threads and `shared` bytes of dynamic
    /// shared memory; none if a cluster does not fit. They may be launched so from now on.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn clusters(&self, kernel: Kernel, block: usize, shared: usize) -> Result<usize> {
        // CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED.
        const MORE_THAN_EIGHT: u32 = 14;
        self.allow(kernel, shared)?;
        let (function, _) = self.function(kernel)?;
        let blocks = CLUSTER as u32;
        let mut attributes = [LaunchAttribute::cluster(blocks)];
        let shape =
            Shape { shared: shared as u32, cluster: Some(blocks), ..Shape::row(blocks, block as u32) };
        let mut clusters = 0;
        // SAFETY: the function is one of ours, and the attribute outlives the configuration.
        unsafe {
            let code = libcuda::cuFuncSetAttribute(function, MORE_THAN_EIGHT, 1);
            self.check_code(code, "ask for clusters of 16 blocks")?;
            let config = self.config(shape, &mut attributes);
            let code = libcuda::cuOccupancyMaxActiveClusters(&mut clusters, function, &config);
            self.check_code(code, "ask how many clusters fit")?;
        }
        Ok(clusters.max(0) as usize)
    }

    /// What the device holds of a kernel's blocks, each of `block` threads and `shared` bytes of dynamic shared memory.
    ///
    /// # Errors
    /// [`Error::Device`], also if no block fits.
    pub fn room(&self, kernel: Kernel, block: usize, shared: usize) -> Result<Room> {
        let mut blocks = 0;
        let (function, _) = self.function(kernel)?;
        // SAFETY: the function is one of ours.
        let code = unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, function, block as i32, shared)
        };
        self.check(code, "ask how many blocks fit")?;
        if blocks <= 0 {
            let action = format!("launch {}", self.modules.name(kernel));
            return Err(Error::device(
                &self.properties.label,
                action,
                "no block of it fits a multiprocessor",
            ));
        }
        Ok(Room { multiprocessors: self.properties.multiprocessors, resident: blocks as usize, spread: 0 })
    }

    /// Records what `work` launches instead of running it.
    ///
    /// # Errors
    /// [`Error::Device`], and those of `work`.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours.
        let code = unsafe { sys::cuStreamBeginCapture_v2(self.streams.now().as_inner(), mode) };
        self.check(code, "begin to capture a graph")?;
        let done = work();
        let mut graph = ptr::null_mut();
        // SAFETY: the capture began above.
        let code = unsafe { sys::cuStreamEndCapture(self.streams.now().as_inner(), &mut graph) };
        let ended = done.and_then(|()| self.check(code, "capture a graph"));
        let mut exec = ptr::null_mut();
        let instantiated = ended.and_then(|()| {
            // SAFETY: the driver made the graph; it writes the handle of what it instantiates.
            let code =
                unsafe { sys::cuGraphInstantiate_v2(&mut exec, graph, ptr::null_mut(), ptr::null_mut(), 0) };
            self.check(code, "instantiate a graph")
        });
        if !graph.is_null() {
            // SAFETY: it is ours, and not needed any more, whatever became of it.
            unsafe { sys::cuGraphDestroy(graph) };
        }
        instantiated.map(|()| Graph(exec))
    }

    /// Runs what was captured.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn replay(&self, graph: &Graph) -> Result<()> {
        // SAFETY: graph and stream are ours.
        self.check(unsafe { sys::cuGraphLaunch(graph.0, self.streams.now().as_inner()) }, "launch a graph")
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

    /// A mark behind all that has been launched.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn mark(&self) -> Result<Event> {
        self.record(EventFlags::DEFAULT)
    }

    /// The same without a time, which is sooner done: for [`Device::follow`] and [`Device::beside`].
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn mark_order(&self) -> Result<Event> {
        self.record(EventFlags::DISABLE_TIMING)
    }

    fn record(&self, flags: EventFlags) -> Result<Event> {
        let mark = || -> CudaResult<Event> {
            let event = Event::new(flags)?;
            event.record(self.streams.now())?;
            Ok(event)
        };
        mark().map_err(self.failed("record an event"))
    }

    /// Waits until the device has come to a mark.
    ///
    /// # Errors
    /// [`Error::Device`]: what went wrong in a kernel shows here.
    pub fn reach(&self, mark: &Event) -> Result<()> {
        mark.synchronize().map_err(self.failed("run the kernels"))
    }

    /// Seconds between two marks that the device has reached.
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
        self.streams.wait().map_err(self.failed("run the kernels"))
    }

    /// Runs what `work` launches beside what comes behind a mark, where that leaves room; returns a mark of its end, which
    /// something may follow by [`Device::follow`].
    ///
    /// # Errors
    /// [`Error::Device`], and those of `work`.
    pub fn beside(&self, mark: Event, work: impl FnOnce() -> Result<()>) -> Result<Event> {
        self.streams.beside(|| {
            self.follow(mark)?;
            work()?;
            self.mark_order()
        })
    }

    /// Lets all that is launched from now on wait for a mark.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn follow(&self, mark: Event) -> Result<()> {
        let waits = self.streams.now().wait_event(mark, StreamWaitEventFlags::DEFAULT);
        waits.map_err(self.failed("wait for an event"))
    }

    fn check(&self, code: sys::CUresult, action: &str) -> Result<()> {
        self.check_code(code as u32, action)
    }

    fn check_code(&self, code: u32, action: &str) -> Result<()> {
        match code {
            0 => Ok(()),
            code => Err(Error::device(&self.properties.label, action, libcuda::describe(code))),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Nothing may still run when modules and buffers go; an error has been told where it came up.
        let _ = self.streams.wait();
    }
}

/// What was captured, ready to run.
pub struct Graph(sys::CUgraphExec);

// SAFETY: the handle is the driver's, which takes it from any thread that has entered the context.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it is ours and not used any more.
        unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}

fn properties(label: &str, handle: Handle) -> CudaResult<Properties> {
    let attribute = |a| handle.get_attribute(a);
    // Only a table of `bench` needs these, so that a driver may lack them.
    let reported = |a| handle.get_attribute(a).map_or(0, |n| n.max(0));
    // CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH and CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN.
    const CLUSTERS: u32 = 120;
    const BLOCK_MEMORY: u32 = 97;
    let (mut driver, mut cooperative, mut clusters, mut block_memory) = (0, 0, 0, 0);
    // SAFETY: the driver writes a number each, or none where it does not know the attribute.
    unsafe {
        sys::cuDriverGetVersion(&mut driver);
        let attribute = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH;
        sys::cuDeviceGetAttribute(&mut cooperative, attribute, handle.as_raw());
        libcuda::cuDeviceGetAttribute(&mut clusters, CLUSTERS, handle.as_raw());
        libcuda::cuDeviceGetAttribute(&mut block_memory, BLOCK_MEMORY, handle.as_raw());
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
        clusters: clusters != 0,
        block_memory: block_memory.max(0) as usize,
        memory: handle.total_memory()? as u64,
        l2: reported(DeviceAttribute::L2CacheSize) as u64,
        clock: f64::from(reported(DeviceAttribute::ClockRate)) * 1e3,
        memory_clock: f64::from(reported(DeviceAttribute::MemoryClockRate)) * 1e3,
        bus_bits: reported(DeviceAttribute::GlobalMemoryBusWidth) as usize,
    })
}
