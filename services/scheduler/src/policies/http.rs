//! Routes of policies and of how workloads stand with them.

use std::sync::Arc;

use api::{
    page::{Page, PageQuery},
    policy::{AssignPolicy, Policy, Protection, SimulatePolicy, Simulation, WritePolicy},
};
use authz::actions::{PolicyRead, PolicyWrite};
use axum::extract::State;
use domain::{PolicyId, TenantId, WorkloadId};
use http::StatusCode;
use runtime::{Cx, Json, Path, Permit, Query, Reply, paging};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Scheduler;

type Shared = State<Arc<Scheduler>>;

pub fn router(state: Arc<Scheduler>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, replace, remove))
        .routes(routes!(simulate))
        .routes(routes!(assign))
        .routes(routes!(protections))
        .with_state(state)
}

/// Make a policy.
///
/// With `is_default` it holds for every workload of the tenant that was given no other.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/policies", operation_id = "create_policy", tag = "policies",
    params(("tenant_id" = TenantId, Path, description = "The tenant")),
    request_body = WritePolicy,
    responses((status = 201, description = "The policy, and what is in force by it", body = Policy)))]
async fn create(
    State(state): Shared,
    cx: Cx,
    permit: Permit<PolicyWrite>,
    Json(body): Json<WritePolicy>,
) -> Reply<(StatusCode, Json<Policy>)> {
    let made = state.create_policy(&cx, permit.scope(), body).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// All policies of the tenant, in the order they were made. There are at most 200: they come in one page.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/policies", operation_id = "list_policies", tag = "policies",
    params(("tenant_id" = TenantId, Path, description = "The tenant")),
    responses((status = 200, description = "The policies", body = Page<Policy>)))]
async fn list(State(state): Shared, permit: Permit<PolicyRead>) -> Reply<Json<Page<Policy>>> {
    let items = state.list_policies(permit.scope()).await?;
    Ok(Json(Page { items, next_cursor: None }))
}

/// One policy.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/policies/{policy_id}", operation_id = "get_policy", tag = "policies",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("policy_id" = PolicyId, Path, description = "The policy")),
    responses((status = 200, description = "The policy", body = Policy)))]
async fn get(
    State(state): Shared,
    permit: Permit<PolicyRead>,
    path: Path<(TenantId, PolicyId)>,
) -> Reply<Json<Policy>> {
    Ok(Json(state.get_policy(permit.scope(), path.0.1).await?))
}

/// Replace a policy.
///
/// Runs that are queued or running go on as they were; whatever becomes due later follows the new one. With the
/// `revision` that was read, a change somebody else made meanwhile is not overwritten.
#[utoipa::path(put, path = "/v1/tenants/{tenant_id}/policies/{policy_id}", operation_id = "replace_policy", tag = "policies",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("policy_id" = PolicyId, Path, description = "The policy")),
    request_body = WritePolicy,
    responses((status = 200, description = "The policy as it is now", body = Policy)))]
async fn replace(
    State(state): Shared,
    cx: Cx,
    permit: Permit<PolicyWrite>,
    path: Path<(TenantId, PolicyId)>,
    Json(body): Json<WritePolicy>,
) -> Reply<Json<Policy>> {
    Ok(Json(state.replace_policy(&cx, permit.scope(), path.0.1, body).await?))
}

/// Remove a policy that holds for no workload and that no other extends.
#[utoipa::path(delete, path = "/v1/tenants/{tenant_id}/policies/{policy_id}", operation_id = "remove_policy", tag = "policies",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("policy_id" = PolicyId, Path, description = "The policy")),
    responses((status = 204, description = "Removed")))]
async fn remove(
    State(state): Shared,
    cx: Cx,
    permit: Permit<PolicyWrite>,
    path: Path<(TenantId, PolicyId)>,
) -> Reply<StatusCode> {
    state.remove_policy(&cx, permit.scope(), path.0.1).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Say what a schedule would do, before it is saved. Nothing is stored.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/policy-simulations", operation_id = "simulate_policy", tag = "policies",
    params(("tenant_id" = TenantId, Path, description = "The tenant")),
    request_body = SimulatePolicy,
    responses((status = 200, description = "The ticks, also in the schedule's zone", body = Simulation)))]
async fn simulate(
    State(state): Shared,
    permit: Permit<PolicyRead>,
    Json(body): Json<SimulatePolicy>,
) -> Reply<Json<Simulation>> {
    Ok(Json(state.simulate(permit.tenant(), body).await?))
}

/// Give a workload a policy, or let the tenant's default hold for it.
#[utoipa::path(put, path = "/v1/tenants/{tenant_id}/workloads/{workload_id}/policy", operation_id = "assign_policy", tag = "policies",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("workload_id" = WorkloadId, Path, description = "The workload")),
    request_body = AssignPolicy,
    responses((status = 200, description = "How the workload stands now", body = Protection)))]
async fn assign(
    State(state): Shared,
    cx: Cx,
    permit: Permit<PolicyWrite>,
    path: Path<(TenantId, WorkloadId)>,
    Json(body): Json<AssignPolicy>,
) -> Reply<Json<Protection>> {
    Ok(Json(state.assign_policy(&cx, permit.scope(), path.0.1, &body).await?))
}

/// How workloads stand with their policies: what is due when, and whose objective is breached.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/protections", operation_id = "list_protections", tag = "policies",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), PageQuery),
    responses((status = 200, description = "A page of workloads, in the order of their ids", body = Page<Protection>)))]
async fn protections(
    State(state): Shared,
    permit: Permit<PolicyRead>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<Page<Protection>>> {
    let (after, limit) = paging::bounds(&query)?;
    let rows = state.list_protections(permit.scope(), after, limit).await?;
    Ok(Json(paging::page(&query, rows, |row: &Protection| row.workload_id.uuid())))
}
