//! The rules of order: which accesses happen before which.
//!
//! The idea: two accesses to one word, of which one writes, must be ordered: by the program of their
//! thread, by a barrier of their block, or by a release in one block that an acquire in another has
//! seen. Each word remembers its last writer and two readers; each warp knows until when it has heard
//! of every other. In shared memory each word also remembers which lane stored it.

mod clock;
mod shadow;
mod step;

pub use clock::{BlockOrder, GridOrder, WarpOrder};
pub use shadow::{Cell, Conflict, Mark, Shadow, Who};
pub use step::{Steps, Stored, WORD};
