//! Which packs, and which of their frames, a snapshot uses.

use std::collections::{BTreeMap, BTreeSet};

use domain::{AgentId, PackId, SessionId, Timestamp, WorkloadId};
use sha2::Digest as _;

use super::{FULL_EVERY, Manifest, ManifestError, PackList, SignedManifest, codec};
use crate::{
    backup::FinishedSnapshot,
    cbor::{CborError, Writer},
    descriptor::{MAX_FRAMES, VaultDescriptor},
    id::Sha256,
    pack::PackKind,
};

/// A set of frame numbers. Bit n is bit n%8 (lowest first) of byte n/8; no zero byte at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrameBitmap(Vec<u8>);

impl FrameBitmap {
    /// Adds a frame.
    pub fn insert(&mut self, frame: u32) {
        let at = frame as usize / 8;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (frame % 8);
    }
    /// Takes a frame out.
    pub fn remove(&mut self, frame: u32) {
        if let Some(byte) = self.0.get_mut(frame as usize / 8) {
            *byte &= !(1 << (frame % 8));
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
    pub fn contains(&self, frame: u32) -> bool {
        self.0.get(frame as usize / 8).is_some_and(|byte| byte & (1 << (frame % 8)) != 0)
    }
    /// How many frames.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The largest frame number.
    pub fn highest(&self) -> Option<u32> {
        let byte = *self.0.last()?;
        u32::try_from(self.0.len() - 1).ok().map(|at| at * 8 + 7 - byte.leading_zeros())
    }
    /// The encoded form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// Strict: no trailing zero byte, not more than a pack can have.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        match bytes.last() {
            Some(0) => Err(CborError::NotDeterministic),
            _ if bytes.len() > MAX_FRAMES as usize / 8 => Err(CborError::OutOfBounds),
            _ => Ok(Self(bytes.to_vec())),
        }
    }
    /// Adds every frame of the other set.
    pub fn union(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }
}

/// One pack of a snapshot: where its object is, and which frames of it are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRef {
    /// Upload id; with kind and hash it gives the object key.
    pub id: PackId,
    pub kind: PackKind,
    pub sha256: Sha256,
    /// Length of the object in bytes.
    pub length: u64,
    /// Version of the object in the store.
    pub version_id: String,
    /// Frames in the pack, padding included.
    pub frames: u32,
    pub used: FrameBitmap,
}

/// What a backup used of one pack, before or after it has an upload id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackUsage {
    pub kind: PackKind,
    pub sha256: Sha256,
    pub length: u64,
    pub frames: u32,
    pub used: FrameBitmap,
}

/// What the control plane confirmed about an uploaded pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    pub id: PackId,
    pub version_id: String,
}

/// Every pack a snapshot needs, by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackSet(pub BTreeMap<PackId, PackRef>);

impl PackSet {
    /// SHA-256 over the encoded references in order of their ids.
    pub fn hash(&self) -> Sha256 {
        let mut hasher = sha2::Sha256::new();
        hasher.update(b"everhold/pack-set/v1\0");
        for pack in self.0.values() {
            let mut out = Writer::new();
            codec::pack_ref(&mut out, pack);
            hasher.update(out.into_bytes());
        }
        Sha256(hasher.finalize().into())
    }
    /// The packs in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &PackRef> {
        self.0.values()
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The pack with this ciphertext.
    pub fn by_hash(&self) -> BTreeMap<Sha256, &PackRef> {
        self.0.values().map(|pack| (pack.sha256, pack)).collect()
    }

    /// Applies a manifest's list to the parent's set and checks the result against its hash.
    fn apply(self, manifest: &Manifest) -> Result<Self, ManifestError> {
        let set = match &manifest.packs {
            PackList::Full(packs) => {
                Self(packs.iter().map(|pack| (pack.id, pack.clone())).collect())
            }
            PackList::Delta { added, removed, changed } => {
                let mut set = self.0;
                for id in removed {
                    set.remove(id).ok_or(ManifestError::WrongSet)?;
                }
                for (id, used) in changed {
                    let pack = set.get_mut(id).ok_or(ManifestError::WrongSet)?;
                    if used.highest().is_some_and(|top| top >= pack.frames) {
                        return Err(ManifestError::WrongSet);
                    }
                    pack.used = used.clone();
                }
                for pack in added {
                    if set.insert(pack.id, pack.clone()).is_some() {
                        return Err(ManifestError::WrongSet);
                    }
                }
                Self(set)
            }
        };
        if set.hash() == manifest.set_hash { Ok(set) } else { Err(ManifestError::WrongSet) }
    }
}

