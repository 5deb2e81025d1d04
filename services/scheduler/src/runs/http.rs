//! Routes of runs and leases.

use std::{convert::Infallible, sync::Arc, time::Duration};

use api::{
    Code, Page, Problem,
    scheduler::{
        Assignment, CreateRun, FinishRun, HeartbeatReply, PollLease, PollReply, Run, RunHeartbeat,
        RunQuery,
    },
};
use authz::actions::{RunCancel, RunCreate, RunLease, RunRead};
use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use domain::{AgentId, RunId, TenantId};
use futures::Stream;
use http::{HeaderMap, StatusCode};
use pg::Scope;
use runtime::{Cx, Failure, Json, Path, Permit, Query, Reply, Slot, idempotency};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Error;
use crate::{crowd::Seat, state::Scheduler};

type Shared = State<Arc<Scheduler>>;

const LONGEST_WAIT_S: u32 = 30;
/// An access token lives five minutes; a stream does not outlive it.
const LONGEST_STREAM: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub fn router(state: Arc<Scheduler>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get))
        .routes(routes!(create_local))
        .routes(routes!(poll))
        .routes(routes!(heartbeat))
        .routes(routes!(finish))
        .routes(routes!(cancel))
        .routes(routes!(events))
        .with_state(state)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let problem = match error {
            Error::NotFound => Problem::not_found(),
            Error::Conflict(detail) => Problem::new(Code::Conflict).detail(detail),
            Error::NoSources => Problem::new(Code::NoSources)
                .detail("name the paths, or start the first backup on the machine itself"),
            Error::LeaseLost(detail) => Problem::new(Code::LeaseLost).detail(detail),
            Error::AgentsStartLocally => {
                Problem::new(Code::Forbidden).detail("agents start their runs by local-runs")
            }
            Error::Invalid(problem) => problem,
            Error::Database(error) => return error.into(),
            Error::Catalog(error) => return error.into(),
            Error::Token(error) => return Self::internal(&error),
        };
        Self(problem)
    }
}

fn agent(cx: &Cx) -> Result<AgentId, Failure> {
    cx.actor.agent_id().ok_or_else(|| Code::Forbidden.into())
}

/// Queue a run for the workload's agent.
///
/// At most one run of a workload waits. Without a source it reads what the last run read.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/runs", operation_id = "create_run", tag = "runs",
    params(("tenant_id" = TenantId, Path, description = "The tenant"),
        ("idempotency-key" = Option<String>, Header, description = "Repeating a request under its key makes no second run")),
    request_body = CreateRun,
    responses((status = 201, description = "Queued", body = Run)))]
async fn create(
    State(state): Shared,
    cx: Cx,
    permit: Permit<RunCreate>,
    headers: HeaderMap,
    Json(body): Json<CreateRun>,
) -> Reply<(StatusCode, Json<Run>)> {
    let run = state.queue_run(&cx, permit.scope(), &body, idempotency::key(&headers)).await?;
    Ok((StatusCode::CREATED, Json(run)))
}

/// Start a run on the machine itself.
///
/// For agents: the run is leased to the caller at once. A workload has one running run at a time.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/local-runs", operation_id = "create_local_run", tag = "runs",
    params(("tenant_id" = TenantId, Path, description = "The tenant"),
        ("idempotency-key" = Option<String>, Header, description = "Repeating a request under its key gives the same lease")),
    request_body = CreateRun,
    responses((status = 201, description = "Running, leased to the caller", body = Assignment)))]
async fn create_local(
    State(state): Shared,
    cx: Cx,
    permit: Permit<RunLease>,
    headers: HeaderMap,
    Json(body): Json<CreateRun>,
) -> Reply<(StatusCode, Json<Assignment>)> {
    let agent = agent(&cx)?;
    let key = idempotency::key(&headers);
    let assignment = state.start_local(&cx, permit.scope(), agent, &body, key).await?;
    Ok((StatusCode::CREATED, Json(assignment)))
}

/// Runs, newest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/runs", operation_id = "list_runs", tag = "runs",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), RunQuery),
    responses((status = 200, description = "A page of runs", body = Page<Run>)))]
async fn list(
    State(state): Shared,
    permit: Permit<RunRead>,
    Query(query): Query<RunQuery>,
) -> Reply<Json<Page<Run>>> {
    Ok(Json(state.list_runs(permit.scope(), permit.actor().agent_id(), &query).await?))
}

/// One run.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/runs/{run_id}", operation_id = "get_run", tag = "runs",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("run_id" = RunId, Path, description = "The run")),
    responses((status = 200, description = "The run", body = Run)))]
async fn get(
    State(state): Shared,
    permit: Permit<RunRead>,
    path: Path<(TenantId, RunId)>,
) -> Reply<Json<Run>> {
    Ok(Json(state.get_run(permit.scope(), permit.actor().agent_id(), path.0.1).await?))
}

/// Wait for the next queued run.
///
/// For agents: a long poll. An answer without assignment means there is nothing to do yet. An agent waits
/// with at most two of them; more answer 429 `too_many_requests`.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/leases", operation_id = "poll_lease", tag = "runs",
    params(("tenant_id" = TenantId, Path, description = "The tenant")),
    request_body = PollLease,
    responses((status = 200, description = "An assignment, or none yet", body = PollReply)))]
