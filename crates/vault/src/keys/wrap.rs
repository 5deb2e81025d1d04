//! Epoch keys and their wraps: HPKE base mode, X25519-HKDF-SHA256, AES-256-GCM.
//!
//! A wrap carries the epoch's key and the vault's id secret, so that one wrap of the current epoch is enough
//! to deduplicate against everything. All that is said about it in clear is authenticated with it.

use std::collections::BTreeMap;

use domain::{AgentId, IdGen, TenantId, VaultId};
use hpke::{
    Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _, aead::AesGcm256,
    kdf::HkdfSha256, kem::X25519HkdfSha256,
};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::cbor::{CborError, Fields, MapWriter, Reader};

const INFO: &[u8] = b"everhold/wrap/v1";

/// Key of one epoch of a vault; seals packs through per-pack derivation.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EpochKey(pub(crate) [u8; 32]);

/// The secrets of a vault: the id secret, and the epoch keys this holder has.
pub struct VaultKeys {
    tenant: TenantId,
    vault: VaultId,
    id_secret: Zeroizing<[u8; 32]>,
    epochs: BTreeMap<u32, EpochKey>,
}

/// To what a wrap is addressed. Also part of the wrap's key in the key store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecipientKind {
    /// A member agent.
    Agent,
    /// The root key of a recovery kit.
    Root,
    /// The platform's `KeyWrapper`.
    Platform,
}

impl RecipientKind {
    /// The word in key-store names and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Root => "root",
            Self::Platform => "platform",
        }
    }
    /// The kind with this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Agent, Self::Root, Self::Platform].into_iter().find(|kind| kind.as_str() == text)
    }
    const fn code(self) -> u8 {
        match self {
            Self::Agent => 1,
            Self::Root => 2,
            Self::Platform => 3,
        }
    }
    fn from_code(code: u8) -> Option<Self> {
        [Self::Agent, Self::Root, Self::Platform].into_iter().find(|kind| kind.code() == code)
    }
}

/// Kind, id and public key of somebody who shall be able to open the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient {
    pub kind: RecipientKind,
    /// Agent id, or [`Recipient::key_id`] of the public key.
    pub id: [u8; 16],
    /// X25519 public key.
    pub public_key: [u8; 32],
}

impl Recipient {
    /// An agent on the roster.
    pub const fn agent(id: AgentId, public_key: [u8; 32]) -> Self {
        Self { kind: RecipientKind::Agent, id: id.into_bytes(), public_key }
    }
    /// A root or platform key, named by its own hash.
    pub fn keyed(kind: RecipientKind, public_key: [u8; 32]) -> Self {
        Self { kind, id: Self::key_id(&public_key), public_key }
    }
    /// First 16 bytes of SHA-256 over a label and the public key.
    pub fn key_id(public_key: &[u8; 32]) -> [u8; 16] {
        let hash = Sha256::new().chain_update(b"everhold/key-id/v1\0").chain_update(public_key);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        id
    }
}

/// An epoch key sealed to one recipient. Public; lives in the key store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrap {
    pub tenant: TenantId,
    pub vault: VaultId,
    pub epoch: u32,
    pub recipient: Recipient,
    /// HPKE encapsulated key.
    enc: [u8; 32],
    ciphertext: Vec<u8>,
}

/// A wrap cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    #[error("the wrap is damaged: {0}")]
    Cbor(#[from] CborError),
    #[error("the wrap was made by a newer version or suite")]
    Version,
    #[error("the wrap does not open with this key")]
    NotForThisKey,
    #[error("the wrap is of another vault, or contradicts another wrap of this vault")]
    Foreign,
    #[error("the recipient's public key is not a valid X25519 key")]
    BadRecipient,
    #[error("there is no key for epoch {0}")]
    NoEpoch(u32),
}

