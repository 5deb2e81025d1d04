//! SQL of the locks at second stores, of what is deleted there, and of repairs.

use domain::{PackId, SnapshotId, Timestamp, VaultId, WorkloadId};
use pg::TenantTx;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{place::Placed, steward::store::ShortRow};

/// Objects that the first store locks for longer.
pub async fn list_shorter_than_first(
    tx: &mut TenantTx,
    vault: VaultId,
    store: &str,
    limit: i64,
) -> Result<Vec<ShortRow>, pg::Error> {
    Ok(sqlx::query_as!(
        ShortRow,
        r#"SELECT o.tenant_id AS "tenant_id!", o.vault_id AS "vault_id!", o.pack_id AS "id!", false AS "is_receipt!",
                  o.object_key AS "object_key!", o.version_id AS "version_id!", o.lock_until AS "lock_until!",
                  p.lock_until AS "wanted!",
                  EXISTS (SELECT FROM catalog.lock_alarms a WHERE a.tenant_id = o.tenant_id AND a.version_id = o.version_id
                          AND a.object_key = $4::text || '/' || o.object_key AND a.cleared_at IS NULL) AS "is_alarmed!"
           FROM catalog.replica_objects o JOIN catalog.packs p ON p.tenant_id = o.tenant_id AND p.id = o.pack_id
           WHERE o.tenant_id = $1 AND o.vault_id = $2 AND o.deleted_at IS NULL AND p.state = 'live'
             AND o.lock_until < p.lock_until
           UNION ALL
           SELECT o.tenant_id, o.vault_id, o.snapshot_id, true, o.object_key, o.version_id, o.lock_until, c.lock_until,
                  EXISTS (SELECT FROM catalog.lock_alarms a WHERE a.tenant_id = o.tenant_id AND a.version_id = o.version_id
                          AND a.object_key = $4::text || '/' || o.object_key AND a.cleared_at IS NULL)
           FROM catalog.replica_objects o
           JOIN catalog.receipts c ON c.tenant_id = o.tenant_id AND c.object_key = o.object_key
           WHERE o.tenant_id = $1 AND o.vault_id = $2 AND o.lock_until < c.lock_until
           ORDER BY 9, 7, 5 LIMIT $3"#,
        tx.tenant().uuid(),
        vault.uuid(),
        limit,
        store,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Objects whose lock ends before `due` and before what the plan of a workload says, whatever the first store has.
/// `wanted`: place in the chain, snapshot, date.
pub async fn list_shorter_than_planned(
    tx: &mut TenantTx,
    workload: WorkloadId,
    wanted: &[(i64, SnapshotId, Timestamp)],
    due: Timestamp,
    (store, limit): (&str, i64),
) -> Result<Vec<ShortRow>, pg::Error> {
    let seqs: Vec<i64> = wanted.iter().map(|(seq, ..)| *seq).collect();
    let ids: Vec<Uuid> = wanted.iter().map(|(_, id, _)| id.uuid()).collect();
    let dates: Vec<OffsetDateTime> = wanted.iter().map(|(.., until)| (*until).into()).collect();
    Ok(sqlx::query_as!(
        ShortRow,
        r#"WITH wanted AS (SELECT * FROM unnest($3::bigint[], $4::uuid[], $5::timestamptz[]) AS w (seq, id, until))
           SELECT o.tenant_id AS "tenant_id!", o.vault_id AS "vault_id!", o.pack_id AS "id!", false AS "is_receipt!",
                  o.object_key AS "object_key!", o.version_id AS "version_id!", o.lock_until AS "lock_until!",
                  max(w.until) AS "wanted!",
                  EXISTS (SELECT FROM catalog.lock_alarms a WHERE a.tenant_id = o.tenant_id AND a.version_id = o.version_id
                          AND a.object_key = $8::text || '/' || o.object_key AND a.cleared_at IS NULL) AS "is_alarmed!"
           FROM wanted w
           JOIN catalog.snapshot_packs r ON r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= w.seq
                AND (r.last_seq IS NULL OR r.last_seq >= w.seq)
           JOIN catalog.replica_objects o ON o.tenant_id = r.tenant_id AND o.pack_id = r.pack_id
           WHERE o.deleted_at IS NULL AND o.lock_until < $6 AND o.lock_until < w.until
           GROUP BY o.tenant_id, o.object_key
           UNION ALL
           SELECT o.tenant_id, o.vault_id, o.snapshot_id, true, o.object_key, o.version_id, o.lock_until, w.until,
                  EXISTS (SELECT FROM catalog.lock_alarms a WHERE a.tenant_id = o.tenant_id AND a.version_id = o.version_id
                          AND a.object_key = $8::text || '/' || o.object_key AND a.cleared_at IS NULL)
           FROM wanted w
           JOIN catalog.receipts c ON c.tenant_id = $1 AND c.snapshot_id = w.id
           JOIN catalog.replica_objects o ON o.tenant_id = c.tenant_id AND o.object_key = c.object_key
           WHERE o.lock_until < $6 AND o.lock_until < w.until
           ORDER BY 9, 7, 5 LIMIT $7"#,
        tx.tenant().uuid(),
        workload.uuid(),
        &seqs,
        &ids,
        &dates,
        OffsetDateTime::from(due),
        limit,
        store,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Records dates the second store reported, of a key and a version of it. Never lowers one, and leaves rows that have
/// another version by now as they are.
pub async fn set_locks(
    tx: &mut TenantTx,
    locks: &[(&str, &str, Timestamp)],
) -> Result<(), pg::Error> {
    let keys: Vec<String> = locks.iter().map(|(key, ..)| (*key).to_owned()).collect();
    let versions: Vec<String> = locks.iter().map(|(_, version, _)| (*version).to_owned()).collect();
    let dates: Vec<OffsetDateTime> = locks.iter().map(|(.., until)| (*until).into()).collect();
    sqlx::query!(
        "UPDATE catalog.replica_objects o SET lock_until = GREATEST(o.lock_until, a.until)
         FROM unnest($2::text[], $3::text[], $4::timestamptz[]) AS a (key, version, until)
         WHERE o.tenant_id = $1 AND o.object_key = a.key AND o.version_id = a.version",
        tx.tenant().uuid(),
        &keys,
        &versions,
        &dates,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What a warrant for a second copy is made from. The first store's row is `deleted`, for good.
#[derive(Debug, Clone)]
pub struct GoneRow {
    pub pack_id: Uuid,
    pub object_key: String,
    pub version_id: String,
    pub lock_until: OffsetDateTime,
    pub condemned_at: Option<OffsetDateTime>,
    pub live_references: i64,
    pub older_sessions: i64,
}

/// Copies whose first is gone and whose own lock is over.
pub async fn list_gone(
    tx: &mut TenantTx,
    vault: VaultId,
    unlocked_before: Timestamp,
    limit: i64,
) -> Result<Vec<GoneRow>, pg::Error> {
    Ok(sqlx::query_as!(
        GoneRow,
        r#"SELECT p.id AS pack_id, o.object_key, o.version_id, o.lock_until, p.condemned_at,
                  (SELECT count(*) FROM catalog.pack_needs n
                   WHERE n.tenant_id = p.tenant_id AND n.pack_id = p.id) AS "live_references!",
                  (SELECT count(*) FROM catalog.pack_sessions s
                   WHERE s.tenant_id = p.tenant_id AND s.pack_id = p.id) AS "older_sessions!"
           FROM catalog.replica_objects o JOIN catalog.packs p ON p.tenant_id = o.tenant_id AND p.id = o.pack_id
           WHERE o.tenant_id = $1 AND o.vault_id = $2 AND o.deleted_at IS NULL AND p.state = 'deleted'
             AND o.lock_until < $3
           ORDER BY p.id LIMIT $4"#,
        tx.tenant().uuid(),
        vault.uuid(),
        OffsetDateTime::from(unlocked_before),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// The second store confirmed that the version is gone.
pub async fn set_deleted(
    tx: &mut TenantTx,
    pack: PackId,
    version: &str,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.replica_objects SET deleted_at = $4
         WHERE tenant_id = $1 AND pack_id = $2 AND version_id = $3 AND deleted_at IS NULL",
        tx.tenant().uuid(),
        pack.uuid(),
        version,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The first store has the pack anew. False: its row is no longer the one that was repaired, or somebody locked the
/// version before for longer than the new one.
pub async fn set_first_version(
    tx: &mut TenantTx,
    pack: PackId,
    before: &str,
    placed: &Placed,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.packs SET former_versions = array_append(former_versions, version_id), version_id = $4,
                lock_until = $5, lock_checked_at = NULL
         WHERE tenant_id = $1 AND id = $2 AND version_id = $3 AND lock_until <= $5 AND state IN ('uploaded', 'live', 'condemned')",
        tx.tenant().uuid(),
        pack.uuid(),
        before,
        placed.version,
        OffsetDateTime::from(placed.lock_until),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The second store has the pack anew. False: as in [`set_first_version`].
pub async fn set_second_version(
    tx: &mut TenantTx,
    pack: PackId,
    before: &str,
    placed: &Placed,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.replica_objects SET version_id = $4, lock_until = $5, copied_at = $6
         WHERE tenant_id = $1 AND pack_id = $2 AND version_id = $3 AND lock_until <= $5 AND deleted_at IS NULL",
        tx.tenant().uuid(),
        pack.uuid(),
        before,
        placed.version,
        OffsetDateTime::from(placed.lock_until),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Which of these packs had these versions before a repair.
pub async fn list_former(
    tx: &mut TenantTx,
    named: &[(PackId, &str)],
) -> Result<Vec<PackId>, pg::Error> {
    let ids: Vec<Uuid> = named.iter().map(|(id, _)| id.uuid()).collect();
    let versions: Vec<String> = named.iter().map(|(_, version)| (*version).to_owned()).collect();
    let rows = sqlx::query_scalar!(
        "SELECT p.id FROM catalog.packs p JOIN unnest($2::uuid[], $3::text[]) AS n (id, version) ON n.id = p.id
         WHERE p.tenant_id = $1 AND n.version = ANY(p.former_versions)",
        tx.tenant().uuid(),
        &ids,
        &versions,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(PackId::from_uuid).collect())
}
