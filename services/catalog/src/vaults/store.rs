//! SQL of vaults, wraps and rosters.

use domain::{AgentId, TenantId, Timestamp, VaultId};
use pg::{SystemTx, TenantTx};
use time::OffsetDateTime;
use uuid::Uuid;

/// One row, with what its packs add up to.
#[derive(Debug, Clone)]
pub struct VaultRow {
    pub id: Uuid,
    pub agent_id: Uuid,
    pub name: String,
    pub key_mode: String,
    pub has_kit: bool,
    pub created_at: OffsetDateTime,
    pub packs: i64,
    pub stored_bytes: i64,
}

/// The parts a use case decides with.
#[derive(Debug, Clone)]
pub struct VaultCore {
    pub agent_id: Uuid,
    pub key_mode: String,
    pub key_epoch: i32,
    pub damage_epoch: i64,
    pub descriptor: Vec<u8>,
    pub descriptor_stored_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone)]
pub struct WrapRow {
    pub epoch: i32,
    pub recipient_kind: String,
    pub recipient_id: String,
    pub wrap: Vec<u8>,
    pub stored_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone)]
pub struct RosterRow {
    pub generation: i64,
    pub roster: Vec<u8>,
    pub stored_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone)]
pub struct NewVault<'a> {
    pub id: VaultId,
    pub agent: AgentId,
    pub name: &'a str,
    pub key_mode: &'a str,
    pub descriptor: &'a [u8],
    pub key_epoch: u32,
    pub has_kit: bool,
}