impl Wrap {
    fn context(&self) -> Vec<u8> {
        let mut map = MapWriter::new();
        self.context_fields(&mut map);
        map.finish()
    }
    fn context_fields(&self, map: &mut MapWriter) {
        map.field(1).uint(1_u8);
        // 2: suite, 1 = HPKE base X25519-HKDF-SHA256 / HKDF-SHA256 / AES-256-GCM.
        map.field(2).uint(1_u8);
        map.field(3).bytes(&self.tenant.into_bytes());
        map.field(4).bytes(&self.vault.into_bytes());
        map.field(5).uint(self.epoch);
        map.field(6).uint(self.recipient.kind.code());
        map.field(7).bytes(&self.recipient.id);
        map.field(8).bytes(&self.recipient.public_key);
    }
    /// Deterministic CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let mut map = MapWriter::new();
        self.context_fields(&mut map);
        map.field(9).bytes(&self.enc);
        map.field(10).bytes(&self.ciphertext);
        map.finish()
    }
    /// Strict; says nothing about who made it.
    pub fn decode(bytes: &[u8]) -> Result<Self, WrapError> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        let mut fields = Fields::enter(r)?;
        for key in [1, 2] {
            fields.required(r, key)?;
            if r.u64()? != 1 {
                return Err(WrapError::Version);
            }
        }
        fields.required(r, 3)?;
        let tenant = TenantId::from_bytes(r.array_of()?);
        fields.required(r, 4)?;
        let vault = VaultId::from_bytes(r.array_of()?);
        fields.required(r, 5)?;
        let epoch = r.u32()?;
        fields.required(r, 6)?;
        let kind = RecipientKind::from_code(r.u8()?).ok_or(CborError::OutOfBounds)?;
        fields.required(r, 7)?;
        let id = r.array_of()?;
        fields.required(r, 8)?;
        let recipient = Recipient { kind, id, public_key: r.array_of()? };
        fields.required(r, 9)?;
        let enc = r.array_of()?;
        fields.required(r, 10)?;
        let ciphertext = r.bytes()?.to_vec();
        fields.end(r)?;
        reader.end()?;
        Ok(Self { tenant, vault, epoch, recipient, enc, ciphertext })
    }

    fn seal(
        keys: &VaultKeys,
        epoch: u32,
        to: Recipient,
        ids: &dyn IdGen,
    ) -> Result<Self, WrapError> {
        let key = keys.epoch(epoch)?;
        let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&to.public_key)
            .map_err(|_| WrapError::BadRecipient)?;
        let mut secret = MapWriter::new();
        secret.field(1).bytes(&key.0);
        secret.field(2).bytes(keys.id_secret.as_slice());
        let secret = Zeroizing::new(secret.finish());
        let mut wrap = Self {
            tenant: keys.tenant,
            vault: keys.vault,
            epoch,
            recipient: to,
            enc: [0; 32],
            ciphertext: Vec::new(),
        };
        let (enc, ciphertext) =
            hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &public,
                INFO,
                &secret,
                &wrap.context(),
                &mut Randomness(ids),
            )
            .map_err(|_| WrapError::BadRecipient)?;
        wrap.enc.copy_from_slice(&enc.to_bytes());
        wrap.ciphertext = ciphertext;
        Ok(wrap)
    }

    /// Opens with the recipient's X25519 secret: the epoch key and the id secret.
    fn open(&self, secret: &[u8; 32]) -> Result<(EpochKey, Zeroizing<[u8; 32]>), WrapError> {
        type Private = <X25519HkdfSha256 as Kem>::PrivateKey;
        type Encapped = <X25519HkdfSha256 as Kem>::EncappedKey;
        let private = Private::from_bytes(secret).map_err(|_| WrapError::NotForThisKey)?;
        let enc = Encapped::from_bytes(&self.enc).map_err(|_| WrapError::NotForThisKey)?;
        let plain = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &private,
            &enc,
            INFO,
            &self.ciphertext,
            &self.context(),
        )
        .map_err(|_| WrapError::NotForThisKey)?;
        let plain = Zeroizing::new(plain);
        let mut reader = Reader::new(&plain);
        let mut fields = Fields::enter(&mut reader)?;
        fields.required(&mut reader, 1)?;
        let key = EpochKey(reader.array_of()?);
        fields.required(&mut reader, 2)?;
        let id_secret = Zeroizing::new(reader.array_of()?);
        fields.end(&mut reader)?;
        reader.end()?;
        Ok((key, id_secret))
    }
}

