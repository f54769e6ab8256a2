//! How fast a tiled product runs: `cargo run --release -p vgpu --example gemm`.

use vgpu::counters::Counters;
use vgpu::exec::{Launch, Limits, Schedule, run};
use vgpu::memory::Memory;
use vgpu::program::Module;

fn main() {
    let mut memory = Memory::new(1 << 30);
    let module = Module::load(include_str!("../tests/ptx/a75.ptx"), &mut memory).expect("the module loads");
    let kernel = module.kernels.iter().find(|k| k.name == "sgemm").expect("it has the kernel");
    let n = 512_u32;
    let matrix = memory.alloc(u64::from(n * n * 4), "a matrix").expect("there is room");
    memory.fill(matrix, u64::from(n * n * 4), &1.0_f32.to_le_bytes()).expect("it is inside");
    let product = memory.alloc(u64::from(n * n * 4), "the product").expect("there is room");
    let mut params = Vec::new();
    [n, n, n, 0].iter().for_each(|v| params.extend(v.to_le_bytes()));
    [matrix, matrix, product].iter().for_each(|v| params.extend(v.to_le_bytes()));
    let launch = Launch {
        kernel,
        grid: [n / 64, n / 64, 1],
        block: [256, 1, 1],
        dynamic_shared: 0,
        params: &params,
        cooperative: false,
        cluster: None,
    };
    let limits = Limits {
        multiprocessors: 8,
        max_threads_per_block: 1024,
        max_blocks_per_multiprocessor: 16,
        max_threads_per_multiprocessor: 2048,
        shared_per_multiprocessor: 65536,
        shared_per_block: 49152,
        reserved_shared_per_block: 0,
        registers_per_multiprocessor: 65536,
        registers_per_thread: 255,
    };
    for _ in 0..3 {
        let mut counters = Counters::default();
        let start = std::time::Instant::now();
        run(&launch, &mut memory, &limits, Schedule::default(), &mut counters).expect("it runs");
        let seconds = start.elapsed().as_secs_f64();
        let all = counters.kernels["sgemm"].all_instructions();
        println!(
            "{seconds:.3} s, {:.0} million thread instructions per second",
            all.threads as f64 / seconds / 1e6
        );
    }
}
