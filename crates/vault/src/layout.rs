//! Where objects lie: keys in the vault bucket and in the key store.
//!
//! Owns the spelling of object keys and nothing else. Object names carry the hash of the ciphertext and the
//! server-issued upload id, so a name is never used twice (R2).

use domain::{PackId, SnapshotId, TenantId, VaultId};

use crate::{id::Sha256, keys::RecipientKind};

/// What an object of the vault bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A pack of file content.
    Data,
    /// A pack of metadata.
    Meta,
    /// A signed manifest.
    Manifest,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Data, Self::Meta, Self::Manifest];
    /// The word in keys and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Meta => "meta",
            Self::Manifest => "manifest",
        }
    }
}

/// `v1/<ten_…>/<vlt_…>`: prefix of everything of a vault, in both stores.
pub fn vault_prefix(tenant: TenantId, vault: VaultId) -> String {
    format!("v1/{tenant}/{vault}")
}

/// `v1/<ten_…>/<vlt_…>/<kind>/<sha256 hex>-<32 hex digits of the upload id>`.
pub fn object_key(
    tenant: TenantId,
    vault: VaultId,
    kind: ObjectKind,
    sha256: &Sha256,
    upload: PackId,
) -> String {
    let prefix = vault_prefix(tenant, vault);
    format!("{prefix}/{}/{sha256}-{}", kind.as_str(), upload.uuid().simple())
}

/// `v1/<ten_…>/<vlt_…>/receipt/<snp_…>`.
pub fn receipt_key(tenant: TenantId, vault: VaultId, snapshot: SnapshotId) -> String {
    format!("{}/receipt/{snapshot}", vault_prefix(tenant, vault))
}

/// `v1/<ten_…>/<vlt_…>/forget/<snp_…>`.
pub fn forget_key(tenant: TenantId, vault: VaultId, snapshot: SnapshotId) -> String {
    format!("{}/forget/{snapshot}", vault_prefix(tenant, vault))
}

/// Key store: the vault's descriptor.
pub fn descriptor_key(tenant: TenantId, vault: VaultId) -> String {
    format!("{}/descriptor", vault_prefix(tenant, vault))
}

/// Key store: one generation of the roster.
pub fn roster_key(tenant: TenantId, vault: VaultId, generation: u64) -> String {
    format!("{}/roster-{generation}", vault_prefix(tenant, vault))
}

/// Key store: `wrap-<epoch>-<kind>-<recipient id hex>`.
pub fn wrap_key(
    tenant: TenantId,
    vault: VaultId,
    epoch: u32,
    kind: RecipientKind,
    recipient: &[u8; 16],
) -> String {
    let prefix = vault_prefix(tenant, vault);
    format!("{prefix}/wrap-{epoch}-{}-{}", kind.as_str(), hex::encode(recipient))
}

/// What a key of the vault bucket says, below the vault's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// A pack or manifest: kind, hash of the object, upload id.
    Object(ObjectKind, Sha256, PackId),
    Receipt(SnapshotId),
    Forget(SnapshotId),
}

impl Name {
    /// Reads what follows [`vault_prefix`] and its slash. `None` for any other spelling: one object has one name.
    pub fn parse(rest: &str) -> Option<Self> {
        let (folder, name) = rest.split_once('/')?;
        match folder {
            "receipt" => return name.parse().ok().map(Self::Receipt),
            "forget" => return name.parse().ok().map(Self::Forget),
            _ => {}
        }
        let kind = ObjectKind::ALL.into_iter().find(|kind| kind.as_str() == folder)?;
        let (sha256, upload) = name.split_once('-')?;
        let lower = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !lower(sha256) || !lower(upload) {
            return None;
        }
        let sha256 = Sha256::from_slice(&hex::decode(sha256).ok()?)?;
        let upload = hex::decode(upload).ok()?.try_into().ok()?;
        Some(Self::Object(kind, sha256, PackId::from_bytes(upload)))
    }
    /// The whole key.
    pub fn key(&self, tenant: TenantId, vault: VaultId) -> String {
        match self {
            Self::Object(kind, sha256, upload) => object_key(tenant, vault, *kind, sha256, *upload),
            Self::Receipt(snapshot) => receipt_key(tenant, vault, *snapshot),
            Self::Forget(snapshot) => forget_key(tenant, vault, *snapshot),
        }
    }
}
