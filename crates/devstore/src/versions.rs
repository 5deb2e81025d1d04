//! The history of a key: what a put, a delete and a lock do to it, inside one transaction.
//!
//! Owns the rules between versioning, create-only and Object Lock. Invariant: every path that takes
//! a version away asks [`lock::may_delete`] first. Blobs whose rows went are handed back, to be
//! removed after the commit.

use domain::Timestamp;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::{
    lock::{self, Bypass, Refusal, Retention},
    meta::{Found, Rows, Write},
    model::{Bucket, Content, LockWish, NULL_VERSION, Object, Segment, Version, Versioning},
};

/// Both clocks, read once per request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub wall: Timestamp,
    /// The time locks are judged by.
    pub locks: Timestamp,
}

/// The condition of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PutIf {
    Always,
    /// `If-None-Match: *`.
    Absent,
    /// `If-Match`, without quotes; `*` means any.
    Matches(String),
}

/// What became of a put or delete.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// `None` in buckets that never had versioning.
    pub version_id: Option<String>,
    pub delete_marker: bool,
    pub garbage: Vec<Segment>,
}

pub(crate) fn refused(refusal: Refusal) -> S3Error {
    let code = match refusal {
        Refusal::NotInFuture => S3ErrorCode::InvalidArgument,
        Refusal::LegalHold | Refusal::Locked(_) | Refusal::Shortened(_) => {
            S3ErrorCode::AccessDenied
        }
    };
    S3Error::with_message(code, refusal.to_string())
}

