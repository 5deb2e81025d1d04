//! How a machine becomes an agent: counted, expiring tokens, and proof that it holds its key.
//!
//! Invariant: a token makes at most `max_uses` agents, however many machines race; the use, the agent and
//! the event are one transaction. A machine whose reply was lost asks again with the same key and token
//! and gets the same answer without a second use. Unknown, expired, used-up and revoked tokens answer alike.

pub mod http;
pub mod store;

use std::time::Duration;

use authz::{Actor, Scope, ScopeReason};
use domain::{AgentId, TenantId, Timestamp, TokenId};
use ed25519_dalek::{Signature, VerifyingKey};
use pg::{Db, TenantTx};
use runtime::Cx;
use uuid::Uuid;

use crate::{
    agents,
    secret::{OpaqueToken, TokenKind},
    tenants,
};
pub use store::TokenRow;

/// What a token may be at most.
pub const MAX_USES: u32 = 1_000;
pub const MAX_TTL: Duration = Duration::from_secs(7 * 86_400);

/// Why there is no token, or no agent.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("there is no such token")]
    NotFound,
    #[error("the enrolment token is unknown, used up or expired")]
    TokenInvalid,
    /// The proof of possession does not match the key.
    #[error("the proof was not made with the key")]
    ProofInvalid,
    /// The key belongs to an agent that was enrolled otherwise, or was revoked.
    #[error("an agent with this key exists already")]
    KeyTaken,
    #[error(transparent)]
    Db(#[from] pg::Error),
}

/// A token with its secret, for the one reply that shows it.
pub struct Minted {
    pub row: TokenRow,
    pub token: OpaqueToken,
}

/// Makes a token; the figures are already within bounds.
pub async fn create(
    db: &Db,
    cx: &Cx,
    scope: Scope,
    label: String,
    max_uses: u32,
    ttl: Duration,
) -> Result<Minted, EnrolError> {
    let now = cx.now();
    let token = OpaqueToken::mint(TokenKind::Enrolment, scope.tenant(), &*cx.ids);
    let row = TokenRow {
        id: TokenId::fresh(&*cx.ids, now),
        label,
        max_uses,
        uses: 0,
        created_at: now,
        expires_at: now + ttl,
        revoked_at: None,
    };
    let mut tx = TenantTx::begin(db, scope).await?;
    store::insert(&mut tx, &row, &token.hash()).await?;
    let event = cx
        .event("enrolment_token.created", "enrolment_token", &row.id)
        .detail("max_uses", row.max_uses)
        .detail("expires_at", row.expires_at);
    tx.commit(event).await?;
    Ok(Minted { row, token })
}

pub async fn list(
    db: &Db,
    scope: Scope,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<TokenRow>, EnrolError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    Ok(store::list(&mut tx, after, limit).await?)
}

/// Ends a token. Agents it made stay. Doing it again changes nothing.
pub async fn revoke(db: &Db, cx: &Cx, scope: Scope, id: TokenId) -> Result<TokenRow, EnrolError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    let mut row = store::lock(&mut tx, id).await?.ok_or(EnrolError::NotFound)?;
    if row.revoked_at.is_none() {
        let now = cx.now();
        store::set_revoked(&mut tx, id, now).await?;
        row.revoked_at = Some(now);
        tx.commit(cx.event("enrolment_token.revoked", "enrolment_token", &id)).await?;
    }
    Ok(row)
}

/// A machine asking to become an agent; names already valid, keys of the right size.
pub struct Machine {
    pub name: String,
    pub hostname: String,
    pub os: String,
    pub arch: String,
    pub agent_version: String,
    pub verify_key: [u8; 32],
    pub hpke_key: [u8; 32],
    pub proof: [u8; 64],
}

/// What the new agent is told.
#[derive(Debug, Clone)]
pub struct Enrolled {
    pub tenant_id: TenantId,
    pub tenant_name: String,
    pub agent_id: AgentId,
    pub server_time: Timestamp,
}

