//! Launches.
//!
//! The idea: everything that a real driver refuses at the call is refused at the call; what only shows
//! when the kernel runs shows when somebody waits. Arguments are copied by the kernel's own list of
//! parameters, so a launch with too few of them reads whatever the program's array holds, as on a GPU.

use std::ffi::c_void;

use super::error::Code;
use super::state::{Function, Handle, State, Work, call, give};
use crate::exec;
use crate::program::Kernel;

/// # Safety
/// As in `cuda.h`: a pointer for each parameter.
unsafe fn arguments(kernel: &Kernel, pointers: *const *const c_void) -> Result<Vec<u8>, Code> {
    let mut bytes = vec![0; kernel.param_bytes() as usize];
    if !kernel.params.is_empty() && pointers.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    for (i, param) in kernel.params.iter().enumerate() {
        // SAFETY: by the caller's promise.
        unsafe {
            let from = *pointers.add(i);
            if from.is_null() {
                return Err(Code::INVALID_VALUE);
            }
            let to = bytes[param.offset as usize..].as_mut_ptr();
            to.copy_from_nonoverlapping(from.cast(), param.size as usize);
        }
    }
    Ok(bytes)
}

/// How a kernel is launched.
#[derive(Clone, Copy)]
struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    /// Bytes of dynamic shared memory.
    shared: u32,
    cooperative: bool,
    /// Blocks of a cluster.
    cluster: Option<[u32; 3]>,
    /// Whether it may begin before the launch before it has ended.
    dependent: bool,
}

impl Shape {
    fn new(grid: [u32; 3], block: [u32; 3], shared: u32) -> Shape {
        Shape { grid, block, shared, cooperative: false, cluster: None, dependent: false }
    }
}

/// What a function has been refused, on stderr, with its code.
fn refuse<T>(code: Code, kernel: &Kernel, why: &str) -> Result<T, Code> {
    eprintln!("vgpu: kernel {}: {why}", kernel.name);
    Err(code)
}

/// Blocks of a cluster that every device with clusters allows.
const PORTABLE: u64 = 8;

/// Refuses clusters that the device does not have, or that the grid does not have.
fn check_cluster(state: &State, function: &Function, shape: &Shape, size: [u32; 3]) -> Result<(), Code> {
    let kernel = &*function.kernel;
    if !state.device.clusters() {
        let (major, minor) = state.device.capability;
        let why = format!("clusters are new in compute capability 9.0; the device has {major}.{minor}");
        return refuse(Code::NOT_SUPPORTED, kernel, &why);
    }
    if let Some(required) = kernel.cluster
        && required != size
    {
        let why = format!("clusters of {size:?} blocks; it was compiled for {required:?}");
        return refuse(Code::INVALID_CLUSTER_SIZE, kernel, &why);
    }
    let blocks = size.iter().map(|&n| u64::from(n)).product::<u64>();
    let most = if function.large_clusters { exec::LARGEST_CLUSTER } else { PORTABLE };
    if blocks == 0 || blocks > most {
        let hint = if blocks > exec::LARGEST_CLUSTER {
            ""
        } else {
            " (CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED)"
        };
        let why = format!("clusters of {size:?} blocks; 1 to {most} are allowed{hint}");
        return refuse(Code::INVALID_CLUSTER_SIZE, kernel, &why);
    }
    if shape.grid.iter().zip(size).any(|(n, of)| n % of != 0) {
        let why = format!("a grid of {:?} blocks is no multiple of clusters of {size:?}", shape.grid);
        return refuse(Code::INVALID_CLUSTER_SIZE, kernel, &why);
    }
    Ok(())
}

