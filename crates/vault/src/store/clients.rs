//! Building the clients: one per scoped key, path style or not, and the words both sides use for dates.

use std::time::Duration;

use aws_credential_types::Credentials as SdkCredentials;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
    primitives::DateTime,
};
use domain::Timestamp;
use object_store::{
    BackoffConfig, RetryConfig as ReadRetries,
    aws::{AmazonS3, AmazonS3Builder},
};

use super::{Credentials, StoreConfig, StoreError};
use crate::listing::WholeLists;

pub(super) fn client(config: &StoreConfig, credentials: &Credentials) -> Client {
    let keys = SdkCredentials::from_keys(&credentials.access_key, &credentials.secret_key, None);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(10))
        .operation_attempt_timeout(faults::sooner(Duration::from_secs(120)))
        .build();
    let pause = faults::hurry(Duration::from_secs(1));
    let retry = RetryConfig::standard().with_initial_backoff(pause);
    let builder = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .credentials_provider(keys)
        .force_path_style(config.path_style)
        // With the default the SDK pins a CRC32 of the empty body into presigned puts, and stores
        // other than AWS refuse its trailers.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(retry)
        .timeout_config(timeouts);
    let builder = match &config.endpoint {
        Some(endpoint) => builder.endpoint_url(endpoint.as_str()),
        None => builder,
    };
    Client::from_conf(builder.build())
}

pub(super) fn reader(
    config: &StoreConfig,
    bucket: &str,
    keys: &Credentials,
) -> Result<AmazonS3, StoreError> {
    let backoff = BackoffConfig {
        init_backoff: faults::hurry(Duration::from_millis(100)),
        max_backoff: faults::hurry(Duration::from_secs(15)),
        ..BackoffConfig::default()
    };
    let builder = AmazonS3Builder::new()
        .with_http_connector(WholeLists::default())
        .with_retry(ReadRetries { backoff, ..ReadRetries::default() })
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
    Some(whole + Duration::from_nanos(u64::from(date.subsec_nanos())))
}