impl VaultKeys {
    /// A new vault: a fresh id secret and the key of epoch 1.
    pub fn generate(tenant: TenantId, vault: VaultId, ids: &dyn IdGen) -> Self {
        let mut id_secret = Zeroizing::new([0; 32]);
        ids.fill(id_secret.as_mut_slice());
        let mut keys = Self { tenant, vault, id_secret, epochs: BTreeMap::new() };
        keys.add_epoch(1, ids);
        keys
    }
    /// Makes the key of a further epoch; an existing one stays as it is.
    pub fn add_epoch(&mut self, epoch: u32, ids: &dyn IdGen) {
        self.epochs.entry(epoch).or_insert_with(|| {
            let mut key = EpochKey([0; 32]);
            ids.fill(&mut key.0);
            key
        });
    }
    /// Opens all wraps addressed to `recipient` with its X25519 secret; others are passed over. At least
    /// one must open, and all must be of the same vault and agree on its id secret.
    pub fn open<'a>(
        wraps: impl IntoIterator<Item = &'a Wrap>,
        recipient: &Recipient,
        secret: &[u8; 32],
    ) -> Result<Self, WrapError> {
        let mut found: Option<Self> = None;
        for wrap in wraps.into_iter().filter(|wrap| wrap.recipient == *recipient) {
            let (key, id_secret) = wrap.open(secret)?;
            let keys = found.get_or_insert_with(|| Self {
                tenant: wrap.tenant,
                vault: wrap.vault,
                id_secret: id_secret.clone(),
                epochs: BTreeMap::new(),
            });
            let same = keys.tenant == wrap.tenant && keys.vault == wrap.vault;
            if !same || *keys.id_secret != *id_secret {
                return Err(WrapError::Foreign);
            }
            keys.epochs.insert(wrap.epoch, key);
        }
        found.ok_or(WrapError::NotForThisKey)
    }
    /// Seals the key of an epoch to somebody. The caller checked that it is on the roster.
    pub fn wrap_for(&self, epoch: u32, to: Recipient, ids: &dyn IdGen) -> Result<Wrap, WrapError> {
        Wrap::seal(self, epoch, to, ids)
    }
    /// The key of an epoch.
    pub fn epoch(&self, epoch: u32) -> Result<&EpochKey, WrapError> {
        self.epochs.get(&epoch).ok_or(WrapError::NoEpoch(epoch))
    }
    /// The newest epoch there is a key for.
    pub fn newest_epoch(&self) -> u32 {
        self.epochs.keys().next_back().copied().unwrap_or(0)
    }
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }
    pub const fn vault(&self) -> VaultId {
        self.vault
    }
    pub(crate) fn id_secret(&self) -> &[u8; 32] {
        &self.id_secret
    }
}

/// X25519 public key of a secret, as HPKE sees it.
pub(super) fn public_of(secret: &[u8; 32]) -> [u8; 32] {
    let mut public = [0; 32];
    if let Ok(private) = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(secret) {
        public.copy_from_slice(&X25519HkdfSha256::sk_to_pk(&private).to_bytes());
    }
    public
}

/// Our [`IdGen`] as the random source HPKE asks for.
struct Randomness<'a>(&'a dyn IdGen);

impl hpke::rand_core::TryRng for Randomness<'_> {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}
impl hpke::rand_core::TryCryptoRng for Randomness<'_> {}
