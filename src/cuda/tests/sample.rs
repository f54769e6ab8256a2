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
        for given in [false, true] {
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
                            let [r, g, b] = logistic::sample(logits, a, b);
                            [r, g, b, 1.0]
                        }
                    };
                    let at = offset(&image, SIZE, i, row as i32, column as i32);
                    for (found, expected) in found[at..at + 4].iter().zip(expected) {
                        assert!((found - expected).abs() < 2e-6, "{mixtures} mixtures: {found}, {expected}");
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

#[test]
fn log_likelihood() {
    let _turn = super::turn();
    let device = device();
    for mixtures in [1, 3, 10] {
        let mut next = noise(77 + mixtures as u64);
        let count = 300;
        let all: Vec<f32> = (0..count).flat_map(|_| logits(mixtures, &mut next)).collect();
        // Every byte value, the edges among them.
        let pixels: Vec<f32> = (0..3 * count).map(|i| ((i * 7) % 256) as f32 / 127.5 - 1.0).collect();
        let [images, on_device] = [&pixels, &all].map(|x| device.upload(cast_slice(x)).unwrap());
        let nats = device.zeroed::<f64>(count).unwrap();
        let (a, b) = (images.as_device_ptr().as_raw(), on_device.as_device_ptr().as_raw());
        let (c, positions, m) = (nats.as_device_ptr().as_raw(), count as i32, mixtures as i32);
        let args = [bytes_of(&a), bytes_of(&b), bytes_of(&c), bytes_of(&positions), bytes_of(&m)];
        // SAFETY: the arguments of log_likelihood_f32.
        unsafe { device.launch(Kernel::LogLikelihood, [3, 1, 1], 128, &args).unwrap() };
        let mut found = vec![0.0; count];
        device.read(&nats, &mut found).unwrap();
        for (i, found) in found.iter().enumerate() {
            let pixel = [pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]];
            let expected = logistic::log_likelihood(&all[i * 10 * mixtures..][..10 * mixtures], pixel);
            let off = (found - expected).abs() / expected.abs().max(1.0);
            assert!(off < 1e-9, "{mixtures} mixtures: {found}, {expected}");
        }
    }
}
