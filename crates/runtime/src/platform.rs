//! What every role is given to work with.

use std::sync::Arc;

use domain::{Clock, IdGen};

use crate::{Peers, ServiceKeys, TokenVerifier};

/// The parts a role is built on. Cheap to clone.
#[derive(Clone)]
pub struct Platform {
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGen>,
    /// This role's schema.
    pub db: pg::Db,
    /// Reads access tokens; the auth role hands it the current keys.
    pub verifier: TokenVerifier,
    /// Signs and verifies service and lease tokens.
    pub service_keys: ServiceKeys,
    /// The other roles.
    pub peers: Peers,
    /// Origin people and agents use: `https://backup.example`, without a trailing slash.
    pub public_url: Arc<str>,
}

impl Platform {
    /// The same platform with another role's database.
    #[must_use]
    pub fn with_db(&self, db: pg::Db) -> Self {
        Self { db, ..self.clone() }
    }
}
