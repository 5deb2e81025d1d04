//! The typed client over any transport: HTTP, or a router in this process.
//!
//! One place builds paths, signs, reads problems and learns the server's time. Callers get a DTO or an
//! [`Error`]; whether to try again is said by the error, never guessed from a status.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use domain::{AgentId, Clock, IdGen, TenantId, Timestamp};
use ed25519_dalek::SigningKey;
use http::{Method, Request, Response, header};
use serde::{Serialize, de::DeserializeOwned};
use tower::{ServiceExt as _, util::BoxCloneSyncService};

use crate::{
    problem::{Advice, Code, Problem},
    signature,
};

/// Reply header with the server's time in milliseconds since 1970.
pub const SERVER_TIME_HEADER: &str = "x-everhold-time-ms";

/// A router in this process, as a transport.
pub type InProcess = BoxCloneSyncService<Request<Bytes>, Response<Bytes>, std::convert::Infallible>;

#[derive(Clone)]
enum Transport {
    Http(reqwest::Client),
    InProcess(InProcess),
}

/// Who the client speaks as.
#[derive(Clone)]
pub enum Identity {
    Anonymous,
    Bearer(String),
    Agent(Arc<AgentIdentity>),
}

/// An enrolled agent's name and signing key, with the learnt offset to server time.
pub struct AgentIdentity {
    pub tenant_id: TenantId,
    pub agent_id: AgentId,
    pub key: SigningKey,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGen>,
    offset_ms: AtomicI64,
}

impl AgentIdentity {
    pub fn new(
        tenant_id: TenantId,
        agent_id: AgentId,
        key: SigningKey,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdGen>,
    ) -> Self {
        Self { tenant_id, agent_id, key, clock, ids, offset_ms: AtomicI64::new(0) }
    }

    /// The server's time as far as this agent knows it; the machine's clock stays untouched.
    pub fn server_now(&self) -> Timestamp {
        let here = i64::try_from(self.clock.now().unix_millis()).unwrap_or(i64::MAX);
        let there = here.saturating_add(self.offset_ms.load(Ordering::Relaxed));
        Timestamp::from_unix_millis(there.max(0).unsigned_abs())
    }

    fn learn(&self, server_ms: i64) {
        let here = i64::try_from(self.clock.now().unix_millis()).unwrap_or(i64::MAX);
        self.offset_ms.store(server_ms.saturating_sub(here), Ordering::Relaxed);
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a problem.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// No answer: connection refused, reset, timed out.
    #[error("the server at {server} cannot be reached")]
    Unreachable {
        server: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that is not ours: a proxy, a wrong address, an older or newer server.
    #[error("unexpected answer {status} from {server}: is this an Everhold server?")]
    Unexpected { server: String, status: u16 },
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.advice == Advice::Retry,
            Self::Unreachable { .. } => true,
            Self::Unexpected { status, .. } => matches!(status, 502..=504),
        }
    }
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            _ => None,
        }
    }
}

/// A client of one server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    base: Arc<str>,
    transport: Transport,
    identity: Identity,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `base` (`http://localhost:8080`, without a trailing slash).
    ///
    /// # Errors
    /// When the TLS stack cannot be set up.
    pub fn http(base: &str, identity: Identity) -> Result<Self, Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(120))
            .user_agent(concat!("everhold/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| Error::Unreachable {
                server: base.to_owned(),
                source: source.into(),
            })?;
        let base = base.trim_end_matches('/').into();
        Ok(Self { base, transport: Transport::Http(client), identity })
    }

    /// A client of a router in this process; `base` is the origin signatures name.
    pub fn in_process(base: &str, router: InProcess, identity: Identity) -> Self {
        let base = base.trim_end_matches('/').into();
        Self { base, transport: Transport::InProcess(router), identity }
    }

    /// The same server, spoken to as somebody else.
    #[must_use]
    pub fn with_identity(&self, identity: Identity) -> Self {
        Self { identity, ..self.clone() }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// # Errors
    /// See [`Error`].
    pub async fn get<R: DeserializeOwned>(&self, path: &str) -> Result<R, Error> {
        self.call(Method::GET, path, None::<&()>).await
    }
    /// # Errors
    /// See [`Error`].
    pub async fn post<B: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<R, Error> {
        self.call(Method::POST, path, Some(body)).await
    }
    /// # Errors
    /// See [`Error`].
    pub async fn put<B: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<R, Error> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// # Errors
    /// See [`Error`].
    pub async fn delete<R: DeserializeOwned>(&self, path: &str) -> Result<R, Error> {
        self.call(Method::DELETE, path, None::<&()>).await
    }

    /// One call; `path` starts with `/` and holds the query. A clock-skew answer is learnt from and tried once more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call<B: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<R, Error> {
        let bytes = match body {
            Some(body) => Bytes::from(serde_json::to_vec(body).map_err(|source| {
                Error::Unreachable { server: self.base.to_string(), source: source.into() }
            })?),
            None => Bytes::new(),
        };
        match self.once(&method, path, &bytes).await {
            Err(error) if error.code() == Some(Code::ClockSkew) => {
                self.once(&method, path, &bytes).await
            }
            other => other,
        }
    }

    async fn once<R: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<R, Error> {
        let request = self.request(method, path, body)?;
        let response = self.send(request).await?;
        if let Identity::Agent(agent) = &self.identity
            && let Some(ms) = header_i64(response.headers(), SERVER_TIME_HEADER)
        {
            agent.learn(ms);
        }
        let status = response.status();
        let unexpected =
            || Error::Unexpected { server: self.base.to_string(), status: status.as_u16() };
        if status.is_success() {
            let body: &[u8] = if response.body().is_empty() { b"null" } else { response.body() };
            return serde_json::from_slice(body).map_err(|_| unexpected());
        }
        let problem: Problem = serde_json::from_slice(response.body()).map_err(|_| unexpected())?;
        Err(Error::Problem(Box::new(problem)))
    }

    fn request(&self, method: &Method, path: &str, body: &Bytes) -> Result<Request<Bytes>, Error> {
        let uri = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&uri);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        match &self.identity {
            Identity::Anonymous => {}
            Identity::Bearer(token) => {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            Identity::Agent(agent) => {
                let mut nonce = [0; 16];
                agent.ids.fill(&mut nonce);
                let signed = signature::sign(
                    &agent.key,
                    agent.tenant_id,
                    agent.agent_id,
                    method.as_str(),
                    &uri,
                    body,
                    agent.server_now(),
                    nonce,
                );
                request = request
                    .header("content-digest", signed.content_digest)
                    .header("signature-input", signed.signature_input)
                    .header("signature", signed.signature);
            }
        }
        request.body(body.clone()).map_err(|source| Error::Unreachable {
            server: self.base.to_string(),
            source: source.into(),
        })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        match &self.transport {
            Transport::InProcess(router) => match router.clone().oneshot(request).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            },
            Transport::Http(client) => self.send_http(client, request).await,
        }
    }

    async fn send_http(
        &self,
        client: &reqwest::Client,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Error> {
        let unreachable = |source: reqwest::Error| Error::Unreachable {
            server: self.base.to_string(),
            source: source.into(),
        };
        let request = reqwest::Request::try_from(request).map_err(unreachable)?;
        let response = client.execute(request).await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(unreachable)?;
        let mut built = Response::new(body);
        *built.status_mut() = status;
        *built.headers_mut() = headers;
        Ok(built)
    }
}

fn header_i64(headers: &http::HeaderMap, name: &str) -> Option<i64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
