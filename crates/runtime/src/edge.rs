//! The edge of every request: id, limits, identity, one log line, metrics, problems.
//!
//! Everything that leaves carries `x-request-id` and the server's time; everything that fails leaves as
//! `application/problem+json`, whoever made the answer.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{Code, Problem, client::SERVER_TIME_HEADER};
use authz::Actor;
use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequestParts, MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use domain::{Clock, IdGen};
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, StatusCode, request::Parts};
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::Instrument as _;

use crate::{
    Failure, Metrics, Peers, Platform, ServiceKeys, TokenVerifier, cx::RequestContext, identity,
};

/// Bounds of what a process takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request body.
    pub body: usize,
    /// Requests answered at once; more are told to come back.
    pub in_flight: usize,
    /// From the last byte of the request to the answer. Longer than the longest poll.
    pub answer_within: Duration,
    /// For the body to arrive. Nobody holds a slot meanwhile.
    pub body_within: Duration,
    /// Bytes of all bodies together that are held at once, beyond the first [`SMALL`] of each.
    pub bodies: usize,
}

/// Bodies up to this size are read whatever else is being read.
const SMALL: usize = 16 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1024 * 1024,
            in_flight: 1024,
            answer_within: Duration::from_secs(90),
            body_within: Duration::from_secs(10),
            bodies: 256 * 1024 * 1024,
        }
    }
}

/// What the edge works with. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGen>,
    pub(crate) verifier: TokenVerifier,
    pub(crate) service_keys: ServiceKeys,
    pub(crate) peers: Peers,
    pub(crate) public_url: Arc<str>,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    slots: Arc<Semaphore>,
    /// Bytes that may still be read.
    room: Arc<Semaphore>,
}

impl Edge {
    pub fn new(platform: &Platform, metrics: Metrics, limits: Limits) -> Self {
        Self {
            clock: platform.clock.clone(),
            ids: platform.ids.clone(),
            verifier: platform.verifier.clone(),
            service_keys: platform.service_keys.clone(),
            peers: platform.peers.clone(),
            public_url: platform.public_url.clone(),
            metrics,
            limits,
            slots: Arc::new(Semaphore::new(limits.in_flight)),
            room: Arc::new(Semaphore::new(limits.bodies)),
        }
    }
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// The request's share of what a process answers at once. A handler that only waits gives it back, after it
/// has bounded its waiting otherwise.
#[derive(Debug, Clone, Default)]
pub struct Slot(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Slot {
    fn of(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Mutex::new(Some(permit))))
    }
    /// Lets the next request in. Doing it twice does nothing.
    pub fn give_back(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Slot {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Which door the request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Public,
    Internal,
}

pub(crate) async fn public(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    through(edge, Door::Public, request, next).await
}

pub(crate) async fn internal(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    through(edge, Door::Internal, request, next).await
}

// Rate limits per principal are not here yet: they need counters shared by replicas (issue A leaves them out).
async fn through(edge: Edge, door: Door, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id: Arc<str> = format!("req_{}", edge.ids.uuid(edge.clock.now()).simple()).into();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "unmatched".to_owned());
    let span =
        tracing::info_span!("http", otel.name = %format!("http.{method} {route}"), %request_id);
    process::telemetry::continue_trace(&span, |name| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
    });
    edge.metrics.in_flight.inc();
    let (response, actor) =
        answer(&edge, door, &request_id, request, next).instrument(span.clone()).await;
    edge.metrics.in_flight.dec();

