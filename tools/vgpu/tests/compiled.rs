//! Kernels that nvcc compiled, for four architectures, against plain Rust.

mod common;

use common::{Args, Device, noise};
use vgpu::exec::Schedule;

const A: [&str; 4] = [
    include_str!("ptx/a75.ptx"),
    include_str!("ptx/a80.ptx"),
    include_str!("ptx/a90.ptx"),
    include_str!("ptx/a100.ptx"),
];
const B: [&str; 4] = [
    include_str!("ptx/b75.ptx"),
    include_str!("ptx/b80.ptx"),
    include_str!("ptx/b90.ptx"),
    include_str!("ptx/b100.ptx"),
];

const C: &str = include_str!("ptx/c90.ptx");

/// Runs a test on each architecture, in order and in random orders.
fn everywhere(sources: [&str; 4], test: impl Fn(&mut Device)) {
    for source in sources {
        for seed in [None, Some(1), Some(2)] {
            let mut device = Device::new(source);
            device.schedule = Schedule { seed, perturb: false };
            test(&mut device);
        }
    }
}

#[test]
fn sgemm() {
    everywhere(A, |d| {
        let (m, n, k) = (128, 64, 48);
        let (a, b) = (noise(m * k), noise(k * n));
        let (pa, pb, pc) = (d.put(&a), d.put(&b), d.memory.alloc((m * n * 4) as u64, "c").unwrap());
        let args = Args::new().and(m as i32).and(n as i32).and(k as i32).and(pa).and(pb).and(pc);
        d.launch("sgemm", [1, 2, 1], [256, 1, 1], args).unwrap();
        let c: Vec<f32> = d.get(pc, m * n);
        for i in 0..m {
            for j in 0..n {
                let sum = (0..k).fold(0.0_f32, |s, l| a[i * k + l].mul_add(b[l * n + j], s));
                assert_eq!(c[i * n + j], sum, "{i} {j}");
            }
        }
    });
}

#[test]
fn reduce() {
    everywhere(A, |d| {
        let x: Vec<f32> = (0..1000).map(|k| (k % 17) as f32).collect();
        let (px, po) = (d.put(&x), d.put(&[0.0_f32]));
        d.launch("reduce", [3, 1, 1], [128, 1, 1], Args::new().and(px).and(po).and(1000)).unwrap();
        assert_eq!(d.get::<f32>(po, 1)[0], x.iter().sum::<f32>());
    });
}

#[test]
fn grid_barrier() {
    everywhere(A, |d| {
        let n = 8 * 64;
        let x: Vec<f32> = (0..n).map(|k| k as f32).collect();
        let (counter, px) = (d.put(&[0_u32]), d.put(&x));
        d.launch_with("spin", [8, 1, 1], [64, 1, 1], 0, true, Args::new().and(counter).and(px).and(3))
            .unwrap();
        let mut expected = x;
        for _ in 0..3 {
            expected = (0..n).map(|k| expected[(k + 33) % n] + 1.0).collect();
        }
        assert_eq!(d.get::<f32>(px, n), expected);
    });
}

#[test]
fn cooperative_groups() {
    everywhere(B, |d| {
        let n = 6 * 32;
        let x: Vec<f32> = (0..n).map(|k| k as f32).collect();
        let px = d.put(&x);
        d.launch_with("gsync", [6, 1, 1], [32, 1, 1], 0, true, Args::new().and(px).and(n as i32)).unwrap();
        let mut expected = x;
        for _ in 0..3 {
            expected = (0..n).map(|k| expected[(k + 1) % n] + 1.0).collect();
        }
        assert_eq!(d.get::<f32>(px, n), expected);
    });
}

