//! Multipart uploads: parts are blobs of their own; completing names them in order, copying nothing.
//!
//! The lock asked for at the start is granted when the upload completes, against the clock of then.

use domain::Timestamp;
use s3s::{S3Request, S3Response, S3Result, dto::*, s3_error};

use super::{
    Store, answer, body,
    convert::{
        Names, attributes_of, checksum_type, checksums_of, date, etag, limit, lock_wish,
        put_condition, size, with_checksums,
    },
    object::bare,
};
use crate::{
    blobs::{Placed, random_id},
    hashing::{self, Algorithm, Checksums, Sums},
    meta::{Rows as _, Write},
    model::{Part as StoredPart, Upload, UploadChecksum},
    versions,
};

/// The smallest part but the last.
const MIN_PART: u64 = 5 << 20;
const MAX_PARTS: i32 = 10_000;

fn no_such_upload() -> s3s::S3Error {
    s3_error!(NoSuchUpload, "The specified upload does not exist.")
}

impl Store {
    pub(super) async fn find_upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<Upload> {
        let place = (bucket.to_owned(), key.to_owned(), id.to_owned());
        self.meta
            .read(move |rows| {
                rows.bucket(&place.0)?;
                rows.find_upload(&place.0, &place.1, &place.2)?.ok_or_else(no_such_upload)
            })
            .await
    }

    /// Names a received body as a part; the upload may have ended meanwhile.
    pub(super) async fn keep_part(
        &self,
        place: (String, String, String),
        number: i32,
        (blob, sums): (Placed, Sums),
    ) -> S3Result<(String, Checksums, Timestamp)> {
        let number = part_number(number)?;
        let Some(md5) = sums.md5 else {
            return Err(s3_error!(InternalError, "a part without its MD5"));
        };
        let (tag, modified) = (hex::encode(md5), self.clock.wall());
        let checksums = sums.checksums.clone();
        let replaced = self
            .meta
            .write(move |rows| {
                let (bucket, key, upload) = (&place.0, &place.1, &place.2);
                rows.find_upload(bucket, key, upload)?.ok_or_else(no_such_upload)?;
                let segment = blob.keep();
                let part = StoredPart { modified, md5, segment, checksums: sums.checksums };
                Ok(rows.set_part(upload, number, &part)?)
            })
            .await?;
        self.blobs.discard(replaced.into_iter().collect()).await;
        Ok((tag, checksums, modified))
    }
}

fn part_number(number: i32) -> S3Result<u32> {
    let number = (1..=MAX_PARTS).contains(&number).then_some(number);
    number
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "part numbers go from 1 to 10000"))
}

pub(super) async fn create(
    store: &Store,
    mut req: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let input = &mut req.input;
    let wish = lock_wish(
        input.object_lock_mode.as_ref(),
        input.object_lock_retain_until_date.clone(),
        input.object_lock_legal_hold_status.as_ref(),
    )?;
    let algorithm =
        input.checksum_algorithm.as_ref().and_then(|name| Algorithm::parse(name.as_str()));
    let kind = input.checksum_type.as_ref().map(ChecksumType::as_str);
    let checksum = algorithm.map(|algorithm| UploadChecksum {
        algorithm,
        full_object: kind
            .map_or(algorithm == Algorithm::Crc64Nvme, |kind| kind == ChecksumType::FULL_OBJECT),
    });
    let now = store.now();
    let attributes = attributes_of!(input);
    let upload = Upload { initiated: now.wall, attributes, wish, checksum };
    let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), random_id());
    let (place, upload_id) = ((bucket.clone(), key.clone()), id.clone());
    store
        .meta
        .write(move |rows| {
            versions::granted_lock(&rows.bucket(&place.0)?, wish, now)?;
            Ok(rows.set_upload(&place.0, &place.1, &id, &upload)?)
        })
        .await?;
    answer(CreateMultipartUploadOutput {
        bucket: Some(bucket),
        key: Some(key),
        upload_id: Some(upload_id),
        checksum_algorithm: input.checksum_algorithm.take(),
        checksum_type: input.checksum_type.take(),
        ..CreateMultipartUploadOutput::default()
    })
}

