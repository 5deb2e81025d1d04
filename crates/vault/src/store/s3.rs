//! The client: one SDK client per scoped key, object_store for lock-free reads.
//!
//! Owns the calls and what their answers mean. Invariant: uploads are signed with the write-only key
//! and never hoist lock parameters into the query; a refused delete of a locked version is an
//! outcome, not an error. It must not decide what may be deleted or kept: warrants and dates come
//! from outside.

use std::{ops::Range, sync::Arc};

use aws_sdk_s3::{
    Client,
    operation::head_object::HeadObjectOutput,
    primitives::ByteStream,
    types::{
        ChecksumAlgorithm, ChecksumMode, ObjectLockLegalHoldStatus, ObjectLockMode,
        ObjectLockRetention, ObjectLockRetentionMode,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use domain::Timestamp;
use md5::{Digest as _, Md5};
use object_store::{GetOptions, ObjectStore as _, aws::AmazonS3};
use sha2::Sha256;

use super::{
    CONTENT_TYPE, Deletion, ListedVersion, LockMode, ObjectFacts, StoreConfig, StoreError,
    VersionCursor, VersionPage,
    clients::{client, our_date, reader, sdk_date},
};
use crate::guard::DeleteWarrant;

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct S3Store {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub config: StoreConfig,
    pub admin: Option<Client>,
    pub ingest: Client,
    pub restore: Client,
    pub steward: Client,
    pub reaper: Client,
    pub key_keeper: Client,
    /// Plain reads of the vault bucket with the restore signer's key.
    pub reader: AmazonS3,
    /// Plain reads and listings of the key bucket.
    pub key_reader: AmazonS3,
}

impl S3Store {
    /// Builds the clients. Does not speak to the endpoint yet.
    #[expect(clippy::unused_async, reason = "the contract leaves room for fetched credentials")]
    pub async fn connect(config: StoreConfig) -> Result<Self> {
        let inner = Inner {
            admin: config.admin.as_ref().map(|keys| client(&config, keys)),
            ingest: client(&config, &config.ingest),
            restore: client(&config, &config.restore),
            steward: client(&config, &config.steward),
            reaper: client(&config, &config.reaper),
            key_keeper: client(&config, &config.key_keeper),
            reader: reader(&config, &config.bucket, &config.restore)?,
            key_reader: reader(&config, &config.key_bucket, &config.key_keeper)?,
            config,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn config(&self) -> &StoreConfig {
        &self.inner.config
    }

    pub(super) fn bucket(&self) -> &str {
        &self.inner.config.bucket
    }

    /// What the store says about a version (the newest one of the key when `None`), asked with the
    /// steward's key. `None`: nothing there.
    pub async fn head(&self, key: &str, version_id: Option<&str>) -> Result<Option<ObjectFacts>> {
        let newest;
        let version_id = match version_id {
            Some(id) => id,
            None => {
                // A head without a version id is another right on AWS, which the steward lacks.
                newest = self.newest_version(key).await?;
                match &newest {
                    Some(id) => id,
                    None => return Ok(None),
                }
            }
        };
        self.head_with(&self.inner.steward, key, version_id).await
    }

    async fn newest_version(&self, key: &str) -> Result<Option<String>> {
        let page = self.list_versions(key, None).await?;
        let mut newest = page.versions.into_iter().filter(|v| v.key == key && v.latest);
        Ok(newest.next().filter(|v| !v.delete_marker).map(|v| v.version_id))
    }

    pub(super) async fn head_with(
        &self,
        client: &Client,
        key: &str,
        version_id: &str,
    ) -> Result<Option<ObjectFacts>> {
        let head = client
            .head_object()
            .bucket(self.bucket())
            .key(key)
            .version_id(version_id)
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .map_err(|e| StoreError::from_sdk("head", e));
        match head {
            Ok(head) => facts(&head, version_id).map(Some),
            Err(StoreError::NotFound) => Ok(None),
            // The planted bug.
            Err(_) if faults::planted(faults::Bug::ErrorAsEmpty) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A whole version.
    pub async fn get(&self, key: &str, version_id: &str) -> Result<Bytes> {
        read(&self.inner.reader, key, Some(version_id), None).await
    }

    /// A part of a version; `range` in bytes.
    pub async fn get_range(&self, key: &str, version_id: &str, range: Range<u64>) -> Result<Bytes> {
        read(&self.inner.reader, key, Some(version_id), Some(range)).await
    }

    /// Extends a version's COMPLIANCE lock and answers the date the store then reports.
    pub async fn extend_lock(
        &self,
        key: &str,
        version_id: &str,
        until: Timestamp,
    ) -> Result<Timestamp> {
        let steward = &self.inner.steward;
        put_retention(steward, self.bucket(), (key, version_id), LockMode::Compliance, until)
            .await?;
        let stored = steward
            .get_object_retention()
            .bucket(self.bucket())
            .key(key)
            .version_id(version_id)
            .send()
            .await
            .map_err(|e| StoreError::from_sdk("get_retention", e))?;
        let retention = stored.retention();
        let mode = retention.and_then(|r| r.mode());
        let date = retention.and_then(|r| r.retain_until_date()).and_then(our_date);
        match (mode, date) {
            (Some(ObjectLockRetentionMode::Compliance), Some(date)) => Ok(date),
            _ => Err(StoreError::Incomplete {
                operation: "get_retention",
                missing: "a COMPLIANCE date",
            }),
        }
    }

    /// Stores a small locked object with the ingest key, create-only where the store can. Answers
    /// its version id. `AlreadyExists` after a lost answer means that it was stored before.
    pub async fn put_locked(&self, key: &str, bytes: Bytes, until: Timestamp) -> Result<String> {
        let create_only = self.inner.config.capabilities.create_only;
        self.put_version(key, bytes, until, create_only).await
    }

    /// The same as a new version beside whatever has the name: a repair. Answers its version id.
    pub async fn put_locked_anew(
        &self,
        key: &str,
        bytes: Bytes,
        until: Timestamp,
    ) -> Result<String> {
        self.put_version(key, bytes, until, false).await
    }

    async fn put_version(
        &self,
        key: &str,
        bytes: Bytes,
        until: Timestamp,
        create_only: bool,
    ) -> Result<String> {
        let md5 = STANDARD.encode(Md5::digest(&bytes));
        let sha256 = STANDARD.encode(Sha256::digest(&bytes));
        let pins = self.inner.config.capabilities;
        let mut put = self
            .inner
            .ingest
            .put_object()
            .bucket(self.bucket())
            .key(key)
            .content_type(CONTENT_TYPE)
            .content_md5(md5)
            .object_lock_mode(ObjectLockMode::Compliance)
            .object_lock_retain_until_date(sdk_date(until))
            .body(ByteStream::from(bytes));
        if create_only {
            put = put.if_none_match("*");
        }
        if pins.checksum_sha256 {
            put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).checksum_sha256(sha256);
        }
        let stored = put.send().await.map_err(|e| StoreError::from_sdk("put_locked", e))?;
        let missing = StoreError::Incomplete { operation: "put_locked", missing: "a version id" };
        stored.version_id.ok_or(missing)
    }

    /// Carries out a warrant. A version the store does not give up is `Retained`.
    pub async fn delete_version(&self, warrant: &DeleteWarrant) -> Result<Deletion> {
        self.delete_by_id(warrant.key(), warrant.version_id()).await
    }

    /// For warrants and the probe's own objects; private to the store module.
    pub(super) async fn delete_by_id(&self, key: &str, version_id: &str) -> Result<Deletion> {
        let reaper = &self.inner.reaper;
        let deleted = reaper
            .delete_object()
            .bucket(self.bucket())
            .key(key)
            // The planted bug names no version: the store then only hides the object.
            .set_version_id((!faults::planted(faults::Bug::DeleteByKey)).then(|| version_id.into()))
            .send()
            .await
            .map_err(|e| StoreError::from_sdk("delete_version", e));
        match deleted {
            Ok(_) | Err(StoreError::NotFound) => {}
            Err(StoreError::Denied { operation, code }) => {
                return match self.head_with(reaper, key, version_id).await? {
                    None => Ok(Deletion::Deleted),
                    Some(facts) if facts.legal_hold => Ok(Deletion::Retained { until: None }),
                    Some(ObjectFacts { lock_until: Some(until), .. }) => {
                        Ok(Deletion::Retained { until: Some(until) })
                    }
                    // Neither locked nor held: the key lacks the right.
                    Some(_) => Err(StoreError::Denied { operation, code }),
                };
            }
            Err(error) => return Err(error),
        }
        // A delete of nothing also succeeds; only a 404 is proof.
        match self.head_with(reaper, key, version_id).await? {
            None => Ok(Deletion::Deleted),
            Some(facts) => Ok(Deletion::Retained { until: facts.lock_until }),
        }
    }

    /// One page of versions and delete markers under a prefix, asked with the steward's key.
    pub async fn list_versions(
        &self,
        prefix: &str,
        cursor: Option<&VersionCursor>,
    ) -> Result<VersionPage> {
        let list = self
            .inner
            .steward
            .list_object_versions()
            .bucket(self.bucket())
            .prefix(prefix)
            .set_key_marker(cursor.map(|cursor| cursor.key.clone()))
            .set_version_id_marker(cursor.and_then(|cursor| cursor.version_id.clone()))
            .send()
            .await
            .map_err(|e| StoreError::from_sdk("list_versions", e))?;
        let objects = list.versions().iter().filter_map(|v| {
            Some(ListedVersion {
                key: v.key()?.to_owned(),
                version_id: v.version_id()?.to_owned(),
                length: u64::try_from(v.size().unwrap_or(0)).unwrap_or(0),
                latest: v.is_latest() == Some(true),
                delete_marker: false,
            })
        });
        let markers = list.delete_markers().iter().filter_map(|v| {
            Some(ListedVersion {
                key: v.key()?.to_owned(),
                version_id: v.version_id()?.to_owned(),
                length: 0,
                latest: v.is_latest() == Some(true),
                delete_marker: true,
            })
        });
        let versions = objects.chain(markers).collect();
        let broken_off = |missing| StoreError::Incomplete { operation: "list_versions", missing };
        // A list that breaks off is none: whoever acts on what is not in it would act on what is.
        let next = match (list.is_truncated(), list.next_key_marker()) {
            (Some(true), Some(key)) => {
                let version_id = list.next_version_id_marker().map(str::to_owned);
                Some(VersionCursor { key: key.to_owned(), version_id })
            }
            (Some(true), None) => return Err(broken_off("the place of the next page")),
            (Some(false), _) => None,
            (None, _) => return Err(broken_off("whether this is all")),
        };
        Ok(VersionPage { versions, next })
    }
}

pub(super) async fn put_retention(
    client: &Client,
    bucket: &str,
    (key, version_id): (&str, &str),
    mode: LockMode,
    until: Timestamp,
) -> Result<()> {
    let mode = match mode {
        LockMode::Compliance => ObjectLockRetentionMode::Compliance,
        LockMode::Governance => ObjectLockRetentionMode::Governance,
    };
    let retention =
        ObjectLockRetention::builder().mode(mode).retain_until_date(sdk_date(until)).build();
    client
        .put_object_retention()
        .bucket(bucket)
        .key(key)
        .version_id(version_id)
        .retention(retention)
        .send()
        .await
        .map_err(|e| StoreError::from_sdk("put_retention", e))?;
    Ok(())
}

/// A plain read through object_store.
pub(super) async fn read(
    reader: &AmazonS3,
    key: &str,
    version_id: Option<&str>,
    range: Option<Range<u64>>,
) -> Result<Bytes> {
    let path = object_store::path::Path::parse(key).map_err(StoreError::configuration)?;
    let options = GetOptions {
        version: version_id.map(str::to_owned),
        range: range.map(object_store::GetRange::Bounded),
        ..GetOptions::default()
    };
    Ok(reader.get_opts(&path, options).await?.bytes().await?)
}

fn facts(head: &HeadObjectOutput, version_id: &str) -> Result<ObjectFacts> {
    let length = head.content_length().and_then(|length| u64::try_from(length).ok());
    let sha256 = head.checksum_sha256().and_then(|text| STANDARD.decode(text).ok());
    let etag = head.e_tag().map(|tag| tag.trim_matches('"'));
    let md5 = etag.and_then(|tag| hex::decode(tag).ok());
    let lock_mode = match head.object_lock_mode() {
        Some(ObjectLockMode::Compliance) => Some(LockMode::Compliance),
        Some(ObjectLockMode::Governance) => Some(LockMode::Governance),
        _ => None,
    };
    let held = head.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On);
    Ok(ObjectFacts {
        version_id: head.version_id().unwrap_or(version_id).to_owned(),
        length: length.ok_or(StoreError::Incomplete { operation: "head", missing: "a length" })?,
        sha256: sha256.and_then(|bytes| bytes.try_into().ok()),
        md5: md5.and_then(|bytes| bytes.try_into().ok()),
        lock_mode,
        lock_until: head.object_lock_retain_until_date().and_then(our_date),
        legal_hold: held,
    })
}
