//! What every request of the role shares.

use std::sync::Arc;

use authz::User;
use domain::{IdGen, Timestamp};
use pg::Db;
use runtime::{AccessClaims, Platform, TokenError};

use crate::{
    config::AuthConfig, keys::AccessKeys, password::Passwords, sessions::ACCESS_TTL_S,
    throttle::Throttle,
};

/// The role's state. One per process, shared.
pub struct Auth {
    pub db: Db,
    pub passwords: Passwords,
    pub throttle: Throttle,
    pub keys: AccessKeys,
    issuer: String,
}

/// How handlers get it.
pub type Shared = axum::extract::State<Arc<Auth>>;

impl Auth {
    pub fn new(platform: &Platform, config: AuthConfig) -> Self {
        Self {
            db: platform.db.clone(),
            passwords: Passwords::new(config.parallel_passwords),
            throttle: Throttle::default(),
            keys: config.keys,
            issuer: platform.verifier.issuer().to_owned(),
        }
    }

    /// A token for `user`, valid in the one tenant it acts in.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn access_token(
        &self,
        user: &User,
        now: Timestamp,
        ids: &dyn IdGen,
    ) -> Result<String, TokenError> {
        self.keys.sign(&AccessClaims::new(&self.issuer, user, now, ACCESS_TTL_S, ids))
    }
}
