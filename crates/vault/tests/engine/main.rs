//! The engine as a whole, against a bucket in memory.

#![expect(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;
mod roundtrip;
