//! The data path of the agent: from the walk through the engine to the store, and back.
//!
//! Knows the order of things that must not be lost: packs are confirmed by the control plane before
//! they are named, and a snapshot exists only when the control plane committed it.

pub mod backup;
pub mod entry;
pub mod feed;
pub mod half_dead;
mod heartbeat;
pub mod links;
pub mod member;
pub mod others;
pub mod parent;
pub mod salvage;
pub mod second;
pub mod source;
pub mod spool;
pub mod told;
pub mod upload;
