//! Cases about locks on what is stored.

use std::time::Duration;

use aws_sdk_s3::{
    Client,
    types::{Delete, ObjectIdentifier},
};

use super::{
    Finding, Verdict,
    context::{Base, Context, LOCK},
    fail,
};
use crate::store::{Deletion, LockMode, StoreError, s3::put_retention};

/// The strongest key at hand for an attack: what even it cannot do, nobody can.
fn strongest(cx: &Context) -> &Client {
    cx.store.inner.admin.as_ref().unwrap_or(&cx.store.inner.reaper)
}

async fn still_there(cx: &Context, base: &Base) -> Result<(), Finding> {
    let facts = cx.store.head(&base.key, Some(&base.version_id)).await?;
    match facts {
        Some(facts) if facts.lock_mode == Some(LockMode::Compliance) => Ok(()),
        Some(facts) => fail(format!("the lock is now {:?}", facts.lock_mode)),
        None => fail("the locked version is gone"),
    }
}

pub(super) async fn extension_at_once(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    extend(cx, base, base.until + Duration::from_secs(30)).await
}

/// After every other case ran: seconds later, on the same version.
pub(super) async fn extension_later(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let until = base.until + LOCK;
    extend(cx, base, until).await?;
    // The same date again must be harmless: the steward repeats itself.
    extend(cx, base, until).await
}

async fn extend(cx: &Context, base: &Base, until: domain::Timestamp) -> Verdict {
    let until = until.ceil_to_second();
    let reported = cx.store.extend_lock(&base.key, &base.version_id, until).await?;
    if reported < until {
        return fail(format!("reports {reported} after an extension to {until}"));
    }
    Ok(String::new())
}

pub(super) async fn lock_still_reported(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    still_there(cx, base).await?;
    let facts = cx.store.head(&base.key, Some(&base.version_id)).await?;
    let until = facts.and_then(|facts| facts.lock_until);
    if until.is_none_or(|until| until < base.until + LOCK) {
        return fail(format!("locked until {until:?} at the end"));
    }
    Ok(String::new())
}

pub(super) async fn locked_delete_refused(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let end = cx.store.delete_by_id(&base.key, &base.version_id).await;
    still_there(cx, base).await?;
    match end {
        Ok(Deletion::Retained { until: Some(until) }) if until >= base.until => Ok(String::new()),
        Ok(end) => fail(format!("the delete ended as {end:?}")),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn locked_delete_in_a_batch_refused(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let object = ObjectIdentifier::builder().key(&base.key).version_id(&base.version_id).build();
    let objects = object.map_err(|e| Finding::Fail(super::explain(&e)))?;
    let delete = Delete::builder().objects(objects).build();
    let delete = delete.map_err(|e| Finding::Fail(super::explain(&e)))?;
    let sent = strongest(cx)
        .delete_objects()
        .bucket(&cx.store.config().bucket)
        .delete(delete)
        .send()
        .await
        .map_err(|e| StoreError::from_sdk("delete_objects", e));
    still_there(cx, base).await?;
    match sent {
        Ok(answer) if answer.errors().is_empty() => fail("the batch reports no refusal"),
        Ok(_) | Err(StoreError::Denied { .. } | StoreError::Rejected { .. }) => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

async fn refused_retention(cx: &Context, mode: LockMode, until: domain::Timestamp) -> Verdict {
    let base = cx.base().await?;
    let bucket = &cx.store.config().bucket;
    let mut last = String::new();
    for client in [&cx.store.inner.steward, strongest(cx)] {
        let place = (base.key.as_str(), base.version_id.as_str());
        match put_retention(client, bucket, place, mode, until).await {
            Err(StoreError::Denied { code, .. } | StoreError::Rejected { code, .. }) => last = code,
            Err(error) => return Err(error.into()),
            Ok(()) => return fail("accepted"),
        }
    }
    still_there(cx, base).await?;
    let facts = cx.store.head(&base.key, Some(&base.version_id)).await?;
    if facts.and_then(|facts| facts.lock_until).is_none_or(|until| until < base.until) {
        return fail("the lock is shorter than granted");
    }
    Ok(last)
}

pub(super) async fn shortening_refused(cx: &Context) -> Verdict {
    let sooner = cx.clock.now() + Duration::from_secs(20);
    refused_retention(cx, LockMode::Compliance, sooner).await
}

pub(super) async fn weakening_to_governance_refused(cx: &Context) -> Verdict {
    let later = cx.clock.now() + LOCK + LOCK;
    refused_retention(cx, LockMode::Governance, later).await
}

pub(super) async fn bypass_refused(cx: &Context) -> Verdict {
    let base = cx.base().await?;
    let bucket = &cx.store.config().bucket;
    for client in [&cx.store.inner.reaper, strongest(cx)] {
        let sent = client
            .delete_object()
            .bucket(bucket)
            .key(&base.key)
            .version_id(&base.version_id)
            .bypass_governance_retention(true)
            .send()
            .await
            .map_err(|e| StoreError::from_sdk("delete with bypass", e));
        still_there(cx, base).await?;
        match sent {
            Err(StoreError::Denied { .. } | StoreError::Rejected { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return fail("the delete was accepted"),
        }
    }
    Ok(String::new())
}
