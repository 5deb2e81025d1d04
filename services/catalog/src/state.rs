//! What every use case of this role works with.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use api::problem::Code;
use domain::{Clock, IdGen, Timestamp, retention::RetentionRule};
use ed25519_dalek::SigningKey;
use runtime::{LeaseClaims, Platform};
use tokio::sync::Notify;
use vault::{
    keys::{FileKeyWrapper, KeyWrapper, RosterAuthority},
    store::{S3Store, StoreConfig},
};
use zeroize::Zeroizing;

use crate::{
    browse::Readers, error::Error, replica, snapshots::manifests::Manifests,
    steward::alarms::Figures,
};

/// What the catalog needs besides the platform.
pub struct CatalogConfig {
    pub store: StoreConfig,
    /// Stores for second copies, by name.
    pub copies: BTreeMap<String, StoreConfig>,
    /// Secret of the file `KeyWrapper`; made at first start.
    pub key_wrapper_file: PathBuf,
    /// Ed25519 seed of the delegated roster key (managed vaults without a kit).
    pub roster_key_seed: Zeroizing<[u8; 32]>,
    /// Ed25519 seed of the key that signs receipts.
    pub receipt_key_seed: Zeroizing<[u8; 32]>,
    /// What new snapshots are promised, until policies exist.
    pub retention: RetentionRule,
}

/// The role cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the object store cannot be set up")]
    Store(#[from] vault::store::StoreError),
    #[error("the platform's key wrapper cannot be opened")]
    KeyWrapper(#[from] vault::keys::KeyWrapperError),
    #[error("the role's figures cannot be set up")]
    Figures(#[from] prometheus::Error),
}

/// A checked lease.
pub type Lease = LeaseClaims;

/// The role's parts. Shared behind an `Arc`.
pub struct Catalog {
    pub db: pg::Db,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGen>,
    pub store: S3Store,
    /// Stores for second copies, by name.
    pub copies: BTreeMap<String, S3Store>,
    pub wrapper: Arc<dyn KeyWrapper>,
    pub retention: RetentionRule,
    pub manifests: Manifests,
    pub readers: Readers,
    /// Alarms about locks, counted.
    pub lock_figures: Figures,
    /// How far second copies are behind.
    pub replica_figures: replica::Figures,
    /// Rung after a commit, so that receipts reach the bucket at once.
    pub receipts_waiting: Notify,
    platform: Platform,
    roster_key: SigningKey,
    receipt_key: SigningKey,
}

impl Catalog {
    /// Builds the clients; speaks to nobody yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn new(platform: Platform, config: CatalogConfig) -> Result<Self, StartError> {
        let store = S3Store::connect(config.store).await?;
        let mut copies = BTreeMap::new();
        for (name, config) in config.copies {
            copies.insert(name, S3Store::connect(config).await?);
        }
        let ids = platform.ids.clone();
        let wrapper = FileKeyWrapper::open_or_create(&config.key_wrapper_file, &*ids)?;
        Ok(Self {
            db: platform.db.clone(),
            clock: platform.clock.clone(),
            ids,
            store,
            copies,
            wrapper: Arc::new(wrapper),
            retention: config.retention,
            manifests: Manifests::default(),
            readers: Readers::default(),
            lock_figures: Figures::new()?,
            replica_figures: replica::Figures::new()?,
            receipts_waiting: Notify::new(),
            platform,
            roster_key: SigningKey::from_bytes(&config.roster_key_seed),
            receipt_key: SigningKey::from_bytes(&config.receipt_key_seed),
        })
    }

    /// What a lease token proves.
    ///
    /// # Errors
    /// `lease_lost` for anything not signed by the scheduler or past its end.
    pub fn lease(&self, token: &str, now: Timestamp) -> Result<Lease, Error> {
        let verified = self.platform.service_keys.verify_lease(token, now);
        verified.map_err(|_| Error::refused(Code::LeaseLost))
    }

    /// Signs rosters of managed vaults without a kit.
    pub const fn roster_key(&self) -> &SigningKey {
        &self.roster_key
    }
    /// Signs receipts.
    pub const fn receipt_key(&self) -> &SigningKey {
        &self.receipt_key
    }
    pub fn receipt_public(&self) -> [u8; 32] {
        self.receipt_key.verifying_key().to_bytes()
    }
    /// The platform's delegated roster authority.
    pub fn roster_authority(&self) -> RosterAuthority {
        RosterAuthority::Platform(self.roster_key.verifying_key().to_bytes())
    }
    pub const fn platform(&self) -> &Platform {
        &self.platform
    }
}
