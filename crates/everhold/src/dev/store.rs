//! The object store of `everhold dev`: the embedded one with a key for each job, or, for trying, any S3 endpoint with
//! one key for all of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use devstore::DevStore;
use domain::{Clock, SystemIds};
use process::config::Secret;
use serde::Deserialize;
use tokio::task::spawn_blocking;
use vault::store::Credentials;

use super::{
    BUCKET, KEY_BUCKET, REGION,
    manifest::Manifest,
    secrets::{Secrets, StoreKey},
};
use crate::config::{self, StoreCapabilities};

/// `--store FILE`: an endpoint and an administrator's key. In production each job has a key of its own
/// (`everhold config schema`); one for all is for trying a store.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    endpoint: String,
    #[serde(default = "usual_region")]
    region: String,
    #[serde(default = "usual_bucket")]
    bucket: String,
    #[serde(default = "usual_key_bucket")]
    key_bucket: String,
    access_key: String,
    secret_key: String,
}

fn usual_region() -> String {
    REGION.to_owned()
}
fn usual_bucket() -> String {
    BUCKET.to_owned()
}
fn usual_key_bucket() -> String {
    KEY_BUCKET.to_owned()
}

/// A store ready to be used, and to be served if it is the embedded one.
pub struct Prepared {
    pub config: config::Store,
    pub admin: Credentials,
    pub embedded: Option<DevStore>,
}

impl Prepared {
    /// The store of `file`, or the embedded one in `dir`, to be served at `endpoint`.
    pub async fn open(
        file: Option<&Path>,
        dir: PathBuf,
        secrets: &Secrets,
        endpoint: &str,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        if let Some(file) = file {
            return Self::given(file);
        }
        let keys = store_keys(secrets);
        let open = move || DevStore::open(devstore::Config { dir, keys, clock });
        Ok(Self {
            config: scoped(secrets, endpoint),
            admin: Credentials {
                access_key: secrets.store_admin.access_key.clone(),
                secret_key: secrets.store_admin.secret_key.clone(),
            },
            embedded: Some(spawn_blocking(open).await??),
        })
    }

    fn given(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("the store's settings, {}, cannot be read", file.display()))?;
        let given: Given = toml::from_str(&text).with_context(|| {
            format!("{} wants endpoint, access_key and secret_key", file.display())
        })?;
        let key = StoreKey { access_key: given.access_key, secret_key: given.secret_key };
        let config = one_key(&key, given.endpoint, given.region, given.bucket, given.key_bucket);
        let admin = Credentials { access_key: key.access_key, secret_key: key.secret_key };
        Ok(Self { config, admin, embedded: None })
    }
}

/// The name of the store for second copies.
const SECOND: &str = "second";

/// Stores for second copies by name, and their administrator.
pub fn copies(
    file: Option<&Path>,
) -> anyhow::Result<(BTreeMap<String, config::Store>, Option<Credentials>)> {
    let Some(file) = file else { return Ok((BTreeMap::new(), None)) };
    let given = Prepared::given(file)?;
    Ok((BTreeMap::from([(SECOND.to_owned(), given.config)]), Some(given.admin)))
}

/// The store of a state folder as `everhold store probe --state` needs it.
pub fn of_state(state: &Path) -> anyhow::Result<config::Store> {
    let s3 = Manifest::read(state)?.s3;
    let secrets = Secrets::load_or_make(&state.join("secrets"), &SystemIds, true)?;
    if s3.access_key == secrets.store_admin.access_key {
        return Ok(scoped(&secrets, &s3.endpoint));
    }
    let key = StoreKey { access_key: s3.access_key, secret_key: s3.secret_key };
    Ok(one_key(&key, s3.endpoint, s3.region, s3.bucket, KEY_BUCKET.to_owned()))
}

fn store_keys(secrets: &Secrets) -> Vec<devstore::Key> {
    use devstore::Policy;
    let key = |key: &StoreKey, policy, buckets: &[&str]| devstore::Key {
        access_key: key.access_key.clone(),
        secret_key: key.secret_key.clone(),
        policy,
        buckets: buckets.iter().map(|bucket| (*bucket).to_owned()).collect(),
    };
    vec![
        key(&secrets.store_admin, Policy::Administrator, &[]),
        key(&secrets.store_ingest, Policy::IngestSigner, &[BUCKET]),
        key(&secrets.store_restore, Policy::RestoreSigner, &[BUCKET]),
        key(&secrets.store_steward, Policy::Steward, &[BUCKET]),
        key(&secrets.store_reaper, Policy::Reaper, &[BUCKET]),
        key(&secrets.store_key_keeper, Policy::KeyKeeper, &[KEY_BUCKET]),
    ]
}

fn key_of(key: &StoreKey) -> config::StoreKey {
    config::StoreKey {
        access_key: key.access_key.clone(),
        secret_key: Secret::new(key.secret_key.clone()),
    }
}

/// The embedded store, with a key for each job.
pub fn scoped(secrets: &Secrets, endpoint: &str) -> config::Store {
    config::Store {
        ingest: key_of(&secrets.store_ingest),
        restore: key_of(&secrets.store_restore),
        steward: key_of(&secrets.store_steward),
        reaper: key_of(&secrets.store_reaper),
        key_keeper: key_of(&secrets.store_key_keeper),
        ..one_key(
            &secrets.store_ingest,
            endpoint.to_owned(),
            usual_region(),
            usual_bucket(),
            usual_key_bucket(),
        )
    }
}

fn one_key(
    key: &StoreKey,
    endpoint: String,
    region: String,
    bucket: String,
    key_bucket: String,
) -> config::Store {
    config::Store {
        endpoint: Some(endpoint),
        region,
        bucket,
        key_bucket,
        path_style: true,
        ingest: key_of(key),
        restore: key_of(key),
        steward: key_of(key),
        reaper: key_of(key),
        key_keeper: key_of(key),
        // The embedded store checks SHA-256; an MD5 beside it would only cost time.
        capabilities: StoreCapabilities { content_md5: false, ..StoreCapabilities::default() },
    }
}
