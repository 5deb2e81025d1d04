//! Objects to and from the store, by presigned requests only (R1).
//!
//! Sends exactly the headers of a grant: one more would be refused, and should be. A refusal here is
//! never final: the caller asks the control plane for a fresh grant and tries again.

use std::{path::Path, sync::Arc, time::Duration};

use api::catalog::PresignedRequest;
use bytes::Bytes;
use futures::TryStreamExt as _;
use reqwest::{Body, Method, StatusCode, header::HeaderMap};
use tokio_util::io::ReaderStream;

use super::Pace;

/// Why an object did not go over.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("the object store cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the object store answered {status}{}", code.as_deref().map(|c| format!(" ({c})")).unwrap_or_default())]
    Refused { status: u16, code: Option<String> },
    #[error("the grant is not a request this agent can send")]
    BadGrant,
    #[error("the journal cannot be read")]
    Journal(#[source] std::io::Error),
    #[error("the object store sent {got} bytes where {wanted} were asked for")]
    WrongLength { wanted: u64, got: u64 },
}

impl TransferError {
    /// Whether a fresh grant and another try make sense.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::WrongLength { .. } => true,
            // 403: an expired grant, 400: a body cut short on the way, 404: not there yet.
            Self::Refused { status, .. } => {
                matches!(*status, 400 | 403 | 404 | 408 | 409 | 429 | 500..=599)
            }
            Self::BadGrant | Self::Journal(_) => false,
        }
    }
}

/// What a PUT came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Stored now, under this version where the store told it.
    Now(Option<String>),
    /// An object of that name is there already: an earlier try got through and its answer was lost.
    Before,
}

/// The line to the object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transfer {
    client: reqwest::Client,
    /// Holds downloads to a limit.
    down: Option<Arc<Pace>>,
}

impl Transfer {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> Result<Self, TransferError> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(TransferError::Unreachable)?;
        Ok(Self { client, down: None })
    }

    /// The same line with downloads held to a limit, shared by all clones.
    #[must_use]
    pub fn with_download_limit(self, down: Option<Arc<Pace>>) -> Self {
        Self { down, ..self }
    }

    /// Streams a file of the journal to the store.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn put(
        &self,
        grant: &PresignedRequest,
        path: &Path,
        length: u64,
    ) -> Result<Stored, TransferError> {
        let file = tokio::fs::File::open(path).await.map_err(TransferError::Journal)?;
        let body = Body::wrap_stream(ReaderStream::with_capacity(file, 256 * 1024));
        let mut headers = headers_of(grant)?;
        // Without it a stream is sent chunked, which the store refuses.
        headers.insert(reqwest::header::CONTENT_LENGTH, length.into());
        let request =
            self.client.request(method_of(grant)?, &grant.url).headers(headers).body(body);
        let response = request.send().await.map_err(TransferError::Unreachable)?;
        match response.status() {
            status if status.is_success() => {
                let version = response.headers().get("x-amz-version-id");
                let version = version.and_then(|value| value.to_str().ok()).map(str::to_owned);
                Ok(Stored::Now(version))
            }
            StatusCode::PRECONDITION_FAILED => Ok(Stored::Before),
            _ => Err(refusal(response).await),
        }
    }

    /// Exactly the bytes `range` of an object.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn get(
        &self,
        grant: &PresignedRequest,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, TransferError> {
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let span = format!("bytes={}-{}", range.start, range.end - 1);
        let request = self
            .client
            .request(method_of(grant)?, &grant.url)
            .headers(headers_of(grant)?)
            .header(reqwest::header::RANGE, span);
        let response = request.send().await.map_err(TransferError::Unreachable)?;
        let whole = response.status() == StatusCode::OK && range.start == 0;
        if response.status() != StatusCode::PARTIAL_CONTENT && !whole {
            return Err(refusal(response).await);
        }
        let bytes = read_at_most(response, wanted, self.down.as_deref()).await?;
        let got = bytes.len() as u64;
        if got == wanted { Ok(bytes) } else { Err(TransferError::WrongLength { wanted, got }) }
    }
}

/// A store that sends more than was asked for does not fill our memory.
async fn read_at_most(
    response: reqwest::Response,
    most: u64,
    pace: Option<&Pace>,
) -> Result<Bytes, TransferError> {
    let room = usize::try_from(most).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(room.min(64 << 20));
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.try_next().await.map_err(TransferError::Unreachable)? {
        bytes.extend_from_slice(&piece);
        if let Some(pace) = pace {
            pace.take(piece.len() as u64).await;
        }
        if bytes.len() as u64 > most {
            return Err(TransferError::WrongLength { wanted: most, got: bytes.len() as u64 });
        }
    }
    Ok(bytes.into())
}

fn method_of(grant: &PresignedRequest) -> Result<Method, TransferError> {
    match grant.method.as_str() {
        "PUT" => Ok(Method::PUT),
        "GET" => Ok(Method::GET),
        _ => Err(TransferError::BadGrant),
    }
}

fn headers_of(grant: &PresignedRequest) -> Result<HeaderMap, TransferError> {
    let mut headers = HeaderMap::new();
    for header in grant.headers.iter().filter(|header| !header.name.eq_ignore_ascii_case("host")) {
        let name: http::HeaderName = header.name.parse().map_err(|_| TransferError::BadGrant)?;
        let value = header.value.parse().map_err(|_| TransferError::BadGrant)?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Status and, from the XML body, the store's own word for it. Never the URL: it is a capability.
async fn refusal(response: reqwest::Response) -> TransferError {
    let status = response.status().as_u16();
    let body = read_at_most(response, 16 * 1024, None).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map(|(code, _)| code.chars().take(64).collect());
    TransferError::Refused { status, code }
}
