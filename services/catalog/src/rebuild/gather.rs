//! Everything the bucket and the key store say about one vault, believed or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use domain::{AgentId, PackId, SessionId, SnapshotId, TenantId, Timestamp, VaultId};
use futures::{StreamExt as _, TryStreamExt as _};
use vault::{
    backup::Summary,
    descriptor::{KeyMode, VaultDescriptor},
    id::Sha256,
    keys::{RecipientKind, Roster, RosterAuthority, VaultKeys, Wrap},
    layout::{self, Name, ObjectKind},
    manifest::PackSet,
    pack::{HEADER_LEN, Header},
    rescue::{Bucket, Found, Inventory, OpenVault, Snapshots},
};

use super::objects::Versions;
use crate::{error::Error, objects::compliance_until, state::Catalog, vaults};

/// Questions to the store at once.
const AT_ONCE: usize = 16;

/// What the key store has.
pub struct KeyFacts {
    pub descriptor: VaultDescriptor,
    pub descriptor_bytes: Vec<u8>,
    /// Believed generations with their bytes, oldest first.
    pub rosters: Vec<(Roster, Vec<u8>)>,
    pub wraps: Vec<(Wrap, Vec<u8>)>,
}

/// One object, as the store describes it.
#[derive(Debug, Clone)]
pub struct ObjectFacts {
    pub kind: ObjectKind,
    pub id: PackId,
    pub sha256: Sha256,
    pub key: String,
    pub version_id: String,
    pub length: u64,
    /// Not every store tells it.
    pub md5: Option<[u8; 16]>,
    pub lock_until: Timestamp,
    /// From the header of a pack: who wrote it, in which session, as which number. Not authenticated.
    pub maker: Option<Maker>,
}

/// Who made a pack, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maker {
    pub agent: AgentId,
    pub session: SessionId,
    pub seq: u64,
    pub key_epoch: u32,
}

/// A believed manifest with what it needs.
pub struct ManifestFacts {
    pub found: Found,
    /// `None`: a link of its chain is missing.
    pub packs: Option<PackSet>,
    /// Of managed vaults, where it could be opened.
    pub summary: Option<Summary>,
}

/// The object of a receipt or of a forget record.
#[derive(Debug, Clone)]
pub struct ProofFacts {
    pub snapshot: SnapshotId,
    pub bytes: Vec<u8>,
    pub key: String,
    pub version_id: String,
    pub lock_until: Timestamp,
}

/// All of it.
#[derive(Default)]
pub struct Facts {
    pub keys: Option<KeyFacts>,
    pub manifests: Vec<ManifestFacts>,
    pub objects: Vec<ObjectFacts>,
    pub receipts: Vec<ProofFacts>,
    pub forgets: Vec<ProofFacts>,
    pub findings: Vec<String>,
}

/// The vaults of a tenant, by its key store.
pub async fn find_vaults(app: &Catalog, tenant: TenantId) -> Result<BTreeSet<VaultId>, Error> {
    let prefix = format!("v1/{tenant}/");
    let names = app.store.list_key_objects(&prefix).await?;
    let vault = |name: &String| name.strip_prefix(&prefix)?.split('/').next()?.parse().ok();
    Ok(names.iter().filter_map(vault).collect())
}

/// Reads one vault.
pub async fn read_vault(app: &Catalog, tenant: TenantId, vault: VaultId) -> Result<Facts, Error> {
    let mut facts = Facts::default();
    let Some(keys) = keys(app, tenant, vault, &mut facts.findings).await? else {
        return Ok(facts);
    };
    let prefix = format!("{}/", layout::vault_prefix(tenant, vault));
    let versions = Arc::new(Versions::list(&app.store, &prefix).await?);
    let bucket = Bucket {
        tenant,
        vault,
        rosters: keys.rosters.iter().map(|(roster, _)| roster.clone()).collect(),
        receipt_key: Some(app.receipt_public()),
        objects: versions.clone(),
    };
    let wraps: Vec<Wrap> = keys.wraps.iter().map(|(wrap, _)| wrap.clone()).collect();
    let managed = keys.descriptor.key_mode == KeyMode::Managed;
    let opened = if managed { app.wrapper.unwrap_keys(&wraps).ok() } else { None };
    let descriptor = keys.descriptor.clone();
    let reading = move || read_manifests(bucket, descriptor, opened);
    let (manifests, inventory, findings) = tokio::task::spawn_blocking(reading)
        .await
        .map_err(|e| Error::broken("reading the manifests was cut off", e))?
        .map_err(|e| Error::broken("the bucket cannot be listed", e))?;
    facts.findings.extend(findings);
    facts.objects = objects(app, tenant, vault, &versions, &inventory, &manifests).await?;
    let receipts = manifests.iter().filter_map(|manifest| manifest.found.receipt.as_ref());
    let receipts: Vec<SnapshotId> = receipts.map(|receipt| receipt.snapshot).collect();
    let of_receipt = |id| layout::receipt_key(tenant, vault, id);
    facts.receipts = proofs(app, &versions, &receipts, of_receipt).await?;
    let forgotten = manifests.iter().filter(|manifest| manifest.found.is_forgotten());
    let forgotten: Vec<SnapshotId> = forgotten.filter_map(|m| m.found.snapshot()).collect();
    let of_forget = |id| layout::forget_key(tenant, vault, id);
    facts.forgets = proofs(app, &versions, &forgotten, of_forget).await?;
    facts.manifests = manifests;
    facts.keys = Some(keys);
    Ok(facts)
}

