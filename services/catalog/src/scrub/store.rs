//! SQL of scrubs.

use domain::VaultId;
use pg::TenantTx;
use uuid::Uuid;

use crate::packs::store::PackRow;

/// Every object of the vault that the store should have.
pub async fn list_scrubbable(tx: &mut TenantTx, vault: VaultId) -> Result<Vec<PackRow>, pg::Error> {
    Ok(sqlx::query_as!(
        PackRow,
        r#"SELECT id, vault_id, session_id, seq, kind, state, sha256, md5, length, object_key, granted_lock_until,
                  version_id, lock_until
           FROM catalog.packs
           WHERE tenant_id = $1 AND vault_id = $2 AND state IN ('uploaded', 'live', 'condemned', 'retained')
           ORDER BY id"#,
        tx.tenant().uuid(),
        vault.uuid(),
    )
    .fetch_all(tx.conn())
    .await?)
}

/// A snapshot that needs a pack.
#[derive(Debug, Clone, Copy)]
pub struct UserRow {
    pub pack_id: Uuid,
    pub snapshot_id: Uuid,
}

/// Committed snapshots that need any of the packs.
pub async fn list_users(tx: &mut TenantTx, packs: &[Uuid]) -> Result<Vec<UserRow>, pg::Error> {
    Ok(sqlx::query_as!(
        UserRow,
        "SELECT r.pack_id, s.id AS snapshot_id
         FROM catalog.snapshot_packs r
         JOIN catalog.snapshots s ON s.tenant_id = r.tenant_id AND s.workload_id = r.workload_id
              AND s.seq >= r.first_seq AND (r.last_seq IS NULL OR s.seq <= r.last_seq) AND s.state = 'committed'
         WHERE r.tenant_id = $1 AND r.pack_id = ANY($2)
         ORDER BY r.pack_id, s.committed_at, s.id",
        tx.tenant().uuid(),
        packs,
    )
    .fetch_all(tx.conn())
    .await?)
}