#[test]
fn integers() {
    everywhere(A, |d| {
        let a: Vec<i32> = (0..64).map(|k: i32| k.wrapping_mul(0x1234_5679) ^ 77).collect();
        let b: Vec<i32> = (0..64).map(|k: i32| (k - 30) * 1001 + 7).collect();
        let l: Vec<i64> = a.iter().map(|&x| i64::from(x) * 0x1_0001).collect();
        let (pa, pb, pl) = (d.put(&a), d.put(&b), d.put(&l));
        let (q, r, w) = (d.put(&[0_i32; 64]), d.put(&[0_i32; 64]), d.put(&[0_u64; 64]));
        let args = Args::new().and(pa).and(pb).and(q).and(r).and(w).and(pl);
        d.launch("idiv", [1, 1, 1], [64, 1, 1], args).unwrap();
        for k in 0..64 {
            assert_eq!(d.get::<i32>(q, 64)[k], a[k] / b[k]);
            assert_eq!(d.get::<i32>(r, 64)[k], a[k] % b[k]);
            assert_eq!(d.get::<u64>(w, 64)[k], u64::from(a[k] as u32) / u64::from((b[k] | 1) as u32) * 7);
            let high = ((i128::from(l[k]) * i128::from(l[k])) >> 64) as i64;
            let expected = l[k].wrapping_mul(1_234_567_891_011) / i64::from(b[k] | 1) + high;
            assert_eq!(d.get::<i64>(pl, 64)[k], expected);
        }
    });
}

/// The error in units in the last place of the expected value.
fn ulps(found: f32, expected: f64) -> f64 {
    let unit = f64::from((expected as f32).abs().next_up()) - f64::from((expected as f32).abs());
    (f64::from(found) - expected).abs() / unit
}

#[test]
fn functions() {
    everywhere(A, |d| {
        let x: Vec<f32> = noise(64).iter().map(|v| v * 8.0).collect();
        let doubles: Vec<f64> = noise(64).iter().map(|v| f64::from(v.abs()) * 5.0 + 0.1).collect();
        let (px, py, pd) = (d.put(&x), d.memory.alloc(64 * 48, "y").unwrap(), d.put(&doubles));
        d.launch("maths", [2, 1, 1], [32, 1, 1], Args::new().and(px).and(py).and(pd)).unwrap();
        let y: Vec<f32> = d.get(py, 64 * 12);
        let e: Vec<f64> = d.get(pd, 64);
        for k in 0..64 {
            let v = f64::from(x[k]);
            let big = f64::from(x[k] * 1e6);
            let expected = [
                (v.exp(), 2.0),
                (v.abs().ln(), 2.0),
                (v.tanh(), 2.0),
                (v.exp_m1(), 2.0),
                (v.abs().ln_1p(), 2.0),
                (big.sin(), 2.0),
                (1.0 / (1.0 + (-v).exp()), 4.0),
                (v.abs().sqrt(), 0.5),
                (v.abs().powf(f64::from(1.3_f32)), 4.0),
                (1.0 / v.abs().sqrt(), 2.0),
                (f64::from(x[k] / (x[k] + 3.0)), 0.0),
            ];
            for (j, (expected, most)) in expected.into_iter().enumerate() {
                let error = ulps(y[12 * k + j], expected);
                assert!(error <= most + 0.01, "function {j} of {v}: {} for {expected}", y[12 * k + j]);
            }
            let z = doubles[k];
            let expected =
                z.exp() * z.abs().ln() + z.sqrt() / 3.0 + z.powf(3.3) + z.floor() + f64::from(z as i32);
            assert!((e[k] - expected).abs() <= 1e-13 * expected.abs() + 1e-13, "{} {expected}", e[k]);
        }
    });
}

#[test]
fn philox() {
    everywhere(A, |d| {
        let out = d.memory.alloc(2 * 32 * 16, "out").unwrap();
        d.launch(
            "philox",
            [2, 1, 1],
            [32, 1, 1],
            Args::new().and(out).and(0xa409_3822_u32).and(0x299f_31d0_u32),
        )
        .unwrap();
        let found: Vec<u32> = d.get(out, 256);
        for block in 0..2_u32 {
            for thread in 0..32_u32 {
                let (mut c, mut k) = ([thread, block, 0, 0], [0xa409_3822_u32, 0x299f_31d0_u32]);
                for _ in 0..10 {
                    let p0 = u64::from(c[0]) * 0xd251_1f53;
                    let p1 = u64::from(c[2]) * 0xcd9e_8d57;
                    c = [
                        (p1 >> 32) as u32 ^ c[1] ^ k[0],
                        p1 as u32,
                        (p0 >> 32) as u32 ^ c[3] ^ k[1],
                        p0 as u32,
                    ];
                    k = [k[0].wrapping_add(0x9e37_79b9), k[1].wrapping_add(0xbb67_ae85)];
                }
                let at = 4 * (block * 32 + thread) as usize;
                assert_eq!(found[at..at + 4], c);
            }
        }
    });
}

