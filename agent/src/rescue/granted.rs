//! The agent's own snapshots as a bucket: what the control plane grants reads of.
//!
//! An enrolled agent cannot list a bucket, so its "listing" is what the manifests of its snapshots name. Receipts and
//! what nobody names are not seen this way; a check of a copy of the bucket sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use domain::{PackId, SnapshotId};
use vault::{
    layout::{self, ObjectKind},
    manifest::{PackRef, SignedManifest},
    rescue::{Bucket, Listed, Objects, OpenVault},
    snapshot::{PackSource, SourceError},
};

use crate::{
    control::Transfer,
    pipeline::{
        member::Member,
        second::SecondCopy,
        source::{Caching, FetchError, GrantSource, fetch_chain_bytes},
    },
};

/// Objects named by the snapshots of one workload.
struct Granted {
    packs: BTreeMap<String, (PackRef, Arc<GrantSource>)>,
    manifests: BTreeMap<String, Bytes>,
    /// The manifests of the snapshots themselves. Others are links of their chains: of snapshots among these, or of
    /// forgotten ones, whose packs are nobody's any more.
    snapshots: BTreeSet<PackId>,
}

/// The vault of this agent, with the objects of the given snapshots.
///
/// # Errors
/// See [`FetchError`].
pub async fn open(member: &Member, snapshots: &[SnapshotId]) -> Result<OpenVault, FetchError> {
    let (tenant, vault) = (member.descriptor.tenant, member.descriptor.vault);
    // A check is about the first store.
    let (transfer, second) = (Transfer::new()?, SecondCopy::when(Caching::Bypass));
    let mut granted =
        Granted { packs: BTreeMap::new(), manifests: BTreeMap::new(), snapshots: BTreeSet::new() };
    for snapshot in snapshots {
        let (chain, bytes) = fetch_chain_bytes(member, &transfer, *snapshot, &second).await?;
        let source = GrantSource::new(
            member,
            transfer.clone(),
            *snapshot,
            &chain.packs,
            Caching::Bypass,
            second.clone(),
        );
        granted.snapshots.extend(chain.newest().map(|signed| signed.id));
        for (signed, bytes) in chain.manifests.iter().zip(bytes) {
            granted.manifests.insert(key(tenant, vault, signed), bytes);
        }
        for pack in chain.packs.iter() {
            let key = layout::object_key(tenant, vault, pack.kind.object(), &pack.sha256, pack.id);
            granted.packs.entry(key).or_insert_with(|| (pack.clone(), source.clone()));
        }
    }
    let bucket = Bucket {
        tenant,
        vault,
        rosters: vec![member.roster.clone()],
        receipt_key: None,
        objects: Arc::new(granted),
    };
    let descriptor = member.descriptor.clone();
    Ok(OpenVault { bucket, descriptor, keys: member.vault.clone() })
}

fn key(tenant: domain::TenantId, vault: domain::VaultId, signed: &SignedManifest) -> String {
    layout::object_key(tenant, vault, ObjectKind::Manifest, &signed.sha256, signed.id)
}

impl Objects for Granted {
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Listed)) -> Result<(), SourceError> {
        let packs = self.packs.iter().map(|(key, (pack, _))| (key, pack.length));
        let manifests = self.manifests.iter().map(|(key, bytes)| (key, bytes.len() as u64));
        for (key, length) in packs.chain(manifests) {
            if key.starts_with(prefix) {
                each(Listed { key: key.clone(), length });
            }
        }
        Ok(())
    }

    fn read(&self, key: &str, _: Option<&str>, range: Range<u64>) -> Result<Bytes, SourceError> {
        if let Some((pack, source)) = self.packs.get(key) {
            return source.read(pack, range);
        }
        let bytes = self.manifests.get(key).ok_or(SourceError::Missing)?;
        let range = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        match range {
            Some((from, to)) if from <= to && to <= bytes.len() => Ok(bytes.slice(from..to)),
            _ => Err(SourceError::Missing),
        }
    }

    fn is_mere_link(&self, manifest: PackId) -> bool {
        !self.snapshots.contains(&manifest)
    }

    fn told_length(&self, key: &str) -> Option<u64> {
        let (pack, source) = self.packs.get(key)?;
        source.told_length(pack.id)
    }
}
