//! Shows a lock from outside: asks the store about a pack and tries to delete it with an administrator's key.

use anyhow::{Context as _, bail};
use aws_credential_types::Credentials;
use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Region},
    error::ProvideErrorMetadata as _,
};

use crate::dev::manifest::S3;

/// What the store says about one version.
pub struct Seen {
    pub mode: String,
    pub until: String,
    pub length: u64,
}

/// The store as an administrator sees it.
pub struct Administrator {
    client: Client,
    bucket: String,
}

impl Administrator {
    pub fn new(s3: &S3) -> Self {
        let keys = Credentials::from_keys(&s3.access_key, &s3.secret_key, None);
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(s3.region.clone()))
            .endpoint_url(&s3.endpoint)
            .credentials_provider(keys)
            .force_path_style(true)
            .build();
        Self { client: Client::from_conf(config), bucket: s3.bucket.clone() }
    }

    pub async fn look(&self, key: &str, version: &str) -> anyhow::Result<Seen> {
        let head = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(key)
            .version_id(version)
            .send()
            .await
            .context("the store does not show the pack")?;
        let mode = head.object_lock_mode().context("the pack has no lock")?;
        let until = head.object_lock_retain_until_date().context("the lock has no end")?;
        Ok(Seen {
            mode: mode.as_str().to_owned(),
            until: until.fmt(aws_sdk_s3::primitives::DateTimeFormat::DateTime)?,
            length: head.content_length().unwrap_or(0).unsigned_abs(),
        })
    }

    /// Tries to delete the version; the refusal's code and words.
    pub async fn try_to_delete(&self, key: &str, version: &str) -> anyhow::Result<String> {
        let tried = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(key)
            .version_id(version)
            .bypass_governance_retention(true)
            .send()
            .await;
        match tried {
            Ok(_) => bail!("the store deleted a locked pack"),
            Err(error) => match (error.code(), error.message()) {
                (Some(code), message) => Ok(format!("{code}: {}", message.unwrap_or_default())),
                (None, _) => Err(error).context("the store did not answer the deletion"),
            },
        }
    }
}
