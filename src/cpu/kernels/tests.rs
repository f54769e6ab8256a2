//! Every kernel of every instruction set against a plain scalar one of the same name, bit for bit.

use super::epilogue::{EpilogueArgs, Target};
use super::math::{elu_tail, sigmoid, tanh};
use super::*;
use crate::graph::{Activation, Epilogue};
use crate::philox;

/// Numbers in [-1, 1], different for each stream.
fn numbers(stream: u32, len: usize) -> Vec<f32> {
    let mut numbers = vec![0.0; len];
    philox::uniforms(1, stream, 0, 0, &mut numbers);
    numbers.iter_mut().for_each(|x| *x = 2.0 * *x - 1.0);
    numbers
}

fn available() -> impl Iterator<Item = Kernels> {
    for isa in Isa::ALL.into_iter().filter(|i| !i.available()) {
        println!("{} is not tested: this processor lacks it", isa.name());
    }
    Isa::ALL.into_iter().filter_map(Kernels::new)
}

/// `accumulators[m][o] = init[m][o] + inputs[m] . weights[o]`, one fused multiply-add after the other.
fn tile(inputs: &[&[f32]], weights: &[f32], init: &[f32]) -> Vec<f32> {
    let depth = inputs[0].len();
    let mut accumulators = init.to_vec();
    for (m, row) in accumulators.chunks_exact_mut(init.len() / inputs.len()).enumerate() {
        for (o, sum) in row.iter_mut().enumerate() {
            for k in 0..depth {
                let weight = weights[(o / LANES * depth + k) * LANES + o % LANES];
                *sum = inputs[m][k].mul_add(weight, *sum);
            }
        }
    }
    accumulators
}

/// `weights[panel][input][LANES]` as a kernel reads them, and the numbers that they then stand for. The
/// inputs are those of segments of some depths.
fn stored(weights: &[f32], panels: usize, depths: &[usize], precision: Precision) -> (Vec<f32>, Vec<f32>) {
    if precision == Precision::F32 {
        return (weights.to_vec(), weights.to_vec());
    }
    // Cut off rather than rounded: the kernels do not care.
    let halves: Vec<u32> = weights.iter().map(|w| w.to_bits() >> 16).collect();
    let rounded = halves.iter().map(|half| f32::from_bits(half << 16)).collect();
    let inputs: usize = depths.iter().sum();
    let mut lines = Vec::new();
    for panel in 0..panels {
        let mut first = panel * inputs;
        for &depth in depths {
            for pair in (first..first + depth).step_by(2) {
                for lane in 0..LANES {
                    let lower = halves[pair * LANES + lane];
                    // What fills up the last line of an odd depth must not be read.
                    let upper =
                        if pair + 1 < first + depth { halves[(pair + 1) * LANES + lane] } else { 0x7fc0 };
                    lines.push(f32::from_bits(upper << 16 | lower));
                }
            }
            first += depth;
        }
    }
    (lines, rounded)
}

#[test]
fn tiles_of_every_shape_equal_the_scalar_one() {
    for precision in [Precision::F32, Precision::Bf16] {
        tiles(precision);
    }
}

fn tiles(precision: Precision) {
    for kernels in available() {
        let mut shapes = 0;
        for rows in 1..=MAX_ROWS {
            for panels in 1..=MAX_PANELS {
                let Some(kernel) = (kernels.tile)(rows, panels, precision) else { continue };
                shapes += 1;
                // Three segments of odd depths, cut from rows that overlap and stand apart unevenly.
                let depths = [1, 7, 33];
                let depth: usize = depths.iter().sum();
                let offset = |m: usize| 3 * m + m * m % 5;
                let inputs = numbers(1, offset(rows) + depth);
                let weights = numbers(2, panels * depth * LANES);
                let (lines, weights) = stored(&weights, panels, &depths, precision);
                let init = numbers(3, rows * panels * LANES);
                let mut accumulators = vec![f32::NAN; rows * panels * LANES + 1];

                let (mut first, mut line) = (0, 0);
                let segments = depths.map(|depth| {
                    let weights = lines[line * LANES..].as_ptr();
                    let from = Cell::new(inputs[first..].as_ptr());
                    first += depth;
                    line += precision.lines(depth);
                    (Segment { stride: 1, weights, in_channels: depth }, from)
                });
                let (segments, from): (Vec<_>, Vec<_>) = segments.into_iter().unzip();
                // A prefetch of any address is harmless.
                let mut prefetch = Prefetch::default();
                prefetch.push(0, depth);
                let (mut offsets, mut initial) = ([0; MAX_ROWS], [std::ptr::null(); MAX_ROWS]);
                for m in 0..rows {
                    offsets[m] = offset(m);
                    initial[m] = init[m * panels * LANES..].as_ptr();
                }
                let tile_args = Tile {
                    segments: &segments,
                    inputs: &from,
                    offsets: &offsets,
                    init: &initial,
                    panel_stride: line * LANES,
                    accumulators: accumulators.as_mut_ptr(),
                    accumulator_stride: panels * LANES,
                };
                // SAFETY: the slices have the extents of a `Tile`.
                unsafe { kernel(&tile_args, &mut prefetch) };

                let rows_of: Vec<_> = (0..rows).map(|m| &inputs[offset(m)..][..depth]).collect();
                let expected = tile(&rows_of, &weights, &init);
                let name = kernels.isa().name();
                assert_eq!(
                    bits(&accumulators[..expected.len()]),
                    bits(&expected),
                    "{name}, {rows} x {panels}"
                );
                assert!(accumulators[expected.len()].is_nan(), "{name}, {rows} x {panels} writes too far");
            }
        }
        assert!(shapes > 0);
    }
}

