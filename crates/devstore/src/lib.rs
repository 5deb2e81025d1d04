//! The embedded object store: S3 with versions and enforced Object Lock over a local folder.
//!
//! **For one machine.** Locks are enforced by this process only: whoever can write the folder can
//! delete what is in it, and whoever can set the clock can let locks end (a jump is noticed, see
//! [`DevStore::confirm_clock`]). It serves on loopback and refuses anything else. It is the default
//! of a demonstration, a test or a small site, never the guarantee of immutability: that is a real
//! S3 endpoint in another administrative domain, put in its place by configuration alone.
//!
//! On disk: `store.redb` holds all metadata, `blobs/` the bodies under random names, `tmp/` what is
//! being received, `lock` keeps a second process out. A body is complete and durable before the row
//! that names it is; what a crash leaves over is removed at the next start.
//!
//! ```no_run
//! # async fn example(clock: std::sync::Arc<dyn domain::Clock>) -> Result<(), Box<dyn std::error::Error>> {
//! use devstore::{Config, DevStore, Key, Policy};
//! let key = Key {
//!     access_key: "admin".into(),
//!     secret_key: "a long random secret".into(),
//!     policy: Policy::Administrator,
//!     buckets: vec![],
//! };
//! let store = DevStore::open(Config { dir: "store".into(), keys: vec![key], clock })?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! store.serve(listener, std::future::pending()).await?;
//! # Ok(()) }
//! ```

mod access;
mod blobs;
mod clock;
mod guard;
mod hashing;
mod listing;
mod lock;
mod meta;
mod model;
mod policy;
mod s3;
mod serve;
mod versions;

use std::{fmt, fs::File, future::Future, path::PathBuf, sync::Arc};

use domain::Clock;
use tokio::net::TcpListener;

pub use access::Key;
pub use policy::{Action, Policy};
pub use serve::ServeError;

use crate::{
    clock::{LockClock, Uptime},
    meta::{Meta, MetaError, Rows as _},
};

/// How to open a store.
#[derive(Clone)]
pub struct Config {
    /// The store's folder; made when missing. Nothing else may live in it.
    pub dir: PathBuf,
    pub keys: Vec<Key>,
    /// By which locks are judged. Signatures are always checked against the machine's clock.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("dir", &self.dir)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another process holds the store in {0}")]
    InUse(PathBuf),
    #[error("the store's folder {dir} cannot be used")]
    Folder { dir: PathBuf, source: std::io::Error },
    #[error("the store's metadata cannot be used")]
    Metadata(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("two keys have the same access key, or a key or secret is empty")]
    Keys,
}

impl From<MetaError> for OpenError {
    fn from(error: MetaError) -> Self {
        Self::Metadata(Box::new(error))
    }
}

/// An open store. Cheap to clone; the folder is free again when the last clone and every
/// connection is gone.
#[derive(Clone)]
pub struct DevStore {
    store: s3::Store,
    dir: PathBuf,
    /// Held, never read: its lock keeps other processes out.
    _lock: Arc<File>,
}

impl fmt::Debug for DevStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevStore").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl DevStore {
    /// Opens the folder, makes what is missing and removes what a crash left over. Blocks.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let Config { dir, keys, clock } = config;
        check_keys(&keys)?;
        let folder = |source| OpenError::Folder { dir: dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(folder)?;
        restrict(&dir).map_err(folder)?;
        let lock = File::create(dir.join("lock")).map_err(folder)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| OpenError::InUse(dir.clone()))?;
        let meta = Meta::open(&dir.join("store.redb"))?;
        let blobs = blobs::Blobs::open(&dir).map_err(folder)?;
        let rows = meta.view()?;
        let orphans = blobs.remove_orphans(&rows.named_blobs()?).map_err(folder)?;
        if orphans > 0 {
            tracing::info!(orphans, "removed blobs an earlier end left without a row");
        }
        let lock_clock = LockClock::new(clock, rows.heartbeat()?.as_ref(), &Uptime::now());
        let store = s3::Store {
            meta: Arc::new(meta),
            blobs,
            clock: Arc::new(lock_clock),
            keys: access::Keys::new(keys),
        };
        Ok(Self { store, dir, _lock: Arc::new(lock) })
    }

    /// Serves S3 (path style, region us-east-1 or any) until `shutdown` ends, then lets requests in
    /// flight end, for ten seconds at most. Refuses an address that is not loopback.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        serve::serve(self.store.clone(), &self.dir, listener, shutdown).await
    }

    /// Whether the wall clock ran more than an hour ahead of the time this store saw pass. Then a
    /// version whose lock ends in that gap cannot be deleted or weakened.
    pub fn clock_doubted(&self) -> bool {
        self.store.clock.doubted()
    }

    /// An operator confirms the wall clock. Creating the file `confirm-clock` in the folder of a
    /// serving store does the same within half a minute.
    pub fn confirm_clock(&self) {
        self.store.clock.confirm();
    }
}

fn check_keys(keys: &[Key]) -> Result<(), OpenError> {
    let names: std::collections::HashSet<_> = keys.iter().map(|key| &key.access_key).collect();
    let empty = keys.iter().any(|key| key.access_key.is_empty() || key.secret_key.is_empty());
    if names.len() != keys.len() || empty { Err(OpenError::Keys) } else { Ok(()) }
}

/// Only the owner may look into the folder.
fn restrict(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}
