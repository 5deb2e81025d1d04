//! Put and delete.

use s3s::{S3Error, S3Request, S3Response, S3Result, dto::*, s3_error};

use super::{
    Store, answer, body, bypass,
    convert::{
        attributes_of, checksum_type, checksums_of, etag, lock_wish, put_condition, size,
        with_checksums,
    },
};
use crate::{
    meta::Rows as _,
    model::{Attributes, Object},
    versions,
};

pub(super) async fn put(
    store: &Store,
    mut req: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let input = &mut req.input;
    let wish = lock_wish(
        input.object_lock_mode.as_ref(),
        input.object_lock_retain_until_date.clone(),
        input.object_lock_legal_hold_status.as_ref(),
    )?;
    let condition = put_condition(input.if_match.take(), input.if_none_match.take())?;
    let announced = body::announced(
        &req.headers,
        input.content_md5.as_deref(),
        checksums_of!(input),
        input.content_length,
    )?;
    if (wish.retention.is_some() || wish.legal_hold) && !announced.any_digest() {
        return Err(s3_error!(
            InvalidRequest,
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
        ));
    }
    let attributes = attributes_of!(input);
    let place = (input.bucket.clone(), input.key.clone());
    let (early_bucket, early_wish, now) = (place.0.clone(), wish, store.now());
    // What can be refused without the body is refused before it is stored.
    let early = move |rows: &crate::meta::Read| {
        versions::granted_lock(&rows.bucket(&early_bucket)?, early_wish, now)
    };
    store.meta.read(early).await?;
    let taken = store.receive(input.body.take(), announced, req.trailing_headers.take()).await?;
    let (blob, sums) = taken;
    let tag = sums.etag();
    let now = store.now();
    let object = Object {
        etag: tag.clone(),
        length: sums.length,
        segments: Vec::new(),
        checksums: sums.checksums.clone(),
        attributes,
        retention: None,
        legal_hold: false,
    };
    let changed = store
        .meta
        .write(move |rows| {
            versions::put(rows, (&place.0, &place.1), &condition, wish, now, |_| {
                Ok(Object { segments: vec![blob.keep()], ..object })
            })
        })
        .await?;
    store.blobs.discard(changed.garbage).await;
    let output = PutObjectOutput {
        e_tag: Some(etag(&tag)),
        version_id: changed.version_id,
        checksum_type: checksum_type(&sums.checksums),
        size: None,
        ..PutObjectOutput::default()
    };
    answer(with_checksums!(output, &sums.checksums))
}

pub(super) async fn delete(
    store: &Store,
    req: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = req.input;
    if input.if_match.is_some() || input.if_match_size.is_some() {
        return Err(s3_error!(NotImplemented, "conditional deletes are not offered"));
    }
    let (bypass, now) = (bypass(input.bypass_governance_retention), store.now());
    let changed = store
        .meta
        .write(move |rows| {
            let place = (input.bucket.as_str(), input.key.as_str());
            match &input.version_id {
                Some(id) => versions::delete_version(rows, place, id, bypass, now),
                None => versions::delete_plain(rows, place, now),
            }
        })
        .await?;
    store.blobs.discard(changed.garbage).await;
    answer(DeleteObjectOutput {
        delete_marker: changed.delete_marker.then_some(true),
        version_id: changed.version_id,
        ..DeleteObjectOutput::default()
    })
}

pub(super) async fn delete_many(
    store: &Store,
    req: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let input = req.input;
    if input.delete.objects.len() > 1000 {
        return Err(s3_error!(MalformedXML, "at most 1000 objects at once"));
    }
    let quiet = input.delete.quiet == Some(true);
    let (bypass, now) = (bypass(input.bypass_governance_retention), store.now());
    let results = store
        .meta
        .write(move |rows| {
            rows.bucket(&input.bucket)?;
            let mut results = Vec::new();
            for object in input.delete.objects {
                let place = (input.bucket.as_str(), object.key.as_str());
                let result = match &object.version_id {
                    Some(id) => versions::delete_version(rows, place, id, bypass, now),
                    None => versions::delete_plain(rows, place, now),
                };
                results.push((object, result));
            }
            Ok(results)
        })
        .await?;
    let (mut deleted, mut errors, mut garbage) = (Vec::new(), Vec::new(), Vec::new());
    for (object, result) in results {
        match result {
            Ok(mut changed) => {
                garbage.append(&mut changed.garbage);
                deleted.push(deleted_line(object, changed));
            }
            Err(error) => errors.push(error_line(object, &error)),
        }
    }
    store.blobs.discard(garbage).await;
    answer(DeleteObjectsOutput {
        deleted: (!quiet).then_some(deleted),
        errors: (!errors.is_empty()).then_some(errors),
        ..DeleteObjectsOutput::default()
    })
}

fn deleted_line(object: ObjectIdentifier, changed: versions::Changed) -> DeletedObject {
    let marker = changed.delete_marker.then_some(true);
    DeletedObject {
        delete_marker: marker,
        delete_marker_version_id: marker.and(changed.version_id),
        key: Some(object.key),
        version_id: object.version_id,
    }
}

fn error_line(object: ObjectIdentifier, error: &S3Error) -> Error {
    Error {
        code: Some(error.code().as_str().to_owned()),
        key: Some(object.key),
        message: error.message().map(str::to_owned),
        version_id: object.version_id,
    }
}

/// An object as it stands before it has blobs and locks.
pub(super) fn bare(
    etag: String,
    length: u64,
    checksums: crate::hashing::Checksums,
    attributes: Attributes,
) -> Object {
    Object {
        etag,
        length,
        segments: Vec::new(),
        checksums,
        attributes,
        retention: None,
        legal_hold: false,
    }
}

/// For outputs that carry the size.
pub(super) fn shown_size(object: &Object) -> i64 {
    size(object.length)
}
