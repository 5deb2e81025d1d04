//! SQL of second copies: the configuration, the lease of whoever copies, what is missing there and what is there.

use domain::{PackId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId};
use pg::{SystemTx, TenantTx};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::packs::store::PackRow;

/// Where a vault's second copy is.
#[derive(Debug, Clone)]
pub struct ReplicaRow {
    pub vault_id: Uuid,
    pub store: String,
    pub endpoint: String,
    pub bucket: String,
    pub lock_days: i32,
    pub created_at: OffsetDateTime,
    pub keys_copied: i64,
    pub looked_at: Option<OffsetDateTime>,
    pub trouble: Option<String>,
}

pub async fn find(tx: &mut TenantTx, vault: VaultId) -> Result<Option<ReplicaRow>, pg::Error> {
    Ok(sqlx::query_as!(
        ReplicaRow,
        "SELECT vault_id, store, endpoint, bucket, lock_days, created_at, keys_copied, looked_at, trouble
         FROM catalog.replicas WHERE tenant_id = $1 AND vault_id = $2",
        tx.tenant().uuid(),
        vault.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// What an operator asked for.
#[derive(Debug, Clone)]
pub struct NewReplica<'a> {
    pub vault: VaultId,
    pub store: &'a str,
    pub endpoint: &'a str,
    pub bucket: &'a str,
    pub lock_days: i32,
}

/// Sets it up, or changes its term. The place of one that exists stays as it is.
pub async fn upsert(
    tx: &mut TenantTx,
    new: &NewReplica<'_>,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "INSERT INTO catalog.replicas (tenant_id, vault_id, store, endpoint, bucket, lock_days, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant_id, vault_id) DO UPDATE SET lock_days = EXCLUDED.lock_days",
        tx.tenant().uuid(),
        new.vault.uuid(),
        new.store,
        new.endpoint,
        new.bucket,
        new.lock_days,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Vaults of any tenant with a second copy that nobody is working on, those that wait longest first.
pub async fn list_free(
    tx: &mut SystemTx,
    now: Timestamp,
) -> Result<Vec<(TenantId, VaultId)>, pg::Error> {
    let rows = sqlx::query!(
        "SELECT tenant_id, vault_id FROM catalog.replicas WHERE lease_until <= $1
         ORDER BY oldest_uncopied_at, tenant_id, vault_id",
        OffsetDateTime::from(now),
    )
    .fetch_all(tx.conn())
    .await?;
    let ids = |t, v| (TenantId::from_uuid(t), VaultId::from_uuid(v));
    Ok(rows.into_iter().map(|row| ids(row.tenant_id, row.vault_id)).collect())
}

/// Takes the lease. False: somebody else has it, or takes it this moment.
pub async fn claim(
    tx: &mut TenantTx,
    vault: VaultId,
    lease: Uuid,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "WITH free AS (SELECT vault_id FROM catalog.replicas WHERE tenant_id = $1 AND vault_id = $2
                         AND lease_until <= $4 FOR UPDATE SKIP LOCKED)
         UPDATE catalog.replicas r SET lease_id = $3, lease_until = $5 FROM free
         WHERE r.tenant_id = $1 AND r.vault_id = free.vault_id",
        tx.tenant().uuid(),
        vault.uuid(),
        lease,
        OffsetDateTime::from(now),
        OffsetDateTime::from(until),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Keeps the lease. False: it ran out and somebody else works.
pub async fn renew(
    tx: &mut TenantTx,
    vault: VaultId,
    lease: Uuid,
    until: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.replicas SET lease_until = $4 WHERE tenant_id = $1 AND vault_id = $2 AND lease_id = $3",
        tx.tenant().uuid(),
        vault.uuid(),
        lease,
        OffsetDateTime::from(until),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives the lease back with what the turn came to.
pub async fn release(
    tx: &mut TenantTx,
    vault: VaultId,
    lease: Uuid,
    behind: &Behind,
    trouble: Option<&str>,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.replicas SET lease_id = NULL, lease_until = 'epoch', looked_at = $4, bytes_behind = $5,
                oldest_uncopied_at = $6, trouble = $7
         WHERE tenant_id = $1 AND vault_id = $2 AND lease_id = $3",
        tx.tenant().uuid(),
        vault.uuid(),
        lease,
        OffsetDateTime::from(now),
        behind.bytes,
        behind.oldest,
        trouble,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn set_keys_copied(
    tx: &mut TenantTx,
    vault: VaultId,
    count: i64,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.replicas SET keys_copied = $3 WHERE tenant_id = $1 AND vault_id = $2",
        tx.tenant().uuid(),
        vault.uuid(),
        count,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Every generation of the roster: manifests of members that left are believed under theirs.
pub async fn list_rosters(
    tx: &mut TenantTx,
    vault: VaultId,
) -> Result<Vec<(i64, Vec<u8>)>, pg::Error> {
    let rows = sqlx::query!(
        "SELECT generation, roster FROM catalog.rosters WHERE tenant_id = $1 AND vault_id = $2 ORDER BY generation",
        tx.tenant().uuid(),
        vault.uuid(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.generation, row.roster)).collect())
}

/// A signed document that the database holds: a receipt or a forget record.
#[derive(Debug, Clone)]
pub struct RecordRow {
    pub snapshot_id: Uuid,
    pub object_key: String,
    pub bytes: Vec<u8>,
    pub lock_until: OffsetDateTime,
}

/// Forget records that the first store has and the second has not.
pub async fn list_missing_forgets(
    tx: &mut TenantTx,
    vault: VaultId,
    limit: i64,
) -> Result<Vec<RecordRow>, pg::Error> {
    Ok(sqlx::query_as!(
        RecordRow,
        r#"SELECT f.snapshot_id, f.object_key, f.record AS bytes, f.lock_until
           FROM catalog.forgets f JOIN catalog.snapshots s ON s.tenant_id = f.tenant_id AND s.id = f.snapshot_id
           WHERE f.tenant_id = $1 AND s.vault_id = $2 AND f.stored_at IS NOT NULL
             AND NOT EXISTS (SELECT FROM catalog.replica_objects o
                             WHERE o.tenant_id = f.tenant_id AND o.object_key = f.object_key)
           ORDER BY f.snapshot_id LIMIT $3"#,
        tx.tenant().uuid(),
        vault.uuid(),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

pub async fn find_receipt(
    tx: &mut TenantTx,
    snapshot: SnapshotId,
) -> Result<Option<RecordRow>, pg::Error> {
    Ok(sqlx::query_as!(
        RecordRow,
        "SELECT snapshot_id, object_key, receipt AS bytes, lock_until FROM catalog.receipts
         WHERE tenant_id = $1 AND snapshot_id = $2",
        tx.tenant().uuid(),
        snapshot.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// A snapshot that stands and is not whole at the second store: its receipt, the last of it, is not there.
#[derive(Debug, Clone, Copy)]
pub struct UncopiedRow {
    pub id: Uuid,
    pub workload_id: Uuid,
    pub seq: i64,
    /// The latest commit of this one and those before it in its chain that wait as well.
    pub place: OffsetDateTime,
}

/// Those that stand (softly expired ones may come back), oldest first, after `after`. Within a workload in the order of
/// its chain, whatever the clocks said at the commits: a manifest comes after all of its parent's snapshot.
pub async fn list_uncopied(
    tx: &mut TenantTx,
    vault: VaultId,
    after: Option<&UncopiedRow>,
    limit: i64,
) -> Result<Vec<UncopiedRow>, pg::Error> {
    Ok(sqlx::query_as!(
        UncopiedRow,
        r#"SELECT u.id, u.workload_id, u.seq, u.place AS "place!"
           FROM (SELECT s.id, s.workload_id, s.seq,
                        max(s.committed_at) OVER (PARTITION BY s.workload_id ORDER BY s.seq) AS place
                 FROM catalog.snapshots s JOIN catalog.receipts c ON c.tenant_id = s.tenant_id AND c.snapshot_id = s.id
                 WHERE s.tenant_id = $1 AND s.vault_id = $2 AND s.state IN ('committed', 'expired')
                   AND NOT EXISTS (SELECT FROM catalog.replica_objects o
                                   WHERE o.tenant_id = c.tenant_id AND o.object_key = c.object_key)) u
           WHERE ($3::timestamptz IS NULL OR (u.place, u.workload_id, u.seq) > ($3, $4::uuid, $5::bigint))
           ORDER BY u.place, u.workload_id, u.seq LIMIT $6"#,
        tx.tenant().uuid(),
        vault.uuid(),
        after.map(|row| row.place),
        after.map(|row| row.workload_id),
        after.map(|row| row.seq),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Packs of a snapshot that the second store does not have, in id order after `after`.
pub async fn list_missing_packs(
    tx: &mut TenantTx,
    of: &UncopiedRow,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT p.id, p.vault_id, p.session_id, p.seq, p.kind, p.state, p.sha256, p.md5, p.length, p.object_key,
                  p.granted_lock_until, p.version_id, p.lock_until
           FROM catalog.snapshot_packs r JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
           WHERE r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= $3
             AND (r.last_seq IS NULL OR r.last_seq >= $3) AND p.kind <> 'manifest'
             AND ($4::uuid IS NULL OR p.id > $4)
             AND NOT EXISTS (SELECT FROM catalog.replica_objects o
                             WHERE o.tenant_id = p.tenant_id AND o.pack_id = p.id)
           ORDER BY p.id LIMIT $5"#,
        tx.tenant().uuid(),
        of.workload_id,
        of.seq,
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Manifests of a snapshot's chain that the second store does not have, the oldest first.
pub async fn list_missing_manifests(
    tx: &mut TenantTx,
    of: &UncopiedRow,
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT p.id, p.vault_id, p.session_id, p.seq, p.kind, p.state, p.sha256, p.md5, p.length, p.object_key,
                  p.granted_lock_until, p.version_id, p.lock_until
           FROM catalog.snapshot_packs r JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
           WHERE r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= $3
             AND (r.last_seq IS NULL OR r.last_seq >= $3) AND p.kind = 'manifest'
             AND NOT EXISTS (SELECT FROM catalog.replica_objects o
                             WHERE o.tenant_id = p.tenant_id AND o.pack_id = p.id)
           ORDER BY r.first_seq"#,
        tx.tenant().uuid(),
        of.workload_id,
        of.seq,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// An object that was seen at the second store as it should be.
#[derive(Debug, Clone)]
pub struct There {
    pub key: String,
    pub pack: Option<PackId>,
    pub snapshot: Option<SnapshotId>,
    pub version: String,
    pub lock_until: Timestamp,
}

/// Records it; what is recorded already stays.
pub async fn insert_object(
    tx: &mut TenantTx,
    vault: VaultId,
    object: &There,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "INSERT INTO catalog.replica_objects (tenant_id, object_key, vault_id, pack_id, snapshot_id, version_id,
                                              lock_until, copied_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        object.key,
        vault.uuid(),
        object.pack.map(PackId::uuid),
        object.snapshot.map(SnapshotId::uuid),
        object.version,
        OffsetDateTime::from(object.lock_until),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Version of a pack at the second store.
#[derive(Debug, Clone)]
pub struct CopyRow {
    pub pack_id: Uuid,
    pub version_id: String,
    pub lock_until: OffsetDateTime,
}

/// The copies of these packs, where there are some.
pub async fn find_copies(tx: &mut TenantTx, packs: &[Uuid]) -> Result<Vec<CopyRow>, pg::Error> {
    Ok(sqlx::query_as!(
        CopyRow,
        r#"SELECT pack_id AS "pack_id!", version_id, lock_until FROM catalog.replica_objects
           WHERE tenant_id = $1 AND pack_id = ANY($2) AND deleted_at IS NULL"#,
        tx.tenant().uuid(),
        packs,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Packs and manifests at the second store, with the version and lock they have there.
pub async fn list_copied(tx: &mut TenantTx, vault: VaultId) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT p.id, p.vault_id, p.session_id, p.seq, p.kind, p.state, p.sha256, p.md5, p.length, p.object_key,
                  p.granted_lock_until, o.version_id AS "version_id?", o.lock_until AS "lock_until?"
           FROM catalog.replica_objects o JOIN catalog.packs p ON p.tenant_id = o.tenant_id AND p.id = o.pack_id
           WHERE o.tenant_id = $1 AND o.vault_id = $2 AND o.deleted_at IS NULL ORDER BY p.id"#,
        tx.tenant().uuid(),
        vault.uuid(),
    )
    .fetch_all(tx.conn())
    .await?)
}

/// How far the copy is behind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behind {
    pub packs: i64,
    pub bytes: i64,
    pub snapshots: i64,
    pub oldest: Option<OffsetDateTime>,
}

/// Counts what snapshots that stand need and the second store does not have.
pub async fn count_behind(tx: &mut TenantTx, vault: VaultId) -> Result<Behind, pg::Error> {
    Ok(sqlx::query_as!(
        Behind,
        r#"SELECT m.packs AS "packs!", m.bytes AS "bytes!", u.snapshots AS "snapshots!", u.oldest
           FROM (SELECT count(*) AS packs, COALESCE(sum(p.length), 0)::bigint AS bytes FROM catalog.packs p
                 WHERE p.tenant_id = $1 AND p.vault_id = $2 AND p.state IN ('live', 'lost')
                   AND EXISTS (SELECT FROM catalog.pack_needs n WHERE n.tenant_id = p.tenant_id AND n.pack_id = p.id)
                   AND NOT EXISTS (SELECT FROM catalog.replica_objects o
                                   WHERE o.tenant_id = p.tenant_id AND o.pack_id = p.id)) m,
                (SELECT count(*) AS snapshots, min(s.committed_at) AS oldest
                 FROM catalog.snapshots s JOIN catalog.receipts c ON c.tenant_id = s.tenant_id AND c.snapshot_id = s.id
                 WHERE s.tenant_id = $1 AND s.vault_id = $2 AND s.state IN ('committed', 'expired')
                   AND NOT EXISTS (SELECT FROM catalog.replica_objects o
                                   WHERE o.tenant_id = c.tenant_id AND o.object_key = c.object_key)) u"#,
        tx.tenant().uuid(),
        vault.uuid(),
    )
    .fetch_one(tx.conn())
    .await?)
}

/// What is there.
#[derive(Debug, Clone, Copy)]
pub struct Copied {
    pub packs: i64,
    pub bytes: i64,
    pub locked_until: Option<OffsetDateTime>,
}

pub async fn count_copied(tx: &mut TenantTx, vault: VaultId) -> Result<Copied, pg::Error> {
    Ok(sqlx::query_as!(
        Copied,
        r#"SELECT count(*) AS "packs!", COALESCE(sum(p.length), 0)::bigint AS "bytes!",
                  min(o.lock_until) FILTER (WHERE p.state = 'live') AS locked_until
           FROM catalog.replica_objects o JOIN catalog.packs p ON p.tenant_id = o.tenant_id AND p.id = o.pack_id
           WHERE o.tenant_id = $1 AND o.vault_id = $2 AND o.deleted_at IS NULL"#,
        tx.tenant().uuid(),
        vault.uuid(),
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Bytes all copies of all tenants are behind, and since when the oldest snapshot waits.
pub async fn sum_behind(tx: &mut SystemTx) -> Result<(i64, Option<Timestamp>), pg::Error> {
    let row = sqlx::query!(
        r#"SELECT COALESCE(sum(bytes_behind), 0)::bigint AS "bytes!", min(oldest_uncopied_at) AS oldest
           FROM catalog.replicas"#
    )
    .fetch_one(tx.conn())
    .await?;
    Ok((row.bytes, row.oldest.map(Timestamp::from)))
}

pub async fn list_workloads(
    tx: &mut TenantTx,
    vault: VaultId,
) -> Result<Vec<WorkloadId>, pg::Error> {
    let rows = sqlx::query_scalar!(
        "SELECT id FROM catalog.workloads WHERE tenant_id = $1 AND vault_id = $2 ORDER BY id",
        tx.tenant().uuid(),
        vault.uuid(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(WorkloadId::from_uuid).collect())
}
