//! What the metadata rows say: buckets, versions, uploads and parts.
//!
//! Owns the stored shapes (JSON in redb) and nothing else. Invariant: a version's body is named by
//! internal blob ids, never by its key, so that a key can hold anything.

use std::collections::BTreeMap;

use domain::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    hashing::Checksums,
    lock::{Mode, Retention},
};

/// The version id of objects written while a bucket had no versioning.
pub(crate) const NULL_VERSION: &str = "null";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Versioning {
    Never,
    Enabled,
    Suspended,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bucket {
    pub created: Timestamp,
    pub versioning: Versioning,
    /// `Some`: Object Lock is on, for good.
    pub lock: Option<BucketLock>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct BucketLock {
    pub default: Option<DefaultLock>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct DefaultLock {
    pub mode: Mode,
    pub period: Period,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Period {
    Days(u32),
    Years(u32),
}

impl DefaultLock {
    /// The lock a new object gets. A year counts 365 days, as on AWS.
    pub(crate) fn from(self, now: Timestamp) -> Retention {
        let days = match self.period {
            Period::Days(days) => u64::from(days),
            Period::Years(years) => u64::from(years) * 365,
        };
        let until = now.ceil_to_second() + std::time::Duration::from_secs(days * 86_400);
        Retention { mode: self.mode, until }
    }
}

/// One row of a key's history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Version {
    pub id: String,
    pub modified: Timestamp,
    pub content: Content,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Content {
    DeleteMarker,
    Object(Box<Object>),
}

impl Version {
    pub(crate) fn object(&self) -> Option<&Object> {
        match &self.content {
            Content::DeleteMarker => None,
            Content::Object(object) => Some(object),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Object {
    /// Without quotes.
    pub etag: String,
    pub length: u64,
    pub segments: Vec<Segment>,
    pub checksums: Checksums,
    pub attributes: Attributes,
    pub retention: Option<Retention>,
    pub legal_hold: bool,
}

/// A blob file that is (a part of) a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub blob: String,
    pub length: u64,
}

/// What a client says about an object and gets back with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    pub content_disposition: Option<String>,
    pub cache_control: Option<String>,
    pub metadata: BTreeMap<String, String>,
}

/// A multipart upload under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub initiated: Timestamp,
    pub attributes: Attributes,
    pub wish: LockWish,
    pub checksum: Option<UploadChecksum>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct UploadChecksum {
    pub algorithm: crate::hashing::Algorithm,
    /// Over the whole body instead of over the parts' checksums.
    pub full_object: bool,
}

/// The lock a put asks for.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct LockWish {
    pub retention: Option<Retention>,
    pub legal_hold: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub modified: Timestamp,
    pub md5: [u8; 16],
    pub segment: Segment,
    pub checksums: Checksums,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    /// The time this store believes in.
    pub trusted: Timestamp,
    /// The machine's start this reading belongs to; `None` where the system names none.
    pub boot: Option<String>,
    /// Nanoseconds since that start, sleep included.
    pub since_boot_ns: u64,
}
