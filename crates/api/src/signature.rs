//! Agent request signatures after RFC 9421, in one fixed profile.
//!
//! Label `sig1`; components `@method`, `@target-uri`, `content-digest` (RFC 9530 SHA-256, of the empty
//! body too); parameters `created`, `nonce`, `keyid`, `alg="ed25519"` in this order. `keyid` is
//! `<tenant id>/<agent id>`. Both sides build the base here, so they cannot drift. Nothing outside the
//! profile is accepted: there is no negotiation to attack.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{AgentId, TenantId, Timestamp};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// How far `created` may lie from server time, in seconds, either way.
pub const WINDOW_S: u64 = 90;

/// The three headers a signed request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureHeaders {
    pub content_digest: String,
    pub signature_input: String,
    pub signature: String,
}

/// The covered parameters, as read from `signature-input`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureParams {
    /// Unix seconds in server time.
    pub created: i64,
    /// 22 characters of unpadded base64url: 128 random bits.
    pub nonce: String,
    pub tenant_id: TenantId,
    pub agent_id: AgentId,
}

/// Why a signed request is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the signature headers are not of the one accepted profile")]
    Malformed,
    #[error("the content digest does not match the body")]
    Digest,
    #[error("the signature does not match")]
    Mismatch,
}

/// `content-digest` of a body: `sha-256=:<base64>:`.
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64.encode(Sha256::digest(body)))
}

impl SignatureParams {
    fn render(&self) -> String {
        format!(
            "(\"@method\" \"@target-uri\" \"content-digest\");created={};nonce=\"{}\";keyid=\"{}/{}\";alg=\"ed25519\"",
            self.created, self.nonce, self.tenant_id, self.agent_id
        )
    }

    /// Reads `signature-input`; anything but the profile is [`SignatureError::Malformed`].
    pub fn parse(signature_input: &str) -> Result<Self, SignatureError> {
        let bad = SignatureError::Malformed;
        let quoted = |name: &str| {
            let start = signature_input.find(&format!(";{name}=\""))? + name.len() + 3;
            let rest = signature_input.get(start..)?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let created = signature_input
            .split_once(";created=")
            .and_then(|(_, rest)| rest.split(';').next())
            .and_then(|digits| digits.parse::<i64>().ok())
            .ok_or(bad)?;
        let nonce = quoted("nonce").ok_or(bad)?;
        let plain = nonce.len() == 22
            && nonce.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !plain {
            return Err(bad);
        }
        let (tenant, agent) = quoted("keyid").and_then(|id| id.split_once('/')).ok_or(bad)?;
        let params = Self {
            created,
            nonce: nonce.to_owned(),
            tenant_id: tenant.parse().map_err(|_| bad)?,
            agent_id: agent.parse().map_err(|_| bad)?,
        };
        // One spelling only: what was parsed must render to what was sent.
        if signature_input == format!("sig1={}", params.render()) { Ok(params) } else { Err(bad) }
    }
}

/// The RFC 9421 signature base.
pub fn signature_base(
    method: &str,
    target_uri: &str,
    content_digest: &str,
    params: &SignatureParams,
) -> String {
    format!(
        "\"@method\": {method}\n\"@target-uri\": {target_uri}\n\"content-digest\": {content_digest}\n\"@signature-params\": {}",
        params.render()
    )
}

/// Signs one request. `nonce` must be fresh randomness.
#[expect(clippy::too_many_arguments, reason = "each is a covered part of the request")]
pub fn sign(
    key: &SigningKey,
    tenant_id: TenantId,
    agent_id: AgentId,
    method: &str,
    target_uri: &str,
    body: &[u8],
    now: Timestamp,
    nonce: [u8; 16],
) -> SignatureHeaders {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let params = SignatureParams {
        created: now.unix_secs(),
        nonce: URL_SAFE_NO_PAD.encode(nonce),
        tenant_id,
        agent_id,
    };
    let content_digest = content_digest(body);
    let base = signature_base(method, target_uri, &content_digest, &params);
    let signature = key.sign(base.as_bytes());
    SignatureHeaders {
        content_digest,
        signature_input: format!("sig1={}", params.render()),
        signature: format!("sig1=:{}:", BASE64.encode(signature.to_bytes())),
    }
}

/// The bytes of a `signature` header.
pub fn parse_signature(header: &str) -> Result<[u8; 64], SignatureError> {
    header
        .strip_prefix("sig1=:")
        .and_then(|rest| rest.strip_suffix(':'))
        .and_then(|text| BASE64.decode(text).ok())
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(SignatureError::Malformed)
}

/// Verifies a signature over a base with the agent's key (strict: no malleable or weak-key forms).
pub fn verify(key: &VerifyingKey, base: &str, signature: &[u8; 64]) -> Result<(), SignatureError> {
    key.verify_strict(base.as_bytes(), &Signature::from_bytes(signature))
        .map_err(|_| SignatureError::Mismatch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(body: &[u8]) -> (SigningKey, SignatureHeaders) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let tenant = TenantId::from_bytes([1; 16]);
        let agent = AgentId::from_bytes([2; 16]);
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        let uri = "http://localhost:1/v1/x?y=z";
        let headers = sign(&key, tenant, agent, "POST", uri, body, now, [9; 16]);
        (key, headers)
    }

    fn check(
        key: &SigningKey,
        h: &SignatureHeaders,
        uri: &str,
        body: &[u8],
    ) -> Result<(), SignatureError> {
        let params = SignatureParams::parse(&h.signature_input)?;
        if h.content_digest != content_digest(body) {
            return Err(SignatureError::Digest);
        }
        let base = signature_base("POST", uri, &h.content_digest, &params);
        verify(&key.verifying_key(), &base, &parse_signature(&h.signature)?)
    }

    #[test]
    fn what_was_signed_verifies_and_nothing_else_does() {
        let (key, headers) = signed(b"{}");
        let uri = "http://localhost:1/v1/x?y=z";
        assert_eq!(check(&key, &headers, uri, b"{}"), Ok(()));
        assert_eq!(check(&key, &headers, uri, b"{ }"), Err(SignatureError::Digest));
        let other = "http://localhost:1/v1/x?y=w";
        assert_eq!(check(&key, &headers, other, b"{}"), Err(SignatureError::Mismatch));
        let stranger = SigningKey::from_bytes(&[8; 32]);
        assert_eq!(check(&stranger, &headers, uri, b"{}"), Err(SignatureError::Mismatch));
    }

    #[test]
    fn only_the_one_spelling_of_the_parameters_is_read() {
        let (_, headers) = signed(b"");
        let input = &headers.signature_input;
        assert!(SignatureParams::parse(input).is_ok());
        for bad in [
            input.replace("ed25519", "none"),
            input.replace("\"@method\" ", ""),
            input.replace("created=", "created=0"),
            format!("{input};tag=\"x\""),
            input.replacen("sig1", "sig2", 1),
            String::new(),
        ] {
            assert_eq!(SignatureParams::parse(&bad), Err(SignatureError::Malformed), "{bad}");
        }
    }
}