/// Refuses what the device cannot run; else the clusters, or blocks where there are none, that it holds at once.
fn check(state: &State, function: &Function, shape: &Shape) -> Result<u64, Code> {
    let kernel = &*function.kernel;
    let Shape { grid, block, shared, .. } = *shape;
    let limits = &state.device.limits;
    let threads = block.iter().map(|&n| u64::from(n)).product::<u64>();
    let some = grid.iter().chain(&block).all(|&n| n > 0);
    let fits =
        block[0] <= 1024 && block[1] <= 1024 && block[2] <= 64 && grid[1] <= 65_535 && grid[2] <= 65_535;
    if !some || !fits || threads > u64::from(limits.max_threads_per_block) || grid[0] > i32::MAX as u32 {
        return Err(Code::INVALID_VALUE);
    }
    let refused = |[x, y, z]: [u32; 3]| {
        let most = u64::from(x) * u64::from(y) * u64::from(z);
        threads > most || (kernel.exact_threads && block != [x, y, z])
    };
    if kernel.max_threads.is_some_and(refused) {
        return Err(Code::INVALID_VALUE);
    }
    if kernel.static_shared.saturating_add(shared) > function.most_shared {
        return Err(Code::INVALID_VALUE);
    }
    if shape.dependent && !state.device.dependent_launches() {
        let (major, minor) = state.device.capability;
        let why = format!(
            "launches that begin before the one before has ended (PROGRAMMATIC_STREAM_SERIALIZATION) are new in \
             compute capability 9.0; the device has {major}.{minor}"
        );
        return refuse(Code::NOT_SUPPORTED, kernel, &why);
    }
    let resident = exec::resident_blocks(kernel, limits, threads as u32, shared);
    if resident == 0 {
        return Err(Code::LAUNCH_OUT_OF_RESOURCES);
    }
    let Some(size) = shape.cluster else {
        return Ok(u64::from(resident) * u64::from(limits.multiprocessors));
    };
    check_cluster(state, function, shape, size)?;
    Ok(exec::resident_clusters(limits, resident, size.iter().product()).into())
}

/// # Safety
/// As in `cuda.h`.
unsafe fn launch(
    state: &mut State,
    function: Handle,
    mut shape: Shape,
    stream: Handle,
    pointers: *const *const c_void,
) -> Result<(), Code> {
    let function = state.functions.get(&function).ok_or(Code::INVALID_HANDLE)?.clone();
    shape.cluster = shape.cluster.or(function.kernel.cluster);
    let fit = check(state, &function, &shape)?;
    let Shape { grid, block, shared, cooperative, cluster, dependent } = shape;
    if cooperative && !state.device.cooperative {
        return Err(Code::NOT_SUPPORTED);
    }
    let size = cluster.map_or(1, |size| size.iter().map(|&n| u64::from(n)).product());
    if cooperative && grid.iter().map(|&n| u64::from(n)).product::<u64>() > fit * size {
        return Err(Code::COOPERATIVE_LAUNCH_TOO_LARGE);
    }
    let kernel = function.kernel;
    if fit == 0 {
        let why = format!("a cluster of {size} blocks does not fit into one part (GPC) of the device");
        return refuse(Code::INVALID_CLUSTER_SIZE, &kernel, &why);
    }
    if dependent && state.stream(stream)?.capture.is_some() && !state.device.captures_dependent_launches() {
        let why = "PROGRAMMATIC_STREAM_SERIALIZATION in a capture is new in CUDA 12.3; the driver is older";
        return refuse(Code::NOT_SUPPORTED, &kernel, why);
    }
    // SAFETY: by the caller's promise.
    let params = unsafe { arguments(&kernel, pointers) }?;
    let work = Work::Launch { kernel, grid, block, shared, params, cooperative, cluster, dependent };
    state.queue(stream, work).map(drop)
}

/// Launches a kernel.
///
/// # Safety
/// As in `cuda.h`. Arguments as one packed buffer (`extra`) are not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    gx: u32,
    gy: u32,
    gz: u32,
    bx: u32,
    by: u32,
    bz: u32,
    shared: u32,
    stream: Handle,
    arguments: *const *const c_void,
    extra: *const c_void,
) -> u32 {
    call("cuLaunchKernel", |state| {
        if !extra.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        // SAFETY: the same promise.
        unsafe { launch(state, function, Shape::new([gx, gy, gz], [bx, by, bz], shared), stream, arguments) }
    })
}

/// Launches a kernel whose blocks all run at once.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchCooperativeKernel(
    function: Handle,
    gx: u32,
    gy: u32,
    gz: u32,
    bx: u32,
    by: u32,
    bz: u32,
    shared: u32,
    stream: Handle,
    arguments: *const *const c_void,
) -> u32 {
    call("cuLaunchCooperativeKernel", |state| {
        let shape = Shape { cooperative: true, ..Shape::new([gx, gy, gz], [bx, by, bz], shared) };
        // SAFETY: the same promise.
        unsafe { launch(state, function, shape, stream, arguments) }
    })
}

