//! What the platform signs: the receipt of a commit, and the record of a forgetting.
//!
//! Both are locked objects of the bucket, readable without keys, and enough to rebuild which manifests are
//! snapshots. Invariant: they are believed only under the platform's receipt key.

use domain::{
    AgentId, PackId, RunId, SessionId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId,
};
use ed25519_dalek::SigningKey;

use crate::{
    cbor::{CborError, Fields, MapWriter, Reader},
    id::Sha256,
    signed::Envelope,
};

const RECEIPT: &str = "everhold/receipt/v1";
const FORGET: &str = "everhold/forget/v1";
const MAX_TEXT: usize = 4_096;

/// Proof that a manifest became a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub tenant: TenantId,
    pub vault: VaultId,
    pub workload: WorkloadId,
    pub agent: AgentId,
    pub run: RunId,
    pub session: SessionId,
    pub fence: u64,
    pub snapshot: SnapshotId,
    pub manifest: PackId,
    pub manifest_sha256: Sha256,
    pub manifest_version: String,
    /// Server time, in whole milliseconds.
    pub committed_at: Timestamp,
    /// The promise made at commit, in whole milliseconds.
    pub protect_until: Timestamp,
}

/// Proof that a snapshot was let go, by whom and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetRecord {
    pub tenant: TenantId,
    pub vault: VaultId,
    pub snapshot: SnapshotId,
    pub manifest: PackId,
    pub manifest_sha256: Sha256,
    /// Server time, in whole milliseconds.
    pub forgotten_at: Timestamp,
    /// Who: an id or the name of a rule; no personal data.
    pub by: String,
    pub reason: String,
}

/// A receipt or record cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error("the receipt is damaged: {0}")]
    Cbor(#[from] CborError),
    #[error("the receipt was made by a newer version")]
    Version,
    #[error("the receipt is not signed by the platform")]
    Untrusted,
}

impl Receipt {
    /// Signs; gives the object's bytes.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let mut map = MapWriter::new();
        map.field(1).uint(1_u8);
        map.field(2).bytes(&self.tenant.into_bytes());
        map.field(3).bytes(&self.vault.into_bytes());
        map.field(4).bytes(&self.workload.into_bytes());
        map.field(5).bytes(&self.agent.into_bytes());
        map.field(6).bytes(&self.run.into_bytes());
        map.field(7).bytes(&self.session.into_bytes());
        map.field(8).uint(self.fence);
        map.field(9).bytes(&self.snapshot.into_bytes());
        map.field(10).bytes(&self.manifest.into_bytes());
        map.field(11).bytes(&self.manifest_sha256.0);
        map.field(12).text(&self.manifest_version);
        map.field(13).uint(self.committed_at.unix_millis());
        map.field(14).uint(self.protect_until.unix_millis());
        Envelope::sign(RECEIPT, map.finish(), key).encode()
    }

    /// Verifies, then decodes.
    pub fn open(bytes: &[u8], receipt_key: &[u8; 32]) -> Result<Self, ReceiptError> {
        let payload = open_signed(RECEIPT, bytes, receipt_key)?;
        let mut reader = Reader::new(&payload);
        let r = &mut reader;
        let mut fields = Fields::enter(r)?;
        version_one(&mut fields, r)?;
        let mut id = |r: &mut Reader<'_>, key: u64| -> Result<[u8; 16], CborError> {
            fields.required(r, key)?;
            r.array_of()
        };
        let tenant = TenantId::from_bytes(id(r, 2)?);
        let vault = VaultId::from_bytes(id(r, 3)?);
        let workload = WorkloadId::from_bytes(id(r, 4)?);
        let agent = AgentId::from_bytes(id(r, 5)?);
        let run = RunId::from_bytes(id(r, 6)?);
        let session = SessionId::from_bytes(id(r, 7)?);
        fields.required(r, 8)?;
        let fence = r.u64()?;
        fields.required(r, 9)?;
        let snapshot = SnapshotId::from_bytes(r.array_of()?);
        fields.required(r, 10)?;
        let manifest = PackId::from_bytes(r.array_of()?);
        fields.required(r, 11)?;
        let manifest_sha256 = Sha256(r.array_of()?);
        let manifest_version = text(&mut fields, r, 12)?;
        fields.required(r, 13)?;
        let committed_at = r.moment()?;
        fields.required(r, 14)?;
        let protect_until = r.moment()?;
        fields.end(r)?;
        reader.end()?;
        Ok(Self {
            tenant,
            vault,
            workload,
            agent,
            run,
            session,
            fence,
            snapshot,
            manifest,
            manifest_sha256,
            manifest_version,
            committed_at,
            protect_until,
        })
    }
}

impl ForgetRecord {
    /// Signs; gives the object's bytes.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let mut map = MapWriter::new();
        map.field(1).uint(1_u8);
        map.field(2).bytes(&self.tenant.into_bytes());
        map.field(3).bytes(&self.vault.into_bytes());
        map.field(4).bytes(&self.snapshot.into_bytes());
        map.field(5).bytes(&self.manifest.into_bytes());
        map.field(6).bytes(&self.manifest_sha256.0);
        map.field(7).uint(self.forgotten_at.unix_millis());
        map.field(8).text(&self.by);
        map.field(9).text(&self.reason);
        Envelope::sign(FORGET, map.finish(), key).encode()
    }

    /// Verifies, then decodes.
    pub fn open(bytes: &[u8], receipt_key: &[u8; 32]) -> Result<Self, ReceiptError> {
        let payload = open_signed(FORGET, bytes, receipt_key)?;
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
        let forgotten_at = r.moment()?;
        let by = text(&mut fields, r, 8)?;
        let reason = text(&mut fields, r, 9)?;
        fields.end(r)?;
        reader.end()?;
        Ok(Self { tenant, vault, snapshot, manifest, manifest_sha256, forgotten_at, by, reason })
    }
}

pub(crate) fn open_signed(
    domain: &str,
    bytes: &[u8],
    key: &[u8; 32],
) -> Result<Vec<u8>, ReceiptError> {
    let envelope = Envelope::decode(bytes)?;
    if envelope.verify(domain, key) { Ok(envelope.payload) } else { Err(ReceiptError::Untrusted) }
}

pub(crate) fn version_one(fields: &mut Fields, r: &mut Reader<'_>) -> Result<(), ReceiptError> {
    fields.required(r, 1)?;
    if r.u64()? == 1 { Ok(()) } else { Err(ReceiptError::Version) }
}

fn text(fields: &mut Fields, r: &mut Reader<'_>, key: u64) -> Result<String, CborError> {
    fields.required(r, key)?;
    let text = r.text()?;
    if text.len() <= MAX_TEXT { Ok(text.to_owned()) } else { Err(CborError::OutOfBounds) }
}
