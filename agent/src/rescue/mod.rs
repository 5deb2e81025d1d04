//! Reading a vault with nothing but its bucket and a recovery kit: no account, no enrolment, no control plane.
//!
//! Owns where a copy of the bucket may be ([`Place`]: a folder, or any S3 endpoint behind [`s3`]) and what a person
//! with a kit can do with it. Invariant: what is believed is decided by the engine (`vault::rescue`); this module only
//! fetches. Nothing is ever written into a bucket.

pub mod granted;
mod s3;
pub mod zero;

use std::{fs, path::PathBuf, sync::Arc};

use clap::Args;
use domain::VaultId;
use vault::{
    keys::{KitError, RecoveryKit},
    rescue::{Folder, Inventory, Objects, OpenVault, Opened, Snapshots, open_kit},
    snapshot::SourceError,
};
use zeroize::Zeroizing;

/// Where a copy of the bucket is, and of the key store if there is one.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Recovery kit, as written at enrolment.
    #[arg(long, value_name = "FILE")]
    pub kit: Option<PathBuf>,
    /// A local copy of the bucket: a folder that holds v1/…
    #[arg(long, value_name = "DIR", requires = "kit")]
    pub bucket_dir: Option<PathBuf>,
    /// An S3 endpoint, like https://s3.example.com; credentials come from the environment.
    #[arg(
        long,
        value_name = "URL",
        conflicts_with = "bucket_dir",
        requires = "bucket",
        requires = "kit"
    )]
    pub s3_endpoint: Option<url::Url>,
    /// Name of the bucket at the endpoint.
    #[arg(long, requires = "s3_endpoint")]
    pub bucket: Option<String>,
    /// A local copy of the key store; without one the kit's own keys must do.
    #[arg(long, value_name = "DIR", conflicts_with = "key_bucket")]
    pub keys_dir: Option<PathBuf>,
    /// Name of the key store's bucket at the endpoint.
    #[arg(long, requires = "s3_endpoint")]
    pub key_bucket: Option<String>,
    /// Only this vault, when the kit opens several.
    #[arg(long, value_name = "VAULT")]
    pub vault: Option<VaultId>,
    #[command(flatten)]
    pub access: Access,
}

/// The S3 key, from the environment alone.
#[derive(Debug, Clone, Args)]
pub struct Access {
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1", hide = true)]
    pub region: String,
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide_env_values = true, hide = true)]
    pub access_key_id: Option<String>,
    #[arg(long = "aws-secret", env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true, hide = true)]
    pub secret: Option<Secret>,
    #[arg(long = "aws-token", env = "AWS_SESSION_TOKEN", hide_env_values = true, hide = true)]
    pub token: Option<Secret>,
}

/// A word that no log shows.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A rescue cannot begin, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum RescueError {
    #[error(
        "--kit FILE is missing: without a recovery kit nobody opens a vault but its agents and its platform"
    )]
    NoKit,
    #[error("say where the bucket is: --bucket-dir DIR, or --s3-endpoint URL --bucket NAME")]
    NoPlace,
    #[error("the recovery kit {path} cannot be read: {source}")]
    KitFile { path: String, source: std::io::Error },
    #[error("{0}; try another copy of the kit")]
    Kit(#[from] KitError),
    #[error(
        "{0} holds no folder v1: name the folder that the bucket was copied into, keys and all (rclone copy REMOTE:BUCKET DIR makes one)"
    )]
    NoCopy(String),
    #[error("the endpoint needs a key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")]
    NoAccess,
    #[error("the endpoint cannot be used: {0}")]
    Endpoint(String),
    #[error("the bucket cannot be listed: {0}")]
    Listing(#[source] SourceError),
    #[error("the kit opens no vault: {0}")]
    NothingOpens(String),
    #[error("there is no snapshot {0}; see: everhold-agent rescue … list")]
    NoSnapshot(String),
    #[error("snapshot {0} cannot be read: {1}")]
    Unreadable(String, vault::manifest::ManifestError),
}

