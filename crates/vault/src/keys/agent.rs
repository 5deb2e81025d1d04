//! The two key pairs of one agent: Ed25519 to sign, X25519 to receive wraps.

use domain::{AgentId, IdGen};
use ed25519_dalek::SigningKey;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{Member, Recipient, wrap::public_of};

/// An agent's secret keys. Kept in a 0600 file of the agent's home; never leaves the machine.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct AgentKeys {
    sign_seed: [u8; 32],
    hpke_secret: [u8; 32],
}

impl AgentKeys {
    /// Fresh keys.
    pub fn generate(ids: &dyn IdGen) -> Self {
        let mut keys = Self { sign_seed: [0; 32], hpke_secret: [0; 32] };
        ids.fill(&mut keys.sign_seed);
        ids.fill(&mut keys.hpke_secret);
        keys
    }
    /// What the agent stores: signing seed, then HPKE secret.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 64]> {
        let mut bytes = Zeroizing::new([0; 64]);
        bytes[..32].copy_from_slice(&self.sign_seed);
        bytes[32..].copy_from_slice(&self.hpke_secret);
        bytes
    }
    /// Reads what [`Self::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut keys = Self { sign_seed: [0; 32], hpke_secret: [0; 32] };
        keys.sign_seed.copy_from_slice(&bytes[..32]);
        keys.hpke_secret.copy_from_slice(&bytes[32..]);
        keys
    }
    /// For requests and manifests.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.sign_seed)
    }
    /// Ed25519 public key.
    pub fn verify_key(&self) -> [u8; 32] {
        self.signing_key().verifying_key().to_bytes()
    }
    /// X25519 public key for wraps.
    pub fn hpke_public(&self) -> [u8; 32] {
        public_of(&self.hpke_secret)
    }
    /// X25519 secret, to open a wrap with.
    pub const fn hpke_secret(&self) -> &[u8; 32] {
        &self.hpke_secret
    }
    /// This agent as a recipient of wraps.
    pub fn recipient(&self, id: AgentId) -> Recipient {
        Recipient::agent(id, self.hpke_public())
    }
    /// This agent as a line of the roster.
    pub fn member(&self, id: AgentId) -> Member {
        Member { agent: id, verify_key: self.verify_key(), hpke_key: self.hpke_public() }
    }
}
