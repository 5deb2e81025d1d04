//! The immutability certificate of a snapshot: "everything it needs is locked in COMPLIANCE mode until T", signed.
//!
//! Owns the statement's bytes and the hash over the objects it speaks of. Invariant: it is believed only under the
//! platform's receipt key, and it names the time between which the store itself was asked about each object. It
//! must not know how that was done.

use domain::{PackId, SnapshotId, TenantId, Timestamp, VaultId};
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256 as Hasher};

use crate::{
    cbor::{Fields, MapWriter, Reader},
    id::Sha256,
    receipt::{ReceiptError, open_signed, version_one},
    signed::Envelope,
};

const DOMAIN: &str = "everhold/lock-certificate/v1";

/// What is certified. Times are server time in whole milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockCertificate {
    pub tenant: TenantId,
    pub vault: VaultId,
    pub snapshot: SnapshotId,
    pub manifest: PackId,
    pub manifest_sha256: Sha256,
    /// Packs and manifests, all of them locked.
    pub objects: u64,
    /// [`objects_hash`] over them.
    pub objects_hash: Sha256,
    /// The earliest end of any of the locks.
    pub locked_until: Timestamp,
    /// When the store was asked about the object asked about first, and last.
    pub checked_from: Timestamp,
    pub checked_to: Timestamp,
    pub issued_at: Timestamp,
}

/// One object as the store reported it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedObject {
    pub key: String,
    pub version_id: String,
    pub locked_until: Timestamp,
}

/// SHA-256 over the lines `key NUL version NUL seconds since 1970 LF` in order of the keys.
pub fn objects_hash(mut objects: Vec<LockedObject>) -> Sha256 {
    objects.sort_unstable();
    let mut hasher = Hasher::new();
    for object in &objects {
        hasher.update(object.key.as_bytes());
        hasher.update([0]);
        hasher.update(object.version_id.as_bytes());
        hasher.update([0]);
        hasher.update(object.locked_until.unix_secs().to_string().as_bytes());
        hasher.update(*b"\n");
    }
    Sha256(hasher.finalize().into())
}

impl LockCertificate {
    /// Signs; gives the document's bytes.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let mut map = MapWriter::new();
        map.field(1).uint(1_u8);
        map.field(2).bytes(&self.tenant.into_bytes());
        map.field(3).bytes(&self.vault.into_bytes());
        map.field(4).bytes(&self.snapshot.into_bytes());
        map.field(5).bytes(&self.manifest.into_bytes());
        map.field(6).bytes(&self.manifest_sha256.0);
        map.field(7).uint(self.objects);
        map.field(8).bytes(&self.objects_hash.0);
        map.field(9).uint(self.locked_until.unix_millis());
        map.field(10).uint(self.checked_from.unix_millis());
        map.field(11).uint(self.checked_to.unix_millis());
        map.field(12).uint(self.issued_at.unix_millis());
        Envelope::sign(DOMAIN, map.finish(), key).encode()
    }

    /// Verifies, then decodes.
    pub fn open(bytes: &[u8], receipt_key: &[u8; 32]) -> Result<Self, ReceiptError> {
        let payload = open_signed(DOMAIN, bytes, receipt_key)?;
        let mut reader = Reader::new(&payload);
        let r = &mut reader;
        let mut fields = Fields::enter(r)?;
        version_one(&mut fields, r)?;
        fields.required(r, 2)?;
        let tenant = TenantId::from_bytes(r.array_of()?);
        fields.required(r, 3)?;
        let vault = VaultId::from_bytes(r.array_of()?);
        fields.required(r, 4)?;
        let snapshot = SnapshotId::from_bytes(r.array_of()?);
        fields.required(r, 5)?;
        let manifest = PackId::from_bytes(r.array_of()?);
        fields.required(r, 6)?;
        let manifest_sha256 = Sha256(r.array_of()?);
        fields.required(r, 7)?;
        let objects = r.u64()?;
        fields.required(r, 8)?;
        let objects_hash = Sha256(r.array_of()?);
        fields.required(r, 9)?;
        let locked_until = r.moment()?;
        fields.required(r, 10)?;
        let checked_from = r.moment()?;
        fields.required(r, 11)?;
        let checked_to = r.moment()?;
        fields.required(r, 12)?;
        let issued_at = r.moment()?;
        fields.end(r)?;
        reader.end()?;
        Ok(Self {
            tenant,
            vault,
            snapshot,
            manifest,
            manifest_sha256,
            objects,
            objects_hash,
            locked_until,
            checked_from,
            checked_to,
            issued_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> LockCertificate {
        let at = |day: u64| Timestamp::from_unix_millis(day * 86_400_000);
        LockCertificate {
            tenant: TenantId::from_bytes([1; 16]),
            vault: VaultId::from_bytes([2; 16]),
            snapshot: SnapshotId::from_bytes([3; 16]),
            manifest: PackId::from_bytes([4; 16]),
            manifest_sha256: Sha256([5; 32]),
            objects: 7,
            objects_hash: objects_hash(vec![]),
            locked_until: at(100),
            checked_from: at(10),
            checked_to: at(11),
            issued_at: at(11),
        }
    }

    #[test]
    fn a_certificate_reads_back_and_any_changed_bit_is_refused() {
        let key = SigningKey::from_bytes(&[9; 32]);
        let public = key.verifying_key().to_bytes();
        let bytes = sample().sign(&key);
        assert_eq!(LockCertificate::open(&bytes, &public), Ok(sample()));
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(LockCertificate::open(&changed, &public).is_err(), "bit {at}");
        }
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        assert_eq!(LockCertificate::open(&bytes, &other), Err(ReceiptError::Untrusted));
    }

    #[test]
    fn the_hash_depends_on_every_part_of_every_object_and_on_no_order() {
        let object = |key: &str, version: &str, day: u64| LockedObject {
            key: key.into(),
            version_id: version.into(),
            locked_until: Timestamp::from_unix_millis(day * 86_400_000),
        };
        let base = objects_hash(vec![object("a", "v", 1), object("b", "w", 2)]);
        assert_eq!(base, objects_hash(vec![object("b", "w", 2), object("a", "v", 1)]));
        for other in [
            vec![object("a", "v", 1)],
            vec![object("a", "v", 1), object("b", "w", 3)],
            vec![object("a", "v", 1), object("b", "x", 2)],
            vec![object("a", "v", 1), object("c", "w", 2)],
        ] {
            assert_ne!(base, objects_hash(other));
        }
    }
}