/// An open vault with what its bucket says.
pub struct Vault {
    pub open: OpenVault,
    pub snapshots: Arc<Snapshots>,
    pub objects: u64,
    pub bytes: u64,
}

/// Opens the kit and every vault of it. Blocking.
///
/// # Errors
/// See [`RescueError`].
pub fn open(place: &Place, runtime: &tokio::runtime::Handle) -> Result<Opened, RescueError> {
    let kit = place.kit.as_ref().ok_or(RescueError::NoKit)?;
    let failed = |source| RescueError::KitFile { path: kit.display().to_string(), source };
    let text = Zeroizing::new(fs::read_to_string(kit).map_err(failed)?);
    let kit = RecoveryKit::from_json(&text)?;
    let objects = bucket(place, runtime)?;
    let keys = key_store(place, runtime)?;
    // A copy of both buckets may lie in one folder.
    let keys: Option<&dyn Objects> = match &keys {
        Some(keys) => Some(&**keys),
        None if place.bucket_dir.is_some() => Some(&*objects),
        None => None,
    };
    let mut opened = open_kit(&kit, &objects, keys);
    if let Some(wanted) = place.vault {
        opened.vaults.retain(|vault| vault.vault == wanted);
    }
    if opened.vaults.is_empty() {
        let why: Vec<String> = opened
            .closed
            .iter()
            .map(|closed| format!("{}: {}", closed.vault, closed.why))
            .collect();
        let why = if why.is_empty() { "it names no such vault".to_owned() } else { why.join("; ") };
        return Err(RescueError::NothingOpens(why));
    }
    Ok(opened)
}

/// Reads the manifests of an open vault. Blocking.
///
/// # Errors
/// The bucket cannot be listed.
pub fn read(open: OpenVault) -> Result<Vault, RescueError> {
    let inventory =
        Inventory::take(&*open.objects, open.tenant, open.vault).map_err(RescueError::Listing)?;
    let snapshots = Arc::new(Snapshots::read(&open, &inventory));
    let objects = inventory.objects.len() as u64;
    Ok(Vault { open, snapshots, objects, bytes: inventory.bytes })
}

fn bucket(
    place: &Place,
    runtime: &tokio::runtime::Handle,
) -> Result<Arc<dyn Objects>, RescueError> {
    if let Some(folder) = &place.bucket_dir {
        if !folder.join("v1").is_dir() {
            return Err(RescueError::NoCopy(folder.display().to_string()));
        }
        return Ok(Arc::new(Folder::at(folder)));
    }
    let name = place.bucket.as_deref().ok_or(RescueError::NoPlace)?;
    Ok(Arc::new(endpoint(place, name, runtime)?))
}

fn key_store(
    place: &Place,
    runtime: &tokio::runtime::Handle,
) -> Result<Option<Arc<dyn Objects>>, RescueError> {
    Ok(match (&place.keys_dir, &place.key_bucket) {
        (Some(folder), _) => Some(Arc::new(Folder::at(folder))),
        (None, Some(name)) => Some(Arc::new(endpoint(place, name, runtime)?)),
        (None, None) => None,
    })
}

fn endpoint(
    place: &Place,
    bucket: &str,
    runtime: &tokio::runtime::Handle,
) -> Result<s3::S3, RescueError> {
    let url = place.s3_endpoint.as_ref().ok_or(RescueError::NoPlace)?;
    let access = &place.access;
    let (Some(id), Some(secret)) = (&access.access_key_id, &access.secret) else {
        return Err(RescueError::NoAccess);
    };
    let key = s3::Key {
        region: &access.region,
        id,
        secret: &secret.0,
        token: access.token.as_ref().map(|token| token.0.as_str()),
    };
    s3::S3::connect(url, bucket, &key, runtime.clone())
        .map_err(|error| RescueError::Endpoint(error.to_string()))
}
