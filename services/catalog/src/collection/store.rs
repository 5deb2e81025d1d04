//! SQL of collection. Each step locks the pack rows first and looks for references in a second statement:
//! a reference committed before the lock was granted is then seen, and none can be committed after it.

use domain::{PackId, Timestamp, VaultId};
use pg::TenantTx;
use time::OffsetDateTime;
use uuid::Uuid;

/// Rows of packs nothing seems to need any more, locked; those in use must not fill the batch. Rows somebody else
/// holds are left for the next time.
pub async fn lock_condemnable(
    tx: &mut TenantTx,
    vault: VaultId,
    limit: i64,
) -> Result<Vec<Uuid>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM catalog.packs p WHERE tenant_id = $1 AND vault_id = $2 AND state IN ('uploaded', 'live')
           AND NOT EXISTS (SELECT FROM catalog.pack_needs n WHERE n.tenant_id = p.tenant_id AND n.pack_id = p.id)
           AND (p.state = 'live'
                OR NOT EXISTS (SELECT FROM catalog.pack_sessions o WHERE o.tenant_id = p.tenant_id AND o.pack_id = p.id))
         ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED",
        tx.tenant().uuid(),
        vault.uuid(),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Condemns those of the locked rows that nothing needs. Gives them.
pub async fn set_condemned(
    tx: &mut TenantTx,
    ids: &[Uuid],
    now: Timestamp,
) -> Result<Vec<Uuid>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "UPDATE catalog.packs p SET state = 'condemned', condemned_at = $3
         WHERE p.tenant_id = $1 AND p.id = ANY($2) AND p.state IN ('uploaded', 'live')
           AND NOT EXISTS (SELECT FROM catalog.pack_needs n WHERE n.tenant_id = p.tenant_id AND n.pack_id = p.id)
           AND (p.state = 'live'
                OR NOT EXISTS (SELECT FROM catalog.pack_sessions o WHERE o.tenant_id = p.tenant_id AND o.pack_id = p.id))
         RETURNING p.id",
        tx.tenant().uuid(),
        ids,
        OffsetDateTime::from(now),
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Condemned rows whose grace and lock are over, locked.
pub async fn lock_deletable(
    tx: &mut TenantTx,
    vault: VaultId,
    condemned_before: Timestamp,
    unlocked_before: Timestamp,
    limit: i64,
) -> Result<Vec<Uuid>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM catalog.packs WHERE tenant_id = $1 AND vault_id = $2 AND state IN ('condemned', 'retained')
           AND condemned_at < $3 AND lock_until < $4
         ORDER BY id LIMIT $5 FOR UPDATE SKIP LOCKED",
        tx.tenant().uuid(),
        vault.uuid(),
        OffsetDateTime::from(condemned_before),
        OffsetDateTime::from(unlocked_before),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Rows whose deletion began before `before` and was never recorded as done, locked: the reaper stopped in between.
pub async fn lock_unfinished(
    tx: &mut TenantTx,
    vault: VaultId,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<Uuid>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM catalog.packs WHERE tenant_id = $1 AND vault_id = $2 AND state = 'deleting' AND deleting_at < $3
         ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED",
        tx.tenant().uuid(),
        vault.uuid(),
        OffsetDateTime::from(before),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Of the locked rows, those that nothing needs and that no session still open has known alive: from here on no
/// commit can name them. Gives them.
pub async fn set_deleting(
    tx: &mut TenantTx,
    ids: &[Uuid],
    now: Timestamp,
) -> Result<Vec<Uuid>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "UPDATE catalog.packs p SET state = 'deleting', deleting_at = $3
         WHERE p.tenant_id = $1 AND p.id = ANY($2) AND p.state IN ('condemned', 'retained', 'deleting')
           AND NOT EXISTS (SELECT FROM catalog.pack_needs n WHERE n.tenant_id = p.tenant_id AND n.pack_id = p.id)
           AND NOT EXISTS (SELECT FROM catalog.pack_sessions o WHERE o.tenant_id = p.tenant_id AND o.pack_id = p.id)
         RETURNING p.id",
        tx.tenant().uuid(),
        ids,
        OffsetDateTime::from(now),
    )
    .fetch_all(tx.conn())
    .await?)
}

/// What a warrant is made from, read under the row locks of the same transaction.
#[derive(Debug, Clone)]
pub struct ProofRow {
    pub id: Uuid,
    pub state: String,
    pub object_key: String,
    pub version_id: Option<String>,
    pub lock_until: Option<OffsetDateTime>,
    pub condemned_at: Option<OffsetDateTime>,
    pub live_references: i64,
    pub older_sessions: i64,
}

