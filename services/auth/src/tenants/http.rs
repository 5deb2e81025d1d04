//! Routes of the tenant tree.

use std::sync::Arc;

use api::{
    auth::{CreateTenant, Tenant, TenantKind},
    names,
    page::{Page, PageQuery},
    problem::Code,
};
use authz::actions::{TenantCreate, TenantRead};
use axum::{extract::State, http::StatusCode};
use domain::TenantId;
use runtime::{Cx, Failure, Json, Permit, Query, Reply, paging};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{TenantError, TenantRow};
use crate::state::{Auth, Shared};

pub fn routes() -> OpenApiRouter<Arc<Auth>> {
    OpenApiRouter::new()
        .routes(routes!(list_tenants))
        .routes(routes!(get_tenant))
        .routes(routes!(create_tenant))
}

/// The tenant the token acts in, and all below it.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", params(PageQuery),
    responses((status = 200, description = "Tenants in the order they were made", body = Page<Tenant>)))]
async fn list_tenants(
    State(auth): Shared,
    permit: Permit<TenantRead>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<Page<Tenant>>> {
    let (after, limit) = paging::bounds(&query)?;
    let rows = super::list(&auth.db, permit.scope(), after, limit).await?;
    Ok(Json(paging::page(&query, rows, |row| row.id.uuid())))
}

/// The tenant the token acts in. Any other answers 404: ask for a token that acts there.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}", tag = "tenants", params(("tenant_id" = TenantId, Path)),
    responses((status = 200, description = "The tenant", body = Tenant)))]
async fn get_tenant(State(auth): Shared, permit: Permit<TenantRead>) -> Reply<Json<Tenant>> {
    let row = super::get(&auth.db, permit.scope()).await?;
    Ok(Json(row.into()))
}

/// Makes an MSP below the platform, or a tenant below an MSP.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/children", tag = "tenants",
    params(("tenant_id" = TenantId, Path)), request_body = CreateTenant,
    responses((status = 201, description = "The new tenant", body = Tenant)))]
async fn create_tenant(
    State(auth): Shared,
    cx: Cx,
    permit: Permit<TenantCreate>,
    Json(body): Json<CreateTenant>,
) -> Reply<(StatusCode, Json<Tenant>)> {
    let name = names::name("name", &body.name)?;
    let row = super::create_child(&auth.db, &cx, permit.scope(), name).await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

impl From<TenantRow> for Tenant {
    fn from(row: TenantRow) -> Self {
        Self {
            id: row.id,
            parent_id: row.parent_id,
            kind: match row.kind {
                authz::TenantKind::Platform => TenantKind::Platform,
                authz::TenantKind::Msp => TenantKind::Msp,
                authz::TenantKind::Tenant => TenantKind::Tenant,
            },
            name: row.name,
            created_at: row.created_at,
        }
    }
}

impl From<TenantError> for Failure {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::NotFound => Self::not_found(),
            TenantError::NoChildren => {
                Self(api::Problem::new(Code::Conflict).detail("a tenant has no tenants below it"))
            }
            TenantError::NameTaken => Self(
                api::Problem::new(Code::AlreadyExists).field("name", "a sibling has this name"),
            ),
            TenantError::Db(error) => error.into(),
        }
    }
}
