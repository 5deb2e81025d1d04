//! Routes of holds.

use std::sync::Arc;

use api::{
    catalog::{Hold, HoldQuery, PlaceHold, ReleaseHold},
    page::Page,
};
use authz::actions::{HoldRead, HoldRelease, SnapshotHold};
use axum::extract::State;
use domain::{HoldId, SnapshotId, TenantId};
use http::{HeaderMap, StatusCode};
use runtime::{Cx, Json, Path, Permit, Query, Reply, idempotency};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Catalog;

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new().routes(routes!(place)).routes(routes!(list)).routes(routes!(release))
}

/// Place a legal hold.
///
/// The snapshot stays, whatever its policy says, until every hold of it was released. One that was softly expired comes
/// back. Of a snapshot that was let go for good: 409 `conflict`.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/snapshots/{snapshot_id}/holds",
    operation_id = "place_hold",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("snapshot_id" = SnapshotId, Path, description = "The snapshot"),
        ("idempotency-key" = Option<String>, Header, description = "Repeating a request under its key places no second hold")),
    request_body = PlaceHold,
    responses((status = 201, description = "The hold, standing", body = Hold))
)]
async fn place(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SnapshotHold>,
    path: Path<(TenantId, SnapshotId)>,
    headers: HeaderMap,
    Json(body): Json<PlaceHold>,
) -> Reply<(StatusCode, Json<Hold>)> {
    let Path((_, snapshot)) = path;
    let key = idempotency::key(&headers);
    let hold = super::place(&app, permit.scope(), &cx.actor, snapshot, &body.reason, key).await?;
    Ok((StatusCode::CREATED, Json(hold)))
}

/// Holds of the tenant, standing and released.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/holds",
    operation_id = "list_holds",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), HoldQuery),
    responses((status = 200, description = "A page of holds, newest first", body = Page<Hold>))
)]
async fn list(
    State(app): State<Arc<Catalog>>,
    permit: Permit<HoldRead>,
    Query(query): Query<HoldQuery>,
) -> Reply<Json<Page<Hold>>> {
    Ok(Json(super::list(&app, permit.scope(), &query).await?))
}

/// Release a legal hold.
///
/// When no other hold of the snapshot stands, its policy decides again. Repeating the request with the same reason
/// changes nothing.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/holds/{hold_id}/release",
    operation_id = "release_hold",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("hold_id" = HoldId, Path, description = "The hold")),
    request_body = ReleaseHold,
    responses((status = 200, description = "The hold, released", body = Hold))
)]
async fn release(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<HoldRelease>,
    path: Path<(TenantId, HoldId)>,
    Json(body): Json<ReleaseHold>,
) -> Reply<Json<Hold>> {
    let Path((_, hold)) = path;
    Ok(Json(super::release(&app, permit.scope(), &cx.actor, hold, &body.reason).await?))
}
