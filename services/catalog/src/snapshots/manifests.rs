//! Manifests, read back from the store and kept decoded for a while.
//!
//! Manifests are immutable objects named by their hash: what is kept can be old but never wrong. Keyed by
//! the pack row's id, which is unique over all tenants, and only ever asked with a row read under a tenant.

use std::{collections::BTreeMap, sync::Mutex, sync::PoisonError};

use api::problem::Code;
use domain::PackId;
use tokio::sync::{Semaphore, SemaphorePermit};
use vault::{id::Sha256, manifest::SignedManifest};

use crate::{error::Error, packs::store::PackRow, state::Catalog};

/// How many are kept. A manifest of a large vault is some 10 MB; most are kilobytes.
const KEPT: usize = 64;
/// Larger ones are read again.
const KEPT_LENGTH: u64 = 1 << 20;

#[derive(Default)]
struct Shelf {
    clock: u64,
    kept: BTreeMap<PackId, (u64, SignedManifest)>,
}

/// Requests that read manifests at once: a chain of large ones takes memory.
const TURNS: usize = 4;

/// A bounded shelf; the least recently used goes first.
pub struct Manifests {
    shelf: Mutex<Shelf>,
    turns: Semaphore,
}

impl Default for Manifests {
    fn default() -> Self {
        Self { shelf: Mutex::default(), turns: Semaphore::new(TURNS) }
    }
}

impl Manifests {
    /// Waits for its turn to read the manifests of one chain.
    ///
    /// # Errors
    /// Never while the role serves.
    pub async fn turn(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.turns.acquire().await.map_err(|e| Error::broken("no turn to read manifests", e))
    }

    /// The manifest of this row: by version id, with the hash the row says.
    ///
    /// # Errors
    /// `manifest_rejected` when it cannot be decoded; the store's errors.
    pub async fn read(&self, app: &Catalog, row: &PackRow) -> Result<SignedManifest, Error> {
        if let Some(found) = self.find(row.id()) {
            return Ok(found);
        }
        let version =
            row.version_id.as_deref().ok_or_else(|| Error::refused(Code::PackNotConfirmed))?;
        let bytes = app.store.get(&row.object_key, version).await?;
        if Sha256::of(&bytes).0[..] != row.sha256[..] {
            return Err(Error::because(
                Code::ManifestRejected,
                "the stored manifest has another hash",
            ));
        }
        let signed = SignedManifest::decode(row.id(), &bytes)
            .map_err(|why| Error::because(Code::ManifestRejected, why.to_string()))?;
        if row.length() <= KEPT_LENGTH {
            self.keep(&signed);
        }
        Ok(signed)
    }

    fn find(&self, id: PackId) -> Option<SignedManifest> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.clock += 1;
        let now = shelf.clock;
        let (used, manifest) = shelf.kept.get_mut(&id)?;
        *used = now;
        Some(manifest.clone())
    }

    fn keep(&self, manifest: &SignedManifest) {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.clock += 1;
        let now = shelf.clock;
        shelf.kept.insert(manifest.id, (now, manifest.clone()));
        if shelf.kept.len() > KEPT {
            let oldest = shelf.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id);
            oldest.and_then(|id| shelf.kept.remove(&id));
        }
    }
}
