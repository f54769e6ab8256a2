//! Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy
//! as 1, 2, 3").
//!
//! The idea: the numbers of a pixel are a pure function of (seed, image index, row, column, draw), so
//! an image does not depend on how a run is split into batches and threads.

use std::ops::RangeInclusive;

/// Every uniform number lies in these bounds, as in the reference sampler.
pub const BOUNDS: RangeInclusive<f32> = 1e-5..=1.0 - 1e-5;
