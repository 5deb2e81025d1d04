//! The client: one SDK client per scoped key, object_store for lock-free reads.
//!
//! Owns the calls and what their answers mean. Invariant: uploads are signed with the write-only key
//! and never hoist lock parameters into the query; a refused delete of a locked version is an
//! outcome, not an error. It must not decide what may be deleted or kept: warrants and dates come
//! from outside.

use std::{ops::Range, sync::Arc, time::SystemTime};

use aws_credential_types::Credentials as SdkCredentials;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
    operation::head_object::HeadObjectOutput,
    presigning::PresigningConfig,
    primitives::{ByteStream, DateTime},
    types::{
        BucketLocationConstraint, BucketVersioningStatus, ChecksumAlgorithm, ChecksumMode,
        CreateBucketConfiguration, ObjectLockEnabled, ObjectLockLegalHoldStatus, ObjectLockMode,
        ObjectLockRetention, ObjectLockRetentionMode, VersioningConfiguration,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use domain::Timestamp;
use md5::{Digest as _, Md5};
use object_store::{GetOptions, ObjectStore as _, aws::AmazonS3, aws::AmazonS3Builder};
use sha2::Sha256;

use super::{
    CONTENT_TYPE, Credentials, Deletion, ListedVersion, LockMode, ObjectFacts, PresignedRequest,
    PutGrant, StoreConfig, StoreError, VersionCursor, VersionPage,
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

pub(super) fn client(config: &StoreConfig, credentials: &Credentials) -> Client {
    let keys = SdkCredentials::from_keys(&credentials.access_key, &credentials.secret_key, None);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(std::time::Duration::from_secs(10))
        .operation_attempt_timeout(std::time::Duration::from_secs(120))
        .build();
    let builder = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .credentials_provider(keys)
        .force_path_style(config.path_style)
        // With the default the SDK pins a CRC32 of the empty body into presigned puts, and stores
        // other than AWS refuse its trailers.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts);
    let builder = match &config.endpoint {
        Some(endpoint) => builder.endpoint_url(endpoint.as_str()),
        None => builder,
    };
    Client::from_conf(builder.build())
}

pub(super) fn reader(config: &StoreConfig, bucket: &str, keys: &Credentials) -> Result<AmazonS3> {
    let builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&config.region)
        .with_access_key_id(&keys.access_key)
        .with_secret_access_key(&keys.secret_key)
        .with_virtual_hosted_style_request(!config.path_style);
    let builder = match &config.endpoint {
        Some(endpoint) => builder
            .with_endpoint(endpoint.as_str().trim_end_matches('/'))
            .with_allow_http(endpoint.scheme() == "http"),
        None => builder,
    };
    builder.build().map_err(StoreError::configuration)
}

pub(super) fn sdk_date(moment: Timestamp) -> DateTime {
    DateTime::from_secs(moment.ceil_to_second().unix_secs())
}

pub(super) fn our_date(date: &DateTime) -> Option<Timestamp> {
    let whole = Timestamp::from_unix_secs(date.secs())?;
    Some(whole + std::time::Duration::from_nanos(u64::from(date.subsec_nanos())))
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

    fn bucket(&self) -> &str {
        &self.inner.config.bucket
    }

    /// Signs one upload. Pure computation.
    pub async fn presign_put(&self, grant: &PutGrant) -> Result<PresignedRequest> {
        self.presign_put_from(grant, None).await
    }

    /// As [`S3Store::presign_put`], with the URL's start given (for the probe).
    pub(super) async fn presign_put_from(
        &self,
        grant: &PutGrant,
        start: Option<Timestamp>,
    ) -> Result<PresignedRequest> {
        if grant.lock_until <= grant.now {
            return Err(StoreError::Configuration("the lock would be over already".into()));
        }
        let pins = self.inner.config.capabilities;
        let length = i64::try_from(grant.length).map_err(StoreError::configuration)?;
        let mut put = self
            .inner
            .ingest
            .put_object()
            .bucket(self.bucket())
            .key(&grant.key)
            .content_length(length)
            .content_type(CONTENT_TYPE)
            .object_lock_mode(ObjectLockMode::Compliance)
            .object_lock_retain_until_date(sdk_date(grant.lock_until));
        if pins.create_only {
            put = put.if_none_match("*");
        }
        // A store that is said to know neither would take any body: then both are pinned anyway.
        if pins.content_md5 || !pins.checksum_sha256 {
            put = put.content_md5(STANDARD.encode(grant.md5));
        }
        if pins.checksum_sha256 || !pins.content_md5 {
            put = put
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .checksum_sha256(STANDARD.encode(grant.sha256));
        }
        let signing = presigning(grant.expires_in, start)?;
        let signed =
            put.presigned(signing).await.map_err(|e| StoreError::from_sdk("presign_put", e))?;
        Ok(presigned(&signed))
    }

    /// Signs one read of one version.
    pub async fn presign_get(
        &self,
        key: &str,
        version_id: &str,
        expires_in: std::time::Duration,
    ) -> Result<PresignedRequest> {
        let get = self
            .inner
            .restore
            .get_object()
            .bucket(self.bucket())
            .key(key)
            .version_id(version_id)
            .presigned(presigning(expires_in, None)?)
            .await
            .map_err(|e| StoreError::from_sdk("presign_get", e))?;
        Ok(presigned(&get))
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
        if pins.create_only {
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
            .version_id(version_id)
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
        let next = (list.is_truncated() == Some(true))
            .then(|| {
                let version_id = list.next_version_id_marker().map(str::to_owned);
                list.next_key_marker().map(|key| VersionCursor { key: key.to_owned(), version_id })
            })
            .flatten();
        Ok(VersionPage { versions, next })
    }

    /// Makes the two buckets where they are missing, with the administrator's key, and checks that
    /// the vault bucket has Object Lock.
    pub async fn ensure_buckets(&self) -> Result<()> {
        let admin = self.inner.admin.as_ref().ok_or_else(|| {
            StoreError::Configuration("making buckets needs an administrator's key".into())
        })?;
        let config = &self.inner.config;
        make_bucket(admin, config, &config.bucket, true).await?;
        make_bucket(admin, config, &config.key_bucket, false).await?;
        let versioned =
            VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        admin
            .put_bucket_versioning()
            .bucket(&config.key_bucket)
            .versioning_configuration(versioned)
            .send()
            .await
            .map_err(|e| StoreError::from_sdk("put_bucket_versioning", e))?;
        let lock = admin
            .get_object_lock_configuration()
            .bucket(&config.bucket)
            .send()
            .await
            .map_err(|e| StoreError::from_sdk("get_object_lock", e))?;
        let enabled = lock.object_lock_configuration().and_then(|lock| lock.object_lock_enabled());
        if enabled != Some(&ObjectLockEnabled::Enabled) {
            let text = format!("bucket {} has no Object Lock", config.bucket);
            return Err(StoreError::Configuration(text));
        }
        Ok(())
    }
}

async fn make_bucket(admin: &Client, config: &StoreConfig, name: &str, locked: bool) -> Result<()> {
    let mut create = admin.create_bucket().bucket(name);
    if locked {
        create = create.object_lock_enabled_for_bucket(true);
    }
    if config.region != "us-east-1" {
        let place = BucketLocationConstraint::from(config.region.as_str());
        let place = CreateBucketConfiguration::builder().location_constraint(place).build();
        create = create.create_bucket_configuration(place);
    }
    match create.send().await.map_err(|e| StoreError::from_sdk("create_bucket", e)) {
        Ok(_) => Ok(()),
        Err(StoreError::Rejected { code, .. })
            if code == "BucketAlreadyOwnedByYou" || code == "BucketAlreadyExists" =>
        {
            Ok(())
        }
        Err(error) => Err(error),
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

fn presigning(
    expires_in: std::time::Duration,
    start: Option<Timestamp>,
) -> Result<PresigningConfig> {
    let mut signing = PresigningConfig::builder().expires_in(expires_in);
    if let Some(start) = start {
        signing = signing.start_time(SystemTime::from(start.to_offset()));
    }
    signing.build().map_err(StoreError::configuration)
}

fn presigned(request: &aws_sdk_s3::presigning::PresignedRequest) -> PresignedRequest {
    PresignedRequest {
        method: request.method().to_owned(),
        url: request.uri().to_owned(),
        headers: request.headers().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
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