    let response = finish(&edge, &request_id, response);
    let took = started.elapsed();
    let status = response.status().as_u16();
    edge.metrics.observe(method.as_str(), &route, status, took);
    let code = response.extensions().get::<Problem>().map(|problem| problem.code.as_str());
    span.in_scope(|| {
        tracing::info!(
            target: "everhold::request",
            %method, route, status, code, door = ?door,
            actor = actor.as_ref().map_or("unknown", Actor::kind),
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    });
    response
}

/// The body, then a slot, then identity and the handler, within the limits. In this order: whoever sends
/// slowly keeps its own connection busy and nobody else out.
async fn answer(
    edge: &Edge,
    door: Door,
    request_id: &Arc<str>,
    request: Request,
    next: Next,
) -> (Response, Option<Actor>) {
    let (mut parts, body) = request.into_parts();
    let late = || Problem::new(Code::BadRequest).detail("the body did not arrive in time");
    let read = tokio::time::timeout(edge.limits.body_within, read(edge, body)).await;
    let (body, _room) = match read.unwrap_or_else(|_| Err(Box::new(late()))) {
        Ok(read) => read,
        Err(problem) => return (Failure(*problem).into_response(), None),
    };
    let Ok(permit) = edge.slots.clone().try_acquire_owned() else {
        return (Failure::from(Code::TooManyRequests).into_response(), None);
    };
    let slot = Slot::of(permit);
    parts.extensions.insert(slot.clone());
    let work = async {
        let identity = match door {
            Door::Public => identity::of_public(edge, &mut parts, &body).await,
            Door::Internal => identity::of_internal(edge, &parts),
        };
        if let (Door::Internal, Err(problem)) = (door, &identity) {
            return (Failure((**problem).clone()).into_response(), None);
        }
        let actor = identity.as_ref().ok().cloned();
        parts.extensions.insert(RequestContext {
            clock: edge.clock.clone(),
            ids: edge.ids.clone(),
            request_id: request_id.clone(),
            identity,
        });
        let request = Request::from_parts(parts, Body::from(body));
        let done = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = done.unwrap_or_else(|_| {
            tracing::error!("a handler panicked");
            Failure::from(Code::Internal).into_response()
        });
        (response, actor)
    };
    let answered = tokio::time::timeout(edge.limits.answer_within, work).await;
    // A clone of it may live on in the answer's stream.
    slot.give_back();
    answered.unwrap_or_else(|_| (Failure::from(Code::Unavailable).into_response(), None))
}

/// The whole body, bounded. Bodies are small here: packs never pass through the control plane. The
/// second part is the room it takes, free again when dropped.
async fn read(
    edge: &Edge,
    mut body: Body,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Box<Problem>> {
    let refused = |code| Box::new(Problem::new(code));
    if body.size_hint().lower() > edge.limits.body as u64 {
        return Err(refused(Code::PayloadTooLarge));
    }
    let mut whole = BytesMut::new();
    let mut room: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| refused(Code::BadRequest))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > edge.limits.body {
            return Err(refused(Code::PayloadTooLarge));
        }
        if whole.len() + data.len() > SMALL {
            let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let more = edge.room.clone().try_acquire_many_owned(bytes);
            let more = more.map_err(|_| refused(Code::TooManyRequests))?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
        }
        whole.extend_from_slice(&data);
    }
    Ok((whole.freeze(), room))
}

/// Headers every answer has; plain-text errors become problems; problems get the request id.
fn finish(edge: &Edge, request_id: &str, response: Response) -> Response {
    let mut response = match response.extensions().get::<Problem>() {
        Some(problem) if problem.request_id.is_none() => {
            let mut problem = problem.clone();
            problem.request_id = Some(request_id.to_owned());
            Failure(problem).into_response()
        }
        Some(_) => response,
        None => match foreign_problem(response.status()) {
            Some(code) => {
                let mut problem = Problem::new(code);
                problem.request_id = Some(request_id.to_owned());
                Failure(problem).into_response()
            }
            None => response,
        },
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    let now = HeaderValue::from(edge.clock.now().unix_millis());
    headers.insert(HeaderName::from_static(SERVER_TIME_HEADER), now);
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The code for an error some layer answered without a problem.
fn foreign_problem(status: StatusCode) -> Option<Code> {
    match status {
        StatusCode::NOT_FOUND => Some(Code::NotFound),
        StatusCode::METHOD_NOT_ALLOWED => Some(Code::MethodNotAllowed),
        StatusCode::PAYLOAD_TOO_LARGE => Some(Code::PayloadTooLarge),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Some(Code::UnsupportedMediaType),
        status if status.is_client_error() => Some(Code::BadRequest),
        status if status.is_server_error() => Some(Code::Internal),
        _ => None,
    }
}
