//! Making the two buckets, with the administrator's key; nothing else uses that key.

use aws_sdk_s3::{
    Client,
    types::{
        BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration,
        ObjectLockEnabled, VersioningConfiguration,
    },
};

use super::{S3Store, StoreConfig, StoreError};

type Result<T, E = StoreError> = std::result::Result<T, E>;

impl S3Store {
    /// Makes the two buckets where they are missing, with the administrator's key, and checks that
    /// the vault bucket has Object Lock.
    pub async fn ensure_buckets(&self) -> Result<()> {
        let admin = self.inner.admin.as_ref().ok_or_else(|| {
            StoreError::Configuration("making buckets needs an administrator's key".into())
        })?;
        let config = &self.inner.config;
        make_bucket(admin, config, &config.bucket, true).await?;
        make_bucket(admin, config, &config.key_bucket, false).await?;
        let versioned =
            VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        admin
            .put_bucket_versioning()
            .bucket(&config.key_bucket)
            .versioning_configuration(versioned)
            .send()
            .await
            .map_err(|e| StoreError::from_sdk("put_bucket_versioning", e))?;
        let lock = admin
            .get_object_lock_configuration()
            .bucket(&config.bucket)
            .send()
            .await
            .map_err(|e| StoreError::from_sdk("get_object_lock", e))?;
        let enabled = lock.object_lock_configuration().and_then(|lock| lock.object_lock_enabled());
        if enabled != Some(&ObjectLockEnabled::Enabled) {
            let text = format!("bucket {} has no Object Lock", config.bucket);
            return Err(StoreError::Configuration(text));
        }
        Ok(())
    }
}

async fn make_bucket(admin: &Client, config: &StoreConfig, name: &str, locked: bool) -> Result<()> {
    let mut create = admin.create_bucket().bucket(name);
    if locked {
        create = create.object_lock_enabled_for_bucket(true);
    }
    if config.region != "us-east-1" {
        let place = BucketLocationConstraint::from(config.region.as_str());
        let place = CreateBucketConfiguration::builder().location_constraint(place).build();
        create = create.create_bucket_configuration(place);
    }
    match create.send().await.map_err(|e| StoreError::from_sdk("create_bucket", e)) {
        Ok(_) => Ok(()),
        Err(StoreError::Rejected { code, .. })
            if code == "BucketAlreadyOwnedByYou" || code == "BucketAlreadyExists" =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