pub async fn list_proofs(tx: &mut TenantTx, ids: &[Uuid]) -> Result<Vec<ProofRow>, pg::Error> {
    Ok(sqlx::query_as!(
        ProofRow,
        r#"SELECT p.id, p.state, p.object_key, p.version_id, p.lock_until, p.condemned_at,
                  (SELECT count(*) FROM catalog.pack_needs n
                   WHERE n.tenant_id = p.tenant_id AND n.pack_id = p.id) AS "live_references!",
                  (SELECT count(*) FROM catalog.pack_sessions o
                   WHERE o.tenant_id = p.tenant_id AND o.pack_id = p.id) AS "older_sessions!"
           FROM catalog.packs p WHERE p.tenant_id = $1 AND p.id = ANY($2) ORDER BY p.id"#,
        tx.tenant().uuid(),
        ids,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// The store confirmed that the version is gone.
pub async fn set_deleted(tx: &mut TenantTx, id: PackId, now: Timestamp) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.packs SET state = 'deleted', deleted_at = $3
         WHERE tenant_id = $1 AND id = $2 AND state = 'deleting'",
        tx.tenant().uuid(),
        id.uuid(),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// The store refused: the lock is longer than we thought.
pub async fn set_retained(
    tx: &mut TenantTx,
    id: PackId,
    until: Timestamp,
) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.packs SET state = 'retained', lock_until = GREATEST(lock_until, $3)
         WHERE tenant_id = $1 AND id = $2 AND state = 'deleting'",
        tx.tenant().uuid(),
        id.uuid(),
        OffsetDateTime::from(until),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Declares packs lost and raises the vault's damage epoch; of a pack with a version beside it only that version. Gives
/// those that are lost now. The vault's row first, as a commit does.
pub async fn set_lost(
    tx: &mut TenantTx,
    vault: VaultId,
    lost: &[(PackId, Option<String>)],
) -> Result<Vec<PackId>, pg::Error> {
    let ids: Vec<Uuid> = lost.iter().map(|(id, _)| id.uuid()).collect();
    let versions: Vec<Option<String>> = lost.iter().map(|(_, version)| version.clone()).collect();
    sqlx::query!(
        "UPDATE catalog.vaults SET damage_epoch = damage_epoch + 1 WHERE tenant_id = $1 AND id = $2",
        tx.tenant().uuid(),
        vault.uuid(),
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "SELECT id FROM catalog.packs WHERE tenant_id = $1 AND vault_id = $2 AND id = ANY($3) ORDER BY id FOR UPDATE",
        tx.tenant().uuid(),
        vault.uuid(),
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    let done = sqlx::query_scalar!(
        "UPDATE catalog.packs p SET state = 'lost' FROM unnest($3::uuid[], $4::text[]) AS l (id, version)
         WHERE p.tenant_id = $1 AND p.vault_id = $2 AND p.id = l.id AND (l.version IS NULL OR p.version_id = l.version)
           AND p.state IN ('uploaded', 'live', 'condemned') RETURNING p.id",
        tx.tenant().uuid(),
        vault.uuid(),
        &ids,
        &versions as &[Option<String>],
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(done.into_iter().map(PackId::from_uuid).collect())
}

/// A pack the store did not give up.
#[derive(Debug, Clone)]
pub struct RetainedRow {
    pub id: Uuid,
    pub kind: String,
    pub length: i64,
    pub object_key: String,
    pub lock_until: Option<OffsetDateTime>,
    pub condemned_at: Option<OffsetDateTime>,
}

/// Retained packs of a vault in id order from `after` on, with the date they are tried again at.
pub async fn list_retained(
    tx: &mut TenantTx,
    vault: VaultId,
    after: Option<PackId>,
    limit: i64,
) -> Result<Vec<RetainedRow>, pg::Error> {
    Ok(sqlx::query_as!(
        RetainedRow,
        "SELECT id, kind, length, object_key, lock_until, condemned_at FROM catalog.packs
         WHERE tenant_id = $1 AND vault_id = $2 AND state = 'retained' AND ($3::uuid IS NULL OR id > $3)
         ORDER BY id LIMIT $4",
        tx.tenant().uuid(),
        vault.uuid(),
        after.map(PackId::uuid),
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}
