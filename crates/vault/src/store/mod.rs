//! The object store as the control plane sees it: grants, locks, versions, warrants.
//!
//! Owns the contract types and their meaning; `s3.rs` speaks to the endpoint, `probe` proves what
//! an endpoint really enforces. Invariant: every upload is pinned (key, length, digest, COMPLIANCE
//! lock, create-only where the store can), everything after it goes by version id, and nothing is
//! deleted without a [`crate::guard::DeleteWarrant`]. It must not know tenants, packs or SQL.

mod buckets;
mod clients;
mod error;
mod grants;
mod keys;
pub mod probe;
mod s3;

use std::{fmt, time::Duration};

use domain::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

pub use error::StoreError;
pub use s3::S3Store;

/// The content type of every object of a vault.
pub const CONTENT_TYPE: &str = "application/octet-stream";

/// An access key and its secret.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// Where the store is and the scoped keys for it. Each key has one job (`vault.md`); they may be
/// equal where a store knows no policies, which the probe then says.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `None`: AWS itself.
    pub endpoint: Option<Url>,
    pub region: String,
    /// Locked, versioned: packs, manifests, receipts.
    pub bucket: String,
    /// Unlocked, versioned: descriptors, rosters, wraps.
    pub key_bucket: String,
    pub path_style: bool,
    /// Only for making buckets.
    pub admin: Option<Credentials>,
    /// PutObject and PutObjectRetention (as part of a put).
    pub ingest: Credentials,
    /// GetObjectVersion.
    pub restore: Credentials,
    /// PutObjectRetention, GetObjectRetention, GetObjectVersion, ListBucketVersions.
    pub steward: Credentials,
    /// DeleteObjectVersion, GetObjectVersion (head), ListBucketVersions.
    pub reaper: Credentials,
    /// Everything on objects of the key bucket, nothing elsewhere.
    pub key_keeper: Credentials,
    pub capabilities: Capabilities,
}

/// What an endpoint was seen to enforce. The default asks for everything: right when unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// `If-None-Match: *` on puts.
    pub create_only: bool,
    /// `x-amz-checksum-sha256`.
    pub checksum_sha256: bool,
    /// `Content-MD5`.
    pub content_md5: bool,
    /// Refuses `x-amz-*` headers the signature does not cover.
    pub unsigned_headers_refused: bool,
}

impl Capabilities {
    /// Whether uploads must carry a `Content-MD5`. Where SHA-256 is checked it adds nothing but work: half a
    /// core-second per gigabyte and side. A store that is said to know neither would take any body.
    pub const fn needs_md5(&self) -> bool {
        self.content_md5 || !self.checksum_sha256
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            create_only: true,
            checksum_sha256: true,
            content_md5: true,
            unsigned_headers_refused: true,
        }
    }
}

/// What one upload grant pins.
#[derive(Debug, Clone)]
pub struct PutGrant {
    pub key: String,
    pub length: u64,
    pub sha256: [u8; 32],
    /// Needed where [`Capabilities::needs_md5`] says so.
    pub md5: Option<[u8; 16]>,
    /// Rounded up to the whole second.
    pub lock_until: Timestamp,
    /// 15 minutes at most is good manners; a week is the limit of the signature.
    pub expires_in: Duration,
    /// Server time: the lock must lie ahead of it. The URL's own start is the machine's clock,
    /// because that is what the store compares it with.
    pub now: Timestamp,
}

/// A signed request. Its holder must send exactly these headers, no `x-amz-*` beside them.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
}

impl fmt::Debug for PresignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The query is the permission itself.
        let place = self.url.split('?').next().unwrap_or_default();
        f.debug_struct("PresignedRequest")
            .field("method", &self.method)
            .field("url", &place)
            .finish_non_exhaustive()
    }
}

/// The lock modes of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    Compliance,
    Governance,
}

/// What the store says about one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFacts {
    pub version_id: String,
    pub length: u64,
    /// Where the store kept the checksum.
    pub sha256: Option<[u8; 32]>,
    /// From the ETag, where that is an MD5 (single puts).
    pub md5: Option<[u8; 16]>,
    pub lock_mode: Option<LockMode>,
    pub lock_until: Option<Timestamp>,
    pub legal_hold: bool,
}

/// The end of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The store confirmed that the version is gone.
    Deleted,
    /// The store refused: the lock is longer than thought, or held (`until: None`).
    Retained { until: Option<Timestamp> },
}

/// One line of a listing of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    pub key: String,
    pub version_id: String,
    pub length: u64,
    pub latest: bool,
    pub delete_marker: bool,
}

/// Where the next page of versions starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionCursor {
    pub key: String,
    pub version_id: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct VersionPage {
    pub versions: Vec<ListedVersion>,
    pub next: Option<VersionCursor>,
}