#[test]
fn instruction_sets_are_those_of_the_architecture() {
    let names: Vec<_> = available().map(|kernels| kernels.isa().name()).collect();
    match cfg!(target_arch = "aarch64") {
        // Every such processor has both.
        true => assert_eq!(names, ["neon", "portable"]),
        false => assert!(!names.contains(&"neon") && names.last() == Some(&"portable")),
    }
}

#[test]
fn chosen_shapes_exist_and_keep_units_together() {
    let precisions = [Precision::F32, Precision::Bf16];
    let kinds = precisions.map(|precision| [1, 2].map(|halves| (halves, precision))).concat();
    for kernels in available() {
        for rows in 1..100 {
            for &(halves, precision) in &kinds {
                for vectors in 1..30 {
                    let shape = kernels.shape(rows, vectors * halves, halves, precision);
                    assert!(shape.panels % halves == 0 && shape.panels > 0 && shape.rows <= rows);
                    assert!(shape.rows <= MAX_ROWS && shape.panels <= MAX_PANELS);
                    // What is left over at the right and at the bottom must have a kernel too.
                    for rows in 1..=shape.rows {
                        let panels = (halves..=shape.panels).step_by(halves);
                        for panels in panels {
                            assert!((kernels.tile)(rows, panels, precision).is_some(), "{rows} x {panels}");
                        }
                    }
                }
            }
        }
    }
}

/// One output from its value, its gate and what is added, and both halves of what an activation makes of it.
fn output(epilogue: Epilogue, value: f32, gate: f32, add: f32, read: Activation) -> [f32; 2] {
    let value = if epilogue.tanh { tanh(value) } else { value };
    let x = match (epilogue.gated, epilogue.add) {
        (true, _) => value.mul_add(sigmoid(gate), add),
        (false, Some(_)) => value + add,
        (false, None) => value,
    };
    let elu = |x: f32| if x > 0.0 { x } else { elu_tail(x) };
    match read {
        Activation::Identity => [x, 0.0],
        Activation::Elu => [elu(x), 0.0],
        Activation::Relu => [if x < 0.0 { 0.0 } else { x }, 0.0],
        Activation::ConcatElu => [elu(x), elu(-x)],
    }
}

#[test]
fn the_epilogue_equals_the_scalar_one() {
    let bools = [false, true];
    for kernels in available() {
        for channels in [1, 5, 16, 20, 33, 48] {
            for (tanh, gated) in bools.into_iter().flat_map(|tanh| bools.map(|gated| (tanh, gated))) {
                for add in [None, Some(0)] {
                    epilogue_case(&kernels, Epilogue { tanh, gated, add }, channels);
                }
            }
        }
    }
}

fn epilogue_case(kernels: &Kernels, epilogue: Epilogue, channels: usize) {
    let (vectors, rows) = (channels.div_ceil(LANES), 3);
    let panels = if epilogue.gated { 2 } else { 1 };
    let stride = vectors * panels * LANES + 2;
    let positions = [4, 0, 2];
    let accumulators: Vec<f32> = numbers(1, rows * stride).iter().map(|x| 6.0 * x).collect();
    let mut added = numbers(2, 5 * channels);
    let mut out = Activation::ALL.map(|read| vec![f32::NAN; 5 * channels * read.copies()]);
    let mut expected = out.clone();
    let mut target = |read: Activation| {
        let base = out[read as usize].as_mut_ptr();
        Some(Target { base, channels: channels * read.copies() })
    };
    let args = EpilogueArgs {
        accumulators: accumulators.as_ptr(),
        accumulator_stride: stride,
        positions: &positions,
        vectors,
        first_vector: 0,
        channels,
        epilogue,
        add: epilogue.add.map(|_| Target { base: added.as_mut_ptr(), channels }),
        outputs: Activation::ALL.map(&mut target),
    };
    // SAFETY: the slices have the extents of a `EpilogueArgs`.
    unsafe { kernels.epilogue()(&args) };

    for (m, &position) in positions.iter().enumerate() {
        for channel in 0..channels {
            let at = m * stride + channel / LANES * panels * LANES + channel % LANES;
            let gate = if epilogue.gated { accumulators[at + LANES] } else { 0.0 };
            let add = epilogue.add.map_or(0.0, |_| added[position * channels + channel]);
            for read in Activation::ALL {
                let halves = output(epilogue, accumulators[at], gate, add, read);
                for (half, x) in halves.into_iter().enumerate().take(read.copies()) {
                    expected[read as usize][(position * read.copies() + half) * channels + channel] = x;
                }
            }
        }
    }
    for (found, expected) in out.iter().zip(&expected) {
        let name = kernels.isa().name();
        assert_eq!(bits(found), bits(expected), "{name}, {epilogue:?}, {channels} channels");
    }
}

fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|x| x.to_bits()).collect()
}
