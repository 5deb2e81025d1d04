//! Retention and legal hold of stored versions.

use s3s::{S3Request, S3Response, S3Result, dto::*, s3_error};

use super::{
    Store, answer, bypass,
    convert::{date, retention},
};
use crate::{meta::Rows as _, model, versions};

async fn locked_object(
    store: &Store,
    bucket: String,
    key: String,
    id: Option<String>,
) -> S3Result<model::Object> {
    store
        .meta
        .read(move |rows| {
            if rows.bucket(&bucket)?.lock.is_none() {
                return Err(s3_error!(
                    InvalidRequest,
                    "Bucket is missing Object Lock Configuration"
                ));
            }
            let found = versions::wanted(rows, (&bucket, &key), id.as_deref())?;
            found.version.object().cloned().ok_or_else(|| s3_error!(NoSuchKey))
        })
        .await
}

fn no_lock() -> s3s::S3Error {
    s3_error!(
        NoSuchObjectLockConfiguration,
        "The specified object does not have a ObjectLock configuration"
    )
}

pub(super) async fn get_retention(
    store: &Store,
    req: S3Request<GetObjectRetentionInput>,
) -> S3Result<S3Response<GetObjectRetentionOutput>> {
    let input = req.input;
    let object = locked_object(store, input.bucket, input.key, input.version_id).await?;
    let lock = object.retention.ok_or_else(no_lock)?;
    answer(GetObjectRetentionOutput {
        retention: Some(ObjectLockRetention {
            mode: Some(ObjectLockRetentionMode::from_static(lock.mode.as_str())),
            retain_until_date: Some(date(lock.until)),
        }),
    })
}

pub(super) async fn put_retention(
    store: &Store,
    req: S3Request<PutObjectRetentionInput>,
) -> S3Result<S3Response<PutObjectRetentionOutput>> {
    let input = req.input;
    let wish =
        input.retention.unwrap_or(ObjectLockRetention { mode: None, retain_until_date: None });
    let new = match (wish.mode, wish.retain_until_date) {
        (None, None) => None,
        (Some(mode), Some(until)) => Some(retention(mode.as_str(), until)?),
        _ => return Err(s3_error!(MalformedXML, "mode and date belong together")),
    };
    let (bypass, now) = (bypass(input.bypass_governance_retention), store.now());
    store
        .meta
        .write(move |rows| {
            let place = (input.bucket.as_str(), input.key.as_str());
            versions::change_object(rows, place, input.version_id.as_deref(), |object| {
                versions::set_retention(object, new, bypass, now)
            })
        })
        .await?;
    answer(PutObjectRetentionOutput::default())
}

pub(super) async fn get_hold(
    store: &Store,
    req: S3Request<GetObjectLegalHoldInput>,
) -> S3Result<S3Response<GetObjectLegalHoldOutput>> {
    let input = req.input;
    let object = locked_object(store, input.bucket, input.key, input.version_id).await?;
    let status = if object.legal_hold {
        ObjectLockLegalHoldStatus::ON
    } else {
        ObjectLockLegalHoldStatus::OFF
    };
    answer(GetObjectLegalHoldOutput {
        legal_hold: Some(ObjectLockLegalHold {
            status: Some(ObjectLockLegalHoldStatus::from_static(status)),
        }),
    })
}

pub(super) async fn put_hold(
    store: &Store,
    req: S3Request<PutObjectLegalHoldInput>,
) -> S3Result<S3Response<PutObjectLegalHoldOutput>> {
    let input = req.input;
    let status = input.legal_hold.and_then(|hold| hold.status);
    let held = match status.as_ref().map(ObjectLockLegalHoldStatus::as_str) {
        Some("ON") => true,
        Some("OFF") => false,
        _ => return Err(s3_error!(MalformedXML, "a legal hold is ON or OFF")),
    };
    store
        .meta
        .write(move |rows| {
            let place = (input.bucket.as_str(), input.key.as_str());
            versions::change_object(rows, place, input.version_id.as_deref(), |object| {
                object.legal_hold = held;
                Ok(())
            })
        })
        .await?;
    answer(PutObjectLegalHoldOutput::default())
}
