//! SQL of sign-in and of refresh token families.

use authz::Role;
use domain::{TenantId, Timestamp, TokenId, UserId};
use pg::{ExpectRows as _, LookupTx, SystemTx, TenantTx};

use crate::users::store::parse_roles;

/// An account that a name may mean.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    pub tenant_id: TenantId,
    pub user_id: UserId,
}

/// The accounts the looked-up name means; few. The one in the tenant asked for first, then the oldest, so that
/// accounts made of somebody's name elsewhere never crowd it out.
pub async fn find_candidates(
    tx: &mut LookupTx,
    name_key: &str,
    asked: Option<TenantId>,
    limit: i64,
) -> Result<Vec<Candidate>, pg::Error> {
    let rows = sqlx::query!(
        "SELECT tenant_id, user_id FROM auth.signin_names
         WHERE name_key = $1
         ORDER BY (tenant_id IS NOT DISTINCT FROM $3) DESC, created_at, user_id LIMIT $2",
        name_key,
        limit,
        asked.map(TenantId::uuid) as Option<uuid::Uuid>,
    )
    .fetch_all(tx.conn())
    .await?;
    let candidate = |tenant_id, user_id| Candidate {
        tenant_id: TenantId::from_uuid(tenant_id),
        user_id: UserId::from_uuid(user_id),
    };
    Ok(rows.into_iter().map(|row| candidate(row.tenant_id, row.user_id)).collect())
}

/// The stored password of an account that may sign in.
pub async fn find_password(tx: &mut TenantTx, id: UserId) -> Result<Option<String>, pg::Error> {
    let here = tx.tenant().uuid();
    let hash = sqlx::query_scalar!(
        "SELECT password_hash FROM auth.users WHERE tenant_id = $1 AND id = $2 AND disabled_at IS NULL",
        here,
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(hash)
}

/// The roles of an account that may act, read anew for every token.
pub async fn find_roles(tx: &mut TenantTx, id: UserId) -> Result<Option<Vec<Role>>, pg::Error> {
    let here = tx.tenant().uuid();
    let row = sqlx::query!(
        r#"SELECT ARRAY(SELECT g.role FROM auth.role_grants g
                  WHERE g.tenant_id = u.tenant_id AND g.user_id = u.id ORDER BY g.role) AS "roles!"
           FROM auth.users u WHERE u.tenant_id = $1 AND u.id = $2 AND u.disabled_at IS NULL"#,
        here,
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| parse_roles(&row.roles)))
}

/// One sign-in and the tokens descending from it.
#[derive(Debug, Clone)]
pub struct Family {
    pub id: TokenId,
    pub user_id: UserId,
    pub acting_tenant_id: TenantId,
    pub expires_at: Timestamp,
    pub end: Option<EndReason>,
    /// What signed in, as it named itself.
    pub client: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    Revoked,
    Reused,
    PasswordChanged,
}

impl EndReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Reused => "reused",
            Self::PasswordChanged => "password_changed",
        }
    }
}

