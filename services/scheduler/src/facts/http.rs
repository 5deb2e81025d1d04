//! `POST /internal/v1/outbox`: facts from the catalog.

use std::sync::Arc;

use api::{
    Code,
    internal::{DeliverFacts, Fact},
};
use axum::{Router, extract::State, routing::post};
use http::StatusCode;
use runtime::{Caller, Failure, Json, Reply, RoleName};

use crate::state::Scheduler;

pub fn router(state: Arc<Scheduler>) -> Router {
    Router::new().route("/internal/v1/outbox", post(deliver)).with_state(state)
}

async fn deliver(
    State(state): State<Arc<Scheduler>>,
    Caller(caller): Caller,
    Json(body): Json<DeliverFacts>,
) -> Reply<StatusCode> {
    // Only the catalog commits snapshots and makes workloads; another role claiming so has gone astray.
    if caller != RoleName::Catalog {
        return Err(Code::Forbidden.into());
    }
    for fact in &body.facts {
        match fact {
            Fact::SnapshotCommitted(fact) => {
                state.snapshot_committed(fact).await.map_err(Failure::from)?;
            }
            Fact::WorkloadCreated(fact) => {
                state.workload_created(fact).await.map_err(Failure::from)?;
            }
            Fact::Audit(_) | Fact::Meter(_) => return Err(Code::BadRequest.into()),
        }
    }
    Ok(StatusCode::NO_CONTENT)
}
