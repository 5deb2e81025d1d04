//! Get and head: versions, ranges, conditions.

use domain::Timestamp;
use http::StatusCode;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*, s3_error};

use super::{
    Store, answer,
    convert::{checksum_type, date, etag, lock_headers, moment, size, with_checksums},
};
use crate::{
    blobs::Body,
    meta::{Found, Rows as _},
    model::{Object as StoredObject, Versioning},
    versions,
};

/// The conditions of a read, as RFC 9110 orders them.
pub(super) struct Conditions {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Failed,
    NotModified,
}

impl Conditions {
    pub(super) fn judge(&self, etag: &str, modified: Timestamp) -> Verdict {
        let same = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(wanted) => wanted.value() == etag,
        };
        // HTTP dates are whole seconds.
        let modified = modified.unix_secs();
        match (&self.if_match, self.if_unmodified_since) {
            (Some(condition), _) if !same(condition) => return Verdict::Failed,
            (None, Some(since)) if modified > since.unix_secs() => return Verdict::Failed,
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(condition), _) if same(condition) => Verdict::NotModified,
            (None, Some(since)) if modified <= since.unix_secs() => Verdict::NotModified,
            _ => Verdict::Go,
        }
    }

    fn check(&self, found: &Found, object: &StoredObject) -> S3Result<()> {
        match self.judge(&object.etag, found.version.modified) {
            Verdict::Go => Ok(()),
            Verdict::Failed => Err(s3_error!(PreconditionFailed)),
            Verdict::NotModified => {
                let mut error = S3Error::new(S3ErrorCode::NotModified);
                error.set_status_code(StatusCode::NOT_MODIFIED);
                Err(error)
            }
        }
    }
}

struct Looked {
    found: Found,
    object: StoredObject,
    /// Shown only in buckets that know versions.
    version_id: Option<String>,
}

async fn look(store: &Store, bucket: &str, key: &str, id: Option<&str>) -> S3Result<Looked> {
    let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.map(str::to_owned));
    store
        .meta
        .read(move |rows| {
            let versioning = rows.bucket(&bucket)?.versioning;
            let found = versions::wanted(rows, (&bucket, &key), id.as_deref())?;
            let object = found.version.object().cloned().ok_or(S3ErrorCode::NoSuchKey)?;
            let shown = versioning != Versioning::Never;
            let version_id = shown.then(|| found.version.id.clone());
            Ok(Looked { found, object, version_id })
        })
        .await
}

/// Looks a body up and opens it; once more if a delete came between.
pub(super) async fn open(
    store: &Store,
    bucket: &str,
    key: &str,
    id: Option<&str>,
    pick: impl Fn(&Found, &StoredObject) -> S3Result<std::ops::Range<u64>>,
) -> S3Result<(Found, StoredObject, Option<String>, std::ops::Range<u64>, Body)> {
    let mut again = true;
    loop {
        let Looked { found, object, version_id } = look(store, bucket, key, id).await?;
        let range = pick(&found, &object)?;
        match store.blobs.open_body(&object.segments, range.clone()).await {
            Ok(body) => return Ok((found, object, version_id, range, body)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && again => again = false,
            Err(error) => return Err(S3Error::internal_error(error)),
        }
    }
}

fn picked(range: Option<Range>, object: &StoredObject) -> S3Result<std::ops::Range<u64>> {
    match range {
        Some(range) => Ok(range.check(object.length)?),
        None => Ok(0..object.length),
    }
}

fn content_range(range: &std::ops::Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))
}

