//! Buckets: create, head, list, delete, versioning, Object Lock configuration.

use s3s::{S3Request, S3Response, S3Result, dto::*, s3_error};

use super::{Store, answer, convert::date};
use crate::{
    listing,
    lock::Mode,
    meta::Rows as _,
    model::{self, BucketLock, DefaultLock, Period, Versioning},
};

pub(super) async fn list(
    store: &Store,
    req: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let rows = store.meta.read(|rows| Ok(rows.list_buckets()?)).await?;
    let prefix = req.input.prefix.clone().unwrap_or_default();
    let buckets = rows
        .into_iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .filter(|(name, _)| store.keys.visible(req.credentials.as_ref(), name))
        .map(|(name, bucket)| Bucket {
            bucket_region: None,
            creation_date: Some(date(bucket.created)),
            name: Some(name),
        })
        .collect();
    answer(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() })
}

pub(super) async fn create(
    store: &Store,
    req: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let input = req.input;
    let locked = input.object_lock_enabled_for_bucket == Some(true);
    let bucket = model::Bucket {
        created: store.clock.wall(),
        versioning: if locked { Versioning::Enabled } else { Versioning::Never },
        lock: locked.then(BucketLock::default),
    };
    let location = format!("/{}", input.bucket);
    store
        .meta
        .write(move |rows| {
            if rows.find_bucket(&input.bucket)?.is_some() {
                return Err(s3_error!(BucketAlreadyOwnedByYou, "the bucket exists"));
            }
            Ok(rows.set_bucket(&input.bucket, &bucket)?)
        })
        .await?;
    answer(CreateBucketOutput { location: Some(location) })
}

pub(super) async fn head(
    store: &Store,
    req: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    store.meta.read(move |rows| rows.bucket(&req.input.bucket)).await?;
    answer(HeadBucketOutput::default())
}

pub(super) async fn delete(
    store: &Store,
    req: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    let name = req.input.bucket;
    let garbage = store
        .meta
        .write(move |rows| {
            let query =
                listing::Query { limit: 1, all_versions: true, ..listing::Query::default() };
            if !listing::list(rows, &name, &query)?.lines.is_empty() {
                return Err(s3_error!(BucketNotEmpty, "the bucket holds versions"));
            }
            let mut garbage = Vec::new();
            for (key, id, _) in rows.list_uploads(&name)? {
                garbage.append(&mut rows.delete_upload(&name, &key, &id)?);
            }
            rows.delete_bucket(&name)?;
            Ok(garbage)
        })
        .await?;
    store.blobs.discard(garbage).await;
    answer(DeleteBucketOutput::default())
}

pub(super) async fn location(
    store: &Store,
    req: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    store.meta.read(move |rows| rows.bucket(&req.input.bucket)).await?;
    // us-east-1 answers without a name.
    answer(GetBucketLocationOutput::default())
}

pub(super) async fn get_versioning(
    store: &Store,
    req: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let bucket = store.meta.read(move |rows| rows.bucket(&req.input.bucket)).await?;
    let status = match bucket.versioning {
        Versioning::Never => None,
        Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
        Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
    };
    answer(GetBucketVersioningOutput {
        status: status.map(BucketVersioningStatus::from_static),
        ..GetBucketVersioningOutput::default()
    })
}

pub(super) async fn put_versioning(
    store: &Store,
    req: S3Request<PutBucketVersioningInput>,
) -> S3Result<S3Response<PutBucketVersioningOutput>> {
    let input = req.input;
    let status = input.versioning_configuration.status;
    let versioning = match status.as_ref().map(BucketVersioningStatus::as_str) {
        Some("Enabled") => Versioning::Enabled,
        Some("Suspended") => Versioning::Suspended,
        _ => return Err(s3_error!(MalformedXML, "versioning is Enabled or Suspended")),
    };
    store
        .meta
        .write(move |rows| {
            let bucket = rows.bucket(&input.bucket)?;
            if bucket.lock.is_some() && versioning != Versioning::Enabled {
                return Err(s3_error!(
                    InvalidBucketState,
                    "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
                ));
            }
            Ok(rows.set_bucket(&input.bucket, &model::Bucket { versioning, ..bucket })?)
        })
        .await?;
    answer(PutBucketVersioningOutput::default())
}

pub(super) async fn get_lock(
    store: &Store,
    req: S3Request<GetObjectLockConfigurationInput>,
) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
    let bucket = store.meta.read(move |rows| rows.bucket(&req.input.bucket)).await?;
    let lock = bucket.lock.ok_or_else(|| {
        s3_error!(
            ObjectLockConfigurationNotFoundError,
            "Object Lock configuration does not exist for this bucket"
        )
    })?;
    let rule = lock.default.map(|default| {
        let (days, years) = match default.period {
            Period::Days(days) => (i32::try_from(days).ok(), None),
            Period::Years(years) => (None, i32::try_from(years).ok()),
        };
        let mode = Some(ObjectLockRetentionMode::from_static(default.mode.as_str()));
        ObjectLockRule { default_retention: Some(DefaultRetention { days, mode, years }) }
    });
    answer(GetObjectLockConfigurationOutput {
        object_lock_configuration: Some(ObjectLockConfiguration {
            object_lock_enabled: Some(ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED)),
            rule,
        }),
    })
}

pub(super) async fn put_lock(
    store: &Store,
    req: S3Request<PutObjectLockConfigurationInput>,
) -> S3Result<S3Response<PutObjectLockConfigurationOutput>> {
    let input = req.input;
    let wish = input
        .object_lock_configuration
        .ok_or_else(|| s3_error!(MalformedXML, "the configuration is missing"))?;
    let enabled = wish.object_lock_enabled.as_ref().map(ObjectLockEnabled::as_str);
    if enabled != Some(ObjectLockEnabled::ENABLED) {
        return Err(s3_error!(MalformedXML, "Object Lock can be enabled, never disabled"));
    }
    let default = wish
        .rule
        .and_then(|rule| rule.default_retention)
        .map(|wish| default_lock(&wish))
        .transpose()?;
    store
        .meta
        .write(move |rows| {
            let bucket = rows.bucket(&input.bucket)?;
            if bucket.versioning != Versioning::Enabled {
                return Err(s3_error!(
                    InvalidBucketState,
                    "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"
                ));
            }
            let bucket = model::Bucket { lock: Some(BucketLock { default }), ..bucket };
            Ok(rows.set_bucket(&input.bucket, &bucket)?)
        })
        .await?;
    answer(PutObjectLockConfigurationOutput::default())
}

fn default_lock(wish: &DefaultRetention) -> S3Result<DefaultLock> {
    let malformed = || s3_error!(MalformedXML, "a default retention has a mode and days or years");
    let mode = wish.mode.as_ref().and_then(|mode| Mode::parse(mode.as_str()));
    let positive = |number: i32| u32::try_from(number).ok().filter(|n| (1..=36_500).contains(n));
    let period = match (wish.days, wish.years) {
        (Some(days), None) => positive(days).map(Period::Days),
        (None, Some(years)) => positive(years).filter(|n| *n <= 100).map(Period::Years),
        _ => None,
    };
    let (mode, period) = mode.zip(period).ok_or_else(malformed)?;
    Ok(DefaultLock { mode, period })
}
