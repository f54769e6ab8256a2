//! Drawing pixels, and their likelihood: against `crate::heads`, which is the CPU engine's.

use bytemuck::{Zeroable, bytes_of, cast_slice, pod_read_unaligned};

use super::{device, noise, offset};
use crate::cuda::abi::{self, Batch, Cursor, Grid, Sampler};
use crate::cuda::driver::Shape;
use crate::cuda::kernels::Kernel;
use crate::cuda::stage::padded;
use crate::heads::{Head, categorical};
use crate::philox;

const SIZE: usize = 5;
const WIDTH: usize = 4;
const HEIGHT: usize = 4;
const PIXELS: usize = SIZE * HEIGHT * WIDTH;
/// Where pixels are drawn.
const AT: [usize; 2] = [2, 3];
const SEED: u64 = 0x0123_4567_89ab_cdef;

fn mixture(mixtures: usize, channels: usize) -> Head {
    Head::MixtureOfLogistics { mixtures, channels }
}

/// Heads of fewer and of more components or symbols than a warp has lanes.
fn heads() -> Vec<Head> {
    let three = [1, 3, 10, 40].map(|mixtures| mixture(mixtures, 3));
    let one = [1, 10, 33].map(|mixtures| mixture(mixtures, 1));
    let symbols = [2, 11, 32, 256, 300].map(|symbols| Head::Categorical { symbols });
    [&three[..], &one, &symbols].concat()
}

/// Logits of a pixel: means and scales as a model has them, some at the bounds.
fn logits(head: Head, next: &mut impl FnMut() -> f32) -> Vec<f32> {
    let mut all: Vec<f32> = (0..head.logits()).map(|_| 3.0 * next()).collect();
    if let Head::MixtureOfLogistics { mixtures, channels } = head {
        let numbers = if channels == 1 { 2 } else { 3 };
        for channel in 0..channels {
            for k in 0..mixtures {
                all[mixtures * (1 + numbers * channel) + k] = 1.2 * next();
                all[mixtures * (2 + numbers * channel) + k] = -4.0 + 5.0 * next();
            }
        }
    }
    all
}

/// What a launch of the sampler is tried on, and what it left.
struct Trial<'a> {
    head: Head,
    /// Of each image's pixel.
    logits: &'a [Vec<f32>],
    /// `[PIXELS][draws]`, or none for Philox.
    noise: Option<&'a [f32]>,
    temperature: f32,
    ones: bool,
}

struct Drawn {
    /// Of each image the values, and the place behind them.
    pixels: Vec<Vec<f32>>,
    cursor: Cursor,
    /// `[PIXELS][logits]`.
    kept: Vec<f32>,
}

impl Trial<'_> {
    fn run(&self) -> Drawn {
        let (device, head) = (device(), self.head);
        let ([row, column], columns) = (AT, WIDTH as i32 + 2);
        let channels = padded(head.logits());
        let logits = Grid { base: channels as u64, rows: 1, above: 1, columns, channels: channels as i32 };
        let before = SIZE * (WIDTH + 2) * channels;
        let image = Grid { base: before as u64 + 8, rows: HEIGHT as i32 + 2, above: 2, columns, channels: 8 };
        let mut host = vec![0.0; before + SIZE * (HEIGHT + 2) * (WIDTH + 2) * 8];
        let place = |grid: &Grid, i| offset(grid, SIZE, i, row as i32, column as i32);
        for (i, numbers) in self.logits.iter().enumerate() {
            let at = place(&logits, i);
            host[at..at + numbers.len()].copy_from_slice(numbers);
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
        let kept = device.zeroed::<f32>(PIXELS * head.logits()).unwrap();
        let noise = self.noise.map(|noise| device.upload(cast_slice(noise)).unwrap());
        let sampler = Sampler {
            logits,
            image,
            seed: SEED,
            noise: noise.as_ref().map_or(0, |noise| noise.as_device_ptr().as_raw()),
            kept_logits: kept.as_device_ptr().as_raw(),
            head: head.into(),
            first_index: 7,
            temperature: self.temperature,
            ones: i32::from(self.ones),
            padding: 0,
        };
        let sampler = device.upload(bytes_of(&sampler)).unwrap();
        let address = sampler.as_device_ptr().as_raw();
        // Two warps for five images.
        // SAFETY: the arguments of sample_f32.
        unsafe {
            let args = [bytes_of(&address), bytes_of(&batch)];
            device.launch(Kernel::Sample, Shape::row(1, 64), &args).unwrap()
        };
        let mut bytes = vec![0; host.len() * 4];
        device.read(&arena, &mut bytes).unwrap();
        let found: &[f32] = cast_slice(&bytes);
        let pixel = |i| found[place(&image, i)..][..head.values() + 1].to_vec();
        let mut bytes = [0; size_of::<Cursor>()];
        device.read(&cursor, &mut bytes).unwrap();
        let mut floats = vec![0.0; PIXELS * head.logits()];
        device.read(&kept, &mut floats).unwrap();
        Drawn { pixels: (0..SIZE).map(pixel).collect(), cursor: pod_read_unaligned(&bytes), kept: floats }
    }
}

