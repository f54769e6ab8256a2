//! The inner loops, once for each instruction set.
//!
//! The idea: exactness fixes the arithmetic, not the speed. Each sum runs in one order, one fused
//! multiply-add after the other, and each output has an accumulator of its own; so instruction sets
//! and tile shapes differ only in how many outputs they work on at once, and every one gives the same
//! bits.

mod epilogue;
mod math;
mod portable;
mod prefetch;

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "indices stand for registers")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "indices stand for registers")]
mod avx512;
#[cfg(target_arch = "aarch64")]
#[allow(clippy::needless_range_loop, reason = "indices stand for registers")]
mod neon;

pub use epilogue::{EpilogueArgs, Target, activate};
pub use prefetch::{BURST, Prefetch};

use std::cell::Cell;

use crate::error::{Error, Result};
use crate::precision::Precision;

/// Outputs in a panel: weights are packed so that the same input row of 16 outputs is one cache line.
pub const LANES: usize = 16;
/// Most rows (positions) of a tile.
pub const MAX_ROWS: usize = 12;
/// Most panels of a tile.
pub const MAX_PANELS: usize = 10;
/// Most segments of a tile that is run at a time: taps of a layer.
pub const SEGMENTS: usize = 8;
/// Inputs that a kernel takes between two bursts of prefetches.
pub const STEP: usize = 4;

/// Steps of one round of [`Kernels::multiply_add`].
const MULTIPLY_ADD_STEPS: usize = 1000;
/// Independent accumulators of [`LANES`] lanes there. A fused multiply-add takes four or five cycles
/// and two can begin in each, so fewer than ten registers would wait for one another.
const MULTIPLY_ADD_CHAINS: usize = 12;

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// 512-bit vectors (`avx512f`, beside what [`Isa::Avx2`] needs).
    Avx512,
    /// 256-bit vectors with fused multiply-add (`avx2`, `fma`).
    Avx2,
    /// The 128-bit vectors with fused multiply-add that every 64-bit ARM processor has.
    Neon,
    /// What any machine has. Slow where the hardware has no fused multiply-add.
    Portable,
}

impl Isa {
    /// All of them, the fastest first.
    pub const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// The name, as `FAST_PIXEL_CNN_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        }
    }

    /// Whether this processor has it.
    pub fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => is_x86_feature_detected!("avx512f") && Isa::Avx2.available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx512 | Isa::Avx2 => false,
            Isa::Neon => cfg!(target_arch = "aarch64"),
            Isa::Portable => true,
        }
    }

    /// The one that the environment variable `FAST_PIXEL_CNN_ISA` names, else the fastest available.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown name or an instruction set that this processor lacks.
    pub fn from_environment() -> Result<Isa> {
        const VARIABLE: &str = "FAST_PIXEL_CNN_ISA";
        let available = || Isa::ALL.into_iter().filter(|i| i.available());
        match std::env::var(VARIABLE) {
            Err(_) => Ok(available().next().expect("the portable kernels are always available")),
            Ok(name) => available().find(|i| i.name() == name).ok_or_else(|| {
                let names: Vec<_> = available().map(Isa::name).collect();
                Error::argument(VARIABLE, format!("one of {} on this machine", names.join(", ")), name)
            }),
        }
    }
}

/// In a panel an input's row in float32 is one cache line; in bfloat16 two inputs' rows are, of which the first has the lower
/// halves of the 16 words.
impl Precision {
    /// Cache lines of a panel for `inputs` inputs. Two taps share no line.
    pub fn lines(self, inputs: usize) -> usize {
        match self {
            Precision::F32 => inputs,
            Precision::Bf16 => inputs.div_ceil(2),
        }
    }
}

/// A run of inputs: the same channels for every row of a tile, and the weights' rows for them.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Floats from one position to the next.
    pub stride: usize,
    /// The first panel's weights for these inputs: [`Precision::lines`] cache lines.
    pub weights: *const f32,
    /// Number of inputs.
    pub in_channels: usize,
}

/// A tile of a matrix product: for some rows m and panels p
/// `accumulators[m][p] = init[m][p] + inputs[m] . weights[p]`, the segments one after the other.
pub struct Tile<'a> {
    /// What is summed, in that order.
    pub segments: &'a [Segment],
    /// Each segment's inputs; row m begins at `inputs + offsets[m] * stride`.
    pub inputs: &'a [Cell<*const f32>],
    /// Where each row's inputs begin, in positions from a segment's inputs.
    pub offsets: &'a [usize; MAX_ROWS],
    /// Initial values of each row's accumulators, `[panels][LANES]` each: biases, accumulators stored elsewhere, or
    /// the row's own place in `accumulators`, to continue from what it holds.
    pub init: &'a [*const f32; MAX_ROWS],
    /// Floats from one panel's weights to the next one's.
    pub panel_stride: usize,
    /// Where the results are stored: row m at `accumulators + m * accumulator_stride`, `[panels][LANES]`.
    pub accumulators: *mut f32,
    /// Floats from one row of accumulators to the next.
    pub accumulator_stride: usize,
}

