//! SQL of a rebuild: what is there already stays as it is, but what was forgotten since is forgotten.

use domain::{EventId, IdGen, PackId, SessionId, SnapshotId, Timestamp, VaultId, WorkloadId};
use pg::TenantTx;
use time::OffsetDateTime;

use crate::{collection::expiry_store, freezes};

use super::plan::{
    KeyRows, Known, PackRow, ReferenceRow, Rows, SessionRow, SnapshotRow, WorkloadRow,
};

/// What a rebuild changed.
#[derive(Debug, Default)]
pub struct Written {
    /// Rows that were not there before, or said otherwise.
    pub rows: u64,
    /// Snapshots that stood here, and that the bucket says were forgotten.
    pub forgotten: Vec<SnapshotId>,
    /// The same, under hold: they stand as before.
    pub held: Vec<SnapshotId>,
}

/// The numbers this vault's rows have. Its workloads stay locked: no commit gives others until the transaction ends.
pub async fn lock_known(tx: &mut TenantTx, vault: VaultId) -> Result<Known, pg::Error> {
    let (tenant, vault) = (tx.tenant().uuid(), vault.uuid());
    let mut known = Known::default();
    let rows = sqlx::query!(
        "SELECT id, last_seq FROM catalog.workloads WHERE tenant_id = $1 AND vault_id = $2 ORDER BY id FOR UPDATE",
        tenant,
        vault,
    );
    for row in rows.fetch_all(tx.conn()).await? {
        known.last_seq.insert(WorkloadId::from_uuid(row.id), row.last_seq);
    }
    let rows = sqlx::query!(
        "SELECT id, seq FROM catalog.snapshots WHERE tenant_id = $1 AND vault_id = $2",
        tenant,
        vault,
    );
    for row in rows.fetch_all(tx.conn()).await? {
        known.snapshots.insert(SnapshotId::from_uuid(row.id), row.seq);
    }
    let rows = sqlx::query!(
        "SELECT id, workload_id, fence FROM catalog.sessions WHERE tenant_id = $1 AND vault_id = $2",
        tenant,
        vault,
    );
    for row in rows.fetch_all(tx.conn()).await? {
        let place = (WorkloadId::from_uuid(row.workload_id), row.fence);
        known.fences.insert(SessionId::from_uuid(row.id), place);
    }
    let rows = sqlx::query!(
        "SELECT id, session_id, seq FROM catalog.packs WHERE tenant_id = $1 AND vault_id = $2",
        tenant,
        vault,
    );
    for row in rows.fetch_all(tx.conn()).await? {
        let place = (SessionId::from_uuid(row.session_id), row.seq);
        known.places.insert(PackId::from_uuid(row.id), place);
    }
    Ok(known)
}

/// Writes every row that is missing, and what was forgotten since the rows that are there.
pub async fn write(
    tx: &mut TenantTx,
    vault: VaultId,
    rows: &Rows,
    ids: &dyn IdGen,
    now: Timestamp,
) -> Result<Written, pg::Error> {
    let (mut written, mut forgotten, mut held) = (0, Vec::new(), Vec::new());
    if let Some(keys) = &rows.keys {
        written += insert_vault(tx, vault, keys, now).await?;
    }
    for row in &rows.workloads {
        written += insert_workload(tx, vault, row).await?;
    }
    for row in &rows.sessions {
        written += insert_session(tx, vault, row).await?;
    }
    for row in &rows.packs {
        written += insert_pack(tx, vault, row, now).await?;
    }
    for row in &rows.snapshots {
        written += insert_snapshot(tx, vault, row).await?;
    }
    for row in &rows.snapshots {
        match set_forgotten(tx, row).await? {
            Last::Said => {}
            Last::Forgotten => forgotten.push(row.id),
            Last::Held => held.push(row.id),
        }
    }
    written += forgotten.len() as u64;
    for row in &rows.receipts {
        written += insert_receipt(tx, row, now).await?;
    }
    for row in &rows.forgets {
        written += insert_forget(tx, row, now).await?;
    }
    for row in &rows.references {
        written += insert_reference(tx, row).await?;
    }
    for row in &rows.workloads {
        advance_workload(tx, row).await?;
    }
    for manifest in &rows.undecided {
        let (id, evidence) = (EventId::fresh(ids, now), manifest.to_string());
        let reason = freezes::Reason::UnconfirmedManifest;
        let frozen = freezes::store::insert_freeze(tx, id, reason, &evidence, now).await?;
        written += u64::from(frozen);
    }
    Ok(Written { rows: written, forgotten, held })
}

/// What the last word of the bucket about a snapshot meant here.
enum Last {
    /// It was known.
    Said,
    Forgotten,
    Held,
}

