//! What enters and leaves the rings, and the activations by themselves.

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};

use super::{device, noise, offset};
use crate::cuda::abi::{Batch, Cursor, Grid};
use crate::cuda::driver::{Device, Shape};
use crate::cuda::kernels::Kernel;
use crate::cuda::loaded::elementwise;

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
                        vec![(found[at], positive), (found[at + channels], negative)]
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

/// Pushes rows of pixels of three channels, with a constant 1 behind them or not.
///
/// # Safety
/// So many threads find their floats in both arrays.
unsafe fn push(
    device: &Device,
    from: u64,
    grid: &Grid,
    batch: &Batch,
    [rows, ones]: [i32; 2],
    threads: usize,
) {
    let channels = 3i32;
    let args = [
        bytes_of(&from),
        bytes_of(grid),
        bytes_of(batch),
        bytes_of(&rows),
        bytes_of(&channels),
        bytes_of(&ones),
    ];
    // SAFETY: the arguments of cache_push_f32; the rest by the caller's promise.
    unsafe { device.launch(Kernel::Push, elementwise(threads), &args).unwrap() };
}

/// Pops some rows of pixels of three channels.
///
/// # Safety
/// As for [`push`].
unsafe fn pop(device: &Device, to: u64, grid: &Grid, batch: &Batch, [first, rows]: [i32; 2], threads: usize) {
    let channels = 3i32;
    let args = [
        bytes_of(&to),
        bytes_of(grid),
        bytes_of(batch),
        bytes_of(&first),
        bytes_of(&rows),
        bytes_of(&channels),
    ];
    // SAFETY: the arguments of cache_pop_f32; the rest by the caller's promise.
    unsafe { device.launch(Kernel::Pop, elementwise(threads), &args).unwrap() };
}

#[test]
fn what_is_pushed_is_popped_and_nothing_else() {
    let _turn = super::turn();
    let device = device();
    let (size, height, width) = (3usize, 8usize, 4usize);
    let grid = Grid { base: 32 + 8, rows: 10, above: 2, columns: 6, channels: 8 };
    let len = 32 + 10 * size * 6 * 8;
    let arena = device.zeroed::<f32>(len).unwrap();
    let batch = Batch {
        arena: arena.as_device_ptr().as_raw(),
        size: size as i32,
        height: height as i32,
        width: width as i32,
        ..Batch::zeroed()
    };
    let mut next = noise(3);
    let pixels: Vec<f32> = (0..size * height * width * 3).map(|_| next()).collect();
    let given = device.upload(bytemuck::cast_slice(&pixels)).unwrap();
    // SAFETY: the given rows lie in the image.
    unsafe { push(&device, given.as_device_ptr().as_raw(), &grid, &batch, [5, 1], size * 5 * width * 4) };

    let mut found = vec![0.0; len];
    device.read(&arena, &mut found).unwrap();
    let mut expected = vec![0.0; len];
    for image in 0..size {
        for row in 0..5 {
            for column in 0..width {
                let at = offset(&grid, size, image, row as i32, column as i32);
                let from = ((image * height + row) * width + column) * 3;
                expected[at..at + 3].copy_from_slice(&pixels[from..from + 3]);
                expected[at + 3] = 1.0;
            }
        }
    }
    assert_eq!(found, expected);

    let popped = device.zeroed::<f32>(pixels.len()).unwrap();
    // SAFETY: the target has room for all rows.
    unsafe { pop(&device, popped.as_device_ptr().as_raw(), &grid, &batch, [1, 3], size * 3 * width * 3) };
    let mut found = vec![0.0; pixels.len()];
    device.read(&popped, &mut found).unwrap();
    for (i, (found, pixel)) in found.iter().zip(&pixels).enumerate() {
        let row = i / 3 / width % height;
        assert_eq!(*found, if (1..4).contains(&row) { *pixel } else { 0.0 }, "row {row}");
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

/// Only the first block of launches for more pixels than 32 bits count: 256 columns of the first image's
/// first row.
#[test]
fn pixels_are_counted_beyond_32_bits() {
    let _turn = super::turn();
    let device = device();
    for [size, height, width] in [[1 << 15, 1 << 8, 1 << 8], [1 << 16, 1 << 8, 1 << 8], [1 << 15, 3, 1 << 15]]
    {
        let grid = Grid { base: 8, rows: height, above: 0, columns: width + 2, channels: 8 };
        let arena = device.zeroed::<f32>(258 * 8).unwrap();
        let batch = Batch { arena: arena.as_device_ptr().as_raw(), size, height, width, ..Batch::zeroed() };
        let pixels: Vec<f32> = (0..256 * 3).map(|i| i as f32 / 256.0).collect();
        let given = device.upload(bytemuck::cast_slice(&pixels)).unwrap();
        // SAFETY: no thread has a pixel beyond the arrays.
        unsafe { push(&device, given.as_device_ptr().as_raw(), &grid, &batch, [height, 0], 256 * 3) };
        let popped = device.zeroed::<f32>(pixels.len()).unwrap();
        // SAFETY: as above.
        unsafe { pop(&device, popped.as_device_ptr().as_raw(), &grid, &batch, [0, height], 256 * 3) };
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
