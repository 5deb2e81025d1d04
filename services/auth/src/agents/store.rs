//! SQL of agents and of the nonces of their requests.

use domain::{AgentId, Timestamp, TokenId};
use pg::{ExpectRows as _, SystemTx, TenantTx};
use uuid::Uuid;

/// An enrolled agent.
#[derive(Debug, Clone)]
pub struct AgentRow {
    pub id: AgentId,
    pub enrolment_token_id: TokenId,
    pub name: String,
    pub hostname: String,
    pub os: String,
    pub arch: String,
    pub agent_version: String,
    pub verify_key: Vec<u8>,
    pub hpke_key: Vec<u8>,
    pub enrolled_at: Timestamp,
    pub last_seen_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

struct Raw {
    id: Uuid,
    enrolment_token_id: Uuid,
    name: String,
    hostname: String,
    os: String,
    arch: String,
    agent_version: String,
    verify_key: Vec<u8>,
    hpke_key: Vec<u8>,
    enrolled_at: time::OffsetDateTime,
    last_seen_at: Option<time::OffsetDateTime>,
    revoked_at: Option<time::OffsetDateTime>,
}

impl From<Raw> for AgentRow {
    fn from(raw: Raw) -> Self {
        Self {
            id: AgentId::from_uuid(raw.id),
            enrolment_token_id: TokenId::from_uuid(raw.enrolment_token_id),
            name: raw.name,
            hostname: raw.hostname,
            os: raw.os,
            arch: raw.arch,
            agent_version: raw.agent_version,
            verify_key: raw.verify_key,
            hpke_key: raw.hpke_key,
            enrolled_at: raw.enrolled_at.into(),
            last_seen_at: raw.last_seen_at.map(Into::into),
            revoked_at: raw.revoked_at.map(Into::into),
        }
    }
}

pub async fn insert(tx: &mut TenantTx, agent: &AgentRow) -> Result<(), pg::Error> {
    let here = tx.tenant().uuid();
    sqlx::query!(
        "INSERT INTO auth.agents (tenant_id, id, enrolment_token_id, name, hostname, os, arch, agent_version,
                                  verify_key, hpke_key, enrolled_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        here,
        agent.id.uuid(),
        agent.enrolment_token_id.uuid(),
        agent.name,
        agent.hostname,
        agent.os,
        agent.arch,
        agent.agent_version,
        agent.verify_key,
        agent.hpke_key,
        time::OffsetDateTime::from(agent.enrolled_at),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn find(tx: &mut TenantTx, id: AgentId) -> Result<Option<AgentRow>, pg::Error> {
    let here = tx.tenant().uuid();
    let row = sqlx::query_as!(
        Raw,
        "SELECT id, enrolment_token_id, name, hostname, os, arch, agent_version, verify_key, hpke_key,
                enrolled_at, last_seen_at, revoked_at
         FROM auth.agents WHERE tenant_id = $1 AND id = $2",
        here,
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Into::into))
}

/// The agent that has this key and was enrolled with this token.
pub async fn find_enrolled(
    tx: &mut TenantTx,
    verify_key: &[u8; 32],
    token_hash: &[u8; 32],
) -> Result<Option<AgentRow>, pg::Error> {
    let here = tx.tenant().uuid();
    let row = sqlx::query_as!(
        Raw,
        "SELECT a.id, a.enrolment_token_id, a.name, a.hostname, a.os, a.arch, a.agent_version, a.verify_key,
                a.hpke_key, a.enrolled_at, a.last_seen_at, a.revoked_at
         FROM auth.agents a
         JOIN auth.enrolment_tokens t ON t.tenant_id = a.tenant_id AND t.id = a.enrolment_token_id
         WHERE a.tenant_id = $1 AND a.verify_key = $2 AND t.token_hash = $3",
        here,
        verify_key.as_slice(),
        token_hash.as_slice(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Into::into))
}

pub async fn list(
    tx: &mut TenantTx,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<AgentRow>, pg::Error> {
    let here = tx.tenant().uuid();
    let rows = sqlx::query_as!(
        Raw,
        "SELECT id, enrolment_token_id, name, hostname, os, arch, agent_version, verify_key, hpke_key,
                enrolled_at, last_seen_at, revoked_at
         FROM auth.agents WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3",
        here,
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Revokes the agent unless it is revoked already; says whether it did.
pub async fn set_revoked(
    tx: &mut TenantTx,
    id: AgentId,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    let here = tx.tenant().uuid();
    let done = sqlx::query!(
        "UPDATE auth.agents SET revoked_at = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
        here,
        id.uuid(),
        time::OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn set_last_seen(
    tx: &mut TenantTx,
    id: AgentId,
    now: Timestamp,
) -> Result<(), pg::Error> {
    let here = tx.tenant().uuid();
    sqlx::query!(
        "UPDATE auth.agents SET last_seen_at = $3 WHERE tenant_id = $1 AND id = $2",
        here,
        id.uuid(),
        time::OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?
    .expect_rows(1)
}

/// Records a nonce; false when this agent used it before.
pub async fn insert_nonce(
    tx: &mut TenantTx,
    id: AgentId,
    nonce: &str,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    let here = tx.tenant().uuid();
    let done = sqlx::query!(
        "INSERT INTO auth.agent_nonces (tenant_id, agent_id, nonce, seen_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, agent_id, nonce) DO NOTHING",
        here,
        id.uuid(),
        nonce,
        time::OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes nonces seen before `before`, of every tenant.
pub async fn delete_stale_nonces(tx: &mut SystemTx, before: Timestamp) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "DELETE FROM auth.agent_nonces WHERE seen_at < $1",
        time::OffsetDateTime::from(before),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
