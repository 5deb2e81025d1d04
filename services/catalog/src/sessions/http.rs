//! Routes of sessions.

use std::sync::Arc;

use api::{
    Page,
    catalog::{CommitReply, CommitSession, OpenSession, PackFacts, Session, SessionHeartbeat},
    page::PageQuery,
};
use authz::actions::SessionWrite;
use axum::extract::State;
use domain::{SessionId, TenantId};
use http::StatusCode;
use runtime::{Cx, Json, Path, Permit, Query, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Catalog;

/// Routes of this slice.
pub fn router() -> OpenApiRouter<Arc<Catalog>> {
    OpenApiRouter::new()
        .routes(routes!(open))
        .routes(routes!(adopted))
        .routes(routes!(heartbeat))
        .routes(routes!(abort))
        .routes(routes!(commit))
}

/// B0: opens a session and raises the workload's fence.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/sessions",
    operation_id = "open_session",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant")),
    request_body = OpenSession,
    responses((status = 201, description = "The session, with what to build on", body = Session))
)]
async fn open(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SessionWrite>,
    Json(body): Json<OpenSession>,
) -> Reply<(StatusCode, Json<Session>)> {
    let session = super::open(&app, &cx, permit.proof(), &body).await?;
    Ok((StatusCode::CREATED, Json(session)))
}

/// Lists what earlier sessions of the agent uploaded and did not commit.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant_id}/sessions/{session_id}/adopted",
    operation_id = "list_adopted_packs",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("session_id" = SessionId, Path, description = "The session"), PageQuery),
    responses((status = 200, description = "A page of packs, by id", body = Page<PackFacts>))
)]
async fn adopted(
    State(app): State<Arc<Catalog>>,
    permit: Permit<SessionWrite>,
    path: Path<(TenantId, SessionId)>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<Page<PackFacts>>> {
    let Path((_, id)) = path;
    Ok(Json(super::adopted(&app, permit.proof(), id, &query).await?))
}

/// Says that the agent is still there.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/sessions/{session_id}/heartbeat",
    operation_id = "heartbeat_session",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("session_id" = SessionId, Path, description = "The session")),
    request_body = SessionHeartbeat,
    responses((status = 204, description = "Heard"))
)]
async fn heartbeat(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SessionWrite>,
    path: Path<(TenantId, SessionId)>,
    Json(body): Json<SessionHeartbeat>,
) -> Reply<StatusCode> {
    let Path((_, id)) = path;
    super::heartbeat(&app, &cx, permit.proof(), id, body.fence).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the session without a snapshot; repeating it is harmless.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/sessions/{session_id}/abort",
    operation_id = "abort_session",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("session_id" = SessionId, Path, description = "The session")),
    request_body = SessionHeartbeat,
    responses((status = 204, description = "Ended"))
)]
async fn abort(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SessionWrite>,
    path: Path<(TenantId, SessionId)>,
    Json(body): Json<SessionHeartbeat>,
) -> Reply<StatusCode> {
    let Path((_, id)) = path;
    super::abort(&app, &cx, permit.proof(), id, body.fence).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// B4 to B6: makes the snapshot. Idempotent on the session.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant_id}/sessions/{session_id}/commit",
    operation_id = "commit_session",
    tag = "catalog",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("session_id" = SessionId, Path, description = "The session")),
    request_body = CommitSession,
    responses((status = 200, description = "The snapshot and its receipt", body = CommitReply))
)]
async fn commit(
    State(app): State<Arc<Catalog>>,
    cx: Cx,
    permit: Permit<SessionWrite>,
    path: Path<(TenantId, SessionId)>,
    Json(body): Json<CommitSession>,
) -> Reply<Json<CommitReply>> {
    let Path((_, id)) = path;
    Ok(Json(super::commit::commit(&app, &cx, permit.proof(), id, &body).await?))
}
