//! Every kernel of every instruction set against a plain scalar one of the same name, bit for bit.

use super::finish::{Finish, Target};
use super::math::{elu_tail, sigmoid};
use super::*;
use crate::config::Nonlinearity;
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

/// `sums[m][o] = init[m][o] + inputs[m] . weights[o]`, one fused multiply-add after the other.
fn tile(inputs: &[&[f32]], weights: &[f32], init: &[f32]) -> Vec<f32> {
    let depth = inputs[0].len();
    let mut sums = init.to_vec();
    for (m, row) in sums.chunks_exact_mut(init.len() / inputs.len()).enumerate() {
        for (o, sum) in row.iter_mut().enumerate() {
            for k in 0..depth {
                let weight = weights[(o / LANES * depth + k) * LANES + o % LANES];
                *sum = inputs[m][k].mul_add(weight, *sum);
            }
        }
    }
    sums
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
                let mut sums = vec![f32::NAN; rows * panels * LANES + 1];

                let (mut first, mut line) = (0, 0);
                let segments = depths.map(|depth| {
                    let weights = lines[line * LANES..].as_ptr();
                    // To ask for something is never wrong, wherever it lies.
                    let (ahead, bursts) = (std::ptr::null(), depth);
                    let segment = Segment { inputs: inputs[first..].as_ptr(), weights, depth, ahead, bursts };
                    first += depth;
                    line += precision.lines(depth);
                    segment
                });
                let mut tile_args = Tile {
                    segments: &segments,
                    offsets: [0; MAX_ROWS],
                    init: [std::ptr::null(); MAX_ROWS],
                    panel_stride: line * LANES,
                    sums: sums.as_mut_ptr(),
                    sums_stride: panels * LANES,
                };
                for m in 0..rows {
                    tile_args.offsets[m] = offset(m);
                    tile_args.init[m] = init[m * panels * LANES..].as_ptr();
                }
                // SAFETY: the slices have the extents of a `Tile`.
                unsafe { kernel(&tile_args) };

                let rows_of: Vec<_> = (0..rows).map(|m| &inputs[offset(m)..][..depth]).collect();
                let expected = tile(&rows_of, &weights, &init);
                let name = kernels.isa().name();
                assert_eq!(bits(&sums[..expected.len()]), bits(&expected), "{name}, {rows} x {panels}");
                assert!(sums[expected.len()].is_nan(), "{name}, {rows} x {panels} writes too far");
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
    for kernels in available() {
        for rows in 1..100 {
            for unit in [1, 2] {
                for units in 1..30 {
                    let shape = kernels.shape(rows, units * unit, unit);
                    assert!(shape.panels % unit == 0 && shape.panels > 0 && shape.rows <= rows);
                    assert!(shape.rows <= MAX_ROWS && shape.panels <= MAX_PANELS);
                    // What is left over at the right and at the bottom must have a kernel too.
                    for rows in 1..=shape.rows {
                        let panels = (unit..=shape.panels).step_by(unit);
                        for panels in panels {
                            assert!(
                                (kernels.tile)(rows, panels, Precision::F32).is_some(),
                                "{rows} x {panels}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Gate, residual and activations of one output.
fn finish(value: f32, gate: Option<(f32, f32)>, activation: Nonlinearity) -> [f32; 4] {
    let x = gate.map_or(value, |(gate, residual)| value.mul_add(sigmoid(gate), residual));
    let elu = |x: f32| if x > 0.0 { x } else { elu_tail(x) };
    let [first, second] = match activation {
        Nonlinearity::ConcatElu => [elu(x), elu(-x)],
        Nonlinearity::Elu => [elu(x), 0.0],
        Nonlinearity::Relu => [if x < 0.0 { 0.0 } else { x }, 0.0],
    };
    [x, first, second, elu(x)]
}

#[test]
fn finishing_equals_the_scalar_one() {
    for kernels in available() {
        for activation in [Nonlinearity::ConcatElu, Nonlinearity::Elu, Nonlinearity::Relu] {
            for filters in [1, 5, 16, 20, 33, 48] {
                for gated in [false, true] {
                    finish_case(&kernels, activation, filters, gated);
                }
            }
        }
    }
}

fn finish_case(kernels: &Kernels, activation: Nonlinearity, filters: usize, gated: bool) {
    let (units, rows) = (filters.div_ceil(LANES), 3);
    let panels = if gated { 2 } else { 1 };
    let stride = units * panels * LANES + 2;
    let positions = [4, 0, 2];
    let sums: Vec<f32> = numbers(1, rows * stride).iter().map(|x| 6.0 * x).collect();
    let mut residuals = numbers(2, 5 * filters);
    let width = activation.width();
    let mut out = [1, width, 1].map(|w| vec![f32::NAN; 5 * filters * w]);
    let mut target = |i: usize, w: usize| Target { base: out[i].as_mut_ptr(), channels: filters * w };
    let args = Finish {
        sums: sums.as_ptr(),
        sums_stride: stride,
        positions: &positions,
        units,
        first_unit: 0,
        filters,
        residual: gated.then_some(Target { base: residuals.as_mut_ptr(), channels: filters }),
        raw: Some(target(0, 1)),
        activated: Some(target(1, width)),
        elu: Some(target(2, 1)),
        activation,
    };
    // SAFETY: the slices have the extents of a `Finish`.
    unsafe { kernels.finish()(&args) };

    let mut expected = [1, width, 1].map(|w| vec![f32::NAN; 5 * filters * w]);
    for (m, &position) in positions.iter().enumerate() {
        for channel in 0..filters {
            let at = m * stride + channel / LANES * panels * LANES + channel % LANES;
            let gate = gated.then(|| (sums[at + LANES], residuals[position * filters + channel]));
            let [raw, first, second, elu] = finish(sums[at], gate, activation);
            expected[0][position * filters + channel] = raw;
            expected[1][position * filters * width + channel] = first;
            if width == 2 {
                expected[1][(position * 2 + 1) * filters + channel] = second;
            }
            expected[2][position * filters + channel] = elu;
        }
    }
    for (found, expected) in out.iter().zip(&expected) {
        let name = kernels.isa().name();
        assert_eq!(bits(found), bits(expected), "{name}, {activation:?}, {filters} filters, gate {gated}");
    }
}

fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|x| x.to_bits()).collect()
}
