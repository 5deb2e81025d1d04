//! Routes of what could not be deleted yet and of what is worth moving.

use std::sync::Arc;

use api::{
    catalog::{RepackCandidates, RetainedPack},
    page::{Page, PageQuery},
};
use authz::actions::VaultRead;
use axum::extract::State;
use domain::{TenantId, VaultId};
use runtime::{Cx, Json, Path, Permit, Query, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Catalog;

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new().routes(routes!(list_retained)).routes(routes!(list_repack))
}

/// Packs nothing needs that the store did not give up, with the date each is tried again at.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/vaults/{vault_id}/retained-packs",
    operation_id = "list_retained_packs",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("vault_id" = VaultId, Path, description = "The vault"), PageQuery),
    responses((status = 200, description = "A page of packs, by id", body = Page<RetainedPack>))
)]
async fn list_retained(
    State(app): State<Arc<Catalog>>,
    permit: Permit<VaultRead>,
    path: Path<(TenantId, VaultId)>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<Page<RetainedPack>>> {
    let Path((_, vault)) = path;
    Ok(Json(super::list_retained(&app, permit.proof(), vault, &query).await?))
}

/// Half-dead packs of the newest snapshots that are worth repacking, those with most to gain first, at most 1000.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/vaults/{vault_id}/repack-candidates",
    operation_id = "list_repack_candidates",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("vault_id" = VaultId, Path, description = "The vault")),
    responses((status = 200, description = "Packs with their live and dead parts", body = RepackCandidates))
)]
async fn list_repack(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<VaultRead>,
    path: Path<(TenantId, VaultId)>,
) -> Reply<Json<RepackCandidates>> {
    let Path((_, vault)) = path;
    Ok(Json(super::repack::candidates(&app, permit.proof(), vault, cx.now()).await?))
}
