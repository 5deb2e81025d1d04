//! Route of browsing.

use std::sync::Arc;

use api::catalog::{EntryPage, EntryQuery};
use authz::actions::SnapshotBrowse;
use axum::extract::State;
use domain::{SnapshotId, TenantId};
use runtime::{Cx, Json, Path, Permit, Query, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Catalog;

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// One folder of a snapshot in a managed vault.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/snapshots/{snapshot_id}/entries",
    operation_id = "list_entries",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("snapshot_id" = SnapshotId, Path, description = "The snapshot"), EntryQuery),
    responses((status = 200, description = "A page of one folder, by name", body = EntryPage))
)]
async fn list(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SnapshotBrowse>,
    path: Path<(TenantId, SnapshotId)>,
    Query(query): Query<EntryQuery>,
) -> Reply<Json<EntryPage>> {
    let Path((_, id)) = path;
    Ok(Json(super::list(&app, &cx, permit.proof(), id, &query).await?))
}