#[test]
fn sample() {
    let _turn = super::turn();
    let [row, column] = AT;
    let pixel = |image: usize| (image * HEIGHT + row) * WIDTH + column;
    for (n, head) in heads().into_iter().enumerate() {
        let mut next = noise(n as u64 + 1);
        let all: Vec<_> = (0..SIZE).map(|_| logits(head, &mut next)).collect();
        let given: Vec<f32> = (0..PIXELS * head.draws()).map(|_| 0.5 + 0.49 * next()).collect();
        for (given, temperature, ones) in
            [(None, 1.0, true), (Some(&given), 1.0, false), (None, 0.375, true), (Some(&given), 2.5, true)]
        {
            for broken in [None, Some(3)] {
                let mut logits = all.clone();
                if let Some(image) = broken {
                    logits[image][1] = f32::NAN;
                }
                let noise = given.map(|given| &given[..]);
                let drawn = Trial { head, logits: &logits, noise, temperature, ones }.run();
                for (i, logits) in logits.iter().enumerate() {
                    let mut uniforms = vec![0.0; head.draws()];
                    match given {
                        Some(given) => {
                            uniforms.copy_from_slice(&given[pixel(i) * head.draws()..][..head.draws()])
                        }
                        None => {
                            philox::uniforms(SEED, 7 + i as u32, row as u32, column as u32, &mut uniforms)
                        }
                    }
                    let mut expected = vec![0.0; head.values() + 1];
                    if broken != Some(i) {
                        head.sample(logits, temperature, &uniforms, &mut expected[..head.values()]);
                        expected[head.values()] = f32::from(u8::from(ones));
                    }
                    for (found, expected) in drawn.pixels[i].iter().zip(expected) {
                        let off = (found - expected).abs();
                        assert!(off < 2e-6, "{head:?} at {temperature}: {found}, {expected}");
                    }
                }
                let Cursor { row: next_row, column: next_column, fault } = drawn.cursor;
                assert_eq!((next_row, next_column), (3, 0), "the cursor moves to the next row");
                let order = |image| ((row * WIDTH + column) * SIZE + image) as u64;
                assert_eq!(fault, broken.map_or(u64::MAX, order));
                assert_eq!(drawn.kept[pixel(1) * head.logits()..][..head.logits()], all[1]);
            }
        }
    }
}

/// The engine refuses such numbers; a kernel that made an ordinary pixel of them would hide the next fault of
/// this kind.
#[test]
fn a_noise_that_is_not_a_number_makes_no_pixel() {
    let _turn = super::turn();
    for head in [mixture(1, 3), mixture(1, 1)] {
        let all = vec![logits(head, &mut noise(1)); SIZE];
        let given = vec![f32::NAN; PIXELS * head.draws()];
        let trial = Trial { head, logits: &all, noise: Some(&given), temperature: 1.0, ones: false };
        for pixel in trial.run().pixels {
            assert!(pixel[..head.values()].iter().all(|x| x.is_nan()), "{pixel:?}");
        }
    }
}