#[test]
fn calls_and_divergence() {
    everywhere(A, |d| {
        let a: Vec<f32> = noise(32);
        let pa = d.put(&a);
        d.launch("calls", [1, 1, 1], [32, 1, 1], Args::new().and(pa).and(7)).unwrap();
        let found: Vec<f32> = d.get(pa, 32);
        for k in 0..32 {
            let q = [a[k], a[k] * 2.0, a[k] * 3.0];
            let mut v = a[k];
            for i in 0..k % 7 {
                if i == 3 {
                    break;
                }
                v = v.mul_add(q[0], q[1] * q[2]);
            }
            assert_eq!(found[k], v, "{k}");
        }
        let v: Vec<i32> = (0..32).map(|k| (k % 9) * (1 + k / 9)).collect();
        let pv = d.put(&v);
        d.launch("sw", [1, 1, 1], [32, 1, 1], Args::new().and(pv)).unwrap();
        let expected: Vec<i32> = v
            .iter()
            .map(|&v| match v {
                0 => 7,
                1 => 3,
                2 => -98,
                3 => 3 ^ 0x55,
                4 => (4_i32 * 77).count_ones() as i32,
                5 => 5_i32.leading_zeros() as i32,
                6 => 6_i32.reverse_bits(),
                7 => 1,
                _ => -1,
            })
            .collect();
        assert_eq!(d.get::<i32>(pv, 32), expected);
    });
}

#[test]
fn structures_by_value() {
    everywhere(A, |d| {
        let out = d.memory.alloc(32 * 4, "out").unwrap();
        // struct { float *a; int n; float s; double d; short h; char c; int dims[4]; }
        let args = Args::new().and(out).and(20).and(1.5_f32).and(0.25_f64).and(-3_i16).and(4_i8);
        let args = args.and(10).and(20).and(30).and(40).and(0_i32).and(9_u8);
        assert_eq!(args.0.len(), 49);
        d.launch("byval", [1, 1, 1], [32, 1, 1], args).unwrap();
        let expected: Vec<f32> =
            (0..20).map(|k| 1.5 * [10.0, 20.0, 30.0, 40.0][k & 3] + 0.25 - 3.0 + 4.0 + 9.0).collect();
        assert_eq!(d.get::<f32>(out, 20), expected);
    });
}

#[test]
fn atomics() {
    everywhere(B, |d| {
        let (a, u, l) =
            (d.put(&[0_i32, 5, 5, -1, 0, 0, 0, 5, 0]), d.put(&[0_u32; 114]), d.put(&[0_u64, 0, 1, 0]));
        let a2 = d.put(&vec![0_i32; 400]);
        d.memory.copy(a2, a, 36).unwrap();
        let (f, dd) = (d.put(&vec![0.0_f32; 200]), d.put(&[0.0_f64]));
        d.launch("atoms", [1, 1, 1], [64, 1, 1], Args::new().and(a2).and(u).and(l).and(f).and(dd)).unwrap();
        let a: Vec<i32> = d.get(a2, 301);
        let and = (0..64).fold(-1, |m, k: i32| m & !k);
        assert_eq!(a[..9], [64, 0, 63, and, 63, 0, a[6], 6, -64]);
        assert_eq!(a[300], 128);
        assert_eq!(a[200..264].iter().filter(|&&v| v == 5).count(), 1);
        let mut taken: Vec<i32> = a[100..164].iter().copied().chain([a[6]]).collect();
        taken.sort_unstable();
        let mut all: Vec<i32> = (0..64).chain([0]).collect();
        all.sort_unstable();
        assert_eq!(taken, all);
        assert_eq!(d.get::<u32>(u, 2), [64 % 11, 2]);
        assert_eq!(d.get::<u64>(l, 4), [192, 5, 2, 8]);
        assert_eq!((d.get::<f32>(f, 2), d.get::<f64>(dd, 1)[0]), (vec![96.0, 64.0], 160.0));
    });
}

