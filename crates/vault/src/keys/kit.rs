//! The recovery kit: the root key and what is needed to open vaults without us.
//!
//! A JSON file for people and programs. Invariants: a flipped character is noticed by the checksum before any
//! key is used; the canary proves that the root key is the one the kit was made with; the file is made
//! on the customer's side and never sent to the platform.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::{IdGen, TenantId, Timestamp, VaultId};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{
    Recipient, RecipientKind, Roster, RosterAuthority, RosterError, VaultKeys, Wrap, WrapError,
    wrap::public_of,
};
use crate::{
    descriptor::{DescriptorError, VaultDescriptor},
    id::Sha256,
    seal::{derive_key, open_once, seal_once},
};

const FORMAT: &str = "everhold-recovery-kit";
const CANARY: &[u8] = b"everhold canary: this kit opens its vaults";
/// A kit is a small file; anything larger is something else.
const MAX_KIT_BYTES: usize = 16 << 20;

/// The secret a kit exists for: HPKE recipient and roster signer are derived from it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct RootKey([u8; 32]);

impl RootKey {
    /// A fresh root.
    pub fn generate(ids: &dyn IdGen) -> Self {
        let mut root = Self([0; 32]);
        ids.fill(&mut root.0);
        root
    }
    fn hpke_secret(&self) -> Zeroizing<[u8; 32]> {
        derive_key(&self.0, "everhold/v1/root/hpke")
    }
    /// To whom vault keys are wrapped.
    pub fn recipient(&self) -> Recipient {
        Recipient::keyed(RecipientKind::Root, public_of(&self.hpke_secret()))
    }
    /// Signs rosters.
    pub fn roster_key(&self) -> SigningKey {
        SigningKey::from_bytes(&derive_key(&self.0, "everhold/v1/root/roster"))
    }
    /// The public half of [`Self::roster_key`].
    pub fn authority(&self) -> RosterAuthority {
        RosterAuthority::Kit(self.roster_key().verifying_key().to_bytes())
    }
    /// Opens the wraps addressed to this root.
    pub fn open(&self, wraps: &[Wrap]) -> Result<VaultKeys, WrapError> {
        VaultKeys::open(wraps, &self.recipient(), &self.hpke_secret())
    }
    fn canary_key(&self) -> Zeroizing<[u8; 32]> {
        derive_key(&self.0, "everhold/v1/root/canary")
    }
}

/// What a kit knows of one vault, as of when it was written.
#[derive(Clone)]
pub struct KitVault {
    pub vault: VaultId,
    pub descriptor: VaultDescriptor,
    /// Signed roster, encoded.
    pub roster: Vec<u8>,
    pub wraps: Vec<Wrap>,
}

/// Root key, vaults, and the keys that may sign their rosters.
pub struct RecoveryKit {
    pub tenant: TenantId,
    pub created: Timestamp,
    pub root: RootKey,
    pub vaults: Vec<KitVault>,
    /// The platform's roster key, if it may sign rosters of these vaults (managed).
    pub platform_roster_key: Option<[u8; 32]>,
    /// Ed25519 key that signs receipts, to check them without the platform.
    pub receipt_key: Option<[u8; 32]>,
    /// Where the data was when the kit was written (endpoint, bucket …). Hints, not trusted.
    pub location: BTreeMap<String, String>,
}

