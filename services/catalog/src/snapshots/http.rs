//! Routes of snapshots.

use std::sync::Arc;

use api::{
    catalog::{ExpiredSnapshot, Snapshot, SnapshotPacks, SnapshotQuery},
    page::{Page, PageQuery},
};
use authz::actions::{SnapshotRead, SnapshotUndoExpiry};
use axum::extract::State;
use domain::{SnapshotId, TenantId};
use pg::TenantTx;
use runtime::{Cx, Json, Path, Permit, Query, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{collection::letting_go, error::Error, state::Catalog};

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(list_packs))
        .routes(routes!(list_expired))
        .routes(routes!(undo_expiry))
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

/// Lists snapshots their policy let go and that can still be taken back.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/expired-snapshots",
    operation_id = "list_expired_snapshots",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), SnapshotQuery),
    responses((status = 200, description = "A page of snapshots, newest first", body = Page<ExpiredSnapshot>))
)]
async fn list_expired(
    State(app): State<Arc<Catalog>>,
    permit: Permit<SnapshotRead>,
    Query(query): Query<SnapshotQuery>,
) -> Reply<Json<Page<ExpiredSnapshot>>> {
    let agent = permit.actor().agent_id();
    Ok(Json(super::list_expired(&app, permit.scope(), agent, &query).await?))
}

/// Take the expiry of a snapshot back.
///
/// Its policy leaves it alone for another 14 days; a hold keeps it for longer. Of a snapshot that stands it changes
/// nothing. Of one that was let go for good: 409 `conflict`.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/snapshots/{snapshot_id}/undo-expiry",
    operation_id = "undo_expiry",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("snapshot_id" = SnapshotId, Path, description = "The snapshot")),
    responses((status = 200, description = "The snapshot, standing", body = Snapshot))
)]
async fn undo_expiry(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SnapshotUndoExpiry>,
    path: Path<(TenantId, SnapshotId)>,
) -> Reply<Json<Snapshot>> {
    let Path((_, id)) = path;
    Ok(Json(letting_go::undo(&app, permit.scope(), &cx.actor, id).await?))
}
