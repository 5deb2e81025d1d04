//! Cases about puts: the grant works, create-only, digests, short bodies.

use aws_sdk_s3::{Client, primitives::ByteStream, types::ChecksumAlgorithm};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use md5::{Digest as _, Md5};
use sha2::Sha256;

use super::{Finding, Verdict, context::Context, fail, unsupported};
use crate::store::{LockMode, StoreError, clients::sdk_date};

pub(super) async fn granted_upload_is_stored_with_its_lock(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let Some(facts) = cx.store.head(&base.key, Some(&base.version_id)).await? else {
        return fail("the uploaded version is not there");
    };
    if facts.length != base.body.len() as u64 {
        return fail(format!("length {} instead of {}", facts.length, base.body.len()));
    }
    if facts.lock_mode != Some(LockMode::Compliance) {
        return fail(format!("lock mode {:?}", facts.lock_mode));
    }
    if facts.lock_until.is_none_or(|until| until < base.until) {
        return fail(format!("locked until {:?}, wanted {}", facts.lock_until, base.until));
    }
    let sha256: [u8; 32] = Sha256::digest(&base.body).into();
    let md5: [u8; 16] = Md5::digest(&base.body).into();
    if facts.sha256.is_some_and(|sum| sum != sha256) || facts.md5.is_some_and(|sum| sum != md5) {
        return fail("the reported checksum is another");
    }
    let newest = cx.store.head(&base.key, None).await?;
    match newest {
        Some(facts) if facts.version_id == base.version_id => Ok(String::new()),
        other => fail(format!("the newest version is {:?}", other.map(|f| f.version_id))),
    }
}

pub(super) async fn create_only(cx: &Context) -> Verdict {
    let body = Bytes::from_static(b"first");
    let signed = cx.store.presign_put(&cx.grant("create-only", &body)).await?;
    let first = cx.send(&signed, body.clone()).await?;
    if first.status != 200 {
        return fail(format!("the first put got {}", first.describe()));
    }
    let second = cx.send(&signed, body).await?;
    match (second.status, cx.stored("create-only").await?.len()) {
        (412 | 409, 1) => Ok(String::new()),
        (200, _) => unsupported("a second put with If-None-Match: * was accepted"),
        (501, _) => unsupported("If-None-Match is not implemented"),
        (_, count) => fail(format!("{} and {count} versions", second.describe())),
    }
}

pub(super) async fn create_only_in_a_race(cx: &Context) -> Verdict {
    let body = Bytes::from_static(b"racer");
    let signed = cx.store.presign_put(&cx.grant("race", &body)).await?;
    let racers = (0..12).map(|_| cx.send(&signed, body.clone()));
    let answers = futures::future::join_all(racers).await;
    let mut won = 0;
    for answer in answers {
        won += usize::from(answer?.status == 200);
    }
    let stored = cx.stored("race").await?.len();
    match (won, stored) {
        (1, 1) => Ok(String::new()),
        (0, _) => fail("nobody won"),
        _ => unsupported(format!("{won} of 12 puts won, {stored} versions stored")),
    }
}

/// A put with one announced digest and another body, signed by the ingest key.
async fn put_with(
    client: &Client,
    cx: &Context,
    name: &str,
    md5: Option<&[u8]>,
    sha256: Option<&[u8]>,
) -> Result<(), StoreError> {
    let grant = cx.grant(name, b"");
    let mut put = client
        .put_object()
        .bucket(&cx.store.config().bucket)
        .key(&grant.key)
        .object_lock_mode(aws_sdk_s3::types::ObjectLockMode::Compliance)
        .object_lock_retain_until_date(sdk_date(grant.lock_until))
        .body(ByteStream::from_static(b"what is really sent"));
    if let Some(body) = md5 {
        put = put.content_md5(STANDARD.encode(Md5::digest(body)));
    }
    if let Some(body) = sha256 {
        let sum = STANDARD.encode(Sha256::digest(body));
        put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).checksum_sha256(sum);
    }
    put.send().await.map(|_| ()).map_err(|e| StoreError::from_sdk("put", e))
}

async fn wrong_digest(cx: &Context, name: &str, md5: bool, sha256: bool) -> Verdict {
    let other: &[u8] = b"what was announced";
    let ingest = &cx.store.inner.ingest;
    let sent = put_with(ingest, cx, name, md5.then_some(other), sha256.then_some(other)).await;
    let stored = cx.stored(name).await?.len();
    match (sent, stored) {
        (Err(StoreError::Rejected { code, .. } | StoreError::Denied { code, .. }), 0) => Ok(code),
        (Err(error), 0) => Err(error.into()),
        (Err(error), _) => fail(format!("refused ({error}) but stored")),
        (Ok(()), _) => unsupported("another body was stored: the digest is ignored"),
    }
}

pub(super) async fn wrong_sha256_refused(cx: &Context) -> Verdict {
    wrong_digest(cx, "wrong-sha256", false, true).await
}

pub(super) async fn wrong_md5_refused(cx: &Context) -> Verdict {
    wrong_digest(cx, "wrong-md5", true, false).await
}

/// Whatever single digests are worth: with both pinned, another body must not get in.
pub(super) async fn wrong_body_refused_by_the_grant(cx: &Context) -> Verdict {
    let announced = Bytes::from_static(b"announced body");
    let other = Bytes::from_static(b"another  body!");
    let signed = cx.store.presign_put(&cx.grant("other-body", &announced)).await?;
    cx.refused_and_absent("other-body", &signed, other).await
}

pub(super) async fn short_body_leaves_no_object(cx: &Context) -> Verdict {
    let body = Bytes::from(vec![7_u8; 200_000]);
    let signed = cx.store.presign_put(&cx.grant("short", &body)).await?;
    let half = body.slice(..100_000);
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        vec![Ok(half), Err(std::io::Error::other("the line is cut here"))];
    let cut = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    match cx.send_raw(&signed, cut).await {
        Ok(answer) if !answer.refused() => {
            return fail(format!("half a body got {}", answer.describe()));
        }
        // A cut line is an error on this side too.
        Ok(_) | Err(Finding::Fail(_) | Finding::Unsupported(_)) => {}
    }
    match cx.stored("short").await?.len() {
        0 => Ok(String::new()),
        count => fail(format!("{count} versions stored")),
    }
}