/// Descriptor, rosters and wraps; a roster is believed under the platform's key, or under the one kit key that the
/// oldest of them names.
async fn keys(
    app: &Catalog,
    tenant: TenantId,
    vault: VaultId,
    findings: &mut Vec<String>,
) -> Result<Option<KeyFacts>, Error> {
    let prefix = format!("{}/", layout::vault_prefix(tenant, vault));
    let (mut descriptors, mut raw_rosters, mut wraps) = (Vec::new(), BTreeMap::new(), Vec::new());
    for name in app.store.list_key_objects(&prefix).await? {
        let bytes = app.store.get_key_object(&name).await?.to_vec();
        let rest = name.strip_prefix(&prefix).unwrap_or_default();
        if rest == "descriptor" {
            match VaultDescriptor::decode(&bytes) {
                Ok(descriptor) => descriptors.push((descriptor, bytes)),
                Err(why) => findings.push(format!("{name}: {why}")),
            }
        } else if let Some(generation) = rest.strip_prefix("roster-").and_then(|n| n.parse().ok()) {
            let generation: u64 = generation;
            raw_rosters.insert(generation, (name, bytes));
        } else if rest.starts_with("wrap-") {
            match Wrap::decode(&bytes) {
                Ok(wrap) if wrap.tenant == tenant && wrap.vault == vault => {
                    wraps.push((wrap, bytes));
                }
                Ok(_) => findings.push(format!("{name}: it is of another vault")),
                Err(why) => findings.push(format!("{name}: {why}")),
            }
        } else {
            findings.push(format!("{name}: no object of the key store is called so"));
        }
    }
    let claimed =
        raw_rosters.values().find_map(|(_, bytes)| {
            match vaults::roster::claimed_authority(bytes) {
                Some(kit @ RosterAuthority::Kit(_)) => Some(kit),
                _ => None,
            }
        });
    let authorities: Vec<RosterAuthority> =
        std::iter::once(app.roster_authority()).chain(claimed).collect();
    let mut rosters = Vec::new();
    for (generation, (name, bytes)) in raw_rosters {
        match Roster::open(&bytes, &authorities) {
            Ok(roster)
                if roster.tenant == tenant
                    && roster.vault == vault
                    && roster.generation == generation =>
            {
                rosters.push((roster, bytes));
            }
            Ok(_) => findings.push(format!("{name}: it is of another vault or generation")),
            Err(why) => findings.push(format!("{name}: {why}")),
        }
    }
    let pinned = |descriptor: &VaultDescriptor| {
        rosters.iter().any(|(roster, _)| roster.check_descriptor(descriptor).is_ok())
    };
    let Some((descriptor, descriptor_bytes)) =
        descriptors.into_iter().find(|(descriptor, _)| pinned(descriptor))
    else {
        findings
            .push("no believed roster names this vault's descriptor: it stays closed".to_owned());
        return Ok(None);
    };
    Ok(Some(KeyFacts { descriptor, descriptor_bytes, rosters, wraps }))
}

type Read = (Vec<ManifestFacts>, Inventory, Vec<String>);

/// Blocking.
fn read_manifests(
    bucket: Bucket,
    descriptor: VaultDescriptor,
    keys: Option<VaultKeys>,
) -> Result<Read, vault::snapshot::SourceError> {
    let inventory = Inventory::take(&*bucket.objects, bucket.tenant, bucket.vault)?;
    let snapshots = Snapshots::read(&bucket, &inventory);
    let mut findings: Vec<String> = Vec::new();
    for finding in &snapshots.findings {
        let object = finding.object.as_deref().unwrap_or("the bucket");
        findings.push(format!("{object}: {}", finding.detail));
    }
    for key in &inventory.stray {
        findings.push(format!("{key}: no object of a vault is called so"));
    }
    let open = keys.map(|keys| OpenVault { bucket, descriptor, keys: Arc::new(keys) });
    let mut manifests = Vec::new();
    for found in &snapshots.found {
        let packs = snapshots.packs(found);
        // Manifests a forgotten one built on may be gone by right.
        if let Err(why) = &packs
            && !found.is_forgotten()
        {
            findings.push(format!("{}: {why}", found.name()));
        }
        let reader = open.as_ref().and_then(|open| snapshots.reader(open, found).ok());
        let summary = reader.and_then(|reader| reader.summary().ok());
        manifests.push(ManifestFacts { found: found.clone(), packs: packs.ok(), summary });
    }
    Ok((manifests, inventory, findings))
}

