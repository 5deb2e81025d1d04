//! Cases about reading back: by version id, listings, the store's clock, the key bucket.

use std::time::Duration;

use aws_smithy_types::date_time::{DateTime, Format};
use bytes::Bytes;

use super::{Finding, Verdict, context::Context, explain, fail};
use crate::store::{PresignedRequest, clients::our_date};

/// Signed requests of a host further off than this fail sooner or later.
const SKEW: Duration = Duration::from_secs(60);

pub(super) async fn read_by_version_id(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let whole = cx.store.get(&base.key, &base.version_id).await?;
    if whole != base.body {
        return fail("other bytes came back");
    }
    let part = cx.store.get_range(&base.key, &base.version_id, 1_000..66_000).await?;
    if part != base.body.slice(1_000..66_000) {
        return fail("a range came back with other bytes");
    }
    Ok(String::new())
}

pub(super) async fn read_by_presigned_url(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let life = Duration::from_secs(60);
    let signed = cx.store.presign_get(&base.key, &base.version_id, life).await?;
    let answer = cx.send(&signed, Bytes::new()).await?;
    if answer.status != 200 || answer.body != base.body {
        return fail(format!("got {}", answer.describe()));
    }
    Ok(String::new())
}

pub(super) async fn versions_listed(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let listed = cx.stored("base").await?;
    let fits = listed.iter().any(|version| {
        version.version_id == base.version_id && version.length == base.body.len() as u64
    });
    if fits { Ok(String::new()) } else { fail(format!("the listing shows {listed:?}")) }
}

pub(super) async fn absent_version_is_absent(cx: &Context) -> Verdict {
    let key = cx.key("never-stored");
    if cx.store.head(&key, None).await?.is_some() {
        return fail("a key that was never stored is reported");
    }
    Ok(String::new())
}

pub(super) async fn clock_skew(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let life = Duration::from_secs(60);
    let signed = cx.store.presign_get(&base.key, &base.version_id, life).await?;
    let bare = signed.url.split('?').next().unwrap_or_default().to_owned();
    let request = PresignedRequest { method: "GET".into(), url: bare, headers: Vec::new() };
    let answer = cx.send(&request, Bytes::new()).await?;
    let Some(text) = answer.date else { return fail("the store names no date") };
    let date = DateTime::from_str(&text, Format::HttpDate);
    let date = date.map_err(|e| Finding::Fail(explain(&e)))?;
    let Some(theirs) = our_date(&date) else { return fail("the store's date is no date") };
    let ours = cx.clock.now();
    let skew = ours.since(theirs).max(theirs.since(ours));
    if skew > SKEW {
        return fail(format!("the store's clock is {} s off", skew.as_secs()));
    }
    Ok(String::new())
}

pub(super) async fn key_store_round_trip(cx: &Context) -> Verdict {
    let name = cx.key("wrap");
    let bytes = Bytes::from_static(b"a wrap");
    cx.store.put_key_object(&name, bytes.clone()).await?;
    if cx.store.get_key_object(&name).await? != bytes {
        return fail("other bytes came back from the key bucket");
    }
    let listed = cx.store.list_key_objects(&cx.key("")).await?;
    let keeper = &cx.store.inner.key_keeper;
    let bucket = &cx.store.config().key_bucket;
    let tidied = keeper.delete_object().bucket(bucket).key(&name).send().await;
    tidied.map_err(|e| crate::store::StoreError::from_sdk("delete a key object", e))?;
    if listed == [name] { Ok(String::new()) } else { fail(format!("the listing shows {listed:?}")) }
}
