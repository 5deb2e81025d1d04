//! A role with one operation of each kind, to try the edge with.

use authz::actions::{SnapshotBrowse, SnapshotRead, WorkloadRead};
use axum::routing::{get, post, put};
use domain::{SnapshotId, TenantId};
use runtime::{Caller, Cx, Json, Path, Permit, Platform, Query, Reply, Role, RoleName};
use serde::{Deserialize, Serialize};
use testkit::TestApp;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    text: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoteQuery {
    #[serde(default)]
    limit: u32,
}

#[derive(Serialize, ToSchema)]
struct Seen {
    kind: String,
    id: String,
}

#[utoipa::path(get, path = "/v1/hello", tag = "public", responses((status = 200, description = "x")))]
async fn hello(cx: Cx) -> Json<Seen> {
    Json(Seen { kind: cx.actor.kind().to_owned(), id: cx.actor.id() })
}

#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/workloads", tag = "sample",
    params(("tenant_id" = TenantId, Path, description = "x"), NoteQuery),
    responses((status = 200, description = "x", body = Seen)))]
async fn read(permit: Permit<WorkloadRead>, Query(query): Query<NoteQuery>) -> Json<Seen> {
    assert!(query.limit < 1_000, "a planted panic");
    Json(Seen { kind: permit.actor().kind().to_owned(), id: permit.tenant().to_string() })
}

#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/notes", tag = "sample",
    params(("tenant_id" = TenantId, Path, description = "x")),
    responses((status = 200, description = "x", body = Note)))]
async fn write(_: Permit<WorkloadRead>, Json(note): Json<Note>) -> Json<Note> {
    Json(note)
}

#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/snapshots/{snapshot_id}", tag = "sample",
    params(("tenant_id" = TenantId, Path, description = "x"), ("snapshot_id" = SnapshotId, Path, description = "x")),
    responses((status = 200, description = "x")))]
async fn one(
    _: Permit<SnapshotRead>,
    Path(ids): Path<(TenantId, SnapshotId)>,
) -> Reply<Json<String>> {
    Ok(Json(ids.1.to_string()))
}

#[utoipa::path(get, path = "/v1/browse", tag = "sample", responses((status = 200, description = "x")))]
async fn browse(permit: Permit<SnapshotBrowse>) -> Json<String> {
    Json(permit.tenant().to_string())
}

async fn who(Caller(role): Caller) -> Json<String> {
    Json(role.to_string())
}

async fn wait() -> Json<()> {
    std::future::pending().await
}

pub(crate) fn role(_: Platform) -> Role {
    let router = OpenApiRouter::new()
        .routes(routes!(hello))
        .routes(routes!(read))
        .routes(routes!(write))
        .routes(routes!(one))
        .routes(routes!(browse))
        .route("/v1/tenants/{tenant_id}/notes", put(write))
        .route("/v1/wait", get(wait));
    let internal = axum::Router::new()
        .route("/internal/v1/who", get(who))
        .route("/internal/v1/who", post(who));
    Role::new(RoleName::Catalog).public(router).internal(internal)
}

pub(crate) async fn app() -> TestApp {
    TestApp::builder().role(RoleName::Catalog, role).start().await.unwrap()
}
