//! What a role hands over, and how a process serves roles.
//!
//! Owns everything between a socket and a handler: request ids, identities, permits, limits, problems,
//! the canonical log line, metrics, the OpenAPI document, and the way roles reach each other. Invariant: a
//! handler sees an actor only after its credentials were verified, and a permit only after the decision.
//! It must not know any table or any single operation.

pub mod admin;
mod assemble;
mod cx;
mod edge;
mod extract;
mod facts;
mod failure;
pub mod idempotency;
mod identity;
mod metrics;
pub mod paging;
mod peers;
mod platform;
mod role;
pub mod serve;
pub mod token;

pub use api::{Code, Problem};
pub use assemble::{Assembly, assemble};
pub use cx::{Caller, Cx, Permit};
pub use edge::{Edge, Limits, Slot};
pub use extract::{Json, Path, Query};
pub use facts::{deliver_pending, relay_workers};
pub use failure::{Failure, Reply};
pub use metrics::Metrics;
pub use peers::{Peers, in_process};
pub use pg::Schema as RoleName;
pub use platform::Platform;
pub use role::{Check, Role, Worker};
pub use serve::{serve_internal, serve_public};
pub use token::{
    AccessClaims, AccessSigner, LeaseClaims, ServiceKeys, TokenError, TokenVerifier, VerifyKey,
};
