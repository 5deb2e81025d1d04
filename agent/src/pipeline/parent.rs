//! The snapshot a backup builds on: its packs, its tree beside the walk, and what can be used again.
//!
//! Everything here is advice. A parent that cannot be read makes the backup slower, never wrong.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::Path,
    sync::Arc,
};

use api::catalog::{PackFacts, PackKind as WireKind};
use domain::PackId;
use tokio_util::sync::CancellationToken;
use vault::{
    id::Sha256,
    index::{Budget, ChunkIndex},
    keys::VaultKeys,
    manifest::{Confirmed, PackRef, PackSet},
    pack::{Directory, OpenPack, PackError, PackKind},
    snapshot::{Frames, ReadError, Reader},
    tree::{Cursor, Entry, Tree, TreeError},
};

use super::source::Cache;

/// The parent's entries, asked for in key order.
pub struct ParentCursor {
    cursor: Cursor<Arc<Tree<Arc<Frames>>>>,
    frames: Arc<Frames>,
    broken: bool,
}

impl ParentCursor {
    /// At the beginning of the parent's tree.
    ///
    /// # Errors
    /// When its root cannot be read.
    pub fn of(reader: &Reader) -> Result<Self, ReadError> {
        Ok(Self { cursor: reader.cursor()?, frames: reader.frames().clone(), broken: false })
    }

    /// Where the lists of its entries are.
    pub const fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    /// The parent's entry at `path`, and its encoding.
    pub fn at(&mut self, path: &[u8]) -> Option<(Entry, Vec<u8>)> {
        if self.broken {
            return None;
        }
        match self.cursor.find(path) {
            Ok(found) => found,
            // In a pack that is lost: nothing was asked of the store for it, so the next path may try again.
            Err(TreeError::Read(error)) if matches!(*error, ReadError::Unlocated(_)) => None,
            Err(error) => {
                tracing::warn!(%error, "the parent snapshot cannot be read on; files are read again");
                self.broken = true;
                None
            }
        }
    }
}

/// Where the index is kept between runs.
const INDEX: &str = "index";
/// The index is rebuilt from packs when its shape changes.
const GENERATION: u64 = 2;

/// A pack of an interrupted session that the server confirmed. There may be as many as a backup of days made, so its
/// directory is read when it is needed, if it is still here.
pub struct Adopted {
    pub(super) kind: PackKind,
    pub(super) sha256: Sha256,
    pub(super) length: u64,
    pub(super) confirmed: Confirmed,
}

impl Adopted {
    /// `None`: nothing that a backup could name.
    pub fn of(facts: &PackFacts) -> Option<Self> {
        let kind = match facts.kind {
            WireKind::Data => PackKind::Data,
            WireKind::Meta => PackKind::Meta,
            WireKind::Manifest => return None,
        };
        let sha256 = Sha256::from_slice(&hex::decode(&facts.sha256).ok()?)?;
        let confirmed = Confirmed { id: facts.id, version_id: facts.version_id.clone()? };
        Some(Self { kind, sha256, length: facts.length, confirmed })
    }

    pub(super) fn directory(&self, keys: &VaultKeys, cache: &Cache) -> Option<Directory> {
        let read = |range| cache.beginning(&self.sha256, range).ok_or(PackError::Short);
        OpenPack::open(keys, self.kind, self.length, None, read).ok().map(|open| open.directory)
    }
}

/// The parent's packs as far as this backup may read them: of the lost ones those whose copy is whole in the cache,
/// because a tree that can still be read saves reading the files again.
pub fn readable(packs: &PackSet, lost: &BTreeSet<PackId>, cache: &Cache) -> PackSet {
    let stands = |pack: &PackRef| {
        !lost.contains(&pack.id) || (pack.kind == PackKind::Meta && cache.is_sound(pack))
    };
    PackSet(
        packs.0.iter().filter(|(_, pack)| stands(pack)).map(|(id, p)| (*id, p.clone())).collect(),
    )
}

/// Metadata packs of the parent that are not what their names say, or gone, and nobody has declared lost yet: what is
/// in them is stored anew. Each may have to be fetched; a canceled run looks at no more of them.
pub fn damaged_metadata(parent: &Reader, cancel: &CancellationToken) -> Vec<PackId> {
    let mut damaged = Vec::new();
    let metadata = parent.frames().packs().filter(|pack| pack.kind == PackKind::Meta);
    for pack in metadata.take_while(|_| !cancel.is_cancelled()) {
        match parent.frames().read(pack, 0..1) {
            Ok(_) => {}
            Err(error) if error.is_loss() => {
                tracing::warn!(
                    pack = %pack.sha256, %error,
                    "a metadata pack of the last snapshot is damaged; this backup does without it. Ask your administrator to run: everhold admin scrub"
                );
                damaged.push(pack.id);
            }
            // A store that does not answer is met again by whoever needs something of it.
            Err(_) => break,
        }
    }
    damaged
}

