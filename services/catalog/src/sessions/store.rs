//! SQL of sessions: opening, heartbeat, ending.

use domain::{AgentId, RunId, SessionId, SnapshotId, Timestamp, VaultId, WorkloadId};
use pg::TenantTx;
use time::OffsetDateTime;
use uuid::Uuid;

/// One row, as the database has it.
#[derive(Debug, Clone)]
pub struct SessionRow {
    pub id: Uuid,
    pub vault_id: Uuid,
    pub workload_id: Uuid,
    pub agent_id: Uuid,
    pub run_id: Uuid,
    pub fence: i64,
    pub key_epoch: i32,
    pub parent_id: Option<Uuid>,
    pub state: String,
    pub ended_by: Option<String>,
}

impl SessionRow {
    pub const fn id(&self) -> SessionId {
        SessionId::from_uuid(self.id)
    }
    pub const fn vault(&self) -> VaultId {
        VaultId::from_uuid(self.vault_id)
    }
    pub const fn workload(&self) -> WorkloadId {
        WorkloadId::from_uuid(self.workload_id)
    }
    pub const fn agent(&self) -> AgentId {
        AgentId::from_uuid(self.agent_id)
    }
    pub const fn run(&self) -> RunId {
        RunId::from_uuid(self.run_id)
    }
    pub fn parent(&self) -> Option<SnapshotId> {
        self.parent_id.map(SnapshotId::from_uuid)
    }
}

/// What B0 writes.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub id: SessionId,
    pub vault: VaultId,
    pub workload: WorkloadId,
    pub agent: AgentId,
    pub run: RunId,
    pub lease_epoch: u64,
    pub fence: i64,
    pub key_epoch: i32,
    pub parent: Option<SnapshotId>,
}

/// The session, if it is this agent's.
pub async fn find(
    tx: &mut TenantTx,
    agent: AgentId,
    id: SessionId,
) -> Result<Option<SessionRow>, pg::Error> {
    Ok(sqlx::query_as!(
        SessionRow,
        "SELECT id, vault_id, workload_id, agent_id, run_id, fence, key_epoch, parent_id, state, ended_by
         FROM catalog.sessions WHERE tenant_id = $1 AND id = $2 AND agent_id = $3",
        tx.tenant().uuid(),
        id.uuid(),
        agent.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// The session with its row locked. Lock the workload first: opening a session takes them in that order.
pub async fn lock(tx: &mut TenantTx, id: SessionId) -> Result<Option<SessionRow>, pg::Error> {
    Ok(sqlx::query_as!(
        SessionRow,
        "SELECT id, vault_id, workload_id, agent_id, run_id, fence, key_epoch, parent_id, state, ended_by
         FROM catalog.sessions WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
        tx.tenant().uuid(),
        id.uuid(),
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// The highest lease epoch any session of the workload was opened with.
pub async fn highest_lease_epoch(
    tx: &mut TenantTx,
    workload: WorkloadId,
) -> Result<Option<i64>, pg::Error> {
    Ok(sqlx::query_scalar!(
        "SELECT max(lease_epoch) FROM catalog.sessions WHERE tenant_id = $1 AND workload_id = $2",
        tx.tenant().uuid(),
        workload.uuid(),
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Ends the workload's open session because a newer one takes over.
pub async fn end_open(
    tx: &mut TenantTx,
    workload: WorkloadId,
    now: Timestamp,
) -> Result<(), pg::Error> {
    sqlx::query!(
        "UPDATE catalog.sessions SET state = 'aborted', ended_at = $3, ended_by = 'taken_over'
         WHERE tenant_id = $1 AND workload_id = $2 AND state = 'open'",
        tx.tenant().uuid(),
        workload.uuid(),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub async fn insert(tx: &mut TenantTx, new: &NewSession, now: Timestamp) -> Result<(), pg::Error> {
    sqlx::query!(
        "INSERT INTO catalog.sessions (tenant_id, id, vault_id, workload_id, agent_id, run_id, lease_epoch, fence,
                                       key_epoch, parent_id, state, opened_at, heartbeat_at, heartbeat_served_s)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'open', $11, $11, served_s FROM catalog.serving",
        tx.tenant().uuid(),
        new.id.uuid(),
        new.vault.uuid(),
        new.workload.uuid(),
        new.agent.uuid(),
        new.run.uuid(),
        new.lease_epoch.cast_signed(),
        new.fence,
        new.key_epoch,
        new.parent.map(SnapshotId::uuid),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// False: the session is not open any more.
pub async fn set_heartbeat(
    tx: &mut TenantTx,
    id: SessionId,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    let done = sqlx::query!(
        "UPDATE catalog.sessions s SET heartbeat_at = $3, heartbeat_served_s = v.served_s FROM catalog.serving v
         WHERE s.tenant_id = $1 AND s.id = $2 AND s.state = 'open'",
        tx.tenant().uuid(),
        id.uuid(),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends an open session. False: it had ended already.
pub async fn set_ended(
    tx: &mut TenantTx,
    id: SessionId,
    end: End,
    now: Timestamp,
) -> Result<bool, pg::Error> {
    let (state, by) = match end {
        End::Committed => ("committed", None),
        End::AbortedByAgent => ("aborted", Some("agent")),
    };
    let done = sqlx::query!(
        "UPDATE catalog.sessions SET state = $3, ended_by = $4, ended_at = $5
         WHERE tenant_id = $1 AND id = $2 AND state = 'open'",
        tx.tenant().uuid(),
        id.uuid(),
        state,
        by,
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How a session ends in a request (the reconciler ends the others).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Committed,
    AbortedByAgent,
}
