//! Routes of packs.

use std::sync::Arc;

use api::catalog::{AllocatePacks, AllocatedPacks, ConfirmPacks, ConfirmedPacks};
use authz::actions::SessionWrite;
use axum::extract::State;
use domain::{SessionId, TenantId};
use runtime::{Cx, Json, Path, Permit, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Catalog;

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new().routes(routes!(allocate)).routes(routes!(confirm))
}

/// B1: writes pack rows, then grants their uploads.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/sessions/{session_id}/packs",
    operation_id = "allocate_packs",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("session_id" = SessionId, Path, description = "The session")),
    request_body = AllocatePacks,
    responses((status = 200, description = "An upload grant for each, in the order asked", body = AllocatedPacks))
)]
async fn allocate(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SessionWrite>,
    path: Path<(TenantId, SessionId)>,
    Json(body): Json<AllocatePacks>,
) -> Reply<Json<AllocatedPacks>> {
    let Path((_, id)) = path;
    Ok(Json(super::allocate(&app, &cx, permit.proof(), id, &body).await?))
}

/// B2: asks the store itself about uploaded packs.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/sessions/{session_id}/packs/confirm",
    operation_id = "confirm_packs",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("session_id" = SessionId, Path, description = "The session")),
    request_body = ConfirmPacks,
    responses((status = 200, description = "What the store confirmed", body = ConfirmedPacks))
)]
async fn confirm(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SessionWrite>,
    path: Path<(TenantId, SessionId)>,
    Json(body): Json<ConfirmPacks>,
) -> Reply<Json<ConfirmedPacks>> {
    let Path((_, id)) = path;
    Ok(Json(super::confirm(&app, &cx, permit.proof(), id, &body).await?))
}
