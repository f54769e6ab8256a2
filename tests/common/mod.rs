//! What several test programs share.

#![allow(dead_code, reason = "each test binary uses some of it")]

pub mod bundle;
pub mod models;
pub mod program;
pub mod run;
pub mod training;
