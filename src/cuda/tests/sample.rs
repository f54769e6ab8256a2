//! Drawing pixels, and their likelihood: against `crate::heads`, which is the CPU engine's.

use bytemuck::{Zeroable, bytes_of, cast_slice, pod_read_unaligned};

use super::{device, noise, offset};
use crate::cuda::abi::{self, Batch, Cursor, Grid, Sampler};
use crate::cuda::driver::{Buffer, Shape};
use crate::cuda::kernels::Kernel;
use crate::cuda::stage::padded;
use crate::graph::{Encoding, Input};
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

/// Heads of fewer and of more components or symbols than a warp has lanes, or holds.
fn heads() -> Vec<Head> {
    let three = [1, 3, 10, 40].map(|mixtures| mixture(mixtures, 3));
    let one = [1, 10, 33].map(|mixtures| mixture(mixtures, 1));
    let symbols = [2, 11, 32, 256, 300, 1000].map(|symbols| Head::Categorical { symbols });
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
    /// Where pixels are drawn.
    at: [usize; 2],
    /// How a pixel enters the image's map, the map's channels, and the first row that it has no more.
    input: Input,
    channels: usize,
    end: usize,
}

struct Drawn {
    /// `[PIXELS][values]`.
    pixels: Vec<f32>,
    /// The image's map, and where in it a position of an image is.
    map: Vec<f32>,
    grid: Grid,
    cursor: Cursor,
    /// `[PIXELS][logits]`.
    kept: Vec<f32>,
}

/// A pixel among all.
fn place(image: usize, [row, column]: [usize; 2]) -> usize {
    (image * HEIGHT + row) * WIDTH + column
}

