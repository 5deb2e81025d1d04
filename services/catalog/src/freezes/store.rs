//! SQL of freezes.

use domain::{EventId, Timestamp};
use pg::TenantTx;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Freeze, Reason};

struct FreezeRow {
    id: Uuid,
    reason: String,
    evidence: String,
    frozen_at: OffsetDateTime,
}

impl From<FreezeRow> for Freeze {
    fn from(row: FreezeRow) -> Self {
        let FreezeRow { id, reason, evidence, frozen_at } = row;
        Self { id: EventId::from_uuid(id), reason, evidence, frozen_at: frozen_at.into() }
    }
}

/// Whether collection stands still for this tenant.
pub async fn is_frozen(tx: &mut TenantTx) -> Result<bool, pg::Error> {
    let found = sqlx::query_scalar!(
        "SELECT 1 AS one FROM catalog.guard_freezes WHERE tenant_id = $1 AND lifted_at IS NULL LIMIT 1",
        tx.tenant().uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.is_some())
}

/// Freezes collection. False: it stands still for this very reason already, or a person has decided about it.
pub async fn insert_freeze(
    tx: &mut TenantTx,
    id: EventId,
    reason: Reason,
    evidence: &str,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "INSERT INTO catalog.guard_freezes (tenant_id, id, reason, evidence, frozen_at)
         SELECT $1, $2, $3, $4, $5
         WHERE NOT EXISTS (SELECT FROM catalog.guard_freezes WHERE tenant_id = $1 AND evidence = $4)
         ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        id.uuid(),
        reason.as_str(),
        evidence,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn list_standing(tx: &mut TenantTx) -> Result<Vec<Freeze>, pg::Error> {
    let rows = sqlx::query_as!(
        FreezeRow,
        "SELECT id, reason, evidence, frozen_at FROM catalog.guard_freezes
         WHERE tenant_id = $1 AND lifted_at IS NULL ORDER BY frozen_at, id",
        tx.tenant().uuid(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Freeze::from).collect())
}

/// Gives those that stood until now.
pub async fn set_lifted(
    tx: &mut TenantTx,
    ids: &[EventId],
    because: &str,
    now: Timestamp,
) -> Result<Vec<Freeze>, pg::Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query_as!(
        FreezeRow,
        "UPDATE catalog.guard_freezes SET lifted_at = $3, lifted_because = $4
         WHERE tenant_id = $1 AND id = ANY($2) AND lifted_at IS NULL
         RETURNING id, reason, evidence, frozen_at",
        tx.tenant().uuid(),
        &ids,
        OffsetDateTime::from(now),
        because,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Freeze::from).collect())
}
