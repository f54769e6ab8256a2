//! Each kernel against a plain scalar function of the same name.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which.

mod beside;
mod cache;
mod cluster;
mod counters;
mod footprint;
mod masked_conv;
mod persistent;
mod precision;
mod quotient;
mod sample;
mod team;
mod vgpu;

use std::sync::{Mutex, MutexGuard};

use super::Strategy;
use super::abi::Grid;
use super::cached::choose;
use super::driver::Device;
use crate::precision::Precision;

/// One test at a time: the counts of the virtual GPU are the process's. A test that failed does no harm.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|e| e.into_inner())
}

/// The device under test.
fn device() -> Device {
    device_for(Precision::F32)
}

/// The same, for weights of a precision.
fn device_for(precision: Precision) -> Device {
    let device = Device::open(0, precision).unwrap();
    device.enter().unwrap();
    device
}

/// The strategies that a device can do.
fn strategies(device: &Device) -> Vec<Strategy> {
    let can =
        |&strategy: &Strategy| strategy != Strategy::Auto && choose(&device.properties, strategy).is_ok();
    let strategies: Vec<_> = Strategy::ALL.into_iter().filter(can).collect();
    if !strategies.contains(&Strategy::Cluster) {
        println!("not by clusters: the device has none");
    }
    strategies
}

/// Numbers in [-1, 1) that look random: the same everywhere.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Where a position of a grid begins, in floats: rows may lie above the image, columns in the padding.
fn offset(grid: &Grid, batch: usize, image: usize, row: i32, column: i32) -> usize {
    let slot = ((row + grid.above) % grid.rows) as usize;
    let position = ((slot * batch + image) * grid.columns as usize) as i64 + i64::from(column);
    (grid.base as i64 + position * i64::from(grid.channels)) as usize
}