/// A row from before the forgetting goes the same steps, under its lock. Not one under hold: its packs may be there
/// still, somebody wants them, and that is for people to decide.
async fn set_forgotten(tx: &mut TenantTx, row: &SnapshotRow) -> Result<Last, pg::Error> {
    let Some(at) = row.forgotten_at.map(OffsetDateTime::from) else { return Ok(Last::Said) };
    let (tenant, id) = (tx.tenant().uuid(), row.id.uuid());
    let state = expiry_store::lock_snapshot(tx, row.id).await?.map(|(_, state)| state);
    if state.as_deref() == Some("committed") {
        let expired = sqlx::query!(
            "UPDATE catalog.snapshots s SET state = 'expired', expired_at = $3
             WHERE s.tenant_id = $1 AND s.id = $2 AND s.state = 'committed'
               AND NOT EXISTS (SELECT FROM catalog.snapshot_holds h WHERE h.tenant_id = s.tenant_id
                               AND h.snapshot_id = s.id AND h.released_at IS NULL)",
            tenant,
            id,
            at,
        )
        .execute(tx.conn())
        .await?;
        if expired.rows_affected() == 0 {
            return Ok(Last::Held);
        }
    }
    sqlx::query!(
        "UPDATE catalog.snapshots SET state = 'forgetting', forgotten_at = $3
         WHERE tenant_id = $1 AND id = $2 AND state = 'expired'",
        tenant,
        id,
        at,
    )
    .execute(tx.conn())
    .await?;
    let done = sqlx::query!(
        "UPDATE catalog.snapshots SET state = 'forgotten' WHERE tenant_id = $1 AND id = $2 AND state = 'forgetting'",
        tenant,
        id,
    )
    .execute(tx.conn())
    .await?;
    Ok(if done.rows_affected() == 1 { Last::Forgotten } else { Last::Said })
}

async fn insert_vault(
    tx: &mut TenantTx,
    vault: VaultId,
    keys: &KeyRows,
    now: Timestamp,
) -> Result<u64, pg::Error> {
    let (tenant, now) = (tx.tenant().uuid(), OffsetDateTime::from(now));
    let done = sqlx::query!(
        "INSERT INTO catalog.vaults (tenant_id, id, agent_id, name, key_mode, descriptor, key_epoch, has_kit, created_at,
             descriptor_stored_at)
         VALUES ($1, $2, $3, 'rebuilt', $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        tenant,
        vault.uuid(),
        keys.agent.uuid(),
        keys.key_mode,
        keys.descriptor,
        keys.key_epoch.cast_signed(),
        keys.has_kit,
        OffsetDateTime::from(keys.created_at),
        now,
    )
    .execute(tx.conn())
    .await?;
    let mut written = done.rows_affected();
    for (epoch, kind, recipient, bytes) in &keys.wraps {
        let done = sqlx::query!(
            "INSERT INTO catalog.key_wraps (tenant_id, vault_id, epoch, recipient_kind, recipient_id, wrap, stored_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            tenant,
            vault.uuid(),
            epoch.cast_signed(),
            kind,
            recipient,
            bytes,
            now,
        )
        .execute(tx.conn())
        .await?;
        written += done.rows_affected();
    }
    for (generation, bytes) in &keys.rosters {
        let done = sqlx::query!(
            "INSERT INTO catalog.rosters (tenant_id, vault_id, generation, roster, stored_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            tenant,
            vault.uuid(),
            generation.cast_signed(),
            bytes,
            now,
        )
        .execute(tx.conn())
        .await?;
        written += done.rows_affected();
    }
    Ok(written)
}

async fn insert_workload(
    tx: &mut TenantTx,
    vault: VaultId,
    row: &WorkloadRow,
) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "INSERT INTO catalog.workloads (tenant_id, id, agent_id, vault_id, kind, name, created_at)
         VALUES ($1, $2, $3, $4, 'files', $5, $6) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        row.id.uuid(),
        row.agent.uuid(),
        vault.uuid(),
        row.name,
        OffsetDateTime::from(row.created_at),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Never back: a session opened since has a higher fence.
async fn advance_workload(tx: &mut TenantTx, row: &WorkloadRow) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.workloads SET fence = GREATEST(fence, $3), last_seq = GREATEST(last_seq, $4)
         WHERE tenant_id = $1 AND id = $2",
        tx.tenant().uuid(),
        row.id.uuid(),
        i64::try_from(row.fence).unwrap_or(i64::MAX),
        row.last_seq,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn insert_session(
    tx: &mut TenantTx,
    vault: VaultId,
    row: &SessionRow,
) -> Result<u64, pg::Error> {
    let (state, ended_by) =
        if row.committed { ("committed", None) } else { ("expired", Some("silence")) };
    let done = sqlx::query!(
        "INSERT INTO catalog.sessions (tenant_id, id, vault_id, workload_id, agent_id, run_id, lease_epoch, fence,
             key_epoch, parent_id, state, opened_at, heartbeat_at, heartbeat_served_s, ended_at, ended_by)
         VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9, $10, $11, $11, 0, $11, $12) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        row.id.uuid(),
        vault.uuid(),
        row.workload.uuid(),
        row.agent.uuid(),
        row.run.uuid(),
        row.fence,
        row.key_epoch.cast_signed(),
        row.parent.map(domain::SnapshotId::uuid),
        state,
        OffsetDateTime::from(row.at),
        ended_by,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

