//! Everything that the driver knows, behind one lock.
//!
//! The idea: handles are numbers that were handed out and are looked up again, never pointers into this
//! library; a stale or foreign one is an error, not a crash.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::clock::{Ahead, Clock, Done};
use super::error::Code;
use crate::counters::Counters;
use crate::device::{Device, number};
use crate::exec::Schedule;
use crate::memory::Memory;
use crate::program::{Kernel, Module};
use crate::report::Usage;

/// A handle or an address as the program holds it.
pub type Handle = usize;

/// The legacy default stream: null, or `CU_STREAM_LEGACY`.
pub const DEFAULT_STREAM: Handle = 0;

/// A stream's own handle; `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD` are the default stream.
pub fn own(handle: Handle) -> Handle {
    if handle <= 2 { DEFAULT_STREAM } else { handle }
}

/// An event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// The stream and the work in it that the last record stands for.
    pub recorded: Option<(Handle, u64)>,
    /// What is done when the device comes to it, unless it was recorded in a capture.
    pub known: Option<Arc<Clock>>,
    /// When the device came to it.
    pub reached: Option<Instant>,
}

/// Something for the device to do.
#[derive(Clone, Debug)]
pub enum Work {
    /// A launch; the arguments were copied when it was asked for.
    Launch {
        /// The kernel.
        kernel: Arc<Kernel>,
        /// Blocks.
        grid: [u32; 3],
        /// Threads of a block.
        block: [u32; 3],
        /// Bytes of dynamic shared memory.
        shared: u32,
        /// The arguments.
        params: Vec<u8>,
        /// Whether all blocks run at once.
        cooperative: bool,
        /// Blocks of a cluster.
        cluster: Option<[u32; 3]>,
        /// Whether it may begin before the launch before it has ended.
        dependent: bool,
    },
    /// Host to device; the bytes were copied when it was asked for, as with pageable memory.
    Upload {
        /// The device's address.
        to: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Device to host.
    Download {
        /// The device's address.
        from: u64,
        /// The host's address.
        to: Handle,
        /// How many bytes.
        bytes: usize,
    },
    /// Within the device.
    Copy {
        /// The target.
        to: u64,
        /// The source.
        from: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// A pattern, repeated.
    Fill {
        /// The target.
        to: u64,
        /// How many bytes.
        bytes: u64,
        /// The pattern.
        pattern: Vec<u8>,
    },
    /// An event's record.
    Record(Handle),
    /// Wait for a stream to come to some work.
    Wait(Handle, u64),
    /// A graph.
    Graph(Vec<Work>),
}

/// Work that has not been done.
#[derive(Debug)]
pub struct Queued {
    /// Its number.
    pub number: u64,
    /// What comes before it, besides the work of its stream.
    pub before: Arc<Clock>,
    /// The work.
    pub work: Work,
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// Whether it keeps to one order with the default stream.
    pub blocking: bool,
    /// What has not been done.
    pub queue: VecDeque<Queued>,
    /// The number of the last work that was queued.
    pub last: u64,
    /// What comes before the next, besides the work of the stream.
    pub known: Arc<Clock>,
    /// What need not have ended when the next launch begins, the last first.
    pub ahead: Vec<Ahead>,
    /// What is being captured instead of queued.
    pub capture: Option<Vec<Work>>,
}

impl Stream {
    /// An idle stream.
    pub fn new(blocking: bool) -> Stream {
        Stream {
            blocking,
            queue: VecDeque::new(),
            last: 0,
            known: Arc::default(),
            ahead: Vec::new(),
            capture: None,
        }
    }
}

/// A context: reference count of the primary one, or 1.
#[derive(Debug)]
pub struct Context {
    /// Whether it is the device's primary one.
    pub primary: bool,
    /// How often it was retained.
    pub references: usize,
}

/// A kernel that the program has asked for.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its module.
    pub module: Handle,
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// Bytes of shared memory that a block may have, static and dynamic: what every device allows, or what was asked for.
    pub most_shared: u32,
    /// Whether clusters may be larger than what every device with clusters allows.
    pub large_clusters: bool,
}

/// Which call of which function is to fail.
#[derive(Debug)]
struct Failure {
    function: String,
    call: u64,
    calls: u64,
    code: Option<Code>,
}

/// The driver's state.
pub struct State {
    /// The device.
    pub device: Device,
    /// Its memory.
    pub memory: Memory,
    /// What kernels did.
    pub counters: Counters,
    /// What the program did.
    pub usage: Usage,
    /// In which order blocks and warps run.
    pub schedule: Schedule,
    /// Contexts by handle.
    pub contexts: HashMap<Handle, Context>,
    /// The primary context's handle.
    pub primary: Option<Handle>,
    /// Modules by handle.
    pub modules: HashMap<Handle, Module>,
    /// Functions by handle.
    pub functions: HashMap<Handle, Function>,
    /// Streams by handle; the default stream is always there.
    pub streams: HashMap<Handle, Stream>,
    /// Events by handle.
    pub events: HashMap<Handle, Event>,
    /// Captured graphs.
    pub graphs: HashMap<Handle, Vec<Work>>,
    /// Instantiated graphs.
    pub execs: HashMap<Handle, Vec<Work>>,
    /// Page-locked host memory: bytes by address.
    pub host: HashMap<Handle, usize>,
    /// What ended the last bad launch; every later call returns it.
    pub sticky: Option<Code>,
    /// The number of the last work.
    pub sequence: u64,
    /// What the host has waited for.
    pub waited: Arc<Clock>,
    /// What was done that other work may run beside.
    pub done: Vec<Done>,
    failures: Vec<Failure>,
    next: Handle,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

thread_local! {
    /// The calling thread's stack of contexts.
    pub static CURRENT: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// The state, locked. It is there once `cuInit` was called.
pub fn lock() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(|e| e.into_inner())
}

impl State {
    /// The device that the environment asks for, idle.
    ///
    /// # Errors
    /// A sentence that names the variable.
    pub fn from_environment() -> Result<State, String> {
        let device = Device::from_environment()?;
        let seed = number("VGPU_SEED")?;
        let perturb = number("VGPU_PERTURB")?.is_some_and(|n| n != 0);
        let mut failures = Vec::new();
        for item in std::env::var("VGPU_FAIL").unwrap_or_default().split(',').filter(|i| !i.is_empty()) {
            let failure = Failure::parse(item);
            let expected =
                || format!("VGPU_FAIL: expected FUNCTION:CALL or FUNCTION:CALL=CODE, found {item:?}");
            failures.push(failure.ok_or_else(expected)?);
        }
        let counters = Counters {
            by_line: number("VGPU_LINES")?.is_some_and(|n| n != 0),
            distinct: number("VGPU_DISTINCT")?.is_some_and(|n| n != 0),
            ..Counters::default()
        };
        Ok(State {
            memory: Memory::new(device.memory),
            device,
            counters,
            usage: Usage::default(),
            schedule: Schedule { seed, perturb },
            contexts: HashMap::new(),
            primary: None,
            modules: HashMap::new(),
            functions: HashMap::new(),
            streams: HashMap::from([(DEFAULT_STREAM, Stream::new(true))]),
            events: HashMap::new(),
            graphs: HashMap::new(),
            execs: HashMap::new(),
            host: HashMap::new(),
            sticky: None,
            sequence: 0,
            waited: Arc::default(),
            done: Vec::new(),
            failures,
            next: 0x1000,
        })
    }

