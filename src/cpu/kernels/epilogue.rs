//! From accumulators to outputs: gate and residual, activation, and the stores into the grids that later
//! layers read.
//!
//! The idea: the kernel that produces a map stores it once through each activation that a later layer reads it
//! with, so nothing is activated twice and the caches are filled without a copy.

use super::LANES;
use super::math::{elu_tail, sigmoid, tanh};
use crate::graph::{Activation, Epilogue};

/// A grid to write to or to read from: position i begins at `base + i * channels`.
#[derive(Clone, Copy)]
pub struct Target {
    /// Position 0.
    pub base: *mut f32,
    /// Floats of a position.
    pub channels: usize,
}

/// A tile of finished accumulators and where the outputs go. Vector v of the tile is the output channels
/// `LANES * (first_vector + v) ..`, of which those below `channels` exist; it has one panel of accumulators, or
/// with a gate two: values and gates.
pub struct EpilogueArgs<'a> {
    /// Row m at `accumulators + m * accumulator_stride`.
    pub accumulators: *const f32,
    /// Floats from one row of accumulators to the next.
    pub accumulator_stride: usize,
    /// Position of each row in the target grids.
    pub positions: &'a [usize],
    /// Vectors of [`LANES`] outputs in the tile.
    pub vectors: usize,
    /// Index of the first vector in the layer.
    pub first_vector: usize,
    /// Channels of the output.
    pub channels: usize,
    /// What turns accumulators into outputs.
    pub epilogue: Epilogue,
    /// The grid of what the epilogue adds.
    pub add: Option<Target>,
    /// Where the output goes, through each activation that it is read with.
    pub outputs: [Option<Target>; Activation::ALL.len()],
}

/// Computes a tile's outputs; see [`EpilogueArgs`]. Inlined into one function for each instruction set.
///
/// # Safety
/// As for [`super::EpilogueFn`], but for the instruction set, which is the caller's.
#[inline(always)]
pub unsafe fn epilogue(f: &EpilogueArgs) {
    for (m, &position) in f.positions.iter().enumerate() {
        for vector in 0..f.vectors {
            let lanes = f.channels - (f.first_vector + vector) * LANES;
            // All lanes: how many is known when this is compiled, so that they stay in registers.
            // SAFETY: by the caller's promise; such a row and such a vector are in the tile.
            unsafe {
                match lanes >= LANES {
                    true => outputs(f, m, position, vector, LANES),
                    false => outputs(f, m, position, vector, lanes),
                }
            }
        }
    }
}

/// The outputs of a row's vector, of which `lanes` exist.
///
/// # Safety
/// As for [`epilogue`].
#[inline(always)]
unsafe fn outputs(f: &EpilogueArgs, m: usize, position: usize, vector: usize, lanes: usize) {
    let halves = if f.epilogue.gated { 2 } else { 1 };
    let first = (f.first_vector + vector) * LANES;
    // SAFETY: by the caller's promise the tile has `positions.len()` rows of `vectors *
    // halves` panels of accumulators, a position of a target has `channels` channels (twice that
    // through concat_elu), and `first` is below `channels`, so that `lanes` channels from there on exist.
    unsafe {
        let at = |target: Target| target.base.add(position * target.channels + first);
        let accumulators = f.accumulators.add(m * f.accumulator_stride + vector * halves * LANES);
        let x = output(f, accumulators, lanes, at);
        let [identity, elu, relus, concat] = f.outputs;
        if let Some(target) = identity {
            store(at(target), &x, lanes);
        }
        if let Some(target) = concat {
            let (positive, negative) = concat_elu(&x);
            store(at(target), &positive, lanes);
            store(at(target).add(f.channels), &negative, lanes);
        }
        if let Some(target) = relus {
            let mut positive = x;
            for x in &mut positive {
                *x = relu(*x);
            }
            store(at(target), &positive, lanes);
        }
        if let Some(target) = elu {
            store(at(target), &concat_elu(&x).0, lanes);
        }
    }
}

/// [`LANES`] outputs from their accumulators: `add + value * sigmoid(gate)`, or what of it the layer has.
///
/// # Safety
/// Their panels of accumulators, one or with a gate two, are readable, and where
/// `at` says `lanes` floats of what is added.
#[inline(always)]
unsafe fn output(
    f: &EpilogueArgs,
    accumulators: *const f32,
    lanes: usize,
    at: impl Fn(Target) -> *mut f32,
) -> [f32; LANES] {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut x: [f32; LANES] = accumulators.cast::<[f32; LANES]>().read_unaligned();
        // Not `x.map`: a closure is compiled without the instruction set of this function.
        if f.epilogue.tanh {
            for x in &mut x {
                *x = tanh(*x);
            }
        }
        let add = match f.add {
            Some(target) => load(at(target), lanes),
            None => [0.0; LANES],
        };
        if f.epilogue.gated {
            let gates: [f32; LANES] = accumulators.add(LANES).cast::<[f32; LANES]>().read_unaligned();
            for i in 0..LANES {
                x[i] = x[i].mul_add(sigmoid(gates[i]), add[i]);
            }
        } else if f.add.is_some() {
            for i in 0..LANES {
                x[i] += add[i];
            }
        }
        x
    }
}

/// A position's channels through an activation, as a finished tile stores them. One lane at a time, and outside of any
/// instruction set: for what comes from outside, which is read through an activation by no published model.
pub fn activate(read: Activation, x: &[f32]) -> impl Iterator<Item = f32> {
    let elu = |x: f32| if x > 0.0 { x } else { elu_tail(x) };
    let value = move |x: &f32| match read {
        Activation::Identity => *x,
        Activation::Elu | Activation::ConcatElu => elu(*x),
        Activation::Relu => relu(*x),
    };
    let doubled = if read == Activation::ConcatElu { x } else { &[] };
    x.iter().map(value).chain(doubled.iter().map(move |x| elu(-x)))
}

/// A NaN stays a NaN.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// `elu(x)` and `elu(-x)`. Both sides share one exponential.
#[inline(always)]
fn concat_elu(x: &[f32; LANES]) -> ([f32; LANES], [f32; LANES]) {
    let (mut positive, mut negative) = ([0.0; LANES], [0.0; LANES]);
    for i in 0..LANES {
        let tail = elu_tail(x[i]);
        positive[i] = if x[i] > 0.0 { x[i] } else { tail };
        negative[i] = if x[i] < 0.0 { -x[i] } else { tail };
    }
    (positive, negative)
}

/// `lanes` floats, at most [`LANES`], and zeros behind them.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn load(from: *const f32, lanes: usize) -> [f32; LANES] {
    if lanes == LANES {
        // SAFETY: `lanes` floats are readable, by the caller's promise.
        return unsafe { from.cast::<[f32; LANES]>().read_unaligned() };
    }
    let mut x = [0.0; LANES];
    // SAFETY: as above.
    unsafe { std::ptr::copy_nonoverlapping(from, x.as_mut_ptr(), lanes) };
    x
}

/// Stores the first `lanes` floats, at most [`LANES`].
///
/// # Safety
/// There is room for them, apart from `x`.
#[inline(always)]
unsafe fn store(to: *mut f32, x: &[f32; LANES], lanes: usize) {
    // SAFETY: `lanes` floats are writable, by the caller's promise.
    unsafe {
        if lanes == LANES {
            to.cast::<[f32; LANES]>().write_unaligned(*x);
        } else {
            std::ptr::copy_nonoverlapping(x.as_ptr(), to, lanes);
        }
    }
}
