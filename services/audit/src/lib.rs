//! The append-only record of what changed meaning.
//!
//! Owns schema `audit`. Other roles' outboxes deliver events; nothing here changes or removes one. Invariant: one
//! gapless sequence per tenant, each event once. It must not know what the events mean.

mod events;

use runtime::{Check, Platform, Role, RoleName, relay_workers};

/// The role, on a platform whose database is schema `audit`.
pub fn role(platform: &Platform) -> Role {
    Role::new(RoleName::Audit)
        .public(events::http::router(platform.clone()))
        .internal(events::http::internal(platform.clone()))
        .workers(relay_workers(platform))
        .ready_when(Check::database(&platform.db))
}