    /// A handle that was never handed out.
    pub fn handle(&mut self) -> Handle {
        self.next += 0x10;
        self.next
    }

    /// The code of this call of a function, if it is one that `VGPU_FAIL` wants to fail.
    fn failure(&mut self, function: &str) -> Option<Code> {
        let mut found = None;
        for failure in self.failures.iter_mut().filter(|f| f.function == function) {
            failure.calls += 1;
            if failure.calls == failure.call {
                found = Some(failure.code.unwrap_or(match function {
                    f if f.starts_with("cuMemAlloc") || f.starts_with("cuMemHostAlloc") => {
                        Code::OUT_OF_MEMORY
                    }
                    f if f.starts_with("cuLaunch") || f.starts_with("cuGraphLaunch") => Code::LAUNCH_FAILED,
                    _ => Code::UNKNOWN,
                }));
            }
        }
        found
    }

    /// What has handles and is not given back: modules, streams, events, graphs, graphs that are ready to run.
    pub fn handles(&self) -> [usize; 5] {
        // The default stream is the driver's own.
        let streams = self.streams.len() - 1;
        [self.modules.len(), streams, self.events.len(), self.graphs.len(), self.execs.len()]
    }
}

impl Failure {
    /// As `cuMemAlloc_v2:3`, or `cuMemAlloc_v2:3=912` with the code to return.
    fn parse(text: &str) -> Option<Failure> {
        let (function, call) = text.split_once(':')?;
        let (call, code) = match call.split_once('=') {
            Some((call, code)) => (call, Some(Code(code.parse().ok()?))),
            None => (call, None),
        };
        Some(Failure { function: function.to_string(), call: call.parse().ok()?, calls: 0, code })
    }
}

/// Runs the body of a function of the driver on the locked state and returns its code.
pub fn call(function: &str, body: impl FnOnce(&mut State) -> Result<(), Code>) -> u32 {
    let mut guard = lock();
    let Some(state) = guard.as_mut() else { return Code::NOT_INITIALIZED.0 };
    if let Some(code) = state.sticky {
        return code.0;
    }
    if let Some(code) = state.failure(function) {
        return code.0;
    }
    body(state).map_or_else(|code| code.0, |()| Code::SUCCESS.0)
}

/// Writes a result where the program wants it.
///
/// # Safety
/// `to` is null or points to a `T` that may be written.
pub unsafe fn give<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: by the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}