/// Everything of an answer that get and head share.
macro_rules! described {
    ($kind:ident, $looked:expr, $checksums:expr, $partial:expr, $range:expr) => {{
        let (found, object, version_id) = $looked;
        let (mode, until, hold) = lock_headers(object);
        let attributes = object.attributes.clone();
        let metadata: Metadata = attributes.metadata.into_iter().collect();
        let output = $kind {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: attributes.cache_control,
            content_disposition: attributes.content_disposition,
            content_encoding: attributes.content_encoding,
            content_language: attributes.content_language,
            content_type: attributes.content_type.or(Some("binary/octet-stream".to_owned())),
            content_length: Some(size($range.end - $range.start)),
            content_range: $partial.then(|| content_range(&$range, object.length)),
            e_tag: Some(etag(&object.etag)),
            last_modified: Some(date(found.version.modified)),
            metadata: (!metadata.is_empty()).then_some(metadata),
            object_lock_mode: mode,
            object_lock_retain_until_date: until,
            object_lock_legal_hold_status: hold,
            version_id,
            ..$kind::default()
        };
        // A checksum of the whole would not fit a part of it.
        if $checksums && !$partial {
            let output = with_checksums!(output, &object.checksums);
            $kind { checksum_type: checksum_type(&object.checksums), ..output }
        } else {
            output
        }
    }};
}

macro_rules! conditions {
    ($input:expr) => {
        Conditions {
            if_match: $input.if_match.take(),
            if_none_match: $input.if_none_match.take(),
            if_modified_since: $input.if_modified_since.take().map(moment),
            if_unmodified_since: $input.if_unmodified_since.take().map(moment),
        }
    };
}

fn wants_checksums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

fn refuse_part_number(part: Option<i32>) -> S3Result<()> {
    match part {
        None | Some(1) => Ok(()),
        Some(_) => Err(s3_error!(NotImplemented, "reading by part number is not offered")),
    }
}

pub(super) async fn get(
    store: &Store,
    mut req: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let input = &mut req.input;
    refuse_part_number(input.part_number)?;
    let conditions = conditions!(input);
    let range = input.range;
    let (found, object, version_id, span, body) =
        open(store, &input.bucket, &input.key, input.version_id.as_deref(), |found, object| {
            conditions.check(found, object)?;
            picked(range, object)
        })
        .await?;
    let (partial, sums) = (range.is_some(), wants_checksums(input.checksum_mode.as_ref()));
    let mut output =
        described!(GetObjectOutput, (&found, &object, version_id), sums, partial, span);
    output.body = Some(StreamingBlob::wrap(body.into_stream()));
    let status = if partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    Ok(S3Response::with_status(output, status))
}

pub(super) async fn head(
    store: &Store,
    mut req: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = &mut req.input;
    refuse_part_number(input.part_number)?;
    let conditions = conditions!(input);
    let looked = look(store, &input.bucket, &input.key, input.version_id.as_deref()).await?;
    let Looked { found, object, version_id } = looked;
    conditions.check(&found, &object)?;
    let span = picked(input.range, &object)?;
    let (partial, sums) = (input.range.is_some(), wants_checksums(input.checksum_mode.as_ref()));
    answer(described!(HeadObjectOutput, (&found, &object, version_id), sums, partial, span))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_millis(secs * 1000)
    }

    #[test]
    fn conditions_follow_rfc_9110() {
        let tag = |text: &str| Some(ETagCondition::ETag(etag(text)));
        let table = [
            (tag("a"), None, None, None, Verdict::Go),
            (tag("b"), None, None, None, Verdict::Failed),
            (Some(ETagCondition::Any), None, None, None, Verdict::Go),
            (tag("a"), None, None, Some(at(5)), Verdict::Go),
            (None, None, None, Some(at(5)), Verdict::Failed),
            (None, None, None, Some(at(10)), Verdict::Go),
            (None, tag("a"), None, None, Verdict::NotModified),
            (None, tag("b"), Some(at(20)), None, Verdict::Go),
            (None, None, Some(at(10)), None, Verdict::NotModified),
            (None, None, Some(at(9)), None, Verdict::Go),
        ];
        for (index, (if_match, if_none_match, modified, unmodified, verdict)) in
            table.into_iter().enumerate()
        {
            let conditions = Conditions {
                if_match,
                if_none_match,
                if_modified_since: modified,
                if_unmodified_since: unmodified,
            };
            assert_eq!(conditions.judge("a", at(10)), verdict, "row {index}");
        }
    }
}
