//! The engine as a whole, against a bucket in memory.

#![expect(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod altered;
mod bench;
mod bucket;
mod chains;
mod common;
mod damage;
mod distrust;
mod elsewhere;
mod fsck;
mod hostile;
mod keys;
mod memory;
mod model;
mod mutate;
mod parsers;
mod reading;
mod repack;
mod rescue;
mod roundtrip;
mod scale;
mod smoke;
mod trees;
mod vectors;

/// The agent's own: what is measured of memory is what ships.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
