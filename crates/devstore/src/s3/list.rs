//! Listings of objects (both versions of the call) and of versions.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use s3s::{S3Request, S3Response, S3Result, dto::*};

use super::{
    Store, answer,
    convert::{Names, date, etag, invalid, limit},
    object::shown_size,
};
use crate::{
    listing::{self, Line, Page, Query},
    model::Version,
};

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

async fn page(store: &Store, bucket: String, query: Query) -> S3Result<Page> {
    store.meta.read(move |rows| listing::list(rows, &bucket, &query)).await
}

fn prefix_line(names: Names, prefix: &str) -> CommonPrefix {
    CommonPrefix { prefix: Some(names.text(prefix)) }
}

fn object_line(names: Names, key: &str, version: &Version) -> Option<Object> {
    let object = version.object()?;
    Some(Object {
        e_tag: Some(etag(&object.etag)),
        key: Some(names.text(key)),
        last_modified: Some(date(version.modified)),
        size: Some(shown_size(object)),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Object::default()
    })
}

/// Current objects and folded prefixes of a page.
fn lines(names: Names, page: &Page) -> (Vec<Object>, Vec<CommonPrefix>) {
    let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
    for line in &page.lines {
        match line {
            Line::Version { key, version, .. } => objects.extend(object_line(names, key, version)),
            Line::Prefix(prefix) => prefixes.push(prefix_line(names, prefix)),
        }
    }
    (objects, prefixes)
}

fn next(page: &Page) -> Option<&str> {
    page.truncated.then(|| page.last().map(|(key, _)| key)).flatten()
}

pub(super) async fn v1(
    store: &Store,
    req: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = req.input;
    let limit = limit(input.max_keys)?;
    let query = Query {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone(),
        after: input.marker.clone().filter(|marker| !marker.is_empty()),
        limit,
        ..Query::default()
    };
    let page = page(store, input.bucket.clone(), query).await?;
    let names = Names::new(input.encoding_type.as_ref());
    let (contents, prefixes) = lines(names, &page);
    answer(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(names.text(&input.prefix.unwrap_or_default())),
        marker: Some(names.text(&input.marker.unwrap_or_default())),
        max_keys: Some(count(limit)),
        is_truncated: Some(page.truncated),
        next_marker: next(&page).map(|key| names.text(key)),
        contents: Some(contents),
        common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
        delimiter: names.option(input.delimiter),
        encoding_type: input.encoding_type,
        ..ListObjectsOutput::default()
    })
}

pub(super) async fn v2(
    store: &Store,
    req: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = req.input;
    let limit = limit(input.max_keys)?;
    let token = input.continuation_token.as_deref().map(read_token).transpose()?;
    let query = Query {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone(),
        after: token.or_else(|| input.start_after.clone()).filter(|after| !after.is_empty()),
        limit,
        ..Query::default()
    };
    let page = page(store, input.bucket.clone(), query).await?;
    let names = Names::new(input.encoding_type.as_ref());
    let (contents, prefixes) = lines(names, &page);
    answer(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(names.text(&input.prefix.unwrap_or_default())),
        max_keys: Some(count(limit)),
        key_count: Some(count(page.lines.len())),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.truncated),
        next_continuation_token: next(&page).map(|key| URL_SAFE_NO_PAD.encode(key)),
        contents: Some(contents),
        common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
        delimiter: names.option(input.delimiter),
        start_after: names.option(input.start_after),
        encoding_type: input.encoding_type,
        ..ListObjectsV2Output::default()
    })
}

fn read_token(token: &str) -> S3Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| invalid("the continuation token is not one of ours"))
}

pub(super) async fn versions(
    store: &Store,
    req: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let input = req.input;
    let limit = limit(input.max_keys)?;
    let query = Query {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone(),
        after: input.key_marker.clone().filter(|marker| !marker.is_empty()),
        after_version: input.version_id_marker.clone().filter(|marker| !marker.is_empty()),
        limit,
        all_versions: true,
    };
    let page = page(store, input.bucket.clone(), query).await?;
    let names = Names::new(input.encoding_type.as_ref());
    let (mut objects, mut markers, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
    for line in &page.lines {
        match line {
            Line::Prefix(prefix) => prefixes.push(prefix_line(names, prefix)),
            Line::Version { key, version, latest } if version.object().is_none() => {
                markers.push(DeleteMarkerEntry {
                    is_latest: Some(*latest),
                    key: Some(names.text(key)),
                    last_modified: Some(date(version.modified)),
                    version_id: Some(version.id.clone()),
                    ..DeleteMarkerEntry::default()
                });
            }
            Line::Version { key, version, latest } => {
                objects.extend(version_line(names, key, version, *latest));
            }
        }
    }
    let last = page.truncated.then(|| page.last()).flatten();
    answer(ListObjectVersionsOutput {
        name: Some(input.bucket),
        prefix: Some(names.text(&input.prefix.unwrap_or_default())),
        key_marker: Some(names.text(&input.key_marker.unwrap_or_default())),
        version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
        max_keys: Some(count(limit)),
        is_truncated: Some(page.truncated),
        next_key_marker: last.map(|(key, _)| names.text(key)),
        next_version_id_marker: last.and_then(|(_, id)| id.map(str::to_owned)),
        versions: (!objects.is_empty()).then_some(objects),
        delete_markers: (!markers.is_empty()).then_some(markers),
        common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
        delimiter: names.option(input.delimiter),
        encoding_type: input.encoding_type,
        ..ListObjectVersionsOutput::default()
    })
}

fn version_line(names: Names, key: &str, version: &Version, latest: bool) -> Option<ObjectVersion> {
    let object = version.object()?;
    let class = ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD);
    Some(ObjectVersion {
        e_tag: Some(etag(&object.etag)),
        is_latest: Some(latest),
        key: Some(names.text(key)),
        last_modified: Some(date(version.modified)),
        size: Some(shown_size(object)),
        storage_class: Some(class),
        version_id: Some(version.id.clone()),
        ..ObjectVersion::default()
    })
}
