//! Route of restore grants.

use std::sync::Arc;

use api::catalog::{RequestRestoreGrants, RestoreGrants};
use authz::actions::SnapshotRestore;
use axum::extract::State;
use domain::{SnapshotId, TenantId};
use runtime::{Cx, Json, Path, Permit, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Catalog;

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new().routes(routes!(grant))
}

/// Grants reads of packs of one snapshot.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/snapshots/{snapshot_id}/restore-grants",
    operation_id = "grant_restore",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("snapshot_id" = SnapshotId, Path, description = "The snapshot")),
    request_body = RequestRestoreGrants,
    responses((status = 200, description = "Presigned reads, by version id", body = RestoreGrants))
)]
async fn grant(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SnapshotRestore>,
    path: Path<(TenantId, SnapshotId)>,
    Json(body): Json<RequestRestoreGrants>,
) -> Reply<Json<RestoreGrants>> {
    let Path((_, id)) = path;
    Ok(Json(super::grant(&app, &cx, permit.proof(), id, &body).await?))
}
