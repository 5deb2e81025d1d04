//! Meter events recorded from commits, and what they sum up to.
//!
//! Owns schema `billing`. Invariant: append-only, each fact once. It must not know how a fact came about.

mod usage;

use runtime::{Check, Platform, Role, RoleName, relay_workers};

/// The role, on a platform whose database is schema `billing`.
pub fn role(platform: &Platform) -> Role {
    Role::new(RoleName::Billing)
        .public(usage::http::router(platform.clone()))
        .internal(usage::http::internal(platform.clone()))
        .workers(relay_workers(platform))
        .ready_when(Check::database(&platform.db))
}
