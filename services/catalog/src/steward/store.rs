//! SQL of the lock steward: which locks run out, what is asked for, alarms, and what a certificate counts.

use domain::{EventId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId};
use pg::{SystemTx, TenantTx};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::packs::store::{PackRow, SeenLock};

/// Workloads of any tenant, in id order after `after`, with a committed snapshot whose locks end before `due`.
pub async fn list_due(
    tx: &mut SystemTx,
    due: Timestamp,
    after: Option<(TenantId, WorkloadId)>,
    limit: i64,
) -> Result<Vec<(TenantId, WorkloadId)>, pg::Error> {
    let rows = sqlx::query!(
        "SELECT DISTINCT tenant_id, workload_id FROM catalog.snapshots
         WHERE state = 'committed' AND locked_until < $1
           AND ($2::uuid IS NULL OR (tenant_id, workload_id) > ($2, $3::uuid))
         ORDER BY tenant_id, workload_id LIMIT $4",
        OffsetDateTime::from(due),
        after.map(|(tenant, _)| tenant.uuid()),
        after.map(|(_, workload)| workload.uuid()),
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    let ids = |t, w| (TenantId::from_uuid(t), WorkloadId::from_uuid(w));
    Ok(rows.into_iter().map(|row| ids(row.tenant_id, row.workload_id)).collect())
}

/// An object of a vault, at one of its stores, that is locked for less long than it should be.
#[derive(Debug, Clone)]
pub struct ShortRow {
    pub tenant_id: Uuid,
    pub vault_id: Uuid,
    /// Of the pack, or of the snapshot whose receipt it is.
    pub id: Uuid,
    pub is_receipt: bool,
    pub object_key: String,
    pub version_id: String,
    pub lock_until: OffsetDateTime,
    pub wanted: OffsetDateTime,
    /// An alarm about it stands: it was asked for before, in vain.
    pub is_alarmed: bool,
}

impl ShortRow {
    pub const fn tenant(&self) -> TenantId {
        TenantId::from_uuid(self.tenant_id)
    }
}

/// The objects of a workload's snapshots that are locked too short, those that end first first, and those with an alarm
/// after all others. `wanted`: place in the chain, snapshot, date.
pub async fn list_short(
    tx: &mut TenantTx,
    workload: WorkloadId,
    wanted: &[(i64, SnapshotId, Timestamp)],
    limit: i64,
) -> Result<Vec<ShortRow>, pg::Error> {
    let seqs: Vec<i64> = wanted.iter().map(|(seq, ..)| *seq).collect();
    let ids: Vec<Uuid> = wanted.iter().map(|(_, id, _)| id.uuid()).collect();
    let dates: Vec<OffsetDateTime> = wanted.iter().map(|(.., until)| (*until).into()).collect();
    Ok(sqlx::query_as!(
        ShortRow,
        r#"WITH wanted AS (SELECT * FROM unnest($3::bigint[], $4::uuid[], $5::timestamptz[]) AS w (seq, id, until))
           SELECT p.tenant_id AS "tenant_id!", p.vault_id AS "vault_id!", p.id AS "id!", false AS "is_receipt!",
                  p.object_key AS "object_key!", p.version_id AS "version_id!", p.lock_until AS "lock_until!",
                  max(w.until) AS "wanted!",
                  EXISTS (SELECT FROM catalog.lock_alarms a WHERE a.tenant_id = p.tenant_id AND a.object_key = p.object_key
                          AND a.version_id = p.version_id AND a.cleared_at IS NULL) AS "is_alarmed!"
           FROM wanted w
           JOIN catalog.snapshot_packs r ON r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= w.seq
                AND (r.last_seq IS NULL OR r.last_seq >= w.seq)
           JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
           WHERE p.state = 'live' AND p.lock_until < w.until
           GROUP BY p.tenant_id, p.id
           UNION ALL
           SELECT s.tenant_id, s.vault_id, s.id, true, c.object_key, c.version_id, c.lock_until, w.until,
                  EXISTS (SELECT FROM catalog.lock_alarms a WHERE a.tenant_id = c.tenant_id AND a.object_key = c.object_key
                          AND a.version_id = c.version_id AND a.cleared_at IS NULL)
           FROM wanted w
           JOIN catalog.snapshots s ON s.tenant_id = $1 AND s.id = w.id
           JOIN catalog.receipts c ON c.tenant_id = s.tenant_id AND c.snapshot_id = s.id
           WHERE c.version_id IS NOT NULL AND c.lock_until < w.until
           ORDER BY 9, 7, 3 LIMIT $6"#,
        tx.tenant().uuid(),
        workload.uuid(),
        &seqs,
        &ids,
        &dates,
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Records the dates the store reported for receipts. Never lowers one.
pub async fn set_receipt_locks(
    tx: &mut TenantTx,
    locks: &[(SnapshotId, Timestamp)],
) -> Result<(), pg::Error> {
    let ids: Vec<Uuid> = locks.iter().map(|(id, _)| id.uuid()).collect();
    let dates: Vec<OffsetDateTime> = locks.iter().map(|(_, until)| (*until).into()).collect();
    sqlx::query!(
        "UPDATE catalog.receipts c SET lock_until = GREATEST(c.lock_until, a.until)
         FROM unnest($2::uuid[], $3::timestamptz[]) AS a (id, until)
         WHERE c.tenant_id = $1 AND c.snapshot_id = a.id",
        tx.tenant().uuid(),
        &ids,
        &dates,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes down again until when everything a snapshot needs is locked. Never earlier than before.
pub async fn refresh_locked_until(
    tx: &mut TenantTx,
    workload: WorkloadId,
    ids: &[Uuid],
) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.snapshots s SET locked_until = m.until
         FROM (SELECT s.id, LEAST(min(p.lock_until), (SELECT c.lock_until FROM catalog.receipts c
                      WHERE c.tenant_id = s.tenant_id AND c.snapshot_id = s.id)) AS until
               FROM catalog.snapshots s
               JOIN catalog.snapshot_packs r ON r.tenant_id = s.tenant_id AND r.workload_id = s.workload_id
                    AND r.first_seq <= s.seq AND (r.last_seq IS NULL OR r.last_seq >= s.seq)
               JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
               WHERE s.tenant_id = $1 AND s.workload_id = $2 AND s.id = ANY($3)
               GROUP BY s.tenant_id, s.id) m
         WHERE s.tenant_id = $1 AND s.id = m.id AND s.state = 'committed' AND m.until > s.locked_until",
        tx.tenant().uuid(),
        workload.uuid(),
        ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// An alarm about one object.
#[derive(Debug, Clone)]
pub struct NewAlarm<'a> {
    pub id: EventId,
    pub vault: VaultId,
    pub key: &'a str,
    pub version: &'a str,
    pub kind: &'static str,
    pub detail: &'a str,
    pub wanted: Timestamp,
}

/// Raises it. False: it stands already.
pub async fn insert_alarm(
    tx: &mut TenantTx,
    alarm: &NewAlarm<'_>,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "INSERT INTO catalog.lock_alarms (tenant_id, id, vault_id, object_key, version_id, kind, detail, wanted, raised_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        alarm.id.uuid(),
        alarm.vault.uuid(),
        alarm.key,
        alarm.version,
        alarm.kind,
        alarm.detail,
        OffsetDateTime::from(alarm.wanted),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What was wrong with these objects is so no longer. Gives the alarms that ended.
pub async fn clear_alarms(
    tx: &mut TenantTx,
    keys: &[String],
    kinds: &[String],
    now: Timestamp,
) -> Result<Vec<(String, String)>, pg::Error> {
    let rows = sqlx::query!(
        "UPDATE catalog.lock_alarms SET cleared_at = $4
         WHERE tenant_id = $1 AND object_key = ANY($2) AND kind = ANY($3) AND cleared_at IS NULL
         RETURNING object_key, kind",
        tx.tenant().uuid(),
        keys,
        kinds,
        OffsetDateTime::from(now),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.object_key, row.kind)).collect())
}

/// Standing alarms of all tenants.
pub async fn count_alarms(tx: &mut SystemTx) -> Result<i64, pg::Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM catalog.lock_alarms WHERE cleared_at IS NULL"#
    )
    .fetch_one(tx.conn())
    .await?)
}

/// What is known about the locks of one snapshot's objects.
#[derive(Debug, Clone)]
pub struct Standing {
    pub objects: i64,
    /// Checked at `since` or later.
    pub checked: i64,
    pub oldest_check: Option<OffsetDateTime>,
    pub newest_check: Option<OffsetDateTime>,
    pub locked_until: Option<OffsetDateTime>,
}

pub async fn count_standing(
    tx: &mut TenantTx,
    workload: WorkloadId,
    seq: i64,
    since: Timestamp,
) -> Result<Standing, pg::Error> {
    Ok(sqlx::query_as!(
        Standing,
        r#"SELECT count(*) AS "objects!", count(*) FILTER (WHERE p.lock_checked_at >= $4) AS "checked!",
                  min(COALESCE(p.lock_checked_at, 'epoch')) AS oldest_check, max(p.lock_checked_at) AS newest_check,
                  min(p.lock_until) AS locked_until
           FROM catalog.snapshot_packs r JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
           WHERE r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= $3
             AND (r.last_seq IS NULL OR r.last_seq >= $3)"#,
        tx.tenant().uuid(),
        workload.uuid(),
        seq,
        OffsetDateTime::from(since),
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Objects of a snapshot not checked since then, those that waited longest first.
pub async fn list_unchecked(
    tx: &mut TenantTx,
    workload: WorkloadId,
    seq: i64,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT p.id, p.vault_id, p.session_id, p.seq, p.kind, p.state, p.sha256, p.md5, p.length, p.object_key,
                  p.granted_lock_until, p.version_id, p.lock_until
           FROM catalog.snapshot_packs r JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
           WHERE r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= $3
             AND (r.last_seq IS NULL OR r.last_seq >= $3) AND (p.lock_checked_at IS NULL OR p.lock_checked_at < $4)
           ORDER BY p.lock_checked_at NULLS FIRST, p.id LIMIT $5"#,
        tx.tenant().uuid(),
        workload.uuid(),
        seq,
        OffsetDateTime::from(since),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// The store was asked about these and said what we think; a row with another version by now was not asked about. In id
/// order, as every writer of several pack rows.
pub async fn set_checked(
    tx: &mut TenantTx,
    seen: &[SeenLock],
    now: Timestamp,
) -> Result<(), pg::Error> {
    let ids: Vec<Uuid> = seen.iter().map(|seen| seen.pack.uuid()).collect();
    let versions: Vec<String> = seen.iter().map(|seen| seen.version.clone()).collect();
    sqlx::query!(
        "WITH asked AS (SELECT * FROM unnest($2::uuid[], $3::text[]) AS a (id, version)),
              locked AS (SELECT p.id FROM catalog.packs p JOIN asked USING (id)
                         WHERE p.tenant_id = $1 ORDER BY p.id FOR UPDATE OF p)
         UPDATE catalog.packs p SET lock_checked_at = $4 FROM asked JOIN locked USING (id)
         WHERE p.tenant_id = $1 AND p.id = asked.id AND p.version_id = asked.version",
        tx.tenant().uuid(),
        &ids,
        &versions,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A standing alarm about an object of a snapshot.
#[derive(Debug, Clone)]
pub struct ViolationRow {
    pub pack_id: Uuid,
    pub object_key: String,
    pub version_id: String,
    pub kind: String,
    pub detail: String,
    pub raised_at: OffsetDateTime,
}

pub async fn list_violations(
    tx: &mut TenantTx,
    workload: WorkloadId,
    seq: i64,
    limit: i64,
) -> Result<Vec<ViolationRow>, pg::Error> {
    Ok(sqlx::query_as!(
        ViolationRow,
        "SELECT p.id AS pack_id, a.object_key, a.version_id, a.kind, a.detail, a.raised_at
         FROM catalog.snapshot_packs r
         JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
         JOIN catalog.lock_alarms a ON a.tenant_id = p.tenant_id AND a.object_key = p.object_key
              AND a.version_id = p.version_id AND a.cleared_at IS NULL
         WHERE r.tenant_id = $1 AND r.workload_id = $2 AND r.first_seq <= $3
           AND (r.last_seq IS NULL OR r.last_seq >= $3)
         ORDER BY p.id, a.kind LIMIT $4",
        tx.tenant().uuid(),
        workload.uuid(),
        seq,
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}
