//! SQL of the session reconcilers. The system login only finds; changes happen in the tenant's transaction.

use std::time::Duration;

use domain::{PackId, SessionId, TenantId, Timestamp};
use pg::{SystemTx, TenantTx};
use uuid::Uuid;

use super::jobs::at;
use crate::packs::store::PackRow;

/// Moves the serving clock; a longer pause than `outage` since the last tick does not count. Gives its
/// seconds.
pub async fn tick(tx: &mut SystemTx, now: Timestamp, outage: Duration) -> Result<i64, pg::Error> {
    let outage = i64::try_from(outage.as_secs()).unwrap_or(i64::MAX);
    Ok(sqlx::query_scalar!(
        "UPDATE catalog.serving
         SET served_s = served_s + CASE WHEN $1 > ticked_at AND EXTRACT(EPOCH FROM $1 - ticked_at) <= $2::bigint
                                        THEN EXTRACT(EPOCH FROM $1 - ticked_at)::bigint ELSE 0 END,
             ticked_at = GREATEST(ticked_at, $1)
         WHERE id = 1 RETURNING served_s",
        at(now),
        outage,
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Open sessions of any tenant that were silent or open for too long.
pub async fn list_due(
    tx: &mut SystemTx,
    silent_before: i64,
    opened_before: Timestamp,
) -> Result<Vec<(TenantId, SessionId)>, pg::Error> {
    let rows = sqlx::query!(
        "SELECT tenant_id, id FROM catalog.sessions
         WHERE state = 'open' AND (heartbeat_served_s < $1 OR opened_at < $2) LIMIT 1000",
        silent_before,
        at(opened_before),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| (TenantId::from_uuid(r.tenant_id), SessionId::from_uuid(r.id)))
        .collect())
}

/// Ends one, if it still is due. Gives the reason.
pub async fn set_expired(
    tx: &mut TenantTx,
    id: SessionId,
    silent_before: i64,
    opened_before: Timestamp,
    now: Timestamp,
) -> Result<Option<String>, pg::Error> {
    let by = sqlx::query_scalar!(
        "UPDATE catalog.sessions SET state = 'expired', ended_at = $5,
                ended_by = CASE WHEN opened_at < $4 THEN 'age' ELSE 'silence' END
         WHERE tenant_id = $1 AND id = $2 AND state = 'open' AND (heartbeat_served_s < $3 OR opened_at < $4)
         RETURNING ended_by",
        tx.tenant().uuid(),
        id.uuid(),
        silent_before,
        at(opened_before),
        at(now),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(by.flatten())
}

/// Uploaded packs of open sessions of any tenant whose lock ends before `until`, in id order after `after`.
pub async fn list_short(
    tx: &mut SystemTx,
    until: Timestamp,
    after: Option<(TenantId, PackId)>,
) -> Result<Vec<(TenantId, PackId)>, pg::Error> {
    let rows = sqlx::query!(
        "SELECT p.tenant_id, p.id FROM catalog.packs p
         JOIN catalog.sessions s ON s.tenant_id = p.tenant_id AND s.vault_id = p.vault_id AND s.state = 'open'
         WHERE p.state = 'uploaded' AND p.lock_until < $1
           AND ($2::uuid IS NULL OR (p.tenant_id, p.id) > ($2, $3::uuid))
         GROUP BY p.tenant_id, p.id ORDER BY p.tenant_id, p.id LIMIT 512",
        at(until),
        after.map(|(tenant, _)| tenant.uuid()),
        after.map(|(_, pack)| pack.uuid()),
    )
    .fetch_all(tx.conn())
    .await?;
    let ids = |r: (Uuid, Uuid)| (TenantId::from_uuid(r.0), PackId::from_uuid(r.1));
    Ok(rows.into_iter().map(|r| ids((r.tenant_id, r.id))).collect())
}

pub async fn find_uploaded(tx: &mut TenantTx, ids: &[Uuid]) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT id, vault_id, session_id, seq, kind, state, sha256, md5, length, object_key, granted_lock_until,
                  version_id, lock_until
           FROM catalog.packs WHERE tenant_id = $1 AND id = ANY($2) AND state = 'uploaded' ORDER BY id"#,
        tx.tenant().uuid(),
        ids,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Tenants with rows whose grant ended long ago.
pub async fn list_abandonable(
    tx: &mut SystemTx,
    before: Timestamp,
) -> Result<Vec<TenantId>, pg::Error> {
    let rows = sqlx::query_scalar!(
        "SELECT DISTINCT tenant_id FROM catalog.packs WHERE state = 'allocated' AND grant_expires_at < $1",
        at(before),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(TenantId::from_uuid).collect())
}

pub async fn set_abandoned(tx: &mut TenantTx, before: Timestamp) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.packs SET state = 'abandoned'
         WHERE tenant_id = $1 AND state = 'allocated' AND grant_expires_at < $2",
        tx.tenant().uuid(),
        at(before),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
