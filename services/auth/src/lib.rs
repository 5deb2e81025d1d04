//! The auth role: tenants, people, sign-in, enrolment and the identity of agents.
//!
//! Owns the schema `auth` and is the only role that sees a password, a refresh token or an enrolment token.
//! Invariant: every credential is checked in the tenant it claims, under that tenant's row security, and is
//! worth nothing anywhere else. It must not know what the other roles keep.

mod address;
mod agents;
pub mod bootstrap;
mod config;
mod enrolment;
pub mod keys;
mod password;
mod roles;
mod secret;
mod sessions;
mod state;
mod tenants;
mod throttle;
mod users;

use std::sync::Arc;

use runtime::{Check, Platform, Role, RoleName};
use utoipa_axum::router::OpenApiRouter;

pub use config::AuthConfig;
pub use password::Secret;

/// What the role's workers do, one step at a time: for tests and for hands.
pub mod maintenance {
    pub use crate::{agents::jobs::prune as prune_nonces, sessions::jobs::prune as prune_sessions};
}

/// The role, ready to be served. Makes its keys known to the platform's verifier.
pub fn role(platform: &Platform, config: AuthConfig) -> Role {
    let auth = Arc::new(state::Auth::new(platform, config));
    platform.verifier.set_keys(auth.keys.public().to_vec());
    let public = OpenApiRouter::new()
        .merge(sessions::http::routes())
        .merge(keys::http::routes())
        .merge(tenants::http::routes())
        .merge(users::http::routes())
        .merge(enrolment::http::routes())
        .merge(agents::http::routes());
    Role::new(RoleName::Auth)
        .public(public.with_state(auth.clone()))
        .internal(agents::http::internal_routes().with_state(auth))
        .workers(runtime::relay_workers(platform))
        .worker(agents::jobs::worker(platform))
        .worker(sessions::jobs::worker(platform))
        .ready_when(Check::database(&platform.db))
}