/// Makes the machine an agent of the token's tenant.
pub async fn enrol(
    db: &Db,
    cx: &Cx,
    token: &OpaqueToken,
    machine: Machine,
) -> Result<Enrolled, EnrolError> {
    check_proof(token, &machine)?;
    let scope = Scope::without_permit(token.tenant_id(), ScopeReason::PresentedCredential);
    if let Some(known) = again(db, cx, scope, token, &machine).await? {
        return Ok(known);
    }
    let (verify_key, hpke_key) = (machine.verify_key, machine.hpke_key);
    match first_time(db, cx, scope, token, machine).await {
        // Perhaps it lost a race against itself.
        Err(error @ (EnrolError::KeyTaken | EnrolError::TokenInvalid)) => {
            let mut tx = TenantTx::begin(db, scope).await?;
            let known = agents::store::find_enrolled(&mut tx, &verify_key, &token.hash()).await?;
            match known.filter(|agent| same_machine(agent, &hpke_key)) {
                Some(agent) => answer(&mut tx, cx, agent.id).await,
                None => Err(error),
            }
        }
        other => other,
    }
}

fn check_proof(token: &OpaqueToken, machine: &Machine) -> Result<(), EnrolError> {
    let key = VerifyingKey::from_bytes(&machine.verify_key)
        .ok()
        .filter(|key| !key.is_weak())
        .ok_or(EnrolError::ProofInvalid)?;
    let said = format!("everhold/enrol/v1\n{}", token.reveal());
    key.verify_strict(said.as_bytes(), &Signature::from_bytes(&machine.proof))
        .map_err(|_| EnrolError::ProofInvalid)
}

fn same_machine(agent: &agents::AgentRow, hpke_key: &[u8; 32]) -> bool {
    agent.revoked_at.is_none() && agent.hpke_key == hpke_key
}

/// The answer of before, for a machine whose reply was lost.
async fn again(
    db: &Db,
    cx: &Cx,
    scope: Scope,
    token: &OpaqueToken,
    machine: &Machine,
) -> Result<Option<Enrolled>, EnrolError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    let known = agents::store::find_enrolled(&mut tx, &machine.verify_key, &token.hash()).await?;
    match known {
        None => Ok(None),
        Some(agent) if same_machine(&agent, &machine.hpke_key) => {
            Ok(Some(answer(&mut tx, cx, agent.id).await?))
        }
        Some(_) => Err(EnrolError::KeyTaken),
    }
}

async fn first_time(
    db: &Db,
    cx: &Cx,
    scope: Scope,
    token: &OpaqueToken,
    machine: Machine,
) -> Result<Enrolled, EnrolError> {
    let now = cx.now();
    let mut tx = TenantTx::begin(db, scope).await?;
    let token_id =
        store::use_once(&mut tx, &token.hash(), now).await?.ok_or(EnrolError::TokenInvalid)?;
    let agent = agents::AgentRow {
        id: AgentId::fresh(&*cx.ids, now),
        enrolment_token_id: token_id,
        name: machine.name,
        hostname: machine.hostname,
        os: machine.os,
        arch: machine.arch,
        agent_version: machine.agent_version,
        verify_key: machine.verify_key.to_vec(),
        hpke_key: machine.hpke_key.to_vec(),
        enrolled_at: now,
        last_seen_at: None,
        revoked_at: None,
    };
    agents::store::insert(&mut tx, &agent).await.map_err(|error| {
        if error.violates("agents_verify_key_key") { EnrolError::KeyTaken } else { error.into() }
    })?;
    let reply = answer(&mut tx, cx, agent.id).await?;
    // The machine speaks for itself from here on: it proved its key, and the token says who let it in.
    let me = Actor::Agent { tenant: scope.tenant(), id: agent.id };
    let event = cx
        .event_by(&me, "agent.enrolled", "agent", &agent.id)
        .detail("enrolment_token_id", token_id)
        .detail("os", &agent.os)
        .detail("agent_version", &agent.agent_version);
    tx.commit(event).await?;
    Ok(reply)
}

async fn answer(tx: &mut TenantTx, cx: &Cx, agent_id: AgentId) -> Result<Enrolled, EnrolError> {
    let tenant_id = tx.tenant();
    let tenant = tenants::store::find(tx, tenant_id).await?.ok_or(EnrolError::TokenInvalid)?;
    Ok(Enrolled { tenant_id, tenant_name: tenant.name, agent_id, server_time: cx.now() })
}