pub async fn list(
    tx: &mut TenantTx,
    agent: Option<AgentId>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<VaultRow>, pg::Error> {
    Ok(sqlx::query_as!(
        VaultRow,
        r#"SELECT v.id, v.agent_id, v.name, v.key_mode, v.has_kit, v.created_at,
                  COALESCE(p.packs, 0) AS "packs!", COALESCE(p.bytes, 0)::bigint AS "stored_bytes!"
           FROM catalog.vaults v
           LEFT JOIN LATERAL (SELECT count(*) AS packs, sum(length) AS bytes FROM catalog.packs
                WHERE tenant_id = v.tenant_id AND vault_id = v.id
                  AND state IN ('uploaded', 'live', 'condemned', 'deleting', 'retained')) p ON true
           WHERE v.tenant_id = $1 AND ($2::uuid IS NULL OR v.agent_id = $2) AND ($3::uuid IS NULL OR v.id > $3)
           ORDER BY v.id LIMIT $4"#,
        tx.tenant().uuid(),
        agent.map(AgentId::uuid),
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

pub async fn find(
    tx: &mut TenantTx,
    id: VaultId,
    agent: Option<AgentId>,
) -> Result<Option<VaultRow>, pg::Error> {
    Ok(sqlx::query_as!(
        VaultRow,
        r#"SELECT v.id, v.agent_id, v.name, v.key_mode, v.has_kit, v.created_at,
                  COALESCE(p.packs, 0) AS "packs!", COALESCE(p.bytes, 0)::bigint AS "stored_bytes!"
           FROM catalog.vaults v
           LEFT JOIN LATERAL (SELECT count(*) AS packs, sum(length) AS bytes FROM catalog.packs
                WHERE tenant_id = v.tenant_id AND vault_id = v.id
                  AND state IN ('uploaded', 'live', 'condemned', 'deleting', 'retained')) p ON true
           WHERE v.tenant_id = $1 AND v.id = $2 AND ($3::uuid IS NULL OR v.agent_id = $3)"#,
        tx.tenant().uuid(),
        id.uuid(),
        agent.map(AgentId::uuid),
    )
    .fetch_optional(tx.conn())
    .await?)
}

pub async fn find_core(tx: &mut TenantTx, id: VaultId) -> Result<Option<VaultCore>, pg::Error> {
    Ok(sqlx::query_as!(
        VaultCore,
        "SELECT agent_id, key_mode, key_epoch, damage_epoch, descriptor, descriptor_stored_at
         FROM catalog.vaults WHERE tenant_id = $1 AND id = $2",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

pub async fn list_wraps(tx: &mut TenantTx, id: VaultId) -> Result<Vec<WrapRow>, pg::Error> {
    Ok(sqlx::query_as!(
        WrapRow,
        "SELECT epoch, recipient_kind, recipient_id, wrap, stored_at FROM catalog.key_wraps
         WHERE tenant_id = $1 AND vault_id = $2 ORDER BY epoch, recipient_kind, recipient_id",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_all(tx.conn())
    .await?)
}

pub async fn find_newest_roster(
    tx: &mut TenantTx,
    id: VaultId,
) -> Result<Option<RosterRow>, pg::Error> {
    Ok(sqlx::query_as!(
        RosterRow,
        "SELECT generation, roster, stored_at FROM catalog.rosters
         WHERE tenant_id = $1 AND vault_id = $2 ORDER BY generation DESC LIMIT 1",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// False: there is one of this id already.
pub async fn insert(
    tx: &mut TenantTx,
    new: &NewVault<'_>,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "INSERT INTO catalog.vaults (tenant_id, id, agent_id, name, key_mode, descriptor, key_epoch, has_kit, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        new.id.uuid(),
        new.agent.uuid(),
        new.name,
        new.key_mode,
        new.descriptor,
        new.key_epoch.cast_signed(),
        new.has_kit,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn insert_wrap(
    tx: &mut TenantTx,
    vault: VaultId,
    epoch: u32,
    kind: &str,
    recipient: &str,
    wrap: &[u8],
) -> Result<(), pg::Error> {
    sqlx::query!(
        "INSERT INTO catalog.key_wraps (tenant_id, vault_id, epoch, recipient_kind, recipient_id, wrap)
         VALUES ($1, $2, $3, $4, $5, $6)",
        tx.tenant().uuid(),
        vault.uuid(),
        epoch.cast_signed(),
        kind,
        recipient,
        wrap,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn insert_roster(
    tx: &mut TenantTx,
    vault: VaultId,
    generation: u64,
    roster: &[u8],
) -> Result<(), pg::Error> {
    sqlx::query!(
        "INSERT INTO catalog.rosters (tenant_id, vault_id, generation, roster) VALUES ($1, $2, $3, $4)",
        tx.tenant().uuid(),
        vault.uuid(),
        generation.cast_signed(),
        roster,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A copy in the key store exists.
pub async fn set_descriptor_stored(
    tx: &mut TenantTx,
    vault: VaultId,
    now: Timestamp,
) -> Result<(), pg::Error> {
    let (tenant, now) = (tx.tenant().uuid(), OffsetDateTime::from(now));
    sqlx::query!(
        "UPDATE catalog.vaults SET descriptor_stored_at = $3
         WHERE tenant_id = $1 AND id = $2 AND descriptor_stored_at IS NULL",
        tenant,
        vault.uuid(),
        now,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn set_wrap_stored(
    tx: &mut TenantTx,
    vault: VaultId,
    wrap: &WrapRow,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.key_wraps SET stored_at = $6 WHERE tenant_id = $1 AND vault_id = $2 AND epoch = $3
           AND recipient_kind = $4 AND recipient_id = $5 AND stored_at IS NULL",
        tx.tenant().uuid(),
        vault.uuid(),
        wrap.epoch,
        wrap.recipient_kind,
        wrap.recipient_id,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn set_roster_stored(
    tx: &mut TenantTx,
    vault: VaultId,
    generation: i64,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.rosters SET stored_at = $4
         WHERE tenant_id = $1 AND vault_id = $2 AND generation = $3 AND stored_at IS NULL",
        tx.tenant().uuid(),
        vault.uuid(),
        generation,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Vaults of any tenant whose key objects are not all in the key store.
pub async fn list_unstored(tx: &mut SystemTx) -> Result<Vec<(TenantId, VaultId)>, pg::Error> {
    let rows = sqlx::query!(
        r#"SELECT tenant_id AS "tenant_id!", id AS "id!" FROM catalog.vaults WHERE descriptor_stored_at IS NULL
           UNION SELECT tenant_id, vault_id FROM catalog.key_wraps WHERE stored_at IS NULL
           UNION SELECT tenant_id, vault_id FROM catalog.rosters WHERE stored_at IS NULL
           LIMIT 100"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| (TenantId::from_uuid(r.tenant_id), VaultId::from_uuid(r.id)))
        .collect())
}
