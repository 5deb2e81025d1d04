//! SQL of snapshots, their references and receipts.

use api::catalog::{Snapshot, SnapshotStats};
use domain::{
    AgentId, PackId, RunId, SessionId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId,
    retention::Slot, run::RunState,
};
use pg::{SystemTx, TenantTx};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::packs::store::PackRow;

/// One row, as the database has it.
#[derive(Debug, Clone)]
pub struct SnapshotRow {
    pub tenant_id: Uuid,
    pub id: Uuid,
    pub vault_id: Uuid,
    pub workload_id: Uuid,
    pub agent_id: Uuid,
    pub run_id: Uuid,
    pub parent_id: Option<Uuid>,
    pub manifest_id: Uuid,
    pub seq: i64,
    pub state: String,
    pub committed_at: OffsetDateTime,
    pub expired_at: Option<OffsetDateTime>,
    pub status: String,
    pub paths: Vec<String>,
    pub tags: serde_json::Value,
    pub files: i64,
    pub directories: i64,
    pub others: i64,
    pub source_bytes: i64,
    pub new_bytes: i64,
    pub stored_bytes: i64,
    pub exceptions: i64,
    pub duration_ms: i64,
    pub slots: Vec<String>,
    pub protect_until: OffsetDateTime,
    pub locked_until: OffsetDateTime,
}

impl SnapshotRow {
    pub const fn id(&self) -> SnapshotId {
        SnapshotId::from_uuid(self.id)
    }
    pub fn is_committed(&self) -> bool {
        self.state == "committed"
    }
    pub fn into_dto(self) -> Snapshot {
        let slot = |name: &String| Slot::ALL.into_iter().find(|slot| slot.as_str() == name);
        Snapshot {
            id: self.id(),
            tenant_id: TenantId::from_uuid(self.tenant_id),
            workload_id: WorkloadId::from_uuid(self.workload_id),
            vault_id: VaultId::from_uuid(self.vault_id),
            agent_id: AgentId::from_uuid(self.agent_id),
            run_id: RunId::from_uuid(self.run_id),
            parent_id: self.parent_id.map(SnapshotId::from_uuid),
            committed_at: self.committed_at.into(),
            status: RunState::parse(&self.status).unwrap_or(RunState::SucceededWithExceptions),
            paths: self.paths,
            tags: serde_json::from_value(self.tags).unwrap_or_default(),
            stats: SnapshotStats {
                files: self.files.unsigned_abs(),
                directories: self.directories.unsigned_abs(),
                others: self.others.unsigned_abs(),
                source_bytes: self.source_bytes.unsigned_abs(),
                new_bytes: self.new_bytes.unsigned_abs(),
                stored_bytes: self.stored_bytes.unsigned_abs(),
                exceptions: self.exceptions.unsigned_abs(),
                duration_ms: self.duration_ms.unsigned_abs(),
            },
            slots: self.slots.iter().filter_map(slot).collect(),
            protect_until: self.protect_until.into(),
            locked_until: self.locked_until.into(),
        }
    }
}

/// Which snapshots a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    pub workload: Option<WorkloadId>,
    /// Agents see their own.
    pub agent: Option<AgentId>,
    /// Those softly expired, instead of those that stand.
    pub which: Which,
    /// The last one of the page before.
    pub after: Option<(Timestamp, SnapshotId)>,
}

/// The two states people see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    #[default]
    Committed,
    Expired,
}

impl Which {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Expired => "expired",
        }
    }
}

pub async fn list(
    tx: &mut TenantTx,
    filter: Filter,
    limit: i64,
) -> Result<Vec<SnapshotRow>, pg::Error> {
    Ok(sqlx::query_as!(
        SnapshotRow,
        r#"SELECT tenant_id, id, vault_id, workload_id, agent_id, run_id, parent_id, manifest_id, seq, state, committed_at, expired_at, status,
                  paths, tags, files, directories, others, source_bytes, new_bytes, stored_bytes, exceptions,
                  duration_ms, slots, protect_until, locked_until
           FROM catalog.snapshots
           WHERE tenant_id = $1 AND state = $7
             AND ($2::uuid IS NULL OR workload_id = $2) AND ($3::uuid IS NULL OR agent_id = $3)
             AND ($4::timestamptz IS NULL OR (committed_at, id) < ($4, $5::uuid))
           ORDER BY committed_at DESC, id DESC LIMIT $6"#,
        tx.tenant().uuid(),
        filter.workload.map(WorkloadId::uuid),
        filter.agent.map(AgentId::uuid),
        filter.after.map(|(at, _)| OffsetDateTime::from(at)),
        filter.after.map(|(_, id)| id.uuid()),
        limit,
        filter.which.as_str(),
    )
    .fetch_all(tx.conn())
    .await?)
}

