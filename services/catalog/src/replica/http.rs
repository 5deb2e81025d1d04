//! Route of a vault's second copy.

use std::sync::Arc;

use api::catalog::VaultReplica;
use authz::actions::VaultRead;
use axum::extract::State;
use domain::{TenantId, VaultId};
use runtime::{Json, Path, Permit, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Catalog;

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new().routes(routes!(get))
}

/// Where a vault's second copy is, and how far it is behind.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/vaults/{vault_id}/replica",
    operation_id = "get_vault_replica",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("vault_id" = VaultId, Path, description = "The vault")),
    responses((status = 200, description = "The second copy, counted now", body = VaultReplica))
)]
async fn get(
    State(app): State<Arc<Catalog>>,
    permit: Permit<VaultRead>,
    path: Path<(TenantId, VaultId)>,
) -> Reply<Json<VaultReplica>> {
    let Path((_, vault)) = path;
    Ok(Json(super::get(&app, permit.proof(), vault).await?))
}
