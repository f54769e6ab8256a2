//! What several test programs share.

pub mod bundle;
pub mod program;
pub mod run;
