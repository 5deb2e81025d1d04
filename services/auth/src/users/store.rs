//! SQL of people: accounts, the roles they were given, the names they sign in with.

use authz::Role;
use domain::{Timestamp, UserId};
use pg::TenantTx;
use uuid::Uuid;

/// An account, without its password.
#[derive(Debug, Clone)]
pub struct UserRow {
    pub id: UserId,
    pub email: String,
    pub name: String,
    pub roles: Vec<Role>,
    pub created_at: Timestamp,
}

struct Raw {
    id: Uuid,
    email: String,
    name: String,
    roles: Vec<String>,
    created_at: time::OffsetDateTime,
}

impl From<Raw> for UserRow {
    fn from(raw: Raw) -> Self {
        Self {
            id: UserId::from_uuid(raw.id),
            email: raw.email,
            name: raw.name,
            roles: parse_roles(&raw.roles),
            created_at: raw.created_at.into(),
        }
    }
}

/// A role this version does not know gives no right.
pub fn parse_roles(names: &[String]) -> Vec<Role> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

pub async fn find(tx: &mut TenantTx, id: UserId) -> Result<Option<UserRow>, pg::Error> {
    let here = tx.tenant().uuid();
    let row = sqlx::query_as!(
        Raw,
        r#"SELECT u.id, u.email, u.name, u.created_at,
                  ARRAY(SELECT g.role FROM auth.role_grants g
                        WHERE g.tenant_id = u.tenant_id AND g.user_id = u.id ORDER BY g.role) AS "roles!"
           FROM auth.users u WHERE u.tenant_id = $1 AND u.id = $2"#,
        here,
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Into::into))
}

/// The account of this tenant that signs in with `name_key`.
pub async fn find_by_name(tx: &mut TenantTx, name_key: &str) -> Result<Option<UserId>, pg::Error> {
    let here = tx.tenant().uuid();
    let id = sqlx::query_scalar!(
        "SELECT user_id FROM auth.signin_names WHERE tenant_id = $1 AND name_key = $2",
        here,
        name_key,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(id.map(UserId::from_uuid))
}

/// How many accounts the tenant has, disabled ones too.
pub async fn count(tx: &mut TenantTx) -> Result<i64, pg::Error> {
    let here = tx.tenant().uuid();
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM auth.users WHERE tenant_id = $1"#,
        here,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(count)
}

/// How many accounts of the tenant were given this role.
pub async fn count_holders(tx: &mut TenantTx, role: Role) -> Result<i64, pg::Error> {
    let here = tx.tenant().uuid();
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM auth.role_grants WHERE tenant_id = $1 AND role = $2"#,
        here,
        role.as_str(),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(count)
}

pub async fn list(
    tx: &mut TenantTx,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<UserRow>, pg::Error> {
    let here = tx.tenant().uuid();
    let rows = sqlx::query_as!(
        Raw,
        r#"SELECT u.id, u.email, u.name, u.created_at,
                  ARRAY(SELECT g.role FROM auth.role_grants g
                        WHERE g.tenant_id = u.tenant_id AND g.user_id = u.id ORDER BY g.role) AS "roles!"
           FROM auth.users u
           WHERE u.tenant_id = $1 AND ($2::uuid IS NULL OR u.id > $2)
           ORDER BY u.id LIMIT $3"#,
        here,
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The account, the name it signs in with and its roles, together.
///
/// # Errors
/// Unique violation of `signin_names_pkey` when the tenant has an account of that name.
pub async fn insert(
    tx: &mut TenantTx,
    user: &UserRow,
    password_hash: &str,
) -> Result<(), pg::Error> {
    let here = tx.tenant().uuid();
    let created_at = time::OffsetDateTime::from(user.created_at);
    sqlx::query!(
        "INSERT INTO auth.users (tenant_id, id, email, name, password_hash, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        here,
        user.id.uuid(),
        user.email,
        user.name,
        password_hash,
        created_at,
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO auth.signin_names (tenant_id, name_key, user_id, created_at) VALUES ($1, $2, $3, $4)",
        here,
        api::names::key(&user.email),
        user.id.uuid(),
        created_at,
    )
    .execute(tx.conn())
    .await?;
    let roles: Vec<String> = user.roles.iter().map(ToString::to_string).collect();
    sqlx::query!(
        "INSERT INTO auth.role_grants (tenant_id, user_id, role, granted_at)
         SELECT $1, $2, role, $4 FROM unnest($3::text[]) AS role",
        here,
        user.id.uuid(),
        &roles,
        created_at,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
