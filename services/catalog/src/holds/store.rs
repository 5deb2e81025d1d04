//! SQL of holds.

use api::catalog::{Hold, HoldQuery, HoldState};
use domain::{HoldId, SnapshotId, Timestamp};
use pg::TenantTx;
use time::OffsetDateTime;
use uuid::Uuid;

struct HoldRow {
    id: Uuid,
    snapshot_id: Uuid,
    reason: String,
    placed_at: OffsetDateTime,
    placed_by: Option<String>,
    released_at: Option<OffsetDateTime>,
    released_by: Option<String>,
    released_because: Option<String>,
}

impl From<HoldRow> for Hold {
    fn from(row: HoldRow) -> Self {
        Self {
            id: HoldId::from_uuid(row.id),
            snapshot_id: SnapshotId::from_uuid(row.snapshot_id),
            state: if row.released_at.is_some() {
                HoldState::Released
            } else {
                HoldState::Standing
            },
            reason: row.reason,
            placed_at: row.placed_at.into(),
            placed_by: row.placed_by,
            released_at: row.released_at.map(Timestamp::from),
            released_by: row.released_by,
            released_because: row.released_because,
        }
    }
}

/// Inserts a hold. False: another request had this key.
pub async fn insert(
    tx: &mut TenantTx,
    hold: &Hold,
    request_key: Option<&str>,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "INSERT INTO catalog.snapshot_holds (tenant_id, id, snapshot_id, reason, placed_at, placed_by, request_key)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, request_key) DO NOTHING",
        tx.tenant().uuid(),
        hold.id.uuid(),
        hold.snapshot_id.uuid(),
        hold.reason,
        OffsetDateTime::from(hold.placed_at),
        hold.placed_by,
        request_key,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The hold an earlier request under this key placed.
pub async fn find_by_request(
    tx: &mut TenantTx,
    request_key: &str,
) -> Result<Option<Hold>, pg::Error> {
    let row = sqlx::query_as!(
        HoldRow,
        "SELECT id, snapshot_id, reason, placed_at, placed_by, released_at, released_by, released_because
         FROM catalog.snapshot_holds WHERE tenant_id = $1 AND request_key = $2",
        tx.tenant().uuid(),
        request_key,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Hold::from))
}

/// A hold, its row locked: it is released once.
pub async fn lock(tx: &mut TenantTx, id: HoldId) -> Result<Option<Hold>, pg::Error> {
    let row = sqlx::query_as!(
        HoldRow,
        "SELECT id, snapshot_id, reason, placed_at, placed_by, released_at, released_by, released_because
         FROM catalog.snapshot_holds WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Hold::from))
}

/// Ends a hold that stands.
pub async fn set_released(
    tx: &mut TenantTx,
    id: HoldId,
    by: &str,
    because: &str,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.snapshot_holds SET released_at = $3, released_by = $4, released_because = $5
         WHERE tenant_id = $1 AND id = $2 AND released_at IS NULL",
        tx.tenant().uuid(),
        id.uuid(),
        OffsetDateTime::from(now),
        by,
        because,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Holds, newest first, from after `after` on.
pub async fn list(
    tx: &mut TenantTx,
    query: &HoldQuery,
    after: Option<HoldId>,
    limit: i64,
) -> Result<Vec<Hold>, pg::Error> {
    let rows = sqlx::query_as!(
        HoldRow,
        "SELECT id, snapshot_id, reason, placed_at, placed_by, released_at, released_by, released_because
         FROM catalog.snapshot_holds
         WHERE tenant_id = $1 AND ($2::uuid IS NULL OR snapshot_id = $2) AND ($3::bool IS NULL OR (released_at IS NULL) = $3)
           AND ($4::uuid IS NULL OR id < $4)
         ORDER BY id DESC LIMIT $5",
        tx.tenant().uuid(),
        query.snapshot_id.map(SnapshotId::uuid),
        query.state.map(|state| state == HoldState::Standing),
        after.map(HoldId::uuid),
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Hold::from).collect())
}