/// `log_likelihood_f32` on some pixels `[positions][values]` and their logits `[positions][logits]`, told
/// that there are `claimed` of them.
fn log_likelihoods(head: Head, pixels: &[f32], logits: &[f32], claimed: u64) -> Vec<f64> {
    let device = device();
    let count = pixels.len() / head.values();
    let [images, on_device] = [pixels, logits].map(|x| device.upload(cast_slice(x)).unwrap());
    let nats = device.zeroed::<f64>(count).unwrap();
    let (a, b) = (images.as_device_ptr().as_raw(), on_device.as_device_ptr().as_raw());
    let (c, head) = (nats.as_device_ptr().as_raw(), abi::Head::from(head));
    let args = [bytes_of(&a), bytes_of(&b), bytes_of(&c), bytes_of(&claimed), bytes_of(&head)];
    let blocks = if claimed > count as u64 { count / 128 } else { count.div_ceil(128) };
    // SAFETY: the arguments of log_likelihood_f32; no thread has a position beyond the arrays.
    unsafe { device.launch(Kernel::LogLikelihood, Shape::row(blocks as u32, 128), &args).unwrap() };
    let mut found = vec![0.0; count];
    device.read(&nats, &mut found).unwrap();
    found
}

/// Every value that a pixel can have, in turn, the edges among them; for a softmax also values between.
fn values(head: Head, count: usize) -> Vec<f32> {
    match head {
        Head::MixtureOfLogistics { channels, .. } => {
            (0..channels * count).map(|i| ((i * 7) % 256) as f32 / 127.5 - 1.0).collect()
        }
        Head::Categorical { symbols } => {
            let between = |i: usize| (i as f32 * 0.618).fract() * 2.0 - 1.0;
            let value = |i| if i % 4 < 3 { categorical::value(i % symbols, symbols) } else { between(i) };
            (0..count).map(value).collect()
        }
    }
}

#[test]
fn log_likelihood() {
    let _turn = super::turn();
    for (n, head) in heads().into_iter().enumerate() {
        let mut next = noise(77 + n as u64);
        let count = 300;
        let all: Vec<f32> = (0..count).flat_map(|_| logits(head, &mut next)).collect();
        let pixels = values(head, count);
        let found = log_likelihoods(head, &pixels, &all, count as u64);
        let expected = all.chunks(head.logits()).zip(pixels.chunks(head.values()));
        for (found, (logits, pixel)) in found.iter().zip(expected) {
            let expected = head.log_likelihood(logits, pixel);
            let off = (found - expected).abs() / expected.abs().max(1.0);
            assert!(off < 1e-9, "{head:?}: {found}, {expected}");
        }
    }
}

#[test]
fn a_logit_that_is_not_finite_has_no_likelihood() {
    let _turn = super::turn();
    for head in [mixture(1, 3), mixture(3, 3), mixture(2, 1), Head::Categorical { symbols: 5 }] {
        let mut next = noise(5);
        let depth = head.logits();
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // Each pixel has one such logit, each of them in turn; then all; then none. At -1, 0 and 1.
            let count = 3 * (depth + 2);
            let mut all: Vec<f32> = (0..count).flat_map(|_| logits(head, &mut next)).collect();
            for (i, logits) in all.chunks_exact_mut(depth).enumerate() {
                let what = i / 3;
                match what.cmp(&depth) {
                    std::cmp::Ordering::Less => logits[what] = value,
                    std::cmp::Ordering::Equal => logits.fill(value),
                    std::cmp::Ordering::Greater => {}
                }
            }
            let pixel = |i: usize| vec![i as f32 % 3.0 - 1.0; head.values()];
            let pixels: Vec<f32> = (0..count).flat_map(pixel).collect();
            for (i, found) in log_likelihoods(head, &pixels, &all, count as u64).iter().enumerate() {
                let sound = i >= 3 * (depth + 1);
                assert_eq!(found.is_finite(), sound, "{head:?}, {value}, pixel {i}: {found}");
                assert_eq!(found.is_nan(), !sound, "{head:?}, {value}, pixel {i}: {found}");
            }
        }
    }
}

/// Only the first block of a launch that would need the memory of a data centre.
#[test]
fn likelihoods_are_counted_beyond_32_bits() {
    let _turn = super::turn();
    let (mut next, head) = (noise(6), mixture(1, 3));
    let all: Vec<f32> = (0..128).flat_map(|_| logits(head, &mut next)).collect();
    let pixels: Vec<f32> = (0..3 * 128).map(|i| (i % 256) as f32 / 127.5 - 1.0).collect();
    let few = log_likelihoods(head, &pixels, &all, 128);
    assert!(few.iter().all(|nats| *nats != 0.0));
    for claimed in [1 << 31, (1 << 32) + 1] {
        assert_eq!(log_likelihoods(head, &pixels, &all, claimed), few, "{claimed}");
    }
}
