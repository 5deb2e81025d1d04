//! From a recovery kit to vaults that can be read.
//!
//! The kit's own roster, descriptor and wraps come first; what the key store has beside them only adds: newer
//! rosters the kit vouches for, wraps of newer epochs that agree on the vault's id secret, vaults made later.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use domain::{TenantId, VaultId};

use super::Objects;
use crate::{
    descriptor::VaultDescriptor,
    keys::{
        KitVault, RecipientKind, RecoveryKit, RootKey, Roster, RosterAuthority, VaultKeys, Wrap,
    },
    layout,
};

/// Objects of the key store are small; a larger one is none.
const MAX_KEY_OBJECT: u64 = 16 << 20;

/// One vault's part of a bucket, with what it takes to judge its signed objects. No keys.
pub struct Bucket {
    pub tenant: TenantId,
    pub vault: VaultId,
    /// Every generation that is believed; a manifest may be signed by a member of any.
    pub rosters: Vec<Roster>,
    /// Without it receipts and forget records cannot be checked, and none is believed.
    pub receipt_key: Option<[u8; 32]>,
    pub objects: Arc<dyn Objects>,
}

/// A vault with everything needed to read its bucket.
pub struct OpenVault {
    pub bucket: Bucket,
    pub descriptor: VaultDescriptor,
    pub keys: Arc<VaultKeys>,
}

/// Whoever can read a vault can judge its bucket.
impl std::ops::Deref for OpenVault {
    type Target = Bucket;
    fn deref(&self) -> &Bucket {
        &self.bucket
    }
}

/// A vault the kit does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub vault: VaultId,
    pub why: String,
}

/// What a kit opens.
#[derive(Default)]
pub struct Opened {
    pub vaults: Vec<OpenVault>,
    pub closed: Vec<Closed>,
    /// What was found in the key store and not believed.
    pub notes: Vec<String>,
}

/// What is known of a vault before it is opened.
#[derive(Default)]
struct Known {
    descriptors: Vec<VaultDescriptor>,
    rosters: Vec<Roster>,
    wraps: Vec<Wrap>,
    /// Newest generation of the roster in the kit, and in the key store.
    in_kit: Option<u64>,
    in_store: Option<u64>,
}

impl Known {
    /// Generations only go up: a key store that knows less than the kit was set back, by whomever.
    fn set_back(&self) -> Option<(u64, u64)> {
        self.in_kit.zip(self.in_store).filter(|(kit, store)| store < kit)
    }
}

/// Opens every vault of the kit, and of the key store if there is one.
pub fn open_kit(
    kit: &RecoveryKit,
    objects: &Arc<dyn Objects>,
    key_store: Option<&dyn Objects>,
) -> Opened {
    let authorities = kit.authorities();
    let mut opened = Opened::default();
    let mut known: BTreeMap<VaultId, Known> = BTreeMap::new();
    for vault in &kit.vaults {
        from_kit(vault, &authorities, known.entry(vault.vault).or_default(), &mut opened.notes);
    }
    if let Some(store) = key_store {
        from_store(kit, store, &authorities, &mut known, &mut opened.notes);
    }
    for (vault, known) in known {
        if let Some((kit, store)) = known.set_back() {
            opened.notes.push(format!(
                "{vault}: the key store's newest roster is generation {store}, the kit's is {kit}: the key store was set back, and newer members, keys and snapshots may be missing"
            ));
        }
        match assemble(kit, vault, known, objects) {
            Ok(vault) => opened.vaults.push(vault),
            Err(why) => opened.closed.push(Closed { vault, why }),
        }
    }
    opened
}

fn from_kit(
    vault: &KitVault,
    authorities: &[RosterAuthority],
    known: &mut Known,
    notes: &mut Vec<String>,
) {
    known.descriptors.push(vault.descriptor.clone());
    known.wraps.extend(vault.wraps.iter().cloned());
    match Roster::open(&vault.roster, authorities) {
        Ok(roster) => {
            known.in_kit = known.in_kit.max(Some(roster.generation));
            known.rosters.push(roster);
        }
        Err(why) => notes.push(format!("the kit's roster of {}: {why}", vault.vault)),
    }
}