pub(super) async fn part(
    store: &Store,
    mut req: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let input = &mut req.input;
    part_number(input.part_number)?;
    let upload = store.find_upload(&input.bucket, &input.key, &input.upload_id).await?;
    let mut announced = body::announced(
        &req.headers,
        input.content_md5.as_deref(),
        checksums_of!(input),
        input.content_length,
    )?;
    announced.part = true;
    announced.wanted.extend(upload.checksum.map(|checksum| checksum.algorithm));
    let received = store.receive(input.body.take(), announced, req.trailing_headers.take()).await?;
    let place = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
    let (tag, sums, _) = store.keep_part(place, input.part_number, received).await?;
    let output = UploadPartOutput { e_tag: Some(etag(&tag)), ..UploadPartOutput::default() };
    answer(with_checksums!(output, &sums))
}

/// The parts a completion names, in its order, checked against what was uploaded.
fn named_parts(
    stored: Vec<(u32, StoredPart)>,
    named: &[CompletedPart],
) -> S3Result<Vec<StoredPart>> {
    let mut stored: std::collections::BTreeMap<_, _> = stored.into_iter().collect();
    if !named.is_sorted_by(|a, b| a.part_number < b.part_number) {
        return Err(s3_error!(InvalidPartOrder, "parts must be named in ascending order"));
    }
    let mut parts = Vec::with_capacity(named.len());
    for (index, name) in named.iter().enumerate() {
        let number = part_number(name.part_number.unwrap_or(0))?;
        let part = stored.remove(&number);
        let tag = name.e_tag.as_ref().map(ETag::value);
        let part = part.filter(|part| tag.is_none_or(|tag| tag == hex::encode(part.md5)));
        let part = part.ok_or_else(|| s3_error!(InvalidPart, "a part is missing or differs"))?;
        if index + 1 < named.len() && part.segment.length < MIN_PART {
            return Err(s3_error!(EntityTooSmall, "every part but the last has 5 MiB or more"));
        }
        parts.push(part);
    }
    if parts.is_empty() {
        return Err(s3_error!(MalformedXML, "no parts are named"));
    }
    Ok(parts)
}

fn whole_checksums(upload: &Upload, parts: &[StoredPart]) -> Checksums {
    let Some(UploadChecksum { algorithm, full_object }) = upload.checksum else {
        return Checksums::default();
    };
    let each = parts.iter().map(|part| (&part.checksums, part.segment.length));
    let mut sums = Checksums { composite: !full_object, ..Checksums::default() };
    if let Some(value) = hashing::combine(algorithm, full_object, each) {
        sums.set(algorithm, value);
    }
    sums
}

fn check_announced(announced: &Checksums, sums: &Checksums) -> S3Result<()> {
    for algorithm in Algorithm::ALL {
        let wanted = announced.get(algorithm);
        if wanted.is_some() && wanted != sums.get(algorithm) {
            return Err(s3_error!(BadDigest, "the checksum of the object differs"));
        }
    }
    Ok(())
}

pub(super) async fn complete(
    store: &Store,
    mut req: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let input = &mut req.input;
    let condition = put_condition(input.if_match.take(), input.if_none_match.take())?;
    let announced = checksums_of!(input);
    let named = input.multipart_upload.take().and_then(|upload| upload.parts).unwrap_or_default();
    let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
    let now = store.now();
    let (tag, sums, changed) = store
        .meta
        .write(move |rows: &mut Write<'_>| {
            rows.bucket(&bucket)?;
            let upload = rows.find_upload(&bucket, &key, &id)?.ok_or_else(no_such_upload)?;
            let parts = named_parts(rows.list_parts(&id)?, &named)?;
            let sums = whole_checksums(&upload, &parts);
            check_announced(&announced, &sums)?;
            let tag = hashing::multipart_etag(parts.iter().map(|part| &part.md5));
            let length = parts.iter().map(|part| part.segment.length).sum();
            let mut object = bare(tag.clone(), length, sums.clone(), upload.attributes);
            object.segments = parts.into_iter().map(|part| part.segment).collect();
            let kept = object.segments.clone();
            let mut unused = Vec::new();
            let place = (bucket.as_str(), key.as_str());
            let mut changed = versions::put(rows, place, &condition, upload.wish, now, |rows| {
                unused = rows.delete_upload(&bucket, &key, &id)?;
                Ok(object)
            })?;
            unused.retain(|segment| !kept.contains(segment));
            changed.garbage.append(&mut unused);
            Ok((tag, sums, changed))
        })
        .await?;
    store.blobs.discard(changed.garbage).await;
    let output = CompleteMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        e_tag: Some(etag(&tag)),
        version_id: changed.version_id,
        checksum_type: checksum_type(&sums),
        ..CompleteMultipartUploadOutput::default()
    };
    answer(with_checksums!(output, &sums))
}

