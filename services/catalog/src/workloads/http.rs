//! Routes of workloads.

use std::sync::Arc;

use api::{
    catalog::Workload,
    page::{Page, PageQuery},
    problem::Code,
};
use authz::{Scope, ScopeReason, actions::WorkloadRead};
use axum::{extract::State, routing};
use domain::{TenantId, WorkloadId};
use runtime::{Caller, Json, Path, Permit, Query, Reply, RoleName};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Catalog;

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// What other roles ask.
pub fn internal(app: Arc<Catalog>) -> axum::Router {
    let path = "/internal/v1/catalog/tenants/{tenant_id}/workloads/{workload_id}";
    axum::Router::new().route(path, routing::get(find)).with_state(app)
}

/// The scheduler asks before the first run of a workload.
async fn find(
    State(app): State<Arc<Catalog>>,
    Caller(caller): Caller,
    path: Path<(TenantId, WorkloadId)>,
) -> Reply<Json<Workload>> {
    if caller != RoleName::Scheduler {
        return Err(Code::Forbidden.into());
    }
    let Path((tenant, id)) = path;
    let scope = Scope::without_permit(tenant, ScopeReason::ServiceCall);
    Ok(Json(super::find(&app, scope, None, id).await?))
}

/// Lists workloads; an agent sees its own.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/workloads",
    operation_id = "list_workloads",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), PageQuery),
    responses((status = 200, description = "A page of workloads", body = Page<Workload>))
)]
async fn list(
    State(app): State<Arc<Catalog>>,
    permit: Permit<WorkloadRead>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<Page<Workload>>> {
    Ok(Json(super::list(&app, permit.proof(), &query).await?))
}

/// One workload.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/workloads/{workload_id}",
    operation_id = "get_workload",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("workload_id" = WorkloadId, Path, description = "The workload")),
    responses((status = 200, description = "The workload", body = Workload))
)]
async fn get(
    State(app): State<Arc<Catalog>>,
    permit: Permit<WorkloadRead>,
    path: Path<(TenantId, WorkloadId)>,
) -> Reply<Json<Workload>> {
    let Path((_, id)) = path;
    Ok(Json(super::get(&app, permit.proof(), id).await?))
}
