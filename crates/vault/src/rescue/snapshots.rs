//! Which manifests of a bucket may be believed, and what became of each.
//!
//! Invariant: a manifest is listed only if its bytes are what its name says and a member of a believed roster signed
//! them; a receipt or forget record counts only under the receipt key and its own name. What is not believed is a
//! finding. A manifest that nobody confirmed is shown as such, never dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use domain::{PackId, SnapshotId};

use super::{Bucket, Finding, Inventory, ObjectPacks, OpenVault, Severity, What, in_parallel};
use crate::{
    fsck::finding,
    id::Sha256,
    layout::{Name, ObjectKind},
    manifest::{ManifestError, PackList, PackSet, SignedManifest, resolve},
    receipt::{ForgetRecord, Receipt},
    signed::MAX_SIGNED_BYTES,
    snapshot::{Beside, Others, PackSource, Reader, SourceError},
};

/// A receipt or forget record is some hundred bytes.
const MAX_PROOF_BYTES: u64 = 64 << 10;
/// Small objects read at once.
const READERS: usize = 8;

/// What became of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The platform signed that it is a snapshot.
    Committed(Box<Receipt>),
    /// The platform signed that it was let go.
    Forgotten(Box<ForgetRecord>),
    /// Neither: an unfinished backup, or a commit whose receipt never reached the bucket.
    Unconfirmed,
}

/// A manifest that may be believed.
#[derive(Clone)]
pub struct Found {
    pub signed: SignedManifest,
    /// Bytes of its object.
    pub length: u64,
    pub standing: Standing,
    /// Its receipt, also when it was forgotten later.
    pub receipt: Option<Box<Receipt>>,
}

impl Found {
    /// Id of the snapshot, where it has one.
    pub fn snapshot(&self) -> Option<SnapshotId> {
        match &self.standing {
            Standing::Committed(receipt) => Some(receipt.snapshot),
            Standing::Forgotten(record) => Some(record.snapshot),
            Standing::Unconfirmed => None,
        }
    }
    /// What people call it: the snapshot's id, or the manifest's while nobody confirmed it.
    pub fn name(&self) -> String {
        self.snapshot().map_or_else(|| self.signed.id.to_string(), |id| id.to_string())
    }
    pub const fn is_forgotten(&self) -> bool {
        matches!(self.standing, Standing::Forgotten(_))
    }
}

/// Everything believed of one vault, oldest first, and what was not.
#[derive(Default)]
pub struct Snapshots {
    pub found: Vec<Found>,
    pub findings: Vec<Finding>,
}

struct Proofs {
    receipts: BTreeMap<PackId, Receipt>,
    forgets: BTreeMap<PackId, ForgetRecord>,
}

impl Snapshots {
    /// Reads manifests, receipts and forget records.
    pub fn read(vault: &Bucket, inventory: &Inventory) -> Self {
        let mut findings = Vec::new();
        let proofs = read_proofs(vault, inventory, &mut findings);
        let mut wanted: BTreeMap<(Sha256, PackId), Option<u64>> = inventory
            .of(ObjectKind::Manifest)
            .map(|(sha256, id, length)| ((sha256, id), Some(length)))
            .collect();
        // What a receipt names was there, even if the listing hides it now; of a forgotten one it may be gone by right.
        let standing = |receipt: &&Receipt| !proofs.forgets.contains_key(&receipt.manifest);
        for receipt in proofs.receipts.values().filter(standing) {
            wanted.entry((receipt.manifest_sha256, receipt.manifest)).or_default();
        }
        let wanted: Vec<((Sha256, PackId), Option<u64>)> = wanted.into_iter().collect();
        let read = in_parallel(&wanted, READERS, |((sha256, id), length)| {
            let version = proofs.receipts.get(id).map(|receipt| receipt.manifest_version.as_str());
            manifest(vault, sha256, *id, *length, version)
        });
        let mut found = Vec::new();
        for (((sha256, id), length), result) in wanted.iter().zip(read) {
            match result {
                Ok(signed) => {
                    let standing = proofs.standing(*id, *sha256);
                    let receipt = proofs.receipt(*id, *sha256).cloned().map(Box::new);
                    found.push(Found { signed, length: length.unwrap_or(0), standing, receipt });
                }
                Err((what, detail)) => {
                    let name = Name::Object(ObjectKind::Manifest, *sha256, *id);
                    let key = name.key(vault.tenant, vault.vault);
                    let mut bad = finding(Severity::Damage, what, key, detail);
                    bad.snapshot = proofs.receipts.get(id).map(|found| found.snapshot.to_string());
                    findings.push(bad);
                }
            }
        }
        let found = without_replays(vault, found, &mut findings);
        let mut snapshots = Self { found, findings };
        snapshots.found.sort_by_key(|found| {
            let committed = match &found.standing {
                Standing::Committed(receipt) => receipt.committed_at,
                _ => found.signed.manifest.created,
            };
            (committed, found.signed.id)
        });
        snapshots
    }