async fn insert_pack(
    tx: &mut TenantTx,
    vault: VaultId,
    row: &PackRow,
    now: Timestamp,
) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "INSERT INTO catalog.packs (tenant_id, id, vault_id, session_id, seq, kind, state, sha256, md5, length,
             object_key, granted_lock_until, grant_expires_at, version_id, lock_until, allocated_at, uploaded_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $12, $13, $13) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        row.id.uuid(),
        vault.uuid(),
        row.session.uuid(),
        row.seq,
        row.kind,
        row.state,
        &row.sha256.0,
        row.md5.as_ref().map(<[u8; 16]>::as_slice),
        row.length.cast_signed(),
        row.key,
        OffsetDateTime::from(row.lock_until),
        OffsetDateTime::from(now),
        row.version_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

async fn insert_snapshot(
    tx: &mut TenantTx,
    vault: VaultId,
    row: &SnapshotRow,
) -> Result<u64, pg::Error> {
    let status = if row.exceptions == 0 { "succeeded" } else { "succeeded_with_exceptions" };
    let done = sqlx::query!(
        "INSERT INTO catalog.snapshots (tenant_id, id, vault_id, workload_id, agent_id, run_id, session_id, seq,
             parent_id, manifest_id, state, committed_at, expired_at, forgotten_at, status, paths, tags, files, directories,
             others, source_bytes, new_bytes, stored_bytes, exceptions, duration_ms, slots, protect_until, locked_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $14, $15, $16, $17, $18, $19, $20, 0, $21,
             $22, 0, '{}', $23, $24) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        row.id.uuid(),
        vault.uuid(),
        row.workload.uuid(),
        row.agent.uuid(),
        row.run.uuid(),
        row.session.uuid(),
        row.seq,
        row.parent.map(domain::SnapshotId::uuid),
        row.manifest.uuid(),
        row.state,
        OffsetDateTime::from(row.committed_at),
        row.forgotten_at.map(OffsetDateTime::from),
        status,
        &row.paths,
        serde_json::to_value(&row.tags).unwrap_or_default(),
        row.files.cast_signed(),
        row.directories.cast_signed(),
        row.others.cast_signed(),
        row.source_bytes.cast_signed(),
        row.stored_bytes.cast_signed(),
        row.exceptions.cast_signed(),
        OffsetDateTime::from(row.protect_until),
        OffsetDateTime::from(row.locked_until),
    )
    .execute(tx.conn())
    .await?;
    let manifest = sqlx::query!(
        "INSERT INTO catalog.manifests (tenant_id, pack_id, snapshot_id, key_epoch, full_list, packs, set_hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        row.manifest.uuid(),
        row.id.uuid(),
        row.key_epoch.cast_signed(),
        row.full_list,
        row.packs.cast_signed(),
        &row.set_hash.0,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() + manifest.rows_affected())
}

async fn insert_receipt(
    tx: &mut TenantTx,
    row: &super::gather::ProofFacts,
    now: Timestamp,
) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "INSERT INTO catalog.receipts (tenant_id, snapshot_id, receipt, object_key, lock_until, version_id, stored_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        row.snapshot.uuid(),
        row.bytes,
        row.key,
        OffsetDateTime::from(row.lock_until),
        row.version_id,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Of what is forgotten here too: one that stands gets a record of its own when it goes.
async fn insert_forget(
    tx: &mut TenantTx,
    row: &super::gather::ProofFacts,
    now: Timestamp,
) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "INSERT INTO catalog.forgets (tenant_id, snapshot_id, record, object_key, lock_until, version_id, stored_at)
         SELECT $1, $2, $3, $4, $5, $6, $7
         WHERE EXISTS (SELECT FROM catalog.snapshots WHERE tenant_id = $1 AND id = $2 AND state = 'forgotten')
         ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        row.snapshot.uuid(),
        row.bytes,
        row.key,
        OffsetDateTime::from(row.lock_until),
        row.version_id,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// A chain that has grown since keeps its own intervals.
async fn insert_reference(tx: &mut TenantTx, row: &ReferenceRow) -> Result<u64, pg::Error> {
    let done = sqlx::query!(
        "INSERT INTO catalog.snapshot_packs (tenant_id, workload_id, pack_id, first_seq, last_seq)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        row.workload.uuid(),
        row.pack.uuid(),
        row.first_seq,
        row.last_seq,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
