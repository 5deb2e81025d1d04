//! Objects to and from the store, by presigned requests only (R1).
//!
//! Sends exactly the headers of a grant: one more would be refused, and should be. A refusal here is
//! never final: the caller asks the control plane for a fresh grant and tries again.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::catalog::PresignedRequest;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use reqwest::{Body, Method, StatusCode, header::HeaderMap};
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use vault::pack::Pieces;

use super::Pace;

/// Why an object did not go over.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("the object store cannot be reached")]
    Unreachable(#[source] WithoutUrl),
    #[error("the object store answered {status}{}", code.as_deref().map(|c| format!(" ({c})")).unwrap_or_default())]
    Refused { status: u16, code: Option<String> },
    #[error("the grant is not a request this agent can send")]
    BadGrant,
    #[error("the journal cannot be read")]
    Journal(#[source] std::io::Error),
    #[error("the object store sent {got} bytes where {wanted} were asked for")]
    WrongLength { wanted: u64, got: u64 },
    #[error("the object in the store ends after {length} bytes, before what was asked for")]
    EndsEarly { length: u64 },
    #[error("nothing moved between here and the object store for {} s", .0.as_secs())]
    Stalled(Duration),
}

/// What went wrong with a request, and nothing of its address: whoever reads a presigned URL in a log may send it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WithoutUrl(reqwest::Error);

impl WithoutUrl {
    fn of(error: reqwest::Error) -> TransferError {
        TransferError::Unreachable(Self(error.without_url()))
    }
}

impl TransferError {
    /// What a person can do about it.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Stalled(_) => {
                "check that this machine reaches the object store (name, network, proxy), then run the command again"
            }
            Self::Refused { status: 401 | 403, .. } => {
                "the store does not accept what the platform signed: set this machine's clock, and ask your \
                 administrator to run: everhold store probe"
            }
            Self::Refused { .. }
            | Self::WrongLength { .. }
            | Self::EndsEarly { .. }
            | Self::BadGrant => {
                "run the command again; if it fails again, ask your administrator to run: everhold store probe"
            }
            Self::Journal(_) => "check the disk of the agent's home",
        }
    }

    /// Whether the store said that it does not let us.
    pub const fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { status: 401 | 403, .. })
    }

    /// Whether a fresh grant and another try make sense.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::WrongLength { .. } | Self::Stalled(_) => true,
            // 403: an expired grant, 400: a body cut short on the way, 404: not there yet.
            Self::Refused { status, .. } => {
                matches!(*status, 400 | 403 | 404 | 408 | 409 | 429 | 500..=599)
            }
            Self::BadGrant | Self::Journal(_) | Self::EndsEarly { .. } => false,
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

/// No more than this without a byte in either direction. A limit for a whole transfer would keep slow lines out: 64 MiB
/// take longer than a minute below 9 Mbit/s.
const STALL: Duration = faults::sooner(Duration::from_secs(60));

/// How much of a file is read and sent at a time.
const PIECE: usize = 64 * 1024;

/// Where the bytes of an object are that is to be stored.
#[derive(Debug, Clone)]
pub enum Payload {
    File(PathBuf),
    Memory(Pieces),
}

/// Pieces that share the memory of these, of `most` bytes each.
fn in_memory(bytes: &Pieces, most: usize) -> impl Stream<Item = io::Result<Bytes>> + use<> {
    let pieces: Vec<Bytes> = bytes.iter().cloned().collect();
    let cut = pieces.into_iter().flat_map(move |piece| {
        let ends = (0..piece.len()).step_by(most);
        ends.map(move |from| piece.slice(from..piece.len().min(from + most)))
    });
    futures::stream::iter(cut.map(Ok))
}

/// The line to the object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transfer {
    client: reqwest::Client,
    /// How long nothing may move.
    stall: Duration,
    /// Hold downloads and uploads to a limit.
    down: Option<Arc<Pace>>,
    up: Option<Arc<Pace>>,
}

