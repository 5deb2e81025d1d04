//! `everhold dev`: the whole platform on one machine, in one folder.
//!
//! Owns the order of starting and stopping: folder ≺ secrets ≺ PostgreSQL and store ≺ migrations, buckets,
//! accounts ≺ roles ≺ `dev.json`; the other way round at the end. Invariant: everything survives a restart and a
//! kill at any moment, and nothing it started outlives an orderly stop. What it builds on is configuration of the
//! same server that `everhold serve` runs.

mod accounts;
mod folder;
pub mod manifest;
mod ports;
pub mod postgres;
pub mod secrets;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use devstore::DevStore;
use domain::{Clock, IdGen, SystemClock, SystemIds};
use pg::migrate::{Migrator, Passwords};
use process::{config::Secret, lifecycle::Lifecycle, telemetry::TelemetryConfig};
use runtime::RoleName;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use vault::store::{Credentials, S3Store};

pub use folder::InUse;
use folder::StateFolder;
use manifest::{Login, Manifest, S3, TenantLogin};
use ports::Bound;
use postgres::{Cluster, Started};
use secrets::{Secrets, StoreKey};

use crate::{
    config::{self, Database, Keys, Listen, Retention, ServerConfig, StoreCapabilities},
    server::{Listeners, Server},
};

pub const REGION: &str = "us-east-1";
pub const BUCKET: &str = "everhold-vaults";
pub const KEY_BUCKET: &str = "everhold-keys";
const DATABASE: &str = "everhold";
/// Of the 20 seconds a stop may take: what PostgreSQL needs is kept back.
const DRAIN_WITHIN: Duration = Duration::from_secs(11);

/// How to start.
#[derive(Debug, Clone)]
pub struct Options {
    pub state: PathBuf,
    pub port: Option<u16>,
    pub pg_bin: Option<PathBuf>,
    pub portal: Option<PathBuf>,
    pub telemetry: TelemetryConfig,
}

/// A platform that answers.
pub struct Running {
    pub manifest: Manifest,
    pub admin_url: String,
    life: Lifecycle,
    store_stop: CancellationToken,
    store_task: tokio::task::JoinHandle<()>,
    cluster: Cluster,
    databases: Vec<pg::Db>,
    _folder: StateFolder,
}

