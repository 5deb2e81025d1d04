//! The key store: small, unlocked, versioned objects in a bucket of their own (R6).
//!
//! Destroying every version here is what shredding means, so nothing in it is ever locked.

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::ObjectStore as _;

use super::{CONTENT_TYPE, S3Store, StoreError, s3::read};

impl S3Store {
    /// Stores a descriptor, roster or wrap. Names are written once; the same name again is a new
    /// version of it.
    pub async fn put_key_object(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let inner = &self.inner;
        inner
            .key_keeper
            .put_object()
            .bucket(&inner.config.key_bucket)
            .key(key)
            .content_type(CONTENT_TYPE)
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|e| StoreError::from_sdk("put_key_object", e))?;
        Ok(())
    }

    /// The newest version of a key object.
    pub async fn get_key_object(&self, key: &str) -> Result<Bytes, StoreError> {
        read(&self.inner.key_reader, key, None, None).await
    }

    /// The names of all key objects under a prefix that ends at a `/`.
    pub async fn list_key_objects(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let path = object_store::path::Path::parse(prefix.trim_end_matches('/'))
            .map_err(StoreError::configuration)?;
        let lines: Vec<_> = self.inner.key_reader.list(Some(&path)).try_collect().await?;
        Ok(lines.into_iter().map(|line| line.location.to_string()).collect())
    }
}
