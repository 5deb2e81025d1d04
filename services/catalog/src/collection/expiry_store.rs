//! SQL of letting snapshots go: what a plan needs to know, soft expiry, its undo, the final decision and its
//! record. Each step takes the snapshot's row first: opening a session share-locks its parent, a hold and a
//! restore take the same row, so what they say is seen or waits.

use std::time::Duration;

use domain::{PackId, SnapshotId, TenantId, Timestamp, WorkloadId};
use pg::{SystemTx, TenantTx};
use time::OffsetDateTime;
use uuid::Uuid;

/// What the plan is told about one committed snapshot.
#[derive(Debug, Clone)]
pub struct CandidateRow {
    pub id: Uuid,
    pub seq: i64,
    pub committed_at: OffsetDateTime,
    pub slots: Vec<String>,
    pub protect_until: OffsetDateTime,
    pub locked_until: OffsetDateTime,
    pub keep_until: Option<OffsetDateTime>,
    pub in_use_until: Option<OffsetDateTime>,
    pub status: String,
    pub held: bool,
    pub built_on: bool,
    pub damaged: bool,
}

/// Whether softly expired snapshots are looked at too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithExpired {
    Yes,
    No,
}

pub async fn list_candidates(
    tx: &mut TenantTx,
    workload: WorkloadId,
    with_expired: WithExpired,
) -> Result<Vec<CandidateRow>, pg::Error> {
    Ok(sqlx::query_as!(
        CandidateRow,
        r#"SELECT s.id, s.seq, s.committed_at, s.slots, s.protect_until, s.locked_until, s.keep_until, s.in_use_until, s.status,
                  EXISTS (SELECT FROM catalog.snapshot_holds h WHERE h.tenant_id = s.tenant_id AND h.snapshot_id = s.id
                          AND h.released_at IS NULL) AS "held!",
                  EXISTS (SELECT FROM catalog.sessions o WHERE o.tenant_id = s.tenant_id AND o.workload_id = s.workload_id
                          AND o.parent_id = s.id AND o.state = 'open') AS "built_on!",
                  EXISTS (SELECT FROM catalog.packs p JOIN catalog.snapshot_packs r ON r.tenant_id = p.tenant_id AND r.pack_id = p.id
                          WHERE p.tenant_id = s.tenant_id AND p.vault_id = s.vault_id AND p.state = 'lost'
                            AND r.workload_id = s.workload_id AND r.first_seq <= s.seq
                            AND (r.last_seq IS NULL OR r.last_seq >= s.seq)) AS "damaged!"
           FROM catalog.snapshots s
           WHERE s.tenant_id = $1 AND s.workload_id = $2
             AND (s.state = 'committed' OR ($3 AND s.state = 'expired')) ORDER BY s.seq"#,
        tx.tenant().uuid(),
        workload.uuid(),
        with_expired == WithExpired::Yes,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Takes the snapshot's row; its workload and state.
pub async fn lock_snapshot(
    tx: &mut TenantTx,
    id: SnapshotId,
) -> Result<Option<(WorkloadId, String)>, pg::Error> {
    let row = sqlx::query!(
        "SELECT workload_id, state FROM catalog.snapshots WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| (WorkloadId::from_uuid(row.workload_id), row.state)))
}

/// Softly expires a snapshot whose promise is over and that nothing holds, reads or builds on.
pub async fn set_expired(
    tx: &mut TenantTx,
    id: SnapshotId,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    lock_snapshot(tx, id).await?;
    let done = sqlx::query!(
        "UPDATE catalog.snapshots s SET state = 'expired', expired_at = $3
         WHERE s.tenant_id = $1 AND s.id = $2 AND s.state = 'committed' AND s.protect_until <= $3
           AND (s.keep_until IS NULL OR s.keep_until <= $3) AND (s.in_use_until IS NULL OR s.in_use_until <= $3)
           AND NOT EXISTS (SELECT FROM catalog.snapshot_holds h WHERE h.tenant_id = s.tenant_id AND h.snapshot_id = s.id
                           AND h.released_at IS NULL)
           AND NOT EXISTS (SELECT FROM catalog.sessions o WHERE o.tenant_id = s.tenant_id AND o.parent_id = s.id
                           AND o.state = 'open')",
        tx.tenant().uuid(),
        id.uuid(),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a soft expiry back and keeps the snapshot until `keep_until` at least.
pub async fn set_unexpired(
    tx: &mut TenantTx,
    id: SnapshotId,
    keep_until: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.snapshots SET state = 'committed', expired_at = NULL, keep_until = GREATEST(keep_until, $3)
         WHERE tenant_id = $1 AND id = $2 AND state = 'expired'",
        tx.tenant().uuid(),
        id.uuid(),
        OffsetDateTime::from(keep_until),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Somebody may read the snapshot until then.
pub async fn set_in_use(
    tx: &mut TenantTx,
    id: SnapshotId,
    until: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.snapshots SET in_use_until = GREATEST(in_use_until, $3)
         WHERE tenant_id = $1 AND id = $2 AND state = 'committed'",
        tx.tenant().uuid(),
        id.uuid(),
        OffsetDateTime::from(until),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Snapshots of a workload whose time for an undo is over.
pub async fn list_forgettable(
    tx: &mut TenantTx,
    workload: WorkloadId,
    expired_before: Timestamp,
) -> Result<Vec<SnapshotId>, pg::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM catalog.snapshots WHERE tenant_id = $1 AND workload_id = $2 AND state = 'expired'
           AND expired_at <= $3 ORDER BY seq",
        tx.tenant().uuid(),
        workload.uuid(),
        OffsetDateTime::from(expired_before),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().map(SnapshotId::from_uuid).collect())
}

/// What the record of a forgetting says.
#[derive(Debug, Clone)]
pub struct ForgettingRow {
    pub vault_id: Uuid,
    pub manifest_id: Uuid,
    pub manifest_sha256: Vec<u8>,
    /// The latest lock of anything that speaks for the snapshot.
    pub outlast: Option<OffsetDateTime>,
}

/// Decides for good, if the undo's time is over.
pub async fn set_forgetting(
    tx: &mut TenantTx,
    id: SnapshotId,
    expired_before: Timestamp,
    now: Timestamp,
) -> Result<Option<ForgettingRow>, pg::Error> {
    lock_snapshot(tx, id).await?;
    Ok(sqlx::query_as!(
        ForgettingRow,
        r#"UPDATE catalog.snapshots s SET state = 'forgetting', forgotten_at = $4
           FROM catalog.packs m
           WHERE s.tenant_id = $1 AND s.id = $2 AND s.state = 'expired' AND s.expired_at <= $3
             AND m.tenant_id = s.tenant_id AND m.id = s.manifest_id
           RETURNING s.vault_id, s.manifest_id, m.sha256 AS manifest_sha256,
             GREATEST(m.lock_until, s.locked_until, (SELECT r.lock_until FROM catalog.receipts r
                      WHERE r.tenant_id = s.tenant_id AND r.snapshot_id = s.id)) AS outlast"#,
        tx.tenant().uuid(),
        id.uuid(),
        OffsetDateTime::from(expired_before),
        OffsetDateTime::from(now),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// A signed record on its way to the bucket.
#[derive(Debug, Clone)]
pub struct ForgetRow {
    pub record: Vec<u8>,
    pub object_key: String,
    pub lock_until: OffsetDateTime,
}

pub async fn insert_forget(
    tx: &mut TenantTx,
    id: SnapshotId,
    row: &ForgetRow,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "INSERT INTO catalog.forgets (tenant_id, snapshot_id, record, object_key, lock_until) VALUES ($1, $2, $3, $4, $5)",
        tx.tenant().uuid(),
        id.uuid(),
        row.record,
        row.object_key,
        row.lock_until,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn find_unstored_forget(
    tx: &mut TenantTx,
    id: SnapshotId,
) -> Result<Option<ForgetRow>, pg::Error> {
    Ok(sqlx::query_as!(
        ForgetRow,
        "SELECT record, object_key, lock_until FROM catalog.forgets
         WHERE tenant_id = $1 AND snapshot_id = $2 AND stored_at IS NULL",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// The bucket has the record: from here on nothing is kept for the snapshot.
pub async fn set_forgotten(
    tx: &mut TenantTx,
    id: SnapshotId,
    version_id: &str,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.forgets SET version_id = $3, stored_at = $4
         WHERE tenant_id = $1 AND snapshot_id = $2 AND stored_at IS NULL",
        tx.tenant().uuid(),
        id.uuid(),
        version_id,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE catalog.snapshots SET state = 'forgotten' WHERE tenant_id = $1 AND id = $2 AND state = 'forgetting'",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// When a snapshot was let go for good. `None`: there is none, or it was not.
pub async fn find_forgotten_at(
    tx: &mut TenantTx,
    id: SnapshotId,
) -> Result<Option<Timestamp>, pg::Error> {
    let at = sqlx::query_scalar!(
        "SELECT forgotten_at FROM catalog.snapshots WHERE tenant_id = $1 AND id = $2",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(at.flatten().map(Timestamp::from))
}

/// Condemned packs of this agent's ended sessions, not older than `uploaded_after`: their grace starts again, because the session
/// that opens now is told of them. In id order, like every writer of several pack rows.
pub async fn restart_grace(
    tx: &mut TenantTx,
    vault: domain::VaultId,
    agent: domain::AgentId,
    uploaded_after: Timestamp,
    now: Timestamp,
) -> Result<Vec<PackId>, pg::Error> {
    let ids = sqlx::query_scalar!(
        "WITH mine AS (
             SELECT p.id FROM catalog.packs p
             JOIN catalog.sessions s ON s.tenant_id = p.tenant_id AND s.id = p.session_id
             WHERE p.tenant_id = $1 AND p.vault_id = $2 AND p.state = 'condemned' AND p.kind <> 'manifest'
               AND p.uploaded_at > $4 AND s.agent_id = $3 AND s.state IN ('aborted', 'expired')
             ORDER BY p.id FOR UPDATE OF p)
         UPDATE catalog.packs p SET condemned_at = $5 FROM mine
         WHERE p.tenant_id = $1 AND p.id = mine.id AND p.state = 'condemned' RETURNING p.id",
        tx.tenant().uuid(),
        vault.uuid(),
        agent.uuid(),
        OffsetDateTime::from(uploaded_after),
        OffsetDateTime::from(now),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().map(PackId::from_uuid).collect())
}

/// Workloads of any tenant with a committed snapshot past its promise or a softly expired one past the undo.
pub async fn list_workloads_due(
    tx: &mut SystemTx,
    now: Timestamp,
    undo: Duration,
) -> Result<Vec<(TenantId, WorkloadId)>, pg::Error> {
    let rows = sqlx::query!(
        "SELECT DISTINCT tenant_id, workload_id FROM catalog.snapshots
         WHERE (state = 'committed' AND protect_until <= $1) OR (state = 'expired' AND expired_at <= $2) LIMIT 1000",
        OffsetDateTime::from(now),
        OffsetDateTime::from(now - undo),
    )
    .fetch_all(tx.conn())
    .await?;
    let ids = |t, w| (TenantId::from_uuid(t), WorkloadId::from_uuid(w));
    Ok(rows.into_iter().map(|r| ids(r.tenant_id, r.workload_id)).collect())
}

/// Forget records of any tenant that wait for the bucket.
pub async fn list_unstored_forgets(
    tx: &mut SystemTx,
) -> Result<Vec<(TenantId, SnapshotId)>, pg::Error> {
    let rows = sqlx::query!(
        "SELECT tenant_id, snapshot_id FROM catalog.forgets WHERE stored_at IS NULL LIMIT 100"
    )
    .fetch_all(tx.conn())
    .await?;
    let ids = |t, s| (TenantId::from_uuid(t), SnapshotId::from_uuid(s));
    Ok(rows.into_iter().map(|r| ids(r.tenant_id, r.snapshot_id)).collect())
}

/// Place of the newest committed snapshot of each workload of a vault.
pub async fn list_newest(
    tx: &mut TenantTx,
    vault: domain::VaultId,
) -> Result<Vec<(WorkloadId, i64)>, pg::Error> {
    let rows = sqlx::query!(
        r#"SELECT workload_id, max(seq) AS "seq!" FROM catalog.snapshots
           WHERE tenant_id = $1 AND vault_id = $2 AND state = 'committed' GROUP BY workload_id ORDER BY workload_id"#,
        tx.tenant().uuid(),
        vault.uuid(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (WorkloadId::from_uuid(row.workload_id), row.seq)).collect())
}