pub(super) async fn abort(
    store: &Store,
    req: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = req.input;
    let garbage = store
        .meta
        .write(move |rows| {
            rows.bucket(&input.bucket)?;
            rows.find_upload(&input.bucket, &input.key, &input.upload_id)?
                .ok_or_else(no_such_upload)?;
            Ok(rows.delete_upload(&input.bucket, &input.key, &input.upload_id)?)
        })
        .await?;
    store.blobs.discard(garbage).await;
    answer(AbortMultipartUploadOutput::default())
}

pub(super) async fn list_parts(
    store: &Store,
    req: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = req.input;
    let limit = limit(input.max_parts)?;
    let after = input.part_number_marker.unwrap_or(0);
    store.find_upload(&input.bucket, &input.key, &input.upload_id).await?;
    let id = input.upload_id.clone();
    let stored = store.meta.read(move |rows| Ok(rows.list_parts(&id)?)).await?;
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let mut rest: Vec<_> = stored.into_iter().filter(|(n, _)| number(*n) > after).collect();
    let truncated = rest.len() > limit;
    rest.truncate(limit);
    let next = rest.last().map(|(n, _)| number(*n)).filter(|_| truncated);
    let parts = rest
        .into_iter()
        .map(|(n, part)| {
            let line = Part {
                e_tag: Some(etag(&hex::encode(part.md5))),
                last_modified: Some(date(part.modified)),
                part_number: Some(number(n)),
                size: Some(size(part.segment.length)),
                ..Part::default()
            };
            with_checksums!(line, &part.checksums)
        })
        .collect();
    answer(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        is_truncated: Some(truncated),
        max_parts: i32::try_from(limit).ok(),
        next_part_number_marker: next,
        part_number_marker: Some(after),
        parts: Some(parts),
        ..ListPartsOutput::default()
    })
}

pub(super) async fn list_uploads(
    store: &Store,
    req: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = req.input;
    let limit = limit(input.max_uploads)?;
    let names = Names::new(input.encoding_type.as_ref());
    let bucket = input.bucket.clone();
    let stored = store
        .meta
        .read(move |rows| {
            rows.bucket(&bucket)?;
            Ok(rows.list_uploads(&bucket)?)
        })
        .await?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let marker = input
        .key_marker
        .clone()
        .filter(|marker| !marker.is_empty())
        .map(|key| (key, input.upload_id_marker.clone()));
    let after = |key: &String, id: &String| match &marker {
        None => true,
        Some((last, None)) => key > last,
        Some((last, Some(last_id))) => (key, id) > (last, last_id),
    };
    let mut rest: Vec<_> = stored
        .into_iter()
        .filter(|(key, id, _)| key.starts_with(&prefix) && after(key, id))
        .collect();
    let truncated = rest.len() > limit;
    rest.truncate(limit);
    let next = rest.last().filter(|_| truncated).map(|(key, id, _)| (names.text(key), id.clone()));
    let uploads = rest
        .into_iter()
        .map(|(key, id, upload)| MultipartUpload {
            initiated: Some(date(upload.initiated)),
            key: Some(names.text(&key)),
            upload_id: Some(id),
            ..MultipartUpload::default()
        })
        .collect();
    let (next_key, next_id) = next.unzip();
    answer(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        is_truncated: Some(truncated),
        max_uploads: i32::try_from(limit).ok(),
        prefix: Some(names.text(&prefix)),
        next_key_marker: next_key,
        next_upload_id_marker: next_id,
        uploads: Some(uploads),
        encoding_type: input.encoding_type,
        ..ListMultipartUploadsOutput::default()
    })
}