#[test]
fn votes() {
    for (source, reduces) in B.into_iter().zip([false, true, true, true]) {
        let mut d = Device::new(source);
        let out = d.memory.alloc(64 * 4, "out").unwrap();
        d.launch("votes", [1, 1, 1], [64, 1, 1], Args::new().and(out)).unwrap();
        let found: Vec<u32> = d.get(out, 64);
        for i in 0..64_u32 {
            let (warp, lane) = (i / 32 * 32, i % 32);
            let ballot = (0..32).filter(|k| (warp + k) % 3 == 0).fold(0_u32, |m, k| m | 1 << k);
            let all = u32::from(warp == 0);
            let up = if lane >= 2 { i - 2 } else { i };
            let mut e =
                ballot.wrapping_add(1 + all).wrapping_add(warp + 5).wrapping_add(up).wrapping_add(i ^ 1);
            e = e.wrapping_add(32).wrapping_add(1).wrapping_add(1);
            if reduces {
                e = e.wrapping_add((warp..warp + 32).sum::<u32>()).wrapping_add(warp + 31);
            }
            let same = (0..32).filter(|k| k & 3 == i & 3).fold(0_u32, |m, k| m | 1 << k);
            e = e.wrapping_add(same).wrapping_add(u32::MAX).wrapping_add(1);
            assert_eq!(found[i as usize], e, "{i}");
        }
    }
}

#[test]
fn variables_and_memories() {
    everywhere(B, |d| {
        let a = d.put(&[0.0_f32; 32]);
        let (ptr, big) = (d.module.globals.iter().find(|g| g.name == "big").unwrap().address, 400);
        d.memory.fill(ptr, big, &1.0_f32.to_le_bytes()).unwrap();
        d.launch("glob", [1, 1, 1], [32, 1, 1], Args::new().and(a)).unwrap();
        let tab = [1.0, 2.0, 3.0, 4.0];
        let expected: Vec<f32> =
            (0..32).map(|i| tab.get(i & 15).unwrap_or(&0.0) + 1.0 + (5 + i) as f32).collect();
        assert_eq!(d.get::<f32>(a, 32), expected);

        let a = d.put(&(0..32).map(|k| k as f32).collect::<Vec<_>>());
        d.launch_with("dyn", [1, 1, 1], [32, 1, 1], 128, false, Args::new().and(a)).unwrap();
        let expected: Vec<f32> = (0..32).map(|i| ((i ^ 1) + (i & 7)) as f32).collect();
        assert_eq!(d.get::<f32>(a, 32), expected);

        for which in [0, 1] {
            let a = d.put(&[0.0_f32; 128]);
            d.launch("gen", [1, 1, 1], [64, 1, 1], Args::new().and(a).and(which)).unwrap();
            assert_eq!(d.get::<f32>(a, 128)[64..], [1.0; 64]);
        }

        let a: Vec<i32> = (0..32).map(|k| k * 5 % 32).collect();
        let pa = d.put(&a);
        d.launch("loc", [1, 1, 1], [1, 1, 1], Args::new().and(pa).and(20)).unwrap();
        let mut buf: Vec<i32> = (0..32).map(|i| i * 20).collect();
        let mut s = 0;
        for i in 0..20 {
            buf[(i * 7) & 31] += s;
            s += buf[(a[i] & 31) as usize];
        }
        assert_eq!(d.get::<i32>(pa, 1)[0], s);
    });
}

#[test]
fn asynchronous_copies() {
    everywhere([B[1], B[1], B[2], B[3]], |d| {
        let a: Vec<f32> = (0..512).map(|k| k as f32).collect();
        let (pa, po) = (d.put(&a), d.memory.alloc(96 * 4, "o").unwrap());
        d.launch("pipe", [1, 1, 1], [32, 1, 1], Args::new().and(pa).and(po)).unwrap();
        let expected: Vec<f32> = (0..96).map(|i| a[i / 32 * 128 + ((i % 32) ^ 1)]).collect();
        assert_eq!(d.get::<f32>(po, 96), expected);
    });
}

