//! Routes of a snapshot's immutability certificate.

use std::sync::Arc;

use api::catalog::LockStanding;
use authz::actions::{SnapshotCertify, SnapshotRead};
use axum::extract::State;
use domain::{SnapshotId, TenantId};
use runtime::{Cx, Json, Path, Permit, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::certificate;
use crate::state::Catalog;

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new().routes(routes!(get, check))
}

/// What is known about the locks of a snapshot, without asking the store.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/snapshots/{snapshot_id}/certificate",
    operation_id = "get_certificate",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("snapshot_id" = SnapshotId, Path, description = "The snapshot")),
    responses((status = 200, description = "The locks as last checked, and the certificate if all were", body = LockStanding))
)]
async fn get(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SnapshotRead>,
    path: Path<(TenantId, SnapshotId)>,
) -> Reply<Json<LockStanding>> {
    let Path((_, id)) = path;
    Ok(Json(certificate::standing(&app, &cx, permit.proof(), id).await?))
}

/// Asks the store about objects of a snapshot, those that waited longest first, up to 1000 a call: repeat until
/// `checked` equals `objects`.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/snapshots/{snapshot_id}/certificate",
    operation_id = "check_certificate",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("snapshot_id" = SnapshotId, Path, description = "The snapshot")),
    responses((status = 200, description = "The locks as found, and the certificate if all were checked", body = LockStanding))
)]
async fn check(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SnapshotCertify>,
    path: Path<(TenantId, SnapshotId)>,
) -> Reply<Json<LockStanding>> {
    let Path((_, id)) = path;
    Ok(Json(certificate::check(&app, &cx, permit.proof(), id, certificate::BUDGET).await?))
}