/// A committed snapshot; of this agent only, when one asks.
pub async fn find(
    tx: &mut TenantTx,
    id: SnapshotId,
    agent: Option<AgentId>,
) -> Result<Option<SnapshotRow>, pg::Error> {
    Ok(sqlx::query_as!(
        SnapshotRow,
        r#"SELECT tenant_id, id, vault_id, workload_id, agent_id, run_id, parent_id, manifest_id, seq, state, committed_at, expired_at, status,
                  paths, tags, files, directories, others, source_bytes, new_bytes, stored_bytes, exceptions,
                  duration_ms, slots, protect_until, locked_until
           FROM catalog.snapshots
           WHERE tenant_id = $1 AND id = $2 AND state = 'committed' AND ($3::uuid IS NULL OR agent_id = $3)"#,
        tx.tenant().uuid(),
        id.uuid(),
        agent.map(AgentId::uuid),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// The snapshot a session ended with, expired or not.
pub async fn find_by_session(
    tx: &mut TenantTx,
    session: SessionId,
) -> Result<Option<SnapshotRow>, pg::Error> {
    Ok(sqlx::query_as!(
        SnapshotRow,
        r#"SELECT tenant_id, id, vault_id, workload_id, agent_id, run_id, parent_id, manifest_id, seq, state, committed_at, expired_at, status,
                  paths, tags, files, directories, others, source_bytes, new_bytes, stored_bytes, exceptions,
                  duration_ms, slots, protect_until, locked_until
           FROM catalog.snapshots WHERE tenant_id = $1 AND session_id = $2"#,
        tx.tenant().uuid(),
        session.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// The newest committed snapshot of a workload whose manifests all stand, share-locked: it cannot expire before
/// this transaction ends.
pub async fn newest_locked(
    tx: &mut TenantTx,
    workload: WorkloadId,
) -> Result<Option<SnapshotRow>, pg::Error> {
    Ok(sqlx::query_as!(
        SnapshotRow,
        r#"SELECT tenant_id, id, vault_id, workload_id, agent_id, run_id, parent_id, manifest_id, seq, state, committed_at, expired_at, status,
                  paths, tags, files, directories, others, source_bytes, new_bytes, stored_bytes, exceptions,
                  duration_ms, slots, protect_until, locked_until
           FROM catalog.snapshots s WHERE tenant_id = $1 AND workload_id = $2 AND state = 'committed'
             AND NOT EXISTS (
               SELECT FROM catalog.snapshot_packs r
               JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
               WHERE r.tenant_id = s.tenant_id AND r.workload_id = s.workload_id AND r.first_seq <= s.seq
                 AND (r.last_seq IS NULL OR r.last_seq >= s.seq) AND p.kind = 'manifest' AND p.state = 'lost')
           ORDER BY seq DESC LIMIT 1 FOR SHARE OF s"#,
        tx.tenant().uuid(),
        workload.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// Packs the snapshot at this place of the chain needs that are lost, in id order.
pub async fn list_lost(
    tx: &mut TenantTx,
    workload: WorkloadId,
    seq: i64,
    limit: i64,
) -> Result<Vec<PackId>, pg::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT p.id
         FROM catalog.snapshot_packs r JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
         WHERE r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= $3
           AND (r.last_seq IS NULL OR r.last_seq >= $3) AND p.state = 'lost'
         ORDER BY p.id LIMIT $4",
        tx.tenant().uuid(),
        workload.uuid(),
        seq,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().map(PackId::from_uuid).collect())
}

/// When the workload's newest snapshot was committed, expired or not: slots once given stay given.
pub async fn last_commit_at(
    tx: &mut TenantTx,
    workload: WorkloadId,
) -> Result<Option<Timestamp>, pg::Error> {
    let at = sqlx::query_scalar!(
        "SELECT max(committed_at) FROM catalog.snapshots WHERE tenant_id = $1 AND workload_id = $2",
        tx.tenant().uuid(),
        workload.uuid(),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(at.map(Timestamp::from))
}

/// Whether a receipt's snapshot was ever committed here.
pub async fn was_committed(tx: &mut TenantTx, id: SnapshotId) -> Result<bool, pg::Error> {
    let found = sqlx::query_scalar!(
        "SELECT 1 AS one FROM catalog.snapshots WHERE tenant_id = $1 AND id = $2",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.is_some())
}

/// Everything one snapshot needs: data, metadata and its chain of manifests, in id order from `after` on.
pub async fn list_packs(
    tx: &mut TenantTx,
    workload: WorkloadId,
    seq: i64,
    after: Option<PackId>,
    limit: i64,
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT p.id, p.vault_id, p.session_id, p.seq, p.kind, p.state, p.sha256, p.md5, p.length, p.object_key,
                  p.granted_lock_until, p.version_id, p.lock_until
           FROM catalog.snapshot_packs r JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
           WHERE r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= $3
             AND (r.last_seq IS NULL OR r.last_seq >= $3) AND ($4::uuid IS NULL OR p.id > $4)
           ORDER BY p.id LIMIT $5"#,
        tx.tenant().uuid(),
        workload.uuid(),
        seq,
        after.map(PackId::uuid),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Those of `ids` that the snapshot needs.
pub async fn find_packs(
    tx: &mut TenantTx,
    workload: WorkloadId,
    seq: i64,
    ids: &[Uuid],
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT p.id, p.vault_id, p.session_id, p.seq, p.kind, p.state, p.sha256, p.md5, p.length, p.object_key,
                  p.granted_lock_until, p.version_id, p.lock_until
           FROM catalog.snapshot_packs r JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
           WHERE r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= $3
             AND (r.last_seq IS NULL OR r.last_seq >= $3) AND p.id = ANY($4)
           ORDER BY p.id"#,
        tx.tenant().uuid(),
        workload.uuid(),
        seq,
        ids,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// The snapshot's manifest and those back to the last full list, newest first. By the places of their own snapshots:
/// a chain taken up again after a newer one was lost is referenced from one place on.
pub async fn list_manifests(
    tx: &mut TenantTx,
    workload: WorkloadId,
    seq: i64,
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT p.id, p.vault_id, p.session_id, p.seq, p.kind, p.state, p.sha256, p.md5, p.length, p.object_key,
                  p.granted_lock_until, p.version_id, p.lock_until
           FROM catalog.snapshot_packs r JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
           LEFT JOIN catalog.manifests m ON m.tenant_id = p.tenant_id AND m.pack_id = p.id
           LEFT JOIN catalog.snapshots s ON s.tenant_id = m.tenant_id AND s.id = m.snapshot_id
           WHERE r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= $3
             AND (r.last_seq IS NULL OR r.last_seq >= $3) AND p.kind = 'manifest'
           ORDER BY COALESCE(s.seq, r.first_seq) DESC, p.id DESC"#,
        tx.tenant().uuid(),
        workload.uuid(),
        seq,
    )
    .fetch_all(tx.conn())
    .await?)
}

pub async fn find_receipt(tx: &mut TenantTx, id: SnapshotId) -> Result<Option<Vec<u8>>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "SELECT receipt FROM catalog.receipts WHERE tenant_id = $1 AND snapshot_id = $2",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// A receipt the bucket does not have yet.
#[derive(Debug, Clone)]
pub struct UnstoredReceipt {
    pub receipt: Vec<u8>,
    pub object_key: String,
    pub lock_until: OffsetDateTime,
}

pub async fn find_unstored_receipt(
    tx: &mut TenantTx,
    id: SnapshotId,
) -> Result<Option<UnstoredReceipt>, pg::Error> {
    Ok(sqlx::query_as!(
        UnstoredReceipt,
        "SELECT receipt, object_key, lock_until FROM catalog.receipts
         WHERE tenant_id = $1 AND snapshot_id = $2 AND stored_at IS NULL",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

pub async fn set_receipt_stored(
    tx: &mut TenantTx,
    id: SnapshotId,
    version_id: &str,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.receipts SET version_id = $3, stored_at = $4
         WHERE tenant_id = $1 AND snapshot_id = $2 AND stored_at IS NULL",
        tx.tenant().uuid(),
        id.uuid(),
        version_id,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Receipts of any tenant that wait for the bucket.
pub async fn list_unstored_receipts(
    tx: &mut SystemTx,
) -> Result<Vec<(TenantId, SnapshotId)>, pg::Error> {
    let rows = sqlx::query!(
        "SELECT tenant_id, snapshot_id FROM catalog.receipts WHERE stored_at IS NULL LIMIT 100"
    )
    .fetch_all(tx.conn())
    .await?;
    let ids = |r: (Uuid, Uuid)| (TenantId::from_uuid(r.0), SnapshotId::from_uuid(r.1));
    Ok(rows.into_iter().map(|r| ids((r.tenant_id, r.snapshot_id))).collect())
}
