//! The 160 bytes at the start of a pack (and again near its end): who made it, for which key.

use domain::{AgentId, SessionId, TenantId, VaultId};

use super::{PackError, PackKind};
use crate::id::Sha256;

/// Length of a header of suite 1.
pub const HEADER_LEN: usize = 160;
const MAGIC: &[u8; 8] = b"EVHPACK1";
/// AES-256-GCM, HKDF-SHA-512, keyed BLAKE3.
const SUITE: u16 = 1;

/// In clear, authenticated by everything in the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: PackKind,
    pub tenant: TenantId,
    pub vault: VaultId,
    pub epoch: u32,
    pub agent: AgentId,
    pub session: SessionId,
    pub seq: u64,
    /// Fresh for every pack.
    pub salt: [u8; 32],
    /// Proof of the key (see [`crate::seal::PackKeys::commitment`]).
    pub commitment: [u8; 32],
}

impl Header {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(MAGIC);
        put(&SUITE.to_be_bytes());
        // Flags: none are defined.
        put(&[self.kind.code(), 0]);
        put(&self.tenant.into_bytes());
        put(&self.vault.into_bytes());
        put(&self.epoch.to_be_bytes());
        put(&self.agent.into_bytes());
        put(&self.session.into_bytes());
        put(&self.seq.to_be_bytes());
        put(&self.salt);
        put(&self.commitment);
        // The rest stays zero: length of a sealed pack secret (write-only agents) and reserved bytes.
        out
    }

    /// Refuses unknown suites and flags; authenticates nothing.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, PackError> {
        if &bytes[..8] != MAGIC {
            return Err(PackError::NotAPack);
        }
        let suite = u16::from_be_bytes([bytes[8], bytes[9]]);
        if suite != SUITE || bytes[11] != 0 || bytes[152..].iter().any(|byte| *byte != 0) {
            return Err(PackError::Version);
        }
        let id = |at: usize| -> [u8; 16] {
            let mut id = [0; 16];
            id.copy_from_slice(&bytes[at..at + 16]);
            id
        };
        let half = |at: usize| -> [u8; 32] {
            let mut half = [0; 32];
            half.copy_from_slice(&bytes[at..at + 32]);
            half
        };
        let number = |from: usize, to: usize| {
            bytes[from..to].iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte))
        };
        Ok(Self {
            kind: PackKind::from_code(bytes[10]).ok_or(PackError::Version)?,
            tenant: TenantId::from_bytes(id(12)),
            vault: VaultId::from_bytes(id(28)),
            epoch: u32::try_from(number(44, 48)).map_err(|_| PackError::Version)?,
            agent: AgentId::from_bytes(id(48)),
            session: SessionId::from_bytes(id(64)),
            seq: number(80, 88),
            salt: half(88),
            commitment: half(120),
        })
    }

    /// What the pack's keys are derived for: everything from suite to sequence number.
    pub fn context(&self) -> [u8; 80] {
        let mut context = [0; 80];
        context.copy_from_slice(&self.encode()[8..88]);
        context
    }

    /// Binds frames and directories to this header.
    pub fn hash(&self) -> Sha256 {
        Sha256::of(&self.encode())
    }
}
