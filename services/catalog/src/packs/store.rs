//! SQL of packs.

use api::catalog::{PackFacts, PackKind, PackState};
use domain::{PackId, SessionId, Timestamp, VaultId};
use pg::TenantTx;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::sessions::SessionRow;

/// One row, as the database has it.
#[derive(Debug, Clone)]
pub struct PackRow {
    pub id: Uuid,
    pub vault_id: Uuid,
    pub session_id: Uuid,
    pub seq: i64,
    pub kind: String,
    pub state: String,
    pub sha256: Vec<u8>,
    pub md5: Option<Vec<u8>>,
    pub length: i64,
    pub object_key: String,
    pub granted_lock_until: OffsetDateTime,
    pub version_id: Option<String>,
    pub lock_until: Option<OffsetDateTime>,
}

impl PackRow {
    pub const fn id(&self) -> PackId {
        PackId::from_uuid(self.id)
    }
    /// A word outside the check constraint cannot be in the row; it would read as lost, the safe side.
    pub fn state(&self) -> PackState {
        PackState::parse(&self.state).unwrap_or(PackState::Lost)
    }
    pub fn kind(&self) -> PackKind {
        PackKind::parse(&self.kind).unwrap_or(PackKind::Data)
    }
    pub fn length(&self) -> u64 {
        self.length.unsigned_abs()
    }
    pub fn lock_until(&self) -> Option<Timestamp> {
        self.lock_until.map(Timestamp::from)
    }
    pub fn facts(&self) -> PackFacts {
        PackFacts {
            id: self.id(),
            kind: self.kind(),
            state: self.state(),
            sha256: hex::encode(&self.sha256),
            length: self.length(),
            key: self.object_key.clone(),
            version_id: self.version_id.clone(),
            lock_until: self.lock_until(),
        }
    }
}

/// What is written at B1.
#[derive(Debug, Clone)]
pub struct NewPack {
    pub id: PackId,
    pub seq: u64,
    pub kind: PackKind,
    pub sha256: [u8; 32],
    pub md5: Option<[u8; 16]>,
    pub length: u64,
    pub object_key: String,
    pub granted_lock_until: Timestamp,
    pub grant_expires_at: Timestamp,
}

pub async fn find_by_seq(
    tx: &mut TenantTx,
    session: SessionId,
    seqs: &[i64],
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT id, vault_id, session_id, seq, kind, state, sha256, md5, length, object_key, granted_lock_until,
                  version_id, lock_until
           FROM catalog.packs WHERE tenant_id = $1 AND session_id = $2 AND seq = ANY($3)"#,
        tx.tenant().uuid(),
        session.uuid(),
        seqs,
    )
    .fetch_all(tx.conn())
    .await?)
}

pub async fn find_in_session(
    tx: &mut TenantTx,
    session: SessionId,
    ids: &[Uuid],
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT id, vault_id, session_id, seq, kind, state, sha256, md5, length, object_key, granted_lock_until,
                  version_id, lock_until
           FROM catalog.packs WHERE tenant_id = $1 AND session_id = $2 AND id = ANY($3)"#,
        tx.tenant().uuid(),
        session.uuid(),
        ids,
    )
    .fetch_all(tx.conn())
    .await?)
}

