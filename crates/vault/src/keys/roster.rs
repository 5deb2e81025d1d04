//! The roster: which agents belong to a vault, signed by the kit or by the platform's delegated key.
//!
//! Invariant: a roster is believed only under the [`RosterAuthority`] the caller already trusts (from the kit,
//! or pinned at enrolment), and only with the descriptor it names. Generations only go up.

use domain::{AgentId, TenantId, VaultId};
use ed25519_dalek::SigningKey;

use crate::{
    cbor::{CborError, Fields, MapWriter, Reader},
    id::Sha256,
    signed::Envelope,
};

const DOMAIN: &str = "everhold/roster/v1";
/// More agents than this share no vault.
const MAX_MEMBERS: usize = 65_536;

/// One agent of the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub agent: AgentId,
    /// Ed25519: checks the agent's manifests.
    pub verify_key: [u8; 32],
    /// X25519: receives wraps.
    pub hpke_key: [u8; 32],
}

/// Who may sign rosters of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RosterAuthority {
    /// A key derived from the kit's root key.
    Kit([u8; 32]),
    /// The platform's delegated roster key (managed vaults).
    Platform([u8; 32]),
}

impl RosterAuthority {
    /// The Ed25519 public key.
    pub const fn key(&self) -> &[u8; 32] {
        match self {
            Self::Kit(key) | Self::Platform(key) => key,
        }
    }
    const fn code(&self) -> u8 {
        match self {
            Self::Kit(_) => 1,
            Self::Platform(_) => 2,
        }
    }
}

/// The verified list of a vault's agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    pub tenant: TenantId,
    pub vault: VaultId,
    pub generation: u64,
    /// SHA-256 of the vault's descriptor.
    pub descriptor: Sha256,
    /// Sorted by agent id.
    pub members: Vec<Member>,
    pub signer: RosterAuthority,
}

/// A roster cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    #[error("the roster is damaged: {0}")]
    Cbor(#[from] CborError),
    #[error("the roster was made by a newer version")]
    Version,
    #[error("the roster is not signed by the authority of this vault")]
    Untrusted,
    #[error("the roster belongs to another vault or descriptor")]
    Foreign,
}

impl Roster {
    /// Signs and encodes. `self.signer` must be the public half of `key`; members are sorted here.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, RosterError> {
        if key.verifying_key().as_bytes() != self.signer.key() {
            return Err(RosterError::Untrusted);
        }
        Ok(Envelope::sign(DOMAIN, self.payload(), key).encode())
    }

    fn payload(&self) -> Vec<u8> {
        let mut members = self.members.clone();
        members.sort_by_key(|member| member.agent);
        members.dedup_by_key(|member| member.agent);
        let mut map = MapWriter::new();
        map.field(1).uint(1_u8);
        map.field(2).bytes(&self.tenant.into_bytes());
        map.field(3).bytes(&self.vault.into_bytes());
        map.field(4).uint(self.generation);
        map.field(5).bytes(&self.descriptor.0);
        let list = map.field(6).array(members.len());
        for member in &members {
            list.array(3).bytes(&member.agent.into_bytes());
            list.bytes(&member.verify_key).bytes(&member.hpke_key);
        }
        map.field(7).uint(self.signer.code());
        map.field(8).bytes(self.signer.key());
        map.finish()
    }

    /// Decodes and verifies against any of the authorities the caller trusts for this vault.
    pub fn open(bytes: &[u8], trusted: &[RosterAuthority]) -> Result<Self, RosterError> {
        let envelope = Envelope::decode(bytes)?;
        let good = trusted.iter().find(|authority| envelope.verify(DOMAIN, authority.key()));
        let authority = good.ok_or(RosterError::Untrusted)?;
        let roster = Self::decode_payload(&envelope.payload)?;
        if roster.signer != *authority {
            return Err(RosterError::Untrusted);
        }
        Ok(roster)
    }

    fn decode_payload(bytes: &[u8]) -> Result<Self, RosterError> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        let mut fields = Fields::enter(r)?;
        fields.required(r, 1)?;
        if r.u64()? != 1 {
            return Err(RosterError::Version);
        }
        fields.required(r, 2)?;
        let tenant = TenantId::from_bytes(r.array_of()?);
        fields.required(r, 3)?;
        let vault = VaultId::from_bytes(r.array_of()?);
        fields.required(r, 4)?;
        let generation = r.u64()?;
        fields.required(r, 5)?;
        let descriptor = Sha256(r.array_of()?);
        fields.required(r, 6)?;
        let members = decode_members(r)?;
        fields.required(r, 7)?;
        let code = r.u8()?;
        fields.required(r, 8)?;
        let key = r.array_of()?;
        let signer = match code {
            1 => RosterAuthority::Kit(key),
            2 => RosterAuthority::Platform(key),
            _ => return Err(RosterError::Version),
        };
        fields.end(r)?;
        reader.end()?;
        Ok(Self { tenant, vault, generation, descriptor, members, signer })
    }

    /// The agent's line, if it is a member.
    pub fn member(&self, agent: AgentId) -> Option<&Member> {
        self.members.iter().find(|member| member.agent == agent)
    }

    /// Fails unless this roster is of this vault and pins exactly this descriptor.
    pub fn check_descriptor(
        &self,
        descriptor: &crate::descriptor::VaultDescriptor,
    ) -> Result<(), RosterError> {
        let same = self.tenant == descriptor.tenant
            && self.vault == descriptor.vault
            && self.descriptor == descriptor.sha256();
        if same { Ok(()) } else { Err(RosterError::Foreign) }
    }
}

fn decode_members(r: &mut Reader<'_>) -> Result<Vec<Member>, CborError> {
    let count = r.array()?;
    if count > MAX_MEMBERS {
        return Err(CborError::OutOfBounds);
    }
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..count {
        if r.array()? != 3 {
            return Err(CborError::OutOfBounds);
        }
        let agent = AgentId::from_bytes(r.array_of()?);
        if members.last().is_some_and(|last| last.agent >= agent) {
            return Err(CborError::NotDeterministic);
        }
        members.push(Member { agent, verify_key: r.array_of()?, hpke_key: r.array_of()? });
    }
    Ok(members)
}