/// The full reference set of the first manifest of `chain` (newest first, back to the last full list).
/// Signatures are the caller's business ([`SignedManifest::verify`]); hashes of the links are checked here.
pub fn resolve(chain: &[SignedManifest]) -> Result<PackSet, ManifestError> {
    let newest = chain.first().ok_or(ManifestError::WrongSet)?;
    let mut needed = vec![newest];
    let mut current = newest;
    while current.manifest.depth > 0 {
        let parent = current.manifest.parent.as_ref().ok_or(ManifestError::WrongSet)?;
        let link = |next: &&SignedManifest| next.id == parent.manifest;
        let next = chain.iter().find(link).ok_or(ManifestError::BrokenChain(parent.manifest))?;
        let fits = next.sha256 == parent.sha256
            && next.manifest.depth + 1 == current.manifest.depth
            && next.manifest.tenant == current.manifest.tenant
            && next.manifest.vault == current.manifest.vault;
        if !fits {
            return Err(ManifestError::BrokenChain(parent.manifest));
        }
        needed.push(next);
        current = next;
    }
    let links = needed.into_iter().rev();
    links.map(|link| &link.manifest).try_fold(PackSet::default(), PackSet::apply)
}

/// Makes the manifest of a finished backup.
pub struct Builder<'a> {
    pub descriptor: &'a VaultDescriptor,
    pub workload: WorkloadId,
    pub agent: AgentId,
    pub session: SessionId,
    pub fence: u64,
    pub key_epoch: u32,
    pub created: Timestamp,
    /// The parent's chain, newest first, verified; empty for a first snapshot.
    pub parent: &'a [SignedManifest],
}

impl Builder<'_> {
    /// `confirmed` says upload id and version id of packs by their hash; packs of the parent are known already.
    pub fn build(
        &self,
        snapshot: &FinishedSnapshot,
        confirmed: &BTreeMap<Sha256, Confirmed>,
    ) -> Result<Manifest, ManifestError> {
        let before =
            if self.parent.is_empty() { PackSet::default() } else { resolve(self.parent)? };
        let known = before.by_hash();
        let mut set = PackSet::default();
        for usage in &snapshot.usage {
            let place = known
                .get(&usage.sha256)
                .map(|pack| Confirmed { id: pack.id, version_id: pack.version_id.clone() });
            let place = place.or_else(|| confirmed.get(&usage.sha256).cloned());
            let Confirmed { id, version_id } = place.ok_or(ManifestError::NotConfirmed)?;
            let PackUsage { kind, sha256, length, frames, used } = usage.clone();
            set.0.insert(id, PackRef { id, kind, sha256, length, version_id, frames, used });
        }
        let newest = self.parent.first();
        let depth = newest.map_or(0, |parent| (parent.manifest.depth + 1) % FULL_EVERY);
        let packs = if depth == 0 {
            PackList::Full(set.0.values().cloned().collect())
        } else {
            delta(&before, &set)
        };
        Ok(Manifest {
            tenant: self.descriptor.tenant,
            vault: self.descriptor.vault,
            workload: self.workload,
            agent: self.agent,
            session: self.session,
            fence: self.fence,
            key_epoch: self.key_epoch,
            created: self.created,
            root: snapshot.root,
            summary: snapshot.summary,
            parent: newest.map(SignedManifest::as_parent),
            depth,
            packs,
            set_hash: set.hash(),
        })
    }
}

fn delta(before: &PackSet, after: &PackSet) -> PackList {
    let ids = |set: &PackSet| set.0.keys().copied().collect::<BTreeSet<_>>();
    let (old, new) = (ids(before), ids(after));
    let added = new.difference(&old).filter_map(|id| after.0.get(id)).cloned().collect();
    let removed = old.difference(&new).copied().collect();
    let changed = new.intersection(&old).filter_map(|id| {
        let used = &after.0.get(id)?.used;
        (before.0.get(id)?.used != *used).then(|| (*id, used.clone()))
    });
    PackList::Delta { added, removed, changed: changed.collect() }
}
