//! Opaque tokens: `evh_<kind>_<tenant, 32 hex digits>_<secret, 43 characters>`.
//!
//! The tenant is in the token so that looking it up happens under that tenant's row security. The secret is
//! 256 random bits, therefore a plain SHA-256 of the whole token is what is stored. A token is shown once
//! and appears in no Debug output.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{IdGen, TenantId};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// What a token is for; the prefix people and secret scanners recognise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    Enrolment,
    Refresh,
}

impl TokenKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Enrolment => "evh_en_",
            Self::Refresh => "evh_rt_",
        }
    }
}

const SECRET_BYTES: usize = 32;
const SECRET_CHARS: usize = 43;

/// A well-formed token. Whether it is worth anything is the database's to say.
#[derive(Clone)]
pub struct OpaqueToken {
    tenant_id: TenantId,
    text: Zeroizing<String>,
}

impl OpaqueToken {
    /// A fresh one.
    pub fn mint(kind: TokenKind, tenant_id: TenantId, ids: &dyn IdGen) -> Self {
        let mut secret = Zeroizing::new([0_u8; SECRET_BYTES]);
        ids.fill(secret.as_mut());
        let tenant = tenant_id.uuid().simple();
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_ref()));
        let text = format!("{}{tenant}_{}", kind.prefix(), secret.as_str());
        Self { tenant_id, text: Zeroizing::new(text) }
    }

    /// Reads one; `None` for anything not of the form.
    pub fn parse(kind: TokenKind, text: &str) -> Option<Self> {
        let (tenant, secret) = text.strip_prefix(kind.prefix())?.split_once('_')?;
        let plain = secret.len() == SECRET_CHARS
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !plain {
            return None;
        }
        let tenant_id = format!("ten_{tenant}").parse().ok()?;
        Some(Self { tenant_id, text: Zeroizing::new(text.to_owned()) })
    }

    /// The tenant it claims to belong to.
    pub const fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }

    /// What is stored.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }

    /// The token itself, for the one reply that shows it.
    pub fn reveal(&self) -> String {
        self.text.to_string()
    }
}

impl fmt::Debug for OpaqueToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpaqueToken").field("tenant_id", &self.tenant_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::SeededIds;

    #[test]
    fn a_token_reads_back_as_itself_and_only_as_its_kind() {
        let ids = SeededIds::new(3);
        let tenant = TenantId::from_bytes([7; 16]);
        let token = OpaqueToken::mint(TokenKind::Refresh, tenant, &ids);
        let text = token.reveal();
        let read = OpaqueToken::parse(TokenKind::Refresh, &text).expect("reads");
        assert_eq!((read.tenant_id(), read.hash()), (tenant, token.hash()));
        assert!(OpaqueToken::parse(TokenKind::Enrolment, &text).is_none());
        assert!(!format!("{token:?}").contains(&text[40..]));
    }

    #[test]
    fn anything_else_is_no_token() {
        let ids = SeededIds::new(3);
        let text =
            OpaqueToken::mint(TokenKind::Refresh, TenantId::from_bytes([7; 16]), &ids).reveal();
        for bad in [
            String::new(),
            "evh_rt_".to_owned(),
            text.to_uppercase(),
            text[..text.len() - 1].to_owned(),
            format!("{text}A"),
            text.replace("evh_rt", "evh_en"),
            text.replacen('7', "g", 1),
            format!("{}\0", &text[..text.len() - 1]),
        ] {
            assert!(OpaqueToken::parse(TokenKind::Refresh, &bad).is_none(), "{bad:?}");
        }
    }
}
