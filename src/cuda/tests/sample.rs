//! Drawing pixels, and their likelihood: against `crate::logistic`, which is the CPU engine's.

use bytemuck::{Zeroable, bytes_of, cast_slice, pod_read_unaligned};

use super::{device, noise, offset};
use crate::cuda::kernels::Kernel;
use crate::cuda::layout::Grid;
use crate::cuda::stage::{Batch, Cursor, Sampler};
use crate::{logistic, philox};

const SIZE: usize = 5;
const WIDTH: usize = 4;
const HEIGHT: usize = 4;

/// Logits of a pixel: means and scales as a model has them, some at the bounds.
fn logits(mixtures: usize, next: &mut impl FnMut() -> f32) -> Vec<f32> {
    let mut all: Vec<f32> = (0..10 * mixtures).map(|_| 3.0 * next()).collect();
    for channel in 0..3 {
        for k in 0..mixtures {
            all[mixtures * (1 + 3 * channel) + k] = 1.2 * next();
            all[mixtures * (2 + 3 * channel) + k] = -4.0 + 5.0 * next();
        }
    }
    all
}

#[test]
fn sample() {
    let _turn = super::turn();
    for mixtures in [1usize, 3, 10, 40] {
        let device = device();
        let row_of_logits = (10 * mixtures).next_multiple_of(8);
        let columns = WIDTH as i32 + 2;
        let logits_grid = Grid { base: 0, rows: 1, above: 1, columns, channels: row_of_logits as i32 };
        let image_base = SIZE * (WIDTH + 2) * row_of_logits;
        let rows = HEIGHT as i32 + 2;
        let image = Grid { base: image_base as u64, rows, above: 2, columns, channels: 8 };
        let len = image_base + SIZE * (HEIGHT + 2) * (WIDTH + 2) * 8;
        let (row, column) = (2usize, 3usize);
        let mut next = noise(mixtures as u64);
        let mut host = vec![0.0; len];
        let all: Vec<_> = (0..SIZE).map(|_| logits(mixtures, &mut next)).collect();
        for (i, logits) in all.iter().enumerate() {
            let at = offset(&logits_grid, SIZE, i, row as i32, column as i32);
            host[at..at + logits.len()].copy_from_slice(logits);
        }
        let seed = 0x0123_4567_89ab_cdef;
        let u_mixture: Vec<f32> =
            (0..SIZE * HEIGHT * WIDTH * mixtures).map(|_| 0.5 + 0.49 * next()).collect();
        let u_logistic: Vec<f32> = (0..SIZE * HEIGHT * WIDTH * 3).map(|_| 0.5 + 0.49 * next()).collect();
        for (given, temperature) in [(false, 1.0), (true, 1.0), (false, 0.375), (true, 2.5)] {
            for broken in [None, Some(3)] {
                let mut host = host.clone();
                if let Some(image) = broken {
                    host[offset(&logits_grid, SIZE, image, row as i32, column as i32) + 1] = f32::NAN;
                }
                let arena = device.upload(cast_slice(&host)).unwrap();
                let cursor = Cursor { row: row as i32, column: column as i32, fault: u64::MAX };
                let cursor = device.upload(bytes_of(&cursor)).unwrap();
                let batch = Batch {
                    arena: arena.as_device_ptr().as_raw(),
                    cursor: cursor.as_device_ptr().as_raw(),
                    size: SIZE as i32,
                    height: HEIGHT as i32,
                    width: WIDTH as i32,
                    ..Batch::zeroed()
                };
                let kept = device.zeroed::<f32>(SIZE * HEIGHT * WIDTH * 10 * mixtures).unwrap();
                let noise = [&u_mixture, &u_logistic].map(|u| device.upload(cast_slice(u)).unwrap());
                let [mixture_noise, logistic_noise] = match given {
                    true => [noise[0].as_device_ptr().as_raw(), noise[1].as_device_ptr().as_raw()],
                    false => [0, 0],
                };
                let sampler = Sampler {
                    logits: logits_grid,
                    image,
                    seed,
                    mixture_noise,
                    logistic_noise,
                    kept_logits: kept.as_device_ptr().as_raw(),
                    first_index: 7,
                    mixtures: mixtures as i32,
                    temperature,
                    padding: 0,
                };
                let sampler = device.upload(bytes_of(&sampler)).unwrap();
                let address = sampler.as_device_ptr().as_raw();
                // Two warps for five images.
                // SAFETY: the arguments of sample_f32.
                unsafe {
                    device
                        .launch(Kernel::Sample, [1; 3], 64, &[bytes_of(&address), bytes_of(&batch)])
                        .unwrap()
                };
                let mut bytes = vec![0; len * 4];
                device.read(&arena, &mut bytes).unwrap();
                let found: &[f32] = cast_slice(&bytes);
                for (i, logits) in all.iter().enumerate() {
                    let mut u = vec![0.0; mixtures + 3];
                    philox::uniforms(seed, 7 + i as u32, row as u32, column as u32, &mut u);
                    let pixel = (i * HEIGHT + row) * WIDTH + column;
                    let (a, b) = match given {
                        true => (&u_mixture[pixel * mixtures..][..mixtures], &u_logistic[pixel * 3..][..3]),
                        false => u.split_at(mixtures),
                    };
                    let expected = match broken == Some(i) {
                        true => [0.0; 4],
                        false => {
                            let [r, g, b] = logistic::sample(logits, temperature, a, b);
                            [r, g, b, 1.0]
                        }
                    };
                    let at = offset(&image, SIZE, i, row as i32, column as i32);
                    for (found, expected) in found[at..at + 4].iter().zip(expected) {
                        let off = (found - expected).abs();
                        assert!(off < 2e-6, "{mixtures} mixtures at {temperature}: {found}, {expected}");
                    }
                }
                let mut bytes = [0; size_of::<Cursor>()];
                device.read(&cursor, &mut bytes).unwrap();
                let Cursor { row: next_row, column: next_column, fault } = pod_read_unaligned(&bytes);
                assert_eq!((next_row, next_column), (3, 0), "the cursor moves to the next row");
                let order = |image| ((row * WIDTH + column) * SIZE + image) as u64;
                assert_eq!(fault, broken.map_or(u64::MAX, order));
                let mut floats = vec![0.0; SIZE * HEIGHT * WIDTH * 10 * mixtures];
                device.read(&kept, &mut floats).unwrap();
                let pixel = (HEIGHT + row) * WIDTH + column;
                assert_eq!(floats[pixel * 10 * mixtures..][..10 * mixtures], all[1]);
            }
        }
    }
}

