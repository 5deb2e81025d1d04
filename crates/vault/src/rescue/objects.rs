//! Objects by key, from wherever a copy of the bucket is.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use domain::{PackId, TenantId, VaultId};

use crate::{
    layout,
    manifest::PackRef,
    snapshot::{PackSource, SourceError},
};

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    /// Bytes, as the listing says.
    pub length: u64,
}

/// A bucket, or a copy of one, to read. Blocking; called from several threads.
pub trait Objects: Send + Sync {
    /// Every object whose key begins with `prefix`, each once, in any order. A listing that could not be read to its
    /// end is an error, never a shorter listing.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Listed)) -> Result<(), SourceError>;

    /// Exactly the bytes `range` of an object, or an error. `version` is what a manifest or receipt says: where the
    /// copy has no such versions, the object of that key is what is meant.
    fn read(
        &self,
        key: &str,
        version: Option<&str>,
        range: Range<u64>,
    ) -> Result<Bytes, SourceError>;

    /// Whether this manifest is known to be no snapshot, or none any more, and there only because others build on
    /// it. False: receipts and forget records tell.
    fn is_mere_link(&self, _manifest: PackId) -> bool {
        false
    }

    /// Bytes of the whole object, as the store said when it was read, where [`Self::list`] could only repeat what a
    /// manifest says. `None`: the listing is the store's own word, or nothing of the object was read.
    fn told_length(&self, _key: &str) -> Option<u64> {
        None
    }
}

/// The places of a pack: the version that the manifest names, and the newest.
const NAMED: u8 = 0;
const NEWEST: u8 = 1;

/// The packs of one vault, by their names.
pub struct ObjectPacks {
    objects: Arc<dyn Objects>,
    tenant: TenantId,
    vault: VaultId,
    /// Packs whose newest version is read first: what the one that the manifest names gave was not what it should be.
    /// One that was repaired has a newer; one that somebody overwrote has too, so the other is never given up.
    newest_first: Mutex<HashSet<PackId>>,
}

impl ObjectPacks {
    pub fn new(objects: Arc<dyn Objects>, tenant: TenantId, vault: VaultId) -> Self {
        Self { objects, tenant, vault, newest_first: Mutex::default() }
    }
    fn newest_first(&self) -> std::sync::MutexGuard<'_, HashSet<PackId>> {
        self.newest_first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PackSource for ObjectPacks {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        let place = if self.newest_first().contains(&pack.id) { NEWEST } else { NAMED };
        self.read_at(place, pack, range)
    }

    fn places(&self, _: &PackRef) -> u8 {
        2
    }

    fn read_at(&self, place: u8, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        let kind = pack.kind.object();
        let key = layout::object_key(self.tenant, self.vault, kind, &pack.sha256, pack.id);
        let named = (place == NAMED).then_some(pack.version_id.as_str());
        self.objects.read(&key, named, range)
    }

    fn prefer(&self, place: u8, pack: &PackRef) {
        let mut newest_first = self.newest_first();
        if place == NEWEST {
            newest_first.insert(pack.id)
        } else {
            newest_first.remove(&pack.id)
        };
    }
}
