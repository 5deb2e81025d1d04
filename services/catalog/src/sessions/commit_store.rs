//! SQL of B5, the one commit transaction. Locks are taken in this order and no other: workload, session,
//! vault, parent snapshot, packs by id.

use domain::{PackId, SessionId, SnapshotId, Timestamp, VaultId, WorkloadId};
use pg::TenantTx;
use time::OffsetDateTime;
use uuid::Uuid;

/// A pack row under lock.
#[derive(Debug, Clone)]
pub struct LockedPack {
    pub id: Uuid,
    pub state: String,
    pub lock_until: Option<OffsetDateTime>,
}

/// Fence and newest place in the chain, with the workload's row locked.
#[derive(Debug, Clone, Copy)]
pub struct LockedWorkload {
    pub fence: i64,
    pub last_seq: i64,
}

pub async fn lock_workload(
    tx: &mut TenantTx,
    id: WorkloadId,
) -> Result<Option<LockedWorkload>, pg::Error> {
    Ok(sqlx::query_as!(
        LockedWorkload,
        "SELECT fence, last_seq FROM catalog.workloads WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// The vault's damage epoch; nothing can be declared lost until this transaction ends.
pub async fn lock_damage_epoch(tx: &mut TenantTx, id: VaultId) -> Result<Option<i64>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "SELECT damage_epoch FROM catalog.vaults WHERE tenant_id = $1 AND id = $2 FOR SHARE",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// The state of the parent, whose row is locked: it cannot expire before this transaction ends.
pub async fn lock_parent(tx: &mut TenantTx, id: SnapshotId) -> Result<Option<String>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "SELECT state FROM catalog.snapshots WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// Locks the rows of packs this snapshot adds. Whoever condemns or deletes takes the same locks, so the
/// states read here stay until this transaction ends.
pub async fn lock_packs(
    tx: &mut TenantTx,
    vault: VaultId,
    ids: &[Uuid],
) -> Result<Vec<LockedPack>, pg::Error> {
    if faults::planted(faults::Bug::SkipRowLock) {
        return read_packs(tx, vault, ids).await;
    }
    Ok(sqlx::query_as!(
        LockedPack,
        "SELECT id, state, lock_until FROM catalog.packs
         WHERE tenant_id = $1 AND vault_id = $2 AND id = ANY($3) ORDER BY id FOR UPDATE",
        tx.tenant().uuid(),
        vault.uuid(),
        ids,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// The planted bug: the same rows, and nothing keeps them as they are.
async fn read_packs(
    tx: &mut TenantTx,
    vault: VaultId,
    ids: &[Uuid],
) -> Result<Vec<LockedPack>, pg::Error> {
    let rows: Vec<(Uuid, String, Option<OffsetDateTime>)> = sqlx::query_as(
        "SELECT id, state, lock_until FROM catalog.packs
         WHERE tenant_id = $1 AND vault_id = $2 AND id = ANY($3) ORDER BY id",
    )
    .bind(tx.tenant().uuid())
    .bind(vault.uuid())
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    let pack = |(id, state, lock_until)| LockedPack { id, state, lock_until };
    Ok(rows.into_iter().map(pack).collect())
}

/// Makes locked packs live; says how many were not.
pub async fn set_live(tx: &mut TenantTx, ids: &[Uuid]) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.packs SET state = 'live', condemned_at = NULL
         WHERE tenant_id = $1 AND id = ANY($2) AND state IN ('uploaded', 'condemned')",
        tx.tenant().uuid(),
        ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Ends the intervals of packs the chain no longer needs. Says how many.
pub async fn close_references(
    tx: &mut TenantTx,
    workload: WorkloadId,
    last_seq: i64,
    ids: &[Uuid],
) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.snapshot_packs SET last_seq = $3
         WHERE tenant_id = $1 AND workload_id = $2 AND last_seq IS NULL AND pack_id = ANY($4)",
        tx.tenant().uuid(),
        workload.uuid(),
        last_seq,
        ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

pub async fn insert_references(
    tx: &mut TenantTx,
    workload: WorkloadId,
    first_seq: i64,
    ids: &[Uuid],
) -> Result<(), pg::Error> {
    sqlx::query!(
        "INSERT INTO catalog.snapshot_packs (tenant_id, workload_id, pack_id, first_seq)
         SELECT $1, $2, id, $3 FROM unnest($4::uuid[]) AS added (id)",
        tx.tenant().uuid(),
        workload.uuid(),
        first_seq,
        ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What the newest snapshot of the chain stands on, counted after its references were written.
#[derive(Debug, Clone)]
pub struct Coverage {
    pub packs: i64,
    /// Not live, or not known to be locked for as long as promised.
    pub unfit: i64,
    pub earliest: Option<OffsetDateTime>,
}

pub async fn count_coverage(
    tx: &mut TenantTx,
    workload: WorkloadId,
    protect_until: Timestamp,
) -> Result<Coverage, pg::Error> {
    Ok(sqlx::query_as!(
        Coverage,
        r#"SELECT count(*) AS "packs!", min(p.lock_until) AS earliest,
                  count(*) FILTER (WHERE p.state <> 'live' OR p.lock_until IS NULL OR p.lock_until < $3) AS "unfit!"
           FROM catalog.snapshot_packs r JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
           WHERE r.tenant_id = $1 AND r.workload_id = $2 AND r.last_seq IS NULL"#,
        tx.tenant().uuid(),
        workload.uuid(),
        OffsetDateTime::from(protect_until),
    )
    .fetch_one(tx.conn())
    .await?)
}

/// The open end of the chain: every pack its newest snapshot needs.
pub async fn list_open(tx: &mut TenantTx, workload: WorkloadId) -> Result<Vec<Uuid>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "SELECT pack_id FROM catalog.snapshot_packs WHERE tenant_id = $1 AND workload_id = $2 AND last_seq IS NULL",
        tx.tenant().uuid(),
        workload.uuid(),
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Every pack the snapshot at one place of the chain needs.
pub async fn list_at(
    tx: &mut TenantTx,
    workload: WorkloadId,
    seq: i64,
) -> Result<Vec<Uuid>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "SELECT pack_id FROM catalog.snapshot_packs WHERE tenant_id = $1 AND workload_id = $2
           AND first_seq <= $3 AND (last_seq IS NULL OR last_seq >= $3)",
        tx.tenant().uuid(),
        workload.uuid(),
        seq,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Place of a snapshot in its workload's chain.
pub async fn find_seq(tx: &mut TenantTx, id: SnapshotId) -> Result<Option<i64>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "SELECT seq FROM catalog.snapshots WHERE tenant_id = $1 AND id = $2",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// A snapshot about to be written.
#[derive(Debug, Clone)]
pub struct NewSnapshot<'a> {
    pub id: SnapshotId,
    pub session: &'a super::store::SessionRow,
    /// The snapshot its manifest builds on.
    pub parent: Option<Uuid>,
    pub seq: i64,
    pub manifest: PackId,
    pub committed_at: Timestamp,
    pub paths: &'a [String],
    pub tags: serde_json::Value,
    pub stats: &'a api::catalog::SnapshotStats,
    /// Derived from the packs of the session, not from what the agent says.
    pub stored_bytes: u64,
    pub slots: Vec<String>,
    pub protect_until: Timestamp,
    pub locked_until: Timestamp,
}

pub async fn insert_snapshot(tx: &mut TenantTx, new: &NewSnapshot<'_>) -> Result<(), pg::Error> {
    let status = if new.stats.exceptions == 0 { "succeeded" } else { "succeeded_with_exceptions" };
    sqlx::query!(
        "INSERT INTO catalog.snapshots (tenant_id, id, vault_id, workload_id, agent_id, run_id, session_id, seq, parent_id,
             manifest_id, committed_at, status, paths, tags, files, directories, others, source_bytes, new_bytes,
             stored_bytes, exceptions, duration_ms, slots, protect_until, locked_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
             $23, $24, $25)",
        tx.tenant().uuid(),
        new.id.uuid(),
        new.session.vault_id,
        new.session.workload_id,
        new.session.agent_id,
        new.session.run_id,
        new.session.id,
        new.seq,
        new.parent,
        new.manifest.uuid(),
        OffsetDateTime::from(new.committed_at),
        status,
        new.paths,
        new.tags,
        new.stats.files.cast_signed(),
        new.stats.directories.cast_signed(),
        new.stats.others.cast_signed(),
        new.stats.source_bytes.cast_signed(),
        new.stats.new_bytes.cast_signed(),
        new.stored_bytes.cast_signed(),
        new.stats.exceptions.cast_signed(),
        new.stats.duration_ms.cast_signed(),
        &new.slots,
        OffsetDateTime::from(new.protect_until),
        OffsetDateTime::from(new.locked_until),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What is kept of a manifest the server has read.
#[derive(Debug, Clone, Copy)]
pub struct NewManifest {
    pub pack: PackId,
    pub snapshot: SnapshotId,
    pub key_epoch: u32,
    pub full_list: bool,
    pub packs: u64,
    pub set_hash: [u8; 32],
}

pub async fn insert_manifest(tx: &mut TenantTx, new: &NewManifest) -> Result<(), pg::Error> {
    sqlx::query!(
        "INSERT INTO catalog.manifests (tenant_id, pack_id, snapshot_id, key_epoch, full_list, packs, set_hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        tx.tenant().uuid(),
        new.pack.uuid(),
        new.snapshot.uuid(),
        new.key_epoch.cast_signed(),
        new.full_list,
        new.packs.cast_signed(),
        &new.set_hash,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn insert_receipt(
    tx: &mut TenantTx,
    snapshot: SnapshotId,
    receipt: &[u8],
    object_key: &str,
    lock_until: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "INSERT INTO catalog.receipts (tenant_id, snapshot_id, receipt, object_key, lock_until)
         VALUES ($1, $2, $3, $4, $5)",
        tx.tenant().uuid(),
        snapshot.uuid(),
        receipt,
        object_key,
        OffsetDateTime::from(lock_until),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn set_last_seq(
    tx: &mut TenantTx,
    workload: WorkloadId,
    seq: i64,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.workloads SET last_seq = $3 WHERE tenant_id = $1 AND id = $2",
        tx.tenant().uuid(),
        workload.uuid(),
        seq,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Bytes of those of the packs that this session uploaded: what this backup added to the store.
pub async fn sum_stored_bytes(
    tx: &mut TenantTx,
    session: SessionId,
    ids: &[Uuid],
) -> Result<u64, pg::Error> {
    let sum = sqlx::query_scalar!(
        r#"SELECT COALESCE(sum(length), 0)::bigint AS "sum!" FROM catalog.packs
           WHERE tenant_id = $1 AND session_id = $2 AND id = ANY($3)"#,
        tx.tenant().uuid(),
        session.uuid(),
        ids,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(sum.unsigned_abs())
}
