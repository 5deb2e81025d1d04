//! SQL of enrolment tokens.

use domain::{Timestamp, TokenId};
use pg::TenantTx;
use uuid::Uuid;

/// A token as people see it; the secret is not stored.
#[derive(Debug, Clone)]
pub struct TokenRow {
    pub id: TokenId,
    pub label: String,
    pub max_uses: u32,
    pub uses: u32,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

struct Raw {
    id: Uuid,
    label: String,
    max_uses: i32,
    uses: i32,
    created_at: time::OffsetDateTime,
    expires_at: time::OffsetDateTime,
    revoked_at: Option<time::OffsetDateTime>,
}

impl From<Raw> for TokenRow {
    fn from(raw: Raw) -> Self {
        Self {
            id: TokenId::from_uuid(raw.id),
            label: raw.label,
            max_uses: raw.max_uses.unsigned_abs(),
            uses: raw.uses.unsigned_abs(),
            created_at: raw.created_at.into(),
            expires_at: raw.expires_at.into(),
            revoked_at: raw.revoked_at.map(Into::into),
        }
    }
}

pub async fn insert(
    tx: &mut TenantTx,
    token: &TokenRow,
    token_hash: &[u8; 32],
) -> Result<(), pg::Error> {
    let here = tx.tenant().uuid();
    sqlx::query!(
        "INSERT INTO auth.enrolment_tokens (tenant_id, id, token_hash, label, max_uses, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        here,
        token.id.uuid(),
        token_hash.as_slice(),
        token.label,
        i32::try_from(token.max_uses).map_err(|_| pg::Error::OutOfRange)?,
        time::OffsetDateTime::from(token.created_at),
        time::OffsetDateTime::from(token.expires_at),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn list(
    tx: &mut TenantTx,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<TokenRow>, pg::Error> {
    let here = tx.tenant().uuid();
    let rows = sqlx::query_as!(
        Raw,
        "SELECT id, label, max_uses, uses, created_at, expires_at, revoked_at FROM auth.enrolment_tokens
         WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3",
        here,
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The token by its id, locked until the transaction ends.
pub async fn lock(tx: &mut TenantTx, id: TokenId) -> Result<Option<TokenRow>, pg::Error> {
    let here = tx.tenant().uuid();
    let row = sqlx::query_as!(
        Raw,
        "SELECT id, label, max_uses, uses, created_at, expires_at, revoked_at FROM auth.enrolment_tokens
         WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
        here,
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Into::into))
}

pub async fn set_revoked(tx: &mut TenantTx, id: TokenId, now: Timestamp) -> Result<(), pg::Error> {
    use pg::ExpectRows as _;
    let here = tx.tenant().uuid();
    sqlx::query!(
        "UPDATE auth.enrolment_tokens SET revoked_at = $3
         WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
        here,
        id.uuid(),
        time::OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?
    .expect_rows(1)
}

/// Uses the token once, if it may be used once more. The row lock of the UPDATE makes racing agents take
/// turns, each seeing the count the one before it left.
pub async fn use_once(
    tx: &mut TenantTx,
    token_hash: &[u8; 32],
    now: Timestamp,
) -> Result<Option<TokenId>, pg::Error> {
    let here = tx.tenant().uuid();
    let id = sqlx::query_scalar!(
        "UPDATE auth.enrolment_tokens SET uses = uses + 1
         WHERE tenant_id = $1 AND token_hash = $2 AND revoked_at IS NULL AND expires_at > $3
           AND uses < max_uses
         RETURNING id",
        here,
        token_hash.as_slice(),
        time::OffsetDateTime::from(now),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(id.map(TokenId::from_uuid))
}