/// Computes a tile, and asks for what is to be prefetched while it does.
///
/// # Safety
/// - The instruction set is available.
/// - For each of the kernel's rows and panels every pointer is valid for the extents described at [`Tile`]:
///   `init` and the weights to read, each row's inputs to read, `accumulators` to write, and
///   `accumulator_stride` is at least `panels * LANES`. Rows and panels that the kernel does not have need
///   no valid pointer.
/// - `accumulators` overlaps no inputs and no weights. A row's `init` is either that row's place in
///   `accumulators`, from its first float on, or overlaps no row's.
/// - Nobody writes what is read, or touches `accumulators`, meanwhile.
type TileFn = unsafe fn(&Tile, &mut Prefetch);

/// Turns a tile of accumulators into outputs.
///
/// # Safety
/// - The instruction set is available.
/// - Every pointer is valid for the extents described at [`EpilogueArgs`]: for each of its positions the
///   accumulators of `vectors` vectors to read, and in each target `channels` channels, twice as many through
///   [`Activation::ConcatElu`](crate::graph::Activation::ConcatElu); `add` to read, the outputs to write.
/// - Each vector has an output: `LANES * (first_vector + vectors - 1) < channels`.
/// - What is written overlaps nothing that is read, and nobody else touches it meanwhile.
type EpilogueFn = unsafe fn(&EpilogueArgs);

/// The kernels of one instruction set. To have one is to know that the processor can run it.
#[derive(Clone, Copy)]
pub struct Kernels {
    isa: Isa,
    tile: fn(rows: usize, panels: usize, precision: Precision) -> Option<TileFn>,
    epilogue: EpilogueFn,
    /// Whether its kernels prefetch what they are asked to.
    prefetches: bool,
    /// The tile to prefer for some rows of so many, and weights of one kind.
    shapes: fn(rows: usize, of: usize, precision: Precision) -> Shape,
    /// # Safety
    /// The instruction set is available.
    multiply_add: unsafe fn(rounds: usize) -> f32,
    /// # Safety
    /// The instruction set is available.
    read: unsafe fn(&[f32]) -> f32,
}

/// What a kernel can hold in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Rows of a tile.
    pub rows: usize,
    /// Panels of a tile.
    pub panels: usize,
}

/// The table of one module's kernels.
macro_rules! kernels_of {
    ($module:ident, $isa:expr) => {
        Kernels {
            isa: $isa,
            tile: $module::tile,
            epilogue: $module::epilogue,
            prefetches: $module::PREFETCHES,
            shapes: $module::shape,
            multiply_add: $module::multiply_add,
            read: $module::read,
        }
    };
}

impl Kernels {
    /// The kernels of `isa`, or `None` where the processor lacks it.
    pub fn new(isa: Isa) -> Option<Kernels> {
        if !isa.available() {
            return None;
        }
        Some(match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => kernels_of!(avx512, isa),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => kernels_of!(avx2, isa),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => kernels_of!(neon, isa),
            _ => kernels_of!(portable, isa),
        })
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether its kernels prefetch what they are asked to.
    pub fn prefetches(&self) -> bool {
        self.prefetches
    }

    /// The largest tile for a product of `rows` rows and `panels` panels. `halves` panels (1, or 2 with a gate) stay
    /// together.
    pub fn shape(&self, rows: usize, panels: usize, halves: usize, precision: Precision) -> Shape {
        let mut shape = (self.shapes)(rows, rows, precision);
        // Tiles of nearly equal height: 16 rows are two tiles of 8, not 12 and 4.
        shape.rows = rows.div_ceil(rows.div_ceil(shape.rows));
        shape.panels = (self.shapes)(shape.rows, rows, precision).panels.min(panels);
        shape.panels = (shape.panels - shape.panels % halves).max(halves);
        while (self.tile)(shape.rows, shape.panels, precision).is_none() {
            shape.panels -= halves;
        }
        shape
    }

    /// The kernel for a tile of `rows` x `panels` and weights of one kind.
    pub fn tile(&self, rows: usize, panels: usize, precision: Precision) -> TileFn {
        (self.tile)(rows, panels, precision).expect("shapes come from `Kernels::shape`")
    }

    /// Does nothing but independent fused multiply-adds, as many as the registers hold at once, for
    /// `rounds` times 1000 steps. Returns the number of floating point operations, two for each.
    pub fn multiply_add(&self, rounds: usize) -> usize {
        // SAFETY: the kernels exist only where the processor has their instruction set.
        std::hint::black_box(unsafe { (self.multiply_add)(rounds) });
        2 * rounds * MULTIPLY_ADD_STEPS * MULTIPLY_ADD_CHAINS * LANES
    }

    /// Does nothing but read `floats`.
    pub fn read(&self, floats: &[f32]) {
        // SAFETY: the kernels exist only where the processor has their instruction set.
        std::hint::black_box(unsafe { (self.read)(floats) });
    }

    /// The kernel that finishes a tile.
    pub fn epilogue(&self) -> EpilogueFn {
        self.epilogue
    }
}

/// A table of monomorphic kernels by number of rows and panels and by how weights are stored.
macro_rules! tile_table {
    ($kernel:ident, $of:expr, $( $r:literal x [ $( $p:literal ),* ] ),* $(,)?) => {
        match $of {
            $( $(
                ($r, $p, Precision::F32) => Some($kernel::<$r, $p, false> as $crate::cpu::kernels::TileFn),
                ($r, $p, Precision::Bf16) => Some($kernel::<$r, $p, true> as $crate::cpu::kernels::TileFn),
            )* )*
            _ => None,
        }
    };
}
use tile_table;

#[cfg(test)]
mod tests;
