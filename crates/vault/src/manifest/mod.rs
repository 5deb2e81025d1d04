//! Manifests: what a snapshot is, signed by its agent and readable without keys.
//!
//! Owns the manifest's encoding, its signature, and the arithmetic of reference sets: a manifest names its packs
//! as a delta against its parent (a full list every 32nd time) and always the hash of the full set, so the
//! server derives references and dead frames from the chain alone. Invariant: [`resolve`] returns a set only
//! if every link's hash matches. It must not know keys of the vault.

mod codec;
mod refs;

use domain::{AgentId, PackId, SessionId, TenantId, Timestamp, VaultId, WorkloadId};
use ed25519_dalek::SigningKey;

pub use refs::{Builder, Confirmed, FrameBitmap, PackRef, PackSet, PackUsage, resolve};

use crate::{
    cbor::CborError,
    id::{ChunkId, Sha256},
    keys::Roster,
    signed::Envelope,
    tree::Root,
};

const DOMAIN: &str = "everhold/manifest/v1";
/// A full list at least this often.
pub const FULL_EVERY: u8 = 32;

/// The manifest this one builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRef {
    /// Upload id of the parent's manifest object.
    pub manifest: PackId,
    /// SHA-256 of the parent's manifest object.
    pub sha256: Sha256,
}

/// How the packs are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackList {
    /// Every pack of the snapshot, sorted by id.
    Full(Vec<PackRef>),
    /// Against the parent's set. All sorted by pack id.
    Delta {
        added: Vec<PackRef>,
        removed: Vec<PackId>,
        /// Packs of the parent of which other frames are used now.
        changed: Vec<(PackId, FrameBitmap)>,
    },
}

/// One snapshot's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub tenant: TenantId,
    pub vault: VaultId,
    pub workload: WorkloadId,
    pub agent: AgentId,
    pub session: SessionId,
    pub fence: u64,
    pub key_epoch: u32,
    /// The agent's word, for people; nothing is decided by it.
    pub created: Timestamp,
    pub root: Root,
    /// Id of the sealed summary frame.
    pub summary: ChunkId,
    pub parent: Option<ParentRef>,
    /// 0 for a full list, else one more than the parent's.
    pub depth: u8,
    pub packs: PackList,
    /// [`PackSet::hash`] of the whole set.
    pub set_hash: Sha256,
}

/// The manifest must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is damaged: {0}")]
    Cbor(#[from] CborError),
    #[error("the manifest was made by a newer version")]
    Version,
    #[error("the manifest is not signed by a member of the vault's roster")]
    Untrusted,
    #[error("the manifest belongs to another tenant or vault than the roster")]
    Foreign,
    #[error("the manifest chain has a gap at {0}")]
    BrokenChain(PackId),
    #[error("the manifest's pack list contradicts its parent or its own hash")]
    WrongSet,
    #[error("a pack used by the snapshot was not confirmed by the store")]
    NotConfirmed,
}

/// A manifest as an object: its exact bytes, and what they say. Not verified by decoding.
#[derive(Clone)]
pub struct SignedManifest {
    /// Upload id under which it is (to be) stored; in its object key, not in its bytes.
    pub id: PackId,
    /// SHA-256 of the object.
    pub sha256: Sha256,
    pub manifest: Manifest,
    envelope: Envelope,
}

impl Manifest {
    /// Signs; gives the object's bytes.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        Envelope::sign(DOMAIN, codec::encode(self), key).encode()
    }
}

impl SignedManifest {
    /// Decodes an object. Call [`Self::verify`] before believing it.
    pub fn decode(id: PackId, bytes: &[u8]) -> Result<Self, ManifestError> {
        let envelope = Envelope::decode(bytes)?;
        let manifest = codec::decode(&envelope.payload)?;
        Ok(Self { id, sha256: Sha256::of(bytes), manifest, envelope })
    }
    /// Signature by a member of this vault's roster, strictly.
    pub fn verify(&self, roster: &Roster) -> Result<&Manifest, ManifestError> {
        let manifest = &self.manifest;
        if manifest.tenant != roster.tenant || manifest.vault != roster.vault {
            return Err(ManifestError::Foreign);
        }
        let member = roster.member(manifest.agent).ok_or(ManifestError::Untrusted)?;
        let believed = faults::planted(faults::Bug::AcceptUnsignedManifest);
        if believed || self.envelope.verify(DOMAIN, &member.verify_key) {
            Ok(manifest)
        } else {
            Err(ManifestError::Untrusted)
        }
    }
    /// The reference to put into a child.
    pub const fn as_parent(&self) -> ParentRef {
        ParentRef { manifest: self.id, sha256: self.sha256 }
    }
}
