//! The lock on a pack, tried: the store administrator's own key cannot delete it.

use anyhow::{Context as _, Result, bail, ensure};
use api::{
    Page,
    catalog::{PackFacts, PackKind, Snapshot},
    client::Client,
};
use aws_credential_types::Credentials;
use aws_sdk_s3::{
    config::{BehaviorVersion, Region},
    error::ProvideErrorMetadata as _,
    types::ObjectLockRetentionMode,
};
use domain::Timestamp;

use super::platform::Platform;

/// What was seen.
pub struct Shown {
    pub pack: String,
    pub until: Timestamp,
    pub refusal: String,
}

/// Reads the lock of one data pack from the store itself and tries to delete that version.
pub async fn try_to_delete(
    platform: &Platform,
    client: &Client,
    snapshot: &Snapshot,
) -> Result<Shown> {
    let path = format!("/v1/tenants/{}/snapshots/{}/packs", snapshot.tenant_id, snapshot.id);
    let packs: Page<PackFacts> = client.get(&path).await.context("list the snapshot's packs")?;
    let pack = packs
        .items
        .iter()
        .find(|pack| pack.kind == PackKind::Data)
        .context("the snapshot names no data pack")?;
    let version = pack.version_id.as_deref().context("a live pack has a version")?;
    let (store, bucket) = (administrator(platform), &platform.dev.s3.bucket);

    let held = store
        .get_object_retention()
        .bucket(bucket)
        .key(&pack.key)
        .version_id(version)
        .send()
        .await
        .context("ask the store for the lock")?;
    let lock = held.retention().context("the pack has no lock")?;
    ensure!(
        lock.mode() == Some(&ObjectLockRetentionMode::Compliance),
        "the lock is not COMPLIANCE"
    );
    let until = lock.retain_until_date().and_then(|date| Timestamp::from_unix_secs(date.secs()));

    let tried =
        store.delete_object().bucket(bucket).key(&pack.key).version_id(version).send().await;
    let Err(error) = tried else {
        bail!("the store deleted a locked pack: do not trust this store");
    };
    let refusal = error.code().unwrap_or("no code").to_owned();
    let there = store.head_object().bucket(bucket).key(&pack.key).version_id(version).send().await;
    ensure!(there.is_ok(), "the pack is gone although its deletion was refused");
    let name = pack.sha256.get(..12).unwrap_or(&pack.sha256);
    Ok(Shown {
        pack: format!("pack {name}…"),
        until: until.context("the lock has no date")?,
        refusal,
    })
}

fn administrator(platform: &Platform) -> aws_sdk_s3::Client {
    let s3 = &platform.dev.s3;
    let key = Credentials::new(&s3.access_key, &s3.secret_key, None, None, "dev.json");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(&s3.endpoint)
        .region(Region::new(s3.region.clone()))
        .credentials_provider(key)
        .force_path_style(true)
        .build();
    aws_sdk_s3::Client::from_conf(config)
}
