//! A vault's bucket in memory, spelled as the real one, and a kit that opens it.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use domain::{RunId, SessionId, SnapshotId, Timestamp};
use ed25519_dalek::SigningKey;
use vault::{
    keys::{KitVault, RecoveryKit, Wrap},
    layout::{self, ObjectKind},
    manifest::resolve,
    receipt::{ForgetRecord, Receipt},
    rescue::{Bucket, Listed, Objects, OpenVault},
    snapshot::SourceError,
};

use crate::common::{Done, Lab};

/// Objects by key.
#[derive(Default)]
pub struct Memory(pub Mutex<BTreeMap<String, Bytes>>);

impl Memory {
    pub fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        self.0.lock().unwrap().insert(key.to_owned(), bytes.into());
    }
    pub fn get(&self, key: &str) -> Bytes {
        self.0.lock().unwrap()[key].clone()
    }
    pub fn take(&self, key: &str) -> Bytes {
        self.0.lock().unwrap().remove(key).unwrap()
    }
    /// Keys of one kind (`data`, `receipt` …).
    pub fn keys(&self, kind: &str) -> Vec<String> {
        let part = format!("/{kind}/");
        let objects = self.0.lock().unwrap();
        objects.keys().filter(|key| key.contains(&part)).cloned().collect()
    }
}

impl Objects for Memory {
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Listed)) -> Result<(), SourceError> {
        for (key, bytes) in self.0.lock().unwrap().iter() {
            if key.starts_with(prefix) {
                each(Listed { key: key.clone(), length: bytes.len() as u64 });
            }
        }
        Ok(())
    }
    fn read(&self, key: &str, _: Option<&str>, range: Range<u64>) -> Result<Bytes, SourceError> {
        let objects = self.0.lock().unwrap();
        let bytes = objects.get(key).ok_or(SourceError::Missing)?;
        if range.end > bytes.len() as u64 {
            return Err(SourceError::Failed("short".into()));
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }
}

pub fn receipt_key() -> SigningKey {
    SigningKey::from_bytes(&[0x51; 32])
}

/// The customer's kit of the lab's vault. A root has no copy: the lab's seed makes the same one again.
pub fn kit(lab: &Lab, seed: u64) -> RecoveryKit {
    let wrap =
        |epoch| -> Wrap { lab.keys.wrap_for(epoch, lab.root.recipient(), &*lab.ids).unwrap() };
    RecoveryKit {
        tenant: lab.descriptor.tenant,
        created: lab.now,
        root: Lab::new(seed).root,
        vaults: vec![KitVault {
            vault: lab.descriptor.vault,
            descriptor: lab.descriptor.clone(),
            roster: lab.roster.clone(),
            wraps: (1..=lab.keys.newest_epoch()).map(wrap).collect(),
        }],
        platform_roster_key: None,
        receipt_key: Some(receipt_key().verifying_key().to_bytes()),
        location: BTreeMap::new(),
    }
}

/// The bucket after these backups; each newer one builds on the one before it.
pub fn filled(lab: &Lab, chain: &[&Done]) -> Arc<Memory> {
    let bucket = Arc::new(Memory::default());
    for done in chain {
        store(lab, &bucket, done);
    }
    bucket
}

/// Manifest and packs of one backup.
pub fn store(lab: &Lab, bucket: &Memory, done: &Done) {
    let (tenant, vault) = (lab.descriptor.tenant, lab.descriptor.vault);
    let signed = &done.chain[0];
    let kind = ObjectKind::Manifest;
    let key = layout::object_key(tenant, vault, kind, &signed.sha256, signed.id);
    bucket.put(&key, done.object.clone());
    for pack in resolve(&done.chain).unwrap().iter() {
        let key = layout::object_key(tenant, vault, pack.kind.object(), &pack.sha256, pack.id);
        let bytes = lab.bucket.packs.lock().unwrap()[&pack.sha256].bytes.joined();
        bucket.put(&key, bytes);
    }
}

/// The platform's word that the backup is a snapshot.
pub fn confirm(lab: &Lab, bucket: &Memory, done: &Done) -> SnapshotId {
    let snapshot = SnapshotId::fresh(&*lab.ids, lab.now);
    let signed = &done.chain[0];
    let receipt = Receipt {
        tenant: lab.descriptor.tenant,
        vault: lab.descriptor.vault,
        workload: lab.workload,
        agent: lab.agent,
        run: RunId::fresh(&*lab.ids, lab.now),
        session: SessionId::fresh(&*lab.ids, lab.now),
        fence: 1,
        snapshot,
        manifest: signed.id,
        manifest_sha256: signed.sha256,
        manifest_version: "v".to_owned(),
        committed_at: later(lab, bucket),
        protect_until: lab.now,
    };
    let key = layout::receipt_key(lab.descriptor.tenant, lab.descriptor.vault, snapshot);
    bucket.put(&key, receipt.sign(&receipt_key()));
    snapshot
}

fn later(lab: &Lab, bucket: &Memory) -> Timestamp {
    lab.now + std::time::Duration::from_secs(60 * (1 + bucket.keys("receipt").len() as u64))
}

/// The platform's word that the snapshot was let go.
pub fn forget(lab: &Lab, bucket: &Memory, done: &Done, snapshot: SnapshotId) {
    let record = ForgetRecord {
        tenant: lab.descriptor.tenant,
        vault: lab.descriptor.vault,
        snapshot,
        manifest: done.chain[0].id,
        manifest_sha256: done.chain[0].sha256,
        forgotten_at: lab.now,
        by: "rule".to_owned(),
        reason: "expired".to_owned(),
    };
    let key = layout::forget_key(lab.descriptor.tenant, lab.descriptor.vault, snapshot);
    bucket.put(&key, record.sign(&receipt_key()));
}

/// The vault, open.
pub fn open(lab: &Lab, bucket: &Arc<Memory>) -> OpenVault {
    let bucket = Bucket {
        tenant: lab.descriptor.tenant,
        vault: lab.descriptor.vault,
        rosters: vec![lab.roster()],
        receipt_key: Some(receipt_key().verifying_key().to_bytes()),
        objects: Arc::clone(bucket) as Arc<dyn Objects>,
    };
    OpenVault { bucket, descriptor: lab.descriptor.clone(), keys: Arc::clone(&lab.keys) }
}