impl<'a> Trial<'a> {
    fn new(head: Head, logits: &'a [Vec<f32>]) -> Trial<'a> {
        let (input, channels) = (Input::default(), head.values());
        Trial { head, logits, noise: None, temperature: 1.0, at: AT, input, channels, end: HEIGHT }
    }

    fn run(&self) -> Drawn {
        let (device, head) = (device(), self.head);
        let ([row, column], columns) = (self.at, WIDTH as i32 + 2);
        let channels = padded(head.logits());
        let logits = Grid::new(channels, [1, 1, columns, channels as i32]);
        let before = SIZE * (WIDTH + 2) * channels;
        let floats = padded(self.channels);
        let mut image = Grid::new(floats, [HEIGHT as i32 + 2, 2, columns, floats as i32]);
        let mut host = vec![0.0; before + SIZE * (HEIGHT + 2) * (WIDTH + 2) * floats];
        for (i, numbers) in self.logits.iter().enumerate() {
            let at = offset(&logits, SIZE, i, row as i32, column as i32);
            host[at..at + numbers.len()].copy_from_slice(numbers);
        }
        let map = image;
        image.base += before as u64;
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
        let pixels = device.zeroed::<f32>(PIXELS * head.values()).unwrap();
        let input = abi::Input {
            image,
            pixels: pixels.as_device_ptr().as_raw(),
            start: 0,
            ln_symbols: libm::log(head.logits() as f64),
            encoding: self.input.encoding as i32,
            previous: i32::from(self.input.previous),
            values: head.values() as i32,
            channels: self.channels as i32,
            symbols: head.logits() as i32,
            end: self.end as i32,
        };
        let sampler = Sampler {
            logits,
            input,
            seed: SEED,
            noise: noise.as_ref().map_or(0, |noise| noise.as_device_ptr().as_raw()),
            kept_logits: kept.as_device_ptr().as_raw(),
            head: head.into(),
            first_index: 7,
            temperature: self.temperature,
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
        assert!(bytes[..before * 4] == cast_slice::<f32, u8>(&host)[..before * 4], "the logits stay");
        let fetch = |buffer: &Buffer<f32>| {
            let mut floats = vec![0.0; buffer.len()];
            device.read(buffer, &mut floats).unwrap();
            floats
        };
        let mut bytes = [0; size_of::<Cursor>()];
        device.read(&cursor, &mut bytes).unwrap();
        let (pixels, kept) = (fetch(&pixels), fetch(&kept));
        Drawn { pixels, map: found[before..].to_vec(), grid: map, cursor: pod_read_unaligned(&bytes), kept }
    }
}

#[test]
fn sample() {
    let _turn = super::turn();
    let [row, column] = AT;
    for (n, head) in heads().into_iter().enumerate() {
        let mut next = noise(n as u64 + 1);
        let all: Vec<_> = (0..SIZE).map(|_| logits(head, &mut next)).collect();
        let given: Vec<f32> = (0..PIXELS * head.draws()).map(|_| 0.5 + 0.49 * next()).collect();
        for (given, temperature) in [(None, 1.0), (Some(&given), 1.0), (None, 0.375), (Some(&given), 2.5)] {
            for broken in [None, Some(3)] {
                let mut logits = all.clone();
                if let Some(image) = broken {
                    logits[image][1] = f32::NAN;
                }
                let noise = given.map(|given| &given[..]);
                let drawn = Trial { noise, temperature, ..Trial::new(head, &logits) }.run();
                let mut expected = vec![0.0; PIXELS * head.values()];
                for (i, logits) in logits.iter().enumerate().filter(|(i, _)| broken != Some(*i)) {
                    let mut uniforms = vec![0.0; head.draws()];
                    match given {
                        Some(given) => {
                            uniforms.copy_from_slice(&given[place(i, AT) * head.draws()..][..head.draws()])
                        }
                        None => {
                            philox::uniforms(SEED, 7 + i as u32, row as u32, column as u32, &mut uniforms)
                        }
                    }
                    let pixel = &mut expected[place(i, AT) * head.values()..][..head.values()];
                    head.sample(logits, temperature, &uniforms, pixel);
                }
                for (found, expected) in drawn.pixels.iter().zip(expected) {
                    let off = (found - expected).abs();
                    assert!(off < 2e-6, "{head:?} at {temperature}: {found}, {expected}");
                }
                let Cursor { row: next_row, column: next_column, fault } = drawn.cursor;
                assert_eq!((next_row, next_column), (3, 0), "the cursor moves to the next row");
                let order = |image| ((row * WIDTH + column) * SIZE + image) as u64;
                assert_eq!(fault, broken.map_or(u64::MAX, order));
                assert_eq!(drawn.kept[place(1, AT) * head.logits()..][..head.logits()], all[1]);
            }
        }
    }
}

/// The drawn pixels, encoded, at their own positions or the next ones, where the map has these; and nothing else.
#[test]
fn a_drawn_pixel_enters_the_map() {
    let _turn = super::turn();
    let symbols = |symbols| Head::Categorical { symbols };
    for (n, (head, encoding, channels)) in [
        (mixture(3, 1), Encoding::Values, 1),
        (mixture(3, 3), Encoding::Values, 4),
        (symbols(40), Encoding::Values, 2),
        (symbols(256), Encoding::OneHot, 256),
        (symbols(22), Encoding::OneHot, 22),
        (symbols(256), Encoding::MuLaw, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut next = noise(n as u64 + 1);
        let logits: Vec<_> = (0..SIZE).map(|_| logits(head, &mut next)).collect();
        for (previous, at, end, filled) in [
            (false, [2, 1], HEIGHT, Some([2, 1])),
            (false, [2, 3], 3, Some([2, 3])),
            (true, [2, 1], 3, Some([2, 2])),
            (true, [2, 3], HEIGHT, Some([3, 0])),
            (true, [2, 3], 3, None),
        ] {
            let input = Input { encoding, previous, known: None };
            let drawn = Trial { at, input, channels, end, ..Trial::new(head, &logits) }.run();
            let mut expected = vec![0.0; drawn.map.len()];
            for (i, [row, column]) in (0..SIZE).filter_map(|i| Some((i, filled?))) {
                let pixel = &drawn.pixels[place(i, at) * head.values()..][..head.values()];
                assert!(pixel.iter().any(|x| *x != 0.0));
                let to = offset(&drawn.grid, SIZE, i, row, column);
                input.encode(&head, pixel, &mut expected[to..to + channels]);
            }
            assert!(drawn.map == expected, "{head:?}, {encoding:?}, {previous}, {at:?}, {end}");
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
        let drawn = Trial { noise: Some(&given), ..Trial::new(head, &all) }.run();
        for image in 0..SIZE {
            let pixel = &drawn.pixels[place(image, AT) * head.values()..][..head.values()];
            assert!(pixel.iter().all(|x| x.is_nan()), "{pixel:?}");
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