/// The index of the packs the server vouches for: the parent's, the adopted ones, and `others` of the vault as far as
/// the stored index knows them; none of the parent's that are `lost`. What the stored
/// index does not know is read from the packs' directories.
pub fn index_of(
    home: &Path,
    keys: &VaultKeys,
    parent: Option<&Reader>,
    lost: &BTreeSet<PackId>,
    (adopted, cache): (&[Adopted], &Cache),
    others: &BTreeMap<Sha256, Confirmed>,
    (budget, cancel): (Budget, &CancellationToken),
) -> ChunkIndex {
    let index = ChunkIndex::open(&home.join(INDEX), keys.vault(), GENERATION, budget);
    let index = index.unwrap_or_else(|error| {
        tracing::warn!(%error, "the index cannot be used; this run keeps its own in memory");
        ChunkIndex::new(keys.vault())
    });
    let hashes: HashSet<Sha256> = adopted.iter().map(|pack| pack.sha256).collect();
    let known = |sha256: &Sha256| match parent.and_then(|parent| parent.frames().pack_ref(sha256)) {
        Some(pack) => !lost.contains(&pack.id),
        None => hashes.contains(sha256) || others.contains_key(sha256),
    };
    index.retain(known);
    for pack in adopted {
        if index.has_pack(&pack.sha256) {
            continue;
        }
        match pack.directory(keys, cache) {
            Some(directory) => index.add(pack.kind, pack.sha256, pack.length, &directory),
            None => tracing::warn!(pack = %pack.sha256, "an adopted pack is not used again"),
        }
    }
    let Some(parent) = parent else { return index };
    let unknown = |pack: &&PackRef| !lost.contains(&pack.id) && !index.has_pack(&pack.sha256);
    for pack in parent.frames().packs().filter(unknown).take_while(|_| !cancel.is_cancelled()) {
        match parent.frames().open(pack) {
            Ok(open) => index.add(pack.kind, pack.sha256, pack.length, &open.directory),
            Err(error) => tracing::warn!(pack = %pack.sha256, %error, "a pack is not used again"),
        }
    }
    index
}

/// Stores the index for the next run.
///
/// # Errors
/// What the system says; it costs time then, nothing else.
pub fn save_index(home: &Path, index: &ChunkIndex) -> io::Result<()> {
    faults::point("index: save")?;
    index.save(&home.join(INDEX), GENERATION)
}

/// The stored index, for finding chunks without reading directories.
pub fn stored_index(home: &Path, keys: &VaultKeys) -> Option<Arc<ChunkIndex>> {
    ChunkIndex::load(&home.join(INDEX), keys.vault()).map(|(index, _)| Arc::new(index))
}

/// Places of live packs of the vault that the parent does not need, for the index and the manifest.
pub fn places_of(facts: &[PackFacts]) -> BTreeMap<Sha256, Confirmed> {
    let place = |facts: &PackFacts| {
        let sha256 = Sha256::from_slice(&hex::decode(&facts.sha256).ok()?)?;
        let version_id = facts.version_id.clone()?;
        let usable = facts.kind != WireKind::Manifest;
        usable.then_some((sha256, Confirmed { id: facts.id, version_id }))
    };
    facts.iter().filter_map(place).collect()
}

/// Confirmed places of adopted packs, for the manifest.
pub fn places(adopted: &[Adopted]) -> BTreeMap<Sha256, Confirmed> {
    adopted.iter().map(|pack| (pack.sha256, pack.confirmed.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use domain::VaultId;

    use super::*;

    #[test]
    fn the_index_is_its_owners_alone_and_what_hinders_it_is_said() {
        let dir = tempfile::tempdir().expect("tempdir");
        let index = ChunkIndex::new(VaultId::from_bytes([1; 16]));
        save_index(dir.path(), &index).expect("saves");
        for (name, mode) in [("index", 0o700), ("index/head", 0o600)] {
            let meta = std::fs::metadata(dir.path().join(name)).expect("stat");
            assert_eq!(meta.permissions().mode() & 0o777, mode);
        }
        std::fs::write(dir.path().join("no folder"), b"").expect("write");
        assert!(save_index(&dir.path().join("no folder"), &index).is_err());
    }
}