/// Asks the store about every object: which version, how long, locked until when; and packs who made them.
async fn objects(
    app: &Catalog,
    tenant: TenantId,
    vault: VaultId,
    versions: &Arc<Versions>,
    inventory: &Inventory,
    manifests: &[ManifestFacts],
) -> Result<Vec<ObjectFacts>, Error> {
    // The version a manifest or receipt names; of anything else the newest.
    let mut named: BTreeMap<PackId, String> = BTreeMap::new();
    let mut believed = BTreeSet::new();
    for manifest in manifests {
        believed.insert(manifest.found.signed.id);
        for pack in manifest.packs.iter().flat_map(PackSet::iter) {
            named.insert(pack.id, pack.version_id.clone());
        }
        if let Some(receipt) = &manifest.found.receipt {
            named.insert(receipt.manifest, receipt.manifest_version.clone());
        }
    }
    let names: Vec<(ObjectKind, Sha256, PackId)> = inventory
        .objects
        .keys()
        .filter(|(kind, _, id)| *kind != ObjectKind::Manifest || believed.contains(id))
        .copied()
        .collect();
    let looked = futures::stream::iter(names).map(|(kind, sha256, id)| {
        let named = named.get(&id).cloned();
        async move {
            let key = Name::Object(kind, sha256, id).key(tenant, vault);
            let known = versions.of(&key);
            let version = named
                .filter(|wanted| known.iter().any(|version| version.id == *wanted))
                .or_else(|| known.first().map(|version| version.id.clone()));
            let Some(version_id) = version else { return Ok(None) };
            let Some(said) = app.store.head(&key, Some(&version_id)).await? else {
                return Ok(None);
            };
            let maker = match kind {
                ObjectKind::Manifest => None,
                _ if said.length < HEADER_LEN as u64 => None,
                _ => maker(&app.store.get_range(&key, &version_id, 0..HEADER_LEN as u64).await?),
            };
            Ok::<_, Error>(Some(ObjectFacts {
                kind,
                id,
                sha256,
                key,
                version_id,
                length: said.length,
                md5: said.md5,
                lock_until: compliance_until(&said).unwrap_or(Timestamp::UNIX_EPOCH),
                maker,
            }))
        }
    });
    let looked: Vec<Option<ObjectFacts>> = looked.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut objects: Vec<ObjectFacts> = looked.into_iter().flatten().collect();
    objects.sort_by_key(|object| object.id);
    Ok(objects)
}

fn maker(bytes: &[u8]) -> Option<Maker> {
    let header = Header::decode(bytes.try_into().ok()?).ok()?;
    let Header { agent, session, seq, epoch, .. } = header;
    Some(Maker { agent, session, seq, key_epoch: epoch })
}

/// The objects that speak for, or against, these snapshots.
async fn proofs(
    app: &Catalog,
    versions: &Versions,
    snapshots: &[SnapshotId],
    key_of: impl Fn(SnapshotId) -> String,
) -> Result<Vec<ProofFacts>, Error> {
    let mut proofs = Vec::new();
    for snapshot in snapshots.iter().copied() {
        let key = key_of(snapshot);
        let Some(version) = versions.of(&key).first() else { continue };
        let said = app.store.head(&key, Some(&version.id)).await?;
        let bytes = app.store.get(&key, &version.id).await?.to_vec();
        let lock_until = said.and_then(|said| compliance_until(&said));
        proofs.push(ProofFacts {
            snapshot,
            bytes,
            version_id: version.id.clone(),
            lock_until: lock_until.unwrap_or(Timestamp::UNIX_EPOCH),
            key,
        });
    }
    Ok(proofs)
}

/// Whether the wraps name a recovery kit.
pub fn has_kit(keys: &KeyFacts) -> bool {
    keys.wraps.iter().any(|(wrap, _)| wrap.recipient.kind == RecipientKind::Root)
}

/// What a wrap's recipient is called in the database.
pub fn recipient_id(wrap: &Wrap) -> String {
    match wrap.recipient.kind {
        RecipientKind::Agent => AgentId::from_bytes(wrap.recipient.id).to_string(),
        RecipientKind::Root | RecipientKind::Platform => hex::encode(wrap.recipient.id),
    }
}
