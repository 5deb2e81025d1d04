//! The enrolled keys of the agent that signed the request, as auth verified them.

use api::{internal::VerifiedAgent, problem::Code};
use axum::extract::FromRequestParts;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::request::Parts;
use runtime::Failure;
use vault::keys::Member;

/// An extractor: agents only. The edge leaves auth's answer in the request's extensions.
pub struct Enrolled(pub Member);

impl<S: Send + Sync> FromRequestParts<S> for Enrolled {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let found = parts.extensions.get::<VerifiedAgent>();
        let agent = found.ok_or_else(|| Failure::from(Code::Forbidden))?;
        let key = |text: &str| BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        let keys = key(&agent.verify_key).zip(key(&agent.hpke_key));
        let (verify_key, hpke_key) = keys.ok_or_else(|| Failure::from(Code::Internal))?;
        Ok(Self(Member { agent: agent.agent_id, verify_key, hpke_key }))
    }
}
