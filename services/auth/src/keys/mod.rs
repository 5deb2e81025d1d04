//! The keys access tokens are signed with, and their public halves for everybody (JWKS, RFC 7517).
//!
//! Invariant: exactly one key signs; any number verify, so that a new key can be known everywhere before
//! the first token of it appears, and an old one stays until its last token expired. Private keys appear in
//! no Debug output.

pub mod http;

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{
    SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _},
};
use runtime::{AccessClaims, AccessSigner, TokenError, VerifyKey};

/// Why a configured key is not usable. Never says what the text was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("not an Ed25519 private key: PKCS#8 PEM, or 32 bytes in base64")]
    Private,
    #[error("not an Ed25519 public key: SPKI PEM, or 32 bytes in base64")]
    Public,
}

/// Reads the configured signing key: PKCS#8 PEM or a base64 seed.
///
/// # Errors
/// [`KeyError::Private`].
pub fn parse_signing_key(text: &str) -> Result<SigningKey, KeyError> {
    let text = text.trim();
    if text.starts_with("-----BEGIN") {
        return SigningKey::from_pkcs8_pem(text).map_err(|_| KeyError::Private);
    }
    Ok(SigningKey::from_bytes(&decode_32(text).ok_or(KeyError::Private)?))
}

/// Reads a configured verification key: SPKI PEM or base64.
///
/// # Errors
/// [`KeyError::Public`], for weak keys too.
pub fn parse_verifying_key(text: &str) -> Result<VerifyingKey, KeyError> {
    let text = text.trim();
    let key = if text.starts_with("-----BEGIN") {
        VerifyingKey::from_public_key_pem(text).ok()
    } else {
        decode_32(text).and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
    };
    key.filter(|key| !key.is_weak()).ok_or(KeyError::Public)
}

fn decode_32(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok())
}

/// The keys of access tokens: one that signs, all that verify.
pub struct AccessKeys {
    signer: AccessSigner,
    public: Vec<VerifyKey>,
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids: Vec<&str> = self.public.iter().map(|key| key.kid.as_str()).collect();
        f.debug_struct("AccessKeys").field("kids", &kids).finish_non_exhaustive()
    }
}

impl AccessKeys {
    /// `also`: further keys that verify: the one before, the one to come.
    ///
    /// # Errors
    /// [`KeyError::Private`].
    pub fn new(signing: &SigningKey, also: &[VerifyingKey]) -> Result<Self, KeyError> {
        let signer = AccessSigner::new(signing).map_err(|_| KeyError::Private)?;
        let mut public = vec![VerifyKey::of(signing)];
        let others = also.iter().map(|key| VerifyKey::from_public(key.to_bytes()));
        public.extend(others.filter(|key| *key != VerifyKey::of(signing)));
        Ok(Self { signer, public })
    }

    /// # Errors
    /// When the claims cannot be written.
    pub fn sign(&self, claims: &AccessClaims) -> Result<String, TokenError> {
        self.signer.sign(claims)
    }

    /// Every key tokens may be signed with, the signing one first.
    pub fn public(&self) -> &[VerifyKey] {
        &self.public
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::pkcs8::{
        EncodePrivateKey as _, EncodePublicKey as _, spki::der::pem::LineEnding,
    };

    #[test]
    fn keys_are_read_as_pem_and_as_base64_and_nothing_else() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let pem = key.to_pkcs8_pem(LineEnding::LF).expect("pem");
        assert_eq!(parse_signing_key(&pem).expect("reads"), key);
        assert_eq!(parse_signing_key(&STANDARD.encode([7; 32])).expect("reads"), key);
        let public = key.verifying_key();
        let pem = public.to_public_key_pem(LineEnding::LF).expect("pem");
        assert_eq!(parse_verifying_key(&pem).expect("reads"), public);
        assert_eq!(
            parse_verifying_key(&STANDARD.encode(public.as_bytes())).expect("reads"),
            public
        );
        for bad in ["", "secret", "-----BEGIN PRIVATE KEY-----", &STANDARD.encode([7; 31])] {
            assert_eq!(parse_signing_key(bad).err(), Some(KeyError::Private));
            assert_eq!(parse_verifying_key(bad).err(), Some(KeyError::Public));
        }
        assert_eq!(parse_verifying_key(&STANDARD.encode([0; 32])).err(), Some(KeyError::Public));
    }

    #[test]
    fn the_keys_show_no_secret() {
        let keys = AccessKeys::new(&SigningKey::from_bytes(&[7; 32]), &[]).expect("keys");
        let shown = format!("{keys:?}");
        assert!(!shown.contains("07") && !shown.contains(&STANDARD.encode([7; 32])), "{shown}");
    }
}
