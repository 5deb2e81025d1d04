//! Routes of vaults and keys.

use std::sync::Arc;

use api::{
    catalog::{CreateVault, PlatformKeys, Vault, VaultKeys},
    page::{Page, PageQuery},
};
use authz::actions::{PlatformKeysRead, VaultCreate, VaultKeysRead, VaultRead};
use axum::extract::State;
use domain::{TenantId, VaultId};
use runtime::{Cx, Json, Path, Permit, Query, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::enrolled::Enrolled;
use crate::{error::Error, sessions::agent_of, state::Catalog};

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new()
        .routes(routes!(create, get))
        .routes(routes!(list))
        .routes(routes!(get_keys))
        .routes(routes!(get_platform_keys))
}

/// Makes an agent's vault and workload; repeating it is harmless.
#[utoipa::path(
    put,
    path = "/v1/tenants/{tenant_id}/vaults/{vault_id}",
    operation_id = "create_vault",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("vault_id" = VaultId, Path, description = "The vault")),
    request_body = CreateVault,
    responses((status = 200, description = "The vault as it is now", body = Vault))
)]
async fn create(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<VaultCreate>,
    Enrolled(member): Enrolled,
    path: Path<(TenantId, VaultId)>,
    Json(body): Json<CreateVault>,
) -> Reply<Json<Vault>> {
    let Path((_, id)) = path;
    Ok(Json(super::create(&app, &cx, permit.proof(), id, member, &body).await?))
}

/// Lists vaults; an agent sees its own.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/vaults",
    operation_id = "list_vaults",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), PageQuery),
    responses((status = 200, description = "A page of vaults", body = Page<Vault>))
)]
async fn list(
    State(app): State<Arc<Catalog>>,
    permit: Permit<VaultRead>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<Page<Vault>>> {
    Ok(Json(super::list(&app, permit.proof(), &query).await?))
}

/// One vault.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/vaults/{vault_id}",
    operation_id = "get_vault",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("vault_id" = VaultId, Path, description = "The vault")),
    responses((status = 200, description = "The vault", body = Vault))
)]
async fn get(
    State(app): State<Arc<Catalog>>,
    permit: Permit<VaultRead>,
    path: Path<(TenantId, VaultId)>,
) -> Reply<Json<Vault>> {
    let Path((_, id)) = path;
    Ok(Json(super::get(&app, permit.proof(), id).await?))
}

/// What the key store holds, for the agent that owns the vault.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/vaults/{vault_id}/keys",
    operation_id = "get_vault_keys",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("vault_id" = VaultId, Path, description = "The vault")),
    responses((status = 200, description = "Descriptor, roster and wraps", body = VaultKeys))
)]
async fn get_keys(
    State(app): State<Arc<Catalog>>,
    permit: Permit<VaultKeysRead>,
    path: Path<(TenantId, VaultId)>,
) -> Reply<Json<VaultKeys>> {
    let Path((_, id)) = path;
    let agent = agent_of(permit.proof())?;
    let mut tx = pg::TenantTx::begin(&app.db, permit.scope()).await.map_err(Error::from)?;
    Ok(Json(super::keys(&mut tx, agent, id).await?))
}

/// To whom agents of managed vaults wrap, and who signs rosters and receipts.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/platform-keys",
    operation_id = "get_platform_keys",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant")),
    responses((status = 200, description = "Public keys of the platform", body = PlatformKeys))
)]
async fn get_platform_keys(
    State(app): State<Arc<Catalog>>,
    _permit: Permit<PlatformKeysRead>,
) -> Reply<Json<PlatformKeys>> {
    Ok(Json(super::platform_keys(&app)))
}