async fn poll(
    State(state): Shared,
    cx: Cx,
    permit: Permit<RunLease>,
    slot: Slot,
    Json(body): Json<PollLease>,
) -> Reply<Json<PollReply>> {
    if body.wait_s > LONGEST_WAIT_S {
        return Err(Problem::validation("wait_s", "0 to 30 seconds").into());
    }
    let wait = Duration::from_secs(u64::from(body.wait_s));
    let agent = agent(&cx)?;
    let mut seat = None;
    if !wait.is_zero() {
        // Waiting costs a seat among the waiting, and no longer a place among the requests at work.
        seat = Some(state.polls.enter(permit.actor()).ok_or(Code::TooManyRequests)?);
        slot.give_back();
    }
    let assignment = state.poll(&cx, permit.scope(), agent, wait).await?;
    drop(seat);
    Ok(Json(PollReply { assignment }))
}

/// Renew the lease and report progress.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/runs/{run_id}/heartbeat", operation_id = "heartbeat_run", tag = "runs",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("run_id" = RunId, Path, description = "The run")),
    request_body = RunHeartbeat,
    responses((status = 200, description = "Until when, and whether to stop", body = HeartbeatReply)))]
async fn heartbeat(
    State(state): Shared,
    cx: Cx,
    permit: Permit<RunLease>,
    path: Path<(TenantId, RunId)>,
    Json(body): Json<RunHeartbeat>,
) -> Reply<Json<HeartbeatReply>> {
    Ok(Json(state.heartbeat(&cx, permit.scope(), agent(&cx)?, path.0.1, &body).await?))
}

/// Report how the run ended.
///
/// Success needs the receipt of the commit; without one the run goes on until the catalog confirms it.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/runs/{run_id}/finish", operation_id = "finish_run", tag = "runs",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("run_id" = RunId, Path, description = "The run")),
    request_body = FinishRun,
    responses((status = 200, description = "The run as it stands", body = Run)))]
async fn finish(
    State(state): Shared,
    cx: Cx,
    permit: Permit<RunLease>,
    path: Path<(TenantId, RunId)>,
    Json(body): Json<FinishRun>,
) -> Reply<Json<Run>> {
    Ok(Json(state.finish(&cx, permit.scope(), agent(&cx)?, path.0.1, body).await?))
}

/// Cancel a run.
///
/// A queued run ends at once; a running one stops at its agent's next heartbeat.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/runs/{run_id}/cancel", operation_id = "cancel_run", tag = "runs",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("run_id" = RunId, Path, description = "The run")),
    responses((status = 200, description = "The run as it stands", body = Run)))]
async fn cancel(
    State(state): Shared,
    cx: Cx,
    permit: Permit<RunCancel>,
    path: Path<(TenantId, RunId)>,
) -> Reply<Json<Run>> {
    Ok(Json(state.cancel(&cx, permit.scope(), path.0.1).await?))
}

/// Follow a run.
///
/// Server-sent events named `run`, each the whole run as JSON, one at once and one whenever it changed, until
/// it has ended. A stream ends after five minutes at the latest; open a new one with a fresh token. Nobody has
/// more than eight at once; more answer 429 `too_many_requests`.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/runs/{run_id}/events", operation_id = "follow_run", tag = "runs",
    params(("tenant_id" = TenantId, Path, description = "The tenant"), ("run_id" = RunId, Path, description = "The run")),
    responses((status = 200, description = "A stream of events", body = String, content_type = "text/event-stream")))]
async fn events(
    State(state): Shared,
    permit: Permit<RunRead>,
    path: Path<(TenantId, RunId)>,
) -> Reply<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let reader = permit.actor().agent_id();
    let first = state.get_run(permit.scope(), reader, path.0.1).await?;
    let seat = state.streams.enter(permit.actor()).ok_or_else(|| {
        Problem::new(Code::TooManyRequests).detail("end one of your other streams first")
    })?;
    let stream = follow(state, permit.scope(), reader, first, seat);
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

/// The run now, then every change of it.
fn follow(
    state: Arc<Scheduler>,
    scope: Scope,
    reader: Option<AgentId>,
    first: Run,
    seat: Seat,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let until = tokio::time::Instant::now() + LONGEST_STREAM;
    let place = state.hub.watch(first.id.uuid());
    let id = first.id;
    let start = (Some(first), None::<String>, seat);
    futures::stream::unfold(start, move |(mut pending, mut sent, seat)| {
        let (state, place) = (state.clone(), place.clone());
        async move {
            loop {
                let woken = place.notified();
                tokio::pin!(woken);
                woken.as_mut().enable();
                let run = match pending.take() {
                    Some(run) => run,
                    None if sent.is_none() => return None,
                    None => state.get_run(scope, reader, id).await.ok()?,
                };
                let text = serde_json::to_string(&run).ok()?;
                if sent.as_ref() != Some(&text) {
                    let event = Event::default().event("run").data(&text);
                    let last = run.state.is_final();
                    sent = if last { None } else { Some(text) };
                    return Some((Ok(event), (None, sent, seat)));
                }
                if tokio::time::Instant::now() >= until || state.stopping.is_cancelled() {
                    return None;
                }
                tokio::select! {
                    () = woken => {}
                    () = state.stopping.cancelled() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
        }
    })
}