pub async fn insert_family(
    tx: &mut TenantTx,
    family: &Family,
    now: Timestamp,
) -> Result<(), pg::Error> {
    let here = tx.tenant().uuid();
    sqlx::query!(
        "INSERT INTO auth.refresh_families (tenant_id, id, user_id, acting_tenant_id, created_at, expires_at, client)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        here,
        family.id.uuid(),
        family.user_id.uuid(),
        family.acting_tenant_id.uuid(),
        time::OffsetDateTime::from(now),
        time::OffsetDateTime::from(family.expires_at),
        family.client,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Locks the family a token belongs to, until the transaction ends.
///
/// Everything about the token must be read after this, in a statement of its own: the waiter's first
/// snapshot is older than what the holder of the lock committed.
pub async fn lock_family(
    tx: &mut TenantTx,
    token_hash: &[u8; 32],
) -> Result<Option<Family>, pg::Error> {
    let here = tx.tenant().uuid();
    let row = sqlx::query!(
        "SELECT id, user_id, acting_tenant_id, expires_at, end_reason, client FROM auth.refresh_families
         WHERE tenant_id = $1 AND id = (
             SELECT family_id FROM auth.refresh_tokens WHERE tenant_id = $1 AND token_hash = $2)
         FOR UPDATE",
        here,
        token_hash.as_slice(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Family {
        id: TokenId::from_uuid(row.id),
        user_id: UserId::from_uuid(row.user_id),
        acting_tenant_id: TenantId::from_uuid(row.acting_tenant_id),
        expires_at: row.expires_at.into(),
        end: row.end_reason.map(|reason| match reason.as_str() {
            "reused" => EndReason::Reused,
            "password_changed" => EndReason::PasswordChanged,
            _ => EndReason::Revoked,
        }),
        client: row.client,
    }))
}

/// A token, its family being locked.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    pub id: TokenId,
    pub expires_at: Timestamp,
    pub used: bool,
}

pub async fn get_token(tx: &mut TenantTx, token_hash: &[u8; 32]) -> Result<Token, pg::Error> {
    let here = tx.tenant().uuid();
    let row = sqlx::query!(
        r#"SELECT id, expires_at, used_at IS NOT NULL AS "used!" FROM auth.refresh_tokens
           WHERE tenant_id = $1 AND token_hash = $2"#,
        here,
        token_hash.as_slice(),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Token { id: TokenId::from_uuid(row.id), expires_at: row.expires_at.into(), used: row.used })
}

pub async fn insert_token(
    tx: &mut TenantTx,
    family_id: TokenId,
    id: TokenId,
    token_hash: &[u8; 32],
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), pg::Error> {
    let here = tx.tenant().uuid();
    sqlx::query!(
        "INSERT INTO auth.refresh_tokens (tenant_id, id, family_id, token_hash, issued_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        here,
        id.uuid(),
        family_id.uuid(),
        token_hash.as_slice(),
        time::OffsetDateTime::from(now),
        time::OffsetDateTime::from(expires_at),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Uses a token up; exactly once.
pub async fn set_token_used(
    tx: &mut TenantTx,
    id: TokenId,
    now: Timestamp,
) -> Result<(), pg::Error> {
    let here = tx.tenant().uuid();
    sqlx::query!(
        "UPDATE auth.refresh_tokens SET used_at = $3 WHERE tenant_id = $1 AND id = $2 AND used_at IS NULL",
        here,
        id.uuid(),
        time::OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?
    .expect_rows(1)
}

/// Notes a renewal, and where its tokens act from now on.
pub async fn set_renewed(
    tx: &mut TenantTx,
    family_id: TokenId,
    acting: TenantId,
    now: Timestamp,
) -> Result<(), pg::Error> {
    let here = tx.tenant().uuid();
    sqlx::query!(
        "UPDATE auth.refresh_families SET acting_tenant_id = $3, last_used_at = $4
         WHERE tenant_id = $1 AND id = $2",
        here,
        family_id.uuid(),
        acting.uuid(),
        time::OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?
    .expect_rows(1)
}

pub async fn set_family_ended(
    tx: &mut TenantTx,
    family_id: TokenId,
    reason: EndReason,
    now: Timestamp,
) -> Result<(), pg::Error> {
    let here = tx.tenant().uuid();
    sqlx::query!(
        "UPDATE auth.refresh_families SET ended_at = $3, end_reason = $4
         WHERE tenant_id = $1 AND id = $2 AND ended_at IS NULL",
        here,
        family_id.uuid(),
        time::OffsetDateTime::from(now),
        reason.as_str(),
    )
    .execute(tx.conn())
    .await?
    .expect_rows(1)
}

/// A person's sign-ins that have not ended, newest first; 100 at most.
pub async fn list_open(
    tx: &mut TenantTx,
    user: UserId,
    now: Timestamp,
) -> Result<Vec<SignInRow>, pg::Error> {
    let here = tx.tenant().uuid();
    let rows = sqlx::query!(
        r#"SELECT id, client, acting_tenant_id, created_at, COALESCE(last_used_at, created_at) AS "last_used_at!",
                  expires_at
           FROM auth.refresh_families
           WHERE tenant_id = $1 AND user_id = $2 AND ended_at IS NULL AND expires_at > $3
           ORDER BY id DESC LIMIT 100"#,
        here,
        user.uuid(),
        time::OffsetDateTime::from(now),
    )
    .fetch_all(tx.conn())
    .await?;
    let row = rows.into_iter().map(|row| SignInRow {
        id: TokenId::from_uuid(row.id),
        client: row.client,
        acting_tenant_id: TenantId::from_uuid(row.acting_tenant_id),
        started_at: row.created_at.into(),
        last_used_at: row.last_used_at.into(),
        expires_at: row.expires_at.into(),
    });
    Ok(row.collect())
}

/// A sign-in as its owner sees it.
#[derive(Debug, Clone)]
pub struct SignInRow {
    pub id: TokenId,
    pub client: String,
    pub acting_tenant_id: TenantId,
    pub started_at: Timestamp,
    pub last_used_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Ends sign-ins of a person: the one named, or all. Says how many had not ended.
pub async fn end_open(
    tx: &mut TenantTx,
    user: UserId,
    only: Option<TokenId>,
    reason: EndReason,
    now: Timestamp,
) -> Result<u64, pg::Error> {
    let here = tx.tenant().uuid();
    let done = sqlx::query!(
        "UPDATE auth.refresh_families SET ended_at = $4, end_reason = $5
         WHERE tenant_id = $1 AND user_id = $2 AND ended_at IS NULL AND ($3::uuid IS NULL OR id = $3)",
        here,
        user.uuid(),
        only.map(TokenId::uuid),
        time::OffsetDateTime::from(now),
        reason.as_str(),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Whether an account that may sign in still has this stored password; it has until the transaction ends.
pub async fn still_has_password(
    tx: &mut TenantTx,
    id: UserId,
    hash: &str,
) -> Result<bool, pg::Error> {
    let here = tx.tenant().uuid();
    let found = sqlx::query_scalar!(
        "SELECT id FROM auth.users
         WHERE tenant_id = $1 AND id = $2 AND disabled_at IS NULL AND password_hash = $3 FOR SHARE",
        here,
        id.uuid(),
        hash,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.is_some())
}

/// Replaces the stored password, unless it is another by now.
pub async fn replace_password(
    tx: &mut TenantTx,
    id: UserId,
    before: &str,
    after: &str,
) -> Result<bool, pg::Error> {
    let here = tx.tenant().uuid();
    let done = sqlx::query!(
        "UPDATE auth.users SET password_hash = $4 WHERE tenant_id = $1 AND id = $2 AND password_hash = $3",
        here,
        id.uuid(),
        before,
        after,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes families that ended by age before `before`, of every tenant; their tokens go with them.
pub async fn delete_expired_families(
    tx: &mut SystemTx,
    before: Timestamp,
) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "DELETE FROM auth.refresh_families WHERE expires_at < $1",
        time::OffsetDateTime::from(before),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
