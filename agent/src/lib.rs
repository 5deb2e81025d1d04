//! Everhold's agent, as a library so that its parts can be tested without a process around them.
//!
//! `cmd` is the command line, `control` the line to the control plane, `sources` what is read from this
//! machine, `pipeline` the way into the store, `restore` the way back, `rescue` the way back without a control plane,
//! `mount` snapshots as a file system, `state` the agent's own folder.
//! It runs no code the server sends (R9) and holds no credentials of the store (R1).

pub mod cmd;
pub mod control;
pub mod mount;
pub mod output;
pub mod pipeline;
pub mod rescue;
pub mod restore;
mod scratch;
pub mod sources;
pub mod state;
