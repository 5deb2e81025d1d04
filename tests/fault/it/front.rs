//! What stands before the control plane and before the store: every request passes here.
//!
//! Owns the words for requests and what a fault makes of them. Invariant: everything that was ever sent to
//! be stored as a pack is noted, whether it arrived or not.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use vault::{id::Sha256, pack::HEADER_LEN};

use crate::plan::{Fault, Op, Plan, Seam, Verdict};

/// What answers behind it.
pub enum Backend {
    ControlPlane(Router),
    Store {
        http: reqwest::Client,
        address: SocketAddr,
        /// Said after what an object is; nothing for the vault's own store.
        of: &'static str,
        /// Set: it answers nobody.
        down: Arc<AtomicBool>,
    },
}

/// Every pack ever sent: its header and the hash of all of it.
pub type Sent = Arc<Mutex<Vec<(Vec<u8>, Sha256)>>>;

/// Objects that were asked to go and that the store did not let go.
pub type Denied = Arc<Mutex<Vec<String>>>;

/// What is asked and told at a front.
#[derive(Clone)]
pub struct Watch {
    pub plan: Arc<Plan>,
    pub sent: Sent,
    pub denied: Denied,
}

pub struct Front {
    pub watch: Watch,
    pub backend: Backend,
}

/// The connection ends without a word.
#[derive(Debug)]
pub struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("gone")
    }
}
impl std::error::Error for Gone {}

/// A body that is sent, or breaks off in the middle.
type Pieces = pieces::Pieces;

/// Serves until the test ends.
pub async fn serve(listener: TcpListener, front: Arc<Front>) {
    while let Ok((stream, _)) = listener.accept().await {
        let front = front.clone();
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(front.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A connection that ends badly is what this is for.
            let _ = connection.await;
        });
    }
}

async fn answer(front: Arc<Front>, request: Request<Incoming>) -> Result<Response<Body>, Gone> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Gone)?.to_bytes();
    let op = front.op(&parts);
    front.note(&parts, &body);
    let verdict =
        if op.name.ends_with("heartbeat") { Verdict::Pass } else { front.watch.plan.ask(&op) };
    let fault = match verdict {
        Verdict::Dead => return Err(Gone),
        Verdict::Pass => return Ok(whole(front.carry(&parts, body, false).await?)),
        Verdict::Do(fault) => fault,
    };
    match fault {
        Fault::Kill => Err(Gone),
        Fault::FailOnce | Fault::FailForever => Ok(refusal(StatusCode::SERVICE_UNAVAILABLE)),
        Fault::Fail500 => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR)),
        Fault::Delay => {
            tokio::time::sleep(Duration::from_millis(25)).await;
            Ok(whole(front.carry(&parts, body, false).await?))
        }
        Fault::LoseAck => {
            let _ = front.carry(&parts, body, false).await;
            Err(Gone)
        }
        Fault::KillAfter => {
            let _ = front.carry(&parts, body, false).await;
            front.watch.plan.kill(op.seam);
            Err(Gone)
        }
        Fault::Tear => {
            let _ = front.carry(&parts, body, true).await;
            Err(Gone)
        }
        Fault::TearAnswer => Ok(torn(front.carry(&parts, body, false).await?)),
        Fault::Html => Ok(portal_page()),
        Fault::Stall => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Err(Gone)
        }
    }
}

impl Front {
    /// The request in words, without ids.
    fn op(&self, parts: &Parts) -> Op {
        let path = parts.uri.path();
        match &self.backend {
            Backend::ControlPlane(_) => {
                let rest = path.strip_prefix("/v1/tenants/").unwrap_or(path);
                let rest = rest.split_once('/').map_or("", |(_, rest)| rest);
                let words: Vec<&str> = rest
                    .split('/')
                    .map(|word| if word.contains('_') { "…" } else { word })
                    .collect();
                Op { seam: Seam::Api, name: format!("{} {}", parts.method, words.join("/")) }
            }
            Backend::Store { of, .. } => {
                let query = parts.uri.query().unwrap_or_default();
                let presigned = query.contains("X-Amz-Signature");
                let seam = if presigned { Seam::AgentStore } else { Seam::ServerStore };
                Op { seam, name: format!("{} {}{of}", parts.method, object(path, query)) }
            }
        }
    }

    fn note(&self, parts: &Parts, body: &Bytes) {
        let path = parts.uri.path();
        let is_pack = path.contains("/data/") || path.contains("/meta/");
        if parts.method == http::Method::PUT
            && is_pack
            && let Some(header) = body.get(..HEADER_LEN)
        {
            let mut sent = self.watch.sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.push((header.to_vec(), Sha256::of(body)));
        }
    }

