//! SQL of the tenant tree. Row security shows a transaction its tenant and those below.

use authz::TenantKind;
use domain::{TenantId, Timestamp};
use pg::{SystemTx, TenantTx};
use uuid::Uuid;

/// A tenant as stored.
#[derive(Debug, Clone)]
pub struct TenantRow {
    pub id: TenantId,
    pub parent_id: Option<TenantId>,
    pub kind: TenantKind,
    pub name: String,
    /// From the root down to, and including, itself.
    pub path: Vec<Uuid>,
    pub created_at: Timestamp,
}

struct Raw {
    id: Uuid,
    parent_id: Option<Uuid>,
    kind: String,
    name: String,
    path: Vec<Uuid>,
    created_at: time::OffsetDateTime,
}

impl From<Raw> for TenantRow {
    fn from(raw: Raw) -> Self {
        Self {
            id: TenantId::from_uuid(raw.id),
            parent_id: raw.parent_id.map(TenantId::from_uuid),
            // The column's check knows these three only.
            kind: TenantKind::parse(&raw.kind).unwrap_or(TenantKind::Tenant),
            name: raw.name,
            path: raw.path,
            created_at: raw.created_at.into(),
        }
    }
}

/// The tenant `id` if it is the transaction's or below it.
pub async fn find(tx: &mut TenantTx, id: TenantId) -> Result<Option<TenantRow>, pg::Error> {
    let (here, id) = (tx.tenant().uuid(), id.uuid());
    let row = sqlx::query_as!(
        Raw,
        "SELECT id, parent_id, kind, name, path, created_at FROM auth.tenants
         WHERE tenant_id = $1 AND $2 = ANY (path)",
        id,
        here,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Into::into))
}

/// The child of the transaction's tenant that has this name.
pub async fn find_child(tx: &mut TenantTx, name_key: &str) -> Result<Option<TenantRow>, pg::Error> {
    let here = tx.tenant().uuid();
    let row = sqlx::query_as!(
        Raw,
        "SELECT id, parent_id, kind, name, path, created_at FROM auth.tenants
         WHERE parent_id = $1 AND name_key = $2",
        here,
        name_key,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Into::into))
}

/// The transaction's tenant and all below it, in the order of their ids, after `after`.
pub async fn list(
    tx: &mut TenantTx,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<TenantRow>, pg::Error> {
    let here = tx.tenant().uuid();
    let rows = sqlx::query_as!(
        Raw,
        "SELECT id, parent_id, kind, name, path, created_at FROM auth.tenants
         WHERE path @> ARRAY[$1::uuid] AND ($2::uuid IS NULL OR id > $2)
         ORDER BY id LIMIT $3",
        here,
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Holds the transaction's own tenant until its end. Accounts refer to it, so none is made meanwhile; what is
/// counted must be counted after this, in a statement of its own.
pub async fn lock(tx: &mut TenantTx) -> Result<(), pg::Error> {
    let here = tx.tenant().uuid();
    sqlx::query_scalar!(
        "SELECT id FROM auth.tenants WHERE tenant_id = $1 AND id = $1 FOR UPDATE",
        here,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(())
}

pub async fn insert(tx: &mut TenantTx, tenant: &TenantRow) -> Result<(), pg::Error> {
    sqlx::query!(
        "INSERT INTO auth.tenants (tenant_id, id, parent_id, kind, name, name_key, path, created_at)
         VALUES ($1, $1, $2, $3, $4, $5, $6, $7)",
        tenant.id.uuid(),
        tenant.parent_id.map(TenantId::uuid),
        tenant.kind.as_str(),
        tenant.name,
        api::names::key(&tenant.name),
        &tenant.path,
        time::OffsetDateTime::from(tenant.created_at),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The platform's own tenant, if it was made.
pub async fn find_root(tx: &mut SystemTx) -> Result<Option<TenantId>, pg::Error> {
    let id = sqlx::query_scalar!("SELECT id FROM auth.tenants WHERE kind = 'platform'")
        .fetch_optional(tx.conn())
        .await?;
    Ok(id.map(TenantId::from_uuid))
}
