//! What the role is configured with.

use ed25519_dalek::VerifyingKey;

use crate::keys::{self, AccessKeys, KeyError};

/// Configuration of the auth role.
#[derive(Debug)]
pub struct AuthConfig {
    pub keys: AccessKeys,
    /// Passwords hashed at once, 46 MiB and one core each.
    pub parallel_passwords: usize,
}

impl AuthConfig {
    /// `signing_key`: PKCS#8 PEM or 32 bytes in base64, from the configured secret or its `*_file`.
    /// `verification_keys`: public keys of the keys before and to come (SPKI PEM or base64).
    ///
    /// # Errors
    /// [`KeyError`], which does not repeat the text.
    pub fn new(
        signing_key: &str,
        verification_keys: &[String],
        parallel_passwords: usize,
    ) -> Result<Self, KeyError> {
        let also: Vec<VerifyingKey> = verification_keys
            .iter()
            .map(|text| keys::parse_verifying_key(text))
            .collect::<Result<_, _>>()?;
        let keys = AccessKeys::new(&keys::parse_signing_key(signing_key)?, &also)?;
        Ok(Self { keys, parallel_passwords })
    }
}
