//! What the tests of engines share.

#![allow(dead_code, reason = "each test binary uses some of it")]

#[path = "conformance.rs"]
pub mod conformance;
#[path = "evaluation.rs"]
pub mod evaluation;
#[path = "golden.rs"]
pub mod golden;
#[path = "stacks.rs"]
pub mod stacks;
