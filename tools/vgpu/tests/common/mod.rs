//! A device for tests, and typed ways to launch on it.
#![allow(dead_code)]

use std::sync::Arc;

use vgpu::counters::Counters;
use vgpu::exec::{Launch, Limits, Schedule, run};
use vgpu::memory::Memory;
use vgpu::program::{Kernel, Module};
use vgpu::{Fault, FaultKind};

/// What an A100 can hold.
pub const LIMITS: Limits = Limits {
    multiprocessors: 8,
    max_threads_per_block: 1024,
    max_blocks_per_multiprocessor: 32,
    max_threads_per_multiprocessor: 2048,
    shared_per_multiprocessor: 167_936,
    shared_per_block: 166_912,
    reserved_shared_per_block: 1024,
    registers_per_multiprocessor: 65_536,
    registers_per_thread: 255,
};

/// A device with a module.
pub struct Device {
    pub memory: Memory,
    pub module: Module,
    pub counters: Counters,
    pub schedule: Schedule,
}

/// Values that can be copied to the device.
pub trait Plain: Copy {
    const BYTES: usize;
    fn put(self, to: &mut Vec<u8>);
    fn get(from: &[u8]) -> Self;
}

macro_rules! plain {
    ($($t:ty)*) => {$(
        impl Plain for $t {
            const BYTES: usize = size_of::<$t>();
            fn put(self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
            fn get(from: &[u8]) -> Self {
                <$t>::from_le_bytes(from.try_into().unwrap())
            }
        }
    )*};
}
plain!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

/// Arguments of a kernel, aligned as C does.
#[derive(Default)]
pub struct Args(pub Vec<u8>);

impl Args {
    pub fn new() -> Args {
        Args::default()
    }

    pub fn and<T: Plain>(mut self, value: T) -> Args {
        self.0.resize(self.0.len().next_multiple_of(T::BYTES), 0);
        value.put(&mut self.0);
        self
    }
}

impl Device {
    pub fn new(ptx: &str) -> Device {
        let mut memory = Memory::new(1 << 30);
        let module = Module::load(ptx, &mut memory).unwrap();
        Device { memory, module, counters: Counters::default(), schedule: Schedule::default() }
    }

    pub fn kernel(&self, name: &str) -> Arc<Kernel> {
        self.module.kernels.iter().find(|k| k.name == name).unwrap().clone()
    }

    pub fn put<T: Plain>(&mut self, values: &[T]) -> u64 {
        let mut bytes = Vec::new();
        values.iter().for_each(|v| v.put(&mut bytes));
        let at = self.memory.alloc(bytes.len() as u64, "test data").unwrap();
        self.memory.write(at, &bytes).unwrap();
        at
    }

    pub fn get<T: Plain>(&self, at: u64, count: usize) -> Vec<T> {
        let mut bytes = vec![0; count * T::BYTES];
        self.memory.read(at, &mut bytes).unwrap();
        bytes.chunks(T::BYTES).map(T::get).collect()
    }

    pub fn launch(&mut self, name: &str, grid: [u32; 3], block: [u32; 3], args: Args) -> Result<(), Fault> {
        self.launch_with(name, grid, block, 0, false, args)
    }

    pub fn launch_with(
        &mut self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        cooperative: bool,
        args: Args,
    ) -> Result<(), Fault> {
        let kernel = self.kernel(name);
        let params = &args.0;
        let cluster = None;
        let launch = Launch { kernel: &kernel, grid, block, dynamic_shared, params, cooperative, cluster };
        run(&launch, &mut self.memory, &LIMITS, self.schedule, &mut self.counters)
    }

    /// In clusters, on a device of so many multiprocessors.
    pub fn launch_clusters(
        &mut self,
        name: &str,
        [grid, cluster, block]: [u32; 3],
        multiprocessors: u32,
        args: Args,
    ) -> Result<(), Fault> {
        let kernel = self.kernel(name);
        let launch = Launch {
            kernel: &kernel,
            grid: [grid, 1, 1],
            block: [block, 1, 1],
            dynamic_shared: 0,
            params: &args.0,
            cooperative: false,
            cluster: Some([cluster, 1, 1]),
        };
        let limits = Limits { multiprocessors, ..LIMITS };
        run(&launch, &mut self.memory, &limits, self.schedule, &mut self.counters)
    }
}

/// Asserts that a launch ended badly in this way.
pub fn assert_fault(result: Result<(), Fault>, kind: FaultKind, part: &str) {
    let fault = result.expect_err("the launch should fail");
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(part), "{fault}");
}

/// Numbers that look random, in [-1, 1).
pub fn noise(count: usize) -> Vec<f32> {
    let mut state = 12345_u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
