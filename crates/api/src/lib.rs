//! The wire: what clients and roles say to each other.
//!
//! Owns request and reply bodies (`auth`, `catalog`, …), [`problem`] (RFC 9457), cursors and the typed
//! client. Unknown request fields are refused; replies may grow fields. Times are RFC 3339 UTC, ids
//! are prefixed text, binary is standard base64, hashes are lowercase hex, byte counts are integers
//! below 2^53. It knows nothing of SQL, axum or the engine.

pub mod audit;
pub mod auth;
pub mod billing;
pub mod catalog;
pub mod client;
pub mod internal;
pub mod names;
pub mod page;
pub mod policy;
pub mod problem;
pub mod scheduler;
pub mod signature;

pub use page::Page;
pub use problem::{Code, Problem};
