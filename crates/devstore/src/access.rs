//! Who is asking, and may they: keys, the header guard, the policy table, the bucket scope.
//!
//! Owns the order of the checks: signature (by s3s), then guard, then policy, then bucket. Invariant:
//! an anonymous request, an unknown operation or a bucket outside the key's scope is refused. It
//! must not touch storage.

use std::{collections::HashMap, fmt, sync::Arc};

use http::HeaderMap;
use s3s::{
    S3Request, S3Result,
    access::{S3Access, S3AccessContext},
    auth::{Credentials, S3Auth, SecretKey},
    dto::{CopyObjectInput, CopySource, DeleteObjectsInput, UploadPartCopyInput},
    path::S3Path,
    s3_error,
};

use crate::{
    guard::{self, Signed},
    policy::{Action, Policy, Shape, needed},
};

/// An access key of the store.
#[derive(Clone)]
pub struct Key {
    pub access_key: String,
    pub secret_key: String,
    pub policy: Policy,
    /// The buckets it may touch. Empty: none; for an administrator: all.
    pub buckets: Vec<String>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("access_key", &self.access_key)
            .field("policy", &self.policy)
            .field("buckets", &self.buckets)
            .finish_non_exhaustive()
    }
}

impl Key {
    fn reaches(&self, bucket: &str) -> bool {
        let all = self.policy == Policy::Administrator && self.buckets.is_empty();
        all || self.buckets.iter().any(|name| name == bucket)
    }
}

/// All keys by access key.
#[derive(Clone)]
pub(crate) struct Keys(Arc<HashMap<String, Key>>);

impl Keys {
    pub(crate) fn new(keys: Vec<Key>) -> Self {
        Self(Arc::new(keys.into_iter().map(|key| (key.access_key.clone(), key)).collect()))
    }

    fn of(&self, credentials: Option<&Credentials>) -> S3Result<&Key> {
        credentials
            .and_then(|credentials| self.0.get(&credentials.access_key))
            .ok_or_else(|| s3_error!(AccessDenied, "Signature is required"))
    }

    /// The buckets a listing of buckets may show.
    pub(crate) fn visible(&self, credentials: Option<&Credentials>, bucket: &str) -> bool {
        self.of(credentials).is_ok_and(|key| key.reaches(bucket))
    }

    fn check_source(&self, credentials: Option<&Credentials>, source: &CopySource) -> S3Result<()> {
        match source {
            CopySource::Bucket { bucket, .. } if self.of(credentials)?.reaches(bucket) => Ok(()),
            _ => Err(denied()),
        }
    }
}

fn denied() -> s3s::S3Error {
    s3_error!(AccessDenied, "Access Denied")
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let key = self.0.get(access_key);
        let key = key.ok_or_else(|| s3_error!(InvalidAccessKeyId, "the access key is unknown"))?;
        Ok(SecretKey::from(key.secret_key.as_str()))
    }
}

#[async_trait::async_trait]
impl S3Access for Keys {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let key = self.of(cx.credentials())?;
        let signed = guard::check(cx.uri(), cx.headers()).map_err(|why| {
            s3s::S3Error::with_message(s3s::S3ErrorCode::AccessDenied, why.to_string())
        })?;
        let plain = matches!(cx.s3_op().name(), "GetObject" | "HeadObject" | "PutObject");
        // Nothing of ours signs with Version 2; an administrator's older tools may.
        if signed == Signed::V2Url && !(plain && key.policy == Policy::Administrator) {
            return Err(denied());
        }
        let shape = shape(cx);
        let actions = needed(cx.s3_op().name(), shape)
            .ok_or_else(|| s3_error!(NotImplemented, "this store does not offer that"))?;
        if !actions.into_iter().all(|action| key.policy.allows(action)) {
            return Err(denied());
        }
        refuse_unsupported(cx.headers())?;
        if let S3Path::Object { key, .. } = cx.s3_path()
            && !key.chars().all(speakable)
        {
            return Err(s3_error!(InvalidArgument, "a key may not hold control characters"));
        }
        match cx.s3_path() {
            S3Path::Root => Ok(()),
            S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } => {
                if key.reaches(bucket) {
                    Ok(())
                } else {
                    Err(denied())
                }
            }
        }
    }

    async fn delete_objects(&self, req: &mut S3Request<DeleteObjectsInput>) -> S3Result<()> {
        let policy = self.of(req.credentials.as_ref())?.policy;
        let plain = req.input.delete.objects.iter().any(|object| object.version_id.is_none());
        if plain && !policy.allows(Action::DeleteObject) { Err(denied()) } else { Ok(()) }
    }

    async fn copy_object(&self, req: &mut S3Request<CopyObjectInput>) -> S3Result<()> {
        self.check_source(req.credentials.as_ref(), &req.input.copy_source)
    }

    async fn upload_part_copy(&self, req: &mut S3Request<UploadPartCopyInput>) -> S3Result<()> {
        self.check_source(req.credentials.as_ref(), &req.input.copy_source)
    }
}

fn shape(cx: &S3AccessContext<'_>) -> Shape {
    let headers = cx.headers();
    let has = |name: &str| headers.contains_key(name);
    let by_version = cx.uri().query().is_some_and(|query| {
        query.split('&').any(|pair| pair.split('=').next() == Some("versionId"))
    });
    Shape {
        by_version,
        locks: has("x-amz-object-lock-mode") || has("x-amz-object-lock-retain-until-date"),
        holds: has("x-amz-object-lock-legal-hold"),
        bypasses: headers
            .get("x-amz-bypass-governance-retention")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")),
    }
}

/// What XML can carry: one key it cannot would make every listing of its bucket unreadable.
fn speakable(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Headers whose meaning this store does not keep: refused, never dropped in silence.
fn refuse_unsupported(headers: &HeaderMap) -> S3Result<()> {
    let foreign = headers.keys().map(http::HeaderName::as_str).find(|name| {
        name.starts_with("x-amz-grant-")
            || name.starts_with("x-amz-server-side-encryption")
            || matches!(*name, "x-amz-tagging" | "x-amz-website-redirect-location")
    });
    if let Some(name) = foreign {
        let text = format!("this store does not offer {name}");
        return Err(s3s::S3Error::with_message(s3s::S3ErrorCode::NotImplemented, text));
    }
    match headers.get("x-amz-acl").map(http::HeaderValue::as_bytes) {
        None | Some(b"private" | b"bucket-owner-full-control") => Ok(()),
        Some(_) => Err(s3_error!(AccessControlListNotSupported, "everything here is private")),
    }
}
