//! Routes of usage.

use std::time::Duration;

use api::{
    Code, Problem,
    billing::{Usage, UsageQuery},
    internal::{DeliverFacts, Fact},
};
use authz::actions::UsageRead;
use axum::{extract::State, routing::post};
use domain::TenantId;
use runtime::{Caller, Cx, Failure, Json, Permit, Platform, Query, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Error;

/// What is shown unless another period is asked for.
const USUAL_PERIOD: Duration = Duration::from_secs(30 * 86_400);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Period => Problem::validation("from", "must be before until").into(),
            Error::Meter => Problem::new(Code::Validation).detail(error.to_string()).into(),
            Error::Database(error) => error.into(),
        }
    }
}

pub(crate) fn router(platform: Platform) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(get_usage)).with_state(platform)
}

pub(crate) fn internal(platform: Platform) -> axum::Router {
    axum::Router::new().route("/internal/v1/outbox", post(take_facts)).with_state(platform)
}

/// What the tenant used in a period, summed per meter.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant_id}/usage", operation_id = "getUsage", tag = "billing",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), UsageQuery),
    responses(
        (status = 200, description = "Sums per meter", body = Usage),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn get_usage(
    State(platform): State<Platform>,
    cx: Cx,
    permit: Permit<UsageRead>,
    Query(query): Query<UsageQuery>,
) -> Reply<Json<Usage>> {
    let until = query.until.unwrap_or_else(|| cx.now());
    let from = query.from.unwrap_or(until - USUAL_PERIOD);
    Ok(Json(super::usage(&platform.db, permit.scope(), from, until).await?))
}

async fn take_facts(
    State(platform): State<Platform>,
    _: Caller,
    Json(body): Json<DeliverFacts>,
) -> Reply<Json<()>> {
    let facts = body.facts.into_iter().filter_map(|fact| match fact {
        Fact::Meter(event) => Some(event),
        // Facts for others are not ours to keep; their receivers take them.
        Fact::Audit(_) | Fact::SnapshotCommitted(_) | Fact::WorkloadCreated(_) => None,
    });
    super::record(&platform.db, facts.collect(), platform.clock.now()).await?;
    Ok(Json(()))
}