    /// The snapshot called so: its id, its manifest's id, or `latest` (the newest committed one, or, when there is
    /// none, the newest of all that were not forgotten).
    pub fn find(&self, name: &str) -> Option<&Found> {
        if name != "latest" {
            return self
                .found
                .iter()
                .find(|found| found.name() == name || found.signed.id.to_string() == name);
        }
        let committed = |found: &&Found| matches!(found.standing, Standing::Committed(_));
        let newest = self.found.iter().rev().find(committed);
        newest.or_else(|| self.found.iter().rev().find(|found| !found.is_forgotten()))
    }

    /// The packs a manifest names; every link back to its last full list must be there and fit.
    pub fn packs(&self, of: &Found) -> Result<PackSet, ManifestError> {
        resolve(&self.chain(of))
    }

    /// The manifest and those it builds on, newest first, as far as they are there.
    pub fn chain(&self, of: &Found) -> Vec<SignedManifest> {
        let by_id: BTreeMap<PackId, &SignedManifest> =
            self.found.iter().map(|found| (found.signed.id, &found.signed)).collect();
        let mut chain = vec![of.signed.clone()];
        let mut at = &of.signed;
        for _ in 0..of.signed.manifest.depth {
            let parent = at.manifest.parent.as_ref().and_then(|link| by_id.get(&link.manifest));
            let Some(parent) = parent else { break };
            chain.push((*parent).clone());
            at = parent;
        }
        chain
    }

    /// The snapshot, open for reading, out of its own packs alone.
    pub fn reader(&self, vault: &OpenVault, of: &Found) -> Result<Reader, ManifestError> {
        self.reader_from(vault, of, vault.packs())
    }

    /// The same; what its own packs lost is looked for in those of all manifests that were not forgotten.
    pub fn reader_of_all(
        self: &Arc<Self>,
        vault: &OpenVault,
        of: &Found,
    ) -> Result<Reader, ManifestError> {
        let (own, all) = (vault.packs(), Arc::clone(self));
        let source: Arc<dyn PackSource> = own.clone();
        let others = move || Some(Others { packs: all.named(), source: Arc::clone(&source) });
        self.reader_from(vault, of, Arc::new(Beside { own, others }))
    }

    /// Every pack that a manifest names which was not forgotten.
    fn named(&self) -> PackSet {
        let standing = self.found.iter().filter(|found| !found.is_forgotten());
        let packs = standing.flat_map(|found| match &found.signed.manifest.packs {
            PackList::Full(packs) | PackList::Delta { added: packs, .. } => packs,
        });
        PackSet(packs.map(|pack| (pack.id, pack.clone())).collect())
    }

    fn reader_from(
        &self,
        vault: &OpenVault,
        of: &Found,
        source: Arc<dyn PackSource>,
    ) -> Result<Reader, ManifestError> {
        let set = self.packs(of)?;
        Ok(Reader::open(&of.signed.manifest, &set, Arc::clone(&vault.keys), source, None))
    }
}

impl Bucket {
    /// The vault's packs, for a [`Reader`].
    pub fn packs(&self) -> Arc<ObjectPacks> {
        let objects = Arc::clone(&self.objects);
        Arc::new(ObjectPacks::new(objects, self.tenant, self.vault))
    }
}

impl Proofs {
    fn receipt(&self, id: PackId, sha256: Sha256) -> Option<&Receipt> {
        self.receipts.get(&id).filter(|receipt| receipt.manifest_sha256 == sha256)
    }
    fn standing(&self, id: PackId, sha256: Sha256) -> Standing {
        let record = self.forgets.get(&id).filter(|record| record.manifest_sha256 == sha256);
        if let Some(record) = record {
            return Standing::Forgotten(Box::new(record.clone()));
        }
        let receipt = self.receipt(id, sha256);
        receipt.map_or(Standing::Unconfirmed, |found| Standing::Committed(Box::new(found.clone())))
    }
}

fn read_proofs(vault: &Bucket, inventory: &Inventory, findings: &mut Vec<Finding>) -> Proofs {
    let mut proofs = Proofs { receipts: BTreeMap::new(), forgets: BTreeMap::new() };
    let names = inventory.receipts.iter().map(|(id, length)| (Name::Receipt(*id), *length));
    let forgets = inventory.forgets.iter().map(|(id, length)| (Name::Forget(*id), *length));
    let names: Vec<(Name, u64)> = names.chain(forgets).collect();
    let Some(receipt_key) = vault.receipt_key else {
        if !names.is_empty() {
            findings.push(Finding::plain(
                Severity::Note,
                What::Untrusted,
                "there is no key to check receipts with: none is believed, every snapshot counts as unconfirmed",
            ));
        }
        return proofs;
    };
    let read = in_parallel(&names, READERS, |(name, length)| {
        let key = name.key(vault.tenant, vault.vault);
        if *length > MAX_PROOF_BYTES {
            return Err("it is too large".to_owned());
        }
        vault.objects.read(&key, None, 0..*length).map_err(|error| error.to_string())
    });
    for ((name, _), bytes) in names.iter().zip(read) {
        let taken = bytes.and_then(|bytes| proofs.take(vault, name, &bytes, &receipt_key));
        if let Err(detail) = taken {
            let key = name.key(vault.tenant, vault.vault);
            findings.push(finding(Severity::Suspicious, What::Proof, key, detail));
        }
    }
    proofs
}