/// The engine refuses such numbers; a kernel that made an ordinary pixel of them would hide the next fault of
/// this kind.
#[test]
fn a_noise_that_is_not_a_number_makes_no_pixel() {
    let _turn = super::turn();
    let device = device();
    let row_of_logits = 16;
    let logits_grid = Grid { base: 0, rows: 1, above: 1, columns: 6, channels: row_of_logits };
    let image = Grid { base: 6 * 16, rows: 6, above: 2, columns: 6, channels: 8 };
    let mut host = vec![0.0; 6 * 16 + 6 * 6 * 8];
    let at = offset(&logits_grid, 1, 0, 0, 0);
    host[at..at + 10].copy_from_slice(&logits(1, &mut noise(1)));
    let arena = device.upload(cast_slice(&host)).unwrap();
    let cursor = device.upload(bytes_of(&Cursor { row: 0, column: 0, fault: u64::MAX })).unwrap();
    let batch = Batch {
        arena: arena.as_device_ptr().as_raw(),
        cursor: cursor.as_device_ptr().as_raw(),
        size: 1,
        height: 4,
        width: 4,
        ..Batch::zeroed()
    };
    let noise = [vec![f32::NAN; 16], vec![f32::NAN; 48]].map(|u| device.upload(cast_slice(&u)).unwrap());
    let sampler = Sampler {
        logits: logits_grid,
        image,
        mixture_noise: noise[0].as_device_ptr().as_raw(),
        logistic_noise: noise[1].as_device_ptr().as_raw(),
        mixtures: 1,
        temperature: 1.0,
        ..Sampler::zeroed()
    };
    let sampler = device.upload(bytes_of(&sampler)).unwrap();
    let address = sampler.as_device_ptr().as_raw();
    // SAFETY: the arguments of sample_f32.
    unsafe { device.launch(Kernel::Sample, [1; 3], 32, &[bytes_of(&address), bytes_of(&batch)]).unwrap() };
    let mut bytes = vec![0; host.len() * 4];
    device.read(&arena, &mut bytes).unwrap();
    let found: &[f32] = cast_slice(&bytes);
    let at = offset(&image, 1, 0, 0, 0);
    assert!(found[at..at + 3].iter().all(|x| x.is_nan()), "{:?}", &found[at..at + 3]);
}

