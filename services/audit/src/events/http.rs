//! Routes of the record.

use api::{
    Page, Problem,
    audit::RecordedEvent,
    internal::{DeliverFacts, Fact},
    page::PageQuery,
};
use authz::actions::AuditRead;
use axum::{extract::State, routing::post};
use domain::TenantId;
use runtime::{Caller, Cx, Failure, Json, Permit, Platform, Query, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Error;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Cursor => {
                Problem::validation("cursor", "hand back next_cursor of the page before").into()
            }
            Error::Database(error) => error.into(),
        }
    }
}

pub(crate) fn router(platform: Platform) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list_events)).with_state(platform)
}

pub(crate) fn internal(platform: Platform) -> axum::Router {
    axum::Router::new().route("/internal/v1/outbox", post(take_facts)).with_state(platform)
}

/// The tenant's record, newest first. Reading it is recorded.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant_id}/audit/events", operation_id = "listAuditEvents", tag = "audit",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), PageQuery),
    responses(
        (status = 200, description = "Events, newest first", body = Page<RecordedEvent>),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list_events(
    State(platform): State<Platform>,
    cx: Cx,
    permit: Permit<AuditRead>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<Page<RecordedEvent>>> {
    let read = cx.event("audit.read", "tenant", &permit.tenant());
    let cursor = query.cursor.as_deref();
    let (items, next_cursor) =
        super::list(&platform.db, permit.scope(), cursor, query.limit(), read).await?;
    Ok(Json(Page { items, next_cursor }))
}

async fn take_facts(
    State(platform): State<Platform>,
    _: Caller,
    Json(body): Json<DeliverFacts>,
) -> Reply<Json<()>> {
    let events = body.facts.into_iter().filter_map(|fact| match fact {
        Fact::Audit(event) => Some(event),
        // Facts for others are not ours to keep; their receivers take them.
        Fact::Meter(_) | Fact::SnapshotCommitted(_) | Fact::WorkloadCreated(_) => None,
    });
    super::record(&platform.db, events.collect(), platform.clock.now()).await?;
    Ok(Json(()))
}
