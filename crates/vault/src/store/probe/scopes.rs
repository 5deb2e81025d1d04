//! Cases about the scoped keys: none can do another's work.
//!
//! Where two keys are the same there is nothing to see, and the case is `unsupported`.

use std::time::Duration;

use aws_sdk_s3::{Client, primitives::ByteStream};

use super::{
    Verdict,
    context::{Base, Context},
    fail, unsupported,
};
use crate::store::{Credentials, LockMode, StoreError, s3::put_retention};

/// What a key may be tried at.
#[derive(Debug, Clone, Copy)]
enum Try {
    Put,
    Get,
    Head,
    List,
    ListVersions,
    Delete,
    Extend,
    GetKey,
    PutKey,
}

async fn attempt(cx: &Context, client: &Client, what: Try) -> Result<(), StoreError> {
    let config = cx.store.config();
    let (bucket, keys) = (config.bucket.as_str(), config.key_bucket.as_str());
    let Ok(Base { key, version_id, until, .. }) = cx.base().await else {
        return Err(StoreError::NotFound);
    };
    let body = || ByteStream::from_static(b"scope");
    macro_rules! sent {
        ($call:expr) => {
            $call.send().await.map(|_| ()).map_err(|e| StoreError::from_sdk("scope", e))
        };
    }
    match what {
        Try::Put => sent!(client.put_object().bucket(bucket).key(cx.key("scope")).body(body())),
        Try::Get => sent!(client.get_object().bucket(bucket).key(key).version_id(version_id)),
        Try::Head => sent!(client.head_object().bucket(bucket).key(key).version_id(version_id)),
        Try::List => sent!(client.list_objects_v2().bucket(bucket).prefix(cx.key(""))),
        Try::ListVersions => {
            sent!(client.list_object_versions().bucket(bucket).prefix(cx.key("")))
        }
        // Of a version that is not there, so that a store that allows it loses nothing.
        Try::Delete => {
            let absent = "00000000000000000000000000000000";
            sent!(client.delete_object().bucket(bucket).key(cx.key("scope")).version_id(absent))
        }
        Try::Extend => {
            let until = *until + Duration::from_secs(40);
            put_retention(client, bucket, (key, version_id), LockMode::Compliance, until).await
        }
        Try::GetKey => sent!(client.get_object().bucket(keys).key(cx.key("scope-wrap"))),
        Try::PutKey => {
            sent!(client.put_object().bucket(keys).key(cx.key("scope-wrap")).body(body()))
        }
    }
}

async fn all_refused(cx: &Context, client: &Client, keys: &Credentials, tries: &[Try]) -> Verdict {
    let config = cx.store.config();
    let all =
        [&config.ingest, &config.restore, &config.steward, &config.reaper, &config.key_keeper];
    if all.into_iter().filter(|other| *other == keys).count() > 1 {
        return unsupported("the same key does several jobs");
    }
    cx.base().await?;
    for what in tries {
        match attempt(cx, client, *what).await {
            Err(StoreError::Denied { .. }) => {}
            Err(error) => return fail(format!("{what:?}: {}", super::explain(&error))),
            Ok(()) => return fail(format!("{what:?} was allowed")),
        }
    }
    Ok(String::new())
}

pub(super) async fn ingest_signer_only_puts(cx: &Context) -> Verdict {
    let inner = &cx.store.inner;
    let tries =
        [Try::Get, Try::Head, Try::List, Try::ListVersions, Try::Delete, Try::GetKey, Try::PutKey];
    all_refused(cx, &inner.ingest, &inner.config.ingest, &tries).await
}

pub(super) async fn restore_signer_only_reads(cx: &Context) -> Verdict {
    let inner = &cx.store.inner;
    let tries = [
        Try::Put,
        Try::List,
        Try::ListVersions,
        Try::Delete,
        Try::Extend,
        Try::GetKey,
        Try::PutKey,
    ];
    all_refused(cx, &inner.restore, &inner.config.restore, &tries).await
}

pub(super) async fn steward_only_extends(cx: &Context) -> Verdict {
    let inner = &cx.store.inner;
    let tries = [Try::Put, Try::Delete, Try::GetKey, Try::PutKey];
    all_refused(cx, &inner.steward, &inner.config.steward, &tries).await
}

pub(super) async fn reaper_only_deletes(cx: &Context) -> Verdict {
    let inner = &cx.store.inner;
    // Head is another right here and the same one as get on AWS, so get is not tried.
    let tries = [Try::Put, Try::Extend, Try::GetKey, Try::PutKey];
    all_refused(cx, &inner.reaper, &inner.config.reaper, &tries).await
}

pub(super) async fn key_keeper_stays_in_its_bucket(cx: &Context) -> Verdict {
    let inner = &cx.store.inner;
    let tries =
        [Try::Put, Try::Get, Try::Head, Try::List, Try::ListVersions, Try::Delete, Try::Extend];
    all_refused(cx, &inner.key_keeper, &inner.config.key_keeper, &tries).await
}
