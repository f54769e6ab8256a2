//! The rules of order: which accesses happen before which.
//!
//! The idea: two accesses to one word, of which one writes, must be ordered: by the program of their
//! thread, by a barrier at which their warps meet, or by a release in one block that an acquire in another has
//! seen. Each word remembers its last writer and two readers (in shared memory all, where barriers are of
//! some warps); each warp knows until when it has heard of every other. In shared memory each word also
//! remembers which lane stored it. Two strong accesses need no order; where a value is handed over as its own
//! flag, only if it replaces "not yet".

mod cell;
mod clock;
mod readers;
mod shadow;
mod step;

pub use cell::{Cell, How, NOT_YET};
pub use clock::{Agent, BlockOrder, Gathering, GridOrder, Known, Scope, WarpOrder};
pub use shadow::{Clash, Conflict, Mark, Shadow, Who};
pub use step::{Steps, Stored, WORD};