impl Transfer {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> Result<Self, TransferError> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(WithoutUrl::of)?;
        Ok(Self { client, stall: STALL, down: None, up: None })
    }

    /// The same line, given up when nothing moves for so long; a minute unless told otherwise.
    #[must_use]
    pub fn with_stall(self, stall: Duration) -> Self {
        Self { stall, ..self }
    }

    /// The same line with downloads held to a limit, shared by all clones.
    #[must_use]
    pub fn with_download_limit(self, down: Option<Arc<Pace>>) -> Self {
        Self { down, ..self }
    }

    /// The same line with uploads held to a limit, shared by all clones.
    #[must_use]
    pub fn with_upload_limit(self, up: Option<Arc<Pace>>) -> Self {
        Self { up, ..self }
    }

    /// Streams an object to the store.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn put(
        &self,
        grant: &PresignedRequest,
        payload: &Payload,
        length: u64,
    ) -> Result<Stored, TransferError> {
        let moved = Moved::default();
        let piece = self.up.as_ref().map_or(PIECE, |pace| pace.piece(PIECE));
        let body = match payload {
            Payload::File(path) => {
                let file = tokio::fs::File::open(path).await.map_err(TransferError::Journal)?;
                ReaderStream::with_capacity(file, piece).boxed()
            }
            Payload::Memory(bytes) => in_memory(bytes, piece).boxed(),
        };
        let body = body.and_then({
            let (moved, up) = (moved.clone(), self.up.clone());
            move |bytes| {
                let (moved, up) = (moved.clone(), up.clone());
                async move {
                    if let Some(pace) = up {
                        pace.take(bytes.len() as u64).await;
                    }
                    moved.now();
                    Ok(bytes)
                }
            }
        });
        let body = Body::wrap_stream(body);
        let mut headers = headers_of(grant)?;
        // Without it a stream is sent chunked, which the store refuses.
        headers.insert(reqwest::header::CONTENT_LENGTH, length.into());
        let request =
            self.client.request(method_of(grant)?, &grant.url).headers(headers).body(body);
        let response = tokio::select! {
            response = request.send() => response.map_err(WithoutUrl::of)?,
            () = moved.stands_still(self.stall) => return Err(TransferError::Stalled(self.stall)),
        };
        match response.status() {
            status if status.is_success() => {
                let version = response.headers().get("x-amz-version-id");
                let version = version.and_then(|value| value.to_str().ok()).map(str::to_owned);
                Ok(Stored::Now(version))
            }
            StatusCode::PRECONDITION_FAILED => Ok(Stored::Before),
            _ => Err(self.refusal(response).await),
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
        Ok(self.get_sized(grant, range).await?.0)
    }

    /// The same, and the length of the whole object where the store tells it with a part.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_sized(
        &self,
        grant: &PresignedRequest,
        range: std::ops::Range<u64>,
    ) -> Result<(Bytes, Option<u64>), TransferError> {
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok((Bytes::new(), None));
        }
        let span = format!("bytes={}-{}", range.start, range.end - 1);
        let request = self
            .client
            .request(method_of(grant)?, &grant.url)
            .headers(headers_of(grant)?)
            .header(reqwest::header::RANGE, span);
        let response = self.in_time(request.send()).await?;
        let whole = response.status() == StatusCode::OK && range.start == 0;
        if response.status() != StatusCode::PARTIAL_CONTENT && !whole {
            return Err(self.refusal(response).await);
        }
        let told = response.headers().get(reqwest::header::CONTENT_RANGE);
        let told = told.and_then(|value| whole_length(value.to_str().ok()?));
        if let Some(length) = told.filter(|told| *told < range.end) {
            return Err(TransferError::EndsEarly { length });
        }
        let bytes = self.read_at_most(response, wanted, self.down.as_deref()).await?;
        let got = bytes.len() as u64;
        if got == wanted {
            Ok((bytes, told))
        } else {
            Err(TransferError::WrongLength { wanted, got })
        }
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, TransferError> {
        let told = tokio::time::timeout(self.stall, call).await;
        told.map_err(|_| TransferError::Stalled(self.stall))?.map_err(WithoutUrl::of)
    }

    /// A store that sends more than was asked for does not fill our memory.
    async fn read_at_most(
        &self,
        response: reqwest::Response,
        most: u64,
        pace: Option<&Pace>,
    ) -> Result<Bytes, TransferError> {
        let room = usize::try_from(most).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(room.min(64 << 20));
        let mut stream = response.bytes_stream();
        while let Some(piece) = self.in_time(stream.try_next()).await? {
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

    /// Status and, from the XML body, the store's own word for it. Never the URL: it is a capability.
    async fn refusal(&self, response: reqwest::Response) -> TransferError {
        let status = response.status().as_u16();
        let body = self.read_at_most(response, 16 * 1024, None).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        let code = code.map(|(code, _)| code.chars().take(64).collect());
        TransferError::Refused { status, code }
    }
}

/// Of `bytes 0-9/1234` the last number.
fn whole_length(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.rsplit_once('/')?.1.parse().ok()
}

/// When a piece of a body was last asked for.
#[derive(Debug, Clone)]
struct Moved(Arc<Mutex<Instant>>);

impl Default for Moved {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Moved {
    fn at(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn now(&self) {
        *self.at() = Instant::now();
    }
    /// Resolves when nothing was asked for in so long.
    async fn stands_still(&self, stall: Duration) {
        loop {
            let until = *self.at() + stall;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
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

#[cfg(test)]
mod tests {
    use api::catalog::PresignedRequest;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpSocket, TcpStream},
    };

    use std::io::Write as _;

    use super::*;

    const STALL: Duration = Duration::from_secs(2);

    /// A store that treats its one connection as told; the address for it.
    async fn store<F>(treat: impl FnOnce(TcpStream) -> F + Send + 'static) -> PresignedRequest
    where
        F: Future<Output = ()> + Send,
    {
        let socket = TcpSocket::new_v4().expect("socket");
        // By itself it grows until all of an upload is in it, and then nothing moves until the answer.
        socket.set_recv_buffer_size(1 << 20).expect("a buffer");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("port");
        let listener = socket.listen(1).expect("listens");
        let url = format!("http://{}/x", listener.local_addr().expect("address"));
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a caller");
            treat(stream).await;
        });
        let expires_at = domain::Timestamp::UNIX_EPOCH;
        PresignedRequest { method: "PUT".to_owned(), url, headers: Vec::new(), expires_at }
    }

    fn transfer() -> Transfer {
        Transfer::new().expect("client").with_stall(STALL)
    }

    /// Larger than what the system's buffers swallow at once.
    fn large() -> (tempfile::NamedTempFile, u64) {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), vec![7; 24 << 20]).expect("write");
        (file, 24 << 20)
    }

    fn file_at(file: &tempfile::NamedTempFile) -> Payload {
        Payload::File(file.path().to_owned())
    }

    /// Reads the request in pieces with a pause after each, then says that it is stored.
    async fn slowly(mut stream: TcpStream) {
        let mut ticks = tokio::time::interval(STALL / 10);
        let (mut buffer, mut left) = (vec![0; 1 << 20], 24_u64 << 20);
        while left > 0 {
            ticks.tick().await;
            left = left.saturating_sub(stream.read(&mut buffer).await.expect("read") as u64);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("answer");
    }

    #[tokio::test]
    async fn an_object_that_ends_early_is_not_asked_for_again() {
        let part = |from: u64, length: usize| {
            async move |mut stream: TcpStream| {
                let mut asked = [0; 4_096];
                let _ = stream.read(&mut asked).await;
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-29/30\r\ncontent-length: {length}\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.expect("head");
                stream.write_all(&vec![7; length]).await.expect("body");
            }
        };
        let grant = store(part(20, 10)).await;
        let short = transfer().get_sized(&grant, 20..50).await.expect_err("there are only 30");
        assert!(matches!(short, TransferError::EndsEarly { length: 30 }), "{short}");
        assert!(!short.is_retryable());
        // A body that was cut on its way is another matter.
        let grant = store(part(0, 20)).await;
        let cut = transfer().get_sized(&grant, 0..30).await.expect_err("20 of 30");
        assert!(cut.is_retryable(), "{cut}");
    }

    #[tokio::test]
    async fn an_upload_may_take_long_as_long_as_it_moves() {
        let (file, length) = large();
        let grant = store(slowly).await;
        let start = Instant::now();
        let stored = transfer().put(&grant, &file_at(&file), length).await.expect("stored");
        assert_eq!(stored, Stored::Now(None));
        assert!(start.elapsed() > STALL * 2, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn uploads_together_pass_no_more_than_their_limit() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        let length = 512 << 10;
        file.write_all(&vec![7; length]).expect("write");
        let limit = super::super::Rate::per_second(1 << 20);
        let transfer = transfer().with_upload_limit(limit.map(|rate| Arc::new(Pace::new(rate))));
        let taker = |length: usize| {
            move |mut stream: TcpStream| async move {
                let mut left = length;
                let mut buffer = vec![0; 64 << 10];
                while left > 0 {
                    // The head is read with the body; this only ends the loop a little early.
                    left = left.saturating_sub(stream.read(&mut buffer).await.expect("read"));
                }
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .expect("answer");
                while stream.read(&mut buffer).await.is_ok_and(|got| got > 0) {}
            }
        };
        let (one, two) = (store(taker(length)).await, store(taker(length)).await);
        let in_file = file_at(&file);
        let in_memory = Payload::Memory(vec![7; length].into());
        let start = Instant::now();
        let both = futures::future::join(
            transfer.put(&one, &in_file, length as u64),
            transfer.put(&two, &in_memory, length as u64),
        );
        let (one, two) = both.await;
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        // 1 MiB at 1 MiB/s, less the burst and the pieces that were last; a busy machine only takes longer.
        assert!(start.elapsed() >= Duration::from_millis(800), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn no_error_tells_what_was_signed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let nobody = listener.local_addr().expect("address");
        drop(listener);
        let torn = |mut stream: TcpStream| async move {
            let _ = stream.read(&mut [0; 4_096]).await.expect("the request");
            stream.write_all(b"HTTP/1.1 nonsense").await.expect("half an answer");
        };
        for at_all in [false, true] {
            let (file, length) = large();
            let mut grant = store(torn).await;
            if !at_all {
                grant.url = format!("http://{nobody}/bucket/key");
            }
            grant.url.push_str("?X-Amz-Credential=id&X-Amz-Signature=feedbeef");
            let put = transfer().put(&grant, &file_at(&file), length).await.map(drop);
            grant.method = "GET".to_owned();
            let get = transfer().get(&grant, 0..10).await.map(drop);
            for error in [put, get].map(Result::unwrap_err) {
                let mut told = format!("{error} {error:?}");
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    told.push_str(&format!(" {error} {error:?}"));
                    cause = error.source();
                }
                assert!(matches!(error, TransferError::Unreachable(_)), "{told}");
                assert!(!told.contains("X-Amz") && !told.contains("feedbeef"), "{told}");
            }
        }
    }

    #[tokio::test]
    async fn a_store_that_takes_nothing_or_says_nothing_is_given_up() {
        let (file, length) = large();
        let silent = |stream: TcpStream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        };
        let grant = store(silent).await;
        let put = transfer().put(&grant, &file_at(&file), length).await;
        assert!(matches!(put, Err(TransferError::Stalled(_))), "{put:?}");
        let mut grant = store(silent).await;
        grant.method = "GET".to_owned();
        let get = transfer().get(&grant, 0..10).await;
        assert!(matches!(get, Err(TransferError::Stalled(_))), "{get:?}");
        let half = |mut stream: TcpStream| async move {
            let _ = stream.read(&mut [0; 4_096]).await.expect("the request");
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
            stream.write_all(head).await.expect("half an answer");
            std::future::pending::<()>().await;
        };
        let mut grant = store(half).await;
        grant.method = "GET".to_owned();
        let get = transfer().get(&grant, 0..10).await;
        assert!(matches!(get, Err(TransferError::Stalled(_))), "{get:?}");
    }

    #[tokio::test]
    async fn a_part_of_an_object_comes_with_the_length_of_the_whole() {
        for (head, told) in [("Content-Range: bytes 2-5/9\r\n", Some(9)), ("", None)] {
            let answer = format!("HTTP/1.1 206 Partial\r\n{head}Content-Length: 4\r\n\r\nabcd");
            let grant = store(move |mut stream| async move {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.expect("a request");
                assert!(String::from_utf8_lossy(&request[..read]).contains("bytes=2-5"));
                stream.write_all(answer.as_bytes()).await.expect("answers");
            });
            let grant = PresignedRequest { method: "GET".to_owned(), ..grant.await };
            let (bytes, whole) = transfer().get_sized(&grant, 2..6).await.expect("comes");
            assert_eq!((&bytes[..], whole), (&b"abcd"[..], told));
        }
    }
}
