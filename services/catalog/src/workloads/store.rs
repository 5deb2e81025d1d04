//! SQL of workloads.

use domain::{AgentId, Timestamp, VaultId, WorkloadId};
use pg::TenantTx;
use time::OffsetDateTime;
use uuid::Uuid;

/// One row, with its newest snapshot.
#[derive(Debug, Clone)]
pub struct WorkloadRow {
    pub id: Uuid,
    pub agent_id: Uuid,
    pub vault_id: Uuid,
    pub kind: String,
    pub name: String,
    pub created_at: OffsetDateTime,
    pub snapshots: i64,
    pub last_snapshot_id: Option<Uuid>,
    pub last_snapshot_at: Option<OffsetDateTime>,
}

pub async fn list(
    tx: &mut TenantTx,
    agent: Option<AgentId>,
    only: Option<WorkloadId>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<WorkloadRow>, pg::Error> {
    Ok(sqlx::query_as!(
        WorkloadRow,
        r#"SELECT w.id, w.agent_id, w.vault_id, w.kind, w.name, w.created_at,
                  (SELECT count(*) FROM catalog.snapshots c WHERE c.tenant_id = w.tenant_id AND c.workload_id = w.id
                    AND c.state = 'committed') AS "snapshots!",
                  n.id AS "last_snapshot_id?", n.committed_at AS "last_snapshot_at?"
           FROM catalog.workloads w
           LEFT JOIN LATERAL (SELECT s.id, s.committed_at FROM catalog.snapshots s
                WHERE s.tenant_id = w.tenant_id AND s.workload_id = w.id AND s.state = 'committed'
                ORDER BY s.committed_at DESC, s.id DESC LIMIT 1) n ON true
           WHERE w.tenant_id = $1 AND ($2::uuid IS NULL OR w.agent_id = $2) AND ($3::uuid IS NULL OR w.id = $3)
             AND ($4::uuid IS NULL OR w.id > $4)
           ORDER BY w.id LIMIT $5"#,
        tx.tenant().uuid(),
        agent.map(AgentId::uuid),
        only.map(WorkloadId::uuid),
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// False: there is one of this id already.
pub async fn insert(
    tx: &mut TenantTx,
    new: &api::catalog::CreateWorkload,
    agent: AgentId,
    vault: VaultId,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "INSERT INTO catalog.workloads (tenant_id, id, agent_id, vault_id, kind, name, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        tx.tenant().uuid(),
        new.id.uuid(),
        agent.uuid(),
        vault.uuid(),
        new.kind,
        new.name,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whose a workload is, and where it lives.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    pub agent_id: Uuid,
    pub vault_id: Uuid,
}

pub async fn find_owner(tx: &mut TenantTx, id: WorkloadId) -> Result<Option<Owner>, pg::Error> {
    Ok(sqlx::query_as!(
        Owner,
        "SELECT agent_id, vault_id FROM catalog.workloads WHERE tenant_id = $1 AND id = $2",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// Raises the fence of this agent's workload; the row stays locked. `None`: it is not this agent's.
pub async fn raise_fence(
    tx: &mut TenantTx,
    id: WorkloadId,
    agent: AgentId,
) -> Result<Option<(i64, VaultId)>, pg::Error> {
    let row = sqlx::query!(
        "UPDATE catalog.workloads SET fence = fence + 1 WHERE tenant_id = $1 AND id = $2 AND agent_id = $3
         RETURNING fence, vault_id",
        tx.tenant().uuid(),
        id.uuid(),
        agent.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| (row.fence, VaultId::from_uuid(row.vault_id))))
}