pub async fn find_in_vault(
    tx: &mut TenantTx,
    vault: VaultId,
    ids: &[Uuid],
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT id, vault_id, session_id, seq, kind, state, sha256, md5, length, object_key, granted_lock_until,
                  version_id, lock_until
           FROM catalog.packs WHERE tenant_id = $1 AND vault_id = $2 AND id = ANY($3)"#,
        tx.tenant().uuid(),
        vault.uuid(),
        ids,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Packs of the agent's earlier sessions that ended without a commit, by id: this open one uses them as they are. What
/// a committed session did not need nobody needs. Condemned ones among them are those whose grace began again, or
/// began, since this session opened: it counts as older.
pub async fn list_adoptable(
    tx: &mut TenantTx,
    session: domain::SessionId,
    after: Option<PackId>,
    limit: i64,
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT p.id, p.vault_id, p.session_id, p.seq, p.kind, p.state, p.sha256, p.md5, p.length, p.object_key,
                  p.granted_lock_until, p.version_id, p.lock_until
           FROM catalog.sessions o
           JOIN catalog.packs p ON p.tenant_id = o.tenant_id AND p.vault_id = o.vault_id
           JOIN catalog.sessions s ON s.tenant_id = p.tenant_id AND s.id = p.session_id
           WHERE o.tenant_id = $1 AND o.id = $2 AND p.kind <> 'manifest'
             AND (p.state = 'uploaded' OR (p.state = 'condemned' AND p.condemned_at >= o.opened_at))
             AND s.agent_id = o.agent_id AND s.state IN ('aborted', 'expired')
             AND ($3::uuid IS NULL OR p.id > $3)
           ORDER BY p.id LIMIT $4"#,
        tx.tenant().uuid(),
        session.uuid(),
        after.map(PackId::uuid),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Live packs of the vault that the snapshot at this place of the chain does not need, newest first. A commit
/// may name them like any other; it looks at each again.
pub async fn list_known(
    tx: &mut TenantTx,
    vault: VaultId,
    besides: Option<(domain::WorkloadId, i64)>,
    limit: i64,
) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT p.id, p.vault_id, p.session_id, p.seq, p.kind, p.state, p.sha256, p.md5, p.length, p.object_key,
                  p.granted_lock_until, p.version_id, p.lock_until
           FROM catalog.packs p
           WHERE p.tenant_id = $1 AND p.vault_id = $2 AND p.state = 'live' AND p.kind <> 'manifest'
             AND NOT EXISTS (
               SELECT FROM catalog.snapshot_packs r
               WHERE r.tenant_id = p.tenant_id AND r.pack_id = p.id AND r.workload_id = $3::uuid
                 AND r.first_seq <= $4::bigint AND (r.last_seq IS NULL OR r.last_seq >= $4))
           ORDER BY p.id DESC LIMIT $5"#,
        tx.tenant().uuid(),
        vault.uuid(),
        besides.map(|(workload, _)| workload.uuid()),
        besides.map(|(_, seq)| seq),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

pub async fn insert(
    tx: &mut TenantTx,
    session: &SessionRow,
    pack: &NewPack,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        r#"INSERT INTO catalog.packs (tenant_id, id, vault_id, session_id, seq, kind, state, sha256, md5, length,
                                      object_key, granted_lock_until, grant_expires_at, allocated_at)
           VALUES ($1, $2, $3, $4, $5, $6, 'allocated', $7, $8, $9, $10, $11, $12, $13)"#,
        tx.tenant().uuid(),
        pack.id.uuid(),
        session.vault_id,
        session.id,
        pack.seq.cast_signed(),
        pack.kind.as_str(),
        &pack.sha256,
        pack.md5.as_ref().map(<[u8; 16]>::as_slice),
        pack.length.cast_signed(),
        pack.object_key,
        OffsetDateTime::from(pack.granted_lock_until),
        OffsetDateTime::from(pack.grant_expires_at),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn set_grant_expiry(
    tx: &mut TenantTx,
    ids: &[Uuid],
    expires_at: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.packs SET grant_expires_at = $3
         WHERE tenant_id = $1 AND id = ANY($2) AND state = 'allocated'",
        tx.tenant().uuid(),
        ids,
        OffsetDateTime::from(expires_at),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// B2 ends here: the store itself confirmed the object. False: somebody else moved the row meanwhile.
pub async fn set_uploaded(
    tx: &mut TenantTx,
    id: PackId,
    version_id: &str,
    lock_until: Timestamp,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.packs SET state = 'uploaded', version_id = $3, lock_until = $4, uploaded_at = $5
         WHERE tenant_id = $1 AND id = $2 AND state = 'allocated'",
        tx.tenant().uuid(),
        id.uuid(),
        version_id,
        OffsetDateTime::from(lock_until),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The date until which the store says that it keeps a version of a pack. A repair stores another version, under a
/// lock of its own: what was said of one says nothing of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLock {
    pub pack: PackId,
    pub version: String,
    pub until: Timestamp,
}

/// Records lock dates the store reported after extending. Never lowers one, and leaves rows that have another version
/// by now as they are.
pub async fn set_locks(tx: &mut TenantTx, locks: &[SeenLock]) -> Result<(), pg::Error> {
    let ids: Vec<Uuid> = locks.iter().map(|lock| lock.pack.uuid()).collect();
    let versions: Vec<String> = locks.iter().map(|lock| lock.version.clone()).collect();
    let dates: Vec<OffsetDateTime> = locks.iter().map(|lock| lock.until.into()).collect();
    // In id order, as every writer of several pack rows: no deadlock between two of them.
    sqlx::query!(
        r#"WITH asked AS (SELECT * FROM unnest($2::uuid[], $3::text[], $4::timestamptz[]) AS a (id, version, until)),
                locked AS (SELECT p.id FROM catalog.packs p JOIN asked USING (id)
                           WHERE p.tenant_id = $1 ORDER BY p.id FOR UPDATE OF p)
           UPDATE catalog.packs p SET lock_until = GREATEST(p.lock_until, asked.until)
           FROM asked JOIN locked USING (id)
           WHERE p.tenant_id = $1 AND p.id = asked.id AND p.version_id = asked.version"#,
        tx.tenant().uuid(),
        &ids,
        &versions,
        &dates,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
