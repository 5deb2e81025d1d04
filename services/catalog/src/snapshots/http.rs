//! Routes of snapshots.

use std::sync::Arc;

use api::{
    catalog::{Snapshot, SnapshotPacks, SnapshotQuery},
    page::{Page, PageQuery},
};
use authz::actions::SnapshotRead;
use axum::extract::State;
use domain::{SnapshotId, TenantId};
use pg::TenantTx;
use runtime::{Json, Path, Permit, Query, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{error::Error, state::Catalog};

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(list_packs))
}

/// Lists committed snapshots; an agent sees its own.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/snapshots",
    operation_id = "list_snapshots",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), SnapshotQuery),
    responses((status = 200, description = "A page of snapshots, newest first", body = Page<Snapshot>))
)]
async fn list(
    State(app): State<Arc<Catalog>>,
    permit: Permit<SnapshotRead>,
    Query(query): Query<SnapshotQuery>,
) -> Reply<Json<Page<Snapshot>>> {
    Ok(Json(super::list(&app, permit.proof(), &query).await?))
}

/// One committed snapshot.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/snapshots/{snapshot_id}",
    operation_id = "get_snapshot",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("snapshot_id" = SnapshotId, Path, description = "The snapshot")),
    responses((status = 200, description = "The snapshot", body = Snapshot))
)]
async fn get(
    State(app): State<Arc<Catalog>>,
    permit: Permit<SnapshotRead>,
    path: Path<(TenantId, SnapshotId)>,
) -> Reply<Json<Snapshot>> {
    let Path((_, id)) = path;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await.map_err(Error::from)?;
    Ok(Json(super::find(&mut tx, permit.proof(), id).await?.into_dto()))
}

/// Everything the snapshot needs, manifests included.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/snapshots/{snapshot_id}/packs",
    operation_id = "list_snapshot_packs",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("snapshot_id" = SnapshotId, Path, description = "The snapshot"), PageQuery),
    responses((status = 200, description = "A page of packs, by id", body = SnapshotPacks))
)]
async fn list_packs(
    State(app): State<Arc<Catalog>>,
    permit: Permit<SnapshotRead>,
    path: Path<(TenantId, SnapshotId)>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<SnapshotPacks>> {
    let Path((_, id)) = path;
    let cursor = query.cursor.as_deref();
    Ok(Json(super::packs(&app, permit.proof(), id, cursor, query.limit).await?))
}
