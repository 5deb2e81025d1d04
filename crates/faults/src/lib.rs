//! Where tests break things: fault points before every change of state, and planted bugs.
//!
//! Owns the names of both. Invariant: without the features `points` and `bugs` everything here is nothing
//! (a constant the compiler removes), and a build without debug assertions that has one of them does not
//! compile, so neither can ship. It must not know what is broken: callers say it in words.

mod bugs;
mod points;

pub use bugs::{Bug, planted};
#[cfg(feature = "points")]
pub use points::{Verdict, make_eager, watch};
pub use points::{every, hurry, point, sooner, write_all, write_all_at, write_pieces};

#[cfg(all(any(feature = "points", feature = "bugs"), not(debug_assertions)))]
compile_error!("fault points and planted bugs are for tests: this build would ship them");
