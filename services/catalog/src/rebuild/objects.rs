//! The bucket as the engine's reader sees it: versions instead of names alone.
//!
//! What a delete marker hides is there all the same, and of a name that was written twice every version can be read.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use tokio::runtime::Handle;
use vault::{
    rescue::{Listed, Objects},
    snapshot::SourceError,
    store::{S3Store, StoreError, VersionCursor},
};

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub id: String,
    pub length: u64,
}

/// A listing of a vault's versions, and the store to read them from.
pub struct Versions {
    store: S3Store,
    runtime: Handle,
    /// Newest first, delete markers left out.
    by_key: BTreeMap<String, Vec<Version>>,
}

impl Versions {
    /// Lists everything under a prefix.
    pub async fn list(store: &S3Store, prefix: &str) -> Result<Self, StoreError> {
        let mut by_key: BTreeMap<String, Vec<Version>> = BTreeMap::new();
        let mut cursor: Option<VersionCursor> = None;
        loop {
            let page = store.list_versions(prefix, cursor.as_ref()).await?;
            for version in page.versions.into_iter().filter(|version| !version.delete_marker) {
                let known = by_key.entry(version.key).or_default();
                let at = if version.latest { 0 } else { known.len() };
                known.insert(at, Version { id: version.version_id, length: version.length });
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        Ok(Self { store: store.clone(), runtime: Handle::current(), by_key })
    }

    /// Versions of one key, newest first.
    pub fn of(&self, key: &str) -> &[Version] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }
}

impl Objects for Versions {
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Listed)) -> Result<(), SourceError> {
        for (key, versions) in &self.by_key {
            if let Some(newest) = versions.first().filter(|_| key.starts_with(prefix)) {
                each(Listed { key: key.clone(), length: newest.length });
            }
        }
        Ok(())
    }

    fn read(
        &self,
        key: &str,
        version: Option<&str>,
        range: Range<u64>,
    ) -> Result<Bytes, SourceError> {
        let newest = self.of(key).first().map(|version| version.id.as_str());
        let version = version.or(newest).ok_or(SourceError::Missing)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        match self.runtime.block_on(self.store.get_range(key, version, range)) {
            Ok(bytes) => Ok(bytes),
            Err(StoreError::NotFound) => Err(SourceError::Missing),
            Err(error) => Err(SourceError::Failed(error.into())),
        }
    }
}
