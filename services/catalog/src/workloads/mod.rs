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
    paging::{self, after},
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
    let after = after(query.cursor.as_deref())?.map(WorkloadId::uuid);
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let agent = permit.actor().agent_id();
    let rows = store::list(&mut tx, agent, None, after, i64::from(limit) + 1).await?;
    let page = paging::page(rows, limit, |row| WorkloadId::from_uuid(row.id).to_string());
    Ok(page.map(|row| into_dto(permit.tenant(), row)))
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
