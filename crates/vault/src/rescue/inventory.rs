//! What is in a bucket, by its names alone.

use std::collections::BTreeMap;

use domain::{PackId, SnapshotId, TenantId, VaultId};

use super::Objects;
use crate::{
    id::Sha256,
    layout::{self, Name, ObjectKind},
    snapshot::SourceError,
};

/// Names that are none of ours; more are only counted.
pub const MAX_STRAY: usize = 100;

/// Everything below one vault's prefix.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Kind, hash and upload id, with the length the listing says.
    pub objects: BTreeMap<(ObjectKind, Sha256, PackId), u64>,
    pub receipts: BTreeMap<SnapshotId, u64>,
    pub forgets: BTreeMap<SnapshotId, u64>,
    /// Keys that say nothing to us.
    pub stray: Vec<String>,
    pub stray_count: u64,
    pub bytes: u64,
}

impl Inventory {
    /// Lists the vault. What belongs into the key store is passed over, so that both buckets may lie in one folder.
    pub fn take(
        objects: &dyn Objects,
        tenant: TenantId,
        vault: VaultId,
    ) -> Result<Self, SourceError> {
        let prefix = format!("{}/", layout::vault_prefix(tenant, vault));
        let mut found = Self::default();
        objects.list(&prefix, &mut |listed| {
            if let Some(rest) = listed.key.strip_prefix(&prefix) {
                found.add(rest, &listed.key, listed.length);
            }
        })?;
        Ok(found)
    }

    fn add(&mut self, rest: &str, key: &str, length: u64) {
        match Name::parse(rest) {
            Some(Name::Object(kind, sha256, id)) => {
                self.bytes = self.bytes.saturating_add(length);
                self.objects.insert((kind, sha256, id), length);
            }
            Some(Name::Receipt(id)) => drop(self.receipts.insert(id, length)),
            Some(Name::Forget(id)) => drop(self.forgets.insert(id, length)),
            None if of_key_store(rest) => {}
            None => {
                self.stray_count += 1;
                if self.stray.len() < MAX_STRAY {
                    self.stray.push(key.to_owned());
                }
            }
        }
    }

    /// Objects of one kind.
    pub fn of(&self, kind: ObjectKind) -> impl Iterator<Item = (Sha256, PackId, u64)> {
        let all = self.objects.iter().filter(move |((of, _, _), _)| *of == kind);
        all.map(|((_, sha256, id), length)| (*sha256, *id, *length))
    }
}

/// Spelled as the key store spells its names.
pub(super) fn of_key_store(rest: &str) -> bool {
    rest == "descriptor" || rest.starts_with("roster-") || rest.starts_with("wrap-")
}
