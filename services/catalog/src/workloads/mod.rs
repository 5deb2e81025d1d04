//! Workloads: the protected things, each with its vault and its newest snapshot.

pub mod http;
pub mod store;

use api::{
    catalog::Workload,
    page::{Page, PageQuery},
};
use authz::{Permit, Scope, actions::WorkloadRead};
use domain::{AgentId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId};
use pg::TenantTx;

use crate::{
    error::Error,
    snapshots::{bad_cursor, cursor, read_cursor},
    state::Catalog,
};
use store::WorkloadRow;

fn into_dto(tenant: TenantId, row: WorkloadRow) -> Workload {
    Workload {
        id: WorkloadId::from_uuid(row.id),
        tenant_id: tenant,
        kind: row.kind,
        name: row.name,
        agent_id: AgentId::from_uuid(row.agent_id),
        vault_id: VaultId::from_uuid(row.vault_id),
        created_at: row.created_at.into(),
        last_snapshot_at: row.last_snapshot_at.map(Timestamp::from),
        last_snapshot_id: row.last_snapshot_id.map(SnapshotId::from_uuid),
        snapshots: row.snapshots.unsigned_abs(),
    }
}

/// The tenant's workloads; an agent sees its own.
///
/// # Errors
/// `validation` for a bad cursor.
pub async fn list(
    app: &Catalog,
    permit: &Permit<WorkloadRead>,
    query: &PageQuery,
) -> Result<Page<Workload>, Error> {
    let limit = query.limit();
    let parse = |text: &str| read_cursor(text)?.parse::<WorkloadId>().map_err(|_| bad_cursor());
    let after = query.cursor.as_deref().map(parse).transpose()?.map(WorkloadId::uuid);
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let agent = permit.actor().agent_id();
    let mut rows = store::list(&mut tx, agent, None, after, i64::from(limit) + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let last = rows.last().filter(|_| more).map(|row| WorkloadId::from_uuid(row.id));
    let next_cursor = last.map(|id| cursor(&id.to_string()));
    let items = rows.into_iter().map(|row| into_dto(permit.tenant(), row)).collect();
    Ok(Page { items, next_cursor })
}

/// # Errors
/// `not_found`.
pub async fn get(
    app: &Catalog,
    permit: &Permit<WorkloadRead>,
    id: WorkloadId,
) -> Result<Workload, Error> {
    find(app, permit.scope(), permit.actor().agent_id(), id).await
}

/// The workload; of this agent only, when one asks.
///
/// # Errors
/// `not_found`.
pub async fn find(
    app: &Catalog,
    scope: Scope,
    agent: Option<AgentId>,
    id: WorkloadId,
) -> Result<Workload, Error> {
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let rows = store::list(&mut tx, agent, Some(id), None, 1).await?;
    let row = rows.into_iter().next().ok_or_else(Error::not_found)?;
    Ok(into_dto(scope.tenant(), row))
}
