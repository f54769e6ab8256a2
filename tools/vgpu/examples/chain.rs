//! What it costs to wait: a chain of blocks, each of which polls for what the one before hands over.
//!
//! `cargo run --release -p vgpu --example chain [ROUNDS [SEED]]`

use std::time::Instant;

use vgpu::counters::Counters;
use vgpu::device::Device;
use vgpu::exec::{Launch, Schedule, run};
use vgpu::memory::Memory;
use vgpu::program::Module;

/// The last block begins; each block waits for the words of the one after it, the last for those of block 0
/// in the round before, so that blocks that run in their order always look too early.
const CHAIN: &str = "
.version 7.0
.target sm_75
.address_size 64
.visible .entry chain(.param .u64 p, .param .u32 rounds)
{
.reg .pred %p<4>; .reg .b32 %r<8>; .reg .f32 %f<2>; .reg .b64 %d<4>;
ld.param.u64 %d0, [p]; ld.param.u32 %r0, [rounds];
mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %nctaid.x;
sub.u32 %r2, %r3, %r2; sub.u32 %r2, %r2, 1;
mad.lo.s32 %r4, %r2, 128, %r1; mul.wide.u32 %d1, %r4, 4; add.s64 %d0, %d0, %d1;
ROUND:
WAIT: ld.relaxed.gpu.global.f32 %f0, [%d0]; mov.b32 %r5, %f0;
setp.eq.s32 %p0, %r5, -1; @%p0 bra WAIT;
add.f32 %f0, %f0, 0f3F800000;
st.relaxed.gpu.global.f32 [%d0+512], %f0;
mul.wide.u32 %d1, %r3, 512; add.s64 %d0, %d0, %d1;
sub.u32 %r0, %r0, 1; setp.ne.u32 %p1, %r0, 0; @%p1 bra ROUND;
ret;
}
";

fn main() {
    let mut numbers = std::env::args().skip(1).map(|n| n.parse::<u64>().expect("a number"));
    let rounds = numbers.next().unwrap_or(10) as u32;
    let seed = numbers.next().filter(|&seed| seed != 0);
    let blocks = 132;
    let mut memory = Memory::new(1 << 30);
    let module = Module::load(CHAIN, &mut memory).expect("it is PTX");
    let bytes = u64::from(blocks * rounds + 1) * 512;
    let p = memory.alloc(bytes, "rows").expect("there is room");
    memory.fill(p, bytes, &[0xff]).expect("it is allocated");
    memory.fill(p, 512, &[0]).expect("it is allocated");
    let mut params = p.to_le_bytes().to_vec();
    params.extend(rounds.to_le_bytes());
    let device = Device::named("h100").expect("it is known");
    let launch = Launch {
        kernel: &module.kernels[0],
        grid: [blocks, 1, 1],
        block: [128, 1, 1],
        dynamic_shared: 0,
        params: &params,
        cooperative: true,
        cluster: None,
    };
    let mut counters = Counters::default();
    let began = Instant::now();
    let schedule = Schedule { seed, perturb: false };
    run(&launch, &mut memory, &device.limits, schedule, &mut counters).expect("it keeps the rules");
    let seconds = began.elapsed().as_secs_f64();
    let warps = counters.kernels["chain"].instructions.values().map(|n| n.warps).sum::<u64>();
    let mut last = [0; 4];
    memory.read(p + bytes - 4, &mut last).expect("it is written");
    assert_eq!(f32::from_le_bytes(last), (blocks * rounds) as f32);
    println!("{rounds} rounds of {blocks} blocks: {warps} instructions of a warp, {seconds:.3} seconds");
}