impl Proofs {
    fn take(
        &mut self,
        vault: &Bucket,
        name: &Name,
        bytes: &Bytes,
        receipt_key: &[u8; 32],
    ) -> Result<(), String> {
        let misplaced = || "it was signed for another vault or snapshot".to_owned();
        match name {
            Name::Receipt(id) => {
                let receipt = Receipt::open(bytes, receipt_key).map_err(|why| why.to_string())?;
                let here = (receipt.tenant, receipt.vault, receipt.snapshot);
                if here != (vault.tenant, vault.vault, *id) {
                    return Err(misplaced());
                }
                self.receipts.insert(receipt.manifest, receipt);
            }
            Name::Forget(id) => {
                let record =
                    ForgetRecord::open(bytes, receipt_key).map_err(|why| why.to_string())?;
                if (record.tenant, record.vault, record.snapshot)
                    != (vault.tenant, vault.vault, *id)
                {
                    return Err(misplaced());
                }
                self.forgets.insert(record.manifest, record);
            }
            Name::Object(..) => {}
        }
        Ok(())
    }
}

/// Reads one manifest; by the receipt's version when what is there now is not what its name says.
fn manifest(
    vault: &Bucket,
    sha256: &Sha256,
    id: PackId,
    length: Option<u64>,
    version: Option<&str>,
) -> Result<SignedManifest, (What, String)> {
    let key = Name::Object(ObjectKind::Manifest, *sha256, id).key(vault.tenant, vault.vault);
    let Some(length) = length else {
        return Err((What::Missing, "a receipt names it, and it is not there".to_owned()));
    };
    if length > MAX_SIGNED_BYTES as u64 {
        return Err((What::WrongHash, "it is larger than any manifest".to_owned()));
    }
    let newest = vault.objects.read(&key, None, 0..length);
    let right = |bytes: &Bytes| Sha256::of(bytes) == *sha256;
    let bytes = match newest {
        Ok(bytes) if right(&bytes) => bytes,
        other => {
            let older = version.and_then(|version| {
                vault.objects.read(&key, Some(version), 0..length).ok().filter(right)
            });
            match (older, other) {
                (Some(bytes), _) => bytes,
                (None, Ok(_)) => {
                    return Err((
                        What::WrongHash,
                        "its bytes are not what its name says".to_owned(),
                    ));
                }
                (None, Err(error @ SourceError::Missing)) => {
                    return Err((What::Missing, error.to_string()));
                }
                (None, Err(error)) => return Err((What::Unreadable, error.to_string())),
            }
        }
    };
    let signed =
        SignedManifest::decode(id, &bytes).map_err(|why| (What::Damaged, why.to_string()))?;
    let mut why = ManifestError::Untrusted;
    for roster in &vault.rosters {
        match signed.verify(roster) {
            Ok(_) => return Ok(signed),
            Err(error) => why = error,
        }
    }
    Err((What::Untrusted, why.to_string()))
}

/// The same bytes under several upload ids are one manifest: the one that a receipt, a forget record or a child
/// names, else the first.
fn without_replays(vault: &Bucket, found: Vec<Found>, findings: &mut Vec<Finding>) -> Vec<Found> {
    let named: BTreeSet<PackId> = found
        .iter()
        .filter_map(|found| found.signed.manifest.parent.as_ref())
        .map(|link| link.manifest)
        .collect();
    let mut groups: BTreeMap<Sha256, Vec<Found>> = BTreeMap::new();
    for item in found {
        groups.entry(item.signed.sha256).or_default().push(item);
    }
    let mut kept = Vec::new();
    for mut group in groups.into_values() {
        group.sort_by_key(|found| {
            let confirmed = found.standing != Standing::Unconfirmed;
            (!confirmed, !named.contains(&found.signed.id), found.signed.id)
        });
        let mut group = group.into_iter();
        kept.extend(group.next());
        for copy in group {
            let name = Name::Object(ObjectKind::Manifest, copy.signed.sha256, copy.signed.id);
            findings.push(finding(
                Severity::Suspicious,
                What::Replayed,
                name.key(vault.tenant, vault.vault),
                "the same manifest is there under another name",
            ));
        }
    }
    kept
}
