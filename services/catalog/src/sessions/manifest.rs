//! What a manifest must say to become a snapshot, and which packs it needs. Pure.
//!
//! Everything a commit refers to is derived here, from signed bytes read back from the store; the agent's
//! request contributes nothing.

use std::collections::BTreeSet;

use domain::{AgentId, PackId, SessionId, TenantId, VaultId, WorkloadId};
use vault::{
    keys::Roster,
    manifest::{self, ManifestError, PackSet, SignedManifest},
};

/// What the session says the manifest must be.
#[derive(Debug, Clone)]
pub struct Expected {
    pub tenant: TenantId,
    pub vault: VaultId,
    pub workload: WorkloadId,
    pub agent: AgentId,
    pub session: SessionId,
    pub fence: u64,
    pub key_epoch: u32,
    /// Upload id of the parent snapshot's manifest.
    pub parent: Option<PackId>,
}

/// Why it is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the manifest names another {0} than its session")]
    Differs(&'static str),
}

/// Checks signature and place of a manifest.
pub fn check(
    signed: &SignedManifest,
    roster: &Roster,
    expected: &Expected,
) -> Result<(), Rejection> {
    let manifest = signed.verify(roster)?;
    let parent = manifest.parent.as_ref().map(|parent| parent.manifest);
    let claims = [
        ("tenant", manifest.tenant == expected.tenant),
        ("vault", manifest.vault == expected.vault),
        ("workload", manifest.workload == expected.workload),
        ("agent", manifest.agent == expected.agent),
        ("session", manifest.session == expected.session),
        ("fence", manifest.fence == expected.fence),
        ("key epoch", manifest.key_epoch == expected.key_epoch),
        // No parent is always allowed: the agent started afresh. Another parent never is.
        ("parent", parent.is_none() || parent == expected.parent),
    ];
    match claims.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(Rejection::Differs(what)),
        None => Ok(()),
    }
}

/// Everything a snapshot needs.
#[derive(Debug, Clone)]
pub struct Needs {
    pub packs: PackSet,
    /// The manifest itself and those back to the last full list.
    pub manifests: BTreeSet<PackId>,
}

impl Needs {
    /// Derives them from the chain, newest first; every link's hash is checked.
    pub fn of(chain: &[SignedManifest]) -> Result<Self, Rejection> {
        let packs = manifest::resolve(chain)?;
        let depth = chain.first().map_or(0, |newest| usize::from(newest.manifest.depth));
        let manifests = chain.iter().take(depth + 1).map(|link| link.id).collect();
        Ok(Self { packs, manifests })
    }
    /// Ids of all of them, ordered.
    pub fn ids(&self) -> BTreeSet<PackId> {
        self.packs.iter().map(|pack| pack.id).chain(self.manifests.iter().copied()).collect()
    }
}