/// Starts everything and writes `dev.json`. SIGTERM and SIGINT are watched from here on.
pub async fn start(options: &Options) -> anyhow::Result<Running> {
    let folder = StateFolder::take(&options.state)?;
    Manifest::remove(folder.path())?;
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdGen>) =
        (Arc::new(SystemClock), Arc::new(SystemIds));
    let secrets = Secrets::load_or_make(&folder.secrets(), &*ids, folder.has_data())?;
    let life = Lifecycle::new();
    life.stop_on_signals()?;
    let bound = ports::bind(folder.path(), options.port).await?;
    let (cluster, store) = tokio::try_join!(
        start_postgres(folder.postgres(), options.pg_bin.clone()),
        open_store(folder.store(), store_keys(&secrets), clock.clone()),
    )?;
    // From here on PostgreSQL runs: whatever fails, it is stopped again.
    match assemble(options, folder, secrets, life, bound, cluster.clone(), store, clock, ids).await
    {
        Ok(running) => Ok(running),
        Err(error) => {
            let stopped = spawn_blocking(move || cluster.stop()).await?;
            stopped.context("PostgreSQL is left running")?;
            Err(error)
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a start, each made just before")]
async fn assemble(
    options: &Options,
    folder: StateFolder,
    secrets: Secrets,
    life: Lifecycle,
    bound: Bound,
    cluster: Cluster,
    store: DevStore,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
) -> anyhow::Result<Running> {
    let stopping = life.token();
    let api_url = format!("http://localhost:{}", bound.ports.public);
    let endpoint = format!("http://127.0.0.1:{}", bound.ports.store);
    let owner_url = cluster.url("postgres", DATABASE);
    migrate(&cluster, &owner_url).await?;

    let store_stop = CancellationToken::new();
    let (serving, stop) = (store.clone(), store_stop.clone());
    let store_task = tokio::spawn(async move {
        let ended = serving.serve(bound.store, async move { stop.cancelled().await }).await;
        if let Err(error) = ended {
            tracing::error!(%error, "the embedded store ended");
        }
    });
    drop(store);

    let config = server_config(options, &folder, &secrets, &cluster, &api_url, &endpoint);
    let admin = Credentials {
        access_key: secrets.store_admin.access_key.clone(),
        secret_key: secrets.store_admin.secret_key.clone(),
    };
    S3Store::connect(config.store.engine(Some(admin))?).await?.ensure_buckets().await?;
    let server = Server::build(&config, &RoleName::ALL, clock, ids, None).await?;
    let platform = server.platforms.get(&RoleName::Auth).context("auth is built")?.clone();
    let databases = server.platforms.values().map(|platform| platform.db.clone()).collect();
    let installed = accounts::ensure(&platform, &secrets).await?;
    let enrolment_token = accounts::enrolment_token(&platform, &installed).await?;
    let admin_url = format!("http://127.0.0.1:{}", bound.ports.admin);
    server.start(&life, Listeners { public: bound.public, admin: bound.admin, internal: None });
    life.spawn("postgres_supervisor", supervise(cluster.clone(), life.token()));
    wait_until_ready(&api_url, &admin_url, &stopping).await?;

    let manifest = Manifest {
        portal_url: api_url.clone(),
        api_url,
        s3: S3 {
            endpoint,
            region: REGION.to_owned(),
            bucket: BUCKET.to_owned(),
            access_key: secrets.store_admin.access_key,
            secret_key: secrets.store_admin.secret_key,
        },
        postgres_url: owner_url,
        admin: Login { email: accounts::ADMIN.to_owned(), password: secrets.admin_password },
        msp: Login { email: accounts::MSP.to_owned(), password: secrets.msp_password },
        tenant: TenantLogin {
            id: installed.tenant.tenant_id,
            email: accounts::TENANT.to_owned(),
            password: secrets.tenant_password,
        },
        other_tenant: TenantLogin {
            id: installed.other_tenant.tenant_id,
            email: accounts::OTHER_TENANT.to_owned(),
            password: secrets.other_tenant_password,
        },
        enrolment_token,
    };
    manifest.write(folder.path())?;
    Ok(Running {
        manifest,
        admin_url,
        life,
        store_stop,
        store_task,
        cluster,
        databases,
        _folder: folder,
    })
}

impl Running {
    /// Cancelled when a signal asked for the end.
    pub fn stopping(&self) -> CancellationToken {
        self.life.token()
    }

    /// Stops roles, then the store, then PostgreSQL. Within 20 seconds.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.life.stop();
        let drained = self.life.drain(DRAIN_WITHIN).await;
        self.store_stop.cancel();
        if tokio::time::timeout(Duration::from_secs(3), self.store_task).await.is_err() {
            tracing::warn!("requests to the embedded store were cut off");
        }
        for db in &self.databases {
            // An idle pool closes at once; one that does not would only delay the stop that ends it anyway.
            let _ = tokio::time::timeout(Duration::from_millis(300), db.close()).await;
        }
        let cluster = self.cluster;
        spawn_blocking(move || cluster.stop()).await??;
        if !drained {
            bail!("a part of the platform did not stop in time");
        }
        Ok(())
    }
}

async fn start_postgres(folder: PathBuf, pg_bin: Option<PathBuf>) -> anyhow::Result<Cluster> {
    spawn_blocking(move || {
        let cluster = Cluster::open(&folder, pg_bin.as_deref())?;
        let started = cluster.start()?;
        let binaries = cluster.binaries();
        tracing::info!(version = binaries.major, folder = %binaries.folder.display(), "PostgreSQL");
        if started == Started::Adopted {
            tracing::info!("took over the PostgreSQL an earlier process left running");
        }
        anyhow::Ok(cluster)
    })
    .await?
}

async fn open_store(
    dir: PathBuf,
    keys: Vec<devstore::Key>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<DevStore> {
    Ok(spawn_blocking(move || DevStore::open(devstore::Config { dir, keys, clock })).await??)
}

/// Makes the database if it is not there, and brings it up to date.
async fn migrate(cluster: &Cluster, owner_url: &str) -> anyhow::Result<()> {
    crate::database::ensure(&cluster.url("postgres", "postgres"), DATABASE).await?;
    let report = Migrator::embedded()?.run(owner_url, &Passwords::default()).await?;
    if !report.applied.is_empty() {
        tracing::info!(applied = report.applied.len(), "database migrated");
    }
    Ok(())
}

/// Starts PostgreSQL again when it is gone without having been stopped by us.
async fn supervise(cluster: Cluster, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let cluster = cluster.clone();
        let checked =
            spawn_blocking(
                move || {
                    if cluster.is_running() { Ok(None) } else { cluster.start().map(Some) }
                },
            );
        match checked.await {
            Ok(Ok(Some(_))) => tracing::warn!("PostgreSQL was gone and has been started again"),
            Ok(Err(error)) => {
                tracing::error!(error = format!("{error:#}"), "PostgreSQL does not start");
            }
            Ok(Ok(None)) | Err(_) => {}
        }
    }
}

/// Everything answers: the public door, and every role's own checks.
async fn wait_until_ready(
    api_url: &str,
    admin_url: &str,
    stopping: &CancellationToken,
) -> anyhow::Result<()> {
    for _ in 0..300 {
        if stopping.is_cancelled() {
            bail!("stopped while starting");
        }
        let ready = crate::http::status(&format!("{admin_url}/readyz")).await == Some(200)
            && crate::http::status(&format!("{api_url}/openapi.json")).await == Some(200);
        if ready {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the platform was started but does not answer; see the log above")
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

/// The store of a state folder as `everhold store probe --state` needs it.
pub fn store_of_state(state: &Path) -> anyhow::Result<config::Store> {
    let manifest = Manifest::read(state)?;
    let secrets = Secrets::load_or_make(&state.join("secrets"), &SystemIds, true)?;
    Ok(store_config(&secrets, &manifest.s3.endpoint))
}

fn store_config(secrets: &Secrets, endpoint: &str) -> config::Store {
    let key = |key: &StoreKey| config::StoreKey {
        access_key: key.access_key.clone(),
        secret_key: Secret::new(key.secret_key.clone()),
    };
    config::Store {
        endpoint: Some(endpoint.to_owned()),
        region: REGION.to_owned(),
        bucket: BUCKET.to_owned(),
        key_bucket: KEY_BUCKET.to_owned(),
        path_style: true,
        ingest: key(&secrets.store_ingest),
        restore: key(&secrets.store_restore),
        steward: key(&secrets.store_steward),
        reaper: key(&secrets.store_reaper),
        key_keeper: key(&secrets.store_key_keeper),
        capabilities: StoreCapabilities::default(),
    }
}

fn server_config(
    options: &Options,
    folder: &StateFolder,
    secrets: &Secrets,
    cluster: &Cluster,
    api_url: &str,
    endpoint: &str,
) -> ServerConfig {
    let wrapper_file = folder.secrets().join("platform-wrapper.key");
    ServerConfig {
        public_url: api_url.to_owned(),
        portal: options.portal.clone(),
        telemetry: options.telemetry.clone(),
        ..config_of(secrets, cluster.url("everhold", DATABASE), endpoint, wrapper_file)
    }
}

fn config_of(
    secrets: &Secrets,
    url: String,
    endpoint: &str,
    wrapper_file: PathBuf,
) -> ServerConfig {
    let secret = |text: &str| Secret::new(text.to_owned());
    ServerConfig {
        public_url: "http://localhost".to_owned(),
        listen: Listen::default(),
        peers: std::collections::BTreeMap::new(),
        database: Database {
            url: Secret::new(url),
            owner_url: None,
            passwords: std::collections::BTreeMap::new(),
            max_connections: 16,
        },
        keys: Keys {
            access: secret(&secrets.access),
            access_verification: Vec::new(),
            service: secret(&secrets.service),
            receipt: secret(&secrets.receipt),
            roster: secret(&secrets.roster),
            wrapper_file,
        },
        store: store_config(secrets, endpoint),
        retention: Retention::default(),
        portal: None,
        telemetry: TelemetryConfig::default(),
    }
}

/// A complete configuration that leads nowhere: to build the roles for their OpenAPI document. `folder` must
/// exist.
pub fn sample_config(folder: &Path) -> anyhow::Result<ServerConfig> {
    let secrets = Secrets::load_or_make(&folder.join("secrets"), &SystemIds, false)?;
    let url = "postgres://everhold@localhost/everhold".to_owned();
    Ok(config_of(&secrets, url, "http://127.0.0.1:1", folder.join("wrapper.key")))
}