/// The lock a new object gets: what was asked, else the bucket's default.
pub(crate) fn granted_lock(bucket: &Bucket, wish: LockWish, now: Now) -> S3Result<LockWish> {
    let Some(bucket_lock) = bucket.lock else {
        if wish.retention.is_some() || wish.legal_hold {
            return Err(s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration"));
        }
        return Ok(wish);
    };
    if let Some(retention) = wish.retention {
        lock::may_replace(None, Some(retention), Bypass::No, now.locks, now.wall)
            .map_err(refused)?;
    }
    let default = bucket_lock.default.map(|default| default.from(now.wall));
    Ok(LockWish { retention: wish.retention.or(default), ..wish })
}

fn check_condition(current: Option<&Found>, condition: &PutIf) -> S3Result<()> {
    let object = current.and_then(|found| found.version.object());
    match (condition, object) {
        (PutIf::Always, _) | (PutIf::Absent, None) => Ok(()),
        (PutIf::Absent, Some(_)) => {
            Err(s3_error!(PreconditionFailed, "an object with this key exists"))
        }
        (PutIf::Matches(_), None) => Err(s3_error!(NoSuchKey)),
        (PutIf::Matches(etag), Some(object)) if etag == "*" || *etag == object.etag => Ok(()),
        (PutIf::Matches(_), Some(_)) => Err(s3_error!(PreconditionFailed, "the ETag differs")),
    }
}

/// Adds an object as the newest version. `make` is called once nothing can be refused any more: it
/// takes the blobs over.
pub(crate) fn put(
    rows: &mut Write<'_>,
    place: (&str, &str),
    condition: &PutIf,
    wish: LockWish,
    now: Now,
    make: impl FnOnce(&mut Write<'_>) -> S3Result<Object>,
) -> S3Result<Changed> {
    let (bucket_name, key) = place;
    let bucket = rows.bucket(bucket_name)?;
    check_condition(rows.latest(bucket_name, key)?.as_ref(), condition)?;
    let lock = granted_lock(&bucket, wish, now)?;
    let replaced = replaced_by_put(rows, place, &bucket, now)?;
    let object = make(rows)?;
    let (at, fresh) = rows.next_version()?;
    let id = id_in(&bucket, fresh);
    let object = Object { retention: lock.retention, legal_hold: lock.legal_hold, ..object };
    let version =
        Version { id: id.clone(), modified: now.wall, content: Content::Object(Box::new(object)) };
    let garbage = take_away(rows, place, replaced)?;
    rows.set_version(bucket_name, key, at, &version)?;
    let shown = (bucket.versioning != Versioning::Never).then_some(id);
    Ok(Changed { version_id: shown, delete_marker: false, garbage })
}

fn id_in(bucket: &Bucket, fresh: String) -> String {
    if bucket.versioning == Versioning::Enabled { fresh } else { NULL_VERSION.to_owned() }
}

/// Without versioning a put or plain delete takes the null version's place.
fn replaced_by_put(
    rows: &Write<'_>,
    (bucket_name, key): (&str, &str),
    bucket: &Bucket,
    now: Now,
) -> S3Result<Option<Found>> {
    if bucket.versioning == Versioning::Enabled {
        return Ok(None);
    }
    let replaced = rows.find_version(bucket_name, key, NULL_VERSION)?;
    if let Some(found) = &replaced {
        check_deletable(&found.version, Bypass::No, now)?;
    }
    Ok(replaced)
}

fn check_deletable(version: &Version, bypass: Bypass, now: Now) -> S3Result<()> {
    let Some(object) = version.object() else { return Ok(()) };
    lock::may_delete(object.retention, object.legal_hold, bypass, now.locks).map_err(refused)
}

fn take_away(
    rows: &mut Write<'_>,
    (bucket, key): (&str, &str),
    found: Option<Found>,
) -> S3Result<Vec<Segment>> {
    let Some(found) = found else { return Ok(Vec::new()) };
    rows.delete_version(bucket, key, found.at)?;
    Ok(match found.version.content {
        Content::DeleteMarker => Vec::new(),
        Content::Object(object) => object.segments,
    })
}

/// A delete without a version id: a marker where there is versioning.
pub(crate) fn delete_plain(
    rows: &mut Write<'_>,
    place: (&str, &str),
    now: Now,
) -> S3Result<Changed> {
    let (bucket_name, key) = place;
    let bucket = rows.bucket(bucket_name)?;
    let replaced = replaced_by_put(rows, place, &bucket, now)?;
    let garbage = take_away(rows, place, replaced)?;
    if bucket.versioning == Versioning::Never {
        return Ok(Changed { version_id: None, delete_marker: false, garbage });
    }
    let (at, fresh) = rows.next_version()?;
    let id = id_in(&bucket, fresh);
    let marker = Version { id: id.clone(), modified: now.wall, content: Content::DeleteMarker };
    rows.set_version(bucket_name, key, at, &marker)?;
    Ok(Changed { version_id: Some(id), delete_marker: true, garbage })
}

/// A delete by version id; of what is not there, a success.
pub(crate) fn delete_version(
    rows: &mut Write<'_>,
    place: (&str, &str),
    id: &str,
    bypass: Bypass,
    now: Now,
) -> S3Result<Changed> {
    rows.bucket(place.0)?;
    let found = rows.find_version(place.0, place.1, id)?;
    let delete_marker = found.as_ref().is_some_and(|found| found.version.object().is_none());
    if let Some(found) = &found {
        check_deletable(&found.version, bypass, now)?;
    }
    let garbage = take_away(rows, place, found)?;
    Ok(Changed { version_id: Some(id.to_owned()), delete_marker, garbage })
}

/// The row a request means: by id, or the newest. A marker is an error, as is nothing.
pub(crate) fn wanted(
    rows: &impl Rows,
    (bucket, key): (&str, &str),
    id: Option<&str>,
) -> S3Result<Found> {
    rows.bucket(bucket)?;
    let found = match id {
        Some(id) => rows
            .find_version(bucket, key, id)?
            .ok_or_else(|| s3_error!(NoSuchVersion, "the version does not exist"))?,
        None => rows.latest(bucket, key)?.ok_or_else(no_such_key)?,
    };
    if found.version.object().is_none() {
        return Err(if id.is_some() { s3_error!(MethodNotAllowed) } else { no_such_key() });
    }
    Ok(found)
}

fn no_such_key() -> S3Error {
    s3_error!(NoSuchKey, "The specified key does not exist.")
}

/// Changes the locks of one version.
pub(crate) fn change_object(
    rows: &mut Write<'_>,
    place: (&str, &str),
    id: Option<&str>,
    change: impl FnOnce(&mut Object) -> S3Result<()>,
) -> S3Result<()> {
    if rows.bucket(place.0)?.lock.is_none() {
        return Err(s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration"));
    }
    let mut found = wanted(rows, place, id)?;
    if let Content::Object(object) = &mut found.version.content {
        change(object)?;
    }
    rows.set_version(place.0, place.1, found.at, &found.version)?;
    Ok(())
}

/// Replaces a version's retention where the rules allow it.
pub(crate) fn set_retention(
    object: &mut Object,
    new: Option<Retention>,
    bypass: Bypass,
    now: Now,
) -> S3Result<()> {
    lock::may_replace(object.retention, new, bypass, now.locks, now.wall).map_err(refused)?;
    object.retention = new;
    Ok(())
}
