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
