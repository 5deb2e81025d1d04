//! Grants: presigned requests that pin everything about one upload or one read.
//!
//! Uploads are signed with the write-only key and their lock parameters are headers, never hoisted
//! into the query, where stores drop them in silence.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::{
    presigning::PresigningConfig,
    types::{ChecksumAlgorithm, ObjectLockMode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::Timestamp;

use super::{CONTENT_TYPE, PresignedRequest, PutGrant, S3Store, StoreError, clients::sdk_date};

type Result<T, E = StoreError> = std::result::Result<T, E>;

impl S3Store {
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
        match grant.md5 {
            Some(md5) if pins.needs_md5() => put = put.content_md5(STANDARD.encode(md5)),
            None if pins.needs_md5() => {
                return Err(StoreError::Configuration("this store needs an MD5".into()));
            }
            _ => {}
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
}

fn presigning(expires_in: Duration, start: Option<Timestamp>) -> Result<PresigningConfig> {
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