#[test]
fn halves_and_bytes() {
    everywhere(B, |d| {
        // 1.5 in both formats, and 2.0 twice.
        let (h, b) = (d.put(&[0x3e00_u16; 32]), d.put(&[0x3fc0_u16; 32]));
        let (f, h2) = (d.put(&[0.0_f32; 32]), d.put(&[0x4000_4000_u32; 32]));
        d.launch("halfs", [1, 1, 1], [32, 1, 1], Args::new().and(h).and(b).and(f).and(h2)).unwrap();
        assert_eq!(d.get::<f32>(f, 1)[0], 3.0);
        assert_eq!((d.get::<u16>(h, 1)[0], d.get::<u16>(b, 1)[0]), (0x4600, 0x4110));
        // 4 * 4 + 4 = 20
        assert_eq!(d.get::<u32>(h2, 1)[0], 0x4d00_4d00);
    });
}

#[test]
fn clusters_of_sixteen() {
    let (images, rounds) = (4, 5);
    let x: Vec<f32> = noise(images * 16 * 64);
    let mut expected = x.clone();
    for image in expected.chunks_mut(16 * 64) {
        for _ in 0..rounds {
            let before = image.to_vec();
            for (at, value) in image.iter_mut().enumerate() {
                *value = (0..16).fold(0.0_f32, |sum, k| sum.mul_add(0.5, before[k * 64 + at % 64]));
            }
        }
    }
    for multiprocessors in [6, 33, 132] {
        for seed in [None, Some(1), Some(2), Some(3)] {
            let mut d = Device::new(C);
            d.schedule = Schedule { seed, perturb: false };
            for kernel in ["rounds", "sends"] {
                let (px, po) = (d.put(&x), d.memory.alloc((x.len() * 4) as u64, "out").unwrap());
                let args = Args::new().and(px).and(po).and(rounds);
                d.launch_clusters(kernel, [images as u32 * 16, 16, 64], multiprocessors, args).unwrap();
                assert_eq!(d.get::<f32>(po, x.len()), expected);
            }
            let counted = &d.counters.kernels["rounds"];
            assert_eq!(counted.cluster_barriers, images as u64 * (rounds as u64 + 2));
            // Two warps of each block send to fifteen others in each round.
            let requests = images as u64 * 16 * 15 * 2 * rounds as u64;
            assert_eq!(
                (counted.distributed_stores.requests, counted.distributed_stores.bytes),
                (requests, requests * 128)
            );
            assert_eq!(counted.shared_stores.requests, requests / 15);
            assert_eq!(counted.distributed_loads.requests, 0);
            let counted = &d.counters.kernels["sends"];
            // One of them sends two words of each thread, to all sixteen, whose barriers both wait at.
            let (phases, requests) = (images as u64 * 16 * rounds as u64, requests / 30 * 16);
            assert_eq!(
                (counted.async_stores.requests, counted.async_stores.bytes),
                (requests, requests * 256)
            );
            assert_eq!(counted.distributed_stores.requests, 0);
            assert_eq!((counted.mbarrier_phases, counted.mbarrier_waits), (phases, 2 * phases));
        }
    }
}

#[test]
fn cluster_groups() {
    for seed in [None, Some(1), Some(2), Some(3)] {
        let mut d = Device::new(C);
        d.schedule = Schedule { seed, perturb: false };
        let out = d.memory.alloc(8 * 32 * 4, "out").unwrap();
        d.launch_clusters("groups", [8, 4, 32], 8, Args::new().and(out)).unwrap();
        let expected: Vec<i32> = (0..8 * 32)
            .map(|k| {
                let (me, t) = (k / 32 % 4, k % 32);
                let (next, added) = ((me + 1) % 4, if me == 0 { 4000 } else { 0 });
                next * 100 + t + (me * 100 + t + added) * 10_000 + next
            })
            .collect();
        assert_eq!(d.get::<i32>(out, 8 * 32), expected);
    }
}
