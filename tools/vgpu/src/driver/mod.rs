//! The driver's functions, by the names and types of `cuda.h`.
//!
//! The idea: each function is a few lines on [`state::State`], one file for each concern; what the driver does
//! not have is in [`unsupported`] and says so.

// The names are `cuda.h`'s.
#![allow(non_snake_case)]

pub mod clock;
pub mod context;
pub mod dependent;
pub mod error;
pub mod event;
pub mod graph;
pub mod launch;
pub mod memory;
pub mod module;
pub mod order;
pub mod own;
pub mod state;
pub mod stream;
pub mod unsupported;
