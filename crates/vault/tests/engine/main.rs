//! The engine as a whole, against a bucket in memory.

#![expect(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod bench;
mod chains;
mod common;
mod damage;
mod distrust;
mod hostile;
mod keys;
mod model;
mod roundtrip;
mod trees;
mod vectors;
