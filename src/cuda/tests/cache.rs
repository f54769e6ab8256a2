//! What enters and leaves the rings, and the activations by themselves.

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};

use super::{device, noise, offset};
use crate::cuda::abi::{self, Batch, Cursor, Grid};
use crate::cuda::driver::{Device, Shape};
use crate::cuda::kernels::Kernel;
use crate::cuda::loaded::elementwise;
use crate::cuda::stage::padded;
use crate::graph::{Encoding, Input};
use crate::heads::Head;

fn concat_elu(x: f32) -> [f64; 2] {
    [elu(x), elu(-x)]
}

fn elu(x: f32) -> f64 {
    let x = f64::from(x);
    if x > 0.0 { x } else { x.exp_m1() }
}

fn relu(x: f32) -> f64 {
    f64::from(if x < 0.0 { 0.0 } else { x })
}

/// Images of a size, whose maps lie in an arena.
fn batch(arena: u64, [size, height, width]: [i32; 3]) -> Batch {
    Batch { arena, size, height, width, ..Batch::zeroed() }
}

#[test]
fn activations() {
    let _turn = super::turn();
    let device = device();
    for (positions, channels) in [(1usize, 8usize), (37, 8), (5, 24), (67, 160)] {
        let mut next = noise(positions as u64);
        let mut source: Vec<f32> = (0..positions * channels).map(|_| 8.0 * next()).collect();
        source[..8].copy_from_slice(&[0.0, -0.0, 1e-30, -1e-30, -200.0, 200.0, f32::NAN, -f32::NAN]);
        let on_device = device.upload(bytemuck::cast_slice(&source)).unwrap();
        for (kernel, width) in [(Kernel::ConcatElu, 2), (Kernel::Elu, 1), (Kernel::Relu, 1)] {
            let target = device.zeroed::<f32>(width * source.len()).unwrap();
            let (from, to) = (on_device.as_device_ptr().as_raw(), target.as_device_ptr().as_raw());
            let (count, floats) = (positions as u64, channels as i32);
            let shape = elementwise(positions * channels / 4);
            let args = [bytes_of(&from), bytes_of(&to), bytes_of(&count), bytes_of(&floats)];
            // SAFETY: the arguments of concat_elu_f32 and its like.
            unsafe { device.launch(kernel, shape, &args).unwrap() };
            let mut found = vec![0.0; width * source.len()];
            device.read(&target, &mut found).unwrap();
            for (i, &x) in source.iter().enumerate() {
                let (position, channel) = (i / channels, i % channels);
                let at = position * width * channels + channel;
                let pairs = match kernel {
                    Kernel::ConcatElu => {
                        let [positive, negative] = concat_elu(x);
                        let pair = [found[at], found[at + channels]];
                        if x.is_nan() {
                            // One will do: both enter the same sum.
                            assert!(pair.iter().any(|y| y.is_nan()), "{pair:?}");
                            continue;
                        }
                        vec![(pair[0], positive), (pair[1], negative)]
                    }
                    Kernel::Elu => vec![(found[at], elu(x))],
                    _ => vec![(found[at], relu(x))],
                };
                for (found, expected) in pairs {
                    let near = (f64::from(found) - expected).abs() < 1.3e-7;
                    assert!(
                        near || found.is_nan() && expected.is_nan(),
                        "{kernel:?} of {x}: {found}, {expected}"
                    );
                }
            }
        }
    }
}

/// Launches `cache_push_f32` or `cache_pop_f32` on some rows of three channels.
///
/// # Safety
/// So many threads find their floats in both arrays.
unsafe fn copy(
    device: &Device,
    kernel: Kernel,
    address: u64,
    grid: &Grid,
    batch: &Batch,
    [first, rows]: [i32; 2],
    threads: usize,
) {
    let channels = 3i32;
    let args = [
        bytes_of(&address),
        bytes_of(grid),
        bytes_of(batch),
        bytes_of(&first),
        bytes_of(&rows),
        bytes_of(&channels),
    ];
    // SAFETY: the arguments of both; the rest by the caller's promise.
    unsafe { device.launch(kernel, elementwise(threads), &args).unwrap() };
}

