//! Agents: machines that proved a key, and the check of every request they sign.
//!
//! Invariant: a request is believed once (its nonce is inserted, unique per agent, on whichever replica),
//! only within the window of server time, only under the agent's own key, and never after revocation.
//! An unknown tenant, an unknown agent and a wrong signature answer alike and cost alike.

pub mod http;
pub mod jobs;
pub mod store;

use std::time::Duration;

use api::signature;
use authz::{Scope, ScopeReason};
use domain::{AgentId, TenantId, Timestamp};
use ed25519_dalek::VerifyingKey;
use pg::{Db, OperationalReason, TenantTx};
use runtime::Cx;
use uuid::Uuid;

pub use store::AgentRow;

/// `last_seen_at` is for people; finer than this it would only be writes.
const SEEN_STEP: Duration = Duration::from_secs(60);

/// A key nobody signs with: what the signature of an unknown agent is checked against. The point of
/// RFC 8037's example, which is a valid key.
const NOBODY: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
    0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

/// Why an agent is not shown, or not believed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("there is no such agent")]
    NotFound,
    #[error("the request signature does not match")]
    SignatureInvalid,
    #[error("the request is outside the window of server time")]
    ClockSkew { server_time: Timestamp },
    #[error("the request was seen before")]
    NonceReused,
    #[error("the agent was revoked")]
    Revoked,
    #[error(transparent)]
    Db(#[from] pg::Error),
}

pub async fn get(db: &Db, scope: Scope, id: AgentId) -> Result<AgentRow, AgentError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    store::find(&mut tx, id).await?.ok_or(AgentError::NotFound)
}

pub async fn list(
    db: &Db,
    scope: Scope,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<AgentRow>, AgentError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    Ok(store::list(&mut tx, after, limit).await?)
}

/// From the commit of this on, no request of the agent is believed. Doing it again changes nothing.
pub async fn revoke(db: &Db, cx: &Cx, scope: Scope, id: AgentId) -> Result<AgentRow, AgentError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    let revoked = store::set_revoked(&mut tx, id, cx.now()).await?;
    let agent = store::find(&mut tx, id).await?.ok_or(AgentError::NotFound)?;
    if revoked {
        tx.commit(cx.event("agent.revoked", "agent", &id)).await?;
    }
    Ok(agent)
}

/// A signed request, as the middleware of another role took it apart.
pub struct SignedRequest {
    pub tenant_id: TenantId,
    pub agent_id: AgentId,
    pub created: i64,
    pub nonce: String,
    pub base: String,
    pub signature: [u8; 64],
}

impl SignedRequest {
    /// How the base of this request ends, after `api::signature`.
    fn signed_end(&self) -> String {
        let Self { tenant_id, agent_id, created, nonce, .. } = self;
        format!(
            ";created={created};nonce=\"{nonce}\";keyid=\"{tenant_id}/{agent_id}\";alg=\"ed25519\""
        )
    }
}

/// Believes a request, once.
pub async fn verify(
    db: &Db,
    now: Timestamp,
    request: &SignedRequest,
) -> Result<AgentRow, AgentError> {
    // The nonces kept reach as far back as this window; without it an old request would be new again.
    if now.unix_secs().abs_diff(request.created) > signature::WINDOW_S {
        return Err(AgentError::ClockSkew { server_time: now });
    }
    // What is checked apart from the signature must be what was signed.
    if !request.base.ends_with(&request.signed_end()) {
        return Err(AgentError::SignatureInvalid);
    }
    let scope = Scope::without_permit(request.tenant_id, ScopeReason::PresentedCredential);
    let mut tx = TenantTx::begin(db, scope).await?;
    let agent = store::find(&mut tx, request.agent_id).await?;
    let key = agent.as_ref().and_then(|agent| agent.verify_key.as_slice().try_into().ok());
    let matches = VerifyingKey::from_bytes(&key.unwrap_or(NOBODY))
        .is_ok_and(|key| signature::verify(&key, &request.base, &request.signature).is_ok());
    let agent = agent.filter(|_| matches && key.is_some()).ok_or(AgentError::SignatureInvalid)?;
    // Said only to who holds the key: to others a revoked agent is as unknown as any.
    if agent.revoked_at.is_some() {
        return Err(AgentError::Revoked);
    }
    if !store::insert_nonce(&mut tx, agent.id, &request.nonce, now).await? {
        return Err(AgentError::NonceReused);
    }
    if agent.last_seen_at.is_none_or(|seen| now.since(seen) >= SEEN_STEP) {
        store::set_last_seen(&mut tx, agent.id, now).await?;
    }
    tx.commit_operational(OperationalReason::Nonce).await?;
    Ok(agent)
}