    async fn carry(&self, parts: &Parts, body: Bytes, tear: bool) -> Result<Response<Bytes>, Gone> {
        let length = body.len();
        let body = if tear { body.slice(..length / 2) } else { body };
        match &self.backend {
            Backend::ControlPlane(router) => {
                let body = if tear { broken_off(body) } else { Body::from(body) };
                let request = Request::from_parts(parts.clone(), body);
                let mut life = self.watch.plan.life();
                tokio::select! {
                    () = life.over() => Err(Gone),
                    response = call(router.clone(), request) => response,
                }
            }
            Backend::Store { down, .. } if down.load(Ordering::SeqCst) => Err(Gone),
            Backend::Store { http, address, .. } => {
                let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
                let mut headers = parts.headers.clone();
                headers.remove(header::CONTENT_LENGTH);
                headers.remove(header::TRANSFER_ENCODING);
                headers.remove(header::EXPECT);
                if length > 0 || parts.method == http::Method::PUT {
                    headers.insert(header::CONTENT_LENGTH, length.into());
                }
                let request = http.request(parts.method.clone(), format!("http://{address}{path}"));
                let request = request.headers(headers);
                let request = if tear {
                    request.body(reqwest::Body::wrap(Pieces::new(body)))
                } else {
                    request.body(body)
                };
                let response = request.send().await.map_err(|_| Gone)?;
                let (status, headers) = (response.status(), response.headers().clone());
                // The probe asks for just that.
                let is_probe = path.contains("/probe/");
                if parts.method == http::Method::DELETE
                    && status == StatusCode::FORBIDDEN
                    && !is_probe
                {
                    let mut denied =
                        self.watch.denied.lock().unwrap_or_else(PoisonError::into_inner);
                    denied.push(path.to_owned());
                }
                let mut built = Response::new(response.bytes().await.map_err(|_| Gone)?);
                *built.status_mut() = status;
                *built.headers_mut() = headers;
                Ok(built)
            }
        }
    }
}

/// What a path of the store names.
fn object(path: &str, query: &str) -> String {
    let sub = ["retention", "versions", "legal-hold", "uploads"]
        .into_iter()
        .find(|sub| query.split('&').any(|part| part.split('=').next() == Some(sub)));
    let kind = ["data", "meta", "manifest", "receipt", "forget"];
    let kind = kind.into_iter().find(|kind| path.contains(&format!("/{kind}/")));
    let kind = kind.unwrap_or(if path.starts_with("/keys/") { "key object" } else { "bucket" });
    sub.map_or_else(|| kind.to_owned(), |sub| format!("{sub} of {kind}"))
}

async fn call(router: Router, request: Request<Body>) -> Result<Response<Bytes>, Gone> {
    let response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map_err(|_| Gone)?.to_bytes();
    Ok(Response::from_parts(parts, bytes))
}

fn clean(headers: &mut HeaderMap, keep_length: bool) {
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    if !keep_length {
        headers.remove(header::CONTENT_LENGTH);
    }
}

fn whole(response: Response<Bytes>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    // Of a HEAD the length is told without a body.
    clean(&mut parts.headers, body.is_empty());
    Response::from_parts(parts, Body::from(body))
}

/// All headers, half the body.
fn torn(response: Response<Bytes>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    clean(&mut parts.headers, false);
    parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    Response::from_parts(parts, broken_off(body.slice(..body.len() / 2)))
}

fn refusal(status: StatusCode) -> Response<Body> {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{}</Code><Message>planted</Message></Error>",
        if status == StatusCode::SERVICE_UNAVAILABLE { "SlowDown" } else { "InternalError" }
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}

fn portal_page() -> Response<Body> {
    let page = "<!doctype html><title>Welcome to our network</title><p>Please sign in.";
    let mut response = Response::new(Body::from(page));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html"));
    response
}

fn broken_off(first: Bytes) -> Body {
    Body::new(Pieces::new(first))
}

mod pieces {
    //! A body that ends in an error after what it has.

    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use hyper::body::{Body, Frame};

    use super::{Bytes, Gone};

    pub struct Pieces(Option<Bytes>);

    impl Pieces {
        pub fn new(first: Bytes) -> Self {
            Self(Some(first))
        }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Gone;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Gone>>> {
            Poll::Ready(Some(self.0.take().map(Frame::data).ok_or(Gone)))
        }
    }
}