#[test]
fn what_is_pushed_is_popped_and_nothing_else() {
    let _turn = super::turn();
    let device = device();
    let (size, height, width) = (3usize, 8usize, 4usize);
    let grid = Grid::new(32 + 8, [10, 2, 6, 8]);
    let len = 32 + 10 * size * 6 * 8;
    let arena = device.zeroed::<f32>(len).unwrap();
    let batch = batch(arena.as_device_ptr().as_raw(), [size, height, width].map(|n| n as i32));
    let mut next = noise(3);
    let pixels: Vec<f32> = (0..size * height * width * 3).map(|_| next()).collect();
    let given = device.upload(bytemuck::cast_slice(&pixels)).unwrap();
    let (from, threads) = (given.as_device_ptr().as_raw(), size * 5 * width * 3);
    // SAFETY: the given rows lie in the image.
    unsafe { copy(&device, Kernel::Push, from, &grid, &batch, [1, 5], threads) };

    let mut found = vec![0.0; len];
    device.read(&arena, &mut found).unwrap();
    let mut expected = vec![0.0; len];
    for image in 0..size {
        for row in 1..6 {
            for column in 0..width {
                let at = offset(&grid, size, image, row as i32, column as i32);
                let from = ((image * height + row) * width + column) * 3;
                expected[at..at + 3].copy_from_slice(&pixels[from..from + 3]);
            }
        }
    }
    assert_eq!(found, expected);

    let popped = device.zeroed::<f32>(pixels.len()).unwrap();
    let (to, threads) = (popped.as_device_ptr().as_raw(), size * 3 * width * 3);
    // SAFETY: the target has room for all rows.
    unsafe { copy(&device, Kernel::Pop, to, &grid, &batch, [2, 3], threads) };
    let mut found = vec![0.0; pixels.len()];
    device.read(&popped, &mut found).unwrap();
    for (i, (found, pixel)) in found.iter().zip(&pixels).enumerate() {
        let row = i / 3 / width % height;
        assert_eq!(*found, if (2..5).contains(&row) { *pixel } else { 0.0 }, "row {row}");
    }

    let (address, quads) = (batch.arena, len as u64 / 4);
    // SAFETY: the arguments of cache_reset_f32.
    unsafe {
        device.launch(Kernel::Reset, Shape::row(2, 64), &[bytes_of(&address), bytes_of(&quads)]).unwrap()
    };
    let mut found = vec![1.0; len];
    device.read(&arena, &mut found).unwrap();
    assert!(found.iter().all(|x| *x == 0.0));
}

