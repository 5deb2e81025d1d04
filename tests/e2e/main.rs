//! The whole, through real processes: what a user types and what must come of it.
//!
//! Each test starts a platform of its own on a folder of its own. Needs the two binaries built
//! (`make test` does) and the tools of `make deps-test`.

mod borders;
mod compare;
mod console;
mod crash;
mod faulty;
mod harness;
mod mount;
mod outside;
mod rescue;
mod restore;
mod restoring;
mod second;
mod serve;
