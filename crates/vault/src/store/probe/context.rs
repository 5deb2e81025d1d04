//! What the cases share: the store, a raw HTTP client, one locked object, and how to send a signed
//! request with something changed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use domain::{Clock, IdGen, Timestamp};
use md5::{Digest as _, Md5};
use sha2::Sha256;
use tokio::sync::OnceCell;

use super::{Finding, explain, fail};
use crate::store::{ListedVersion, PresignedRequest, PutGrant, S3Store, StoreConfig, StoreError};

/// Every object of every probe is under this.
pub(super) const PREFIX: &str = "probe/";
/// The lock of a probe's objects.
pub(super) const LOCK: Duration = Duration::from_secs(60);
const URL_LIFE: Duration = Duration::from_secs(300);

pub(super) struct Context {
    pub store: S3Store,
    pub http: reqwest::Client,
    pub clock: Arc<dyn Clock>,
    /// `probe/<id>/`
    prefix: String,
    base: OnceCell<Base>,
}

/// The object most cases attack.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub key: String,
    pub version_id: String,
    pub body: Bytes,
    pub until: Timestamp,
}

/// What came back from a raw request.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub version_id: Option<String>,
    pub date: Option<String>,
    pub body: Bytes,
}

impl Answer {
    pub(super) fn refused(&self) -> bool {
        (400..500).contains(&self.status)
    }
    /// Status and S3 error code.
    pub(super) fn describe(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let code = text.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next());
        format!("{} {}", self.status, code.unwrap_or_default()).trim().to_owned()
    }
}

impl Context {
    pub(super) async fn prepare(
        config: &StoreConfig,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdGen>,
    ) -> Result<Self, StoreError> {
        // Asks for everything, whatever is recorded: that is the question.
        let config = StoreConfig { capabilities: super::Capabilities::default(), ..config.clone() };
        let store = S3Store::connect(config).await?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(|e| StoreError::Configuration(explain(&e)))?;
        let id = ids.uuid(clock.now());
        let prefix = format!("{PREFIX}{}/", id.simple());
        let cx = Self { store, http, clock, prefix, base: OnceCell::new() };
        cx.sweep().await;
        Ok(cx)
    }

    /// Deletes what earlier probes left, where the lock is over. Nothing depends on it.
    async fn sweep(&self) {
        let Ok(page) = self.store.list_versions(PREFIX, None).await else { return };
        let reaper = &self.store.inner.reaper;
        for old in page.versions.iter().filter(|version| version.key.starts_with(PREFIX)) {
            let facts = self.store.head_with(reaper, &old.key, &old.version_id).await;
            let over = match facts {
                Ok(Some(facts)) => facts.lock_until.is_some_and(|until| until <= self.clock.now()),
                _ => old.delete_marker,
            };
            if over {
                // A refusal only means that it stays for the next probe.
                let _ = self.store.delete_by_id(&old.key, &old.version_id).await;
            }
        }
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn grant(&self, name: &str, body: &[u8]) -> PutGrant {
        let now = self.clock.now();
        PutGrant {
            key: self.key(name),
            length: body.len() as u64,
            sha256: Sha256::digest(body).into(),
            md5: Some(Md5::digest(body).into()),
            lock_until: (now + LOCK).ceil_to_second(),
            expires_in: URL_LIFE,
            now,
        }
    }

    /// Stored once, at first use.
    pub(super) async fn base(&self) -> Result<&Base, Finding> {
        self.base
            .get_or_try_init(|| async {
                let body = Bytes::from(vec![0x5a_u8; 70_000]);
                let grant = self.grant("base", &body);
                let signed = self.store.presign_put(&grant).await?;
                let answer = self.send(&signed, body.clone()).await?;
                if answer.status != 200 {
                    return fail(format!("the granted upload got {}", answer.describe()));
                }
                let Some(version_id) = answer.version_id else {
                    return fail("the upload's answer names no version id");
                };
                Ok(Base { key: grant.key, version_id, body, until: grant.lock_until })
            })
            .await
    }

    /// Sends a signed request as it is.
    pub(super) async fn send(
        &self,
        signed: &PresignedRequest,
        body: Bytes,
    ) -> Result<Answer, Finding> {
        self.send_raw(signed, reqwest::Body::from(body)).await
    }

    pub(super) async fn send_raw(
        &self,
        signed: &PresignedRequest,
        body: reqwest::Body,
    ) -> Result<Answer, Finding> {
        let method = reqwest::Method::from_bytes(signed.method.as_bytes())
            .map_err(|e| Finding::Fail(explain(&e)))?;
        let mut request = self.http.request(method, &signed.url);
        for (name, value) in &signed.headers {
            request = request.header(name, value);
        }
        let answer = request.body(body).send().await.map_err(|e| Finding::Fail(explain(&e)))?;
        let header = |name: &str| {
            answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
        };
        let (version_id, date) = (header("x-amz-version-id"), header("date"));
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(|e| Finding::Fail(explain(&e)))?;
        Ok(Answer { status, version_id, date, body })
    }

    /// What is stored under a key of this probe.
    pub(super) async fn stored(&self, name: &str) -> Result<Vec<ListedVersion>, Finding> {
        let key = self.key(name);
        let page = self.store.list_versions(&key, None).await?;
        Ok(page.versions.into_iter().filter(|version| version.key == key).collect())
    }

    /// Sends a request that must be refused and leave nothing behind.
    pub(super) async fn refused_and_absent(
        &self,
        name: &str,
        signed: &PresignedRequest,
        body: Bytes,
    ) -> super::Verdict {
        let answer = self.send(signed, body).await?;
        let stored = self.stored(name).await?;
        match (answer.refused(), stored.len()) {
            (true, 0) => Ok(answer.describe()),
            (true, count) => fail(format!("{} but {count} versions stored", answer.describe())),
            (false, _) => fail(format!("accepted with {}", answer.describe())),
        }
    }
}

/// Changes, adds (`Some`) or drops (`None`) a header of a signed request.
pub(super) fn with_header(
    mut signed: PresignedRequest,
    name: &str,
    value: Option<&str>,
) -> PresignedRequest {
    signed.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    if let Some(value) = value {
        signed.headers.push((name.to_owned(), value.to_owned()));
    }
    signed
}