/// Pixels in each encoding, their own or the one before, in rings and for images of which the grid holds the last rows.
#[test]
fn pixels_enter_the_map_encoded() {
    let _turn = super::turn();
    let device = device();
    let (size, height, width) = (2usize, 6usize, 3usize);
    let mixture = Head::MixtureOfLogistics { mixtures: 2, channels: 3 };
    let symbols = Head::Categorical { symbols: 11 };
    for (head, encoding, channels) in [
        (mixture, Encoding::Values, 3),
        (mixture, Encoding::Values, 4),
        (symbols, Encoding::Values, 1),
        (symbols, Encoding::OneHot, 11),
        (symbols, Encoding::MuLaw, 1),
    ] {
        let mut next = noise(3);
        let mut some = |n: usize| (0..n * head.values()).map(|_| next()).collect::<Vec<f32>>();
        let (pixels, start) = (some(size * height * width), some(size));
        let [on_device, starts] = [&pixels, &start].map(|x| device.upload(bytemuck::cast_slice(x)).unwrap());
        for previous in [false, true] {
            for (rows, columns) in [(0..2, width), (0..2, 1), (3..5, width), (5..6, 1)] {
                let padded = padded(channels);
                // Rows 3, 4 and 5 of the images, or a ring of two rows.
                let grid = Grid::new(padded, [2, 2, 5, padded as i32]);
                let grid =
                    if rows.start == 3 { Grid { rows: 3, above: 0, ..grid }.turned_to(3) } else { grid };
                let len = 3 * size * 5 * padded;
                let arena = device.zeroed::<f32>(len).unwrap();
                let batch = batch(arena.as_device_ptr().as_raw(), [size, height, width].map(|n| n as i32));
                let input = abi::Input {
                    image: grid,
                    pixels: on_device.as_device_ptr().as_raw(),
                    start: starts.as_device_ptr().as_raw(),
                    ln_symbols: libm::log(head.logits() as f64),
                    encoding: encoding as i32,
                    previous: i32::from(previous),
                    values: head.values() as i32,
                    channels: channels as i32,
                    symbols: head.logits() as i32,
                    end: height as i32,
                };
                let counts = [rows.start, rows.len(), columns].map(|n| n as i32);
                let [first, count, across] = counts.each_ref().map(bytes_of);
                let shape = elementwise(size * rows.len() * columns * channels);
                // SAFETY: the arguments of cache_enter_f32; rows and columns lie in the images and in the grid.
                unsafe {
                    let args = [bytes_of(&input), bytes_of(&batch), first, count, across];
                    device.launch(Kernel::Enter, shape, &args).unwrap()
                };
                let mut found = vec![0.0; len];
                device.read(&arena, &mut found).unwrap();
                let mut expected = vec![0.0; len];
                for (image, row) in (0..size).flat_map(|image| rows.clone().map(move |row| (image, row))) {
                    for column in 0..columns {
                        let values = head.values();
                        let pixel = match (row * width + column, previous) {
                            (0, true) => &start[image * values..][..values],
                            (i, previous) => {
                                let i = image * height * width + i - usize::from(previous);
                                &pixels[i * values..][..values]
                            }
                        };
                        let at = offset(&grid, size, image, row as i32, column as i32);
                        let to = &mut expected[at..at + channels];
                        Input { encoding, previous, known: None }.encode(&head, pixel, to);
                    }
                }
                assert!(
                    found == expected,
                    "{head:?}, {encoding:?}, {channels}, {previous}, {rows:?}, {columns}"
                );
            }
        }
    }
}

/// Only the first block of launches for more pixels than 32 bits count: 256 columns of the first image's
/// first row.
#[test]
fn pixels_are_counted_beyond_32_bits() {
    let _turn = super::turn();
    let device = device();
    for [size, height, width] in [[1 << 15, 1 << 8, 1 << 8], [1 << 16, 1 << 8, 1 << 8], [1 << 15, 3, 1 << 15]]
    {
        let grid = Grid::new(8, [height, 0, width + 2, 8]);
        let arena = device.zeroed::<f32>(258 * 8).unwrap();
        let batch = batch(arena.as_device_ptr().as_raw(), [size, height, width]);
        let pixels: Vec<f32> = (0..256 * 3).map(|i| i as f32 / 256.0).collect();
        let given = device.upload(bytemuck::cast_slice(&pixels)).unwrap();
        let from = given.as_device_ptr().as_raw();
        // SAFETY: no thread has a pixel beyond the arrays.
        unsafe { copy(&device, Kernel::Push, from, &grid, &batch, [0, height], 256 * 3) };
        let popped = device.zeroed::<f32>(pixels.len()).unwrap();
        let to = popped.as_device_ptr().as_raw();
        // SAFETY: as above.
        unsafe { copy(&device, Kernel::Pop, to, &grid, &batch, [0, height], 256 * 3) };
        let mut found = vec![0.0; pixels.len()];
        device.read(&popped, &mut found).unwrap();
        assert_eq!(found, pixels, "{size} images of {height}x{width}");
    }
}

#[test]
fn the_cursor_moves() {
    let _turn = super::turn();
    let device = device();
    let cursor = device.upload(bytes_of(&Cursor { row: 0, column: 3, fault: 7 })).unwrap();
    let (address, row, column) = (cursor.as_device_ptr().as_raw(), 5i32, 0i32);
    // SAFETY: the arguments of cursor_f32.
    unsafe {
        device
            .launch(
                Kernel::Cursor,
                Shape::row(1, 1),
                &[bytes_of(&address), bytes_of(&row), bytes_of(&column)],
            )
            .unwrap()
    };
    let mut bytes = [0; size_of::<Cursor>()];
    device.read(&cursor, &mut bytes).unwrap();
    let Cursor { row, column, fault } = pod_read_unaligned(&bytes);
    assert_eq!((row, column, fault), (5, 0, 7));
}