/// `log_likelihood_f32` on some pixels `[positions][3]` and their logits `[positions][10 * mixtures]`, told
/// that there are `claimed` of them.
fn log_likelihoods(pixels: &[f32], logits: &[f32], mixtures: usize, claimed: u64) -> Vec<f64> {
    let device = device();
    let count = pixels.len() / 3;
    let [images, on_device] = [pixels, logits].map(|x| device.upload(cast_slice(x)).unwrap());
    let nats = device.zeroed::<f64>(count).unwrap();
    let (a, b) = (images.as_device_ptr().as_raw(), on_device.as_device_ptr().as_raw());
    let (c, m) = (nats.as_device_ptr().as_raw(), mixtures as i32);
    let args = [bytes_of(&a), bytes_of(&b), bytes_of(&c), bytes_of(&claimed), bytes_of(&m)];
    let blocks = if claimed > count as u64 { count / 128 } else { count.div_ceil(128) };
    // SAFETY: the arguments of log_likelihood_f32; no thread has a position beyond the arrays.
    unsafe { device.launch(Kernel::LogLikelihood, [blocks as u32, 1, 1], 128, &args).unwrap() };
    let mut found = vec![0.0; count];
    device.read(&nats, &mut found).unwrap();
    found
}

#[test]
fn log_likelihood() {
    let _turn = super::turn();
    for mixtures in [1, 3, 10] {
        let mut next = noise(77 + mixtures as u64);
        let count = 300;
        let all: Vec<f32> = (0..count).flat_map(|_| logits(mixtures, &mut next)).collect();
        // Every byte value, the edges among them.
        let pixels: Vec<f32> = (0..3 * count).map(|i| ((i * 7) % 256) as f32 / 127.5 - 1.0).collect();
        let found = log_likelihoods(&pixels, &all, mixtures, count as u64);
        for (i, found) in found.iter().enumerate() {
            let pixel = [pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]];
            let expected = logistic::log_likelihood(&all[i * 10 * mixtures..][..10 * mixtures], pixel);
            let off = (found - expected).abs() / expected.abs().max(1.0);
            assert!(off < 1e-9, "{mixtures} mixtures: {found}, {expected}");
        }
    }
}

#[test]
fn a_logit_that_is_not_finite_has_no_likelihood() {
    let _turn = super::turn();
    for mixtures in [1, 3] {
        let mut next = noise(5);
        let depth = 10 * mixtures;
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // Each pixel has one such logit, each of them in turn; then all; then none. At -1, 0 and 1.
            let count = 3 * (depth + 2);
            let mut all: Vec<f32> = (0..count).flat_map(|_| logits(mixtures, &mut next)).collect();
            for (i, logits) in all.chunks_exact_mut(depth).enumerate() {
                let what = i / 3;
                match what.cmp(&depth) {
                    std::cmp::Ordering::Less => logits[what] = value,
                    std::cmp::Ordering::Equal => logits.fill(value),
                    std::cmp::Ordering::Greater => {}
                }
            }
            let pixels: Vec<f32> = (0..count).flat_map(|i| [i as f32 % 3.0 - 1.0; 3]).collect();
            for (i, found) in log_likelihoods(&pixels, &all, mixtures, count as u64).iter().enumerate() {
                let sound = i >= 3 * (depth + 1);
                assert_eq!(found.is_finite(), sound, "{value}, pixel {i}: {found}");
                assert_eq!(found.is_nan(), !sound, "{value}, pixel {i}: {found}");
            }
        }
    }
}

/// Only the first block of a launch that would need the memory of a data centre.
#[test]
fn likelihoods_are_counted_beyond_32_bits() {
    let _turn = super::turn();
    let mut next = noise(6);
    let all: Vec<f32> = (0..128).flat_map(|_| logits(1, &mut next)).collect();
    let pixels: Vec<f32> = (0..3 * 128).map(|i| (i % 256) as f32 / 127.5 - 1.0).collect();
    let few = log_likelihoods(&pixels, &all, 1, 128);
    assert!(few.iter().all(|nats| *nats != 0.0));
    for claimed in [1 << 31, (1 << 32) + 1] {
        assert_eq!(log_likelihoods(&pixels, &all, 1, claimed), few, "{claimed}");
    }
}