fn from_store(
    kit: &RecoveryKit,
    store: &dyn Objects,
    authorities: &[RosterAuthority],
    known: &mut BTreeMap<VaultId, Known>,
    notes: &mut Vec<String>,
) {
    let prefix = format!("v1/{}/", kit.tenant);
    let mut names = Vec::new();
    let listing = store.list(&prefix, &mut |listed| {
        let rest = listed.key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/'));
        let vault = rest.and_then(|(vault, name)| Some((vault.parse().ok()?, name)));
        if let Some((vault, name)) = vault
            && super::inventory::of_key_store(name)
        {
            names.push((vault, name.to_owned(), listed));
        }
    });
    if let Err(error) = listing {
        notes.push(format!(
            "the key store cannot be listed, only the kit's own keys are used: {error}"
        ));
    }
    // In the order of their names, so that two runs come to the same.
    names.sort_by(|a, b| a.2.key.cmp(&b.2.key));
    for (vault, name, listed) in names {
        let mut object = || -> Result<(), String> {
            if listed.length > MAX_KEY_OBJECT {
                return Err("too large".to_owned());
            }
            let bytes = store.read(&listed.key, None, 0..listed.length).map_err(words)?;
            let known = known.entry(vault).or_default();
            if name == "descriptor" {
                known.descriptors.push(VaultDescriptor::decode(&bytes).map_err(words)?);
            } else if let Some(generation) = name.strip_prefix("roster-") {
                let roster = Roster::open(&bytes, authorities).map_err(words)?;
                // An older one in a newer one's place would hide who was added or removed since.
                if generation != roster.generation.to_string() {
                    return Err(format!(
                        "its place is another's: it holds generation {}",
                        roster.generation
                    ));
                }
                known.in_store = known.in_store.max(Some(roster.generation));
                known.rosters.push(roster);
            } else {
                known.wraps.push(Wrap::decode(&bytes).map_err(words)?);
            }
            Ok(())
        };
        if let Err(why) = object() {
            notes.push(format!("{}: {why}", layout::vault_prefix(kit.tenant, vault) + "/" + &name));
        }
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn assemble(
    kit: &RecoveryKit,
    vault: VaultId,
    known: Known,
    objects: &Arc<dyn Objects>,
) -> Result<OpenVault, String> {
    let of_vault = |roster: &Roster| roster.tenant == kit.tenant && roster.vault == vault;
    let mut rosters: Vec<Roster> = known.rosters.into_iter().filter(of_vault).collect();
    // The kit's own descriptor comes first; another one counts if a believed roster pins it.
    let pinned = |descriptor: &VaultDescriptor| {
        rosters.iter().any(|roster| roster.check_descriptor(descriptor).is_ok())
    };
    let descriptor = known
        .descriptors
        .into_iter()
        .find(pinned)
        .ok_or("no roster that the kit vouches for names this vault's descriptor")?;
    rosters.retain(|roster| roster.check_descriptor(&descriptor).is_ok());
    let keys = keys(&kit.root, kit.tenant, vault, known.wraps)?;
    let receipt_key = kit.receipt_key;
    let objects = Arc::clone(objects);
    let bucket = Bucket { tenant: kit.tenant, vault, rosters, receipt_key, objects };
    Ok(OpenVault { bucket, descriptor, keys: Arc::new(keys) })
}

/// The epochs this root can open. Anyone can seal something to a public key: wraps that do not open, or that
/// contradict the first that did, are passed over.
fn keys(
    root: &RootKey,
    tenant: TenantId,
    vault: VaultId,
    wraps: Vec<Wrap>,
) -> Result<VaultKeys, String> {
    let mut epochs = BTreeSet::new();
    let mut good: Vec<Wrap> = Vec::new();
    for wrap in wraps {
        let ours = wrap.tenant == tenant
            && wrap.vault == vault
            && wrap.recipient.kind == RecipientKind::Root
            && !epochs.contains(&wrap.epoch);
        if !ours {
            continue;
        }
        let epoch = wrap.epoch;
        good.push(wrap);
        if root.open(&good).is_ok() {
            epochs.insert(epoch);
        } else {
            good.pop();
        }
    }
    root.open(&good).map_err(|_| {
        "no wrap of this vault opens with the kit's root key; add the key store if the kit is older than the vault"
            .to_owned()
    })
}