/// `CUlaunchAttribute`
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Attribute {
    /// `CUlaunchAttributeID`
    pub id: u32,
    /// Nothing.
    pub pad: u32,
    /// A union of 64 bytes, of which this driver understands those that are words.
    pub value: [u32; 16],
}

/// `CUlaunchConfig`
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Config {
    /// Blocks in each direction.
    pub grid: [u32; 3],
    /// Threads of a block in each direction.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// On which stream.
    pub stream: Handle,
    /// What else there is to say.
    pub attributes: *const Attribute,
    /// How much of it.
    pub count: u32,
}

/// # Safety
/// As in `cuda.h`.
unsafe fn shape(config: *const Config) -> Result<(Shape, Handle), Code> {
    /// `CU_LAUNCH_ATTRIBUTE_IGNORE`
    const IGNORE: u32 = 0;
    /// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`
    const COOPERATIVE: u32 = 2;
    /// `CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`
    const CLUSTER: u32 = 4;
    /// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`
    const PROGRAMMATIC: u32 = 6;
    // SAFETY: by the caller's promise, null or a configuration.
    let Some(config) = (unsafe { config.as_ref() }) else { return Err(Code::INVALID_VALUE) };
    let mut shape = Shape::new(config.grid, config.block, config.shared);
    if config.count > 0 && config.attributes.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    for k in 0..config.count as usize {
        // SAFETY: by the caller's promise there are that many.
        let Attribute { id, value, .. } = unsafe { *config.attributes.add(k) };
        match id {
            IGNORE => {}
            COOPERATIVE => shape.cooperative = value[0] != 0,
            PROGRAMMATIC => shape.dependent = value[0] != 0,
            CLUSTER => shape.cluster = Some([value[0], value[1], value[2]]),
            other => {
                eprintln!("vgpu: launch attribute {} is not supported", attribute_name(other));
                return Err(Code::NOT_SUPPORTED);
            }
        }
    }
    Ok((shape, config.stream))
}

/// As in `cuda.h`.
fn attribute_name(id: u32) -> String {
    let name = match id {
        1 => "ACCESS_POLICY_WINDOW",
        3 => "SYNCHRONIZATION_POLICY",
        5 => "CLUSTER_SCHEDULING_POLICY_PREFERENCE",
        7 => "PROGRAMMATIC_EVENT",
        8 => "PRIORITY",
        9 => "MEM_SYNC_DOMAIN_MAP",
        10 => "MEM_SYNC_DOMAIN",
        11 => "PREFERRED_CLUSTER_DIMENSION",
        12 => "LAUNCH_COMPLETION_EVENT",
        13 => "DEVICE_UPDATABLE_KERNEL_NODE",
        14 => "PREFERRED_SHARED_MEMORY_CARVEOUT",
        16 => "NVLINK_UTIL_CENTRIC_SCHEDULING",
        _ => return id.to_string(),
    };
    format!("CU_LAUNCH_ATTRIBUTE_{name}")
}

/// Launches a kernel with attributes: clusters, cooperatively, before the launch before has ended.
///
/// # Safety
/// As in `cuda.h`. Arguments as one packed buffer (`extra`) are not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    config: *const Config,
    function: Handle,
    arguments: *const *const c_void,
    extra: *const c_void,
) -> u32 {
    call("cuLaunchKernelEx", |state| {
        if !extra.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        // SAFETY: the same promise.
        let (shape, stream) = unsafe { shape(config) }?;
        // SAFETY: as above.
        unsafe { launch(state, function, shape, stream, arguments) }
    })
}

/// Clusters of a launch that the device can hold at once.
///
/// # Safety
/// As in `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveClusters(
    clusters: *mut i32,
    function: Handle,
    config: *const Config,
) -> u32 {
    call("cuOccupancyMaxActiveClusters", |state| {
        // SAFETY: as in `cuda.h`.
        let (mut shape, _) = unsafe { shape(config) }?;
        let function = state.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        shape.cluster = shape.cluster.or(function.kernel.cluster);
        if shape.cluster.is_none() {
            return Err(Code::INVALID_VALUE);
        }
        let fit = check(state, function, &shape)?;
        // SAFETY: as in `cuda.h`.
        unsafe { give(clusters, fit as i32) }
    })
}
