//! Copies: a read and a write through the ordinary paths, so that a copy has its own blob.
//!
//! A copy takes no lock with it: it gets the one its own headers or its bucket ask for.

use s3s::{S3Request, S3Response, S3Result, dto::*, s3_error};

use super::{
    Store, answer,
    convert::{attributes_of, checksum_type, date, etag, lock_wish, moment, with_checksums},
    get::{self, Conditions, Verdict},
    object::bare,
};
use crate::{
    blobs::Body,
    hashing::{Algorithm, Announced},
    meta::Found,
    model::{Object as StoredObject, UploadChecksum},
    versions::{self, PutIf},
};

struct Source<'a> {
    bucket: &'a str,
    key: &'a str,
    version: Option<&'a str>,
}

fn source(copy: &CopySource) -> S3Result<Source<'_>> {
    match copy {
        CopySource::Bucket { bucket, key, version_id } => {
            Ok(Source { bucket, key, version: version_id.as_deref() })
        }
        CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
            Err(s3_error!(NotImplemented, "only buckets can be copied from"))
        }
    }
}

macro_rules! source_conditions {
    ($input:expr) => {
        Conditions {
            if_match: $input.copy_source_if_match.take(),
            if_none_match: $input.copy_source_if_none_match.take(),
            if_modified_since: $input.copy_source_if_modified_since.take().map(moment),
            if_unmodified_since: $input.copy_source_if_unmodified_since.take().map(moment),
        }
    };
}

async fn open_source(
    store: &Store,
    from: &CopySource,
    conditions: Conditions,
    range: Option<Range>,
) -> S3Result<(Found, StoredObject, Option<String>, Body)> {
    let from = source(from)?;
    let pick = |found: &Found, object: &StoredObject| {
        match conditions.judge(&object.etag, found.version.modified) {
            Verdict::Go => {}
            Verdict::Failed | Verdict::NotModified => return Err(s3_error!(PreconditionFailed)),
        }
        match range {
            Some(range) => Ok(range.check(object.length)?),
            None => Ok(0..object.length),
        }
    };
    let (found, object, id, _, body) =
        get::open(store, from.bucket, from.key, from.version, pick).await?;
    Ok((found, object, id, body))
}

pub(super) async fn copy(
    store: &Store,
    mut req: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let input = &mut req.input;
    let wish = lock_wish(
        input.object_lock_mode.as_ref(),
        input.object_lock_retain_until_date.clone(),
        input.object_lock_legal_hold_status.as_ref(),
    )?;
    let conditions = source_conditions!(input);
    let (_, original, source_version, body) =
        open_source(store, &input.copy_source, conditions, None).await?;
    let replace = input
        .metadata_directive
        .as_ref()
        .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
    let from = source(&input.copy_source)?;
    let itself = from.bucket == input.bucket && from.key == input.key;
    if itself && !replace && from.version.is_none() {
        return Err(s3_error!(InvalidRequest, "a copy onto itself must change something"));
    }
    let attributes = if replace { attributes_of!(input) } else { original.attributes };
    let mut wanted: Vec<_> = Algorithm::ALL
        .into_iter()
        .filter(|algorithm| original.checksums.get(*algorithm).is_some())
        .collect();
    let asked = input.checksum_algorithm.as_ref();
    wanted.extend(asked.and_then(|algorithm| Algorithm::parse(algorithm.as_str())));
    let announced = Announced { wanted, length: Some(original.length), ..Announced::default() };
    let stream = StreamingBlob::wrap(body.into_stream());
    let (blob, sums) = store.receive(Some(stream), announced, None).await?;
    let tag = sums.etag();
    let object = bare(tag.clone(), sums.length, sums.checksums.clone(), attributes);
    let (place, now) = ((input.bucket.clone(), input.key.clone()), store.now());
    let changed = store
        .meta
        .write(move |rows| {
            versions::put(rows, (&place.0, &place.1), &PutIf::Always, wish, now, |_| {
                Ok(StoredObject { segments: vec![blob.keep()], ..object })
            })
        })
        .await?;
    store.blobs.discard(changed.garbage).await;
    let result = CopyObjectResult {
        e_tag: Some(etag(&tag)),
        last_modified: Some(date(now.wall)),
        checksum_type: checksum_type(&sums.checksums),
        ..CopyObjectResult::default()
    };
    answer(CopyObjectOutput {
        copy_object_result: Some(with_checksums!(result, &sums.checksums)),
        copy_source_version_id: source_version,
        version_id: changed.version_id,
        ..CopyObjectOutput::default()
    })
}

pub(super) async fn part(
    store: &Store,
    mut req: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let input = &mut req.input;
    let range = input.copy_source_range.as_deref().map(Range::parse).transpose();
    let range = range.map_err(|_| s3_error!(InvalidArgument, "the range is not readable"))?;
    let upload = store.find_upload(&input.bucket, &input.key, &input.upload_id).await?;
    let conditions = source_conditions!(input);
    let (_, _, source_version, body) =
        open_source(store, &input.copy_source, conditions, range).await?;
    let wanted = upload.checksum.map(|UploadChecksum { algorithm, .. }| algorithm);
    let announced = Announced { wanted: wanted.into_iter().collect(), ..Announced::default() };
    let stream = StreamingBlob::wrap(body.into_stream());
    let received = store.receive(Some(stream), announced, None).await?;
    let place = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
    let (tag, sums, modified) = store.keep_part(place, input.part_number, received).await?;
    let result = CopyPartResult {
        e_tag: Some(etag(&tag)),
        last_modified: Some(date(modified)),
        ..CopyPartResult::default()
    };
    answer(UploadPartCopyOutput {
        copy_part_result: Some(with_checksums!(result, &sums)),
        copy_source_version_id: source_version,
        ..UploadPartCopyOutput::default()
    })
}