/// A kit cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    #[error("this is not a recovery kit, or one of a newer version")]
    NotAKit,
    #[error("the recovery kit was altered or mistyped: its checksum does not match")]
    Checksum,
    #[error("the recovery kit's root key does not open its canary")]
    Canary,
    #[error("a part of the recovery kit is damaged")]
    Damaged,
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    #[error(transparent)]
    Roster(#[from] RosterError),
    #[error(transparent)]
    Wrap(#[from] WrapError),
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct KitFile {
    /// For people; not covered by the checksum.
    about: Vec<String>,
    checksum: String,
    kit: KitBody,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct KitBody {
    canary: String,
    created_at: String,
    format: String,
    #[zeroize(skip)]
    location: BTreeMap<String, String>,
    platform_roster_key: Option<String>,
    receipt_key: Option<String>,
    root_key: String,
    tenant_id: String,
    #[zeroize(skip)]
    vaults: Vec<KitVaultFile>,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KitVaultFile {
    descriptor: String,
    roster: String,
    vault_id: String,
    wraps: Vec<String>,
}

impl KitBody {
    /// SHA-256 over the body as compact JSON with sorted keys, which is the order of the fields above.
    fn checksum(&self) -> Result<String, KitError> {
        let json = Zeroizing::new(serde_json::to_vec(self).map_err(|_| KitError::Damaged)?);
        Ok(hex::encode(Sha256::of(&json).0))
    }
}

impl RecoveryKit {
    /// The file's text. Contains the root key: write it 0600, to where the customer asked.
    pub fn to_json(&self) -> Result<Zeroizing<String>, KitError> {
        let tenant = self.tenant.to_string();
        let canary = seal_once(&self.root.canary_key(), tenant.as_bytes(), CANARY);
        let vaults = self.vaults.iter().map(|vault| KitVaultFile {
            descriptor: STANDARD.encode(vault.descriptor.encode()),
            roster: STANDARD.encode(&vault.roster),
            vault_id: vault.vault.to_string(),
            wraps: vault.wraps.iter().map(|wrap| STANDARD.encode(wrap.encode())).collect(),
        });
        let kit = KitBody {
            canary: STANDARD.encode(canary),
            created_at: self.created.to_string(),
            format: FORMAT.to_owned(),
            location: self.location.clone(),
            platform_roster_key: self.platform_roster_key.map(|key| STANDARD.encode(key)),
            receipt_key: self.receipt_key.map(|key| STANDARD.encode(key)),
            root_key: STANDARD.encode(self.root.0),
            tenant_id: tenant,
            vaults: vaults.collect(),
            version: 1,
        };
        let about = [
            "Everhold recovery kit. Whoever holds this file and your bucket can read your backups.",
            "Keep it offline, in two places, never on the protected machine. Without it and without",
            "the platform nobody can restore. Test it: everhold-agent rescue --kit FILE.",
        ];
        let file = KitFile {
            about: about.iter().map(ToString::to_string).collect(),
            checksum: kit.checksum()?,
            kit,
        };
        serde_json::to_string_pretty(&file).map(Zeroizing::new).map_err(|_| KitError::Damaged)
    }

    /// Reads and checks a kit: format, checksum, canary, then every part.
    pub fn from_json(text: &str) -> Result<Self, KitError> {
        if text.len() > MAX_KIT_BYTES {
            return Err(KitError::NotAKit);
        }
        let file: KitFile = serde_json::from_str(text).map_err(|_| KitError::NotAKit)?;
        if file.kit.format != FORMAT || file.kit.version != 1 {
            return Err(KitError::NotAKit);
        }
        if file.kit.checksum()? != file.checksum {
            return Err(KitError::Checksum);
        }
        let body = &file.kit;
        let root = RootKey(key(&body.root_key)?);
        let canary = decode(&body.canary)?;
        let opened = open_once(&root.canary_key(), body.tenant_id.as_bytes(), &canary)
            .map_err(|_| KitError::Canary)?;
        if !bool::from(opened.ct_eq(CANARY)) {
            return Err(KitError::Canary);
        }
        Ok(Self {
            tenant: body.tenant_id.parse().map_err(|_| KitError::Damaged)?,
            created: body.created_at.parse().map_err(|_| KitError::Damaged)?,
            root,
            vaults: body.vaults.iter().map(vault).collect::<Result<_, _>>()?,
            platform_roster_key: body.platform_roster_key.as_deref().map(key).transpose()?,
            receipt_key: body.receipt_key.as_deref().map(key).transpose()?,
            location: body.location.clone(),
        })
    }

    /// Who may sign rosters, as this kit sees it.
    pub fn authorities(&self) -> Vec<RosterAuthority> {
        let platform = self.platform_roster_key.map(RosterAuthority::Platform);
        std::iter::once(self.root.authority()).chain(platform).collect()
    }

    /// The rehearsal: every vault's roster verifies, its descriptor is the pinned one, and its keys open.
    pub fn rehearse(&self) -> Result<Vec<VaultKeys>, KitError> {
        let authorities = self.authorities();
        let open = |vault: &KitVault| {
            Roster::open(&vault.roster, &authorities)?.check_descriptor(&vault.descriptor)?;
            let keys = self.root.open(&vault.wraps)?;
            if keys.vault() == vault.vault { Ok(keys) } else { Err(WrapError::Foreign.into()) }
        };
        self.vaults.iter().map(open).collect()
    }
}

fn vault(file: &KitVaultFile) -> Result<KitVault, KitError> {
    let wraps = file.wraps.iter().map(|wrap| Ok(Wrap::decode(&decode(wrap)?)?));
    Ok(KitVault {
        vault: file.vault_id.parse().map_err(|_| KitError::Damaged)?,
        descriptor: VaultDescriptor::decode(&decode(&file.descriptor)?)?,
        roster: decode(&file.roster)?,
        wraps: wraps.collect::<Result<_, KitError>>()?,
    })
}

fn decode(text: &str) -> Result<Vec<u8>, KitError> {
    STANDARD.decode(text).map_err(|_| KitError::Damaged)
}

fn key(text: &str) -> Result<[u8; 32], KitError> {
    let bytes = Zeroizing::new(decode(text)?);
    bytes.as_slice().try_into().map_err(|_| KitError::Damaged)
}
