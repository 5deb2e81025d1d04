//! Packs for the engine's blocking reader, by version id with the steward's reads.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use domain::PackId;
use tokio::runtime::Handle;
use vault::{
    manifest::PackRef,
    snapshot::{PackSource, SourceError},
    store::{S3Store, StoreError},
};

use crate::packs::store::PackRow;

/// Reads stretches of the packs of one snapshot. Blocks: call it on blocking threads only.
pub struct StoreSource {
    store: S3Store,
    runtime: Handle,
    /// Object key and version by pack, from our rows rather than from the manifest.
    places: BTreeMap<PackId, (String, String)>,
}

impl StoreSource {
    pub fn new(store: S3Store, rows: &[PackRow]) -> Self {
        let place =
            |row: &PackRow| Some((row.id(), (row.object_key.clone(), row.version_id.clone()?)));
        Self { store, runtime: Handle::current(), places: rows.iter().filter_map(place).collect() }
    }
}

impl PackSource for StoreSource {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        let (key, version) = self.places.get(&pack.id).ok_or(SourceError::Missing)?;
        match self.runtime.block_on(self.store.get_range(key, version, range)) {
            Ok(bytes) => Ok(bytes),
            Err(StoreError::NotFound) => Err(SourceError::Missing),
            Err(error) => Err(SourceError::Failed(error.into())),
        }
    }
}
